"""The words in which damage is told to whoever meets it, and what is said to open still does."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest

from ecgstore.errors import DamagedError, WarehouseError
from ecgstore.schema import TABLES
from ecgstore.storage.log import Log
from ecgstore.store import Store
from ecgstore.upkeep.verify import verify
from ecgstore.warehouse import Warehouse

if TYPE_CHECKING:
    from collections.abc import Callable

SNAPSHOTS = Path(__file__).resolve().parent / "snapshots"


def labels(numbers: range, value: float = 1.0) -> pa.Table:
    ids = [f"a/{i}" for i in numbers]
    return pa.table({"record_id": ids, "task": ["MI"] * len(ids), "label": [value] * len(ids)})


@pytest.fixture
def house(tmp_path: Path) -> Warehouse:
    """Return a warehouse of ten records without signals, labelled in two commits."""
    house = Warehouse.create(tmp_path / "house")
    house.append("records", labels(range(10)).select(["record_id"]), command="ingest")
    house.append("labels", labels(range(4)), command="labels MI")
    house.append("labels", labels(range(4, 10)), command="labels MI")
    return house


def shards(house: Warehouse, table: str) -> list[Path]:
    """List the shards of the newest version, oldest first."""
    return [house.root / table / name for name in Log(house.root / table).snapshot().entries]


def commit_file(house: Warehouse, table: str, version: int) -> Path:
    return house.root / table / "_delta_log" / f"{version:020d}.json"


def flip(path: Path, bit: int) -> None:
    data = bytearray(path.read_bytes())
    data[bit // 8] ^= 1 << bit % 8
    path.write_bytes(data)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path: Path) -> None:
    path.write_text("")


FAULTS: dict[str, Callable[[Warehouse], object]] = {
    "a shard is missing": lambda house: shards(house, "labels")[0].unlink(),
    "a shard is cut": lambda house: cut(shards(house, "labels")[0]),
    "a bit of a shard is flipped": lambda house: flip(shards(house, "labels")[0], 1000),
    "the newest log file is cut": lambda house: cut(commit_file(house, "labels", 2)),
    "the newest log file is empty": lambda house: (
        commit_file(house, "labels", 2).write_bytes(b"") and None
    ),
    "an older log file is cut": lambda house: cut(commit_file(house, "labels", 1)),
    "an older log file is missing": lambda house: commit_file(house, "labels", 1).unlink(),
    "the first log file is missing": lambda house: commit_file(house, "labels", 0).unlink(),
}


def told(house: Warehouse) -> str:
    """Say how reading fails and what verify finds, without what differs from run to run."""
    lines = []
    try:
        with Store(house.root) as store:
            store.table("select sum(label) from labels")
    except WarehouseError as error:
        lines += [f"error: {error.message}", f"hint: {error.hint}"]
    for one in verify(house).findings:
        place = f"{one.table}, version {one.version}, {one.file}"
        lines.append(f"{one.severity}: {place}\n  {one.what}\n  {one.remedy}")
    text = "\n".join(lines).replace(str(house.root), "HOUSE")
    text = re.sub(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", "TIME", text)
    return re.sub(r"[0-9a-f]{64}", "SHARD", text)


@pytest.mark.parametrize("fault", FAULTS)
def test_how_damage_is_told(
    house: Warehouse, fault: str, snapshot: Callable[[Path, str], None]
) -> None:
    FAULTS[fault](house)
    snapshot(SNAPSHOTS / "damage" / f"{fault.replace(' ', '_')}.txt", f"{told(house)}\n")


@pytest.mark.parametrize("fault", ["the newest log file is cut", "a shard is missing"])
def test_what_is_said_to_open_does(house: Warehouse, fault: str) -> None:
    table = "records" if "shard" in fault else "labels"  # the shard came after the records
    moment = Log(house.root / table).told(1).at
    before = Warehouse(house.root, at=moment).table("labels").read()
    FAULTS[fault](house)
    with pytest.raises(DamagedError, match="still open"):
        Warehouse(house.root).relations()
    assert Warehouse(house.root, at=moment).table("labels").read() == before


DENIED = """
import os, sys
from pathlib import Path
from ecgstore.errors import WarehouseError
from ecgstore.store import Store
def look(root):
    with Store(root) as store:
        print(store.table("select count(*) as n from labels").to_pylist())
look(sys.argv[1])
os.chmod(sys.argv[2], 0)
if os.getuid() == 0:
    os.setresgid(65534, 65534, 65534)
    os.setresuid(65534, 65534, 65534)
try:
    look(sys.argv[1])
except WarehouseError as error:
    print(error)
with Store(sys.argv[1]) as store:
    for one in store.verify().findings:
        print(one.severity, one.what, one.remedy)
"""


@pytest.mark.parametrize("what", ["shard", "log"])
def test_a_file_that_may_not_be_read_is_named(what: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        house = Warehouse.create(Path(folder) / "house")
        house.append("labels", labels(range(3)), command="x")
        path = shards(house, "labels")[0] if what == "shard" else commit_file(house, "labels", 1)
        command = [sys.executable, "-c", DENIED, str(house.root), str(path)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        path.chmod(0o644)
    first, *rest = done.stdout.splitlines()
    assert first == "[{'n': 3}]"
    said = "\n".join(rest)
    assert path.name in said
    assert "'labels'" in said
    assert "damage" in said
    assert "may not be read by this user" in said
    assert "Give this user the right to read the file." in said


def test_the_command_prints_findings_and_ends_with_one(
    house: Warehouse, run: Callable[..., Any]
) -> None:
    done = run("-w", house.root, "verify", "--json")
    assert (done.code, json.loads(done.out)) == (0, [])
    assert done.err.startswith(f"all is well: {len(TABLES)} tables")
    flip(shards(house, "labels")[0], 1000)
    done = run("-w", house.root, "verify", "--table", "labels")
    assert done.code == 1
    assert json.loads(done.out)["severity"] == "damage"
    assert run("-w", house.root, "verify", "--fast").code == 0
    done = run("-w", house.root, "verify", "--repair")
    assert done.code == 0
    assert [json.loads(line)["severity"] for line in done.out.splitlines()] == ["repaired", "lost"]
    assert run("-w", house.root, "--at", "2024-01-01", "verify").code == 2
