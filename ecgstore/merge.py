"""Small shards become large ones, with the same rows.

Every append makes a shard, and every query opens every shard. So a table that gathers many small
ones merges them as it is written to, tier by tier, each row a few times in its life; `compact` does
it thoroughly.
"""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ecgstore.errors import WarehouseError
from ecgstore.keys import open_shards
from ecgstore.shards import Shard, ShardWriter

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from ecgstore.commits import Entry
    from ecgstore.schema import TableSchema
    from ecgstore.tables import Table

__all__ = ["merge", "small", "tidy"]

_MANY = 64  # shards a table may have before small ones are merged
_TIER = 32  # shards of one tier that become one of the next
_BASE = 16  # how much larger the shards of the next tier are
_GROUPS = 8  # row groups held at a time

logger = logging.getLogger(__name__)


def tidy(table: Table) -> int:
    """Merge the small shards of a table that has very many; cheap where it has not.

    Ten thousand appends of one row leave some hundred shards and write each row three times. What
    called for it was committed before, so nothing that goes wrong here is raised.

    Args:
        table: The table, just committed to.

    Returns:
        Shards merged.
    """
    merged = 0
    try:
        while len(table.snapshot.entries) >= _MANY:
            group = _fullest(table.schema, list(table.snapshot.entries.values()))
            if len(group) < _TIER or not merge(table, group, command="tidy"):
                break
            merged += len(group)
    except (WarehouseError, OSError) as error:
        logger.warning("Small shards of table %s stay as they are: %s", table.schema.name, error)
    return merged


def small(schema: TableSchema, entry: Entry) -> bool:
    """Tell whether a shard is far from the size that a table's shards should have."""
    return entry.rows is None or entry.rows < schema.rows_per_file // 2


def merge(table: Table, entries: Sequence[Entry], *, command: str) -> bool:
    """Put shards of the target size, sorted, in place of others, in one commit.

    Memory is bounded by some row groups of each.

    Args:
        table: The table.
        entries: Its shards to merge.
        command: Named in the log.

    Returns:
        False when somebody else replaced one of them meanwhile.

    Raises:
        WarehouseError: A shard cannot be read or written.
    """
    known = {file.name: file for file in table.files()}
    if not all(entry.name in known for entry in entries):
        return False
    old = [known[entry.name] for entry in entries]
    with table.staging() as staging:
        new = list(_sorted_shards(table.schema, old, staging))
        return table.swap(old, new, command=command)


def _fullest(schema: TableSchema, entries: Sequence[Entry]) -> list[Entry]:
    """Return the shards of the lowest tier that holds enough of them, else those of none."""
    tiers: dict[int, list[Entry]] = {}
    for entry in entries:
        if small(schema, entry):
            tiers.setdefault(int(math.log(max(entry.rows or 1, 1), _BASE)), []).append(entry)
    return next((tiers[tier] for tier in sorted(tiers) if len(tiers[tier]) >= _TIER), [])


def _sorted_shards(schema: TableSchema, files: Sequence[Path], staging: Path) -> Iterator[Shard]:
    """Write the rows of all files in the table's order, some row groups at a time."""
    order = list(schema.sort or schema.key)
    parts = [open_shards(schema, [file]).to_table(columns=order) for file in files]
    keys = pa.concat_tables(parts)
    places = pa.table(
        {
            "file": np.repeat(np.arange(len(parts)), [part.num_rows for part in parts]),
            "row": np.concatenate([np.arange(part.num_rows) for part in parts]),
        }
    )
    for name in order:
        places = places.append_column(f"key.{name}", keys[name])
    # the places decide between equal keys, so the same shards always give the same bytes
    ranked = places.sort_by(
        [(f"key.{name}", "ascending") for name in order]
        + [("file", "ascending"), ("row", "ascending")]
    )
    file, row = ranked["file"].to_numpy(), ranked["row"].to_numpy()
    step = min((schema.rows_per_group or schema.rows_per_file) * _GROUPS, schema.rows_per_file)
    for start in range(0, len(row), schema.rows_per_file):
        stop = min(start + schema.rows_per_file, len(row))
        with ShardWriter(staging, schema) as writer:
            for first in range(start, stop, step):
                chosen = slice(first, min(first + step, stop))
                writer.write(_gathered(schema, files, file[chosen], row[chosen]))
        if (shard := writer.close()) is not None:
            yield shard


def _gathered(
    schema: TableSchema, files: Sequence[Path], file: np.ndarray, row: np.ndarray
) -> pa.Table:
    """Read single rows of several files, in the order asked for."""
    parts, places = [], []
    for one in np.unique(file):
        here = np.flatnonzero(file == one)
        parts.append(_rows(schema, files[one], row[here]))
        places.append(here)
    order = np.empty(len(row), dtype=np.int64)
    order[np.concatenate(places)] = np.arange(len(row))
    return pa.concat_tables(parts).take(pa.array(order))


def _rows(schema: TableSchema, path: Path, rows: np.ndarray) -> pa.Table:
    with pq.ParquetFile(path, page_checksum_verification=True) as shard:
        sizes = [shard.metadata.row_group(i).num_rows for i in range(shard.num_row_groups)]
        starts = np.concatenate([[0], np.cumsum(sizes)])
        groups = np.unique(np.searchsorted(starts, rows, side="right") - 1)
        shift = starts[groups] - np.concatenate([[0], np.cumsum(np.asarray(sizes)[groups])[:-1]])
        group = np.searchsorted(starts, rows, side="right") - 1
        table = shard.read_row_groups(groups.tolist(), use_threads=False)
    present = table.take(pa.array(rows - shift[np.searchsorted(groups, group)]))
    return pa.Table.from_arrays(
        [
            present[field.name]
            if field.name in present.column_names
            else pa.nulls(len(rows), field.type)
            for field in schema.arrow
        ],
        schema=schema.arrow,
    )
