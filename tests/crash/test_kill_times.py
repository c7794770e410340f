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


_NORMAL = {"ingest"}
"""Commands that the normal suite kills; the others are killed at each of their steps as well."""


@pytest.mark.parametrize(
    ("name", "kills"),
    [
        *(pytest.param(one, 1, id=one) for one in COMMANDS if one in _NORMAL),
        *(pytest.param(one, 40, id=f"{one}-40", marks=pytest.mark.slow) for one in COMMANDS),
    ],
)
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
