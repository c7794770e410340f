"""Several processes at once: nothing half, nothing double, nobody waits for ever."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ecgstore.catalog import Catalog
from ecgstore.upkeep.verify import verify
from ecgstore.warehouse import Warehouse

from .sources import write_sources

if TYPE_CHECKING:
    from collections.abc import Callable

SCRIPT = Path(__file__).with_name("together.py")
ROOT = SCRIPT.parent.parent.parent
ROLES = ("ingesting", "ingesting", "embedding", "forgetting", "reading", "collecting")


@pytest.mark.parametrize(
    "seconds", [pytest.param(5, marks=pytest.mark.slow), pytest.param(60, marks=pytest.mark.slow)]
)
def test_many_work_on_one_warehouse(
    seconds: int, tmp_path: Path, count: Callable[[str, int], None]
) -> None:
    write_sources(tmp_path)
    Warehouse.create(tmp_path / "w")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error"}
    children = [
        subprocess.Popen(
            [sys.executable, str(SCRIPT), role, str(tmp_path), str(seconds), str(number)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
            text=True,
        )
        for number, role in enumerate(ROLES)
    ]
    told = []
    try:
        for child in children:
            assert child.stdout is not None
            assert child.stdout.readline() == "ready\n", child.communicate()[1]
        for child in children:  # all begin together
            assert child.stdin is not None
            child.stdin.write("go\n")
            child.stdin.flush()
        for role, child in zip(ROLES, children, strict=True):
            out, err = child.communicate(timeout=30 * seconds + 60)  # nobody waits for ever
            assert (child.returncode, err) == (0, ""), f"{role}: {err}"
            told.append((role, json.loads(out)))
    finally:
        for child in children:
            child.kill()
            child.communicate()
    for role, counts in told:
        assert counts["turns"] > counts["again"], (role, counts)
        count(f"turns of {role} beside five others", counts["turns"])
    by_role = dict(told)
    assert by_role["forgetting"]["done"] > 0
    assert by_role["embedding"]["done"] > 0

    assert verify(Warehouse(tmp_path / "w")).clean
    assert not list((tmp_path / "w").glob("*/_staging/*"))
    with Catalog(Warehouse(tmp_path / "w").relations()) as catalog:
        strays = catalog.table(
            "select count(*) as n from embeddings anti join records using (record_id)"
        )
    assert strays["n"][0].as_py() == 0, "a vector of an erased record came back"
