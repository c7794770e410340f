"""What an audit of the tables means for whoever asks them: one finding a fault, in plain words."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import pyarrow as pa
import pyarrow.compute as pc

from ecgstore.upkeep.audit import DENIED, MISSING
from ecgstore.upkeep.shard_audit import doubled

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping
    from collections.abc import Set as AbstractSet

    from ecgstore.upkeep.audit import Audit, Fault

__all__ = ["Finding", "Severity", "across", "in_table", "mendable", "without_signal"]

Severity = Literal["damage", "history", "lost", "leftover", "repaired"]

_REPAIR = "Restore the file from a backup, or run: ecgstore verify --repair"
_BACKUP = "Restore the file from a backup; nothing else can bring it back."
_SWEEP = "Run: ecgstore compact"


@dataclass(frozen=True)
class Finding:
    """One thing that is not as it should be.

    Attributes:
        severity: ``damage`` could change or stop an answer; ``history`` keeps an older version
            from being opened; ``lost`` is what a repair said was lost, and hurts only older
            versions now; ``leftover`` is harmless; ``repaired`` was put right.
        table: The table; empty for what belongs to none.
        version: The newest version that it hurts; None where that has no meaning.
        file: The file, below the warehouse; empty where it is no single one.
        what: What is wrong, a sentence or two.
        remedy: What to do about it.
    """

    severity: Severity
    table: str
    version: int | None
    file: str
    what: str
    remedy: str


def in_table(audit: Audit, known: AbstractSet[tuple[str, str]]) -> Iterator[Finding]:
    """Yield what an audit of one table found.

    Args:
        audit: The audit.
        known: Table and name of each file that a repair set aside.
    """
    for fault in audit.faults:
        yield _log_file(audit, fault, known)
    for name, what in audit.bad.items():
        shard = audit.shards[name]
        if what == MISSING and shard.last < audit.forgotten:
            continue  # erased on purpose, and the versions say so
        yield _shard(audit, name, what, known)
    for version, pairs in sorted(doubled(audit).items()):
        newest = version == audit.version and audit.newest is not None
        yield Finding(
            "damage" if newest else "history",
            audit.schema.name,
            version,
            "",
            f"{pairs} rows repeat the key of another.",
            "Restore a backup, and report it: no command of ecgstore does this.",
        )


def across(audits: Mapping[str, Audit], known: AbstractSet[tuple[str, str]]) -> Iterator[Finding]:
    """Yield what the newest versions of the tables say in contradiction to each other.

    Args:
        audits: The audit of each table.
        known: Table and name of each file that a repair set aside.
    """
    whole = {name: audit for name, audit in audits.items() if audit.whole}
    if "records" in whole:
        records = whole["records"].now()
        for name, audit in whole.items():
            if name != "records" and "record_id" in audit.schema.key:
                yield from _orphans(audit, records["record_id"])
        if "waveforms" in whole:
            yield from _without_signal(whole["records"], whole["waveforms"])
    if "scores" in whole:
        yield from _runs(whole["scores"], audits, known)


def mendable(audit: Audit, fault: Fault) -> bool:
    """Tell whether the table can be put right without this log file."""
    if fault.what == DENIED or fault.kind == "cleaned":
        return False
    if audit.newest is not None:
        return True
    unknown = [one for one in audit.faults if one.until == audit.version]
    return unknown == [fault] and fault.version == audit.version


def without_signal(records: Audit, waveforms: Audit) -> pa.Array:
    """Return the ids of records that have samples of a standard lead but no row in ``waveforms``.

    Waveforms are committed first, so there are none unless waveforms were lost.
    """
    rows = records.now()
    ids = rows["record_id"].filter(rows["waveform"]).combine_chunks()
    there = pc.is_in(ids, waveforms.now()["record_id"].combine_chunks())
    return ids.filter(pc.invert(there))


def _remedy(what: str, *, mendable: bool) -> str:
    if what == DENIED:
        return "Give this user the right to read the file."
    return _REPAIR if mendable else _BACKUP


def _log_file(audit: Audit, fault: Fault, known: AbstractSet[tuple[str, str]]) -> Finding:
    table, file = audit.schema.name, f"{audit.schema.name}/_delta_log/{fault.file}"
    what = f"The log file {fault.what}"
    remedy = _remedy(fault.what, mendable=mendable(audit, fault))
    if fault.until == audit.version:
        what += ": the table cannot be opened"
        older = f"; up to version {fault.version - 1} it can" if audit.versions else ""
        what += f"{older}."
        return Finding("damage", table, fault.version, file, what, remedy)
    if fault.kind in ("checkpoint", "pointer"):
        return Finding("damage", table, fault.version, file, f"{what}.", remedy)
    if fault.kind == "cleaned":
        return Finding("leftover", table, fault.version, file, f"{what}.", _SWEEP)
    if fault.until < fault.version:
        what += ": what made the version is not known, but it can be opened."
    else:
        what += f": {_versions([(fault.version, fault.until)])} cannot be opened; newer ones can."
    if fault.what == MISSING and (table, fault.file) in known:
        what = what.replace("The log file is missing", "A repair set this log file aside")
        return Finding("lost", table, fault.until, file, what, "")
    return Finding("history", table, fault.until, file, what, remedy)


def _shard(audit: Audit, name: str, what: str, known: AbstractSet[tuple[str, str]]) -> Finding:
    table, shard = audit.schema.name, audit.shards[name]
    file, remedy = f"{table}/{name}", _remedy(what, mendable=True)
    hurt = f"{_versions(shard.spans)} cannot be read whole"
    if audit.newest is not None and name in audit.newest.entries:
        rows = "an unknown number of" if shard.entry.rows is None else shard.entry.rows
        text = f"The shard {what}: {hurt}, the newest among them; it held {rows} rows."
        return Finding("damage", table, shard.last, file, text, remedy)
    if what == MISSING and (table, name) in known:
        text = f"A repair set this shard aside: {hurt}; newer ones can."
        return Finding("lost", table, shard.last, file, text, "")
    text = f"The shard {what}: {hurt}; newer ones can."
    return Finding("history", table, shard.last, file, text, remedy)


def _orphans(audit: Audit, records: pa.ChunkedArray) -> Iterator[Finding]:
    ids = audit.now()["record_id"]
    count = len(ids) - (pc.sum(pc.is_in(ids, records.combine_chunks())).as_py() or 0)
    if count:
        what = f"{count} rows are of no record: a command was interrupted, or is running."
        remedy = f"Run that command again. To remove them, {_SWEEP[0].lower()}{_SWEEP[1:]}"
        yield Finding("leftover", audit.schema.name, audit.version, "", what, remedy)


def _without_signal(records: Audit, waveforms: Audit) -> Iterator[Finding]:
    if count := len(without_signal(records, waveforms)):
        what = f"{count} records have no waveform: they can be counted, but not be used."
        remedy = (
            "Restore a backup; or run: ecgstore verify --repair, then ingest their sources again."
        )
        yield Finding("damage", "records", records.version, "", what, remedy)


def _runs(
    scores: Audit, audits: Mapping[str, Audit], known: AbstractSet[tuple[str, str]]
) -> Iterator[Finding]:
    """Compare: no run read a version of a table that is not there."""
    read: dict[str, int] = {}
    for text in scores.now()["versions"].unique().drop_null().to_pylist():
        for table, version in json.loads(text).items():
            read[table] = max(version, read.get(table, -1))
    gone = {table for table, file in known if file.endswith(".json")}
    for table, version in sorted(read.items()):
        if table in audits and version > audits[table].version:
            newest = audits[table].version
            what = f"A run read version {version}, but the newest is {newest}: commits were lost."
            severity: Severity = "lost" if table in gone else "damage"
            yield Finding(severity, table, version, "", what, _BACKUP)


def _versions(spans: Collection[tuple[int, int]]) -> str:
    named = [str(a) if a == b else f"{a} to {b}" for a, b in spans]
    plural = len(named) > 1 or "to" in named[0]
    return f"version{'s' if plural else ''} {', '.join(named)}"
