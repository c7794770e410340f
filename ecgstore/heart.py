"""A model of the heart: the noise-free leads of an imaginary patient at a visit.

One heart vector drives every lead, so the leads of a synthetic ECG agree with each other as those
of a real one do: reciprocal depression and the limb-lead identities come of themselves. Constants
without a source are this project's own, tuned to the amplitudes of PTB-XL.

Sources: sums of Gaussians over the beat after McSharry et al., IEEE Trans Biomed Eng 50:289
(2003); a heart vector through a fixed matrix after Sameni et al., EURASIP J Adv Signal Process
2007:43407; the matrix is Dower's, Clin Cardiol 3:87 (1980).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ecgstore.patients import Patient, Visit

__all__ = [
    "BASIC_LEADS",
    "NORMAL",
    "N_SAMPLES",
    "QRS",
    "RATE_HZ",
    "TERRITORIES",
    "P",
    "T",
    "clean_signal",
]

RATE_HZ = 500
N_SAMPLES = 5000

BASIC_LEADS = ("I", "II", "V1", "V2", "V3", "V4", "V5", "V6")
"""The eight leads that are measured; the other four are sums of I and II."""

_DOWER = np.array(  # rows BASIC_LEADS; columns Frank x (left), y (down), z (back)
    [
        [0.632, -0.235, 0.059],
        [0.235, 1.066, -0.132],
        [-0.515, 0.157, -0.917],
        [0.044, 0.164, -1.387],
        [0.882, 0.098, -1.277],
        [1.213, 0.127, -0.601],
        [1.125, 0.127, -0.086],
        [0.831, 0.076, 0.230],
    ]
)

TERRITORIES: dict[str, tuple[str, ...]] = {
    "anterior": ("V1", "V2", "V3", "V4"),
    "inferior": ("II", "III", "aVF"),
    "lateral": ("I", "aVL", "V5", "V6"),
    "posterior": ("V1", "V2", "V3"),
    "diffuse": ("I", "II", "V4", "V5", "V6"),
}
"""The leads over which the ST deviation of each territory is stated.

``posterior`` and ``diffuse`` (ischaemia without occlusion) show as depression in theirs.
"""

_INJURY = {  # unit-free direction of the ST vector, before it is scaled to the stated deviation
    "anterior": (0.25, -0.35, -0.90),
    "inferior": (-0.15, 0.95, 0.10),
    "lateral": (0.85, -0.40, 0.20),
    "posterior": (0.10, 0.20, 0.95),
    "diffuse": (-0.85, -0.45, 0.15),
}
_IN_BASIC = {  # each lead as a sum of BASIC_LEADS
    **{lead: np.eye(8)[row] for row, lead in enumerate(BASIC_LEADS)},
    "III": np.eye(8)[1] - np.eye(8)[0],
    "aVL": np.eye(8)[0] - np.eye(8)[1] / 2,
    "aVF": np.eye(8)[1] - np.eye(8)[0] / 2,
}

NORMAL = np.array(
    [
        [0.02, 0.08, -0.04],  # P, right atrium
        [0.06, 0.05, 0.03],  # P, left atrium
        [-0.16, -0.08, -0.32],  # Q: the septum
        [1.12, 0.56, -0.08],  # R
        [0.74, 0.40, 0.62],  # R, the free wall
        [-0.32, 0.00, 0.86],  # S: the base
        [0.00, 0.00, 0.00],  # late forces, of a block
        [0.28, 0.22, -0.22],  # T
    ]
)
"""Heart vector of each wave of a healthy adult, mV: left, down, back."""

P, QRS, T = slice(0, 2), slice(2, 7), slice(7, 8)
"""Which rows of `NORMAL` make each part of a beat."""

_QRS_AT = np.array([0.20, 0.42, 0.58, 0.76, 0.90])  # centres, as a share of the QRS duration
_QRS_WIDTH = np.array([0.085, 0.090, 0.095, 0.100, 0.110])
_R_AT = 0.42  # where in the QRS a beat has its time
_FINER = 4  # a beat is computed at this many times the rate, so it may begin between samples
_BEGIN, _END = (int(seconds * RATE_HZ * _FINER) for seconds in (-0.40, 0.80))


def clean_signal(patient: Patient, visit: Visit, *, cutoff_hz: float) -> NDArray[np.float64]:
    """Return the ECG without noise as a device of some bandwidth sees it.

    Args:
        patient: Who.
        visit: When.
        cutoff_hz: Where the device's (Gaussian) low-pass filter has lost 3 dB.

    Returns:
        ``(8, N_SAMPLES)`` mV in the order of `BASIC_LEADS`, 0 between T and P.
    """
    signal = np.zeros((8, N_SAMPLES))
    for ectopic in np.unique(visit.ectopic):
        vectors, st = (_ectopic if ectopic else _conducted)(patient, visit)
        beat = _beat(patient, visit, vectors, st, cutoff_hz, stretch=1.6 if ectopic else 1.0)
        chosen = visit.ectopic == ectopic
        begins = np.rint(visit.beats_s[chosen] * RATE_HZ * _FINER).astype(int) + _BEGIN
        for begin, gain in zip(begins, visit.beat_gain[chosen], strict=True):
            wave = beat[:, -begin % _FINER :: _FINER]
            start = -(-begin // _FINER)
            left, right = max(start, 0), min(start + wave.shape[1], N_SAMPLES)
            if left < right:
                signal[:, left:right] += gain * wave[:, left - start : right - start]
    if visit.rhythm == "AF":
        signal += _fibrillation(visit)
    return signal


def _beat(
    patient: Patient,
    visit: Visit,
    vectors: NDArray[np.float64],
    st: NDArray[np.float64],
    cutoff_hz: float,
    *,
    stretch: float,
) -> NDArray[np.float64]:
    """Return one beat in the basic leads, mV, `_FINER` times finer than the record."""
    at, left, right = _timing(patient, visit, stretch=stretch)
    loss = np.sqrt(1 + (0.1325 / cutoff_hz / left) ** 2)  # a Gaussian through a Gaussian filter
    shapes = _shapes(at, left * loss, right * loss, (1 - _R_AT) * patient.qrs_s * stretch)
    waves = (_DOWER @ (vectors / loss[:, None]).T) * patient.electrodes
    return np.asarray(waves @ shapes[:-1] + np.outer(_DOWER @ st, shapes[-1]))


def _timing(
    patient: Patient, visit: Visit, *, stretch: float
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return centre, left and right width of every wave, seconds from the time of the beat.

    QT follows the rate by Fridericia's cube root, Acta Med Scand 53:469 (1920).
    """
    pr, qrs = patient.pr_s, patient.qrs_s * stretch
    onset = -_R_AT * qrs
    squeeze = float(np.cbrt(np.median(np.diff(visit.beats_s))))
    rise, fall = 0.052 * squeeze, 0.034 * squeeze
    end = max(patient.qtc_s * squeeze, qrs + 0.11 + 2 * fall)
    at = onset + np.array(
        [-0.74 * pr, -0.56 * pr, *((_QRS_AT + patient.qrs_shift) * qrs), end - 2 * fall]
    )
    widths = [0.105 * pr, 0.115 * pr, *(_QRS_WIDTH * qrs)]
    return at, np.array([*widths, rise]), np.array([*widths, fall])


