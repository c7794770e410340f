"""Old versions of a table: which shards they name, and how they are let go.

A version that is kept although those before it go gets a checkpoint of its own, and keeps its
commit, which says when it was made. So it opens without the commits that led to it.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from dataclasses import replace
from itertools import chain
from typing import TYPE_CHECKING

from ecgstore.errors import ErasedError
from ecgstore.storage import disk

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from collections.abc import Set as AbstractSet
    from datetime import datetime
    from pathlib import Path

    from ecgstore.storage.log import Log, Snapshot

__all__ = ["EXPIRING", "expire", "expired", "expiring", "named", "naming"]

EXPIRING = "_expiring"
"""File of the log that names, while versions are let go, which: any of their files may be gone."""

_OF_VERSION = re.compile(r"(\d{20})\..+")  # other engines keep more than commits and checkpoints


def named(log: Log) -> set[str]:
    """Return the names of the shards that a version may need.

    Besides those of every version that can be opened, these are all that a commit brought whose
    log file is there: one before it may only be missing until it is put back.

    Raises:
        LogError: A log file is damaged.
    """
    whole = log.versions()
    starts = {*whole} - {version + 1 for version in whole}
    names = {name for version in starts for name in log.snapshot(version).entries}
    commits = (version for version in _files(log) if log.has(version))
    return names.union(*(log.brought(version) for version in commits))


def naming(log: Log, names: AbstractSet[str]) -> list[int]:
    """Return the versions that name one of some shards, ascending.

    Raises:
        LogError: A log file is damaged.
    """
    return [one.version for one in _snapshots(log) if names & one.entries.keys()]


def expired(log: Log, *, before: datetime, keep: Collection[int] = ()) -> list[int]:
    """Return the versions with log files that nobody needs, ascending.

    The version that was the newest at the time stays, for that is how the table was then; so do
    all later ones.

    Args:
        log: The log of a table.
        before: How the table was at this time, and since, must be kept.
        keep: Versions that stay however old.

    Raises:
        LogError: A log file is damaged.
    """
    try:
        oldest = log.version_at(before) or 0
    except ErasedError as error:  # the time lies between versions that are kept
        oldest = error.version or 0
    return [version for version in sorted(_files(log)) if version < oldest and version not in keep]


def expire(log: Log, versions: Collection[int]) -> None:
    """Let versions go: they can no longer be opened, all others can.

    The checkpoints that the others need, and the list of what goes, are on disk before the first
    commit goes. After a loss of power any of those files may be left: the next call removes them.

    Args:
        log: The log of a table; nobody else may write to it meanwhile.
        versions: The versions, without the newest.

    Raises:
        LogError: A log file is damaged.
        OSError: The system refused.
    """
    if versions:
        files = _files(log)
        newest = max((v for v in files if log.checkpoint_path(v).exists()), default=-1)
        last = _keep(log, versions)
        if newest > last:
            log.checkpoint(log.snapshot(newest))  # a kill may have kept it from being pointed at
        told = {"versions": sorted({*versions} | expiring(log.path))}
        disk.put(log.path / EXPIRING, json.dumps(told).encode())
        for version in sorted(versions):
            for path in sorted(files.get(version, ())):  # the checkpoint before the commit
                disk.remove(path)
        disk.sync_dir(log.path)
    if (log.path / EXPIRING).exists():
        disk.remove(log.path / EXPIRING)
        disk.sync_dir(log.path)


def expiring(path: Path) -> set[int]:
    """Return the versions that a call of `expire` was letting go when it was cut short.

    Args:
        path: The folder of the log.
    """
    try:
        return {int(version) for version in json.loads((path / EXPIRING).read_bytes())["versions"]}
    except (OSError, ValueError, KeyError, TypeError):
        return set()


def _keep(log: Log, versions: Collection[int]) -> int:
    """Make the versions that stay open without those that go; return the last that needed it."""
    whole, needed = log.versions(), set[str]()
    last = next((v for v in whole if v > max(versions)), None)
    if last is None:
        last = log.snapshot().version  # which tells why the newest cannot be opened
    for version in (v for v in whole if v not in versions and v <= last):
        snapshot = log.snapshot(version)
        if version == last or not log.checkpoint_path(version).exists():
            removed = {n: at for n, at in snapshot.tombstones.items() if n in needed}
            log.checkpoint(replace(snapshot, tombstones=removed))
        needed |= snapshot.entries.keys()
    return last


def _files(log: Log) -> dict[int, list[Path]]:
    """Return the log files of each version."""
    files = defaultdict(list)
    for path in log.path.iterdir():
        if name := _OF_VERSION.fullmatch(path.name):
            files[int(name[1])].append(path)
    return files


def _snapshots(log: Log) -> Iterator[Snapshot]:
    """Yield every version that can be opened, reading each log file once."""
    seen = -1
    for version in log.versions():
        if version > seen:
            start = log.snapshot(version)  # a checkpoint, or version 0
            for snapshot in chain([start], log.follow(start)):
                seen = snapshot.version
                yield snapshot
