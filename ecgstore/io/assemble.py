"""From the signals of a source to a `Record`: the same rules for every format.

A reader decodes; here the standard leads are picked and ordered, counts are brought to int16
without clipping, and what a user should know of the signal becomes a quality flag.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np

from ecgstore.errors import ReadError
from ecgstore.record import INVALID, LEADS, Record, lead_name

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

__all__ = ["MAX_VALUES", "REASONS", "Signal", "assemble", "refuse", "standard_lead"]

REASONS: Mapping[str, str] = MappingProxyType(
    {
        "bad header": "the header does not follow the format",
        "bad name": "the file's name is not text in UTF-8",
        "bad metadata": "a row of the dataset's own table cannot be used",
        "decoder failed": "the decoding library gave up on the samples",
        "duplicate leads": "two signals carry the name of one lead",
        "empty file": "the file has no bytes",
        "missing file": "the file, or one it names, is not there",
        "mixed gains": "the segments of a record differ in gain or baseline",
        "mixed rates": "the leads of a record differ in sampling rate",
        "no samples": "the record has leads but not one sample",
        "no signals": "the header announces no signals",
        "no standard leads": "none of the signals is one of the twelve standard leads",
        "not a file": "a folder, pipe or device stands where a file was expected",
        "outside folder": "the header names a file outside its own folder",
        "too large": "the record or header is larger than any ECG",
        "truncated": "the samples end before the header says so",
        "unknown format": "no reader knows this kind of file",
        "unknown unit": "a lead is measured in something else than volts",
        "unreadable": "the operating system refused to read the file",
        "unsupported format": "the format is known, but cannot be read",
        "wrong checksum": "the samples do not add up to the header's checksum",
        "wrong initial value": "the first sample is not the one in the header",
    }
)
"""Every reason for which a file is refused, with its meaning; `refuse` takes no other."""

MAX_VALUES = 2**28
"""Samples of all leads together that a record may have: 24 h of 12 leads at 250 Hz."""


standard_lead = functools.lru_cache(maxsize=1024)(lead_name)
"""`ecgstore.record.lead_name`, remembered: archives spell the same few names a million times."""


def refuse(path: Path, reason: str, detail: str, *, hint: str | None = None) -> ReadError:
    """Return the error for a file that cannot be read: ``'name': detail``.

    Args:
        path: The file, as the user gave it; only its name is shown.
        reason: A key of `REASONS`.
        detail: What is wrong and what was expected, without a full stop.
        hint: What to do about it.
    """
    if reason not in REASONS:
        msg = f"{reason!r} is not one of the reasons of REASONS"
        raise KeyError(msg)
    return ReadError(f"{path.name!r}: {detail}.", path=path, reason=reason, hint=hint)


@dataclass(frozen=True, slots=True)
class Signal:
    """One signal as a source stores it.

    Attributes:
        name: Its name as the source spells it.
        counts: ``(samples,)`` integers; int16 counts use `INVALID` for a lost sample.
        gain: Counts per millivolt.
        baseline: Count that stands for 0 mV.
        lost: ``(samples,)`` bool, true where a sample is invalid; None where `counts` says it.
    """

    name: str
    counts: NDArray[np.signedinteger]
    gain: float
    baseline: int
    lost: NDArray[np.bool_] | None = None


def assemble(
    path: Path,
    signals: Sequence[Signal],
    *,
    rate_hz: float,
    meta: Mapping[str, object],
    others: Sequence[str] = (),
    quality: Sequence[str] = (),
) -> Record:
    """Return the record that a file's signals make.

    Signals that are not standard leads are left out and named in the flag ``other_leads``. Counts
    stay as stored where they fit int16; else they are scaled by a power of two and the record
    is flagged ``quantised``. A lead without one valid sample is flagged ``empty_lead:<lead>``,
    one with lost samples ``invalid_samples:<lead>``, a constant one ``flat_lead:<lead>``.

    Args:
        path: The file; its stem becomes the record's name.
        signals: Signals of equal length.
        rate_hz: Samples per second.
        meta: See `Record.meta`.
        others: Names of signals the reader did not decode, as no standard lead bears them.
        quality: Flags the reader found.

    Raises:
        ReadError: No standard lead, one lead twice, no samples, or counts beyond any use.
    """
    by_lead: dict[str, Signal] = {}
    left_out = list(others)
    for signal in signals:
        lead = standard_lead(signal.name)
        if lead is None:
            left_out.append(signal.name)
        elif lead in by_lead:
            raise refuse(path, "duplicate leads", f"lead {lead} occurs twice")
        else:
            by_lead[lead] = signal
    if not by_lead:
        names = ", ".join(left_out[:12]) or "none"
        raise refuse(path, "no standard leads", f"no standard lead among its signals: {names}")
    leads = tuple(lead for lead in LEADS if lead in by_lead)
    n_samples = len(by_lead[leads[0]].counts)
    if n_samples == 0:
        raise refuse(path, "no samples", "there are no samples")

    digital = np.empty((len(leads), n_samples), np.int16)
    gain = np.empty(len(leads), np.float64)
    baseline = np.empty(len(leads), np.int32)
    flags = list(quality)
    for row, lead in enumerate(leads):
        signal = by_lead[lead]
        if signal.counts.dtype == np.int16 and signal.lost is None:
            digital[row], gain[row], zero = signal.counts, signal.gain, signal.baseline
        else:
            digital[row], gain[row], zero = _to_int16(signal)
        if not -(2**31) <= zero < 2**31:
            raise refuse(path, "bad header", f"the baseline of {lead} is out of range")
        baseline[row] = zero
    if any(_must_scale(by_lead[lead]) for lead in leads):
        flags.append("quantised")
    flags += _lead_flags(leads, digital)
    if left_out:
        flags.append(f"other_leads:{','.join(left_out)}")
    return Record(
        name=path.stem,
        leads=leads,
        rate_hz=rate_hz,
        digital=digital,
        gain=gain,
        baseline=baseline,
        meta=meta,
        quality=tuple(flags),
    )


def _must_scale(signal: Signal) -> bool:
    """Tell whether a valid count falls outside int16 or on `INVALID`."""
    if signal.counts.dtype == np.int16 and signal.lost is None:
        return False
    low, high = _range(signal)
    return low <= INVALID or high > -INVALID - 1


def _range(signal: Signal) -> tuple[int, int]:
    valid = signal.counts if signal.lost is None else signal.counts[~signal.lost]
    return (int(valid.min()), int(valid.max())) if valid.size else (0, 0)


def _to_int16(signal: Signal) -> tuple[NDArray[np.int16], float, int]:
    """Return counts as int16 with their gain and baseline.

    Counts that fit are kept. Others become ``(x - baseline) / step + zero``, with the smallest
    power of two as step that makes them fit, rounded to the nearest even count.
    """
    counts, step, zero = signal.counts.astype(np.int64), 1, signal.baseline
    if _must_scale(signal):
        low, high = _range(signal)
        while (high - low) // step > 65_000:  # leaves room for rounding at both ends
            step *= 2
        zero = round((signal.baseline - (low + high) / 2) / step)
        counts = np.rint((counts - signal.baseline) / step).astype(np.int64) + zero
    if signal.lost is not None:
        counts[signal.lost] = INVALID
    return counts.astype(np.int16), signal.gain / step, zero


def _lead_flags(leads: Sequence[str], digital: NDArray[np.int16]) -> list[str]:
    """Return flags for leads that are empty, constant or hold lost samples."""
    flags = []
    lowest, highest = digital.min(axis=1), digital.max(axis=1)
    for lead, low, high in zip(leads, lowest.tolist(), highest.tolist(), strict=True):
        if high == INVALID:
            flags.append(f"empty_lead:{lead}")
        elif low == INVALID:
            flags.append(f"invalid_samples:{lead}")
        elif low == high:
            flags.append(f"flat_lead:{lead}")
    return flags
