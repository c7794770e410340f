"""The demo: the whole job on a small synthetic cohort, and a second time for nothing."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from ecgstore.demo import DemoResult, demo
from ecgstore.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable

SNAPSHOTS = Path(__file__).resolve().parent / "snapshots"


RECORDS = 60


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("demo")


@pytest.fixture(scope="module")
def done(home: Path) -> DemoResult:
    return demo(home, records=RECORDS)


def test_every_feature_set_is_scored_on_every_reshuffle(done: DemoResult) -> None:
    scored = [(row["features"], row["classifier"], row["n_repeats"]) for row in done.rows]
    assert scored == [
        ("stmem.mini", "xgboost", 10),
        ("ecgfm.mini", "xgboost", 10),
        ("fusion", "xgboost", 10),
        ("signal", "resnet50", 10),
    ]
    assert all(0 <= float(str(row["auroc_mean"])) <= 1 for row in done.rows)


def test_it_says_what_its_scores_are_worth(done: DemoResult) -> None:
    said = " ".join(done.notices)
    assert "synthetic" in said
    assert "not for clinical use" in said
    assert "60 synthetic ECGs" in repr(done)


def test_the_warehouse_holds_the_cohort_and_says_that_it_is_synthetic(
    home: Path, done: DemoResult
) -> None:
    with (home / "ecgs" / "labels.csv").open(encoding="utf-8") as file:
        truth = {row["record_id"]: row for row in csv.DictReader(file)}
    query = """
        select record_id, dataset, patient_id, age, sex, label
        from records join labels using (record_id)
    """
    with Store(done.warehouse) as store:
        rows = store.sql(query).fetchall()
    assert len(rows) == len(truth) == RECORDS
    for record_id, dataset, patient, age, sex, label in rows:
        row = truth[record_id]
        assert dataset == "synthetic"
        assert (patient, sex) == (row["patient_id"], row["sex"])
        assert (age, label) == (float(row["age"]), float(row["ACS"]))


def test_the_report_is_one_page_about_it(done: DemoResult) -> None:
    page = done.report.read_text(encoding="utf-8")
    assert "Synthetic ECGs" in page
    assert "fusion" in page
    assert str(done.warehouse.parent) not in page


def test_a_second_call_finds_everything_done(home: Path, done: DemoResult) -> None:
    with Store(done.warehouse) as store:
        before = store.warehouse.versions()
    page = done.report.read_bytes()
    again = demo(home, records=RECORDS)
    with Store(done.warehouse) as store:
        assert store.warehouse.versions() == before
    assert [{**row, "added": 10} for row in again.rows] == done.rows
    assert all(row["added"] == 0 for row in again.rows)
    assert again.report.read_bytes() == page


# What learned numbers decide (scores, neighbours, fusion) is held by hand-made tables in
# test_catalog.py: the last digits of a network differ from one processor to the next.
@pytest.mark.parametrize(
    "query",
    [
        "cohort_summary",
        "label_prevalence",
        "lead_amplitudes",
        "missing_leads",
        "quality_flags",
        "rejects_by_reason",
        "repeat_patients",
        "split_check",
        "tasks",
    ],
)
def test_a_named_query_answers_as_before(
    done: DemoResult,
    run: Callable[..., Any],
    snapshot: Callable[[Path, str], None],
    query: str,
) -> None:
    parameter = ("-p", "task=ACS") if query == "label_prevalence" else ()
    answer = run("-w", done.warehouse, "sql", "-n", query, *parameter, "--format", "csv")
    assert answer.code == 0, answer.err
    snapshot(SNAPSHOTS / f"{query}.csv", answer.out)
