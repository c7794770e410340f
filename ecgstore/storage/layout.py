"""What the log says of a table's columns, and which version of them a warehouse has.

A layout only grows: a newer one adds columns, and shards written before read as NULL there.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from ecgstore.errors import SchemaError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ecgstore.schema import TableSchema
    from ecgstore.storage.commits import Snapshot

__all__ = ["check_layout", "described", "layout", "metadata"]

_VERSION = "ecgstore.schemaVersion"
_PROPERTIES = {
    "delta.dataSkippingNumIndexedCols": "0",  # no identifier reaches the log as a statistic
    "delta.enableExpiredLogCleanup": "false",  # a run must be able to open the versions it read
}
_TYPES = {
    pa.string(): "string",
    pa.binary(): "binary",
    pa.bool_(): "boolean",
    pa.int16(): "short",
    pa.int32(): "integer",
    pa.int64(): "long",
    pa.float32(): "float",
    pa.float64(): "double",
    pa.timestamp("us", tz="UTC"): "timestamp",
}


def layout(snapshot: Snapshot) -> int:
    """Return the version of the layout that a table has."""
    return int(snapshot.properties.get(_VERSION, "1"))


def check_layout(snapshot: Snapshot, schema: TableSchema) -> None:
    """Check that this program knows the layout of a table.

    Raises:
        SchemaError: A newer program wrote it.
    """
    found = layout(snapshot)
    if found > schema.version:
        msg = (
            f"Table {schema.name!r} has layout {found}; "
            f"this ecgstore knows layout {schema.version} at most."
        )
        hint = "Install the ecgstore that wrote the warehouse, or a newer one."
        wanted = schema.version
        raise SchemaError(msg, table=schema.name, found=found, wanted=wanted, hint=hint)


def metadata(schema: TableSchema, before: Snapshot | None = None) -> Mapping[str, Any]:
    """Return the action ``metaData`` of a new table, or of one that gets a newer layout."""
    properties = _PROPERTIES if before is None else before.properties
    return {
        **({} if before is None else before.metadata),
        "name": schema.name,
        "description": schema.summary,
        "schemaString": described(schema.arrow),
        "configuration": {**properties, _VERSION: str(schema.version)},
    }


def described(schema: pa.Schema) -> str:
    """Return columns as the log describes them, the ``schemaString``."""
    fields = [
        {"name": one.name, "type": _type(one.type), "nullable": one.nullable, "metadata": {}}
        for one in schema
    ]
    return json.dumps({"type": "struct", "fields": fields})


def _type(kind: pa.DataType) -> str | dict[str, Any]:
    if pa.types.is_list(kind):
        inner = kind.value_field
        return {
            "type": "array",
            "elementType": _type(inner.type),
            "containsNull": inner.nullable,
        }
    return _TYPES[kind]
