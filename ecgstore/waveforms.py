"""From rows of the ``waveforms`` table back to signals in millivolts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow.parquet as pq

from ecgstore.record import COLUMNS, INVALID, LEADS

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence
    from pathlib import Path

    import pyarrow as pa
    from numpy.typing import NDArray

__all__ = ["Waveform", "decode", "scan"]


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


def scan(
    files: Sequence[Path], wanted: Collection[str] | None = None, *, rows: int = 64
) -> Iterator[Waveform]:
    """Stream waveforms in shard order, a row group at a time.

    Args:
        files: Shards of the ``waveforms`` table.
        wanted: Record ids to yield; None for all. A row group without any is not decoded.
        rows: Rows decoded at once; the row groups of the table hold 64.
    """
    for path in files:
        with pq.ParquetFile(path) as shard:
            for group in range(shard.num_row_groups):
                if wanted is not None:
                    ids = shard.read_row_group(group, columns=["record_id"]).column(0)
                    keep = [i for i, name in enumerate(ids.to_pylist()) if name in wanted]
                    if not keep:
                        continue
                table = shard.read_row_group(group, use_threads=False)
                if wanted is not None and len(keep) < len(table):
                    table = table.take(keep)
                for start in range(0, len(table), rows):
                    yield from decode(table.slice(start, rows))


def _lists(column: pa.ChunkedArray) -> tuple[NDArray[np.int64], NDArray[np.generic]]:
    """Return where each list starts and all their elements, a NULL list being empty."""
    array = column.combine_chunks()
    lengths = np.nan_to_num(array.value_lengths().to_numpy(zero_copy_only=False)).astype(np.int64)
    start = np.concatenate([[0], np.cumsum(lengths)])
    return start, array.flatten().to_numpy(zero_copy_only=False)
