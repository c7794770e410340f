"""The files of a transaction log: which there are, what each says, and when one is damaged."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from ecgstore.errors import LogError
from ecgstore.storage.checkpoint import read_checkpoint
from ecgstore.storage.commits import Snapshot, decode, entry

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["POINTER", "LogFiles", "log_name"]

_COMMIT, _CHECKPOINT = ".json", ".checkpoint.parquet"  # after a version of 20 digits

POINTER = "_last_checkpoint"
"""File of the log that names the newest checkpoint."""


class LogFiles:
    """The log files of the table in a folder. Holds no state and no open file.

    Args:
        folder: The table's folder; its name is taken as the table's.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.table = folder.name
        self.path = folder / "_delta_log"

    def exists(self) -> bool:
        """Tell whether there is a table."""
        return any(self._listed())

    def commit_path(self, version: int) -> Path:
        """Return where the commit of a version is or would be."""
        return self.path / log_name(version)

    def checkpoint_path(self, version: int) -> Path:
        """Return where the checkpoint of a version is or would be."""
        return self.path / log_name(version, _CHECKPOINT)

    def has(self, version: int) -> bool:
        """Tell whether a version was committed."""
        return self.commit_path(version).exists()

    def time_ms(self, version: int) -> int:
        """Return when a version was committed, in milliseconds since 1970.

        Raises:
            LogError: The commit is missing or damaged.
        """
        return int(self._read(version)[0].get("timestamp", 0))

    def brought(self, version: int) -> set[str]:
        """Return the names of the shards that came with a version.

        Raises:
            LogError: The commit is missing or damaged.
        """
        _, actions, _ = self._read(version)
        try:
            return {entry(one["add"]).name for one in actions if "add" in one}
        except ValueError as error:
            raise self._broken(log_name(version), str(error), version) from error

    def _listed(self) -> tuple[set[int], set[int]]:
        """Return the versions that have a commit, and those that have a checkpoint."""
        try:
            names = os.listdir(self.path)  # noqa: PTH208  ten thousand Path objects take their time
        except FileNotFoundError:
            names = []
        commits = {int(n[:20]) for n in names if n[20:] == _COMMIT and n[:20].isdigit()}
        return commits, {int(n[:20]) for n in names if n[20:] == _CHECKPOINT and n[:20].isdigit()}

    def _summed_up(self) -> int:
        """Return the newest version with a checkpoint, -1 when there is none.

        While the versions after one are cleaned, this tells it from the newest: a commit onto it
        would be one into the past.
        """
        try:
            return int(json.loads((self.path / POINTER).read_bytes())["version"])
        except (OSError, ValueError, KeyError, TypeError):
            return max(self._listed()[1], default=-1)

    def _checkpointed(self, version: int) -> Snapshot:
        """Return what a checkpoint says; before version 0 there is nothing."""
        if version < 0:
            return Snapshot(-1, 0, {}, {}, {}, {})
        file = log_name(version, _CHECKPOINT)
        try:
            state = read_checkpoint((self.path / file).read_bytes())
            entries = [entry(one) for one in state.adds]
        except (OSError, KeyError, TypeError, ValueError) as error:
            raise self._broken(file, "is damaged", version) from error
        time_ms = 0
        with suppress(LogError):
            time_ms = self.time_ms(version)
        shards = {one.name: one for one in entries}
        return Snapshot(version, time_ms, shards, state.removes, state.metadata, state.protocol)

    def _read(self, version: int) -> tuple[dict[str, Any], list[dict[str, Any]], bool]:
        """Return what a commit tells of itself, its other actions, and whether it is sealed."""
        file = log_name(version)
        try:
            data = (self.path / file).read_bytes()
        except FileNotFoundError as error:
            raise self._broken(file, "is missing", version) from error
        except OSError as error:
            raise self._broken(file, f"cannot be read ({error.strerror})", version) from error
        try:
            return decode(data)
        except ValueError as error:
            raise self._broken(file, str(error), version) from error

    def _broken(self, file: str, what: str, version: int) -> LogError:
        msg = f"Table {self.table!r}, version {version}: the log file {file!r} {what}."
        name = f"{self.path.name}/{file}"
        hint = "See what is hurt, and what can be done: ecgstore verify"
        if before := int(file[:20]):
            hint = f"Versions before {before} still open, with --at an earlier time. {hint}"
        return LogError(
            msg, path=self.folder, table=self.table, file=name, version=version, hint=hint
        )


def log_name(version: int, suffix: str = _COMMIT) -> str:
    """Return the name of the log file of a version."""
    return f"{version:020d}{suffix}"
