"""The published protocol is followed to the letter, the sound one has none of its leaks."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pytest
import xgboost
from sklearn.metrics import average_precision_score, roc_auc_score
from sklearn.model_selection import StratifiedShuffleSplit

from ecgstore.catalog import Catalog
from ecgstore.errors import NotEnoughDataError, UnknownNameError, UsageError
from ecgstore.evaluate import Drawing, evaluate
from ecgstore.features import feature_set, matrix
from ecgstore.fuse import fuse
from ecgstore.predictions import predictions_of
from ecgstore.splitting.split import reshuffles
from ecgstore.splitting.split_check import check

if TYPE_CHECKING:
    from collections.abc import Callable

    from ecgstore.warehouse import Warehouse

    Cohort = Callable[..., Warehouse]

FEW = {"n_estimators": 10}
SOFT = {"C": 0.1}


def fused(cohort: Cohort, **options: Any) -> Warehouse:
    warehouse = cohort(**options)
    fuse(warehouse, ["alpha", "beta"], name="fusion")
    return warehouse


def label(warehouse: Warehouse, task: str, ids: list[str], values: Any) -> None:
    rows = {"record_id": ids, "task": [task] * len(ids), "label": np.asarray(values, float)}
    warehouse.append("labels", pa.table(rows), command="test")


def ids_of(warehouse: Warehouse) -> list[str]:
    rows = warehouse.table("records").read(["record_id"])
    return sorted(rows["record_id"].to_pylist())


def test_the_paper_is_followed_to_the_letter(cohort: Cohort) -> None:
    """Every number equals that of the recipe written down plainly with the libraries it names."""
    warehouse = fused(cohort, records=200)
    result = evaluate(
        warehouse, ["fusion"], protocols=["paper"], tasks=["ACS"], drawing=Drawing(repeats=2)
    )
    with Catalog(warehouse.relations()) as catalog:
        ids, blocks = matrix(catalog, feature_set(catalog, "fusion").members)
        rows = catalog.table("select record_id, label from labels order by record_id")
    y = rows["label"].to_numpy()
    assert rows["record_id"].to_pylist() == list(ids)
    low, high = (np.hstack([f(x, axis=0) for x in blocks]) for f in (np.min, np.max))
    x = (np.hstack(blocks) - low) / (high - low)
    found = []
    for sides in StratifiedShuffleSplit(2, test_size=0.2, random_state=0).split(x, y):
        train, test = map(np.sort, sides)  # the order of rows decides what XGBoost samples
        model = xgboost.XGBClassifier(
            n_estimators=100,
            max_depth=6,
            learning_rate=0.1,
            subsample=0.8,
            colsample_bytree=0.8,
            tree_method="hist",
            random_state=0,
        )
        scores = model.fit(x[train], y[train]).predict_proba(x[test])[:, 1]
        found.append((roc_auc_score(y[test], scores), average_precision_score(y[test], scores)))
    (score,) = result.scores
    np.testing.assert_allclose(score.values["AUROC"], [one[0] for one in found], atol=1e-12)
    np.testing.assert_allclose(score.values["AUCPR"], [one[1] for one in found], atol=1e-12)
    assert not score.intervals  # the paper tells mean and deviation
    assert score.split_id == "paper-ACS"


def test_the_sound_protocol_keeps_patients_apart_and_scales_on_training_records(
    cohort: Cohort,
) -> None:
    warehouse = fused(cohort)
    drawing = Drawing(repeats=2)
    result = evaluate(
        warehouse,
        ["fusion"],
        protocols=["paper", "sound"],
        tasks=["ACS"],
        classifier="logistic",
        drawing=drawing,
    )
    assert [score.protocol for score in result.scores] == ["paper", "sound"]
    assert [row["protocol"] for row in result.rows] == ["paper", "sound"]
    assert any(note.startswith("Optimism gap of fusion at ACS") for note in result.notes)
    crossing: dict[str, dict[Any, Any]] = {
        name: {row["what"]: row["crossing"] for row in check(warehouse, name).rows}
        for name in ("paper-ACS", "sound-ACS")
    }
    assert crossing["paper-ACS"]["patient"] > 0
    assert crossing["sound-ACS"]["patient"] == 0
    sound = result.scores[1]
    low, high = (getattr(sound.intervals["AUROC"], end) for end in ("low", "high"))
    assert low < np.mean(sound.values["AUROC"]) < high
    again = evaluate(
        warehouse,
        ["fusion"],
        protocols=["paper", "sound"],
        tasks=["ACS"],
        classifier="logistic",
        drawing=drawing,
    )
    assert [score.added for score in again.scores] == [0, 0]
    assert again.rows == [{**row, "added": 0} for row in result.rows]


def test_training_records_are_scored_without_their_patient(cohort: Cohort) -> None:
    warehouse = fused(cohort)
    result = evaluate(
        warehouse,
        ["alpha"],
        tasks=["ACS"],
        classifier="logistic",
        params=SOFT,
        drawing=Drawing(repeats=2),
    )
    with Catalog(warehouse.relations()) as catalog:
        found = predictions_of(catalog, result.scores[0].run_id)
        split = reshuffles(catalog, found.split_id)
    assert found.protocol == "sound"
    for part, one in zip(found.parts, split, strict=True):
        assert set(found.record_ids[part.test]) == set(one.test)
        assert set(found.record_ids[part.train]) == set(one.train)
        told = roc_auc_score(found.labels[part.train], part.train_scores)
        assert 0.6 < told < 0.99  # of records that were fitted to it would be all but 1
        assert np.isfinite(part.train_scores).all()


def test_a_patient_on_both_sides_shows_as_an_optimism_gap(cohort: Cohort) -> None:
    """The vectors tell who somebody is and nothing of the label: only a leak scores above 0.5."""
    warehouse = cohort(records=2, dims={"other": 2})
    rng = np.random.default_rng(0)
    n, visits = 120, 4
    who = np.repeat(np.arange(n), visits)
    ids = [f"leak/{i:04d}" for i in range(n * visits)]
    face = rng.standard_normal((n, 8))[who] + 0.05 * rng.standard_normal((n * visits, 8))
    y = (rng.random(n) < 0.4)[who]
    lists = pa.FixedSizeListArray.from_arrays(pa.array(face.astype(np.float32).ravel()), 8)
    columns = {
        "record_id": ids,
        "model": ["face"] * len(ids),
        "version": ["v"] * len(ids),
        "pooling": ["p"] * len(ids),
        "dim": pa.array([8] * len(ids), pa.int32()),
        "embedding": lists.cast(pa.list_(pa.field("element", pa.float32(), nullable=False))),
    }
    warehouse.append("embeddings", pa.table(columns), command="test")
    people = {
        "record_id": ids,
        "patient_id": [f"q{i}" for i in who],
        "dataset": ["leak"] * len(ids),
    }
    warehouse.append("records", pa.table(people), command="test")
    label(warehouse, "noise", ids, y)
    result = evaluate(
        warehouse,
        ["face"],
        protocols=["paper", "sound"],
        tasks=["noise"],
        classifier="knn",
        params={"k": 3},
        out_of_fold=0,
        drawing=Drawing(repeats=3),
    )
    paper, sound = (np.mean(score.values["AUROC"]) for score in result.scores)
    assert paper > 0.9
    assert sound < 0.65


def test_labels_that_came_later_make_a_split_of_their_own(cohort: Cohort) -> None:
    warehouse = cohort(records=120)
    ids = ids_of(warehouse)
    label(warehouse, "B", ids[:80], np.arange(80) % 2)

    def split_of() -> str:
        return evaluate(
            warehouse,
            ["alpha"],
            tasks=["B"],
            classifier="logistic",
            out_of_fold=0,
            drawing=Drawing(repeats=1),
        ).split_id

    assert [split_of(), split_of()] == ["sound-B", "sound-B"]
    label(warehouse, "B", ids[80:], np.arange(40) % 2)
    assert [split_of(), split_of()] == ["sound-B-2", "sound-B-2"]


def test_a_family_of_tasks_shares_a_split_and_has_a_mean(cohort: Cohort) -> None:
    warehouse = cohort(records=160)
    ids, rng = ids_of(warehouse), np.random.default_rng(0)
    for name in ("scp:A", "scp:B"):
        label(warehouse, name, ids, rng.random(160) < 0.4)
    label(warehouse, "scp:rare", ids, np.arange(160) < 1)
    result = evaluate(
        warehouse,
        ["alpha"],
        tasks=["scp:*"],
        classifier="logistic",
        out_of_fold=0,
        drawing=Drawing(repeats=2),
    )
    assert result.tasks == ("scp:A", "scp:B")
    assert [note for note in result.notes if note.startswith("scp:rare is left out")]
    *each, macro = result.rows
    assert [row["task"] for row in each] == ["scp:A", "scp:B"]
    assert (macro["task"], macro["tasks"]) == ("macro", 2)
    assert macro["auroc_mean"] == pytest.approx(np.mean([row["auroc_mean"] for row in each]))
    means = np.mean([score.values["AUROC"] for score in result.scores], axis=0)
    assert macro["auroc_std"] == pytest.approx(np.std(means, ddof=1))


@pytest.mark.parametrize(
    ("target", "classifier", "metric", "least"),
    [
        ("multiclass", "logistic", "macro AUROC", 0.7),
        ("continuous", "ridge", "R2", 0.2),
        ("survival", "xgboost", "C-index", 0.6),
    ],
)
def test_other_targets_are_scored_by_their_own_metrics(
    cohort: Cohort, target: str, classifier: str, metric: str, least: float
) -> None:
    warehouse = cohort(records=240)
    ids = ids_of(warehouse)
    with Catalog(warehouse.relations()) as catalog:
        _, (x,) = matrix(catalog, feature_set(catalog, "alpha").members)
    rng = np.random.default_rng(1)
    latent = x[:, 0] + x[:, 1] + 0.3 * rng.standard_normal(len(x))
    values = {
        "multiclass": np.digitize(latent, np.quantile(latent, [1 / 3, 2 / 3])),
        "continuous": latent,
        "survival": np.exp(-latent) * np.where(rng.random(len(x)) < 0.3, -1, 1),
    }[target]
    label(warehouse, "T", ids, values)
    result = evaluate(
        warehouse,
        ["alpha"],
        tasks=["T"],
        target=target,  # type: ignore[arg-type]
        classifier=classifier,
        params=FEW if classifier == "xgboost" else None,
        out_of_fold=2,
        drawing=Drawing(repeats=2),
    )
    (score,) = result.scores
    assert score.target == target
    assert np.mean(score.values[metric]) > least
    with Catalog(warehouse.relations()) as catalog:
        found = predictions_of(catalog, score.run_id)
    assert found.target == target
    shape = (3,) if target == "multiclass" else ()
    for part in found.parts:
        assert part.scores.shape[1:] == part.train_scores.shape[1:] == shape
        if shape:
            np.testing.assert_allclose(part.scores.sum(axis=1), 1, atol=1e-6)
    assert (
        evaluate(
            warehouse,
            ["alpha"],
            score.split_id,
            classifier=classifier,
            params=FEW if classifier == "xgboost" else None,
            out_of_fold=2,
        )
        .scores[0]
        .added
        == 0
    )


def test_a_column_of_records_is_a_task(cohort: Cohort) -> None:
    warehouse = cohort(records=2, dims={"other": 2})
    rng = np.random.default_rng(0)
    ids = [f"age/{i:03d}" for i in range(100)]
    age = rng.uniform(20, 90, 100)
    rows = {"record_id": ids, "dataset": ["age"] * 100, "age": age}
    warehouse.append("records", pa.table(rows), command="test")
    x = (age[:, None] / 50 + 0.1 * rng.standard_normal((100, 3))).astype(np.float32)
    lists = pa.array(x.tolist(), pa.list_(pa.field("element", pa.float32(), nullable=False)))
    columns = {name: [name] * 100 for name in ("model", "version", "pooling")}
    table = {"record_id": ids, **columns, "dim": pa.array([3] * 100, pa.int32())}
    warehouse.append("embeddings", pa.table({**table, "embedding": lists}), command="test")
    result = evaluate(
        warehouse,
        ["model"],
        tasks=["age"],
        classifier="ridge",
        out_of_fold=0,
        drawing=Drawing(repeats=2),
    )
    assert result.scores[0].target == "continuous"
    assert np.mean(result.scores[0].values["R2"]) > 0.8


def test_tuning_keeps_the_settings_it_found(cohort: Cohort) -> None:
    pytest.importorskip("optuna")
    warehouse = cohort()
    result = evaluate(
        warehouse,
        ["alpha"],
        tasks=["ACS"],
        classifier="logistic",
        tune=0.2,
        out_of_fold=0,
        drawing=Drawing(repeats=2),
    )
    with Catalog(warehouse.relations()) as catalog:
        rows = catalog.table("select distinct repeat, params from scores order by repeat")
    params = [json.loads(row["params"]) for row in rows.to_pylist()]
    assert [one["tune"] for one in params] == [0.2, 0.2]
    assert all(one["C"] > 0 for one in params)
    plain = evaluate(
        warehouse,
        ["alpha"],
        tasks=["ACS"],
        classifier="logistic",
        out_of_fold=0,
        drawing=Drawing(repeats=2),
    )
    assert plain.scores[0].run_id != result.scores[0].run_id


def test_a_plan_writes_nothing(cohort: Cohort) -> None:
    warehouse = cohort()
    before = warehouse.versions()
    plan = evaluate(warehouse, ["alpha"], tasks=["ACS"], dry_run=True)
    assert [(row["records"], row["added"]) for row in plan.rows] == [(120, 10)]
    assert warehouse.versions() == before


def test_what_cannot_be_done_is_said(cohort: Cohort) -> None:
    warehouse = cohort()
    ids = ids_of(warehouse)
    label(warehouse, "three", ids, np.arange(120) < 3)
    label(warehouse, "half", ids, np.arange(120) % 3 * 0.5)
    with pytest.raises(UsageError, match="Name the task"):
        evaluate(warehouse, ["alpha"])
    with pytest.raises(UsageError, match="Unknown protocol 'fast'"):
        evaluate(warehouse, ["alpha"], protocols=["fast"], tasks=["ACS"])
    with pytest.raises(UsageError, match="not both"):
        evaluate(warehouse, ["alpha"], "s", protocols=["paper"])
    with pytest.raises(UnknownNameError, match="Unknown task 'ACT'"):
        evaluate(warehouse, ["alpha"], tasks=["ACT"])
    few = evaluate(
        warehouse, ["alpha"], tasks=["three"], classifier="logistic", drawing=Drawing(repeats=1)
    )
    assert (
        "three: only 3 patients of the smaller class; figures over so few say little." in few.notes
    )
    label(warehouse, "one", ids, np.arange(120) < 1)
    with pytest.raises(NotEnoughDataError, match="1 positive"):
        evaluate(warehouse, ["alpha"], tasks=["one"])
    with pytest.raises(UsageError, match="cannot be fitted to a continuous target"):
        evaluate(warehouse, ["alpha"], tasks=["half"], classifier="logistic")
    with pytest.raises(UsageError, match="not binary"):
        evaluate(warehouse, ["alpha"], tasks=["half"], target="binary")
