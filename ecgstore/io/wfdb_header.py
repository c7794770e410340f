"""Parse WFDB header files strictly.

Written from the specification header(5) of the WFDB Software Package: a record line, then one
line a signal or a segment; ``#`` starts a comment. Nothing here opens a file.
"""

from __future__ import annotations

import datetime as dt
import functools
import math
import re
from dataclasses import dataclass
from typing import NamedTuple

from ecgstore.io.identity import naming

__all__ = ["Header", "HeaderError", "SignalLine", "looks_like_header", "parse_header"]

_RECORD = re.compile(
    r"(?P<name>[^\s/]+)(?:/(?P<segments>\d{1,6}))?"
    r"\s+(?P<signals>\d{1,6})"
    r"(?:\s+(?P<rate>[0-9.eE+-]+)(?:/[0-9.eE+-]+(?:\([0-9.eE+-]+\))?)?"
    r"(?:\s+(?P<length>\d{1,18})(?:\s+(?P<rest>.+))?)?)?"
)
_FORMAT = re.compile(
    r"(?P<format>\d{1,4})(?:x(?P<per_frame>\d{1,6}))?(?::(?P<skew>\d{1,9}))?(?:\+(?P<offset>\d{1,18}))?"
)
_GAIN = re.compile(
    r"(?P<gain>[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)(?:\((?P<baseline>[+-]?\d{1,10})\))?(?:/(?P<units>\S+))?"
)
_BASE_TIME = re.compile(r"(?:(\d{1,2}):)?(\d{1,2}):(\d{1,2})(?:\.(\d{1,6})\d*)?")
_BASE_DATE = re.compile(r"(\d{1,2})/(\d{1,2})/(\d{4})")
# Both dialects of the PhysioNet challenges ("Age: 85", " Age: 85"), PTB ("age: 81") and the
# bracketed form of header(5)'s example ("<age>: 25  <sex>: M").
_AGE = re.compile(r"(?:^|\s)<?age>?\s*:\s*([0-9.]+)", re.IGNORECASE)
_SEX = re.compile(r"(?:^|\s)<?(?:sex|gender)>?\s*:\s*(m|f|male|female)\b", re.IGNORECASE)
# Both dialects of the challenges: "Dx: 426783006" and " Dx: 284470004,427084000".
_DX = re.compile(r"^Dx\s*:\s*([0-9][0-9,;\s]*)$", re.IGNORECASE)
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\x85\u2028\u2029]")

_DEFAULT_RATE_HZ = 250.0  # header(5): DEFFREQ
_DEFAULT_GAIN = 200.0  # header(5): DEFGAIN, also meant by a gain of 0
_MAX_AGE = 130.0


class HeaderError(ValueError):
    """A header does not follow header(5)."""


class SignalLine(NamedTuple):
    """One signal line.

    Attributes:
        file: Name of the signal file.
        format: Storage format, such as 16 or 212.
        per_frame: Samples per frame.
        skew: Frames by which the signal lags.
        offset: Byte at which samples begin.
        gain: Counts per unit.
        baseline: Count that stands for 0 units.
        units: Physical unit; header(5) assumes mV.
        initial: First sample, or None.
        checksum: Sum of all samples modulo 65536, or None.
        name: Description, in practice the lead.
    """

    file: str
    format: int
    per_frame: int
    skew: int
    offset: int
    gain: float
    baseline: int
    units: str
    initial: int | None
    checksum: int | None
    name: str


@dataclass(frozen=True, slots=True)
class Header:
    """A parsed header.

    Attributes:
        signals: Signal lines; empty in a multi-segment header.
        segments: Name and frames of each segment; empty in a single-segment header.
        n_signals: Signals announced.
        rate_hz: Frames per second.
        n_frames: Frames, or None where the header leaves it to the size of the signal file.
        recorded_at: Base date and time, None where either is absent; the zone is not known.
        age: Years, from a comment; None where it is absent or beyond any human's.
        sex: ``male`` or ``female``, from a comment, or None.
        dx: SNOMED CT codes of a ``Dx`` comment, as in the PhysioNet challenges.
        identifiers: What comments say of people.
    """

    signals: tuple[SignalLine, ...]
    segments: tuple[tuple[str, int], ...]
    n_signals: int
    rate_hz: float
    n_frames: int | None
    recorded_at: dt.datetime | None
    age: float | None
    sex: str | None
    dx: tuple[str, ...] = ()
    identifiers: tuple[str, ...] = ()


def parse_header(data: bytes) -> Header:
    """Return what the bytes of a ``.hea`` file say.

    Raises:
        HeaderError: They do not follow the specification.
    """
    lines, comments = _split(data)
    if not lines:
        msg = "there is no record line"
        raise HeaderError(msg)
    match = _RECORD.fullmatch(lines[0])
    if match is None:
        msg = "the first line is not a WFDB record line"
        raise HeaderError(msg)
    n_signals = int(match["signals"])
    n_segments = int(match["segments"]) if match["segments"] else 0
    wanted = n_segments or n_signals
    if len(lines) - 1 < wanted:
        msg = f"{wanted} signal or segment lines announced, {len(lines) - 1} found"
        raise HeaderError(msg)
    body = lines[1 : 1 + wanted]
    sex = _first(_SEX, comments)
    return Header(
        signals=() if n_segments else tuple(_signal(line) for line in body),
        segments=tuple(_segment(line) for line in body) if n_segments else (),
        n_signals=n_signals,
        rate_hz=_rate(match["rate"]),
        # header(5): a length of 0 means that it is not known.
        n_frames=int(match["length"] or 0) or None,
        recorded_at=_base_time(match["rest"]),
        age=_age(comments),
        sex=None if sex is None else "male" if sex[0].lower() == "m" else "female",
        dx=tuple(dict.fromkeys(re.findall(r"\d+", _first(_DX, comments) or ""))),
        identifiers=naming(comments),
    )


