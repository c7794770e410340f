"""What an SCP-ECG record says besides the signal: patient, device, time, measurements, statements.

Clauses are those of EN 1064:2005. Texts end at a zero byte.
"""

from __future__ import annotations

import datetime as dt
import struct
from dataclasses import dataclass

from ecgstore.io.clinical import age_of, measured, sex_of
from ecgstore.io.scp_huffman import ScpError

__all__ = ["Header", "header_of", "measurements_of", "statements_of"]

# 5.4.5: tags of the header.
_PATIENT_ID, _AGE, _BORN, _SEX, _DEVICE, _DATE, _TIME, _END = 2, 4, 5, 8, 14, 25, 26, 255
# Names of the patient, the patient's id, those of physicians and technicians, sequence number.
_IDENTIFIERS = (0, 1, _PATIENT_ID, 3, 20, 21, 22, 31)
_AGE_UNITS = {1: "years", 2: "months", 3: "weeks", 4: "days", 5: "hours"}
_SEXES = {1: "male", 2: "female"}
_MODEL = slice(8, 14)  # of the device's own structure: bytes 9 to 14
_TEXTS = 35  # where its texts begin: length of the first, then five that end in zero
_MANUFACTURER = 4  # among its texts
_YEARS = range(1850, 2101)
# 5.10.3: not measured, rejected, or no such wave; 999 for an axis.
_NO_VALUE = frozenset({29999, 29998, 19999})
_NO_AXIS = 999


@dataclass(frozen=True, slots=True)
class Header:
    """What section 1 says, reduced to what is taken; see `ecgstore.io.assemble.META`."""

    patient_id: str | None = None
    age: float | None = None
    sex: str | None = None
    recorded_at: dt.datetime | None = None
    device: str | None = None
    identifiers: tuple[str, ...] = ()


def header_of(data: bytes) -> Header:
    """Return what section 1 says of patient, device and time.

    Raises:
        ScpError: A field goes on after the end of the section.
    """
    fields = _fields(data)
    date = _date(fields.get(_DATE, b""))
    age = fields.get(_AGE, b"")
    value, unit = struct.unpack_from("<HB", age) if len(age) >= 3 else (0, 0)
    stated = value if value and unit in _AGE_UNITS else None
    sex = fields.get(_SEX, b"")
    return Header(
        patient_id=_text(fields.get(_PATIENT_ID, b"")) or None,
        age=age_of(
            stated, _AGE_UNITS.get(unit, ""), born=_date(fields.get(_BORN, b"")), recorded=date
        ),
        sex=sex_of(_SEXES.get(sex[0])) if sex else None,
        recorded_at=None
        if date is None
        else dt.datetime.combine(date, _time(fields.get(_TIME, b""))),
        device=_device(fields.get(_DEVICE, b"")),
        identifiers=tuple(
            dict.fromkeys(text for tag in _IDENTIFIERS if (text := _text(fields.get(tag, b""))))
        ),
    )


def _fields(data: bytes) -> dict[int, bytes]:
    """Return the fields of section 1 by tag; of those that may come again, the first."""
    fields: dict[int, bytes] = {}
    at = 0
    while at < len(data) and data[at] != _END:
        if at + 3 > len(data):
            break
        tag, size = struct.unpack_from("<BH", data, at)
        at += 3
        if at + size > len(data):
            msg = f"field {tag} of section 1 is cut short"
            raise ScpError(msg, "truncated")
        fields.setdefault(tag, data[at : at + size])
        at += size
    return fields


def _text(raw: bytes) -> str:
    """Return a text up to its zero byte; texts are ASCII, else ISO 8859-1 or UTF-8 (Annex A)."""
    whole = raw.partition(b"\0")[0]
    try:
        return whole.decode("utf-8").strip()
    except UnicodeDecodeError:
        return whole.decode("latin-1").strip()


def _date(raw: bytes) -> dt.date | None:
    """Return a date: year, month, day; some programs write the year high byte first."""
    if len(raw) < 4:
        return None
    for order in ("<", ">"):
        year, month, day = struct.unpack_from(f"{order}HBB", raw)
        if year in _YEARS:
            try:
                return dt.date(year, month, day)
            except ValueError:
                return None
    return None


