"""The server of a test process, and what all crash tests together covered."""

from __future__ import annotations

import tempfile
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from .serve import Server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_MARK = "crash: "
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


@pytest.fixture
def count(record_property: Callable[[str, object], None]) -> Callable[[str, int], None]:
    """Return a call that adds to what the summary says."""

    def call(what: str, number: int) -> None:
        record_property(f"{_MARK}{what}", number)

    return call


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    totals: Counter[str] = Counter()
    for report in terminalreporter.getreports("passed"):
        for name, number in report.user_properties:
            if name.startswith(_MARK) and isinstance(number, int):
                totals[name.removeprefix(_MARK)] += number
    if totals:
        terminalreporter.section("crash tests")
        for name, number in sorted(totals.items()):
            terminalreporter.write_line(f"{number:6} {name}")
