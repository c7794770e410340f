"""A run made again on what it read gives every number again; where it does not, it says so."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

import ecgstore
from ecgstore.errors import ErasedError, UnknownNameError, UsageError
from ecgstore.evaluate import evaluate
from ecgstore.fuse import fuse
from ecgstore.reproduce import reproduce
from ecgstore.schema import table_schema
from ecgstore.splitting.split import split
from ecgstore.train import train
from ecgstore.warehouse import Warehouse

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from ecgstore.scored import Score

    Cohort = Callable[..., Warehouse]

FEW = {"n_estimators": 5}
NETWORK = {"epochs": 1, "batch_size": 64, "width": 4, "rate_hz": 50, "seconds": 2}


def scored(warehouse: Warehouse, features: str = "fusion", **options: Any) -> Score:
    """Return the score of a run over the split ``s``, made when it is not there."""
    if not warehouse.table("splits").files():
        split(warehouse, "s", task="ACS", repeats=3)
        fuse(warehouse, ["alpha", "beta"], name="fusion")
    options = {"params": FEW} | options
    return evaluate(warehouse, [features], "s", **options).scores[0]


def changed(warehouse: Warehouse, name: str, column: str, values: pa.Array) -> None:
    """Replace a column of a whole table, as a new commit."""
    rows = warehouse.table(name).read()
    place = rows.column_names.index(column)
    field = table_schema(name).arrow.field(column)
    new = rows.set_column(place, field, values.cast(field.type))
    assert warehouse.replace(name, new, command="test") == len(rows)


def files(root: Path) -> dict[str, str]:
    """Return a digest of every file of a warehouse, its caches left out."""
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in root.rglob("*")
        if path.is_file() and "_cache" not in path.parts
    }


@pytest.mark.parametrize(
    ("models", "scale", "fit", "classifier"),
    [
        (["alpha", "beta"], "minmax", "train", "xgboost"),
        (["beta"], "zscore", "train", "logistic"),
        (["beta", "alpha"], "minmax", "all", "logistic"),
        (["alpha", "beta"], "none", "train", "xgboost"),
        ([], "", "", "logistic"),
    ],
)
def test_a_run_gives_every_number_again_whatever_came_after(
    cohort: Cohort, models: list[str], scale: Any, fit: Any, classifier: str
) -> None:
    warehouse = cohort(records=150)
    split(warehouse, "s", task="ACS", repeats=2)
    if models:
        fuse(warehouse, models, name="mine", scale=scale, fit=fit)
    params = FEW if classifier == "xgboost" else {}
    features = "mine" if models else "alpha"
    score = scored(warehouse, features, classifier=classifier, params=params)

    rng = np.random.default_rng(1)
    vectors = warehouse.table("embeddings").read()["embedding"].to_pylist()
    changed(
        warehouse,
        "embeddings",
        "embedding",
        pa.array([list(rng.standard_normal(len(one))) for one in vectors]),
    )
    labels = warehouse.table("labels").read()["label"]
    changed(warehouse, "labels", "label", pc.subtract(1, labels))
    gone = warehouse.table("records").read(["record_id"])[:20]
    warehouse.delete("records", gone, command="test")
    assert scored(warehouse, features, classifier=classifier, params=params).run_id != score.run_id

    before = files(warehouse.root)
    result = reproduce(warehouse, score.run_id)
    assert files(warehouse.root) == before, "nothing is written"
    assert result.identical
    assert (result.run_id, result.features, result.split_id) == (score.run_id, features, "s")
    stored = {(row["repeat"], row["metric"]): row["now"] for row in result.rows}
    assert stored == {
        (repeat, metric): value
        for metric, values in score.values.items()
        for repeat, value in enumerate(values)
    }
    assert {row["differ"] for row in result.rows} == {0}
    tested = sum(one.predictions for one in result.reshuffles)
    assert result.summary == f"identical: 4 values and {tested} predictions."
    assert repr(result) == f"ReproduceResult({score.run_id}: {result.summary[:-1]})"


def test_what_was_stored_wrong_is_found(cohort: Cohort) -> None:
    warehouse = cohort(records=120)
    score = scored(warehouse)
    predictions = warehouse.table("predictions").read()
    values = predictions["score"].to_numpy().copy()
    (place,) = np.flatnonzero(
        (predictions["repeat"].to_numpy() == 1)
        & (predictions["record_id"].to_numpy() == _tested(predictions, 1)[3])
    )
    values[place] = np.nextafter(values[place], 2)  # the last bit
    changed(warehouse, "predictions", "score", pa.array(values))
    lost = pa.table(
        {"repeat": pa.array([2], pa.int32()), "record_id": [_tested(predictions, 2)[0]]}
    )
    warehouse.delete("predictions", lost, command="test")
    scores = warehouse.table("scores").read()
    value = scores["value"].to_numpy().copy()
    value[0] += 0.25
    changed(warehouse, "scores", "value", pa.array(value))

    result = reproduce(warehouse, score.run_id)
    assert not result.identical
    assert [(one.repeat, one.differ) for one in result.reshuffles] == [(0, 0), (1, 1), (2, 1)]
    assert 0 < result.reshuffles[1].largest < 1e-15
    assert result.reshuffles[2].largest == 0, "a lost one has no difference"
    wrong = [row for row in result.rows if not row["identical"]]
    told = scores.slice(0, 1).to_pylist()[0]
    assert [(row["repeat"], row["metric"]) for row in wrong] == [(told["repeat"], told["metric"])]
    assert wrong[0]["stored"] == pytest.approx(told["value"] + 0.25)
    assert wrong[0]["now"] == told["value"]
    n = sum(one.predictions for one in result.reshuffles)
    assert result.summary.startswith(
        f"differs in 3 of 3 reshuffles: 1 of 6 values, 2 of {n} predictions, by "
    )


def _tested(predictions: pa.Table, repeat: int) -> list[str]:
    rows = predictions.filter(pc.equal(predictions["repeat"], repeat))
    return sorted(rows["record_id"].to_pylist())


def test_scaling_is_fitted_anew_and_held_against_what_is_stored(cohort: Cohort) -> None:
    warehouse = cohort(records=120)
    score = scored(warehouse)
    least = warehouse.table("norm_stats").read()["mn"].to_pylist()
    changed(warehouse, "norm_stats", "mn", pa.array([[x - 1 for x in one] for one in least]))
    versions = json.loads(warehouse.table("scores").read()["versions"][0].as_py())
    versions["norm_stats"] = Warehouse(warehouse.root).table("norm_stats").version
    n = warehouse.table("scores").read().num_rows
    changed(warehouse, "scores", "versions", pa.array([json.dumps(versions)] * n))
    result = reproduce(warehouse, score.run_id)
    assert result.identical, "wrong statistics are not used"
    assert result.reasons[0] == "6 of 6 rows of norm_stats are not what fitting gives now"


def test_what_may_explain_a_difference_is_told(cohort: Cohort) -> None:
    warehouse = cohort(records=120)
    score = scored(warehouse)
    rows = warehouse.table("scores").read()
    params = json.loads(rows["params"][0].as_py()) | {"library": "xgboost 0.1"}
    changed(warehouse, "scores", "params", pa.array([json.dumps(params)] * len(rows)))
    changed(warehouse, "scores", "code", pa.array(["0.0.1"] * len(rows)))
    changed(warehouse, "scores", "value", pc.multiply(rows["value"], 0.5))
    result = reproduce(warehouse, score.run_id)
    library, code = result.reasons
    assert library.endswith(" now, xgboost 0.1 then")
    assert code == f"ecgstore: {ecgstore.code_version()} now, 0.0.1 then"
    assert library in result.summary
    assert code in result.summary


def test_the_beginning_of_an_id_is_enough_when_it_fits_one_run(cohort: Cohort) -> None:
    warehouse = cohort(records=120)
    first = scored(warehouse, "alpha").run_id
    second = scored(warehouse, "beta").run_id
    with ecgstore.connect(warehouse.root) as store:
        assert store.reproduce(first[:6]).run_id == first
        with pytest.raises(UsageError, match="'' fits 2 runs: "):
            store.reproduce("")
        with pytest.raises(UnknownNameError, match="Unknown run 'xyz'") as caught:
            store.reproduce("xyz")
    assert first in str(caught.value)
    assert second in str(caught.value)


def test_a_run_that_was_trained_is_reproduced_once_it_is_scored(cohort: Cohort) -> None:
    warehouse = cohort(records=120)
    split(warehouse, "s", task="ACS", repeats=3)
    run = train(warehouse, "alpha", "s", params=FEW).run_id
    with pytest.raises(UnknownNameError):
        reproduce(warehouse, run)
    assert scored(warehouse, "alpha").run_id == run
    assert reproduce(warehouse, run).identical


def test_a_run_whose_tables_were_erased_names_them(cohort: Cohort) -> None:
    warehouse = cohort(records=120)
    score = scored(warehouse)
    versions = json.loads(warehouse.table("scores").read()["versions"][0].as_py())
    for name in ("labels", "embeddings", "rejects"):  # as forget does it
        old = warehouse.table(name).files()
        if old:
            gone = warehouse.table(name).read(["record_id"])[:1]
            warehouse.delete(name, gone, command="forget")
            for path in set(old) - set(warehouse.table(name).files()):
                path.unlink()
    with pytest.raises(ErasedError) as caught:
        reproduce(warehouse, score.run_id)
    message = caught.value.message
    assert message.startswith(f"Run '{score.run_id}' cannot be reproduced. ")
    for name in ("labels", "embeddings"):
        assert f"Version {versions[name]} of table '{name}' can no longer be opened" in message
    assert "rejects" not in message
    assert "\n" not in message


def test_a_network_is_fitted_with_as_many_threads_as_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    warehouse = _signals(tmp_path / "warehouse")
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        score = scored(warehouse, "signal", classifier="resnet50", params=NETWORK)
        torch.set_num_threads(1)
        result = reproduce(warehouse, score.run_id)
        assert result.identical
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)
    params = json.loads(warehouse.table("scores").read()["params"][0].as_py())
    assert params["threads"] == 2
    assert params["device"] == "cpu" or torch.cuda.is_available()
    with ecgstore.connect(warehouse.root) as store:
        (run,) = store.table("select run_id, n_repeats from runs").to_pylist()
    assert run == {"run_id": score.run_id, "n_repeats": 1}


def _signals(root: Path) -> Warehouse:
    """Return a warehouse of 60 noisy ECGs with a split ``s``, no two alike."""
    rng = np.random.default_rng(0)
    ids = [f"syn/{i:03d}" for i in range(60)]
    leads = table_schema("waveforms").arrow.names[3:]
    rows = [
        {
            "record_id": record_id,
            "gain": [1000.0] * 12,
            "baseline": [0] * 12,
            **{lead: rng.integers(-900, 900, 200, np.int16) for lead in leads},
        }
        for record_id in ids
    ]
    warehouse = Warehouse.create(root)
    warehouse.append("waveforms", pa.Table.from_pylist(rows), command="test")
    y = (rng.random(len(ids)) < 0.4).astype(np.float64)
    labels = {"record_id": ids, "task": ["ACS"] * len(ids), "label": y}
    warehouse.append("labels", pa.table(labels), command="test")
    records = {"record_id": ids, "patient_id": ids, "rate_hz": [100.0] * len(ids)}
    warehouse.append("records", pa.table(records), command="test")
    split(warehouse, "s", task="ACS", repeats=1)
    return warehouse
