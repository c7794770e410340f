"""Small shards become large ones, with the same rows.

Every append makes a shard, and every query opens every shard. So a table that gathers many small
ones merges them as it is written to, tier by tier, each row a few times in its life; `compact` does
it thoroughly.
"""

from __future__ import annotations

import logging
from contextlib import contextmanager
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ecgstore.errors import EcgStoreError, WarehouseError
from ecgstore.storage import integrity
from ecgstore.storage.keys import found, open_shards
from ecgstore.storage.log import Lost
from ecgstore.storage.shards import ShardWriter, translated

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from ecgstore.schema import TableSchema
    from ecgstore.storage.commits import Entry
    from ecgstore.storage.shards import Shard
    from ecgstore.storage.tables import Table

__all__ = ["enough", "merge", "rewritten", "small", "tidy"]

_MANY = 64  # shards a table may have before small ones are merged
_FULL = 32  # shards of one tier that become one of the next
_TIER_BITS = 4  # a shard of the next tier has 16 times as many rows
_SHARD_BYTES = 1 << 28  # a shard this large needs no more rows, however few it has
_STEP_BYTES = 1 << 24  # rows held at a time, unpacked
_BATCHES = 8  # pieces in which a row group is unpacked: one is read back to get a row of it
_ROWS = 65_536  # of a piece, where the table leaves its row groups to the writer

logger = logging.getLogger(__name__)


def tidy(table: Table) -> int:
    """Merge the small shards of a table that has very many; cheap where it has not.

    Ten thousand appends of one row leave less than a hundred shards and write each row two or three
    times. What called for it was committed before, so nothing that goes wrong here is raised.

    Args:
        table: The table, just committed to.

    Returns:
        Shards merged.
    """
    merged = 0
    try:
        while len(table.snapshot.entries) >= _MANY and (group := _fullest(table)):
            if not merge(table, group, command="tidy"):
                break  # somebody else was faster
            merged += len(group)
    except EcgStoreError as error:
        logger.warning("Small shards of table %s stay as they are: %s", table.schema.name, error)
    return merged


def small(schema: TableSchema, entry: Entry) -> bool:
    """Tell whether a shard is far from the size that a table's shards should have."""
    few = entry.rows is None or entry.rows < schema.rows_per_file // 2
    return few and entry.size < _SHARD_BYTES // 2


def enough(schema: TableSchema, entries: Sequence[Entry]) -> list[Entry]:
    """Return as many of the first shards as make one of the size that it should have."""
    group, rows, size = [], 0, 0
    for entry in entries:
        if rows >= schema.rows_per_file or size >= _SHARD_BYTES:
            break
        group.append(entry)
        rows, size = rows + (entry.rows or 0), size + entry.size
    return group


def merge(table: Table, entries: Sequence[Entry], *, command: str) -> bool:
    """Put shards of the right size, sorted, in place of others, in one commit.

    Args:
        table: The table.
        entries: Its shards to merge.
        command: Named in the log.

    Returns:
        False when somebody else replaced one of them meanwhile.

    Raises:
        DamagedError: One of them does not hold what was written.
        WarehouseError: One cannot be read, or the others cannot be written.
    """
    old = [table.folder / entry.name for entry in entries]
    try:
        with rewritten(table, entries) as new:
            return table.swap(old, new, command=command)
    except Lost:
        return False


@contextmanager
def rewritten(
    table: Table, entries: Sequence[Entry], *, without: pa.Table | None = None
) -> Iterator[list[Shard]]:
    """Write the rows of shards into others, of the right size and sorted, for a commit to come.

    A flaw that is written anew looks sound, so each shard is read whole first, known or not.

    Args:
        table: The table.
        entries: Its shards.
        without: Rows whose values occur together here are left out.

    Raises:
        Lost: Somebody else replaced a shard meanwhile, and it is gone.
        DamagedError: A shard does not hold what was written.
        WarehouseError: One cannot be read, or the others cannot be written.
    """
    files = [table.folder / entry.name for entry in entries]
    with table.staging() as staging:
        try:
            with translated(table.folder):
                integrity.check(table.folder, entries, version=table.version, anew=True)
                new = list(_sorted_shards(table.schema, files, staging, without))
        except WarehouseError as error:
            if {file.name for file in files} <= table.log.snapshot().entries.keys():
                raise
            raise Lost from error
        yield new


