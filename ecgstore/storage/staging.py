"""Where shards wait for their commit.

Each writing command has a staging folder of its own in a table's folder and keeps it claimed while
it lives, so what a killed process left is told from what a living one still needs. A shard enters
the table's folder only in the moment of its commit.
"""

from __future__ import annotations

import uuid
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING

from ecgstore.storage import disk
from ecgstore.storage.locks import claim
from ecgstore.storage.shards import STAGING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from ecgstore.storage.locks import Lock
    from ecgstore.storage.shards import Shard

__all__ = ["place", "settle", "staging"]


@contextmanager
def staging(folder: Path, lock: Lock) -> Iterator[Path]:
    """Make a staging folder in a table's folder; it goes at the end, with what is left in it.

    Args:
        folder: The table's folder.
        lock: The lock of the warehouse: nobody removes the folder before it is claimed.

    Raises:
        OSError: The system refused.
    """
    own = folder / STAGING / uuid.uuid4().hex
    try:
        with ExitStack() as claimed:
            with lock.shared():
                disk.make_dir(own, sync=False)
                claimed.enter_context(claim(own))
            yield own
    finally:
        with suppress(OSError):
            disk.remove_tree(own)


def place(shards: Sequence[Shard], folder: Path) -> None:
    """Give shards their name in the table's folder and make that last.

    They keep the one in staging as well: when the commit is lost to another writer and the lock is
    let go, the file in place is nobody's and may be collected before the next attempt.

    Raises:
        OSError: The system refused.
    """
    for shard in shards:
        path = folder / shard.path.name
        try:
            disk.link(shard.path, path)
        except FileExistsError:
            if not path.samefile(shard.path):  # left by a kill, perhaps torn by a power loss
                draft = disk.temporary(path)
                disk.link(shard.path, draft)
                disk.rename(draft, path)
    disk.sync_dir(folder)


def settle(shards: Sequence[Shard]) -> None:
    """Let go of the names in staging after the commit; one that stays goes with its folder."""
    with suppress(OSError):
        for shard in shards:
            disk.remove(shard.path)
