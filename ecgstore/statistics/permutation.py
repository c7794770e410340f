"""A paired permutation test: would the difference be as large had the scores been swapped?

Where two classifiers are equally good, which of them gave a patient's scores does not matter. The
test swaps both classifiers' scores of whole patients at random and asks how often the difference
is as large as the one seen. Scores of different classifiers are on different scales, so a metric
that looks at the order alone gets ranks (Venkatraman and Begg 1996; Bandos, Rockette and Gur
2005). With few patients every pattern is tried (Fisher 1935); else random ones, and the observed
one is counted among them, so p is never 0 (Phipson and Smyth 2010).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ecgstore.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from ecgstore.statistics.bootstrap import Sample
    from ecgstore.statistics.metrics import Metric

__all__ = ["Permuted", "permutation"]

_EXACT = 14
"""Patients up to which all ``2**patients`` patterns are tried."""

_CELLS = 1 << 21


@dataclass(frozen=True)
class Permuted:
    """A difference and how often swapping makes one as large.

    Attributes:
        difference: The mean metric of the first less that of the second; of ranks where the metric
            looks at the order alone.
        p: Two-sided p-value; NaN where the metric is not defined.
        patterns: Patterns tried.
        exact: Whether these were all.
    """

    difference: float
    p: float
    patterns: int
    exact: bool


def permutation(
    a: Sequence[Sample],
    b: Sequence[Sample],
    metric: Metric,
    *,
    resamples: int = 2000,
    seed: int = 0,
) -> Permuted:
    """Test whether two scores of the same records are equally good.

    Args:
        a: Samples with one classifier's scores.
        b: The same records, in the same order, with the other's.
        metric: The figure compared; its mean over the samples is.
        resamples: Patterns tried where there are too many for all.
        seed: Of the random patterns.

    Raises:
        UsageError: The samples hold different records.
    """
    pairs = [_stacked(one, other, metric) for one, other in zip(a, b, strict=True)]
    known = np.unique(np.concatenate([one.groups for one in a]))
    places = [np.searchsorted(known, one.groups) for one in a]
    exact = len(known) <= _EXACT
    found = []
    for swapped in _patterns(len(known), resamples, seed, exact=exact):
        total = np.zeros(len(swapped))
        for (labels, scores), place in zip(pairs, places, strict=True):
            second = swapped.take(place, axis=1)
            first = 1 - second
            total += metric.of(labels, scores, np.hstack([first, second]))
            total -= metric.of(labels, scores, np.hstack([second, first]))
        found.append(total / len(pairs))
    values = np.concatenate(found)
    observed = float(values[0])
    if not np.isfinite(values).all():
        return Permuted(observed, math.nan, len(values), exact)
    as_large = np.abs(values) >= abs(observed) - 1e-12
    return Permuted(observed, float(as_large.mean()), len(values), exact)


def _patterns(
    patients: int, resamples: int, seed: int, *, exact: bool
) -> Iterator[NDArray[np.int32]]:
    """Yield ``(patterns, patients)`` of 0 and 1; the first of all swaps nobody."""
    if exact:
        numbers = np.arange(2**patients)
        yield (numbers[:, None] >> np.arange(patients) & 1).astype(np.int32)
        return
    yield np.zeros((1, patients), dtype=np.int32)
    rng = np.random.default_rng(seed)
    step = max(1, _CELLS // patients)
    for start in range(0, resamples, step):
        yield rng.integers(0, 2, (min(step, resamples - start), patients), dtype=np.int32)


def _stacked(a: Sample, b: Sample, metric: Metric) -> tuple[NDArray[Any], NDArray[np.float64]]:
    """Return labels and scores of both classifiers, one above the other."""
    if not (np.array_equal(a.labels, b.labels) and np.array_equal(a.groups, b.groups)):
        msg = "A paired test takes two scores of the same records in the same order."
        raise UsageError(msg)
    scores = [np.asarray(one.scores, dtype=np.float64) for one in (a, b)]
    if metric.by_order:
        from scipy.stats import rankdata

        scores = [rankdata(one, axis=0) for one in scores]
    return np.concatenate([a.labels, b.labels]), np.concatenate(scores)
