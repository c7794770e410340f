"""Read any known ECG file: `read` finds the reader by what the file holds."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ecgstore.errors import ReadError
from ecgstore.io import (
    csv_table,
    dicom,
    edf,
    hdf5,
    hl7,
    ishne,
    matlab,
    muse,
    numpy_arrays,
    philips,
    schiller,
    scp,
    wfdb,
)
from ecgstore.io.assemble import refuse
from ecgstore.io.files import file_head
from ecgstore.io.reader import Container, Reader
from ecgstore.io.unsupported import what_is
from ecgstore.registry import Registry

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ecgstore.record import Record

__all__ = ["Container", "Reader", "detect", "locate", "open_container", "read", "readers"]

readers: Registry[Reader] = Registry("reader", group="ecgstore.readers")
"""Every format by name; other packages add theirs by the entry-point group of the same name."""

for _reader in (
    wfdb.READER,
    dicom.READER,
    edf.READER,
    ishne.READER,
    hl7.READER,
    muse.READER,
    philips.READER,
    schiller.READER,
    scp.READER,
    hdf5.READER,
    matlab.READER,
    numpy_arrays.READER,
    csv_table.READER,  # last: plain text fits anything
):
    readers.add(_reader.name, _reader)

_CONVERT = "Convert it to WFDB (a .hea with its .dat), for instance with the wfdb package."


def detect(path: str | Path) -> str:
    """Return the name of the reader for a file; see `read` for what may be given.

    Raises:
        ReadError: There is no such file, or no reader for it.
    """
    return locate(Path(path))[0].name


def read(
    path: str | Path,
    *,
    reader: str = "auto",
    item: int | str | None = None,
    layout: Mapping[str, str] | None = None,
) -> Record:
    """Read one ECG.

    Args:
        path: A file, one of its companions (``00001.dat``), or a record's name without suffix.
        reader: Name of the reader to use, or ``auto`` to go by what the file holds.
        item: Which record of a file that holds many: its name, or its row counted from 0.
        layout: Where the arrays of a container are, such as ``{"tracings": "signals"}``; see the
            reader's own documentation.

    Raises:
        ReadError: The file cannot be read; ``reason`` says why in a few fixed words.
        UnknownNameError: There is no reader of that name.
    """
    entry, main = locate(Path(path), reader=reader)
    if entry.container is None or (entry.read is not None and item is None and not layout):
        if item is not None or entry.read is None:
            raise refuse(main, "many records", "it holds one record, none can be chosen")
        return entry.read(main)
    container = entry.container(main, layout or {})
    found = next(iter(container.read([_row(main, container, item)])))
    if isinstance(found, ReadError):
        raise found
    return found


def open_container(
    path: Path, *, reader: str = "auto", layout: Mapping[str, str] | None = None
) -> Container | None:
    """Return the records of a file that may hold many, None for one of a format that cannot.

    Raises:
        ReadError: The file cannot be read.
        UnknownNameError: There is no reader of that name.
    """
    entry, main = locate(path, reader=reader)
    return None if entry.container is None else entry.container(main, layout or {})


def locate(path: Path, *, reader: str = "auto", by_name: bool = True) -> tuple[Reader, Path]:
    """Return the reader of a file and the file that it is to be given.

    A file goes by what it holds; one that holds nothing known may be the companion of another,
    such as the samples beside a WFDB header.

    Args:
        path: As for `read`.
        reader: Name of the only reader to consider, or ``auto``.
        by_name: Whether a file that holds nothing known goes by its suffix after all, so that
            a reader says what is wrong with it.

    Raises:
        ReadError: There is no such file, or no reader for it.
        UnknownNameError: There is no reader of that name.
    """
    known = [readers.get(name) for name in (list(readers) if reader == "auto" else [reader])]
    if not path.name:
        raise refuse(path, "not a file", "a folder holds no record of its own")
    there = _exists(path)
    if not there or path.is_dir():
        named = ((entry, path.with_name(path.name + entry.suffixes[0])) for entry in known)
        beside = next((pair for pair in named if _exists(pair[1])), None)
        return beside or _companion(path, known) or _refused(path, there=there)
    head = file_head(path)
    suffix = path.suffix.lower()
    of_suffix = [entry for entry in known if suffix in entry.suffixes]
    for entry in (*of_suffix, *(entry for entry in known if entry not in of_suffix)):
        if entry.matches(head, path):
            return entry, path
    if (found := _companion(path, known)) is not None:
        return found
    if by_name and len(of_suffix) == 1:
        return of_suffix[0], path
    if reader != "auto":
        return known[0], path
    if not head:
        raise refuse(path, "empty file", "the file is empty")
    what = what_is(head, path)
    if what is not None:
        raise refuse(path, "unsupported format", f"{what.name} cannot be read", hint=what.hint)
    if any(suffix in entry.companions for entry in known):
        raise refuse(path, "missing file", "its header is not beside it")
    names = ", ".join(readers)
    raise refuse(path, "unknown format", f"no reader knows it; readers: {names}", hint=_CONVERT)


def _companion(path: Path, known: Sequence[Reader]) -> tuple[Reader, Path] | None:
    suffix = path.suffix.lower()
    for entry in known:
        main = path.with_suffix(entry.suffixes[0]) if path.suffix else path
        if suffix in entry.companions and _exists(main):
            return entry, main
    return None


def _refused(path: Path, *, there: bool) -> tuple[Reader, Path]:
    if there:
        raise refuse(path, "not a file", "a folder holds no record of its own")
    raise refuse(path, "missing file", "there is no such file")


def _row(path: Path, container: Container, item: int | str | None) -> int:
    """Return the row of the record that was asked for."""
    names = list(container.names)
    if item is None and len(names) == 1:
        return 0
    if item is not None and str(item) in names:
        return names.index(str(item))
    if item is not None and str(item).isdecimal() and int(item) < len(names):
        return int(item)
    what = "and none was chosen" if item is None else f"but none is {str(item)[:40]!r}"
    detail = f"it holds {len(names)} records {what}"
    raise refuse(path, "many records", detail, hint="Choose one by its name or row: item=0.")


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # such as a name that is too long
        return False
