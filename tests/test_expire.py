"""Old versions go when nobody needs them; whatever is kept opens as before, whenever it stops."""

from __future__ import annotations

import random
import shutil
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import deltalake
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecgstore.errors import ErasedError, WarehouseError
from ecgstore.schema import TABLES
from ecgstore.storage import disk
from ecgstore.storage.expire import EXPIRING, expire, expired, named
from ecgstore.storage.log import CHECKPOINT_EVERY, Entry, Log
from ecgstore.storage.tables import Table
from ecgstore.upkeep.compact import compact
from ecgstore.upkeep.gc import gc
from ecgstore.upkeep.verify import verify
from ecgstore.warehouse import Warehouse

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from ecgstore.storage.log import Snapshot

LABELS = TABLES["labels"]


def labels(numbers: Iterable[int], value: float = 1.0) -> pa.Table:
    ids = [f"a/{i:05d}" for i in numbers]
    return pa.table({"record_id": ids, "task": ["MI"] * len(ids), "label": [value] * len(ids)})


def scored(warehouse: Warehouse, versions: dict[str, int]) -> None:
    """Let a run say which versions it read."""
    text = "{" + ", ".join(f'"{name}": {version}' for name, version in versions.items()) + "}"
    row = {"run_id": ["r"], "repeat": pa.array([0], pa.int32()), "metric": ["auroc"]}
    warehouse.append("scores", pa.table({**row, "versions": [text]}), command="evaluate")


@pytest.fixture
def warehouse(tmp_path: Path) -> Warehouse:
    made = Warehouse.create(tmp_path / "warehouse")
    ids = pa.table({"record_id": [f"a/{i:05d}" for i in range(10)]})
    made.append("records", ids, command="x")
    return made


def filled(warehouse: Warehouse, versions: int) -> Table:
    for i in range(versions):
        warehouse.replace("labels", labels(range(10), float(i)), command="x")
    return warehouse.table("labels")


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[int, Snapshot]]:
    """Return a table of more commits than lie between two checkpoints, and all its versions."""
    log = Log(Table.create(tmp_path_factory.mktemp("long") / "labels", LABELS).folder)
    state = log.snapshot()
    seen = {0: state}
    for i in range(CHECKPOINT_EVERY + 6):
        new = [Entry(f"{i:064x}.parquet", 1, 1, 1)]
        state = log.commit(state, add=new, remove=[*state.entries][: i % 3], command="x")
        seen[state.version] = state
    return log.folder, seen


@settings(max_examples=8, deadline=None)
@given(
    cut=st.integers(0, CHECKPOINT_EVERY + 6),
    pins=st.sets(st.integers(0, CHECKPOINT_EVERY + 6), max_size=4),
    later=st.integers(0, CHECKPOINT_EVERY + 6),
)
def test_what_is_kept_is_as_it_was(
    long: tuple[Path, dict[int, Snapshot]],
    tmp_path_factory: pytest.TempPathFactory,
    cut: int,
    pins: set[int],
    later: int,
) -> None:
    folder, before = long
    log = Log(shutil.copytree(folder, tmp_path_factory.mktemp("log") / "labels"))
    times = {v: datetime.fromtimestamp(one.time_ms / 1000, UTC) for v, one in before.items()}
    gone: set[int] = set()
    for edge in sorted((cut, later)):
        go = expired(log, before=times[edge], keep=pins)
        gone |= {*go}
        expire(log, go)
        assert gone == {v for v in times if v < edge and v not in pins}
        assert log.versions() == sorted(times.keys() - gone)
    for version in log.versions():
        kept = log.snapshot(version)
        assert kept.entries == before[version].entries
        assert kept.time_ms == before[version].time_ms
        if version in {*pins, max(cut, later), log.newest()}:
            theirs = deltalake.DeltaTable(log.folder, version=version)
            assert len(theirs.file_uris()) == len(kept.entries)
    assert {*named(log)} == {name for v in log.versions() for name in before[v].entries}
    edge = max(cut, later)
    assert all(log.version_at(at) == v for v, at in times.items() if v >= edge)
    for version, at in times.items():
        if version < edge:
            try:
                assert log.version_at(at) == version
            except ErasedError:
                assert {version, version + 1} & gone


def test_versions_go_but_for_the_newest_and_those_a_run_has_read(warehouse: Warehouse) -> None:
    table = filled(warehouse, CHECKPOINT_EVERY + 20)
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
    assert [one.version for one in table.log.commits()] == [newest, 7]
    assert table.log.snapshot().tombstones.keys() == Log(table.folder).snapshot(7).entries.keys()

    assert gc(warehouse, grace_s=0, dry_run=True).files == newest - 2
    assert len(list(table.folder.glob("*.parquet"))) == newest
    assert gc(warehouse, grace_s=0).files == newest - 2
    assert len(list(table.folder.glob("*.parquet"))) == 2
    assert Table(table.folder, LABELS, version=7).read().equals(pinned)
    assert gc(warehouse, grace_s=0).files == 0
    assert verify(warehouse).clean

    warehouse.append("labels", labels(range(100, 105)), command="x")  # and it goes on
    assert table.log.versions() == [7, newest, newest + 1]
    assert not compact(warehouse, ["labels"], retention_days=30).tables[0].expired


