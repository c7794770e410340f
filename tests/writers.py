"""Writers for test_crash.py, run as a program: they race, are killed, or meet a full disk.

Libraries are imported once and each writer is forked before any is used, so that a writer is up in
milliseconds and a test can afford many. What the writers saw is printed as JSON.
"""

from __future__ import annotations

import json
import os
import random
import resource
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from ecgstore.errors import WarehouseError
from ecgstore.schema import TABLES
from ecgstore.storage.shards import write_shards
from ecgstore.storage.tables import Table
from ecgstore.warehouse import Warehouse

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

LABELS = TABLES["labels"]
BATCH = 3


def labels(numbers: Iterable[int], value: float = 1.0) -> pa.Table:
    ids = [f"a/{i:05d}" for i in numbers]
    return pa.table({"record_id": ids, "task": ["MI"] * len(ids), "label": [value] * len(ids)})


def forked(work: Callable[[int], None]) -> tuple[int, int]:
    """Run `work` in a child with a pipe to write to; return its id and the pipe to read."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        work(writing)
        os._exit(0)
    os.close(writing)
    return child, reading


def collected(child: int, pipe: int) -> tuple[int, list[int]]:
    """Wait for a child; return how it ended and the numbers it wrote."""
    with os.fdopen(pipe) as lines:
        numbers = [int(line) for line in lines]
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), numbers


def kill(folder: Path, kills: int) -> object:
    """Kill writers at random moments; return the batches they had been told were added."""
    random.seed(7)
    reported: list[int] = []
    killed = 0
    for turn in range(kills):

        def work(pipe: int, start: int = turn * 100) -> None:
            table = Table(folder, LABELS)
            for batch in range(start - 2, start + 98):  # the first two may be there already
                rows = labels(range(max(0, batch) * BATCH, max(0, batch) * BATCH + BATCH))
                table.append(rows, command="crash")
                os.write(pipe, f"{max(0, batch)}\n".encode())

        child, pipe = forked(work)
        with os.fdopen(pipe) as lines:
            reported += [int(lines.readline()) for _ in range(random.randrange(4))]
            time.sleep(random.uniform(0, 0.08))  # about two commits
            os.kill(child, signal.SIGKILL)
            reported += [int(line) for line in lines]
        killed += os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    return {"killed": killed, "reported": reported}


def race(folder: Path, writers: int) -> object:
    """Append the same keys from several processes in different order; return what each added."""

    def work(pipe: int) -> None:
        random.seed(os.getpid())
        table, added = Table(folder, LABELS), 0
        starts = list(range(0, 40, 4))
        random.shuffle(starts)
        for start in starts:
            rows = labels(range(start, start + 6))  # overlaps the next batch by two
            if random.random() < 0.5:
                added += table.append(rows, command="race")
            else:
                with table.staging() as staging:
                    shards = write_shards(staging, LABELS, rows)
                    added += table.append_shards(shards, command="race")
        os.write(pipe, f"{added}\n".encode())

    return [collected(*child) for child in [forked(work) for _ in range(writers)]]


def rewrite(folder: Path, writers: int) -> object:
    """Append, replace and delete at once; every writer has keys of its own and common shards."""

    def writer(mine: int) -> Callable[[int], None]:
        def work(pipe: int) -> None:
            table = Table(folder, LABELS)
            for turn in range(3):
                base = mine * 1000 + turn * 10
                table.append(labels(range(base, base + 10)), command="append")
                table.replace(labels(range(base, base + 5), float(mine)), command="replace")
                table.delete(labels([base + 9]).select(["record_id"]), command="delete")
            os.write(pipe, b"1\n")

        return work

    return [collected(*child) for child in [forked(writer(i)) for i in range(2, 2 + writers)]]


def create(root: Path, writers: int) -> object:
    """Make one warehouse from several processes and write to it at once."""

    def work(pipe: int) -> None:
        added = Warehouse.create(root).append("labels", labels(range(10)), command="create")
        os.write(pipe, f"{added}\n".encode())

    return [collected(*child) for child in [forked(work) for _ in range(writers)]]


def full(folder: Path, attempts: int) -> object:
    """Write on a disk where files cannot grow; return what the writers were told."""
    table, told = Table(folder, LABELS), []
    ready = write_shards(folder, LABELS, labels(range(100, 110)))
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    writes: tuple[Callable[[], int], ...] = (
        lambda: table.append(labels(range(5000)), command="the shard fails"),
        lambda: table.append_shards(ready, command="the log fails"),
        lambda: table.replace(labels(range(5), 0.0), command="the shard fails"),
    )
    for attempt in range(attempts):
        resource.setrlimit(resource.RLIMIT_FSIZE, (attempt * 150, resource.RLIM_INFINITY))
        for write in writes:
            try:
                told.append(f"{write()} rows")
            except WarehouseError as error:
                told.append(str(error))
    return told


if __name__ == "__main__":
    action = {"kill": kill, "race": race, "rewrite": rewrite, "create": create, "full": full}
    json.dump(action[sys.argv[1]](Path(sys.argv[2]), int(sys.argv[3])), sys.stdout)
