"""What the tests of damaged files together covered."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Callable

_MANY = 1000  # mutants of a format, from which each format is told of by itself


@pytest.fixture
def tally(record_property: Callable[[str, object], None]) -> Callable[[str, Counter[str]], None]:
    """Return a call that notes what became of the mutants of a format."""

    def call(reader: str, outcomes: Counter[str]) -> None:
        for outcome, count in outcomes.items():
            record_property(f"mutant: {outcome}", count)
            if outcomes.total() >= _MANY:
                record_property(f"mutant: {outcome}, {reader}", count)

    return call
