"""Read NumPy arrays: ``.npz`` that name their parts, and ``.npy`` with a declared layout.

An ``.npz`` is read where its arrays have usual names (`ecgstore.io.layout.ALIASES`): ``signal``
with ``rate_hz``, ``leads`` and, if the samples are not what the unit ``mV`` says, ``unit``,
``gain`` (counts per unit) and ``baseline``. An ``.npy`` holds nothing but samples: rate, leads and
unit are declared. Headers are read here, not by NumPy, which evaluates them and allocates what they
announce; nothing that is pickled is ever loaded.
"""

from __future__ import annotations

import hashlib
import io
import math
import re
import zipfile
import zlib
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ecgstore.io.arrays import Rows, in_memory, only_record, sha256_once, unpacked_limit
from ecgstore.io.assemble import refuse
from ecgstore.io.files import HEAD_BYTES, file_bytes, file_head, file_size
from ecgstore.io.identity import identities
from ecgstore.io.layout import ALIASES, declared, layout_of
from ecgstore.io.reader import Reader

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from ecgstore.record import Record

__all__ = ["READER", "open_rows", "read"]

_NPY = b"\x93NUMPY"
_ZIP = b"PK\x03\x04"
_ONLY = "array"  # what a layout may call the one array of an .npy
# The header of an .npy is the text of a dict with these three keys (numpy.lib.format, version 1.0).
_DESCR = re.compile(r"""['"]descr['"]\s*:\s*['"]([<>|=]?[fiuUS]\d{1,9})['"]""")
_ORDER = re.compile(r"""['"]fortran_order['"]\s*:\s*(True|False)""")
_SHAPE = re.compile(r"""['"]shape['"]\s*:\s*\(([\d\s,]*)\)""")
_MAX_DIMENSIONS = 8
_MAX_PEOPLE = 2**20  # bytes of an array of names or ids
_PACKED = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}
_FEATURES = {"x", "y", "features", "embedding", "embeddings", "vectors"}
_FAILURES = (
    OSError, RuntimeError, ValueError, LookupError, EOFError, zipfile.BadZipFile, zlib.error,
    NotImplementedError, OverflowError,
)  # fmt: skip


def read(path: Path) -> Record:
    """Return the record of a file that holds one.

    Raises:
        ReadError: It holds several, or cannot be read.
    """
    return only_record(path, open_rows(path, {}))


def open_rows(path: Path, layout: Mapping[str, str]) -> Rows:
    """Return the records of a file.

    Args:
        path: The file.
        layout: See `ecgstore.io.layout.KEYS`.

    Raises:
        ReadError: It cannot be read, or its layout leaves something open.
    """
    said = declared(path, layout)
    head = file_head(path)
    if not head:
        raise refuse(path, "empty file", "the file is empty")
    return _archive(path, said) if head.startswith(_ZIP) else _single(path, head, said)


def _matches(head: bytes, path: Path) -> bool:
    del path
    if not head.startswith(_ZIP):
        return head.startswith(_NPY)
    size = int.from_bytes(head[26:28], "little")  # of the first member's name (APPNOTE 4.3.7)
    return head[30 : 30 + size].endswith(b".npy")


READER = Reader(
    name="numpy",
    summary="NumPy .npz with signal, rate_hz and leads, or .npy whose layout is declared",
    suffixes=(".npz", ".npy"),
    matches=_matches,
    read=read,
    container=open_rows,
)


class _Header(NamedTuple):
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    fortran: bool
    start: int


def _single(path: Path, head: bytes, said: Mapping[str, str]) -> Rows:
    """Return the records of an .npy, which stays on disk."""
    header = _header(path, head, file_size(path))
    if not math.prod(header.shape):
        raise refuse(path, "no samples", "there are no samples")
    try:
        array = np.memmap(
            path,
            header.dtype,
            mode="r",
            offset=header.start,
            shape=header.shape,
            order="F" if header.fortran else "C",
        )
    except _FAILURES as error:
        raise refuse(path, "unreadable", "it cannot be mapped") from error
    said = {"tracings": _ONLY, **said}
    found, _ = layout_of(path, said, names=[], find={_ONLY: array}.get)
    return Rows(path, "numpy", found, in_memory(array), lambda: sha256_once(path))


