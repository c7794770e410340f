"""Signal arithmetic that several models share: resampling, filters, windows, standardising.

Pure functions on arrays whose last two axes are ``(leads, samples)``. None of them clips or repairs
anything, and only `fill_lost` fills: a NaN that goes into another comes out, and what to do about
it is the caller's choice.
"""

from __future__ import annotations

import functools
import operator
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import SupportsIndex

    from numpy.typing import NDArray

    Floats = NDArray[np.floating]

__all__ = [
    "Filter",
    "butterworth",
    "consecutive_starts",
    "cut_each",
    "cut_windows",
    "ends_grid",
    "evaluation_starts",
    "fill_lost",
    "filter_both_ways",
    "fourier_length",
    "linear_grid",
    "linear_length",
    "notch",
    "polyphase_length",
    "polyphase_ratio",
    "reorder_leads",
    "resample_ends",
    "resample_fourier",
    "resample_linear",
    "resample_polyphase",
    "running_median",
    "standardise_leads",
    "standardise_windows",
]


def fill_lost(signal: Floats, value: float) -> Floats:
    """Put a value where there is NaN, in the type of the input."""
    return np.where(np.isnan(signal), signal.dtype.type(value), signal)


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
    lower, spacing, offset = linear_grid(n_samples, linear_length(n_samples, rate_hz, to_hz))
    left = np.take(signal, lower, axis=-1)
    slope = (np.take(signal, lower + 1, axis=-1) - left) / spacing
    result: Floats = slope * offset + left
    return result


@functools.lru_cache(maxsize=32)
def linear_grid(
    n_samples: int, n_wanted: int
) -> tuple[NDArray[np.intp], NDArray[np.float64], NDArray[np.float64]]:
    """Return the lower neighbour of each wanted sample, the grid's step there, and the offset.

    Args:
        n_samples: Samples given, at least two.
        n_wanted: Samples wanted, at least two.
    """
    grid = np.linspace(0, n_wanted - 1, n_samples)
    wanted = np.arange(n_wanted, dtype=np.float64)
    lower = np.clip(np.searchsorted(grid, wanted), 1, n_samples - 1) - 1
    return lower, grid[lower + 1] - grid[lower], wanted - grid[lower]


def resample_ends(signal: Floats, n_wanted: int) -> Floats:
    """Interpolate linearly between two grids that both hold the first and the last sample.

    No anti-alias filter, everything in float64; ECGFounder was trained on it.

    Args:
        signal: ``(..., samples)``, any unit, at least two samples both before and after.
        n_wanted: Samples wanted.

    Returns:
        ``(..., n_wanted)`` float64; the input itself when it has as many.
    """
    if signal.shape[-1] == n_wanted:
        return signal
    lower, weight = ends_grid(signal.shape[-1], n_wanted)
    signal = signal.astype(np.float64, copy=False)
    left = np.take(signal, lower, axis=-1)
    result: Floats = left + weight * (np.take(signal, lower + 1, axis=-1) - left)
    return result


