"""Work done in a forked child, so that it may die, and what became of it.

Libraries are imported once by a process that never uses them; its forks are up in milliseconds,
so a test can afford hundreds of deaths.
"""

from __future__ import annotations

import os
import pickle
import select
import signal
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

Tell: TypeAlias = Callable[[object], None]
"""What a child tells its parent with, at once."""

DEADLINE_S = 300.0


@dataclass(frozen=True)
class Ended:
    """How a child ended.

    Attributes:
        code: Exit code, or the negative number of the signal that ended it.
        told: What it told before.
        value: What its work returned.
        error: The traceback of its work, empty when there is none.
    """

    code: int
    told: tuple[Any, ...]
    value: Any
    error: str

    @property
    def killed(self) -> bool:
        return self.code == -signal.SIGKILL

    def result(self) -> Any:
        """Return the value, or raise what went wrong."""
        if self.code != 0:
            msg = self.error or f"the child ended with {self.code}"
            raise RuntimeError(msg)
        return self.value


@dataclass(frozen=True)
class Child:
    """A child at work."""

    pid: int
    pipe: int

    def end(self, *, deadline_s: float = DEADLINE_S) -> Ended:
        """Wait until it ends; one that does not in time is killed, and that is an error."""
        data, late = _drained(self.pipe, deadline_s)
        if late:
            os.kill(self.pid, signal.SIGKILL)
        os.close(self.pipe)
        code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        told: list[Any] = []
        value: Any = None
        error = f"no end after {deadline_s:g} s" if late else ""
        for kind, content in _frames(data):
            if kind == "told":
                told.append(content)
            elif kind == "value":
                value = content
            else:
                error = content
        return Ended(1 if late else code, tuple(told), value, error)


def start(work: Callable[[Tell], object]) -> Child:
    """Begin `work` in a forked child; what it is given tells the parent something at once."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid:
        os.close(writing)
        return Child(pid, reading)
    code = 1
    try:
        os.close(reading)

        def send(kind: str, content: object) -> None:
            body = pickle.dumps((kind, content))
            frame = len(body).to_bytes(4, "big") + body
            while frame:
                frame = frame[os.write(writing, frame) :]

        try:
            send("value", work(lambda content: send("told", content)))
            code = 0
        except BaseException:  # noqa: BLE001  the parent is told whatever it is
            send("error", traceback.format_exc())
    finally:
        os._exit(code)


def forked(work: Callable[[Tell], object], *, deadline_s: float = DEADLINE_S) -> Ended:
    """Do `work` in a forked child and wait for it."""
    return start(work).end(deadline_s=deadline_s)


def _drained(pipe: int, deadline_s: float) -> tuple[bytes, bool]:
    data = bytearray()
    last = time.monotonic() + deadline_s
    while (left := last - time.monotonic()) > 0:
        if select.select([pipe], [], [], left)[0]:
            chunk = os.read(pipe, 1 << 20)
            if not chunk:
                return bytes(data), False
            data += chunk
    return bytes(data), True


def _frames(data: bytes) -> list[tuple[str, Any]]:
    frames, place = [], 0
    while place + 4 <= len(data):
        size = int.from_bytes(data[place : place + 4], "big")
        if place + 4 + size > len(data):
            break  # it died while it told this
        frames.append(pickle.loads(data[place + 4 : place + 4 + size]))
        place += 4 + size
    return frames
