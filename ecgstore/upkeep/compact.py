"""Keep a warehouse in shape: shards of the right size, no rows without a record, a short log."""

from __future__ import annotations

import json
import logging
import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from ecgstore.progress import Silent
from ecgstore.schema import TABLES, table_schema
from ecgstore.storage.expire import expire, expired
from ecgstore.storage.keys import holding, open_shards
from ecgstore.storage.log import Log, Lost
from ecgstore.storage.merge import enough, merge, rewritten, small
from ecgstore.storage.shards import translated

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from ecgstore.progress import Progress
    from ecgstore.storage.commits import Entry
    from ecgstore.storage.tables import Table
    from ecgstore.warehouse import Warehouse

__all__ = ["CompactResult", "Compacted", "compact"]

logger = logging.getLogger(__name__)

_COMMAND = "compact"
_DAY_S = 24 * 3600
_ATTEMPTS = 10
_WAIT_S = 600.0  # a commit takes milliseconds


@dataclass(frozen=True)
class Compacted:
    """What was done to one table.

    Attributes:
        table: The table.
        shards: Shards it had.
        merged: How many of them became others.
        left: Shards it has now.
        dropped: Rows removed because their record does not exist.
        expired: Older versions that were let go.
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

    Rows stay as they are, and so does how the warehouse was at any time younger than the
    retention, and every version that a run has read. The old shards stay on disk as long as a
    version names them; `gc` removes them after that. A second call finds nothing to do.

    Args:
        warehouse: The warehouse.
        tables: Tables to work on; all by default.
        retention_days: For how many days back any time can be opened.
        dry_run: Only tell what would be done.
        progress: Told of every shard.

    Raises:
        UnknownNameError: There is no such table.
        WarehouseError: The warehouse cannot be read or written.
    """
    began, progress = time.monotonic(), progress or Silent()
    wanted = [table_schema(name).name for name in tables or TABLES]
    there = [name for name in wanted if Log(warehouse.root / name).exists()]
    shards = {name: len(warehouse.table(name).snapshot.entries) for name in there}
    progress.start(sum(shards.values()), "shards")
    done = []
    for name in there:
        dropped = _drop_strays(warehouse, name, dry_run=dry_run)
        merged = _merge_small(warehouse, name, dry_run=dry_run, progress=progress)
        progress.advance(max(0, shards[name] - merged))
        old = _let_go(warehouse, name, retention_days, dry_run=dry_run)
        left = len(warehouse.table(name).snapshot.entries)
        done.append(Compacted(name, shards[name], merged, left, dropped, old))
    return CompactResult(tuple(done), time.monotonic() - began)


def _merge_small(warehouse: Warehouse, name: str, *, dry_run: bool, progress: Progress) -> int:
    """Merge what is far from the target size; what was lost to another writer is planned anew."""
    merged = 0
    for _ in range(_ATTEMPTS):
        table, lost = warehouse.table(name), False
        for group in _groups(table):
            if dry_run or merge(table, group, command=_COMMAND):
                merged += len(group)
                progress.advance(len(group))
            else:
                lost = True
        if not lost:
            return merged
    logger.warning("Small shards of table %s stay: others merge them at the same time", name)
    return merged


def _groups(table: Table) -> list[list[Entry]]:
    """Return the shards to merge, those together that are neighbours in the table's order."""
    first = (table.schema.sort or table.schema.key)[0]
    near = []
    for entry in table.snapshot.entries.values():
        if small(table.schema, entry):
            with translated(table.folder):
                file = open_shards(table.schema, [table.folder / entry.name])
                keys = file.to_table(columns=[first])[first]
            least = pc.min(keys).as_py()
            near.append(((least is not None, least), replace(entry, rows=len(keys))))
    left = [one for _, one in sorted(near, key=lambda one: (one[0], one[1].name))]
    left = [one for one in left if small(table.schema, one)]  # now the rows of all are known
    groups = []
    while len(left) > 1:
        groups.append(enough(table.schema, left))
        left = left[len(groups[-1]) :]
    return groups


def _drop_strays(warehouse: Warehouse, name: str, *, dry_run: bool) -> int:
    """Remove the rows of records that do not exist: a command was cut short before its end."""
    if name == "records" or "record_id" not in table_schema(name).arrow.names:
        return 0
    dropped = 0
    for _ in range(_ATTEMPTS):
        records, table = warehouse.table("records"), warehouse.table(name)
        strays = _strays(table, records)
        rows = int(pc.sum(strays["rows"]).as_py() or 0)
        if dry_run or not rows:
            return dropped + rows
        for file in table.files():
            dropped += _drop(warehouse, table, file, strays.select(["record_id"]), records.version)
    logger.warning("Rows of table %s without a record stay: records are added without pause", name)
    return dropped


def _drop(warehouse: Warehouse, table: Table, file: Path, strays: pa.Table, seen: int) -> int:
    """Remove rows from a shard if no record was added since, and return how many were removed.

    The lock is held alone for the commit, so none is taken from an ingest between two of its own.
    """
    _, rows = holding(table.schema, [file], strays)
    if not rows:
        return 0
    entry = table.snapshot.entries[file.name]
    try:
        with (
            rewritten(table, [entry], without=strays) as new,
            warehouse.exclusive(wait_s=_WAIT_S),
        ):
            same = warehouse.table("records").version == seen
            if same and table.swap([file], new, command=_COMMAND, dropped=rows):
                return rows
    except Lost:
        pass
    return 0


def _strays(table: Table, records: Table) -> pa.Table:
    """Return the ids that have no record, and how many rows each has."""
    ids = table.read(["record_id"]).group_by("record_id").aggregate([([], "count_all")])
    strays = ids.join(records.read(["record_id"]), keys="record_id", join_type="left anti")
    return strays.rename_columns(["record_id", "rows"])


def _let_go(warehouse: Warehouse, name: str, days: float, *, dry_run: bool) -> int:
    """Let the versions of a table go that only tell how it was before the retention."""
    log = Log(warehouse.root / name)
    with warehouse.exclusive(wait_s=_WAIT_S):
        before = datetime.fromtimestamp(max(0, time.time() - days * _DAY_S), UTC)
        old = expired(log, before=before, keep=_pinned(warehouse, name))
        if not dry_run:
            expire(log, old)
    return len(old)


def _pinned(warehouse: Warehouse, name: str) -> set[int]:
    """Return the versions of a table that a run has read."""
    told = warehouse.table("scores").read(["versions"])["versions"].unique().to_pylist()
    versions = (json.loads(text or "{}").get(name) for text in told)
    return {int(version) for version in versions if version is not None}
