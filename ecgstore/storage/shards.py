"""Typed Parquet shards: checked before a write, encoded for the table, named by what they hold.

A shard is an immutable file named by the SHA-256 of its bytes. It is written under a temporary
name in the staging folder of its table, forced to disk and only then given its name, so a shard
that can be seen is whole. This module knows nothing of the transaction log, which lets worker
processes write shards cheaply and the parent commit them.
"""

from __future__ import annotations

import errno
import hashlib
import os
import uuid
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ecgstore.errors import EcgStoreError, SchemaError, WarehouseError
from ecgstore.storage import disk

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from types import TracebackType

    from ecgstore.schema import TableSchema

__all__ = [
    "STAGING",
    "Shard",
    "ShardWriter",
    "check_rows",
    "translated",
    "write_failed",
    "write_shards",
]

STAGING = "_staging"
"""Folder of staging folders in a table's folder; other engines skip names that begin with ``_``."""

_CODEC = "zstd"
_LEVEL = 1  # levels 3 and 9 gain less than 2 % on delta-packed ECGs
_ROWS_PER_GROUP = 1 << 20  # where the table leaves it to the writer: Arrow's own default
_WRITE_BYTES = 1 << 20
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@dataclass(frozen=True)
class Shard:
    """One finished file.

    Attributes:
        path: ``<folder it was written to>/<sha256 of the bytes>.parquet``.
        rows: Rows it holds.
        size: Bytes.
    """

    path: Path
    rows: int
    size: int


class ShardWriter:
    """Write one shard row group by row group; nothing is visible until it is closed.

    Leaving the ``with`` block by an exception removes the temporary file.

    Args:
        folder: A staging folder of the table.
        schema: The table.

    Example:
        >>> import pathlib, tempfile
        >>> from ecgstore.schema import TABLES
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with ShardWriter(pathlib.Path(folder), TABLES["labels"]) as writer:
        ...         writer.write(pa.table({"record_id": ["a/1"], "task": ["MI"], "label": [1.0]}))
        ...     writer.close().rows
        1
    """

    def __init__(self, folder: Path, schema: TableSchema) -> None:
        self._folder = folder
        self._schema = schema
        self._group = schema.rows_per_group or _ROWS_PER_GROUP
        self._pending: list[pa.Table] = []
        self._waiting = 0
        self._rows = 0
        self._temporary: Path | None = None
        self._sink: _Sink | None = None
        self._writer: pq.ParquetWriter | None = None
        self._shard: Shard | None = None

    def write(self, rows: pa.Table | pa.RecordBatch) -> None:
        """Check rows and add them; whole row groups go to disk at once.

        Raises:
            SchemaError: The rows do not fit the table.
            WarehouseError: They could not be written.
        """
        checked = check_rows(self._schema, rows)
        self._pending.append(checked)
        self._waiting += checked.num_rows
        whole = self._waiting - self._waiting % self._group
        if whole:
            self._flush(whole)

    def close(self) -> Shard | None:
        """Finish the shard and give it its name; None when nothing was written.

        Raises:
            WarehouseError: It could not be written; no file is left.
        """
        if self._waiting:
            self._flush(self._waiting)
        if self._writer is not None and self._sink is not None and self._temporary is not None:
            try:
                self._writer.close()
                self._sink.finish()
                path = self._folder / f"{self._sink.sha256}.parquet"
                disk.rename(self._temporary, path)
            except OSError as error:
                self.discard()
                raise write_failed(self._folder, error) from error
            self._shard = Shard(path, self._rows, self._sink.size)
            self._writer = self._sink = self._temporary = None
        return self._shard

    def discard(self) -> None:
        """Remove what was written so far."""
        writer, sink, temporary = self._writer, self._sink, self._temporary
        self._writer = self._sink = self._temporary = None
        self._pending, self._waiting = [], 0
        if sink is not None:
            sink.abandon()
        if writer is not None:
            writer.close()
        if temporary is not None:
            with suppress(OSError):
                disk.remove(temporary)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.discard()

    def _flush(self, count: int) -> None:
        rows = pa.concat_tables(self._pending)
        try:
            if self._writer is None:
                self._temporary = self._folder / f"{uuid.uuid4().hex}.tmp"
                self._sink = _Sink(self._temporary)
                self._writer = pq.ParquetWriter(
                    self._sink,
                    self._schema.arrow,
                    compression=_CODEC,
                    compression_level=_LEVEL,
                    use_dictionary=self._schema.dictionary,
                    column_encoding=dict(self._schema.encodings) or None,
                    write_page_checksum=True,
                )
            self._writer.write_table(rows.slice(0, count), row_group_size=self._group)
        except OSError as error:
            self.discard()
            raise write_failed(self._folder, error) from error
        self._rows += count
        self._waiting -= count
        self._pending = [rows.slice(count)] if self._waiting else []


def write_shards(folder: Path, schema: TableSchema, rows: pa.Table) -> list[Shard]:
    """Write rows as shards of at most ``schema.rows_per_file`` rows, in the table's order.

    Raises:
        SchemaError: The rows do not fit the table.
        WarehouseError: They could not be written.
    """
    rows = check_rows(schema, rows)
    if schema.sort:
        rows = rows.sort_by([(column, "ascending") for column in schema.sort])
    shards = []
    for start in range(0, rows.num_rows, schema.rows_per_file):
        with ShardWriter(folder, schema) as writer:
            writer.write(rows.slice(start, schema.rows_per_file))
        if (shard := writer.close()) is not None:
            shards.append(shard)
    return shards


