"""Intervals over patients: SciPy's BCa exactly, whole patients, never an end without a reason."""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from scipy import stats

from ecgstore.statistics.bootstrap import (
    Sample,
    bootstrap,
    counts_of,
    metric_interval,
    paired_interval,
)
from ecgstore.statistics.interval import Interval
from ecgstore.statistics.metrics import METRICS

if TYPE_CHECKING:
    from numpy.typing import NDArray


def _mean(x: NDArray[Any], counts: NDArray[Any]) -> NDArray[Any]:
    mean: NDArray[Any] = counts @ x / counts.sum(axis=1)
    return mean


def sample(n: int = 200, *, seed: int = 0, shift: float = 1.0) -> Sample:
    rng = np.random.default_rng(seed)
    y = (rng.random(n) < 0.3) * 1.0
    return Sample(y, rng.normal(size=n) + shift * y, np.arange(n))


@pytest.mark.parametrize("level", [0.95, 0.8])
def test_the_interval_of_a_mean_is_scipys(level: float) -> None:
    x = np.random.default_rng(1).exponential(size=40)
    found = bootstrap(lambda c: c @ x / c.sum(axis=1), 40, resamples=999, seed=3, level=level)
    expected = stats.bootstrap(
        (x,),
        np.mean,
        n_resamples=999,
        method="BCa",
        confidence_level=level,
        rng=np.random.default_rng(3),
    ).confidence_interval
    assert isinstance(found, Interval)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-12)
    assert found.value == pytest.approx(x.mean())
    assert (found.method, found.resamples) == ("BCa", 999)


def test_ties_with_the_estimate_count_half_as_in_scipy() -> None:
    x = np.array([1, 1, 2, 2, 2, 3, 3, 7, 8, 8.0])
    found = bootstrap(lambda c: c @ x / c.sum(axis=1), 10, resamples=499, seed=0)
    expected = stats.bootstrap(
        (x,), np.mean, n_resamples=499, method="BCa", rng=np.random.default_rng(0)
    ).confidence_interval
    assert isinstance(found, Interval)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_an_interval_of_the_auroc_is_scipys() -> None:
    one = sample(60)

    def auroc(places: NDArray[Any]) -> float:
        return float(METRICS["AUROC"].of(one.labels[places], one.scores[places], None)[0])

    found = metric_interval([one], METRICS["AUROC"], resamples=300, seed=5)
    expected = stats.bootstrap(
        (np.arange(60),),
        auroc,
        vectorized=False,
        n_resamples=300,
        method="BCa",
        rng=np.random.default_rng(5),
    ).confidence_interval
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_copies_of_a_patients_records_narrow_nothing() -> None:
    one = sample()
    twice = Sample(*(np.concatenate([part, part]) for part in one))
    metric = METRICS["AUROC"]
    alone = metric_interval([one], metric, resamples=400)
    assert metric_interval([twice], metric, resamples=400) == alone
    apart = twice._replace(groups=np.arange(400))
    wrong = metric_interval([apart], metric, resamples=400)
    assert wrong.high - wrong.low < 0.8 * (alone.high - alone.low)
    # The same test part in every reshuffle says no more than once.
    many = metric_interval([one] * 5, metric, resamples=400)
    assert (many.low, many.high) == pytest.approx((alone.low, alone.high))


def test_patients_without_a_record_are_not_drawn() -> None:
    one = sample(100)
    far = one._replace(groups=one.groups * 1000 + 7)
    metric = METRICS["Brier"]
    probabilities = 1 / (1 + np.exp(-one.scores))
    assert metric_interval([far._replace(scores=probabilities)], metric) == metric_interval(
        [one._replace(scores=probabilities)], metric
    )


def test_a_paired_difference_is_narrower_and_has_the_sign_of_a_less_b() -> None:
    a = sample(shift=1.5)
    b = a._replace(scores=a.scores + 0.3 * np.random.default_rng(2).normal(size=200))
    metric = METRICS["AUROC"]
    found = paired_interval([a], [b], metric, resamples=500)
    back = paired_interval([b], [a], metric, resamples=500)
    assert found.value == pytest.approx(-back.value)
    assert found.low < found.value < found.high
    alone = metric_interval([a], metric, resamples=500)
    assert found.high - found.low < 0.5 * (alone.high - alone.low)
    same = paired_interval([a], [a], metric, resamples=100)
    assert (same.low, same.value, same.high) == (0, 0, 0)
    assert same.method == "BCa; all resamples are alike"


def test_undefined_resamples_are_counted_and_told() -> None:
    y = np.zeros(40)
    y[:3] = 1
    few = Sample(y, np.sin(np.arange(40.0)), np.arange(40))
    found = metric_interval([few], METRICS["AUROC"], resamples=1000)
    assert 20 < found.undefined < 90  # (37/40)**40 is 4.4 %
    assert found.low < found.value < found.high
    clustered = few._replace(groups=np.where(y > 0, 0, np.arange(40)))
    found = metric_interval([clustered], METRICS["AUROC"], resamples=1000)
    assert 300 < found.undefined < 430  # the one patient with the label is missed by 1 / e
    three = np.arange(3.0)  # patients and classes: 6 of 27 draws hold all of them
    rare = Sample(three, np.eye(3), three.astype(int))
    found = metric_interval([rare], METRICS["macro AUROC"], resamples=1000)
    assert math.isnan(found.low)
    assert "not defined on " in found.method


def test_no_interval_comes_without_a_reason() -> None:
    one = sample(30)
    metric = METRICS["AUROC"]
    told = {
        "not defined on these records": one._replace(labels=np.zeros(30)),
        "one patient has no spread": one._replace(groups=np.zeros(30, dtype=int)),
    }
    for reason, bad in told.items():
        found = metric_interval([bad], metric, resamples=50)
        assert math.isnan(found.low)
        assert math.isnan(found.high)
        assert found.method == reason
    found = metric_interval([one], metric, resamples=9)
    assert (math.isnan(found.low), found.method) == (True, "not defined on 0 of 9 resamples")


def test_an_estimate_at_the_edge_falls_back_to_percentiles() -> None:
    x = np.arange(30.0)
    found = bootstrap(lambda c: np.where(c > 0, x, 0).max(axis=1) - 30 * (c == 1).all(axis=1), 30)
    assert isinstance(found, Interval)
    assert found.method == "percentile; the bias cannot be told"


def test_several_figures_share_their_resamples() -> None:
    x = np.random.default_rng(0).normal(size=(25, 2))
    both = bootstrap(lambda c: c @ x / c.sum(axis=1, keepdims=True), 25, resamples=200, seed=4)
    assert isinstance(both, list)
    for k, found in enumerate(both):
        alone = bootstrap(partial(_mean, x[:, k]), 25, resamples=200, seed=4)
        assert isinstance(alone, Interval)
        assert (found.low, found.high) == pytest.approx((alone.low, alone.high))
    assert bootstrap(lambda c: c @ x / 25, 25, resamples=200, seed=4) != both[::-1]


def test_counts_are_of_what_was_drawn() -> None:
    assert counts_of(np.array([[0, 0, 2], [1, 1, 1]])).tolist() == [[2, 0, 1], [0, 3, 0]]
