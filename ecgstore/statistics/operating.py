"""What a threshold does: counts, sensitivity, predictive values, and the choice of a threshold.

A record is called positive when its score is at least the threshold.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ecgstore.errors import NotEnoughDataError, UsageError
from ecgstore.statistics.interval import Interval

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

__all__ = [
    "CELLS",
    "FIGURES",
    "SHARES",
    "Operating",
    "binary",
    "columns_of",
    "confusion",
    "figures_of",
    "operating",
    "ppv_npv",
    "threshold_for_sensitivity",
    "threshold_for_specificity",
    "threshold_of_youden",
    "wilson",
]

CELLS = ("tp", "fp", "fn", "tn")
"""Four counts, in the order that arrays hold them."""

FIGURES = ("sensitivity", "specificity", "ppv", "npv", "f1")
"""What four counts tell, in the order of `figures_of`. Sensitivity is also called recall, the
positive predictive value (PPV) precision; F1 is the harmonic mean of the two (van Rijsbergen,
1979)."""

SHARES: dict[str, tuple[str, str]] = {
    "sensitivity": ("tp", "fn"),
    "specificity": ("tn", "fp"),
    "ppv": ("tp", "fp"),
    "npv": ("tn", "fn"),
}
"""The counts a figure is a share of; the first is the numerator."""


@dataclass(frozen=True)
class Operating:
    """Four counts and what they tell. A figure whose denominator is 0 is NaN.

    Attributes:
        tp: Positive records called positive.
        fp: Negative records called positive.
        fn: Positive records called negative.
        tn: Negative records called negative.
        threshold: What a score must reach; None where decisions were given.
    """

    tp: float
    fp: float
    fn: float
    tn: float
    threshold: float | None = None

    @property
    def sensitivity(self) -> float:
        """Part of the positive records that is called positive."""
        return self._figure("sensitivity")

    @property
    def specificity(self) -> float:
        """Part of the negative records that is called negative."""
        return self._figure("specificity")

    @property
    def ppv(self) -> float:
        """Part of the records called positive that is."""
        return self._figure("ppv")

    @property
    def npv(self) -> float:
        """Part of the records called negative that is."""
        return self._figure("npv")

    @property
    def f1(self) -> float:
        """``2 tp / (2 tp + fp + fn)``."""
        return self._figure("f1")

    def wilson(
        self,
        figure: Literal["sensitivity", "specificity", "ppv", "npv"],
        *,
        level: float = 0.95,
    ) -> Interval:
        """Return the interval of `wilson`, for whole counts of independent records.

        It is the simple case of one record a patient and one test part; elsewhere patients are
        resampled.
        """
        hits, misses = (getattr(self, name) for name in SHARES[figure])
        if not hits + misses:
            return Interval(math.nan, math.nan, math.nan, level, "Wilson: no such record")
        return Interval(hits / (hits + misses), *wilson(hits, misses, level), level, "Wilson")

    def why(self, figure: str) -> str | None:
        """Return why a figure is not defined, None where it is."""
        if not math.isnan(self._figure(figure)):
            return None
        return {
            "sensitivity": "no record is positive",
            "specificity": "no record is negative",
            "ppv": "no score reaches the threshold",
            "npv": "every score reaches the threshold",
            "f1": "no record is positive and no score reaches the threshold",
        }[figure]

    def _figure(self, name: str) -> float:
        counts = np.array([self.tp, self.fp, self.fn, self.tn], dtype=np.float64)
        return float(figures_of(counts)[FIGURES.index(name)])


def figures_of(counts: NDArray[Any]) -> NDArray[np.float64]:
    """Return `FIGURES` ``(..., 5)`` of counts ``(..., 4)``: tp, fp, fn, tn; NaN where undefined."""
    tp, fp, fn, tn = np.moveaxis(counts, -1, 0)
    over = np.stack([tp, tn, tp, tn, 2 * tp], axis=-1)
    under = np.stack([tp + fn, tn + fp, tp + fp, tn + fn, 2 * tp + fp + fn], axis=-1)
    figures = np.full(over.shape, np.nan)
    np.divide(over, under, out=figures, where=under > 0)
    return figures


def wilson(hits: float, misses: float, level: float = 0.95) -> tuple[float, float]:
    """Return the score interval of a part ``hits / (hits + misses)`` (Wilson, JASA 1927)."""
    from scipy.special import ndtri

    n, z2 = hits + misses, float(ndtri((1 + level) / 2)) ** 2
    centre = (hits + z2 / 2) / (n + z2)
    half = math.sqrt(z2 * (hits * misses / n + z2 / 4)) / (n + z2)
    return (max(0.0, centre - half) if hits else 0.0), (min(1.0, centre + half) if misses else 1.0)


def confusion(
    labels: ArrayLike, decisions: ArrayLike, weights: ArrayLike | None = None
) -> Operating:
    """Count right and wrong decisions.

    Args:
        labels: ``(records,)`` 0 or 1.
        decisions: ``(records,)`` 0 or 1, or bool.
        weights: ``(records,)`` how often each record counts; once when None.

    Raises:
        UsageError: Labels or decisions are other than 0 and 1, or shapes differ.
    """
    truth, said = binary(labels, decisions, what="decisions")
    if not np.isin(said, (0, 1)).all():
        msg = "Decisions must be 0 or 1; scores need a threshold first."
        raise UsageError(msg)
    weight = None if weights is None else np.asarray(weights, dtype=np.float64)
    if weight is not None and weight.shape != truth.shape:
        msg = f"There are {weight.shape} weights for {truth.shape} records."
        raise UsageError(msg)
    cells = np.bincount((2 * truth + said).astype(np.intp), weight, minlength=4)
    tn, fp, fn, tp = map(float, cells)
    return Operating(tp=tp, fp=fp, fn=fn, tn=tn)


def operating(labels: ArrayLike, scores: ArrayLike, threshold: float) -> Operating:
    """Count right and wrong decisions of ``score >= threshold``."""
    truth, values = binary(labels, scores)
    found = confusion(truth, values >= threshold)
    return Operating(found.tp, found.fp, found.fn, found.tn, threshold)


def threshold_for_sensitivity(labels: ArrayLike, scores: ArrayLike, sensitivity: float) -> float:
    """Return the highest threshold that reaches a sensitivity on these records.

    Choose it on training records with out-of-fold scores, never on those it is judged by.

    Args:
        labels: ``(records,)`` 0 or 1.
        scores: ``(records,)``.
        sensitivity: What to reach, above 0 and at most 1.

    Returns:
        The score of a positive record.

    Raises:
        NotEnoughDataError: No record is positive.
        UsageError: The wish cannot be had, or a score is NaN.
    """
    _check_share("sensitivity", sensitivity)
    truth, values = binary(labels, scores)
    positive = np.sort(_of_class(1, truth, values, what="sensitivity"))[::-1]
    return float(positive[_at_least(sensitivity, len(positive)) - 1])


def threshold_for_specificity(labels: ArrayLike, scores: ArrayLike, specificity: float) -> float:
    """Return the lowest score as threshold that reaches a specificity on these records.

    Where even the highest score is too low a threshold, it is the next number above it, which
    calls no record positive. Otherwise as `threshold_for_sensitivity`.
    """
    _check_share("specificity", specificity)
    truth, values = binary(labels, scores)
    negative = np.sort(_of_class(0, truth, values, what="specificity"))
    below = negative[_at_least(specificity, len(negative)) - 1]
    above = values[values > below]
    return float(above.min() if len(above) else np.nextafter(below, np.inf))


def threshold_of_youden(labels: ArrayLike, scores: ArrayLike) -> float:
    """Return the score as threshold that makes sensitivity + specificity - 1 largest.

    The index is Youden's (Cancer 1950); of several thresholds the highest is taken.

    Raises:
        NotEnoughDataError: A class is missing.
    """
    truth, values = binary(labels, scores)
    cuts = np.unique(values)[::-1]
    missed = []  # part of each class below each distinct score, the highest first
    for wanted in (1, 0):
        mine = np.sort(_of_class(wanted, truth, values, what="Youden's index"))
        missed.append(np.searchsorted(mine, cuts, side="left") / len(mine))
    return float(cuts[np.argmin(missed[0] - missed[1])])


def columns_of(name: str, interval: Interval) -> dict[str, float | None]:
    """Return an interval as three columns, None where it has no number."""
    values = {name: interval.value, f"{name}_low": interval.low, f"{name}_high": interval.high}
    return {key: None if math.isnan(value) else value for key, value in values.items()}


def ppv_npv(
    sensitivity: ArrayLike, specificity: ArrayLike, prevalence: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the predictive values at another prevalence, by Bayes' theorem.

    They hold where the classes look as they do here and only their shares differ.

    Args:
        sensitivity: Any shape.
        specificity: The same shape.
        prevalence: Part of the records that is positive there, above 0 and below 1.

    Returns:
        PPV and NPV; NaN where nothing is called so.
    """
    if not 0 < prevalence < 1:
        msg = f"A prevalence of {prevalence:g} cannot be: it lies between 0 and 1."
        raise UsageError(msg, hint="Write 5 % as 0.05.")
    found, spared = np.asarray(sensitivity, np.float64), np.asarray(specificity, np.float64)
    counts = np.stack(
        [
            found * prevalence,
            (1 - spared) * (1 - prevalence),
            (1 - found) * prevalence,
            spared * (1 - prevalence),
        ],
        axis=-1,
    )
    figures = figures_of(counts)
    return figures[..., 2], figures[..., 3]


