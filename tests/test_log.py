"""The log of a table, held to what delta-rs makes of the same files."""

from __future__ import annotations

import json
import multiprocessing
import shutil
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import deltalake
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ecgstore.errors import ErasedError, LogError, SchemaError, WarehouseError
from ecgstore.schema import TABLES
from ecgstore.storage import disk
from ecgstore.storage.commits import Entry
from ecgstore.storage.layout import described, metadata
from ecgstore.storage.log import CHECKPOINT_EVERY, Log, Lost

if TYPE_CHECKING:
    from collections.abc import Sequence

LABELS = TABLES["labels"]


def shard(number: int) -> Entry:
    return Entry(f"{number:064x}.parquet", 1000 + number, number % 7 or None, 1_700_000_000_000)


@pytest.fixture
def log(tmp_path: Path) -> Log:
    made = Log(tmp_path / "labels")
    made.create(metadata(LABELS), command="init")
    return made


def grown(log: Log, commits: int) -> Log:
    """Commit one more shard a version, and remove an older one every third time."""
    seen = log.snapshot()
    for i in range(commits):
        old = [shard(i - 3).name] if i % 3 == 2 and i > 3 else []
        seen = log.commit(seen, add=[shard(i)], remove=old, command=f"step {i}")
    return log


@settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.lists(st.integers(0, 100), max_size=2), st.booleans()),
        min_size=1,
        max_size=12,
    )
)
def test_every_version_is_the_same_in_delta_rs(
    tmp_path_factory: pytest.TempPathFactory, history: list[tuple[int, list[int], bool]]
) -> None:
    log = Log(tmp_path_factory.mktemp("log") / "labels")
    log.create(metadata(LABELS), command="init")
    seen, number = log.snapshot(), 0
    versions = [seen]
    for adds, removes, summed_up in history:
        live = sorted(seen.entries)
        gone = sorted({live[i % len(live)] for i in removes}) if live else []
        come = [shard(number + i) for i in range(adds)]
        number += adds
        seen = log.commit(seen, add=come, remove=gone, command="x", rearranged=bool(gone))
        versions.append(seen)
        if summed_up:
            log.checkpoint(seen)
    for snapshot in versions:
        ours = log.snapshot(snapshot.version)
        assert ours.entries == snapshot.entries
        theirs = deltalake.DeltaTable(log.folder, version=snapshot.version)
        actions = theirs.get_add_actions(flatten=True)
        found = zip(
            actions["path"].to_pylist(),
            actions["size_bytes"].to_pylist(),
            actions["num_records"].to_pylist(),
            strict=True,
        )
        assert {(e.name, e.size, e.rows) for e in ours.entries.values()} == set(found)
    assert log.versions() == [one.version for one in versions]
    assert log.snapshot(base=versions[0]) == log.snapshot()


def test_delta_rs_sees_our_schema_properties_and_history(log: Log) -> None:
    grown(log, 3)
    table = deltalake.DeltaTable(log.folder)
    for schema in TABLES.values():
        expected = deltalake.Schema.from_arrow(schema.arrow).to_json()
        assert json.loads(described(schema.arrow)) == json.loads(expected)
    assert table.metadata().name == "labels"
    assert table.metadata().configuration["ecgstore.schemaVersion"] == str(LABELS.version)
    assert [one["command"] for one in table.history()] == ["step 2", "step 1", "step 0", "init"]


def test_commits_of_delta_rs_are_read_and_followed(tmp_path: Path) -> None:
    folder = tmp_path / "labels"
    table = deltalake.DeltaTable.create(folder, LABELS.arrow, name="labels")
    table.alter.set_table_properties({"ecgstore.schemaVersion": "1"}, raise_if_not_exists=False)
    log = Log(folder)
    seen = log.snapshot()
    assert (seen.version, seen.columns) == (1, tuple(LABELS.arrow.names))
    assert not log.told(1).sealed
    seen = log.commit(seen, add=[shard(1)], command="x")
    assert log.told(2).sealed
    table = deltalake.DeltaTable(folder)
    table.create_checkpoint()  # theirs, without our digest
    log.commit(seen, add=[shard(2)], command="x")
    (folder / "_delta_log" / f"{1:020d}.json").unlink()
    assert set(log.snapshot().entries) == {shard(1).name, shard(2).name}


@pytest.mark.parametrize("place", [0.02, 0.3, 0.5, 0.8, 0.99])
@pytest.mark.parametrize("version", [0, 3, 5])
def test_a_changed_commit_is_never_believed(log: Log, version: int, place: float) -> None:
    path = grown(log, 5).path / f"{version:020d}.json"
    whole = path.read_bytes()
    for bit in range(8):
        damaged = bytearray(whole)
        damaged[int(place * len(whole))] ^= 1 << bit
        path.write_bytes(damaged)
        with pytest.raises(LogError) as caught:
            log.snapshot()
        assert caught.value.file == f"_delta_log/{path.name}"
        assert (caught.value.table, caught.value.version) == ("labels", version)


@pytest.mark.parametrize("content", [b"", b"\n", b'{"commitInfo": {"time', b"\0" * 100])
def test_an_empty_or_torn_newest_commit_is_named(log: Log, content: bytes) -> None:
    path = grown(log, 4).path / f"{4:020d}.json"
    path.write_bytes(content)
    with pytest.raises(LogError, match=r"version 4: the log file '0+4\.json' is (empty|damaged)"):
        log.snapshot()
    assert log.snapshot(3).version == 3


def test_a_missing_commit_is_named_not_skipped(log: Log) -> None:
    (grown(log, 6).path / f"{4:020d}.json").unlink()
    with pytest.raises(LogError, match=r"'0+4\.json' is missing"):
        log.snapshot()


