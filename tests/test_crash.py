"""Real processes: killed while they write, racing each other, and meeting a full disk."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
import pyarrow as pa
import pytest

from ecgstore.schema import TABLES
from ecgstore.storage.tables import Table
from ecgstore.warehouse import Warehouse

if TYPE_CHECKING:
    from collections.abc import Iterable

LABELS = TABLES["labels"]
WRITERS = Path(__file__).with_name("writers.py")
BATCH = 3


@pytest.fixture
def table(tmp_path: Path) -> Table:
    return Table.create(tmp_path / "labels", LABELS)


def labels(numbers: Iterable[int]) -> pa.Table:
    ids = [f"a/{i:05d}" for i in numbers]
    return pa.table({"record_id": ids, "task": ["MI"] * len(ids), "label": [1.0] * len(ids)})


def run(action: str, folder: Path, number: int) -> Any:
    done = subprocess.run(
        [sys.executable, str(WRITERS), action, str(folder), str(number)],
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert not done.stderr
    return json.loads(done.stdout)


def count_keys(folder: Path) -> Counter[str]:
    """Count each key as DuckDB reads the shards of the newest version."""
    files = [str(path) for path in Table(folder, LABELS).files()]
    with duckdb.connect() as connection:
        rows = connection.execute(
            "select record_id, count(*) from read_parquet($files) group by all", {"files": files}
        ).fetchall()
    return Counter(dict(rows))


def test_writers_killed_at_any_moment_lose_and_double_nothing(table: Table) -> None:
    seen = run("kill", table.folder, 24)
    assert seen["killed"] == 24
    assert len(seen["reported"]) > 24, "the writers were killed before they wrote anything"

    keys = count_keys(table.folder)
    assert set(keys.values()) == {1}
    reported = {i for batch in seen["reported"] for i in range(batch * BATCH, (batch + 1) * BATCH)}
    assert {f"a/{i:05d}" for i in reported} <= set(keys)
    batches = Counter(int(key[2:]) // BATCH for key in keys)
    assert set(batches.values()) == {BATCH}, "a batch was added in part"
    # each writer may have committed once more than it could report
    assert len(batches) <= len(set(seen["reported"])) + seen["killed"]

    for path in table.folder.glob("*.tmp"):  # what a kill leaves is never taken for a shard
        assert path not in Table(table.folder, LABELS).files()


def test_racing_writers_add_each_key_exactly_once(table: Table) -> None:
    ends = run("race", table.folder, 3)
    assert [status for status, _ in ends] == [0, 0, 0]
    keys = count_keys(table.folder)
    assert keys == Counter({f"a/{i:05d}": 1 for i in range(42)})
    assert sum(added for _, (added,) in ends) == 42


def test_replace_and_delete_race_without_loss(table: Table) -> None:
    ends = run("rewrite", table.folder, 3)
    assert ends == [[0, [1]]] * 3
    rows = Table(table.folder, LABELS).read().to_pylist()
    values = {row["record_id"]: row["label"] for row in rows}
    assert len(values) == len(rows)
    assert values == {
        f"a/{writer * 1000 + turn * 10 + i:05d}": float(writer) if i < 5 else 1.0
        for writer in (2, 3, 4)
        for turn in range(3)
        for i in range(9)
    }


def test_a_warehouse_can_be_made_by_several_processes_at_once(tmp_path: Path) -> None:
    ends = run("create", tmp_path / "house", 4)
    assert [status for status, _ in ends] == [0, 0, 0, 0]
    assert sum(added for _, (added,) in ends) == 10
    warehouse = Warehouse(tmp_path / "house")
    assert warehouse.versions() == dict.fromkeys(TABLES, 0) | {"labels": 1}


def test_a_full_disk_changes_nothing_and_the_next_run_succeeds(table: Table) -> None:
    table.append(labels(range(10)), command="before")
    before = set(table.folder.rglob("*"))

    message = f"Could not write to {str(table.folder)!r}: File too large."
    hint = "Nothing was committed; free some space and run the same command again."
    assert run("full", table.folder, 3) == [f"{message}\n{hint}"] * 9
    (unused,) = set(table.folder.rglob("*")) - before  # written while there was room
    assert unused not in Table(table.folder, LABELS).files()
    assert count_keys(table.folder) == Counter({f"a/{i:05d}": 1 for i in range(10)})

    assert table.append(labels(range(5000)), command="after") == 4990
    assert len(count_keys(table.folder)) == 5000
