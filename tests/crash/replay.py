"""Operations whose machine loses power at any step, and what is found when it is back."""

from __future__ import annotations

import functools
import random
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ecgstore.storage import disk

from .forks import forked
from .operations import staged
from .power import Disk, Pool, digest, on_disk
from .steps import place

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ecgstore.storage.disk import Step

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
    moments: int | None,
    each: int | None,
    again: int = 1,
    without: str = "",
) -> dict[str, Any]:
    """Replay an operation with a power loss after every step.

    Args:
        name: The operation.
        scratch: A folder to work in.
        seed: Of what is drawn.
        moments: After how many steps power is lost, besides those after which a call had just
            returned; None takes every step.
        each: How many states of a moment are looked at; None takes all.
        again: The operation is run again on every so many of them.
        without: A kind of step that is left out, to see that its absence is noticed.

    Returns:
        ``states`` looked at, ``steps`` after which power was lost, and ``problems`` told.
    """
    stage = staged(name, scratch)
    steps, marks, unseen = forked(lambda _: _recorded(stage)).result()
    problems = [f"{name} changed {path} without a step" for path in unseen]
    draw = random.Random(seed)
    chosen = set(range(len(steps) + 1))
    if moments is not None:
        chosen = {*marks, *draw.sample(sorted(chosen), min(moments, len(chosen)))}
    losses = list(_losses(stage, steps, marks, chosen, draw, each=each, without=without))
    pool = Pool(Path(tempfile.mkdtemp(dir=stage.home)))
    for start in range(0, len(losses), _BATCH):
        batch = losses[start : start + _BATCH]
        work = functools.partial(_looked_at, stage, pool, batch, every=again)
        for loss, found in zip(batch, forked(work).result(), strict=True):
            last = place(steps[loss.after - 1], stage.base) if loss.after else "nothing"
            where = f"{name} lost power after {loss.after} steps ({last}), {loss.done} calls done"
            problems += [f"{where}: {one}" for one in found]
    return {
        "states": len(losses),
        "steps": len(chosen),
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
    stage: Stage,
    steps: list[Step],
    marks: list[int],
    moments: set[int],
    draw: random.Random,
    *,
    each: int | None,
    without: str,
) -> Iterator[Loss]:
    """Yield the states that a power loss at some moments may leave, each once."""
    model = Disk(stage.base)
    seen: set[tuple[str, int]] = set()
    for after in range(len(steps) + 1):
        if after and steps[after - 1].kind != without:
            model.apply(steps[after - 1])
        if after not in moments:
            continue
        done = sum(mark <= after for mark in marks)
        states = {digest(one): one for one in model.states(draw, samples=_SAMPLES)}
        fresh = [name for name in states if (name, done) not in seen]
        for name in fresh if each is None else draw.sample(fresh, min(each, len(fresh))):
            seen.add((name, done))
            yield Loss(after, done, states[name])


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
