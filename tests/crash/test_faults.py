"""A step that fails ends a command with one named error, and the next run succeeds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from .operations import OPERATIONS

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SEED = 1


@pytest.mark.parametrize("most", [1, pytest.param(None, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", OPERATIONS)
def test_a_step_that_fails_is_one_named_error_and_nothing_is_half_there(
    name: str,
    most: int | None,
    ask: Callable[..., Any],
    count: Callable[[str, int], None],
    memory: Path,
) -> None:
    options = {"seed": SEED, "most": most, "imports": OPERATIONS[name].imports}
    done = ask("faults:fail_at_steps", name, memory, **options)
    count("faults injected", done["faults"])
    count("sorts of step that failed", done["sorts"])
    assert not done["problems"], "\n".join([f"seed {SEED}", *done["problems"]])
