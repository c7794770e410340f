"""Samples that stand still: flat stretches, clipped tops, a converter at its end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ecgstore.quality.bands import slide
from ecgstore.quality.thresholds import THRESHOLDS
from ecgstore.record import INVALID

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Plateaus"]

# The ends of converters of 8 to 16 bits, signed and unsigned, and one count inside of each.
_ENDS = {end for bits in range(7, 17) for end in ((1 << bits) - 2, (1 << bits) - 1)}
_ENDS |= {end for bits in range(7, 16) for end in (-(1 << bits), 1 - (1 << bits))}
_VALUES = 1 << 20  # samples worked on at a time


@dataclass(frozen=True, eq=False)
class Plateaus:
    """Shares of the samples of each lead, ``(leads,)`` float64.

    Attributes:
        flat: In constant runs of a second or more.
        clipped: Held at the lead's own highest or lowest value, with a jump before or after.
        saturated: Of the clipped ones, those at an end of the converter: a power of two, 0, or a
            count at which another lead is clipped too. All of a lead that stands at such an end.
    """

    flat: NDArray[np.float64]
    clipped: NDArray[np.float64]
    saturated: NDArray[np.float64]

    @classmethod
    def of(cls, values: NDArray[Any], rate_hz: float) -> Plateaus:
        """Look at ``(leads, samples)`` counts, or millivolts where there are no counts."""
        n_leads, n_samples = values.shape
        if values.dtype.kind == "f":
            values = np.where(np.isfinite(values), values, np.nan)
        flat = np.zeros(n_leads)
        clips: list[list[tuple[float, int]]] = []
        step = max(1, _VALUES // n_samples)
        for start in range(0, n_leads, step):
            rows = values[start : start + step]
            flat[start : start + step] = _flat(rows, rate_hz)
            clips += _clips(rows, rate_hz)
        ends = [value for lead in clips for value in {value for value, _ in lead}]
        rails = _ENDS | {0.0, *(value for value in ends if ends.count(value) > 1)}
        clipped = [sum(count for _, count in lead) for lead in clips]
        saturated = [sum(count for value, count in lead if value in rails) for lead in clips]
        return cls(flat, np.array(clipped) / n_samples, np.array(saturated) / n_samples)


def _flat(rows: NDArray[Any], rate_hz: float) -> NDArray[np.float64]:
    """Return the share of each row in long constant runs; lost samples are in none."""
    n_samples = rows.shape[1]
    pairs = max(1, round(THRESHOLDS.flat_run_s * rate_hz) - 1)
    if pairs >= n_samples:
        pairs = max(1, n_samples - 1)
    share = np.zeros(len(rows))
    few = rows[:, :: max(1, pairs // 4)]  # a run holds four of these, or there is none
    if pairs >= 16 and not slide(np.logical_and, few[:, 1:] == few[:, :-1], 3).any():
        return share
    same = rows[:, 1:] == rows[:, :-1]
    runs = slide(np.logical_and, same, pairs)
    for row in np.flatnonzero(runs.any(axis=1)):
        held = slide(np.logical_or, np.pad(runs[row], pairs), pairs + 1)
        if rows.dtype.kind == "i":
            held &= rows[row] != INVALID
        share[row] = held.mean()
    return share


def _clips(rows: NDArray[Any], rate_hz: float) -> list[list[tuple[float, int]]]:
    """Return, for each row, the values at which it is clipped and how many samples are."""
    counts = rows.dtype.kind == "i"
    if counts:
        lowest, highest = rows.min(axis=1), rows.max(axis=1)
        if lowest.min() == INVALID:
            lowest = np.where(rows == INVALID, np.iinfo(rows.dtype).max, rows).min(axis=1)
    else:
        lowest, highest = np.fmin.reduce(rows, axis=1), np.fmax.reduce(rows, axis=1)
    held = max(THRESHOLDS.plateau_samples, round(THRESHOLDS.plateau_s * rate_hz))
    found: list[list[tuple[float, int]]] = [[] for _ in rows]
    if rows.shape[1] < held:
        return found
    for end in (lowest, highest):
        at_end = rows == end[:, None]
        for row in np.flatnonzero(slide(np.logical_and, at_end, held).any(axis=1)):
            count = 0
            if lowest[row] != highest[row]:
                jump = THRESHOLDS.plateau_jump_share * (float(highest[row]) - float(lowest[row]))
                count = _held_after_jump(rows[row], at_end[row], held, jump)
            elif end is highest and counts and int(end[row]) in _ENDS:
                count = rows.shape[1]
            if count:
                found[row].append((float(end[row]), count))
    return found


def _held_after_jump(row: NDArray[Any], at_end: NDArray[np.bool_], held: int, jump: float) -> int:
    """Return how many samples lie in runs of ``held`` at an end; 0 if none has a jump beside it.

    A jump is several steps of the lead, which may be several counts (Georgia's are 5).
    """
    at = np.flatnonzero(at_end)
    cuts = np.flatnonzero(np.diff(at) > 1)
    starts, stops = at[np.append(0, cuts + 1)], at[np.append(cuts, -1)] + 1
    lengths = stops - starts
    beside = np.stack((row[np.maximum(starts - 1, 0)], row[np.minimum(stops, row.size - 1)]))
    highest = _heights(beside, row[at[0]]).max(axis=0)
    long = lengths >= held
    if not (long & (highest >= jump)).any():
        return 0
    steps = _heights(row[1:], row[:-1])
    jump = max(jump, THRESHOLDS.plateau_jump * float(steps[steps > 0].min()))
    return int(lengths[long].sum()) if (long & (highest >= jump)).any() else 0


def _heights(values: NDArray[Any], others: NDArray[Any]) -> NDArray[np.float64]:
    """Return how far values are from others; 0 where one of the two is lost."""
    height = np.abs(values.astype(np.float64) - others)
    if values.dtype.kind == "i":
        height[(values == INVALID) | (others == INVALID)] = 0
    known: NDArray[np.float64] = np.fmax(height, 0)
    return known
