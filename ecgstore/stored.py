"""One ECG out of a warehouse, as its source stored it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pyarrow.compute as pc

from ecgstore.catalog import Catalog
from ecgstore.errors import UnknownNameError, WarehouseError
from ecgstore.record import Record
from ecgstore.waveforms import read

if TYPE_CHECKING:
    from ecgstore.warehouse import Warehouse

__all__ = ["stored_record"]

_NEAREST = 3
_OWN_PLACE = {"record_id", "signal_sha256", "rate_hz", "n_samples", "leads", "quality"}
"""Columns of ``records`` that are not `Record.meta`."""


def stored_record(warehouse: Warehouse, record_id: str) -> Record:
    """Read one ECG: counts, gain, baseline and leads of ``waveforms``, the rest of ``records``.

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
    waveform = read(warehouse.table("waveforms").files(), record_id)
    if waveform is None:
        msg = "The waveform of this record is not there."
        raise WarehouseError(msg, path=warehouse.root, hint="Look for the cause: ecgstore verify")
    return Record(
        name=record_id.partition("/")[2] or record_id,
        leads=waveform.leads,
        rate_hz=math.nan if row["rate_hz"] is None else row["rate_hz"],
        digital=waveform.digital,
        gain=waveform.gain,
        baseline=waveform.baseline,
        meta={k: v for k, v in row.items() if v is not None and k not in _OWN_PLACE},
        quality=tuple(row["quality"] or ()),
    )


def _unknown(warehouse: Warehouse, record_id: str) -> UnknownNameError:
    with Catalog(warehouse.relations()) as catalog:
        nearest = catalog.table(
            "select record_id, count(*) over () as total from records "
            f"order by jaro_winkler_similarity(record_id, $id) desc, record_id limit {_NEAREST}",
            {"id": record_id},
        ).to_pydict()
    total = nearest["total"][0] if nearest["total"] else 0
    return UnknownNameError(record_id, kind="record", known=nearest["record_id"], total=total)
