"""Fixtures shared by all tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def test_data() -> Path:
    """Return the folder of real recordings and reference values."""
    folder = Path(os.environ.get("ECGSTORE_TEST_DATA", ROOT.parent / "shared"))
    if not folder.is_dir():
        if os.environ.get("CI"):
            pytest.fail(f"the test data folder {folder.name!r} is missing; CI must have it")
        pytest.skip("real recordings are absent; set ECGSTORE_TEST_DATA to their folder")
    return folder
