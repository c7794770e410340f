"""Everything that one table consists of, read from its first log file to its last shard.

`Log` and `Table` read as little as an answer needs and stop at the first fault. An audit reads all
of it, trusts no note, goes on after a fault, and says for each which versions it hurts.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

import pyarrow as pa
import pyarrow.compute as pc

from ecgstore.record import LEADS
from ecgstore.storage.checkpoint import read_checkpoint
from ecgstore.storage.commits import Entry, Snapshot, applied, decode, entry
from ecgstore.storage.expire import expiring

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping
    from pathlib import Path

    from ecgstore.schema import TableSchema

__all__ = [
    "DENIED",
    "LOG",
    "MISSING",
    "Audit",
    "Fault",
    "Shard",
    "audit_log",
    "file_bytes",
    "kept_columns",
    "log_files",
]

DENIED = "may not be read by this user"
"""What is said of a file that may be whole."""

MISSING = "is missing"
"""What is said of a file that is not there."""

LOG = "_delta_log"
"""Folder of the log in a table's folder."""

_POINTER = "_last_checkpoint"
_LOG_FILE = re.compile(r"(\d{20})\.(json|checkpoint\.parquet)")
_KEPT = {"records": ("n_samples", "leads"), "scores": ("versions",)}
"""Columns that checks across tables need besides the key, by table."""
_STANDARD = pa.array(LEADS)
_SAME = ("id", "schemaString", "configuration")  # what a checkpoint must repeat of the metadata


@dataclass(frozen=True)
class Fault:
    """A log file that is missing, damaged or in contradiction to the others.

    Attributes:
        kind: Which sort of log file; ``cleaned`` when it is missing as after a cleaning that was
            interrupted: what opened without it is kept.
        version: The version in its name.
        file: Its name.
        what: What is wrong with it; completes "the log file …".
        until: The last version that cannot be opened for it; below `version` when all can.
    """

    kind: Literal["commit", "checkpoint", "pointer", "cleaned"]
    version: int
    file: str
    what: str
    until: int = -1


@dataclass(frozen=True, eq=False)
class Shard:
    """A shard that a version which can be opened names.

    Attributes:
        entry: What the log says of it.
        spans: First and last version of each run of versions that name it, ascending.
    """

    entry: Entry
    spans: tuple[tuple[int, int], ...]

    @property
    def last(self) -> int:
        """The newest version that names it."""
        return self.spans[-1][1]


@dataclass(eq=False)
class Audit:
    """What the log of a table says.

    Attributes:
        schema: The table.
        files: Names of its log files.
        version: The newest version of which there is a log file.
        newest: The table at that version; None when the log files do not tell.
        shards: Every shard of the versions that can be opened, by name.
        versions: How many versions can be opened.
        commits: How many commits were read.
        unsealed: How many of them carry no digest: by an older version, or by another engine.
        forgotten: The newest commit that erased a patient; -1 when there is none.
        faults: What is wrong with the log files.
        bad: What is wrong with a shard, by name; completes "the shard …".
        rows: The key of every row of the shards that were read, by name of the shard.
        size: Bytes of the shards that were read.
    """

    schema: TableSchema
    files: frozenset[str] = frozenset()
    version: int = -1
    newest: Snapshot | None = None
    shards: dict[str, Shard] = field(default_factory=dict)
    versions: int = 0
    commits: int = 0
    unsealed: int = 0
    forgotten: int = -1
    faults: list[Fault] = field(default_factory=list)
    bad: dict[str, str] = field(default_factory=dict)
    rows: dict[str, pa.Table] = field(default_factory=dict)
    size: int = 0

    @property
    def whole(self) -> bool:
        """Whether every row of the newest version was read."""
        return self.newest is not None and self.newest.entries.keys() <= self.rows.keys()

    def now(self) -> pa.Table:
        """Return the keys of the newest version."""
        names = self.newest.entries if self.newest is not None else {}
        parts = [self.rows[name] for name in names if name in self.rows]
        return pa.concat_tables(
            [kept_columns(self.schema, self.schema.arrow.empty_table()), *parts]
        )


def log_files(log: Path) -> frozenset[str]:
    """Return the names of the files by which a table is what it is.

    Args:
        log: The folder ``_delta_log``.

    Raises:
        OSError: It cannot be listed.
    """
    names = (path.name for path in log.iterdir())
    return frozenset(name for name in names if _LOG_FILE.fullmatch(name) or name == _POINTER)


