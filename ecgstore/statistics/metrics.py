"""Metrics of predictions, each computed on one sample or on thousands of resamples at once.

A resample is told by how often each record is in it. What depends on the order of the scores is
sorted once; each resample then costs cumulative sums of its counts, with ties handled exactly.
Every figure equals scikit-learn's on the same resample.

Sources: AUROC as the probability that a positive scores above a negative, ties half (Hanley and
McNeil 1982); average precision as the sum of precision over the steps of recall (Buckley and
Voorhees 2000; no interpolation, see Davis and Goadrich 2006); Brier 1950; Cohen's kappa (Cohen
1960); C-index (Harrell et al. 1982).
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ecgstore import settings
from ecgstore.errors import UsageError
from ecgstore.statistics import agreement, survival

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from ecgstore.tasks import Target

    Array = NDArray[np.float64]
    Counts = NDArray[np.integer[Any]]
    Kernel = Callable[[Array], Array]
    Prepare = Callable[[Array, Array], Kernel]

__all__ = ["METRICS", "Metric", "measure", "reported"]

_CELLS = 1 << 17
"""Counts worked on at once: in double precision they fit the second cache of a core."""


@dataclass(frozen=True)
class Metric:
    """A figure that says how good predictions are.

    Attributes:
        name: As it is printed.
        targets: Kinds of target it is defined for.
        better: Which direction is better.
        of: Takes ``(n,)`` labels, ``(n,)`` or ``(n, classes)`` scores and whole numbers
            ``(resamples, n)``, how often each record is in each resample; returns
            ``(resamples,)`` float64, NaN where a resample does not define the metric. None in
            place of counts stands for one resample that is the sample itself.
        by_order: Whether it depends on the order of the scores alone.
    """

    name: str
    targets: frozenset[str]
    better: Literal["higher", "lower"]
    of: Callable[[NDArray[Any], NDArray[Any], Counts | None], Array]
    by_order: bool = False

    def __repr__(self) -> str:
        return f"Metric({self.name!r}, {self.better} is better)"


def measure(
    labels: NDArray[Any], scores: NDArray[Any], target: Target = "binary"
) -> dict[str, float]:
    """Return the metrics that `reported` names; NaN where one is not defined.

    Args:
        labels: ``(n,)``; see `ecgstore.tasks.Target`.
        scores: ``(n,)``, or ``(n, classes)`` probabilities for several classes.
        target: What the labels say.
    """
    return {metric.name: float(metric.of(labels, scores, None)[0]) for metric in reported(target)}


def reported(target: Target) -> tuple[Metric, ...]:
    """Return the metrics that are stored of every run with this kind of target."""
    return tuple(METRICS[name] for name in _REPORTED[target])


def _resampled(
    prepare: Prepare, labels: NDArray[Any], scores: NDArray[Any], counts: Counts | None
) -> Array:
    """Apply a metric to all resamples, a cache full of them at a time, on all cores."""
    y, s = _checked(labels, scores)
    if counts is None:
        counts = np.ones((1, len(y)), dtype=np.int32)
    out = np.full(len(counts), np.nan)
    if not len(y):
        return out
    kernel = prepare(y, s)
    step = max(1, _CELLS // len(y))

    def work(start: int) -> None:
        block = counts[start : start + step].astype(np.float64, order="C")
        with np.errstate(divide="ignore", invalid="ignore"):
            out[start : start + step] = kernel(block)

    starts = range(0, len(counts), step)
    if len(starts) < 4:
        for start in starts:
            work(start)
    else:
        with ThreadPoolExecutor(settings.threads()) as pool:
            list(pool.map(work, starts))
    return out


def _checked(labels: NDArray[Any], scores: NDArray[Any]) -> tuple[Array, Array]:
    y, s = np.asarray(labels, dtype=np.float64), np.asarray(scores, dtype=np.float64)
    if y.shape != s.shape[:1]:
        msg = f"{len(y)} labels and {len(s)} scores do not belong together."
        raise UsageError(msg)
    for name, values in (("labels", y), ("scores", s)):
        finite = np.isfinite(values).all(axis=tuple(range(1, values.ndim)))
        bad = int(np.count_nonzero(~finite))
        if bad:
            msg = f"{bad} of {len(values)} {name} are not numbers, so no metric is defined."
            raise UsageError(msg, hint="Leave these records out, or score them anew.")
    return y, s


def _mean(values: Array) -> Kernel:
    """Return the mean of a value a record."""

    def kernel(counts: Array) -> Array:
        mean: Array = counts @ values / counts.sum(axis=1)
        return mean

    return kernel


def _auroc(labels: Array, scores: Array) -> Kernel:
    positive = np.flatnonzero(labels > 0)
    negative = np.flatnonzero(labels <= 0)
    negative = negative[np.argsort(scores[negative], kind="stable")]
    below = np.searchsorted(scores[negative], scores[positive], side="left")
    upto = np.searchsorted(scores[negative], scores[positive], side="right")
    tied = bool((below != upto).any())

    def kernel(counts: Array) -> Array:
        beaten = _running(counts.take(negative, axis=1))
        wins = beaten.take(below, axis=1)
        if tied:
            wins = (wins + beaten.take(upto, axis=1)) / 2
        mine = counts.take(positive, axis=1)
        area: Array = np.einsum("ij,ij->i", mine, wins)
        area /= mine.sum(axis=1) * beaten[:, -1]
        return area

    return kernel


def _aucpr(labels: Array, scores: Array) -> Kernel:
    ordered = [
        side[np.argsort(-scores[side], kind="stable")]
        for side in (np.flatnonzero(labels > 0), np.flatnonzero(labels <= 0))
    ]
    positive, negative = ordered
    # Records at least as high as each positive: the whole of its tie counts.
    hits = np.searchsorted(-scores[positive], -scores[positive], side="right")
    alarms = np.searchsorted(-scores[negative], -scores[positive], side="right")
    untied = bool((hits == np.arange(1, len(hits) + 1)).all())

    def kernel(counts: Array) -> Array:
        mine = counts.take(positive, axis=1)
        found = _running(mine)
        total = found[:, -1].copy()
        found = found[:, 1:] if untied else found.take(hits, axis=1)
        all_found = _running(counts.take(negative, axis=1)).take(alarms, axis=1)
        all_found += found
        precision = np.divide(found, np.maximum(all_found, 1, out=all_found), out=all_found)
        area: Array = np.einsum("ij,ij->i", mine, precision)
        return area / total

    return kernel


def _running(counts: Array) -> Array:
    """Return cumulative sums of each row, from 0."""
    sums = np.empty((len(counts), counts.shape[1] + 1))
    sums[:, 0] = 0
    np.cumsum(counts, axis=1, out=sums[:, 1:])
    return sums


def _brier(labels: Array, scores: Array) -> Kernel:
    return _mean((scores - labels) ** 2 if _probabilities(scores) else np.full(len(labels), np.nan))


def _log_loss(labels: Array, scores: Array) -> Kernel:
    if not _probabilities(scores):
        return _mean(np.full(len(labels), np.nan))
    eps = np.finfo(np.float64).eps
    p = np.clip(scores, eps, 1 - eps)
    return _mean(-np.where(labels > 0, np.log(p), np.log1p(-p)))


def _probabilities(scores: Array) -> bool:
    return bool(((scores >= 0) & (scores <= 1)).all())


def _binary(prepare: Prepare) -> Prepare:
    """Refuse labels that are not 0 or 1, and scores that are not one a record."""

    def checked(labels: Array, scores: Array) -> Kernel:
        if scores.ndim != 1 or not np.isin(labels, (0, 1)).all():
            msg = "This metric takes labels 0 and 1 and one score a record."
            raise UsageError(msg)
        return prepare(labels, scores)

    return checked


def _classes(prepare: Prepare) -> Prepare:
    """Refuse labels that are no column of the scores."""

    def checked(labels: Array, scores: Array) -> Kernel:
        if scores.ndim != 2 or not np.isin(labels, np.arange(scores.shape[1])).all():
            msg = "This metric takes labels 0, 1, 2, … and as many columns of scores."
            raise UsageError(msg)
        return prepare(labels, scores)

    return checked


def _macro(prepare: Prepare, labels: Array, scores: Array) -> Kernel:
    """Each class against the rest, averaged; not defined where a class does not occur."""
    kernels = [prepare((labels == k) * 1.0, scores[:, k]) for k in range(scores.shape[1])]

    def kernel(counts: Array) -> Array:
        mean: Array = np.mean([one(counts) for one in kernels], axis=0)
        return mean

    return kernel


def _error(labels: Array, scores: Array) -> Kernel:
    return _mean(np.abs(scores - labels))


def _square_error(labels: Array, scores: Array) -> Kernel:
    mean = _mean((scores - labels) ** 2)
    return lambda counts: np.sqrt(mean(counts))


def _r2(labels: Array, scores: Array) -> Kernel:
    centred = labels - labels.mean()
    residual = (scores - labels) ** 2

    def kernel(counts: Array) -> Array:
        return 1 - counts @ residual / _spread(counts, centred, centred)

    return kernel


def _pearson(labels: Array, scores: Array) -> Kernel:
    x, y = labels - labels.mean(), scores - scores.mean()

    def kernel(counts: Array) -> Array:
        ends = _spread(counts, x, x) * _spread(counts, y, y)
        return np.clip(_spread(counts, x, y) / np.sqrt(ends), -1, 1)

    return kernel


def _spread(counts: Array, x: Array, y: Array) -> Array:
    """Return the sum of products of deviations; NaN for a variance that is only rounding."""
    raw = counts @ (x * y)
    spread: Array = raw - (counts @ x) * (counts @ y) / counts.sum(axis=1)
    if x is y:
        spread[spread <= 1e-12 * raw] = np.nan
    return spread


def _metrics() -> list[Metric]:
    binary, classes = frozenset({"binary"}), frozenset({"multiclass"})
    number, time = frozenset({"continuous"}), frozenset({"survival"})

    def metric(
        name: str,
        targets: frozenset[str],
        prepare: Prepare,
        better: Literal["higher", "lower"] = "higher",
        *,
        by_order: bool = False,
    ) -> Metric:
        return Metric(name, targets, better, partial(_resampled, prepare), by_order)

    return [
        metric("AUROC", binary, _binary(_auroc), by_order=True),
        metric("AUCPR", binary, _binary(_aucpr), by_order=True),
        metric("Brier", binary, _binary(_brier), "lower"),
        metric("log loss", binary, _binary(_log_loss), "lower"),
        metric("macro AUROC", classes, _classes(partial(_macro, _auroc)), by_order=True),
        metric("macro AUCPR", classes, _classes(partial(_macro, _aucpr)), by_order=True),
        *(metric(name, classes, _classes(one)) for name, one in agreement.PREPARED.items()),
        metric("R2", number, _r2),
        metric("MAE", number, _error, "lower"),
        metric("RMSE", number, _square_error, "lower"),
        metric("Pearson r", number, _pearson),
        metric("C-index", time, survival.concordance, by_order=True),
    ]


METRICS: Mapping[str, Metric] = {one.name: one for one in _metrics()}
"""Every metric, by its name."""

_REPORTED: Mapping[str, tuple[str, ...]] = {
    "binary": ("AUROC", "AUCPR"),
    "multiclass": ("macro AUROC", "macro AUCPR", "balanced accuracy"),
    "continuous": ("R2", "MAE", "Pearson r"),
    "survival": ("C-index",),
}
