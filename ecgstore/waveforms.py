"""From rows of the ``waveforms`` table back to signals in millivolts.

Every page that is decoded is checked against its checksum, where its writer made one.
"""

from __future__ import annotations

import functools
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ecgstore import settings
from ecgstore.errors import DamagedError
from ecgstore.record import COLUMNS, INVALID, LEADS, Signal

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

__all__ = ["Waveform", "decode", "read", "scan"]

_FOOTERS = 64
"""Footers kept parsed, each of some 100 kB in its file; of all shards only the limits are kept."""
_ANY = ("", chr(0x10FFFF))
_ROWS_AT_ONCE = 8
"""Rows decoded between two looks whether the wanted one is among them; fewer cost more in calls."""


@dataclass(frozen=True, eq=False)
class Waveform:
    """The samples of one record.

    Attributes:
        record_id: Key of the record.
        leads: Names of the leads it has, in standard order.
        digital: ``(leads, samples)`` int16 ADC counts; `INVALID` marks a lost sample.
        gain: ``(leads,)`` float64 counts per millivolt.
        baseline: ``(leads,)`` int32 count that stands for 0 mV.
    """

    record_id: str
    leads: tuple[str, ...]
    digital: NDArray[np.int16]
    gain: NDArray[np.float64]
    baseline: NDArray[np.int32]

    @property
    def signal_mv(self) -> NDArray[np.float64]:
        """The signal, ``(leads, samples)`` float64 millivolts, NaN where a sample is invalid."""
        mv = (self.digital - self.baseline[:, None].astype(np.float64)) / self.gain[:, None]
        lost = self.digital == INVALID
        if lost.any():
            mv[lost] = np.nan
        return mv


def decode(rows: pa.Table) -> Iterator[Waveform]:
    """Yield the waveform of each row of (a part of) the ``waveforms`` table."""
    lists = {name: _lists(rows.column(name)) for name in ("gain", "baseline", *COLUMNS)}
    for i, record_id in enumerate(rows.column("record_id").to_pylist()):
        stored = {name: values[start[i] : start[i + 1]] for name, (start, values) in lists.items()}
        present = [k for k, name in enumerate(COLUMNS) if len(stored[name])]
        yield Waveform(
            record_id=record_id,
            leads=tuple(LEADS[k] for k in present),
            digital=np.stack([stored[COLUMNS[k]] for k in present]),
            gain=stored["gain"][present].astype(np.float64),
            baseline=stored["baseline"][present].astype(np.int32),
        )


def signals_of(rows: pa.Table) -> list[Signal]:
    """Return the signal of each row of (a part of) the ``signals`` table."""
    start, values = _lists(rows.column("samples"))
    samples = values.astype(np.int16, copy=False)
    columns = [rows.column(name).to_pylist() for name in ("name", "gain", "baseline", "unit")]
    rates = rows.column("rate_hz").to_pylist()
    return [
        Signal(name, samples[start[i] : start[i + 1]], gain, baseline, unit, rates[i])
        for i, (name, gain, baseline, unit) in enumerate(zip(*columns, strict=True))
    ]


def scan(
    files: Sequence[Path],
    wanted: Collection[str] | None = None,
    *,
    rows: int = 64,
    ahead: bool = False,
) -> Iterator[Waveform]:
    """Stream waveforms in shard order, a row group at a time.

    Args:
        files: Shards of the ``waveforms`` table.
        wanted: Record ids to yield; None for all. A row group without any is not decoded.
        rows: Rows decoded at once; the row groups of the table hold 64.
        ahead: Read the next row group, in a thread, while this one is used.

    Raises:
        DamagedError: A shard is missing or damaged.
    """
    groups = _groups(files, wanted)
    for table in _ahead(groups) if ahead else groups:
        for start in range(0, len(table), rows):
            yield from decode(table.slice(start, rows))


def _groups(files: Sequence[Path], wanted: Collection[str] | None) -> Iterator[pa.Table]:
    """Yield the rows that are wanted, a row group at a time."""
    for path in files:
        with _opened(path) as shard:
            for group in range(shard.num_row_groups):
                with _named(path):
                    table = _group(shard, group, wanted)
                yield table


def _ahead(tables: Iterator[pa.Table]) -> Iterator[pa.Table]:
    """Yield the same, one more being made meanwhile."""
    with ThreadPoolExecutor(1) as reader:
        coming = reader.submit(next, tables, None)
        while (table := coming.result()) is not None:
            coming = reader.submit(next, tables, None)
            yield table


