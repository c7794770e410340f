"""Operations whose machine loses power at any step, and what is found when it is back."""

from __future__ import annotations

import functools
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ecgstore import disk

from .forks import forked
from .operations import staged
from .power import Disk, Pool, digest, on_disk
from .steps import place

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from ecgstore.disk import Step

    from .forks import Tell
    from .operations import Stage
    from .power import State

_SAMPLES = 4  # random choices at each step
_BATCH = 200  # states looked at by one child


@dataclass(frozen=True)
class Loss:
    """What a power loss left.

    Attributes:
        after: How many steps had been done.
        done: How many calls had returned.
        state: What is left.
    """

    after: int
    done: int
    state: State


def lose_power(
    name: str,
    scratch: Path,
    *,
    seed: int,
    limit: int | None,
    again: int = 1,
    without: str = "",
) -> dict[str, Any]:
    """Replay an operation with a power loss after every step.

    Args:
        name: The operation.
        scratch: A folder to work in.
        seed: Of what is drawn.
        limit: How many of the different states are looked at: those of the moments at which a
            call had just returned, and others evenly chosen; None takes all.
        again: The operation is run again on every so many of them.
        without: A kind of step that is left out, to see that its absence is noticed.

    Returns:
        ``states`` looked at, ``different`` ones there are, ``steps``, and ``problems`` told.
    """
    stage = staged(name, scratch)
    steps, marks, unseen = forked(lambda _: _recorded(stage)).result()
    losses = list(_losses(stage, steps, marks, seed=seed, without=without))
    problems = [f"{name}: {path} was written past the recorder" for path in unseen]
    chosen = losses if limit is None else _drawn(losses, marks, limit)
    pool = Pool(stage.home)
    for start in range(0, len(chosen), _BATCH):
        batch = chosen[start : start + _BATCH]
        work = functools.partial(_looked_at, stage, pool, batch, every=again)
        for loss, found in zip(batch, forked(work).result(), strict=True):
            last = place(steps[loss.after - 1], stage.base) if loss.after else "nothing"
            where = f"{name} lost power after {loss.after} steps ({last}), {loss.done} calls done"
            problems += [f"{where}: {one}" for one in found]
    return {
        "states": len(chosen),
        "different": len(losses),
        "steps": len(steps),
        "problems": problems,
    }


def _recorded(stage: Stage) -> tuple[list[Step], list[int], list[str]]:
    """Return the steps of an operation, how many were done when each call returned, and what
    changed on disk without a step."""
    root = stage.base
    kept = root.with_name("kept")
    if root.exists():
        shutil.copytree(root, kept)
    steps: list[Step] = []
    marks: list[int] = []

    def note(step: Step, done: bool) -> None:  # noqa: FBT001
        if done:
            steps.append(step)

    whole = Disk(root)
    with disk.watch(note):
        stage.run(root, lambda _: marks.append(len(steps)))
    for step in steps:
        whole.apply(step)
    seen, told = on_disk(root), whole.now()
    unseen = [path for path in {*seen, *told} if seen.get(path, 0) != told.get(path, 0)]
    shutil.rmtree(root)
    if kept.exists():
        kept.rename(root)
    return steps, marks, sorted(unseen)


def _losses(
    stage: Stage, steps: list[Step], marks: list[int], *, seed: int, without: str
) -> Iterator[Loss]:
    """Yield every state once, with the most that had been reported as done."""
    model = Disk(stage.base)
    seen: dict[tuple[str, int], None] = {}
    for after in range(len(steps) + 1):
        if after and steps[after - 1].kind != without:
            model.apply(steps[after - 1])
        done = sum(mark <= after for mark in marks)
        for state in model.states(seed=seed * 100_003 + after, samples=_SAMPLES):
            key = (digest(state), done)
            if key not in seen:
                seen[key] = None
                yield Loss(after, done, state)


def _drawn(losses: list[Loss], marks: list[int], limit: int) -> list[Loss]:
    told = [loss for loss in losses if loss.after in marks][:limit]
    others = [loss for loss in losses if loss.after not in marks]
    stride = max(1, -(-len(others) // max(1, limit - len(told))))
    return [*told, *others[::stride]]


def _looked_at(
    stage: Stage, pool: Pool, losses: list[Loss], _: Tell, *, every: int
) -> list[list[str]]:
    """Return what is wrong with each; on every so many, the operation is run again."""
    found = []
    for number, loss in enumerate(losses):
        folder = pool.put(loss.state)
        root = folder / stage.base.name
        found.append(stage.problems(root, loss.done, again=number % every == 0))
        shutil.rmtree(folder)
    return found
