"""A corrupted or lacking lead made from the others, kept apart from what was measured.

What a network made is never written among the waveforms: it has a table of its own, which says
what made it and how its millivolts came about, and a drawing that says it in words.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ecgstore import paper
from ecgstore import signal as dsp
from ecgstore.errors import NotEnoughDataError, UnknownNameError
from ecgstore.first_use import introduce
from ecgstore.models.anyecg import prepared
from ecgstore.progress import Progress, Silent
from ecgstore.record import INVALID, LEADS, lead_name
from ecgstore.schema import table_schema
from ecgstore.statistics.reconstruction import rebuilt
from ecgstore.stored import stored_record

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from ecgstore.models.lead_generation import LeadGenerator
    from ecgstore.record import Record
    from ecgstore.warehouse import Warehouse

    Array = NDArray[np.float64]

__all__ = ["RepairResult", "repair"]

_COMMAND = "repair"
_OWN = "its own: mean of the lead as measured, and deviation of what the model is fed of it"
_OTHERS = "of the other leads: their median deviation, around 0 mV"


@dataclass(frozen=True, eq=False)
class RepairResult:
    """A lead that was reconstructed, not measured.

    Attributes:
        record_id: The record.
        lead: The lead.
        model: Registry name of the model.
        version: Digest of what makes its output.
        rate_hz: Samples per second of `signal`.
        scale: Where its millivolts come from, in words.
        metrics: ``psnr_db``, ``ssim`` and ``mae`` against the lead as measured, prepared as the
            model is fed; None each where nothing whole was measured.
        signal: ``(samples,)`` float32 millivolts.
        existing: Whether it was stored already.
    """

    record_id: str
    lead: str
    model: str
    version: str
    rate_hz: float
    scale: str
    metrics: Mapping[str, float | None]
    signal: NDArray[np.float32]
    existing: bool = False

    @property
    def row(self) -> dict[str, object]:
        """The result as one row, without its samples."""
        return {
            "record_id": self.record_id,
            "lead": self.lead,
            "model": self.model,
            "version": self.version,
            "seconds": len(self.signal) / self.rate_hz,
            "scale": self.scale,
            **self.metrics,
            "existing": self.existing,
        }

    def draw(self, record: Record, path: str | Path) -> Path:
        """Draw the record with this lead in a colour of its own, said to be reconstructed.

        Args:
            record: The record it was made for.
            path: PNG, SVG or PDF file.

        Raises:
            UsageError: The file cannot be written.
        """
        whole = _with_lead(record, self.lead)
        made = dsp.resample_polyphase(self.signal.astype(np.float64), self.rate_hz, record.rate_hz)
        at_rate = np.full(record.n_samples, np.nan)
        at_rate[: len(made)] = made[: record.n_samples]
        rhythm = "II" if "II" in whole.leads else whole.leads[0]
        figure = paper.draw(
            whole, title=self.record_id, rhythm=rhythm, reconstructed={self.lead: at_rate}
        )
        return paper.save(figure, path)

    def __repr__(self) -> str:
        return f"RepairResult({self.record_id!r}, {self.lead}, by {self.model}@{self.version})"

    def _repr_html_(self) -> str:
        return (
            f"<b>{self.record_id}</b>: {self.lead} reconstructed, not measured, "
            f"by {self.model}@{self.version}"
        )


def repair(
    warehouse: Warehouse,
    generator: LeadGenerator,
    record_id: str,
    lead: str,
    *,
    overwrite: bool = False,
    dry_run: bool = False,
    progress: Progress | None = None,
) -> RepairResult:
    """Make a lead of a record from the others and keep it in ``reconstructions``.

    The lead itself is never shown to the network, whether it was measured or not. Leads with lost
    samples are left out. Of a record longer than the model's windows, what is behind the last
    whole window is not made.

    The network knows no millivolts. Where anything of the lead was measured, the result has the
    mean of that, and the deviation of it after the model's filters; else mean 0 and the median of
    the other leads' deviations [chosen].

    Args:
        warehouse: Where the record is.
        generator: The model.
        record_id: The record.
        lead: The lead in any usual spelling.
        overwrite: Make it again where it is stored.
        dry_run: Write nothing.
        progress: Told the terms of the model on its first use.

    Raises:
        NotEnoughDataError: No other lead is whole.
        UnfitRecordError: The model cannot take the record.
        UnknownNameError: There is no such record, or no such lead.
        UsageError: The model cannot make leads.
    """
    name = lead_name(lead)
    if name is None:
        raise UnknownNameError(lead, kind="lead", known=LEADS)
    encoder = generator.encoder
    record = stored_record(warehouse, record_id)
    key = {"record_id": record_id, "lead": name, "model": encoder.spec.name}
    key["version"] = encoder.version
    if not overwrite and (found := _stored(warehouse, key)) is not None:
        return found
    result = _made(generator, record, key)
    if not dry_run:
        introduce(warehouse, encoder, command=_COMMAND, progress=progress or Silent())
        with warehouse.shared():  # so that nobody erases the record meanwhile
            stored_record(warehouse, record_id)
            write = warehouse.replace if overwrite else warehouse.append
            write("reconstructions", _rows(result), command=_COMMAND)
    return result


def _made(generator: LeadGenerator, record: Record, key: Mapping[str, str]) -> RepairResult:
    encoder, lead = generator.encoder, key["lead"]
    rows = dict(zip(record.leads, record.signal_mv, strict=True))
    own = rows.pop(lead, np.full(record.n_samples, np.nan))
    others = {one: mv for one, mv in rows.items() if one in LEADS and np.isfinite(mv).all()}
    if not others:
        msg = f"No lead of {key['record_id']!r} besides {lead} is whole."
        raise NotEnoughDataError(msg, task=_COMMAND, counts={"leads": 0})
    windows = encoder.prepare(
        np.stack(list(others.values())), rate_hz=record.rate_hz, leads=list(others)
    )
    length = dsp.polyphase_length(record.n_samples, record.rate_hz, encoder.rate_hz)
    made = generator.generate(windows, list(others), lead).reshape(-1)[:length].astype(np.float64)
    variant = encoder.variant.name
    measured = np.isfinite(own)
    metrics: dict[str, float | None] = dict.fromkeys(("psnr_db", "ssim", "mae"))
    if measured.any() and np.ptp(own[measured]) > 0:
        places = np.arange(len(own))
        filled = np.interp(places, places[measured], own[measured])
        fed, deviation = _deviation(filled, record.rate_hz, variant)
        made, scale = made * deviation + own[measured].mean(), _OWN
        if measured.all():
            metrics |= rebuilt(fed[: len(made)], made)
    else:
        each = [_deviation(mv, record.rate_hz, variant)[1] for mv in others.values()]
        made, scale = made * np.median(each), _OTHERS
    return RepairResult(
        record_id=key["record_id"],
        lead=key["lead"],
        model=key["model"],
        version=key["version"],
        rate_hz=encoder.rate_hz,
        scale=scale,
        metrics=metrics,
        signal=made.astype(np.float32),
    )


def _deviation(mv: Array, rate_hz: float, variant: str) -> tuple[Array, float]:
    """Return a lead as the model is fed, and how many millivolts one unit of that is.

    That is the slope of the lead against what is fed of it: filters take away, and what they take
    does not go along with what they leave.
    """
    fed = prepared(mv[None], rate_hz, dsp, variant=variant)[0]
    plain = dsp.resample_polyphase(mv, rate_hz, 300.0)
    return fed, float(((plain - plain.mean()) * fed).mean())


def _with_lead(record: Record, lead: str) -> Record:
    """Return the record with a row for a lead, of lost samples where it has none."""
    if lead in record.leads:
        return record
    standard = [one for one in LEADS if one in record.leads or one == lead]
    at = standard.index(lead)
    lost = np.full((1, record.n_samples), INVALID, np.int16)
    return replace(
        record,
        leads=(*record.leads[:at], lead, *record.leads[at:]),
        digital=np.concatenate([record.digital[:at], lost, record.digital[at:]]),
        gain=np.insert(record.gain, at, 1.0),
        baseline=np.insert(record.baseline, at, 0),
    )


def _rows(result: RepairResult) -> pa.Table:
    row = {name: getattr(result, name) for name in ("record_id", "lead", "model", "version")}
    row |= {"rate_hz": result.rate_hz, "scale": result.scale, **result.metrics}
    schema = table_schema("reconstructions").arrow
    return pa.Table.from_pylist([{**row, "signal": result.signal.tolist()}], schema=schema)


def _stored(warehouse: Warehouse, key: Mapping[str, str]) -> RepairResult | None:
    """Return what was made before, None where nothing was."""
    if not warehouse.files("reconstructions"):
        return None
    mine = pc.scalar(value=True)
    for name, value in key.items():
        mine &= pc.field(name) == value
    found = warehouse.table("reconstructions").read(where=mine).to_pylist()
    if not found:
        return None
    row = found[0]
    return RepairResult(
        record_id=key["record_id"],
        lead=key["lead"],
        model=key["model"],
        version=key["version"],
        rate_hz=row["rate_hz"],
        scale=row["scale"],
        metrics={name: row[name] for name in ("psnr_db", "ssim", "mae")},
        signal=np.array(row["signal"], np.float32),
        existing=True,
    )
