"""The feed: the same records as the table, whole or not at all, and never of another version."""

from __future__ import annotations

import errno
import logging
import multiprocessing
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ecgstore.errors import DamagedError, UsageError, WarehouseError
from ecgstore.feed import Feed, drop, stream
from ecgstore.record import COLUMNS, INVALID, LEADS
from ecgstore.splitting.split import split
from ecgstore.storage import disk
from ecgstore.train import train
from ecgstore.warehouse import Warehouse
from ecgstore.waveforms import Waveform, scan

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ecgstore.storage.disk import Step


def row(number: int, *, samples: int = 100, leads: Iterable[int] = range(12)) -> dict[str, Any]:
    """Return a row of ``waveforms`` that has only some leads; some of its samples are lost."""
    rng = np.random.default_rng(number)
    present = set(leads)
    counts = rng.integers(-32768, 32768, (12, samples)).astype(np.int16)
    counts[rng.random(counts.shape) < 0.02] = INVALID
    return {
        "record_id": f"a/{number:04d}",
        "gain": [float(rng.integers(1, 2000)) if k in present else None for k in range(12)],
        "baseline": [int(rng.integers(-99, 99)) if k in present else None for k in range(12)],
        **{name: counts[k] if k in present else None for k, name in enumerate(COLUMNS)},
    }


def add(warehouse: Warehouse, rows: Iterable[dict[str, Any]]) -> None:
    warehouse.append("waveforms", pa.Table.from_pylist(list(rows)), command="test")


def filled(root: Path, shards: int = 2, records: int = 5) -> Warehouse:
    warehouse = Warehouse.create(root)
    for shard in range(shards):
        add(warehouse, (row(shard * records + i) for i in range(records)))
    return warehouse


def told(waveform: Waveform) -> tuple[object, ...]:
    """Return all there is to say of a waveform, types included."""
    arrays = (waveform.digital, waveform.gain, waveform.baseline)
    return (
        waveform.record_id,
        waveform.leads,
        *((one.shape, one.dtype, one.tobytes()) for one in arrays),
    )


def stored(warehouse: Warehouse) -> list[tuple[object, ...]]:
    return [told(one) for one in scan(warehouse.table("waveforms").files())]


def fed(warehouse: Warehouse) -> list[tuple[object, ...]]:
    with Feed.open(warehouse) as feed:
        return [told(one) for one in feed.scan()]


def copies(warehouse: Warehouse) -> list[Path]:
    return sorted(path for path in (warehouse.root / "_cache/feed").rglob("*") if path.is_file())


class Counted:
    """A progress that counts."""

    def __init__(self) -> None:
        self.totals: list[int] = []
        self.done = 0

    def start(self, total: int, unit: str) -> None:
        assert unit == "records"
        self.totals.append(total)

    def advance(self, done: int = 1, *, rejected: int = 0) -> None:
        assert rejected == 0
        self.done += done

    def tell(self, text: str) -> None:
        raise AssertionError(text)

    def note(self, message: str) -> None:
        raise AssertionError(message)


ROWS = st.lists(
    st.tuples(st.integers(1, 40), st.sets(st.integers(0, 11), min_size=1)), min_size=1, max_size=9
)


