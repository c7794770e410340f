"""What a signal is made of: hum, wander and noise of every lead, the beats, the average beat."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ecgstore.quality.bands import Bands, Blocks, quantile
from ecgstore.quality.reversal import BEAT_S
from ecgstore.quality.rpeaks import dominant, find_beats, joined, qrs_envelope, windows_at
from ecgstore.quality.thresholds import THRESHOLDS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    Real = NDArray[np.float32]

__all__ = ["MAINS_HZ", "Waves"]

MAINS_HZ = (50, 60)
"""The mains frequencies of the world."""

_ASIDE_HZ = (75, 40)  # what is there without hum: the first below half the sampling rate
_HARMONICS = (2, 3)
_CLEAR_MV = 0.01  # hum from which harmonics are looked for; of weaker hum they drown in noise
_HUM_WIDTH_HZ = 10.0  # so short in time, 0.1 s, that the signal between QRS complexes stays clean
_QUIET = 0.25  # hum is there all the time: its amplitude is read in the quietest quarter
_MAINS_IN_NOISE_HZ = (*MAINS_HZ, 100)
_NOISE_SHARE = 0.95  # of half the sampling rate: above, the device's filter has taken it
_NOISE_LEAST_HZ = 5.0
_WANDER_POINTS = 64
_BEAT_HZ = 250.0
_LEAST_BEATS = 3
_SNR_DB = (-20.0, 60.0)  # beyond is only rounding, or the luck of few beats
_VALUES = 1 << 20  # samples worked on at a time


@dataclass(frozen=True, eq=False)
class Waves:
    """Figures of each lead, ``(leads,)``, as medians over blocks; NaN for what cannot be told.

    Attributes:
        hum_mv: ``(2, leads)`` amplitude of each of `MAINS_HZ` with two harmonics.
        wander_mv: Peak to peak of what is slow.
        noise_mv: RMS of what is fast, between the beats and without hum.
        snr_db: Power of the average beat over that of what differs from it, noise and hum.
        agrees: Whether the R peaks are those of all leads together.
        beat_s: ``(beats,)`` R peaks of all leads together, in seconds from the first sample.
        beat_mv: ``(leads, len(BEAT_S))`` the average beat of the block with most beats alike, None
            without three of them; wander and what is above 40 Hz is not in it.
    """

    hum_mv: NDArray[np.floating]
    wander_mv: NDArray[np.floating]
    noise_mv: NDArray[np.floating]
    snr_db: NDArray[np.floating]
    agrees: NDArray[np.bool_]
    beat_s: NDArray[np.float64]
    beat_mv: Real | None

    @classmethod
    def of(cls, filled: Real, rate_hz: float) -> Waves:
        """Look at ``(leads, samples)`` millivolts without NaN, two seconds or more."""
        n_leads, n_samples = filled.shape
        blocks = Blocks.of(n_samples, rate_hz)
        parts: list[tuple[NDArray[np.floating], ...]] = []
        snr, times = [], []
        own, found = np.zeros(n_leads, int), np.zeros(n_leads, int)
        beat_mv, most = None, _LEAST_BEATS - 1
        for rows in _chunks(filled, blocks):
            bands = Bands.of(rows, rate_hz)
            noise, hum = _noise(bands), _hum(bands)
            parts.append((noise, *hum, _wander(bands)))
            step_s = bands.duration_s / (points := bands.points(_BEAT_HZ))
            slow = bands.filtered(THRESHOLDS.wander_hz, THRESHOLDS.noise_hz[0], points)
            envelope, envelope_step_s = qrs_envelope(bands)
            for first in range(0, len(rows), n_leads):
                block = slice(first, first + n_leads)
                beats = find_beats(envelope[block], envelope_step_s)
                times.append(beats.time_s)
                peaks, right = beats.tally(THRESHOLDS.agree_s)
                own += peaks
                found += right
                alike = _beats_alike(slow[block], step_s, beats.time_s)
                if alike is None:
                    continue
                other = noise[block] ** 2 + np.fmax(hum[:, block], 0).max(axis=0) ** 2 / 2
                snr.append(_snr_db(alike, np.fmax(other, 0)))
                if alike.shape[1] > most:
                    most, beat_mv = alike.shape[1], alike.sum(axis=1) / alike.shape[1]
        by_block = np.concatenate(
            [np.stack(part).reshape(4, -1, n_leads) for part in parts], axis=1
        )
        medians = np.median(by_block, axis=1) if len(blocks.starts) > 1 else by_block[:, 0]
        noise, hum_50, hum_60, wander = medians
        n_beats = sum(map(len, times))
        return cls(
            hum_mv=np.stack((hum_50, hum_60)),
            wander_mv=wander,
            noise_mv=noise,
            snr_db=np.median(snr, axis=0) if snr else np.full(n_leads, np.nan),
            agrees=2 * found >= THRESHOLDS.agree_share * np.maximum(own + n_beats, 1),
            beat_s=joined(times, blocks, rate_hz),
            beat_mv=beat_mv,
        )


def _chunks(filled: Real, blocks: Blocks) -> Iterator[Real]:
    """Yield ``(blocks × leads, samples)``: some blocks, all leads of the first before the next."""
    if len(blocks.starts) == 1:
        yield filled
        return
    count = max(1, _VALUES // (len(filled) * blocks.length))
    for first in range(0, len(blocks.starts), count):
        starts = blocks.starts[first : first + count]
        yield np.concatenate([filled[:, start : start + blocks.length] for start in starts])


def _noise(bands: Bands) -> Real:
    """Return the RMS in the noise band by the median of its envelope, ``(rows,)`` millivolts."""
    low, high = THRESHOLDS.noise_hz
    top = min(high, _NOISE_SHARE * bands.rate_hz / 2)
    half = THRESHOLDS.mains_half_hz
    mains = [(hz - half, hz + half) for hz in _MAINS_IN_NOISE_HZ]
    left_out = sum(max(0.0, min(top, stop) - max(low, start)) for start, stop in mains)
    if top - low - left_out < _NOISE_LEAST_HZ:
        return np.full(bands.spectrum.shape[0], np.nan, np.float32)
    power = _power(bands.analytic(low, top, without=mains), 0.5)
    # The power of an envelope of Gaussian noise is exponential, with a median of ln 2 times its
    # mean; the mean is twice the square of the RMS.
    result: Real = np.sqrt(power / (2 * np.log(2)) * (high - low) / (top - low - left_out))
    return result.astype(np.float32)


def _hum(bands: Bands) -> Real:
    """Return the amplitude of each mains frequency with its harmonics, ``(2, rows)``."""
    power = _power(bands.around([*MAINS_HZ, *_ASIDE_HZ], _HUM_WIDTH_HZ), _QUIET)
    floor = np.where(np.isnan(power[:, 2:3]), power[:, 3:], power[:, 2:3])
    above = np.maximum(power[:, :2] - floor, 0)
    if np.fmax(above, 0).max() >= _CLEAR_MV**2:
        harmonics = [order * mains for mains in MAINS_HZ for order in _HARMONICS]
        more = _power(bands.around(harmonics, _HUM_WIDTH_HZ), _QUIET) - floor
        above += np.fmax(more, 0).reshape(len(above), 2, -1).sum(axis=2)  # NaN: not in the signal
    amplitude: Real = np.sqrt(above).T
    return amplitude


def _power(envelope: NDArray[np.complex64], share: float) -> Real:
    """Return the quantile over time of the squared modulus."""
    return quantile(envelope.real**2 + envelope.imag**2, share)


def _wander(bands: Bands) -> Real:
    """Return the range of what is slow, with the line through the ends, ``(rows,)``."""
    slow = bands.filtered(0, THRESHOLDS.wander_hz, _WANDER_POINTS)
    slow += np.multiply.outer(bands.rise, np.linspace(0, 1, _WANDER_POINTS, dtype=np.float32))
    end = _WANDER_POINTS // 16  # where a wave that is cut off there bends it
    result: Real = np.ptp(slow[:, end:-end], axis=1)
    return result


def _beats_alike(slow: Real, step_s: float, time_s: NDArray[np.float64]) -> Real | None:
    """Return the beats that resemble each other, ``(leads, beats, len(BEAT_S))``, or None."""
    inside = (time_s + BEAT_S[0] >= 0) & (time_s + BEAT_S[-1] <= (slow.shape[1] - 1) * step_s)
    if np.count_nonzero(inside) < _LEAST_BEATS:
        return None
    alike = dominant(windows_at(slow, step_s, time_s[inside], BEAT_S), THRESHOLDS.alike)
    return alike if alike.shape[1] >= _LEAST_BEATS else None


def _snr_db(beats: Real, other: Real) -> NDArray[np.floating]:
    """Return the signal-to-noise ratio of each lead; NaN where it is constant.

    Args:
        beats: ``(leads, beats, samples)``, each with a mean of 0.
        other: ``(leads,)`` power of noise outside the band of the beats.
    """
    count = beats.shape[1]
    average = beats.sum(axis=1) / count
    power = np.einsum("ls,ls->l", average, average) / average.shape[1]
    rest = (np.einsum("lbs,lbs->l", beats, beats) / beats[0].size - power) * (count / (count - 1))
    signal = power - rest / count  # the average holds its share of the noise
    low, high = (10 ** (db / 10) for db in _SNR_DB)
    noise = np.maximum(rest, 0) + other
    ratio = np.divide(signal, noise, out=np.full_like(signal, high), where=noise > 0)
    return np.where(power > 0, 10 * np.log10(np.minimum(np.maximum(ratio, low), high)), np.nan)
