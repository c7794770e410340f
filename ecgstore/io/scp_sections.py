"""The layout of an SCP-ECG record: its sections, and the structures that describe the signal.

Clauses are those of EN 1064:2005 (ISO 11073-91064:2009 is the same text). Numbers are little
endian; positions in a file and samples are counted from 1.
"""

from __future__ import annotations

import binascii
import itertools
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ecgstore.io.scp_huffman import Code, Decoder, ScpError, default_decoder

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

__all__ = [
    "Beats",
    "Lead",
    "Leads",
    "Waveforms",
    "beats_of",
    "decoder_of",
    "leads_of",
    "looks_like_scp",
    "sections_of",
    "waveforms_of",
]

_ID_BYTES = 16  # of the header of every section (5.2.7)
_START = 6  # bytes before the first section: checksum and length of the record (5.2.5)
_POINTER = struct.Struct("<HII")  # section, its bytes, its position (5.3)
_MAGIC = b"SCPECG"
_DEFAULT_TABLE = 19999
_MAX_CODES = 2**14  # of all Huffman tables together; the standard's own has 19

# 5.6, table of lead identifications; ISO/IEEE 11073-10101 numbers MDC_ECG_LEAD_* alike. 31 to 60
# are the calibration signals of 1 to 30.
_PLAIN = (
    *(
        "I",
        "II",
        "V1",
        "V2",
        "V3",
        "V4",
        "V5",
        "V6",
        "V7",
        "V2R",
        "V3R",
        "V4R",
        "V5R",
        "V6R",
        "V7R",
    ),
    *("X", "Y", "Z", "CC5", "CM5", "LA", "RA", "LL", "fI", "fE", "fC", "fA", "fM", "fF", "fH"),
)
_LEADS: Mapping[int, str] = (
    dict(enumerate(_PLAIN, 1))
    | {number: f"{name}-cal" for number, name in enumerate(_PLAIN, 31)}
    | dict(enumerate(("III", "aVR", "aVL", "aVF", "-aVR", "V8", "V9", "V8R", "V9R"), 61))
)


@dataclass(frozen=True, slots=True)
class Lead:
    """A lead of section 3: its name, and the samples of the record that it covers."""

    name: str
    first: int
    last: int

    @property
    def n_samples(self) -> int:
        """Samples announced; a lead that starts at 0 is counted from 0, its end not included."""
        return self.last - self.first + (self.first > 0)


@dataclass(frozen=True, slots=True)
class Leads:
    """Section 3: the leads, and whether the reference beat was subtracted from them."""

    leads: tuple[Lead, ...]
    subtracted: bool


@dataclass(frozen=True, slots=True)
class Waveforms:
    """The data part of section 5 or 6.

    Attributes:
        nanovolts: Of one count (amplitude value multiplier).
        interval_us: Microseconds from sample to sample.
        differences: How often neighbours were subtracted: 0, 1 or 2 times.
        bimodal: Whether the samples outside the protected areas are decimated.
        streams: The bytes of each lead.
    """

    nanovolts: int
    interval_us: int
    differences: int
    bimodal: bool
    streams: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Beats:
    """Section 4: where the QRS complexes are.

    Attributes:
        length_ms: Length of the reference beat.
        fiducial: Sample of the reference beat that lies on the fiducial point of a complex.
        zones: ``(n, 4)`` type of beat, first sample, fiducial point and last sample of the zone
            that the reference beat was subtracted from.
        protected: ``(n, 2)`` first and last sample of the areas that are not decimated.
    """

    length_ms: int
    fiducial: int
    zones: NDArray[np.int64]
    protected: NDArray[np.int64]


def looks_like_scp(head: bytes) -> bool:
    """Tell whether a file's first bytes are the start of a record and of its section 0.

    The letters ``SCPECG`` came with version 1.1 of the protocol; without them section 0 must
    describe itself as the pointer section does.
    """
    if len(head) < _START + _ID_BYTES + _POINTER.size:
        return False
    section, n_bytes = struct.unpack_from("<HI", head, _START + 2)
    own = _POINTER.unpack_from(head, _START + _ID_BYTES)
    return section == 0 and (
        head[_START + 10 : _START + _ID_BYTES] == _MAGIC or own == (0, n_bytes, _START + 1)
    )


def sections_of(data: bytes) -> tuple[dict[int, bytes], list[str]]:
    """Return the data parts of the sections by number, and flags.

    A checksum of zero is not verified (flag ``unverified_checksum``); bytes after the record are
    left out (flag ``trailing_bytes``).

    Raises:
        ScpError: The record is cut short, damaged, or its sections are not where they should be.
    """
    if len(data) < _START + _ID_BYTES:
        msg = f"it has {len(data)} bytes"
        raise ScpError(msg, "truncated" if data else "empty file")
    checksum, n_bytes = struct.unpack_from("<HI", data)
    if not looks_like_scp(data):
        msg = "it does not begin with the pointers of SCP-ECG"
        raise ScpError(msg)
    if len(data) < n_bytes:
        msg = f"it says it has {n_bytes} bytes and has {len(data)}"
        raise ScpError(msg, "truncated")
    record = data[:n_bytes]
    flags = [f"trailing_bytes:{len(data) - n_bytes}"] if len(data) > n_bytes else []
    checked = [_check(checksum, record[2:], "the record")]
    sections = {}
    for number, size, position in _pointers(record):
        if size == 0:
            continue
        at = position - 1
        if size < _ID_BYTES or at < _START or at + size > n_bytes or number in sections:
            msg = f"section {number} lies outside the record, or is there twice"
            raise ScpError(msg)
        checksum, own_number, own_size = struct.unpack_from("<HHI", record, at)
        if (own_number, own_size) != (number, size):
            msg = f"section {number} is not where its pointer says"
            raise ScpError(msg)
        checked.append(_check(checksum, record[at + 2 : at + size], f"section {number}"))
        sections[number] = record[at + _ID_BYTES : at + size]
    if not all(checked):
        flags.append("unverified_checksum")
    return sections, flags


