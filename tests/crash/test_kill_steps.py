"""Writers killed before, amid and after their steps: nothing is lost, doubled or seen half."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from .operations import OPERATIONS

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SEED = 1


@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_killed_at_every_sort_of_step(
    name: str, ask: Callable[..., Any], count: Callable[[str, int], None], tmp_memory: Path
) -> None:
    _kill(name, ask, count, tmp_memory, seed=SEED)


@pytest.mark.slow
@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_killed_at_every_step(
    name: str, ask: Callable[..., Any], count: Callable[[str, int], None], tmp_memory: Path
) -> None:
    _kill(name, ask, count, tmp_memory, seed=None)


def _kill(
    name: str,
    ask: Callable[..., Any],
    count: Callable[[str, int], None],
    tmp_memory: Path,
    *,
    seed: int | None,
) -> None:
    imports = OPERATIONS[name].imports
    done = ask("kills:kill_at_steps", name, tmp_memory, seed=seed, imports=imports)
    count(f"kills at steps of {name} survived", done["kills"])
    count(f"sorts of step of {name} killed at", len(done["sorts"]))
    assert not done["problems"], "\n".join([f"seed {seed}", *done["problems"]])
