"""Where things are and how much of the machine to use: argument over environment over default."""

from __future__ import annotations

import functools
import os
from importlib import metadata
from pathlib import Path

__all__ = ["code_version", "device_name", "threads", "version", "warehouse_home"]


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
