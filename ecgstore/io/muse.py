"""Read GE MUSE XML (root ``RestingECG``): base64 counts with a checksum for every lead.

The format has no public specification. What is assumed here holds in every file seen: samples are
little-endian int16, ``LeadDataCRC32`` is the CRC-32 of the decoded bytes, onsets count samples of
the median beat. A lead that needs anything else is refused, never guessed at.
"""

from __future__ import annotations

import binascii
import datetime as dt
import hashlib
import math
import re
import zlib
from typing import TYPE_CHECKING

import numpy as np

from ecgstore.io.assemble import assemble, in_millivolts, refuse
from ecgstore.io.clinical import age_of, measured, report_of, sex_of
from ecgstore.io.files import file_bytes
from ecgstore.io.reader import Reader
from ecgstore.io.xml import child_text, parse, root_name
from ecgstore.record import INVALID, Signal

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path
    from xml.etree.ElementTree import Element

    from numpy.typing import NDArray

    from ecgstore.record import Record

__all__ = ["READER", "read"]

_ROOT = "RestingECG"
_UNITS = {"microvolts": "uV", "millivolts": "mV", "nanovolts": "nV", "volts": "V"}
_MEASURED = {
    "VentricularRate": "heart_rate",
    "AtrialRate": "atrial_rate",
    "PRInterval": "pr",
    "QRSDuration": "qrs",
    "QTInterval": "qt",
    "QTCorrected": "qtc",
    "PAxis": "p_axis",
    "RAxis": "qrs_axis",
    "TAxis": "t_axis",
}
# In samples of the median beat at ECGSampleBase: in all files (QOffset - QOnset) / ECGSampleBase
# is QRSDuration, (QOnset - POnset) / ECGSampleBase PRInterval.
_ONSETS = {
    "POnset": "p_onset",
    "POffset": "p_offset",
    "QOnset": "qrs_onset",
    "QOffset": "qrs_offset",
    "TOffset": "t_offset",
}
_SIGNAL_OR_STATEMENT = frozenset(
    {"Waveform", "Diagnosis", "OriginalDiagnosis", "MeasurementMatrix", "IntervalMeasurements"}
)
_IDENTITY = re.compile(r"Name|ID$|MRN|SSN|Number|Birth|Initials|Address|Phone|Account|MD|Answer")
# Words of a place's name, such as "Heart Center", say nothing of who a statement is about.
_NO_PERSON = ("Site", "Location", "DateofBirth")
_DATE = re.compile(r"(\d{1,2})-(\d{1,2})-(\d{4})")
_TIME = re.compile(r"(\d{1,2}):(\d{2}):(\d{2})")
_DEVICE = re.compile(r"[A-Za-z0-9][\w /+.-]{0,39}")


def read(path: Path) -> Record:
    """Return the rhythm recording of a MUSE export, ten seconds of 8, 12 or more leads.

    The median beat is left out. ``LeadOff`` and ``BaselineSway`` become flags ``lead_off:<lead>``
    and ``baseline_sway:<lead>``; samples at the limits of the converter ``saturated:<lead>``; a
    lead without checksum ``unverified_checksum``; a ``FirstSampleBaseline`` other than 0, whose
    use is not known, ``first_sample_baseline:<lead>``; a second rhythm block, ``unread_waveforms``.

    Raises:
        ReadError: With a reason of `ecgstore.io.assemble.REASONS`; no other error is raised.
    """
    data = file_bytes(path)
    root = parse(path, data)
    if root.tag != _ROOT:
        raise refuse(path, "unknown format", f"its root is not {_ROOT}, it is no MUSE export")
    waveforms = [
        one
        for one in root.findall("Waveform")
        if (child_text(one, "WaveformType") or "").lower() == "rhythm"
    ]
    if not waveforms:
        raise refuse(path, "no signals", "it holds no waveform of type Rhythm")
    flags = [f"unread_waveforms:{len(waveforms) - 1}"] if len(waveforms) > 1 else []
    signals, found = _signals(path, waveforms[0])
    flags += found
    meta, found = _meta(root)
    return assemble(
        path,
        signals,
        rate_hz=_rate(path, waveforms[0]),
        meta=meta | {"source_format": "muse", "source_sha256": hashlib.sha256(data).hexdigest()},
        quality=flags + found,
    )


def _matches(head: bytes, path: Path) -> bool:
    return root_name(head) == _ROOT


