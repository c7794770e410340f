"""Steps that fail as on a bad disk, and commands on disks that are full, read-only or forbidden."""

from __future__ import annotations

import errno
import gc
import os
import traceback
from typing import TYPE_CHECKING, Any

from ecgstore.errors import EcgStoreError, WarehouseError
from ecgstore.storage import disk
from ecgstore.storage.locks import Lock

from .content import content, differences
from .forks import forked
from .operations import staged
from .steps import At, counted, sampled, sides, sort

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from ecgstore.storage.disk import Step

    from .forks import Tell
    from .operations import Stage
    from .steps import Side

CODES = (errno.ENOSPC, errno.EIO, errno.EACCES)
_BATCH = 25  # faults in one process, so that a handle that stays open is seen
_OWN_BUSINESS = 3  # files the interpreter may open and keep, such as one for entropy

Fault = tuple[int, "Side", int]


def fail_at_steps(name: str, scratch: Path, *, seed: int, most: int | None) -> dict[str, Any]:
    """Let steps of an operation fail, each time on a fresh copy.

    Args:
        name: The operation.
        scratch: A folder to work in.
        seed: Of what is drawn.
        most: How many steps are drawn, each of another sort; None takes every step.

    Returns:
        ``faults``, ``steps`` and ``sorts`` counted, and ``problems`` told.
    """
    stage = staged(name, scratch)
    steps = counted(stage)
    points = sides(steps) if most is None else sampled(steps, seed=seed, most=most)
    faults = [(*point, CODES[(turn + seed) % 3]) for turn, point in enumerate(points)]
    problems = []
    for start in range(0, len(faults), _BATCH):
        batch = faults[start : start + _BATCH]

        def work(_: Tell, batch: Sequence[Fault] = batch) -> list[list[str]]:
            return [_failed(stage, fault) for fault in batch]

        for (number, side, code), found in zip(batch, forked(work).result(), strict=True):
            where = f"{name}: {errno.errorcode[code]} {side} step {number} ({steps[number]})"
            problems += [f"{where}: {one}" for one in found]
    return {
        "faults": len(faults),
        "steps": len(steps),
        "sorts": len({sort(steps[number]) for number, _ in points}),
        "problems": problems,
    }


def _failed(stage: Stage, fault: Fault) -> list[str]:
    """Run an operation of which one step fails, and return what is then wrong."""
    number, side, code = fault
    root = stage.copy()
    done: list[object] = []
    handles = _handles()

    def fail(step: Step) -> None:
        raise OSError(code, os.strerror(code), str(step.path))

    try:
        with disk.watch(At(number, side, fail)):
            stage.run(root, done.append)
    except EcgStoreError as error:
        problems = _ill_told(error, root)
    except Exception:  # noqa: BLE001  an error that is not ours is a problem
        problems = [f"not an error of ours: {traceback.format_exc(limit=-2)}"]
    else:  # what failed was not needed
        wanted = stage.contents[-1]
        assert wanted is not None
        problems = [f"no error, and {one}" for one in differences(content(root), wanted)]
    if (left := _handles() - handles) > _OWN_BUSINESS:
        problems.append(f"{left} files were left open")
    problems += _locked(root)
    problems = problems or stage.problems(root, len(done))
    stage.drop(root)
    return problems


def _ill_told(error: EcgStoreError, root: Path) -> list[str]:
    """Return what is wrong with an error: it must be of one line and say where."""
    if not isinstance(error, WarehouseError):
        return [f"not a WarehouseError: {error!r}"]
    if "\n" in error.message or str(root) not in error.message:
        return [f"the error does not say where: {error.message!r}"]
    return []


def _handles() -> int:
    gc.collect()  # errors hold on to frames that hold on to files
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208


def _locked(root: Path) -> list[str]:
    if not root.exists():
        return []
    try:
        with Lock(root).exclusive(wait_s=0):
            return []
    except WarehouseError:
        return ["the lock is still held"]
