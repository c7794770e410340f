"""One Delta table: keys stay unique, repeating changes nothing, others can read it."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ecgstore.errors import ErasedError, SchemaError, WarehouseError
from ecgstore.schema import TABLES, TableSchema
from ecgstore.storage.log import CHECKPOINT_EVERY
from ecgstore.storage.shards import write_shards
from ecgstore.storage.tables import Table

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

LABELS = TABLES["labels"]


def labels(numbers: Iterable[int], *, task: str = "MI", value: float = 1.0) -> pa.Table:
    ids = [f"a/{i:03d}" for i in numbers]
    return pa.table(
        {
            "record_id": pa.array(ids, pa.string()),
            "task": pa.array([task] * len(ids), pa.string()),
            "label": pa.array([value] * len(ids), pa.float64()),
        }
    )


def embeddings(numbers: Iterable[int], model: str, value: float = 0.5) -> pa.Table:
    ids = [f"a/{i:03d}" for i in numbers]
    n = len(ids)
    return pa.table(
        {
            "record_id": ids,
            "model": [model] * n,
            "version": ["v1"] * n,
            "pooling": ["mean"] * n,
            "dim": pa.array([4] * n, pa.int32()),
            "embedding": pa.array([[value, 1, 2, 3]] * n, pa.list_(pa.float32())),
        }
    )


def stored(table: Table) -> dict[tuple[str, ...], float]:
    rows = table.read().to_pylist()
    found = {tuple(row[name] for name in table.schema.key): row["label"] for row in rows}
    assert len(found) == len(rows), "a key is there twice"
    return found


@pytest.fixture
def table(tmp_path: Path) -> Table:
    return Table.create(tmp_path / "labels", LABELS)


def test_creation_that_was_killed_is_finished_by_the_next(tmp_path: Path) -> None:
    (tmp_path / "labels" / "_delta_log").mkdir(parents=True)
    table = Table.create(tmp_path / "labels", LABELS)
    assert table.version == 0
    assert table.append(labels([1]), command="x") == 1


def test_append_adds_only_new_keys_and_then_nothing(table: Table) -> None:
    assert table.append(labels(range(10)), command="first") == 10
    assert table.append(labels(range(5, 15), value=0.0), command="second") == 5
    assert table.version == 2
    found = stored(table)
    assert len(found) == 15
    assert found["a/007", "MI"] == 1.0  # the row that was there stays
    assert found["a/012", "MI"] == 0.0

    before = sorted(path.name for path in table.folder.rglob("*"))
    assert table.append(labels(range(15), value=9.0), command="third") == 0
    assert table.append(labels([]), command="fourth") == 0
    assert table.version == Table(table.folder, LABELS).version == 2
    assert sorted(path.name for path in table.folder.rglob("*")) == before


def test_the_key_is_all_its_columns(table: Table) -> None:
    table.append(labels(range(3), task="MI"), command="x")
    assert table.append(labels(range(3), task="NORM"), command="x") == 3


def test_a_key_twice_in_one_call_is_refused(table: Table) -> None:
    rows = pa.concat_tables([labels([1, 2]), labels([2], value=0.0)])
    for call in (table.append, table.replace):
        with pytest.raises(SchemaError, match="1 of 3 rows repeat the key") as caught:
            call(rows, command="x")
        assert "a/002" not in str(caught.value)
    assert table.version == 0


@settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_any_parts_in_any_order_give_the_same_table(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    table = Table.create(tmp_path_factory.mktemp("parts") / "labels", LABELS)
    order = data.draw(st.permutations(range(12)))
    cuts = sorted(data.draw(st.lists(st.integers(0, 12), max_size=4)))
    overlap = data.draw(st.integers(0, 3))
    for start, stop in zip([0, *cuts], [*cuts, 12], strict=True):
        table.append(labels(order[max(0, start - overlap) : stop]), command="part")
    assert stored(table) == {(f"a/{i:03d}", "MI"): 1.0 for i in range(12)}


def test_shards_written_elsewhere_are_added_without_the_keys_already_there(table: Table) -> None:
    table.append(labels(range(4, 10)), command="x")
    for added in (9, 0):
        with table.staging() as staging:
            new = write_shards(staging, LABELS, labels(range(20, 25)))
            half = write_shards(staging, LABELS, labels(range(6, 14), value=0.0))
            old = write_shards(staging, LABELS, labels(range(4, 6), value=0.0))
            assert table.append_shards([*new, *half, *old], command="ingest") == added
        assert table.version == 2
        found = stored(table)
        assert sorted(found) == [(f"a/{i:03d}", "MI") for i in [*range(4, 14), *range(20, 25)]]
        assert found["a/005", "MI"] == found["a/006", "MI"] == 1.0
        assert new[0].path.name in {path.name for path in table.files()}
    assert table.append_shards([], command="ingest") == 0
    assert table.version == 2


def test_shards_that_share_a_key_are_refused(table: Table) -> None:
    shards = [write_shards(table.folder, LABELS, labels([1, n]))[0] for n in (2, 3)]
    with pytest.raises(SchemaError, match="1 of 4 rows repeat the key"):
        table.append_shards(shards, command="ingest")
    assert table.version == 0


def test_replace_puts_rows_in_place_in_one_commit(table: Table) -> None:
    table.append(labels(range(5)), command="x")
    table.append(labels(range(5, 10)), command="x")
    untouched = table.files()[1]
    assert table.replace(labels([3, 4, 50], value=0.0), command="x") == 3
    assert table.version == 3
    found = stored(table)
    assert {key[0] for key, value in found.items() if value == 0.0} == {"a/003", "a/004", "a/050"}
    assert len(found) == 11
    assert untouched in table.files()

    assert table.replace(labels([50, 4, 3], value=0.0), command="x") == 0
    assert table.replace(labels([]), command="x") == 0
    assert table.version == 3


def test_replace_compares_vectors_too(tmp_path: Path) -> None:
    table = Table.create(tmp_path / "embeddings", TABLES["embeddings"])
    table.append(embeddings(range(5), "ecgfm"), command="x")
    assert table.replace(embeddings(range(5), "ecgfm"), command="x") == 0
    assert table.replace(embeddings(range(5), "ecgfm", 0.25), command="x") == 5
    assert {vector[0] for vector in table.read(["embedding"])["embedding"].to_pylist()} == {0.25}
    assert table.version == 2


def test_delete_by_any_columns(tmp_path: Path) -> None:
    table = Table.create(tmp_path / "embeddings", TABLES["embeddings"])
    for model in ("ecgfm", "stmem"):
        table.append(embeddings(range(5), model), command="x")
    assert table.delete(pa.table({"record_id": ["a/001", "a/002", "b/1"]}), command="x") == 4
    assert table.delete(pa.table({"model": ["stmem"]}), command="x") == 3
    rows = table.read(["record_id", "model"])
    assert rows["model"].unique().to_pylist() == ["ecgfm"]
    assert rows.num_rows == 3
    version = table.version
    assert table.delete(pa.table({"model": ["stmem", None]}), command="x") == 0
    assert table.version == version
    with pytest.raises(SchemaError, match="cannot be searched by"):
        table.delete(pa.table({"patient": ["1"]}), command="x")
    with pytest.raises(SchemaError, match="values of these types"):
        table.delete(pa.table({"dim": ["four"]}), command="x")


def test_read_takes_columns_and_a_condition(table: Table) -> None:
    table.append(labels(range(5)), command="x")
    table.append(labels(range(5), task="NORM", value=0.0), command="x")
    rows = table.read(["record_id"], pc.field("task") == "NORM")
    assert rows.column_names == ["record_id"]
    assert rows.num_rows == 5


def test_an_open_table_keeps_its_version(table: Table) -> None:
    table.append(labels(range(3)), command="x")
    early = Table(table.folder, LABELS)
    table.append(labels(range(3, 6)), command="x")
    assert early.read().num_rows == 3
    assert early.append(labels(range(7)), command="x") == 1  # writes on what is there now
    assert early.read().num_rows == 7


def test_time_travel_by_version_and_by_time(table: Table) -> None:
    table.append(labels(range(3)), command="x")
    time.sleep(0.01)
    between = datetime.now(UTC)
    time.sleep(0.01)
    table.replace(labels([0], value=0.0), command="x")
    assert table.log.version_at(between) == 1
    assert table.log.version_at(between.replace(tzinfo=None)) == 1
    assert table.log.version_at(datetime(2001, 1, 1, tzinfo=UTC)) is None
    assert table.log.version_at(datetime.now(UTC)) == 2
    old = Table(table.folder, LABELS, version=1)
    assert set(stored(old).values()) == {1.0}
    with pytest.raises(WarehouseError, match="read-only"):
        old.append(labels([9]), command="x")


def test_a_version_whose_shards_are_gone_says_so(table: Table) -> None:
    table.append(labels(range(3)), command="x")
    (shard,) = table.files()
    table.delete(labels([1]).select(["record_id"]), command="forget")
    shard.unlink()
    assert Table(table.folder, LABELS).read().num_rows == 2
    with pytest.raises(ErasedError, match=r"Version 1 of table 'labels' .* were erased on 20"):
        Table(table.folder, LABELS, version=1)


def test_the_log_names_command_counts_and_code_and_no_identifier(table: Table) -> None:
    table.append(labels(range(3)), command="label MI")
    table.replace(labels(range(2), value=0.0), command="label MI --overwrite")
    lines: list[str] = []
    for path in sorted((table.folder / "_delta_log").glob("*.json")):
        lines += path.read_text().splitlines()
    assert not [line for line in lines if "a/00" in line]
    entries = [json.loads(line) for line in lines]
    commits = [entry["commitInfo"] for entry in entries if "commitInfo" in entry]
    assert commits[1]["command"] == "label MI"
    assert [commits[2][name] for name in ("rowsAdded", "rowsRemoved")] == [2, 2]
    assert commits[1]["codeVersion"]
    adds = [entry["add"] for entry in entries if "add" in entry]
    assert {tuple(json.loads(add["stats"])) for add in adds} == {("numRecords",)}
    assert all("/" not in add["path"] for add in adds)


@pytest.mark.parametrize("name", ["plain", "with space", "100% ecg", "héart#1", "quo'te"])
def test_any_folder_name_and_a_copy_work(tmp_path: Path, name: str) -> None:
    table = Table.create(tmp_path / name / "labels", LABELS)
    table.append(labels(range(3)), command="x")
    table.replace(labels([0], value=0.0), command="x")
    shutil.copytree(tmp_path / name, tmp_path / "copy")
    shutil.rmtree(tmp_path / name)
    copy = Table(tmp_path / "copy" / "labels", LABELS)
    assert copy.append(labels(range(4)), command="x") == 1
    assert len(stored(copy)) == 4


def test_a_relative_folder_survives_a_change_of_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    table = Table.create((tmp_path / "labels").relative_to(tmp_path), LABELS)
    os.chdir("/")
    assert table.append(labels([1]), command="x") == 1
    assert (tmp_path / "labels" / "_delta_log").is_dir()


def test_a_leftover_temporary_or_foreign_shard_is_never_read(table: Table) -> None:
    table.append(labels(range(3)), command="x")
    (table.folder / "0123456789abcdef.tmp").write_bytes(b"PAR1 half a shard")
    write_shards(table.folder, LABELS, labels(range(50, 60)))
    assert table.read().num_rows == Table(table.folder, LABELS).read().num_rows == 3


def test_missing_and_damaged_tables_are_one_line_errors(tmp_path: Path, table: Table) -> None:
    with pytest.raises(WarehouseError, match="There is no table") as caught:
        Table(tmp_path / "nowhere", LABELS)
    assert caught.value.hint == "Make it with: ecgstore init"
    with pytest.raises(WarehouseError):
        Table(table.folder, LABELS, version=7)
    table.append(labels(range(3)), command="x")
    (shard,) = table.files()
    whole = shard.read_bytes()
    for damage in (b"", b"PAR1", whole[:-20], whole[: len(whole) // 2]):
        shard.write_bytes(damage)
        with pytest.raises(WarehouseError) as caught:
            table.read()
        assert "\n" not in caught.value.message


def wider(schema: TableSchema) -> TableSchema:
    """Return the schema as a later release might have it."""
    arrow = schema.arrow.append(pa.field("annotator", pa.string()))
    return dataclasses.replace(schema, arrow=arrow, version=schema.version + 1)


def test_a_table_of_a_newer_layout_is_refused(tmp_path: Path) -> None:
    Table.create(tmp_path / "labels", wider(LABELS))
    newer, known = LABELS.version + 1, LABELS.version
    told = f"has layout {newer}; this ecgstore knows layout {known}"
    with pytest.raises(SchemaError, match=told) as caught:
        Table(tmp_path / "labels", LABELS)
    assert (caught.value.found, caught.value.wanted) == (newer, known)


def test_a_column_added_later_reads_as_null_and_can_be_written(table: Table) -> None:
    table.append(labels(range(3)), command="x")
    later = Table(table.folder, wider(LABELS))
    assert later.read()["annotator"].null_count == 3
    assert later.version == 1  # reading changes nothing
    rows = labels([7]).append_column("annotator", pa.array(["cardiologist"]))
    assert later.append(rows, command="x") == 1
    assert later.read(["annotator"], pc.field("record_id") == "a/007").to_pylist() == [
        {"annotator": "cardiologist"}
    ]
    frame = pl.scan_delta(str(table.folder)).sort("record_id").collect()
    assert frame["annotator"].to_list() == [None, None, None, "cardiologist"]
    with pytest.raises(SchemaError, match="layout 2"):
        table.append(labels([8]), command="x")  # the old program, opened before


WHEN = datetime(2021, 3, 4, 5, 6, 7, 8, tzinfo=UTC)


def sample(kind: pa.DataType) -> object:
    """Return a value of a type that is easily spoilt on the way."""
    if pa.types.is_list(kind):
        return [sample(kind.value_type), sample(kind.value_type)]
    if pa.types.is_timestamp(kind):
        return WHEN
    if pa.types.is_integer(kind):
        return -32768 if kind == pa.int16() else 2  # WFDB's invalid sample; the length of a list
    if pa.types.is_boolean(kind):
        return True
    if pa.types.is_floating(kind):
        return 0.1 if kind == pa.float64() else 0.5
    return b"\x00\xff" if pa.types.is_binary(kind) else "é'\n"


@pytest.mark.parametrize("name", TABLES)
def test_polars_reads_what_we_write(tmp_path: Path, name: str) -> None:
    schema = TABLES[name]
    full = {field.name: sample(field.type) for field in schema.arrow}
    bare: dict[str, object] = {
        column: f"{full[column]}2" if full[column] == "é'\n" else 3 for column in schema.key
    }
    if "dim" in full and "embedding" in full:
        bare |= {"dim": 0, "embedding": []}
    table = Table.create(tmp_path / name, schema)
    rows = pa.Table.from_pylist([full, bare], schema=schema.arrow)
    assert table.append(rows, command="x") == 2
    frame = pl.scan_delta(str(table.folder)).sort(schema.key).collect()
    nothing = dict.fromkeys(schema.arrow.names)
    assert sorted(frame.to_dicts(), key=str) == sorted([full, nothing | bare], key=str)
    if name == "waveforms":
        assert frame.schema["ii"] == pl.List(pl.Int16)
    if name == "embeddings":
        assert frame.schema["embedding"] == pl.List(pl.Float32)


def test_old_versions_open_after_a_checkpoint(table: Table) -> None:
    for i in range(CHECKPOINT_EVERY + 5):
        table.append(labels([i]), command="x")
    log = table.folder / "_delta_log"
    assert (log / f"{CHECKPOINT_EVERY:020d}.checkpoint.parquet").exists()
    assert len(stored(Table(table.folder, LABELS))) == CHECKPOINT_EVERY + 5
    assert Table(table.folder, LABELS, version=6).read().num_rows == 6
    assert len(set(table.files())) == CHECKPOINT_EVERY + 5
