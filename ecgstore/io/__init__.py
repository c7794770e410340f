"""Read any known ECG file: `read` finds the reader by the file's suffix."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from ecgstore.io import wfdb
from ecgstore.io.assemble import refuse
from ecgstore.registry import Registry

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from ecgstore.record import Record

__all__ = ["UNSUPPORTED", "Reader", "detect", "read", "readers"]


@dataclass(frozen=True)
class Reader:
    """A format that can be read.

    Attributes:
        name: Name in the registry.
        summary: What the format is, one sentence.
        suffixes: Suffixes of the file that `read` takes, lower case; a record is found by the
            first of them when only its name is given.
        companions: Suffixes of files that come with it; naming one of them means the same record.
        read: Returns the record of a file or raises `ecgstore.errors.ReadError`.
    """

    name: str
    summary: str
    suffixes: tuple[str, ...]
    companions: tuple[str, ...]
    read: Callable[[Path], Record]


readers: Registry[Reader] = Registry("reader", group="ecgstore.readers")
"""Every format by name; other packages add theirs by the entry-point group of the same name."""

readers.add(
    "wfdb",
    Reader(
        name="wfdb",
        summary="WFDB header with its signal files (PhysioNet)",
        suffixes=(".hea",),
        companions=(".dat", ".mat"),
        read=wfdb.read,
    ),
)

_CONVERT = "Convert it to WFDB (a .hea with its .dat), for instance with the wfdb package."
UNSUPPORTED: Mapping[str, str] = MappingProxyType(
    {
        ".xml": "XML of an ECG cart (GE MUSE, Philips, HL7 aECG or Schiller)",
        ".scp": "SCP-ECG (EN 1064)",
        ".ecg": "ISHNE Holter, a vendor's own format or WFDB annotations",
        ".dcm": "DICOM waveform",
        ".edf": "European Data Format",
        ".bdf": "BioSemi Data Format",
        ".h5": "HDF5",
        ".hdf5": "HDF5",
        ".npy": "NumPy array",
        ".pdf": "printed ECG",
    }
)
"""Suffixes that are known to hold ECGs, with what they are, but have no reader."""


def detect(path: str | Path) -> str:
    """Return the name of the reader for a file; see `read` for what may be given.

    Raises:
        ReadError: There is no such file, or no reader for it.
    """
    return _locate(Path(path), list(readers))[0].name


def read(path: str | Path, *, reader: str = "auto") -> Record:
    """Read one ECG.

    Args:
        path: A file, one of its companions (``00001.dat``), or a record's name without suffix.
        reader: Name of the reader to use, or ``auto`` to go by the suffix.

    Raises:
        ReadError: The file cannot be read; ``reason`` says why in a few fixed words.
        UnknownNameError: There is no reader of that name.
    """
    entry, main = _locate(Path(path), list(readers) if reader == "auto" else [reader])
    return entry.read(main)


def _locate(path: Path, names: Sequence[str]) -> tuple[Reader, Path]:
    """Return the reader of a file and the file that it is to be given."""
    known = [readers.get(name) for name in names]
    if not path.name:
        raise refuse(path, "not a file", "a folder holds no record of its own")
    suffix = path.suffix.lower()
    for entry in known:
        if suffix in entry.suffixes:
            return entry, path
    for entry in known:
        main = (
            path.with_suffix(entry.suffixes[0])
            if suffix in entry.companions
            else path.with_name(path.name + entry.suffixes[0])
        )
        if _exists(main):
            return entry, main
    if suffix in UNSUPPORTED:
        detail = f"{UNSUPPORTED[suffix]} cannot be read"
        raise refuse(path, "unsupported format", detail, hint=_CONVERT)
    if any(suffix in entry.companions for entry in known):
        raise refuse(path, "missing file", "its header is not beside it")
    if not _exists(path):
        raise refuse(path, "missing file", "there is no such file")
    suffixes = ", ".join(name for entry in known for name in entry.suffixes)
    detail = f"no reader knows this file; known suffixes: {suffixes}"
    raise refuse(path, "unknown format", detail, hint=_CONVERT)


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # such as a name that is too long
        return False
