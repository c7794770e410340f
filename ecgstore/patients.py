"""Imaginary people and their visits: everything about a synthetic ECG that is not a waveform.

A patient is drawn once and shared by all of their ECGs; a visit adds rate, rhythm and how far an
infarction has come. The proportions are this project's own, near those of an ambulance service's
patients with chest pain; 30 % of the acute events hardly show, 8 % of the others look ill.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from ecgstore.heart import N_SAMPLES, NORMAL, QRS, RATE_HZ, P, T

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "Patient",
    "Visit",
    "draw_patient",
    "draw_visit",
    "generator",
]

_FRONTAL_AXIS = 45.0  # mean electrical axis of `NORMAL` in the frontal plane, degrees

_CONDITIONS = ("early repolarisation", "LVH strain", "pericarditis", "LBBB", "RBBB")


@dataclass(frozen=True, eq=False)
class Patient:
    """What stays the same between two ECGs of one person.

    Attributes:
        number: Counts from 1.
        age: Years.
        sex: ``female`` or ``male``.
        acs: Whether the person has an acute coronary syndrome: the label.
        territory: Key of `ecgstore.heart.TERRITORIES`, or empty.
        subtle: An acute coronary syndrome that the ECG hardly shows, or not at all.
        condition: Bundle-branch block and other shapes that imitate one, or empty.
        peak_mv: ST deviation at the height of the event over the leads of the territory.
        onset_h: Hours between the first complaint and the first ECG.
        rate_bpm: Usual heart rate.
        pr_s: Time from P to QRS.
        qrs_s: Duration of the QRS complex.
        qtc_s: QT interval at 60 beats per minute.
        heart: ``(waves, 3)`` heart vector of each wave, mV.
        st: ``(3,)`` ST vector without the acute event, mV.
        electrodes: ``(8, waves)`` factors by which each lead departs from a dipole.
        visits: How many ECGs were taken.
        site: Index of the site.
        qrs_shift: ``(5,)`` by how much each wave of the QRS comes late, as a share of its duration.
    """

    number: int
    age: float
    sex: str
    acs: bool
    territory: str
    subtle: bool
    condition: str
    peak_mv: float
    onset_h: float
    rate_bpm: float
    pr_s: float
    qrs_s: float
    qtc_s: float
    heart: NDArray[np.float64]
    st: NDArray[np.float64]
    electrodes: NDArray[np.float64]
    visits: int
    site: int
    qrs_shift: NDArray[np.float64] = field(default_factory=lambda: np.zeros(5))


@dataclass(frozen=True, eq=False)
class Visit:
    """What belongs to one ECG.

    Attributes:
        number: Counts from 1 within the patient.
        hours: Since the patient's first ECG.
        rhythm: ``sinus`` or ``AF``.
        beats_s: ``(beats,)`` times of the R waves from the first sample; some lie outside.
        ectopic: ``(beats,)`` which of them are premature ventricular beats.
        beat_gain: ``(beats,)`` how each beat's size departs from the mean.
        st_mv: ST deviation at J + 60 ms, mean over the leads of the territory; 0 without one.
        flutter: Frequency in Hz and phase of the atrial waves in AF.
        respiration: Frequency in Hz and phase.
    """

    number: int
    hours: float
    rhythm: str
    beats_s: NDArray[np.float64]
    ectopic: NDArray[np.bool_]
    beat_gain: NDArray[np.float64]
    st_mv: float
    flutter: tuple[float, float]
    respiration: tuple[float, float]


def generator(seed: int, patient: int, visit: int) -> np.random.Generator:
    """Return the random numbers of one visit, or of the patient as such (visit 0).

    Philox is keyed, so record 5,000 is made without making those before it.
    """
    return np.random.Generator(np.random.Philox(key=np.array([seed, patient << 16 | visit], "<u8")))


def draw_patient(seed: int, number: int, *, acs: float, sites: int) -> Patient:
    """Draw a person.

    Args:
        seed: Seed of the cohort.
        number: Number of the patient in it.
        acs: Probability of an acute coronary syndrome.
        sites: How many sites there are to be recorded at.
    """
    rng = generator(seed, number, 0)
    ill = bool(rng.random() < acs)
    male = bool(rng.random() < (0.62 if ill else 0.50))
    age = 18 + 77 * (rng.beta(5.4, 3.3) if ill else rng.beta(1.2, 1.6))
    territory, subtle, peak = _draw_event(rng) if ill else ("", False, 0.0)
    condition = _draw_condition(rng, age, male=male, ill=ill)
    body_mass = np.clip(rng.normal(27, 4.5), 17, 45)
    gain = (1.0 if male else 0.9) * np.exp(rng.normal(0, 0.27) - 0.015 * (body_mass - 27))
    axis = rng.normal(_FRONTAL_AXIS - 0.4 * (age - 50), 26)
    heart, st = _draw_heart(rng, axis, young_man=male and age < 50)
    block = {"LBBB": 0.050, "RBBB": 0.040}.get(condition, 0.0)
    qrs = np.clip(rng.normal(0.092 + 0.005 * male, 0.009), 0.07, 0.115) + block
    heart, st = _apply_condition(heart * gain, st * gain, condition)
    electrodes = np.ones((8, len(NORMAL)))
    electrodes[2:] += rng.normal(0, 0.05, (6, len(NORMAL)))
    return Patient(
        number=number,
        age=float(np.floor(age)),
        sex="male" if male else "female",
        acs=ill,
        territory=territory,
        subtle=subtle,
        condition=condition,
        peak_mv=peak,
        onset_h=float(np.exp(rng.uniform(np.log(0.3), np.log(24)))),
        rate_bpm=float(np.clip(rng.normal(76 if ill else 72, 13), 42, 130)),
        pr_s=float(np.clip(rng.normal(0.160, 0.020), 0.11, 0.24)),
        qrs_s=float(qrs),
        qtc_s=float(np.clip(rng.normal(0.405 if male else 0.420, 0.018), 0.37, 0.46) + block / 2),
        heart=heart,
        st=st,
        electrodes=electrodes,
        visits=int(1 + rng.choice(3, p=[0.88, 0.09, 0.03])),
        site=int(rng.integers(sites)),
    )


def _draw_event(rng: np.random.Generator) -> tuple[str, bool, float]:
    """Draw territory, whether the ECG hardly shows it, and the ST deviation at its height, mV."""
    names = ("anterior", "inferior", "lateral", "posterior", "diffuse")
    territory = str(rng.choice(names, p=[0.24, 0.26, 0.12, 0.08, 0.30]))
    subtle = bool(rng.random() < 0.30)
    size = rng.uniform(0.10, 0.40) if territory != "diffuse" else rng.uniform(0.05, 0.20)
    sign = -1.0 if territory in ("posterior", "diffuse") else 1.0
    return territory, subtle, float(sign * size * (rng.uniform(0, 0.2) if subtle else 1.0))


def _draw_condition(rng: np.random.Generator, age: float, *, male: bool, ill: bool) -> str:
    """Draw one of the imitators, or none: 8 % of controls, 3 % beside an acute event."""
    if rng.random() >= (0.03 if ill else 0.08):
        return ""
    young = age < 50
    weights = [3.0 * male if young else 0.0, 2.0, 2.0 if young else 1.0, 1.0, 1.5]
    if ill:
        weights[0] = weights[2] = 0.0
    return str(rng.choice(_CONDITIONS, p=np.array(weights) / sum(weights)))


def _draw_heart(
    rng: np.random.Generator, axis: float, *, young_man: bool
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Draw the heart vectors of a person with a frontal axis in degrees."""
    size = np.linalg.norm(NORMAL, axis=1, keepdims=True)
    heart = NORMAL * np.exp(rng.normal(0, 0.15, (len(NORMAL), 1)))
    heart = heart + rng.normal(0, 0.10, heart.shape) * size
    heart[T] *= np.exp(rng.normal(0, 0.25))
    frontal, sideways = np.radians(axis - _FRONTAL_AXIS), np.radians(rng.normal(0, 12))
    p_turn, t_turn = np.radians(rng.normal(0, 12, 2))
    turns = ((P, 0.3, p_turn), (QRS, 0.65, 0.0), (T, 0.35, t_turn))
    for rows, share, own in turns:  # the axis in the leads turns further than the heart vector
        heart[rows] = heart[rows] @ _rotation(share * frontal + own, share * sideways).T
    st = rng.normal(0, 0.012, 3) + (np.array([0.02, 0.01, -0.04]) if young_man else 0.0)
    return heart, st


