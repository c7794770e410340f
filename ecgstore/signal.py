"""Signal arithmetic that several models share: resampling, filters, windows, standardising.

Pure functions on arrays whose last two axes are ``(leads, samples)``. None of them fills, clips
or repairs anything: a NaN that goes in comes out, and what to do about it is the caller's choice.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Floats = NDArray[np.floating]

__all__ = [
    "butterworth",
    "consecutive_starts",
    "cut_windows",
    "evaluation_starts",
    "filter_both_ways",
    "fourier_length",
    "linear_length",
    "reorder_leads",
    "resample_fourier",
    "resample_linear",
    "standardise_leads",
    "standardise_windows",
]


def linear_length(n_samples: int, rate_hz: float, to_hz: float) -> int:
    """Return how many samples `resample_linear` gives: the quotient of rates first, truncated."""
    return n_samples if rate_hz == to_hz else int(n_samples * (to_hz / rate_hz))


def resample_linear(signal: Floats, rate_hz: float, to_hz: float) -> Floats:
    """Resample along the last axis by linear interpolation, without an anti-alias filter.

    The first and the last sample stay put, so the true rate is off by about one part in n. Both
    the rule and its rounding are those ECG-FM was trained on: differences are taken in the type of
    the input, everything else in float64.

    Args:
        signal: ``(..., samples)``, any unit, at least two samples both before and after.
        rate_hz: Its samples per second.
        to_hz: The samples per second wanted.

    Returns:
        ``(..., linear_length(samples, rate_hz, to_hz))`` float64; the input itself when the rates
        are equal.
    """
    if rate_hz == to_hz:
        return signal
    n_samples = signal.shape[-1]
    lower, spacing, offset = _linear_grid(n_samples, linear_length(n_samples, rate_hz, to_hz))
    left = np.take(signal, lower, axis=-1)
    slope = (np.take(signal, lower + 1, axis=-1) - left) / spacing
    result: Floats = slope * offset + left
    return result


@functools.lru_cache(maxsize=32)
def _linear_grid(
    n_samples: int, n_wanted: int
) -> tuple[NDArray[np.intp], NDArray[np.float64], NDArray[np.float64]]:
    """Return the lower neighbour of each wanted sample, the grid's step there, and the offset."""
    grid = np.linspace(0, n_wanted - 1, n_samples)
    wanted = np.arange(n_wanted, dtype=np.float64)
    lower = np.clip(np.searchsorted(grid, wanted), 1, n_samples - 1) - 1
    return lower, grid[lower + 1] - grid[lower], wanted - grid[lower]


def fourier_length(n_samples: int, rate_hz: float, to_hz: float) -> int:
    """Return how many samples `resample_fourier` gives: the product first, truncated."""
    return n_samples if rate_hz == to_hz else int(n_samples * to_hz / rate_hz)


def resample_fourier(signal: Floats, rate_hz: float, to_hz: float) -> Floats:
    """Resample along the last axis by the Fourier method, in the type of the input.

    Args:
        signal: ``(..., samples)``, any unit.
        rate_hz: Its samples per second.
        to_hz: The samples per second wanted.

    Returns:
        ``(..., fourier_length(samples, rate_hz, to_hz))``; the input itself when the rates are
        equal.
    """
    if rate_hz == to_hz:
        return signal
    from scipy.signal import resample

    result: Floats = resample(signal, fourier_length(signal.shape[-1], rate_hz, to_hz), axis=-1)
    return result


@functools.cache
def butterworth(
    kind: Literal["highpass", "lowpass"], cutoff_hz: float, *, rate_hz: float, order: int = 5
) -> NDArray[np.float64]:
    """Return a Butterworth filter as second-order sections, ``(sections, 6)`` float64."""
    from scipy.signal import butter

    sections: NDArray[np.float64] = butter(order, cutoff_hz, kind, fs=rate_hz, output="sos")
    return sections


def filter_both_ways(signal: Floats, sections: NDArray[np.float64]) -> NDArray[np.float64]:
    """Filter forward and backward along the last axis, in float64 and without phase shift.

    The ends are extended by odd reflection over as many samples as SciPy's ``sosfiltfilt`` takes
    by default (18 for order 5), with matched initial conditions.
    """
    from scipy.signal import sosfiltfilt

    result: NDArray[np.float64] = sosfiltfilt(sections, signal.astype(np.float64), axis=-1)
    return result


def consecutive_starts(n_samples: int, length: int) -> tuple[int, ...]:
    """Return where windows start that follow each other from sample 0; the rest is dropped."""
    return tuple(range(0, n_samples - length + 1, length))


def evaluation_starts(n_samples: int, length: int, count: int) -> tuple[int, ...]:
    """Return where ``count`` windows start that spread over a record, or ``()`` if it is short.

    Three windows start at 0, s and 2 s with s = (n - length) // 2, and coincide where the record
    is just long enough; one window is the centre one, at (n - length) // 2.
    """
    surplus = n_samples - length
    if surplus < 0:
        return ()
    if count == 1:
        return (surplus // 2,)
    step = surplus // (count - 1)
    return tuple(index * step for index in range(count))


def cut_windows(signal: Floats, starts: Sequence[int], length: int) -> Floats:
    """Return ``(windows, leads, length)``: one copy of the signal from each start."""
    return np.stack([signal[..., start : start + length] for start in starts])


def standardise_leads(signal: Floats) -> NDArray[np.float64]:
    """Give each lead zero mean and unit population deviation over the whole signal, in float64.

    A constant lead becomes all 0. It is told by its maximum and minimum, so that no rounding of
    the mean can turn it into noise. Sums run over time-major memory, and the deviation is that of
    the centred signal, which gives ECG-FM's published preparation to the last bit.

    Args:
        signal: ``(leads, samples)``.
    """
    signal = np.asfortranarray(signal, dtype=np.float64)
    flat = signal.max(axis=1, keepdims=True) == signal.min(axis=1, keepdims=True)
    centred = signal - signal.mean(axis=1, keepdims=True)
    deviation = centred.std(axis=1, keepdims=True)
    return np.where(flat, 0.0, centred / np.where(flat, 1.0, deviation))


def standardise_windows(windows: Floats) -> NDArray[np.float64]:
    """Give each window one zero mean and unit population deviation over all leads, in float64.

    One mean and one deviation a window keep the ratios of amplitude between its leads. A window
    that is constant throughout becomes all 0.
    """
    windows = windows.astype(np.float64, copy=False)
    axes = (-2, -1)
    mean = windows.mean(axis=axes, keepdims=True)
    deviation = windows.std(axis=axes, keepdims=True)
    flat = deviation == 0
    return np.where(flat, 0.0, (windows - mean) / np.where(flat, 1.0, deviation))


def reorder_leads(signal: Floats, leads: Sequence[str], order: Sequence[str]) -> Floats:
    """Return the rows of ``signal`` named by ``order``, in that order.

    Raises:
        ValueError: A lead of ``order`` is not among ``leads``.
    """
    return signal[[list(leads).index(lead) for lead in order]]
