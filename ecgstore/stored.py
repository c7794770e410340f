"""One ECG out of a warehouse, as its source stored it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import pyarrow.compute as pc

from ecgstore.catalog import Catalog
from ecgstore.errors import UnknownNameError, WarehouseError
from ecgstore.record import LEADS, Annotations, Record, Signal
from ecgstore.waveforms import Waveform, read, signals_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ecgstore.warehouse import Warehouse

__all__ = ["stored_record"]

_NEAREST = 3
_NONE = Waveform("", (), np.empty((0, 0), np.int16), np.empty(0, np.float64), np.empty(0, np.int32))
_OWN_PLACE = {"record_id", "signal_sha256", "rate_hz", "n_samples", "leads", "quality"}
"""Columns of ``records`` that are not `Record.meta`."""


def stored_record(warehouse: Warehouse, record_id: str) -> Record:
    """Read one ECG: the twelve leads of ``waveforms``, the others of ``signals``, the rest.

    Args:
        warehouse: Read at the version it is opened at.
        record_id: Key of the record, ``dataset/name``.

    Raises:
        UnknownNameError: There is no such record; the error names the nearest.
        WarehouseError: Its waveform is not there, or a shard is damaged.
    """
    found = warehouse.table("records").read(where=pc.field("record_id") == record_id).to_pylist()
    if not found:
        raise _unknown(warehouse, record_id)
    row = found[0]
    beyond = [lead for lead in row["leads"] or () if lead not in LEADS]
    standard = row["leads"] is None or len(row["leads"]) > len(beyond)
    waveform = read(warehouse.files("waveforms"), record_id) if standard else _NONE
    if waveform is None:
        msg = "The waveform of this record is not there."
        raise WarehouseError(msg, path=warehouse.root, hint="Look for the cause: ecgstore verify")
    rate_hz = math.nan if row["rate_hz"] is None else row["rate_hz"]
    signals = _signals(warehouse, record_id)
    beside = signals[: len(beyond)]
    return Record(
        name=record_id.partition("/")[2] or record_id,
        leads=(*waveform.leads, *(one.name for one in beside)),
        rate_hz=rate_hz,
        digital=_stacked(waveform.digital, [one.counts for one in beside]),
        gain=np.concatenate([waveform.gain, [one.gain for one in beside]]),
        baseline=np.concatenate(
            [waveform.baseline, np.array([one.baseline for one in beside], np.int32)]
        ),
        meta={k: v for k, v in row.items() if v is not None and k not in _OWN_PLACE},
        quality=tuple(row["quality"] or ()),
        signals=tuple(signals[len(beyond) :]),
        annotations=_annotations(warehouse, record_id),
    )


def _stacked(
    digital: NDArray[np.int16], beside: list[NDArray[np.signedinteger]]
) -> NDArray[np.int16]:
    if not beside:
        return digital
    return np.concatenate([digital.reshape(-1, len(beside[0])), np.stack(beside)]).astype(np.int16)


def _signals(warehouse: Warehouse, record_id: str) -> list[Signal]:
    """Return what a record holds besides the twelve leads, in the order it was stored."""
    if not warehouse.files("signals"):
        return []
    rows = warehouse.table("signals").read(where=pc.field("record_id") == record_id)
    return signals_of(rows.sort_by("number"))


def _annotations(warehouse: Warehouse, record_id: str) -> tuple[Annotations, ...]:
    if not warehouse.files("annotations"):
        return ()
    rows = (
        warehouse.table("annotations")
        .read(where=pc.field("record_id") == record_id)
        .sort_by("number")
    )
    found = []
    for annotator in dict.fromkeys(sorted(rows["annotator"].to_pylist())):
        own = rows.filter(pc.equal(rows["annotator"], annotator))
        numbers = (own[name].to_numpy().astype(np.int8) for name in ("subtype", "channel", "num"))
        subtype, channel, number = numbers
        found.append(
            Annotations(
                annotator=annotator,
                time_s=own["time_s"].to_numpy(),
                sample=pc.fill_null(own["sample"], -1).to_numpy(),
                symbol=tuple(own["symbol"].to_pylist()),
                subtype=subtype,
                channel=channel,
                number=number,
                text=tuple(own["text"].to_pylist()),
            )
        )
    return tuple(found)


def _unknown(warehouse: Warehouse, record_id: str) -> UnknownNameError:
    with Catalog(warehouse.relations()) as catalog:
        nearest = catalog.table(
            "select record_id, count(*) over () as total from records "
            f"order by jaro_winkler_similarity(record_id, $id) desc, record_id limit {_NEAREST}",
            {"id": record_id},
        ).to_pydict()
    total = nearest["total"][0] if nearest["total"] else 0
    return UnknownNameError(record_id, kind="record", known=nearest["record_id"], total=total)
