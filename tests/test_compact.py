"""Merged shards hold the same rows, old versions go when nobody needs them, litter is removed."""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import deltalake
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ecgstore import disk
from ecgstore.compact import compact
from ecgstore.errors import ErasedError, WarehouseError
from ecgstore.gc import gc
from ecgstore.locks import claim
from ecgstore.log import CHECKPOINT_EVERY
from ecgstore.record import COLUMNS, INVALID
from ecgstore.schema import TABLES
from ecgstore.shards import write_shards
from ecgstore.tables import Table
from ecgstore.warehouse import Warehouse

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

LABELS = TABLES["labels"]


def labels(numbers: Iterable[int], value: float = 1.0) -> pa.Table:
    ids = [f"a/{i:05d}" for i in numbers]
    return pa.table({"record_id": ids, "task": ["MI"] * len(ids), "label": [value] * len(ids)})


def records(numbers: Iterable[int]) -> pa.Table:
    return pa.table({"record_id": [f"a/{i:05d}" for i in numbers]})


def waveforms(numbers: Iterable[int], *, seed: int = 0) -> pa.Table:
    """Return waveforms with missing leads and invalid samples, of different lengths."""
    rng = np.random.default_rng(seed)
    rows = []
    for i in numbers:
        row: dict[str, object] = {"record_id": f"a/{i:05d}", "gain": [200.0] * 12}
        row["baseline"] = [0] * 12
        for k, column in enumerate(COLUMNS):
            samples = rng.integers(-500, 500, 20 + i % 3)
            samples[i % 7] = INVALID
            row[column] = None if (i + k) % 5 == 0 else samples.tolist()
        rows.append(row)
    return pa.Table.from_pylist(rows, schema=TABLES["waveforms"].arrow)


def ordered(table: pa.Table) -> pa.Table:
    return table.sort_by([(name, "ascending") for name in ("record_id",)]).combine_chunks()


@pytest.fixture
def warehouse(tmp_path: Path) -> Warehouse:
    return Warehouse.create(tmp_path / "warehouse")


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["append", "replace", "delete"]),
            st.sets(st.integers(0, 40), min_size=1, max_size=8),
        ),
        min_size=2,
        max_size=8,
    )
)
def test_rows_stay_the_same_whatever_came_before(
    tmp_path_factory: pytest.TempPathFactory, history: list[tuple[str, set[int]]]
) -> None:
    warehouse = Warehouse.create(tmp_path_factory.mktemp("history") / "w")
    warehouse.append("records", records(range(50)), command="x")
    for turn, (verb, numbers) in enumerate(history):
        rows = labels(sorted(numbers), float(turn))
        keys = rows.select(["record_id"])
        getattr(warehouse, verb)("labels", keys if verb == "delete" else rows, command=verb)
    before = warehouse.table("labels").read()
    compact(warehouse, ["labels"])
    after = warehouse.table("labels")
    assert ordered(after.read()).equals(ordered(before))
    assert len(after.files()) <= 1
    assert not compact(warehouse, ["labels"]).changed


def test_waveforms_keep_every_sample_and_their_encodings(warehouse: Warehouse) -> None:
    numbers = np.random.default_rng(0).permutation(300)
    for k, part in enumerate(np.array_split(numbers, 5)):
        warehouse.append("waveforms", waveforms(part.tolist(), seed=k), command="x")
    warehouse.append("records", records(range(300)), command="x")
    before = ordered(warehouse.table("waveforms").read())
    (done,) = compact(warehouse, ["waveforms"]).tables
    assert (done.shards, done.merged, done.left, done.dropped) == (5, 5, 1, 0)
    (path,) = warehouse.table("waveforms").files()
    after = warehouse.table("waveforms").read()
    assert after["record_id"].to_pylist() == sorted(after["record_id"].to_pylist())
    assert ordered(after).equals(before)
    with pq.ParquetFile(path) as shard:
        sizes = [shard.metadata.row_group(i).num_rows for i in range(shard.num_row_groups)]
        assert sizes == [64, 64, 64, 64, 44]
        column = shard.metadata.row_group(0).column(4)
        assert "DELTA_BINARY_PACKED" in column.encodings
    theirs = deltalake.DeltaTable(warehouse.root / "waveforms")
    assert theirs.file_uris() == [str(path)]


