"""One Delta table: open it at a version, add rows by key, replace or delete them.

A commit is a compare-and-swap on the table's version. Whoever loses reads the keys that were added
meanwhile, writes only what is still missing and tries again, so a key is unique at every version
however many processes write. Nothing is reported as done before the log itself is on disk.
"""

from __future__ import annotations

import json
import random
import time
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Self

import deltalake
import pyarrow as pa
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError
from deltalake.transaction import AddAction, CommitProperties, RemoveAction

from ecgstore import settings
from ecgstore.errors import EcgStoreError, SchemaError, WarehouseError
from ecgstore.keys import as_keys, check_unique, found, holding, matching, open_shards, same_rows
from ecgstore.shards import Shard, check_rows, sync, write_failed, write_shards

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    import pyarrow.compute as pc

    from ecgstore.schema import TableSchema

__all__ = ["Table"]

_VERSION = "ecgstore.schemaVersion"
_PROPERTIES = {
    "delta.dataSkippingNumIndexedCols": "0",  # no identifier reaches the log as a statistic
    "delta.enableExpiredLogCleanup": "false",  # a run must be able to open the versions it read
}
_ATTEMPTS = 200
_PAUSE_S = (0.005, 0.5)  # first and longest mean pause between attempts


class Table:
    """One table of a warehouse, as it was at one version.

    The object keeps its version until it commits itself; open a new one to see what others wrote.

    Args:
        folder: The table's folder.
        schema: What it must hold.
        version: Delta version to open, read-only; None opens the newest.

    Attributes:
        folder: Absolute path of the table's folder.
        schema: The declared schema.

    Raises:
        WarehouseError: There is no such table or version, or its shards were erased.
        SchemaError: A newer ecgstore wrote the table.
    """

    def __init__(self, folder: Path, schema: TableSchema, *, version: int | None = None) -> None:
        self.folder = folder.absolute()
        self.schema = schema
        self._pinned = version is not None
        with _translated(self.folder):
            self._delta = deltalake.DeltaTable(self.folder, version=version)
            self._check_layout()
            if self._pinned and not all(file.exists() for file in self.files()):
                msg = f"Version {version} of table {schema.name!r} names shards that were erased."
                raise WarehouseError(msg, path=self.folder, hint="Open a newer version.")

    @classmethod
    def create(cls, folder: Path, schema: TableSchema) -> Self:
        """Make an empty table, or open the one that is there; two processes may race.

        Raises:
            WarehouseError: The folder cannot be written.
        """
        folder = folder.absolute()
        with _translated(folder):
            if not deltalake.DeltaTable.is_deltatable(str(folder)):
                folder.mkdir(parents=True, exist_ok=True)
                with suppress(CommitFailedError):  # somebody else made it meanwhile
                    deltalake.DeltaTable.create(
                        folder,
                        schema.arrow,
                        mode="ignore",
                        name=schema.name,
                        description=schema.summary,
                        configuration={**_PROPERTIES, _VERSION: str(schema.version)},
                        raise_if_key_not_exists=False,
                        commit_properties=_swap(command="init"),
                    )
                _sync_log(folder, 0)
                sync(folder)
                sync(folder.parent)
        return cls(folder, schema)

    @property
    def version(self) -> int:
        """Delta version of what is seen; it grows by one a commit."""
        return int(self._delta.version())

    def files(self) -> list[Path]:
        """List the shards of this version, oldest first."""
        with _translated(self.folder):
            actions = pa.table(self._delta.get_add_actions())
        order = actions.sort_by([("modification_time", "ascending"), ("path", "ascending")])
        return [self.folder / name for name in order["path"].to_pylist()]

    def read(
        self, columns: Sequence[str] | None = None, where: pc.Expression | None = None
    ) -> pa.Table:
        """Read rows into memory; row groups that `where` rules out are skipped.

        Args:
            columns: Columns to read, all by default; those a shard lacks are NULL.
            where: Arrow expression that rows must satisfy.

        Raises:
            WarehouseError: A shard is missing or damaged.
        """
        with _translated(self.folder):
            return open_shards(self.schema, self.files()).to_table(
                columns=None if columns is None else list(columns), filter=where
            )

    def append(self, rows: pa.Table, *, command: str) -> int:
        """Add the rows whose key is not there yet, in one commit whose log entry names `command`.

        Returns:
            Rows added. When it is 0 there was no commit.

        Raises:
            SchemaError: The rows do not fit the table, or hold a key twice.
            WarehouseError: They could not be written; nothing was committed.
        """
        rows = check_rows(self.schema, rows)
        check_unique(self.schema, rows)
        key, seen = list(self.schema.key), set[str]()
        shards: list[Shard] | None = None

        def attempt() -> int:
            nonlocal rows, shards
            missing = ~found(rows, self._fresh(rows.select(key), seen), key)
            if not missing.all():
                rows, shards = rows.filter(missing), None
            if shards is None:
                shards = write_shards(self.folder, self.schema, rows)
            return self._commit(shards, command=command, added=rows.num_rows)

        return self._until_committed(attempt)

    def append_shards(self, shards: Sequence[Shard], *, command: str) -> int:
        """Add shards that already lie in the table's folder, as `append` adds rows.

        A shard of which some keys are there already is rewritten without them.

        Returns:
            Rows added. When it is 0 there was no commit.

        Raises:
            SchemaError: The shards hold a key twice.
            WarehouseError: They could not be read or written; nothing was committed.
        """

        def with_keys(shard: Shard) -> tuple[Shard, pa.Table]:
            return shard, open_shards(self.schema, [shard.path]).to_table(columns=key)

        key, seen = list(self.schema.key), set[str]()
        with _translated(self.folder):
            pending = [with_keys(shard) for shard in shards]
        if pending:
            check_unique(self.schema, pa.concat_tables([keys for _, keys in pending]))

        def attempt() -> int:
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
                    left += map(with_keys, write_shards(self.folder, self.schema, rows))
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

        def attempt() -> int:
            nonlocal shards
            keys = rows.select(self.schema.key)
            touched, displaced = holding(self.schema, self.files(), keys)
            if displaced == rows.num_rows and same_rows(self.schema, touched, rows):
                return 0
            if shards is None:
                shards = write_shards(self.folder, self.schema, rows)
            return self._commit(
                [*shards, *self._rest(touched, keys)],
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
            Rows removed. When it is 0 there was no commit.

        Raises:
            SchemaError: The table has no such column, or it is of another type.
            WarehouseError: The rest could not be written; nothing was committed.
        """
        keys = as_keys(self.schema, keys)

        def attempt() -> int:
            touched, displaced = holding(self.schema, self.files(), keys)
            rest = self._rest(touched, keys)
            self._commit(rest, touched, command=command, removed=displaced)
            return displaced

        return self._until_committed(attempt)

    def version_at(self, at: datetime) -> int | None:
        """Return the newest version committed at or before a time, None when there was none.

        The time is the one in the log, so a copied or moved warehouse gives the same answer.
        """
        at = at if at.tzinfo else at.replace(tzinfo=UTC)
        limit = at.timestamp() * 1000
        with _translated(self.folder):
            history = self._delta.history()
        return max((int(c["version"]) for c in history if c["timestamp"] <= limit), default=None)

    @property
    def _layout(self) -> int:
        return int(self._delta.metadata().configuration.get(_VERSION, "1"))

    def _fresh(self, keys: pa.Table, seen: set[str]) -> pa.Table:
        """Look `keys` up in the shards not yet in `seen`, and put them there."""
        files = [file for file in self.files() if file.name not in seen]
        seen.update(file.name for file in files)
        return matching(self.schema, files, keys)

    def _rest(self, files: list[Path], keys: pa.Table) -> list[Shard]:
        """Write each shard anew without the rows that match `keys`."""
        rest = []
        for file in files:
            rows = open_shards(self.schema, [file]).to_table()
            rows = rows.filter(~found(rows, keys, keys.column_names))
            rest += write_shards(self.folder, self.schema, rows)
        return rest

    def _until_committed(self, attempt: Callable[[], int]) -> int:
        """Run `attempt` until it commits or has nothing to do, on the newest version each time."""
        if self._pinned:
            msg = f"Table {self.schema.name!r} was opened at version {self.version}: read-only."
            raise WarehouseError(msg, path=self.folder)
        with _translated(self.folder):
            for turn in range(_ATTEMPTS):
                try:
                    self._delta.update_incremental()
                    self._upgrade()
                    return attempt()
                except CommitFailedError:
                    longest = min(_PAUSE_S[0] * 2**turn, _PAUSE_S[1])
                    time.sleep(random.uniform(0, 2 * longest))
        msg = f"Table {self.schema.name!r} is being written by others without a pause."
        hint = "Nothing was committed; run the same command again."
        raise WarehouseError(msg, path=self.folder, hint=hint)

    def _commit(
        self,
        shards: Sequence[Shard],
        removed_files: Sequence[Path] = (),
        *,
        command: str,
        added: int = 0,
        removed: int = 0,
    ) -> int:
        """Commit on top of the version seen or raise CommitFailedError; return `added`."""
        new = {shard.path.name: shard for shard in shards}
        old = {file.name for file in removed_files}
        now = time.time_ns() // 1_000_000
        gone = [
            RemoveAction(name, data_change=True, deletion_timestamp=now) for name in old - {*new}
        ]
        come = [_add_action(shard) for name, shard in new.items() if name not in old]
        if not gone and not come:
            return 0
        self._delta.create_write_transaction(
            [*gone, *come],
            mode="append",
            schema=self._delta.schema(),
            commit_properties=_swap(command=command, rowsAdded=added, rowsRemoved=removed),
        )
        _sync_log(self.folder, self.version + 1)
        self._delta.update_incremental()
        return added

    def _check_layout(self) -> None:
        if self._layout > self.schema.version:
            msg = (
                f"Table {self.schema.name!r} has layout {self._layout}; "
                f"this ecgstore knows layout {self.schema.version} at most."
            )
            hint = "Install the ecgstore that wrote the warehouse, or a newer one."
            found, wanted = self._layout, self.schema.version
            raise SchemaError(msg, table=self.schema.name, found=found, wanted=wanted, hint=hint)

    def _upgrade(self) -> None:
        """Add the columns that came with a newer layout; shards without them read as NULL."""
        self._check_layout()
        if self._layout == self.schema.version:
            return
        present = {field.name for field in self._delta.schema().fields}
        fields = deltalake.Schema.from_arrow(self.schema.arrow).fields
        if fresh := [field for field in fields if field.name not in present]:
            self._delta.alter.add_columns(fresh, commit_properties=_swap())
            self._delta.update_incremental()
        properties = {_VERSION: str(self.schema.version)}
        self._delta.alter.set_table_properties(
            properties, raise_if_not_exists=False, commit_properties=_swap()
        )
        self._delta.update_incremental()
        _sync_log(self.folder, self.version)


@contextmanager
def _translated(folder: Path) -> Iterator[None]:
    """Let every foreign error leave as one of ours, of one line."""
    try:
        yield
    except EcgStoreError:
        raise
    except TableNotFoundError as error:
        msg = f"There is no table in {str(folder)!r}."
        raise WarehouseError(msg, path=folder, hint="Make it with: ecgstore init") from error
    except (DeltaError, FileNotFoundError, pa.ArrowException) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        msg = f"The table in {str(folder)!r} could not be read or written: {reason}"
        raise WarehouseError(msg, path=folder) from error
    except OSError as error:
        raise write_failed(folder, error) from error


def _swap(**details: str | int) -> CommitProperties:
    """Return the properties of a commit that fails when the version has moved on."""
    details["codeVersion"] = settings.code_version()
    return CommitProperties(max_commit_retries=0, custom_metadata=details)


def _sync_log(folder: Path, version: int) -> None:
    """Force the files of one commit to disk: delta-rs itself does not."""
    log = folder / "_delta_log"
    checkpoint = (log / "_last_checkpoint", log / f"{version:020d}.checkpoint.parquet")
    for path in (log / f"{version:020d}.json", *(p for p in checkpoint if p.exists()), log):
        sync(path)


def _add_action(shard: Shard) -> AddAction:
    return AddAction(
        shard.path.name,
        shard.size,
        partition_values={},
        modification_time=shard.path.stat().st_mtime_ns // 1_000_000,
        data_change=True,
        stats=json.dumps({"numRecords": shard.rows}),
    )
