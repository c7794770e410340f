"""Scores are right, come from test records alone, and survive an interruption."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pytest

from ecgstore.catalog import Catalog
from ecgstore.errors import NotEnoughDataError, UnknownNameError, UsageError
from ecgstore.evaluate import evaluate
from ecgstore.fuse import fuse
from ecgstore.leakage import declare
from ecgstore.splitting.split import reshuffles, split
from ecgstore.statistics.metrics import measure
from ecgstore.train import train
from ecgstore.warehouse import Warehouse

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Cohort = Callable[..., Warehouse]

FEW = {"n_estimators": 10}

EVALUATION = """
import sys
from pathlib import Path
from ecgstore.evaluate import evaluate
from ecgstore.warehouse import Warehouse

class Told:
    def start(self, total, unit): pass
    def note(self, message): pass
    def advance(self, done=1, *, rejected=0): print("step", flush=True)

if __name__ == "__main__":
    evaluate(Warehouse(Path(sys.argv[1])), ["alpha", "fusion"], "s",
             params={"n_estimators": 10}, progress=Told())
"""


def ready(
    cohort: Cohort, name: str = "warehouse", *, repeats: int = 3, **options: Any
) -> Warehouse:
    warehouse = cohort(name, **options)
    split(warehouse, "s", task="ACS", repeats=repeats)
    fuse(warehouse, ["alpha", "beta"], name="fusion")
    return warehouse


def numbers(warehouse: Warehouse, table: str, *columns: str) -> list[dict[str, Any]]:
    with Catalog(warehouse.relations()) as catalog:
        rows = catalog.table(f"select {', '.join(columns)} from {table} order by all")
        return list(rows.to_pylist())


def test_metrics_by_hand() -> None:
    labels = np.array([0.0, 0.0, 1.0, 1.0])
    # Of the four pairs three are in order. The positives are met at ranks 1 and 3.
    found = measure(labels, np.array([0.1, 0.4, 0.35, 0.8]))
    assert found == {"AUROC": 0.75, "AUCPR": pytest.approx((1 / 1 + 2 / 3) / 2)}
    assert measure(labels, np.full(4, 0.5)) == {"AUROC": 0.5, "AUCPR": 0.5}
    assert measure(labels, labels) == {"AUROC": 1.0, "AUCPR": 1.0}


def test_metrics_equal_published_ones(test_data: Path) -> None:
    # Macro averages of xresnet1d101 on PTB-XL, experiment 0; see PROVENANCE.tsv.
    folder = test_data / "data" / "reference_outputs" / "ptbxl_exp0"
    labels = np.load(folder / "y_test.npy").astype(np.float64)
    scores = np.load(folder / "fastai_xresnet1d101" / "y_test_pred.npy")
    found = [measure(labels[:, k], scores[:, k]) for k in range(labels.shape[1])]
    assert np.mean([one["AUROC"] for one in found]) == pytest.approx(0.9254358590, abs=1e-9)
    assert np.mean([one["AUCPR"] for one in found]) == pytest.approx(0.3705829615, abs=1e-9)


def test_the_table_has_a_row_a_feature_set_and_a_second_call_changes_nothing(
    cohort: Cohort,
) -> None:
    warehouse = ready(cohort, records=240)
    before = warehouse.versions()
    plan = evaluate(warehouse, ["alpha", "beta", "fusion"], "s", params=FEW, dry_run=True)
    assert warehouse.versions() == before
    assert [(row["added"], row["auroc_mean"]) for row in plan.rows] == [(3, None)] * 3

    result = evaluate(warehouse, ["alpha", "beta", "fusion"], "s", params=FEW)
    assert [score.features for score in result.scores] == ["alpha", "beta", "fusion"]
    assert [score.run_id for score in result.scores] == [score.run_id for score in plan.scores]
    stored = numbers(warehouse, "scores", "run_id", "metric", "repeat", "value")
    for score in result.scores:
        row = score.row
        for metric in ("AUROC", "AUCPR"):
            values = [
                one["value"]
                for one in stored
                if (one["run_id"], one["metric"]) == (score.run_id, metric)
            ]
            assert list(score.values[metric]) == values
            assert row[f"{metric.lower()}_mean"] == pytest.approx(np.mean(values))
            assert row[f"{metric.lower()}_std"] == pytest.approx(np.std(values, ddof=1))
        assert (row["records"], row["n_repeats"], row["added"]) == (240, 3, 3)
    lines = str(result).splitlines()
    assert [line.split()[0] for line in lines] == ["features", "alpha", "beta", "fusion"]
    assert "±" in lines[1]
    assert repr(result).startswith("EvaluateResult(ACS over 's': 3 sets, best AUROC 0.")

    before = warehouse.versions()
    again = evaluate(warehouse, ["alpha", "beta", "fusion"], "s", params=FEW)
    assert warehouse.versions() == before
    assert [score.values for score in again.scores] == [score.values for score in result.scores]
    assert {score.added for score in again.scores} == {0}


def test_every_score_can_be_recomputed_from_stored_predictions(cohort: Cohort) -> None:
    warehouse = ready(cohort)
    (score,) = evaluate(warehouse, ["fusion"], "s", classifier="logistic").scores
    with Catalog(warehouse.relations()) as catalog:
        parts = reshuffles(catalog, "s")
        for one in parts:
            rows = catalog.table(
                "select * from predictions where repeat = $repeat order by record_id",
                {"repeat": one.repeat},
            )
            assert rows["record_id"].to_pylist() == list(one.test)
            found = measure(rows["label"].to_numpy(), rows["score"].to_numpy())
            assert found == {name: score.values[name][one.repeat] for name in found}
        (row, *_) = catalog.table("select * from scores order by repeat, metric").to_pylist()
    assert (row["features"], row["task"], row["split_id"]) == ("fusion", "ACS", "s")
    assert json.loads(row["params"])["C"] == 1.0
    assert json.loads(row["params"])["library"].startswith("scikit-learn ")
    assert row["seconds"] > 0
    versions = json.loads(row["versions"])
    assert versions["scores"] == 0, "the versions are those that were read"
    past = Warehouse(warehouse.root, at=versions)
    assert len(past.table("scores").read()) == 0
    assert len(past.table("embeddings").read()) == 240


def test_features_that_tell_nothing_score_at_chance(cohort: Cohort) -> None:
    warehouse = ready(cohort, records=400, repeats=5)
    shuffled = warehouse.table("labels").read().sort_by("record_id")
    order = np.random.default_rng(0).permutation(len(shuffled))
    columns = {
        "record_id": shuffled["record_id"],
        "task": ["noise"] * len(shuffled),
        "label": shuffled["label"].take(pa.array(order)),
    }
    warehouse.append("labels", pa.table(columns), command="test")
    split(warehouse, "noise", task="noise", repeats=5)
    (real,) = evaluate(warehouse, ["fusion"], "s", params=FEW).scores
    (noise,) = evaluate(warehouse, ["fusion"], "noise", params=FEW).scores
    assert np.mean(real.values["AUROC"]) > 0.75
    assert 0.4 < np.mean(noise.values["AUROC"]) < 0.6


def test_an_evaluation_killed_at_any_step_is_finished_by_the_next(
    cohort: Cohort, tmp_path: Path
) -> None:
    whole = ready(cohort)
    killed = tmp_path / "killed"
    shutil.copytree(whole.root, killed)
    script = tmp_path / "evaluation.py"
    script.write_text(EVALUATION)
    process = subprocess.Popen(
        [sys.executable, str(script), str(killed)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    with process, process.stdout as told:
        for _ in range(3):
            assert told.readline() == "step\n"
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    left = Warehouse(killed)
    done = len(numbers(left, "scores", "run_id"))
    assert 0 < done < 12, "the kill came too early or too late to tell anything"

    result = evaluate(left, ["alpha", "fusion"], "s", params=FEW)
    assert 0 < sum(score.added for score in result.scores) < 6
    evaluate(whole, ["alpha", "fusion"], "s", params=FEW)
    assert numbers(left, "scores", "run_id", "repeat", "metric", "value") == numbers(
        whole, "scores", "run_id", "repeat", "metric", "value"
    )
    same = ("run_id", "repeat", "record_id", "score", "label")
    assert numbers(left, "predictions", *same) == numbers(whole, "predictions", *same)


def test_predictions_of_a_training_are_used(cohort: Cohort) -> None:
    warehouse = ready(cohort)
    trained = train(warehouse, "fusion", "s", params=FEW)
    before = warehouse.versions()
    (score,) = evaluate(warehouse, ["fusion"], "s", params=FEW).scores
    after = warehouse.versions()
    assert score.run_id == trained.run_id
    assert {name for name in after if after[name] != before[name]} == {"scores"}


def test_sets_scored_on_different_records_are_told_apart(cohort: Cohort) -> None:
    warehouse = ready(cohort, records=240)
    gone = {"record_id": [f"syn/{i:05d}" for i in range(7)], "model": ["beta"] * 7}
    warehouse.delete("embeddings", pa.table(gone), command="test")
    result = evaluate(warehouse, ["alpha", "fusion"], "s", params=FEW)
    assert [(row["records"], row["left_out"]) for row in result.rows] == [(240, 0), (233, 7)]
    assert result.notes == (
        "fusion: 7 of the split's records left out (7 no vector).",
        "The feature sets were scored on different records; compare with care.",
    )


def test_what_models_have_seen_stands_beside_their_scores(cohort: Cohort) -> None:
    warehouse = ready(cohort)
    records = warehouse.table("records").read().to_pylist()
    ptbxl = [{**row, "dataset": "ptbxl"} for row in records[::2]]
    warehouse.replace("records", pa.Table.from_pylist(ptbxl), command="test")
    declare(warehouse, "alpha", "PhysioNet 2021", "its paper")
    told = {"model": ["beta"], "version": ["v1"], "pooling": ["mean"], "source": ["untrained"]}
    warehouse.append("models", pa.table(told), command="test")

    result = evaluate(warehouse, ["alpha", "beta", "fusion"], "s", classifier="logistic")
    seen = "seen: ptbxl (alpha); unknown: syn (alpha)"
    assert [row["pretraining"] for row in result.rows] == [seen, "clean", seen]
    flattered = "alpha has seen ptbxl in pretraining (PhysioNet 2021), which flatters it."
    assert result.notes == (flattered,)
    lines = str(result).splitlines()
    assert [seen in line for line in lines] == [False, True, False, True, False]
    assert lines[-1] == flattered
    assert f"<td>{seen}</td>" in result._repr_html_()
    again = evaluate(warehouse, ["alpha"], "s", classifier="logistic", dry_run=True)
    assert again.rows[0]["pretraining"] == seen


def test_a_part_with_one_class_is_named(cohort: Cohort) -> None:
    warehouse = ready(cohort)
    with Catalog(warehouse.relations()) as catalog:
        test = reshuffles(catalog, "s")[1].test
        positive = catalog.table(
            "select record_id from labels where label = 1 and record_id in (select unnest($ids))",
            {"ids": list(test)},
        )
    columns = {"record_id": positive["record_id"], "model": ["beta"] * len(positive)}
    warehouse.delete("embeddings", pa.table(columns), command="test")
    with pytest.raises(NotEnoughDataError, match="test part of reshuffle 1 has 0 positive"):
        evaluate(warehouse, ["beta"], "s", params=FEW)
    assert warehouse.versions()["scores"] == 0


def test_what_cannot_be_evaluated_is_refused(cohort: Cohort) -> None:
    warehouse = ready(cohort, records=60)
    before = warehouse.versions()
    with pytest.raises(UnknownNameError, match="Unknown split 't'"):
        evaluate(warehouse, ["alpha"], "t")
    with pytest.raises(UnknownNameError, match="Unknown feature set 'gamma'"):
        evaluate(warehouse, ["alpha", "gamma"], "s")
    with pytest.raises(UnknownNameError, match="Unknown classifier 'svm'"):
        evaluate(warehouse, ["alpha"], "s", classifier="svm")
    with pytest.raises(UsageError, match="'logistic' reads vectors, not 'signal'"):
        evaluate(warehouse, ["alpha"], "s", baseline="logistic")
    with pytest.raises(UsageError, match="Unknown setting 'epochs'"):
        evaluate(warehouse, ["alpha"], "s", params={"epochs": 1})
    with pytest.raises(UsageError, match="Nothing to evaluate"):
        evaluate(warehouse, [], "s")
    assert warehouse.versions() == before
