"""What a dataset says of its files before any of them is opened."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ecgstore.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Container, Iterator, Mapping, Sequence

__all__ = [
    "Collection",
    "Label",
    "Missing",
    "Source",
    "exists",
    "files_below",
    "refuse_rate",
    "single_folder",
    "source_folder",
]


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
        labels: What the source says of this record; codes found in its file are added.
        tasks: Tasks in which it is labelled 0 unless its source says otherwise, besides those of
            its collection.
        quality: Flags such as ``baseline_drift``.
        row: Which record of a file that holds many; None for files of one.
        layout: Where the arrays of such a file are, as declared by the user.
        measurements: By a name of `ecgstore.io.clinical.MEASUREMENTS`.
        identifiers: Names and ids that must not stand in the record's name.
    """

    name: str
    path: Path
    uri: str
    meta: Mapping[str, object] = field(default_factory=dict)
    labels: tuple[Label, ...] = ()
    tasks: tuple[str, ...] = ()
    quality: tuple[str, ...] = ()
    row: int | None = None
    layout: Mapping[str, str] = field(default_factory=dict)
    measurements: Mapping[str, float] = field(default_factory=dict)
    identifiers: tuple[str, ...] = ()


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


def refuse_rate(rate: int | None) -> None:
    """Refuse a rate where each record is there at one rate only.

    Raises:
        UsageError: One was given.
    """
    if rate is not None:
        msg = "A rate can be chosen only in a dataset that holds each record at several rates."
        raise UsageError(msg, hint="Leave out the rate.")


def single_folder(folders: Sequence[Path], rate: int | None, *, wanted: str) -> Path:
    """Return the one folder of a dataset that has each record at one rate only.

    Raises:
        UsageError: There is not one, it cannot be listed, or a rate was given.
    """
    refuse_rate(rate)
    if len(folders) != 1:
        msg = f"{len(folders)} folders were given; {wanted} was expected."
        raise UsageError(msg)
    return source_folder(folders[0], wanted=wanted)


def files_below(
    root: Path, suffixes: Container[str], missing: list[Missing]
) -> Iterator[tuple[str, Path]]:
    """Yield path below the root and file of everything with one of some suffixes, in order.

    Hidden folders are passed over, and so are links to folders; `missing` is told of links, of
    folders that cannot be listed and of names that are not printable text.
    """

    def refused(error: OSError) -> None:
        uri = Path(error.filename).relative_to(root).as_posix()
        missing.append(Missing(_shown(uri), "unreadable", "the folder cannot be listed"))

    for folder, below, files in os.walk(root, onerror=refused):
        below[:] = sorted(name for name in below if not name.startswith("."))
        here = Path(folder)
        prefix = "" if here == root else f"{here.relative_to(root).as_posix()}/"
        for name in below:
            if (here / name).is_symlink():
                detail = "links to folders are not followed"
                missing.append(Missing(_shown(prefix + name), "not a file", detail))
        for name in sorted(files):
            if os.path.splitext(name)[1].lower() not in suffixes or name.startswith("."):  # noqa: PTH122
                continue
            uri = prefix + name
            if uri.isprintable():
                yield uri, here / name
            else:
                missing.append(Missing(_shown(uri), "bad name", "its name is not printable text"))


def _shown(uri: str) -> str:
    return uri if uri.isprintable() else ascii(uri)[1:-1]


def exists(path: Path) -> bool:
    """Tell whether there is such a file, False for names that no file can have."""
    try:
        return path.exists()
    except (OSError, ValueError):
        return False