@pytest.mark.parametrize("seed", range(12))
def test_whichever_files_a_loss_of_power_leaves_the_next_cleaning_ends_it(
    warehouse: Warehouse, seed: int
) -> None:
    table = filled(warehouse, 9)
    log = table.log
    chance = random.Random(seed)
    pinned = chance.randrange(9)
    go = [v for v in range(9) if v != pinned]
    kept = {v: Table(table.folder, LABELS, version=v).read() for v in range(10) if v not in go}

    def cut(step: disk.Step, done: bool) -> None:  # noqa: FBT001
        if (step.kind, step.path.name, done) == ("remove", EXPIRING, False):
            raise InterruptedError

    before = {path: path.read_bytes() for path in log.path.iterdir()}
    with pytest.raises(InterruptedError), disk.watch(cut):
        expire(log, go)
    gone = [path for path in before if not path.exists()]
    for path in chance.sample(gone, len(gone) // 2):
        path.write_bytes(before[path])

    assert {one.severity for one in verify(warehouse).findings} <= {"leftover"}
    for version, rows in kept.items():
        assert Table(table.folder, LABELS, version=version).read().equals(rows)
    scored(warehouse, {"labels": pinned})
    compact(warehouse, ["labels"], retention_days=0)
    assert log.versions() == sorted(kept)
    assert verify(warehouse).clean
    for version, rows in kept.items():
        assert Table(table.folder, LABELS, version=version).read().equals(rows)


def test_how_it_was_within_the_retention_can_still_be_opened(warehouse: Warehouse) -> None:
    table = filled(warehouse, 5)
    log, rows = table.log, {v: Table(table.folder, LABELS, version=v).read() for v in range(1, 6)}
    edge = log.told(4).at - timedelta(microseconds=500)  # version 3 was the newest then
    expire(log, expired(log, before=edge))
    assert log.versions() == [3, 4, 5]
    assert Warehouse(warehouse.root, at=edge).table("labels").read().equals(rows[3])


@pytest.mark.parametrize("pinned", [False, True])
def test_an_open_warehouse_notices_that_versions_went(
    warehouse: Warehouse, *, pinned: bool
) -> None:
    warehouse.append("labels", labels([0]), command="x")
    idle = Warehouse(warehouse.root)
    late = idle.table("labels")
    assert late.version == 1
    if pinned:
        scored(warehouse, {"labels": 1})
    for i in range(1, 6):
        warehouse.append("labels", labels([i]), command="x")
    compact(warehouse, ["labels"], retention_days=0)
    newest = warehouse.table("labels").version
    assert warehouse.table("labels").log.versions() == [1, newest][not pinned :]

    assert idle.table("labels").version == newest
    assert late.append(labels([6]), command="x") == 1
    assert idle.append("labels", labels([7]), command="x") == 1
    seen = Warehouse(warehouse.root).table("labels")
    assert (seen.version, seen.read().num_rows) == (newest + 2, 8)


@pytest.mark.slow
def test_a_failure_at_any_step_hurts_nothing_and_the_next_call_ends_it(
    warehouse: Warehouse, tmp_path: Path
) -> None:
    table = filled(warehouse, 6)
    scored(warehouse, {"labels": 3})
    before, third = table.read(), Table(table.folder, LABELS, version=3).read()
    failed = 0
    while True:
        trial = Warehouse(shutil.copytree(warehouse.root, tmp_path / str(failed)))
        try:
            with disk.watch(Failing(failed)):
                compact(trial, ["labels"], retention_days=0)
        except WarehouseError:
            pass
        else:
            break
        failed += 1
        opened = Warehouse(trial.root)
        assert opened.table("labels").read().equals(before)
        assert Table(trial.root / "labels", LABELS, version=3).read().equals(third)
        assert deltalake.DeltaTable(trial.root / "labels").version() == 6
        assert {one.severity for one in verify(opened).findings} <= {"leftover"}
        compact(opened, ["labels"], retention_days=0)
        log = opened.table("labels").log
        assert log.versions() == [3, 6]
        kept = {f"{v:020d}.{kind}" for v in (3, 6) for kind in ("json", "checkpoint.parquet")}
        gc(opened, grace_s=0)
        assert {path.name for path in log.path.iterdir()} == {*kept, "_last_checkpoint"}
        assert len(list(log.folder.glob("*.parquet"))) == 2
        assert verify(opened).findings == ()
    assert failed > 20


class Failing:
    """A disk that is full after so many steps."""

    def __init__(self, left: int) -> None:
        self.left = left

    def __call__(self, _: disk.Step, done: bool) -> None:  # noqa: FBT001  the watcher's interface
        if not done:
            if not self.left:
                raise OSError(28, "No space left on device")
            self.left -= 1


def test_an_old_warehouse_without_some_tables_is_looked_after(warehouse: Warehouse) -> None:
    shutil.rmtree(warehouse.root / "windows")
    done = compact(warehouse, retention_days=0)
    assert "windows" not in {one.table for one in done.tables}
    assert not gc(warehouse, grace_s=0).found
    assert not (warehouse.root / "windows").exists()
