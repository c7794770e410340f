"""Read ISHNE Holter files (Badilini et al., Ann Noninvasive Electrocardiol 3:263, 1998).

A file is a magic word, a checksum, a header of 512 bytes, a block of text of any length, and
interleaved 16-bit samples; all numbers are little-endian.
"""

from __future__ import annotations

import binascii
import datetime as dt
import hashlib
import struct
from fractions import Fraction
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ecgstore.io.assemble import assemble, refuse
from ecgstore.io.clinical import age_of
from ecgstore.io.files import file_bytes
from ecgstore.io.reader import Reader
from ecgstore.io.scale import scale_of
from ecgstore.record import INVALID, Signal

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from ecgstore.record import Record

__all__ = ["READER", "read"]

_MAGIC = b"ISHNE1.0"
_PROTECTED = 10  # the checksum covers what follows the magic word and itself
_HEADER_END = _PROTECTED + 512
# Size of the text block, samples, offset of the text block and of the samples, version; first
# name, last name, id; sex, race; birth date, date of recording and of the file (day, month, year),
# time (hour, minute, second); leads; code, quality and resolution of each of twelve; pacemaker;
# kind of recorder; sampling rate.
_HEADER = struct.Struct("<4ih40s40s20s2h3h3h3h3hh12h12h12hh40sh")
_MAX_LEADS = 12
_LEADS: Mapping[int, str] = MappingProxyType(
    {0: "unspecified", 1: "bipolar", 2: "X", 3: "Y", 4: "Z"}
    | {5: "I", 6: "II", 7: "III", 8: "aVR", 9: "aVL", 10: "aVF"}
    | {number + 10: f"V{number}" for number in range(1, 7)}
    | {17: "ES", 18: "AS", 19: "AI"}
)
_SEX: Mapping[int, str] = MappingProxyType({1: "male", 2: "female"})
_RECORDERS = frozenset(["", "analog", "digital"])  # what the standard has there: no make or model


class _Header(NamedTuple):
    n_samples: int
    samples_at: int
    text_at: int
    text_size: int
    leads: tuple[tuple[str, int], ...]  # name and resolution in nV
    rate_hz: int
    recorded_at: dt.datetime | None
    age: float | None
    sex: str | None
    device: str | None
    patient_id: str | None
    identifiers: tuple[str, ...]


def read(path: Path) -> Record:
    """Return the record of an ISHNE file.

    A checksum of zero counts as not filled in: the record is flagged ``unverified_checksum``.
    Bytes behind the announced samples are flagged ``ignored_bytes:<n>``. The format has no code
    for an invalid sample. What the file says of the quality of leads is not used.

    Args:
        path: The file.

    Raises:
        ReadError: With a reason of `ecgstore.io.assemble.REASONS`; no other error is raised.
    """
    data = file_bytes(path)
    if not data:
        raise refuse(path, "empty file", "the file is empty")
    if len(data) < _HEADER_END or not data.startswith(_MAGIC):
        raise refuse(path, "bad header", "it does not begin with a header of ISHNE 1.0")
    header = _header(path, data)
    flags = _verify(path, header, data)
    n_leads = len(header.leads)
    n_samples, ignored = _n_samples(path, header, data)
    if ignored:
        flags.append(f"ignored_bytes:{ignored}")
    frames = np.frombuffer(data, "<i2", n_samples * n_leads, header.samples_at)
    counts = np.ascontiguousarray(frames.reshape(n_samples, n_leads).T, np.int16)
    signals = []
    for (name, resolution), row in zip(header.leads, counts, strict=True):
        scale = scale_of(Fraction(resolution), Fraction(0), "nV") if resolution > 0 else None
        if scale is None:
            raise refuse(path, "bad header", f"lead {name} has a resolution of {resolution} nV")
        plain = not (row == INVALID).any()
        signals.append(
            Signal(name, row, scale.gain, 0)
            if plain
            else Signal(name, row.astype(np.int32), scale.gain, 0, lost=np.zeros(n_samples, bool))
        )
    meta = {
        "source_format": "ishne",
        "source_sha256": hashlib.sha256(data).hexdigest(),
        "recorded_at": header.recorded_at,
        "age": header.age,
        "sex": header.sex,
        "device": header.device,
        "patient_id": header.patient_id,
        "identifiers": header.identifiers,
    }
    return assemble(path, signals, rate_hz=float(header.rate_hz), meta=meta, quality=flags)


