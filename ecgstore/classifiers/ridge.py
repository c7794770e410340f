"""Ridge: least squares with a penalty, of numbers or of two classes, with a strength it chooses."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, ClassVar, Self

import numpy as np

from ecgstore.classifiers.classifier import Classifier, Setting, classifiers
from ecgstore.classifiers.inner import Scaled, inner_folds
from ecgstore.statistics.logistic import logistic_fit

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from ecgstore.tasks import Target

__all__ = ["Ridge", "platt"]

_STRENGTHS = np.logspace(-5, 3, 17)
"""Penalties tried, as parts of the number of records: with standardised features, from next to
none to one that leaves next to nothing."""

_FLAT = 0.01
"""Slope of the link where held-out values tell nothing."""


class Ridge(Classifier):
    """Ridge regression (Hoerl and Kennard 1970) on standardised features.

    The penalty is the one with the least squared error on records held out, over folds that keep
    patients whole; it is solved in the smaller of both spaces, that of features or that of records
    (Saunders, Gammerman and Vovk 1998).

    Labels 0 and 1 are fitted as -1 and 1, and the values of held-out records are mapped to
    probabilities by `platt`.
    """

    name = "ridge"
    reads = "features"
    format = "json"
    targets = frozenset({"binary", "continuous"})
    defaults: ClassVar[Mapping[str, Setting]] = {"folds": 5, "seed": 0}

    @property
    def dim(self) -> int:
        """Length of the vectors it was fitted to."""
        return len(self._fitted["mean"])

    @property
    def strength(self) -> float:
        """The penalty that was chosen, as a part of the number of records."""
        return float(self._fitted["strength"])

    def _fit(
        self,
        x: NDArray[np.float32],
        y: NDArray[np.float64],
        *,
        step: Callable[[], None],
        groups: NDArray[np.intp] | None,
    ) -> None:
        folds, seed = int(self.params["folds"]), int(self.params["seed"])
        fold = inner_folds(y, groups, folds, seed=seed, target=self.target)
        wanted = 2 * y - 1 if self.target == "binary" else y
        held_out = np.empty((len(_STRENGTHS), len(y)))
        for k in range(folds):
            out = fold == k
            scaled = Scaled(x[~out])
            centre, coef = _solved(scaled(x[~out]), wanted[~out], _STRENGTHS)
            held_out[:, out] = centre + coef @ scaled(x[out]).T
        best = int(np.square(held_out - wanted).mean(axis=1).argmin())
        scaled = Scaled(x)
        centre, coef = _solved(scaled(x), wanted, _STRENGTHS[[best]])
        self._fitted = {
            "mean": scaled.mean,
            "scale": scaled.scale,
            "coef": coef[0],
            "intercept": np.array(centre),
            "strength": np.array(_STRENGTHS[best]),
        }
        if self.target == "binary":
            self._fitted["link"] = np.array(platt(held_out[best], y))
        step()

    def _predict(self, x: NDArray[np.float32]) -> NDArray[np.float64]:
        from scipy.special import expit

        fitted = self._fitted
        values = (x - fitted["mean"]) / fitted["scale"] @ fitted["coef"] + fitted["intercept"]
        if self.target == "binary":
            slope, shift = fitted["link"]
            values = expit(slope * values + shift)
        found: NDArray[np.float64] = values
        return found

    def save(self) -> bytes:
        """Return what was fitted as JSON; numbers survive exactly."""
        return json.dumps({name: values.tolist() for name, values in self._fitted.items()}).encode()

    @classmethod
    def load(cls, data: bytes, *, target: Target = "binary") -> Self:
        """Return the classifier that `save` saved."""
        classifier = cls(target=target)
        classifier._fitted = {name: np.array(values) for name, values in json.loads(data).items()}
        return classifier

    @staticmethod
    def library() -> str:
        """Return the version of NumPy."""
        return f"numpy {np.__version__}"


def _solved(
    x: NDArray[np.float64], y: NDArray[np.float64], strengths: NDArray[np.float64]
) -> tuple[float, NDArray[np.float64]]:
    """Solve least squares of standardised features for some penalties.

    Returns:
        The intercept, and ``(penalties, dim)`` coefficients.
    """
    from scipy.linalg import cho_factor, cho_solve

    centre = float(y.mean())
    n, dim = x.shape
    # (X'X + aI)^-1 X'y = X'(XX' + aI)^-1 y: of both products the smaller is solved with.
    tall = dim <= n
    product, right = (x.T @ x, x.T @ (y - centre)) if tall else (x @ x.T, y - centre)
    diagonal = product.diagonal().copy()
    solutions = np.empty((len(strengths), len(product)))
    for i, strength in enumerate(strengths):
        np.fill_diagonal(product, diagonal + n * strength)
        solutions[i] = cho_solve(cho_factor(product), right)
    return centre, solutions if tall else solutions @ x


def platt(values: NDArray[np.float64], y: NDArray[np.float64]) -> tuple[float, float]:
    """Fit the logistic link from decision values to probabilities.

    Platt (1999), Probabilistic outputs for support vector machines, with his targets that keep
    few labels from giving probabilities of 0 and 1.

    Args:
        values: ``(records,)`` decision values of records that were held out.
        y: ``(records,)`` 0 or 1, both occur.

    Returns:
        Slope and shift: the probability is ``1 / (1 + exp(-(slope * value + shift)))``. The slope
        is above 0: values that tell nothing must not turn the order of scores round.
    """
    positive = int(y.sum())
    negative = len(y) - positive
    target = np.where(y == 1, (positive + 1) / (positive + 2), 1 / (negative + 2))
    slope, shift = logistic_fit(values, target)
    return (slope, shift) if slope > 0 else logistic_fit(values, target, slope=_FLAT)


classifiers.add(Ridge.name, Ridge)
