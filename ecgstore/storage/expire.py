"""Old versions of a table: which shards they name, and how they are let go.

A version that is kept although those before it go gets a checkpoint of its own, and keeps its
commit, which says when it was made. So it opens without the commits that led to it.
"""

from __future__ import annotations

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

__all__ = ["expire", "expired", "named", "naming"]

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

    The checkpoints that the others need are on disk before the first commit goes, so a kill in
    between only leaves files that the next call removes.

    Args:
        log: The log of a table; nobody else may write to it meanwhile.
        versions: The versions, without the newest.

    Raises:
        LogError: A log file is damaged.
        OSError: The system refused.
    """
    if not versions:
        return
    files, needed = _files(log), set[str]()
    stay = [v for v in log.versions() if v not in versions and v <= max(versions) + 1]
    for version in stay:
        snapshot = log.snapshot(version)
        if version == stay[-1] or not log.checkpoint_path(version).exists():
            removed = {n: at for n, at in snapshot.tombstones.items() if n in needed}
            log.checkpoint(replace(snapshot, tombstones=removed))
        needed |= snapshot.entries.keys()
    newest = max((v for v in files if log.checkpoint_path(v).exists()), default=-1)
    if newest > stay[-1]:
        log.checkpoint(log.snapshot(newest))  # a kill may have kept it from being pointed at
    for version in sorted(versions):
        for path in sorted(files.get(version, ())):  # the checkpoint before the commit
            disk.remove(path)
    disk.sync_dir(log.path)


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