def test_a_damaged_checkpoint_is_made_good_by_the_commits(log: Log) -> None:
    grown(log, CHECKPOINT_EVERY + 3)
    expected = log.snapshot().entries
    (path,) = log.path.glob("*.checkpoint.parquet")
    whole = path.read_bytes()
    for place in range(0, len(whole), 97):
        damaged = bytearray(whole)
        damaged[place] ^= 0x10
        path.write_bytes(damaged)
        assert log.snapshot().entries == expected
    path.write_bytes(whole[:100])
    assert log.snapshot().entries == expected
    for version in range(10):
        (log.path / f"{version:020d}.json").unlink()
    with pytest.raises(LogError, match="checkpoint"):
        log.snapshot()
    path.write_bytes(whole)
    assert log.snapshot().entries == expected


def test_versions_before_a_checkpoint_can_go(log: Log) -> None:
    grown(log, CHECKPOINT_EVERY + 3)
    for version in range(CHECKPOINT_EVERY):
        (log.path / f"{version:020d}.json").unlink()
    assert log.versions() == list(range(CHECKPOINT_EVERY, CHECKPOINT_EVERY + 4))
    with pytest.raises(ErasedError, match="Version 7 of table 'labels' was cleaned"):
        log.snapshot(7)
    with pytest.raises(ErasedError, match="was cleaned"):
        log.version_at(datetime.now(UTC) - timedelta(days=1))
    with pytest.raises(WarehouseError, match="has no version 900"):
        log.snapshot(900)


def test_times_never_go_backward(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time_ns()
    clock = iter([now, now - 3600 * 10**9, now - 7200 * 10**9, now + 10**9])
    monkeypatch.setattr(time, "time_ns", lambda: next(clock))
    grown(log, 4)
    told = list(log.commits())
    assert [one.version for one in told] == [4, 3, 2, 1, 0]
    times = [one.at for one in reversed(told)]
    assert times == sorted(set(times))
    for one in told:
        assert log.version_at(one.at) == one.version
        assert log.version_at(one.at.replace(tzinfo=None)) == one.version
    assert log.version_at(times[0] - timedelta(milliseconds=1)) is None


def test_who_comes_second_loses_and_leaves_nothing(log: Log) -> None:
    seen = log.snapshot()
    log.commit(seen, add=[shard(1)], command="first")
    with pytest.raises(Lost):
        log.commit(seen, add=[shard(2)], command="second")
    assert set(log.snapshot().entries) == {shard(1).name}
    assert sorted(p.name for p in log.path.iterdir()) == [f"{v:020d}.json" for v in (0, 1)]


def race(folder: str, first: int, wins: Any) -> None:
    log = Log(Path(folder))
    for i in range(20):
        while True:
            try:
                log.commit(log.snapshot(), add=[shard(first + i)], command="race")
            except Lost:
                continue
            wins.put(first + i)
            break


def test_racing_processes_lose_no_commit(log: Log) -> None:
    context = multiprocessing.get_context("spawn")
    wins = context.Queue()
    racers = [context.Process(target=race, args=(str(log.folder), 100 * k, wins)) for k in range(3)]
    for racer in racers:
        racer.start()
    won = sorted(wins.get(timeout=60) for _ in range(60))
    for racer in racers:
        racer.join()
    assert won == sorted(100 * k + i for k in range(3) for i in range(20))
    assert set(log.snapshot().entries) == {shard(number).name for number in won}
    assert log.newest() == 60
    assert deltalake.DeltaTable(log.folder).version() == 60


@pytest.mark.parametrize(
    ("protocol", "words"),
    [
        ({"minReaderVersion": 3, "minWriterVersion": 7}, "only be read by a Delta engine of"),
        ({"minReaderVersion": 2, "minWriterVersion": 5}, "only be read by a Delta engine of"),
        ({"minReaderVersion": 1, "minWriterVersion": 3}, "only be written by a Delta engine of"),
    ],
)
def test_a_newer_protocol_is_refused(log: Log, protocol: dict[str, int], words: str) -> None:
    path = log.path / f"{1:020d}.json"
    path.write_text(json.dumps({"protocol": protocol}) + "\n")
    with pytest.raises(SchemaError, match=words):
        log.commit(log.snapshot(), add=[shard(1)], command="x")


def steps_of(act: Any, *arguments: Any, **options: Any) -> Sequence[tuple[str, str]]:
    steps = []

    def note(step: disk.Step, done: bool) -> None:  # noqa: FBT001  the watcher's interface
        if done:
            steps.append((step.kind, (step.target or step.path).suffix))

    with disk.watch(note):
        act(*arguments, **options)
    return steps


def test_a_commit_is_on_disk_before_anybody_sees_it(log: Log) -> None:
    steps = steps_of(log.commit, log.snapshot(), add=[shard(1)], command="x")
    assert steps == [
        ("create", ".tmp"),
        ("write", ".tmp"),
        ("sync", ".tmp"),
        ("link", ".json"),
        ("sync_dir", ""),
        ("remove", ".tmp"),
    ]


def test_opening_reads_few_files_however_many_commits(log: Log, tmp_path: Path) -> None:
    grown(log, 3 * CHECKPOINT_EVERY + 5)
    few = tmp_path / "few"
    (few / "_delta_log").mkdir(parents=True)
    for name in log.path.iterdir():
        if int(name.name[:20] if name.name[0].isdigit() else 0) >= 3 * CHECKPOINT_EVERY:
            shutil.copy(name, few / "_delta_log")
    assert Log(few).snapshot().entries == log.snapshot().entries
