"""What the tests of damaged files together covered."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Callable


@pytest.fixture
def tally(record_property: Callable[[str, object], None]) -> Callable[[str, Counter[str]], None]:
    """Return a call that notes what became of the mutants of a format."""

    def call(reader: str, outcomes: Counter[str]) -> None:
        for outcome, count in outcomes.items():
            record_property(f"mutants {reader} {outcome}", count)

    return call
