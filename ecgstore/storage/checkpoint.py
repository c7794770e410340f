"""A checkpoint: the state of a table's log at one version, as the Parquet file Delta wants.

It only saves time. Ours carry a digest of what they say, so a changed one is never believed.

Source: Delta Transaction Log Protocol, section "Checkpoints" (classic, one part).
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["State", "checkpoint_bytes", "read_checkpoint"]

_KEY = b"ecgstore.digest"

_map = pa.map_(pa.string(), pa.string())
_SCHEMA = pa.schema(
    [
        (
            "protocol",
            pa.struct([("minReaderVersion", pa.int32()), ("minWriterVersion", pa.int32())]),
        ),
        (
            "metaData",
            pa.struct(
                [
                    ("id", pa.string()),
                    ("name", pa.string()),
                    ("description", pa.string()),
                    ("format", pa.struct([("provider", pa.string()), ("options", _map)])),
                    ("schemaString", pa.string()),
                    ("partitionColumns", pa.list_(pa.field("element", pa.string()))),
                    ("createdTime", pa.int64()),
                    ("configuration", _map),
                ]
            ),
        ),
        (
            "add",
            pa.struct(
                [
                    ("path", pa.string()),
                    ("partitionValues", _map),
                    ("size", pa.int64()),
                    ("modificationTime", pa.int64()),
                    ("dataChange", pa.bool_()),
                    ("stats", pa.string()),
                ]
            ),
        ),
        (
            "remove",
            pa.struct(
                [
                    ("path", pa.string()),
                    ("deletionTimestamp", pa.int64()),
                    ("dataChange", pa.bool_()),
                ]
            ),
        ),
    ]
)


@dataclass(frozen=True)
class State:
    """What a checkpoint says.

    Attributes:
        protocol: The action ``protocol``.
        metadata: The action ``metaData``.
        adds: The actions ``add`` of the live shards.
        removes: When each shard that was removed of late was removed, ms since 1970, by name.
    """

    protocol: Mapping[str, Any]
    metadata: Mapping[str, Any]
    adds: Sequence[Mapping[str, Any]]
    removes: Mapping[str, int]

    @property
    def digest(self) -> str:
        """SHA-256 of all it says."""
        said = [self.protocol, self.metadata, list(self.adds), dict(self.removes)]
        return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


def checkpoint_bytes(state: State) -> bytes:
    """Return the checkpoint file of a state; the same state gives the same bytes."""
    removes = [
        {"path": name, "deletionTimestamp": at, "dataChange": False}
        for name, at in state.removes.items()
    ]
    rows: list[dict[str, Any]] = [{"protocol": state.protocol}, {"metaData": state.metadata}]
    rows += [{"add": one} for one in state.adds]
    rows += [{"remove": one} for one in removes]
    sink = pa.BufferOutputStream()
    table = pa.Table.from_pylist(rows, schema=_SCHEMA)
    meant = _state(table)
    pq.write_table(
        table.replace_schema_metadata({_KEY: meant.digest.encode()}),
        sink,
        compression="zstd",
        write_page_checksum=True,
    )
    data: bytes = sink.getvalue().to_pybytes()
    return data


def read_checkpoint(data: bytes) -> State:
    """Return what a checkpoint says; one by another engine carries no digest and is believed.

    Raises:
        ValueError: It is damaged.
    """
    try:
        names = _SCHEMA.names
        table = pq.read_table(pa.BufferReader(data), columns=names, page_checksum_verification=True)
        state = _state(table)
        wanted = (table.schema.metadata or {}).get(_KEY)
        found = state.digest.encode()
    except (pa.ArrowException, OSError, KeyError, TypeError, IndexError) as error:
        msg = "The checkpoint is damaged."
        raise ValueError(msg) from error
    if wanted not in (None, found):
        msg = "The checkpoint was changed after it was written."
        raise ValueError(msg)
    return state


def _state(table: pa.Table) -> State:
    present = {name: table[name].combine_chunks().drop_null() for name in _SCHEMA.names}
    adds = present["add"]
    names = ["path", "size", "modificationTime", "stats"]
    columns = {name: adds.field(name).to_pylist() for name in names}
    metadata = dict(present["metaData"].to_pylist()[0])
    metadata["configuration"] = dict(metadata["configuration"] or ())
    metadata["format"] = {
        **metadata["format"],
        "options": dict(metadata["format"]["options"] or ()),
    }
    protocol = dict(present["protocol"].to_pylist()[0])
    removes = present["remove"]
    return State(
        protocol={name: value for name, value in protocol.items() if value is not None},
        metadata=metadata,
        adds=[dict(zip(names, row, strict=True)) for row in zip(*columns.values(), strict=True)],
        removes=dict(
            zip(
                removes.field("path").to_pylist(),
                removes.field("deletionTimestamp").to_pylist(),
                strict=True,
            )
        ),
    )
