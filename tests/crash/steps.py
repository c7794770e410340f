"""Steps of a write: told, or the one at which the process is killed or the disk fails."""

from __future__ import annotations

import os
import random
import re
import signal
from collections import defaultdict
from typing import TYPE_CHECKING, Literal

from ecgstore.schema import TABLES
from ecgstore.storage import disk

from .forks import forked

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from ecgstore.storage.disk import Step

    from .forks import Tell
    from .operations import Stage

Side = Literal["before", "amid", "after"]

_VERSION = re.compile(r"\d{20}")
_ID = re.compile(r"[0-9a-f]{32,64}")
_TIME = re.compile(r"\d{8}T\d{6}\.\d+Z")


def place(step: Step, root: Path) -> str:
    """Return what a step does to which sort of file, such as ``link labels/_delta_log/N.json``."""
    path = (step.target or step.path).relative_to(root.parent)
    text = "/".join(path.parts[1:]) or "."
    for pattern, sign in ((_VERSION, "N"), (_ID, "ID"), (_TIME, "TIME")):
        text = pattern.sub(sign, text)
    return f"{step.kind} {text}"


def counted(stage: Stage) -> list[str]:
    """Return the steps of an operation in order."""

    def work(_: Tell) -> list[str]:
        root = stage.copy()
        steps: list[str] = []

        def note(step: Step, done: bool) -> None:  # noqa: FBT001
            if done:
                steps.append(place(step, root))

        with disk.watch(note):
            stage.run(root, lambda _: None)
        stage.drop(root)
        return steps

    found: list[str] = forked(work).result()
    return found


class At:
    """A watcher that acts at one step.

    Args:
        number: Which step, from 0.
        side: Before it, after it, or amid: when half of what it writes is written.
        act: What to do.
    """

    def __init__(self, number: int, side: Side, act: Callable[[Step], None]) -> None:
        self._number = number
        self._side = side
        self._act = act
        self._seen = -1
        self.reached = False

    def __call__(self, step: Step, done: bool) -> None:  # noqa: FBT001
        self._seen += not done
        if self._seen != self._number or done != (self._side == "after") or self.reached:
            return
        self.reached = True
        if self._side == "amid" and step.data:
            with step.path.open("ab") as file:
                file.write(step.data[: len(step.data) // 2])
        self._act(step)


def die(_: Step) -> None:
    """Kill this process."""
    os.kill(os.getpid(), signal.SIGKILL)


def sides(steps: Sequence[str]) -> list[tuple[int, Side]]:
    """Return every point at which an operation can be broken off."""
    points: list[tuple[int, Side]] = []
    for number, step in enumerate(steps):
        points += [(number, "before"), (number, "after")]
        if step.startswith("write "):
            points.append((number, "amid"))
    return points


def sampled(steps: Sequence[str], *, seed: int, most: int) -> list[tuple[int, Side]]:
    """Return points of so many sorts of step, one of each; `seed` decides which."""
    groups: dict[str, list[tuple[int, Side]]] = defaultdict(list)
    for number, side in sides(steps):
        groups[sort(steps[number])].append((number, side))
    draw = random.Random(seed)
    chosen = [draw.choice(points) for points in groups.values()]
    return sorted(draw.sample(chosen, min(most, len(chosen))))


def sort(step: str) -> str:
    """Return what a step does to which sort of file, in whichever table."""
    kind, _, path = step.partition(" ")
    table, _, file = path.partition("/")
    return f"{kind} {file}" if file else f"{kind} {'table' if table in TABLES else table}"