READER = Reader(
    name="muse",
    summary="GE MUSE XML (RestingECG)",
    suffixes=(".xml",),
    matches=_matches,
    read=read,
)


def _rate(path: Path, waveform: Element) -> float:
    """Return the samples per second: base times ten to the exponent."""
    rate_hz = _sample_rate(waveform, "Sample")
    if rate_hz is None:
        raise refuse(path, "bad header", "its sampling rate is missing or no number")
    return rate_hz


def _sample_rate(element: Element, prefix: str) -> float | None:
    base = _number(child_text(element, f"{prefix}Base"))
    exponent = _number(child_text(element, f"{prefix}Exponent") or "0")
    if base is None or exponent is None or not abs(exponent) <= 6:
        return None
    rate_hz = base * 10.0**exponent
    return rate_hz if 0 < rate_hz < 1e6 else None


def _number(text: str | None) -> float | None:
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _signals(path: Path, waveform: Element) -> tuple[list[Signal], list[str]]:
    kind = child_text(waveform, "SampleType")
    if kind not in {None, "CONTINUOUS_SAMPLES"}:
        raise refuse(path, "unsupported format", "its samples are not of the type CONTINUOUS")
    leads = waveform.findall("LeadData")
    announced = _whole(path, waveform, "NumberofLeads")
    if announced is not None and announced != len(leads):
        detail = f"it announces {announced} leads and holds {len(leads)}"
        raise refuse(path, "truncated" if len(leads) < announced else "bad header", detail)
    starts = {
        (
            _whole(path, lead, "LeadTimeOffset") or 0,
            _whole(path, lead, "LeadOffsetFirstSample") or 0,
        )
        for lead in leads
    }
    if len(starts) > 1:
        raise refuse(path, "unsupported format", "its leads do not start at the same time")
    flags: list[str] = []
    signals = [_signal(path, lead, flags) for lead in leads]
    return signals, flags


def _signal(path: Path, lead: Element, flags: list[str]) -> Signal:
    name = child_text(lead, "LeadID")
    if name is None:
        raise refuse(path, "no leads", "a lead has no LeadID")
    per_bit = _number(child_text(lead, "LeadAmplitudeUnitsPerBit"))
    if per_bit is None or per_bit <= 0:
        raise refuse(path, "bad header", f"the scale of lead {name[:20]!r} is missing or no number")
    spelt = child_text(lead, "LeadAmplitudeUnits") or ""
    gain, unit = in_millivolts(1 / per_bit, _UNITS.get(spelt.lower(), spelt))
    if unit != "mV":
        raise refuse(path, "unknown unit", f"the unit of lead {name[:20]!r} is not a known one")
    counts = _counts(path, lead, name, flags)
    shown = name[:20]
    for tag, flag in (("LeadOff", "lead_off"), ("BaselineSway", "baseline_sway")):
        if (child_text(lead, tag) or "").upper() == "TRUE":
            flags.append(f"{flag}:{shown}")
    if _whole(path, lead, "FirstSampleBaseline"):
        flags.append(f"first_sample_baseline:{shown}")
    low, high = _whole(path, lead, "LeadLowLimit"), _whole(path, lead, "LeadHighLimit")
    if counts.size and (
        (low is not None and counts.min() <= low) or (high is not None and counts.max() >= high)
    ):
        flags.append(f"saturated:{shown}")
    if (counts == INVALID).any():  # a sample like any other: MUSE has no code for a lost one
        return Signal(name, counts.astype(np.int32), gain, 0, lost=np.zeros(counts.shape, np.bool_))
    return Signal(name, counts, gain, 0)


def _counts(path: Path, lead: Element, name: str, flags: list[str]) -> NDArray[np.int16]:
    """Return the samples of a lead, as many as announced and with the checksum announced."""
    if _whole(path, lead, "LeadSampleSize") not in {None, 2}:
        raise refuse(path, "unsupported format", "its samples are not of two bytes")
    text = "".join((lead.findtext("WaveFormData") or "").split())
    try:
        raw = binascii.a2b_base64(text, strict_mode=True)
    except ValueError as error:
        raise refuse(path, "bad samples", f"lead {name[:20]!r} is not in base64") from error
    samples = _whole(path, lead, "LeadSampleCountTotal")
    sizes = [2 * samples] if samples is not None else []
    size = _whole(path, lead, "LeadByteCountTotal")
    sizes += [size] if size is not None else []
    if any(len(raw) != wanted for wanted in sizes) or len(raw) % 2:
        detail = f"lead {name[:20]!r} has {len(raw)} bytes, {max(sizes, default=0)} announced"
        short = any(len(raw) < wanted for wanted in sizes)
        raise refuse(path, "truncated" if short else "bad samples", detail)
    checksum = _whole(path, lead, "LeadDataCRC32")
    if not checksum:
        flags.append("unverified_checksum")
    elif zlib.crc32(raw) != checksum % 2**32:
        raise refuse(path, "wrong checksum", f"lead {name[:20]!r} does not have its checksum")
    return np.frombuffer(raw, "<i2").astype(np.int16, copy=False)


