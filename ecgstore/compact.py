"""Keep a warehouse in shape: shards of the right size, no rows without a record, a short log."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from ecgstore.errors import WarehouseError
from ecgstore.expire import expire, expired
from ecgstore.merge import merge, small
from ecgstore.progress import Silent
from ecgstore.schema import TABLES, table_schema

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ecgstore.progress import Progress
    from ecgstore.tables import Table
    from ecgstore.warehouse import Warehouse

__all__ = ["CompactResult", "Compacted", "compact"]

_COMMAND = "compact"
_DAY_MS = 24 * 3600 * 1000
_ATTEMPTS = 10


@dataclass(frozen=True)
class Compacted:
    """What was done to one table.

    Attributes:
        table: The table.
        shards: Shards it had.
        merged: How many of them were merged.
        left: Shards it has now.
        dropped: Rows removed because their record does not exist.
        expired: Older versions that can no longer be opened.
    """

    table: str
    shards: int
    merged: int
    left: int
    dropped: int
    expired: int


@dataclass(frozen=True)
class CompactResult:
    """What a compaction did.

    Attributes:
        tables: One entry a table.
        seconds: Time taken.
    """

    tables: tuple[Compacted, ...]
    seconds: float

    @property
    def changed(self) -> bool:
        """Whether anything was done."""
        return any(one.merged or one.dropped or one.expired for one in self.tables)

    @property
    def rows(self) -> list[dict[str, object]]:
        """One row a table."""
        return [dict(vars(one)) for one in self.tables]

    def __repr__(self) -> str:
        merged, dropped = (
            sum(getattr(one, name) for one in self.tables) for name in ("merged", "dropped")
        )
        return (
            f"CompactResult({merged} shards merged, {dropped} rows dropped, {self.seconds:.1f} s)"
        )


def compact(
    warehouse: Warehouse,
    tables: Sequence[str] | None = None,
    *,
    retention_days: float = 30,
    dry_run: bool = False,
    progress: Progress | None = None,
) -> CompactResult:
    """Merge small shards, remove rows without a record, let old versions go.

    Rows stay as they are, and so does every version younger than the retention and every one that
    a run has read. The old shards stay on disk as long as a version names them; `gc` removes them
    after that. A second call finds nothing to do.

    Args:
        warehouse: The warehouse.
        tables: Tables to work on; all by default.
        retention_days: Age in days from which versions are let go.
        dry_run: Only tell what would be done.
        progress: Told of every table.

    Raises:
        UnknownNameError: There is no such table.
        WarehouseError: The warehouse cannot be read or written.
    """
    began, progress = time.monotonic(), progress or Silent()
    names = [table_schema(name).name for name in tables or TABLES]
    before_ms = int(time.time() * 1000 - retention_days * _DAY_MS)
    pinned = _pinned(warehouse)
    progress.start(len(names), "tables")
    done = []
    for name in names:
        table = warehouse.table(name)
        shards = len(table.snapshot.entries)
        dropped = _drop_strays(warehouse, name, dry_run=dry_run)
        merged = _merge_small(warehouse, name, dry_run=dry_run)
        log = table.log
        old = expired(log, before_ms=before_ms, keep=pinned.get(name, set()))
        if not dry_run:
            with warehouse.exclusive():
                expire(log, old)
        left = len(warehouse.table(name).snapshot.entries)
        done.append(Compacted(name, shards, merged, left, dropped, len(old)))
        progress.advance(1)
    return CompactResult(tuple(done), time.monotonic() - began)


def _merge_small(warehouse: Warehouse, name: str, *, dry_run: bool) -> int:
    """Merge what is far from the target size, some target sizes at a time."""
    merged = 0
    for _ in range(_ATTEMPTS):
        table = warehouse.table(name)
        group = [one for one in table.snapshot.entries.values() if small(table.schema, one)]
        if len(group) < 2:
            return merged
        if dry_run or merge(table, group, command=_COMMAND):
            return merged + len(group)
    msg = f"Table {name!r} is being written by others without a pause."
    raise WarehouseError(msg, path=warehouse.root, hint="Run the same command again.")


def _drop_strays(warehouse: Warehouse, name: str, *, dry_run: bool) -> int:
    """Remove the rows of records that do not exist: a command was cut short before its end.

    The lock is held alone, so the records of an ingest between two of its commits are not
    mistaken for such.
    """
    if name == "records" or "record_id" not in table_schema(name).arrow.names:
        return 0
    if not len(_strays(warehouse.table(name), warehouse.table("records"))):
        return 0
    with warehouse.exclusive():
        strays = _strays(warehouse.table(name), warehouse.table("records"))
        rows = int(pc.sum(strays["rows"]).as_py() or 0)
        if rows and not dry_run:
            warehouse.delete(name, strays.select(["record_id"]), command=_COMMAND)
    return rows


def _strays(table: Table, records: Table) -> pa.Table:
    """Return the ids that have no record, and how many rows each has."""
    ids = table.read(["record_id"]).group_by("record_id").aggregate([([], "count_all")])
    strays = ids.join(records.read(["record_id"]), keys="record_id", join_type="left anti")
    return strays.rename_columns(["record_id", "rows"])


def _pinned(warehouse: Warehouse) -> dict[str, set[int]]:
    """Return the versions of each table that a run has read."""
    pinned: dict[str, set[int]] = {}
    for text in warehouse.table("scores").read(["versions"])["versions"].unique().to_pylist():
        for name, version in json.loads(text or "{}").items():
            pinned.setdefault(name, set()).add(int(version))
    return pinned
