"""A small archive of labelled ECGs whose labels can be seen in the signal."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import numpy as np
import pytest

from ecgstore.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

RECORDS, RATE_HZ = 48, 100


@pytest.fixture(scope="session")
def labelled_home(
    tmp_path_factory: pytest.TempPathFactory, write_wfdb: Callable[..., Path]
) -> Path:
    """Return a warehouse of 24 patients with two ECGs each, the positives' waves twice as fast.

    Task FAST is known of all, RARE of a third, SPEED is a number; the split ``one`` has one
    reshuffle and ``three`` has three.
    """
    folder = tmp_path_factory.mktemp("labelled")
    rng = np.random.default_rng(5)
    time = np.arange(10 * RATE_HZ) / RATE_HZ
    rows = ["record_id,patient,FAST,RARE,SPEED,SORT"]
    for number in range(RECORDS):
        patient = number // 2
        fast = patient % 2
        hertz = (2.0 if fast else 1.0) * rng.uniform(0.95, 1.05)
        scale = rng.uniform(0.5, 1.0, (12, 1))
        beats = scale * np.sin(2 * np.pi * (hertz * time + rng.random()))
        noise = 0.05 * rng.standard_normal((12, len(time)))
        write_wfdb(folder / "ecgs", f"r{number:03d}", (beats + noise) * 200, rate_hz=RATE_HZ)
        rare = "" if patient % 3 else str(fast)
        rows.append(f"small/r{number:03d},p{patient},{fast},{rare},{hertz:.4f},{patient % 3}")
    table = folder / "labels.csv"
    table.write_text("\n".join(rows) + "\n")
    with Store(folder / "warehouse") as store:
        store.ingest(folder / "ecgs", dataset="small", keep_ids=True)
        for task in ("FAST", "RARE", "SPEED", "SORT"):
            patient_column = "patient" if task == "FAST" else None
            store.label(table, task=task, label=task, patient=patient_column, keep_ids=True)
        store.split("one", task="FAST", repeats=1, test_size=0.25)
        store.split("three", task="FAST", repeats=3, test_size=0.25)
    return folder / "warehouse"


@pytest.fixture
def labelled(labelled_home: Path, tmp_path: Path) -> Path:
    """Return a copy of that warehouse of one's own."""
    home = tmp_path / "warehouse"
    shutil.copytree(labelled_home, home)
    return home