def _pointers(record: bytes) -> list[tuple[int, int, int]]:
    n_bytes = struct.unpack_from("<I", record, _START + 4)[0] if len(record) > _START + 8 else 0
    table = record[_START + _ID_BYTES : _START + n_bytes]
    if _START + n_bytes > len(record) or len(table) < _POINTER.size:
        msg = "its table of sections is cut short"
        raise ScpError(msg, "truncated")
    whole = len(table) - len(table) % _POINTER.size
    return [pointer for pointer in _POINTER.iter_unpack(table[:whole]) if pointer[0] != 0]


def _check(checksum: int, data: bytes, what: str) -> bool:
    """Verify a checksum (5.2.2): CRC-CCITT, polynomial 0x1021, starting with 0xFFFF."""
    if checksum and checksum != binascii.crc_hqx(data, 0xFFFF):
        msg = f"the checksum of {what} is wrong"
        raise ScpError(msg, "wrong checksum")
    return checksum != 0


def decoder_of(data: bytes | None) -> Decoder | None:
    """Return the decoder that section 2 describes, None without it: samples are plain int16."""
    if data is None:
        return None
    (n_tables,) = _unpack("<H", data, 0, "section 2")
    if n_tables == _DEFAULT_TABLE:
        return default_decoder()
    tables: list[list[Code]] = []
    at = 2
    for _ in range(n_tables):
        (n_codes,) = _unpack("<H", data, at, "section 2")
        if n_codes + sum(map(len, tables)) > _MAX_CODES:
            msg = "its Huffman tables are larger than any in use"
            raise ScpError(msg, "too large")
        at += 2
        codes = []
        for _ in range(n_codes):
            prefix_bits, bits, mode, base, prefix = _unpack("<BBBhI", data, at, "section 2")
            codes.append(Code(prefix_bits, bits, base, prefix, switches=mode == 0))
            at += 9
        tables.append(codes)
    return Decoder(tables)


def leads_of(data: bytes) -> Leads:
    """Return what section 3 says."""
    n_leads, flags = _unpack("<BB", data, 0, "section 3")
    fields = [_unpack("<IIB", data, 2 + 9 * k, "section 3") for k in range(n_leads)]
    leads = [Lead(_LEADS.get(code, f"lead {code}"), *span) for *span, code in fields]
    if not leads:
        msg = "it announces no leads"
        raise ScpError(msg, "no signals")
    if any(lead.n_samples <= 0 for lead in leads):
        msg = "a lead has no samples"
        raise ScpError(msg, "no samples")
    return Leads(tuple(leads), subtracted=bool(flags & 1))


def waveforms_of(data: bytes, n_leads: int, what: str) -> Waveforms:
    """Return what section 5 or 6 holds."""
    nanovolts, interval_us, differences, bimodal = _unpack("<HHBB", data, 0, what)
    if not nanovolts or not interval_us or differences > 2 or bimodal > 1:
        msg = f"{what} has no amplitude, no sampling interval, or an unknown encoding"
        raise ScpError(msg)
    sizes = _unpack(f"<{n_leads}H", data, 6, what)
    ends = np.cumsum([6 + 2 * n_leads, *sizes]).tolist()
    if ends[-1] > len(data):
        msg = f"the leads of {what} take {ends[-1]} bytes, it has {len(data)}"
        raise ScpError(msg, "truncated")
    if any(data[ends[-1] :]):
        msg = f"{what} holds more than its {n_leads} leads"
        raise ScpError(msg)
    streams = (data[start:end] for start, end in itertools.pairwise(ends))
    return Waveforms(nanovolts, interval_us, differences, bool(bimodal), tuple(streams))


def beats_of(data: bytes) -> Beats:
    """Return what section 4 holds; files leave out either of its two lists."""
    length_ms, fiducial, n = _unpack("<HHH", data, 0, "section 4")
    rest = data[6:]
    zone = np.dtype([("type", "<u2"), ("first", "<u4"), ("fiducial", "<u4"), ("last", "<u4")])
    both = zone.itemsize + 8
    n_zones = n if len(rest) in {n * zone.itemsize} or len(rest) >= n * both else 0
    n_protected = n if len(rest) == 8 * n or len(rest) >= n * both else 0
    if n and not n_zones and not n_protected:
        msg = f"section 4 has {len(rest)} bytes for {n} complexes"
        raise ScpError(msg, "truncated")
    zones = np.frombuffer(rest, zone, n_zones)
    protected = np.frombuffer(rest, "<u4", 2 * n_protected, n_zones * zone.itemsize)
    return Beats(
        length_ms,
        fiducial,
        np.stack([zones[name].astype(np.int64) for name in zone.names or ()], axis=1),
        protected.astype(np.int64).reshape(-1, 2),
    )


def _unpack(layout: str, data: bytes, at: int, what: str) -> tuple[int, ...]:
    if at + struct.calcsize(layout) > len(data):
        msg = f"{what} is cut short"
        raise ScpError(msg, "truncated")
    return struct.unpack_from(layout, data, at)