@functools.lru_cache(maxsize=32)
def ends_grid(n_samples: int, n_wanted: int) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Return the lower neighbour of j (n_samples - 1) / (n_wanted - 1), and the way beyond it.

    Args:
        n_samples: Samples given, at least two.
        n_wanted: Samples wanted, at least two.
    """
    parts = np.arange(n_wanted, dtype=np.intp) * (n_samples - 1)
    lower = np.minimum(parts // (n_wanted - 1), n_samples - 2)
    return lower, parts / (n_wanted - 1) - lower


def fourier_length(n_samples: int, rate_hz: float, to_hz: float) -> int:
    """Return how many samples `resample_fourier` gives: the product first, truncated."""
    return n_samples if rate_hz == to_hz else int(n_samples * to_hz / rate_hz)


def resample_fourier(signal: Floats, n_wanted: int) -> Floats:
    """Resample along the last axis by the Fourier method, in the type of the input.

    Args:
        signal: ``(..., samples)``, any unit.
        n_wanted: Samples wanted; see `fourier_length`.

    Returns:
        ``(..., n_wanted)``; the input itself when it has as many.
    """
    if signal.shape[-1] == n_wanted:
        return signal
    from scipy.signal import resample

    result: Floats = resample(signal, n_wanted, axis=-1)
    return result


def polyphase_ratio(rate_hz: float, to_hz: float) -> Fraction:
    """Return the quotient of rates as `resample_polyphase` takes it, terms up to 10,000."""
    return Fraction(to_hz / rate_hz).limit_denominator(10_000)


def polyphase_length(n_samples: int, rate_hz: float, to_hz: float) -> int:
    """Return how many samples `resample_polyphase` gives: the product, rounded up."""
    ratio = polyphase_ratio(rate_hz, to_hz)
    return -(-n_samples * ratio.numerator // ratio.denominator)


def resample_polyphase(
    signal: Floats, rate_hz: float, to_hz: float, *, line: bool = False
) -> Floats:
    """Resample along the last axis with SciPy's default anti-alias filter, in float64.

    The filter is a low-pass of 20 samples of the lower rate and one, under a Kaiser window of
    beta 5.

    Args:
        signal: ``(..., samples)``, any unit.
        rate_hz: Its samples per second.
        to_hz: The samples per second wanted.
        line: Extend the ends along the line through the first and the last sample, not by 0.

    Returns:
        ``(..., polyphase_length(samples, rate_hz, to_hz))`` float64; the input itself when the
        rates are equal.
    """
    if rate_hz == to_hz:
        return signal
    from scipy.signal import resample_poly

    ratio = polyphase_ratio(rate_hz, to_hz)
    result: Floats = resample_poly(
        signal.astype(np.float64, copy=False),
        ratio.numerator,
        ratio.denominator,
        axis=-1,
        padtype="line" if line else "constant",
    )
    return result


@dataclass(frozen=True, eq=False)
class Filter:
    """A recursive filter to be run forward and backward.

    Attributes:
        coefficients: ``(sections, 6)`` second-order sections, or ``(2, taps)``: numerator and
            denominator.
        edge: Samples of odd reflection at each end before filtering.
    """

    coefficients: NDArray[np.float64]
    edge: int

    @property
    def in_sections(self) -> bool:
        """Whether it is kept as second-order sections."""
        return self.coefficients.shape[1] == 6 and bool((self.coefficients[:, 3] == 1).all())


@functools.cache
def butterworth(
    kind: Literal["highpass", "lowpass", "bandpass"],
    cutoff_hz: float | tuple[float, float],
    *,
    rate_hz: float,
    order: int = 5,
    form: Literal["sos", "ba"] = "sos",
) -> Filter:
    """Return a Butterworth filter.

    Args:
        kind: What passes.
        cutoff_hz: One frequency, or two for a band.
        rate_hz: Samples per second of what it is for.
        order: Order, of each flank for a band.
        form: Second-order sections, or numerator and denominator. The latter lose digits as the
            rate grows: a band of 0.67 to 40 Hz of order 4 differs by 4e-6 of its deviation at
            500 Hz, by 7e-3 at 1000 Hz, and overflows from 2000 Hz.
    """
    from scipy.signal import butter

    coefficients = np.array(butter(order, cutoff_hz, kind, fs=rate_hz, output=form))
    return Filter(coefficients, _edge(coefficients, sections=form == "sos"))


@functools.cache
def notch(frequency_hz: float, quality: float, *, rate_hz: float) -> Filter:
    """Return a second-order notch whose width at -3 dB is ``frequency / quality``."""
    from scipy.signal import iirnotch

    coefficients = np.array(iirnotch(frequency_hz, quality, fs=rate_hz))
    return Filter(coefficients, _edge(coefficients, sections=False))


def _edge(coefficients: NDArray[np.float64], *, sections: bool) -> int:
    """Return SciPy's default reflection: three times the coefficients, less common zeros."""
    if not sections:
        return 3 * int(coefficients.shape[1])
    zeros = min((coefficients[:, 2] == 0).sum(), (coefficients[:, 5] == 0).sum())
    return int(3 * (2 * len(coefficients) + 1 - zeros))


