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

from ecgstore.heart import NORMAL, QRS, P, T

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ecgstore.patients import Patient

__all__ = ["CHANGES", "like_all_but_qrs", "vary"]

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

_TO_RIGHT = np.array([-0.62, 0.0, -0.78])
"""Where the last forces of a right bundle branch block point."""


def vary(patient: Patient, rng: np.random.Generator) -> Patient:
    """Return the same person with another heart, and electrodes placed less well.

    Args:
        patient: Who.
        rng: Where the numbers come from.

    Returns:
        The person; ``condition`` is the change that was made to the heart.
    """
    size = np.linalg.norm(patient.heart, axis=1, keepdims=True)
    heart = patient.heart * np.exp(rng.normal(0, 0.25, size.shape))
    heart = heart + rng.normal(0, 0.2, heart.shape) * np.maximum(size, 0.05)
    change = str(rng.choice(list(CHANGES), p=list(CHANGES.values())))
    heart, st, qrs = _change(heart, patient.st, patient.qrs_s, change, rng)
    if rng.random() < 0.3:
        heart[T] = heart[T] * rng.uniform(-0.6, 2.0)
    if rng.random() < 0.2:
        heart[P] = heart[P] * rng.uniform(0.2, 2.5)
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
        qrs_s=float(np.clip(qrs * np.exp(rng.normal(0, 0.08)), 0.065, 0.20)),
        pr_s=float(np.clip(patient.pr_s * np.exp(rng.normal(0, 0.2)), 0.09, 0.34)),
        qtc_s=float(np.clip(patient.qtc_s + rng.normal(0, 0.03), 0.34, 0.54)),
        rate_bpm=float(np.clip(patient.rate_bpm * np.exp(rng.normal(0, 0.12)), 40, 140)),
    )


def like_all_but_qrs(patient: Patient) -> Patient:
    """Return the same person with everybody's P, T, ST, rate and intervals, and a QRS of its own.

    What tells most records apart at a glance is gone, so an encoder that contrasts records has to
    look at the form of the QRS.

    Args:
        patient: Who, as `vary` returned it.
    """
    heart = np.concatenate([NORMAL[P], patient.heart[QRS], NORMAL[T]])
    return replace(patient, heart=heart, st=np.zeros(3), rate_bpm=70.0, pr_s=0.16, qtc_s=0.41)


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


def _direction(rng: np.random.Generator) -> NDArray[np.float64]:
    """Draw a direction, all alike."""
    drawn = rng.normal(size=3)
    return np.asarray(drawn / np.linalg.norm(drawn))
