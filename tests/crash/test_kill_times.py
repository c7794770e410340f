"""Commands as they are typed, killed while they work; what they leave is whole."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from .operations import OPERATIONS
from .times import COMMANDS

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SEED = 1


@pytest.mark.parametrize("kills", [1, pytest.param(40, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", COMMANDS)
def test_what_a_killed_process_leaves_is_whole_and_the_next_one_finishes_it(
    name: str,
    kills: int,
    ask: Callable[..., Any],
    count: Callable[[str, int], None],
    memory: Path,
) -> None:
    options = {"seed": SEED, "kills": kills, "imports": OPERATIONS[name].imports}
    done = ask("times:kill_at_times", name, memory, **options)
    count("kills of whole processes at random times survived", done["kills"])
    assert not done["problems"], "\n".join([f"seed {SEED}", *done["problems"]])
    assert done["kills"] == kills
