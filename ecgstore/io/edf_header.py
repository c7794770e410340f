"""Parse the header of EDF, EDF+, BDF and BDF+ files and check it against the file's size.

EDF: Kemp et al., Electroencephalogr Clin Neurophysiol 82:391 (1992); EDF+: Kemp & Olivan, Clin
Neurophysiol 114:1755 (2003). BDF is BioSemi's variant with samples of 24 bits.
"""

from __future__ import annotations

import datetime as dt
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ecgstore.io.scale import Scale, decimal, scale_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from fractions import Fraction

__all__ = ["EdfError", "Header", "SignalHeader", "looks_like_edf", "parse_header"]

_EDF, _BDF = b"0       ", b"\xffBIOSEMI"
_FIXED = 256
_WIDTHS = (16, 80, 8, 8, 8, 8, 8, 80, 8, 32)  # of the fields of each signal
_ANNOTATIONS = frozenset(["EDF Annotations", "BDF Annotations"])
_UNKNOWN_DATE = dt.date(1985, 1, 1)  # EDF+, 2.1.3.2: "if unknown, use 01.01.85"
_DATE = re.compile(r"(\d{1,2})\D(\d{1,2})\D(\d{2})")
_PLUS_DATE = re.compile(r"(\d{1,2})-([A-Za-z]{3})-(\d{4})")
_MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
_SERIAL = re.compile(r"\d{5}")


class EdfError(ValueError):
    """A header does not follow EDF; ``reason`` is a key of `ecgstore.io.assemble.REASONS`."""

    def __init__(self, message: str, reason: str = "bad header") -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class SignalHeader:
    """One signal of the file.

    Attributes:
        label: As spelt.
        scale: None where the ranges give none.
        n_samples: Samples in a data record.
        start: Byte of a data record at which they begin.
    """

    label: str
    scale: Scale | None
    n_samples: int
    start: int

    @property
    def is_annotations(self) -> bool:
        """Whether it holds annotations and no samples."""
        return self.label in _ANNOTATIONS


@dataclass(frozen=True, slots=True)
class Header:
    """What the header says.

    Attributes:
        width: Bytes per sample: 2, or 3 for BDF.
        size: Bytes of the header.
        record_bytes: Bytes of a data record.
        n_records: Data records, all of them within the file.
        duration_s: Seconds of a data record; 0 only where nothing but annotations is there.
        discontinuous: Whether data records may be apart in time (EDF+D, BDF+D).
        signals: In the order of the file.
        recorded_at: Start, to the second.
        born: Birth date, to be turned into an age.
        sex: As spelt.
        patient_id: The hospital's code of the patient.
        device: Equipment.
        identifiers: What may name a person or place.
        flags: ``unknown_length``, ``ignored_bytes:<n>``.
    """

    width: int
    size: int
    record_bytes: int
    n_records: int
    duration_s: Fraction
    discontinuous: bool
    signals: tuple[SignalHeader, ...]
    recorded_at: dt.datetime | None
    born: dt.date | None
    sex: str | None
    patient_id: str | None
    device: str | None
    identifiers: tuple[str, ...]
    flags: tuple[str, ...]


def looks_like_edf(head: bytes) -> bool:
    """Tell whether bytes are the first of a file of the family."""
    if len(head) < _FIXED or head[:8] not in {_EDF, _BDF}:
        return False
    n_signals = _integer(head[252:256])
    return n_signals is not None and _integer(head[184:192]) == _FIXED * (n_signals + 1)


def parse_header(data: bytes) -> Header:
    """Return what the header of a whole file says.

    Raises:
        EdfError: It does not follow the format, or announces more than the file holds.
    """
    if not looks_like_edf(data):
        msg = "it does not begin with a header of EDF or BDF"
        raise EdfError(msg)
    width = 3 if data.startswith(_BDF) else 2
    n_signals = _integer(data[252:256]) or 0
    size = _FIXED * (n_signals + 1)
    if n_signals < 1:
        msg = "it announces no signals"
        raise EdfError(msg, "no signals")
    if len(data) < size:
        msg = f"a header of {size} bytes announced, {len(data)} found"
        raise EdfError(msg, "truncated")
    signals = _signals(data[_FIXED:size], n_signals, width)
    duration_s = decimal(_text(data[244:252]))
    ordinary = any(not one.is_annotations for one in signals)
    if duration_s is None or duration_s < 0 or (ordinary and duration_s == 0):
        msg = "the duration of a data record is missing or out of range"
        raise EdfError(msg)
    record_bytes = sum(one.n_samples for one in signals) * width
    n_records, flags = _n_records(_integer(data[236:244]), len(data) - size, record_bytes)
    plus = _text(data[192:197])
    person, recording = _text(data[8:88]), _text(data[88:168])
    is_plus = plus[:5] in {"EDF+C", "EDF+D", "BDF+C", "BDF+D"}
    who = _Who.of(person, recording) if is_plus else _Who(identifiers=(person, recording))
    return Header(
        width=width,
        size=size,
        record_bytes=record_bytes,
        n_records=n_records,
        duration_s=duration_s,
        discontinuous=plus.endswith("+D"),
        signals=signals,
        recorded_at=_start(_text(data[168:176]), _text(data[176:184]), who.day),
        born=who.born,
        sex=who.sex,
        patient_id=who.patient_id,
        device=who.device,
        identifiers=tuple(one for one in who.identifiers if one),
        flags=flags,
    )


