"""Swapping scores of whole patients: exact where they are few, seeded where they are many."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from scipy import stats

from ecgstore.errors import UsageError
from ecgstore.statistics.bootstrap import Sample
from ecgstore.statistics.metrics import METRICS
from ecgstore.statistics.permutation import permutation

if TYPE_CHECKING:
    from numpy.typing import NDArray

RNG = np.random.default_rng(3)
GROUPS = np.array([0, 0, 1, 2, 2, 2, 3, 4, 5, 5, 6, 7])
LABELS = (np.arange(12) % 3 == 0) * 1.0
A = RNG.normal(size=12) + 2 * LABELS
B = RNG.normal(size=12)


def auroc(scores: NDArray[Any]) -> float:
    pairs = scores[LABELS == 1, None] - scores[LABELS == 0]
    return float(np.mean((pairs > 0) + 0.5 * (pairs == 0)))


def test_few_patients_are_swapped_in_every_way() -> None:
    ranks = [stats.rankdata(one) for one in (A, B)]
    seen = []
    for pattern in product([False, True], repeat=8):
        swap = np.array(pattern)[GROUPS]
        first, second = np.where(swap, ranks[1], ranks[0]), np.where(swap, ranks[0], ranks[1])
        seen.append(auroc(first) - auroc(second))
    expected = np.mean(np.abs(seen) >= abs(seen[0]) - 1e-12)
    found = permutation([Sample(LABELS, A, GROUPS)], [Sample(LABELS, B, GROUPS)], METRICS["AUROC"])
    assert found.p == pytest.approx(expected)
    assert (found.patterns, found.exact) == (256, True)
    assert found.difference == pytest.approx(auroc(A) - auroc(B))


def test_an_error_a_record_is_scipys_test_of_signs() -> None:
    rng = np.random.default_rng(0)
    y, each = rng.normal(size=(3, 10)), np.arange(10)
    a, b = (Sample(y[0], y[0] + one, each) for one in (y[1], 0.4 * y[2]))
    found = permutation([a], [b], METRICS["MAE"])
    expected = stats.permutation_test(
        (np.abs(y[1]), np.abs(0.4 * y[2])),
        lambda u, v: np.mean(u - v),
        permutation_type="samples",
        n_resamples=np.inf,
    )
    assert found.p == pytest.approx(expected.pvalue)


def test_many_patients_are_swapped_at_random_and_p_is_never_nothing() -> None:
    rng = np.random.default_rng(1)
    y = (rng.random(300) < 0.4) * 1.0
    each = np.arange(300)
    good, bad = Sample(y, y + rng.normal(size=300), each), Sample(y, rng.normal(size=300), each)
    metric = METRICS["AUROC"]
    found = permutation([good], [bad], metric, resamples=99)
    assert (found.p, found.patterns, found.exact) == (0.01, 100, False)
    assert permutation([good], [bad], metric, resamples=99, seed=0) == found
    # The scale of a score does not matter to what looks at its order alone.
    scaled = good._replace(scores=np.exp(good.scores) * 1000)
    assert permutation([scaled], [bad], metric, resamples=99) == found
    same = permutation([good], [scaled], metric, resamples=99)
    assert (same.difference, same.p) == (0, 1)


def test_reshuffles_swap_the_same_patients() -> None:
    parts = [np.arange(8), np.arange(4, 12)]
    a, b = ([Sample(LABELS[i], x[i], GROUPS[i]) for i in parts] for x in (A, B))
    found = permutation(a, b, METRICS["AUROC"])
    assert found.patterns == 2**8
    alone = [permutation([u], [v], METRICS["AUROC"]).difference for u, v in zip(a, b, strict=True)]
    assert found.difference == pytest.approx(np.mean(alone))


def test_different_records_are_refused_and_one_class_has_no_p() -> None:
    a = Sample(LABELS, A, GROUPS)
    with pytest.raises(UsageError, match="same records in the same order"):
        permutation([a], [a._replace(labels=1 - LABELS)], METRICS["AUROC"])
    one = a._replace(labels=np.zeros(12))
    assert np.isnan(permutation([one], [one], METRICS["AUROC"]).p)