def looks_like_header(head: bytes) -> bool:
    """Tell whether the first bytes of a file can be those of a header, whatever its name."""
    if b"\0" in head:
        return False
    lines = [line.split(b"#")[0].strip() for line in head.splitlines()]
    said = [line.decode("latin-1") for line in lines if line][:2]
    match = _RECORD.fullmatch(said[0]) if len(said) == 2 else None
    fields = said[1].split() if match is not None else []
    if match is None or len(fields) < 2 or fields[0].replace(".", "").isdecimal():
        return False
    return bool(_FORMAT.fullmatch(fields[1])) and (match["segments"] is not None or len(fields) > 2)


def _split(data: bytes) -> tuple[list[str], list[str]]:
    """Return lines that say something and comments, both stripped."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = data.decode("latin-1")  # old headers carry µ and names in comments
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    if _CONTROL.search(text):
        msg = "it holds bytes that no text has"
        raise HeaderError(msg)
    lines, comments = [], []
    for line in text.split("\n"):
        said, mark, comment = line.partition("#")
        if said := said.strip():
            lines.append(said)
        if mark:
            comments.append(comment.strip())
    return lines, comments


def _signal(line: str) -> SignalLine:
    fields = line.split(None, 8)
    if len(fields) < 2:
        msg = "a signal line has no format"
        raise HeaderError(msg)
    # ADC resolution, ADC zero, initial value, checksum, block size
    numbers = [_integer(field) for field in fields[3:8]]
    storage = _storage(fields[1])
    gain, baseline, units = _scale(fields[2] if len(fields) > 2 else "0")
    if baseline is None:
        baseline = numbers[1] if len(numbers) > 1 else 0
    initial = numbers[2] if len(numbers) > 2 else None
    checksum = numbers[3] if len(numbers) > 3 else None
    name = fields[8].strip() if len(fields) > 8 else ""
    return SignalLine(fields[0], *storage, gain, baseline, units, initial, checksum, name)


@functools.lru_cache(maxsize=256)  # an archive repeats a handful of these in every header
def _storage(field: str) -> tuple[int, int, int, int]:
    """Return format, samples per frame, skew and byte offset."""
    match = _FORMAT.fullmatch(field)
    if match is None:
        msg = f"{_shown(field)} is not a signal format"
        raise HeaderError(msg)
    parts = match["format"], match["per_frame"] or 1, match["skew"] or 0, match["offset"] or 0
    form, per_frame, skew, offset = (int(part) for part in parts)
    if per_frame == 0:
        msg = "a signal has no samples in a frame"
        raise HeaderError(msg)
    return form, per_frame, skew, offset


@functools.lru_cache(maxsize=256)
def _scale(field: str) -> tuple[float, int | None, str]:
    """Return gain, baseline where there is one, and units."""
    match = _GAIN.fullmatch(field)
    gain = float(match["gain"]) if match else math.nan
    if match is None or not math.isfinite(gain):
        msg = f"{_shown(field)} is not a gain"
        raise HeaderError(msg)
    baseline = int(match["baseline"]) if match["baseline"] else None
    return gain or _DEFAULT_GAIN, baseline, match["units"] or "mV"


def _segment(line: str) -> tuple[str, int]:
    fields = line.split()
    if len(fields) != 2 or not fields[1].isdecimal() or len(fields[1]) > 18:
        msg = "a segment line is not a name and a number of frames"
        raise HeaderError(msg)
    return fields[0], int(fields[1])


@functools.lru_cache(maxsize=4096)
def _integer(field: str) -> int:
    digits = field[1:] if field[0] in "+-" else field
    if not digits.isdecimal() or len(digits) > 10:
        msg = f"{_shown(field)} stands where a whole number was expected"
        raise HeaderError(msg)
    return int(field)


def _rate(field: str | None) -> float:
    if field is None:
        return _DEFAULT_RATE_HZ
    try:
        rate = float(field)
    except ValueError:
        rate = math.nan
    if not 0 < rate < 1e6:
        msg = f"{_shown(field)} is not a sampling rate"
        raise HeaderError(msg)
    return rate


def _base_time(field: str | None) -> dt.datetime | None:
    """Return base time and date in the form of header(5), ``HH:MM:SS DD/MM/YYYY``.

    The challenge sets write ``05-May-2020 14:50:55`` instead: that is the day their files were
    made, not the day of the recording, and is not taken.
    """
    fields = (field or "").split()
    if len(fields) != 2:
        return None
    time, date = _BASE_TIME.fullmatch(fields[0]), _BASE_DATE.fullmatch(fields[1])
    if time is None or date is None:
        return None
    hours, minutes, seconds = (int(part or 0) for part in time.groups()[:3])
    day, month, year = (int(part) for part in date.groups())
    fraction = int((time[4] or "0").ljust(6, "0"))
    try:
        return dt.datetime(year, month, day, hours, minutes, seconds, fraction)
    except ValueError:
        return None


def _age(comments: list[str]) -> float | None:
    found = _first(_AGE, comments)
    try:
        age = float(found) if found else math.nan
    except ValueError:
        return None
    return age if 0 <= age <= _MAX_AGE else None


def _first(pattern: re.Pattern[str], comments: list[str]) -> str | None:
    return next((match[1] for line in comments if (match := pattern.search(line))), None)


def _shown(field: str) -> str:
    """Return a field for a message if it cannot be a name or id that stands in the wrong place."""
    return repr(field) if len(re.sub(r"[^\w]", "", field)) < 4 else "a word"
