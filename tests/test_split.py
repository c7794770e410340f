"""Reshuffles are disjoint, stratified, repeatable, and keep patients whole."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from ecgstore.catalog import Catalog
from ecgstore.errors import NotEnoughDataError, UnknownNameError, UsageError
from ecgstore.splitting.split import Reshuffle, SplitResult, draw, reshuffles, split
from ecgstore.warehouse import Warehouse

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Cohort = Callable[..., Warehouse]


def labelled(
    root: Path,
    labels: list[float],
    *,
    patients: list[str | None] | None = None,
    datasets: list[str] | None = None,
) -> Warehouse:
    ids = [f"x/{i:03d}" for i in range(len(labels))]
    warehouse = Warehouse.create(root)
    rows: dict[str, object] = {"record_id": ids, "task": ["T"] * len(ids), "label": labels}
    warehouse.append("labels", pa.table(rows), command="test")
    rows = {
        "record_id": ids,
        "patient_id": pa.array(patients or [None] * len(ids), pa.string()),
        "dataset": datasets or ["x"] * len(ids),
    }
    warehouse.append("records", pa.table(rows), command="test")
    return warehouse


@settings(deadline=None)
@given(
    groups=st.lists(st.integers(0, 30), min_size=8, max_size=90),
    data=st.data(),
    test_size=st.sampled_from([0.1, 0.2, 0.37, 0.5]),
    seed=st.integers(0, 2**32 - 1),
)
def test_drawn_reshuffles_are_stratified_and_keep_groups_whole(
    groups: list[int], data: st.DataObject, test_size: float, seed: int
) -> None:
    number = np.unique(groups, return_inverse=True)[1]
    labels = np.array(
        data.draw(st.lists(st.sampled_from([0.0, 1.0]), min_size=len(groups), max_size=len(groups)))
    )
    positive = np.array([labels[number == g].max() for g in range(number.max() + 1)])
    n, n_positive = len(positive), int(positive.sum())
    assume(min(n_positive, n - n_positive) >= 2)
    assume(min(np.ceil(n * test_size), n - np.ceil(n * test_size)) >= 2)

    def drawn(repeats: int) -> list[np.ndarray]:
        return list(draw(labels, number, repeats=repeats, test_size=test_size, seed=seed))

    masks = drawn(3)
    for test in masks:
        sides = np.array([test[number == g] for g in range(n)], dtype=object)
        assert all(len(set(side)) == 1 for side in sides), "a group is on both sides"
        chosen = np.array([side[0] for side in sides])
        assert chosen.sum() == np.ceil(n * test_size)
        assert abs(positive[chosen].sum() - chosen.sum() * n_positive / n) <= 1
    assert all(np.array_equal(a, b) for a, b in zip(masks, drawn(3), strict=True))
    assert np.array_equal(masks[0], drawn(1)[0]), "more repeats must not change the first"


def test_patients_are_never_on_both_sides(cohort: Cohort) -> None:
    warehouse = cohort(records=300)
    result = split(warehouse, "s", task="ACS", repeats=5)
    with Catalog(warehouse.relations()) as catalog:
        crossing = catalog.table(
            "select repeat, patient_id from splits join records using (record_id) "
            "group by all having count(distinct split) > 1"
        )
        counts = catalog.table(
            "select repeat, count(*) as n, count(distinct record_id) as m from splits group by all"
        )
    assert len(crossing) == 0
    assert counts["n"].to_pylist() == counts["m"].to_pylist() == [300] * 5
    assert result.groups < result.records == 300
    for row in result.rows:
        assert row["train"] + row["test"] == 300  # type: ignore[operator]  # rows are untyped


def test_without_groups_patients_do_cross_and_the_result_says_so(cohort: Cohort) -> None:
    warehouse = cohort(records=300)
    result = split(warehouse, "s", task="ACS", repeats=1, group="none")
    with Catalog(warehouse.relations()) as catalog:
        crossing = catalog.table(
            "select patient_id from splits join records using (record_id) "
            "group by all having count(distinct split) > 1"
        )
        (one,) = reshuffles(catalog, "s")
    assert len(crossing) > 0
    assert (result.group, result.groups) == ("none", 300)
    assert len(one.test) == 60
    assert not set(one.train) & set(one.test)
    assert list(one.train) == sorted(one.train)


def test_a_patient_is_one_in_all_datasets_and_a_missing_id_stands_alone(tmp_path: Path) -> None:
    labels = [0.0, 1.0] * 6
    patients: list[str | None] = ["p1", "p1", *["p2", "p2"], *[None] * 4, *["p1", "p1"], "p3", "p3"]
    datasets = ["x"] * 8 + ["y"] * 4
    warehouse = labelled(tmp_path, labels, patients=patients, datasets=datasets)
    with pytest.raises(NotEnoughDataError, match="5 positive and 2 negative patients") as caught:
        split(warehouse, "s", task="T", test_size=0.1)
    assert caught.value.counts == {"positive": 5, "negative": 2}
    result = split(warehouse, "s", task="T", test_size=0.5, repeats=2)
    assert (result.groups, result.unidentified) == (7, 4)


def test_the_draw_is_the_same_on_any_machine(tmp_path: Path) -> None:
    warehouse = labelled(tmp_path, [float(i % 3 == 0) for i in range(15)])
    split(warehouse, "s", task="T", repeats=2, seed=7)
    with Catalog(warehouse.relations()) as catalog:
        tests = [one.test for one in reshuffles(catalog, "s")]
    assert tests == [("x/006", "x/007", "x/010"), ("x/011", "x/012", "x/013")]


def test_a_second_call_changes_nothing_and_another_split_needs_another_name(
    cohort: Cohort,
) -> None:
    warehouse = cohort()
    assert split(warehouse, "s", task="ACS", dry_run=True).added is False
    with Catalog(warehouse.relations()) as catalog, pytest.raises(UnknownNameError):
        reshuffles(catalog, "s")
    first = split(warehouse, "s", task="ACS")
    assert first.added
    before = warehouse.versions()
    second = split(warehouse, "s", task="ACS")
    assert (second.added, second.rows) == (False, first.rows)
    assert repr(second).endswith("unchanged)")
    with pytest.raises(UsageError, match="exists with other settings"):
        split(warehouse, "s", task="ACS", seed=1)
    with pytest.raises(UsageError, match="exists with other settings"):
        split(warehouse, "s", task="ACS", dry_run=True, repeats=3)
    assert warehouse.versions() == before

    more = {"record_id": ["syn/99999"], "task": ["ACS"], "label": [1.0]}
    warehouse.append("labels", pa.table(more), command="test")
    assert not split(warehouse, "s", task="ACS").added, "a label without a record does not count"
    warehouse.append("records", pa.table({"record_id": ["syn/99999"]}), command="test")
    with pytest.raises(UsageError, match="other records"):
        split(warehouse, "s", task="ACS")


def test_what_cannot_be_split_is_refused_in_one_sentence(tmp_path: Path) -> None:
    warehouse = labelled(tmp_path, [0.0] * 10)
    with pytest.raises(NotEnoughDataError, match="0 positive and 10 negative"):
        split(warehouse, "s", task="T", group="none")
    with pytest.raises(UnknownNameError, match="Known tasks: T"):
        split(warehouse, "s", task="ACS")
    for options in ({"test_size": 0.0}, {"test_size": 1.0}, {"repeats": 0}, {"group": "site"}):
        with pytest.raises(UsageError):
            split(warehouse, "s", task="T", **options)
    with pytest.raises(UsageError, match="cannot be named 'all'"):
        split(warehouse, "all", task="T")
    assert warehouse.versions()["splits"] == 0


def test_one_positive_too_few_for_both_sides(tmp_path: Path) -> None:
    warehouse = labelled(tmp_path, [1.0, 1.0, *[0.0] * 98])
    with pytest.raises(NotEnoughDataError, match="2 positive and 98 negative"):
        split(warehouse, "s", task="T", test_size=0.02)


def test_labels_other_than_0_and_1_are_refused_as_such(tmp_path: Path) -> None:
    warehouse = labelled(tmp_path, [0.0, 1.0, 2.0, 0.5])
    with pytest.raises(UsageError, match=r"not binary: its labels are 0, 0\.5, 1, 2"):
        split(warehouse, "s", task="T", target="binary")
    with pytest.raises(NotEnoughDataError, match="the test part has 1 record"):
        split(warehouse, "s", task="T")


def test_a_split_of_the_first_release_is_found_again(tmp_path: Path) -> None:
    warehouse = labelled(tmp_path, [float(i % 3 == 0) for i in range(15)])
    sides = {repeat: {f"x/{i:03d}" for i in of} for repeat, of in enumerate(_OLD)}
    rows = {
        "split_id": ["s"] * 30,
        "repeat": pa.array([0] * 15 + [1] * 15, pa.int32()),
        "record_id": [f"x/{i:03d}" for i in range(15)] * 2,
        "split": [
            "test" if f"x/{i:03d}" in sides[repeat] else "train"
            for repeat in (0, 1)
            for i in range(15)
        ],
        "task": ["T"] * 30,
        "params": [_OLD_PARAMS] * 30,
    }
    warehouse.append("splits", pa.table(rows), command="test")
    before = warehouse.versions()
    assert not split(warehouse, "s", task="T", repeats=2, seed=7).added
    assert warehouse.versions() == before


_OLD = ((6, 7, 10), (11, 12, 13))
_OLD_PARAMS = (
    '{"method": "stratified shuffle", "task": "T", "repeats": 2, "test_size": 0.2, "seed": 7, '
    '"group": "patient_id", "records": 15, "positives": 5, "groups": 15}'
)


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> Warehouse:
    """Return 120 records of patients who come again: at sites, by devices, in folds, over years."""
    rng = np.random.default_rng(2)
    n = 120
    warehouse = labelled(
        tmp_path_factory.mktemp("known"),
        [float(one) for one in rng.random(n) < 0.4],
        patients=[None if i % 29 == 28 else f"p{i}" for i in rng.integers(0, 80, n)],
        datasets=["x" if i < 70 else "y" for i in range(n)],
    )
    rows = warehouse.table("records").read().to_pylist()
    for i, row in enumerate(rows):
        row["site"] = ("north", "south", "east", None)[i % 4] if i else "alone"
        row["device"] = "cart"
        row["strat_fold"] = 1 + i % 3
        row["recorded_at"] = datetime(2010 + i % 10, 5, 1, tzinfo=UTC) if i % 10 else None
        row["age"] = None if i < 3 else float(20 + i % 60)
    schema = warehouse.table("records").read().schema
    warehouse.replace("records", pa.Table.from_pylist(rows, schema=schema), command="test")
    tasks = {"C": rng.choice(3, n), "D": rng.random(n) < 0.2, "E": rng.random(n) < 0.1}
    time = np.where(rng.random(n) < 0.5, 1, -1) * (rng.random(n) * 100 + 1)
    for task, labels in (tasks | {"S": time}).items():
        more = {"record_id": [row["record_id"] for row in rows], "task": [task] * n}
        told = pa.table({**more, "label": np.asarray(labels, float)})
        warehouse.append("labels", told, command="test")
    return warehouse


def sides_of(warehouse: Warehouse, name: str) -> list[Reshuffle]:
    with Catalog(warehouse.relations()) as catalog:
        return reshuffles(catalog, name)


def column(warehouse: Warehouse, name: str) -> dict[str, Any]:
    rows = warehouse.table("records").read(["record_id", name])
    return dict(zip(rows["record_id"].to_pylist(), rows[name].to_pylist(), strict=True))


def no_patient_crosses(warehouse: Warehouse, sides: list[Reshuffle]) -> bool:
    patient = column(warehouse, "patient_id")
    return not any(
        {patient[i] for i in one.train} & {patient[i] for i in one.test} - {None} for one in sides
    )


def test_folds_test_each_record_once_a_round(known: Warehouse) -> None:
    result = split(known, "folds", task="T", method="kfold", folds=4, repeats=2, inner=2)
    assert (len(result.rows), result.method, result.added) == (8, "kfold", True)
    assert repr(result).startswith("SplitResult('folds', T: 8 repeats of 120 records")
    sides = sides_of(known, "folds")
    for part in (sides[:4], sides[4:]):
        tested = [record for one in part for record in one.test]
        assert sorted(tested) == sorted(column(known, "age"))
    assert no_patient_crosses(known, sides)
    for one in sides:
        inner = sides_of(known, f"folds.inner{one.repeat}")
        assert sorted(record for fold in inner for record in fold.test) == list(one.train)
        assert all({*fold.train, *fold.test} == {*one.train} for fold in inner)
        assert no_patient_crosses(known, inner)
    again = split(known, "folds", task="T", method="kfold", folds=4, repeats=2)
    assert not again.added
    with pytest.raises(UsageError, match=r"'folds.inner0' exists with other settings"):
        split(known, "folds", task="T", method="kfold", folds=4, repeats=2, inner=3)


def test_what_is_known_of_a_record_parts_them(known: Warehouse) -> None:
    site, date = column(known, "site"), column(known, "recorded_at")
    result = split(known, "sites", task="T", method="leave-one-site-out")
    assert [row["tested"] for row in result.rows] == ["site east", "site north", "site south"]
    assert result.notes == ("Site alone is not tested on: the test part has 1 record.",)
    assert result.left_out == {"no site": 30}
    sides = sides_of(known, "sites")
    assert no_patient_crosses(known, sides)
    for one, row in zip(sides, result.rows, strict=True):
        here = str(row["tested"]).removeprefix("site ")
        assert {site[i] for i in one.test} == {here}
        assert here not in {site[i] for i in one.train}
        assert len(one.train) + len(one.test) + int(str(row["left_out"])) == 90
    assert any(row["left_out"] for row in result.rows)

    result = split(known, "later", task="T", method="temporal", before="2016-01-01")
    (one,) = sides_of(known, "later")
    assert max(date[i] for i in one.train) < datetime(2016, 1, 1, tzinfo=UTC)
    assert {i for i in date if date[i] and date[i].year >= 2016} == {*one.test}
    assert no_patient_crosses(known, [one])
    assert result.left_out == {"no date": 12}
    assert result.rows[0]["tested"] == "from 2016-01-01"
    assert any("shifted" in note for note in result.notices)
    loose = split(known, "loose", task="T", method="temporal", before="2016-01-01", group="none")
    assert loose.rows[0]["left_out"] == 0
    assert loose.rows[0]["test"] == result.rows[0]["test"]

    result = split(known, "own", task="T", method="strat_fold")
    assert [row["tested"] for row in result.rows] == ["fold 1", "fold 2", "fold 3"]
    assert len(split(known, "sets", task="T", method="leave-one-dataset-out").rows) == 2


def plain(result: SplitResult) -> list[dict[str, Any]]:
    return [dict(row) for row in result.rows]


def test_labels_of_any_kind_are_stratified_by(known: Warehouse) -> None:
    result = split(known, "ages", task="age", repeats=3)
    assert (result.target, result.positives, result.left_out) == (
        "continuous",
        None,
        {"no label": 3},
    )
    assert all(abs(row["train_mean"] - row["test_mean"]) < 12 for row in plain(result))
    result = split(known, "classes", task="C", repeats=3)
    labels = known.table("labels").read().filter(pc.field("task") == "C")["label"].to_numpy()
    for row in plain(result):
        assert len(row["test_classes"]) == 3
        whole = np.add(row["train_classes"], row["test_classes"])
        assert whole.tolist() == np.bincount(labels.astype(int)).tolist()
    with pytest.raises(UsageError, match="not survival: its labels are"):
        split(known, "times", task="T", target="survival")
    result = split(known, "times", task="S", repeats=1, target="survival")
    assert 0 < plain(result)[0]["test_events"] < plain(result)[0]["test"]


def test_several_tasks_share_a_split(known: Warehouse) -> None:
    result = split(known, "several", task=["T", "E", "D"], repeats=3)
    assert (result.task, result.tasks) == ("D,E,T", ("D", "E", "T"))
    assert split(known, "family", task="[DE]", repeats=1).task == "[DE]"
    for row in plain(result):
        whole = np.add(row["train_positive"], row["test_positive"])
        # the test part is a fifth of the patients, who count as positive by any record
        assert np.abs(np.array(row["test_positive"]) - 0.2 * whole).max() <= 5
    (stored, *_) = sides_of(known, "several")
    assert stored.task == "D,E,T"
    rows = known.table("splits").read().filter(pc.field("split_id") == "several")
    assert json.loads(rows["params"][0].as_py())["tasks"] == ["D", "E", "T"]
    with pytest.raises(UsageError, match="Task 'S' is not binary"):
        split(known, "mixed", task=["T", "S"])


def test_a_method_that_cannot_part_them_says_why(known: Warehouse, tmp_path: Path) -> None:
    why: dict[str, dict[str, Any]] = {
        "The labelled records are all of device cart": {"method": "leave-one-device-out"},
        "the test part has 0 records": {"method": "temporal", "before": "2030-01-01"},
        "needs the date": {"method": "temporal"},
        "'soon' is not a date": {"method": "temporal", "before": "soon"},
        "A date is of no use": {"before": "2016-01-01"},
        "nothing can be repeated": {"method": "strat_fold", "repeats": 2},
        "folds is 1; at least 2": {"method": "kfold", "folds": 1},
        "inner is 1; at least 2": {"inner": 1},
        "Unknown method 'leave'": {"method": "leave"},
        "The seed is -1": {"seed": -1},
        "Task 'T' cannot be split": {"method": "kfold", "folds": 90},
    }
    before = known.versions()
    for sentence, options in why.items():
        with pytest.raises((UsageError, NotEnoughDataError), match=re.escape(sentence)):
            split(known, "never", task="T", **options)
    assert known.versions() == before
    bare = labelled(tmp_path, [0.0, 1.0] * 6)
    with pytest.raises(NotEnoughDataError, match=r"No record of the cohort has a date"):
        split(bare, "s", task="T", method="temporal", before="2016-01-01")
    with pytest.raises(NotEnoughDataError, match=r"The labelled records have no site"):
        split(bare, "s", task="T", method="leave-one-site-out")
