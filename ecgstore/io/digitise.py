"""Bring samples to int16: exactly where that can be done, else rounded at a declared gain."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from ecgstore.record import INVALID, Signal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = ["from_floats", "to_int16"]

_HIGHEST = 32_767
_ROOM = 65_000  # counts that a scaled signal may span: leaves room for rounding at both ends
# Counts per unit that a source's own converter may have had: round steps, and those of carts that
# give 2.44, 4.88 or 4.8828125 uV a count.
_GAINS = np.array(
    [
        *sorted({m * 10.0**k for k in range(-2, 6) for m in (1, 1.25, 2, 4, 5, 8)}),
        *(204.8, 1000 / 4.88, 409.6, 1000 / 2.44, 819.2),
    ]
)
_HIGHEST_GAIN = 1e6
_FEW = 64  # samples on which gains are tried before they are tried on all


def to_int16(signal: Signal) -> tuple[NDArray[np.int16], float, int, bool]:
    """Return counts as int16 with their gain and baseline, and whether they were rounded.

    Counts that fit are kept. Others become ``(x - baseline) / step + zero``, with the smallest
    power of two as step that makes them fit, rounded to the nearest even count; a step of one
    shifts them and loses nothing.
    """
    counts, step, zero = signal.counts.astype(np.int64), 1, signal.baseline
    valid = counts if signal.lost is None else counts[~signal.lost]
    low, high = (int(valid.min()), int(valid.max())) if valid.size else (0, 0)
    if low <= INVALID or high > _HIGHEST:
        while (high - low) // step > _ROOM:
            step *= 2
        zero = round((signal.baseline - (low + high) / 2) / step)
        counts = np.rint((counts - signal.baseline) / step).astype(np.int64) + zero
    if signal.lost is not None:
        counts[signal.lost] = INVALID
    return counts.astype(np.int16), signal.gain / step, zero, step > 1


def from_floats(
    names: Sequence[str],
    values: NDArray[np.floating],
    *,
    unit: str = "mV",
    rate_hz: float | None = None,
) -> tuple[list[Signal], bool]:
    """Return signals whose counts stand for floating-point samples, and whether they are rounded.

    If whole counts at one of the usual gains give every sample back, to the last bits of the type
    they came in, those counts say what the source's converter gave and nothing is lost. Otherwise
    each signal is rounded at the largest 1-2-5 gain that fits, at most a million counts per unit;
    the caller then flags the record ``quantised``. NaN and infinities become lost samples.

    Args:
        names: Name of each signal.
        values: ``(signals, samples)`` in `unit`, in the type in which the source stores them.
        unit: Their unit.
        rate_hz: Their rate, where it is not the record's.
    """
    finite = np.isfinite(values)
    whole = bool(finite.all())
    known = values if whole else np.where(finite, values, values.dtype.type(0))
    gain = _exact_gain(known)
    peaks = np.abs(known).max(axis=1, initial=0).tolist()
    gains = [_largest_gain(peak) for peak in peaks] if gain is None else [gain] * len(known)
    counts = np.rint(known.astype(np.float64) * np.array(gains)[:, None]).astype(np.int16)
    lost = [None if whole or row.all() else ~row for row in finite]
    signals = [
        Signal(name, own, own_gain, 0, unit, rate_hz, own_lost)
        for name, own, own_gain, own_lost in zip(names, counts, gains, lost, strict=True)
    ]
    return signals, gain is None


def _exact_gain(values: NDArray[np.floating]) -> float | None:
    """Return the first usual gain at which whole counts that fit give all values, or None."""
    gains = _GAINS[float(np.abs(values).max(initial=0)) * _GAINS <= _HIGHEST]
    few = values[values != 0][:_FEW, None]  # most gains are ruled out by a handful of samples
    likely = gains[_near(few, gains).all(axis=0)].tolist()
    return next((gain for gain in likely if _gives(values, gain)), None)


def _near(values: NDArray[np.floating], gain: float | NDArray[np.float64]) -> NDArray[np.bool_]:
    back = (np.rint(values.astype(np.float64) * gain) / gain).astype(values.dtype)
    eps = float(np.finfo(values.dtype).eps)
    return np.asarray(np.abs(back - values) <= 2 * eps * np.abs(values))


def _gives(values: NDArray[np.floating], gain: float) -> bool:
    """Tell whether whole counts at a gain give values back, but for two units in the last place.

    Where such a unit is not small beside a count, as in float16, the values must be equal.
    """
    counts = np.rint(values.astype(np.float64) * gain)
    if np.array_equal((counts / gain).astype(values.dtype), values):
        return True
    eps = float(np.finfo(values.dtype).eps)
    return bool((_near(values, gain) & (eps * np.abs(counts) < 0.01)).all())


def _largest_gain(peak: float) -> float:
    if peak == 0:
        return 1000.0
    exponent = math.floor(math.log10(32_000 / peak))
    fits = [m * 10.0**exponent for m in (1, 2, 5) if m * 10.0**exponent * peak <= 32_000]
    return min(max(fits, default=32_000 / peak), _HIGHEST_GAIN)
