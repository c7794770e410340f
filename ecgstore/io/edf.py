"""Read EDF, EDF+, BDF and BDF+ files.

Own code, as the layout is an array and the libraries that read it open paths instead of checked
bytes, refuse discontinuous files or join them as if there were no gaps.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import re
from typing import TYPE_CHECKING

import numpy as np

from ecgstore.io.assemble import MAX_VALUES, assemble, refuse
from ecgstore.io.clinical import age_of, sex_of
from ecgstore.io.edf_annotations import annotations_of, parse_lists
from ecgstore.io.edf_header import EdfError, looks_like_edf, parse_header
from ecgstore.io.files import file_bytes
from ecgstore.io.reader import Reader
from ecgstore.io.scale import Scale
from ecgstore.record import INVALID, LEADS, Signal, signal_name

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from ecgstore.io.edf_annotations import Lists
    from ecgstore.io.edf_header import Header, SignalHeader
    from ecgstore.record import Record

__all__ = ["READER", "read"]

_UNSCALED = Scale(1.0, 0, "", exact=True)
_REFERENCE = re.compile(r"[-_ ](?:ref|avg|g\d?)$", re.IGNORECASE)  # EDF+ texts: "ECG V1-REF"
# Gaps are stored as lost samples: a file may not ask for much more memory than it takes itself.
_MAX_STRETCH = 64
_SMALL = 2**22


def read(path: Path) -> Record:
    """Return the record of a file of the EDF family.

    Counts are those of the file; gain and baseline follow from the physical and digital ranges,
    and where zero falls between two counts the record is flagged ``baseline_rounded``. Signals
    that are not in volts keep their unit. Data records that are apart in time (EDF+D) are put
    where their annotations say, with lost samples between them, flagged ``gaps:<n>``. Signals
    without a scale, other than ECG leads, are flagged ``uncalibrated:<name>``.

    Args:
        path: The file.

    Raises:
        ReadError: With a reason of `ecgstore.io.assemble.REASONS`; no other error is raised.
    """
    data = file_bytes(path)
    if not data:
        raise refuse(path, "empty file", "the file is empty")
    try:
        header = parse_header(data)
        lists = parse_lists(_annotation_bytes(header, data))
        runs = _runs(header, lists)
        signals, flags = _signals(header, data, runs)
        annotations, told = annotations_of(lists, header.identifiers)
    except EdfError as error:
        raise refuse(path, error.reason, str(error)) from error
    recorded_at = header.recorded_at
    if recorded_at and lists.starts_s and (first := lists.starts_s[0]) and abs(first) < 1e6:
        recorded_at += dt.timedelta(seconds=first)
    meta = {
        "source_format": "edf",
        "source_sha256": hashlib.sha256(data).hexdigest(),
        "recorded_at": recorded_at,
        "age": age_of(born=header.born, recorded=recorded_at and recorded_at.date()),
        "sex": sex_of(header.sex),
        "device": header.device,
        "patient_id": header.patient_id,
        "identifiers": header.identifiers,
    }
    return assemble(
        path,
        signals,
        rate_hz=signals[0].rate_hz or 1.0 if signals else 1.0,
        meta=meta,
        quality=[*header.flags, *flags, *told],
        annotations=annotations,
    )


def _matches(head: bytes, _: Path) -> bool:
    return looks_like_edf(head)


READER = Reader(
    name="edf",
    summary="EDF, EDF+, BDF or BDF+ (European Data Format, BioSemi)",
    suffixes=(".edf", ".bdf", ".rec"),
    matches=_matches,
    read=read,
)


def _records(header: Header, data: bytes) -> NDArray[np.uint8]:
    """Return the data records, ``(records, bytes)``."""
    size = header.n_records * header.record_bytes
    raw = np.frombuffer(data, np.uint8, size, header.size)
    return raw.reshape(header.n_records, header.record_bytes)


def _annotation_bytes(header: Header, data: bytes) -> list[list[bytes]]:
    parts = [
        slice(one.start, one.start + one.n_samples * header.width)
        for one in header.signals
        if one.is_annotations
    ]
    return (
        [[row[part].tobytes() for part in parts] for row in _records(header, data)] if parts else []
    )


def _runs(header: Header, lists: Lists) -> list[tuple[float, int]]:
    """Return the runs of data records without a gap: seconds of the start, first record.

    Raises:
        EdfError: Data records overlap, a discontinuous file does not say when they begin, or a
            continuous one has gaps.
    """
    ordinary = [one for one in header.signals if not one.is_annotations]
    if not ordinary or not any(start is not None for start in lists.starts_s):
        if header.discontinuous and ordinary:
            msg = "it is discontinuous, and does not say when its data records begin"
            raise EdfError(msg)
        return [(0.0, 0)]
    duration_s = float(header.duration_s)
    # Half a sample of the fastest signal is no gap; a continuous file is not asked to be precise.
    half = duration_s / max(one.n_samples for one in ordinary) / 2
    slack = half if header.discontinuous else duration_s / 2
    first = lists.starts_s[0] or 0.0
    runs = [(0.0, 0)]
    for number, start in enumerate(lists.starts_s):
        if start is None and header.discontinuous:
            msg = f"it is discontinuous, and data record {number + 1} does not say when it begins"
            raise EdfError(msg)
        begin, record = runs[-1]
        off = 0.0 if start is None else start - first - begin - (number - record) * duration_s
        if abs(off) <= slack:
            continue
        if off < 0 or not header.discontinuous:
            what = "overlaps the one before it" if off < 0 else "comes late in a continuous file"
            msg = f"data record {number + 1} {what}"
            raise EdfError(msg)
        runs.append(((start or 0.0) - first, number))
    return runs


def _signals(
    header: Header, data: bytes, runs: list[tuple[float, int]]
) -> tuple[list[Signal], list[str]]:
    records = _records(header, data)
    flags = [f"gaps:{len(runs) - 1}"] if len(runs) > 1 else []
    ordinary = [one for one in header.signals if not one.is_annotations]
    begin, record = runs[-1]
    length = begin + (header.n_records - record) * float(header.duration_s)
    stored = sum(one.n_samples for one in ordinary) * header.n_records
    total = sum(one.n_samples for one in ordinary) * length / float(header.duration_s or 1)
    if total > min(max(_MAX_STRETCH * stored, _SMALL), MAX_VALUES):
        msg = f"it spans {total:.0f} samples with its gaps, {stored} without"
        raise EdfError(msg, "too large")
    signals = []
    for one in ordinary:
        counts = _counts(header, one, records)
        rate_hz = float(one.n_samples / header.duration_s)
        lost = None if counts.dtype == np.int16 else np.zeros(len(counts), np.bool_)
        if len(runs) > 1:
            counts, lost = _spread(counts, one.n_samples, rate_hz, runs, header.n_records)
        scale = _scale(one, flags)
        label = _label(one.label)
        signals.append(Signal(label, counts, scale.gain, scale.baseline, scale.unit, rate_hz, lost))
    return signals, list(dict.fromkeys(flags))


def _counts(
    header: Header, one: SignalHeader, records: NDArray[np.uint8]
) -> NDArray[np.signedinteger]:
    """Return the counts of a signal, as int16 unless they need more.

    -32768 is a count like any other in EDF, so int16, where it means an invalid sample, will not
    do for it.
    """
    raw = records[:, one.start : one.start + one.n_samples * header.width]
    if header.width == 2:
        counts = np.ascontiguousarray(raw).view("<i2").ravel().astype(np.int16, copy=False)
        return counts.astype(np.int32) if (counts == INVALID).any() else counts
    wide = np.zeros((raw.size // 3, 4), np.uint8)
    wide[:, 1:] = raw.reshape(-1, 3)
    return wide.view("<i4").ravel() >> 8


def _spread(
    counts: NDArray[np.signedinteger],
    per_record: int,
    rate_hz: float,
    runs: list[tuple[float, int]],
    n_records: int,
) -> tuple[NDArray[np.signedinteger], NDArray[np.bool_]]:
    """Return counts with runs of data records at their time, and where there are none."""
    ends = [*(record for _, record in runs[1:]), n_records]
    starts = [int(np.floor(begin * rate_hz + 0.5)) for begin, _ in runs]
    n_samples = starts[-1] + (ends[-1] - runs[-1][1]) * per_record
    spread = np.zeros(n_samples, counts.dtype)
    lost = np.ones(n_samples, np.bool_)
    for start, (_, record), end in zip(starts, runs, ends, strict=True):
        here = slice(start, start + (end - record) * per_record)
        spread[here] = counts[record * per_record : end * per_record]
        lost[here] = False
    return spread, lost


def _label(label: str) -> str:
    """Return a label without its reference electrode where a lead is left: ``V1`` of ``V1-REF``."""
    bare = _REFERENCE.sub("", label)
    return bare if signal_name(bare) in LEADS else label


def _scale(one: SignalHeader, flags: list[str]) -> Scale:
    """Return the scale of a signal; an ECG lead must have one."""
    name = signal_name(_label(one.label))
    if one.scale is None:
        if name in LEADS:
            msg = f"lead {name} has no scale"
            raise EdfError(msg)
        flags.append(f"uncalibrated:{name[:20]}")
        return _UNSCALED
    if not one.scale.exact:
        flags.append("baseline_rounded")
    return one.scale