def _matches(head: bytes, _: Path) -> bool:
    return head.startswith(_MAGIC)


READER = Reader(
    name="ishne",
    summary="ISHNE Holter, version 1.0",
    suffixes=(".ecg", ".ishne"),
    matches=_matches,
    read=read,
)


def _header(path: Path, data: bytes) -> _Header:
    fields = _HEADER.unpack_from(data, _PROTECTED)
    text_size, n_samples, text_at, samples_at, version = fields[:5]
    first, last, code = (_text(raw) for raw in fields[5:8])
    born, recorded = _moment(fields[10:13]), _moment(fields[13:16], fields[19:22])
    n_leads, rate_hz, recorder = fields[22], fields[-1], _text(fields[-2])
    if version != 1 or not 0 < n_leads <= _MAX_LEADS or rate_hz <= 0:
        detail = f"version {version}, {n_leads} leads at {rate_hz} Hz"
        raise refuse(path, "bad header", detail)
    if text_size < 0 or text_at < _HEADER_END or samples_at < text_at + text_size:
        raise refuse(path, "bad header", "its blocks overlap")
    codes, resolutions = fields[23 : 23 + n_leads], fields[47 : 47 + n_leads]
    names = [_LEADS.get(one, f"lead of code {one}") for one in codes]
    return _Header(
        n_samples=n_samples,
        samples_at=samples_at,
        text_at=text_at,
        text_size=text_size,
        leads=tuple(zip(names, resolutions, strict=True)),
        rate_hz=rate_hz,
        recorded_at=recorded,
        age=age_of(born=born and born.date(), recorded=recorded and recorded.date()),
        sex=_SEX.get(fields[8]),
        device=None if recorder.lower() in _RECORDERS else recorder,
        patient_id=code or None,
        identifiers=tuple(one for one in (first, last, code) if one),
    )


def _verify(path: Path, header: _Header, data: bytes) -> list[str]:
    """Check the CRC-CCITT (polynomial 0x1021, start 0xFFFF) of header and text."""
    stated = int.from_bytes(data[8:_PROTECTED], "little")
    if stated == 0:
        return ["unverified_checksum"]
    end = header.text_at + header.text_size
    if end > len(data):
        raise refuse(path, "truncated", f"{end} bytes before the samples, {len(data)} found")
    found = binascii.crc_hqx(data[_PROTECTED:end], 0xFFFF)
    if found != stated:
        raise refuse(path, "wrong checksum", f"the checksum is {found:04x}, not {stated:04x}")
    return []


def _n_samples(path: Path, header: _Header, data: bytes) -> tuple[int, int]:
    """Return samples per lead and how many bytes are left over.

    The standard's "size in samples" is of one lead; the number of all leads' samples together is
    taken too where the bytes agree with it exactly.
    """
    n_leads, stated = len(header.leads), header.n_samples
    there = len(data) - header.samples_at
    if stated <= 0:
        raise refuse(path, "no samples", f"{stated} samples announced")
    if stated * 2 == there and stated % n_leads == 0:
        return stated // n_leads, 0
    size = stated * n_leads * 2
    if size > there:
        raise refuse(path, "truncated", f"{size} bytes of samples announced, {there} found")
    return stated, there - size


def _text(raw: bytes) -> str:
    return raw.split(b"\0", 1)[0].decode("latin-1").strip()


def _moment(date: tuple[int, ...], time: tuple[int, ...] = (0, 0, 0)) -> dt.datetime | None:
    """Return the moment of day, month, year and hour, minute, second; None for none."""
    (day, month, year), (hour, minute, second) = date, time
    try:
        return dt.datetime(year, month, day, hour, minute, second) if year >= 1900 else None
    except ValueError:
        return None
