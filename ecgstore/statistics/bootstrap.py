"""Bootstrap intervals over patients: whole patients are drawn again, never single records.

Records of one patient are alike, so drawing records would make intervals too narrow (Field and
Welsh 2007). The interval is BCa, bias-corrected and accelerated (Efron 1987; Efron and Tibshirani
1993, chapter 14), its acceleration from a jackknife that leaves out one patient at a time.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ecgstore.statistics.interval import Interval

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from ecgstore.statistics.metrics import Metric

    Array = NDArray[np.float64]
    Counts = NDArray[np.integer[Any]]
    Statistic = Callable[[NDArray[Any]], Array]

__all__ = ["Sample", "bootstrap", "counts_of", "metric_interval", "paired_interval"]

_CELLS = 1 << 21
"""Counts made at once; those of the records, spread out from them, are a few times as many."""

_BLOCKS = 4000
"""Jackknife estimates at most; one for each patient would take the square of their number."""

_FEWEST = 10
"""Resamples on which a figure must be defined before an interval is told."""


class Sample(NamedTuple):
    """The test records of one reshuffle.

    Attributes:
        labels: ``(n,)`` labels.
        scores: ``(n,)`` scores, or ``(n, classes)``.
        groups: ``(n,)`` number of each record's patient; the same number is the same patient in
            every sample that is used together.
    """

    labels: NDArray[Any]
    scores: NDArray[Any]
    groups: NDArray[np.intp]


def metric_interval(
    samples: Sequence[Sample],
    metric: Metric,
    *,
    resamples: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """Return the mean of a metric over samples, with its interval over patients.

    A patient is drawn as often in one sample as in all: reshuffles share patients, and an
    interval that took them for independent would be too narrow.

    Args:
        samples: The test parts; several as a run over reshuffles has them.
        metric: One of `ecgstore.statistics.metrics.METRICS`.
        resamples: How often to draw.
        seed: Of the draws.
        level: Confidence level.
    """
    patients, (dense,) = _dense(samples)
    value = _mean_of(dense, metric)
    return _one(bootstrap(value, patients, resamples=resamples, seed=seed, level=level))


def paired_interval(
    a: Sequence[Sample],
    b: Sequence[Sample],
    metric: Metric,
    *,
    resamples: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """Return the difference of two mean metrics, a - b, the same patients drawn for both.

    Args:
        a: Samples of one classifier.
        b: Samples of the other; patients are numbered alike in both.
        metric: See `metric_interval`, as for the rest.
        resamples: How often to draw.
        seed: Of the draws.
        level: Confidence level.
    """
    patients, (dense_a, dense_b) = _dense(a, b)
    first, second = _mean_of(dense_a, metric), _mean_of(dense_b, metric)

    def difference(counts: Counts) -> Array:
        return first(counts) - second(counts)

    return _one(bootstrap(difference, patients, resamples=resamples, seed=seed, level=level))


def bootstrap(
    statistic: Statistic,
    n_groups: int,
    *,
    resamples: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> Interval | list[Interval]:
    """Return the BCa interval of any figure that can be told from how often each group is drawn.

    Resamples on which the figure is not defined are counted and left out. Where fewer than ten,
    or less than half, define it, and where there are not two groups, the ends are NaN and
    ``method`` says why. Where the bias cannot be told, because all resamples lie on one side of
    the estimate, the interval is the percentile one, and says so.

    Args:
        statistic: Takes ``(resamples, n_groups)`` whole numbers and returns ``(resamples,)``, or
            ``(resamples, k)`` for k figures at once, NaN where one is not defined.
        n_groups: Number of groups, such as patients.
        resamples: How often to draw.
        seed: Of the draws: the same seed draws the same.
        level: Confidence level.

    Returns:
        One interval, or k of them where the statistic tells k figures.
    """
    observed = statistic(np.ones((1, max(n_groups, 1)), dtype=np.int32))
    if n_groups < 2:
        drawn = left_out = np.full((0, *observed.shape[1:]), np.nan)
    else:
        rng = np.random.default_rng(seed)
        step = max(1, _CELLS // n_groups)
        drawn = np.concatenate(
            [
                statistic(
                    counts_of(rng.integers(0, n_groups, (min(step, resamples - i), n_groups)))
                )
                for i in range(0, resamples, step)
            ]
        )
        blocks = min(n_groups, _BLOCKS)
        left_out = np.concatenate(
            [statistic(_without(i, step, blocks, n_groups)) for i in range(0, blocks, step)]
        )
    if observed.ndim == 1:
        return _bca(float(observed[0]), drawn, left_out, level)
    return [
        _bca(float(observed[0, k]), drawn[:, k], left_out[:, k], level)
        for k in range(observed.shape[1])
    ]


def counts_of(drawn: NDArray[np.integer[Any]]) -> NDArray[np.int32]:
    """Count how often each of n things is in each row of ``(resamples, n)`` places."""
    n = drawn.shape[1]
    counts = np.empty(drawn.shape, dtype=np.int32)
    for row, places in zip(counts, drawn, strict=True):
        row[:] = np.bincount(places, minlength=n)
    return counts


def _without(start: int, step: int, blocks: int, n: int) -> NDArray[np.int32]:
    """Return resamples that hold every group once, but for one block of groups each.

    A block is one group, or of many groups every so many-th: a sum of influences is less skewed
    by the root of their number and there are fewer of them by that number, so the acceleration
    stays what it is.
    """
    rows = np.arange(start, min(start + step, blocks))
    of = np.arange(n, dtype=np.int32) % blocks
    counts: NDArray[np.int32] = (of != rows[:, None]).astype(np.int32)
    return counts


def _bca(value: float, drawn: Array, left_out: Array, level: float) -> Interval:
    from scipy.special import ndtr, ndtri

    kept = np.sort(drawn[np.isfinite(drawn)])
    undefined = len(drawn) - len(kept)
    reason = _reason(value, len(drawn), len(kept))
    if reason:
        return Interval(value, math.nan, math.nan, level, reason, len(drawn), undefined)
    if kept[0] == kept[-1]:
        method = "BCa; all resamples are alike"
        return Interval(value, value, value, level, method, len(drawn), undefined)
    tails = np.array([(1 - level) / 2, (1 + level) / 2])
    # Resamples equal to the estimate count half, as ties do in a rank.
    place = np.searchsorted(kept, value, "left") + np.searchsorted(kept, value, "right")
    bias = ndtri(place / (2 * len(kept)))
    shifted = bias + ndtri(tails)
    scale = 1 - _acceleration(left_out) * shifted
    if np.isfinite(bias) and (scale > 0).all():
        method, tails = "BCa", ndtr(bias + shifted / scale)
    else:
        method = "percentile; the bias cannot be told"
    low, high = np.quantile(kept, tails)
    return Interval(value, float(low), float(high), level, method, len(drawn), undefined)


def _acceleration(left_out: Array) -> float:
    """Return the skewness of the influence of single groups, over 6 (Efron 1987)."""
    kept = left_out[np.isfinite(left_out)]
    influence = kept.mean() - kept if len(kept) else kept
    spread = float((influence**2).sum())
    return float((influence**3).sum()) / (6 * spread**1.5) if spread > 0 else 0.0


def _reason(value: float, drawn: int, kept: int) -> str:
    """Return why no interval can be told, or nothing."""
    if math.isnan(value):
        return "not defined on these records"
    if not drawn:
        return "one patient has no spread"
    if kept < max(_FEWEST, drawn / 2):
        return f"not defined on {drawn - kept} of {drawn} resamples"
    return ""


def _dense(*runs: Sequence[Sample]) -> tuple[int, list[list[Sample]]]:
    """Number the patients that occur from 0, so that none is drawn who has no record."""
    every = [sample.groups for run in runs for sample in run]
    known = np.unique(np.concatenate(every)) if every else np.empty(0, dtype=np.intp)
    return len(known), [
        [one._replace(groups=np.searchsorted(known, one.groups)) for one in run] for run in runs
    ]


def _mean_of(samples: Sequence[Sample], metric: Metric) -> Statistic:
    def mean(counts: Counts) -> Array:
        total = np.zeros(len(counts))
        for one in samples:
            total += metric.of(one.labels, one.scores, counts.take(one.groups, axis=1))
        return total / len(samples) if samples else np.full(len(counts), np.nan)

    return mean


def _one(found: Interval | list[Interval]) -> Interval:
    return found if isinstance(found, Interval) else found[0]
