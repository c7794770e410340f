"""What a worker of an ingest does: files in, one shard of samples and a few rows out."""

from __future__ import annotations

import contextlib
import datetime as dt
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

import numpy as np
import pyarrow as pa

from ecgstore import io
from ecgstore.errors import ReadError
from ecgstore.record import COLUMNS, LEADS
from ecgstore.schema import TABLES
from ecgstore.storage.shards import Shard, ShardWriter, write_shards

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from ecgstore.datasets import Source
    from ecgstore.pool import Pulse
    from ecgstore.record import Record

__all__ = ["BATCH_ROWS", "Done", "Task", "reject", "take_in"]

_WAVEFORMS, _RECORDS, _LABELS = TABLES["waveforms"], TABLES["records"], TABLES["labels"]
_BATCH_BYTES = 2**26  # long records are written sooner than a whole row group of them

_PULSE_ROWS = 16  # records between two reports of progress

BATCH_ROWS = _WAVEFORMS.rows_per_group or 64
"""Records held in memory at once: a row group of ``waveforms``."""


@dataclass(frozen=True)
class Task:
    """Work for one worker: files that make one shard.

    Attributes:
        folders: Staging folders of ``waveforms`` and ``labels``; None in a dry run.
        dataset: Name of the dataset.
        reader: Reader to use, or ``auto``.
        tasks: Tasks in which every record has a label.
        sources: The files.
        stop: Whether the first file that cannot be read ends the work.
    """

    folders: tuple[Path, Path] | None
    dataset: str
    reader: str
    tasks: tuple[str, ...]
    sources: tuple[Source, ...]
    stop: bool


@dataclass(frozen=True)
class Done:
    """What a worker made of its task: shards on disk, not committed, and rows."""

    waveforms: list[Shard] = field(default_factory=list)
    labels: list[Shard] = field(default_factory=list)
    records: pa.Table = field(default_factory=_RECORDS.arrow.empty_table)
    rejects: list[dict[str, object]] = field(default_factory=list)


def reject(dataset: str, uri: str, reason: str, *, reader: str, detail: str) -> dict[str, object]:
    """Return a row of ``rejects``; its address is the dataset and the path within it."""
    return {
        "source_uri": f"{dataset}/{uri}",
        "reason": reason,
        "reader": reader,
        "detail": detail,
        "at": dt.datetime.now(dt.UTC),
    }


def take_in(task: Task, pulse: Pulse) -> Done:
    """Read the files of a task and write their shards.

    Raises:
        ReadError: A file cannot be read and the task says to stop.
        WarehouseError: A shard cannot be written.
    """
    rows: list[dict[str, object]] = []
    rejects: list[dict[str, object]] = []
    kept: list[Source] = []
    done = refused = 0
    with _WaveformSink(task.folders and task.folders[0]) as sink:
        for source in task.sources:
            try:
                record = io.read(source.path, reader=task.reader)
            except ReadError as error:
                if task.stop:
                    raise
                rejects.append(_rejected(task, source, error))
                refused += 1
            else:
                record_id = f"{task.dataset}/{source.name}"
                sink.add(record_id, record)
                rows.append(_row(task.dataset, record_id, source, record))
                kept.append(source)
            done += 1
            if done == _PULSE_ROWS:
                pulse(done, refused)
                done = refused = 0
    pulse(done, refused)
    labels = []
    if task.folders and kept:
        labels = write_shards(task.folders[1], _LABELS, _label_rows(task, kept))
    return Done(sink.shards, labels, pa.Table.from_pylist(rows, schema=_RECORDS.arrow), rejects)


def _rejected(task: Task, source: Source, error: ReadError) -> dict[str, object]:
    reader = task.reader
    if reader == "auto":
        with contextlib.suppress(ReadError):
            reader = io.detect(source.path)
    return reject(task.dataset, source.uri, error.reason, reader=reader, detail=error.message)


def _row(dataset: str, record_id: str, source: Source, record: Record) -> dict[str, object]:
    known = {**record.meta, **source.meta}
    return {
        **{name: known[name] for name in _RECORDS.arrow.names if name in known},
        "record_id": record_id,
        "signal_sha256": record.signal_sha256,
        "dataset": dataset,
        "source_uri": f"{dataset}/{source.uri}",
        "rate_hz": record.rate_hz,
        "n_samples": record.n_samples,
        "leads": list(record.leads),
        "quality": [*record.quality, *source.quality],
    }


def _label_rows(task: Task, sources: Sequence[Source]) -> pa.Table:
    """Return the labels of some records: what their sources say, and 0 in the other tasks."""
    ids: list[str] = []
    names: list[str] = []
    labels: list[float] = []
    likelihoods: list[float | None] = []
    for source in sources:
        given = {entry.task: entry for entry in source.labels}
        own = list(dict.fromkeys((*task.tasks, *given)))
        ids += [f"{task.dataset}/{source.name}"] * len(own)
        names += own
        labels += [given[name].label if name in given else 0.0 for name in own]
        likelihoods += [given[name].likelihood if name in given else None for name in own]
    return pa.table([ids, names, labels, likelihoods], schema=_LABELS.arrow)


class _WaveformSink:
    """Gathers records into row groups of a shard; without a folder it only takes them."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._writer: ShardWriter | None = None
        self._batch: list[tuple[str, Record]] = []
        self._bytes = 0
        self.shards: list[Shard] = []

    def add(self, record_id: str, record: Record) -> None:
        self._batch.append((record_id, record))
        self._bytes += record.digital.nbytes
        if self._bytes >= _BATCH_BYTES:
            self._write()
            self._finish()  # so that the writer does not wait for a whole row group
        elif len(self._batch) == BATCH_ROWS:
            self._write()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._write()
            self._finish()
        elif self._writer is not None:
            self._writer.discard()

    def _write(self) -> None:
        if self._batch and self._folder is not None:
            self._writer = self._writer or ShardWriter(self._folder, _WAVEFORMS)
            self._writer.write(_waveform_rows(self._batch))
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