def _signals(raw: bytes, n_signals: int, width: int) -> tuple[SignalHeader, ...]:
    columns: list[list[str]] = []
    at = 0
    for size in _WIDTHS:
        columns.append([_text(raw[at + i * size : at + (i + 1) * size]) for i in range(n_signals)])
        at += size * n_signals
    signals = []
    start = 0
    for number, (label, _, unit, *ranges, _, samples, _) in enumerate(zip(*columns, strict=True)):
        n_samples = _integer(samples.encode("latin-1"))
        if n_samples is None or n_samples < 1:
            msg = f"signal {number + 1} has no samples in a data record"
            raise EdfError(msg)
        signals.append(SignalHeader(label, _scale(ranges, unit), n_samples, start))
        start += n_samples * width
    return tuple(signals)


def _scale(ranges: Sequence[str], unit: str) -> Scale | None:
    """Return the scale by which the digital range gives the physical one."""
    numbers = [number for one in ranges if (number := decimal(one)) is not None]
    if len(numbers) < 4:
        return None
    low, high, first, last = numbers
    if low == high or first == last:
        return None
    step = (high - low) / (last - first)
    return scale_of(step, low - step * first, unit)


def _n_records(stated: int | None, there: int, record_bytes: int) -> tuple[int, tuple[str, ...]]:
    """Return how many data records there are, and flags."""
    if stated is None or stated < -1:
        msg = "the number of data records is missing"
        raise EdfError(msg)
    n_records = there // record_bytes if stated == -1 else stated
    left_over = there - n_records * record_bytes
    if left_over < 0:
        msg = f"{n_records * record_bytes} bytes of data records announced, {there} found"
        raise EdfError(msg, "truncated")
    flags = ["unknown_length"] if stated == -1 else []
    if left_over:
        flags.append(f"ignored_bytes:{left_over}")
    return n_records, tuple(flags)


@dataclass(frozen=True, slots=True)
class _Who:
    """What the two identification fields of 80 characters say."""

    identifiers: tuple[str, ...]
    patient_id: str | None = None
    sex: str | None = None
    born: dt.date | None = None
    day: dt.date | None = None
    device: str | None = None

    @classmethod
    def of(cls, person: str, recording: str) -> _Who:
        """Return what the subfields of EDF+ say (2.1.3.3-4); free text is not trusted."""
        patient, recorded = _subfields(person), _subfields(recording)
        if len(patient) < 4 or not recording.startswith("Startdate "):
            return cls(identifiers=(person, recording))
        code, sex, birth, *names = patient
        day, *places = recorded[1:]
        equipment = places[2] if len(places) > 2 else None
        named = [code, *names, *places[:2], *places[3:]]
        if equipment and not _is_equipment(equipment):
            named.append(equipment)
        return cls(
            identifiers=tuple(one for one in named if one),
            patient_id=code,
            sex=sex,
            born=_plus_date(birth),
            day=_plus_date(day),
            device=equipment if equipment and _is_equipment(equipment) else None,
        )


def _is_equipment(text: str) -> bool:
    """Tell a model from a person, whose name is there when a blank has split the field before.

    A model has a number, but no serial one.
    """
    return re.search(r"\d", text) is not None and not _SERIAL.search(text)


def _subfields(field: str) -> list[str | None]:
    """Return the subfields of a field: blanks part them, X is unknown, underscores are blanks."""
    return [None if one == "X" else one.replace("_", " ") for one in field.split()]


def _plus_date(text: str | None) -> dt.date | None:
    match = _PLUS_DATE.fullmatch(text or "")
    if match is None or match[2].upper() not in _MONTHS or not "1800" <= match[3] <= "2199":
        return None
    try:
        return dt.date(int(match[3]), _MONTHS.index(match[2].upper()) + 1, int(match[1]))
    except ValueError:
        return None


def _start(date: str, time: str, day: dt.date | None) -> dt.datetime | None:
    """Return the start: the four-digit year of EDF+ first, else 1985 to 2084."""
    match, clock = _DATE.fullmatch(date), _DATE.fullmatch(time)
    try:
        if day is None and match is not None:
            year = int(match[3])
            day = dt.date(year + (1900 if year >= 85 else 2000), int(match[2]), int(match[1]))
            if day == _UNKNOWN_DATE:
                return None
        if day is None or clock is None:
            return None
        return dt.datetime.combine(day, dt.time(int(clock[1]), int(clock[2]), int(clock[3])))
    except ValueError:
        return None


def _text(raw: bytes) -> str:
    return raw.decode("latin-1").strip(" \0")


def _integer(raw: bytes) -> int | None:
    text = raw.strip(b" \0")
    return int(text) if re.fullmatch(rb"[+-]?\d{1,8}", text) else None
