"""What every classifier promises, for every kind of label it takes."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from ecgstore.classifiers import Classifier, classifiers, read_settings
from ecgstore.errors import NotEnoughDataError, UsageError
from ecgstore.statistics.metrics import measure
from ecgstore.supervised import ResNet50
from ecgstore.tasks import TARGETS, Target

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Table = tuple[NDArray[np.float32], dict[Target, NDArray[np.float64]], NDArray[np.intp]]

SMALL: dict[str, dict[str, Any]] = {
    "xgboost": {"n_estimators": 20},
    "head": {"output": 0},
    "logistic_cv": {"folds": 3},
    "mlp": {"hidden": 16, "epochs": 30, "learning_rate": 0.01},
    "resnet50": {"width": 2, "epochs": 2, "seconds": 1.0, "batch_size": 8},
}
VECTORS = [name for name in classifiers if classifiers.get(name).reads == "features"]
CASES = [(n, t) for n, t in itertools.product(VECTORS, TARGETS) if t in classifiers.get(n).targets]
FIT = 120
"""The first records; the rest are scored."""

FIRST: dict[Target, tuple[str, float]] = {
    "binary": ("AUROC", 0.8),
    "multiclass": ("macro AUROC", 0.75),
    "continuous": ("Pearson r", 0.7),
    "survival": ("C-index", 0.7),
}


def no_step() -> None:
    pass


@pytest.fixture(scope="module")
def table() -> Table:
    """Return vectors of which two features tell, labels of every kind, and patients of two."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((200, 6), dtype=np.float32)
    told = x[:, 0] + x[:, 1] + 0.2 * rng.standard_normal(200)
    seen = np.where(rng.random(200) < 0.7, 1, -1)
    labels: dict[Target, NDArray[np.float64]] = {
        "binary": (told > 0.5).astype(np.float64),
        "multiclass": np.digitize(told, [-1, 1]).astype(np.float64),
        "continuous": 60 + 15 * told.astype(np.float64),
        "survival": np.exp(-told.astype(np.float64)) * seen,
    }
    return x, labels, np.arange(200) // 2


def made(name: str, target: Target = "binary") -> Classifier:
    return classifiers.get(name)(SMALL.get(name), target=target)


def fitted(name: str, target: Target, table: Table, *, told: list[int] | None = None) -> Classifier:
    x, labels, groups = table
    model = made(name, target)
    model.fit(
        x[:FIT],
        labels[target][:FIT],
        step=lambda: (told if told is not None else []).append(1),
        groups=groups[:FIT],
    )
    return model


@pytest.mark.parametrize(("name", "target"), CASES)
def test_it_learns_tells_of_its_steps_and_survives_saving(
    name: str, target: Target, table: Table
) -> None:
    x, labels, _ = table
    told: list[int] = []
    model = fitted(name, target, table, told=told)
    scores = model.predict(x[FIT:])
    assert len(told) == model.steps
    assert scores.shape == ((80, 3) if target == "multiclass" else (80,))
    assert scores.dtype == np.float64
    if target == "multiclass":
        np.testing.assert_allclose(scores.sum(axis=1), 1, rtol=1e-6)
    if target in {"binary", "multiclass"}:
        assert 0 < scores.min() < scores.max() < 1, "a log loss would be infinite"
    metric, least = FIRST[target]
    assert measure(labels[target][FIT:], scores, target)[metric] > least

    data = model.save()
    assert not data.startswith(b"\x80"), "that is a pickle"
    again = classifiers.get(name).load(data, target=target)
    assert np.array_equal(again.predict(x[FIT:]), scores)
    assert again.save() == data
    assert fitted(name, target, table).save() == data, "the same seed must give the same"
    with pytest.raises(UsageError, match=rf"A vector has 5 numbers; {name} was fitted to 6"):
        again.predict(x[:, :5])


@pytest.mark.parametrize("name", VECTORS)
def test_a_lacking_value_is_taken_or_refused(name: str, table: Table) -> None:
    x, labels, _ = table
    x, y = x[:FIT].copy(), labels["binary"][:FIT]
    x[3, 2] = x[7] = np.nan
    model = made(name)
    if model.takes_missing:
        model.fit(x, y, step=no_step)
        assert np.isfinite(model.predict(x)).all()
    else:
        refusal = rf"2 of 120 records lack a value \(NaN\), which {name} cannot take"
        with pytest.raises(UsageError, match=refusal) as caught:
            model.fit(x, y, step=no_step)
        assert "xgboost" in (caught.value.hint or "")
    x[3, 2] = np.inf
    with pytest.raises(UsageError, match="2 of 120 records hold a value that is infinite"):
        made(name).fit(x, y, step=no_step)


@pytest.mark.parametrize("name", classifiers.names())
def test_other_labels_are_refused(name: str) -> None:
    kind = classifiers.get(name)
    for target in TARGETS:
        if target not in kind.targets:
            with pytest.raises(UsageError, match=f"'{name}' cannot be fitted to {target} lab") as e:
                made(name, target)
            able = (e.value.hint or "").removeprefix("These can: ").rstrip(".").split(", ")
            assert able == [n for n in classifiers if target in classifiers.get(n).targets]


