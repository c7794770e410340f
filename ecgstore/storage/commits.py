"""The text of one commit: JSON actions, one a line, under a seal.

The first line tells what was done, by whom and when. It carries the SHA-256 of the whole text
(taken with zeros in its own place), so a flipped bit in a commit is noticed. Commits without it,
by other engines, are read too.

Source: Delta Transaction Log Protocol, section "Actions".
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime

__all__ = [
    "Commit",
    "Entry",
    "Snapshot",
    "added",
    "applied",
    "decode",
    "encode",
    "entry",
    "removed",
]

_SEAL = re.compile(rb'"digest": "([0-9a-f]{64})"')
_BLANK = b'"digest": "' + b"0" * 64 + b'"'
_KINDS = {"commitInfo", "add", "remove", "metaData", "protocol", "txn", "domainMetadata", "cdc"}

Action = dict[str, Any]


@dataclass(frozen=True)
class Entry:
    """A shard as the log knows it.

    Attributes:
        name: Its file name in the table's folder.
        size: Bytes.
        rows: Rows; None when another engine did not say.
        modified_ms: When it was written, in milliseconds since 1970.
    """

    name: str
    size: int
    rows: int | None
    modified_ms: int


@dataclass(frozen=True)
class Commit:
    """What the log says of one version.

    Attributes:
        version: The version it made.
        at: When, UTC.
        command: The command that made it; the operation when another engine did.
        added: Rows added.
        removed: Rows removed.
        code: Version of the program.
        job: Id that the commits of one invocation share; empty when unknown.
        sealed: Whether it carries a digest.
    """

    version: int
    at: datetime
    command: str
    added: int
    removed: int
    code: str
    job: str
    sealed: bool


@dataclass(frozen=True)
class Snapshot:
    """A table at one version.

    Attributes:
        version: The version.
        time_ms: When it was committed, in milliseconds since 1970.
        entries: The shards, by name.
        tombstones: When shards removed of late were removed, by name.
        metadata: The action ``metaData``: id, schema, properties.
        protocol: The action ``protocol``.
    """

    version: int
    time_ms: int
    entries: Mapping[str, Entry] = field(repr=False)
    tombstones: Mapping[str, int] = field(repr=False)
    metadata: Mapping[str, Any] = field(repr=False)
    protocol: Mapping[str, Any] = field(repr=False)

    @property
    def properties(self) -> Mapping[str, str]:
        """The properties of the table."""
        return MappingProxyType(self.metadata.get("configuration") or {})

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the table's columns."""
        return tuple(one["name"] for one in json.loads(self.metadata["schemaString"])["fields"])


def encode(told: Mapping[str, object], actions: Iterable[Action]) -> bytes:
    """Return the text of a commit.

    Args:
        told: What the commit says of itself, such as ``timestamp`` and ``command``.
        actions: The other actions, in order.
    """
    lines = [{"commitInfo": {**told, "digest": "0" * 64}}, *actions]
    blank = "".join(json.dumps(line) + "\n" for line in lines).encode()
    seal = b'"digest": "' + hashlib.sha256(blank).hexdigest().encode() + b'"'
    return blank.replace(_BLANK, seal, 1)


def decode(data: bytes) -> tuple[Action, list[Action], bool]:
    """Read the text of a commit.

    Returns:
        What it says of itself, all its actions, and whether it carries a seal.

    Raises:
        ValueError: It is empty, damaged, or was changed; the message completes "the file …".
    """
    seal = _SEAL.search(data)
    if seal:
        blank = data[: seal.start()] + _BLANK + data[seal.end() :]
        if hashlib.sha256(blank).hexdigest().encode() != seal[1]:
            msg = "was changed after it was written"
            raise ValueError(msg)
    try:
        actions = [json.loads(line) for line in data.splitlines() if line.strip()]
        whole = all(len(action) == 1 and action.keys() <= _KINDS for action in actions)
    except (ValueError, TypeError, AttributeError) as error:
        msg = "is damaged"
        raise ValueError(msg) from error
    if not actions or not whole:
        msg = "is damaged" if actions else "is empty"
        raise ValueError(msg)
    told: Action = next((one["commitInfo"] for one in actions if "commitInfo" in one), {})
    told = told if isinstance(told, dict) else {}
    if not seal and told.get("engineInfo") == "ecgstore":  # ours are never without
        msg = "was changed after it was written"
        raise ValueError(msg)
    return told, actions, seal is not None


def added(one: Entry, *, rearranged: bool) -> Action:
    """Return the content of the action ``add``; `rearranged` rows were in the table before."""
    stats = {} if one.rows is None else {"numRecords": one.rows}
    return {
        "path": one.name,
        "partitionValues": {},
        "size": one.size,
        "modificationTime": one.modified_ms,
        "dataChange": not rearranged,
        "stats": json.dumps(stats),
    }


def removed(name: str, *, at_ms: int, rearranged: bool) -> Action:
    """Return the content of the action ``remove``."""
    return {"path": name, "deletionTimestamp": at_ms, "dataChange": not rearranged}


def entry(action: Mapping[str, Any]) -> Entry:
    """Read the content of the action ``add``.

    Raises:
        ValueError: Something is missing or of the wrong kind.
    """
    try:
        rows = json.loads(action.get("stats") or "{}").get("numRecords")
        return Entry(
            name=unquote(action["path"]),
            size=int(action["size"]),
            rows=None if rows is None else int(rows),
            modified_ms=int(action["modificationTime"]),
        )
    except (KeyError, TypeError, AttributeError) as error:
        msg = "is damaged"
        raise ValueError(msg) from error


def applied(
    base: Snapshot, version: int, told: Mapping[str, Any], actions: Iterable[Action]
) -> Snapshot:
    """Return the snapshot that a commit makes of the one before it.

    Raises:
        ValueError: The commit is damaged; the message completes "the file …".
    """
    actions = list(actions)
    entries, tombstones = dict(base.entries), dict(base.tombstones)
    metadata, protocol = base.metadata, base.protocol
    try:
        for action in actions:
            if "remove" in action:
                name = unquote(action["remove"]["path"])
                if entries.pop(name, None) is None:
                    msg = "removes a shard that is not there"
                    raise ValueError(msg)
                tombstones[name] = int(action["remove"].get("deletionTimestamp") or 0)
            metadata = action.get("metaData", metadata)
            protocol = action.get("protocol", protocol)
        come = [entry(action["add"]) for action in actions if "add" in action]
        time_ms = int(told.get("timestamp", base.time_ms))
    except (KeyError, TypeError, AttributeError) as error:
        msg = "is damaged"
        raise ValueError(msg) from error
    entries.update((one.name, one) for one in come)
    return Snapshot(version, time_ms, entries, tombstones, metadata, protocol)
