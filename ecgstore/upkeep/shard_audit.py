"""Every shard of a table read whole: its bytes, its rows, and that no key occurs twice."""

from __future__ import annotations

import hashlib
import json
import re
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ecgstore.errors import SchemaError
from ecgstore.storage.shards import check_rows
from ecgstore.upkeep.audit import MISSING, file_bytes, kept_columns

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from ecgstore.schema import TableSchema
    from ecgstore.storage.commits import Entry
    from ecgstore.upkeep.audit import Audit

__all__ = ["audit_shards", "doubled"]

_SHA256 = re.compile(r"([0-9a-f]{64})\.parquet")  # other engines name their shards otherwise
_JSON = {
    "scores": ("versions", "params"),
    "splits": ("params",),
    "feature_sets": ("definition",),
    "models": ("contract",),
}
"""Columns that hold JSON, by table."""


def audit_shards(audit: Audit, folder: Path, *, fast: bool, advance: Callable[[], None]) -> None:
    """Check every shard of the versions that can be opened, and note what is wrong.

    Args:
        audit: Of the log; it is added to.
        folder: The table's folder.
        fast: Look at the size only, and read no shard.
        advance: Called after each shard.
    """
    for name, shard in audit.shards.items():
        try:
            if fast:
                _check_size(_size(folder / name), shard.entry)
            else:
                audit.rows[name] = _read(folder / name, shard.entry, audit.schema)
                audit.size += shard.entry.size
        except ValueError as error:
            audit.bad[name] = str(error)
        advance()


def doubled(audit: Audit) -> dict[int, int]:
    """Count the keys that two rows of one version share.

    Two rows with the same key are in the same version exactly when the spans of their shards
    overlap; of all rows with that key, ordered by the begin of their spans, two neighbours do then.

    Returns:
        By the newest version that has them, how many pairs there are.
    """
    key = list(audit.schema.key)
    parts = [
        rows.select(key)
        .append_column("first", pa.repeat(pa.scalar(first), rows.num_rows))
        .append_column("last", pa.repeat(pa.scalar(last), rows.num_rows))
        for name, rows in audit.rows.items()
        for first, last in audit.shards[name].spans
    ]
    if not parts:
        return {}
    order = [(name, "ascending") for name in (*key, "first")]
    rows = pa.concat_tables(parts).sort_by(order).combine_chunks()
    one, other = rows.slice(0, max(rows.num_rows - 1, 0)), rows.slice(1)
    same = pc.greater_equal(one["last"], other["first"])
    for name in key:
        same = pc.and_(same, pc.equal(one[name], other[name]))
    newest = pc.min_element_wise(one["last"], other["last"]).filter(same)
    counts: list[dict[str, int]] = newest.value_counts().to_pylist()
    return {count["values"]: count["counts"] for count in counts}


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError as error:
        raise ValueError(MISSING) from error


def _check_size(found: int, shard: Entry) -> None:
    if found != shard.size:
        msg = f"has {found} bytes, not {shard.size}"
        raise ValueError(msg)


def _read(path: Path, shard: Entry, schema: TableSchema) -> pa.Table:
    """Read a whole shard, check all there is to check, and return the key of every row.

    Raises:
        ValueError: Something is wrong with it; the message completes "the shard …".
    """
    data = file_bytes(path)
    _check_size(len(data), shard)
    named = _SHA256.fullmatch(path.name)
    if named and hashlib.sha256(data).hexdigest() != named[1]:
        msg = "was changed after it was written"
        raise ValueError(msg)
    parts = [kept_columns(schema, schema.arrow.empty_table())]
    try:
        with pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True) as file:
            for group in range(file.num_row_groups):
                rows = check_rows(schema, file.read_row_group(group, use_threads=False))
                for name in _JSON.get(schema.name, ()):
                    _check_json(name, rows[name])
                parts.append(kept_columns(schema, rows))
    except SchemaError as error:
        msg = f"does not fit the table: {error.message}"
        raise ValueError(msg) from error
    except (pa.ArrowException, OSError) as error:
        msg = "is no Parquet file that can be read"
        raise ValueError(msg) from error
    found = pa.concat_tables(parts)
    if shard.rows not in (None, found.num_rows):
        msg = f"holds {found.num_rows} rows, not {shard.rows}"
        raise ValueError(msg)
    return found


def _check_json(name: str, column: pa.ChunkedArray) -> None:
    for text in column.unique().drop_null().to_pylist():
        try:
            json.loads(text)
        except ValueError as error:
            msg = f"holds text in {name!r} that is no JSON"
            raise ValueError(msg) from error