def test_the_same_shards_give_the_same_bytes(tmp_path: Path) -> None:
    names = set()
    for name in ("one", "two"):
        warehouse = Warehouse.create(tmp_path / name)
        warehouse.append("records", records(range(30)), command="x")
        for i in (20, 0, 10):
            warehouse.append("labels", labels(range(i, i + 10)), command="x")
        compact(warehouse)
        names |= {path.name for path in warehouse.table("labels").files()}
    assert len(names) == 1


def test_many_small_appends_leave_few_shards(warehouse: Warehouse) -> None:
    warehouse.append("records", records(range(150)), command="x")
    for i in range(150):
        warehouse.append("labels", labels([i]), command="x")
    table = warehouse.table("labels")
    assert len(table.files()) < 64
    assert table.read().num_rows == 150
    assert {one.command for one in table.log.commits()} == {"init", "x", "tidy"}
    told = [one for one in table.log.commits() if one.command == "tidy"]
    assert {(one.added, one.removed) for one in told} == {(0, 0)}
    before = 100 - sum(one.version <= 100 for one in told)
    assert Table(table.folder, LABELS, version=100).read().num_rows == before


def test_what_is_rearranged_is_told_to_other_engines(warehouse: Warehouse) -> None:
    warehouse.append("records", records(range(20)), command="x")
    for i in (0, 10):
        warehouse.append("labels", labels(range(i, i + 10)), command="x")
    compact(warehouse)
    (newest, *_) = deltalake.DeltaTable(warehouse.root / "labels").history()
    assert (newest["operation"], newest["command"]) == ("OPTIMIZE", "compact")


def test_a_merge_that_loses_its_shards_gives_way(warehouse: Warehouse) -> None:
    from ecgstore.merge import merge

    warehouse.append("records", records(range(20)), command="x")
    for i in (0, 10):
        warehouse.append("labels", labels(range(i, i + 10)), command="x")
    seen = warehouse.table("labels")
    warehouse.delete("labels", labels([3]).select(["record_id"]), command="forget")
    assert not merge(seen, list(seen.snapshot.entries.values()), command="compact")
    assert warehouse.table("labels").read().num_rows == 19


def test_rows_without_a_record_go_but_not_those_of_a_command_at_work(warehouse: Warehouse) -> None:
    warehouse.append("labels", labels(range(10)), command="x")
    warehouse.append("records", records(range(5)), command="x")
    plan = compact(warehouse, ["labels"], dry_run=True).tables[0]
    assert plan.dropped == 5
    with warehouse.shared():  # as an ingest between its commits
        other = Warehouse(warehouse.root)
        with pytest.raises(WarehouseError, match="Others are writing"), other.exclusive(wait_s=0.1):
            pytest.fail("had it alone")
    assert compact(warehouse, ["labels"]).tables[0].dropped == 5
    kept = warehouse.table("labels").read()["record_id"].to_pylist()
    assert kept == [f"a/{i:05d}" for i in range(5)]


def scored(warehouse: Warehouse, versions: dict[str, int]) -> None:
    text = "{" + ", ".join(f'"{name}": {version}' for name, version in versions.items()) + "}"
    row = {"run_id": ["r"], "repeat": pa.array([0], pa.int32()), "metric": ["auroc"]}
    warehouse.append("scores", pa.table({**row, "versions": [text]}), command="evaluate")


def test_versions_go_but_for_the_newest_and_those_a_run_has_read(warehouse: Warehouse) -> None:
    warehouse.append("records", records(range(100)), command="x")
    for i in range(CHECKPOINT_EVERY + 20):
        warehouse.replace("labels", labels(range(100), float(i)), command="x")
    table = warehouse.table("labels")
    newest = table.version
    pinned = Table(table.folder, LABELS, version=7).read()
    began = table.log.told(7).at
    scored(warehouse, {"labels": 7, "records": 1})
    young = compact(warehouse, ["labels"])
    assert young.tables[0].expired == 0
    before = warehouse.table("labels").read()

    done = compact(warehouse, ["labels"], retention_days=0)
    assert done.tables[0].expired == newest - 1
    assert table.log.versions() == [7, newest]
    assert Table(table.folder, LABELS, version=7).read().equals(pinned)
    assert warehouse.table("labels").read().equals(before)
    theirs = [deltalake.DeltaTable(table.folder, version=v) for v in (7, newest)]
    assert [len(one.file_uris()) for one in theirs] == [1, 1]
    for version in (6, 8):
        with pytest.raises(ErasedError, match=f"Version {version} .* was cleaned"):
            Table(table.folder, LABELS, version=version)
    with pytest.raises(ErasedError, match="that was cleaned"):
        table.log.version_at(began + timedelta(milliseconds=1))
    assert table.log.version_at(datetime.now(UTC)) == newest

    assert gc(warehouse, grace_s=0, dry_run=True).files == newest - 2
    assert len(list(table.folder.glob("*.parquet"))) == newest
    assert gc(warehouse, grace_s=0).files == newest - 2
    assert len(list(table.folder.glob("*.parquet"))) == 2
    assert Table(table.folder, LABELS, version=7).read().equals(pinned)
    assert gc(warehouse, grace_s=0).files == 0

    warehouse.append("labels", labels(range(100, 105)), command="x")  # and it goes on
    assert table.log.versions() == [7, newest, newest + 1]
    assert not compact(warehouse, ["labels"], retention_days=30).tables[0].expired


