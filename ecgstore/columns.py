"""What a table's schema is made of: its description, and the types of columns."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pyarrow as pa

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["COUNTS", "DOUBLE", "INT", "TEXT", "TIME", "VECTOR", "TableSchema", "columns"]


@dataclass(frozen=True)
class TableSchema:
    """One table: what it holds and how its shards are written.

    Attributes:
        name: Table name, a plural noun.
        summary: What a row is, one sentence.
        arrow: Columns with types; a key column is never NULL.
        key: Columns whose values are unique in the table at every version.
        sort: Columns by which a shard is ordered.
        encodings: Parquet encoding by leaf path, for columns where the writer's choice is worse.
        dictionary: Whether the writer may dictionary-encode the columns not named in `encodings`.
        rows_per_group: Rows per Parquet row group; None leaves it to the writer.
        rows_per_file: Rows a shard holds at most.
        version: Version of this layout, kept in the table's properties.
    """

    name: str
    summary: str
    arrow: pa.Schema
    key: tuple[str, ...]
    sort: tuple[str, ...] = ()
    encodings: Mapping[str, str] = field(default_factory=dict)
    dictionary: bool = True
    rows_per_group: int | None = None
    rows_per_file: int = 1_000_000
    version: int = 1


TEXT, DOUBLE, INT = pa.string(), pa.float64(), pa.int32()
TIME = pa.timestamp("us", tz="UTC")
VECTOR = pa.list_(pa.field("element", pa.float32(), nullable=False))
COUNTS = pa.list_(pa.field("element", pa.int16()))


def columns(*required: tuple[str, pa.DataType], **optional: pa.DataType) -> pa.Schema:
    """Return a schema: the required columns, which are never NULL, then the others."""
    fields = [pa.field(name, kind, nullable=False) for name, kind in required]
    return pa.schema([*fields, *(pa.field(name, kind) for name, kind in optional.items())])