def _rotation(frontal: float, sideways: float) -> NDArray[np.float64]:
    """Return the turn about the back-to-front axis after that about the vertical one, radians."""
    c, s = np.cos(frontal), np.sin(frontal)
    about_z = np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])
    c, s = np.cos(sideways), np.sin(sideways)
    about_y = np.array([[c, 0.0, -s], [0.0, 1.0, 0.0], [s, 0.0, c]])
    return np.asarray(about_z @ about_y)


def _apply_condition(
    heart: NDArray[np.float64], st: NDArray[np.float64], condition: str
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Reshape QRS, ST and T as a condition does."""
    heart, main = heart.copy(), heart[QRS].sum(axis=0)
    match condition:
        case "early repolarisation":
            st = st + 0.11 * np.array([0.6, 0.5, -0.6])
            heart[T] *= 1.4
        case "LVH strain":
            heart[4:6] *= 1.6
            st = st - 0.06 * main
            heart[T] = -0.15 * main
        case "pericarditis":
            st = st + 0.15 * np.array([0.75, 0.60, -0.25])
        case "LBBB":
            heart[2] = 0.0
            heart[3:6] = 0.7 * heart[3:6] + 0.25 * main
            st = st - 0.06 * main
            heart[T] = -0.22 * main
        case "RBBB":
            heart[6] = 0.4 * np.linalg.norm(main) * np.array([-0.62, 0.0, -0.78])
            heart[T] += np.array([0.08, 0.0, 0.25])
    return heart, st


def draw_visit(patient: Patient, number: int, rng: np.random.Generator) -> Visit:
    """Draw one ECG of a patient; the generator goes on to draw its noise."""
    hours = 0.0 if number == 1 else 24 * (number - 2) + float(rng.uniform(0.2, 24))
    rate = float(np.clip(rng.normal(patient.rate_bpm, 5), 38, 150))
    if rng.random() < 0.05:  # a fast or a slow day
        rate = float(rng.choice([rng.uniform(40, 52), rng.uniform(105, 140)]))
    rhythm = "AF" if rng.random() < 0.002 * max(patient.age - 45, 2) else "sinus"
    respiration = (float(rng.uniform(0.18, 0.33)), float(rng.uniform(0, 2 * np.pi)))
    ectopy = rng.uniform(0.05, 0.3) if rng.random() < 0.06 else 0.0
    beats, ectopic = _draw_beats(rng, rate, patient.age, rhythm, respiration, ectopy)
    breath = np.sin(2 * np.pi * respiration[0] * beats + respiration[1])
    decay = np.exp(-(patient.onset_h + hours) / 30)
    return Visit(
        number=number,
        hours=hours,
        rhythm=rhythm,
        beats_s=beats,
        ectopic=ectopic,
        beat_gain=1 + 0.03 * breath + rng.normal(0, 0.012, len(beats)),
        st_mv=float(patient.peak_mv * decay),
        flutter=(float(rng.uniform(4.5, 8.0)), float(rng.uniform(0, 2 * np.pi))),
        respiration=respiration,
    )


def _draw_beats(
    rng: np.random.Generator,
    rate: float,
    age: float,
    rhythm: str,
    respiration: tuple[float, float],
    ectopy: float,
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Draw when the heart beats, from before the first sample to past the last.

    The rhythm swings at 0.1 Hz and with the breath, less with age; a premature ventricular beat
    comes early and the next beat where it would have come anyway.
    """
    usual = 60 / rate
    low, high = rng.rayleigh((0.020, 0.018)) * np.exp(-(age - 20) / 40)
    phase = rng.uniform(0, 2 * np.pi)
    most = int(14 / min(usual, 0.4)) + 2
    jitter = rng.normal(0, 1, most)
    early = rng.random(most) < ectopy
    beats: list[float] = []
    ectopic: list[bool] = []
    time = -0.5 - 1.5 * rng.random()
    while time < N_SAMPLES / RATE_HZ + 1:
        step = len(beats)
        is_ectopic = bool(early[step]) and not (ectopic and ectopic[-1])
        beats.append(time - 0.35 * usual * is_ectopic)
        ectopic.append(is_ectopic)
        if rhythm == "AF":
            interval = usual * np.clip(np.exp(0.20 * jitter[step]), 0.55, 1.9)
        else:
            swing = low * np.sin(0.2 * np.pi * time + phase)
            swing += high * np.sin(2 * np.pi * respiration[0] * time + respiration[1])
            interval = usual * (1 + swing + 0.004 * jitter[step])
        time += interval
    return np.array(beats), np.array(ectopic)
