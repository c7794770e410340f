"""Where things are and how much of the machine to use: argument over environment over default."""

from __future__ import annotations

import functools
import os
import re
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from ecgstore.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = [
    "code_version",
    "device_name",
    "memory_limit",
    "threads",
    "usable_memory",
    "version",
    "warehouse_home",
]

_SHARE = 0.6
"""Part of the memory that queries may use; vectors and classifiers live in the rest."""

_AMOUNT = re.compile(r"\d+(\.\d+)? ?[kmgt]i?b", re.IGNORECASE)


def warehouse_home(argument: str | Path | None = None) -> Path:
    """Return the warehouse folder: argument, else ``ECGSTORE_WAREHOUSE``, else ``warehouse``."""
    return Path(argument or os.environ.get("ECGSTORE_WAREHOUSE") or "warehouse").expanduser()


def device_name(argument: str | None = None) -> str:
    """Return the device to compute on: the argument, else ``ECGSTORE_DEVICE``, else ``auto``."""
    return argument or os.environ.get("ECGSTORE_DEVICE") or "auto"


def threads(argument: int | None = None) -> int:
    """Return how many cores to use: the argument, else ``ECGSTORE_THREADS``, else all we may."""
    if argument:
        return argument
    if given := os.environ.get("ECGSTORE_THREADS"):
        return max(1, int(given))
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def memory_limit(argument: str | None = None) -> str:
    """Return how much memory DuckDB may use before it writes to disk, such as ``4GB``.

    It is the argument, else ``ECGSTORE_MEMORY``, else 60 % of what this process may use.

    Raises:
        UsageError: It is no amount of memory.
    """
    given = argument or os.environ.get("ECGSTORE_MEMORY")
    if not given:
        return f"{int(_SHARE * usable_memory()) >> 20}MiB"
    if not _AMOUNT.fullmatch(given):
        msg = f"{given!r} is no amount of memory."
        raise UsageError(msg, hint="Give ECGSTORE_MEMORY a number and a unit, such as 4GB.")
    return given


def usable_memory(root: Path = Path("/")) -> int:
    """Return the bytes this process may use: what is installed, or less in a control group.

    Args:
        root: Where the ``proc`` and ``sys`` of Linux are.
    """
    installed = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min([installed, *_group_limits(root)])


@functools.cache
def version() -> str:
    """Return the version of the installed package, or ``0+unknown`` in a bare checkout."""
    try:
        return metadata.version("ecgstore")
    except metadata.PackageNotFoundError:
        return "0+unknown"


@functools.cache
def code_version() -> str:
    """Return the version with the git commit it runs from, when it runs from a checkout.

    The commit is read from ``.git`` as files: no process is started and no git is needed.
    """
    git = Path(__file__).resolve().parent.parent / ".git"
    try:
        head = (git / "HEAD").read_text().strip()
        if head.startswith("ref: "):
            ref = head.removeprefix("ref: ")
            loose = git / ref
            if loose.exists():
                head = loose.read_text().strip()
            else:
                packed = (git / "packed-refs").read_text().splitlines()
                head = next(line.split()[0] for line in packed if line.endswith(f" {ref}"))
    except (OSError, StopIteration):
        return version()
    return f"{version()}+g{head[:10]}"


def _group_limits(root: Path) -> Iterator[int]:
    """Yield the limits of the control groups, version 1 or 2, that this process is in."""
    try:
        groups = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in groups:
        _, controllers, group = line.split(":", 2)
        if not controllers:
            top, name = root / "sys/fs/cgroup", "memory.max"
        elif "memory" in controllers.split(","):
            top, name = root / "sys/fs/cgroup/memory", "memory.limit_in_bytes"
        else:
            continue
        folder = top / group.lstrip("/")
        for one in (folder, *folder.parents):  # in a container the group itself may be hidden
            with suppress(OSError, ValueError):  # no such file, or "max"
                yield int((one / name).read_text())
            if one == top:
                break
