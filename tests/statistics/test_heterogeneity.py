"""Cochran's Q equals published values, and allows for patients who are in several groups."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import chi2, kstest

from ecgstore.errors import NotEnoughDataError, UsageError
from ecgstore.statistics.heterogeneity import covariance_between, heterogeneity

# Thirteen trials of BCG vaccination (Colditz et al. 1994, JAMA 271:698): tuberculosis and not
# among the vaccinated, then among the controls.
BCG = np.array(
    [
        *([4, 119, 11, 128], [6, 300, 29, 274], [3, 228, 11, 209], [62, 13536, 248, 12619]),
        *([33, 5036, 47, 5761], [180, 1361, 372, 1079], [8, 2537, 10, 619]),
        *([505, 87886, 499, 87892], [29, 7470, 45, 7232], [17, 1699, 65, 1600]),
        *([186, 50448, 141, 27197], [5, 2493, 3, 2338], [27, 16886, 29, 17825]),
    ],
    dtype=float,
)


def test_bcg_trials_give_the_published_figures() -> None:
    a, b, c, d = BCG.T
    risk = np.log(a / (a + b)) - np.log(c / (c + d))
    variance = 1 / a - 1 / (a + b) + 1 / c - 1 / (c + d)
    found = heterogeneity(risk, variance)
    assert found is not None
    # Viechtbauer 2010, J Stat Softw 36(3), the fixed-effects model of these trials.
    assert found.q == pytest.approx(152.2330, abs=5e-5)
    assert found.df == 12
    assert found.common == pytest.approx(-0.4303, abs=5e-5)
    assert found.i2 == pytest.approx(0.9212, abs=5e-5)


def test_two_groups_by_hand() -> None:
    found = heterogeneity(np.array([1.0, 2.0]), np.array([1.0, 1.0]))
    assert found is not None
    assert (found.q, found.df, found.common, found.i2) == (0.5, 1, 1.5, 0.0)
    assert found.p == pytest.approx(chi2.sf(0.5, 1))
    shared = heterogeneity(np.array([1.0, 2.0]), np.array([[1.0, 0.6], [0.6, 1.0]]))
    assert shared is not None
    assert shared.q == pytest.approx(1 / (1 + 1 - 2 * 0.6))


def test_p_is_uniform_where_groups_are_alike() -> None:
    rng = np.random.default_rng(0)
    mixed = rng.normal(size=(4, 4))
    covariance = mixed @ mixed.T + np.eye(4)
    draws = rng.multivariate_normal(np.full(4, 0.7), covariance, 400)
    found = [one.p for row in draws if (one := heterogeneity(row, covariance))]
    assert len(found) == 400
    assert kstest(found, "uniform").pvalue > 0.001


def test_what_cannot_be_told() -> None:
    assert heterogeneity(np.array([0.9, 1.0]), np.array([0.1, 0.0])) is None
    assert heterogeneity(np.array([0.9, 0.9]), np.ones((2, 2))) is None
    with pytest.raises(UsageError, match="at least 2 groups; 1 were given"):
        heterogeneity(np.array([0.9]), np.array([0.1]))
    with pytest.raises(UsageError, match="finite figures"):
        heterogeneity(np.array([0.9, np.nan]), np.array([0.1, 0.1]))
    with pytest.raises(NotEnoughDataError, match="Only 0 of 50 resamples"):
        covariance_between(lambda counts: np.full((len(counts), 2), np.nan), 9, resamples=50)


def test_covariance_of_means_is_that_of_theory() -> None:
    rng = np.random.default_rng(1)
    x = rng.normal(size=(400, 2))
    x[:, 1] = 0.6 * x[:, 0] + 0.8 * x[:, 1]
    found = covariance_between(lambda counts: counts @ x / 400, 400, resamples=4000, seed=2)
    assert found == pytest.approx(np.cov(x, rowvar=False) / 400, rel=0.08)
