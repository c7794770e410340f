"""Tables, views and macros answer what can be worked out by hand, in any DuckDB client."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np
import pytest

from ecgstore.catalog import Catalog, init_script, quote
from ecgstore.errors import QueryError
from ecgstore.schema import TABLES
from tests.sql.by_hand import Relations, tables

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa


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


def test_the_init_script_gives_a_bare_client_the_same_tables(
    catalog: Catalog, relations: Relations, bare: duckdb.DuckDBPyConnection
) -> None:
    bare.execute(init_script(relations))  # a second time is harmless
    assert bare.sql("select count(*) from embedding('stmem')").fetchall() == [(4,)]
    assert not bare.sql("from duckdb_tables()").fetchall()  # views only: nothing is copied
    listed = "select view_name from duckdb_views() where not internal order by all"
    assert bare.sql(listed).fetchall() == catalog.sql(listed).fetchall()
