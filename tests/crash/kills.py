"""Operations killed at their steps, and what they left."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from ecgstore.storage import disk

from .forks import forked
from .operations import staged
from .steps import At, counted, die, sampled, sides, sort

if TYPE_CHECKING:
    from pathlib import Path

    from .forks import Tell
    from .operations import Stage
    from .steps import Side


_BATCH = 40  # warehouses examined by one child


def kill_at_steps(name: str, scratch: Path, *, seed: int, most: int | None) -> dict[str, Any]:
    """Kill an operation at steps, each time on a fresh copy.

    Args:
        name: The operation.
        scratch: A folder to work in.
        seed: Of what is drawn.
        most: How many steps are drawn, each of another sort; None takes every step.

    Returns:
        ``kills``, ``steps`` and ``sorts`` counted, and ``problems`` told.
    """
    stage = staged(name, scratch)
    steps = counted(stage)
    points = sides(steps) if most is None else sampled(steps, seed=seed, most=most)
    problems = []
    for start in range(0, len(points), _BATCH):
        batch = points[start : start + _BATCH]
        left = [_killed(stage, number, side) for number, side in batch]
        told = forked(functools.partial(_looked_at, stage, left)).result()
        for (number, side), (root, _), found in zip(batch, left, told, strict=True):
            where = f"{name} killed {side} step {number} ({steps[number]})"
            problems += [f"{where}: {one}" for one in found]
            stage.drop(root)
    return {
        "kills": len(points),
        "steps": len(steps),
        "sorts": len({sort(steps[number]) for number, _ in points}),
        "problems": problems,
    }


def _looked_at(stage: Stage, left: list[tuple[Path, int]], _: Tell) -> list[list[str]]:
    return [stage.problems(root, done) for root, done in left]


def _killed(stage: Stage, number: int, side: Side) -> tuple[Path, int]:
    """Return the warehouse that a killed process left, and how many calls had returned."""
    root = stage.copy()

    def work(tell: Tell) -> None:
        with disk.watch(At(number, side, die)):
            stage.run(root, tell)

    ended = forked(work)
    assert ended.killed, f"it ended with {ended.code} instead\n{ended.error}"
    return root, max(ended.told, default=0)
