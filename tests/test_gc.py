"""Litter goes by age; what a version names, a living command needs or a stranger left stays."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import time
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest

from ecgstore.errors import LogError
from ecgstore.schema import TABLES
from ecgstore.storage.locks import claim
from ecgstore.storage.shards import write_shards
from ecgstore.upkeep.compact import compact
from ecgstore.upkeep.gc import gc
from ecgstore.upkeep.verify import verify
from ecgstore.warehouse import Warehouse

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

LABELS = TABLES["labels"]


def labels(numbers: Iterable[int]) -> pa.Table:
    ids = [f"a/{i:05d}" for i in numbers]
    return pa.table({"record_id": ids, "task": ["MI"] * len(ids), "label": [1.0] * len(ids)})


def records(count: int) -> pa.Table:
    return pa.table({"record_id": [f"a/{i:05d}" for i in range(count)]})


@pytest.fixture
def warehouse(tmp_path: Path) -> Warehouse:
    made = Warehouse.create(tmp_path / "warehouse")
    made.append("records", records(3), command="x")
    made.append("labels", labels(range(3)), command="x")
    return made


def old(path: Path, seconds: float = 100_000) -> None:
    then = time.time() - seconds
    for one in [path, *path.rglob("*")]:
        os.utime(one, (then, then))


def test_litter_goes_by_age_and_a_living_command_keeps_its_own(warehouse: Warehouse) -> None:
    folder = warehouse.root / "labels"
    shard = folder / f"{'0' * 64}.parquet"
    stranger = folder / "part-0000.snappy.parquet"
    temporary = folder / "_delta_log" / ".00000000000000000002.json.abc.tmp"
    beside = warehouse.root / "._erasing.json.abc.tmp"
    dead, living = folder / "_staging" / "dead", folder / "_staging" / "living"
    for one in (dead, living):
        one.mkdir(parents=True)
        write_shards(one, LABELS, labels([7]))
    for file in (shard, stranger, temporary, beside):
        file.write_bytes(b"x" * 100)
    litter: tuple[Path, ...] = (shard, stranger, temporary, beside, dead, living)
    with claim(living):
        assert gc(warehouse).files == 0
        assert all(one.exists() for one in litter)
        for one in litter:
            old(one)
        planned = gc(warehouse, dry_run=True)
        assert all(one.exists() for one in litter)
        done = gc(warehouse)
        assert done.files == planned.files == 4
        assert done.bytes == planned.bytes > 300
        assert [one.exists() for one in litter] == [False, True, False, False, False, True]
    kinds = {one.what: one.removed for one in done.found}
    assert kinds["not a file of ecgstore: left"] is False
    gc(warehouse, grace_s=0)
    assert not living.exists()
    assert warehouse.table("labels").read().num_rows == 3
    stranger.unlink()
    assert verify(warehouse).findings == ()


def test_nothing_goes_when_a_log_does_not_tell_what_is_needed(warehouse: Warehouse) -> None:
    for i in range(3, 6):
        warehouse.append("labels", labels([i]), command="x")
    folder = warehouse.root / "labels"
    before = {path.name for path in folder.glob("*.parquet")}
    commit = folder / "_delta_log" / f"{2:020d}.json"
    data = commit.read_bytes()
    commit.write_bytes(data[:-20])
    with pytest.raises(LogError, match=r"version 2.*was changed"):
        gc(warehouse, grace_s=0)
    commit.unlink()
    with pytest.raises(LogError, match=r"'00000000000000000002.json' is missing"):
        gc(warehouse, grace_s=0)
    assert before == {path.name for path in folder.glob("*.parquet")}
    commit.write_bytes(data)
    shutil.rmtree(folder / "_delta_log")
    gc(warehouse, grace_s=0)
    assert len(list(folder.glob("*.parquet"))) >= len(before) - 1


def write(root: Path, first: int, count: int) -> None:
    """Append row by row, as a process of its own."""
    warehouse = Warehouse(root)
    for i in range(first, first + count):
        assert warehouse.append("labels", labels([i]), command="x") == 1


@pytest.mark.slow
def test_writers_at_work_lose_nothing_without_any_grace(tmp_path: Path) -> None:
    warehouse = Warehouse.create(tmp_path / "warehouse")
    warehouse.append("records", records(200), command="x")
    spawn = multiprocessing.get_context("spawn")
    writers = [spawn.Process(target=write, args=(warehouse.root, i * 100, 100)) for i in range(2)]
    for one in writers:
        one.start()
    while any(one.is_alive() for one in writers):
        compact(warehouse, ["labels"], retention_days=0)
        gc(warehouse, grace_s=0)
    for one in writers:
        one.join()
        assert one.exitcode == 0
    gc(warehouse, grace_s=0)
    assert warehouse.table("labels").read().num_rows == 200
    assert verify(warehouse).findings == ()


def test_the_command_says_what_goes(warehouse: Warehouse, run: Callable[..., Any]) -> None:
    (warehouse.root / "labels" / f"{'0' * 64}.parquet").write_bytes(b"x" * 1_000_000)
    planned = run("-w", warehouse.root, "gc", "--grace", "0", "--dry-run", "--json")
    assert '"what": "shard that no version names"' in planned.out
    assert "1 files, 1.0 MB would be removed" in planned.err
    assert "0 files" in run("-w", warehouse.root, "gc").err
    done = run("-w", warehouse.root, "gc", "--grace", "0")
    assert (done.code, "1 files, 1.0 MB removed" in done.err) == (0, True)
