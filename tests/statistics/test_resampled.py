"""The corrected resampled t-test, by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from ecgstore.statistics.resampled import corrected_t

DIFFERENCES = [0.010, 0.004, 0.012, -0.002, 0.006]


def test_the_variance_is_widened_by_the_ratio_of_test_to_training_records() -> None:
    # Mean 0.006; squares of deviations 16, 4, 36, 64, 0 (1e-6): s² = 3e-5; (1/5 + 1/4) s².
    error = math.sqrt(0.45 * 3e-5)
    found = corrected_t(DIFFERENCES, test_to_train=0.25)
    assert found.p == pytest.approx(2 * stats.t(4).sf(0.006 / error))
    width = 2.7764451051977987 * error  # the table's t of 0.975 with 4 degrees of freedom
    interval = found.interval
    assert (interval.low, interval.value, interval.high) == pytest.approx(
        (0.006 - width, 0.006, 0.006 + width)
    )
    assert interval.method == "corrected t"


def test_without_training_records_it_is_students_test() -> None:
    expected = stats.ttest_1samp(DIFFERENCES, 0)
    found = corrected_t(DIFFERENCES, test_to_train=0, level=0.9)
    assert found.p == pytest.approx(expected.pvalue)
    ends = expected.confidence_interval(0.9)
    assert (found.interval.low, found.interval.high) == pytest.approx((ends.low, ends.high))


@pytest.mark.parametrize(
    ("differences", "reason", "p"),
    [
        ([0.1], "needs two reshuffles", math.nan),
        ([], "needs two reshuffles", math.nan),
        ([0.1, math.nan], "not defined on every reshuffle", math.nan),
        ([0.1, 0.1], "corrected t; no spread", math.nan),
        ([0.0, 0.0], "corrected t; no spread", 1.0),
    ],
)
def test_what_cannot_be_told_has_a_reason(differences: list[float], reason: str, p: float) -> None:
    found = corrected_t(differences, test_to_train=0.25)
    assert found.interval.method == reason
    assert found.p == pytest.approx(p, nan_ok=True)
    assert not found.interval.excludes_zero or np.ptp(differences) == 0