@settings(
    max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(shards=st.lists(ROWS, min_size=1, max_size=3))
def test_the_feed_holds_what_the_table_holds(
    tmp_path_factory: pytest.TempPathFactory, shards: list[list[tuple[int, set[int]]]]
) -> None:
    warehouse = Warehouse.create(tmp_path_factory.mktemp("feed"))
    for number, shard in enumerate(shards):
        rows = [row(100 * number + i, samples=n, leads=k) for i, (n, k) in enumerate(shard)]
        add(warehouse, rows)
    expected = stored(warehouse)
    assert fed(warehouse) == expected
    with Feed.open(warehouse) as feed:
        assert list(feed.record_ids) == [one[0] for one in expected]
        assert [told(feed[one]) for one in feed.record_ids] == expected
        for one, samples in zip(feed.record_ids, feed.n_samples, strict=True):
            batch = feed.batch([one])
            assert batch.digital.shape == (1, 12, samples)
            leads = tuple(lead for lead, has in zip(LEADS, batch.present[0], strict=True) if has)
            there = batch.present[0]
            again = Waveform(
                one, leads, batch.digital[0, there], batch.gain[0, there], batch.baseline[0, there]
            )
            assert told(again) == told(feed[one])
            assert (batch.digital[0, ~there] == INVALID).all()
            assert np.isnan(batch.gain[0, ~there]).all()


def test_a_batch_has_the_order_asked_for_and_may_repeat_a_record(tmp_path: Path) -> None:
    warehouse = filled(tmp_path)
    ids = ["a/0007", "a/0001", "a/0007"]
    with Feed.open(warehouse) as feed:
        batch = feed.batch(ids)
        assert batch.record_ids == tuple(ids)
        for k, one in enumerate(ids):
            assert np.array_equal(batch.digital[k], feed[one].digital)
        assert [one.record_id for one in feed.scan({"a/0007", "a/0001"})] == ["a/0001", "a/0007"]
        assert "a/0001" in feed
        assert "b/0001" not in feed


def test_a_batch_of_unknown_or_unequal_records_is_refused(tmp_path: Path) -> None:
    warehouse = filled(tmp_path)
    add(warehouse, [row(77, samples=50)])
    with Feed.open(warehouse) as feed:
        with pytest.raises(UsageError, match="1 of 2 records are not there") as raised:
            feed.batch(["a/0001", "a/9999"])
        assert "9999" not in str(raised.value)
        with pytest.raises(UsageError, match="of one length, not of 2"):
            feed.batch(["a/0001", "a/0077"])
        with pytest.raises(UsageError, match="of one length, not of 0"):
            feed.batch([])


def test_arrays_outlive_the_feed_and_cannot_be_written(tmp_path: Path) -> None:
    warehouse = filled(tmp_path)
    expected = stored(warehouse)
    with Feed.open(warehouse) as feed:
        kept = list(feed.scan())
    assert len(feed) == 0
    drop(warehouse.root)
    assert [told(one) for one in kept] == expected
    with pytest.raises(ValueError, match="read-only"):
        kept[0].digital[0, 0] = 1


def test_only_new_shards_are_copied(tmp_path: Path) -> None:
    warehouse = filled(tmp_path, shards=2)
    first = Counted()
    Feed.open(warehouse, progress=first).close()
    assert (first.totals, first.done) == ([10], 10)
    before = {path: path.stat().st_mtime_ns for path in copies(warehouse)}
    again = Counted()
    Feed.open(warehouse, progress=again).close()
    assert (again.totals, again.done) == ([], 0)
    add(warehouse, [row(50)])
    more = Counted()
    Feed.open(warehouse, progress=more).close()
    assert (more.totals, more.done) == ([1], 1)
    after = {path: path.stat().st_mtime_ns for path in copies(warehouse)}
    assert before.items() <= after.items()
    assert len(after) == len(before) + 1


def test_each_version_has_its_own_records(tmp_path: Path) -> None:
    warehouse = filled(tmp_path, shards=1)
    old = Warehouse(tmp_path, at=warehouse.versions())
    expected = stored(old)
    add(warehouse, [row(90)])
    assert fed(warehouse) == stored(warehouse) != expected
    assert fed(old) == expected
    warehouse.delete("waveforms", pa.table({"record_id": ["a/0002"]}), command="test")
    ids = [one[0] for one in fed(warehouse)]
    assert "a/0002" not in ids
    assert len(ids) == len(expected)


def test_copies_that_no_version_in_use_needs_are_removed(tmp_path: Path) -> None:
    warehouse = filled(tmp_path, shards=1)
    Feed.open(warehouse).close()
    (old,) = copies(warehouse)
    other_layout = tmp_path / "_cache/feed/0/x"
    other_layout.mkdir(parents=True)
    warehouse.delete("waveforms", pa.table({"record_id": ["a/0002"]}), command="test")
    Feed.open(warehouse).close()
    (new,) = copies(warehouse)
    assert old != new
    assert not old.parent.exists()
    assert not other_layout.exists()


@pytest.mark.parametrize("damage", ["flipped", "cut", "empty"])
def test_a_damaged_copy_is_made_anew(tmp_path: Path, damage: str) -> None:
    warehouse = filled(tmp_path)
    expected = fed(warehouse)
    victim = copies(warehouse)[0]
    whole = victim.read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 4
    victim.write_bytes({"flipped": bytes(flipped), "cut": whole[:-9], "empty": b""}[damage])
    assert fed(warehouse) == expected
    assert victim.read_bytes() == whole


def test_a_damaged_shard_is_named_and_leaves_no_copy(tmp_path: Path) -> None:
    warehouse = filled(tmp_path, shards=1)
    (shard,) = warehouse.table("waveforms").files()
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(data)
    with pytest.raises(DamagedError) as raised:
        list(stream(warehouse))
    assert raised.value.file == shard.name
    assert copies(warehouse) == []


def test_no_room_is_said_in_bytes_and_parquet_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    warehouse = filled(tmp_path)
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage)
    with pytest.raises(WarehouseError, match=r"of 10 records needs 29120 bytes; .* 1000 free"):
        Feed.open(warehouse)
    assert copies(warehouse) == []
    with caplog.at_level(logging.WARNING):
        assert [told(one) for one in stream(warehouse)] == stored(warehouse)
    assert "read from Parquet" in caplog.text


