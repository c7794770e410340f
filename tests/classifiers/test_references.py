"""Each classifier is what it says: held against scikit-learn and XGBoost's own classes."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.linear_model import Ridge as PlainRidge
from sklearn.metrics import log_loss
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from ecgstore.classifiers import MLP, Logistic, LogisticCV, Nearest, Ridge, XGBoost
from ecgstore.classifiers.inner import inner_folds
from ecgstore.errors import NotEnoughDataError, UsageError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ecgstore.tasks import Target


def no_step() -> None:
    pass


def table(
    n: int = 150, dim: int = 10
) -> tuple[NDArray[np.float32], NDArray[np.float64], NDArray[np.float64]]:
    """Return vectors, three classes, and numbers."""
    rng = np.random.default_rng(3)
    x = (rng.normal(size=(n, dim)) * rng.uniform(0.1, 9, dim) + 5).astype(np.float32)
    told = (x[:, 0] - 5) / x[:, 0].std() + 0.7 * rng.normal(size=n)
    return x, np.digitize(told, [-0.5, 0.8]).astype(np.float64), told


def test_xgboost_of_other_labels_is_its_own_classes() -> None:
    import xgboost

    x, classes, numbers = table()
    paper: dict[str, Any] = {"max_depth": 6, "learning_rate": 0.1, "random_state": 0}
    paper |= {"subsample": 0.8, "colsample_bytree": 0.8, "n_estimators": 10}
    several, one = (
        XGBoost({"n_estimators": 10}, target="multiclass"),
        XGBoost({"n_estimators": 10}, target="continuous"),
    )
    several.fit(x, classes, step=no_step)
    plain = xgboost.XGBClassifier(**paper).fit(x, classes)
    assert np.array_equal(several.predict(x), plain.predict_proba(x))
    one.fit(x, numbers, step=no_step)
    assert np.array_equal(one.predict(x), xgboost.XGBRegressor(**paper).fit(x, numbers).predict(x))


def test_a_gpu_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    assert XGBoost.machine() == {}
    monkeypatch.setenv("ECGSTORE_DEVICE", "cuda")
    with pytest.raises(UsageError, match="'cuda' was asked for, but"):
        XGBoost().fit(np.eye(4, dtype=np.float32), np.array([0.0, 1, 0, 1]), step=no_step)


@pytest.mark.gpu
def test_trees_grow_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    if not torch.cuda.is_available():
        pytest.skip("there is no GPU")
    x, classes, _ = table()
    y = (classes == 2).astype(np.float64)
    slow = XGBoost()
    slow.fit(x, y, step=no_step)
    monkeypatch.setenv("ECGSTORE_DEVICE", "cuda")
    assert XGBoost.machine() == {"device": torch.cuda.get_device_name()}
    fast = XGBoost()
    fast.fit(x, y, step=no_step)
    np.testing.assert_allclose(fast.predict(x), slow.predict(x), atol=0.2)
    saved, scores = fast.save(), fast.predict(x)
    monkeypatch.setenv("ECGSTORE_DEVICE", "cpu")
    np.testing.assert_allclose(XGBoost.load(saved).predict(x), scores, atol=1e-5)


def test_logistic_regression_of_classes_is_multinomial() -> None:
    x, classes, _ = table()
    ours = Logistic({"C": 0.3}, target="multiclass")
    ours.fit(x, classes, step=no_step)
    plain = make_pipeline(StandardScaler(), LogisticRegression(C=0.3, max_iter=5000))
    expected = plain.fit(x.astype(np.float64), classes).predict_proba(x.astype(np.float64))
    np.testing.assert_allclose(ours.predict(x), expected, rtol=1e-10)


def test_the_strength_has_the_least_log_loss_of_patients_held_out() -> None:
    x, classes, _ = table(60, 12)
    y, groups = (classes == 2).astype(np.float64), np.arange(len(x)) // 3
    ours = LogisticCV()
    ours.fit(x, y, step=no_step, groups=groups)
    fold = inner_folds(y, groups, 5, seed=0, target="binary")
    losses = {}
    for c in 10.0 ** np.arange(-4, 3):
        held = np.empty(len(y))
        for k in range(5):
            plain = make_pipeline(StandardScaler(), LogisticRegression(C=c, max_iter=5000))
            plain.fit(x[fold != k].astype(np.float64), y[fold != k])
            held[fold == k] = plain.predict_proba(x[fold == k].astype(np.float64))[:, 1]
        losses[c] = log_loss(y, held)
    assert ours.strength == min(losses, key=lambda c: losses[c])
    given = Logistic({"C": ours.strength})
    given.fit(x, y, step=no_step)
    assert np.array_equal(ours.predict(x), given.predict(x))


@pytest.mark.parametrize("kind", [LogisticCV, Ridge])
def test_records_of_a_patient_do_not_judge_each_other(kind: type[LogisticCV | Ridge]) -> None:
    """Labels are noise: only one who sees a patient's other records can think them learnable."""
    rng = np.random.default_rng(0)
    x = np.repeat(rng.standard_normal((40, 60), dtype=np.float32), 5, axis=0)
    x += 0.01 * rng.standard_normal(x.shape, dtype=np.float32)
    y, patients = np.repeat(rng.permutation(40) % 2.0, 5), np.repeat(np.arange(40), 5)
    blind, honest = kind(), kind()
    blind.fit(x, y, step=no_step)
    honest.fit(x, y, step=no_step, groups=patients)
    spread = [model.predict(x).std() for model in (blind, honest)]
    assert spread[0] > 0.4
    assert spread[1] < 0.1


