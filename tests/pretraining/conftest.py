"""What the tests of training share: a small archive, and what it takes to train on it."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from ecgstore.store import Store
from ecgstore.synthetic import cohort, write_wfdb

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="session")
def archive_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a warehouse of 24 synthetic ECGs; not to be written to."""
    folder = tmp_path_factory.mktemp("archive")
    write_wfdb(folder / "ecgs", cohort(24, seed=7))
    with Store(folder / "warehouse") as store:
        store.ingest(folder / "ecgs", dataset="synthetic", keep_ids=True)
    return folder / "warehouse"


@pytest.fixture
def archive(archive_home: Path, tmp_path: Path) -> Path:
    """Return a copy of that warehouse of one's own."""
    home = tmp_path / "warehouse"
    shutil.copytree(archive_home, home)
    return home
