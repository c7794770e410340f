"""Real command lines killed at random moments of their work, and what they left."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .forks import forked
from .operations import ERASED, staged

if TYPE_CHECKING:
    from pathlib import Path

    from .operations import Stage

COMMANDS = {
    "ingest": ("ingest", "{sources}/first", "--dataset", "ds", "--jobs", "2"),
    "embed": (
        *("embed", "--model", "stmem.tiny", "--where", "record_id < 'ds/r03'"),
        *("--keep-windows", "--device", "cpu", "--precision", "fp32"),
    ),
    "forget": ("forget", ERASED, "--yes"),
    "compact": ("compact", "--retention", "0"),
}
"""What is typed; by operation, of which it is the first call."""

_DONE = (0, 3)  # with 3 an ingest tells of files it could not read
_PAUSE_S = 0.001
_DEADLINE_S = 120.0


@dataclass(frozen=True)
class Run:
    """A command line that ended.

    Attributes:
        code: Its exit code, or the negative number of the signal that ended it.
        error: What it wrote to standard error.
        window_s: Seconds from the first change in the warehouse to the end.
    """

    code: int
    error: str
    window_s: float


def kill_at_times(name: str, scratch: Path, *, seed: int, kills: int) -> dict[str, Any]:
    """Kill a command so many times, each at a random moment after its first change on disk.

    Returns:
        ``kills`` survived, and ``problems`` told.
    """
    stage = staged(name, scratch)
    draw = random.Random(seed)
    root = stage.copy()
    whole = _run(stage, root, after_s=None)
    problems = _problems(stage, root, whole)
    killed = tries = 0
    while killed < kills and tries < 5 * kills and not problems:
        tries += 1
        after_s = draw.uniform(0, whole.window_s)
        root = stage.copy()
        run = _run(stage, root, after_s=after_s)
        killed += run.code == -signal.SIGKILL
        where = f"{name} killed {after_s:.3f} s after its first change"
        problems += [f"{where}: {one}" for one in _problems(stage, root, run)]
        stage.drop(root)
    return {"kills": killed, "problems": problems}


def _problems(stage: Stage, root: Path, run: Run) -> list[str]:
    """Return what is wrong with what a command left."""
    if run.code not in (-signal.SIGKILL, *_DONE):
        return [f"it ended with {run.code}: {run.error}"]
    found: list[str] = forked(lambda _: stage.problems(root, int(run.code in _DONE))).result()
    return found


def _run(stage: Stage, root: Path, *, after_s: float | None) -> Run:
    """Run the command; kill it so many seconds after its first change unless None."""
    words = [word.format(sources=stage.sources) for word in COMMANDS[stage.operation.name]]
    before, deadline = _seen(root), time.monotonic() + _DEADLINE_S
    command = subprocess.Popen(
        [sys.executable, "-m", "ecgstore", "-w", str(root), *words],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        while command.poll() is None and _seen(root) == before and time.monotonic() < deadline:
            time.sleep(_PAUSE_S)
        began = time.monotonic()
        if after_s is not None:
            with suppress(subprocess.TimeoutExpired):
                command.wait(after_s)
            command.kill()
        _, error = command.communicate(timeout=_DEADLINE_S)
        window_s = time.monotonic() - began
        while _works(command.pid) and time.monotonic() < deadline:
            time.sleep(_PAUSE_S)  # its worker processes see that it is gone, and end
        assert not _works(command.pid), "worker processes outlive their command"
    finally:
        with suppress(ProcessLookupError):
            os.killpg(command.pid, signal.SIGKILL)
        command.communicate()
    return Run(command.returncode, error, window_s)


def _seen(root: Path) -> dict[str, int]:
    """Return when each folder of a warehouse was last changed."""
    times = {}
    for folder, _, _ in os.walk(root):
        with suppress(FileNotFoundError):
            times[folder] = os.stat(folder).st_mtime_ns  # noqa: PTH116  many times a second
    return times


def _works(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True