@pytest.mark.parametrize("dim", [12, 90])
def test_ridge_is_scikit_learns_at_the_best_penalty(dim: int) -> None:
    x, _, numbers = table(60, dim)
    wide, n = x.astype(np.float64), len(x)
    ours = Ridge(target="continuous")
    ours.fit(x, numbers, step=no_step)
    fold = inner_folds(numbers, None, 5, seed=0, target="continuous")
    errors = {}
    for strength in np.logspace(-5, 3, 17):
        square = 0.0
        for k in range(5):
            rest = fold != k
            plain = make_pipeline(StandardScaler(), PlainRidge(strength * rest.sum()))
            plain.fit(wide[rest], numbers[rest])
            square += np.square(plain.predict(wide[~rest]) - numbers[~rest]).sum()
        errors[strength] = square
    assert ours.strength == min(errors, key=lambda one: errors[one])
    plain = make_pipeline(StandardScaler(), PlainRidge(ours.strength * n)).fit(wide, numbers)
    np.testing.assert_allclose(ours.predict(x), plain.predict(wide), rtol=1e-8, atol=1e-8)


def test_ridge_gives_probabilities_that_are_right_on_average() -> None:
    rng = np.random.default_rng(5)
    x = rng.standard_normal((6000, 5), dtype=np.float32)
    y = (rng.random(6000) < 1 / (1 + np.exp(1.5 - 1.5 * x[:, 0]))).astype(np.float64)
    model = Ridge()
    model.fit(x[:3000], y[:3000], step=no_step)
    scores = model.predict(x[3000:])
    low = scores < np.median(scores)
    for part in (low, ~low):
        assert scores[part].mean() == pytest.approx(y[3000:][part].mean(), abs=0.05)


@pytest.mark.parametrize(
    ("metric", "weights"),
    list(itertools.product(["cosine", "euclidean"], ["distance", "equal"])),
)
def test_neighbours_are_scikit_learns_with_laplaces_rule(metric: str, weights: str) -> None:
    x, classes, numbers = table()
    scaled = StandardScaler().fit(x[:100].astype(np.float64)).transform(x.astype(np.float64))
    given: dict[str, Any] = {"n_neighbors": 7, "metric": metric, "algorithm": "brute"}
    given["weights"] = "uniform" if weights == "equal" else weights
    for target, y in {"multiclass": classes, "continuous": numbers}.items():
        kind: Target = "multiclass" if target == "multiclass" else "continuous"
        ours = Nearest({"k": 7, "metric": metric, "weights": weights}, target=kind)
        ours.fit(x[:100], y[:100], step=no_step)
        if kind == "multiclass":
            shares = KNeighborsClassifier(**given).fit(scaled[:100], y[:100])
            expected = (7 * shares.predict_proba(scaled[100:]) + 1) / (7 + 3)
        else:
            expected = KNeighborsRegressor(**given).fit(scaled[:100], y[:100]).predict(scaled[100:])
        np.testing.assert_allclose(ours.predict(x[100:]), expected, rtol=1e-4)
    twin = Nearest({"k": 3, "metric": metric, "weights": "distance"}, target="continuous")
    twin.fit(x[:100], numbers[:100], step=no_step)
    np.testing.assert_allclose(twin.predict(x[:100]), numbers[:100], atol=0.02)


def test_a_network_ends_early_and_holds_out_whole_patients() -> None:
    x, classes, _ = table(200)
    y, lost = (classes == 2).astype(np.float64), np.random.default_rng(0)
    told: list[int] = []
    ends = MLP({"epochs": 400, "patience": 2, "hidden": 8, "learning_rate": 0.05})
    ends.fit(x, y, step=lambda: told.append(1), groups=np.arange(200) // 2)
    assert len(told) == 400
    noise = lost.standard_normal((200, 10), dtype=np.float32)
    ends.fit(noise, y, step=no_step)
    assert ends.predict(noise).std() < 0.2, "it went on after held-out records stopped to gain"


def test_settings_and_sizes_that_cannot_work() -> None:
    x, classes, _ = table(12)
    with pytest.raises(UsageError, match="'metric' is 'manhattan'; 'cosine' or 'euclidean' was"):
        Nearest({"metric": "manhattan"})
    with pytest.raises(UsageError, match="'k' of knn is 0; it must be above 0"):
        Nearest({"k": 0})
    with pytest.raises(NotEnoughDataError, match="k is 15, but there are only 12 training rec"):
        Nearest(target="multiclass").fit(x, classes, step=no_step)
    with pytest.raises(UsageError, match=r"'dropout' of mlp is 1\.0; it must be below 1"):
        MLP({"dropout": 1.0})
    with pytest.raises(UsageError, match="'hidden' of mlp is 0; it must be above 0"):
        MLP({"hidden": 0})
    with pytest.raises(UsageError, match="folds is 1; at least 2"):
        Ridge({"folds": 1}).fit(x, (classes > 0).astype(np.float64), step=no_step)
