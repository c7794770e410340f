"""What a commit costs, and what opening costs, after few commits and after very many.

Appends one row at a time to a table, which is all a commit can be charged for: the key is looked up
in what is there, one shard is written, and both it and the log are forced to disk. Prints the
median milliseconds at ten commits (wanted: at most 30) and at ten thousand (at most 60), where
small shards are merged on the way. Then opens both warehouses in turn, with a first SQL answer, and
prints the ratio of the medians (wanted: at most 3), as they are and after `compact`.

    python benchmarks/commit.py --commits 10000
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import pyarrow as pa

import ecgstore
from ecgstore.upkeep.compact import compact
from ecgstore.warehouse import Warehouse

FEW = 10


def append(warehouse: Warehouse, numbers: range) -> list[float]:
    """Append one row a commit; return the seconds of each."""
    seconds = []
    for number in numbers:
        row = {"record_id": [f"bench/{number:07d}"], "task": ["T"], "label": [1.0]}
        began = time.perf_counter()
        warehouse.append("labels", pa.table(row), command="benchmark")
        seconds.append(time.perf_counter() - began)
    return seconds


def build(root: Path, commits: int) -> tuple[Warehouse, list[float]]:
    """Make a warehouse of so many commits; return it and what twenty more took."""
    warehouse = Warehouse.create(root)
    ids = pa.table({"record_id": [f"bench/{i:07d}" for i in range(commits + 20)]})
    warehouse.append("records", ids, command="benchmark")
    append(warehouse, range(commits))
    return warehouse, append(Warehouse(root), range(commits, commits + 20))


def opened(root: Path) -> float:
    """Return the seconds until a first answer about the labels."""
    began = time.perf_counter()
    with ecgstore.connect(root) as store:
        store.table("select count(*) from labels")
    return time.perf_counter() - began


def compared(few: Path, many: Path, rounds: int) -> tuple[float, float]:
    """Open both in turn; return the medians in milliseconds."""
    times: dict[Path, list[float]] = {few: [], many: []}
    for _ in range(rounds):
        for root, seconds in times.items():
            seconds.append(1e3 * opened(root))
    return statistics.median(times[few]), statistics.median(times[many])


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--commits", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=11)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        roots = Path(folder) / "few", Path(folder) / "many"
        for root, commits, wanted in zip(roots, (FEW, given.commits), (30, 60), strict=True):
            began = time.perf_counter()
            warehouse, seconds = build(root, commits)
            table = warehouse.table("labels")
            print(
                f"commit at {commits}: {1e3 * statistics.median(seconds):.1f} ms "
                f"(wanted at most {wanted}), {len(table.snapshot.entries)} shards, "
                f"version {table.version}, built in {time.perf_counter() - began:.0f} s"
            )
        for name in ("as they are", "after compact"):
            few, many = compared(*roots, given.rounds)
            print(
                f"opening {name}: {few:.0f} ms at {FEW}, {many:.0f} ms at {given.commits} commits, "
                f"ratio {many / few:.2f} (wanted at most 3)"
            )
            for root in roots:
                compact(Warehouse(root))


if __name__ == "__main__":
    main()
