"""Verify finds what is wrong, names it, and takes nothing that is right for wrong."""

from __future__ import annotations

import errno
import hashlib
import json
import shutil
import threading
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import deltalake
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ecgstore.errors import UnknownNameError, UsageError
from ecgstore.record import COLUMNS
from ecgstore.schema import TABLES
from ecgstore.storage import disk
from ecgstore.storage.commits import Entry
from ecgstore.storage.expire import expire
from ecgstore.storage.log import Log
from ecgstore.storage.shards import write_shards
from ecgstore.upkeep.verify import verify
from ecgstore.warehouse import Warehouse

if TYPE_CHECKING:
    from ecgstore.upkeep.findings import Finding

SNAPSHOTS = Path(__file__).resolve().parent / "snapshots"
NOBODY = 65534


def labels(numbers: range, value: float = 1.0) -> pa.Table:
    ids = [f"a/{i}" for i in numbers]
    return pa.table({"record_id": ids, "task": ["MI"] * len(ids), "label": [value] * len(ids)})


def waveforms(numbers: range) -> pa.Table:
    ids = [f"a/{i}" for i in numbers]
    leads = {name: pa.array([[i, 2, 3] for i in numbers], pa.list_(pa.int16())) for name in COLUMNS}
    gain, baseline = (
        [[200.0] * 12] * len(ids),
        pa.array([[0] * 12] * len(ids), pa.list_(pa.int32())),
    )
    return pa.table({"record_id": ids, "gain": gain, "baseline": baseline, **leads})


def records(numbers: range) -> pa.Table:
    ids = [f"a/{i}" for i in numbers]
    samples = pa.array([3] * len(ids), pa.int32())
    return pa.table({"record_id": ids, "dataset": ["a"] * len(ids), "n_samples": samples})


@pytest.fixture
def house(tmp_path: Path) -> Warehouse:
    """Return a warehouse of ten records, labelled in two commits."""
    house = Warehouse.create(tmp_path / "house")
    house.append("waveforms", waveforms(range(10)), command="ingest")
    house.append("records", records(range(10)), command="ingest")
    house.append("labels", labels(range(4)), command="labels MI")
    house.append("labels", labels(range(4, 10)), command="labels MI")
    return house


def shards(house: Warehouse, table: str) -> list[Path]:
    """List the shards of the newest version, oldest first."""
    return [house.root / table / name for name in Log(house.root / table).snapshot().entries]


