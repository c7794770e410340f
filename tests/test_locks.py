"""Writers together, removers alone, and nobody forgotten."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from ecgstore.errors import WarehouseError
from ecgstore.storage.locks import Lock, claim

if TYPE_CHECKING:
    from collections.abc import Iterator

CONTEXT = multiprocessing.get_context("spawn")


def hold(root: str, kind: str, told: Any) -> None:
    with getattr(Lock(Path(root)), kind)():
        told.put(kind)
        time.sleep(60)


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[Any]:
    """Return a call that starts a process which holds the lock until it is killed."""
    started = []

    def start(kind: str) -> Any:
        told = CONTEXT.Queue()
        child = CONTEXT.Process(target=hold, args=(str(tmp_path), kind, told))
        child.start()
        started.append(child)
        assert told.get(timeout=60) == kind
        return child

    yield start
    for child in started:
        child.kill()
        child.join()


def test_writers_hold_it_together_and_keep_a_remover_out(tmp_path: Path, holder: Any) -> None:
    child = holder("shared")
    with Lock(tmp_path).shared():
        pass
    with (
        pytest.raises(WarehouseError, match="Others are writing"),
        Lock(tmp_path).exclusive(wait_s=0.05),
    ):
        pytest.fail("had it alone")
    os.kill(child.pid, signal.SIGKILL)  # the kernel gives back what a dead process held
    child.join()
    with Lock(tmp_path).exclusive(wait_s=5):
        pass


def test_a_remover_keeps_writers_out(tmp_path: Path, holder: Any) -> None:
    child = holder("exclusive")
    entered = threading.Event()

    def write() -> None:
        with Lock(tmp_path).shared():
            entered.set()

    writer = threading.Thread(target=write)
    writer.start()
    assert not entered.wait(0.2)
    child.kill()
    writer.join(timeout=30)
    assert entered.is_set()


def test_writers_without_a_pause_do_not_starve_a_remover(tmp_path: Path) -> None:
    stop = threading.Event()
    turns = [0, 0, 0]

    def write(number: int) -> None:
        lock = Lock(tmp_path)
        while not stop.is_set():
            with lock.shared():
                time.sleep(0.003)
            turns[number] += 1

    writers = [threading.Thread(target=write, args=(number,)) for number in range(3)]
    for writer in writers:
        writer.start()
    for _ in range(10):
        with Lock(tmp_path).exclusive(wait_s=20):
            before = list(turns)
            time.sleep(0.01)
            assert turns == before
    stop.set()
    for writer in writers:
        writer.join()
    assert min(turns) > 0


def test_one_object_may_take_it_again_but_not_alone(tmp_path: Path) -> None:
    lock = Lock(tmp_path)
    with lock.exclusive(), lock.shared(), lock.exclusive():
        pass
    with (
        lock.shared(),
        lock.shared(),
        pytest.raises(WarehouseError, match="cannot be had alone"),
        lock.exclusive(),
    ):
        pytest.fail("had it alone")
    with Lock(tmp_path).exclusive(wait_s=0):  # all was given back
        pass


def claimed(folder: str, told: Any) -> None:
    with claim(Path(folder)) as had:
        told.put(had)
        time.sleep(60)


def test_a_folder_is_claimed_as_long_as_its_process_lives(tmp_path: Path) -> None:
    told = CONTEXT.Queue()
    child = CONTEXT.Process(target=claimed, args=(str(tmp_path), told))
    child.start()
    assert told.get(timeout=60) is True
    with claim(tmp_path) as had:
        assert not had
    child.kill()
    child.join()
    with claim(tmp_path) as had:
        assert had
