"""Turn records into rows of the tables that hold them, and write those as shards."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

import numpy as np
import pyarrow as pa

from ecgstore.io.clinical import MEASUREMENTS
from ecgstore.record import COLUMNS, LEADS
from ecgstore.schema import TABLES
from ecgstore.storage.shards import ShardWriter, write_shards

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from ecgstore.record import Annotations, Record
    from ecgstore.storage.shards import Shard

__all__ = ["BATCH_ROWS", "FILLED", "Sinks"]

FILLED = ("waveforms", "signals", "annotations", "measurements", "labels")
"""Tables that an ingest fills, in the order of its commits; ``records`` comes after them."""

_WAVEFORMS, _SIGNALS = TABLES["waveforms"], TABLES["signals"]
_BATCH_BYTES = 2**26  # long records are written sooner than a whole row group of them

BATCH_ROWS = _WAVEFORMS.rows_per_group or 64
"""Records held in memory at once: a row group of ``waveforms``."""


class Sinks:
    """Gathers what records hold into shards of `FILLED`; without a folder it only takes them.

    Args:
        folder: Where the shards are written; None to write nothing.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._waveforms = _Batches(folder, "waveforms", _waveform_rows)
        self._signals = _Batches(folder, "signals", _signal_rows)
        self._small: dict[str, list[pa.Table]] = {name: [] for name in FILLED[2:]}
        self._shards: dict[str, list[Shard]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        for batches in (self._waveforms, self._signals):
            batches.end(keep=kind is None)

    def add(self, record_id: str, record: Record, measured: Mapping[str, float]) -> None:
        """Take one record.

        Args:
            record_id: Its key.
            record: What a reader gave.
            measured: What else is known to have been measured on it.
        """
        if any(lead in LEADS for lead in record.leads):
            self._waveforms.add(record_id, record, record.digital.nbytes)
        beside = sum(one.counts.nbytes for one in record.signals)
        if record.signals or any(lead not in LEADS for lead in record.leads):
            self._signals.add(record_id, record, record.digital.nbytes + beside)
        for one in record.annotations:
            self._small["annotations"].append(_annotation_rows(record_id, one))
        own = record.meta.get("measurements")
        values = {**(own if isinstance(own, dict) else {}), **measured}
        if values:
            source = str(record.meta["source_format"])
            self._small["measurements"].append(_measurement_rows(record_id, values, source))

    def add_labels(self, rows: pa.Table) -> None:
        """Take rows of ``labels``."""
        self._small["labels"].append(rows)

    def shards(self) -> dict[str, list[Shard]]:
        """Write what is left and return the shards of each table that got any."""
        found: dict[str, list[Shard]] = {}
        for batches in (self._waveforms, self._signals):
            batches.end(keep=True)
            found[batches.name] = batches.shards
        for name, rows in self._small.items():
            if rows and self._folder is not None:
                found[name] = write_shards(self._folder, TABLES[name], pa.concat_tables(rows))
        return {name: shards for name, shards in found.items() if shards}


class _Batches:
    """Gathers records into row groups of a table's shards."""

    def __init__(
        self,
        folder: Path | None,
        name: str,
        rows: Callable[[Sequence[tuple[str, Record]]], pa.Table],
    ) -> None:
        self._folder = folder
        self.name = name
        self._rows = rows
        self._writer: ShardWriter | None = None
        self._batch: list[tuple[str, Record]] = []
        self._bytes = 0
        self.shards: list[Shard] = []

    def add(self, record_id: str, record: Record, size: int) -> None:
        self._batch.append((record_id, record))
        self._bytes += size
        if self._bytes >= _BATCH_BYTES:
            self._write()
            self._finish()  # so that the writer does not wait for a whole row group
        elif len(self._batch) == BATCH_ROWS:
            self._write()

    def end(self, *, keep: bool) -> None:
        if keep:
            self._write()
            self._finish()
        elif self._writer is not None:
            self._writer.discard()
            self._writer = None

    def _write(self) -> None:
        if self._batch and self._folder is not None:
            self._writer = self._writer or ShardWriter(self._folder, TABLES[self.name])
            self._writer.write(self._rows(self._batch))
        self._batch, self._bytes = [], 0

    def _finish(self) -> None:
        if self._writer is not None and (shard := self._writer.close()) is not None:
            self.shards.append(shard)
        self._writer = None


def _waveform_rows(batch: Sequence[tuple[str, Record]]) -> pa.Table:
    """Return rows of ``waveforms``; samples are copied lead by lead, never one by one."""
    records = [record for _, record in batch]
    gains = [_per_lead(record, record.gain) for record in records]
    baselines = [_per_lead(record, record.baseline) for record in records]
    rows = [dict(zip(record.leads, record.digital, strict=True)) for record in records]
    samples = {
        column: _lists([row.get(lead) for row in rows])
        for column, lead in zip(COLUMNS, LEADS, strict=True)
    }
    return pa.table(
        {
            "record_id": [record_id for record_id, _ in batch],
            "gain": pa.array(gains, _WAVEFORMS.arrow.field("gain").type),
            "baseline": pa.array(baselines, _WAVEFORMS.arrow.field("baseline").type),
            **samples,
        }
    )


def _signal_rows(batch: Sequence[tuple[str, Record]]) -> pa.Table:
    """Return rows of ``signals``: leads beyond the twelve, then what is in other units or rates."""
    rows: list[dict[str, object]] = []
    samples: list[NDArray[np.int16] | None] = []
    for record_id, record in batch:
        scales = zip(record.gain.tolist(), record.baseline.tolist(), strict=True)
        leads = zip(record.leads, scales, record.digital, strict=True)
        own = [
            (lead, "mV", record.rate_hz, gain, baseline, counts)
            for lead, (gain, baseline), counts in leads
            if lead not in LEADS
        ]
        own += [
            (one.name, one.unit, one.rate_hz or record.rate_hz, one.gain, one.baseline, one.counts)
            for one in record.signals
        ]
        for number, (name, unit, rate_hz, gain, baseline, counts) in enumerate(own, 1):
            rows.append(
                {
                    "record_id": record_id,
                    "number": number,
                    "name": name,
                    "unit": unit,
                    "rate_hz": rate_hz,
                    "gain": gain,
                    "baseline": baseline,
                }
            )
            samples.append(counts.astype(np.int16, copy=False))
    schema = _SIGNALS.arrow
    table = pa.Table.from_pylist(rows, schema=pa.schema([schema.field(i) for i in range(7)]))
    return table.append_column("samples", _lists(samples))


def _annotation_rows(record_id: str, one: Annotations) -> pa.Table:
    schema = TABLES["annotations"].arrow
    n = len(one)
    columns = [
        pa.repeat(pa.scalar(record_id), n),
        pa.repeat(pa.scalar(one.annotator), n),
        np.arange(1, n + 1, dtype=np.int32),
        one.time_s,
        pa.array(one.sample, pa.int64(), mask=one.sample < 0),
        list(one.symbol),
        *(values.astype(np.int16) for values in (one.subtype, one.channel, one.number)),
        pa.array(one.text, pa.string()),
    ]
    return pa.table(columns, schema=schema)


def _measurement_rows(record_id: str, values: Mapping[str, float], source: str) -> pa.Table:
    rows = [
        {
            "record_id": record_id,
            "name": name,
            "value": value,
            "unit": MEASUREMENTS[name],
            "source": source,
        }
        for name, value in values.items()
    ]
    return pa.Table.from_pylist(rows, schema=TABLES["measurements"].arrow)


def _per_lead(record: Record, values: NDArray[np.generic]) -> list[float | None]:
    """Return one value for each of `LEADS`, None for a lead the record lacks."""
    own = dict(zip(record.leads, values.tolist(), strict=True))
    return [own.get(lead) for lead in LEADS]


def _lists(values: Sequence[NDArray[np.int16] | None]) -> pa.ListArray:
    """Return a list array whose rows are the arrays, NULL for None."""
    present = [row for row in values if row is not None]
    flat = np.concatenate(present) if present else np.empty(0, np.int16)
    ends = np.cumsum([0 if row is None else len(row) for row in values], dtype=np.int32)
    return pa.ListArray.from_arrays(
        pa.array(np.concatenate([np.zeros(1, np.int32), ends])),
        pa.array(flat),
        mask=pa.array([row is None for row in values]),
    )
