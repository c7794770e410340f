"""A warehouse: one folder that holds every table, seen now or as it was.

It knows nothing of ECGs: which table is written first is the business of the command that writes.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Self
from urllib.parse import unquote

from ecgstore.errors import DamagedError, WarehouseError
from ecgstore.schema import TABLES, table_schema
from ecgstore.storage import disk
from ecgstore.storage.locks import Lock
from ecgstore.storage.log import Log
from ecgstore.storage.merge import tidy
from ecgstore.storage.shards import translated, write_failed
from ecgstore.storage.tables import Table

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import pyarrow as pa

    from ecgstore.storage.log import Snapshot
    from ecgstore.storage.shards import Shard

__all__ = ["Warehouse", "log_stamp"]

_LAST = "records"  # made last, so a folder that holds it is a whole warehouse
_GLANCES = 50  # attempts to see all tables at one moment
_SETTLED_NS = 3_000_000_000  # coarser than the times of any file system (FAT: 2 s)


class Warehouse:
    """All tables of one folder.

    The object holds no open file and may be sent to another process.

    Args:
        root: The warehouse folder.
        at: None sees the newest versions. A time, UTC unless it says otherwise, sees what had been
            committed by then. A mapping of table to Delta version sees those, hides a table whose
            version is None, and sees the newest of those it does not name. Both are read-only.

    Attributes:
        root: Absolute path of the folder.
        read_only: Whether writing is refused because `at` was given.
        lock: Whoever removes files holds it alone, whoever commits holds it with others.
        job: Id that the commits of this object share, which makes them one entry of the log.

    Raises:
        WarehouseError: The folder is not a warehouse, or was not one at that time.
    """

    def __init__(
        self, root: Path, *, at: datetime | Mapping[str, int | None] | None = None
    ) -> None:
        self.root = _usable(root)
        self.read_only = at is not None
        self.lock = Lock(self.root)
        self.job = uuid.uuid4().hex[:12]
        if not self._exists(_LAST):
            msg = f"There is no warehouse in {str(self.root)!r}."
            raise WarehouseError(msg, path=self.root, hint="Make one with: ecgstore init")
        self._seen_last: dict[str, Snapshot] = {}  # only what came since is read of a log
        self._pinned: dict[str, int | None] = {}
        if isinstance(at, datetime):
            with translated(self.root):  # not through the newest version, which may be damaged
                logs = {name: Log(self.root / name) for name in self._present()}
                self._pinned = {name: log.version_at(at) for name, log in logs.items()}
            if self._pinned[_LAST] is None:
                msg = f"The warehouse in {str(self.root)!r} did not exist at {at.isoformat()}."
                raise WarehouseError(msg, path=self.root)
        elif isinstance(at, Mapping):
            self._pinned = {table_schema(name).name: version for name, version in at.items()}

    @classmethod
    def create(cls, root: Path) -> Self:
        """Make the tables that are not there yet and open the warehouse.

        Raises:
            WarehouseError: The folder cannot be written.
        """
        root = _usable(root)
        try:
            disk.make_dir(root)
        except OSError as error:
            raise write_failed(root, error) from error
        missing = [name for name in TABLES if not (root / name / "_delta_log").is_dir()]
        if missing and _LAST not in missing:  # one of an older program, or of a newer one
            cls(root).table(_LAST)
        for name in sorted(TABLES, key=lambda name: name == _LAST):
            Table.create(root / name, TABLES[name])
        return cls(root)

    def table(self, name: str) -> Table:
        """Open a table at its newest version, or at the one `at` stands for.

        Raises:
            UnknownNameError: There is no such table.
            WarehouseError: It is missing, did not exist yet, or its shards were erased.
        """
        if name in self._pinned:
            version = self._pinned[name]
            if version is None:
                msg = f"Table {name!r} did not exist at the time asked for."
                raise WarehouseError(msg, path=self.root / name)
            return Table(self.root / name, table_schema(name), version=version)
        return self._newest(name)

    def files(self, name: str) -> list[Path]:
        """Return the shards of a table, none where an older program made no such table.

        Raises:
            WarehouseError: The table is damaged, or its shards were erased.
        """
        return self.table(name).files() if self._seen(name) else []

    def tables(self) -> dict[str, Table]:
        """Open every table that is there, all as they were at one moment.

        A command that adds records commits ``records`` last, one that erases them commits it
        first. So the others are opened between two looks at ``records`` that agree.

        Raises:
            WarehouseError: A table is damaged, or ``records`` was committed to without a pause.
        """
        names = [name for name in self._present() if self._seen(name)]
        for _ in range(_GLANCES):
            first = self.table(_LAST)
            opened = {name: first if name == _LAST else self.table(name) for name in names}
            if self.read_only or not first.log.has(first.version + 1):
                return opened
        msg = f"The warehouse in {str(self.root)!r} is being written without a pause."
        raise WarehouseError(msg, path=self.root, hint="Run the same command again.")

    def versions(self) -> dict[str, int]:
        """Return the Delta version of every table that is there, for `at` and for provenance."""
        return {name: table.version for name, table in self.tables().items()}

    def relations(self) -> dict[str, tuple[list[Path], pa.Schema]]:
        """Return the shards and columns of every table, which is all that a `Catalog` needs.

        Raises:
            DamagedError: A shard is missing or was changed.
        """
        while True:
            opened = self.tables()
            try:
                return {
                    name: (opened[name].files() if name in opened else [], schema.arrow)
                    for name, schema in TABLES.items()
                }
            except DamagedError:  # or erased since they were opened
                if self.read_only or not any(one.behind for one in opened.values()):
                    raise

    @contextmanager
    def shared(self) -> Iterator[None]:
        """Commit to several tables so that nobody removes rows or files between the commits.

        Raises:
            WarehouseError: The lock cannot be had on this file system.
        """
        with translated(self.root), self.lock.shared():
            yield

    @contextmanager
    def exclusive(self, *, wait_s: float | None = None) -> Iterator[None]:
        """Keep writers out for as long as files or rows are removed; see `Lock.exclusive`.

        Raises:
            WarehouseError: Writers did not end in time.
        """
        with translated(self.root), self.lock.exclusive(wait_s=wait_s):
            yield

    def append(self, name: str, rows: pa.Table, *, command: str) -> int:
        """Add the rows whose key is not there yet; see `Table.append`."""
        table = self._writable(name)
        return self._tidied(table, table.append(rows, command=command))

    def append_shards(self, name: str, shards: Sequence[Shard], *, command: str) -> int:
        """Add shards that wait in a staging folder; see `Table.append_shards`."""
        table = self._writable(name)
        return self._tidied(table, table.append_shards(shards, command=command))

    def replace(self, name: str, rows: pa.Table, *, command: str) -> int:
        """Put rows in place of those of the same key; see `Table.replace`."""
        table = self._writable(name)
        return self._tidied(table, table.replace(rows, command=command))

    def delete(self, name: str, keys: pa.Table, *, command: str) -> int:
        """Remove the rows that match; see `Table.delete`."""
        return self._writable(name).delete(keys, command=command)

    def _writable(self, name: str) -> Table:
        schema = table_schema(name)
        if self.read_only:
            msg = f"The warehouse in {str(self.root)!r} was opened as it was: read-only."
            raise WarehouseError(msg, path=self.root, hint="Open it without a time or versions.")
        if name not in self._seen_last:
            Table.create(self.root / name, schema)
        return self._newest(name)

    def _tidied(self, table: Table, written: int) -> int:
        tidy(table)
        self._seen_last[table.schema.name] = table.snapshot
        return written

    def _newest(self, name: str) -> Table:
        base = self._seen_last.get(name)
        schema = table_schema(name)
        table = Table(self.root / name, schema, base=base, job=self.job, lock=self.lock)
        self._seen_last[name] = table.snapshot
        return table

    def _exists(self, name: str) -> bool:
        return (self.root / name / "_delta_log").is_dir()

    def _present(self) -> list[str]:
        return [name for name in TABLES if self._exists(name)]

    def _seen(self, name: str) -> bool:
        return self._exists(name) and self._pinned.get(name, 0) is not None


def log_stamp(root: Path) -> tuple[object, ...] | None:
    """Return a value that is the same for as long as no log of a warehouse gets or loses a file.

    It is that of the folders' times. None when one of them changed so lately that a further change
    could carry the same time.
    """
    now = time.time_ns()
    stamp: list[tuple[int, int, int] | None] = []
    for name in TABLES:
        try:
            told = Path(root, name, "_delta_log").stat()
        except OSError:
            stamp.append(None)
            continue
        if now - told.st_mtime_ns < _SETTLED_NS:
            return None
        stamp.append((told.st_dev, told.st_ino, told.st_mtime_ns))
    return tuple(stamp)


def _usable(root: Path) -> Path:
    root = Path(root).absolute()
    if unquote(str(root)) != str(root):  # other engines would look in the decoded folder
        msg = f"A warehouse cannot lie in {str(root)!r}: '%' and two digits mean something else."
        raise WarehouseError(msg, path=root, hint="Choose a folder without '%' in its path.")
    return root