@pytest.mark.parametrize("stop", range(14))
def test_a_failure_while_versions_go_hurts_nothing(warehouse: Warehouse, stop: int) -> None:
    warehouse.append("records", records(range(10)), command="x")
    for i in range(6):
        warehouse.replace("labels", labels(range(10), float(i)), command="x")
    scored(warehouse, {"labels": 3})
    before = warehouse.table("labels").read()
    count = 0

    def fail(step: disk.Step, done: bool) -> None:  # noqa: FBT001  the watcher's interface
        nonlocal count
        count += 1
        if count > stop:
            raise OSError(28, "No space left on device")

    with disk.watch(fail), pytest.raises(WarehouseError, match="No space left"):
        compact(warehouse, ["labels"], retention_days=0)
    opened = Warehouse(warehouse.root)
    assert opened.table("labels").read().equals(before)
    assert Table(warehouse.root / "labels", LABELS, version=3).read()["label"][0].as_py() == 2.0
    compact(opened, ["labels"], retention_days=0)
    assert opened.table("labels").log.versions() == [3, 6]
    assert gc(opened, grace_s=0).files == 4


def old(path: Path, seconds: float = 100_000) -> None:
    then = time.time() - seconds
    for one in [path, *path.rglob("*")]:
        os.utime(one, (then, then))


def test_litter_goes_by_age_and_a_living_command_keeps_its_own(warehouse: Warehouse) -> None:
    warehouse.append("records", records(range(3)), command="x")
    warehouse.append("labels", labels(range(3)), command="x")
    folder = warehouse.root / "labels"
    shard = folder / f"{'0' * 64}.parquet"
    stranger = folder / "part-0000.snappy.parquet"
    temporary = folder / "_delta_log" / ".00000000000000000002.json.abc.tmp"
    dead, living = folder / "_staging" / "dead", folder / "_staging" / "living"
    for one in (dead, living):
        one.mkdir(parents=True)
        write_shards(one, LABELS, labels([7]))
    for file in (shard, stranger, temporary):
        file.write_bytes(b"x" * 100)
    litter: tuple[Path, ...] = (shard, stranger, temporary, dead, living)
    with claim(living):
        assert gc(warehouse).files == 0
        assert all(one.exists() for one in litter)
        for one in litter:
            old(one)
        planned = gc(warehouse, dry_run=True)
        assert all(one.exists() for one in litter)
        done = gc(warehouse)
        assert done.files == planned.files == 3
        assert [one.exists() for one in litter] == [False, True, False, False, True]
    kinds = {one.what: one.removed for one in done.found}
    assert kinds["not a file of ecgstore: left"] is False
    gc(warehouse, grace_s=0)
    assert not living.exists()
    assert warehouse.table("labels").read().num_rows == 3


def test_commands_say_what_they_did(warehouse: Warehouse, run: Callable[..., Any]) -> None:
    warehouse.append("records", records(range(4)), command="x")
    for i in range(3):
        warehouse.append("labels", labels([i]), command="x")
    done = run("-w", warehouse.root, "compact", "labels", "--json")
    assert done.code == 0
    assert '"merged": 3' in done.out
    again = run("-w", warehouse.root, "compact")
    assert "unchanged: nothing to merge, remove or let go" in again.err
    run("-w", warehouse.root, "compact", "--retention", "0")
    done = run("-w", warehouse.root, "gc", "--grace", "0", "--dry-run")
    assert "3 files" in done.err
    assert "would be removed" in done.err
    assert run("-w", warehouse.root, "gc", "--grace", "0").code == 0
    assert run("-w", warehouse.root, "compact", "beats").code == 2
    assert "Unknown table 'beats'" in run("-w", warehouse.root, "compact", "beats").err
