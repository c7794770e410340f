"""Where shards wait for their commit.

Each writing command has a staging folder of its own in a table's folder and keeps it claimed while
it lives, so what a killed process left is told from what a living one still needs. A shard enters
the table's folder only in the moment of its commit.
"""

from __future__ import annotations

import uuid
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING

from ecgstore import disk
from ecgstore.errors import WarehouseError
from ecgstore.locks import claim
from ecgstore.shards import STAGING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from ecgstore.locks import Lock
    from ecgstore.shards import Shard

__all__ = ["place", "staging", "whereabouts"]


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


def whereabouts(shard: Shard, folder: Path) -> Path:
    """Return where a shard is: still in staging, or in place after a commit that was lost."""
    return shard.path if shard.path.exists() else folder / shard.path.name


def place(shards: Sequence[Shard], folder: Path) -> None:
    """Move shards into the table's folder and make that last.

    Raises:
        WarehouseError: One is gone.
        OSError: The system refused.
    """
    for shard in shards:
        path = whereabouts(shard, folder)
        if path.parent != folder:
            disk.rename(path, folder / path.name)
        elif not path.exists():
            msg = f"A shard of table {folder.name!r} went before it was committed."
            hint = "Nothing was committed; run the same command again."
            raise WarehouseError(msg, path=folder, hint=hint)
    disk.sync_dir(folder)
