"""What a dataset says of its files before any of them is opened."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from ecgstore.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["Collection", "Label", "Missing", "Source", "source_folder"]


class Label(NamedTuple):
    """A label of one record.

    Attributes:
        task: Name of the task, such as ``MI``.
        label: Its value.
        likelihood: Per cent, where the source gives one.
    """

    task: str
    label: float
    likelihood: float | None


class Missing(NamedTuple):
    """A record that a dataset announces but that cannot be read at all: a row for ``rejects``."""

    uri: str
    reason: str
    detail: str


@dataclass(frozen=True, slots=True)
class Source:
    """One record to read.

    Attributes:
        name: Name within the dataset; ``dataset/name`` is the record's id.
        path: The file to give to a reader.
        uri: Where the file is within the dataset, with ``/``; never a path of this machine.
        meta: Columns of ``records`` that the dataset knows; they win over the file's own.
        labels: What the source says of this record; see `Collection.tasks` for the rest.
        quality: Flags such as ``baseline_drift``.
    """

    name: str
    path: Path
    uri: str
    meta: Mapping[str, object] = field(default_factory=dict)
    labels: tuple[Label, ...] = ()
    quality: tuple[str, ...] = ()


@dataclass(frozen=True)
class Collection:
    """All records of a dataset.

    Attributes:
        sources: Records to read.
        tasks: Tasks in which every record has a label: 0 where its source has none.
        missing: Records announced but not there.
        notes: Things a user should be told, such as files that were passed over.
    """

    sources: tuple[Source, ...]
    tasks: tuple[str, ...] = ()
    missing: tuple[Missing, ...] = ()
    notes: tuple[str, ...] = ()


def source_folder(path: Path, *, wanted: str) -> Path:
    """Return a folder that a user named, after a check that it can be listed.

    Raises:
        UsageError: It is not there, not a folder, or must not be read.
    """
    if not path.is_dir():
        msg = f"{str(path)!r} is not a folder; {wanted} was expected."
        raise UsageError(msg)
    if not os.access(path, os.R_OK | os.X_OK):
        msg = f"The folder {str(path)!r} may not be read."
        raise UsageError(msg, hint="Check its permissions.")
    return path