def _fullest(table: Table) -> list[Entry]:
    """Return shards of the lowest tier that is full; none when none is."""
    tiers: dict[int, list[Entry]] = {}
    for entry in table.snapshot.entries.values():
        if small(table.schema, entry):
            tier = ((entry.rows or 1).bit_length() - 1) // _TIER_BITS
            tiers.setdefault(tier, []).append(entry)
    full = (tiers[tier] for tier in sorted(tiers) if len(tiers[tier]) >= _FULL)
    return enough(table.schema, next(full, []))


def _sorted_shards(
    schema: TableSchema, files: Sequence[Path], staging: Path, without: pa.Table | None
) -> Iterator[Shard]:
    """Write the rows of all files in the table's order, in shards of about the same size.

    Rows are taken from a copy without compression, since to get one row of a shard a whole row
    group of it must be unpacked, and neighbours in the new order may come from any of them.
    """
    draft = staging / "unpacked.arrow"
    keys, starts = _unpack(schema, files, draft)
    # equal keys stay in the order of the files, so the same shards always give the same bytes
    order = [(name, "ascending") for name in schema.sort or schema.key]
    ranked = pc.sort_indices(keys, sort_keys=order).to_numpy().astype(np.int64)
    if without is not None:
        ranked = ranked[~found(keys, without, without.column_names)[ranked]]
    if not len(ranked):
        return
    step = max(1, _STEP_BYTES * keys.num_rows // draft.stat().st_size)
    with pa.OSFile(str(draft)) as file, pa.ipc.open_file(file) as unpacked:
        for part in np.array_split(ranked, -(-len(ranked) // schema.rows_per_file)):
            with ShardWriter(staging, schema) as writer:
                for first in range(0, len(part), step):
                    writer.write(_picked(unpacked, starts, part[first : first + step]))
            if (shard := writer.close()) is not None:
                yield shard


def _unpack(
    schema: TableSchema, files: Sequence[Path], draft: Path
) -> tuple[pa.Table, NDArray[np.int64]]:
    """Copy all rows in pieces; return their keys, and where in the rows each piece begins."""
    rows = max(1, schema.rows_per_group // _BATCHES) if schema.rows_per_group else _ROWS
    names = list(dict.fromkeys([*schema.sort, *schema.key]))
    keys, starts = [schema.arrow.empty_table().select(names)], [0]
    with pa.OSFile(str(draft), "wb") as sink, pa.ipc.new_file(sink, schema.arrow) as copy:
        shards = open_shards(schema, files).get_fragments()
        for group in chain.from_iterable(shard.split_by_row_group() for shard in shards):
            for batch in group.to_batches(schema=schema.arrow, batch_size=rows, use_threads=False):
                copy.write_batch(batch)
                keys.append(pa.Table.from_batches([batch.select(names)]))
                starts.append(starts[-1] + batch.num_rows)
    return pa.concat_tables(keys), np.array(starts[:-1])


def _picked(
    unpacked: pa.ipc.RecordBatchFileReader, starts: NDArray[np.int64], rows: NDArray[np.int64]
) -> pa.Table:
    """Return rows by their number, in the order asked for."""
    piece = np.searchsorted(starts, rows, side="right") - 1
    together = np.argsort(piece, kind="stable")
    pieces, firsts = np.unique(piece[together], return_index=True)
    parts = [
        unpacked.get_batch(int(one)).take(pa.array(rows[here] - starts[one]))
        for one, here in zip(pieces, np.split(together, firsts[1:]), strict=True)
    ]
    return pa.Table.from_batches(parts).take(pa.array(np.argsort(together)))
