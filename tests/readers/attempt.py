"""Read mutants of one file in a process of its own, with limits of time and memory.

Run as ``python -m tests.readers.attempt``: a task as JSON on stdin, a line of JSON for each mutant
on stdout, before it is read and after.
"""

from __future__ import annotations

import json
import resource
import signal
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from ecgstore import io
from ecgstore.errors import ReadError
from ecgstore.io.assemble import REASONS
from ecgstore.record import Record

from .mutants import mutant

SECONDS = 5
MEMORY = 2**30
"""What one mutant may take: seconds, and bytes beyond what the process has when it begins."""


class _Late(BaseException):
    """A mutant took too long; no reader may catch this."""


def _late(*_: object) -> None:
    raise _Late


def _limit_memory() -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def _watch_files(folder: Path, opened: list[str]) -> None:
    """Note every file that is opened outside a folder and Python's own."""
    own = (str(folder), sys.prefix, sys.base_prefix, str(Path(__file__).parents[2]))

    def seen(event: str, args: tuple[object, ...]) -> None:
        if event == "open" and isinstance(args[0], str) and not args[0].startswith(own):
            opened.append(args[0])

    sys.addaudithook(seen)


def _faults(record: Record) -> list[str]:
    """Return what is wrong with a record, whatever file it is of."""
    faults = []
    if record.digital.shape != (len(record.leads), record.n_samples):
        faults.append("shape")
    if len(set(record.leads)) != len(record.leads):
        faults.append("a lead twice")
    if not (np.isfinite(record.gain).all() and (record.gain != 0).all()):
        faults.append("gain")
    if not 0 < record.rate_hz < 1e6:
        faults.append("rate")
    if not (record.leads or record.signals or record.annotations):
        faults.append("nothing in it")
    return faults


def _records(path: Path, reader: str) -> list[Record | ReadError]:
    container = io.open_container(path, reader=reader)
    if container is None or len(container.names) == 1:
        return [io.read(path, reader=reader)]
    rows = list(range(min(len(container.names), 50)))
    return list(container.read(rows))


def _try(path: Path, reader: str, before: dict[str, Any]) -> dict[str, Any]:
    """Read one mutant; return what came of it."""
    try:
        found = _records(path, reader)
    except ReadError as error:
        found = [error]
    outcome: dict[str, Any] = {"outcome": "refused", "faults": []}
    for one in found:
        if isinstance(one, ReadError):
            if one.reason not in REASONS or "\n" in one.message:
                outcome["faults"].append(f"reason {one.reason!r}")
            continue
        outcome["outcome"] = "read"
        outcome["faults"] += _faults(one)
        known = before.get(one.name) or next(iter(before.values()), None)
        if known is not None and known != one.signal_sha256:
            outcome["outcome"] = "differs"
    return outcome


def _tell(what: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


def main() -> None:
    """Read the task and attempt each mutant."""
    task = json.load(sys.stdin)
    target, parts = Path(task["path"]), {k: Path(v) for k, v in task["parts"].items()}
    folder = target.parent
    original = {name: part.read_bytes() for name, part in parts.items()}
    for name, data in original.items():
        (folder / name).write_bytes(data)
    warnings.simplefilter("ignore")
    before = {
        one.name: one.signal_sha256
        for one in _records(target, task["reader"])
        if isinstance(one, Record)
    }
    assert before, "the file itself cannot be read"
    opened: list[str] = []
    _watch_files(folder, opened)
    _limit_memory()
    signal.signal(signal.SIGALRM, _late)
    names = sorted(original)
    for number in range(task["first"], task["last"]):
        name = names[number % len(names)]
        (folder / name).write_bytes(mutant(original[name], task["seed"], number))
        _tell({"number": number})
        opened.clear()
        began = time.perf_counter()
        signal.setitimer(signal.ITIMER_REAL, SECONDS)
        try:
            outcome = _try(target, task["reader"], before)
        except _Late:
            outcome = {"outcome": "late", "faults": [f"took more than {SECONDS} s"]}
        except BaseException as error:  # noqa: BLE001 - whatever a reader lets through is the finding
            outcome = {"outcome": "escaped", "faults": [f"{type(error).__name__}: {error}"[:300]]}
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
        outcome["faults"] += [f"opened {path}" for path in opened]
        outcome |= {"number": number, "seconds": time.perf_counter() - began}
        _tell(outcome)
        (folder / name).write_bytes(original[name])


if __name__ == "__main__":
    main()
