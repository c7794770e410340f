"""Writers killed before, amid and after their steps: nothing is lost, doubled or seen half."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from .operations import OPERATIONS

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SEED = 1


@pytest.mark.parametrize("most", [2, pytest.param(None, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", OPERATIONS)
def test_what_a_killed_operation_leaves_is_whole_and_the_next_run_finishes_it(
    name: str,
    most: int | None,
    ask: Callable[..., Any],
    count: Callable[[str, int], None],
    memory: Path,
) -> None:
    options = {"seed": SEED, "most": most, "imports": OPERATIONS[name].imports}
    done = ask("kills:kill_at_steps", name, memory, **options)
    count("kills at steps survived", done["kills"])
    count("sorts of step killed at", done["sorts"])
    assert not done["problems"], "\n".join([f"seed {SEED}", *done["problems"]])