def _shapes(
    at: NDArray[np.float64],
    left: NDArray[np.float64],
    right: NDArray[np.float64],
    j_point: float,
) -> NDArray[np.float64]:
    """Return every wave as a Gaussian, and the ST segment as a plateau that ramps into T.

    Args:
        at: ``(waves,)`` centres, seconds from the time of the beat.
        left: ``(waves,)`` widths before the centre.
        right: ``(waves,)`` widths after it.
        j_point: End of the QRS; the ST segment is 1 at 60 ms after it.

    Returns:
        ``(waves + 1, samples)``, the ST segment last.
    """
    time = np.arange(_BEGIN, _END) / (RATE_HZ * _FINER)
    distance = time - at[:, None]
    width = np.where(distance < 0, left[:, None], right[:, None])
    waves = np.exp(-0.5 * (distance / width) ** 2)
    rise = np.clip((time - j_point + 0.010) / 0.040, 0, 1)
    peak = float(at[-1])
    ramp = 1 + 0.6 * (np.minimum(time, peak) - j_point - 0.060) / max(peak - j_point, 0.1)
    fall = np.where(time > peak, waves[-1], 1.0)
    return np.vstack([waves, rise * rise * (3 - 2 * rise) * ramp * fall])


def _conducted(patient: Patient, visit: Visit) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the heart vector of each wave and of the ST segment in a conducted beat.

    The course of an infarction: tall T in the first hours, ST elevation, Q waves, inverted T.
    """
    heart, st = patient.heart.copy(), patient.st.copy()
    if visit.rhythm == "AF":
        heart[P] = 0.0
    if not patient.territory:
        return heart, st
    injury = np.array(_INJURY[patient.territory])
    over = np.mean([_IN_BASIC[lead] for lead in TERRITORIES[patient.territory]], axis=0) @ _DOWER
    height = injury * patient.peak_mv / (over @ injury)
    hours = patient.onset_h + visit.hours
    if patient.territory == "diffuse":
        heart[T] += 0.9 * height
    else:
        tall, late = np.exp(-hours / 1.0), np.clip((hours - 6) / 24, 0, 1)
        heart[T] += height * (1.2 * tall - 1.5 * late)
        heart[QRS.start] -= 2.0 * height * np.clip((hours - 4) / 8, 0, 1)
    at, left, _ = _timing(patient, visit, stretch=1.0)
    begun = np.exp(-0.5 * (((1 - _R_AT) * patient.qrs_s + 0.060 - at[-1]) / left[-1]) ** 2)
    level = over @ (st + begun * heart[T].sum(axis=0))  # T has begun where ST is measured
    return heart, st + injury * (visit.st_mv - level) / (over @ injury)


def _ectopic(patient: Patient, visit: Visit) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the same for a ventricular beat: no P, a wide QRS from elsewhere, T against it."""
    size = np.linalg.norm(patient.heart[QRS].sum(axis=0))
    spread = 2 * np.pi * (patient.number * 0.618 % 1.0)  # each patient has one focus
    main = size * np.array([np.cos(spread), np.sin(spread), 0.6 * np.cos(2 * spread)])
    heart = np.zeros_like(patient.heart)
    heart[QRS] = np.array([0.1, 0.4, 0.5, 0.4, 0.1])[:, None] * main
    heart[T] = -0.5 * main
    return heart, -0.08 * main


def _fibrillation(visit: Visit) -> NDArray[np.float64]:
    """Return atrial fibrillation's waves, ``(8, N_SAMPLES)`` mV, largest in V1 and II."""
    hertz, phase = visit.flutter
    time = np.arange(N_SAMPLES) / RATE_HZ
    angle = 2 * np.pi * hertz * time + 2.0 * np.sin(2 * np.pi * 0.7 * time + phase) + phase
    wave = np.sin(angle) + 0.4 * np.sin(2 * angle + 1)
    return np.asarray((_DOWER @ np.array([-0.02, 0.05, -0.05]))[:, None] * wave)
