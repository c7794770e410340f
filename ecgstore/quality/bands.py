"""One Fourier transform of all leads, from which every figure by frequency is taken.

A band is brought back to the time domain at no more samples than the band is wide, so an envelope
of 12 Hz costs a transform of a few hundred points instead of one of the whole record. Figures are
then read off in time, where a median leaves out what is short, such as the QRS complexes.

Long records are cut into blocks of 10 s: a figure is the median over blocks, and neither time nor
memory grows faster than the record.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    Real = NDArray[np.float32]

__all__ = ["Bands", "Blocks", "quantile", "slide", "without_gaps"]

_BLOCK_S = 10.0
_OVERLAP_S = 1.0
_END_S = 0.02  # mains hum has a mean of about 0 over it


@dataclass(frozen=True, eq=False)
class Blocks:
    """How a record is cut: blocks of one length that overlap, so that no beat is lost at a cut.

    Attributes:
        length: Samples of a block.
        starts: ``(blocks,)`` first sample of each.
        cuts: ``(blocks + 1,)`` samples between which a block speaks for the record.
    """

    length: int
    starts: NDArray[np.intp]
    cuts: NDArray[np.float64]

    @classmethod
    def of(cls, n_samples: int, rate_hz: float) -> Blocks:
        """Cut a record: one block up to 20 s, else blocks of 10 s."""
        if n_samples <= 2 * _BLOCK_S * rate_hz:
            return cls(n_samples, np.zeros(1, np.intp), np.array([0.0, n_samples]))
        from scipy.fft import next_fast_len

        length = int(next_fast_len(round(_BLOCK_S * rate_hz), real=True))
        overlap = round(_OVERLAP_S * rate_hz)
        count = -(-(n_samples - overlap) // (length - overlap))
        starts = np.rint(np.linspace(0, n_samples - length, count)).astype(np.intp)
        middles = (starts[1:] + starts[:-1] + length) / 2
        return cls(length, starts, np.concatenate(([0.0], middles, [float(n_samples)])))


def without_gaps(signal: NDArray[np.floating]) -> Real:
    """Return the signal in float32 with a straight line across every gap of NaN.

    A row without a single number becomes 0. Infinite values count as gaps.

    Args:
        signal: ``(rows, samples)``, millivolts.
    """
    with np.errstate(over="ignore"):  # a number too large for float32 is a gap as well
        filled = signal.astype(np.float32)
    if np.isfinite(filled).all():
        return filled
    finite = np.isfinite(filled)
    at = np.arange(filled.shape[1])
    for row in np.flatnonzero(~finite.all(axis=1)):
        there = finite[row]
        filled[row] = np.interp(at, at[there], filled[row, there]) if there.any() else 0
    return filled


def quantile(values: NDArray[Any], share: float) -> NDArray[Any]:
    """Return the element of each row below which ``share`` of the row lies, without averaging."""
    kth = int(share * (values.shape[-1] - 1))
    return np.partition(values, kth, axis=-1)[..., kth]


def slide(function: np.ufunc, values: NDArray[Any], width: int) -> NDArray[Any]:
    """Return a maximum, minimum, "and" or "or" over every window of each row, by doubling.

    Args:
        function: ``np.maximum``, ``np.logical_and`` or the like.
        values: ``(..., samples)``.
        width: Samples of a window.

    Returns:
        ``(..., samples - width + 1)``: the first is that of the window that starts at sample 0.
    """
    done = 1
    while done < width:
        step = min(done, width - done)
        values = function(values[..., :-step], values[..., step:])
        done += step
    return values


@dataclass(frozen=True, eq=False)
class Bands:
    """The spectra of some rows of one length, each less the slope from end to end.

    Without it the jump from the last sample to the first would show in every band.

    Attributes:
        spectrum: ``(rows, samples // 2 + 1)`` complex64, as ``rfft`` gives it.
        rise: ``(rows,)`` how much the line goes up from the first sample to the last.
        n_samples: Samples of a row.
        rate_hz: Samples per second.
    """

    spectrum: NDArray[np.complex64]
    rise: Real
    n_samples: int
    rate_hz: float

    @classmethod
    def of(cls, rows: Real, rate_hz: float) -> Bands:
        """Transform ``(rows, samples)`` float32 millivolts."""
        from scipy.fft import rfft

        n_samples = rows.shape[1]
        width = min(n_samples, max(1, round(_END_S * rate_hz)))
        rise = (rows[:, -width:].sum(axis=1) - rows[:, :width].sum(axis=1)) / np.float32(width)
        level = np.multiply.outer(-rise, np.linspace(0, 1, n_samples, dtype=np.float32))
        level += rows
        return cls(rfft(level, overwrite_x=True), rise, n_samples, rate_hz)

    @property
    def duration_s(self) -> float:
        """Length of a row."""
        return self.n_samples / self.rate_hz

    def points(self, rate_hz: float) -> int:
        """Return how many samples a row has at about ``rate_hz``, and at least; fit for an FFT."""
        from scipy.fft import next_fast_len

        wanted = int(np.ceil(self.n_samples * rate_hz / self.rate_hz))
        return int(next_fast_len(max(wanted, 4)))

    def bin_of(self, hz: float) -> int:
        """Return the bin of the spectrum nearest to a frequency, at most the last."""
        return min(round(hz * self.n_samples / self.rate_hz), int(self.spectrum.shape[1]) - 1)

    def analytic(
        self,
        low_hz: float,
        high_hz: float,
        *,
        n_points: int | None = None,
        without: Iterable[tuple[float, float]] = (),
    ) -> NDArray[np.complex64]:
        """Return a band as a complex envelope, shifted down by ``low_hz``.

        Args:
            low_hz: Lower edge.
            high_hz: Upper edge, not included.
            n_points: Samples wanted over the row; None for the fewest that hold the band.
            without: Stretches of frequency to leave out.

        Returns:
            ``(rows, points)``: the modulus of a sine in the band is its amplitude.
        """
        from scipy.fft import ifft, next_fast_len

        low, high = self.bin_of(low_hz), self.bin_of(high_hz)
        band = self.spectrum[:, low:high]
        for start_hz, stop_hz in without:
            start, stop = self.bin_of(start_hz) - low, self.bin_of(stop_hz) - low + 1
            if stop > 0 and start < high - low:
                band = band.copy()
                band[:, max(start, 0) : stop] = 0
        points = n_points or int(next_fast_len(max(high - low, 4)))
        result: NDArray[np.complex64] = ifft(band, points)
        result *= np.float32(2 * points / self.n_samples)
        return result

    def around(self, centres_hz: Sequence[float], width_hz: float) -> NDArray[np.complex64]:
        """Return several bands of one width as complex envelopes: ``(rows, bands, points)``.

        A band that does not fit below half the sampling rate is NaN.
        """
        from scipy.fft import ifft

        width = max(1, round(width_hz * self.n_samples / self.rate_hz))
        starts = np.array(
            [round((hz - width_hz / 2) * self.n_samples / self.rate_hz) for hz in centres_hz]
        )
        fits = (starts >= 0) & (starts + width < self.spectrum.shape[1])
        bins = np.where(fits, starts, 0)[:, None] + np.arange(width)
        bands = self.spectrum[:, np.minimum(bins, self.spectrum.shape[1] - 1)]
        bands[:, ~fits] = np.nan
        result: NDArray[np.complex64] = ifft(bands)
        result *= np.float32(2 * width / self.n_samples)
        return result

    def filtered(self, low_hz: float, high_hz: float, n_points: int) -> Real:
        """Return the part of each row between two frequencies, ``(rows, n_points)`` millivolts."""
        from scipy.fft import irfft

        low, high = self.bin_of(low_hz), self.bin_of(high_hz) + 1
        band = self.spectrum[:, : min(high, n_points // 2)].copy()
        band[:, :low] = 0
        result: Real = irfft(band, n_points)
        result *= np.float32(n_points / self.n_samples)
        return result