def _archive(path: Path, said: Mapping[str, str]) -> Rows:
    """Return the records of an .npz, whose arrays are unpacked when they are needed."""
    data = file_bytes(path)
    try:
        members = zipfile.ZipFile(io.BytesIO(data))
    except _FAILURES as error:
        raise refuse(path, "bad header", "it is no whole ZIP archive") from error
    by_name = {
        info.filename.removesuffix(".npy"): info
        for info in members.infolist()
        if info.filename.endswith(".npy")
    }
    limit = unpacked_limit(len(data))
    loaded: dict[str, NDArray[Any]] = {}

    def find(name: str) -> NDArray[Any] | None:
        if name in by_name and name not in loaded:
            loaded[name] = _member(path, members, by_name[name], limit)
        return loaded.get(name)

    with members:
        lower = {name.lower() for name in by_name}
        if _FEATURES & lower and not set(ALIASES["tracings"]) & lower and "tracings" not in said:
            detail = "it holds features or vectors, one row a record, and no signals"
            raise refuse(path, "unknown layout", detail)
        found, name = layout_of(path, said, names=list(by_name), find=find, assume_unit=True)
        small = [name for name, info in by_name.items() if info.file_size <= _MAX_PEOPLE]
        people = identities(small, find, len(found.names))
    sha256 = hashlib.sha256(data).hexdigest()
    opened = in_memory(loaded[name])
    return Rows(path, "numpy", found, opened, lambda: sha256, identities=people)


def _member(
    path: Path, members: zipfile.ZipFile, info: zipfile.ZipInfo, limit: int
) -> NDArray[Any]:
    shown = info.filename[:20]
    if info.file_size > limit:
        raise refuse(path, "too large", f"{shown!r} unpacks to {info.file_size} bytes")
    if info.compress_type not in _PACKED or info.flag_bits & 1:
        raise refuse(path, "unsupported format", f"{shown!r} is encrypted or packed unusually")
    try:
        with members.open(info) as file:  # ends at the size announced, and checks the CRC there
            content = file.read(info.file_size)
            file.read(1)
    except _FAILURES as error:
        what = "wrong checksum" if "CRC" in str(error) else "truncated"
        raise refuse(path, what, f"{shown!r} is damaged") from error
    header = _header(path, content[:HEAD_BYTES], len(content))
    count = math.prod(header.shape)
    values = np.frombuffer(content, header.dtype, count, header.start)
    return values.reshape(header.shape, order="F" if header.fortran else "C")


def _header(path: Path, head: bytes, size: int) -> _Header:
    """Return what an .npy announces, held against the bytes it has.

    Args:
        path: The file to blame.
        head: Its first bytes.
        size: How many there are in all.
    """
    if not head.startswith(_NPY) or len(head) < 12:
        raise refuse(path, "bad header", "an array does not begin as .npy does")
    at, width = (10, 2) if head[6] == 1 else (12, 4)  # version 1.0; 2.0 and 3.0
    length = int.from_bytes(head[8 : 8 + width], "little")
    text = head[at : at + length].decode("latin-1")
    descr, order, shape = (form.search(text) for form in (_DESCR, _ORDER, _SHAPE))
    if head[6] not in {1, 2, 3} or len(text) < length or not (descr and order and shape):
        hint = "Save numbers and texts only; Python objects and compound types are not loaded."
        raise refuse(path, "bad header", "an array is no plain numbers or texts", hint=hint)
    try:
        dtype = np.dtype(descr[1])
    except (TypeError, ValueError) as error:
        raise refuse(path, "bad header", "an array has no type that NumPy knows") from error
    dims = tuple(int(n[:20]) for n in shape[1].replace(",", " ").split())
    if len(dims) > _MAX_DIMENSIONS:
        raise refuse(path, "unknown layout", f"an array has {len(dims)} dimensions")
    needed = at + length + math.prod(dims) * dtype.itemsize
    if needed > size:
        raise refuse(path, "truncated", f"an array of {needed} bytes has {size}")
    return _Header(dtype, dims, order[1] == "True", at + length)
