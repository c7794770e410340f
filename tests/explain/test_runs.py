"""What explains a stored run tells the run's own scores: by model, and for an ECG by lead."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pytest
import torch
import xgboost

import ecgstore
from ecgstore.catalog import Catalog
from ecgstore.errors import (
    EcgStoreError,
    NotEnoughDataError,
    UnknownNameError,
    UsageError,
    WeightsError,
)
from ecgstore.evaluate import evaluate
from ecgstore.explain import shap_of_run
from ecgstore.explain.differentiable import differentiable
from ecgstore.explain.head import head_of
from ecgstore.features import matrix
from ecgstore.fuse import fuse
from ecgstore.splitting.split import split
from ecgstore.synthetic import cohort as synthetic
from ecgstore.synthetic import write_wfdb
from ecgstore.train import load_classifier, train
from ecgstore.warehouse import Warehouse
from tests.conftest import vector_rows

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

TREES = {"n_estimators": 12, "max_depth": 3}


def log_odds(p: Any) -> Any:
    return np.log(p / (1 - p))


SETS: dict[str, tuple[dict[str, Any], str, dict[str, Any]]] = {
    "joined": ({"scale": "minmax"}, "xgboost", TREES),
    "scaled": ({"scale": "minmax"}, "logistic", {}),
    "deviating": ({"scale": "zscore"}, "ridge", {}),
    "plain": ({"scale": "none"}, "mlp", {"epochs": 2, "hidden": 8}),
    "whitened": ({"method": "whiten", "settings": {"dims": 3}}, "logistic", {}),
    "mean": ({"method": "average"}, "xgboost", {"n_estimators": 2}),
}
"""How two models are fused, the classifier, and its settings."""


@pytest.fixture(scope="module")
def warehouse(tmp_path_factory: pytest.TempPathFactory) -> Warehouse:
    """Return labelled vectors of two models, of patients p0, p1, … with one to several records."""
    rng = np.random.default_rng(0)
    ids = [f"syn/{i:05d}" for i in range(90)]
    y = (rng.random(90) < 0.4).astype(np.float64)
    made = Warehouse.create(tmp_path_factory.mktemp("explain") / "home")
    rows: dict[str, Any] = {"record_id": ids, "task": ["ACS"] * 90, "label": y}
    made.append("labels", pa.table(rows), command="test")
    for model, dim in {"alpha": 4, "beta": 6}.items():
        x = rng.standard_normal((90, dim), dtype=np.float32)
        x[:, :2] += y[:, None].astype(np.float32)
        made.append("embeddings", vector_rows(model, ids, x), command="test")
    patients = [f"p{i}" for i in rng.integers(0, 60, 90)]
    rows = {"record_id": ids, "patient_id": patients, "dataset": ["syn"] * 90}
    made.append("records", pa.table(rows), command="test")
    split(made, "one", task="ACS", repeats=1, test_size=0.3)
    return made


@pytest.fixture(scope="module")
def runs(warehouse: Warehouse) -> dict[str, str]:
    """Return the id of a trained run for each of `SETS`."""
    trained = {}
    for name, (how, classifier, params) in SETS.items():
        fuse(warehouse, ["alpha", "beta"], name=name, **how)
        made = train(warehouse, name, "one", classifier=classifier, params=params)
        trained[name] = made.run_id
    return trained


def stored(warehouse: Warehouse, run: str) -> tuple[list[str], Any]:
    with Catalog(warehouse.relations()) as catalog:
        rows = catalog.table(
            "select record_id, score from predictions where run_id = $run and repeat = 0 "
            "and split = 'test' order by record_id",
            {"run": run},
        )
    return rows["record_id"].to_pylist(), rows["score"].to_numpy()


def test_models_add_up_to_the_stored_score_of_every_test_record(
    warehouse: Warehouse, runs: dict[str, str]
) -> None:
    run = runs["joined"]
    found = shap_of_run(warehouse, run)
    ids, scores = stored(warehouse, run)
    assert found.record_ids.tolist() == ids
    assert found.additive_error < 1e-5
    told = found.bias + found.contributions.sum(axis=1)
    assert told == pytest.approx(log_odds(scores), abs=1e-5)
    assert [row["block"] for row in found.rows] == ["alpha", "beta"]
    assert [row["dim"] for row in found.rows] == [4, 6]
    assert found.shares.sum() == pytest.approx(1)


def test_a_contribution_is_the_sum_of_what_xgboost_says_of_each_number(
    warehouse: Warehouse, runs: dict[str, str]
) -> None:
    run = runs["joined"]
    found = shap_of_run(warehouse, run)
    with Catalog(warehouse.relations()) as catalog:
        head = head_of(catalog, run)
        _, blocks = matrix(catalog, head.features.members, found.record_ids.tolist())
        model = load_classifier(catalog, run, 0).save()
    trees = xgboost.Booster(model_file=bytearray(model))
    scaled = [
        (x - one.mn) / (one.mx - one.mn) for x, one in zip(blocks, head.statistics, strict=True)
    ]
    values = trees.predict(xgboost.DMatrix(np.hstack(scaled)), pred_contribs=True)
    assert found.contributions[:, 0] == pytest.approx(values[:, :4].sum(axis=1), abs=1e-6)
    assert found.sizes[:, 1] == pytest.approx(np.abs(values[:, 4:10]).sum(axis=1), abs=1e-6)


def test_every_patient_counts_once_and_none_is_named(
    warehouse: Warehouse, runs: dict[str, str]
) -> None:
    run = runs["joined"]
    found = shap_of_run(warehouse, run)
    counts = np.bincount(found.patients)
    assert counts.max() > 1, "some patient has several records"
    by_hand = np.mean([found.sizes[found.patients == p].mean(0) for p in range(len(counts))], 0)
    assert [row["mean_abs_shap"] for row in found.rows] == pytest.approx(by_hand.tolist())
    assert len(found.patient_rows) == len(counts)
    assert len(found.record_rows) == len(found.record_ids)
    words = json.dumps([found.rows, found.patient_rows, found.record_rows])
    assert '"p1' not in words, "patients of this cohort are named p0, p1, …"


def test_a_predicate_and_a_record_choose(warehouse: Warehouse, runs: dict[str, str]) -> None:
    run = runs["joined"]
    everyone = shap_of_run(warehouse, run).record_ids
    some = shap_of_run(warehouse, run, where="record_id < 'syn/00040'").record_ids
    assert some.tolist() == [one for one in everyone if one < "syn/00040"]
    assert shap_of_run(warehouse, run, record="syn/00007").record_ids.tolist() == ["syn/00007"]
    with pytest.raises(NotEnoughDataError, match="None of 0 records"):
        shap_of_run(warehouse, run, where="false")


@pytest.mark.parametrize("name", SETS)
def test_a_head_gives_the_stored_scores_and_its_gradient_is_its_own(
    warehouse: Warehouse, runs: dict[str, str], name: str
) -> None:
    run = runs[name]
    ids, scores = stored(warehouse, run)
    with Catalog(warehouse.relations()) as catalog:
        head = head_of(catalog, run)
        _, blocks = matrix(catalog, head.features.members, ids)
    told = head(blocks)
    assert told == pytest.approx(log_odds(scores), abs=1e-5)
    if SETS[name][1] == "xgboost":
        with pytest.raises(UsageError, match="has none that is known"):
            differentiable(head)
        return
    tensors = [torch.from_numpy(one).double().requires_grad_() for one in blocks]
    made = differentiable(head)(tensors)
    assert made.detach().numpy() == pytest.approx(told, abs=1e-4)
    (slope,) = torch.autograd.grad(made[0], tensors[0])
    nudged = [blocks[0][:1].copy(), blocks[1][:1]]
    nudged[0][0, 0] += 0.01
    rise = (head(nudged) - told[0])[0] / 0.01
    assert float(slope[0, 0]) == pytest.approx(rise, rel=0.05, abs=1e-3)


def test_what_cannot_be_explained_is_told_in_a_sentence(
    warehouse: Warehouse, runs: dict[str, str]
) -> None:
    linear = runs["scaled"]
    with pytest.raises(UsageError, match="made by 'logistic'"):
        shap_of_run(warehouse, linear)
    with pytest.raises(UsageError, match="made by the fusion 'average'"):
        shap_of_run(warehouse, runs["mean"])
    with pytest.raises(UnknownNameError):
        shap_of_run(warehouse, "nothing")
    with pytest.raises(UnknownNameError, match="7"):
        shap_of_run(warehouse, linear, repeat=7)
    scored = evaluate(warehouse, ["alpha"], "one", params=TREES).scores[0].run_id
    with pytest.raises(UsageError, match="were not kept") as caught:
        shap_of_run(warehouse, scored)
    assert caught.value.hint is not None
    assert "ecgstore train --features alpha --split one" in caught.value.hint


def test_an_ecg_is_explained_from_the_command_line(tmp_path: Path, run: Callable[..., Any]) -> None:
    home = tmp_path / "home"
    ecgs = write_wfdb(tmp_path / "ecgs", synthetic(16, seed=3, acs=0.5))

    def call(*words: object) -> Any:
        done = run("-w", home, *words)
        assert done.code == 0, done.err
        return done

    call("init")
    call("ingest", ecgs.parent, "--dataset", "synthetic", "--jobs", "1")
    call("labels", ecgs, "--task", "ACS", "--label", "ACS")
    call("embed", "--model", "ecgjepa.tiny", "--device", "cpu")
    call("split", "one", "--task", "ACS", "--repeats", "1", "--test-size", "0.4")
    train_ = ("train", "--features", "ecgjepa.tiny", "--split", "one")
    (linear,) = map(json.loads, call(*train_, "--classifier", "logistic").out.splitlines())
    small = ("--set", "n_estimators=5", "--set", "min_child_weight=0")
    (trees,) = map(json.loads, call(*train_, *small).out.splitlines())
    store = ecgstore.connect(home)
    ids, scores = stored(store.warehouse, linear["run_id"])
    record, score = ids[0], scores[0]
    (block,) = map(json.loads, call("explain", trees["run_id"]).out.splitlines())
    assert block["share"] == 1, "there is one model"

    picture = tmp_path / "why.png"
    options = ("--record", record, "--method", "gradients", "-o", picture)
    done = call("explain", linear["run_id"], *options)
    rows = [json.loads(line) for line in done.out.splitlines()]
    assert len(rows) == 12
    assert rows[0]["score"] == pytest.approx(log_odds(score), abs=1e-4)
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert "add up to" in done.err

    done = call("explain", trees["run_id"], "--record", record, "--window", "10")
    assert {json.loads(line)["method"] for line in done.out.splitlines()} == {"occlusion"}

    done = run("-w", home, "explain", trees["run_id"], "--record", record, "--method", "gradients")
    assert done.code == 2
    assert "'xgboost' has none" in done.err
    assert "--method occlusion" in done.err
    assert run("-w", home, "explain", trees["run_id"], "--method", "occlusion").code == 2
    with pytest.raises(EcgStoreError) as caught:
        store.explain(trees["run_id"], record=record, weights=["-", "-"])
    assert "2 weights files were given for 1 models" in caught.value.message
    assert not isinstance(caught.value, WeightsError)

    rows = store.warehouse.table("embeddings").read()
    turned = pa.array([x[::-1] for x in rows["embedding"].to_pylist()])
    place = rows.schema.get_field_index("embedding")
    rows = rows.set_column(place, rows.schema.field(place), turned.cast(rows.schema.types[place]))
    store.warehouse.replace("embeddings", rows, command="embed")  # as after an overwrite
    assert "made anew since" in call("explain", trees["run_id"]).err
    assert "not those that the run stored" not in done.err
