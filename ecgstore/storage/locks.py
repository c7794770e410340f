"""Who may change the files of a warehouse at the same time.

Commits are safe without a lock: each is a compare-and-swap. What needs one is removing: a file
that no version names may be about to be named, and rows without a record may belong to a record
that is about to be committed. So a writer holds the lock `shared` from the moment it puts shards
in place until they are committed, and whoever removes holds it `exclusive`. The kernel releases
the lock of a process that dies.
"""

from __future__ import annotations

import fcntl
import os
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ecgstore.errors import WarehouseError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["Lock", "claim"]

_PAUSE_S = 0.005


class Lock:
    """The lock of one warehouse; the same object may take it again while it holds it.

    Two files make it fair: whoever wants it passes the gate first, so writers that come after
    somebody who waits for `exclusive` wait as well.

    Args:
        root: The warehouse folder.
    """

    def __init__(self, root: Path) -> None:
        self._folder = root / "_locks"
        self._held = threading.local()

    @contextmanager
    def shared(self) -> Iterator[None]:
        """Hold the lock together with other writers.

        Raises:
            OSError: The lock files cannot be opened.
        """
        with self._hold(fcntl.LOCK_SH, wait_s=None):
            yield

    @contextmanager
    def exclusive(self, *, wait_s: float | None = None) -> Iterator[None]:
        """Hold the lock alone.

        Args:
            wait_s: How long to wait for writers to finish their commit; None for ever.

        Raises:
            WarehouseError: Others still held it after `wait_s`.
            OSError: The lock files cannot be opened.
        """
        with self._hold(fcntl.LOCK_EX, wait_s=wait_s):
            yield

    @contextmanager
    def _hold(self, kind: int, *, wait_s: float | None) -> Iterator[None]:
        depth, alone = getattr(self._held, "state", (0, False))
        if depth:
            if kind == fcntl.LOCK_EX and not alone:
                msg = "The lock is held together with others and cannot be had alone."
                raise WarehouseError(msg, path=self._folder)
            self._held.state = (depth + 1, alone)
            try:
                yield
            finally:
                self._held.state = (depth, alone)
            return
        self._folder.mkdir(exist_ok=True)
        main = _opened(self._folder / "commit")
        try:
            gate = _opened(self._folder / "gate")
            try:
                deadline = None if wait_s is None else time.monotonic() + wait_s
                self._take(gate, fcntl.LOCK_EX, deadline)
                self._take(main, kind, deadline)
            finally:
                os.close(gate)
            self._held.state = (1, kind == fcntl.LOCK_EX)
            try:
                yield
            finally:
                self._held.state = (0, False)
        finally:
            os.close(main)

    def _take(self, descriptor: int, kind: int, deadline: float | None) -> None:
        if deadline is None:
            fcntl.flock(descriptor, kind)
            return
        while True:
            try:
                fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
            except BlockingIOError as error:
                if time.monotonic() > deadline:
                    msg = f"Others are writing to the warehouse in {str(self._folder.parent)!r}."
                    hint = "Wait until they are done, then run the same command again."
                    raise WarehouseError(msg, path=self._folder.parent, hint=hint) from error
                time.sleep(_PAUSE_S)
            else:
                return

    def __getstate__(self) -> dict[str, object]:
        return {"_folder": self._folder}

    def __setstate__(self, state: dict[str, Path]) -> None:
        self._folder = state["_folder"]
        self._held = threading.local()


@contextmanager
def claim(folder: Path, *, wait: bool = False) -> Iterator[bool]:
    """Claim a folder for this process.

    Args:
        folder: It exists.
        wait: Whether to wait while another living process has it; else False is yielded then.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(descriptor)


def _opened(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
