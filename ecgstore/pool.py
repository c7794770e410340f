"""Run tasks in worker processes that end with their parent, whatever ends it.

Workers are spawned, not forked: libraries with native runtimes break under fork. Ctrl-C reaches
the parent alone, which asks the workers to stop, waits until they have removed what they had not
finished, and only then lets `KeyboardInterrupt` through.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import connection
from typing import TYPE_CHECKING, NamedTuple, TypeAlias, TypeVar

from ecgstore.errors import EcgStoreError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from multiprocessing.queues import SimpleQueue
    from multiprocessing.synchronize import Event

__all__ = ["Pulse", "StoppedError", "run_tasks"]

T = TypeVar("T")
R = TypeVar("R")

_POLL_S = 0.1


class StoppedError(Exception):
    """The parent asked the workers to stop."""


Pulse: TypeAlias = Callable[[int, int], None]
"""What a task calls now and then with units done and, among them, units rejected.

It raises `StoppedError` when the parent asks to stop.
"""


class _Signals(NamedTuple):
    """What a worker shares with its parent."""

    counts: SimpleQueue[tuple[int, int]]
    stop: Event


_signals: _Signals | None = None


def run_tasks(
    work: Callable[[T, Pulse], R],
    tasks: Sequence[T],
    *,
    jobs: int,
    finished: Callable[[R], None],
    advance: Pulse,
) -> None:
    """Do every task, in this process when `jobs` is 1, and hand over each result as it comes.

    Args:
        work: Does one task; a function of a module, as it is called in other processes.
        tasks: What to do; the order in which they finish is not fixed.
        jobs: Worker processes.
        finished: Called in this process with the result of each task.
        advance: Called in this process with units done and units rejected.

    Raises:
        EcgStoreError: A worker was killed; the results handed over before stay as they are.
    """
    if jobs <= 1 or len(tasks) <= 1:
        for task in tasks:
            finished(work(task, advance))
        return
    context = multiprocessing.get_context("spawn")
    signals = _Signals(context.SimpleQueue(), context.Event())
    pool = ProcessPoolExecutor(
        jobs, mp_context=context, initializer=_start, initargs=(signals, os.getpid())
    )
    try:
        # the mask is inherited by the workers, which never see Ctrl-C
        with _interrupts_held(), _main_unseen():
            waiting = {pool.submit(_do, work, task) for task in tasks}
        while waiting:
            done, waiting = wait(waiting, timeout=_POLL_S, return_when=FIRST_COMPLETED)
            _drain(signals.counts, advance)
            for future in done:
                finished(future.result())
    except BrokenProcessPool as error:
        msg = "A worker process was killed, perhaps for want of memory."
        hint = "What was committed stays; run the same command again, with fewer jobs."
        raise EcgStoreError(msg, hint=hint) from error
    finally:
        signals.stop.set()
        pool.shutdown(wait=True, cancel_futures=True)
        signals.counts.close()


def _do(work: Callable[[T, Pulse], R], task: T) -> R:
    def pulse(done: int, rejected: int) -> None:
        if _signals is not None:
            if _signals.stop.is_set():
                raise StoppedError
            if done:
                _signals.counts.put((done, rejected))

    return work(task, pulse)


def _start(signals: _Signals, parent: int) -> None:
    global _signals
    _signals = signals
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, args=(parent,), daemon=True).start()


def _end_with_parent(parent: int) -> None:
    """End this process when its parent is gone, which a killed parent cannot see to itself."""
    process = multiprocessing.parent_process()
    if process is not None and os.getppid() == parent:
        connection.wait([process.sentinel])
    os._exit(1)


def _drain(counts: SimpleQueue[tuple[int, int]], advance: Pulse) -> None:
    while not counts.empty():
        advance(*counts.get())


@contextlib.contextmanager
def _main_unseen() -> Iterator[None]:
    """Keep new workers from running the user's script again, as spawn does for functions in it.

    Tasks are functions of this library, and a script without a main guard would start over.
    """
    main = sys.modules["__main__"]
    kept: dict[str, object] = {
        name: vars(main)[name] for name in ("__file__", "__spec__") if name in vars(main)
    }
    try:
        main.__dict__.pop("__file__", None)
        main.__spec__ = None
        yield
    finally:
        vars(main).update(kept)


@contextlib.contextmanager
def _interrupts_held() -> Iterator[None]:
    """Hold Ctrl-C back, and deliver it on leaving."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
