"""Rows matched by key: which repeat, which are stored, and in which shards they lie.

Only the columns of the key are read, and only the row groups whose limits may hold one of them.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads

from ecgstore.errors import SchemaError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from ecgstore.schema import TableSchema

__all__ = ["as_keys", "check_unique", "found", "holding", "matching", "open_shards", "same_rows"]

_FILE, _ROW = "__filename", "__row"
_SMALL_BYTES = 65_536
_PARQUET = pads.ParquetFileFormat(
    default_fragment_scan_options=pads.ParquetFragmentScanOptions(page_checksum_verification=True)
)


def as_keys(schema: TableSchema, keys: pa.Table) -> pa.Table:
    """Return values to look for in the types of the table's columns of those names.

    Raises:
        SchemaError: The table has no such column, or it is of another type.
    """
    unknown = [name for name in keys.column_names if name not in schema.arrow.names]
    if unknown or not keys.column_names:
        msg = f"Table {schema.name!r} cannot be searched by {unknown or 'no column'}."
        raise SchemaError(msg, table=schema.name, found=unknown, wanted=schema.arrow.names)
    kinds = pa.schema([(name, schema.arrow.field(name).type) for name in keys.column_names])
    try:
        return keys.cast(kinds)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError) as error:
        msg = f"Table {schema.name!r} cannot be searched by values of these types."
        raise SchemaError(msg, table=schema.name, found=keys.schema, wanted=kinds) from error


def check_unique(schema: TableSchema, rows: pa.Table) -> None:
    """Check that no two rows have the same key.

    Raises:
        SchemaError: Some have; the message counts them and names no value.
    """
    distinct = rows.group_by(list(schema.key)).aggregate([]).num_rows
    if distinct < rows.num_rows:
        msg = (
            f"Table {schema.name!r}: {rows.num_rows - distinct} of {rows.num_rows} rows "
            f"repeat the key ({', '.join(schema.key)}) of another."
        )
        raise SchemaError(msg, table=schema.name, found=distinct, wanted=rows.num_rows)


def found(rows: pa.Table, stored: pa.Table, names: list[str]) -> NDArray[np.bool_]:
    """Mark the rows whose values in the columns `names` occur together in `stored`.

    Returns:
        ``(rows,)`` bool. NULL equals nothing.
    """
    indexed = rows.select(names).append_column(_ROW, pa.array(np.arange(rows.num_rows)))
    hits = indexed.join(stored.select(names), keys=names, join_type="left semi")
    mask = np.zeros(rows.num_rows, dtype=bool)
    mask[hits[_ROW].to_numpy()] = True
    return mask


def open_shards(schema: TableSchema, files: Sequence[Path]) -> pads.Dataset:
    """Return shards as one Arrow dataset; columns that a shard lacks are NULL."""
    names = [str(file) for file in files]
    return pads.dataset(names, schema=schema.arrow, format=_PARQUET)


def matching(schema: TableSchema, files: Sequence[Path], keys: pa.Table) -> pa.Table:
    """Read the columns of `keys`, and the file of each row, where the values may match."""
    columns = [*keys.column_names, _FILE]
    stored = [keys.slice(0, 0).append_column(_FILE, pa.array([], pa.string()))]
    if keys.num_rows:
        limits, large = _bounds(keys), []
        for file in files:
            if file.stat().st_size > _SMALL_BYTES:
                large.append(file)
            else:
                stored.append(_small(schema.arrow, file, tuple(columns)))
        stored = [_joined(stored).filter(limits)]
        if large:
            stored.append(open_shards(schema, large).to_table(columns=columns, filter=limits))
    return _joined(stored)


def _joined(parts: list[pa.Table]) -> pa.Table:
    """Put rows together; whether a column may be NULL is not the same in keys and in shards."""
    return pa.concat_tables(parts, promote_options="default")


@functools.lru_cache(maxsize=1024)
def _small(columns: pa.Schema, file: Path, names: tuple[str, ...]) -> pa.Table:
    """Read columns of a small shard; shards never change, and small ones are asked for again."""
    shard = pads.dataset([str(file)], schema=columns, format=_PARQUET)
    return shard.to_table(columns=list(names))


def holding(schema: TableSchema, files: Sequence[Path], keys: pa.Table) -> tuple[list[Path], int]:
    """Return the shards that hold rows matching `keys`, and how many rows match."""
    stored = matching(schema, files, keys)
    stored = stored.filter(found(stored, keys, keys.column_names))
    names = set(stored[_FILE].unique().to_pylist())
    return [file for file in files if str(file) in names], stored.num_rows


def same_rows(schema: TableSchema, files: Sequence[Path], rows: pa.Table) -> bool:
    """Tell whether the shards hold exactly these rows under their keys."""
    names = list(schema.key)
    stored = open_shards(schema, files).to_table(filter=_bounds(rows.select(names)))
    stored = stored.filter(found(stored, rows, names))
    order = [(name, "ascending") for name in names]
    return bool(stored.sort_by(order).equals(rows.sort_by(order)))


def _bounds(keys: pa.Table) -> pc.Expression:
    """Return a filter every matching row passes, so simple that it skips whole row groups."""
    passes = pc.scalar(value=True)
    for name in keys.column_names:
        limits = pc.min_max(keys[name])
        least, most = limits["min"], limits["max"]
        column = pc.field(name)
        passes &= column == least if least == most else (column >= least) & (column <= most)
    return passes
