"""The records whose vectors are most like a given one: exact, and the same every time.

Every vector is compared, by one matrix product in single precision. Its rounding is bounded, so
whoever may be among the nearest is known, and those few are compared again in double precision, row
by row; equal distances are decided by record id. So the answer depends neither on how many
questions are asked at once nor on the linear-algebra library.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple, Self

import numpy as np

from ecgstore.errors import NotEnoughDataError, UnknownNameError, UsageError
from ecgstore.features import feature_set, matrix
from ecgstore.fuse import stored_statistics
from ecgstore.scaling import fused
from ecgstore.splitting.split import EVERYTHING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from ecgstore.catalog import Catalog

__all__ = ["Metric", "Neighbour", "Neighbours"]

Metric = Literal["cosine", "euclidean"]

_SCORES = 1 << 24  # scores held at once: 64 MB in single precision
_ROWS = 4096  # rows compared at once in double precision: 25 MB at 768 dimensions
_SAFE = (1e-15, 1e15)
"""Lengths whose products neither overflow nor lose digits in single precision; vectors of other
lengths are always compared in double precision."""
_NEAR = 10  # ids that an error compares with


class Neighbour(NamedTuple):
    """A record and how near it is.

    Attributes:
        record_id: The record.
        similarity: The cosine of the two vectors, or minus their Euclidean distance.
    """

    record_id: str
    similarity: float


class Neighbours:
    """The vectors of a feature set, held in memory to be asked for neighbours.

    Args:
        record_ids: ``(records,)`` ids, each once.
        vectors: ``(records, dim)`` float32, all finite; kept without a copy when the ids ascend.

    Attributes:
        record_ids: The ids, ascending.
        vectors: Their vectors.

    Raises:
        UsageError: Vectors are not finite, or not as many as ids.

    Example:
        >>> near = Neighbours(["a", "b", "c"], np.array([[1, 0], [1, 1], [0, 1]], np.float32))
        >>> [one.record_id for one in near.nearest("a", k=2)]
        ['b', 'c']
    """

    def __init__(
        self, record_ids: Sequence[str] | NDArray[np.object_], vectors: NDArray[np.float32]
    ) -> None:
        ids: NDArray[np.object_] = np.asarray(record_ids, dtype=object)
        x = np.asarray(vectors, dtype=np.float32)
        if not (ids[1:] > ids[:-1]).all():
            order = np.argsort(ids, kind="stable")
            ids, x = ids[order], x[order]
        self.record_ids = ids
        self.vectors = np.ascontiguousarray(x)
        self._norms = np.empty(len(x))
        for start in range(0, len(x), _ROWS):
            part = slice(start, start + _ROWS)
            self._norms[part] = _norms(self.vectors[part])
        if len(x) != len(ids) or not np.isfinite(self._norms).all():
            msg = f"Expected a finite vector for each of {len(ids)} records."
            raise UsageError(msg)
        self._odd = np.flatnonzero((self._norms < _SAFE[0]) | (self._norms > _SAFE[1]))

    @classmethod
    def of(
        cls, catalog: Catalog, features: str, *, split: str | None = None, repeat: int = 0
    ) -> Self:
        """Read the vectors of a feature set.

        Args:
            catalog: The warehouse.
            features: A model, or a name given to `fuse`, whose vectors are scaled by what
                ``norm_stats`` holds.
            split: Where scaling was fitted on training records, those of which split.
            repeat: And of which of its reshuffles.

        Raises:
            UnknownNameError: There is no such feature set.
            UsageError: The name fits several, or the split is not said.
            NotEnoughDataError: Nothing was fitted on that reshuffle.
        """
        found = feature_set(catalog, features)
        if found.scale == "none":
            ids, blocks = matrix(catalog, found.members)
            return cls(ids, fused(blocks, [], scale="none") if len(blocks) > 1 else blocks[0])
        if found.fit == "all":
            split, repeat = EVERYTHING, 0
        elif split is None:
            msg = f"The scaling of {features!r} was fitted on training records; of which split?"
            raise UsageError(msg, hint="Name a split, or fuse with fit='all'.")
        fitted = [stored_statistics(catalog, member, split).get(repeat) for member in found.members]
        known = [one for one in fitted if one is not None]
        if len(known) < len(fitted):
            msg = f"The scaling of {features!r} was not fitted on reshuffle {repeat} of {split!r}."
            counts = {"members": len(fitted), "fitted": len(known)}
            raise NotEnoughDataError(msg, task=features, counts=counts, hint="Run fuse again.")
        ids, blocks = matrix(catalog, found.members)
        return cls(ids, fused(blocks, known, scale=found.scale))

    def nearest(self, record_id: str, *, k: int = 10, metric: Metric = "cosine") -> list[Neighbour]:
        """Return the `k` nearest of a record, nearest first, without itself.

        Raises:
            UnknownNameError: The record has no such vector.
        """
        place = int(np.searchsorted(self.record_ids, record_id))
        if place == len(self.record_ids) or self.record_ids[place] != record_id:
            near = self.record_ids[max(0, place - _NEAR) : place + _NEAR]
            total = len(self.record_ids)
            raise UnknownNameError(record_id, kind="record", known=near, total=total)
        (found,) = self.search(self.vectors[place][None], k=k + 1, metric=metric)
        return [one for one in found if one.record_id != record_id][:k]

    def search(
        self, vectors: NDArray[np.float32], *, k: int = 10, metric: Metric = "cosine"
    ) -> list[list[Neighbour]]:
        """Return the `k` nearest records of each vector, nearest first.

        Args:
            vectors: ``(questions, dim)``, compared as float32.
            k: How many; fewer are returned when there are not so many records.
            metric: What nearness is; a vector of zeros has cosine 0 with every other.

        Raises:
            UsageError: The vectors have another length, or are not finite.
        """
        questions = np.ascontiguousarray(vectors, dtype=np.float32)
        dim = self.vectors.shape[1]
        if questions.ndim != 2 or questions.shape[1] != dim or not np.isfinite(questions).all():
            msg = f"Expected finite vectors of shape (questions, {dim}), not {questions.shape}."
            raise UsageError(msg)
        k = min(k, len(self.record_ids))
        if k < 1:
            return [[] for _ in questions]
        step = max(1, _SCORES // len(self.record_ids))
        found = []
        for start in range(0, len(questions), step):
            block = questions[start : start + step]
            for question, places in zip(block, self._candidates(block, k, metric), strict=True):
                exact = self._similarity(question, places, metric)
                best = np.argsort(-exact, kind="stable")[:k]  # places are in the order of ids
                pairs = zip(self.record_ids[places[best]], exact[best].tolist(), strict=True)
                found.append([Neighbour(*pair) for pair in pairs])
        return found

    def __repr__(self) -> str:
        return f"Neighbours({len(self.record_ids)} records × {self.vectors.shape[1]})"

    def _candidates(
        self, questions: NDArray[np.float32], k: int, metric: Metric
    ) -> Iterator[NDArray[np.intp]]:
        """Yield for each question the places, ascending, of all that may be among its k nearest.

        With u = 2^-24, the sum of n products in single precision is off by at most
        n u |x| |q| / (1 - n u), in whatever order it is taken (Higham, Accuracy and Stability of
        Numerical Algorithms, 2nd ed., section 3.1). 16 u more are for the other operations.
        """
        lengths = _norms(questions)
        with np.errstate(all="ignore"):  # where this overflows everything is compared
            scores = (questions / lengths[:, None]).astype(np.float32) @ self.vectors.T
            if metric == "cosine":
                scores /= self._norms.astype(np.float32)
                sizes = np.ones(len(questions))
            else:  # the distance falls as x·q - |x|²/2 grows
                scores *= lengths.astype(np.float32)[:, None]
                scores -= (np.square(self._norms) / 2).astype(np.float32)
                longest = self._norms[self._norms <= _SAFE[1]].max(initial=0)
                sizes = (longest + lengths) * longest
            doubts = (self.vectors.shape[1] + 16) * 2.0**-24 * sizes
            scores[:, self._odd] = -np.inf
            least = (np.partition(scores, -k, axis=1)[:, -k] - 2 * doubts).astype(np.float32)
        for row, lowest in zip(scores, least, strict=True):
            if np.isfinite(lowest):
                yield np.union1d(np.flatnonzero(row >= lowest), self._odd)
            else:
                yield np.arange(len(row))

    def _similarity(
        self, question: NDArray[np.float32], places: NDArray[np.intp], metric: Metric
    ) -> NDArray[np.float64]:
        """Return how like a question the vectors at some places are, in double precision."""
        like = np.empty(len(places))
        one, length = question.astype(np.float64), _norms(question[None])[0]
        for start in range(0, len(places), _ROWS):
            part = slice(start, start + _ROWS)
            x = self.vectors[places[part]].astype(np.float64)
            if metric == "cosine":
                lengths = self._norms[places[part]] * length
                dots = (x * one).sum(axis=1)
                like[part] = np.divide(dots, lengths, out=np.zeros(len(x)), where=lengths > 0)
            else:
                like[part] = -np.sqrt(np.square(x - one).sum(axis=1))
        return like


def _norms(x: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the length of each row, summed in double precision."""
    lengths: NDArray[np.float64] = np.sqrt(np.square(x, dtype=np.float64).sum(axis=1))
    return lengths
