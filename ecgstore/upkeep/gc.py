"""Remove files that nothing names any more: what a kill left, and shards of expired versions."""

from __future__ import annotations

import re
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ecgstore.progress import Silent
from ecgstore.schema import TABLES, table_schema
from ecgstore.storage import disk
from ecgstore.storage.expire import named
from ecgstore.storage.layout import check_layout
from ecgstore.storage.locks import claim
from ecgstore.storage.log import Log
from ecgstore.storage.shards import STAGING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from ecgstore.progress import Progress
    from ecgstore.warehouse import Warehouse

__all__ = ["GRACE_S", "Garbage", "GcResult", "gc"]

GRACE_S = 86_400.0
"""Age in seconds below which a file is left: another engine may be about to name it."""

_SHARD = re.compile(r"[0-9a-f]{64}\.parquet")
_TEMPORARY = re.compile(r"(\..+|[0-9a-f]{32})\.tmp")
_WAIT_S = 600.0  # a commit takes milliseconds


@dataclass(frozen=True)
class Garbage:
    """Files of one kind in one place.

    Attributes:
        table: The table; empty for what lies beside the tables.
        what: What they are.
        files: How many; a folder counts as one.
        bytes: Their size.
        removed: Whether they were removed, or would be in a dry run.
    """

    table: str
    what: str
    files: int
    bytes: int
    removed: bool


@dataclass(frozen=True)
class GcResult:
    """What was found.

    Attributes:
        found: One entry a table and kind.
        seconds: Time taken.
    """

    found: tuple[Garbage, ...]
    seconds: float

    @property
    def files(self) -> int:
        """Files removed."""
        return sum(one.files for one in self.found if one.removed)

    @property
    def bytes(self) -> int:
        """Bytes removed."""
        return sum(one.bytes for one in self.found if one.removed)

    @property
    def rows(self) -> list[dict[str, object]]:
        """One row a table and kind."""
        return [dict(vars(one)) for one in self.found]

    def __repr__(self) -> str:
        return f"GcResult({self.files} files, {self.bytes} bytes, {self.seconds:.1f} s)"


def gc(
    warehouse: Warehouse,
    *,
    grace_s: float = GRACE_S,
    dry_run: bool = False,
    progress: Progress | None = None,
) -> GcResult:
    """Remove files that no version names and no living command needs.

    A commit of ecgstore puts its shards in place under the shared lock, which is held alone here,
    and a living command keeps its staging folder claimed. So even with no grace nothing is taken
    from a writer; the grace is for other engines that write to the same folder.

    Args:
        warehouse: The warehouse.
        grace_s: Age in seconds from which a file may go.
        dry_run: Only tell what would be removed.
        progress: Told of every folder.

    Raises:
        LogError: A log file is damaged, so what it names is not known.
        SchemaError: A newer ecgstore wrote a table, so what it needs is not known.
        WarehouseError: The lock cannot be had, or a file cannot be removed.
    """
    began, progress = time.monotonic(), progress or Silent()
    limit = time.time() - grace_s
    there = [name for name in TABLES if Log(warehouse.root / name).exists()]
    progress.start(len(there) + 1, "folders")
    found: dict[tuple[str, str, bool], list[int]] = {}
    with warehouse.exclusive(wait_s=_WAIT_S):
        for name in ("", *there):
            folder = warehouse.root / name
            for path, what, ours in _unneeded(folder) if name else _temporary(folder):
                size, newest = _extent(path)
                if newest > limit:
                    continue
                if ours and not dry_run:
                    disk.remove_tree(path)
                count = found.setdefault((name, what, ours), [0, 0])
                count[0] += 1
                count[1] += size
            progress.advance(1)
    rows = tuple(
        Garbage(table, what, files, size, ours)
        for (table, what, ours), (files, size) in found.items()
    )
    return GcResult(rows, time.monotonic() - began)


def _unneeded(folder: Path) -> Iterator[tuple[Path, str, bool]]:
    """Yield what no version of a table needs, what it is, and whether it is ours to remove."""
    log = Log(folder)
    check_layout(log.snapshot(), table_schema(folder.name))  # a newer one may need other files
    live = named(log)
    for path in sorted(folder.iterdir()):
        if path.name == "_delta_log":
            yield from _temporary(path)
        elif path.name == STAGING:
            for one in sorted(path.iterdir()):
                with suppress(FileNotFoundError), claim(one) as stale:
                    if stale:
                        yield one, "staging folder of a command that ended", True
        elif path.name not in live:
            if _SHARD.fullmatch(path.name):
                yield path, "shard that no version names", True
            elif not _TEMPORARY.fullmatch(path.name):
                yield path, "not a file of ecgstore: left", False
    yield from _temporary(folder)


def _temporary(folder: Path) -> Iterator[tuple[Path, str, bool]]:
    """Yield the temporary files of a folder."""
    for path in sorted(folder.iterdir()):
        if _TEMPORARY.fullmatch(path.name):
            yield path, "temporary file", True


def _extent(path: Path) -> tuple[int, float]:
    """Return the bytes of a file or folder and when it was last changed."""
    every = [path, *path.rglob("*")] if path.is_dir() else [path]
    status = [one.lstat() for one in every]
    return sum(one.st_size for one in status), max(one.st_mtime for one in status)
