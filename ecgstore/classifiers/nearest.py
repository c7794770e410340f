"""Nearest neighbours: what the most similar training records are, and nothing fitted besides."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Self

import numpy as np

from ecgstore.classifiers.classifier import Classifier, Setting, classifiers
from ecgstore.classifiers.inner import Scaled
from ecgstore.classifiers.tensors import from_tensors, to_tensors
from ecgstore.errors import NotEnoughDataError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from ecgstore.tasks import Target

__all__ = ["Nearest"]

_BLOCK = 512
"""Records compared with all training records at once: 10 MB of distances to 5,000."""

_CHOICES = {"metric": ("cosine", "euclidean"), "weights": ("distance", "equal")}


class Nearest(Classifier):
    """The k nearest training records (Cover and Hart 1967) by standardised vectors.

    A neighbour counts once, or with ``weights`` at ``distance`` by the inverse of its distance
    (Dudani 1976), scaled so that all k together count k. Of classes, ``smoothing`` is added to the
    count of each (Laplace's rule), so no probability is 0 or 1; of numbers the mean is taken.
    """

    name = "knn"
    reads = "features"
    format = "safetensors"
    targets = frozenset({"binary", "multiclass", "continuous"})
    defaults: ClassVar[Mapping[str, Setting]] = {
        "k": 15,
        "metric": "cosine",
        "weights": "distance",
        "smoothing": 1.0,
    }
    space: ClassVar[Mapping[str, tuple[Setting, ...]]] = {
        "k": ("whole", 3, 60),
        "metric": ("choice", "cosine", "euclidean"),
        "weights": ("choice", "distance", "equal"),
    }

    def __init__(
        self, params: Mapping[str, Setting] | None = None, *, target: Target = "binary"
    ) -> None:
        super().__init__(params, target=target)
        for key, known in _CHOICES.items():
            if self.params[key] not in known:
                msg = f"The setting {key!r} is {str(self.params[key])!r}; "
                msg += f"{' or '.join(map(repr, known))} was expected."
                raise UsageError(msg)
        for key in ("k", "smoothing"):
            if not float(self.params[key]) > 0:
                msg = f"The setting {key!r} of {self.name} is {self.params[key]}; "
                raise UsageError(msg + "it must be above 0.")

    @property
    def dim(self) -> int:
        """Length of the vectors it was fitted to."""
        return int(self._mean.shape[0])

    def _fit(
        self,
        x: NDArray[np.float32],
        y: NDArray[np.float64],
        *,
        step: Callable[[], None],
        groups: NDArray[np.intp] | None,
    ) -> None:
        if len(x) < int(self.params["k"]):
            msg = f"k is {self.params['k']}, but there are only {len(x)} training records."
            raise NotEnoughDataError(msg, task=self.target, hint="Set a smaller k.")
        scaled = Scaled(x)
        self._mean, self._scale, self._labels = scaled.mean, scaled.scale, y
        self._vectors = self._placed(x)
        step()

    def _predict(self, x: NDArray[np.float32]) -> NDArray[np.float64]:
        parts = [self._scores(x[start : start + _BLOCK]) for start in range(0, len(x), _BLOCK)]
        return np.concatenate(parts) if parts else self._scores(x)

    def _placed(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """Standardise vectors; for the cosine bring each to length 1."""
        placed = ((x - self._mean) / self._scale).astype(np.float32)
        if self.params["metric"] == "cosine":
            length = np.linalg.norm(placed, axis=1, keepdims=True)
            placed /= np.where(length > 0, length, 1)
        return placed

    def _scores(self, x: NDArray[np.float32]) -> NDArray[np.float64]:
        k, known = int(self.params["k"]), self._vectors
        mine = self._placed(x)
        # Squared distance; of vectors of length 1 it is twice the cosine distance.
        away = np.square(mine).sum(axis=1)[:, None] + np.square(known).sum(axis=1)
        away -= 2 * (mine @ known.T)
        near = np.argpartition(away, k - 1, axis=1)[:, :k]
        labels = self._labels[near]
        distance = np.take_along_axis(away, near, axis=1).astype(np.float64).clip(min=0)
        distance = distance / 2 if self.params["metric"] == "cosine" else np.sqrt(distance)
        weight = np.ones_like(distance)
        if self.params["weights"] == "distance":
            # A twin at distance 0 outweighs all others, but its weight stays a number.
            weight = 1 / np.maximum(distance, np.finfo(np.float32).eps)
            weight *= k / weight.sum(axis=1, keepdims=True)
        if self.target == "continuous":
            mean: NDArray[np.float64] = (weight * labels).sum(axis=1) / k
            return mean
        classes = np.arange(int(self._labels.max()) + 1)
        counted = np.stack([(weight * (labels == one)).sum(axis=1) for one in classes], axis=1)
        smoothing = float(self.params["smoothing"])
        shares: NDArray[np.float64] = (counted + smoothing) / (k + smoothing * len(classes))
        return shares[:, 1] if self.target == "binary" else shares

    def save(self) -> bytes:
        """Return the placed training vectors and their labels as safetensors."""
        numbers = {"mean": self._mean, "scale": self._scale, "labels": self._labels}
        return to_tensors({**numbers, "vectors": self._vectors}, self.params)

    @classmethod
    def load(cls, data: bytes, *, target: Target = "binary") -> Self:
        """Return the classifier that `save` saved."""
        arrays, params = from_tensors(data)
        classifier = cls(params, target=target)
        classifier._mean = arrays["mean"].astype(np.float64)
        classifier._scale = arrays["scale"].astype(np.float64)
        classifier._labels = arrays["labels"].astype(np.float64)
        classifier._vectors = arrays["vectors"].astype(np.float32)
        return classifier

    @staticmethod
    def library() -> str:
        """Return the version of NumPy."""
        return f"numpy {np.__version__}"


classifiers.add(Nearest.name, Nearest)
