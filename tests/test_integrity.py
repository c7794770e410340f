"""A shard that was changed is never read, and one that was seen whole is not read twice."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ecgstore.catalog import Catalog
from ecgstore.errors import DamagedError
from ecgstore.schema import TABLES
from ecgstore.storage import integrity
from ecgstore.storage.tables import Table
from ecgstore.warehouse import Warehouse

if TYPE_CHECKING:
    from pathlib import Path

ROWS = pa.table({"record_id": ["a/1", "a/2"], "task": ["MI"] * 2, "label": [1.0, 0.0]})


@pytest.fixture
def warehouse(tmp_path: Path) -> Warehouse:
    made = Warehouse.create(tmp_path / "warehouse")
    made.append("labels", ROWS, command="x")
    return made


def shard(warehouse: Warehouse) -> Path:
    (name,) = warehouse.table("labels").snapshot.entries
    return warehouse.root / "labels" / name


def flip(path: Path, place: int) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)


def test_every_way_of_reading_refuses_a_changed_shard(warehouse: Warehouse) -> None:
    flip(shard(warehouse), 100)
    labels = warehouse.table("labels")
    for read in (
        labels.files,
        labels.read,
        warehouse.relations,
        lambda: labels.append(ROWS, command="x"),
        lambda: labels.replace(ROWS, command="x"),
        lambda: labels.delete(ROWS.select(["record_id"]), command="x"),
        Warehouse(warehouse.root, at={"labels": 1}).relations,
    ):
        with pytest.raises(DamagedError) as caught:
            read()
        error = caught.value
        assert (error.table, error.version, error.file) == ("labels", 1, shard(warehouse).name)
        assert "was changed after it was written" in error.message
        assert "still opens, with --at a time before 2" in str(error.hint)
        assert str(error.hint).endswith("what can be done: ecgstore verify")


def test_the_size_and_the_absence_of_a_shard_are_named(warehouse: Warehouse) -> None:
    path = shard(warehouse)
    size = path.stat().st_size
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DamagedError, match=f"has {size - 1} bytes, not {size}"):
        warehouse.relations()
    path.unlink()
    with pytest.raises(DamagedError, match="is missing"):
        warehouse.relations()


def test_a_change_that_keeps_size_and_time_is_seen(warehouse: Warehouse) -> None:
    warehouse.relations()
    path = shard(warehouse)
    status = path.stat()
    flip(path, 200)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    with pytest.raises(DamagedError):
        warehouse.relations()


def test_what_was_seen_whole_is_noted_once(warehouse: Warehouse, tmp_path: Path) -> None:
    notes = warehouse.root / "_cache" / "checked"
    written = notes.read_text().splitlines()
    assert [line.split()[0] for line in written] == [shard(warehouse).name]  # by its writer
    warehouse.relations()
    assert notes.read_text().splitlines() == written

    copy = tmp_path / "copy"
    shutil.copytree(warehouse.root, copy)
    Warehouse(copy).relations()  # another file: read and noted anew
    assert len((copy / "_cache" / "checked").read_text().splitlines()) == 2


@pytest.mark.parametrize("content", [b"", b"\xff\x00 nonsense\n", b"a 1 2\n" * 3, b"x" * 1000])
def test_damaged_notes_only_cost_time(warehouse: Warehouse, content: bytes) -> None:
    notes = warehouse.root / "_cache" / "checked"
    notes.write_bytes(content)
    with Catalog(warehouse.relations()) as catalog:
        assert catalog.table("select sum(label) as s from labels")["s"].to_pylist() == [1.0]
    flip(shard(warehouse), 100)
    with pytest.raises(DamagedError):
        warehouse.relations()


@pytest.mark.parametrize("shift", ["", "\n", "12345"])
def test_notes_that_were_dropped_and_grew_again_only_cost_time(
    warehouse: Warehouse, shift: str
) -> None:
    notes = warehouse.root / "_cache" / "checked"
    warehouse.table("labels").files()  # from here on only what is added is read
    notes.write_text(shift + 3 * (notes.read_text() + "\n"))
    assert warehouse.table("labels").files() == [shard(warehouse)]
    flip(shard(warehouse), 100)
    with pytest.raises(DamagedError):
        warehouse.table("labels").files()


def test_pages_carry_a_checksum_that_our_reader_holds_them_to(tmp_path: Path) -> None:
    table = Table.create(tmp_path / "labels", TABLES["labels"])
    table.append(ROWS, command="x")
    (path,) = table.files()
    assert integrity.sha256(path) == path.stem
    column = pq.read_metadata(path).row_group(0).column(2)
    data = bytearray(path.read_bytes())
    first = column.dictionary_page_offset or column.data_page_offset
    data[first + column.total_compressed_size - 1] ^= 4
    other = tmp_path / "other.parquet"
    other.write_bytes(data)
    with pytest.raises(OSError, match=r"CRC|checksum"):
        pq.read_table(other, page_checksum_verification=True)
