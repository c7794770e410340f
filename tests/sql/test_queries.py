"""Named queries answer what can be worked out by hand, in any DuckDB client."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from ecgstore.catalog import Catalog, queries
from ecgstore.errors import QueryError, UnknownNameError
from ecgstore.record import COLUMNS, LEADS
from tests.sql.by_hand import START

if TYPE_CHECKING:
    import duckdb

_R1, _R2 = START + timedelta(hours=1), START + timedelta(hours=2)
_HALF = pytest.approx(0.05 * 2**0.5)  # sample standard deviation of two values 0.1 apart
_SWINGS = [1.0, 2.0, 3.0, 4.0]

EXPECTED: dict[str, tuple[dict[str, str], list[tuple[Any, ...]]]] = {
    "code_histogram": (
        {"model": "any@v1"},
        [("any", "v1", 7, 6, 0.6, 2), ("any", "v1", 5, 4, 0.4, 2)],
    ),
    "code_ngrams": (
        {"model": "ANY", "lead": "ii", "n": "3"},
        [
            ("any", "v1", [5, 7, 5], 1, 0.25, 1),
            ("any", "v1", [5, 7, 7], 1, 0.25, 1),
            ("any", "v1", [7, 7, 5], 1, 0.25, 1),
            ("any", "v1", [7, 7, 7], 1, 0.25, 1),
        ],
    ),
    "code_sequence": (
        {"sequence": "7, 7"},
        [("a/1", "any", "v1", "II", 2, [1, 2]), ("a/1", "any", "v1", "V1", 1, [0])],
    ),
    "cohort_summary": (
        {},
        [
            (
                *("a", 3, 2, 67.0, pytest.approx(28**0.5), pytest.approx(1 / 3), 500.0, 10.0),
                *(START, START + timedelta(days=20)),
            ),
            ("b", 1, 1, 35.0, None, 1.0, 500.0, 10.0, *[START + timedelta(days=30)] * 2),
        ],
    ),
    "embedding_coverage": (
        {},
        [
            ("ecgfm", "v1", "mean", 2, 4, 4, 1.0, "fp32", "untrained"),
            ("stmem", "v1", "mean", 3, 4, 4, 1.0, None, None),
        ],
    ),
    "fuse": (
        {"model_a": "ecgfm", "model_b": "stmem", "split_id": "s", "repeat": "0"},
        [
            ("a/1", "train", [0.0, 0.0, 1.0, 0.0, 0.0]),
            ("a/2", "train", [0.5, 0.0, 1.0, 1.0, 0.0]),
            ("a/3", "train", [1.0, 0.0, 0.0, 1.0, 0.0]),
            ("b/1", "test", [2.0, 0.0, 0.0, 0.0, 0.0]),
        ],
    ),
    "head_pivot": (
        {"model": "founder"},
        [
            ("a/1", "founder", "v1", 0.75, 0.5),
            ("a/2", "founder", "v1", 0.25, 0.5),
            ("b/1", "founder", "v1", 0.75, 0.5),
        ],
    ),
    "label_prevalence": (
        {"task": "MI"},
        [("female", 30, 1, 0, 0.0), ("female", 70, 1, 1, 1.0), ("male", 60, 2, 1, 0.5)],
    ),
    "lead_amplitudes": (
        {},
        [(lead, 4, pytest.approx(1.03), 2.5, pytest.approx(3.97), 0, 4) for lead in COLUMNS[:11]]
        + [("v6", 3, pytest.approx(0.51), 1.0, pytest.approx(1.98), 0, 3)],
    ),
    "missing_leads": (
        {},
        [
            *[
                ("a", lead, 3, int(lead == "V6"), pytest.approx((lead == "V6") / 3))
                for lead in LEADS
            ],
            *[("b", lead, 1, 0, 0.0) for lead in LEADS],
        ],
    ),
    "nearest_neighbours": (
        {"record_id": "a/1", "model": "stmem", "k": "2"},
        [
            ("a/2", pytest.approx(0.5**0.5), "stmem", "v1", "mean", "a", 69.0, "male"),
            ("a/3", 0.0, "stmem", "v1", "mean", "a", 71.0, "female"),
        ],
    ),
    "norm_stats": (
        {"model": "stmem"},
        [("s", 0, "stmem", "v1", "mean", [0.0, 0.0, 0.0], [1.0, 1.0, 0.0], 3)],
    ),
    "prediction_agreement": (
        {"run_a": "r1", "run_b": "r2"},
        [
            ("r1", "r2", 0, 4, pytest.approx(0.8237, abs=1e-4), 0.75, pytest.approx(0.5)),
        ],
    ),
    "quality_flags": ({}, [("b", "quantised", 1)]),
    "rejects_by_reason": (
        {},
        [("truncated", "wfdb", 2, START, "0.hea"), ("checksum", "wfdb", 1, START, "1.hea")],
    ),
    "repeat_patients": (
        {},
        [("a", "p1", 2, START, START + timedelta(days=10), 10, ["a/1", "a/2"])],
    ),
    "scores": (
        {"task": "MI"},
        [
            ("MI", "s", "fusion", "xgboost", 2, 0.85, _HALF, 0.55, _HALF, "r2", _R2),
            ("MI", "s", "ecgfm", "xgboost", 2, 0.75, _HALF, 0.45, _HALF, "r1", _R1),
        ],
    ),
    "split_check": (
        {"split_id": "s"},
        [
            ("s", "patient", 0, 0, 3, None),
            ("s", "same signal", None, None, 0, "4 records have no digest of their signal"),
            ("s", "duplicate", None, None, 0, "4 records not assessed: ecgstore quality"),
            ("s", "near duplicate", None, None, 0, "4 records not assessed: ecgstore quality"),
            ("s", "record twice", 0, 0, 4, None),
            (
                *("s", "scaling fitted on test records", None, None, 2),
                "2 statistics do not tell their records",
            ),
            ("s", "features scaled on all records", 0, 0, 2, None),
            ("s", "inner fold outside its training part", 0, 0, 0, None),
        ],
    ),
    "tasks": ({}, [("MI", 4, 2, 0.5), ("NORM", 1, 1, 1.0)]),
    "training_losses": (
        {"run": "aa1", "every": "2"},
        [
            ("aa1", 2, "loss", 6.0, 0.25),
            ("aa1", 2, "penalty", 2.0, 0.25),
            ("aa1", 4, "loss", 2.0, 0.5),
            ("aa1", 4, "penalty", 1.0, 0.5),
        ],
    ),
    "trainings": (
        {"kind": "pretrain"},
        [
            (
                *("aa1", "pretrain", "stmem", "mini", "a, b", 4, 4, 4, 8.0, 1.0),
                *("done", 1.5, START, "f00d"),
            )
        ],
    ),
}


def test_every_query_is_tested() -> None:
    assert set(EXPECTED) == set(queries())
    assert len(EXPECTED) >= 8


@pytest.mark.parametrize("name", sorted(queries()))
def test_a_query_runs_on_an_empty_warehouse(empty: Catalog, name: str) -> None:
    assert empty.query(name).fetchall() == []


@pytest.mark.parametrize("name", sorted(queries()))
def test_a_query_answers(catalog: Catalog, name: str) -> None:
    parameters, rows = EXPECTED[name]
    assert catalog.query(name, parameters).fetchall() == [
        tuple(pytest.approx(v) if isinstance(v, float) else v for v in row) for row in rows
    ]


@pytest.mark.parametrize("name", sorted(queries()))
def test_a_query_answers_the_same_in_a_bare_duckdb(
    catalog: Catalog, bare: duckdb.DuckDBPyConnection, name: str
) -> None:
    parameters, _ = EXPECTED[name]
    for parameter in queries()[name].parameters:
        bare.execute(f"reset variable {parameter}")
    for parameter, value in parameters.items():
        typed = int(value) if value.isdigit() else value  # as one would write it by hand
        bare.execute(f"set variable {parameter} = ?", [typed])
    rows = bare.sql(queries()[name].text).fetchall()
    assert rows == [
        tuple(pytest.approx(v) if isinstance(v, float) else v for v in row)  # sums in any order
        for row in catalog.query(name, parameters).fetchall()
    ]


def test_parameters_do_not_outlive_their_call(catalog: Catalog) -> None:
    two = catalog.query("nearest_neighbours", {"k": "2", "model": "stmem"})
    all_of_them = catalog.query("nearest_neighbours")
    assert len(two.fetchall()) == 2
    assert [row[:1] for row in all_of_them.fetchall()] == [("a/2",), ("a/3",), ("b/1",)]
    assert len(catalog.query("tasks", {"min_positive": "2"}).fetchall()) == 1
    assert len(catalog.query("tasks").fetchall()) == 2


def test_unknown_queries_parameters_and_values_are_refused(catalog: Catalog) -> None:
    with pytest.raises(UnknownNameError, match="Unknown query 'nearest'"):
        catalog.query("nearest")
    with pytest.raises(UnknownNameError, match="Unknown parameter 'tsk'") as caught:
        catalog.query("label_prevalence", {"tsk": "MI"})
    assert caught.value.near == ("task",)
    with pytest.raises(QueryError, match="Conversion Error"):
        catalog.query("nearest_neighbours", {"k": "many"})
    hostile = "MI'; drop view records; --"
    assert catalog.query("label_prevalence", {"task": hostile}).fetchall() == []
    assert catalog.sql("select count(*) from records").fetchone() == (4,)


@pytest.mark.parametrize("name", sorted(queries()))
def test_a_query_documents_exactly_what_it_takes(name: str) -> None:
    query = queries()[name]
    assert query.summary.endswith(".")
    assert "order by" in query.text.rsplit("\nselect", 1)[1]
    used = set(re.findall(r"getvariable\('(\w+)'\)", query.text))
    assert used == set(query.parameters)
    for parameter, declared in query.parameters.items():
        fallback = rf"getvariable\('{parameter}'\)(?:::\w+, ([\d.]+)|, '([^']*)')\)"
        fallbacks = {number or text for number, text in re.findall(fallback, query.text)}
        assert fallbacks == {declared.default}
        assert declared.meaning