def check_rows(schema: TableSchema, rows: pa.Table | pa.RecordBatch) -> pa.Table:
    """Return rows in the table's columns and types; columns that may be absent become NULL.

    Messages name columns and types, never values: a value may identify a patient.

    Raises:
        SchemaError: A column is unknown or of another type, a key is NULL, a vector holds NaN or
            infinity, or is not ``dim`` long.
    """
    for name in rows.schema.names:
        if name not in schema.arrow.names:
            msg = f"Table {schema.name!r} has no column {name!r}."
            raise SchemaError(msg, table=schema.name, found=name, wanted=schema.arrow.names)
    columns = [_column(schema, rows, field) for field in schema.arrow]
    checked = pa.Table.from_arrays(columns, schema=schema.arrow)
    for field in schema.arrow:
        if pa.types.is_list(field.type) and pa.types.is_floating(field.type.value_type):
            _check_finite(schema, field, checked[field.name])
    if {"dim", "embedding"} <= set(schema.arrow.names):
        lengths = pc.list_value_length(checked["embedding"])
        same = pc.fill_null(pc.equal(lengths, checked["dim"]), fill_value=False)
        if not pc.all(same, min_count=0).as_py():
            msg = f"Table {schema.name!r}: a vector is not as long as its 'dim' says."
            raise SchemaError(msg, table=schema.name, found=pc.max(lengths).as_py(), wanted="dim")
    return checked


def write_failed(folder: Path, error: OSError) -> WarehouseError:
    """Return the error to raise when the system refused a write."""
    folder = folder.parents[1] if folder.parent.name == STAGING else folder
    code = error.errno
    reason = os.strerror(code) if code else str(error).splitlines()[0]
    hint = "Nothing was committed; run the same command again once this is put right."
    if code in _FULL:
        hint = "Nothing was committed; free some space and run the same command again."
    msg = f"Could not write to {str(folder)!r}: {reason}."
    return WarehouseError(msg, path=folder, hint=hint)


@contextmanager
def translated(folder: Path) -> Iterator[None]:
    """Let every foreign error about a table's folder leave as one of ours, of one line."""
    try:
        yield
    except EcgStoreError:
        raise
    except FileNotFoundError as error:
        msg = f"A file of the table in {str(folder)!r} went while it was used."
        hint = "Rows were erased or versions cleaned meanwhile; run the same command again."
        raise WarehouseError(msg, path=folder, hint=hint) from error
    except pa.ArrowException as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        msg = f"The table in {str(folder)!r} could not be read or written: {reason}"
        raise WarehouseError(msg, path=folder) from error
    except OSError as error:
        raise write_failed(folder, error) from error


def _column(
    schema: TableSchema, rows: pa.Table | pa.RecordBatch, field: pa.Field
) -> pa.ChunkedArray | pa.Array:
    if field.name not in rows.schema.names:
        if not field.nullable:
            msg = f"Table {schema.name!r}: the key column {field.name!r} is missing."
            raise SchemaError(msg, table=schema.name, wanted=field.name)
        return pa.nulls(rows.num_rows, field.type)
    column = rows.column(field.name)
    if column.null_count and not field.nullable:
        msg = f"Table {schema.name!r}: the key column {field.name!r} holds NULL."
        raise SchemaError(msg, table=schema.name, found=column.null_count, wanted=0)
    try:
        return column.cast(field.type)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError) as error:
        msg = (
            f"Table {schema.name!r}: column {field.name!r} of type {column.type} "
            f"cannot be stored as {field.type} without loss."
        )
        raise SchemaError(msg, table=schema.name, found=column.type, wanted=field.type) from error


def _check_finite(schema: TableSchema, field: pa.Field, column: pa.ChunkedArray) -> None:
    for chunk in column.chunks:
        values = chunk.flatten()
        missing = values.null_count and not field.type.value_field.nullable
        if missing or not np.isfinite(values.drop_null().to_numpy(zero_copy_only=False)).all():
            msg = f"Table {schema.name!r}: column {field.name!r} holds NaN, infinity or NULL."
            raise SchemaError(msg, table=schema.name, found="non-finite", wanted="finite numbers")


class _Sink:
    """A file that knows the SHA-256 of what went into it, so no byte is read back."""

    def __init__(self, path: Path) -> None:
        self._file = disk.File(path)
        self._digest = hashlib.sha256()
        self._waiting = bytearray()
        self._abandoned = False
        self.size = 0

    @property
    def sha256(self) -> str:
        return self._digest.hexdigest()

    @property
    def closed(self) -> bool:
        return False  # the Parquet writer's own close must not close the file before its fsync

    def write(self, data: bytes) -> int:
        if not self._abandoned:  # the footer of a shard that failed goes nowhere
            self._waiting += data
            self._digest.update(data)
            if len(self._waiting) >= _WRITE_BYTES:
                self._drain()
        self.size += len(data)
        return len(data)

    def tell(self) -> int:
        return self.size

    def flush(self) -> None:
        """Do nothing: `finish` writes what waits."""

    def close(self) -> None:
        """Do nothing: `finish` closes."""

    def finish(self) -> None:
        with self._file:
            self._drain()
            self._file.sync()

    def abandon(self) -> None:
        self._abandoned = True
        self._file.close()

    def _drain(self) -> None:
        if self._waiting:
            self._file.write(self._waiting)
            self._waiting = bytearray()
