"""A store that stays open: it sees every commit, and reads no log while there was none."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import pyarrow as pa
import pytest

import ecgstore
from ecgstore.errors import LogError
from ecgstore.warehouse import Warehouse, log_stamp

if TYPE_CHECKING:
    from pathlib import Path

COUNT = "select count(*) as n from labels"


def grow(root: Path, number: int) -> None:
    """Add one label as another process would."""
    rows = pa.table({"record_id": [f"a/{number}"], "task": ["T"], "label": [1.0]})
    Warehouse(root).append("labels", rows, command="test")


def settle(root: Path) -> None:
    """Let the logs look as if they were last written a minute ago."""
    for number, folder in enumerate(sorted(root.glob("*/_delta_log"))):
        then = time.time() - 60 + number
        os.utime(folder, (then, then))


@pytest.mark.parametrize("settled", [False, True], ids=["fresh", "settled"])
def test_every_commit_is_seen_at_once(tmp_path: Path, *, settled: bool) -> None:
    Warehouse.create(tmp_path)
    with ecgstore.connect(tmp_path) as store:
        for number in range(12):
            if settled:
                settle(tmp_path)
                assert store.table(COUNT)["n"].to_pylist() == [number]
                assert log_stamp(tmp_path) is not None
            grow(tmp_path, number)
            assert store.table(COUNT)["n"].to_pylist() == [number + 1]


def test_no_log_is_read_while_none_changed(tmp_path: Path) -> None:
    Warehouse.create(tmp_path)
    grow(tmp_path, 0)
    settle(tmp_path)
    with ecgstore.connect(tmp_path) as store:
        assert store.table(COUNT)["n"].to_pylist() == [1]
        (tmp_path / "labels/_delta_log" / f"{1:020d}.json").write_bytes(b"{")
        assert store.table(COUNT)["n"].to_pylist() == [1]
        with ecgstore.connect(tmp_path) as other, pytest.raises(LogError):
            other.table(COUNT)
        (tmp_path / "records/_delta_log/x.tmp").write_bytes(b"")
        with pytest.raises(LogError):
            store.table(COUNT)


def test_a_fresh_change_gives_no_stamp(tmp_path: Path) -> None:
    Warehouse.create(tmp_path)
    assert log_stamp(tmp_path) is None
    settle(tmp_path)
    stamp = log_stamp(tmp_path)
    assert stamp is not None
    assert log_stamp(tmp_path) == stamp
    later = time.time() + 3600  # as after the clock went backward
    os.utime(tmp_path / "labels/_delta_log", (later, later))
    assert log_stamp(tmp_path) is None
