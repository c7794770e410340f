"""The process that all others of a test are forked from, run as ``python -m crash.serve``.

It takes requests from standard input, a module and function of this package with arguments, and
answers each with what a forked child made of it. It imports, and does nothing else.
"""

from __future__ import annotations

import importlib
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import IO, Any, Self

from .forks import Ended, forked

TESTS = Path(__file__).resolve().parent.parent
ROOT = TESTS.parent
ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "ECGSTORE_THREADS": "1",
    "ARROW_DEFAULT_MEMORY_POOL": "system",
}
DEADLINE_S = 3600.0


class Server:
    """A warmed process, and how to ask it."""

    def __init__(self) -> None:
        paths = os.pathsep.join([str(TESTS), str(ROOT), os.environ.get("PYTHONPATH", "")])
        self._process = subprocess.Popen(
            [sys.executable, "-m", "crash.serve"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, **ONE_THREAD, "PYTHONPATH": paths},
            cwd=ROOT,
        )

    def __call__(self, name: str, *arguments: object, **options: object) -> Any:
        """Call ``module:function`` of this package in a child; ``imports`` are loaded before."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        _send(self._process.stdin, (name, arguments, options))
        ended: Ended = _received(self._process.stdout)
        return ended.result()

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(timeout=30)
        self._process.stdout.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _send(pipe: IO[bytes], content: object) -> None:
    pickle.dump(content, pipe)
    pipe.flush()


def _received(pipe: IO[bytes]) -> Any:
    return pickle.load(pipe)


def _main() -> None:
    requests, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a child prints is no answer
    while True:
        try:
            name, arguments, options = _received(requests)
        except EOFError:
            return
        for module in options.pop("imports", ()):
            importlib.import_module(module)
        module, _, function = name.partition(":")
        work = getattr(importlib.import_module(f".{module}", __package__), function)
        ended = forked(lambda _: work(*arguments, **options), deadline_s=DEADLINE_S)  # noqa: B023
        _send(answers, ended)


if __name__ == "__main__":
    _main()
