"""Imaginary people whose hearts differ far more than those of `ecgstore.patients`.

An encoder that is trained without labels learns to tell apart what differs between its records.
The cohort of chest-pain patients differs too little for that: its old infarcts, its hypertrophy
and its blocks are few and of one shape. Here every wave gets a size and a direction of its own,
and most patients one of six further changes, in any direction and of any size that is met. The
ranges are this project's own; nothing is fitted to a dataset, and no label is meant by a shape.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from ecgstore.heart import QRS, P, T

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ecgstore.patients import Patient

__all__ = ["CHANGES", "SCARS", "vary"]

CHANGES = {
    "": 0.30,
    "old infarct": 0.22,
    "hypertrophy": 0.10,
    "left bundle branch block": 0.08,
    "right bundle branch block": 0.08,
    "fascicular block": 0.10,
    "ST and T": 0.12,
}
"""What may be changed beyond the waves themselves, and in which share of patients."""

SCARS = {
    "inferior": (0.36, (0.0, 1.0, 0.1)),
    "anteroseptal": (0.26, (0.05, 0.1, -1.0)),
    "anterior": (0.16, (0.65, 0.1, -0.75)),
    "lateral": (0.08, (0.95, -0.3, 0.0)),
    "inferolateral": (0.08, (0.6, 0.75, 0.2)),
    "posterior": (0.06, (-0.1, 0.2, 0.95)),
}
"""Walls of the heart: which share of old infarcts is there, and where it is seen from.

Directions as in `ecgstore.heart`: left, down, back. An infarct shows as Q waves and less R in the
leads that look at it, in about the first 40 ms, and often as T turned there (Thygesen et al.,
Fourth Universal Definition of Myocardial Infarction, Circulation 138:e618, 2018); shares, sizes
and how often are chosen here.
"""

_TO_RIGHT = np.array([-0.62, 0.0, -0.78])
"""Where the last forces of a right bundle branch block point."""


def vary(
    patient: Patient, rng: np.random.Generator, lasting: np.random.Generator | None = None
) -> Patient:
    """Return the same person with another heart, and electrodes placed less well.

    Args:
        patient: Who.
        rng: Where the numbers come from.
        lasting: Where those come from that make the change; None takes `rng`. A person varied
            twice, with the same `lasting`, has one disease, and one order of the waves within the
            QRS, and else two hearts. With it, an old infarct is one of `SCARS`, else it points
            anywhere, and the waves keep their usual places.

    Returns:
        The person; ``condition`` is the change that was made to the heart.
    """
    retaken, lasting = lasting is not None, lasting or rng
    size = np.linalg.norm(patient.heart, axis=1, keepdims=True)
    heart = patient.heart * np.exp(rng.normal(0, 0.25, size.shape))
    heart = heart + rng.normal(0, 0.2, heart.shape) * np.maximum(size, 0.05)
    change = str(lasting.choice(list(CHANGES), p=list(CHANGES.values())))
    shift = patient.qrs_shift
    if retaken:
        shift = lasting.normal(0, 0.05, len(shift))
    if retaken and change == "old infarct":
        heart, st, qrs, delay = _scar(heart, patient.st, patient.qrs_s, lasting)
        shift = shift + delay
    else:
        heart, st, qrs = _change(heart, patient.st, patient.qrs_s, change, lasting)
    if lasting.random() < 0.3:
        heart[T] = heart[T] * lasting.uniform(-0.6, 2.0)
    if lasting.random() < 0.2:
        heart[P] = heart[P] * lasting.uniform(0.2, 2.5)
    gain = np.exp(rng.normal(0, 0.2))
    electrodes = patient.electrodes.copy()
    electrodes[2:] *= np.exp(rng.normal(0, 0.2, (len(electrodes) - 2, 1)))
    electrodes += rng.normal(0, np.array([0.05] * 2 + [0.15] * 6)[:, None], electrodes.shape)
    return replace(
        patient,
        condition=change,
        heart=heart * gain,
        st=st * gain,
        electrodes=electrodes,
        qrs_shift=shift,
        qrs_s=float(np.clip(qrs * np.exp(rng.normal(0, 0.08)), 0.065, 0.20)),
        pr_s=float(np.clip(patient.pr_s * np.exp(rng.normal(0, 0.2)), 0.09, 0.34)),
        qtc_s=float(np.clip(patient.qtc_s + rng.normal(0, 0.03), 0.34, 0.54)),
        rate_bpm=float(np.clip(patient.rate_bpm * np.exp(rng.normal(0, 0.12)), 40, 140)),
    )


def _change(
    heart: NDArray[np.float64],
    st: NDArray[np.float64],
    qrs: float,
    change: str,
    rng: np.random.Generator,
) -> tuple[NDArray[np.float64], NDArray[np.float64], float]:
    """Return heart vectors, ST vector and duration of the QRS after a change."""
    heart, main = heart.copy(), heart[QRS].sum(axis=0)
    match change:
        case "old infarct":
            return *_infarct(heart, st, main, rng), qrs
        case "hypertrophy":
            heart[QRS] *= rng.uniform(1.2, 2.0)
            if rng.random() < 0.6:  # with strain
                heart[T] = -rng.uniform(0, 0.25) * main
                st = st - rng.uniform(0, 0.1) * main
        case "left bundle branch block":
            heart[2] = 0.0
            heart[3:6] = 0.7 * heart[3:6] + rng.uniform(0.1, 0.4) * main
            heart[T] = -rng.uniform(0.10, 0.35) * main
            st, qrs = st - rng.uniform(0.02, 0.10) * main, rng.uniform(0.12, 0.18)
        case "right bundle branch block":
            last = _TO_RIGHT + np.array([0.0, rng.normal(0, 0.3), 0.0])
            heart[6] = rng.uniform(0.2, 0.6) * np.linalg.norm(main) * last
            heart[T] += rng.uniform(0, 1.5) * np.array([0.08, 0.0, 0.25])
            qrs = rng.uniform(0.105, 0.160)
        case "fascicular block":
            angle = np.radians(rng.choice([-1, 1]) * rng.uniform(50, 120))
            c, s = np.cos(angle), np.sin(angle)
            heart[3:6] = heart[3:6] @ np.array([[c, s, 0.0], [-s, c, 0.0], [0.0, 0.0, 1.0]])
        case "ST and T":
            st = st + rng.uniform(0.03, 0.20) * _direction(rng)
            heart[T] = heart[T] * rng.uniform(-1.0, 0.6) + rng.normal(0, 0.1, 3)
    return heart, st, qrs


def _infarct(
    heart: NDArray[np.float64],
    st: NDArray[np.float64],
    main: NDArray[np.float64],
    rng: np.random.Generator,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Take away what points to a scar: Q waves, less R, often T turned, sometimes ST raised."""
    towards = _direction(rng)
    if towards @ main < 0 and rng.random() < 0.8:
        towards = -towards
    extent = rng.uniform(0.2, 1.0)
    there = np.clip(heart @ towards, 0, None)[:, None] * towards
    heart[2] -= extent * rng.uniform(0.2, 0.7) * towards
    heart[3:5] -= extent * rng.uniform(0.3, 1.2) * there[3:5]
    if rng.random() < 0.7:
        heart[T] -= rng.uniform(0.1, 0.7) * towards
    if rng.random() < 0.4:
        st = st + rng.uniform(0.03, 0.25) * towards
    return heart, st


