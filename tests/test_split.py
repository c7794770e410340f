"""Reshuffles are disjoint, stratified, repeatable, and keep patients whole."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from ecgstore.catalog import Catalog
from ecgstore.errors import NotEnoughDataError, UnknownNameError, UsageError
from ecgstore.split import draw, reshuffles, split
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


def test_labels_other_than_0_and_1_are_refused(tmp_path: Path) -> None:
    warehouse = labelled(tmp_path, [0.0, 1.0, 2.0, 0.5])
    with pytest.raises(UsageError, match=r"not binary: its labels are 0, 0\.5, 1, 2"):
        split(warehouse, "s", task="T")
