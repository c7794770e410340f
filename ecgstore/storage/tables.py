"""One Delta table: open it at a version, add rows by key, replace or delete them.

A commit is a compare-and-swap on the table's version. Whoever loses reads the keys that were added
meanwhile, writes only what is still missing and tries again, so a key is unique at every version
however many processes write. Nothing is reported as done before the log itself is on disk.
"""

from __future__ import annotations

import random
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Self

import pyarrow as pa

from ecgstore import settings
from ecgstore.errors import ErasedError, WarehouseError
from ecgstore.storage import integrity
from ecgstore.storage.commits import Entry
from ecgstore.storage.keys import (
    as_keys,
    check_unique,
    found,
    holding,
    matching,
    open_shards,
    same_rows,
)
from ecgstore.storage.layout import check_layout, layout, metadata
from ecgstore.storage.locks import Lock
from ecgstore.storage.log import Log, Lost
from ecgstore.storage.shards import Shard, check_rows, translated, write_shards
from ecgstore.storage.staging import place, settle, staging

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence
    from pathlib import Path

    import pyarrow.compute as pc

    from ecgstore.schema import TableSchema
    from ecgstore.storage.log import Snapshot

__all__ = ["Table"]

_ATTEMPTS = 200
_PAUSE_S = (0.005, 0.5)  # first and longest mean pause between attempts


