"""Look for what should be gone: ids and pieces of signals, in every byte of a warehouse.

A file is searched as it lies and, when it is Parquet, once more column by column as it is read, for
an encoded or compressed column hides what it holds.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ecgstore.record import INVALID

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from ecgstore.waveforms import Waveform

__all__ = ["PIECE", "Search", "pieces"]

PIECE = 64
"""Samples of a piece of signal that is looked for."""

_WORD = rb"[0-9A-Za-z_-]"  # an id next to one of these is part of another
_PATH = rb"[0-9A-Za-z_./-]"  # the same where ids lie side by side, as in a file of them
_ID_COLUMNS = ("record_id", "patient_id")
_LEAST_BYTES = 5  # a shorter id occurs in any compressed file by chance
_AT_ONCE = 64  # ids to a regular expression
_BLOCK = 1 << 24
_VARIED = 8  # different values that make a piece of signal somebody's


@dataclass
class Search:
    """What is looked for, and what was found.

    Attributes:
        ids: Ids of patients and records.
        signals: Pieces of signals, ``(64,)`` int16.
        files: Files searched.
        bytes: Bytes searched, decoded columns included.
        hits: Files in which something was found.
    """

    ids: Sequence[str] = field(repr=False)
    signals: Sequence[NDArray[np.int16]] = field(repr=False)
    files: int = 0
    bytes: int = 0
    hits: list[Path] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._whole = pa.array(self.ids, pa.string())
        self._words = _patterns(self.ids, _WORD)
        long = [one for one in self.ids if len(one.encode()) >= _LEAST_BYTES]
        self._raw = _patterns(long, _PATH)
        self._pieces = [one.astype("<i2").tobytes() for one in self.signals]

    def look(self, paths: Iterable[Path]) -> None:
        """Search files.

        Raises:
            OSError: One cannot be read.
        """
        for path in paths:
            self.files += 1
            found = self._in_bytes(path)
            if path.suffix == ".parquet" and not found:
                found = self._in_columns(path)
            if found:
                self.hits.append(path)

    def in_text(self, values: pa.Array | pa.ChunkedArray) -> NDArray[np.bool_]:
        """Mark the texts that hold an id as a whole word; NULL holds none."""
        texts = [(text or "").encode() for text in values.to_pylist()]
        return np.array(
            [any(one.search(text) for one in self._words) for text in texts], dtype=bool
        )

    def _in_bytes(self, path: Path) -> bool:
        patterns = self._raw if path.suffix == ".parquet" else self._words
        longest = max([2 * PIECE, *(len(one.encode()) + 2 for one in self.ids)])
        with path.open("rb") as file:
            kept = b""
            while block := file.read(_BLOCK):
                self.bytes += len(block)
                data = kept + block
                if any(one.search(data) for one in patterns) or any(
                    p in data for p in self._pieces
                ):
                    return True
                kept = data[-longest:]
        return False

    def _in_columns(self, path: Path) -> bool:
        try:
            with pq.ParquetFile(path) as shard:
                for group in range(shard.num_row_groups):
                    rows = shard.read_row_group(group, use_threads=False)
                    if any(self._in_column(name, rows[name]) for name in rows.column_names):
                        return True
        except (pa.ArrowException, OSError):
            pass  # what cannot be decoded was searched as bytes
        return False

    def _in_column(self, name: str, column: pa.ChunkedArray) -> bool:
        self.bytes += column.nbytes
        if name in _ID_COLUMNS:
            return bool(pc.any(pc.is_in(column, self._whole), min_count=0).as_py())
        for chunk in column.chunks:
            values = chunk.flatten() if pa.types.is_list(chunk.type) else chunk
            if pa.types.is_string(values.type):
                if self.in_text(values).any():
                    return True
            elif pa.types.is_binary(values.type):
                if any(one.search(data or b"") for data in values.to_pylist() for one in self._raw):
                    return True
            elif values.type == pa.int16():
                data = pc.fill_null(values, 0).to_numpy(zero_copy_only=False).tobytes()
                if any(piece in data for piece in self._pieces):
                    return True
        return False


def _patterns(ids: Sequence[str], around: bytes) -> list[re.Pattern[bytes]]:
    """Return patterns that find ids which are not part of a longer word."""
    found = []
    for i in range(0, len(ids), _AT_ONCE):
        some = sorted(ids[i : i + _AT_ONCE], key=len, reverse=True)
        choices = b"|".join(re.escape(one.encode()) for one in some)
        found.append(re.compile(rb"(?<!" + around + rb")(?:" + choices + rb")(?!" + around + rb")"))
    return found


def pieces(waveform: Waveform, *, count: int = 2) -> list[NDArray[np.int16]]:
    """Return the most varied pieces of a signal, by which it would be known again.

    A flat line is nobody's: a piece has at least eight different values, none of them lost.
    """
    found = [
        (float(one.astype(np.float64).std()), one)
        for samples in waveform.digital
        for one in samples[: len(samples) // PIECE * PIECE].reshape(-1, PIECE)
        if INVALID not in one and len(np.unique(one)) >= _VARIED
    ]
    found.sort(key=lambda pair: -pair[0])
    return [one.copy() for _, one in found[:count]]
