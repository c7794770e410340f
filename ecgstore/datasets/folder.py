"""Any folder of ECG files: a record is a header, its name the path below the folder."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ecgstore.datasets.source import Collection, Missing, Source, source_folder
from ecgstore.errors import UsageError
from ecgstore.io import UNSUPPORTED

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["collect"]

_SUFFIX = ".hea"
_PEEK_BYTES = 256
_MAX_HEADER_BYTES = 2**20


@dataclass
class _Found:
    """What a walk over the folders has found so far."""

    sources: dict[str, Source] = field(default_factory=dict)
    missing: list[Missing] = field(default_factory=list)
    passed_over: Counter[str] = field(default_factory=Counter)
    links: int = 0

    def add(self, path: Path, uri: str) -> None:
        name = uri.removesuffix(_SUFFIX)
        if not name.isprintable():  # a surrogate, which no table can hold, or a line break
            detail = "its name is not printable text"
            self.missing.append(Missing(ascii(uri)[1:-1], "bad name", detail))
        elif name in self.sources:
            msg = f"Two of the sources hold a record {name!r}."
            hint = "Ingest the folder above them, or each under a dataset name of its own."
            raise UsageError(msg, hint=hint)
        else:
            self.sources[name] = Source(name, path, uri)


def collect(folders: Sequence[Path], *, rate: int | None = None) -> Collection:
    """List the WFDB records below some folders, and single ``.hea`` files.

    The segments of a multi-segment record belong to it and are not listed beside it. Hidden
    folders are passed over and links to folders are not followed.

    Args:
        folders: Folders or header files.
        rate: Not for a plain folder: each of its files is a record of its own.

    Raises:
        UsageError: A source is not there, two records have one name, or `rate` was given.
    """
    if rate is not None:
        msg = "A rate can be chosen only in a dataset that holds each record at several rates."
        raise UsageError(msg, hint="Leave out the rate, or name a known dataset such as ptbxl.")
    found = _Found()
    for folder in folders:
        if folder.suffix == _SUFFIX and not folder.is_dir():
            if not folder.exists():
                msg = f"There is no file {str(folder)!r}."
                raise UsageError(msg)
            found.add(folder, folder.name)
        else:
            _walk(source_folder(folder, wanted="a folder of ECG files, or a .hea file,"), found)
    notes = [
        f"{count} {suffix} files passed over: {UNSUPPORTED[suffix]} cannot be read yet"
        for suffix, count in sorted(found.passed_over.items())
    ]
    if found.links:
        notes.append(f"{found.links} links to folders not followed: ingest their targets instead")
    return Collection(
        tuple(found.sources.values()), missing=tuple(found.missing), notes=tuple(notes)
    )


def _walk(root: Path, found: _Found) -> None:
    def refused(error: OSError) -> None:
        uri = Path(error.filename).relative_to(root).as_posix()
        found.missing.append(Missing(uri, "unreadable", "the folder cannot be listed"))

    for folder, below, files in os.walk(root, onerror=refused):
        below[:] = sorted(name for name in below if not name.startswith("."))
        here = Path(folder)
        found.links += sum((here / name).is_symlink() for name in below)
        # a folder named like a header is listed too: its reader refuses it by name
        headers = sorted(name for name in (*files, *below) if name.endswith(_SUFFIX))
        if len(headers) < len(files):
            suffixes = ("." + name.rpartition(".")[2].lower() for name in files)
            found.passed_over.update(suffix for suffix in suffixes if suffix in UNSUPPORTED)
        segments = {name for header in headers for name in _segments(here / header)}
        prefix = "" if here == root else f"{here.relative_to(root).as_posix()}/"
        for header in headers:
            if header not in segments:
                found.add(here / header, prefix + header)


def _segments(path: Path) -> list[str]:
    """Return the header files of the segments that a header lists, none for a plain record.

    Only the head of the file is read unless it announces segments; what is wrong with a header
    is found by its reader.
    """
    if not path.is_file():
        return []
    try:
        with path.open("rb", buffering=0) as file:
            head = file.read(_PEEK_BYTES)
            said = _said(head)
            if not said or b"/" not in said[0].split(None, 1)[0]:
                return []
            said = _said(head + file.read(_MAX_HEADER_BYTES))
    except OSError:
        return []
    names = [fields[0].decode("latin-1") for line in said[1:] if len(fields := line.split()) == 2]
    return [f"{name}{_SUFFIX}" for name in names if name != "~"]


def _said(data: bytes) -> list[bytes]:
    """Return the lines that are neither blank nor a comment."""
    lines = (line.strip() for line in data.splitlines())
    return [line for line in lines if line and not line.startswith(b"#")]
