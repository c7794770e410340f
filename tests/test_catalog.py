"""Views over the shards of a warehouse: what they show, what is refused, what memory they take."""

from __future__ import annotations

import tempfile
from datetime import datetime
from itertools import permutations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ecgstore import settings
from ecgstore.catalog import Catalog, quote
from ecgstore.errors import QueryError, UsageError, WarehouseError
from ecgstore.schema import TABLES
from ecgstore.storage.shards import write_shards

if TYPE_CHECKING:
    from collections.abc import Iterator

START = datetime(2020, 1, 1, 8)  # UTC, as the views give it
Relations = dict[str, tuple[list[Path], pa.Schema]]


@pytest.fixture(scope="module")
def relations(tmp_path_factory: pytest.TempPathFactory) -> Relations:
    """Return three records and their labels, in two shards a table."""
    root = tmp_path_factory.mktemp("catalog")
    ids, sexes = ["a/1", "a/2", "b/1"], ["male", "female", "female"]
    rows: dict[str, list[dict[str, Any]]] = {
        "records": [
            {"record_id": one, "age": 30.0 + 10 * i, "sex": sexes[i], "recorded_at": START}
            for i, one in enumerate(ids)
        ],
        "labels": [{"record_id": one, "task": "MI", "label": 1.0} for one in ids],
        "waveforms": [{"record_id": one, "i": [1, 200, -32768]} for one in ids],
    }
    found: Relations = {}
    for name, table in rows.items():
        (root / name).mkdir()
        schema = TABLES[name]
        shards = [
            shard
            for part in (table[:2], table[2:])
            for shard in write_shards(
                root / name, schema, pa.Table.from_pylist(part, schema=schema.arrow)
            )
        ]
        found[name] = [shard.path for shard in shards], schema.arrow
    return found


@pytest.fixture(scope="module")
def catalog(relations: Relations) -> Iterator[Catalog]:
    with Catalog(relations) as opened:
        yield opened


def labels(path: Path, **columns: list[Any]) -> Path:
    """Write a shard of labels as another layout had it."""
    pq.write_table(pa.table(columns), path)
    return path


# --- views


def test_times_are_utc_whatever_the_session(relations: Relations) -> None:
    text = "select recorded_at, hour(recorded_at) from records where record_id = 'a/1'"
    with Catalog(relations) as catalog:
        catalog.sql("set TimeZone = 'America/New_York'")
        assert catalog.sql(text).fetchall() == [(START, 8)]


def test_a_column_that_no_shard_has_reads_as_null(relations: Relations) -> None:
    files, schema = relations["labels"]
    wider = schema.append(pa.field("annotator", pa.list_(pa.string())))
    with Catalog({"labels": (files, wider)}) as catalog:
        rows = catalog.table("select annotator from labels")
        assert rows["annotator"].null_count == rows.num_rows == 3
        assert catalog.sql("from labels").columns[-1] == "annotator"


def test_a_column_that_came_later_is_found_in_whatever_order(tmp_path: Path) -> None:
    schema = TABLES["labels"].arrow.append(pa.field("signed", pa.timestamp("us", tz="UTC")))
    signed = pa.array([START], pa.timestamp("us", tz="UTC"))
    shards = [
        labels(tmp_path / "1.parquet", record_id=["x"], task=["T"], label=[1.0]),
        labels(tmp_path / "2.parquet", signed=signed, record_id=["y"], task=["T"]),
        labels(tmp_path / "3.parquet", task=["T"], gone=["no column of ours"], record_id=["z"]),
    ]
    for order in permutations(shards):
        with Catalog({"labels": (list(order), schema)}) as catalog:
            text = "select record_id, label, signed from labels order by record_id"
            wanted = [("x", 1.0, None), ("y", None, START), ("z", None, None)]
            assert catalog.sql(text).fetchall() == wanted
            assert catalog.sql("from labels").columns == schema.names