def _scar(
    heart: NDArray[np.float64],
    st: NDArray[np.float64],
    qrs: float,
    rng: np.random.Generator,
) -> tuple[NDArray[np.float64], NDArray[np.float64], float, NDArray[np.float64]]:
    """Turn the first 40 ms away from one of `SCARS`, and what goes with that.

    Returns:
        Heart vectors, ST vector, duration of the QRS, and how late its waves come.
    """
    where = list(SCARS)[rng.choice(len(SCARS), p=[share for share, _ in SCARS.values()])]
    towards = np.array(SCARS[where][1]) + rng.normal(0, 0.2, 3)
    towards /= np.linalg.norm(towards)
    extent = rng.uniform(0.35, 1.0)
    there = np.clip(heart @ towards, 0, None)[:, None] * towards
    heart = heart.copy()
    heart[2] -= there[2] + extent * rng.uniform(0.25, 0.7) * towards
    heart[3] -= extent * (rng.uniform(0.5, 1.1) * there[3] + rng.uniform(0.0, 0.5) * towards)
    heart[4] -= extent * rng.uniform(0.0, 0.5) * there[4]
    if rng.random() < 0.75:
        heart[T] -= there[T] + extent * rng.uniform(0.0, 0.35) * towards
    if rng.random() < 0.3:
        st = st + extent * rng.uniform(0.03, 0.15) * towards
    delay = extent * rng.uniform(0, 0.15, 5) * (heart[QRS] @ towards > 0)
    return heart, st, qrs * (1 + rng.uniform(0, 0.25) * extent), delay


def _direction(rng: np.random.Generator) -> NDArray[np.float64]:
    """Draw a direction, all alike."""
    drawn = rng.normal(size=3)
    return np.asarray(drawn / np.linalg.norm(drawn))
