"""A queue between threads: bounded, ended by its writers, stopped by its reader."""

from __future__ import annotations

import contextlib
import queue
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterator

__all__ = ["Pipe", "StoppedError"]

T = TypeVar("T")

_POLL_S = 0.1


class StoppedError(Exception):
    """Nobody wants more; how threads are told to end."""


class Pipe(Generic[T]):
    """A bounded queue between threads that ends with its writers, or with an error of theirs.

    Args:
        stop: Set when nobody wants more; then every call raises `StoppedError`.
        size: Items it holds.
        writers: How many must end before iterating does.
    """

    def __init__(self, stop: threading.Event, size: int, *, writers: int) -> None:
        self._items: queue.Queue[T | BaseException | None] = queue.Queue(size)
        self._stop = stop
        self._writers = writers

    def put(self, item: T) -> None:
        """Hand over one item, waiting for room."""
        self._put(item)

    def close(self) -> None:
        """Tell one reader that there is no more; the last writer does."""
        self._put(None)

    def fed_by(self, job: Callable[[], None]) -> Callable[[], None]:
        """Return the job of a writer whose end, or error, reaches the reader."""

        def whole() -> None:
            try:
                job()
                self._put(None)
            except StoppedError:
                pass
            except BaseException as error:  # noqa: BLE001  raised again where results are read
                self._fail(error)

        return whole

    def __iter__(self) -> Iterator[T]:
        running = self._writers
        while running:
            item = self._get()
            if item is None:
                running -= 1
            elif isinstance(item, BaseException):
                raise item
            else:
                yield item

    def _get(self) -> T | BaseException | None:
        while not self._stop.is_set():
            try:
                return self._items.get(timeout=_POLL_S)
            except queue.Empty:
                continue
        raise StoppedError

    def _put(self, item: T | BaseException | None) -> None:
        while not self._stop.is_set():
            try:
                return self._items.put(item, timeout=_POLL_S)
            except queue.Full:
                continue
        raise StoppedError

    def _fail(self, error: BaseException) -> None:
        with contextlib.suppress(StoppedError):
            self._put(error)
