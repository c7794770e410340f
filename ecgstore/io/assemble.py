"""From the signals of a source to a `Record`: the same rules for every format.

A reader decodes; here leads are named and ordered, the four limb leads that a source leaves out
are derived, counts are brought to int16 without clipping, and what a user should know of the
signal becomes a quality flag.
"""

from __future__ import annotations

import functools
import math
from collections import Counter
from itertools import count
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np

from ecgstore.errors import ReadError
from ecgstore.io.digitise import to_int16
from ecgstore.record import INVALID, LEADS, Record, Signal, signal_name

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from ecgstore.record import Annotations

__all__ = ["MAX_VALUES", "META", "REASONS", "UNITS_PER_MV", "assemble", "in_millivolts", "refuse"]

REASONS: Mapping[str, str] = MappingProxyType(
    {
        "bad header": "the header or structure does not follow the format",
        "bad name": "the file's name is not text in UTF-8",
        "bad metadata": "a row of the dataset's own table cannot be used",
        "bad samples": "the samples cannot be decoded by the format's rules",
        "decoder failed": "the decoding library gave up on the samples",
        "duplicate leads": "two signals carry the name of one lead",
        "empty file": "the file has no bytes",
        "empty row": "the row of a file of many records holds padding and no record",
        "forbidden content": "the file holds entities or references that are never followed",
        "many records": "the file holds several records and none was chosen",
        "missing file": "the file, or one it names, is not there",
        "mixed gains": "the segments of a record differ in gain or baseline",
        "mixed rates": "the segments of a record differ in sampling rate",
        "no leads": "nothing says which lead is which",
        "no samples": "the record has leads but not one sample",
        "no signals": "the file announces no signals and no annotations",
        "not a file": "a folder, pipe or device stands where a file was expected",
        "outside folder": "the header names a file outside its own folder",
        "too large": "the record or header is larger than any ECG",
        "truncated": "the samples end before the header says so",
        "unknown format": "no reader knows this kind of file",
        "unknown layout": "the file's arrays are not laid out in a known way",
        "unknown unit": "a lead is measured in something else than volts",
        "unreadable": "the operating system refused to read the file",
        "unsupported format": "the format is known, but cannot be read",
        "wrong checksum": "the bytes do not add up to the file's own checksum",
        "wrong initial value": "the first sample is not the one in the header",
    }
)
"""Every reason for which a file is refused, with its meaning; `refuse` takes no other."""

META = frozenset(
    {
        "source_format",
        "source_sha256",
        "recorded_at",
        "age",
        "sex",
        "device",
        "patient_id",
        "report",
        "measurements",
        "codes",
        "identifiers",
    }
)
"""What a reader may say of a record besides its signal; `assemble` takes nothing else.

``recorded_at`` is a naive datetime, ``age`` years, ``sex`` ``female`` or ``male``, ``patient_id``
the id as the source has it, ``measurements`` a mapping of name to number (see
`ecgstore.io.clinical.MEASUREMENTS`), ``codes`` labels such as ``snomed:426783006``.
``identifiers`` are the names and ids found in the file, for the search that keeps them out of
the warehouse; they are never stored.
"""

MAX_VALUES = 2**28
"""Samples of all leads together that a record may have: 24 h of 12 leads at 250 Hz."""

UNITS_PER_MV: Mapping[str, float] = MappingProxyType(
    {"v": 1e-3, "mv": 1.0, "uv": 1e3, "µv": 1e3, "μv": 1e3, "nv": 1e6}
)
"""Units in one millivolt, by their lower-case spelling."""

_INT16 = np.dtype(np.int16)  # comparing types themselves takes several times as long

_DERIVED_FROM = 8
"""Leads a source must have for the limb leads it lacks to be derived: I, II and V1 to V6, or such;
a Holter's or monitor's few leads stay as they are."""


def refuse(path: Path, reason: str, detail: str, *, hint: str | None = None) -> ReadError:
    """Return the error for a file that cannot be read: ``'name': detail``.

    Args:
        path: The file, as the user gave it; only its name is shown.
        reason: A key of `REASONS`.
        detail: What is wrong and what was expected, without a full stop; never a value of the
            file that may name a person.
        hint: What to do about it.
    """
    if reason not in REASONS:
        msg = f"{reason!r} is not one of the reasons of REASONS"
        raise KeyError(msg)
    return ReadError(f"{path.name!r}: {detail}.", path=path, reason=reason, hint=hint)