def test_the_room_asked_for_is_enough_and_not_much_more(tmp_path: Path) -> None:
    warehouse = Warehouse.create(tmp_path)
    add(warehouse, [row(i, samples=5000, leads=range(i % 12 + 1)) for i in range(24)])
    shard = warehouse.table("waveforms").files()[0]
    from ecgstore.copies import room

    Feed.open(warehouse).close()
    (copy,) = copies(warehouse)
    records, asked = room(shard)
    assert records == 24
    assert copy.stat().st_size <= asked <= 1.02 * copy.stat().st_size


def test_a_disk_that_fails_at_any_step_leaves_no_half_copy(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    warehouse = filled(tmp_path, shards=1)
    expected = stored(warehouse)
    steps: list[Step] = []
    with disk.watch(lambda step, done: None if done else steps.append(step)):
        Feed.open(warehouse).close()
    assert {"create", "write", "sync", "rename", "sync_dir"} <= {step.kind for step in steps}
    for fatal in range(len(steps)):
        drop(warehouse.root)
        seen = 0

        def fail(_: Step, done: bool, fatal: int = fatal) -> None:  # noqa: FBT001  as `watch` calls it
            nonlocal seen
            seen += not done
            if seen > fatal:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        with disk.watch(fail), caplog.at_level(logging.WARNING):
            assert [told(one) for one in stream(warehouse)] == expected
        assert "No space left" in caplog.text
        caplog.clear()
        assert fed(warehouse) == expected
        assert [path.suffix for path in copies(warehouse)] == [".arrow"]


KILLED = """
import os, signal, sys
from pathlib import Path
from ecgstore.storage import disk
from ecgstore.feed import Feed
from ecgstore.warehouse import Warehouse

left = int(sys.argv[2])

def count(step, done):
    global left
    left -= 1
    if left < 0:
        os.kill(os.getpid(), signal.SIGKILL)

with disk.watch(count):
    Feed.open(Warehouse(Path(sys.argv[1]))).close()
"""


@pytest.mark.parametrize("steps", [40, 61, 100])
def test_a_killed_copy_is_taken_up_again(tmp_path: Path, steps: int) -> None:
    warehouse = filled(tmp_path)
    expected = stored(warehouse)
    command = [sys.executable, "-c", KILLED, str(tmp_path), str(steps)]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    assert fed(warehouse) == expected
    assert [path.suffix for path in copies(warehouse)] == [".arrow", ".arrow"]


def _open_at(root: Path, gate: Any, answers: Any) -> None:
    gate.wait()
    answers.put(fed(Warehouse(root)))


def test_two_processes_may_copy_at_once(tmp_path: Path) -> None:
    warehouse = filled(tmp_path, shards=3, records=70)
    spawn = multiprocessing.get_context("spawn")
    gate, answers = spawn.Barrier(2), spawn.Queue()
    workers = [spawn.Process(target=_open_at, args=(tmp_path, gate, answers)) for _ in range(2)]
    for worker in workers:
        worker.start()
    seen = [answers.get(timeout=60) for _ in workers]
    for worker in workers:
        worker.join()
        worker.close()
    answers.close()
    answers.join_thread()
    assert seen == [stored(warehouse)] * 2
    assert [path.suffix for path in copies(warehouse)] == [".arrow"] * 3


def test_a_shard_erased_meanwhile_leaves_no_copy(tmp_path: Path) -> None:
    warehouse = filled(tmp_path, shards=1)
    (shard,) = warehouse.table("waveforms").files()

    def erase(step: Step, done: bool) -> None:  # noqa: FBT001  as `watch` calls it
        if step.kind == "sync" and done and shard.exists():
            with Warehouse(tmp_path).exclusive():
                shard.unlink()
                drop(tmp_path)

    with disk.watch(erase), pytest.raises(WarehouseError):
        Feed.open(warehouse)
    assert copies(warehouse) == []


def test_a_folder_that_cannot_be_written_is_read_all_the_same(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    warehouse = filled(tmp_path)
    expected = stored(warehouse)
    (tmp_path / "_cache/feed").write_text("in the way")
    with caplog.at_level(logging.WARNING):
        assert [told(one) for one in stream(warehouse, {"a/0001"})] == [expected[1]]
    assert "read from Parquet" in caplog.text


def test_a_read_only_disk_does_with_the_copies_it_has(tmp_path: Path) -> None:
    warehouse = filled(tmp_path)
    expected = fed(warehouse)

    def refuse(step: Step, done: bool) -> None:  # noqa: FBT001  as `watch` calls it
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    with disk.watch(refuse):
        assert fed(warehouse) == expected


def test_dropping_twice_is_no_error(tmp_path: Path) -> None:
    warehouse = filled(tmp_path)
    Feed.open(warehouse).close()
    drop(tmp_path)
    drop(tmp_path)
    assert copies(warehouse) == []


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts open files in /proc")
def test_an_open_feed_holds_no_file_open(tmp_path: Path) -> None:
    warehouse = filled(tmp_path, shards=4)
    Feed.open(warehouse).close()
    before = len(list(Path("/proc/self/fd").iterdir()))
    with Feed.open(warehouse) as feed:
        assert len(list(Path("/proc/self/fd").iterdir())) == before
        assert len(feed) == 20


def test_signals_read_again_decode_no_parquet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    warehouse = Warehouse.create(tmp_path)
    ids = [f"a/{i:04d}" for i in range(20)]
    x = np.random.default_rng(0).integers(-99, 99, (20, 12, 1000)).astype(np.int16)
    labels = {"record_id": ids, "task": ["T"] * 20, "label": [float(i % 2) for i in range(20)]}
    warehouse.append("labels", pa.table(labels), command="test")
    add(warehouse, ({**row(i), **dict(zip(COLUMNS, x[i], strict=True))} for i in range(20)))
    rows = {"record_id": ids, "rate_hz": [100.0] * 20, "signal_sha256": ids}
    warehouse.append("records", pa.table(rows), command="test")
    split(warehouse, "s", task="T", repeats=1, test_size=0.3)

    def records(seed: int) -> int:
        params = {"seed": seed}
        planned = train(
            warehouse, "signal", "s", classifier="resnet50", params=params, dry_run=True
        )
        return planned.records

    assert records(0) == 20
    monkeypatch.delattr(pq.ParquetFile, "read_row_group")
    assert records(1) == 20
    drop(tmp_path)
    with pytest.raises(AttributeError):
        records(2)
