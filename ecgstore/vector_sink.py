"""Where finished vectors wait and how they are committed: by size, by time, whole or not at all."""

from __future__ import annotations

import time
from collections import Counter
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from ecgstore.schema import table_schema

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from ecgstore.engine import Vectors
    from ecgstore.warehouse import Warehouse

__all__ = ["VectorSink"]

_COMMAND = "embed"
_ROWS_HELD = 16_384
_BYTES_HELD = 2**26
"""A commit follows after so many vectors, or bytes: 64 MB are 16,384 vectors of 1,024."""


class VectorSink:
    """Holds the vectors of one model and commits them with all that belongs to them.

    Args:
        warehouse: Where to.
        key: Model, version and pooling of the rows.
        labels: Names of the head's outputs; empty to keep none.
        keep_windows: Keep the vector of each window too.
        overwrite: Put rows in place of those of the same key.
        commit_s: Commit at least this often, seconds.

    Attributes:
        written: Records committed.
        skipped: Records left out by reason.
    """

    def __init__(
        self,
        warehouse: Warehouse,
        key: Mapping[str, str],
        *,
        labels: tuple[str, ...],
        keep_windows: bool,
        overwrite: bool,
        commit_s: float,
    ) -> None:
        self._warehouse = warehouse
        self._key = key
        self._labels = labels
        self._keep_windows = keep_windows
        self._write = warehouse.replace if overwrite else warehouse.append
        self._commit_s = commit_s
        self._held: list[Vectors] = []
        self._rows = self._bytes = 0
        self._last = time.monotonic()
        self.written = 0
        self.skipped: Counter[str] = Counter()

    def add(self, vectors: Vectors) -> int:
        """Take finished vectors; returns how many of them were refused as not finite."""
        good = np.asarray(np.isfinite(vectors.values).all(axis=(1, 2)))
        if vectors.probabilities is not None:
            good = good & np.isfinite(vectors.probabilities).all(axis=1)
        bad = int((~good).sum())
        if bad:
            self.skipped["vector not finite"] += bad
            vectors = vectors.only(good)
        if vectors.record_ids:
            self._held.append(vectors)
            self._rows += len(vectors.record_ids)
            self._bytes += vectors.values.nbytes
        late = time.monotonic() - self._last > self._commit_s
        if late or self._rows >= _ROWS_HELD or self._bytes >= _BYTES_HELD:
            self.commit()
        return bad

    def commit(self) -> None:
        """Write what is held: what belongs to a vector first, then the vector, which says done.

        What belongs to a record that was erased meanwhile is dropped; the lock keeps it from
        being erased between the look and the commit.
        """
        if self._held:
            with self._warehouse.shared():
                there = set(self._warehouse.table("records").read(["record_id"])[0].to_pylist())
                held = [one.only(_among(one.record_ids, there)) for one in self._held]
                held = [one for one in held if one.record_ids]
                self._write_all(held)
            kept = sum(len(one.record_ids) for one in held)
            self.written += kept
            if kept < self._rows:
                self.skipped["erased meanwhile"] += self._rows - kept
        self._held = []
        self._rows = self._bytes = 0
        self._last = time.monotonic()

    def _write_all(self, held: list[Vectors]) -> None:
        if not held:
            return
        if self._keep_windows:
            self._write("windows", self._window_rows(held), command=_COMMAND)
        if self._labels:
            self._write("head_outputs", self._probability_rows(held), command=_COMMAND)
        self._write("embeddings", self._vector_rows(held), command=_COMMAND)

    def _vector_rows(self, held: list[Vectors]) -> pa.Table:
        names = list(chain.from_iterable(one.record_ids for one in held))
        mean = np.concatenate([one.values.mean(axis=1, dtype=np.float64) for one in held])
        columns = {
            "record_id": names,
            **{name: [value] * len(names) for name, value in self._key.items()},
            "dim": [mean.shape[1]] * len(names),
            "n_windows": np.repeat(
                [one.values.shape[1] for one in held], [len(one.record_ids) for one in held]
            ),
            "embedding": _lists(mean.astype(np.float32)),
        }
        return pa.table(columns, schema=table_schema("embeddings").arrow)

    def _window_rows(self, held: list[Vectors]) -> pa.Table:
        flat = [
            (name, number, start_s)
            for one in held
            for name in one.record_ids
            for number, start_s in enumerate(one.starts_s)
        ]
        names, numbers, starts_s = zip(*flat, strict=True)
        columns = {
            "record_id": names,
            **{name: [value] * len(flat) for name, value in self._key.items()},
            "window": numbers,
            "start_s": starts_s,
            "embedding": _lists(
                np.concatenate([one.values.reshape(-1, one.values.shape[2]) for one in held])
            ),
        }
        return pa.table(columns, schema=table_schema("windows").arrow)

    def _probability_rows(self, held: list[Vectors]) -> pa.Table:
        names = list(chain.from_iterable(one.record_ids for one in held))
        parts = [one.probabilities for one in held if one.probabilities is not None]
        chances = np.concatenate(parts)
        n = chances.size
        columns = {
            "record_id": np.repeat(np.array(names, dtype=object), len(self._labels)),
            "model": [self._key["model"]] * n,
            "version": [self._key["version"]] * n,
            "label": list(self._labels) * len(names),
            "probability": chances.reshape(-1),
        }
        return pa.table(columns, schema=table_schema("head_outputs").arrow)


def _among(names: Sequence[str], there: set[str]) -> NDArray[np.bool_]:
    return np.array([name in there for name in names], dtype=bool)


def _lists(matrix: NDArray[np.float32]) -> pa.ListArray:
    """Return the rows of a matrix as one Arrow list each, without a loop over elements."""
    kind = table_schema("embeddings").arrow.field("embedding").type
    offsets = pa.array(np.arange(len(matrix) + 1, dtype=np.int32) * matrix.shape[1])
    return pa.ListArray.from_arrays(offsets, pa.array(matrix.reshape(-1)), type=kind)
