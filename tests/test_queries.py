"""Macros and named queries answer what can be worked out by hand, in any DuckDB client."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pytest

from ecgstore.catalog import Catalog, init_script, queries, quote
from ecgstore.errors import QueryError, UnknownNameError
from ecgstore.record import COLUMNS, LEADS
from ecgstore.schema import TABLES
from ecgstore.storage.shards import write_shards

START = datetime(2020, 1, 1, 8)  # UTC, as the views give it
VECTORS = {
    "ecgfm": {"a/1": [0, 5], "a/2": [2, 5], "a/3": [4, 5], "b/1": [8, 7]},
    "stmem": {"a/1": [1, 0, 0], "a/2": [1, 1, 0], "a/3": [0, 1, 0], "b/1": [0, 0, 2]},
}

HEADS: list[tuple[str, str, str, float, tuple[str, ...]]] = [
    ("founder", "v1", "ATRIAL FIBRILLATION", 0.75, ("a/1", "b/1")),
    ("founder", "v1", "ATRIAL FIBRILLATION", 0.25, ("a/2", "gone/1")),
    ("founder", "v1", "SINUS RHYTHM", 0.5, ("a/1", "a/2", "b/1")),
    ("twice", "v1", "AF", 0.5, ("a/1",)),
    ("twice", "v2", "AF", 1.0, ("a/1", "a/2")),
]

RHYTHM: list[tuple[str, str, str, tuple[int, ...]]] = [
    ("a/1", "v1", "II", (5, 7, 7, 7, 5)),
    ("a/1", "v1", "V1", (7, 7)),
    ("b/1", "v1", "II", (5, 7, 5)),
    ("b/1", "v2", "II", (1,)),
    ("gone/1", "v1", "II", (5, 7, 7)),
]


def member(model: str) -> dict[str, str]:
    return {"model": model, "version": "v1", "pooling": "mean"}


def tables() -> dict[str, list[dict[str, Any]]]:
    """Return a warehouse of four records whose every figure can be checked by hand."""
    ids = ["a/1", "a/2", "a/3", "b/1"]
    records: list[dict[str, Any]] = [
        {
            "record_id": record_id,
            "patient_id": patient,
            "dataset": record_id[0],
            "recorded_at": START + timedelta(days=10 * i),
            "rate_hz": 500.0,
            "n_samples": 5000,
            "leads": list(LEADS[: 11 if record_id == "a/3" else 12]),
            "age": age,
            "sex": sex,
            "quality": ["quantised"] if record_id == "b/1" else [],
        }
        for i, (record_id, patient, age, sex) in enumerate(
            zip(ids, ["p1", "p1", "p2", "p3"], [61, 69, 71, 35], SEXES, strict=True)
        )
    ]
    truth = {"MI": dict(zip(ids, [1, 0, 1, 0], strict=True)), "NORM": {"b/1": 1}}
    truth["MI"]["gone/1"] = 1  # a label without a record, as a killed ingest leaves it
    waves = [
        {
            "record_id": record_id,
            "gain": [100.0] * 11 + [200.0],
            "baseline": [50] * 12,
            **{c: [0, 100 * (n + 1), -32768] for c in COLUMNS[: len(records[n]["leads"])]},
        }
        for n, record_id in enumerate(ids)
    ]
    predictions = [
        {
            "run_id": run,
            "repeat": 0,
            "record_id": record_id,
            "split": "test",
            "score": score,
            "label": 1.0,
        }
        for run, scores in {"r1": [0.9, 0.2, 0.8, 0.1], "r2": [0.7, 0.6, 0.9, 0.4]}.items()
        for record_id, score in zip(ids, scores, strict=True)
    ]
    scores = [
        {
            "run_id": run,
            "repeat": repeat,
            "metric": metric,
            "at": START + timedelta(hours=int(run[1])),
            "features": features,
            "task": "MI",
            "split_id": "s",
            "classifier": "xgboost",
            "value": value + 0.1 * repeat,
        }
        for run, features, auroc, aucpr in [("r1", "ecgfm", 0.7, 0.4), ("r2", "fusion", 0.8, 0.5)]
        for metric, value in [("AUROC", auroc), ("AUCPR", aucpr)]
        for repeat in range(2)
    ]
    return {
        "records": records,
        "waveforms": waves,
        "labels": [
            {"record_id": record_id, "task": task, "label": float(label)}
            for task, labels in truth.items()
            for record_id, label in labels.items()
        ],
        "embeddings": [
            {"record_id": record_id, **member(model), "dim": len(vector), "embedding": vector}
            for model, vectors in VECTORS.items()
            for record_id, vector in vectors.items()
        ],
        "head_outputs": [
            {"record_id": i, "model": m, "version": v, "label": label, "probability": p}
            for m, v, label, p, ids in HEADS
            for i in ids
        ],
        "codes": [
            {"record_id": i, "model": "any", "version": v, "lead": lead, "second": s, "code": code}
            for i, v, lead, codes in RHYTHM
            for s, code in enumerate(codes)
        ],
        "pretraining": [{"model": "ecgfm", "dataset": "PhysioNet 2021", "source": "its paper"}],
        "models": [{**member("ecgfm"), "precision": "fp32", "source": "untrained"}],
        "splits": [
            {
                "split_id": "s",
                "repeat": 0,
                "record_id": record_id,
                "split": "test" if record_id == "b/1" else "train",
            }
            for record_id in ids
        ],
        "norm_stats": [
            {"split_id": "s", "repeat": 0, **member("ecgfm"), "mn": [0, 5], "mx": [4, 5]},
            {"split_id": "s", "repeat": 0, **member("stmem"), "mn": [0, 0, 0], "mx": [1, 1, 0]},
        ],
        "predictions": predictions,
        "scores": scores,
        "trainings": [
            {
                "run_id": run,
                "kind": kind,
                "method": "stmem",
                "size": "mini",
                "datasets": ["a", "b"],
                "records": 4,
                "steps": 4,
                "seconds": 1.5,
                "at": START + timedelta(hours=i),
                "state": "done",
                "weights_sha256": "f00d",
            }
            for i, (run, kind) in enumerate([("aa1", "pretrain"), ("aa2", "distil")])
        ],
        "losses": [
            {"run_id": "aa1", "step": i, "name": name, "value": value, "learning_rate": i / 8}
            for name, values in {"loss": (8, 4, 3, 1), "penalty": (2, 2, 1, 1)}.items()
            for i, value in enumerate(values, start=1)
        ],
        "rejects": [
            {"source_uri": f"{i}.hea", "reason": reason, "reader": "wfdb", "at": START}
            for i, reason in enumerate(["truncated", "checksum", "truncated"])
        ],
    }


Relations = dict[str, tuple[list[Path], pa.Schema]]


SEXES = ("male", "male", "female", "female")


@pytest.fixture(scope="module")
def relations(tmp_path_factory: pytest.TempPathFactory) -> Relations:
    root = tmp_path_factory.mktemp("catalog's")  # a quote in the path, to be escaped
    found: Relations = {name: ([], schema.arrow) for name, schema in TABLES.items()}
    for name, rows in tables().items():
        (root / name).mkdir()
        half = max(1, len(rows) // 2)
        for part in (rows[:half], rows[half:]):
            table = pa.Table.from_pylist(part, schema=TABLES[name].arrow)
            shards = write_shards(root / name, TABLES[name], table)
            found[name][0].extend(shard.path for shard in shards)
    return found


@pytest.fixture(scope="module")
def catalog(relations: Relations) -> Any:
    with Catalog(relations) as opened:
        yield opened


@pytest.fixture(scope="module")
def empty() -> Any:
    with Catalog({}) as opened:
        yield opened


@pytest.fixture(scope="module")
def bare(relations: Relations) -> Any:
    with duckdb.connect() as connection:
        connection.execute(init_script(relations))
        yield connection


def types_of(schema: pa.Schema) -> dict[str, str]:
    return {field.name: re.sub(r"<\w+: ", "<", str(field.type)) for field in schema}


def test_an_empty_table_has_the_types_of_a_filled_one(catalog: Catalog, empty: Catalog) -> None:
    for name in TABLES:
        text = f"from {quote(name)}"
        nothing, filled = empty.table(text), catalog.table(text)
        assert types_of(nothing.schema) == types_of(filled.schema)
        assert nothing.column_names == TABLES[name].arrow.names
        assert nothing.num_rows == 0


def test_a_view_holds_every_shard_of_its_table(catalog: Catalog) -> None:
    for name, rows in tables().items():
        assert catalog.sql(f"select count(*) from {name}").fetchall() == [(len(rows),)]


# --- macros


def test_minmax01_equals_numpy_bit_for_bit(catalog: Catalog) -> None:
    rng = np.random.default_rng(3)
    x, lo = rng.normal(size=(2, 50)).astype(np.float32)
    hi = lo + rng.uniform(-0.5, 1, size=50).astype(np.float32)
    text = "select minmax01($x::float[], $lo::float[], $hi::float[])"
    ((scaled,),) = catalog.sql(
        text, {"x": x.tolist(), "lo": lo.tolist(), "hi": hi.tolist()}
    ).fetchall()
    span = np.where(hi > lo, hi - lo, np.float32(1))
    np.testing.assert_array_equal(np.float32(scaled), np.where(hi > lo, (x - lo) / span, 0))


def test_cosine(catalog: Catalog) -> None:
    text = "select cosine([3, 4]::float[], [4, 3]::float[]), cosine([1, 0, 0], [-2, 0, 0])"
    ((one, other),) = catalog.sql(text).fetchall()
    assert one == pytest.approx(0.96)
    assert other == -1


def test_millivolts_leave_lost_samples_out(catalog: Catalog) -> None:
    text = "select mv(v6, gain[12], baseline[12]) from waveforms where record_id = 'a/2'"
    assert catalog.sql(text).fetchall() == [([-0.25, 0.75, None],)]
    text = "select record_id, list_max(mv) from lead_mv('V6') order by record_id"
    assert catalog.sql(text).fetchall() == [
        ("a/1", 0.25),
        ("a/2", 0.75),
        ("a/3", None),
        ("b/1", 1.75),
    ]
    assert catalog.sql("select mv([32767]::smallint[], 1, -32768)").fetchall() == [([65535.0],)]
    assert catalog.sql("select lead_index('aVR'), lead_index('x')").fetchall() == [(4, None)]


def test_embedding_and_scaled(catalog: Catalog) -> None:
    text = "select record_id, embedding from embedding('ecgfm') order by record_id limit 1"
    assert catalog.sql(text).fetchall() == [("a/1", [0.0, 5.0])]
    text = "from scaled('ecgfm', 'v1', 'mean', 's', 0) order by record_id"
    assert catalog.sql(text).fetchall() == [
        ("a/1", "train", [0.0, 0.0]),
        ("a/2", "train", [0.5, 0.0]),
        ("a/3", "train", [1.0, 0.0]),
        ("b/1", "test", [2.0, 0.0]),  # outside 0..1, and a dimension without spread
    ]


def test_the_probability_of_a_label_is_plain_sql(catalog: Catalog) -> None:
    text = "select record_id from records where p('Founder', 'Atrial Fibrillation') > 0.5"
    assert catalog.sql(f"{text} order by all").fetchall() == [("a/1",), ("b/1",)]
    text = """
        select record_id, p('founder@v1', 'ATRIAL FIBRILLATION'), p('founder', 'sinus rhythm')
        from records join labels using (record_id) where task = 'MI' order by all
    """
    assert catalog.sql(text).fetchall() == [
        ("a/1", 0.75, 0.5),
        ("a/2", 0.25, 0.5),
        ("a/3", None, None),
        ("b/1", 0.75, 0.5),
    ]
    text = "select p from probabilities where record_id = 'a/2' order by model"
    assert catalog.sql(text).fetchall() == [
        ({"ATRIAL FIBRILLATION": 0.25, "SINUS RHYTHM": 0.5},),
        ({"AF": 1.0},),
    ]
    assert catalog.sql("select 1 from probabilities where record_id = 'gone/1'").fetchall() == []


def test_a_probability_that_is_not_told_apart_or_not_there_is_an_error(
    catalog: Catalog, empty: Catalog
) -> None:
    one = "select count(p('twice@v2', 'AF')) from records"
    assert catalog.sql(one).fetchall() == [(2,)]
    with pytest.raises(QueryError, match="'twice' stands for several: twice@v1, twice@v2; name"):
        catalog.table("select count(p('twice', 'AF')) from records")
    for model, label in [("founder", "AF"), ("finder", "SINUS RHYTHM"), ("twice@v3", "AF")]:
        with pytest.raises(QueryError, match=f"No probability of '{label}' by '{model}' is stored"):
            catalog.table(f"select count(p('{model}', '{label}')) from records")
    with pytest.raises(QueryError, match="No probability of 'AF' by 'm' is stored"):
        empty.table("select p('m', 'AF') from (select 'a/1' as record_id)")


def test_rhythm_codes_are_lists_to_search(catalog: Catalog) -> None:
    text = "select codes from rhythm() where record_id = 'a/1' order by lead"
    assert catalog.sql(text).fetchall() == [([5, 7, 7, 7, 5],), ([7, 7],)]
    text = "select distinct record_id from rhythm() where len(code_places(codes, [5, 7])) > 0"
    assert catalog.sql(f"{text} order by all").fetchall() == [("a/1",), ("b/1",)]
    text = "select code_ngrams([1, 2, 3], 2), code_ngrams([1], 2), code_places([1], [1, 2])"
    assert catalog.sql(text).fetchall() == [([[1, 2], [2, 3]], [], [])]
    assert catalog.query("code_sequence", {"sequence": "5,7,9"}).fetchall() == []
    with pytest.raises(QueryError, match="Conversion Error"):
        catalog.query("code_sequence", {"sequence": "five"}).fetchall()


def test_a_pivot_is_one_statement(catalog: Catalog) -> None:
    text = "pivot head_outputs on label using max(probability) group by model"
    wide = catalog.sql(f"{text} order by model")
    assert wide.columns == ["model", "AF", "ATRIAL FIBRILLATION", "SINUS RHYTHM"]
    assert wide.fetchall() == [("founder", None, 0.75, 0.5), ("twice", 1.0, None, None)]
    for two in (f"select 1; {text}", f"{text}; select 1", "create type e as enum ('a'); select 1"):
        with pytest.raises(QueryError, match="Expected one SQL statement, found 2"):
            catalog.sql(two)


# --- named queries

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


SQL_FILES = sorted((Path(__file__).resolve().parent.parent / "sql").rglob("*.sql"))
KEYWORDS = re.compile(r"\b(SELECT|FROM|WHERE|JOIN|GROUP|ORDER|BY|WITH|AND|CASE|WHEN|CREATE|AS)\b")


@pytest.mark.parametrize("path", SQL_FILES, ids=lambda path: path.stem)
def test_sql_files_keep_the_house_style(path: Path) -> None:
    text = path.read_text()
    code = "\n".join(line for line in text.splitlines() if not line.startswith("--"))
    assert text.startswith("-- ")
    assert not KEYWORDS.search(code)
    assert "select *" not in code
    assert max(map(len, text.splitlines())) <= 100
    if path.parent.name == "views":
        assert f"create or replace view {path.stem} as" in code


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


# --- other clients


def test_the_init_script_gives_a_bare_client_the_same_tables(
    catalog: Catalog, relations: Relations, bare: duckdb.DuckDBPyConnection
) -> None:
    bare.execute(init_script(relations))  # a second time is harmless
    assert bare.sql("select count(*) from embedding('stmem')").fetchall() == [(4,)]
    assert not bare.sql("from duckdb_tables()").fetchall()  # views only: nothing is copied
    listed = "select view_name from duckdb_views() where not internal order by all"
    assert bare.sql(listed).fetchall() == catalog.sql(listed).fetchall()
