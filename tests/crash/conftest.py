"""The server of a test process, and where crash tests work."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from .serve import Server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_MEMORY = Path("/dev/shm")  # a disk is forced a million times: in memory that costs nothing


@pytest.fixture(scope="session")
def ask() -> Iterator[Callable[..., Any]]:
    """Return a call that runs ``module:function`` of this package in a fork of a warm process."""
    with Server() as server:
        yield server


@pytest.fixture(scope="session")
def memory() -> Iterator[Path]:
    """Return a folder, in memory where there is such a place."""
    home = _MEMORY if _MEMORY.is_dir() else None
    with tempfile.TemporaryDirectory(prefix="crash-", dir=home) as folder:
        yield Path(folder)