def test_a_missing_shard_is_a_warehouse_error(tmp_path: Path) -> None:
    with pytest.raises(WarehouseError, match="could not be opened") as caught:
        Catalog({"labels": ([tmp_path / "gone.parquet"], TABLES["labels"].arrow)})
    assert "\n" not in caught.value.message


def test_a_shard_that_is_no_parquet_is_a_query_error(tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.parquet"
    damaged.write_bytes(b"PAR1 no")
    with Catalog({"labels": ([damaged], TABLES["labels"].arrow)}) as catalog:
        with pytest.raises(QueryError, match=r"damaged\.parquet"):
            catalog.table("from labels")
        assert catalog.table("from records").num_rows == 0


def test_a_catalog_keeps_the_version_it_was_opened_with(relations: Relations) -> None:
    files, schema = relations["labels"]
    with (
        Catalog({"labels": (files[:1], schema)}) as early,
        Catalog({"labels": (files, schema)}) as now,
    ):
        count = "select count(*) from labels"
        assert early.sql(count).fetchone() == (2,)
        assert now.sql(count).fetchone() == (3,)


# --- ad-hoc SQL


def test_parameters_by_name_and_by_place(catalog: Catalog) -> None:
    text = "select record_id from records where sex = $sex and age > $age"
    assert catalog.sql(text, {"sex": "female", "age": 40}).fetchall() == [("b/1",)]
    assert catalog.table("select ? + 1 as n", [2]).to_pylist() == [{"n": 3}]


REFUSED = {
    "slect 1": "Parser Error: syntax error at or near",
    "select foo from records": "Binder Error: Referenced column",
    "select 1; select 2": "Expected one SQL statement, found 2.",
    "": "Expected one SQL statement, found 0.",
    "-- nothing": "Expected one SQL statement, found 0.",
    "select * from recods": "Catalog Error: Table with name recods does not exist!",
    "select $missing": "",
    "select 'x'::integer": "Conversion Error: Could not convert string",
    "select i[2]::smallint * i[2] * i[2] from waveforms": "Out of Range Error: Overflow",
}


@pytest.mark.parametrize("text", REFUSED)
def test_a_refusal_is_one_line_of_duckdb(catalog: Catalog, text: str) -> None:
    with pytest.raises(QueryError) as caught:
        catalog.table(text)
    assert caught.value.message.startswith(REFUSED[text])
    assert "\n" not in caught.value.message


def test_a_near_name_becomes_the_hint(catalog: Catalog) -> None:
    with pytest.raises(QueryError) as caught:
        catalog.sql("select * from recods")
    assert caught.value.hint == 'Did you mean "records"?'


def test_a_statement_without_rows_gives_an_empty_relation(relations: Relations) -> None:
    with Catalog(relations) as catalog:
        assert catalog.sql("create table mine as select 1 as x").fetchall() == []
        assert catalog.sql("from mine").fetchall() == [(1,)]


def test_nothing_is_fetched_from_the_network_and_threads_hold(relations: Relations) -> None:
    with Catalog(relations, threads=1) as catalog:
        text = "select current_setting($name)"
        setting = {
            name: catalog.sql(text, {"name": name}).fetchall()[0][0]
            for name in ("threads", "autoinstall_known_extensions")
        }
    assert setting == {"threads": 1, "autoinstall_known_extensions": False}


def test_an_identifier_cannot_leave_its_quotes(catalog: Catalog) -> None:
    name = 'x"; drop view records; --'
    assert catalog.sql(f"select 1 as {quote(name)}").columns == [name]


# --- memory

RECORDS, DIM = 30_000, 256  # 31 MB


@pytest.fixture(scope="module")
def vectors(tmp_path_factory: pytest.TempPathFactory) -> Relations:
    """Return embeddings larger than the memory limit."""
    x = np.random.default_rng(0).standard_normal(RECORDS * DIM, dtype=np.float32)
    ends = pa.array(np.arange(RECORDS + 1, dtype=np.int32) * DIM)
    columns = {
        "record_id": pa.array([f"a/{i:05d}" for i in range(RECORDS)]),
        **dict.fromkeys(("model", "version", "pooling"), pa.array(["m"] * RECORDS)),
        "dim": pa.array([DIM] * RECORDS, pa.int32()),
        "embedding": pa.ListArray.from_arrays(ends, pa.array(x)),
    }
    path = tmp_path_factory.mktemp("vectors") / "shard.parquet"
    pq.write_table(pa.table(columns), path, row_group_size=2048)
    return {"embeddings": ([path], TABLES["embeddings"].arrow)}


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder for temporary files."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_what_exceeds_the_memory_goes_to_disk_and_leaves_nothing(
    vectors: Relations, scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ECGSTORE_MEMORY", "48MB")  # sorting and its result take twice that
    with Catalog(vectors, threads=1) as catalog:
        catalog.sql(
            "create table sorted as select unnest(embedding) as v from embeddings order by v"
        )
        spilled = [path for path in scratch.rglob("*") if path.is_file()]
        assert sum(path.stat().st_size for path in spilled) > 1_000_000
        got = catalog.table("select v from sorted")["v"].to_numpy()
    plain = pq.read_table(vectors["embeddings"][0][0], columns=["embedding"])["embedding"]
    assert np.array_equal(got, np.sort(plain.combine_chunks().values.to_numpy()))
    assert not list(scratch.iterdir())


def test_what_cannot_go_to_disk_says_how_to_get_more_memory(
    vectors: Relations, scratch: Path
) -> None:
    with Catalog(vectors, threads=1, memory_limit="24MB") as catalog:
        with pytest.raises(QueryError, match="Out of Memory Error") as caught:
            catalog.table("select list(embedding) as everything from embeddings")
        assert "ECGSTORE_MEMORY" in str(caught.value.hint)
        assert catalog.sql("select count(*) from embeddings").fetchone() == (RECORDS,)
    assert not list(scratch.iterdir())


def test_the_memory_is_the_argument_the_environment_or_a_share(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("ECGSTORE_MEMORY", raising=False)
    assert settings.memory_limit() == f"{int(0.6 * settings.usable_memory()) >> 20}MiB"
    monkeypatch.setenv("ECGSTORE_MEMORY", "1.5 GiB")
    assert settings.memory_limit() == "1.5 GiB"
    assert settings.memory_limit("300MB") == "300MB"
    with Catalog({}, memory_limit="300MB") as catalog:
        held = catalog.sql("select current_setting('memory_limit')").fetchone()
    assert held == ("286.1 MiB",)
    for amount in ("lots", "4", "80%", "-1GB", "4GB; drop"):
        monkeypatch.setenv("ECGSTORE_MEMORY", amount)
        with pytest.raises(UsageError, match="is no amount of memory") as caught:
            Catalog({})
        assert "ECGSTORE_MEMORY" in str(caught.value.hint)


GROUPS: dict[str, tuple[str, dict[str, int | str]]] = {
    "a group of version 2": ("0::/slice/job", {"slice/memory.max": 5, "slice/job/memory.max": 7}),
    "no limit in the group": ("0::/job", {"job/memory.max": "max", "memory.max": 5}),
    "a group of version 1": ("4:cpu,memory:/job", {"memory/job/memory.limit_in_bytes": 5}),
    "hidden by a container": ("4:memory:/docker/1", {"memory/memory.limit_in_bytes": 5}),
    "both versions": ("1:cpu:/\n0::/\n3:memory:/", {"memory/memory.limit_in_bytes": 5}),
}


@pytest.mark.parametrize("name", GROUPS)
def test_the_limit_of_a_control_group_counts(name: str, tmp_path: Path) -> None:
    installed = settings.usable_memory(tmp_path / "nothing")
    assert installed > 1 << 30
    groups, limits = GROUPS[name]
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text(groups + "\n")
    for path, limit in limits.items():
        file = tmp_path / "sys/fs/cgroup" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{limit}\n" if isinstance(limit, str) else f"{limit << 20}\n")
    assert settings.usable_memory(tmp_path) == 5 << 20
