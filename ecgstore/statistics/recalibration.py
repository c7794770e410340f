"""Recalibration: a map from scores to probabilities, fitted on records held out of training.

A map is a few numbers, shown whole by its attributes; it is made anew from the stored scores
whenever it is needed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from scipy.special import expit

from ecgstore.errors import NotEnoughDataError
from ecgstore.statistics.logistic import logistic_fit, logits
from ecgstore.statistics.operating import binary

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

__all__ = ["Isotonic", "Platt", "RecalibrationMethod", "recalibration"]

RecalibrationMethod = Literal["platt", "isotonic"]


@dataclass(frozen=True)
class Platt:
    """A sigmoid: ``1 / (1 + exp(-(slope * z + intercept)))``.

    Attributes:
        slope: Slope.
        intercept: Intercept.
        of_logit: Whether z is the logit of the score, for probabilities; else the score itself.
    """

    slope: float
    intercept: float
    of_logit: bool

    def apply(self, scores: ArrayLike) -> NDArray[np.float64]:
        """Return probabilities of scores, shaped as they are."""
        values = np.asarray(scores, dtype=np.float64)
        z = self.slope * (logits(values)[0] if self.of_logit else values) + self.intercept
        probabilities: NDArray[np.float64] = expit(z)
        return probabilities


@dataclass(frozen=True, eq=False)
class Isotonic:
    """A rising line between knots, level beyond the first and the last.

    Attributes:
        scores: ``(knots,)`` scores, rising.
        probabilities: ``(knots,)`` their probabilities, not falling.
    """

    scores: NDArray[np.float64]
    probabilities: NDArray[np.float64]

    def apply(self, scores: ArrayLike) -> NDArray[np.float64]:
        """Return probabilities of scores, shaped as they are."""
        return np.interp(np.asarray(scores, np.float64), self.scores, self.probabilities)


def recalibration(
    labels: ArrayLike, scores: ArrayLike, method: RecalibrationMethod
) -> Platt | Isotonic:
    """Fit a map from scores to probabilities.

    ``platt`` is the sigmoid of Platt (Advances in Large Margin Classifiers 1999) with his targets
    ``(n1 + 1) / (n1 + 2)`` and ``1 / (n0 + 2)``, on the logit where all scores are probabilities.
    ``isotonic`` is the least-squares rising map of Zadrozny and Elkan (KDD 2002); it can give 0
    and 1, and needs some hundreds of records.

    Args:
        labels: ``(records,)`` 0 or 1, of records the scores' classifier was not fitted on.
        scores: ``(records,)`` scores.
        method: Which map.

    Raises:
        NotEnoughDataError: A class is missing.
        UsageError: A score is NaN, or a label is not 0 or 1.
    """
    truth, values = binary(labels, scores)
    positive = int(truth.sum())
    if not 0 < positive < len(truth):
        msg = (
            f"{positive} positive and {len(truth) - positive} negative records cannot recalibrate "
            "scores; both classes are needed."
        )
        counts = {"positive": positive, "negative": len(truth) - positive}
        raise NotEnoughDataError(msg, task="", counts=counts)
    if method == "platt":
        of_logit = bool(values.min() >= 0 and values.max() <= 1)
        z = logits(values)[0] if of_logit else values
        targets = np.where(
            truth == 1, (positive + 1) / (positive + 2), 1 / (len(truth) - positive + 2)
        )
        return Platt(*logistic_fit(z, targets), of_logit)
    from scipy.optimize import isotonic_regression

    knots, place = np.unique(values, return_inverse=True)
    weights = np.bincount(place)
    fitted = isotonic_regression(np.bincount(place, truth) / weights, weights=weights)
    return Isotonic(knots, np.clip(fitted.x, 0, 1))
