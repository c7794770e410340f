"""Repair takes away only what cannot be read, says what is lost, and may be killed at any step."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import deltalake
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ecgstore.errors import LogError
from ecgstore.record import COLUMNS
from ecgstore.schema import TABLES
from ecgstore.storage import disk
from ecgstore.storage.log import Log
from ecgstore.storage.shards import write_shards
from ecgstore.upkeep.mend import mend
from ecgstore.upkeep.verify import verify
from ecgstore.warehouse import Warehouse

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from ecgstore.storage.disk import Step
    from ecgstore.upkeep.verify import VerifyResult


def labels(numbers: range, value: float = 1.0) -> pa.Table:
    ids = [f"a/{i}" for i in numbers]
    return pa.table({"record_id": ids, "task": ["MI"] * len(ids), "label": [value] * len(ids)})


def waveforms(numbers: range) -> pa.Table:
    ids = [f"a/{i}" for i in numbers]
    leads = {name: pa.array([[i, 2, 3] for i in numbers], pa.list_(pa.int16())) for name in COLUMNS}
    return pa.table({"record_id": ids, "gain": [[200.0] * 12] * len(ids), **leads})


def records(numbers: range) -> pa.Table:
    ids = [f"a/{i}" for i in numbers]
    samples = pa.array([3] * len(ids), pa.int32())
    return pa.table({"record_id": ids, "dataset": ["a"] * len(ids), "n_samples": samples})


@pytest.fixture
def house(tmp_path: Path) -> Warehouse:
    """Return a warehouse of ten records in two shards of each table."""
    house = Warehouse.create(tmp_path / "house")
    for numbers in (range(4), range(4, 10)):
        house.append("waveforms", waveforms(numbers), command="ingest")
        house.append("labels", labels(numbers), command="ingest")
        house.append("records", records(numbers), command="ingest")
    return house


def shards(house: Warehouse, table: str) -> list[Path]:
    """List the shards of the newest version, oldest first."""
    return [house.root / table / name for name in Log(house.root / table).snapshot().entries]


def log_file(house: Warehouse, table: str, version: int) -> Path:
    return house.root / table / "_delta_log" / f"{version:020d}.json"


def flip(path: Path, bit: int) -> None:
    data = bytearray(path.read_bytes())
    data[bit // 8] ^= 1 << bit % 8
    path.write_bytes(data)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def ids(house: Warehouse, table: str) -> list[int]:
    rows = Warehouse(house.root).table(table).read(["record_id"])
    return sorted(int(name[2:]) for name in rows["record_id"].to_pylist())


def tree(folder: Path) -> dict[str, bytes]:
    found = [path for path in folder.rglob("*") if path.is_file()]
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in found
        if path.relative_to(folder).parts[0] not in ("_cache", "_locks")
    }


def repair(house: Warehouse) -> VerifyResult:
    return verify(Warehouse(house.root), repair=True)


def set_aside(house: Warehouse) -> list[str]:
    """Name what was set aside, below the folder of its repair; nothing may be there twice."""
    home = house.root / "_set_aside"
    return sorted("/".join(path.relative_to(home).parts[1:]) for path in home.rglob("*.*[!Z]"))


def report(house: Warehouse) -> list[dict[str, Any]]:
    (path,) = house.root.glob("_set_aside/*/report.json")
    told: list[dict[str, Any]] = json.loads(path.read_bytes())
    return told


def test_a_whole_warehouse_is_left_as_it_is(house: Warehouse) -> None:
    before = tree(house.root)
    assert repair(house).findings == ()
    assert tree(house.root) == before


# ------------------------------------------------------------------------------ the log


@pytest.mark.parametrize("length", [0, 1, 300])
def test_a_torn_newest_commit_goes_and_the_table_is_as_before(
    house: Warehouse, length: int
) -> None:
    path = log_file(house, "labels", 2)
    path.write_bytes(path.read_bytes()[:length])
    done = repair(house)
    assert done.clean
    assert [one.severity for one in done.findings] == ["repaired", "leftover"]
    assert done.findings[0].file == "labels/_delta_log/00000000000000000002.json"
    assert "what it did is undone" in done.findings[0].what
    assert ids(house, "labels") == [0, 1, 2, 3]
    assert f"labels/{path.name}" in set_aside(house)
    again = Warehouse(house.root)
    assert again.append("labels", labels(range(4, 10)), command="ingest") == 6
    assert verify(house).findings == ()


def test_a_process_that_saw_what_was_set_aside_commits_nothing_on_it(house: Warehouse) -> None:
    seen = house.table("labels")
    cut(log_file(house, "labels", 2))
    assert repair(house).clean
    for stale in (seen, house.table("labels")):
        with pytest.raises(LogError, match="json' is missing"):
            stale.append(labels(range(20, 22)), command="ingest")
    assert Warehouse(house.root).append("labels", labels(range(20, 22)), command="ingest") == 2
    assert verify(house).clean


def test_a_torn_first_commit_leaves_a_table_to_be_made_anew(house: Warehouse) -> None:
    path = log_file(house, "rejects", 0)
    path.write_bytes(b"")
    assert repair(house).clean
    assert Warehouse.create(house.root).table("rejects").version == 0
    assert verify(house).findings == ()


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("bit", [5, 700, 1501, 3000])
def test_a_flipped_bit_of_a_commit_is_flipped_back(
    house: Warehouse, version: int, bit: int
) -> None:
    before = tree(house.root)
    flip(log_file(house, "labels", version), bit)
    assert not verify(house).clean
    done = repair(house)
    assert done.clean
    assert [one.severity for one in done.findings] == ["repaired"]
    after = tree(house.root)
    assert {name: after[name] for name in before} == before
    assert set_aside(house) == [f"labels/{version:020d}.json"]


def test_a_damaged_commit_under_a_checkpoint_costs_the_past_only(house: Warehouse) -> None:
    log = Log(house.root / "labels")
    log.checkpoint(log.snapshot())
    cut(log_file(house, "labels", 1))
    found = verify(house).findings
    assert [(one.severity, one.version) for one in found] == [("history", 1)]
    assert "version 1 cannot be opened; newer ones can" in found[0].what
    done = repair(house)
    assert done.clean
    assert [one.severity for one in done.findings] == ["repaired", "lost"]
    assert ids(house, "labels") == list(range(10))
    assert [one.severity for one in verify(house).findings] == ["lost"]
    before = tree(house.root)
    assert [one.severity for one in repair(house).findings] == ["lost"]
    assert tree(house.root) == before


@pytest.mark.parametrize("name", ["00000000000000000002.checkpoint.parquet", "_last_checkpoint"])
def test_a_damaged_checkpoint_is_made_anew(house: Warehouse, name: str) -> None:
    log = Log(house.root / "labels")
    log.checkpoint(log.snapshot())
    before = tree(house.root)
    cut(log.path / name)
    found = verify(house).findings
    assert found[0].severity == "damage"
    done = repair(house)
    assert done.clean
    assert {one.severity for one in done.findings} == {"repaired"}
    after = tree(house.root)
    assert {one: after[one] for one in before} == before
    assert deltalake.DeltaTable(log.folder).version() == 2


def test_a_checkpoint_that_contradicts_the_commits_is_made_anew(house: Warehouse) -> None:
    log = Log(house.root / "labels")
    right = log.checkpoint(log.snapshot()).read_bytes()
    wrong = log.checkpoint(log.snapshot(1)).read_bytes()
    log.checkpoint(log.snapshot())
    path = log.path / "00000000000000000002.checkpoint.parquet"
    path.write_bytes(wrong)
    (found,) = verify(house).findings
    assert (found.severity, found.what) == (
        "damage",
        "The log file does not say what the commits say.",
    )
    assert repair(house).clean
    assert path.read_bytes() == right
    assert ids(house, "labels") == list(range(10))


@pytest.mark.parametrize("harm", [cut, lambda path: path.unlink()])
def test_what_nothing_can_tell_is_left_as_it_is(
    house: Warehouse, harm: Callable[[Path], None]
) -> None:
    harm(log_file(house, "labels", 1))
    before = tree(house.root)
    done = repair(house)
    assert not done.clean
    assert [(one.severity, one.table) for one in done.findings] == [("damage", "labels")]
    assert "nothing else can bring it back" in done.findings[0].remedy
    assert tree(house.root) == before


# --------------------------------------------------------------------------- the shards


def test_a_lost_shard_costs_its_rows_and_says_how_many(house: Warehouse) -> None:
    path = shards(house, "labels")[0]
    flip(path, 400)
    done = repair(house)
    assert done.clean
    assert [one.severity for one in done.findings] == ["repaired", "lost"]
    assert "set aside, 4 rows are lost" in done.findings[0].what
    assert ids(house, "labels") == list(range(4, 10))
    assert report(house)[0] == {
        "table": "labels",
        "version": 2,
        "file": path.name,
        "what": "was changed after it was written",
        "rows": 4,
    }
    assert f"labels/{path.name}" in set_aside(house)
    assert Log(house.root / "labels").told(3).removed == 4
    before = tree(house.root)
    assert [one.severity for one in repair(house).findings] == ["lost"]
    assert tree(house.root) == before


def test_what_a_damaged_shard_still_shows_is_kept_for_whoever_has_the_sources(
    house: Warehouse,
) -> None:
    path = shards(house, "waveforms")[0]
    flip(path, path.stat().st_size * 8 // 2)
    assert repair(house).clean
    (listed,) = house.root.glob("_set_aside/*/waveforms/*.record_ids.json")
    assert json.loads(listed.read_bytes()) in ([f"a/{i}" for i in range(4)], [])


def test_records_whose_signal_is_lost_can_be_ingested_again(house: Warehouse) -> None:
    shards(house, "waveforms")[1].unlink()
    done = repair(house)
    assert done.clean
    repaired = [one for one in done.findings if one.severity == "repaired"]
    assert [one.table for one in repaired] == ["waveforms", "records"]
    assert repaired[1].what == "6 records had no waveform: their rows were set aside."
    assert ids(house, "records") == [0, 1, 2, 3]
    assert "records/without_waveform.parquet" in set_aside(house)
    again = Warehouse(house.root)
    again.append("waveforms", waveforms(range(4, 10)), command="ingest")
    assert again.append("records", records(range(4, 10)), command="ingest") == 6
    assert verify(house).findings == ()  # the same bytes: even older versions are whole again


def test_a_shard_that_only_the_past_needs(house: Warehouse) -> None:
    old = shards(house, "labels")[0]
    house.replace("labels", labels(range(4), 0.0), command="labels MI")
    cut(old)
    assert [one.severity for one in verify(house).findings] == ["history"]
    version = house.table("labels").version
    done = repair(house)
    assert [one.severity for one in done.findings] == ["repaired", "lost"]
    assert Warehouse(house.root).table("labels").version == version
    assert ids(house, "labels") == list(range(10))


@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize("harm", [cut, lambda path: path.unlink()])
def test_rows_that_older_shards_still_hold_are_put_together_again(
    house: Warehouse, parts: int, harm: Callable[[Path], None]
) -> None:
    table = house.table("labels")
    old, rows = table.files(), table.read().sort_by("record_id")
    with table.staging() as staging:
        new = [
            shard
            for part in range(parts)
            for shard in write_shards(
                staging, TABLES["labels"], rows.slice(part * 6, 10 if parts == 1 else 6)
            )
        ]
        assert table.swap(old, new, command="tidy")
    harm(shards(house, "labels")[0])
    done = repair(house)
    assert done.clean
    assert [one.severity for one in done.findings] == ["repaired"]
    assert "put together again from older shards" in done.findings[0].what
    assert Warehouse(house.root).table("labels").read().sort_by("record_id") == rows
    assert Warehouse(house.root).table("labels").version == 3  # the same bytes need no commit


def test_rows_erased_since_are_not_put_together_again(house: Warehouse) -> None:
    """A shard that a deletion made has fewer rows than the ones it was made of."""
    house.delete("labels", labels(range(2)).select(["record_id"]), command="x")
    rest = next(path for path in shards(house, "labels") if "a/2" in rows_of(path))
    cut(rest)
    done = repair(house)
    assert done.clean
    assert ids(house, "labels") == list(range(4, 10))


def rows_of(path: Path) -> list[str]:
    found: list[str] = pq.read_table(path)["record_id"].to_pylist()
    return found


# ------------------------------------------------------------------------------- crashes


class Stopped(BaseException):
    """The process was killed."""


def harmed(house: Warehouse) -> None:
    """Damage of every sort at once."""
    log = Log(house.root / "records")
    log.checkpoint(log.snapshot())
    cut(log.path / "00000000000000000002.checkpoint.parquet")
    log_file(house, "labels", 2).write_bytes(b"")
    shards(house, "waveforms")[0].unlink()
    flip(log_file(house, "models", 0), 77)


@pytest.mark.slow
def test_a_repair_that_is_killed_anywhere_is_finished_by_the_next(
    house: Warehouse, tmp_path: Path
) -> None:
    harmed(house)
    steps: list[Step] = []
    trial = tmp_path / "trial"
    shutil.copytree(house.root, trial)
    with disk.watch(lambda step, done: None if done else steps.append(step)):
        verify(Warehouse(trial), repair=True)
    wanted = {table: ids(Warehouse(trial), table) for table in ("records", "labels", "waveforms")}
    assert wanted == {
        "records": [*range(4, 10)],
        "labels": [*range(4)],
        "waveforms": [*range(4, 10)],
    }
    assert len(steps) > 40
    for number in range(0, len(steps), 5):
        shutil.rmtree(trial)
        shutil.copytree(house.root, trial)
        left = number

        def kill(step: Step, done: bool) -> None:  # noqa: FBT001  the watcher's interface
            nonlocal left
            if not done:
                left -= 1
            if left < 0:
                raise Stopped

        with pytest.raises(Stopped), disk.watch(kill):
            verify(Warehouse(trial), repair=True)
        done = verify(Warehouse(trial), repair=True)
        assert done.clean, (number, steps[number])
        found = {table: ids(Warehouse(trial), table) for table in wanted}
        assert found == wanted, (number, steps[number])


def test_only_one_flipped_bit_is_mended() -> None:
    data = bytes(range(200))
    for bit in (0, 801, 1599):
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        assert mend(bytes(changed), lambda trial: trial == data) == data
    changed[0] ^= 3
    assert mend(bytes(changed), lambda trial: trial == data) is None
    assert mend(bytes(1 << 20), lambda _: True) is None
