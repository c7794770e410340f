"""Open a DICOM file that nobody vouches for and give its elements as the bytes that are there.

Only the structure goes through pydicom (``read_dataset``, ``read_sequence``), from memory, so that
nothing a file names is ever opened. Values are taken raw: pydicom's own conversion would quote
what it does not like, which may be a name, in warnings and logs.
"""

from __future__ import annotations

import contextlib
import functools
import io
import math
import warnings
import zlib
from typing import TYPE_CHECKING, Literal

from ecgstore.errors import MissingDependencyError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from pydicom.dataset import Dataset
    from pydicom.tag import BaseTag

__all__ = ["DicomError", "Node", "looks_like_dicom", "open_dicom"]

_PREAMBLE = 128  # PS3.10, 7.1: 128 bytes of anything, then "DICM"
_META_GROUP = 2
_TRANSFER_SYNTAX = 0x0010  # (0002,0010)
# PS3.5, annex A
_IMPLICIT = "1.2.840.10008.1.2"
_DEFLATED = "1.2.840.10008.1.2.1.99"
_BIG_ENDIAN = "1.2.840.10008.1.2.2"
# PS3.5, 7.1.2: value representations whose length takes four bytes after two of padding.
_LONG = frozenset((b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR"))
_LONG |= {b"UT", b"UV"}
_UNDEFINED = 0xFFFFFFFF
# An ECG of noise deflates to a half, one of zeros to a thousandth: what is inflated may be that
# much larger only while it is small.
_INFLATED = 2**24
_INFLATED_RATIO = 64
_MAX_READS = 2**17  # 77 annotations take 3550; each is some 20 us and 200 bytes in pydicom
_TEXT_BYTES = 2**16
_FEW_BYTES = 2**20  # more than any sequence of codes or channels needs
_TOP_LEVEL = (
    *("SOPClassUID", "AcquisitionDateTime", "AcquisitionDate", "AcquisitionTime", "ContentDate"),
    *("ContentTime", "StudyDate", "StudyTime", "AccessionNumber", "Manufacturer"),
    *("ManufacturerModelName", "InstitutionName", "InstitutionAddress", "ReferringPhysicianName"),
    *("InstitutionalDepartmentName", "PerformingPhysicianName", "OperatorsName"),
    *("NameOfPhysiciansReadingStudy", "PhysiciansOfRecord", "RequestingPhysician"),
    *("ConsultingPhysicianName", "ScheduledPerformingPhysicianName", "ResponsiblePerson"),
    *("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "PatientAge"),
    *("OtherPatientIDs", "OtherPatientIDsSequence", "OtherPatientNames"),
    *("PatientBirthName", "PatientMotherBirthName"),
    *("PatientAddress", "PatientTelephoneNumbers", "MedicalRecordLocator", "AdmissionID"),
    *("DeviceSerialNumber", "WaveformAnnotationSequence", "WaveformSequence"),
)


class DicomError(ValueError):
    """A file does not follow DICOM; ``reason`` is a key of `ecgstore.io.assemble.REASONS`."""

    def __init__(self, message: str, reason: str = "bad header") -> None:
        super().__init__(message)
        self.reason = reason


class Node:
    """A data set: that of the file, or an item of a sequence.

    Elements go by the keywords of PS3.6; one that is absent and one that is empty look the same.

    Args:
        elements: What pydicom has read of it.
        codec: Python's name for the character set of its texts.
        order: Order of the bytes in its binary values.
    """

    def __init__(self, elements: Dataset, codec: str, order: Literal["little", "big"]) -> None:
        self._elements = elements
        self._codec = codec
        self.byte_order = order

    def data(self, keyword: str) -> bytes:
        """Return the value of an element as it is stored."""
        element = self._elements.get_item(_tag(keyword), keep_deferred=True)
        value = getattr(element, "value", None)
        if not isinstance(value, bytes):
            return b""
        length = getattr(element, "length", _UNDEFINED)
        if length not in {_UNDEFINED, len(value)}:
            msg = f"{length} bytes of {keyword} announced, {len(value)} found"
            raise DicomError(msg, "truncated")
        return value

    def texts(self, keyword: str) -> list[str]:
        """Return the values of an element of text, stripped, without empty ones."""
        raw = self.data(keyword)[:_TEXT_BYTES].decode(self._codec, "replace")
        return [part for one in raw.split("\\") if (part := one.strip(" \0\r\n"))]

    def text(self, keyword: str) -> str:
        """Return the first value of an element of text, empty if there is none."""
        return next(iter(self.texts(keyword)), "")

    def paragraph(self, keyword: str) -> str:
        """Return an element of free text, in which a backslash is a character."""
        return self.data(keyword)[:_TEXT_BYTES].decode(self._codec, "replace").strip(" \0\r\n")

    def code(self) -> str:
        """Return the code of an item of a code sequence (PS3.3, 8.1)."""
        return self.text("CodeValue") or self.text("LongCodeValue")

    def number(self, keyword: str) -> float | None:
        """Return the first value of an element of decimal digits."""
        try:
            number = float(self.text(keyword))
        except ValueError:
            return None
        return number if math.isfinite(number) else None

    def integers(self, keyword: str, size: int = 2) -> list[int]:
        """Return the values of an element of unsigned binary integers of `size` bytes."""
        raw = self.data(keyword)[:_TEXT_BYTES]
        starts = range(0, len(raw) - size + 1, size)
        return [int.from_bytes(raw[at : at + size], self.byte_order) for at in starts]

    def integer(self, keyword: str, size: int = 2) -> int | None:
        """Return the first value of an element of unsigned binary integers."""
        return next(iter(self.integers(keyword, size)), None)

    def items(self, keyword: str, limit: int = _FEW_BYTES) -> list[Node]:
        """Return the items of a sequence.

        Raises:
            DicomError: It takes more than `limit` bytes, or is not made of items.
        """
        element = self._elements.get_item(_tag(keyword), keep_deferred=True)
        value = getattr(element, "value", None)
        if value is None or not len(value):
            return []
        if isinstance(value, bytes):
            raw = self.data(keyword)
            if len(raw) > limit:
                msg = f"{keyword} takes {len(raw)} bytes"
                raise DicomError(msg, "too large")
            # PS3.5, 6.2.2: what is stored as UN is encoded with implicit representations
            implicit = bool(getattr(element, "is_implicit_VR", False)) or element.VR == "UN"
            value = _sequence(raw, implicit=implicit, order=self.byte_order)
        # One of undefined length has been read with what is around it.
        found = [item for item in value if hasattr(item, "get_item")]
        return [Node(item, self._codec, self.byte_order) for item in found]


@functools.cache
def _tag(keyword: str) -> int:
    from pydicom.datadict import tag_for_keyword

    tag = tag_for_keyword(keyword)
    assert tag is not None
    return tag


class _Counted(io.BytesIO):
    """Bytes that can be read a limited number of times: each element costs its share of memory."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self._left = _MAX_READS

    def read(self, size: int | None = -1, /) -> bytes:
        self._left -= 1
        if self._left < 0:
            msg = "it has more elements than any ECG"
            raise DicomError(msg, "too large")
        return super().read(size)


def open_dicom(data: bytes) -> Node:
    """Return the data set of a file; only the elements that ECGs need are kept.

    Args:
        data: The file, with or without preamble and file meta information.

    Raises:
        DicomError: It is no DICOM file, or is damaged.
        MissingDependencyError: pydicom is not installed.
    """
    try:
        from pydicom.charset import python_encoding
        from pydicom.filereader import read_dataset
    except ImportError as error:
        raise MissingDependencyError(
            purpose="Reading DICOM", package="pydicom", extra="dicom"
        ) from error
    if not looks_like_dicom(data):
        msg = "it does not begin as a DICOM file does"
        raise DicomError(msg)
    start, syntax = _meta(data)
    body = data[start:]
    if syntax == _DEFLATED:
        body = _inflate(body)
    implicit = syntax == _IMPLICIT or (not syntax and not _is_vr(body[4:6]))
    little = syntax != _BIG_ENDIAN
    tags: list[BaseTag | int] = [_tag(keyword) for keyword in _TOP_LEVEL]
    with _no_surprise():
        elements = read_dataset(
            _Counted(body), is_implicit_VR=implicit, is_little_endian=little, specific_tags=tags
        )
    order: Literal["little", "big"] = "little" if little else "big"
    term = Node(elements, "latin-1", order).text("SpecificCharacterSet")
    return Node(elements, python_encoding.get(term, "latin-1"), order)


def looks_like_dicom(head: bytes) -> bool:
    """Tell whether bytes are the first of a DICOM file, with or without preamble.

    Without one, the file must begin with three elements in ascending order of the groups that
    come first: 2 (file meta information) and 8 (identification).
    """
    if head[_PREAMBLE : _PREAMBLE + 4] == b"DICM":
        return True
    at, last = 0, 0
    for _ in range(3):
        tag, length, at = _element(head, at)
        if tag >> 16 not in {_META_GROUP, 8} or tag <= last or length > len(head):
            return False
        at, last = at + length, tag
    return True


def _element(data: bytes, at: int) -> tuple[int, int, int]:
    """Return tag and length of the little-endian element at a place, and where its value is."""
    tag = int.from_bytes(data[at : at + 2], "little") << 16
    tag |= int.from_bytes(data[at + 2 : at + 4], "little")
    vr = data[at + 4 : at + 6]
    if vr in _LONG:
        return tag, int.from_bytes(data[at + 8 : at + 12], "little"), at + 12
    if _is_vr(vr):
        return tag, int.from_bytes(data[at + 6 : at + 8], "little"), at + 8
    return tag, int.from_bytes(data[at + 4 : at + 8], "little"), at + 8


def _is_vr(two: bytes) -> bool:
    return len(two) == 2 and two.isalpha() and two.isupper()


def _meta(data: bytes) -> tuple[int, str]:
    """Return where the data set begins and the transfer syntax, empty if none is named."""
    at = _PREAMBLE + 4 if data[_PREAMBLE : _PREAMBLE + 4] == b"DICM" else 0
    syntax = b""
    while at + 8 <= len(data):
        tag, length, value = _element(data, at)
        if tag >> 16 != _META_GROUP:
            break
        if tag & 0xFFFF == _TRANSFER_SYNTAX:
            syntax = data[value : value + min(length, 64)]
        at = value + length
    return at, syntax.decode("latin-1").strip(" \0")


def _inflate(body: bytes) -> bytes:
    limit = max(_INFLATED, _INFLATED_RATIO * len(body))
    decoder = zlib.decompressobj(-zlib.MAX_WBITS)  # PS3.5, A.5: RFC 1951, without a header
    try:
        inflated = decoder.decompress(body, limit)
    except zlib.error as error:
        msg = "its deflated data set cannot be inflated"
        raise DicomError(msg, "bad samples") from error
    if decoder.unconsumed_tail or len(inflated) >= limit:
        msg = f"its data set inflates to more than {limit} bytes"
        raise DicomError(msg, "too large")
    if not decoder.eof:
        msg = "its deflated data set ends too early"
        raise DicomError(msg, "truncated")
    return inflated


def _sequence(raw: bytes, *, implicit: bool, order: Literal["little", "big"]) -> Iterable[Dataset]:
    from pydicom.filereader import read_sequence

    with _no_surprise():
        return read_sequence(_Counted(raw), implicit, order == "little", len(raw), "latin-1")


@contextlib.contextmanager
def _no_surprise() -> Iterator[None]:
    """Turn whatever pydicom makes of a damaged file into one kind of error, without warnings."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except (DicomError, MemoryError):
        raise
    except Exception as error:  # the library names none
        msg = "its elements do not follow one another as DICOM demands"
        raise DicomError(msg) from error