def flip(path: Path, bit: int) -> None:
    data = bytearray(path.read_bytes())
    data[bit // 8] ^= 1 << bit % 8
    path.write_bytes(data)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def kinds(house: Warehouse, **options: Any) -> list[str]:
    return [one.severity for one in verify(house, **options).findings]


def only(house: Warehouse, **options: Any) -> Finding:
    (finding,) = verify(house, **options).findings
    return finding


def tree(folder: Path) -> dict[str, bytes]:
    found = folder.rglob("*")
    return {str(path.relative_to(folder)): path.read_bytes() for path in found if path.is_file()}


# ------------------------------------------------------------------------ what is found


def test_a_whole_warehouse_is_clean_and_counted(house: Warehouse) -> None:
    done = verify(house)
    assert done.clean
    assert done.findings == ()
    commits = len(TABLES) + 4
    assert (done.tables, done.shards, done.commits, done.unsealed) == (len(TABLES), 4, commits, 0)
    assert done.versions == commits
    assert done.bytes == sum(path.stat().st_size for t in TABLES for path in shards(house, t))
    assert f"all is well: {len(TABLES)} tables" in repr(done)


def test_progress_counts_every_shard(house: Warehouse) -> None:
    class Bar:
        total = done = 0

        def start(self, total: int, unit: str) -> None:
            assert unit == "shards"
            self.total += total

        def advance(self, done: int = 1, *, rejected: int = 0) -> None:
            self.done += done + rejected

        def tell(self, text: str) -> None:
            raise AssertionError(text)

        def note(self, message: str) -> None:
            raise AssertionError(message)

    bar = Bar()
    verify(house, progress=bar)
    assert bar.done == bar.total == 4


def test_tables_are_chosen_by_name(house: Warehouse) -> None:
    flip(shards(house, "labels")[0], 99)
    assert kinds(house, tables=["records", "waveforms"]) == []
    assert kinds(house, tables=["labels"]) == ["damage"]
    with pytest.raises(UnknownNameError, match="'lables'"):
        verify(house, tables=["lables"])


def test_fast_reads_no_shard(house: Warehouse) -> None:
    first, second = shards(house, "labels")
    flip(first, 99)
    assert verify(house, fast=True).bytes == 0
    assert kinds(house, fast=True) == []
    cut(second)
    assert only(house, fast=True).file == f"labels/{second.name}"
    with pytest.raises(UsageError, match="cannot be fast"):
        verify(house, fast=True, repair=True)


def put_shard(house: Warehouse, table: str, rows: pa.Table, *, told: int | None = None) -> Path:
    """Commit a shard past every check of ours, as another program could."""
    sink = pa.BufferOutputStream()
    pq.write_table(rows, sink)
    data = sink.getvalue().to_pybytes()
    path = house.root / table / f"{hashlib.sha256(data).hexdigest()}.parquet"
    path.write_bytes(data)
    log = Log(house.root / table)
    entry = Entry(path.name, len(data), rows.num_rows if told is None else told, 1)
    log.commit(log.snapshot(), add=[entry], command="other")
    return path


def test_a_key_that_occurs_twice_is_found_at_every_version(house: Warehouse) -> None:
    again = put_shard(house, "labels", labels(range(3, 6), 0.0))
    found = only(house)
    assert (found.severity, found.version, found.what) == (
        "damage",
        3,
        "3 rows repeat the key of another.",
    )
    log = Log(house.root / "labels")
    log.commit(log.snapshot(), remove=[again.name], command="other")
    assert only(house).severity == "history"
    assert only(house).version == 3


@pytest.mark.parametrize(
    ("table", "rows", "what"),
    [
        ("labels", {"record_id": ["a/1"], "task": ["x"], "label": ["high"]}, "cannot be stored"),
        ("labels", {"record_id": ["a/1"], "task": ["x"], "colour": [1]}, "no column 'colour'"),
        ("labels", {"record_id": [None], "task": ["x"]}, "'record_id' holds NULL"),
        (
            "embeddings",
            {
                "record_id": ["a/1"],
                "model": ["m"],
                "version": ["v"],
                "pooling": ["p"],
                "dim": [2],
                "embedding": [[1.0, float("nan")]],
            },
            "holds NaN",
        ),
        (
            "feature_sets",
            {"name": ["f"], "definition": ["{"]},
            "text in 'definition' that is no JSON",
        ),
    ],
)
def test_rows_that_do_not_fit_their_table(
    house: Warehouse, table: str, rows: dict[str, Any], what: str
) -> None:
    path = put_shard(house, table, pa.table(rows))
    found = only(house, tables=[table])
    assert (found.severity, found.file) == ("damage", f"{table}/{path.name}")
    assert what in found.what


def test_a_shard_that_holds_other_rows_than_the_log_says(house: Warehouse) -> None:
    put_shard(house, "labels", labels(range(10, 12)), told=3)
    assert "holds 2 rows, not 3" in verify(house, tables=["labels"]).findings[0].what


def test_commits_of_other_engines_are_counted(house: Warehouse) -> None:
    table = deltalake.DeltaTable(house.root / "labels")
    table.alter.set_table_properties({"delta.appendOnly": "false"})
    done = verify(house)
    assert done.clean
    assert done.unsealed == 1
    assert "(1 unsealed)" in done.summary


def test_rows_of_no_record_are_left_over_and_records_without_signal_are_damage(
    house: Warehouse,
) -> None:
    house.append("labels", labels(range(20, 23)), command="labels MI")
    found = only(house)
    assert (found.severity, found.table, found.what[:6]) == ("leftover", "labels", "3 rows")
    house.append("records", records(range(20, 23)), command="ingest")
    found = only(house)
    assert (found.severity, found.table) == ("damage", "records")
    assert found.what.startswith("3 records have no waveform")
    ids = pa.table({"record_id": ["a/30"]})  # made by hand, without samples
    house.append("records", ids, command="test")
    assert only(house).what.startswith("3 records")


def test_a_run_that_read_what_is_gone(house: Warehouse) -> None:
    read = json.dumps({"labels": 9, "records": 1})
    row = {
        "run_id": ["ab"],
        "repeat": [0],
        "metric": ["AUROC"],
        "versions": [read],
        "params": ["{}"],
    }
    rows = pa.table(row).cast(pa.schema([(n, TABLES["scores"].arrow.field(n).type) for n in row]))
    house.append("scores", rows, command="evaluate")
    found = only(house)
    assert (found.severity, found.table, found.version) == ("damage", "labels", 9)
    assert found.what == "A run read version 9, but the newest is 2: commits were lost."


def test_what_lies_about_is_named_and_harmless(house: Warehouse) -> None:
    table = house.root / "labels"
    lying = {
        "notes.txt": house.root / "notes.txt",
        "_erasing.json": house.root / "_erasing.json",
        "labels/.x.tmp": table / ".x.tmp",
        "labels/part-0.parquet": table / "part-0.parquet",
        "labels/readme": table / "readme",
        "labels/_delta_log/.0.json.ab.tmp": table / "_delta_log" / ".0.json.ab.tmp",
        "labels/_delta_log/0.json": table / "_delta_log" / "0.json",
        "_cache/feed/1/x": house.root / "_cache" / "feed" / "1" / f"{'0' * 64}.arrow",
    }
    for path in lying.values():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"{}")
    (table / "_staging" / "dead").mkdir(parents=True)
    done = verify(house)
    assert done.clean
    assert {one.severity for one in done.findings} == {"leftover"}
    named = {one.file for one in done.findings}
    assert named >= lying.keys() - {"_cache/feed/1/x"} | {"labels/_staging/dead"}
    assert len(named) == len(lying) + 1
    assert all(one.remedy for one in done.findings)


