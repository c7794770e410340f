"""A run that is killed, or whose disk is full, goes on to what an undisturbed one comes to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from .trainings import IMPORTS

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SEED = 1


@pytest.mark.parametrize("most", [2, pytest.param(None, marks=pytest.mark.slow)])
def test_a_run_broken_off_anywhere_goes_on_to_the_same_losses_and_weights(
    most: int | None, ask: Callable[..., Any], count: Callable[[str, int], None], memory: Path
) -> None:
    options = {"seed": SEED, "most": most, "imports": IMPORTS}
    done = ask("trainings:break_training_off", memory, **options)
    count("kills of a training survived", done["kills"])
    count("faults of the disk in a training survived", done["faults"])
    assert not done["problems"], "\n".join([f"seed {SEED}", *done["problems"]])
