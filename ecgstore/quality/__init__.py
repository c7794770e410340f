"""How good a signal is: figures of every lead and of the record, computed and never judged.

Nothing here changes, drops or refuses a signal; a gate is the user's choice (``--where``). What
cannot be told is None: bands above half the sampling rate, beats in a signal without any, the
limb-lead identities where leads were computed from others.

What the figures follow:

* a lead is flat, saturated, noisy, drifting: the defects listed by the PhysioNet/CinC Challenge
  2011 (Silva, Moody & Celi, Comput Cardiol 38:273, 2011);
* agreement of R peaks across leads: iSQI of Clifford et al., Physiol Meas 33:1419 (2012), but
  with 75 ms, half the 150 ms of beat-by-beat scoring in ANSI/AAMI EC57;
* wander is below 0.67 Hz, as far as the AHA/ACC/HRS recommendations let a filter without phase
  shift go (Kligfield et al., Circulation 115:1306, 2007);
* the band, refractory period and search-back of the R peaks: `ecgstore.quality.rpeaks`;
* swapped limb cables: `ecgstore.quality.reversal`.

Every threshold, with its source, is in `ecgstore.quality.thresholds`.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np

from ecgstore.quality.bands import quantile, without_gaps
from ecgstore.quality.plateaus import Plateaus
from ecgstore.quality.reversal import Reversal, swapped_cables
from ecgstore.quality.thresholds import THRESHOLDS
from ecgstore.quality.waves import MAINS_HZ, Waves

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from numpy.typing import NDArray

    Reals = NDArray[np.floating]

__all__ = ["LeadQuality", "RecordQuality", "assess"]

_UNITS = {"V": 1e3, "0.1 mV": 0.1, "uV": 1e-3, "nV": 1e-6}  # millivolts in one
_USUAL_MV = 1.0  # height of a beat, median over leads, as in the median record of PTB-XL
_BELIEVABLE = 6.0  # … times that, or a part of it, is what a unit must make of a beat
_RANGE_HZ = 125.0  # a quantile of 10 s needs no more samples a second
_TAIL = 0.005


@dataclass(frozen=True, slots=True)
class LeadQuality:
    """Figures of one lead; None for what cannot be told.

    Attributes:
        lead: Its name.
        flat: Whether next to nothing is in it: constant, or lost, for most of the time.
        flat_fraction: Share of time in constant runs of a second or more.
        saturated_fraction: Share of samples held at an end of the converter.
        clipped_fraction: Share of samples held at the lead's own highest or lowest count, where
            the signal jumps there and back.
        nan_fraction: Share of samples lost.
        range_mv: From the 0.5th to the 99.5th percentile.
        peak_to_peak_mv: From the lowest to the highest sample.
        hum_mv: Amplitude of 50 or 60 Hz with its second and third harmonic.
        mains_hz: 50 or 60, whichever is stronger over all leads; None if neither is to be seen.
        wander_mv: Peak to peak below 0.67 Hz, within 10 s.
        noise_mv: RMS between beats from 40 to 100 Hz without hum; of a band that ends sooner, what
            white noise of its density would have.
        snr_db: Power of the average beat over that of what is left of the beats without it, with
            noise and hum.
        r_agrees: Whether its R peaks are those of all leads together.
    """

    lead: str
    flat: bool | None = None
    flat_fraction: float | None = None
    saturated_fraction: float | None = None
    clipped_fraction: float | None = None
    nan_fraction: float | None = None
    range_mv: float | None = None
    peak_to_peak_mv: float | None = None
    hum_mv: float | None = None
    mains_hz: int | None = None
    wander_mv: float | None = None
    noise_mv: float | None = None
    snr_db: float | None = None
    r_agrees: bool | None = None


@dataclass(frozen=True, slots=True)
class RecordQuality:
    """Figures of a record; None for what cannot be told.

    Attributes:
        einthoven_mv: 95th percentile of ``|I + III − II|``.
        augmented_mv: 95th percentile of ``|aVR + aVL + aVF|``.
        reversal: The limb cables that are likely swapped; see `ecgstore.quality.reversal`.
        unit_suspicion: The unit the numbers seem to be in, where millivolts make no sense.
        heart_rate: Beats per minute.
        r_agreement: Share of leads whose R peaks are those of all leads together.
    """

    einthoven_mv: float | None = None
    augmented_mv: float | None = None
    reversal: Reversal | None = None
    unit_suspicion: str | None = None
    heart_rate: float | None = None
    r_agreement: float | None = None


def assess(
    leads: Sequence[str],
    signal_mv: NDArray[np.floating],
    rate_hz: float,
    *,
    digital: NDArray[np.integer] | None = None,
    derived: Collection[str] = (),
) -> tuple[RecordQuality, tuple[LeadQuality, ...]]:
    """Compute all figures of a record.

    Args:
        leads: Names, standard ones spelt as in `ecgstore.record.LEADS`.
        signal_mv: ``(leads, samples)`` millivolts, NaN where a sample is invalid.
        rate_hz: Samples per second.
        digital: ``(leads, samples)`` counts as stored; without them saturation cannot be told.
        derived: Leads that were computed from others.

    Returns:
        The record's figures, and those of each lead in the order given.

    Example:
        >>> time = np.arange(5000) / 500
        >>> record, (lead,) = assess(("II",), np.sin(2 * np.pi * 50 * time)[None], 500)
        >>> round(lead.hum_mv, 2), lead.mains_hz, record.heart_rate
        (1.0, 50, None)
    """
    if not signal_mv.size:
        return RecordQuality(), tuple(LeadQuality(lead) for lead in leads)
    n_samples = signal_mv.shape[1]
    filled = without_gaps(signal_mv)
    lost = np.count_nonzero(~np.isfinite(signal_mv), axis=1) / n_samples
    held = Plateaus.of(signal_mv if digital is None else digital, rate_hz)
    there = lost <= THRESHOLDS.empty_share
    alive = there & (held.flat < THRESHOLDS.flat_share)
    extent = _range(filled, rate_hz)
    columns: dict[str, Sequence[Any]] = {
        "lead": leads,
        "flat": (~alive).tolist(),
        "flat_fraction": held.flat.tolist(),
        "clipped_fraction": held.clipped.tolist(),
        "nan_fraction": lost.tolist(),
        "range_mv": _told(extent, lost < 1),
        "peak_to_peak_mv": _told(np.ptp(filled, axis=1), lost < 1),
    }
    if digital is not None:
        columns["saturated_fraction"] = held.saturated.tolist()
    record: dict[str, Any] = {
        "einthoven_mv": _residual(signal_mv, leads, {"I": 1, "II": -1, "III": 1}, derived, rate_hz),
        "augmented_mv": _residual(
            signal_mv, leads, {"aVR": 1, "aVL": 1, "aVF": 1}, derived, rate_hz
        ),
    }
    height = extent
    if n_samples >= THRESHOLDS.shortest_s * rate_hz:
        waves = Waves.of(filled, rate_hz)
        hum_mv, mains_hz = _hum(waves, alive)
        columns |= {
            "hum_mv": _told(hum_mv, there),
            "mains_hz": [mains_hz if one else None for one in alive],
            "wander_mv": _told(waves.wander_mv, there),
            "noise_mv": _told(waves.noise_mv, there),
            "snr_db": _told(waves.snr_db, alive),
        }
        if waves.beat_s.size > 1:
            columns["r_agrees"] = [
                bool(agrees) if one else None
                for agrees, one in zip(waves.agrees, alive, strict=True)
            ]
            record["heart_rate"] = _heart_rate(waves.beat_s)
            record["r_agreement"] = float(waves.agrees[alive].mean()) if alive.any() else None
        if waves.beat_mv is not None:
            height = np.ptp(waves.beat_mv, axis=1)
            record["reversal"] = swapped_cables(leads, waves.beat_mv)
    record["unit_suspicion"] = _unit(height[alive])
    untold = [None] * len(leads)
    in_order = (columns.get(field.name, untold) for field in fields(LeadQuality))
    return RecordQuality(**record), tuple(map(LeadQuality, *in_order))


def _told(values: Reals, where: NDArray[np.bool_]) -> list[float | None]:
    """Return numbers, None where they are NaN or must not be told."""
    good = where & np.isfinite(values)
    return [value if one else None for value, one in zip(values.tolist(), good, strict=True)]


def _range(filled: NDArray[np.float32], rate_hz: float) -> Reals:
    """Return the distance between the outer percentiles of each lead."""
    some = filled[:, :: max(1, int(rate_hz / _RANGE_HZ))]
    result: Reals = quantile(some, 1 - _TAIL) - quantile(some, _TAIL)
    return result


def _residual(
    signal_mv: Reals,
    leads: Sequence[str],
    signs: Mapping[str, int],
    derived: Collection[str],
    rate_hz: float,
) -> float | None:
    """Return the 95th percentile of what should be 0; None where a lead is missing or derived."""
    if any(lead not in leads or lead in derived for lead in signs):
        return None
    step = max(1, int(rate_hz / _RANGE_HZ))
    total = sum(sign * signal_mv[leads.index(lead), ::step] for lead, sign in signs.items())
    size = np.abs(total)
    size = size[np.isfinite(size)]
    return float(quantile(size, 0.95)) if size.size else None


def _hum(waves: Waves, alive: NDArray[np.bool_]) -> tuple[Reals, int | None]:
    """Return the hum of each lead at the mains frequency that is stronger, and that frequency.

    The hum of a record has one frequency; None where it is too weak in every lead to name one.
    """
    total = np.fmax(waves.hum_mv[:, alive], 0).sum(axis=1)
    stronger = int(np.argmax(total))
    hum_mv = waves.hum_mv[stronger]
    seen = alive.any() and np.fmax(hum_mv[alive], 0).max() >= THRESHOLDS.mains_mv
    return hum_mv, MAINS_HZ[stronger] if seen else None


def _heart_rate(beat_s: NDArray[np.float64]) -> float | None:
    """Return beats per minute over all intervals that are no gap in the signal."""
    intervals = np.diff(beat_s)
    intervals = intervals[intervals <= THRESHOLDS.longest_rr_s]
    return float(60 / intervals.mean()) if intervals.size else None


def _unit(height_mv: Reals) -> str | None:
    """Return the unit that makes usual beats of these heights, None where millivolts may do."""
    if not height_mv.size or not (height := float(quantile(height_mv, 0.5))):
        return None
    low, high = THRESHOLDS.plausible_mv
    if low <= height <= high:
        return None
    off = {unit: abs(np.log(height * mv / _USUAL_MV)) for unit, mv in _UNITS.items()}
    unit = min(off, key=off.__getitem__)
    return unit if off[unit] <= np.log(_BELIEVABLE) else None
