"""The corrected resampled t-test: is one classifier better over reshuffles of the same records?

The training sets of reshuffles overlap, so their differences are not independent and the plain
t-test finds differences that are not there. Nadeau and Bengio (Inference for the generalization
error, Machine Learning 52, 2003) widen the variance by the ratio of test to training records. The
correction is a rule of thumb. At 0.05 it finds a difference that is not there in one cohort of
twenty to one of seven, by how much the features tell and how the records hang together, where the
plain t-test does in three to four of ten (see ``benchmarks/null.py``).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ecgstore.statistics.interval import Interval

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

__all__ = ["Corrected", "corrected_t"]


@dataclass(frozen=True)
class Corrected:
    """A mean difference over reshuffles.

    Attributes:
        interval: The mean with its interval.
        p: Two-sided p-value of a mean of 0; NaN where ``interval.method`` says why there is none.
    """

    interval: Interval
    p: float


def corrected_t(differences: ArrayLike, *, test_to_train: float, level: float = 0.95) -> Corrected:
    """Test whether the mean of differences over reshuffles is 0.

    The variance of the mean is ``(1/J + n_test/n_train) s²``, with ``J - 1`` degrees of freedom.

    Args:
        differences: ``(J,)`` difference of a metric on each reshuffle.
        test_to_train: Test records for each training record, such as 0.25 for 80/20.
        level: Confidence level.
    """
    from scipy.stats import t

    values = np.asarray(differences, dtype=np.float64)
    count = len(values)
    mean = float(values.mean()) if count else math.nan
    if count < 2 or not math.isfinite(mean):
        reason = "needs two reshuffles" if count < 2 else "not defined on every reshuffle"
        return Corrected(Interval(mean, math.nan, math.nan, level, reason), math.nan)
    variance = (1 / count + test_to_train) * float(values.var(ddof=1))
    if variance <= 1e-24:  # differences of figures up to 1 that agree to the last digit
        p = 1.0 if abs(mean) <= 1e-12 else math.nan
        return Corrected(Interval(mean, mean, mean, level, "corrected t; no spread"), p)
    error = math.sqrt(variance)
    width = float(t.ppf((1 + level) / 2, count - 1)) * error
    p = float(2 * t.sf(abs(mean) / error, count - 1))
    return Corrected(Interval(mean, mean - width, mean + width, level, "corrected t"), p)
