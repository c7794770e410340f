"""Parts of the training records are nested and whole, curves true, and labels saved counted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecgstore.errors import UnknownNameError, UsageError
from ecgstore.evaluate import evaluate
from ecgstore.fuse import fuse
from ecgstore.laboratory.curve_fits import Curve, Point, fit_curves
from ecgstore.laboratory.learning_curve import learning_curve, nested
from ecgstore.splitting.split import split
from ecgstore.statistics.bootstrap import Sample
from ecgstore.statistics.metrics import METRICS

if TYPE_CHECKING:
    from collections.abc import Callable

    from ecgstore.warehouse import Warehouse

    Cohort = Callable[..., Warehouse]

FEW: dict[str, Any] = {"resamples": 100}


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1000), st.integers(30, 120))
def test_parts_are_nested_stratified_and_hold_whole_patients(seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    groups = rng.integers(0, n // 2, n)
    labels = (rng.random(n) < 0.3).astype(float)
    ids = [f"r/{i:04d}" for i in range(n)]
    before = np.zeros(n, dtype=bool)
    positive = {g: labels[groups == g].any() for g in set(groups)}
    for fraction in (0.1, 0.3, 0.6, 1.0):
        chosen = nested(labels, groups, ids, "binary", fraction, seed="1")
        assert not (before & ~chosen).any(), "the smaller lies inside the larger"
        assert not set(groups[chosen]) & set(groups[~chosen])
        for kind in (True, False):
            mine = {g for g, one in positive.items() if one == kind}
            assert abs(len(mine & set(groups[chosen])) - fraction * len(mine)) <= 0.5
        before = chosen
    assert before.all()
    assert np.array_equal(
        nested(labels, groups, ids, "binary", 0.3, seed="1"),
        nested(labels, -groups, ids, "binary", 0.3, seed="1"),
    ), "numbers of patients do not matter"


def test_the_whole_training_part_scores_what_evaluate_does(cohort: Cohort) -> None:
    warehouse = cohort(records=240)
    split(warehouse, "s", task="ACS", repeats=2)
    fuse(warehouse, ["alpha", "beta"], name="fusion")
    (score,) = evaluate(warehouse, ["fusion"], "s", classifier="logistic").scores
    before = warehouse.versions()
    asked: dict[str, Any] = {"fractions": (1.0, 0.02, 0.5), **FEW}
    result = learning_curve(warehouse, ["fusion", "alpha"], "s", **asked)
    assert warehouse.versions() == before, "nothing is stored"
    assert [row["fraction"] for row in result.rows] == [0.02, 0.5, 1.0] * 2
    points: list[Any] = result.rows
    small, half, whole = points[:3]
    assert whole["value"] == pytest.approx(np.mean(score.values["AUROC"]), abs=1e-9)
    assert half["low"] < half["value"] < half["high"]
    assert half["labels"] == pytest.approx(whole["labels"] / 2, rel=0.1)
    assert (small["value"], small["low"]) == (None, None)
    assert small["reason"].startswith("a class has ")
    assert [row["labels"] for row in result.rows[:3]] == [r["labels"] for r in result.rows[3:]]
    assert result.fit_rows[0]["reason"] == "2 sizes could be learned from; 4 are needed"


def test_scaling_is_fitted_to_the_part(cohort: Cohort) -> None:
    """A min-max of the whole part scaled once more is that of the smaller part alone."""
    from ecgstore.catalog import Catalog
    from ecgstore.classifiers import classifiers
    from ecgstore.features import feature_set, matrix
    from ecgstore.laboratory.learning_curve import _scaled
    from ecgstore.runs import Fold, fitted_scaling, prepare
    from ecgstore.splitting.reshuffles import reshuffles

    warehouse = cohort(records=120)
    split(warehouse, "s", task="ACS", repeats=1)
    fuse(warehouse, ["alpha", "beta"], name="fusion")
    kind = classifiers.get("logistic")
    with Catalog(warehouse.relations()) as catalog:
        parts = reshuffles(catalog, "s")
        run = prepare(
            warehouse, catalog, "fusion", parts, kind, kind.defaults, scaling=fitted_scaling
        )
        _, raw = matrix(catalog, feature_set(catalog, "fusion").members, run.record_ids.tolist())
    train = run.folds[0].train[:30]
    (found,) = _scaled(run, Fold(0, train, run.folds[0].test), "minmax").blocks(0)
    x = np.hstack(raw).astype(np.float64)
    low, high = x[train].min(axis=0), x[train].max(axis=0)
    assert found == pytest.approx((x - low) / (high - low), abs=1e-5)


def made(values: Any, sizes: Any, name: str, seed: int) -> Curve:
    """Return a curve whose AUROC over many patients is as told."""
    rng = np.random.default_rng(seed)
    points = []
    y = np.repeat([0.0, 1.0], 300)
    base = rng.random(300)
    for value, size in zip(values, sizes, strict=True):
        # of the positives a part stands above all negatives, the others are like them
        positives = np.where(np.arange(300) < 300 * (2 * value - 1), 2, 0) + base
        scores = np.concatenate([base, positives])
        points.append(Point(size / max(sizes), size, (Sample(y, scores, np.arange(600)),), ""))
    return Curve(name, "logistic", points)


def test_labels_saved_are_those_of_the_curves() -> None:
    sizes = np.array([100.0, 200, 400, 800, 1600])
    curves = [
        made(0.9 - 2.0 * sizes**-0.5, sizes, "better", 1),
        made(0.8 - 2.0 * sizes**-0.5, sizes, "base", 2),
        made(0.7 - 1.0 * sizes**-0.5, sizes, "worse", 3),
    ]
    asked: dict[str, Any] = {"resamples": 300, "seed": 0, "level": 0.95}
    rows, fits = fit_curves(curves, METRICS["AUROC"], 1, 600, **asked)
    assert len(rows) == 15
    rows_of: list[Any] = [one.row for one in fits]
    better, base, worse = rows_of
    assert isinstance(better["labels_needed"], float)
    wanted = (2.0 / (0.9 - 0.75)) ** 2  # 0.9 - 2 n^-0.5 = 0.75, what base has at 1,600
    assert better["labels_needed"] == pytest.approx(wanted, rel=0.1)
    assert better["labels_saved"] == pytest.approx(1600 - better["labels_needed"])
    assert better["labels_needed_high"] is not None
    assert better["labels_needed_high"] > better["labels_needed"]
    assert "are saved (88%)" in fits[0].sentence
    assert "base (logistic) reaches with 1,600" in fits[0].sentence
    assert base["goal"] is None
    assert worse["labels_needed"] is None
    assert worse["labels_saved"] is None
    assert "It does not reach AUROC 0.74" in fits[2].sentence
    assert "(more than 1,600 are needed)" in fits[2].sentence


def test_a_level_curve_says_so() -> None:
    sizes = [100.0, 200, 400, 800]
    _, (fit,) = fit_curves(
        [made([0.7] * 4, sizes, "flat", 1)],
        METRICS["AUROC"],
        None,
        600,
        resamples=50,
        seed=0,
        level=0.95,
    )
    assert fit.row["c"] is None
    assert fit.row["reason"] == "the curve is level" or fit.row["a"] is None


def test_what_cannot_be_asked_is_refused(cohort: Cohort) -> None:
    warehouse = cohort(records=120)
    split(warehouse, "s", task="ACS", repeats=2)
    with pytest.raises(UsageError, match=r"The fractions are 0, 0\.5"):
        learning_curve(warehouse, ["alpha"], "s", fractions=(0.0, 0.5))
    with pytest.raises(UnknownNameError, match="Unknown feature set 'gamma'"):
        learning_curve(warehouse, ["alpha"], "s", baseline="gamma", **FEW)
    with pytest.raises(UnknownNameError, match="Unknown split 't'"):
        learning_curve(warehouse, ["alpha"], "t", **FEW)
    with pytest.raises(UnknownNameError, match="Unknown metric 'R2'"):
        learning_curve(warehouse, ["alpha"], "s", metric="R2", fractions=(1.0,), **FEW)


def test_the_command_prints_points_or_fits(cohort: Cohort, run: Callable[..., Any]) -> None:
    warehouse = cohort(records=120)
    split(warehouse, "s", task="ACS", repeats=2)
    words = ["learning-curve", "--features", "alpha", "--split", "s", "--resamples", "100"]
    words += ["--format", "csv", "--fraction", "1"]
    more = [word for part in (0.3, 0.5, 0.7) for word in ("--fraction", part)]
    done = run("-w", warehouse.root, *words, *more, "--baseline", "beta", "--fits")
    assert done.code == 0
    assert done.out.splitlines()[0].startswith("features,classifier,metric,sizes,reason,a,a_low")
    assert len(done.out.splitlines()) == 3
    assert done.err.startswith("alpha: ")
    done = run("-w", warehouse.root, *words)
    assert [line.split(",")[2] for line in done.out.splitlines()[1:]] == ["1.0"]
