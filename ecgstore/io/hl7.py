"""Read HL7 annotated ECG (aECG, ``AnnotatedECG`` of December 2003; ANSI/HL7 V3 ECG, R1-2004).

The record is the series of code ``RHYTHM``; beats derived from it are none of it. A series is one
or more sets of sequences, each with a clock and leads of equal length. Sets that begin at different
times, as where a cart prints four columns of three leads, are put in their place; where a lead was
not recorded its samples are marked lost.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import math
import re
import statistics
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ecgstore.io.assemble import assemble, in_millivolts, refuse
from ecgstore.io.clinical import MEASUREMENTS, age_of, measured, report_of, sex_of
from ecgstore.io.digitise import from_floats
from ecgstore.io.digits import whole_numbers
from ecgstore.io.files import file_bytes
from ecgstore.io.reader import Reader
from ecgstore.io.xml import child_text, parse, root_name
from ecgstore.record import Signal

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path
    from xml.etree.ElementTree import Element

    from numpy.typing import NDArray

    from ecgstore.record import Record

__all__ = ["READER", "read"]

_ROOT = "AnnotatedECG"
_CLOCKS = frozenset({"TIME_ABSOLUTE", "TIME_RELATIVE"})
_PER_SECOND = {"s": 1.0, "ms": 1e3, "us": 1e6}  # UCUM
_FACTORS: Mapping[str, Mapping[str, float]] = {
    "ms": {"s": 1e3, "ms": 1.0, "us": 1e-3},
    "deg": {"deg": 1.0},
    "bpm": {"bpm": 1.0, "/min": 1.0, "1/min": 1.0, "{beats}/min": 1.0, "{h.b.}/min": 1.0},
}
_MAX_LOST = 16  # samples of all leads per one that is there; four columns of three leads have 4
_MAX_SEQUENCES = 20_000  # a day of twelve leads, by the minute, has 18,720 with their clocks
_AGE_CODES = frozenset({"21612-7", "21611-9", "29553-5", "30525-0"})  # LOINC: age in various ways
_STAMP = re.compile(r"(\d{8})(\d{2})?(\d{2})?(\d{2})?(?:\.(\d{1,6})\d*)?(?:[+-]\d{4})?")
_PLAUSIBLE = 2**31  # beyond any converter's count

_PERFORMERS = ("studyEventPerformer", "seriesPerformer", "trialInvestigator", "assignedEntity")
_WITH_ID = frozenset({_ROOT, "trialSubject", *_PERFORMERS})

# ISO 11073-10101 annex A.7 names, in upper case (QTc is written with a small c).
_MEASURED = {
    "MDC_ECG_HEART_RATE": "heart_rate",
    "MDC_ECG_HEART_RATE_ATRIAL": "atrial_rate",
    "MDC_ECG_TIME_PD_RR": "rr",
    "MDC_ECG_TIME_PD_P": "p_duration",
    "MDC_ECG_TIME_PD_PR": "pr",
    "MDC_ECG_TIME_PD_QRS": "qrs",
    "MDC_ECG_TIME_PD_QT": "qt",
    "MDC_ECG_TIME_PD_QTC": "qtc",
    "MDC_ECG_ANGLE_P_FRONT": "p_axis",
    "MDC_ECG_ANGLE_QRS_FRONT": "qrs_axis",
    "MDC_ECG_ANGLE_T_FRONT": "t_axis",
}


def read(path: Path) -> Record:
    """Return the record of a file: its first rhythm series.

    Counts are the digits as written, at the gain and baseline that scale and origin give; where
    the origin is no whole count, samples are stored at a gain of their own. Leads of sets that
    began at another time have lost samples. Further rhythm series are flagged ``other_series:<n>``.

    Args:
        path: The ``.xml`` file.

    Raises:
        ReadError: With a reason of `ecgstore.io.assemble.REASONS`; no other error is raised.
    """
    data = file_bytes(path)
    root = parse(path, data)
    if root.tag != _ROOT:
        raise refuse(path, "bad header", f"it is no HL7 aECG, which begins with <{_ROOT}>")
    found = root.findall("component/series")
    rhythms = [one for one in found if _code(one) == "RHYTHM"]
    if not rhythms:
        raise refuse(path, "no signals", f"none of its {len(found)} series has the code RHYTHM")
    series = rhythms[0]
    signals, rounded = _signals(path, series)
    flags = [f"other_series:{len(rhythms) - 1}"] if len(rhythms) > 1 else []
    if rounded:
        flags.append("quantised")
    identifiers = tuple(_identifiers(root))
    report, withheld = report_of(_statements(series), identifiers)
    subject = next(root.iter("trialSubject"), None)
    recorded_at = _when(series) or _when(root)
    meta = {
        "source_format": "hl7",
        "source_sha256": hashlib.sha256(data).hexdigest(),
        "recorded_at": recorded_at,
        "age": _age(root, subject, recorded_at),
        "sex": sex_of(_attribute(subject, "subjectDemographicPerson/administrativeGenderCode")),
        "device": child_text(
            series, "author/seriesAuthor/manufacturedSeriesDevice/manufacturerModelName"
        ),
        "patient_id": _attribute(subject, "id", "extension"),
        "measurements": _measurements(series),
        "report": report,
        "identifiers": identifiers,
    }
    rate_hz = signals[0].rate_hz if signals else None
    return assemble(path, signals, rate_hz=rate_hz or 0, meta=meta, quality=[*flags, *withheld])


def _matches(head: bytes, path: Path) -> bool:
    return root_name(head) == _ROOT


READER = Reader(
    name="hl7",
    summary="HL7 annotated ECG (aECG)",
    suffixes=(".xml", ".aecg"),
    matches=_matches,
    read=read,
)


class _Scale(NamedTuple):
    """What digits stand for: counts per unit, the count at 0 (often whole), the unit (or mV)."""

    gain: float
    zero: float
    unit: str


class _Set(NamedTuple):
    """Leads with one clock: where it begins, in seconds, samples per second, and digits."""

    start_s: float
    rate_hz: float
    leads: list[tuple[str, _Scale, NDArray[np.int64]]]


def _signals(path: Path, series: Element) -> tuple[list[Signal], bool]:
    """Return the signals of a series, and whether any had to be rounded."""
    elements = series.findall("component/sequenceSet")
    if sum(map(len, elements)) > _MAX_SEQUENCES:
        raise refuse(path, "too large", f"it has more than {_MAX_SEQUENCES} sequences")
    sets = [one for one in (_set(path, element) for element in elements) if one.leads]
    start_s = min((one.start_s for one in sets), default=0.0)
    signals: list[Signal] = []
    rounded = False
    for rate_hz in dict.fromkeys(one.rate_hz for one in sets):
        of_rate = [one for one in sets if one.rate_hz == rate_hz]
        for name, scale, counts, lost in _placed(path, of_rate, start_s):
            gain, zero, unit = scale.gain, round(scale.zero), scale.unit
            if abs(scale.zero - zero) < 1e-6:
                signals.append(Signal(name, counts, gain, zero, unit, rate_hz, lost))
            else:
                values = (counts - scale.zero) / gain
                values[[] if lost is None else lost] = np.nan
                made, was_rounded = from_floats([name], values[None], unit=unit, rate_hz=rate_hz)
                signals += made
                rounded |= was_rounded
    return signals, rounded


def _placed(
    path: Path, sets: Sequence[_Set], start_s: float
) -> Iterator[tuple[str, _Scale, NDArray[np.int64], NDArray[np.bool_] | None]]:
    """Yield name, scale, counts and lost samples of the leads of all sets of one rate.

    All have one length: from the start of the series to the end of the last set.
    """
    scales: dict[str, _Scale] = {}
    pieces: dict[str, list[tuple[int, NDArray[np.int64]]]] = {}
    for one in sets:
        begin = round((one.start_s - start_s) * one.rate_hz)
        for name, scale, digits in one.leads:
            if scales.setdefault(name, scale) != scale:
                raise refuse(path, "mixed gains", "a lead changes its scale or origin")
            pieces.setdefault(name, []).append((begin, digits))
    there = sum(len(digits) for one in sets for _, _, digits in one.leads)
    length = max(begin + len(digits) for lead in pieces.values() for begin, digits in lead)
    if length * len(pieces) > there * _MAX_LOST:
        raise refuse(path, "unknown layout", "its sequence sets lie too far apart")
    for name, lead in pieces.items():
        counts = np.zeros(length, np.int64)
        lost = np.ones(length, np.bool_)
        for begin, digits in lead:
            part = slice(begin, begin + len(digits))
            if not lost[part].all():
                raise refuse(path, "duplicate leads", "a lead is given twice for one time")
            counts[part], lost[part] = digits, False
        yield name, scales[name], counts, lost if lost.any() else None


def _set(path: Path, element: Element) -> _Set:
    clock: Element | None = None
    leads = []
    for sequence in element.findall("component/sequence"):
        code, value = _code(sequence), sequence.find("value")
        if code in _CLOCKS:
            clock = value if clock is None else clock
        elif value is None or not code:
            raise refuse(path, "no leads", "a sequence has no code or no value")
        else:
            leads.append((code, _scale(path, value), _digits(path, value)))
    if len({len(digits) for _, _, digits in leads}) > 1:
        raise refuse(path, "truncated", "its leads differ in length")
    per_second = _PER_SECOND.get(_attribute(clock, "increment", "unit").lower(), math.nan)
    rate_hz = per_second / (_number(_attribute(clock, "increment", "value")) or math.nan)
    if leads and not 0.01 < rate_hz < 1e6:
        raise refuse(path, "bad header", "the time from sample to sample is missing or unknown")
    return _Set(_start_s(clock), rate_hz, leads)


def _start_s(clock: Element | None) -> float:
    """Return where a clock begins, in seconds since 1970 or since anything; 0 if it is not said."""
    stamp = _attribute(clock, "head", "value")
    unit = _attribute(clock, "head", "unit").lower()
    if unit:
        start_s = _number(stamp) / _PER_SECOND.get(unit, math.nan)
    else:
        moment = _moment(stamp)
        start_s = 0.0 if moment is None else (moment - dt.datetime(1970, 1, 1)).total_seconds()
    return start_s if math.isfinite(start_s) else 0.0


def _scale(path: Path, value: Element) -> _Scale:
    unit = _attribute(value, "scale", "unit")
    origin_unit = _attribute(value, "origin", "unit") or unit
    scale = _number(_attribute(value, "scale", "value"))
    origin = _number(_attribute(value, "origin", "value") or "0")
    gain, base_unit = in_millivolts(1 / (scale or math.nan), unit or origin_unit)
    per_origin, same_unit = in_millivolts(1.0, origin_unit)
    if base_unit != same_unit:
        raise refuse(path, "unknown unit", "the scale and origin of a lead differ in unit")
    zero = -origin / per_origin * gain
    if not (1e-12 < abs(gain) < 1e12 and abs(zero) < _PLAUSIBLE):
        raise refuse(path, "bad header", "the scale or origin of a lead is missing or no number")
    return _Scale(gain, zero, base_unit)


def _digits(path: Path, value: Element) -> NDArray[np.int64]:
    """Return the whole numbers that are written out, ``(samples,)``."""
    try:
        digits = whole_numbers((value.findtext("digits") or "").encode(), b" \t\r\n")
    except ValueError as error:
        raise refuse(path, "bad samples", "a sample is no whole number of 32 bits") from error
    if not digits.size:
        raise refuse(path, "no samples", "a lead has no digits")
    if max(-int(digits.min()), int(digits.max())) > _PLAUSIBLE:
        raise refuse(path, "bad samples", "a sample is larger than any converter's")
    return digits


def _code(element: Element) -> str:
    return _attribute(element, "code")


def _attribute(element: Element | None, path: str, name: str = "code") -> str:
    """Return an attribute of the first descendant at a path, empty where there is none."""
    found = None if element is None else element.find(path)
    return "" if found is None else found.get(name, "").strip()


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _moment(stamp: str) -> dt.datetime | None:
    """Return a time stamp (``TS``: from the day to a fraction of a second) as local time."""
    match = _STAMP.fullmatch(stamp)
    if match is None:
        return None
    day, hour, minute, second, fraction = match.groups(default="0")
    clock = f"{hour:0>2}{minute:0>2}{second:0>2}{fraction:0<6}"
    try:
        return dt.datetime.strptime(day + clock, "%Y%m%d%H%M%S%f")
    except ValueError:
        return None


def _when(element: Element) -> dt.datetime | None:
    stamps = (_attribute(element, f"effectiveTime/{one}", "value") for one in ("low", "center"))
    return next((moment for moment in map(_moment, stamps) if moment), None)


def _age(root: Element, subject: Element | None, recorded: dt.datetime | None) -> float | None:
    for stated in root.findall("controlVariable/relatedObservation"):
        if _code(stated) in _AGE_CODES:
            age = age_of(_attribute(stated, "value", "value"), _attribute(stated, "value", "unit"))
            if age is not None:
                return age
    born = _moment(_attribute(subject, "subjectDemographicPerson/birthTime", "value"))
    return age_of(born=born and born.date(), recorded=recorded and recorded.date())


def _measurements(series: Element) -> dict[str, float] | None:
    """Return what the first set of annotations says that has it.

    Those of the whole series come first, then those of the representative beat, then the medians
    over all beats of the series.
    """
    own = series.findall("subjectOf/annotationSet")
    derived = series.findall("derivation/derivedSeries/subjectOf/annotationSet")
    found: dict[str, float] = {}
    for one in (*own, *derived):
        found = _medians(one.findall("component/annotation")) | found
    for one in own:
        found = _medians(one.iter("annotation")) | found
    return measured(found)


def _medians(annotations: Iterable[Element]) -> dict[str, float]:
    values: dict[str, list[float]] = {}
    for one in annotations:
        name = _MEASURED.get(_code(one).upper())
        if name is not None:
            unit = _attribute(one, "value", "unit").lower()
            factor = _FACTORS[MEASUREMENTS[name]].get(unit, math.nan)
            number = _number(_attribute(one, "value", "value")) * factor
            if math.isfinite(number):
                values.setdefault(name, []).append(number)
    return {name: statistics.median(numbers) for name, numbers in values.items()}


def _statements(series: Element) -> Iterator[str | None]:
    for one in series.iterfind("subjectOf/annotationSet//annotation"):
        code = _code(one)
        if code == "MDC_ECG_RHY":
            yield _attribute(one, "value", "displayName")
        elif code.startswith("MDC_ECG_INTERPRETATION"):
            yield child_text(one, "value")


def _identifiers(root: Element) -> Iterator[str]:
    for one in root.iter():
        if one.tag.endswith("Person"):
            texts = [text for name in one.findall("name") for text in name.itertext()]
        elif one.tag in _WITH_ID:
            texts = [_attribute(one, "id", "extension")]
        else:
            continue
        yield from (text.strip() for text in texts if len(text.strip()) > 1)