def binary(
    labels: ArrayLike, scores: ArrayLike, *, what: str = "scores"
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return labels of 0 and 1 and their scores as ``(records,)`` float64.

    Raises:
        UsageError: Labels are other than 0 and 1, a score is NaN, or shapes differ.
    """
    truth = np.asarray(labels, dtype=np.float64)
    values = np.asarray(scores, dtype=np.float64)
    if truth.ndim != 1 or truth.shape != values.shape:
        msg = f"Labels of shape {truth.shape} do not fit {what} of shape {values.shape}."
        raise UsageError(msg)
    if not np.isin(truth, (0, 1)).all():
        msg = "Labels other than 0 and 1 were found; a threshold needs a binary task."
        raise UsageError(msg)
    if np.isnan(values).any():
        msg = f"{int(np.isnan(values).sum())} of {len(values)} {what} are NaN."
        raise UsageError(msg, hint="Leave those records out, or score them again.")
    return truth, values


def _at_least(share: float, n: int) -> int:
    """Return the fewest of n that are at least a share of them, which may be off by rounding."""
    return max(1, math.ceil(share * n * (1 - 1e-12)))


def _check_share(name: str, value: float) -> None:
    if not 0 < value <= 1:
        msg = f"A {name} of {value:g} cannot be had: it lies above 0 and is at most 1."
        raise UsageError(msg, hint="Write 95 % as 0.95.")


def _of_class(
    wanted: int, truth: NDArray[np.float64], values: NDArray[np.float64], *, what: str
) -> NDArray[np.float64]:
    """Return the scores of a class, of which there must be one."""
    found: NDArray[np.float64] = values[truth == wanted]
    if not len(found):
        word = "positive" if wanted else "negative"
        msg = f"No record is {word}: no threshold can be chosen by {what}."
        raise NotEnoughDataError(msg, task="", counts={word: 0})
    return found