@pytest.mark.parametrize(
    ("target", "labels", "error", "message"),
    [
        ("binary", [1, 1, 1], NotEnoughDataError, "None of 3 training records has the label 0"),
        ("binary", [0, 1, 2], UsageError, "A label is 2; for binary labels 0 and 1 were expected"),
        ("binary", [0, 1, np.nan], UsageError, "1 of 3 labels are no number"),
        ("binary", [], NotEnoughDataError, "no record to learn from"),
        ("multiclass", [0, 2, 2], NotEnoughDataError, "None of 3 .* has the label 1"),
        ("multiclass", [0, 1.5, 2], UsageError, "A label is 1.5; .* 0, 1, 2, … were expected"),
        ("multiclass", [-1, 0, 1], UsageError, "A label is -1"),
        ("continuous", [7, 7, 7], NotEnoughDataError, "All 3 training records have the label 7"),
        ("survival", [-2, -5, -1], NotEnoughDataError, "None of 3 training records had the event"),
    ],
)
def test_labels_that_cannot_be_learned_from(
    target: Target, labels: list[float], error: type[Exception], message: str
) -> None:
    x = np.zeros((len(labels), 2), np.float32)
    with pytest.raises(error, match=message):
        made("xgboost", target).fit(x, np.array(labels, np.float64), step=no_step)


@pytest.mark.parametrize("name", ["logistic_cv", "ridge", "mlp"])
def test_three_positives_are_too_few_for_inner_folds(name: str, table: Table) -> None:
    x, _, _ = table
    y = (np.arange(40) < 3).astype(np.float64)
    with pytest.raises(NotEnoughDataError, match=r"3 .* label 1 cannot .* 5 inner folds") as caught:
        classifiers.get(name)().fit(x[:40], y, step=no_step)
    assert "fewer folds" in (caught.value.hint or "")


def test_a_run_keeps_its_settings_and_its_scores() -> None:
    """Run ids are made of settings, so none may appear; scores are those of earlier releases."""
    keys = {
        "xgboost": "n_estimators max_depth learning_rate subsample colsample_bytree "
        "min_child_weight gamma reg_lambda reg_alpha scale_pos_weight max_bin seed",
        "logistic": "C max_iter",
        "resnet50": "epochs batch_size learning_rate width rate_hz seconds seed",
    }
    for name, known in keys.items():
        (chosen,) = read_settings([classifiers.get(name)], None)
        assert list(chosen) == list(made(name).params) == known.split()
    (chosen,) = read_settings([ResNet50], {"precision": "bf16"})
    assert chosen["precision"] == "bf16"
    assert "precision" not in read_settings([ResNet50], {"precision": "fp32"})[0]
    scores = {
        "xgboost": [0.90575, 0.82625, 0.939457, 0.926969, 0.922053, 0.455525],
        "logistic": [0.990222, 0.805455, 0.944027, 0.853709, 0.875705, 0.315723],
    }
    rng = np.random.default_rng(7)
    x = rng.normal(size=(120, 10)).astype(np.float32)
    y = (x[:, 0] + 0.5 * x[:, 1] + rng.normal(size=120) > 0).astype(np.float64)
    for name, expected in scores.items():
        model = classifiers.get(name)()
        model.fit(x[:90], y[:90], step=no_step)
        np.testing.assert_allclose(model.predict(x[90:96]), expected, atol=1e-6)


@pytest.mark.parametrize("target", ["multiclass", "continuous"])
def test_a_network_on_signals_takes_other_labels(target: Target) -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((24, 12, 100), dtype=np.float32)
    y = (np.arange(24) % 3).astype(np.float64)
    x *= 1 + 3 * y[:, None, None].astype(np.float32)
    given = {"epochs": 5, "batch_size": 24, "learning_rate": 0.01}
    model = ResNet50({**SMALL["resnet50"], **given}, target=target)
    model.fit(x, y, step=no_step)
    scores = model.predict(x)
    metric, least = FIRST[target]
    assert measure(y, scores, target)[metric] > least
    assert np.array_equal(ResNet50.load(model.save(), target=target).predict(x), scores)


def test_a_network_trains_in_bfloat16_and_keeps_single_precision() -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((16, 12, 100), dtype=np.float32)
    y = (np.arange(16) % 2).astype(np.float64)
    scores = []
    for precision in ("fp32", "bf16"):
        model = ResNet50({**SMALL["resnet50"], "precision": precision})
        model.fit(x, y, step=no_step)
        scores.append(model.predict(x))
    assert 0 < np.abs(scores[0] - scores[1]).max() < 0.2
    again = ResNet50.load(model.save())
    assert again.params["precision"] == "bf16"
    assert np.array_equal(again.predict(x), scores[1])
    with pytest.raises(UsageError, match="'precision' of resnet50 is 'fp8'; 'fp32' or 'bf16'"):
        ResNet50({"precision": "fp8"})
