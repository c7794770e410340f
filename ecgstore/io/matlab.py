"""Read MATLAB 5 (``save -v6``, ``-v7``): CPSC 2018, CODE-15 % of ECG-FM, and declared layouts.

Decoded here by "MAT-File Format" (MathWorks), chapter 1, Level 5: every count is held against the
bytes that are there before anything is allocated, and what is compressed is unpacked only up to a
limit. General readers of the format promise neither.

Known layouts:

* CPSC 2018 (Liu et al., J Med Imaging Health Inform 8:1368, 2018): struct ``ECG`` with ``data``
  (12, samples) in mV at 500 Hz, ``age`` and ``sex``.
* CODE-15 % as prepared for ECG-FM: ``feats`` (12, samples) in units of 1e-4 V as in CODE-15 %
  itself, at ``curr_sample_rate``. Its segments, which have ``mean`` and ``std``, are no volts.

Others are read where their variables have usual names (`ecgstore.io.layout.ALIASES`) or a layout
names them; the field of a struct is called ``ECG.data``.
"""

from __future__ import annotations

import hashlib
import math
import zlib
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ecgstore.io.arrays import Rows, in_memory, only_record, unpacked_limit
from ecgstore.io.assemble import refuse
from ecgstore.io.clinical import age_of, sex_of
from ecgstore.io.files import file_bytes
from ecgstore.io.identity import identities
from ecgstore.io.layout import STANDARD, declared, layout_of, texts
from ecgstore.io.reader import Reader

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from ecgstore.record import Record

__all__ = ["READER", "open_rows", "read"]

_HEADER_BYTES = 128
_ORDERS = {b"\x00\x01IM": "<", b"\x01\x00MI": ">"}  # version 0x0100, then "MI" as two bytes
_MATLAB_73 = b"MATLAB 7.3"
_MAX_DEPTH = 8
_MAX_DIMENSIONS = 8

# Table 1-1, data types, and table 1-3, array types.
_MATRIX, _COMPRESSED = 14, 15
_TYPES = {
    1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8",
}  # fmt: skip
_TEXTS = {1: "latin-1", 2: "latin-1", 4: "utf-16", 16: "utf-8", 17: "utf-16", 18: "utf-32"}
_CELL, _STRUCT, _CHAR = 1, 2, 4
_CLASSES = {
    6: "f8", 7: "f4", 8: "i1", 9: "u1", 10: "i2", 11: "u2", 12: "i4", 13: "u4", 14: "i8", 15: "u8",
}  # fmt: skip
_COMPLEX = 0x0800

