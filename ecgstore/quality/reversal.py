"""Swapped limb cables: which swap of two of RA, LA and LL would make the ECG a usual one.

Each swap permutes and turns the limb leads in a known way and leaves the precordial leads as they
are. So each of four readings of I and II (as recorded, and with one swap undone) is given a
score, and a swap is named only where its reading beats the recorded one by a wide margin. The
score is a weighted sum of what is usual in adults:

* lead I and the vertical axis (aVF) look like V5 and V6, in P, QRS and T: after Kors & van
  Herpen, J Electrocardiol 34 Suppl:91 (2001), who compare leads with what the others make expect;
* P and T point down, QRS to the left: after Hedén et al., Am J Cardiol 75:929 (1995);
* the P loop of the frontal plane turns counter-clockwise (the electrical axis of the P wave goes
  from the right atrium down, then to the left one), and any one swap makes it turn the other
  way: loop rotation is a feature of Han et al., J Electrocardiol 47:781 (2014).

The weights were fitted on 373 records of PTB-XL (maximum likelihood of the right reading among the
four, each record as it is and with each swap made by arithmetic, ridge of 2e-4). Held out by
fifths: RA/LA found in 97 %, RA/LL in 96 %, LA/LL in 20 % of swapped records; false alarms in 0, 1
and 0 of 373 (the one is a pacemaker's). In 68 records of six other sources: 85 %, 90 % and 21 %,
no false alarm. LA/LL is hard because its ECG is often as usual as the right one (Ohlsson, Hedén &
Edenbrandt, Lund preprint LU TP 99-24): it is named on strong evidence only. Dextrocardia and swaps
of the right leg are not told.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

from ecgstore.quality.thresholds import THRESHOLDS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = ["BEAT_S", "Reversal", "swapped_cables"]

Reversal = Literal["RA/LA", "RA/LL", "LA/LL"]

BEAT_S = np.arange(-35, 50) * 0.008
"""The moments of a beat, in seconds from its R peak, at which it is looked at."""

_SWAPS: tuple[Reversal | None, ...] = (None, "RA/LA", "RA/LL", "LA/LL")
_MARGIN = (0.0, *THRESHOLDS.reversal)
_WEIGHTS = np.array([0.7, 1.6, 1.0, 0.6, 1.8, 0.6, 1.0, 1.1, 5.6])
_SEEN_MV = 0.05  # less, peak to peak, is no beat
_NOISE_MV = np.array([0.01, 0.03, 0.03])  # of the means of P, QRS and T
_NOISE_MV2 = 1e-3 / 30  # of the mean square of two leads' product
_LOOP_NOISE_MV2 = 1e-4

# Each reading gives I and II from those recorded, and from them the frontal plane's axes: across
# (I) and down (aVF, as long as I is). All are sums of the recorded I and II: (reading, axis, lead).
_UNDONE = np.array(
    [[[1, 0], [0, 1]], [[-1, 0], [-1, 1]], [[1, -1], [0, -1]], [[0, 1], [1, 0]]], float
)
_AXES = np.array([[1, 0], [-(3**-0.5), 2 * 3**-0.5]]) @ _UNDONE
_TURNED = np.linalg.det(_AXES)


def _during(start_s: float, stop_s: float) -> slice:
    return slice(*np.searchsorted(BEAT_S, [start_s - 1e-9, stop_s - 1e-9]).tolist())


_LEVEL = _during(-0.075, -0.05)  # the PR segment of most
_WAVES = _during(-0.2, -0.075), _during(-0.05, 0.05), _during(0.14, 0.34)  # means of P, QRS, T
_SHAPES = _during(-0.2, -0.075), _during(-0.06, 0.06), _during(0.14, 0.34)
_LOOP = _during(-0.24, -0.075)  # a whole P wave


_MEANS = np.zeros((BEAT_S.size, len(_WAVES)))
for _column, _wave in enumerate(_WAVES):
    _MEANS[_wave, _column] = 1 / (_wave.stop - _wave.start)


def swapped_cables(leads: Sequence[str], beat_mv: NDArray[np.floating]) -> Reversal | None:
    """Return the swap that must have happened, None where there is none or it cannot be told.

    Args:
        leads: Names; I, II and at least one of V5 and V6 are needed.
        beat_mv: ``(leads, len(BEAT_S))`` the average beat.
    """
    at = {lead: row for row, lead in enumerate(leads)}
    lateral = [at[lead] for lead in ("V5", "V6") if lead in at]
    if "I" not in at or "II" not in at or not lateral:
        return None
    three = np.stack((beat_mv[at["I"]], beat_mv[at["II"]], beat_mv[lateral].sum(axis=0)))
    three = three.astype(np.float64)
    three[2] /= len(lateral)
    if np.ptp(three, axis=1).min() < _SEEN_MV:
        return None
    scores = _features(three) @ _WEIGHTS
    second, best = np.argsort(scores)[-2:].tolist()
    return _SWAPS[best] if scores[best] - scores[second] > _MARGIN[best] else None


def _features(three: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return how usual each reading is: ``(readings, len(_WEIGHTS))``, larger is more usual.

    Args:
        three: ``(3, len(BEAT_S))`` I, II and the mean of V5 and V6, millivolts.
    """
    level = three[:, _LEVEL]
    three = three - level.sum(axis=1, keepdims=True) / level.shape[1]
    vectors = _AXES @ (three[:2] @ _MEANS)  # (reading, axis, wave)
    directions = vectors / (np.hypot(vectors[:, 0], vectors[:, 1]) + _NOISE_MV)[:, None]
    # How a reading resembles the chest lead follows from products of the three rows alone.
    products = np.stack([three[:, wave] @ three[:, wave].T for wave in _SHAPES])
    along = _AXES @ products[:, None, :2, 2:]  # (wave, reading, axis, 1)
    own = _squares(products)
    noise = _NOISE_MV2 * np.array([wave.stop - wave.start for wave in _SHAPES])[:, None, None]
    likeness = along[..., 0] / (np.sqrt(own * products[:, None, 2:, 2]) + noise)
    x, y = three[:2, _LOOP] - three[:2, _LOOP].sum(axis=1, keepdims=True) / (
        _LOOP.stop - _LOOP.start
    )
    clockwise = _TURNED * (x[:-1] @ y[1:] - x[1:] @ y[:-1])
    size = _squares(np.array([[[x @ x, x @ y], [x @ y, y @ y]]]))[0].sum(axis=1)
    return np.stack(
        (
            directions[:, 1, 0],  # P points down
            directions[:, 0, 1],  # QRS points to the left
            directions[:, 1, 2],  # T points down
            likeness[1, :, 0],
            likeness[2, :, 0],
            likeness[0, :, 0],
            likeness[1, :, 1],
            likeness[0, :, 1],
            -clockwise / (size + _LOOP_NOISE_MV2 * len(x)),
        ),
        axis=1,
    )


def _squares(products: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the sum of squares of each axis of each reading, ``(products, readings, axes)``.

    Args:
        products: ``(products, 2, 2)`` and more: those of I and II with each other come first.
    """
    sums = _AXES @ products[:, None, :2, :2]
    result: NDArray[np.float64] = (sums * _AXES).sum(axis=3)
    return result