class Table:
    """One table of a warehouse, as it was at one version.

    The object keeps its version until it commits; open a new one to see what others wrote.

    Args:
        folder: The table's folder.
        schema: What it must hold.
        version: Delta version to open, read-only; None opens the newest.
        base: An older snapshot of the table, from which only what came since is read.
        job: Id of the invocation, which its commits carry.
        lock: The lock of the warehouse; by default that of the folder above.

    Attributes:
        folder: Absolute path of the table's folder.
        schema: The declared schema.
        log: Its transaction log.
        snapshot: The version seen, with its shards.

    Raises:
        WarehouseError: There is no such table or version.
        ErasedError: The version was erased in part, or its log files were cleaned.
        LogError: A log file is missing or damaged.
        SchemaError: A newer ecgstore or another engine wrote the table.
    """

    def __init__(
        self,
        folder: Path,
        schema: TableSchema,
        *,
        version: int | None = None,
        base: Snapshot | None = None,
        job: str = "",
        lock: Lock | None = None,
    ) -> None:
        self.folder, self.schema = folder.absolute(), schema
        self.log = Log(self.folder)
        self._pinned = version is not None
        self._job = job
        self._lock = lock or Lock(self.folder.parent)
        with translated(self.folder):
            self.snapshot = self.log.snapshot(version, base=base)
            check_layout(self.snapshot, schema)
            if self._pinned:
                self._check_kept()

    @classmethod
    def create(cls, folder: Path, schema: TableSchema) -> Self:
        """Make an empty table, or open the one that is there; two processes may race.

        Raises:
            WarehouseError: The folder cannot be written.
        """
        folder = folder.absolute()
        log = Log(folder)
        with translated(folder):
            if not log.exists():
                with suppress(Lost):  # somebody else made it meanwhile
                    code = settings.code_version()
                    log.create(metadata(schema), command="init", codeVersion=code)
        return cls(folder, schema)

    @property
    def version(self) -> int:
        """Delta version of what is seen."""
        return self.snapshot.version

    @property
    def behind(self) -> bool:
        """Whether somebody committed since."""
        return not self._pinned and self.log.has(self.version + 1)

    def files(self) -> list[Path]:
        """List the shards of this version, oldest first; each was seen whole.

        Raises:
            DamagedError: One is missing or was changed.
        """
        entries = self.snapshot.entries
        with translated(self.folder):
            integrity.check(self.folder, entries.values(), version=self.version)
        return [self.folder / name for name in entries]

    @contextmanager
    def staging(self) -> Iterator[Path]:
        """Make a folder in which shards wait for their commit; worker processes may write there."""
        with translated(self.folder), staging(self.folder, self._lock) as folder:
            yield folder

    def read(
        self, columns: Sequence[str] | None = None, where: pc.Expression | None = None
    ) -> pa.Table:
        """Read rows into memory; row groups that `where` rules out are skipped.

        Shards erased since the table was opened make it read the newest version.

        Args:
            columns: Columns to read, all by default; those a shard lacks are NULL.
            where: Arrow expression that rows must satisfy.

        Raises:
            WarehouseError: A shard is missing or damaged.
        """
        while True:
            try:
                with translated(self.folder):
                    shards = open_shards(self.schema, self.files())
                    return shards.to_table(columns and list(columns), filter=where)
            except WarehouseError:
                if not self.behind:
                    raise
                self.snapshot = self.log.snapshot(base=self.snapshot)

    def append(self, rows: pa.Table, *, command: str) -> int:
        """Add the rows whose key is not there yet, in one commit whose log entry names `command`.

        Returns:
            Rows added; 0 without a commit.

        Raises:
            SchemaError: The rows do not fit the table, or hold a key twice.
            WarehouseError: They could not be written; nothing was committed.
        """
        rows = check_rows(self.schema, rows)
        check_unique(self.schema, rows)
        key, seen = list(self.schema.key), set[str]()
        shards: list[Shard] | None = None

        def attempt(staging: Path) -> int:
            nonlocal rows, shards
            missing = ~found(rows, self._fresh(rows.select(key), seen), key)
            if not missing.all():
                rows, shards = rows.filter(missing), None
            if shards is None:
                shards = write_shards(staging, self.schema, rows)
            return self._commit(shards, command=command, added=rows.num_rows)

        return self._until_committed(attempt)

    def append_shards(self, shards: Sequence[Shard], *, command: str) -> int:
        """Add shards that wait in `staging`; one with keys that are there is rewritten without.

        Returns:
            Rows added; 0 without a commit.

        Raises:
            SchemaError: The shards hold a key twice.
            WarehouseError: They could not be read or written; nothing was committed.
        """

        def with_keys(shard: Shard) -> tuple[Shard, pa.Table]:
            return shard, open_shards(self.schema, [shard.path]).to_table(columns=key)

        key, seen = list(self.schema.key), set[str]()
        with translated(self.folder):
            pending = [with_keys(shard) for shard in shards]
        if pending:
            check_unique(self.schema, pa.concat_tables([keys for _, keys in pending]))

        def attempt(staging: Path) -> int:
            nonlocal pending
            if not pending:
                return 0
            stored = self._fresh(pa.concat_tables([keys for _, keys in pending]), seen)
            left = []
            for shard, keys in pending:
                missing = ~found(keys, stored, key)
                if missing.all():
                    left.append((shard, keys))
                elif missing.any():
                    rows = open_shards(self.schema, [shard.path]).to_table().filter(missing)
                    left += map(with_keys, write_shards(staging, self.schema, rows))
            pending = left
            added = sum(keys.num_rows for _, keys in pending)
            return self._commit([shard for shard, _ in pending], command=command, added=added)

        return self._until_committed(attempt)

    def replace(self, rows: pa.Table, *, command: str) -> int:
        """Put rows in place of those of the same key and add the others, in one commit.

        Returns:
            Rows written. When the table holds exactly these rows already it is 0, without a commit.

        Raises:
            SchemaError: The rows do not fit the table, or hold a key twice.
            WarehouseError: They could not be written; nothing was committed.
        """
        rows = check_rows(self.schema, rows)
        check_unique(self.schema, rows)
        shards: list[Shard] | None = None

        def attempt(staging: Path) -> int:
            nonlocal shards
            keys = rows.select(self.schema.key)
            touched, displaced = holding(self.schema, self.files(), keys)
            if displaced == rows.num_rows and same_rows(self.schema, touched, rows):
                return 0
            if shards is None:
                shards = write_shards(staging, self.schema, rows)
            return self._commit(
                [*shards, *self._rest(staging, touched, keys)],
                touched,
                command=command,
                added=rows.num_rows,
                removed=displaced,
            )

        return self._until_committed(attempt)

    def delete(self, keys: pa.Table, *, command: str) -> int:
        """Remove the rows whose values equal those of a row of `keys`, in one commit.

        Args:
            keys: Values to look for; its columns are any of the table's. NULL matches nothing.
            command: Named in the log.

        Returns:
            Rows removed; 0 without a commit.

        Raises:
            SchemaError: The table has no such column, or it is of another type.
            WarehouseError: The rest could not be written; nothing was committed.
        """
        keys = as_keys(self.schema, keys)

        def attempt(staging: Path) -> int:
            touched, displaced = holding(self.schema, self.files(), keys)
            rest = self._rest(staging, touched, keys)
            self._commit(rest, touched, command=command, removed=displaced)
            return displaced

        return self._until_committed(attempt)

    def swap(
        self, old: Collection[Path], new: Sequence[Shard], *, command: str, dropped: int = 0
    ) -> bool:
        """Put shards in place of others, in one commit.

        Args:
            old: Shards of this table.
            new: Shards that wait in a `staging` folder of this table. With `dropped` rows less
                they hold the rows of the old ones, no more and no other.
            command: Named in the log.
            dropped: Rows left out on purpose.

        Returns:
            False, without a commit, when one of the old shards is no longer live.

        Raises:
            WarehouseError: They could not be committed.
        """

        def attempt(_: Path) -> int:
            if not {file.name for file in old} <= self.snapshot.entries.keys():
                return -1
            return self._commit(new, old, command=command, removed=dropped, rearranged=not dropped)

        return self._until_committed(attempt) >= 0

    def _fresh(self, keys: pa.Table, seen: set[str]) -> pa.Table:
        """Look `keys` up in the shards not yet in `seen`, and put them there."""
        files = [file for file in self.files() if file.name not in seen]
        seen.update(file.name for file in files)
        return matching(self.schema, files, keys)

    def _rest(self, staging: Path, files: list[Path], keys: pa.Table) -> list[Shard]:
        """Write each shard anew without the rows that match `keys`."""
        every = (open_shards(self.schema, [file]).to_table() for file in files)
        kept = (rows.filter(~found(rows, keys, keys.column_names)) for rows in every)
        return [shard for rows in kept for shard in write_shards(staging, self.schema, rows)]

    def _until_committed(self, attempt: Callable[[Path], int]) -> int:
        """Run `attempt` until it commits or has nothing to do, on the newest version each time."""
        if self._pinned:
            msg = f"Table {self.schema.name!r} was opened at version {self.version}: read-only."
            raise WarehouseError(msg, path=self.folder)
        with translated(self.folder), self.staging() as staging:
            for turn in range(_ATTEMPTS):
                try:
                    self.snapshot = self.log.snapshot(base=self.snapshot)
                    self._upgrade()
                    return attempt(staging)
                except Lost:
                    time.sleep(random.uniform(0, 2 * min(_PAUSE_S[0] * 2**turn, _PAUSE_S[1])))
        msg = f"Table {self.schema.name!r} is being written by others without a pause."
        raise WarehouseError(msg, path=self.folder, hint="Run the same command again.")

    def _commit(
        self,
        shards: Sequence[Shard],
        removed_files: Collection[Path] = (),
        *,
        command: str,
        added: int = 0,
        removed: int = 0,
        rearranged: bool = False,
    ) -> int:
        """Commit on top of the version seen or raise Lost; return `added`."""
        new = {shard.path.name: shard for shard in shards}
        old = {file.name for file in removed_files}
        now = time.time_ns() // 1_000_000
        come = [Entry(n, one.size, one.rows, now) for n, one in new.items() if n not in old]
        gone = sorted(old - {*new})
        if not gone and not come:
            return 0
        with self._lock.shared():
            if self.log.has(self.version + 1):  # lost already: leave no shard behind
                raise Lost
            place(shards, self.folder)
            self.snapshot = self.log.commit(
                self.snapshot,
                add=come,
                remove=gone,
                rearranged=rearranged,
                command=command,
                rowsAdded=added,
                rowsRemoved=removed,
                codeVersion=settings.code_version(),
                job=self._job,
            )
        settle(shards)
        integrity.remember(self.folder, [entry.name for entry in come])
        return added

    def _check_kept(self) -> None:
        """Check that no shard of an older version was erased since."""
        if all((self.folder / name).exists() for name in self.snapshot.entries):
            return
        erased = next((one for one in self.log.commits() if one.command == "forget"), None)
        if erased is not None and erased.version > self.version:
            msg = (
                f"Version {self.version} of table {self.schema.name!r} can no longer be opened: "
                f"patients in it were erased on {erased.at:%Y-%m-%d %H:%M:%S} UTC."
            )
            raise ErasedError(msg, path=self.folder, table=self.schema.name, version=self.version)
        self.files()  # names the missing shard

    def _upgrade(self) -> None:
        """Add the columns that came with a newer layout; shards without them read as NULL."""
        check_layout(self.snapshot, self.schema)
        if layout(self.snapshot) < self.schema.version:
            self.snapshot = self.log.commit(
                self.snapshot,
                metadata=metadata(self.schema, self.snapshot),
                command="upgrade",
                codeVersion=settings.code_version(),
                job=self._job,
            )
