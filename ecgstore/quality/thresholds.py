"""Every number that decides something in the figures of signal quality, with where it is from.

Those without a source are this project's own: the smallest or roundest that raise no alarm on
clean records among 374 of PTB-XL, 72 of the PhysioNet/CinC Challenge 2021 and the long records of
MIT-BIH, and still find the defect where it was put in by arithmetic.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["THRESHOLDS", "Thresholds"]


@dataclass(frozen=True)
class Thresholds:
    """Thresholds of `ecgstore.quality` and of what it stands on.

    Attributes:
        shortest_s: Shorter records have no figures by frequency and no beats.
        empty_share: Nor have leads with more lost samples than this.
        flat_run_s: A constant run this long is flat; shorter ones lie between the beats of any
            ECG whose counts are 5 µV or more.
        flat_share: A lead is flat if this share of it is.
        plateau_s: A clipped sample is held this long, and for `plateau_samples` at least.
        plateau_samples: See `plateau_s`.
        plateau_jump: Steps of the converter from a plateau to its neighbour, on the steeper side:
            the top of a wave is entered and left step by step, a cut one is not.
        plateau_jump_share: The same as a share of the lead's range; both must be reached.
        wander_hz: Below is wander: a filter without phase shift may cut there (Kligfield et al.,
            Circulation 115:1306, 2007).
        noise_hz: Band of muscle noise: above P and T waves; the QRS complex is left out by a median
            over time.
        mains_half_hz: Half the width left out of that band around mains frequencies.
        mains_mv: Least amplitude for which 50 or 60 Hz is named: half a count of 5 µV.
        qrs_hz: Band of QRS energy (Elgendi, PLoS ONE 8:e73557, 2013).
        refractory_s: No beat follows another sooner (Pan & Tompkins, IEEE TBME 32:230, 1985).
        t_wave_s: A second peak this soon, less than half as high, is a T wave (ibid.).
        search_back: Usual intervals without a beat after which a lower threshold holds (ibid.).
        peak: Threshold of a beat, in usual peaks; half of it in search-back.
        peak_window_s: The usual peak is the median of the highest in each window of this length,
            long enough to hold a beat at 48 bpm.
        prominence: Usual peak over median envelope below which there are no beats; noise of this
            band stays below 3 (2.1 on average).
        alike: Least correlation of a beat with the typical one, to be averaged with it.
        agree_s: Farthest that a lead's R peak may be from the beat of all leads: half the 150 ms
            of ANSI/AAMI EC57.
        agree_share: F1 of R peaks from which a lead agrees; agreement between leads is iSQI of
            Clifford et al., Physiol Meas 33:1419 (2012).
        longest_rr_s: A longer interval is a gap in the signal and no part of the heart rate.
        plausible_mv: Height of the average beat, as the median over leads, outside of which the
            unit is in doubt.
        reversal: Lead of the best reading over the next best from which RA/LA, RA/LL and LA/LL
            are named; see `ecgstore.quality.reversal`.
    """

    shortest_s: float = 2.0
    empty_share: float = 0.5
    flat_run_s: float = 1.0
    flat_share: float = 0.8
    plateau_s: float = 0.01
    plateau_samples: int = 3
    plateau_jump: int = 4
    plateau_jump_share: float = 0.01
    wander_hz: float = 0.67
    noise_hz: tuple[float, float] = (40.0, 100.0)
    mains_half_hz: float = 1.0
    mains_mv: float = 0.0025
    qrs_hz: tuple[float, float] = (8.0, 20.0)
    refractory_s: float = 0.2
    t_wave_s: float = 0.36
    search_back: float = 1.66
    peak: float = 0.35
    peak_window_s: float = 1.25
    prominence: float = 3.0
    alike: float = 0.8
    agree_s: float = 0.075
    agree_share: float = 0.9
    longest_rr_s: float = 3.0
    plausible_mv: tuple[float, float] = (0.1, 5.0)
    reversal: tuple[float, float, float] = (2.0, 2.0, 4.0)


THRESHOLDS = Thresholds()
"""The thresholds in use."""