def filter_both_ways(signal: Floats, filter: Filter) -> NDArray[np.float64]:  # noqa: A002
    """Filter forward and backward along the last axis, in float64 and without phase shift.

    The ends are extended by odd reflection over ``filter.edge`` samples, with matched initial
    conditions, as SciPy's ``sosfiltfilt`` and ``filtfilt`` do by default.
    """
    from scipy.signal import filtfilt, sosfiltfilt

    result: NDArray[np.float64]
    signal = signal.astype(np.float64)
    if filter.in_sections:
        result = sosfiltfilt(filter.coefficients, signal, axis=-1)
    else:
        result = filtfilt(*filter.coefficients, signal, axis=-1)
    return result


def running_median(signal: Floats, width: int) -> Floats:
    """Return the median of ``width`` samples around each, with zeros beyond both ends.

    Args:
        signal: ``(..., samples)``, any unit, no NaN.
        width: Odd.
    """
    from scipy.ndimage import median_filter

    # SciPy is forty times as fast on one axis as on two. One row of zeros parts all others.
    rows = np.pad(signal, [(0, 0)] * (signal.ndim - 1) + [(0, width // 2)])
    medians = median_filter(rows.ravel(), width, mode="constant").reshape(rows.shape)
    result: Floats = medians[..., : signal.shape[-1]]
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
    """Return ``(..., windows, leads, length)``: one copy of the signal from each start."""
    return np.stack([signal[..., start : start + length] for start in starts], axis=-3)


def cut_each(signal: Floats, starts: Iterable[SupportsIndex], length: int) -> Floats:
    """Return ``(items, leads, length)``: of each item the window from its own start."""
    pairs = zip(signal, map(operator.index, starts), strict=True)
    return np.stack([one[:, start : start + length] for one, start in pairs])


def standardise_leads(signal: Floats) -> NDArray[np.float64]:
    """Give each lead zero mean and unit population deviation over the whole signal, in float64.

    A constant lead becomes all 0. It is told by its maximum and minimum, so that no rounding of
    the mean can turn it into noise. Sums run over time-major memory, and the deviation is that of
    the centred signal, which gives ECG-FM's published preparation to the last bit.

    Args:
        signal: ``(..., leads, samples)``.
    """
    time_major = np.ascontiguousarray(signal.swapaxes(-1, -2), dtype=np.float64)
    signal = time_major.swapaxes(-1, -2)
    flat = np.ptp(signal, axis=-1, keepdims=True) == 0
    centred = signal - signal.mean(axis=-1, keepdims=True)
    deviation = centred.std(axis=-1, keepdims=True)
    return np.where(flat, 0.0, centred / np.where(flat, 1.0, deviation))


def standardise_windows(windows: Floats, *, eps: float = 0.0) -> NDArray[np.float64]:
    """Give each window one zero mean and unit population deviation over all leads, in float64.

    One mean and one deviation a window keep the ratios of amplitude between its leads. A window
    that is constant throughout becomes all 0.

    Args:
        windows: ``(..., leads, samples)``.
        eps: Added to the deviation.
    """
    windows = windows.astype(np.float64, copy=False)
    axes = (-2, -1)
    flat = np.ptp(windows, axis=axes, keepdims=True) == 0
    mean = windows.mean(axis=axes, keepdims=True)
    deviation = windows.std(axis=axes, keepdims=True) + eps
    return np.where(flat, 0.0, (windows - mean) / np.where(flat, 1.0, deviation))


def reorder_leads(signal: Floats, leads: Sequence[str], order: Sequence[str]) -> Floats:
    """Return the rows of ``signal`` named by ``order``, in that order.

    Raises:
        ValueError: A lead of ``order`` is not among ``leads``.
    """
    return signal[[list(leads).index(lead) for lead in order]]