def test_what_a_living_command_has_staged_is_not_left_over(house: Warehouse) -> None:
    with house.table("labels").staging() as folder:
        write_shards(folder, TABLES["labels"], labels(range(3)))
        assert kinds(house) == []


def test_erased_versions_are_as_they_should_be(house: Warehouse) -> None:
    old = shards(house, "labels")
    house.delete("labels", labels(range(2)).select(["record_id"]), command="forget")
    old[0].unlink()
    assert kinds(house) == []
    old[1].rename(old[1].with_suffix(".gone"))  # this one the erasure did not touch
    assert "damage" in kinds(house)


def test_versions_that_were_let_go_are_not_missed(house: Warehouse) -> None:
    """Not even when the cleaning was stopped: nothing that is kept needs what it left."""
    for number in range(10, 16):
        house.append("labels", labels(range(number, number + 1)), command="labels MI")
    for left in count():
        trial = house.root.with_name(f"{left}")
        shutil.copytree(house.root, trial)
        try:
            with disk.watch(Failing(left)):
                expire(Log(trial / "labels"), [0, 1, 3, 4, 6])
        except OSError:
            assert {one.severity for one in verify(Warehouse(trial)).findings} <= {"leftover"}
        else:
            break
    assert left > 20
    assert Log(trial / "labels").versions() == [2, 5, 7, 8]
    done = verify(Warehouse(trial), tables=["labels"])
    assert (done.findings, done.versions) == ((), 4)


class Failing:
    """A disk that fails after so many steps."""

    def __init__(self, steps: int) -> None:
        self._steps = steps

    def __call__(self, step: disk.Step, done: bool) -> None:  # noqa: FBT001  the watcher's interface
        self._steps -= done
        if self._steps < 0:
            raise OSError(errno.EIO, step.kind)


def test_nothing_is_damaged_while_others_write(house: Warehouse) -> None:
    stop = threading.Event()

    def write() -> None:
        own = Warehouse(house.root)
        for i in range(20, 200):
            own.append("waveforms", waveforms(range(i, i + 1)), command="ingest")
            own.append("records", records(range(i, i + 1)), command="ingest")
            if stop.is_set():
                return

    writer = threading.Thread(target=write)
    writer.start()
    try:
        seen = [verify(house) for _ in range(12)]
    finally:
        stop.set()
        writer.join()
    assert all(done.clean for done in seen), [done.findings for done in seen if not done.clean]
    assert seen[-1].versions > seen[0].versions