@functools.lru_cache(maxsize=1024)  # a file repeats a handful
def in_millivolts(gain: float, unit: str) -> tuple[float, str]:
    """Return a gain per millivolt and ``mV`` for a unit of volts; anything else as it is.

    Example:
        >>> in_millivolts(0.2, "uV"), in_millivolts(20.0, "mmHg")
        ((200.0, 'mV'), (20.0, 'mmHg'))
    """
    factor = UNITS_PER_MV.get(unit.strip().lower())
    return (gain, unit.strip()) if factor is None else (gain * factor, "mV")


def assemble(
    path: Path,
    signals: Sequence[Signal],
    *,
    rate_hz: float,
    meta: Mapping[str, object],
    quality: Sequence[str] = (),
    annotations: Sequence[Annotations] = (),
    name: str | None = None,
) -> Record:
    """Return the record that a file's signals make.

    Signals in mV at the record's rate become its leads, the others its `Record.signals`. Counts
    stay as stored where they fit int16; else they are scaled by a power of two and the record
    is flagged ``quantised``. Where a source has eight leads, I and II among them, those of III,
    aVR, aVL and aVF that it lacks are derived, flagged ``derived:III,…``. A lead without one valid
    sample is flagged ``empty_lead:<lead>``, one with lost samples ``invalid_samples:<lead>``, a
    constant one ``flat_lead:<lead>``, one at another rate ``other_rate:<lead>``.

    The record's rate is the one that most standard leads have, the highest if several do; without
    standard leads that of most signals in mV, or of all.

    Args:
        path: The file; its stem becomes the record's name.
        signals: Signals of any rates; those of one rate have equal length.
        rate_hz: Rate of the signals that give none.
        meta: See `META`; None values are left out.
        quality: Flags the reader found.
        annotations: See `Record.annotations`; a record may consist of them.
        name: Name to give instead of the path's stem.

    Raises:
        ReadError: Nothing to store, one standard lead twice, no samples, leads of one rate that
            differ in length, or a scale beyond any use.
    """
    unknown = set(meta) - META
    if unknown:
        msg = f"{sorted(unknown)} are not among META"
        raise KeyError(msg)
    if not signals and not any(len(one) for one in annotations):
        raise refuse(path, "no signals", "it announces no signals and has no annotations")
    _check(path, signals)
    names = [signal_name(one.name) for one in signals]
    rate = _main_rate(names, signals, rate_hz)
    by_name: dict[str, Signal] = {}
    others: list[Signal] = []
    aside: list[str] = []
    for own, one in zip(names, signals, strict=True):
        if one.unit != "mV" or (one.rate_hz or rate_hz) != rate:
            others.append(one)
            if own in LEADS:
                aside.append(f"other_rate:{own}" if one.unit == "mV" else f"other_unit:{own}")
        elif own not in by_name:
            by_name[own] = one
        elif own in LEADS:
            raise refuse(path, "duplicate leads", f"lead {own} occurs twice")
        else:  # two signals of one name, such as the ECGs of a monitor: both are kept
            number = next(n for n in count(2) if f"{own} ({n})" not in by_name)
            by_name[f"{own} ({number})"] = one
    derived = _derive(by_name)
    by_name |= derived
    leads = (*(x for x in LEADS if x in by_name), *(x for x in by_name if x not in LEADS))
    digital, gain, baseline, scaled = _digital(path, [by_name[lead] for lead in leads])
    stored = tuple(_stored(path, one, rate_hz) for one in others)
    flags = [*quality, *aside]
    if scaled or any(was_scaled for _, was_scaled in stored):
        flags.append("quantised")
    if derived:
        flags.append(f"derived:{','.join(derived)}")
    flags += _lead_flags(leads, digital)
    return Record(
        name=path.stem if name is None else name,
        leads=leads,
        rate_hz=rate,
        digital=digital,
        gain=gain,
        baseline=baseline,
        meta={key: value for key, value in meta.items() if value is not None},
        quality=tuple(dict.fromkeys(flags)),
        signals=tuple(one for one, _ in stored),
        annotations=tuple(annotations),
    )


def _check(path: Path, signals: Sequence[Signal]) -> None:
    if sum(len(one.counts) for one in signals) > MAX_VALUES:
        raise refuse(path, "too large", f"more than {MAX_VALUES} samples")
    for one in signals:
        if len(one.counts) == 0:
            raise refuse(path, "no samples", "there are no samples")
        if not (math.isfinite(one.gain) and one.gain != 0):
            raise refuse(path, "bad header", "a signal's gain is zero or no number")
        if one.rate_hz is not None and not 0 < one.rate_hz < 1e6:
            raise refuse(path, "bad header", "a signal's sampling rate is out of range")