def _time(raw: bytes) -> dt.time:
    try:
        return dt.time(*raw[:3])
    except (TypeError, ValueError):
        return dt.time()


def _device(raw: bytes) -> str | None:
    """Return manufacturer and model; serial and software numbers are left out."""
    if len(raw) <= _TEXTS:
        return None
    texts = raw[_TEXTS + 1 + raw[_TEXTS] :].split(b"\0")
    maker = _text(texts[_MANUFACTURER - 1]) if len(texts) >= _MANUFACTURER else ""
    return " ".join(part for part in (maker, _text(raw[_MODEL])) if part) or None


def measurements_of(data: bytes) -> dict[str, float] | None:
    """Return the global measurements of section 7, of its first block.

    Times are milliseconds from the start of the reference beat; durations are differences of
    these, and the rate is that of the mean RR interval where none is stated.

    Raises:
        ScpError: The section is cut short.
    """
    if len(data) < 6:
        msg = "section 7 is cut short"
        raise ScpError(msg, "truncated")
    n_blocks, n_spikes, rr = struct.unpack_from("<BBH", data)
    found: dict[str, float | str | None] = {"rr": _value(rr)}
    if n_blocks:
        if len(data) < 6 + 16 * n_blocks:
            msg = f"section 7 has {len(data)} bytes for {n_blocks} blocks"
            raise ScpError(msg, "truncated")
        p_on, p_off, qrs_on, qrs_off, t_off, *axes = struct.unpack_from("<5H3h", data, 6)
        found |= {
            "p_onset": _value(p_on),
            "p_offset": _value(p_off),
            "qrs_onset": _value(qrs_on),
            "qrs_offset": _value(qrs_off),
            "t_offset": _value(t_off),
            "p_duration": _between(p_on, p_off),
            "pr": _between(p_on, qrs_on),
            "qrs": _between(qrs_on, qrs_off),
            "qt": _between(qrs_on, t_off),
        }
        names = ("p_axis", "qrs_axis", "t_axis")
        found |= {
            name: None if axis in _NO_VALUE or abs(axis) == _NO_AXIS else axis
            for name, axis in zip(names, axes, strict=True)
        }
    # 5.10.4 to 5.10.6: four bytes and six more for each pacemaker spike, the type of each
    # complex, then ventricular and atrial rate and corrected QT.
    at = 6 + 16 * n_blocks + 10 * n_spikes
    ventricular = None
    if len(data) >= at + 2:
        at += 2 + struct.unpack_from("<H", data, at)[0]
    if len(data) >= at + 6:
        ventricular, atrial, qtc = map(_value, struct.unpack_from("<3H", data, at))
        found |= {"atrial_rate": atrial, "qtc": qtc}
    from_rr = 60_000 / rr if found["rr"] else None
    found["heart_rate"] = ventricular or (from_rr and round(from_rr, 1))
    return measured(found)


def _value(number: int) -> int | None:
    return None if number in _NO_VALUE else number


def _between(start: int, end: int) -> int | None:
    return None if {start, end} & _NO_VALUE or end <= start else end - start


def statements_of(data: bytes, *, coded: bool) -> list[str]:
    """Return the statements of section 8, or of 11 where each begins with its type.

    Raises:
        ScpError: A statement goes on after the end of the section.
    """
    # 5.11.3, 5.14.3: whether confirmed, date and time of that, number of statements; for each
    # its number and length.
    statements = []
    at = 9
    for _ in range(data[8] if len(data) > 8 else 0):
        size = struct.unpack_from("<H", data, at + 1)[0] if at + 3 <= len(data) else 0
        if at + 3 + size > len(data) or at + 3 > len(data):
            msg = "a statement is cut short"
            raise ScpError(msg, "truncated")
        text = data[at + 3 + coded : at + 3 + size]
        statements.append(_text(text.replace(b"\0", b" ") if coded else text))
        at += 3 + size
    return statements
