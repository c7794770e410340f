"""Probes out of fold equal scikit-learn's, and nothing of a held-out fold reaches its model."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import Ridge as Reference
from sklearn.preprocessing import StandardScaler

from ecgstore.statistics.ridge import STRENGTHS, Ridge

RNG = np.random.default_rng(0)
X = (RNG.normal(size=(120, 8)) * RNG.uniform(0.1, 30, 8) + 5).astype(np.float32)
X[:, 7] = 2.5  # a number that never changes
fold = np.arange(120) % 3
Y = np.column_stack([X[:, 0] + RNG.normal(size=120), RNG.normal(size=120)])


def reference(rows: np.ndarray, strength: float, target: int) -> np.ndarray:
    """Return what scikit-learn predicts of all records when fitted to some."""
    scaler = StandardScaler().fit(X[rows].astype(np.float64))
    model = Reference(alpha=strength * rows.sum())
    model.fit(scaler.transform(X[rows].astype(np.float64)), Y[rows, target])
    return np.asarray(model.predict(scaler.transform(X.astype(np.float64))))


def test_scores_equal_scikit_learn_with_the_strength_that_inner_folds_choose() -> None:
    found = Ridge(X, fold).scores(Y)
    for target in range(2):
        for o in range(3):
            inner = [i for i in range(3) if i != o]
            errors = []
            for s in STRENGTHS:
                missed = [
                    reference((fold != o) & (fold != i), s, target)[fold == i]
                    - Y[fold == i, target]
                    for i in inner
                ]
                errors.append(sum((one**2).sum() for one in missed))
            best = STRENGTHS[int(np.argmin(errors))]
            wanted = reference(fold != o, best, target)[fold == o]
            assert found[fold == o, target] == pytest.approx(wanted, rel=1e-6, abs=1e-8)


def test_what_a_second_model_is_fitted_to_knows_nothing_of_the_fold_it_is_tested_on() -> None:
    before = Ridge(X, fold).nested(Y)
    changed = Y.copy()
    changed[fold == 2] += RNG.normal(size=(40, 2)) * 100
    after = Ridge(X, fold).nested(changed)
    assert np.array_equal(before[2], after[2])
    assert not np.allclose(before[1], after[1])
    whole = Ridge(X, fold).scores(Y)
    for o in range(3):
        assert np.array_equal(before[o, fold == o], whole[fold == o])
