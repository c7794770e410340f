"""Old versions of a table: which shards they name, and how they are let go.

A version that is kept although those before it go gets a checkpoint of its own, and keeps its
commit, which says when it was made. So it opens without the commits that led to it.
"""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING

from ecgstore import disk

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from collections.abc import Set as AbstractSet

    from ecgstore.log import Log, Snapshot

__all__ = ["expire", "expired", "named", "naming"]


def named(log: Log) -> set[str]:
    """Return the names of the shards of every version that can be opened.

    Raises:
        LogError: A log file is damaged.
    """
    return {name for snapshot in _snapshots(log) for name in snapshot.entries}


def naming(log: Log, names: AbstractSet[str]) -> list[int]:
    """Return the versions that name one of some shards, ascending.

    Raises:
        LogError: A log file is damaged.
    """
    return [one.version for one in _snapshots(log) if names & one.entries.keys()]


def expired(log: Log, *, before_ms: int, keep: Collection[int]) -> list[int]:
    """Return the versions that are older than a time and that nobody needs, ascending.

    Args:
        log: The log of a table.
        before_ms: Milliseconds since 1970.
        keep: Versions that stay however old; the newest stays too.
    """
    versions = log.versions()
    young = next((v for v in versions if log.time_ms(v) >= before_ms), versions[-1])
    return [v for v in versions if v < young and v not in keep]


def expire(log: Log, versions: Collection[int]) -> None:
    """Let versions go: they can no longer be opened, all others can.

    Checkpoints of the versions that stay are on disk before the first commit goes, so a kill in
    between only leaves files that the next call removes.

    Raises:
        OSError: The system refused.
    """
    if not versions:
        return
    stay = [v for v in log.versions() if v not in versions]
    last = max(versions)
    for version in [v for v in stay if v <= last + 1]:
        if not log.checkpoint_path(version).exists():
            log.checkpoint(log.snapshot(version))
    for version in sorted(versions):
        disk.remove(log.commit_path(version))
        disk.remove(log.checkpoint_path(version))
    disk.sync_dir(log.path)


def _snapshots(log: Log) -> Iterator[Snapshot]:
    """Yield every version that can be opened, reading each log file once."""
    seen = -1
    for version in log.versions():
        if version > seen:
            start = log.snapshot(version)  # a checkpoint, or version 0
            for snapshot in chain([start], log.follow(start)):
                seen = snapshot.version
                yield snapshot