_CPSC = {"tracings": "ECG.data", "rate": "500", "leads": STANDARD, "unit": "mV", "axes": "ls"}
_ECGFM = {
    "tracings": "feats",
    "rate": "curr_sample_rate",
    "leads": STANDARD,
    "unit": "0.1 mV",
    "axes": "ls",
}
_CODE15_SIZES = (2934, 4096)  # samples of an exam of CODE-15 %, at 400 Hz


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
        layout: See `ecgstore.io.layout.KEYS`; arrays are variables such as ``val`` or ``ECG.data``.

    Raises:
        ReadError: It cannot be read, or its layout leaves something open.
    """
    said = declared(path, layout)
    data = file_bytes(path)
    order = _order(path, data)
    variables = _File(path, order, unpacked_limit(len(data))).variables(memoryview(data))
    if {"feats", "mean", "std"} <= set(variables) and not said:
        hint = "Read the file that it was made from, in the folder of originals."
        raise refuse(path, "unknown unit", "its samples are normalised, and no volts", hint=hint)
    known = _known(variables)
    if said.get("tracings", known.get("tracings")) == known.get("tracings"):
        said = {**known, **said}
    found, name = layout_of(path, said, names=list(variables), find=variables.get)
    digest = hashlib.sha256(data).hexdigest()
    return Rows(
        path=path,
        reader="matlab",
        layout=found,
        opened=in_memory(variables[name]),
        sha256=lambda: digest,
        meta=_meta(variables) if known is _CPSC else {},
        identities=identities(variables, variables.get, len(found.names)),
    )


def _matches(head: bytes, path: Path) -> bool:
    del path
    return head.startswith(b"MATLAB") and head[124:_HEADER_BYTES] in _ORDERS


READER = Reader(
    name="matlab",
    summary="MATLAB 5: CPSC 2018, CODE-15 % of ECG-FM, or variables whose layout is declared",
    suffixes=(".mat",),
    matches=_matches,
    read=read,
    container=open_rows,
)


def _order(path: Path, data: bytes) -> str:
    """Return the byte order of a file, after a look at whether it is MATLAB 5 at all."""
    if not data:
        raise refuse(path, "empty file", "the file is empty")
    order = _ORDERS.get(data[124:_HEADER_BYTES])
    if order is not None and data.startswith(b"MATLAB"):
        return order
    if data.startswith(_MATLAB_73):
        hint = "Save it with '-v7', or read it with the reader hdf5 and a declared layout."
        raise refuse(path, "unsupported format", "MATLAB 7.3, which is HDF5", hint=hint)
    # Level 4 begins with MOPT in decimal: M byte order 0 or 1, O zero, P type 0-5, T matrix 0-2
    mopt = int.from_bytes(data[:4], "little")
    if mopt in {m + p + t for m in (0, 1000) for p in range(0, 60, 10) for t in range(3)}:
        hint = "WFDB keeps samples so: give the .hea of the same name, which says what they are."
        raise refuse(path, "missing file", "MATLAB 4, whose header (.hea) is missing", hint=hint)
    raise refuse(path, "bad header", "it is no MATLAB 5 file")


def _known(variables: Mapping[str, NDArray[Any]]) -> dict[str, str]:
    if "ECG.data" in variables and {"ECG.age", "ECG.sex"} & set(variables):
        return _CPSC
    rate, size = (variables.get(f"org_sample_{what}") for what in ("rate", "size"))
    if "feats" in variables and rate is not None and size is not None:
        of_code = rate.size == size.size == 1 and rate.item() == 400
        return _ECGFM if of_code and size.item() in _CODE15_SIZES else {}
    return {}


def _meta(variables: Mapping[str, NDArray[Any]]) -> dict[str, object]:
    age, sex = ([*texts(variables.get(f"ECG.{key}", ())), ""][0] for key in ("age", "sex"))
    return {"age": age_of(age), "sex": sex_of(sex)}


class _Element(NamedTuple):
    kind: int
    data: memoryview
    stop: int


class _File:
    """Decodes the variables of one file.

    Args:
        path: The file.
        order: ``<`` or ``>``.
        room: Bytes that its compressed elements may unpack to, all together.
    """

    def __init__(self, path: Path, order: str, room: int) -> None:
        self._path = path
        self._order = order
        self._room = room

    def variables(self, data: memoryview) -> dict[str, NDArray[Any]]:
        """Return arrays of numbers or texts by name, fields of structs as ``struct.field``."""
        found: dict[str, NDArray[Any]] = {}
        at = _HEADER_BYTES
        while at < len(data):
            kind, payload, at = self._element(data, at)
            if kind == _COMPRESSED:
                payload = memoryview(self._unpacked(payload))
                kind, payload, _ = self._element(payload, 0)
            if kind == _MATRIX:
                name, value = self._matrix(payload, _MAX_DEPTH)
                found.update(_flat(name, value))
        return found

    def _element(self, data: memoryview, at: int) -> _Element:
        """Return the data element at an offset, and where the next one begins."""
        if at + 8 > len(data):
            raise refuse(self._path, "truncated", "it ends inside a data element")
        kind, size = (int(x) for x in np.frombuffer(data[at : at + 8], f"{self._order}u4"))
        start, padding = at + 8, 0
        if kind >> 16:  # a small element: size, type and up to four bytes in eight
            kind, size, start = kind & 0xFFFF, kind >> 16, at + 4
            if size > 4:
                raise refuse(self._path, "bad header", "a small data element is too large")
            padding = 4 - size
        elif kind != _COMPRESSED:
            padding = -size % 8
        if start + size > len(data):
            raise refuse(
                self._path, "truncated", f"an element of {size} bytes ends beyond the file"
            )
        return _Element(kind, data[start : start + size], start + size + padding)

    def _unpacked(self, packed: memoryview) -> bytes:
        unzip = zlib.decompressobj()
        try:
            found = unzip.decompress(packed, self._room + 1)
        except zlib.error as error:
            raise refuse(self._path, "bad samples", "a compressed element is damaged") from error
        if len(found) > self._room:
            raise refuse(self._path, "too large", "it unpacks to more than any ECG")
        if not unzip.eof:  # the checksum stands at the end
            raise refuse(self._path, "truncated", "a compressed element ends too soon")
        self._room -= len(found)
        return found

    def _matrix(self, data: memoryview, depth: int) -> tuple[str, object]:
        """Return the name and value of an array: numbers, texts, a dict of fields, or None."""
        if not len(data) or not depth:
            return "", None
        parts = self._parts(data)
        flags, dims, name = (next(parts) for _ in range(3))
        if len(flags.data) != 8 or not 8 <= len(dims.data) <= 4 * _MAX_DIMENSIONS:
            raise refuse(self._path, "bad header", "an array has no flags or no dimensions")
        word = int(np.frombuffer(flags.data, f"{self._order}u4")[0])
        kind, is_complex = word & 0xFF, bool(word & _COMPLEX)
        shape = [
            int(n) for n in np.frombuffer(dims.data[: len(dims.data) // 4 * 4], f"{self._order}i4")
        ]
        if min(shape) < 0:
            raise refuse(self._path, "bad header", "a dimension of an array is negative")
        value: object = None
        if kind in _CLASSES and not is_complex:
            value = self._numbers(next(parts), shape, _CLASSES[kind])
        elif kind == _CHAR:
            value = self._lines(next(parts), shape)
        elif kind == _CELL:
            value = self._cell(parts, math.prod(shape), depth)
        elif kind == _STRUCT:
            value = self._fields(parts, math.prod(shape), depth)
        return bytes(name.data).decode("latin-1"), value

    def _parts(self, data: memoryview) -> Iterator[_Element]:
        at = 0
        while True:  # the caller knows how many there must be; a missing one is damage
            element = self._element(data, at)
            at = element.stop
            yield element

    def _numbers(self, element: _Element, shape: list[int], dtype: str) -> NDArray[Any]:
        stored = _TYPES.get(element.kind)
        if stored is None:
            raise refuse(
                self._path, "bad header", "an array of numbers is stored as something else"
            )
        size = int(stored[1:])
        if len(element.data) != math.prod(shape) * size:
            detail = f"an array of shape {tuple(shape)} has {len(element.data)} bytes"
            raise refuse(self._path, "truncated", detail)
        values = np.frombuffer(element.data, f"{self._order}{stored}")
        # numbers are stored in the smallest type that holds them
        return values.astype(dtype, copy=False).reshape(shape, order="F")

    def _lines(self, element: _Element, shape: list[int]) -> NDArray[Any]:
        form = _TEXTS.get(element.kind)
        if form is None:
            raise refuse(self._path, "bad header", "a text is stored as something else")
        wide = {"<": "-le", ">": "-be"}[self._order] if form in {"utf-16", "utf-32"} else ""
        text = bytes(element.data).decode(form + wide, "replace")
        if len(text) != math.prod(shape):
            return np.array([text])  # such as of letters beyond UTF-16: a single line
        if not text:
            return np.array([""])
        rows = np.array(list(text)).reshape(shape[0], -1, order="F")
        return np.array(["".join(row).strip() for row in rows])

    def _inner(self, parts: Iterator[_Element], depth: int) -> object:
        element = next(parts)
        if element.kind != _MATRIX:
            raise refuse(self._path, "bad header", "a cell or field holds no array")
        return self._matrix(element.data, depth - 1)[1]

    def _cell(self, parts: Iterator[_Element], count: int, depth: int) -> object:
        """Return the texts of a cell array, None for one of anything else."""
        found: list[str] = []
        for _ in range(count):  # ends at the first that is not there
            value = self._inner(parts, depth)
            if not isinstance(value, np.ndarray) or value.size != 1:
                return None
            found += texts(value)
        return np.array(found)

    def _fields(self, parts: Iterator[_Element], count: int, depth: int) -> object:
        """Return the fields of a struct, None for an array of several structs."""
        width, names = next(parts), next(parts)
        size = int.from_bytes(width.data, {"<": "little", ">": "big"}[self._order])  # type: ignore[arg-type]
        if count != 1 or not 0 < size <= 64 or len(names.data) % size:
            return None
        letters = bytes(names.data).decode("latin-1")
        return {
            letters[at : at + size].split("\0")[0]: self._inner(parts, depth)
            for at in range(0, len(letters), size)
        }


def _flat(name: str, value: object) -> Iterator[tuple[str, NDArray[Any]]]:
    if isinstance(value, dict):
        for field, inner in value.items():
            yield from _flat(f"{name}.{field}", inner)
    elif isinstance(value, np.ndarray):
        yield name, value