def _main_rate(names: Sequence[str], signals: Sequence[Signal], rate_hz: float) -> float:
    own = {one.rate_hz or rate_hz for one in signals}
    if len(own) == 1:
        return own.pop()
    named = [(name, one) for name, one in zip(names, signals, strict=True) if one.unit == "mV"]
    volts = [one for _, one in named]
    standard = [one for name, one in named if name in LEADS]
    rates = Counter(one.rate_hz or rate_hz for one in standard or volts or signals)
    return max(rates, key=lambda rate: (rates[rate], rate), default=rate_hz)


def _derive(by_name: Mapping[str, Signal]) -> dict[str, Signal]:
    """Return the limb leads that are missing beside I, II and the precordial leads.

    III = II - I (Einthoven 1912); aVR = -(I + II) / 2, aVL = I - II / 2 and aVF = II - I / 2
    (Goldberger 1942). With one gain and baseline the sums of counts are exact, at twice the gain
    for the augmented leads.
    """
    lacking = [lead for lead in ("III", "aVR", "aVL", "aVF") if lead not in by_name]
    if not lacking or not {"I", "II"} <= set(by_name) or len(by_name) < _DERIVED_FROM:
        return {}
    one, two = by_name["I"], by_name["II"]
    x, y = (lead.counts.astype(np.int64) - lead.baseline for lead in (one, two))
    lost = _lost(one) | _lost(two)
    gain = one.gain
    if one.gain != two.gain:
        gain = max(one.gain, two.gain)  # within half a count of the finer
        x, y = (np.rint(v * (gain / g)).astype(np.int64) for v, g in ((x, one.gain), (y, two.gain)))
    sums = {"III": (y - x, 1), "aVR": (-x - y, 2), "aVL": (2 * x - y, 2), "aVF": (2 * y - x, 2)}
    return {
        lead: Signal(lead, sums[lead][0], gain * sums[lead][1], 0, lost=lost) for lead in lacking
    }


def _lost(signal: Signal) -> NDArray[np.bool_]:
    return np.asarray(signal.counts == INVALID) if signal.lost is None else signal.lost


def _digital(
    path: Path, signals: Sequence[Signal]
) -> tuple[NDArray[np.int16], NDArray[np.float64], NDArray[np.int32], bool]:
    """Return counts, gain and baseline of the leads, and whether any had to be scaled."""
    n_samples = len(signals[0].counts) if signals else 0
    if any(len(signal.counts) != n_samples for signal in signals):
        raise refuse(path, "truncated", "its leads differ in length")
    rows = [
        (signal.counts, signal.gain, signal.baseline, False)
        if signal.lost is None and signal.counts.dtype == _INT16
        else to_int16(signal)
        for signal in signals
    ]
    if any(not -(2**31) <= zero < 2**31 for _, _, zero, _ in rows):
        raise refuse(path, "bad header", "the baseline of a signal is out of range")
    digital = np.empty((len(rows), n_samples), np.int16)
    for row, (counts, _, _, _) in enumerate(rows):
        digital[row] = counts
    return (
        digital,
        np.array([gain for _, gain, _, _ in rows], np.float64),
        np.array([zero for _, _, zero, _ in rows], np.int32),
        any(scaled for _, _, _, scaled in rows),
    )


def _stored(path: Path, signal: Signal, rate_hz: float) -> tuple[Signal, bool]:
    """Return a signal beside the leads with int16 counts, and whether it had to be scaled."""
    digital, gain, baseline, scaled = _digital(path, [signal])
    rate = signal.rate_hz or rate_hz
    name = signal_name(signal.name)
    return (
        Signal(name, digital[0], float(gain[0]), int(baseline[0]), signal.unit, rate),
        scaled,
    )


def _lead_flags(leads: Sequence[str], digital: NDArray[np.int16]) -> list[str]:
    """Return flags for leads that are empty, constant or hold lost samples."""
    flags = []
    if not leads:
        return []
    lowest, highest = digital.min(axis=1), digital.max(axis=1)
    for lead, low, high in zip(leads, lowest.tolist(), highest.tolist(), strict=True):
        if high == INVALID:
            flags.append(f"empty_lead:{lead}")
        elif low == INVALID:
            flags.append(f"invalid_samples:{lead}")
        elif low == high:
            flags.append(f"flat_lead:{lead}")
    return flags
