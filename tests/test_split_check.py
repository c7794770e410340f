"""A leak planted on purpose is found, whatever its kind, and a clean split is called clean."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from ecgstore.errors import UnknownNameError
from ecgstore.fuse import fuse
from ecgstore.splitting.split import split
from ecgstore.splitting.split_check import CheckResult, check

if TYPE_CHECKING:
    from collections.abc import Callable

    from ecgstore.warehouse import Warehouse

    Cohort = Callable[..., Warehouse]


def crossing(result: CheckResult) -> dict[str, Any]:
    return {str(row["what"]): row["crossing"] for row in result.rows}


def side(warehouse: Warehouse, which: str, repeat: int = 0) -> list[str]:
    """Return the records of a side of a repeat of the split ``s``."""
    rows = warehouse.table("splits").read()
    mine = pc.field("split_id") == "s"
    here = rows.filter(mine & (pc.field("repeat") == repeat) & (pc.field("split") == which))
    return [str(one) for one in here["record_id"].to_pylist()]


def change(warehouse: Warehouse, **values: dict[str, object]) -> None:
    """Set columns of records: ``column={record_id: value}``; every record counts as assessed."""
    rows = warehouse.table("records").read().to_pylist()
    for row in rows:
        row |= {"assessed": "1", "signal_sha256": row["record_id"]}
        row |= {name: of[row["record_id"]] for name, of in values.items() if row["record_id"] in of}
    schema = warehouse.table("records").read().schema
    warehouse.replace("records", pa.Table.from_pylist(rows, schema=schema), command="test")


def test_nothing_crosses_in_a_split_by_patients(cohort: Cohort) -> None:
    warehouse = cohort()
    split(warehouse, "s", task="ACS", repeats=3, inner=3)
    fuse(warehouse, ["alpha", "beta"], name="both")
    result = check(warehouse, "s")
    assert crossing(result) == {
        "patient": 0,
        "same signal": None,
        "duplicate": None,
        "near duplicate": None,
        "record twice": 0,
        "scaling fitted on test records": 0,
        "features scaled on all records": 0,
        "inner fold outside its training part": 0,
    }
    assert (
        result.summary == "s: nothing crosses; not assessed: same signal, duplicate, near duplicate"
    )
    assert result.rows[2]["note"] == "120 records not assessed: ecgstore quality"
    assert {row["of"] for row in result.rows[4:6]} == {120, 6}, "two models in three repeats"
    change(warehouse)
    result = check(warehouse, "s")
    assert set(crossing(result).values()) == {0}
    assert (result.crossing, result.untold, result.notes) == ((), (), ())
    assert repr(result) == "CheckResult(s: nothing crosses)"
    assert "nothing crosses" in result._repr_html_()
    assert {row["of"] for row in check(warehouse, "s.inner0").rows[:1]} != {0}
    with pytest.raises(UnknownNameError, match=r"Unknown split 'x'. Known splits: s, s\.inner0"):
        check(warehouse, "x")
    split(warehouse, "p", task="ACS", repeats=2, group="none", protocol="paper")
    result = check(warehouse, "p")
    assert result.crossing == ("patient",)
    assert result.notes == ("The protocol 'paper' draws record by record: its patients do cross.",)


def test_patients_copies_and_inner_folds_on_both_sides_are_counted(cohort: Cohort) -> None:
    warehouse = cohort(records=60)
    split(warehouse, "s", task="ACS", repeats=2)
    train, test = side(warehouse, "train"), side(warehouse, "test")
    change(
        warehouse,
        patient_id={train[0]: "planted", test[0]: "planted", test[1]: None},
        signal_sha256={train[1]: "same", test[1]: "same"},
        duplicate_of={train[2]: "gone/1", test[2]: "gone/1"},
        near_duplicate_of={test[3]: train[3], test[4]: train[3]},
    )
    folds = {  # an inner fold that reaches into the test part of the second repeat
        "split_id": ["s.inner1"] * 60,
        "repeat": pa.array([0] * 60, pa.int32()),
        "record_id": [*train, *test],
        "split": ["train"] * 60,
        "params": [json.dumps({"inner_of": "s", "repeat": 1})] * 60,
    }
    warehouse.append("splits", pa.table(folds), command="test")
    result = check(warehouse, "s")
    found = crossing(result)
    assert (found["patient"], found["same signal"], found["duplicate"]) == (1, 1, 1)
    assert found["near duplicate"] == 2, "of exact copies too, and two records like one are one"
    assert found["record twice"] == 0
    rows = {row["what"]: row for row in result.rows}
    assert rows["patient"]["note"] == "1 records have no patient id"
    assert rows["same signal"]["of"] == 59
    assert rows["inner fold outside its training part"]["crossing"] == len(
        side(warehouse, "test", 1)
    )
    told = "patient, same signal, duplicate, near duplicate, inner fold outside its training part"
    assert result.summary == f"s: {told} cross"


def test_scaling_that_saw_test_records_is_found(cohort: Cohort) -> None:
    warehouse = cohort(records=60)
    split(warehouse, "s", task="ACS", repeats=2)
    fuse(warehouse, ["alpha", "beta"], name="both")
    rows = warehouse.table("norm_stats").read().to_pylist()
    (one,) = [row for row in rows if row["repeat"] == 1 and row["model"] == "beta"]
    schema = warehouse.table("norm_stats").read().schema
    leaky = pa.Table.from_pylist([one | {"n_train": 60}], schema=schema)
    warehouse.replace("norm_stats", leaky, command="test")
    fuse(warehouse, ["alpha", "beta"], name="leaky", fit="all")
    (row,) = [row for row in check(warehouse, "s").rows if row["crossing"]]
    assert row["what"] == "scaling fitted on test records"
    assert (row["repeats"], row["crossing"], row["of"]) == (1, 1, 4)
    scores = {
        "run_id": ["r1", "r1", "r2"],
        "repeat": pa.array([0, 1, 0], pa.int32()),
        "metric": ["AUROC"] * 3,
        "features": ["leaky", "leaky", "alpha"],
        "split_id": ["s"] * 3,
        "value": [0.9, 0.9, 0.8],
    }
    warehouse.append("scores", pa.table(scores), command="test")
    (_, row) = [row for row in check(warehouse, "s").rows if row["crossing"]]
    assert row["what"] == "features scaled on all records"
    assert (row["repeats"], row["crossing"], row["of"]) == (2, 1, 2)


def test_the_command_proves_it_and_says_so_by_its_code(
    cohort: Cohort, run: Callable[..., Any]
) -> None:
    warehouse = cohort(records=60)
    at = ("-w", warehouse.root, "split")
    drawn = run(*at, "s", "--task", "ACS", "--method", "kfold", "--folds", "3", "--json")
    assert [row["test"] for row in json.loads(drawn.out)] != []
    done = run(*at, "s", "--check", "--json")
    assert done.code == 0
    assert [row["split"] for row in json.loads(done.out)] == ["s"] * 8
    assert done.err.splitlines()[-1].startswith("s: nothing crosses; not assessed: ")
    run(*at, "n", "--task", "ACS", "--group", "none")
    done = run(*at, "n", "--check")
    assert done.code == 1
    assert "n: patient cross" in done.err
    for words in (("s",), ("s", "--check", "--task", "ACS")):
        done = run(*at, *words)
        assert (done.code, done.out) == (2, "")
        assert done.err.startswith("error: Either a task is needed, or --check without one.")
