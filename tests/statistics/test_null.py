"""Where nothing is to be found, nothing is: p-values are uniform and intervals cover.

Two hundred synthetic cohorts each. A bound that a right method breaks once in a thousand seeds is
held; the seeds are fixed. ``benchmarks/null.py`` shows the figures for whole reshuffled fits.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from scipy import stats

from ecgstore.statistics import delong
from ecgstore.statistics.bootstrap import Sample, metric_interval
from ecgstore.statistics.metrics import METRICS
from ecgstore.statistics.permutation import permutation
from ecgstore.statistics.resampled import corrected_t

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

COHORTS = 200


def cohorts(n: int, *, shift: float) -> Iterator[tuple[Sample, Sample]]:
    """Yield two equally good, correlated scores of patients with one to three records each."""
    rng = np.random.default_rng(20250)
    for _ in range(COHORTS):
        groups = np.repeat(np.arange(n), rng.integers(1, 4, n))
        ill = (rng.random(n) < 0.4)[groups]
        y = ill ^ (rng.random(len(groups)) < 0.1)  # a patient may have records of both labels
        of_patient = rng.normal(size=(3, n))[:, groups]
        common = rng.normal(size=len(y)) + of_patient[0]
        a, b = (shift * y + (common + rng.normal(size=len(y)) + own) / 2 for own in of_patient[1:])
        yield Sample(y * 1.0, a, groups), Sample(y * 1.0, b, groups)


def uniform(p: NDArray[np.float64]) -> None:
    assert len(p) == COHORTS
    assert stats.kstest(p, "uniform").pvalue > 0.001
    low, high = stats.binom(COHORTS, 0.05).interval(0.999)
    assert low <= (p < 0.05).sum() <= high


@pytest.mark.parametrize("shift", [0.0, 0.8])
def test_delongs_p_is_uniform_where_patients_have_several_records(shift: float) -> None:
    found = [
        delong.paired(a.labels, a.scores, b.scores, a.groups).p for a, b in cohorts(80, shift=shift)
    ]
    uniform(np.array(found))


def test_the_permutation_p_is_uniform() -> None:
    found = [
        permutation([a], [b], METRICS["AUROC"], resamples=199).p for a, b in cohorts(40, shift=0.5)
    ]
    uniform(np.array(found) - 1 / 400)  # its steps are 1/200


def differences(*, signal: float, n: int = 200, reshuffles: int = 10) -> Iterator[list[float]]:
    """Yield the difference in AUROC of two equally informative feature sets on each reshuffle."""
    rng = np.random.default_rng(5)
    ill = np.arange(n) % 5 < 2
    for _ in range(COHORTS):
        x = rng.normal(size=(2, n, 6)) + signal * ill[:, None] * (np.arange(6) == 0)
        order = rng.permuted(np.tile(np.arange(n), (reshuffles, 1)), axis=1)
        test, train = order[:, : n // 5], order[:, n // 5 :]
        y = ill[train][..., None]
        fitted = (x[:, train] * y).sum(axis=2) / y.sum(axis=1)
        fitted -= (x[:, train] * ~y).sum(axis=2) / (~y).sum(axis=1)
        ranks = stats.rankdata(np.einsum("frnd,frd->frn", x[:, test], fitted), axis=2)
        y = ill[test]
        m = y.sum(axis=1)
        auroc = ((ranks * y).sum(axis=2) - m * (m + 1) / 2) / (m * (n // 5 - m))
        yield (auroc[0] - auroc[1]).tolist()


def test_the_corrected_t_is_uniform_where_both_are_equally_good() -> None:
    seen = list(differences(signal=1))
    found = [corrected_t(one, test_to_train=0.25).p for one in seen]
    uniform(np.array(found))
    assert np.mean(stats.ttest_1samp(seen, 0, axis=1).pvalue < 0.05) > 0.2


def test_the_corrected_t_is_only_approximate_where_neither_is_any_good() -> None:
    # Of noise alone it finds a difference in one cohort of ten, the plain test in four of ten.
    seen = list(differences(signal=0))
    found = [corrected_t(one, test_to_train=0.25).p for one in seen]
    low, high = stats.binom(COHORTS, 0.1).interval(0.999)
    assert low <= np.sum(np.array(found) < 0.05) <= high
    assert np.mean(stats.ttest_1samp(seen, 0, axis=1).pvalue < 0.05) > 0.25


def test_intervals_cover_at_their_level() -> None:
    rng = np.random.default_rng(77)
    n, shift = 90, 1.2
    truth = stats.norm.cdf(shift / np.sqrt(2))  # of the binormal model
    y = (np.arange(n) % 3 == 0) * 1.0
    covered = {"DeLong": 0, "BCa": 0}
    for _ in range(COHORTS):
        one = Sample(y, rng.normal(size=n) + shift * y, np.arange(n))
        for found in (
            delong.auroc_interval(*one[:2]),
            metric_interval([one], METRICS["AUROC"], resamples=300),
        ):
            covered[found.method] += bool(found.low <= truth <= found.high)
    low, high = stats.binom(COHORTS, 0.95).interval(0.999)
    assert all(low <= count <= high for count in covered.values()), covered
