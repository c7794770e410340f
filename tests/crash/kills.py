"""Operations killed at their steps, and what they left."""

from __future__ import annotations

import traceback
from typing import TYPE_CHECKING, Any

from ecgstore import disk
from ecgstore.store import Store

from .content import content, differences, examined, grave, unlike_sources
from .forks import forked
from .operations import staged
from .steps import At, counted, die, sampled, sides

if TYPE_CHECKING:
    from pathlib import Path

    from .forks import Tell
    from .operations import Stage
    from .steps import Side


_BATCH = 40  # warehouses examined by one child


def kill_at_steps(name: str, scratch: Path, *, seed: int | None) -> dict[str, Any]:
    """Kill an operation at steps, each time on a fresh copy; `seed` None takes every step.

    Returns:
        ``kills``, ``steps`` and ``sorts`` counted, and ``problems`` told.
    """
    stage = staged(name, scratch)
    steps = counted(stage)
    points = sides(steps) if seed is None else sampled(steps, seed=seed)
    problems = []
    for start in range(0, len(points), _BATCH):
        batch = points[start : start + _BATCH]
        left = [_killed(stage, number, side) for number, side in batch]
        told = forked(lambda _: [_problems(stage, *one) for one in left]).result()  # noqa: B023
        for (number, side), (root, _), found in zip(batch, left, told, strict=True):
            where = f"{name} killed {side} step {number} ({steps[number]})"
            problems += [f"{where}: {one}" for one in found]
            stage.drop(root)
    return {
        "kills": len(points),
        "steps": len(steps),
        "sorts": sorted({steps[number] for number, _ in points}),
        "problems": problems,
    }


def _killed(stage: Stage, number: int, side: Side) -> tuple[Path, int]:
    """Return the warehouse that a killed process left, and how many calls had returned."""
    root = stage.copy()

    def work(tell: Tell) -> None:
        with disk.watch(At(number, side, die)):
            stage.run(root, tell)

    ended = forked(work)
    assert ended.killed, f"it ended with {ended.code} instead\n{ended.error}"
    return root, max(ended.told, default=0)


def _problems(stage: Stage, root: Path, done: int) -> list[str]:
    before, after = stage.around(done)
    try:
        problems = [] if stage.operation.damaged else examined(root, before, after)
        return problems or completed(stage, root)
    except Exception:  # noqa: BLE001  one that cannot be examined is a problem, too
        return [traceback.format_exc()]


def completed(stage: Stage, root: Path) -> list[str]:
    """Run the operation again, and return what is then wrong."""
    stage.run(root, lambda _: None)
    wanted = stage.contents[-1]
    assert wanted is not None
    return [
        *(f"run again: {one}" for one in grave(Store(root).verify())),
        *(f"run again: {one}" for one in differences(content(root), wanted)),
        *unlike_sources(root),
    ]
