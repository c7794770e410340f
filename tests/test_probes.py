"""Probes find what was put into vectors, warn of a device, and know a mere heart rate."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pytest
from sklearn.metrics import roc_auc_score

from ecgstore.errors import NotEnoughDataError, UnknownNameError, UsageError
from ecgstore.laboratory.probes import probe
from ecgstore.schema import table_schema
from ecgstore.warehouse import Warehouse
from tests.conftest import vector_rows

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

N = 400
FEW: dict[str, Any] = {"resamples": 100, "draws": 19}
Vectors = dict[str, "NDArray[np.float32]"]


def write(warehouse: Warehouse, table: str, rows: dict[str, Any]) -> None:
    schema = table_schema(table).arrow
    fields = pa.schema([schema.field(name) for name in rows])
    warehouse.append(table, pa.table(rows, schema=fields), command="test")


def filled(root: Path) -> Warehouse:
    """Return a warehouse of two models: ``heart`` tells the patient, ``machine`` the device.

    Task ``fast`` is heart rate above 90; task ``ACS`` is in the vectors of ``heart`` alone.
    """
    rng = np.random.default_rng(0)
    ids = [f"syn/{i:04d}" for i in range(N)]
    patient = rng.integers(0, 250, N)
    age, rate = rng.normal(60, 15, N), rng.normal(80, 15, N)
    axis = rng.uniform(-180, 180, N)
    device = rng.integers(0, 3, 250)[patient]
    acs = (rng.random(N) < np.array([0.15, 0.3, 0.6])[device]).astype(float)
    noise = rng.normal(size=(2, N, 6)).astype(np.float32)
    heart, machine = noise
    heart[:, 0] = (age - 60) / 15
    heart[:, 1] += 1.5 * acs
    heart[:, 2] = np.cos(np.deg2rad(axis)) + 0.3 * noise[0, :, 2]
    heart[:, 3] = np.sin(np.deg2rad(axis)) + 0.3 * noise[0, :, 3]
    heart[:, 4] = (rate - 80) / 15 + 0.3 * noise[0, :, 4]
    machine[:, :3] += 2 * np.eye(3, dtype=np.float32)[device]
    warehouse = Warehouse.create(root)
    for name, x in (("heart", heart), ("machine", machine)):
        warehouse.append("embeddings", vector_rows(name, ids, x), command="test")
    write(
        warehouse,
        "records",
        {
            "record_id": ids,
            "patient_id": [f"secret-{p}" for p in patient],
            "age": age,
            "sex": [("male", "female", None)[k] for k in rng.integers(0, 3, N)],
            "heart_rate": rate,
            "device": [("alpha", "beta", "gamma")[k] for k in device],
            "dataset": ["syn"] * N,
        },
    )
    few = 40
    write(
        warehouse,
        "measurements",
        {
            "record_id": [*ids, *ids[:few]],
            "name": ["qrs_axis"] * N + ["pr"] * few,
            "value": [*axis, *rng.normal(160, 20, few)],
        },
    )
    for task, labels in (("ACS", acs), ("fast", (rate > 90).astype(float))):
        write(warehouse, "labels", {"record_id": ids, "task": [task] * N, "label": labels})
    rare = {"record_id": ids[:60], "task": ["rare"] * 60, "label": [1.0] * 3 + [0.0] * 57}
    write(warehouse, "labels", rare)
    three = [float(i % 3) for i in range(N)]
    write(warehouse, "labels", {"record_id": ids, "task": ["three"] * N, "label": three})
    return warehouse


@pytest.fixture(scope="module")
def warehouse(tmp_path_factory: pytest.TempPathFactory) -> Warehouse:
    return filled(tmp_path_factory.mktemp("probes") / "w")


def row_of(rows: list[dict[str, object]], features: str, about: str, figure: str = "") -> Any:
    return next(
        row
        for row in rows
        if (row["features"], row["about"]) == (features, about)
        and (not figure or row["figure"] == figure)
    )


def test_probes_find_what_is_there_and_nothing_else(warehouse: Warehouse) -> None:
    concepts = ["age", "sex", "qrs_axis", "pr"]
    result = probe(warehouse, ["heart", "machine"], concepts=concepts, **FEW)
    assert result.records == N
    age = row_of(result.rows, "heart", "age")
    assert age["figure"] == "R2"
    assert age["value"] > 0.999
    axis = row_of(result.rows, "heart", "qrs_axis")
    assert 0.7 < axis["low"] < axis["value"] < 0.95, "half of 1 is signal, 0.09 of it noise"
    for about, chance in (("age", 0.0), ("qrs_axis", 0.0), ("sex", 0.5)):
        row = row_of(result.rows, "machine", about)
        assert row["value"] == pytest.approx(chance, abs=0.1)
        assert row["chance"] == chance
    sex = row_of(result.rows, "heart", "sex")
    assert 200 < sex["records"] < 300, "those whose sex is not known are left out"
    assert row_of(result.rows, "heart", "pr")["records"] == 40
    assert "secret" not in str(result.rows)


def test_a_device_that_vectors_tell_is_an_alarm_where_the_task_hangs_on_it(
    warehouse: Warehouse,
) -> None:
    asked: dict[str, Any] = {"concepts": ["device", "dataset"], **FEW}
    with_task = probe(warehouse, ["heart", "machine"], task="ACS", **asked)
    (sentence,) = with_task.alarms
    assert "the vectors of machine tell the device: macro AUROC 0.9" in sentence
    assert "patients with 'alpha'" in sentence
    assert "patients with 'gamma'" in sentence
    assert "ecgstore subgroups RUN --by device" in sentence
    row = row_of(with_task.rows, "machine", "device", "macro AUROC")
    assert (row["p"], row["chance"]) == (1 / 20, 0.5)
    accuracy = row_of(with_task.rows, "machine", "device", "balanced accuracy")
    assert accuracy["value"] > 0.8
    assert accuracy["chance"] == pytest.approx(1 / 3)
    honest = row_of(with_task.rows, "heart", "device", "macro AUROC")
    assert honest["value"] < 0.65, "what it knows of the device it knows through ACS"
    alone = row_of(with_task.rows, "heart", "dataset")
    assert alone["reason"] == "only 'syn' has 10 records or more; two classes are needed"

    even = probe(warehouse, ["machine"], task="fast", **asked)
    assert not even.alarms
    assert "fast is spread evenly over them" in even.shortcuts[0]
    nameless = probe(warehouse, ["machine"], **asked)
    assert not nameless.alarms
    assert "Name a task" in nameless.shortcuts[0]


def test_a_task_that_is_merely_heart_rate_is_told_from_one_that_is_not(
    warehouse: Warehouse,
) -> None:
    asked: dict[str, Any] = {"concepts": ["age", "heart_rate", "pr"], "resamples": 100, "draws": 19}
    fast = probe(warehouse, ["heart"], task="fast", **asked)
    (told,) = fast.tasks
    assert told.concepts == ("age", "heart_rate"), "pr is known of too few"
    assert row_of(fast.rows, "heart", "fast: heart_rate")["value"] > 0.999
    assert row_of(fast.rows, "heart", "fast: concepts")["value"] > 0.99
    assert "nothing shows that they tell more of fast than these" in told.sentence

    acs = probe(warehouse, ["heart"], task="ACS", **asked)
    gain = row_of(acs.rows, "heart", "ACS: what vectors add")
    assert gain["figure"] == "AUROC difference"
    assert gain["low"] > 0.1
    both = row_of(acs.rows, "heart", "ACS: concepts and vectors")["value"]
    without = row_of(acs.rows, "heart", "ACS: concepts")["value"]
    assert gain["value"] == pytest.approx(both - without)
    assert "ACS is more than these" in acs.tasks[0].sentence
    labels = warehouse.table("labels").read().to_pylist()
    acs_of = {row["record_id"]: row["label"] for row in labels if row["task"] == "ACS"}
    stored = warehouse.table("embeddings").read().to_pylist()
    x = {row["record_id"]: row["embedding"][1] for row in stored if row["model"] == "heart"}
    best = roc_auc_score([acs_of[i] for i in acs_of], [x[i] for i in acs_of])
    assert row_of(acs.rows, "heart", "ACS: vectors")["value"] == pytest.approx(best, abs=0.03)


def test_what_cannot_be_probed_is_refused(warehouse: Warehouse, tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="Unknown concept 'mood'"):
        probe(warehouse, ["heart"], concepts=["mood"])
    with pytest.raises(UnknownNameError, match="Unknown feature set 'liver'"):
        probe(warehouse, ["liver"])
    with pytest.raises(UsageError, match="'three' is not binary"):
        probe(warehouse, ["heart"], task="three", concepts=["age"])
    with pytest.raises(UnknownNameError, match="Unknown task 'NORM'"):
        probe(warehouse, ["heart"], task="NORM", concepts=["age"])
    with pytest.raises(UsageError, match="2 folds; 3 are needed"):
        probe(warehouse, ["heart"], folds=2)

    half = filled(tmp_path / "w")
    gone = {"record_id": [f"syn/{i:04d}" for i in range(0, N, 2)], "model": ["heart"] * (N // 2)}
    half.delete("embeddings", pa.table(gone), command="test")
    result = probe(half, ["heart", "machine"], concepts=["age"], **FEW)
    assert result.notes == ("200 of 400 records lack a vector and are left out.",)
    assert {row["records"] for row in result.rows} == {200}
    gone["record_id"] = [f"syn/{i:04d}" for i in range(N - 10)]
    gone["model"] = ["heart"] * (N - 10)
    half.delete("embeddings", pa.table(gone), command="test")
    with pytest.raises(NotEnoughDataError, match="5 of 400 records have all vectors"):
        probe(half, ["heart"])


def test_a_task_of_too_few_says_so(warehouse: Warehouse) -> None:
    result = probe(warehouse, ["heart"], concepts=["age"], task="rare", **FEW)
    reason = row_of(result.rows, "heart", "rare")["reason"]
    assert reason.startswith("3 positive and 57 negative records have all vectors and concepts")
    assert "cannot be told: 3 positive" in result.tasks[0].sentence


def test_the_command_prints_a_row_a_figure(warehouse: Warehouse, run: Callable[..., Any]) -> None:
    words = ("probe", "--features", "heart", "--concept", "age", "--task", "ACS", "--json")
    done = run("-w", warehouse.root, *words, "--folds", "3", "--resamples", "100")
    assert done.code == 0
    assert '"about": "age"' in done.out
    assert done.err.startswith("ACS: age alone reach AUROC 0.")