def _whole(path: Path, element: Element, tag: str) -> int | None:
    """Return the whole number of a child, None where there is none."""
    text = child_text(element, tag)
    if text is None:
        return None
    if re.fullmatch(r"[+-]?[0-9]{1,10}", text) is None:
        raise refuse(path, "bad header", f"{tag} is not a whole number")
    return int(text)


def _meta(root: Element) -> tuple[dict[str, object], list[str]]:
    patient, test = root.find("PatientDemographics"), root.find("TestDemographics")
    day = child_text(test, "AcquisitionDate")
    recorded = _moment(day, child_text(test, "AcquisitionTime"))
    born = _moment(child_text(patient, "DateofBirth"), "00:00:00")
    identity = list(_identity(root))
    people = [text for tag, text in identity if not tag.startswith(_NO_PERSON)]
    report, flags = report_of(_statements(root), people)
    if day and recorded is None:
        flags.append("unread_date")
    device = child_text(test, "AcquisitionDevice") or ""
    return {
        "recorded_at": recorded,
        "age": age_of(
            child_text(patient, "PatientAge"),
            child_text(patient, "AgeUnits") or "years",
            born=born.date() if born else None,
            recorded=recorded.date() if recorded else None,
        ),
        "sex": sex_of(child_text(patient, "Gender")),
        "device": device if _DEVICE.fullmatch(device) else None,
        "patient_id": child_text(patient, "PatientID"),
        "report": report,
        "measurements": _measurements(root),
        "identifiers": tuple(dict.fromkeys(text for _, text in identity)) or None,
    }, flags


def _moment(day: str | None, time: str | None) -> dt.datetime | None:
    """Return a time stamp from month-day-year and hour:minute:second, None if it is none."""
    date, clock = _DATE.fullmatch(day or ""), _TIME.fullmatch(time or "")
    if date is None or clock is None:
        return None
    month, day_of_month, year, hour, minute, second = map(int, (*date.groups(), *clock.groups()))
    try:
        return dt.datetime(year, month, day_of_month, hour, minute, second)
    except ValueError:
        return None


def _measurements(root: Element) -> dict[str, float] | None:
    """Return what the overreader left of the measurements, else what the cart measured."""
    for tag in ("RestingECGMeasurements", "OriginalRestingECGMeasurements"):
        block = root.find(tag)
        if block is None:
            continue
        values: dict[str, float | str | None] = {
            name: child_text(block, field) for field, name in _MEASURED.items()
        }
        values["rr"] = child_text(root, "QRSTimesTypes/GlobalRR")
        rate_hz = _sample_rate(block, "ECGSample")
        for field, name in _ONSETS.items():
            at = _number(child_text(block, field))
            values[name] = None if at is None or rate_hz is None else 1000 * at / rate_hz
        found = measured(values)
        if found is not None:
            return found
    return None


def _statements(root: Element) -> Sequence[str]:
    """Return the lines of the diagnosis; pieces of a line follow one another to ENDSLINE."""
    for tag in ("Diagnosis", "OriginalDiagnosis"):
        lines = [""]
        for piece in root.findall(f"{tag}/DiagnosisStatement"):
            lines[-1] += f" {child_text(piece, 'StmtText') or ''}"
            if any((flag.text or "").strip() == "ENDSLINE" for flag in piece.findall("StmtFlag")):
                lines.append("")
        if any(line.strip() for line in lines):
            return lines
    return []


def _identity(root: Element) -> Iterator[tuple[str, str]]:
    """Yield the fields that hold names and ids of patients, staff, sites and orders."""
    for section in root:
        if section.tag in _SIGNAL_OR_STATEMENT:
            continue
        for field in section.iter():
            text = (field.text or "").strip()
            # a number of up to three digits, such as a cart's, is no one's
            if text and _IDENTITY.search(field.tag) and not re.fullmatch(r"\d{1,3}", text):
                yield field.tag, text
