"""Merged shards hold the same rows, in fewer files, whoever else writes."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import deltalake
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecgstore.errors import DamagedError, WarehouseError
from ecgstore.record import COLUMNS, INVALID
from ecgstore.schema import TABLES
from ecgstore.storage import disk, integrity
from ecgstore.storage.log import Entry, Log
from ecgstore.storage.merge import merge
from ecgstore.storage.tables import Table
from ecgstore.upkeep.compact import compact
from ecgstore.warehouse import Warehouse

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

LABELS = TABLES["labels"]
ROWS = 16


def labels(numbers: Iterable[int], value: float = 1.0) -> pa.Table:
    ids = [f"a/{i:05d}" for i in numbers]
    return pa.table({"record_id": ids, "task": ["MI"] * len(ids), "label": [value] * len(ids)})


def records(numbers: Iterable[int]) -> pa.Table:
    """Return records of which some have no patient id, by which they are sorted."""
    patients = [f"p{i % 7}" if i % 3 else None for i in numbers]
    ids = [f"a/{i:05d}" for i in numbers]
    return pa.table({"record_id": ids, "patient_id": pa.array(patients, pa.string())})


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


@contextmanager
def small_shards() -> Iterator[None]:
    """Let a shard be as large as it should be with very few rows."""
    tables = {name: replace(one, rows_per_file=ROWS) for name, one in TABLES.items()}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ecgstore.schema.TABLES", tables)
        yield


def ordered(table: pa.Table) -> pa.Table:
    return table.sort_by([(name, "ascending") for name in ("record_id",)]).combine_chunks()


@pytest.fixture
def warehouse(tmp_path: Path) -> Warehouse:
    return Warehouse.create(tmp_path / "warehouse")


@settings(max_examples=6, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["append", "replace", "delete"]),
            st.sets(st.integers(0, 60), min_size=1, max_size=20),
        ),
        min_size=2,
        max_size=8,
    )
)
def test_rows_stay_the_same_whatever_came_before(
    tmp_path_factory: pytest.TempPathFactory, history: list[tuple[str, set[int]]]
) -> None:
    with small_shards():
        warehouse = Warehouse.create(tmp_path_factory.mktemp("history") / "w")
        warehouse.append("records", records(range(61)), command="x")
        for turn, (verb, numbers) in enumerate(history):
            rows = labels(sorted(numbers), float(turn))
            keys = rows.select(["record_id"])
            getattr(warehouse, verb)("labels", keys if verb == "delete" else rows, command=verb)
        for name in ("labels", "records"):
            before = warehouse.table(name)
            whole = {
                n for n, one in before.snapshot.entries.items() if (one.rows or 0) >= ROWS // 2
            }
            (done,) = compact(warehouse, [name]).tables
            after = warehouse.table(name)
            assert ordered(after.read()).equals(ordered(before.read()))
            sizes = [one.rows or 0 for one in after.snapshot.entries.values()]
            assert done.left == len(sizes)
            assert max(sizes, default=0) <= ROWS
            assert sum(size < ROWS // 2 for size in sizes) <= 1
            assert whole <= after.snapshot.entries.keys()
            for path in after.files():
                rows = pq.read_table(path)
                order = [(column, "ascending") for column in TABLES[name].sort]
                assert rows.equals(rows.sort_by(order))
        assert not compact(warehouse).changed


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


def test_a_row_that_gets_its_record_meanwhile_stays(warehouse: Warehouse) -> None:
    warehouse.append("labels", labels(range(10)), command="x")
    warehouse.append("records", records(range(5)), command="x")
    others = [Warehouse(warehouse.root)]

    def ingest(step: disk.Step, done: bool) -> None:  # noqa: FBT001  the watcher's interface
        if done and step.kind == "rename" and step.path.parent.parent.name == "_staging" and others:
            others.pop().append("records", records([7]), command="ingest")

    with disk.watch(ingest):
        assert compact(warehouse, ["labels"]).tables[0].dropped == 4
    kept = warehouse.table("labels").read()["record_id"].to_pylist()
    assert kept == [f"a/{i:05d}" for i in (0, 1, 2, 3, 4, 7)]


def test_rot_that_no_note_tells_is_not_written_anew(warehouse: Warehouse) -> None:
    warehouse.append("records", records(range(20)), command="x")
    for i in (0, 10):
        warehouse.append("labels", labels(range(i, i + 10)), command="x")
    table = warehouse.table("labels")
    path = table.files()[0]
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    integrity.remember(table.folder, [path.name])  # as if it had been seen whole like this
    with pytest.raises(DamagedError, match="was changed after it was written"):
        compact(warehouse, ["labels"])
    assert warehouse.table("labels").version == table.version


def test_a_full_disk_after_the_commit_leaves_small_shards_and_says_so(
    warehouse: Warehouse, caplog: pytest.LogCaptureFixture
) -> None:
    for i in range(63):
        warehouse.append("labels", labels([i]), command="x")
    committed = False

    def fill(step: disk.Step, done: bool) -> None:  # noqa: FBT001  the watcher's interface
        nonlocal committed
        committed |= done and step.kind == "link" and step.path.suffix != ".parquet"
        if committed and step.kind == "create":
            raise OSError(28, "No space left on device")

    with disk.watch(fill):
        assert warehouse.append("labels", labels([63]), command="x") == 1
    assert "Small shards of table labels stay as they are" in caplog.text
    assert warehouse.table("labels").read().num_rows == 64
    assert len(warehouse.table("labels").files()) == 64
    warehouse.append("labels", labels([64]), command="x")
    assert len(warehouse.table("labels").files()) < 32


def test_shards_of_another_engine_are_merged_too(warehouse: Warehouse) -> None:
    warehouse.append("records", records(range(30)), command="x")
    warehouse.append("labels", labels(range(10)), command="x")
    folder = warehouse.root / "labels"
    for i in (20, 10):
        rows = labels(range(i, i + 10)).select(["task", "record_id", "label"])
        name = f"part-{i}.snappy.parquet"
        pq.write_table(rows, folder / name)
        base = Log(folder).snapshot()
        entry = Entry(name, (folder / name).stat().st_size, None, base.time_ms)
        Log(folder).commit(base, add=[entry], command="x")
    compact(warehouse)
    (path,) = warehouse.table("labels").files()
    assert pq.read_table(path)["record_id"].to_pylist() == [f"a/{i:05d}" for i in range(30)]
    assert not compact(warehouse).changed


def test_commands_say_what_they_did(warehouse: Warehouse, run: Callable[..., Any]) -> None:
    warehouse.append("records", records(range(4)), command="x")
    for i in range(3):
        warehouse.append("labels", labels([i]), command="x")
    done = run("-w", warehouse.root, "compact", "labels", "--json")
    assert done.code == 0
    assert '"merged": 3' in done.out
    again = run("-w", warehouse.root, "compact")
    assert "unchanged: nothing to merge, remove or let go" in again.err
    assert run("-w", warehouse.root, "compact", "beats").code == 2
    assert "Unknown table 'beats'" in run("-w", warehouse.root, "compact", "beats").err
