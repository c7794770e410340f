"""One Delta table: open it at a version, add rows by key, replace or delete them.

A commit is a compare-and-swap on the table's version. Whoever loses reads the keys that were added
meanwhile, writes only what is still missing and tries again, so a key is unique at every version
however many processes write. Nothing is reported as done before the log itself is on disk.
"""

from __future__ import annotations

import json
import random
import time
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Self

import deltalake
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError
from deltalake.transaction import AddAction, CommitProperties, RemoveAction

from ecgstore import settings
from ecgstore.errors import EcgStoreError, SchemaError, WarehouseError
from ecgstore.shards import Shard, check_rows, sync, write_failed, write_shards

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from ecgstore.schema import TableSchema

__all__ = ["Table"]

_VERSION = "ecgstore.schemaVersion"
_PROPERTIES = {
    "delta.dataSkippingNumIndexedCols": "0",  # no identifier reaches the log as a statistic
    "delta.enableExpiredLogCleanup": "false",  # a run must be able to open the versions it read
}
_ATTEMPTS = 200
_PAUSE_S = (0.005, 0.5)  # first and longest mean pause between attempts
_FILE, _ROW = "__filename", "__row"


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
        with self._translated():
            self._delta = deltalake.DeltaTable(self.folder, version=version)
            if self._layout > schema.version:
                msg = (
                    f"Table {schema.name!r} has layout {self._layout}; "
                    f"this ecgstore knows layout {schema.version} at most."
                )
                raise SchemaError(
                    msg,
                    table=schema.name,
                    found=self._layout,
                    wanted=schema.version,
                    hint="Install the ecgstore that wrote the warehouse, or a newer one.",
                )
            self._check_erased()

    @classmethod
    def create(cls, folder: Path, schema: TableSchema) -> Self:
        """Make an empty table, or open the one that is there; two processes may race.

        Raises:
            WarehouseError: The folder cannot be written.
        """
        folder = folder.absolute()
        if not deltalake.DeltaTable.is_deltatable(str(folder)):
            try:
                folder.mkdir(parents=True, exist_ok=True)
                deltalake.DeltaTable.create(
                    folder,
                    schema.arrow,
                    mode="ignore",
                    name=schema.name,
                    description=schema.summary,
                    configuration={**_PROPERTIES, _VERSION: str(schema.version)},
                    raise_if_key_not_exists=False,
                )
                _sync_log(folder, 0)
                sync(folder)
                sync(folder.parent)
            except OSError as error:
                raise write_failed(folder, error) from error
            except DeltaError as error:
                if not deltalake.DeltaTable.is_deltatable(str(folder)):
                    raise _broken(folder, error) from error
        return cls(folder, schema)

    @property
    def version(self) -> int:
        """Delta version of what is seen; it grows by one a commit."""
        return int(self._delta.version())

    def files(self) -> list[Path]:
        """List the shards of this version, oldest first."""
        with self._translated():
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
        with self._translated():
            return self._dataset(self.files()).to_table(
                columns=None if columns is None else list(columns), filter=where
            )

    def append(self, rows: pa.Table, *, command: str) -> int:
        """Add the rows whose key is not there yet, in one commit.

        Args:
            rows: Rows to add, no key twice.
            command: What is being done, kept in the log.

        Returns:
            Rows added. When it is 0 there was no commit.

        Raises:
            SchemaError: The rows do not fit the table, or hold a key twice.
            WarehouseError: They could not be written; nothing was committed.
        """
        rows = check_rows(self.schema, rows)
        self._check_unique(rows)
        seen: set[str] = set()
        shards: list[Shard] | None = None

        def attempt() -> int:
            nonlocal rows, shards
            missing = ~_found(rows, self._matching(rows.select(self.schema.key), seen))
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
        with self._translated():
            pending = [(shard, self._keys(shard)) for shard in shards]
        if not pending:
            return 0
        self._check_unique(pa.concat_tables([keys for _, keys in pending]))
        seen: set[str] = set()

        def attempt() -> int:
            nonlocal pending
            wanted = pa.concat_tables([keys for _, keys in pending])
            stored, left = self._matching(wanted, seen), []
            for shard, keys in pending:
                missing = ~_found(keys, stored)
                if missing.all():
                    left.append((shard, keys))
                elif missing.any():
                    rows = self._dataset([shard.path]).to_table().filter(missing)
                    fresh = write_shards(self.folder, self.schema, rows)
                    left += [(part, self._keys(part)) for part in fresh]
            pending = left or [(shard, keys.slice(0, 0)) for shard, keys in pending[:1]]
            added = [shard for shard, _ in left]
            return self._commit(added, command=command, added=sum(s.rows for s in added))

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
        self._check_unique(rows)
        shards: list[Shard] | None = None

        def attempt() -> int:
            nonlocal shards
            keys = rows.select(self.schema.key)
            touched, displaced = self._holding(keys)
            if displaced == rows.num_rows and self._holds(touched, rows):
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
            command: What is being done, kept in the log.

        Returns:
            Rows removed. When it is 0 there was no commit.

        Raises:
            SchemaError: The table has no such column.
            WarehouseError: The rest could not be written; nothing was committed.
        """
        wanted = [name for name in keys.column_names if name not in self.schema.arrow.names]
        if wanted or not keys.column_names:
            msg = f"Table {self.schema.name!r} cannot be searched by {wanted or 'no column'}."
            raise SchemaError(msg, table=self.schema.name, found=wanted)
        keys = keys.cast(pa.schema([self.schema.arrow.field(n) for n in keys.column_names]))

        def attempt() -> int:
            touched, displaced = self._holding(keys)
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
        with self._translated():
            history = self._delta.history()
        return max((int(c["version"]) for c in history if c["timestamp"] <= limit), default=None)

    @property
    def _layout(self) -> int:
        return int(self._delta.metadata().configuration.get(_VERSION, "1"))

    def _dataset(self, files: Sequence[Path]) -> pads.Dataset:
        return pads.dataset([str(f) for f in files], schema=self.schema.arrow, format="parquet")

    def _keys(self, shard: Shard) -> pa.Table:
        return self._dataset([shard.path]).to_table(columns=list(self.schema.key))

    def _matching(self, keys: pa.Table, seen: set[str] | None = None) -> pa.Table:
        """Read the columns of `keys`, and the file of each row, where the values may match.

        Files named in `seen` are left out and those read are added to it: a shard never changes.
        """
        seen = set() if seen is None else seen
        files = [file for file in self.files() if file.name not in seen]
        seen.update(file.name for file in files)
        if not files or not keys.num_rows:
            return keys.slice(0, 0).append_column(_FILE, pa.array([], pa.string()))
        columns = [*keys.column_names, _FILE]
        return self._dataset(files).to_table(columns=columns, filter=_bounds(keys))

    def _holding(self, keys: pa.Table) -> tuple[list[Path], int]:
        """Return the shards that hold rows matching `keys`, and how many rows match."""
        stored = self._matching(keys)
        stored = stored.filter(_found(stored.select(keys.column_names), keys))
        names = set(stored[_FILE].unique().to_pylist())
        return [file for file in self.files() if str(file) in names], stored.num_rows

    def _holds(self, files: list[Path], rows: pa.Table) -> bool:
        """Tell whether the rows of these keys are stored exactly so."""
        order = [(name, "ascending") for name in self.schema.key]
        stored = self._dataset(files).to_table(filter=_bounds(rows.select(self.schema.key)))
        stored = stored.filter(_found(stored.select(self.schema.key), rows))
        return bool(stored.sort_by(order).equals(rows.sort_by(order)))

    def _rest(self, files: list[Path], keys: pa.Table) -> list[Shard]:
        """Write each shard anew without the rows that match `keys`."""
        rest = []
        for file in files:
            rows = self._dataset([file]).to_table()
            rows = rows.filter(~_found(rows.select(keys.column_names), keys))
            rest += write_shards(self.folder, self.schema, rows)
        return rest

    def _check_unique(self, rows: pa.Table) -> None:
        distinct = rows.group_by(list(self.schema.key)).aggregate([]).num_rows
        if distinct < rows.num_rows:
            msg = (
                f"Table {self.schema.name!r}: {rows.num_rows - distinct} of {rows.num_rows} rows "
                f"repeat the key ({', '.join(self.schema.key)}) of another."
            )
            raise SchemaError(msg, table=self.schema.name, found=distinct, wanted=rows.num_rows)

    def _check_erased(self) -> None:
        if self._pinned and any(not file.exists() for file in self.files()):
            msg = f"Version {self.version} of table {self.schema.name!r} names erased shards."
            raise WarehouseError(msg, path=self.folder, hint="Open a newer version.")

    def _until_committed(self, attempt: Callable[[], int]) -> int:
        """Run `attempt` until it commits or has nothing to do, on the newest version each time."""
        if self._pinned:
            msg = f"Table {self.schema.name!r} was opened at version {self.version}: read-only."
            raise WarehouseError(msg, path=self.folder)
        with self._translated():
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
        """Commit on top of the version seen, put the log on disk, and return `added`.

        Raises:
            CommitFailedError: Somebody else committed first.
        """
        new = {shard.path.name: shard for shard in shards}
        old = {file.name for file in removed_files}
        now = time.time_ns() // 1_000_000
        actions = [
            *(
                RemoveAction(name, data_change=True, deletion_timestamp=now)
                for name in old - {*new}
            ),
            *(_add_action(shard) for name, shard in new.items() if name not in old),
        ]
        if not actions:
            return 0
        details = {
            "command": command,
            "rowsAdded": added,
            "rowsRemoved": removed,
            "codeVersion": settings.code_version(),
        }
        self._delta.create_write_transaction(
            actions,
            mode="append",
            schema=self._delta.schema(),
            commit_properties=CommitProperties(max_commit_retries=0, custom_metadata=details),
        )
        _sync_log(self.folder, self.version + 1)
        self._delta.update_incremental()
        return added

    def _upgrade(self) -> None:
        """Add the columns that came with a newer layout; shards without them read as NULL."""
        if self._layout == self.schema.version:
            return
        present = {field.name for field in self._delta.schema().fields}
        wanted = deltalake.Schema.from_arrow(self.schema.arrow).fields
        if fresh := [field for field in wanted if field.name not in present]:
            self._delta.alter.add_columns(fresh)
            self._delta.update_incremental()
        self._delta.alter.set_table_properties({_VERSION: str(self.schema.version)})
        self._delta.update_incremental()
        _sync_log(self.folder, self.version)

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Let every foreign error leave as one of ours."""
        try:
            yield
        except EcgStoreError:
            raise
        except TableNotFoundError as error:
            msg = f"There is no table {self.schema.name!r} in {str(self.folder.parent)!r}."
            hint = "Make the warehouse with: ecgstore init"
            raise WarehouseError(msg, path=self.folder, hint=hint) from error
        except (DeltaError, FileNotFoundError, pa.ArrowException) as error:
            raise _broken(self.folder, error) from error
        except OSError as error:
            raise write_failed(self.folder, error) from error


def _broken(folder: Path, error: Exception) -> WarehouseError:
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    msg = f"The table in {str(folder)!r} could not be read or written: {reason}"
    return WarehouseError(msg, path=folder)


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


def _found(keys: pa.Table, stored: pa.Table) -> NDArray[np.bool_]:
    """Mark the rows of `keys` whose values occur in `stored`, columns matched by name."""
    names = [name for name in keys.column_names if name in stored.column_names and name != _FILE]
    indexed = keys.select(names).append_column(_ROW, pa.array(np.arange(keys.num_rows)))
    hits = indexed.join(stored.select(names), keys=names, join_type="left semi")
    found = np.zeros(keys.num_rows, dtype=bool)
    found[hits[_ROW].to_numpy()] = True
    return found


def _bounds(keys: pa.Table) -> pc.Expression:
    """Return a filter that every matching row passes, cheap enough to skip whole row groups."""
    bounds = pc.scalar(True)  # noqa: FBT003  (the constant expression, not an option)
    for name in keys.column_names:
        limits = pc.min_max(keys[name])
        least, most = limits["min"], limits["max"]
        if least == most:
            bounds &= pads.field(name) == least
        else:
            bounds &= (pads.field(name) >= least) & (pads.field(name) <= most)
    return bounds
