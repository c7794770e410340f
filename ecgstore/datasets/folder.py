"""Any folder of ECG files: a record is a file, its name the path below the folder."""

from __future__ import annotations

import mimetypes
import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ecgstore import io
from ecgstore.datasets.source import Collection, Missing, Source, source_folder
from ecgstore.errors import ReadError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

__all__ = ["collect"]

_HEADER = ".hea"
_PEEK_BYTES = 256
_MAX_HEADER_BYTES = 2**20
# Suffixes under which nothing but ECGs is kept: such a file is refused by name if no reader takes
# it. Under others, such as .csv or .png, a folder holds all sorts of things.
_ECGS_ONLY = frozenset(
    {".xml", ".scp", ".ecg", ".dcm", ".edf", ".bdf", ".gdf", ".mwf", ".mfer", ".atc", ".ann"}
)


@dataclass
class _Found:
    """What a walk over the folders has found so far."""

    layout: Mapping[str, str]
    sources: dict[str, Source] = field(default_factory=dict)
    missing: list[Missing] = field(default_factory=list)
    passed_over: Counter[str] = field(default_factory=Counter)
    links: int = 0

    def add(self, path: Path, uri: str) -> None:
        """Take a header, or a file that a reader knows; one of many records gives all of them."""
        if not uri.isprintable():  # a surrogate, which no table can hold, or a line break
            detail = "its name is not printable text"
            self.missing.append(Missing(ascii(uri)[1:-1], "bad name", detail))
        elif uri.endswith(_HEADER):
            self._keep(Source(uri.removesuffix(_HEADER), path, uri))
        else:
            for source in self._of_file(path, uri):
                self._keep(source)

    def refuse(self, uri: str, error: ReadError) -> None:
        """Take a file that no reader takes."""
        if not uri.isprintable():
            uri = ascii(uri)[1:-1]
        self.missing.append(Missing(uri, error.reason, error.message.split(": ", 1)[-1].strip(".")))

    def _keep(self, source: Source) -> None:
        if source.name in self.sources:
            msg = f"Two of the sources hold a record {source.name!r}."
            hint = "Ingest the folder above them, or each under a dataset name of its own."
            raise UsageError(msg, hint=hint)
        self.sources[source.name] = source

    def _of_file(self, path: Path, uri: str) -> Iterator[Source]:
        try:
            container = io.open_container(path, layout=self.layout)
        except ReadError as error:
            self.refuse(uri, error)
            return
        if container is None or len(container.names) == 1:
            yield Source(uri, path, uri, layout=self.layout)
            return
        for row, name in enumerate(container.names):
            own = f"{uri}#{name}"
            yield Source(own, path, own, row=row, layout=self.layout)


def collect(
    folders: Sequence[Path],
    *,
    rate: int | None = None,
    layout: Mapping[str, str] | None = None,
) -> Collection:
    """List the ECGs below some folders, and single files, in whichever formats there are readers.

    A WFDB record is named without its suffix, other files with it, a record of a file that holds
    many ``file#name``. The parts of a WFDB record belong to it and are not listed beside it. A
    file that only an ECG can be but that no reader takes is refused by name; other files that
    hold no ECG are counted in the notes. Hidden files and folders are passed over and links to
    folders are not followed.

    Args:
        folders: Folders or files.
        rate: Not for a plain folder: each of its files is a record of its own.
        layout: Where arrays are in files that do not say so themselves.

    Raises:
        UsageError: A source is not there, two records have one name, or `rate` was given.
    """
    if rate is not None:
        msg = "A rate can be chosen only in a dataset that holds each record at several rates."
        raise UsageError(msg, hint="Leave out the rate, or name a known dataset such as ptbxl.")
    found = _Found(layout or {})
    for folder in folders:
        if folder.is_file():
            found.add(folder, folder.name)
        elif folder.suffix and not folder.exists():
            msg = f"There is no file {str(folder)!r}."
            raise UsageError(msg)
        else:
            _walk(source_folder(folder, wanted="a folder of ECG files, or an ECG file,"), found)
    notes = [
        f"{count} {suffix} passed over: no ECG that can be read"
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
        headers = sorted(name for name in (*files, *below) if name.endswith(_HEADER))
        segments = {name for header in headers for name in _segments(here / header)}
        prefix = "" if here == root else f"{here.relative_to(root).as_posix()}/"
        for header in headers:
            if header not in segments:
                found.add(here / header, prefix + header)
        rest = sorted(name for name in files if not name.endswith(_HEADER) and name[0] != ".")
        _take_rest(here, prefix, headers, rest, found)


def _take_rest(
    here: Path, prefix: str, headers: Sequence[str], files: Sequence[str], found: _Found
) -> None:
    """Take the files of a folder that are neither headers nor parts of a record."""
    stems = {header.removesuffix(_HEADER) for header in headers}
    companions = io.readers.get("wfdb").companions
    unknown: list[tuple[str, ReadError]] = []
    for name in files:
        stem, dot, suffix = name.rpartition(".")
        if stem in stems and dot + suffix.lower() in companions:
            continue
        try:
            entry, _ = io.locate(here / name, by_name=False)
        except ReadError as error:
            unknown.append((name, error))
        else:
            if entry.name != "wfdb":
                found.add(here / name, prefix + name)
    parts = _named(here, headers) if unknown else set()
    for name, why in unknown:
        suffix = Path(name).suffix.lower()
        if name in parts:
            continue
        if suffix in _ECGS_ONLY or why.reason not in {"unknown format", "unsupported format"}:
            found.refuse(prefix + name, why)
        else:
            # what stands after a full stop may be a person's name or number
            known = mimetypes.guess_type(f"x{suffix}")[0] is not None
            what = "files of other suffixes" if suffix else "files without suffix"
            found.passed_over[f"{suffix} files" if known else what] += 1


def _named(here: Path, headers: Iterable[str]) -> set[str]:
    """Return the files that the headers of a folder name."""
    names = set()
    for header in headers:
        for line in _said(_head(here / header, _MAX_HEADER_BYTES))[1:]:
            names.add(line.split(None, 1)[0].decode("latin-1"))
    return names


def _segments(path: Path) -> list[str]:
    """Return the header files of the segments that a header lists, none for a plain record.

    Only the head of the file is read unless it announces segments; what is wrong with a header
    is found by its reader.
    """
    said = _said(_head(path, _PEEK_BYTES))
    if not said or b"/" not in said[0].split(None, 1)[0]:
        return []
    lines = _said(_head(path, _MAX_HEADER_BYTES))[1:]
    names = [fields[0].decode("latin-1") for line in lines if len(fields := line.split()) == 2]
    return [f"{name}{_HEADER}" for name in names if name != "~"]


def _head(path: Path, size: int) -> bytes:
    """Return the first bytes of a file, none of what is no file or cannot be read."""
    if not path.is_file():
        return b""
    try:
        with path.open("rb", buffering=0) as file:
            return file.read(size)
    except OSError:
        return b""


def _said(data: bytes) -> list[bytes]:
    """Return the lines that are neither blank nor a comment."""
    lines = (line.strip() for line in data.splitlines())
    return [line for line in lines if line and not line.startswith(b"#")]