def read(files: Sequence[Path], record_id: str) -> Waveform | None:
    """Read one record, None when no shard holds it.

    Row groups whose limits rule it out are skipped, and none is decoded past its row. What
    the footers of shards tell of ids is read once a process.

    Args:
        files: Shards of the ``waveforms`` table.
        record_id: Its key.

    Raises:
        DamagedError: A shard is missing or damaged.
    """
    for path in files:
        with _named(path):
            lowest, highest, limits = _limits(path)
            if not lowest <= record_id <= highest:
                continue
            groups = [i for i, (low, high) in enumerate(limits) if low <= record_id <= high]
            footer = _footer(path)
        if not groups:
            continue
        with _opened(path, footer) as shard, _named(path):
            ids = shard.read_row_groups(groups, columns=["record_id"])["record_id"]
            row = pc.index(ids, record_id).as_py()
            if row >= 0:
                return next(decode(_row(shard, groups, row)))
    return None


def _row(shard: pq.ParquetFile, groups: Sequence[int], row: int) -> pa.Table:
    """Return a row of some row groups, which are counted as one."""
    ends = accumulate(shard.metadata.row_group(group).num_rows for group in groups)
    group, end = next(pair for pair in zip(groups, ends, strict=True) if row < pair[1])
    row -= end - shard.metadata.row_group(group).num_rows
    several = settings.threads() > 1
    for batch in shard.iter_batches(_ROWS_AT_ONCE, row_groups=[group], use_threads=several):
        if row < len(batch):
            return pa.Table.from_batches([batch.slice(row, 1)])
        row -= len(batch)
    msg = "A row group holds fewer rows than its footer says."
    raise pa.ArrowInvalid(msg)


def _group(shard: pq.ParquetFile, group: int, wanted: Collection[str] | None) -> pa.Table:
    """Return the rows of a row group that are wanted."""
    if wanted is None:
        return shard.read_row_group(group, use_threads=settings.threads() > 1)
    ids = shard.read_row_group(group, columns=["record_id"]).column(0)
    keep = [i for i, name in enumerate(ids.to_pylist()) if name in wanted]
    if not keep:
        return shard.schema_arrow.empty_table()
    table = shard.read_row_group(group, use_threads=settings.threads() > 1)
    return table if len(keep) == len(table) else table.take(keep)


@functools.cache
def _limits(path: Path) -> tuple[str, str, list[tuple[str, str]]]:
    """Return between what the ids of a shard lie, and those of each of its row groups."""
    footer = _footer(path)
    column = footer.schema.names.index("record_id")
    limits = []
    for group in range(footer.num_row_groups):
        found = footer.row_group(group).column(column).statistics
        known = found is not None and found.has_min_max
        limits.append((found.min, found.max) if known else _ANY)
    lows, highs = zip(*limits, strict=True) if limits else ([""], [""])
    return min(lows), max(highs), limits


@functools.lru_cache(_FOOTERS)
def _footer(path: Path) -> pq.FileMetaData:
    """Return the footer of a shard, which never changes."""
    return pq.read_metadata(path)


@contextmanager
def _opened(path: Path, footer: pq.FileMetaData | None = None) -> Iterator[pq.ParquetFile]:
    with _named(path):
        shard = pq.ParquetFile(path, metadata=footer, page_checksum_verification=True)
    with shard:
        yield shard


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Let what Parquet has to say of a file leave as an error that names the file."""
    try:
        yield
    except DamagedError:
        raise
    except (OSError, pa.ArrowException) as error:
        what = "is missing" if isinstance(error, FileNotFoundError) else "cannot be read"
        msg = f"Table 'waveforms': the shard {path.name!r} {what}."
        raise DamagedError(msg, path=path.parent, table="waveforms", file=path.name) from error


def _lists(column: pa.ChunkedArray) -> tuple[NDArray[np.int64], NDArray[np.generic]]:
    """Return where each list starts and all their elements, a NULL list being empty."""
    array = column.combine_chunks()
    lengths = np.nan_to_num(array.value_lengths().to_numpy(zero_copy_only=False)).astype(np.int64)
    start = np.concatenate([[0], np.cumsum(lengths)])
    return start, array.flatten().to_numpy(zero_copy_only=False)
