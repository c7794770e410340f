"""Variance of an AUROC and tests of two, without resampling.

The variance comes from the placement of each record among those of the other class (DeLong,
DeLong and Clarke-Pearson 1988), found from midranks in O(n log n) (Sun and Xu 2014). Where records
belong to patients, the placements of a patient are summed first (Obuchowski 1997); with one record
a patient that is DeLong's variance exactly.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ecgstore.errors import UsageError
from ecgstore.statistics.interval import Interval

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float64]
    Groups = NDArray[np.integer[Any]]

__all__ = ["Difference", "auroc_interval", "paired", "unpaired"]

_TOO_FEW = "DeLong needs two patients with and two without the label"
_NO_SPREAD = "DeLong; no spread"


@dataclass(frozen=True)
class Difference:
    """Two figures and how far they differ.

    Attributes:
        a: The first figure.
        b: The second.
        interval: Of a - b.
        p: Two-sided p-value of no difference; NaN where ``interval.method`` says why there is none.
    """

    a: float
    b: float
    interval: Interval
    p: float


def auroc_interval(
    labels: NDArray[Any],
    scores: NDArray[Any],
    groups: Groups | None = None,
    *,
    level: float = 0.95,
) -> Interval:
    """Return the AUROC with a normal interval, cut at 0 and 1.

    Args:
        labels: ``(n,)`` 0 or 1.
        scores: ``(n,)`` higher for label 1.
        groups: ``(n,)`` number of each record's patient; None takes each as its own.
        level: Confidence level.

    Raises:
        UsageError: A score or label is not a number, or a label not 0 or 1.
    """
    (value,), covariance = _aurocs(labels, [scores], groups)
    found = _normal(value, covariance[0, 0], level)
    low, high = (min(max(end, 0.0), 1.0) if end == end else end for end in (found.low, found.high))
    return Interval(value, low, high, level, found.method)


def paired(
    labels: NDArray[Any],
    a: NDArray[Any],
    b: NDArray[Any],
    groups: Groups | None = None,
    *,
    level: float = 0.95,
) -> Difference:
    """Compare the AUROC of two scores of the same records.

    Args:
        labels: ``(n,)`` 0 or 1.
        a: ``(n,)`` one score.
        b: ``(n,)`` the other.
        groups: ``(n,)`` number of each record's patient; None takes each as its own.
        level: Confidence level.

    Raises:
        UsageError: See `auroc_interval`.
    """
    (first, second), c = _aurocs(labels, [a, b], groups)
    variance = c[0, 0] + c[1, 1] - 2 * c[0, 1]
    if variance <= 1e-12 * (c[0, 0] + c[1, 1]):
        variance = 0.0  # the same order: what is left is rounding
    interval = _normal(first - second, variance, level)
    return Difference(first, second, interval, _p(interval.value, variance))


def unpaired(
    labels_a: NDArray[Any],
    a: NDArray[Any],
    labels_b: NDArray[Any],
    b: NDArray[Any],
    groups_a: Groups | None = None,
    groups_b: Groups | None = None,
    *,
    level: float = 0.95,
) -> Difference:
    """Compare the AUROC of scores of two cohorts that share no patient.

    The statistic is taken as Student's t with Welch and Satterthwaite's degrees of freedom, as
    pROC does (Robin et al. 2011). For cohorts that do share patients the test is too cautious when
    the two scores agree.

    Args:
        labels_a: ``(n,)`` 0 or 1, of the first cohort.
        a: ``(n,)`` its scores.
        labels_b: ``(m,)`` of the second.
        b: ``(m,)`` its scores.
        groups_a: ``(n,)`` patients of the first; None takes each record as its own.
        groups_b: ``(m,)`` patients of the second.
        level: Confidence level.

    Raises:
        UsageError: See `auroc_interval`.
    """
    (first,), (((va,),)) = _aurocs(labels_a, [a], groups_a)
    (second,), (((vb,),)) = _aurocs(labels_b, [b], groups_b)
    n, m = (_size(x, y) for x, y in ((labels_a, groups_a), (labels_b, groups_b)))
    variance = float(va + vb)
    spread = va**2 / (n - 1) + vb**2 / (m - 1) if variance > 0 else math.nan
    freedom = variance**2 / spread if spread > 0 else math.nan
    interval = _normal(first - second, variance, level, freedom)
    return Difference(first, second, interval, _p(interval.value, variance, freedom))


def _size(labels: NDArray[Any], groups: Groups | None) -> int:
    return len(labels) if groups is None else len(np.unique(groups))


def _aurocs(
    labels: NDArray[Any], columns: list[NDArray[Any]], groups: Groups | None
) -> tuple[list[float], Array]:
    """Return the AUROC of each column of scores, and their covariance, NaN where it has none."""
    y = np.asarray(labels, dtype=np.float64)
    scores = np.array(columns, dtype=np.float64)
    if scores.shape != (len(columns), len(y)) or not np.isfinite(scores).all():
        msg = "DeLong's test takes one finite score a record."
        raise UsageError(msg, hint="Leave records without a score out.")
    if not np.isin(y, (0, 1)).all():
        msg = "DeLong's test takes labels 0 and 1."
        raise UsageError(msg)
    positive = y == 1
    m, n = int(positive.sum()), int((~positive).sum())
    if not m or not n:
        return [math.nan] * len(columns), np.full((len(columns), len(columns)), np.nan)
    placed = np.array([_placements(row, positive) for row in scores])
    values = placed[:, positive].mean(axis=1)
    _, who = (
        np.unique(groups, return_inverse=True) if groups is not None else (0, np.arange(len(y)))
    )
    above = _by_patient(placed, values, who, positive)
    below = _by_patient(placed, values, who, ~positive)
    i, i10, i01 = who.max() + 1, len(np.unique(who[positive])), len(np.unique(who[~positive]))
    if min(i10, i01) < 2:
        return values.tolist(), np.full((len(columns), len(columns)), np.nan)
    # Obuchowski 1997, equations 3 to 6; the last term is the tie between a patient's own records
    # of both classes.
    crossed = above @ below.T * (i / (i - 1) / (m * n))
    covariance: Array = (
        above @ above.T * (i10 / (i10 - 1) / m**2)
        + below @ below.T * (i01 / (i01 - 1) / n**2)
        + crossed
        + crossed.T
    )
    return values.tolist(), covariance


def _placements(scores: Array, positive: NDArray[np.bool_]) -> Array:
    """Return of each record the part of the other class on its right side; ties count half."""
    from scipy.stats import rankdata

    every = rankdata(scores)
    placed = np.empty(len(scores))
    m, n = int(positive.sum()), int((~positive).sum())
    placed[positive] = (every[positive] - rankdata(scores[positive])) / n
    placed[~positive] = 1 - (every[~positive] - rankdata(scores[~positive])) / m
    return placed


def _by_patient(placed: Array, values: Array, who: Groups, side: NDArray[np.bool_]) -> Array:
    """Return ``(columns, patients)`` sums of the deviations of the placements of one class."""
    size = int(who.max()) + 1
    return np.array(
        [
            np.bincount(who[side], row[side] - value, minlength=size)
            for row, value in zip(placed, values, strict=True)
        ]
    )


def _normal(value: float, variance: float, level: float, freedom: float = math.inf) -> Interval:
    from scipy.stats import t

    if math.isnan(variance):
        return Interval(value, math.nan, math.nan, level, _TOO_FEW)
    if variance <= 0:
        return Interval(value, value, value, level, _NO_SPREAD)
    width = float(t.ppf((1 + level) / 2, freedom)) * math.sqrt(variance)
    return Interval(value, value - width, value + width, level, "DeLong")


def _p(difference: float, variance: float, freedom: float = math.inf) -> float:
    from scipy.stats import t

    if variance > 0:
        return float(2 * t.sf(abs(difference) / math.sqrt(variance), freedom))
    return 1.0 if variance == 0 and difference == 0 else math.nan
