"""Draws keep groups whole, test every record, and give each part its share of every label."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.model_selection import StratifiedKFold

from ecgstore.errors import NotEnoughDataError
from ecgstore.splitting.drawing import draw, draw_folds, draw_inner, draw_several, held_out
from ecgstore.splitting.stratify import deal, iterative, marks, strata

TARGETS = ("binary", "multiclass", "continuous", "survival")


def cohort(seed: int, n: int = 240) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Return patients of one to several records, and labels of every kind."""
    rng = np.random.default_rng(seed)
    groups = np.unique(rng.integers(0, n * 2 // 3, n), return_inverse=True)[1]
    time = rng.exponential(100, n) + 1
    return groups, {
        "binary": (rng.random(n) < 0.3).astype(float),
        "multiclass": rng.choice(4, n, p=[0.5, 0.3, 0.15, 0.05]).astype(float),
        "continuous": rng.normal(60, 15, n) + rng.normal(0, 5, groups.max() + 1)[groups],
        "survival": np.where(rng.random(n) < 0.4, time, -time),
    }


def sides_of_groups(mask: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Return the share of each group's records in a part: 0 or 1 where groups are whole."""
    share: np.ndarray = np.bincount(groups, mask) / np.bincount(groups)
    return share


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 10_000), k=st.integers(2, 8), target=st.sampled_from(TARGETS))
def test_folds_test_every_record_once_and_share_every_stratum(
    seed: int, k: int, target: str
) -> None:
    groups, labels = cohort(seed)
    y = labels[target]
    tests = np.array(
        list(draw_folds(y, groups, folds=k, repeats=2, seed=seed, target=target))  # type: ignore[arg-type]
    )
    assert tests.shape == (2 * k, len(y))
    assert (tests[:k].sum(axis=0) == 1).all()
    assert (tests[k:].sum(axis=0) == 1).all()
    of = strata(y, groups, target)  # type: ignore[arg-type]
    for test in tests:
        share = sides_of_groups(test, groups)
        assert set(share) <= {0, 1}, "a group is on both sides"
        for stratum in np.unique(of):
            having = of == stratum
            assert abs(share[having].sum() - having.sum() / k) < 1
        assert abs(share.sum() - len(share) / k) < 1
    inner = draw_inner(y, groups * 7 + 3, k, seed, target)  # type: ignore[arg-type]
    assert all(np.array_equal(inner == fold, tests[fold]) for fold in range(k))


@settings(deadline=None, max_examples=12)
@given(seed=st.integers(0, 10_000), test_size=st.sampled_from([0.1, 0.2, 0.5]))
def test_several_labels_keep_their_shares(seed: int, test_size: float) -> None:
    rng = np.random.default_rng(seed)
    groups, _ = cohort(seed, 400)
    labels = (rng.random((400, 6)) < [0.5, 0.3, 0.2, 0.1, 0.05, 0.02]).astype(float)
    labels[rng.random((400, 6)) < 0.05] = np.nan
    has = marks(labels == 1, groups)
    masks = list(draw_several(labels, groups, repeats=2, test_size=test_size, seed=seed))
    again = list(draw_several(labels, groups, repeats=1, test_size=test_size, seed=seed))
    assert np.array_equal(masks[0], again[0])
    assert not np.array_equal(masks[0], masks[1])
    for test in masks:
        share = sides_of_groups(test, groups)
        assert set(share) <= {0, 1}
        assert abs(share.sum() - test_size * len(share)) <= 3
        found, wanted = has[share == 1].sum(axis=0), test_size * has.sum(axis=0)
        # the rarest left is dealt first, so only what later labels add moves it from its share
        # by a few of some two hundred people; 3.4 is the most that was ever seen
        assert (np.abs(found - wanted) <= 4).all()


def test_iterative_stratification_equals_a_case_by_hand() -> None:
    # Of two halves each label wants half: a, the rarest, is dealt first, one to each part; then
    # each part lacks what the other got, whatever the lot.
    has = np.array([[1, 0], [1, 0], [0, 1], [0, 1], [0, 1], [0, 1], [0, 0], [0, 0]], bool)
    for seed in range(20):
        part = iterative(has, (0.5, 0.5), seed)
        assert has[part == 0].sum(axis=0).tolist() == [1, 2]
        assert (part == 0).sum() == 4


def test_several_labels_beat_a_draw_that_looks_at_one() -> None:
    rng = np.random.default_rng(5)
    labels = (rng.random((1000, 8)) < 0.03).astype(float)
    groups = np.arange(1000)

    def worst(masks: list[np.ndarray]) -> float:
        share = np.array([labels[test].sum(axis=0) / labels.sum(axis=0) for test in masks])
        return float(np.abs(share - 0.2).max())

    by_all = worst(list(draw_several(labels, groups, repeats=5, test_size=0.2, seed=0)))
    by_one = worst(list(draw(labels[:, 0], groups, repeats=5, test_size=0.2, seed=0)))
    assert by_all < 0.03 < 0.1 < by_one


def test_folds_are_as_even_as_those_of_scikit_learn() -> None:
    stratum = np.repeat([0, 1, 2], [83, 41, 12])
    ours = deal(stratum, 5, 3)
    theirs = np.empty_like(ours)
    splitter = StratifiedKFold(5, shuffle=True, random_state=3)
    for fold, (_, test) in enumerate(splitter.split(stratum, stratum)):
        theirs[test] = fold
    for of in range(3):
        counts = [sorted(np.bincount(one[stratum == of]).tolist()) for one in (ours, theirs)]
        assert counts[0] == counts[1]


def test_what_a_group_counts_as() -> None:
    groups = np.array([0, 0, 1, 2, 2, 3])
    labels = np.array([0, 1, 0, 0, 0, 1.0])
    assert strata(labels, groups, "binary").tolist() == [1, 0, 0, 1]
    classes = np.array([0, 2, 0, 1, 0, 1.0])  # classes 0, 1, 2 in three, two, one of the groups
    assert strata(classes, groups, "multiclass").tolist() == [2, 0, 1, 1]
    times = np.array([-3, 4, -5, -1, -2, 9.0])
    assert strata(times, groups, "survival").tolist() == [1, 0, 0, 1]
    age = np.arange(200.0)[::-1]
    assert strata(age, np.arange(200), "continuous").tolist() == [9 - i // 20 for i in range(200)]
    assert set(strata(age, np.arange(200) // 100, "continuous")) == {0}, "two groups: one bin"


def test_a_draw_by_bins_keeps_the_mean() -> None:
    groups, labels = cohort(1, 600)
    for test in draw(
        labels["continuous"], groups, repeats=5, test_size=0.2, seed=0, target="continuous"
    ):
        means = labels["continuous"][test].mean(), labels["continuous"].mean()
        assert means[0] == pytest.approx(means[1], abs=1.5)


def test_inner_folds_leave_every_class_to_learn_from() -> None:
    labels = np.array([1.0, 1, 0, 0, 0, 0])
    with pytest.raises(NotEnoughDataError, match=r"into 2 folds: 1 patient with label 1 leave"):
        draw_inner(labels, np.array([7, 7, 1, 2, 3, 4]), 2, 0)
    with pytest.raises(NotEnoughDataError, match="3 patients cannot be divided into 5 folds"):
        draw_inner(labels, np.array([1, 1, 2, 2, 3, 3]), 5, 0)
    fold = draw_inner(labels, np.array([7, 8, 1, 2, 3, 4]), 3, 0)
    assert all({0, 1} == set(labels[fold != k]) for k in range(3))
    several = np.column_stack([labels, 1 - labels])
    assert sorted(np.bincount(draw_inner(several, np.arange(6), 3, 0))) == [2, 2, 2]


def test_what_is_tested_on_is_not_learnt_from() -> None:
    test = np.array([True, False, False, False])
    train, left_out = held_out(test, np.array([0, 0, 1, 2]))
    assert train.tolist() == [False, False, True, True]
    assert left_out.tolist() == [False, True, False, False]


def test_the_draws_are_the_same_on_any_machine() -> None:
    stratum = np.arange(12) % 3 == 0
    assert deal(stratum.astype(int), 3, 7).tolist() == [2, 1, 2, 0, 1, 0, 1, 0, 0, 2, 1, 2]
    has = np.column_stack([stratum, np.arange(12) % 4 == 0])
    assert iterative(has, (0.75, 0.25), 7).tolist() == [0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 1]
