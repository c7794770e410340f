"""Damaged files of every format: refused, or read as what they are, within time and memory."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from ecgstore.io import readers

from .samples import file_of, parts_of

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).resolve().parents[2]
SEED = 4
SUMMED = {"scp"}
"""Formats whose checksum covers all of the file: what is read of a mutant is what was there."""


def attempt(reader: str, test_data: Path, folder: Path, first: int, last: int) -> list[Any]:
    """Return what became of each mutant; one that ends the process is followed by the next."""
    (folder / "made").mkdir(exist_ok=True)
    source = file_of(reader, test_data, folder / "made")
    target = folder / source.name
    task = {
        "reader": reader,
        "path": str(target),
        "parts": {part.name: str(part) for part in parts_of(source)},
        "seed": SEED,
        "first": first,
        "last": last,
    }
    done = subprocess.run(
        [sys.executable, "-m", "tests.readers.attempt"],
        input=json.dumps(task),
        capture_output=True,
        text=True,
        timeout=60 + 6 * (last - first),
        cwd=ROOT,
        check=False,
    )
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    outcomes = [line for line in lines if "outcome" in line]
    if done.returncode:
        number = lines[-1]["number"] if lines else first
        what = {"outcome": "crashed", "number": number, "faults": [done.stderr[-400:]]}
        rest = attempt(reader, test_data, folder, number + 1, last) if number + 1 < last else []
        return [*outcomes, what, *rest]
    return outcomes


def check(reader: str, test_data: Path, folder: Path, mutants: int) -> Counter[str]:
    outcomes = attempt(reader, test_data, folder, 0, mutants)
    bad = [one for one in outcomes if one["faults"]]
    assert not bad, f"{len(bad)} of {mutants}: {bad[:3]}"
    assert [one["number"] for one in outcomes] == list(range(mutants))
    tally = Counter(str(one["outcome"]) for one in outcomes)
    if reader in SUMMED:
        assert tally["differs"] == 0
    assert tally["refused"] > 0
    return tally


@pytest.mark.parametrize("reader", sorted(readers))
def test_mutants_are_refused_or_read(
    reader: str, test_data: Path, tmp_path: Path, tally: Callable[[str, Counter[str]], None]
) -> None:
    tally(reader, check(reader, test_data, tmp_path, 100))


@pytest.mark.slow
@pytest.mark.parametrize("reader", sorted(readers))
def test_many_mutants_are_refused_or_read(
    reader: str, test_data: Path, tmp_path: Path, tally: Callable[[str, Counter[str]], None]
) -> None:
    tally(reader, check(reader, test_data, tmp_path, 2000))
