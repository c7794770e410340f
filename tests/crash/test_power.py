"""Power lost after any step: what had been reported as done is there, once, and verify is clean."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from .operations import OPERATIONS

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SEED = 1
NORMAL = {"moments": 2, "each": 2, "again": 2}
SLOW = {"moments": None, "each": 12, "again": 6}


@pytest.fixture(params=[NORMAL, pytest.param(SLOW, marks=pytest.mark.slow)], ids=["some", "most"])
def extent(request: pytest.FixtureRequest) -> dict[str, int | None]:
    """Return how many states are looked at; the slow suite loses power after every step."""
    wanted: dict[str, int | None] = request.param
    return wanted


@pytest.mark.parametrize("name", OPERATIONS)
def test_every_state_after_a_power_loss_opens_and_nothing_told_is_lost(
    name: str,
    extent: dict[str, int | None],
    ask: Callable[..., Any],
    count: Callable[[str, int], None],
    memory: Path,
) -> None:
    imports = OPERATIONS[name].imports
    done = ask("replay:lose_power", name, memory, seed=SEED, imports=imports, **extent)
    count("states after a power loss replayed", done["states"])
    count("steps with a power loss after them", done["steps"])
    assert not done["problems"], "\n".join([f"seed {SEED}", *done["problems"]])


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["sync", "sync_dir"])
def test_a_writer_that_forgets_to_force_its_files_to_disk_is_found_out(
    kind: str, ask: Callable[..., Any], memory: Path
) -> None:
    options = {"seed": SEED, "moments": 2, "each": 12, "without": kind}
    done = ask("replay:lose_power", "label", memory, **options)
    assert done["problems"]


@pytest.mark.parametrize(
    "every", [pytest.param(every, marks=pytest.mark.slow) for every in (100, 1)]
)
def test_a_torn_commit_of_another_engine_is_named_and_repaired(
    every: int, ask: Callable[..., Any], count: Callable[[str, int], None], memory: Path
) -> None:
    imports = (*OPERATIONS["repair"].imports, "deltalake")
    done = ask("foreign:tear_foreign_commits", memory, every=every, imports=imports)
    count("states after a torn commit of another engine", done["states"])
    assert not done["problems"], "\n".join(done["problems"])
