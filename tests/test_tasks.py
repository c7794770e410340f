"""A task is found wherever its labels are, and what its labels say is told in one sentence."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pytest

from ecgstore.catalog import Catalog
from ecgstore.errors import NotEnoughDataError, UnknownNameError, UsageError
from ecgstore.tasks import cohort, expand, labels_of, source, target_of, untold
from ecgstore.warehouse import Warehouse

if TYPE_CHECKING:
    from collections.abc import Iterator

IDS = ["x/0", "x/1", "x/2", "x/3"]


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Catalog]:
    """Open four records of three patients with labels of every origin."""
    warehouse = Warehouse.create(tmp_path_factory.mktemp("tasks"))
    records = {
        "record_id": IDS,
        "patient_id": ["b", "a", None, "b"],
        "age": [61.0, None, 40.0, 62.0],
        "sex": ["male", "female", None, "male"],
        "strat_fold": pa.array([1, 2, 3, 4], pa.int32()),
    }
    warehouse.append("records", pa.table(records), command="test")
    told: dict[str, list[float | None]] = {
        "MI": [1.0, 0.0, None, 0.0],
        "scp:A": [0.0, 0.0, 1.0, 1.0],
        "scp:B": [None, None, 1.0, 0.0],
        "heart_rate": [1.0, 2.0, 3.0, 4.0],
        "it's": [1.0, 0.0, 0.0, 0.0],
        "empty": [None] * 4,
    }
    labels = {
        "record_id": [*IDS * len(told), "gone/1"],
        "task": [task for task in told for _ in IDS] + ["MI"],
        "label": pa.array(
            [one for values in told.values() for one in values] + [1.0], pa.float64()
        ),
    }
    warehouse.append("labels", pa.table(labels), command="test")
    measured = {"record_id": [*IDS[:2], "gone/1"], "name": ["qt"] * 3, "value": [400.0, 410.0, 1.0]}
    warehouse.append("measurements", pa.table(measured), command="test")
    with Catalog(warehouse.relations()) as opened:
        yield opened


@pytest.mark.parametrize(
    ("task", "ids", "labels", "missing"),
    [
        ("MI", [0, 1, 3], [1, 0, 0], 1),
        ("age", [0, 2, 3], [61, 40, 62], 1),
        ("sex", [0, 1, 3], [1, 0, 1], 1),
        ("strat_fold", [0, 1, 2, 3], [1, 2, 3, 4], 0),
        ("measurement:qt", [0, 1], [400, 410], 0),
        ("heart_rate", [0, 1, 2, 3], [1, 2, 3, 4], 0),  # a label wins over the column
        ("it's", [0, 1, 2, 3], [1, 0, 0, 0], 0),
    ],
)
def test_labels_are_found_wherever_they_are(
    catalog: Catalog, task: str, ids: list[int], labels: list[float], missing: int
) -> None:
    found = cohort(catalog, [task])
    assert found.column_names == ["record_id", "patient", "alone", task]
    assert found["record_id"].to_pylist() == [IDS[i] for i in ids]
    assert found[task].to_pylist() == labels
    assert untold(catalog, task) == missing
    some = labels_of(catalog, task, [*reversed(IDS[1:]), "gone/1"])
    assert some["record_id"].to_pylist() == [IDS[i] for i in ids if i]
    assert some["label"].to_pylist() == [one for i, one in zip(ids, labels, strict=True) if i]


def test_several_tasks_are_joined_by_record(catalog: Catalog) -> None:
    found = cohort(catalog, ["MI", "scp:B"])
    assert found["record_id"].to_pylist() == IDS
    assert found["patient"].to_pylist() == [0, 1, 2, 0]
    assert found["alone"].to_pylist() == [False, False, True, False]
    assert found["MI"].to_pylist() == [1, 0, None, 0]
    assert found["scp:B"].to_pylist() == [None, None, 1, 0]


def test_families_are_spelled_out(catalog: Catalog) -> None:
    assert expand(catalog, ["scp:*"]) == ["scp:A", "scp:B"]
    assert expand(catalog, ["scp:?", "age", "MI", "MI"]) == ["MI", "age", "scp:A", "scp:B"]
    assert expand(catalog, ["measurement:*"]) == ["measurement:qt"]
    assert "age" not in expand(catalog, ["*"]), "a column is named whole"
    with pytest.raises(UnknownNameError, match=r"Unknown task 'scp:Z\*'") as caught:
        expand(catalog, ["MI", "scp:Z*"])
    assert "scp:A" in str(caught.value)
    with pytest.raises(UnknownNameError) as caught:
        source(catalog, "measurement:qtt")
    assert caught.value.near[0] == "measurement:qt"
    with pytest.raises(UnknownNameError) as caught:
        expand(catalog, ["Age"])
    assert caught.value.near[0] == "age"
    with pytest.raises(UnknownNameError):  # text is no label
        source(catalog, "device")
    with pytest.raises(NotEnoughDataError, match="No record has a label for task 'empty'"):
        cohort(catalog, ["empty"])


@pytest.mark.parametrize(
    ("labels", "target"),
    [
        ([0, 1, 1], "binary"),
        ([0, 0], "binary"),
        ([0, 1, 2, 2], "multiclass"),
        (range(20), "multiclass"),
        (range(21), "continuous"),
        ([0, 2, 3], "continuous"),
        ([1, 2, 3], "continuous"),
        ([0.5, 1], "continuous"),
        ([-1, 0, 1], "continuous"),
    ],
)
def test_what_labels_say_is_told_from_them(labels: list[float], target: str) -> None:
    assert target_of(np.array(labels, float)) == target


@pytest.mark.parametrize(
    ("labels", "given", "sentence"),
    [
        ([0.5, 2, 1, 0, 3, 4], "binary", "not binary: its labels are 0, 0.5, 1, 2, 3, …; 0 and 1 "),
        ([0, 2], "multiclass", "not multiclass: its labels are 0, 2; whole numbers"),
        ([3, -5, 0], "survival", "not survival: its labels are -5, 0, 3; times were expected"),
        ([1, np.inf], None, "not continuous: its labels are 1, inf; finite numbers"),
        ([1, np.nan], "survival", "not survival: its labels are 1, nan; times"),
        ([0, 1], "text", "Unknown target 'text'; known: binary, multiclass"),
    ],
)
def test_a_target_that_does_not_fit_is_refused(
    labels: list[float], given: str | None, sentence: str
) -> None:
    with pytest.raises(UsageError) as caught:
        target_of(np.array(labels, float), given, task="x")
    assert sentence in str(caught.value)


def test_a_target_that_fits_is_taken() -> None:
    zero_one = np.array([0.0, 1, 1])
    assert target_of(zero_one, "continuous") == "continuous"
    assert target_of(zero_one, "multiclass") == "multiclass"
    assert target_of(np.array([3.0, -5]), "survival") == "survival"
