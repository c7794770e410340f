"""The file behind the feed: the samples of one shard of ``waveforms``, ready to be mapped.

An Arrow file whose rows are the records of the shard in its order. Each row holds all twelve leads
one after the other, int16 and uncompressed, so a record is one piece of the file and of memory.
Like the shard it is named by the SHA-256 of its bytes.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ecgstore.record import COLUMNS, INVALID, LEADS
from ecgstore.waveforms import Waveform, scan

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from ecgstore.storage import disk

__all__ = ["Block", "mapped", "room", "write_copy"]

_ROWS = 64
"""Rows copied at once: a row group of ``waveforms``."""
_ROW_BYTES = 512
"""Room a row takes besides its samples: id, gains, baselines, and its part of the file's frame."""
_TWELVE = len(LEADS)

_SCHEMA = pa.schema(
    [
        ("record_id", pa.string()),
        ("present", pa.list_(pa.bool_(), _TWELVE)),
        ("gain", pa.list_(pa.float64(), _TWELVE)),
        ("baseline", pa.list_(pa.int32(), _TWELVE)),
        ("digital", pa.large_list(pa.int16())),
    ]
)


@dataclass(frozen=True, eq=False)
class Block:
    """Neighbouring rows of a copy: read-only views of the map, which lives as long as one of them.

    Attributes:
        record_ids: Their keys.
        present: ``(rows, 12)`` bool, whether the record has the lead.
        gain: ``(rows, 12)`` float64 counts per millivolt, NaN for a missing lead.
        baseline: ``(rows, 12)`` int32 count that stands for 0 mV.
        start: ``(rows + 1,)`` where in `digital` each row begins, and where the last ends.
        digital: int16 samples of all rows, `INVALID` for those of a missing lead.
    """

    record_ids: list[str]
    present: NDArray[np.bool_]
    gain: NDArray[np.float64]
    baseline: NDArray[np.int32]
    start: NDArray[np.int64]
    digital: NDArray[np.int16]

    def samples(self, row: int) -> NDArray[np.int16]:
        """Return ``(12, samples)`` of a row."""
        return self.digital[self.start[row] : self.start[row + 1]].reshape(_TWELVE, -1)

    def waveform(self, row: int) -> Waveform:
        """Return a row without its missing leads."""
        present, samples = self.present[row], self.samples(row)
        return Waveform(
            record_id=self.record_ids[row],
            leads=tuple(lead for lead, has in zip(LEADS, present, strict=True) if has),
            digital=samples if present.all() else samples[present],
            gain=self.gain[row, present],
            baseline=self.baseline[row, present],
        )


def room(shard: Path) -> tuple[int, int]:
    """Return how many records a shard holds and how many bytes their copy takes at most."""
    footer = pq.read_metadata(shard)
    groups = map(footer.row_group, range(footer.num_row_groups))
    samples = sum(_TWELVE * _most_samples(group) for group in groups)
    return footer.num_rows, 2 * samples + _ROW_BYTES * footer.num_rows


def write_copy(shard: Path, file: disk.File, *, step: Callable[[int], object]) -> str:
    """Write the copy of a shard, force it to disk and return its SHA-256.

    Args:
        shard: A shard of ``waveforms``; a row group of it is in memory at a time.
        file: A new file.
        step: Called with the number of records written, as they are.

    Raises:
        DamagedError: The shard is missing or damaged.
        OSError: The copy cannot be written.
    """
    waveforms, sink = scan([shard]), _Sink(file)
    with pa.ipc.new_file(sink, _SCHEMA) as writer:
        while rows := list(islice(waveforms, _ROWS)):
            writer.write_batch(_packed(rows))
            step(len(rows))
    file.sync()
    return sink.digest.hexdigest()


def mapped(copy: Path) -> list[Block]:
    """Map a copy into memory; no file stays open."""
    with pa.memory_map(str(copy)) as file, pa.ipc.open_file(file) as rows:
        return [_block(rows.get_batch(i)) for i in range(rows.num_record_batches)]


def _most_samples(group: pq.RowGroupMetaData) -> int:
    """Return the samples of the lead that has most of them in a row group."""
    columns = map(group.column, range(group.num_columns))
    leads = (one for one in columns if one.path_in_schema.partition(".")[0] in COLUMNS)
    return max(int(one.num_values) for one in leads)


def _packed(waveforms: Sequence[Waveform]) -> pa.RecordBatch:
    shape = (len(waveforms), _TWELVE)
    present = np.zeros(shape, dtype=bool)
    gain, baseline = np.full(shape, np.nan), np.zeros(shape, np.int32)
    lengths = [_TWELVE * one.digital.shape[1] for one in waveforms]
    start = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
    digital = np.full(start[-1], INVALID, np.int16)
    for row, one in enumerate(waveforms):
        leads = [LEADS.index(lead) for lead in one.leads]
        present[row, leads] = True
        gain[row, leads], baseline[row, leads] = one.gain, one.baseline
        digital[start[row] : start[row + 1]].reshape(_TWELVE, -1)[leads] = one.digital
    columns = [
        pa.array([one.record_id for one in waveforms]),
        *(
            pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), _TWELVE)
            for values in (present, gain, baseline)
        ),
        pa.LargeListArray.from_arrays(pa.array(start), pa.array(digital)),
    ]
    return pa.RecordBatch.from_arrays(columns, schema=_SCHEMA)


def _block(rows: pa.RecordBatch) -> Block:
    present, gain, baseline = (
        rows[name].flatten().to_numpy(zero_copy_only=False).reshape(-1, _TWELVE)
        for name in ("present", "gain", "baseline")
    )
    start, digital = rows["digital"].offsets.to_numpy(), rows["digital"].values.to_numpy()
    return Block(rows["record_id"].to_pylist(), present, gain, baseline, start, digital)


class _Sink:
    """What the Arrow writer takes for a file: it passes bytes on and digests them."""

    closed = False

    def __init__(self, file: disk.File) -> None:
        self._file = file
        self.digest = hashlib.sha256()

    def write(self, data: bytes) -> int:
        self._file.write(data)
        self.digest.update(data)
        return len(data)

    def flush(self) -> None:
        """Do nothing: nothing is held back."""

    def close(self) -> None:
        """Do nothing: the file is still to be forced to disk."""
