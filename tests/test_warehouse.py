"""A warehouse: made once, moved freely, seen as it was, and never written by accident."""

from __future__ import annotations

import pickle
import shutil
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pyarrow as pa
import pytest

from ecgstore.errors import SchemaError, UnknownNameError, WarehouseError
from ecgstore.schema import TABLES
from ecgstore.warehouse import Warehouse

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def warehouse(tmp_path: Path) -> Warehouse:
    return Warehouse.create(tmp_path / "warehouse")


def labels(*ids: str) -> pa.Table:
    return pa.table({"record_id": list(ids), "task": ["MI"] * len(ids), "label": [1.0] * len(ids)})


def test_create_makes_every_table_once(warehouse: Warehouse) -> None:
    assert warehouse.versions() == dict.fromkeys(TABLES, 0)
    before = {path: path.stat().st_mtime_ns for path in warehouse.root.rglob("*")}
    again = Warehouse.create(warehouse.root)
    assert again.versions() == warehouse.versions()
    assert {path: path.stat().st_mtime_ns for path in warehouse.root.rglob("*")} == before


def test_create_keeps_what_else_is_in_the_folder(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("ours")
    Warehouse.create(tmp_path)
    assert (tmp_path / "README.md").read_text() == "ours"


def test_a_folder_that_is_no_warehouse_says_how_to_make_one(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(WarehouseError, match="There is no warehouse in") as caught:
            Warehouse(folder)
        assert caught.value.hint == "Make one with: ecgstore init"
    assert not list(tmp_path.iterdir())


def test_a_half_made_warehouse_is_none_until_it_is_made_whole(tmp_path: Path) -> None:
    whole = Warehouse.create(tmp_path / "whole")
    shutil.rmtree(whole.root / "records")  # the table that is made last
    with pytest.raises(WarehouseError, match="There is no warehouse"):
        Warehouse(whole.root)
    assert Warehouse.create(whole.root).versions() == dict.fromkeys(TABLES, 0)


def test_a_place_that_cannot_be_a_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(WarehouseError, match="Could not write to"):
        Warehouse.create(tmp_path / "file")
    with pytest.raises(WarehouseError, match="cannot lie in"):
        Warehouse.create(tmp_path / "per%20cent")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_writes_reach_the_table_and_name_the_command(warehouse: Warehouse) -> None:
    assert warehouse.append("labels", labels("a/1", "a/2"), command="labels MI") == 2
    assert warehouse.replace("labels", labels("a/2"), command="labels MI") == 0
    assert warehouse.delete("labels", labels("a/1").select(["record_id"]), command="forget") == 1
    assert warehouse.table("labels").read(["record_id"]).to_pylist() == [{"record_id": "a/2"}]
    assert warehouse.versions()["labels"] == 2
    with pytest.raises(SchemaError, match="no column 'colour'"):
        warehouse.append("labels", pa.table({"colour": ["red"]}), command="x")
    with pytest.raises(UnknownNameError, match="Unknown table 'lables'") as caught:
        warehouse.append("lables", labels("a/1"), command="x")
    assert "'labels'" in str(caught.value.hint)


def test_a_moved_or_copied_warehouse_works(warehouse: Warehouse, tmp_path: Path) -> None:
    warehouse.append("labels", labels("a/1"), command="x")
    shutil.copytree(warehouse.root, tmp_path / "copy")
    warehouse.root.rename(tmp_path / "moved")
    for name in ("copy", "moved"):
        there = Warehouse(tmp_path / name)
        assert there.append("labels", labels("a/1", "a/2"), command="x") == 1
        assert there.relations()["labels"][0][0].parent == tmp_path / name / "labels"


def test_it_can_be_sent_to_another_process(warehouse: Warehouse) -> None:
    warehouse.append("labels", labels("a/1"), command="x")
    there = pickle.loads(pickle.dumps(Warehouse(warehouse.root, at={"labels": 0})))
    assert there.versions()["labels"] == 0
    assert there.read_only


def test_seen_as_it_was_at_a_time(warehouse: Warehouse) -> None:
    warehouse.append("labels", labels("a/1"), command="x")
    time.sleep(0.01)
    between = datetime.now(UTC)
    time.sleep(0.01)
    warehouse.append("labels", labels("a/2"), command="x")
    old = Warehouse(warehouse.root, at=between)
    assert old.versions()["labels"] == 1
    assert old.table("labels").read().num_rows == 1
    assert len(old.relations()["labels"][0]) == 1
    assert Warehouse(warehouse.root, at=datetime.now(UTC)).versions() == warehouse.versions()
    with pytest.raises(WarehouseError, match="did not exist at 2001"):
        Warehouse(warehouse.root, at=datetime(2001, 1, 1, tzinfo=UTC))


def test_seen_at_the_versions_of_a_run(warehouse: Warehouse) -> None:
    warehouse.append("labels", labels("a/1"), command="x")
    versions = warehouse.versions()
    warehouse.append("labels", labels("a/2"), command="x")
    old = Warehouse(warehouse.root, at=versions)
    assert old.versions() == versions
    assert old.table("labels").read().num_rows == 1
    assert Warehouse(warehouse.root, at={"records": 0}).table("labels").read().num_rows == 2
    with pytest.raises(UnknownNameError):
        Warehouse(warehouse.root, at={"lables": 0})
    with pytest.raises(WarehouseError):
        Warehouse(warehouse.root, at={"labels": 99}).table("labels")


def test_the_past_cannot_be_written(warehouse: Warehouse) -> None:
    warehouse.append("labels", labels("a/1"), command="x")
    old = Warehouse(warehouse.root, at=datetime.now(UTC))
    assert old.read_only
    assert not warehouse.read_only
    for write in (old.append, old.replace, old.delete):
        with pytest.raises(WarehouseError, match="read-only"):
            write("labels", labels("a/1"), command="x")
    with pytest.raises(WarehouseError, match="read-only"):
        old.table("labels").append(labels("a/9"), command="x")
    assert warehouse.versions()["labels"] == 1


def test_a_table_that_a_later_release_adds_is_empty_until_written(warehouse: Warehouse) -> None:
    shutil.rmtree(warehouse.root / "rejects")  # as an older release left it
    old = Warehouse(warehouse.root)
    assert "rejects" not in old.versions()
    assert old.relations()["rejects"] == ([], TABLES["rejects"].arrow)
    rows = pa.table({"source_uri": ["x.hea"], "reason": ["truncated"]})
    assert old.append("rejects", rows, command="ingest") == 1
    assert Warehouse(warehouse.root).versions()["rejects"] == 1