def audit_log(log: Path, schema: TableSchema) -> Audit:
    """Read every log file of a table and play all commits through.

    Args:
        log: The folder ``_delta_log``.
        schema: The table.

    Raises:
        OSError: A file or the folder cannot be read.
    """
    names = log_files(log)
    listed = {int(name[:20]) for name in names if _LOG_FILE.fullmatch(name)}
    audit = Audit(schema, files=names, version=max(listed, default=-1))
    state: Snapshot | None = None
    unknown: list[Fault] = []  # faults since which the table's state is unknown
    gap = min(listed, default=0) - 1  # the last version that may have been let go
    gone = expiring(log)
    spans = _Spans()
    for version in range(gap + 1, audit.version + 1):
        name = f"{version:020d}.json"
        summary = f"{version:020d}.checkpoint.parquet"
        summed = _summed_up(audit, log / summary, version) if summary in names else None
        try:
            if name not in names and (gap == version - 1 or version in gone):
                gap, state = version, None
            else:
                state = _committed(audit, log, state, version)
        except ValueError as error:
            state = None
            unknown.append(Fault("commit", version, name, str(error)))
        if state is not None and summed is not None and not _agree(state, summed):
            what = "does not say what the commits say"
            audit.faults.append(Fault("checkpoint", version, summary, what))
        state = state or summed
        if state is not None:
            audit.faults += [replace(fault, until=version - 1) for fault in unknown]
            unknown = []
            audit.versions += 1
            spans.see(version, state.entries)
        elif name in names and not unknown:
            unknown.append(Fault("cleaned", gap, f"{gap:020d}.json", MISSING))
        if summary in names:
            gap = version  # a cleaning that keeps this version lets those after it go
    if not listed:
        unknown.append(Fault("commit", 0, f"{0:020d}.json", MISSING))
    audit.faults += [replace(fault, until=audit.version) for fault in unknown]
    audit.newest = state
    spans.see(audit.version + 2, {})
    audit.shards = spans.shards
    _check_pointer(audit, log, names)
    return audit


def kept_columns(schema: TableSchema, rows: pa.Table) -> pa.Table:
    """Return the columns of rows that the checks of a table and across tables need.

    Of a record it is kept whether it must have a waveform: samples of one of the twelve leads.
    """
    kept = rows.select([*schema.key, *_KEPT.get(schema.name, ())])
    if "leads" not in kept.column_names:
        return kept
    leads = kept["leads"].combine_chunks()
    standard = pc.is_null(leads).to_numpy(zero_copy_only=False).copy()  # as rows made by hand
    known = pc.is_in(pc.list_flatten(leads), _STANDARD)
    standard[pc.list_parent_indices(leads).filter(known).to_numpy()] = True
    needs = pc.and_(pa.array(standard), pc.is_valid(kept["n_samples"]))
    return kept.select(list(schema.key)).append_column("waveform", needs)


def file_bytes(path: Path) -> bytes:
    """Read a file.

    Raises:
        ValueError: It cannot be; the message completes "the file …".
    """
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise ValueError(MISSING) from error
    except PermissionError as error:
        raise ValueError(DENIED) from error
    except OSError as error:
        msg = f"cannot be read: {error.strerror}"
        raise ValueError(msg) from error


def _committed(audit: Audit, log: Path, before: Snapshot | None, version: int) -> Snapshot | None:
    """Return the table after a commit; None when it is not known what it was before.

    Raises:
        ValueError: The commit is missing or damaged.
    """
    path = log / f"{version:020d}.json"
    if before is None and version > 0 and not path.exists():
        return None  # cleaned, or the fault lies before it
    told, actions, sealed = decode(file_bytes(path))
    audit.commits += 1
    audit.unsealed += not sealed
    if told.get("command") == "forget":
        audit.forgotten = version
    if version == 0:
        before = Snapshot(-1, 0, {}, {}, {}, {})
    if before is None:
        return None
    state = applied(before, version, told, actions)
    if not state.metadata or not state.protocol:
        msg = "does not describe the table"
        raise ValueError(msg)
    return state


def _summed_up(audit: Audit, path: Path, version: int) -> Snapshot | None:
    try:
        state = read_checkpoint(file_bytes(path))
        entries = {one.name: one for one in map(entry, state.adds)}
    except ValueError:
        audit.faults.append(Fault("checkpoint", version, path.name, "is damaged"))
        return None
    return Snapshot(version, 0, entries, state.removes, state.metadata, state.protocol)


def _agree(state: Snapshot, summed: Snapshot) -> bool:
    def said(one: Snapshot) -> tuple[object, ...]:
        shards = {(entry.name, entry.size, entry.rows) for entry in one.entries.values()}
        described = [one.metadata.get(name) for name in _SAME]
        return shards, described, dict(one.protocol)

    return said(state) == said(summed)


class _Spans:
    """Which versions name which shard."""

    def __init__(self) -> None:
        self._alive: dict[str, tuple[int, Entry]] = {}
        self._version = -1
        self.shards: dict[str, Shard] = {}

    def see(self, version: int, entries: Mapping[str, Entry]) -> None:
        """Note the shards of the next version that can be opened; none after the last."""
        if version > self._version + 1:
            self._end(self._alive.keys())
        self._end(self._alive.keys() - entries.keys())
        for name in entries.keys() - self._alive.keys():
            self._alive[name] = (version, entries[name])
        self._version = version

    def _end(self, names: Iterable[str]) -> None:
        for name in tuple(names):
            first, one = self._alive.pop(name)
            earlier = self.shards[name].spans if name in self.shards else ()
            self.shards[name] = Shard(one, (*earlier, (first, self._version)))


def _check_pointer(audit: Audit, log: Path, names: Collection[str]) -> None:
    """Check ``_last_checkpoint``, by which other engines find the newest checkpoint."""
    try:
        version = json.loads((log / _POINTER).read_bytes())["version"]
        sound = f"{version:020d}.checkpoint.parquet" in names
    except FileNotFoundError:
        return
    except (ValueError, TypeError, KeyError):
        sound = False
    if not sound:
        what = "names no checkpoint that is there"
        audit.faults.append(Fault("pointer", audit.version, _POINTER, what))
