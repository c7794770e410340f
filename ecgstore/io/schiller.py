"""Read Schiller XML (root ``…schillerEDI.SchillerEDI``): samples as comma-separated text.

The format has no public specification; what is not known from files is refused, not guessed at.
The exponent of the sampling rate is 1 where 500 means 500 Hz (the file's beats and its heart rate
say so), hence the rate is taken as it stands, and another exponent is refused.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import math
import re
from typing import TYPE_CHECKING

import numpy as np

from ecgstore.io.assemble import assemble, in_millivolts, refuse
from ecgstore.io.clinical import age_of, measured, report_of, sex_of
from ecgstore.io.digits import whole_numbers
from ecgstore.io.files import file_bytes
from ecgstore.io.reader import Reader
from ecgstore.io.xml import child_text, parse, root_name
from ecgstore.record import INVALID, Signal

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from xml.etree.ElementTree import Element

    from numpy.typing import NDArray

    from ecgstore.record import Record

__all__ = ["READER", "read"]

_ROOT = "SchillerEDI"  # after the Java package that wrote it
_MEASURED = {
    "HR": "heart_rate",
    "RR": "rr",
    "P": "p_duration",
    "PQ": "pr",
    "QRS": "qrs",
    "QT": "qt",
    "QTC": "qtc",
    "AXIS_P": "p_axis",
    "AXIS_QRS": "qrs_axis",
    "AXIS_T": "t_axis",
}
# In samples of the average beat: in the file (QRS_OFF - QRS_ON) / rate is QRS, (QRS_ON - P_ON) /
# rate is PQ, (T_OFF - QRS_ON) / rate is QT.
_ONSETS = {
    "P_ON": "p_onset",
    "P_OFF": "p_offset",
    "QRS_ON": "qrs_onset",
    "QRS_OFF": "qrs_offset",
    "T_OFF": "t_offset",
}
_IDENTITY = re.compile(r"id$|name|birth|serial|user|initials|address|phone|ssn")
_BLANKS = re.compile(r"\s*,\s*")
_EPOCH = dt.datetime(1970, 1, 1)  # what a cart without a clock writes


def read(path: Path) -> Record:
    """Return the rhythm recording of a Schiller export, ten seconds of twelve leads.

    The average beats are left out. A second rhythm recording is flagged ``unread_waveforms``, a
    date that is none ``unread_date``.

    Raises:
        ReadError: With a reason of `ecgstore.io.assemble.REASONS`; no other error is raised.
    """
    data = file_bytes(path)
    root = parse(path, data)
    if not root.tag.endswith(_ROOT):
        raise refuse(path, "unknown format", f"its root is not {_ROOT}, it is no Schiller export")
    waves = root.findall("eventdata/event/wavedata")
    rhythms = [one for one in waves if (child_text(one, "type") or "").startswith("ECG_RHYTHM")]
    if not rhythms:
        raise refuse(path, "no signals", "it holds no wavedata of type ECG_RHYTHMS")
    flags = [f"unread_waveforms:{len(rhythms) - 1}"] if len(rhythms) > 1 else []
    rhythm = rhythms[0]
    rate_hz = _rate(rhythm)
    if rate_hz is None:
        raise refuse(path, "bad header", "its sampling rate is not one that can be understood")
    gain = _gain(path, rhythm)
    meta, found = _meta(root, waves)
    return assemble(
        path,
        [_signal(path, channel, gain) for channel in rhythm.findall("channel")],
        rate_hz=rate_hz,
        meta=meta
        | {"source_format": "schiller", "source_sha256": hashlib.sha256(data).hexdigest()},
        quality=flags + found,
    )


def _matches(head: bytes, path: Path) -> bool:
    return (root_name(head) or "").endswith(_ROOT)


READER = Reader(
    name="schiller",
    summary="Schiller XML (SEMA, SchillerEDI)",
    suffixes=(".xml",),
    matches=_matches,
    read=read,
)


def _rate(wave: Element) -> float | None:
    rate_hz = _number(child_text(wave, "resolution/samplerate/value"))
    exponent = child_text(wave, "resolution/samplerate/exponent")
    usable = exponent in {None, "1"} and rate_hz is not None and 0 < rate_hz < 1e6
    return rate_hz if usable else None


def _gain(path: Path, wave: Element) -> float:
    """Return the counts per millivolt."""
    per_bit = _number(child_text(wave, "resolution/yres/unitperbit"))
    if per_bit is None or per_bit <= 0:
        raise refuse(path, "bad header", "its scale is missing or no number")
    gain, unit = in_millivolts(1 / per_bit, child_text(wave, "resolution/yres/units") or "")
    if unit != "mV":
        raise refuse(path, "unknown unit", "the unit of its samples is not a known one")
    return gain


def _number(text: str | None) -> float | None:
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _signal(path: Path, channel: Element, gain: float) -> Signal:
    name = child_text(channel, "name")
    if name is None:
        raise refuse(path, "no leads", "a channel has no name")
    if child_text(channel, "datastype") not in {None, "COMMASEPARATE"}:
        raise refuse(path, "unsupported format", "its samples are not separated by commas")
    counts = _counts(path, channel.findtext("data") or "", name[:20])
    announced = child_text(channel, "samplecount")
    if announced is not None and announced != str(len(counts)):
        short = announced.isdecimal() and int(announced[:12]) > len(counts)
        detail = f"lead {name[:20]!r} has {len(counts)} samples, not the number announced"
        raise refuse(path, "truncated" if short else "bad samples", detail)
    if counts.size and counts.min() > INVALID and counts.max() <= -INVALID - 1:
        return Signal(name, counts.astype(np.int16), gain, 0)
    # beyond int16, or INVALID itself: a sample like any other, as no code for a lost one is known
    return Signal(name, counts, gain, 0, lost=np.zeros(counts.shape, np.bool_))


def _counts(path: Path, text: str, name: str) -> NDArray[np.int64]:
    numbers = text.strip()
    if len(numbers.split(maxsplit=1)) > 1:
        numbers = _BLANKS.sub(",", numbers)  # but a blank within a number stays, and is refused
    numbers = numbers.removesuffix(",")  # a comma follows every number, the last one too
    if not numbers:
        return np.empty(0, np.int64)
    try:
        counts = whole_numbers(numbers.encode("ascii"), b",")
        if len(counts) != numbers.count(",") + 1:
            msg = "a number is missing between two commas"
            raise ValueError(msg)
    except ValueError as error:
        detail = f"lead {name!r} is not made of whole numbers and commas"
        raise refuse(path, "bad samples", detail) from error
    return counts


def _meta(root: Element, waves: list[Element]) -> tuple[dict[str, object], list[str]]:
    patient, exam = root.find("patdata"), root.find("examdescript")
    day = child_text(exam, "startdatetime/date")
    recorded = _moment(day, child_text(exam, "startdatetime/time"))
    born = _moment(child_text(patient, "birthdate"), "000000")
    identifiers = tuple(dict.fromkeys(_identity(root)))
    said = [
        line
        for block in root.iterfind("eventdata/event/textdata")
        for text in block.iter("textdata")
        for line in (text.text or "").splitlines()
    ]
    report, flags = report_of(said, identifiers)
    if day and recorded is None:
        flags.append("unread_date")
    device = [child_text(exam, f"aquiringdevice/hardware/{tag}") for tag in ("vendor", "model")]
    return {
        "recorded_at": None if recorded == _EPOCH else recorded,
        "age": age_of(
            born=born.date() if born else None, recorded=recorded.date() if recorded else None
        ),
        "sex": sex_of(child_text(patient, "gender")),
        "device": " ".join(part[:40] for part in device if part) or None,
        "patient_id": child_text(patient, "id"),
        "report": report,
        "measurements": _measurements(root, waves),
        "identifiers": identifiers or None,
    }, flags


def _moment(day: str | None, time: str | None) -> dt.datetime | None:
    """Return a time stamp from YYYYMMDD and HHMMSS with or without milliseconds."""
    if not re.fullmatch(r"[0-9]{8}", day or "") or not re.fullmatch(r"[0-9]{6,9}", time or ""):
        return None
    try:
        return dt.datetime.strptime(f"{day}{(time or '')[:6]}", "%Y%m%d%H%M%S")
    except ValueError:
        return None


def _measurements(root: Element, waves: list[Element]) -> dict[str, float] | None:
    said = {
        child_text(one, "name"): child_text(one, "value")
        for one in root.iterfind("eventdata/event/annotation_global")
    }
    values: dict[str, float | str | None] = {
        name: said.get(field) for field, name in _MEASURED.items()
    }
    averages = (one for one in waves if child_text(one, "type") == "ECG_AVERAGES")
    rate_hz = next((rate for one in averages if (rate := _rate(one)) is not None), None)
    for field, name in _ONSETS.items():
        at = _number(said.get(field))
        values[name] = None if at is None or rate_hz is None else 1000 * at / rate_hz
    return measured(values)


def _identity(root: Element) -> Iterator[str]:
    """Yield the names and ids of patient, staff, order, institution and device."""
    for section in ("patdata", "examdescript"):
        for field in root.iterfind(f"{section}//*"):
            text = (field.text or "").strip()
            # a number of up to three digits is no one's
            if text and _IDENTITY.search(field.tag) and not re.fullmatch(r"\d{1,3}", text):
                yield text
