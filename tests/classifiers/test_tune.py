"""Tuning never returns worse than it began with, and is over when it should be."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from ecgstore.classifiers import Logistic, Nearest, XGBoost, classifiers
from ecgstore.errors import MissingDependencyError, NotEnoughDataError, UsageError
from ecgstore.supervised import ResNet50
from ecgstore.tune import tune

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Table = tuple[NDArray[np.float32], NDArray[np.float64], NDArray[np.intp]]

pytest.importorskip("optuna", reason="tuning needs the extra ecgstore[tune]")


@pytest.fixture(scope="module")
def table() -> Table:
    rng = np.random.default_rng(2)
    x = rng.standard_normal((150, 40), dtype=np.float32)
    y = (x[:, 0] + rng.standard_normal(150) > 0.4).astype(np.float64)
    return x, y, np.arange(150) // 2


def test_what_is_found_is_better_and_found_again(table: Table) -> None:
    x, y, groups = table
    first = tune(Nearest, x, y, groups, seconds=60, trials=12, seed=1)
    again = tune(Nearest, x, y, groups, seconds=60, trials=12, seed=1)
    assert replace(first, seconds=0) == replace(again, seconds=0)
    assert first.trials == 12
    assert first.metric == "AUROC"
    assert first.value > first.default
    assert first.params != Nearest.defaults
    # What it began with, on the inner folds, is what a first trial alone is worth.
    alone = tune(Nearest, x, y, groups, seconds=60, trials=1, seed=1)
    assert (alone.value, alone.trials, dict(alone.params)) == (first.default, 1, Nearest.defaults)


def test_settings_that_were_chosen_are_held(table: Table) -> None:
    x, y, groups = table
    chosen = {**Nearest.defaults, "metric": "euclidean", "smoothing": 0.5}
    found = tune(Nearest, x, y, groups, seconds=60, trials=8, fixed=chosen)
    assert (found.params["metric"], found.params["smoothing"]) == ("euclidean", 0.5)
    held = tune(Logistic, x, y, groups, seconds=60, fixed={"C": 0.5})
    assert (held.trials, held.params["C"], held.value) == (1, 0.5, held.default)


def test_time_that_is_short_leaves_the_defaults(table: Table) -> None:
    x, y, groups = table
    found = tune(XGBoost, x, y, groups, seconds=1e-3, fixed={"n_estimators": 5})
    assert (found.trials, found.value) == (1, found.default)
    assert found.params == {**XGBoost.defaults, "n_estimators": 5}


def test_a_choice_that_cannot_be_fitted_is_passed_over(table: Table) -> None:
    x, y, groups = table
    weak = tune(Logistic, x, y, groups, seconds=60, trials=12, fixed={"max_iter": 17})
    assert 1 < weak.trials < 12
    assert weak.value >= weak.default


@pytest.mark.parametrize("name", classifiers.names())
def test_what_it_begins_with_lies_in_the_space(name: str) -> None:
    kind = classifiers.get(name)
    for key, (form, *values) in kind.space.items():
        start = kind.defaults[key]
        if form == "choice":
            assert start in values
        else:
            low, high = (float(value) for value in values)
            assert low <= float(start) <= high
            assert form == "log" or type(start) is {"whole": int, "number": float}[str(form)]


def test_what_cannot_be_tuned(table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    x, y, groups = table
    with pytest.raises(UsageError, match="'resnet50' has no setting to tune") as caught:
        tune(ResNet50, x, y, groups, seconds=1)
    assert "knn, logistic, mlp, sequence, xgboost" in (caught.value.hint or "")
    for wrong in ({"seconds": 0.0}, {"seconds": 1.0, "trials": 0}):
        with pytest.raises(UsageError, match=r"Tuning was given 0 (seconds|trials)"):
            tune(Logistic, x, y, groups, **wrong)  # type: ignore[arg-type]
    rare = (np.arange(150) < 3).astype(np.float64)
    with pytest.raises(NotEnoughDataError, match="2 training patients with the label 1"):
        tune(Logistic, x, rare, groups, seconds=1)
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(MissingDependencyError, match="Tuning needs the package 'optuna'") as told:
        tune(Logistic, x, y, groups, seconds=1)
    assert "ecgstore[tune]" in (told.value.hint or "")
