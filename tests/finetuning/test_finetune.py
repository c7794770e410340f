"""Finetuning as a user sees it: what is learned, from whom, and what the file is worth."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from ecgstore.errors import NotEnoughDataError, UnknownNameError, UsageError
from ecgstore.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from ecgstore.finetuning import FinetuneResult

QUICK: dict[str, Any] = {"device": "cpu", "precision": "fp32", "batch_size": 8}


def finetune(store: Store, model: str = "ecgflow.tiny", **more: Any) -> FinetuneResult:
    options: dict[str, Any] = {"split": "one", "out": store.root.parent / "run", **QUICK, **more}
    return store.finetune(model, **options)


def test_what_is_learned_is_embedded_and_evaluated(
    labelled: Path, run: Callable[..., Any], tmp_path: Path
) -> None:
    done = run(
        *("-w", labelled, "finetune", "ecgflow.tiny", "--split", "three", "--repeat", "1"),
        *("--epochs", "6", "--batch-size", "8", "--learning-rate", "0.002", "--precision", "fp32"),
        *("--device", "cpu", "--patience", "6", "-o", tmp_path / "run", "--json"),
    )
    assert done.code == 0, done.err
    (row,) = json.loads(done.out)
    assert row["auroc"] > 0.9
    assert row["best"] <= row["done"] == row["steps"]
    weights = tmp_path / "run" / "model.safetensors"
    with Store(labelled) as store:
        query = "select value from losses where name = 'loss' order by step"
        losses = store.table(query)["value"].to_numpy()
        assert len(losses) == row["steps"]
        assert losses[-3:].mean() < 0.7 * losses[:3].mean()

        parts = store.table(
            "select part, record_id, patient_id, split from trained_records "
            "join records using (record_id) "
            "join (select * from splits where split_id = 'three' and repeat = 1) "
            "using (record_id)"
        ).to_pylist()
        assert {part["split"] for part in parts} == {"train"}
        by = {one["record_id"]: one["part"] for one in parts}
        assert sorted(by.values()).count("validation") == row["validation"] > 0
        train, held = (
            {one["patient_id"] for one in parts if one["part"] == name}
            for name in ("train", "validation")
        )
        assert not train & held

        for model in ("ecgflow.tiny", "ecgflow.tiny:logits"):
            result = store.embed(model, weights=weights, device="cpu", precision="fp32")
            assert result.embedded == 48
        told = store.table(
            "select record_id, label, probability from head_outputs where version = $version",
            {"version": result.version},
        ).to_pylist()
        assert {one["label"] for one in told} == {"FAST"}
        rows = store.table("select record_id, label from labels where task = 'FAST'").to_pylist()
        truth = {one["record_id"]: one["label"] for one in rows}
        losses = [
            -np.log(one["probability"] if truth[one["record_id"]] == 1 else 1 - one["probability"])
            for one in told
            if by.get(one["record_id"]) == "validation"
        ]
        assert np.mean(losses) == pytest.approx(row["loss"], rel=1e-5), (
            "embed gives what was judged"
        )

        features = f"ecgflow.tiny@{result.version}:logits"
        score = store.evaluate([features], "three", only=[1], classifier="head")
        assert np.mean(score.scores[0].values["AUROC"]) > 0.9
        with pytest.raises(UsageError, match="was finetuned on"):
            store.evaluate([features], "three", classifier="head")


def test_of_several_outputs_the_one_of_the_task_is_scored(labelled: Path, tmp_path: Path) -> None:
    with Store(labelled) as store:
        fast = store.table("select record_id, label from labels where task = 'FAST'").to_pylist()
        table = tmp_path / "slow.csv"
        rows = [f"{one['record_id']},{1 - one['label']}" for one in fast]
        table.write_text("\n".join(["record_id,SLOW", *rows]) + "\n")
        store.label(table, task="SLOW", label="SLOW")
        done = finetune(store, tasks=["FAST", "SLOW"], learning_rate=0.002, epochs=6, patience=6)
        more: dict[str, Any] = {"weights": done.weights, "device": "cpu", "precision": "fp32"}
        logits = store.embed("ecgflow.tiny:logits", **more).version
        (made,) = store.table("select version, labels from models").to_pylist()
        assert made["labels"] == ["FAST", "SLOW"]
        embedding = store.embed("ecgflow.tiny", **more).version

        def auroc(task: str, version: str = logits, **more: Any) -> float:
            features = f"ecgflow.tiny@{version}"
            told = store.evaluate([features], "one", task=task, classifier="head", **more)
            (score,) = told.scores
            return float(np.mean(score.values["AUROC"]))

        assert min(auroc("FAST"), auroc("SLOW")) > 0.9
        for output in ("FAST", "0"):
            assert auroc("SLOW", params={"output": output}) == pytest.approx(1 - auroc("FAST"))
        with pytest.raises(UsageError, match="no output 'RARE'; it has FAST, SLOW"):
            auroc("RARE")
        with pytest.raises(UsageError, match="Nothing tells which number"):
            auroc("FAST", embedding)


def test_it_stops_early_keeps_the_best_and_is_done_when_resumed(labelled: Path) -> None:
    with Store(labelled) as store:
        # So fast that it gets no better than its first looks.
        more: dict[str, Any] = {"learning_rate": 3.0, "epochs": 40, "patience": 2, "freeze": "none"}
        first = finetune(store, **more)
        assert first.done < first.steps
        scores = [look.auroc for look in first.judged]
        best = int(np.argmax(scores))
        assert first.best == first.judged[best].step
        assert (first.auroc, first.loss) == (scores[best], first.judged[best].loss)
        assert len(scores) == best + 1 + 2
        query = "select value from losses where name = 'validation_auroc' order by step"
        assert store.table(query)["value"].to_pylist() == scores
        assert first.weights is not None
        again = finetune(store, **more, resume=True)
        assert again.weights_sha256 == first.weights_sha256
        assert (again.best, again.auroc) == (first.best, first.auroc)


@pytest.mark.slow
def test_a_number_is_told_in_its_own_unit(labelled: Path) -> None:
    with Store(labelled) as store:
        done = finetune(store, tasks=["SPEED"], learning_rate=0.002, epochs=12, freeze="none")
        assert (done.preset, done.auroc) == ("ecgflow-regression", None)
        assert done.loss is not None
        assert done.loss < 0.7, "a constant has 1"
        store.embed("ecgflow.tiny", weights=done.weights, device="cpu", precision="fp32")
        rows = store.table(
            "select probability, speed from head_outputs join (select record_id, label as speed "
            "from labels where task = 'SPEED') using (record_id)"
        )
        told, wanted = (rows[name].to_numpy() for name in ("probability", "speed"))
        assert np.corrcoef(told, wanted)[0, 1] > 0.6
        assert abs(told.mean() - wanted.mean()) < 0.25


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"split": "three"}, UsageError, "has 3 reshuffles"),
        ({"repeat": 7}, UsageError, "has no reshuffle 7"),
        ({"tasks": ["SLOW"]}, UnknownNameError, "Unknown task 'SLOW'"),
        ({"tasks": ["SORT"]}, UsageError, "several classes"),
        ({"tasks": ["FAST", "SPEED"]}, UsageError, "only FAST are binary"),
        ({"preset": "ecgfm-lvef", "tasks": ["FAST", "RARE"]}, UsageError, "takes one task, not 2"),
        ({"preset": "ecgflow", "tasks": ["SPEED"]}, UsageError, "is for binary labels"),
        ({"preset": "none"}, UnknownNameError, "Unknown preset 'none'"),
        ({"freeze": "some"}, UsageError, "'some' is nothing that can be frozen"),
        ({"freeze": 9}, UsageError, "top 9 blocks cannot be trained: there are 2"),
        ({"class_weights": True, "tasks": ["SPEED"]}, UsageError, "Class weights are for"),
        ({"preset": "stmem"}, UsageError, "are not augmented"),
        ({"validation": 0.05}, NotEnoughDataError, "do not give both classes of 'FAST'"),
        ({"batch_size": 400}, NotEnoughDataError, "make no batch of 400"),
    ],
)
def test_what_cannot_be_done_is_said(
    labelled_home: Path,
    tmp_path: Path,
    given: dict[str, Any],
    error: type[Exception],
    message: str,
) -> None:
    with Store(labelled_home) as store, pytest.raises(error, match=message):
        finetune(store, **given, out=tmp_path / "run", dry_run=True)
