"""The transaction log of one table: which shards it consists of, at every version.

It is the log of the Delta Lake protocol (reader version 1, writer version 2), so every engine that
knows Delta reads the table as it lies. Ours adds what a place for patients' data needs: a commit is
on disk before anybody can see it, carries a digest of its own text, and is never older than the
one before it. A commit by another engine, which lacks these, is read as well.

Source: Delta Transaction Log Protocol, sections "Delta Log Entries", "Checkpoints" and "Actions".
"""

from __future__ import annotations

import bisect
import json
import logging
import time
import uuid
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from ecgstore.errors import ErasedError, LogError, SchemaError, WarehouseError
from ecgstore.storage import disk
from ecgstore.storage.checkpoint import State, checkpoint_bytes
from ecgstore.storage.commits import (
    Commit,
    Entry,
    Snapshot,
    added,
    applied,
    encode,
    removed,
)
from ecgstore.storage.log_files import POINTER, LogFiles, log_name

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence
    from pathlib import Path

__all__ = ["CHECKPOINT_EVERY", "Commit", "Entry", "Log", "Lost", "Snapshot"]

CHECKPOINT_EVERY = 64
"""Commits between two checkpoints: opening a table reads at most so many commits."""

_LOOKS = 20  # at a log of which others remove files meanwhile
_READER, _WRITER = 1, 2  # versions of the protocol that are understood
_TOMBSTONES_MS = 7 * 24 * 3600 * 1000  # the protocol's default: other engines' cleaning needs them

logger = logging.getLogger(__name__)


class Lost(Exception):
    """The version to be written exists already."""


