"""Calibration: whether a probability means what it says, in figures and as a curve.

Scores are probabilities of label 1. Where a logit is taken, scores are first moved to 1e-6 and
1 - 1e-6, since those of 0 and 1 have none; how many were is told with the result.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from scipy.special import expit

from ecgstore.errors import UsageError
from ecgstore.statistics.bootstrap import bootstrap
from ecgstore.statistics.logistic import logistic_fit, logits, no_line
from ecgstore.statistics.operating import binary, columns_of

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from ecgstore.statistics.interval import Interval

__all__ = [
    "Bins",
    "Calibration",
    "Murphy",
    "bin_edges",
    "brier",
    "calibrate",
    "calibration_error",
    "calibration_line",
    "in_the_large",
    "murphy",
]

Width = Literal["count", "score"]
"""How bins are cut: of equal count, or equally wide."""


@dataclass(frozen=True, eq=False)
class Bins:
    """A reliability curve: records put together by score; every array is ``(bins,)``.

    Attributes:
        count: Records of the bin; empty bins are left out.
        score: Their mean score.
        observed: Part of them that is positive.
        low: Lower end of its interval; NaN where none can be told.
        high: Upper end.
    """

    count: NDArray[np.intp]
    score: NDArray[np.float64]
    observed: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]

    @property
    def rows(self) -> list[dict[str, object]]:
        """One row a bin."""
        names = ("records", "score", "observed", "observed_low", "observed_high")
        columns = zip(self.count, self.score, self.observed, self.low, self.high, strict=True)
        return [
            {"bin": number}
            | {n: None if np.isnan(v) else v.item() for n, v in zip(names, values, strict=True)}
            for number, values in enumerate(columns)
        ]


@dataclass(frozen=True)
class Murphy:
    """The Brier score in parts (Murphy, Journal of Applied Meteorology 1973), over bins.

    ``brier = reliability - resolution + uncertainty + within``.

    Attributes:
        brier: The score itself.
        reliability: How far the bins' mean scores are from what was observed; 0 is best.
        resolution: How far the bins' observed parts are from the whole; more is better.
        uncertainty: ``p (1 - p)`` of the part p that is positive.
        within: What the scores vary inside bins (Stephenson et al., Weather and Forecasting
            2008); 0 when every bin holds one score, as Murphy has it.
    """

    brier: float
    reliability: float
    resolution: float
    uncertainty: float
    within: float


@dataclass(frozen=True, eq=False)
class Calibration:
    """How well calibrated scores are, with intervals over patients.

    Attributes:
        brier: Mean squared distance of score and label (Brier, Monthly Weather Review 1950).
        error: Expected calibration error over the bins of `bins`; see `calibration_error`. It is
            above 0 for a perfect score of few records, and more so in resamples.
        slope: Slope of Cox (Biometrika 1958): 1 is right, less is overconfident.
        intercept: Intercept beside that slope.
        in_the_large: Intercept with the slope held at 1: 0 is right, more means that scores are
            too low on the whole.
        murphy: The Brier score in parts.
        bins: The reliability curve.
        clipped: Scores moved from 0 or 1 before their logit was taken.
        reason: Why slope and intercepts are not defined; None where they are.
    """

    brier: Interval
    error: Interval
    slope: Interval
    intercept: Interval
    in_the_large: Interval
    murphy: Murphy
    bins: Bins
    clipped: int
    reason: str | None = None

    @property
    def row(self) -> dict[str, object]:
        """The figures as a flat row; one that is not defined is None, with the reason."""
        return {
            **columns_of("brier", self.brier),
            **columns_of("ece", self.error),
            **columns_of("slope", self.slope),
            **columns_of("intercept", self.intercept),
            **columns_of("in_the_large", self.in_the_large),
            "reliability": self.murphy.reliability,
            "resolution": self.murphy.resolution,
            "uncertainty": self.murphy.uncertainty,
            "within_bins": self.murphy.within,
            "clipped": self.clipped,
            "reason": self.reason,
        }

    def __repr__(self) -> str:
        return f"Calibration(Brier {self.brier}, slope {self.slope}, intercept {self.intercept})"

    def _repr_html_(self) -> str:
        from html import escape

        return escape(repr(self))


def brier(labels: ArrayLike, scores: ArrayLike) -> float:
    """Return the mean squared distance of score and label (Brier 1950)."""
    truth, values = _probabilities(labels, scores)
    return float(np.mean((values - truth) ** 2))


def bin_edges(scores: ArrayLike, *, bins: int = 10, width: Width = "count") -> NDArray[np.float64]:
    """Return what parts bins: score k lies in the bin of ``searchsorted(edges, k, side="right")``.

    Args:
        scores: ``(records,)`` scores.
        bins: How many bins; equal scores are never parted, so there may be fewer.
        width: ``count`` for bins of equally many records, ``score`` for bins equally wide on 0
            to 1.

    Returns:
        ``(bins - 1,)`` or fewer inner edges, rising.
    """
    if bins < 1:
        msg = f"{bins} bins cannot be made; at least 1 is needed."
        raise UsageError(msg)
    if width == "score":
        return np.linspace(0, 1, bins + 1)[1:-1]
    return np.unique(np.quantile(np.asarray(scores, np.float64), np.arange(1, bins) / bins))


def murphy(labels: ArrayLike, scores: ArrayLike, edges: NDArray[np.float64]) -> Murphy:
    """Return the Brier score in parts, over the bins that edges make."""
    truth, values = _probabilities(labels, scores)
    n, score, positive = _binned(truth, values, edges)
    share, mean, whole = n / len(truth), positive / n, truth.mean()
    total = float(np.mean((values - truth) ** 2))
    reliability = float(share @ (score / n - mean) ** 2)
    resolution = float(share @ (mean - whole) ** 2)
    uncertainty = float(whole * (1 - whole))
    within = total - (reliability - resolution + uncertainty)
    return Murphy(total, reliability, resolution, uncertainty, within)


def calibration_error(labels: ArrayLike, scores: ArrayLike, edges: NDArray[np.float64]) -> float:
    """Return the expected calibration error (Naeini, Cooper and Hauskrecht, AAAI 2015).

    It is the mean over bins, weighted by their records, of the distance between the bin's mean
    score and its part of positive records.
    """
    truth, values = _probabilities(labels, scores)
    _, score, positive = _binned(truth, values, edges)
    return float(np.abs(score - positive).sum() / len(truth))


def calibration_line(labels: ArrayLike, scores: ArrayLike) -> tuple[float, float]:
    """Return slope and intercept of a logistic regression of the label on the score's logit.

    Cox (Biometrika 1958). Both are NaN where no such line exists: one class, one score, or a
    threshold that parts the classes without error.
    """
    truth, values = _probabilities(labels, scores)
    x, _ = logits(values)
    return (np.nan, np.nan) if no_line(truth, x) else logistic_fit(x, truth)


def in_the_large(labels: ArrayLike, scores: ArrayLike) -> float:
    """Return the intercept of that regression with its slope held at 1; NaN for one class."""
    truth, values = _probabilities(labels, scores)
    if not 0 < truth.sum() < len(truth):
        return float(np.nan)
    x, _ = logits(values)
    return logistic_fit(x, truth, slope=1.0)[1]


def calibrate(
    labels: ArrayLike,
    scores: ArrayLike,
    groups: NDArray[np.intp] | None = None,
    *,
    bins: int = 10,
    width: Width = "count",
    resamples: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> Calibration:
    """Return every figure of calibration, with intervals over patients.

    Bins stay as they are in all resamples. Slope and intercepts of a resample are one Newton step
    away from those of all records (Moulton and Zeger, Computational Statistics & Data Analysis
    1991), so that no regression is fitted two thousand times.

    Args:
        labels: ``(records,)`` 0 or 1; a record tested in several reshuffles stands once for each.
        scores: ``(records,)`` probability of label 1.
        groups: ``(records,)`` number of the patient, 0 … patients - 1, each of which occurs; None
            makes every record a patient.
        bins: Bins of the curve and of the calibration error.
        width: See `bin_edges`.
        resamples: Bootstrap resamples.
        seed: Seed of the bootstrap.
        level: Level of the intervals.

    Raises:
        UsageError: A score is no probability, or a label is not 0 or 1.
    """
    truth, values = _probabilities(labels, scores)
    patients = np.arange(len(truth)) if groups is None else np.asarray(groups)
    edges = bin_edges(values, bins=bins, width=width)
    n, score, positive = _binned(truth, values, edges)
    x, clipped = logits(values)
    reason = no_line(truth, x)
    line = (np.nan, np.nan) if reason else logistic_fit(x, truth)
    shift = in_the_large(truth, values)
    parts = _Sums(truth, values, x, line, shift, edges, patients)
    many = bootstrap(parts.figures, parts.patients, resamples=resamples, seed=seed, level=level)
    found = many if isinstance(many, list) else [many]
    squared, error, slope, intercept, large = found[:5]
    return Calibration(
        brier=squared,
        error=error,
        slope=slope,
        intercept=intercept,
        in_the_large=large,
        murphy=murphy(truth, values, edges),
        bins=Bins(
            count=n,
            score=score / n,
            observed=positive / n,
            low=np.array([one.low for one in found[5:]]),
            high=np.array([one.high for one in found[5:]]),
        ),
        clipped=clipped,
        reason=reason,
    )


class _Sums:
    """What the figures need of each patient, so that a resample is one matrix product."""

    def __init__(
        self,
        truth: NDArray[np.float64],
        values: NDArray[np.float64],
        x: NDArray[np.float64],
        line: tuple[float, float],
        shift: float,
        edges: NDArray[np.float64],
        groups: NDArray[np.intp],
    ) -> None:
        self.patients = int(groups.max()) + 1
        self._line, self._shift = np.array(line), shift
        p, q = expit(line[0] * x + line[1]), expit(x + shift)
        v = p * (1 - p)
        columns = [np.ones_like(x), (values - truth) ** 2]
        columns += [(truth - p) * x, truth - p, v * x * x, v * x, v]
        columns += [truth - q, q * (1 - q)]
        sums = [np.bincount(groups, column, self.patients) for column in columns]
        _, place = np.unique(np.searchsorted(edges, values, side="right"), return_inverse=True)
        bins = int(place.max()) + 1
        cell, size = groups * bins + place, self.patients * bins
        for weights in (np.ones_like(x), values, truth):
            sums += list(np.bincount(cell, weights, size).reshape(-1, bins).T)
        self._sums = np.column_stack(sums)
        self._bins = bins

    def figures(self, counts: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return ``(resamples, 5 + bins)``: the figures of `Calibration`, then observed parts."""
        told = np.asarray(counts, np.float64) @ self._sums
        n, squared, gx, g1, hxx, hx1, h11, gs, hs = told[:, :9].T
        cells = told[:, 9:].reshape(len(told), 3, self._bins)
        with np.errstate(divide="ignore", invalid="ignore"):
            determinant = hxx * h11 - hx1**2
            steps = np.stack([h11 * gx - hx1 * g1, hxx * g1 - hx1 * gx]) / determinant
            steps[:, determinant <= 1e-12 * hxx * h11] = np.nan
            error = np.abs(cells[:, 1] - cells[:, 2]).sum(axis=1) / n
            observed = cells[:, 2] / cells[:, 0]
            large = self._shift + gs / hs
        line = self._line[:, None] + steps
        return np.column_stack([squared / n, error, *line, large, observed])


def _binned(
    truth: NDArray[np.float64], values: NDArray[np.float64], edges: NDArray[np.float64]
) -> tuple[NDArray[np.intp], NDArray[Any], NDArray[Any]]:
    """Return records, sum of scores and positives of every bin that is not empty."""
    _, place = np.unique(np.searchsorted(edges, values, side="right"), return_inverse=True)
    return np.bincount(place), np.bincount(place, values), np.bincount(place, truth)


def _probabilities(
    labels: ArrayLike, scores: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    truth, values = binary(labels, scores)
    if len(values) == 0 or values.min() < 0 or values.max() > 1:
        msg = "Calibration needs probabilities: scores from 0 to 1, at least one."
        raise UsageError(msg, hint="Recalibrate them first: --recalibrate platt.")
    return truth, values
