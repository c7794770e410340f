"""The past of a warehouse: what was done to it, and which tables a time or a run stands for.

Every table keeps a log of its own. What one command wrote to several of them is told here as one.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from ecgstore.errors import UnknownNameError, UsageError
from ecgstore.schema import TABLES, table_schema
from ecgstore.storage.log import Log
from ecgstore.warehouse import Warehouse

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from ecgstore.storage.log import Commit

    _TableCommit = tuple[str, Commit]
    _Span = tuple[datetime, datetime]

__all__ = ["MAINTENANCE", "Invocation", "invocations", "moment"]

MAINTENANCE = frozenset({"tidy", "upgrade", "ADD COLUMN", "SET TBLPROPERTIES"})
"""Commands that leave the rows as they are and come unasked; early versions gave the upgrade of a
layout no name of its own, so it goes by Delta's."""

_PAUSE = timedelta(seconds=2)
"""Commits without the id of an invocation, as early versions wrote them, belong together when they
name the same command and lie no further apart."""

_FEW = 3  # tables that are named although no row of theirs changed
_ALWAYS = (datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC))


@dataclass(frozen=True)
class Invocation:
    """What one run of a command wrote.

    Attributes:
        at: Time of its last commit, UTC: ``--at`` with it shows the warehouse as it left it.
        command: The command; several, separated by ``;``, where one led to another.
        changes: Per table it wrote to, rows added and rows removed.
        code: Version of the program.
        job: Id of the invocation; empty when an early version or another program wrote.
        complete: False when commits were cleaned, by ``compact``, that may have been part of it.
    """

    at: datetime
    command: str
    changes: Mapping[str, tuple[int, int]]
    code: str
    job: str
    complete: bool = True

    @property
    def row(self) -> dict[str, object]:
        """The invocation as a flat row, its rows counted over all tables."""
        return {
            "at": self.at,
            "command": self.command,
            "added": sum(added for added, _ in self.changes.values()),
            "removed": sum(removed for _, removed in self.changes.values()),
            "tables": _told(self.changes),
            "code": self.code,
            "job": self.job,
        }

    def __repr__(self) -> str:
        row = self.row
        when = self.at.isoformat(sep=" ", timespec="seconds")
        return f"Invocation({when}: {self.command}, +{row['added']} -{row['removed']} rows)"


def invocations(
    warehouse: Warehouse,
    *,
    limit: int | None = None,
    table: str | None = None,
    maintenance: bool = False,
) -> list[Invocation]:
    """List what was done to a warehouse, newest first.

    Args:
        warehouse: The warehouse; opened as it was, what came later is left out.
        limit: Invocations to list at most.
        table: Look at this table alone.
        maintenance: Also list the commits that leave the rows as they are; see `MAINTENANCE`.

    Raises:
        UnknownNameError: There is no such table.
        LogError: A commit is damaged.
    """
    versions = warehouse.versions()
    if table is not None:
        name = table_schema(table).name
        versions = {name: versions[name]} if name in versions else {}
    commits: list[_TableCommit] = []
    cleaned: list[_Span] = []
    for name, version in versions.items():
        told = [one for one in Log(warehouse.root / name).commits() if one.version <= version]
        cleaned += _cleaned(told, version)
        commits += ((name, one) for one in told if maintenance or one.command not in MAINTENANCE)
    commits.sort(key=lambda one: one[1].at, reverse=True)
    return [_merged(group, cleaned) for group in _grouped(commits)[:limit]]


def moment(root: Path, at: str | datetime | None) -> datetime | dict[str, int | None] | None:
    """Return what `Warehouse` opens for a time or a run.

    Args:
        root: The warehouse folder.
        at: A datetime or ISO time, UTC unless it says otherwise; or the id of a run or a training,
            which stands for the table versions it read.

    Raises:
        UnknownNameError: No run has this id.
        UsageError: It is neither a time nor an id.
    """
    if at is None or isinstance(at, datetime):
        return at
    try:
        time = datetime.fromisoformat(at)
    except ValueError:
        return _versions_of(root, at)
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def _versions_of(root: Path, run_id: str) -> dict[str, int | None]:
    if not run_id or set(run_id) - set("0123456789abcdef"):
        msg = f"{run_id!r} is neither a time nor the id of a run."
        hint = "Give a time such as 2024-05-01T12:00, UTC unless it says otherwise, or a run id."
        raise UsageError(msg, hint=hint)
    warehouse, stored = Warehouse(root), dict[str, str]()
    for table in filter(warehouse.files, ("trainings", "scores")):
        rows = warehouse.table(table).read(["run_id", "versions", "at"]).sort_by("at")
        stored |= zip(rows["run_id"].to_pylist(), rows["versions"].to_pylist(), strict=True)
    if run_id not in stored:
        raise UnknownNameError(run_id, kind="run", known=stored)
    versions = json.loads(stored[run_id])
    return {name: versions.get(name) for name in TABLES}  # a table made since is not seen


def _grouped(commits: list[_TableCommit]) -> list[list[_TableCommit]]:
    """Put the commits of an invocation together; both lists are newest first."""
    groups: list[list[_TableCommit]] = []
    of_job: dict[tuple[str, bool], list[_TableCommit]] = {}
    for one in commits:
        job = (one[1].job, one[1].command in MAINTENANCE)
        if one[1].job and job in of_job:
            of_job[job].append(one)
        elif groups and _follows(groups[-1][-1][1], one[1]):
            groups[-1].append(one)
        else:
            groups.append([one])
            of_job[job] = groups[-1]
    return groups


def _follows(later: Commit, earlier: Commit) -> bool:
    """Tell whether two neighbours that name no job were written by one invocation."""
    return (
        later.job == earlier.job == ""
        and later.command == earlier.command
        and later.at - earlier.at <= _PAUSE
    )


def _cleaned(told: list[Commit], newest: int) -> list[_Span]:
    """Return when the versions up to `newest` were made of which no commit is left."""
    spans = []
    version, until = newest + 1, _ALWAYS[1]
    for one in told:
        if one.version < version - 1:
            spans.append((one.at, until))
        version, until = one.version, one.at
    return [*spans, (_ALWAYS[0], until)] if version else spans


def _merged(group: list[_TableCommit], cleaned: list[_Span]) -> Invocation:
    newest, oldest = group[0][1], group[-1][1]
    changes = {
        table: (
            sum(commit.added for name, commit in group if name == table),
            sum(commit.removed for name, commit in group if name == table),
        )
        for table in sorted({name for name, _ in group}, key=list(TABLES).index)
    }
    words: dict[str, dict[str, None]] = {}
    for _, commit in reversed(group):
        verb, _, rest = commit.command.partition(" ")
        words.setdefault(verb, {})[rest] = None
    command = "; ".join(f"{verb} {' '.join(rest)}".strip() for verb, rest in words.items())
    complete = not any(since <= newest.at and oldest.at <= until for since, until in cleaned)
    return Invocation(newest.at, command, changes, newest.code, newest.job, complete)


def _told(changes: Mapping[str, tuple[int, int]]) -> str:
    """Say which tables changed and by how many rows, all of them in short when only made."""
    if len(changes) > _FEW and not any(map(any, changes.values())):
        return f"{len(changes)} tables"
    parts = []
    for table, (added, removed) in changes.items():
        signed = [f"+{added}"] * bool(added) + [f"-{removed}"] * bool(removed)
        parts.append(" ".join([table, *signed]))
    return ", ".join(parts)
