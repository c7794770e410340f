"""The records whose vectors are most like a given one: exact, and the same every time.

Every vector is compared. The comparison is one matrix product in single precision; whatever it
leaves in doubt is decided in double precision, and equal distances by record id, so the answer does
not depend on how many questions are asked at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple, Self

import numpy as np

from ecgstore.errors import UnknownNameError, UsageError
from ecgstore.features import feature_set, matrix

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from ecgstore.catalog import Catalog

__all__ = ["Neighbour", "Neighbours"]

Metric = Literal["cosine", "euclidean"]

_SCORES = 1 << 24  # scores held at once: 64 MB
_SHOWN = 20  # ids that an error compares with
_DOUBT = 2.0**-20  # of |x| |q|: far above the rounding of a product over some thousand dimensions


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
        vectors: ``(records, dim)`` float32.

    Example:
        >>> near = Neighbours(["a", "b", "c"], np.array([[1, 0], [1, 1], [0, 1]], np.float32))
        >>> [one.record_id for one in near.nearest("a", k=2)]
        ['b', 'c']
    """

    def __init__(self, record_ids: Sequence[str], vectors: NDArray[np.float32]) -> None:
        order = np.argsort(np.asarray(record_ids, dtype=object), kind="stable")
        ids = [record_ids[i] for i in order]
        sorted_already = bool((order == np.arange(len(order))).all())
        self.record_ids: tuple[str, ...] = tuple(ids)
        self.vectors = np.ascontiguousarray(vectors if sorted_already else vectors[order])
        self._place = {record_id: i for i, record_id in enumerate(ids)}
        squares = np.einsum("ij,ij->i", self.vectors, self.vectors, dtype=np.float64)
        self._norms = np.sqrt(squares).astype(np.float32)

    @classmethod
    def of(cls, catalog: Catalog, features: str) -> Self:
        """Read the vectors of a feature set.

        Args:
            catalog: The warehouse.
            features: A model, or a name given to `fuse` without scaling.

        Raises:
            UnknownNameError: There is no such feature set.
            UsageError: It is scaled, so its vectors differ from reshuffle to reshuffle.
        """
        one = feature_set(catalog, features)
        if one.scale != "none":
            msg = f"The vectors of {features!r} are scaled anew in each reshuffle."
            raise UsageError(msg, hint="Ask for a model, or fuse with --scale none.")
        ids, blocks = matrix(catalog, one.members)
        return cls(ids.tolist(), blocks[0] if len(blocks) == 1 else np.hstack(blocks))

    def nearest(self, record_id: str, *, k: int = 10, metric: Metric = "cosine") -> list[Neighbour]:
        """Return the `k` nearest of a record, nearest first, without itself.

        Raises:
            UnknownNameError: The record has no such vector.
        """
        if record_id not in self._place:
            known = self.record_ids[:_SHOWN]
            raise UnknownNameError(
                record_id, kind="record", known=known, total=len(self.record_ids)
            )
        place = self._place[record_id]
        (found,) = self.search(self.vectors[place][None], k=k + 1, metric=metric)
        return [one for one in found if one.record_id != record_id][:k]

    def search(
        self, vectors: NDArray[np.float32], *, k: int = 10, metric: Metric = "cosine"
    ) -> list[list[Neighbour]]:
        """Return the `k` nearest records of each vector, nearest first.

        Args:
            vectors: ``(questions, dim)``.
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
        if not len(self.record_ids) or k < 1:
            return [[] for _ in questions]
        step = max(1, _SCORES // len(self.record_ids))
        found = []
        for start in range(0, len(questions), step):
            block = questions[start : start + step]
            products = block @ self.vectors.T
            found += [
                self._best(question, product, min(k, len(self.record_ids)), metric)
                for question, product in zip(block, products, strict=True)
            ]
        return found

    def _best(
        self, question: NDArray[np.float32], product: NDArray[np.float32], k: int, metric: Metric
    ) -> list[Neighbour]:
        norm = np.float32(np.linalg.norm(question))
        if metric == "cosine":
            with np.errstate(divide="ignore", invalid="ignore"):
                scores = np.nan_to_num(product / (self._norms * norm), posinf=0, neginf=0)
            doubt = _DOUBT
        else:  # minus half the squared distance, but for a constant
            scores = product - self._norms**2 / 2
            doubt = _DOUBT * float((norm + self._norms.max()) ** 2)
        least = np.partition(scores, len(scores) - k)[len(scores) - k]
        chosen = np.flatnonzero(scores >= least - 2 * doubt)
        exact = self._exact(question, chosen, metric)
        order = np.lexsort((chosen, -exact))[:k]  # places are in the order of ids
        return [Neighbour(self.record_ids[chosen[i]], float(exact[i])) for i in order]

    def _exact(
        self, question: NDArray[np.float32], places: NDArray[np.intp], metric: Metric
    ) -> NDArray[np.float64]:
        these, one = self.vectors[places].astype(np.float64), question.astype(np.float64)
        if metric == "euclidean":
            distance: NDArray[np.float64] = np.linalg.norm(these - one, axis=1)
            return -distance
        norms = np.linalg.norm(these, axis=1) * np.linalg.norm(one)
        dots = np.einsum("ij,j->i", these, one)
        similarity: NDArray[np.float64] = np.divide(
            dots, norms, out=np.zeros_like(dots), where=norms > 0
        )
        return similarity