class Log(LogFiles):
    """The log of the table in a folder. Holds no state and no open file.

    Args:
        folder: The table's folder; its name is taken as the table's.
    """

    def newest(self) -> int:
        """Return the newest version.

        Raises:
            WarehouseError: There is no table.
        """
        return self._newest(*self._listed())

    def versions(self) -> list[int]:
        """Return the versions that have all their log files, ascending."""
        commits, checkpoints = self._listed()
        whole: list[int] = []
        for version in sorted(commits | checkpoints):
            follows = version == 0 or (bool(whole) and whole[-1] == version - 1)
            if version in checkpoints or (version in commits and follows):
                whole.append(version)
        return whole

    def snapshot(self, version: int | None = None, *, base: Snapshot | None = None) -> Snapshot:
        """Return the table at a version, the newest by default.

        Args:
            version: The version.
            base: An older snapshot of this log, from which only newer commits are read.

        Raises:
            WarehouseError: There is no table or no such version.
            ErasedError: The log files of that version were cleaned.
            LogError: A log file that is needed is missing or damaged.
            SchemaError: The table needs a newer Delta protocol.
        """
        if base is not None and version is None:
            with suppress(LogError):  # what is missing or damaged is told below
                followed = [base, *self.follow(base)][-1]
                if self._summed_up() <= followed.version:
                    return followed
        for _ in range(_LOOKS):
            files = self._listed()
            try:
                return self._opened(version, *files)
            except LogError:
                if self._listed() == files:
                    raise
        return self._opened(version, *self._listed())

    def follow(self, snapshot: Snapshot) -> Iterator[Snapshot]:
        """Yield the versions after a snapshot, one by one, as far as their commits are there.

        Raises:
            LogError: A commit is damaged.
        """
        while self.has(snapshot.version + 1):
            snapshot = self._applied(snapshot, snapshot.version + 1)
            yield snapshot

    def commits(self) -> Iterator[Commit]:
        """Yield what the log says of each version, newest first.

        Raises:
            LogError: A commit is damaged.
        """
        for version in sorted(self._listed()[0], reverse=True):
            yield self.told(version)

    def told(self, version: int) -> Commit:
        """Return what the log says of one version.

        Raises:
            LogError: The commit is missing or damaged.
        """
        info, _, sealed = self._read(version)
        return Commit(
            version=version,
            at=datetime.fromtimestamp(int(info.get("timestamp", 0)) / 1000, UTC),
            command=str(info.get("command") or info.get("operation") or "?"),
            added=int(info.get("rowsAdded", 0)),
            removed=int(info.get("rowsRemoved", 0)),
            code=str(info.get("codeVersion") or info.get("engineInfo") or "?"),
            job=str(info.get("job", "")),
            sealed=sealed,
        )

    def version_at(self, at: datetime) -> int | None:
        """Return the newest version committed at or before a time, None when there was none.

        The time is the one in the log, so a copied or moved warehouse gives the same answer.

        Raises:
            ErasedError: The versions of that time were cleaned.
            LogError: A commit is damaged.
        """
        limit = (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() * 1000
        kept = [v for v in self.versions() if self.has(v)]
        place = bisect.bisect_right(kept, limit, key=self._no_earlier) - 1
        if place < 0 and (not kept or kept[0] == 0):
            return None
        version = kept[place] if place >= 0 else kept[0] - 1
        if place < 0 or (place + 1 < len(kept) and kept[place + 1] != version + 1):
            msg = f"Table {self.table!r} cannot be seen as of {at.isoformat()}: that was cleaned."
            raise ErasedError(msg, path=self.folder, table=self.table, version=version)
        return version

    def create(self, metadata: Mapping[str, Any], *, command: str, **told: str | int) -> None:
        """Write version 0, that of an empty table.

        Args:
            metadata: ``name``, ``description``, ``schemaString`` and ``configuration``.
            command: Named in the log.
            told: More that the log says: ``codeVersion``, ``job``.

        Raises:
            Lost: Somebody else made the table meanwhile.
            OSError: The system refused.
        """
        disk.make_dir(self.path)
        now = time.time_ns() // 1_000_000
        described = {
            "id": str(uuid.uuid4()),
            "format": {"provider": "parquet", "options": {}},
            "partitionColumns": [],
            "createdTime": now,
            **metadata,
        }
        actions = [
            {"protocol": {"minReaderVersion": _READER, "minWriterVersion": _WRITER}},
            {"metaData": described},
        ]
        self._write(0, now, actions, operation="CREATE TABLE", command=command, **told)

    def commit(
        self,
        base: Snapshot,
        *,
        add: Sequence[Entry] = (),
        remove: Collection[str] = (),
        metadata: Mapping[str, Any] | None = None,
        rearranged: bool = False,
        command: str,
        **told: str | int,
    ) -> Snapshot:
        """Commit the version after `base`.

        Args:
            base: What the caller saw.
            add: Shards that come; they lie in the table's folder.
            remove: Names of shards that go.
            metadata: What replaces the action ``metaData``.
            rearranged: Whether the rows stay the same, only in other shards.
            command: Named in the log, as is the rest.
            told: ``rowsAdded``, ``rowsRemoved``, ``codeVersion``, ``job``.

        Raises:
            Lost: That version exists: somebody else was faster.
            LogError: What the caller saw was set aside by a repair.
            SchemaError: The table needs a newer Delta protocol to be written.
            OSError: The system refused.
        """
        if int(base.protocol.get("minWriterVersion", 1)) > _WRITER:
            raise self._foreign(base.protocol, "written")
        if self._summed_up() > base.version and self.newest() > base.version:
            raise Lost  # the commits that came next were cleaned
        if not self.has(base.version) and not self.checkpoint_path(base.version).exists():
            raise self._broken(log_name(base.version), "is missing", base.version)  # set aside
        now = max(time.time_ns() // 1_000_000, base.time_ms + 1)
        actions: list[dict[str, Any]] = [{"metaData": dict(metadata)}] if metadata else []
        actions += [{"remove": removed(name, at_ms=now, rearranged=rearranged)} for name in remove]
        actions += [{"add": added(one, rearranged=rearranged)} for one in add]
        version = base.version + 1
        operation = "OPTIMIZE" if rearranged else "WRITE"
        self._write(version, now, actions, operation=operation, command=command, **told)
        after = replace(
            base,
            version=version,
            time_ms=now,
            entries={n: e for n, e in base.entries.items() if n not in set(remove)}
            | {one.name: one for one in add},
            tombstones={**base.tombstones, **dict.fromkeys(remove, now)},
            metadata=metadata or base.metadata,
        )
        if version % CHECKPOINT_EVERY == 0:
            try:
                self.checkpoint(after)
            except OSError as error:  # a checkpoint only saves time: the commit is done
                logger.warning("No checkpoint of table %s: %s", self.table, error)
        return after

    def checkpoint(self, snapshot: Snapshot) -> Path:
        """Sum up the log to a version in one file, from which later versions are opened.

        Raises:
            OSError: The system refused.
        """
        recent = snapshot.time_ms - _TOMBSTONES_MS
        state = State(
            protocol=snapshot.protocol,
            metadata=snapshot.metadata,
            adds=[added(one, rearranged=True) for one in snapshot.entries.values()],
            removes={name: at for name, at in snapshot.tombstones.items() if at >= recent},
        )
        data = checkpoint_bytes(state)
        path = self.checkpoint_path(snapshot.version)
        disk.put(path, data)
        last = {
            "version": snapshot.version,
            "size": 2 + len(state.adds) + len(state.removes),
            "sizeInBytes": len(data),
            "numOfAddFiles": len(state.adds),
        }
        if snapshot.version >= max(self._listed()[1]):
            disk.put(self.path / POINTER, json.dumps(last).encode())
        return path

    # ------------------------------------------------------------------ private

    def _opened(self, version: int | None, commits: set[int], checkpoints: set[int]) -> Snapshot:
        """Return the table at a version, by the log files that were there a moment ago."""
        newest = self._newest(commits, checkpoints)
        if version is None:
            version = newest
        elif not 0 <= version <= newest:
            msg = f"Table {self.table!r} has no version {version}; its newest is {newest}."
            raise WarehouseError(msg, path=self.folder)
        failed: LogError | None = None
        for start in (*sorted((v for v in checkpoints if v <= version), reverse=True), -1):
            if all(v in commits for v in range(start + 1, version + 1)):
                try:
                    return self._replayed(self._checkpointed(start), version)
                except LogError as error:
                    failed = failed or error
        if failed is not None:
            raise failed
        if version < newest:
            msg = f"Version {version} of table {self.table!r} was cleaned: it is too old to open."
            raise ErasedError(msg, path=self.folder, table=self.table, version=version)
        last = max(checkpoints, default=-1)
        absent = next(v for v in range(last + 1, version + 1) if v not in commits)
        raise self._broken(log_name(absent), "is missing", version)

    def _newest(self, commits: set[int], checkpoints: set[int]) -> int:
        if not commits and not checkpoints:
            msg = f"There is no table in {str(self.folder)!r}."
            raise WarehouseError(msg, path=self.folder, hint="Make it with: ecgstore init")
        return max(commits | checkpoints)

    def _replayed(self, state: Snapshot, version: int) -> Snapshot:
        for one in range(state.version + 1, version + 1):
            state = self._applied(state, one)
        if not state.metadata or not state.protocol:
            raise self._broken(log_name(0), "does not describe the table", version)
        if int(state.protocol["minReaderVersion"]) > _READER:
            raise self._foreign(state.protocol, "read")
        return state

    def _applied(self, base: Snapshot, version: int) -> Snapshot:
        told, actions, _ = self._read(version)
        try:
            return applied(base, version, told, actions)
        except ValueError as error:
            raise self._broken(log_name(version), str(error), version) from error

    def _no_earlier(self, version: int) -> int:
        """Return when a version was committed, or could have been when its commit is damaged."""
        for one in range(version, -1, -1):
            with suppress(LogError):
                return self.time_ms(one) + version - one
        return 0

    def _write(
        self,
        version: int,
        now: int,
        actions: list[dict[str, Any]],
        *,
        operation: str,
        **told: str | int,
    ) -> None:
        """Make a commit file: whole, on disk, and only if nobody made that version before."""
        own = {"timestamp": now, "operation": operation, "operationParameters": {}}
        data = encode({**own, "engineInfo": "ecgstore", **told}, actions)
        try:
            disk.put_new(self.commit_path(version), data)
        except FileExistsError as error:
            raise Lost from error

    def _foreign(self, protocol: Mapping[str, Any], verb: str) -> SchemaError:
        found = protocol.get("minReaderVersion" if verb == "read" else "minWriterVersion")
        wanted = _READER if verb == "read" else _WRITER
        msg = (
            f"Table {self.table!r} can only be {verb} by a Delta engine of version {found}; "
            f"this ecgstore knows version {wanted} at most."
        )
        hint = "Another engine changed the table; install a newer ecgstore."
        return SchemaError(msg, table=self.table, found=found, wanted=wanted, hint=hint)
