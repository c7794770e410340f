"""Synthetic 12-lead ECGs with a hidden truth: the offline default of the demo and of large tests.

Patients and waveforms come from `ecgstore.patients` and `ecgstore.heart`; here electrodes add
noise and faults, a device digitises, and a record is written as WFDB. Every record is a function
of seed, patient and visit alone, and says ``synthetic`` in its site, its device and its header,
so no table mixes it with real ECGs unnoticed.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import chain, count, islice
from typing import TYPE_CHECKING, Any

import numpy as np

from ecgstore.errors import UsageError
from ecgstore.heart import N_SAMPLES, RATE_HZ, clean_signal
from ecgstore.io.wfdb_write import samples_16, signal_lines
from ecgstore.patients import Patient, Visit, draw_patient, draw_visit, generator
from ecgstore.record import INVALID, LEADS, Record, Signal, lead_signals
from ecgstore.variety import vary

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

__all__ = ["GENERATOR", "SyntheticRecord", "cohort", "write_wfdb"]

GENERATOR = "ecgstore.synthetic 1"
"""Name and version of the generator; the version changes when the bytes of a seed do."""

_EPOCH = datetime(2100, 1, 1, tzinfo=UTC)  # no real ECG was taken then


@dataclass(frozen=True)
class _Site:
    """A place with its device: ``gain`` in counts per mV, ``hum`` and ``noise`` as factors."""

    name: str
    device: str
    gain: float
    cutoff_hz: float
    mains_hz: float
    noise: float


_SITES = (
    _Site("synthetic A", "synthetic cart", 1000.0, 150.0, 50.0, 0.8),
    _Site("synthetic B", "synthetic monitor", 204.8, 150.0, 60.0, 1.0),
    _Site("synthetic C", "synthetic ambulance", 400.0, 40.0, 50.0, 1.4),
)

_ELECTRODES = ("LA", "RA", "LL", "V1", "V2", "V3", "V4", "V5", "V6")
_FROM_ELECTRODES = np.zeros((8, 9))  # Einthoven's leads, and Wilson's central terminal
_FROM_ELECTRODES[0, :2] = 1, -1
_FROM_ELECTRODES[1, 1:3] = -1, 1
_FROM_ELECTRODES[2:, :3] = -1 / 3
_FROM_ELECTRODES[2:, 3:] = np.eye(6)

_FAULTS = ("flat lead", "swapped arms", "clipped lead", "missing V leads", "lost samples")
_FAULT_SHARE = 0.02

_VARIETY = 0xFFFF
"""Stands for a visit in the key of the numbers that vary a heart; no patient has so many."""


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class SyntheticRecord(Record):
    """A record that knows the truth behind it.

    Attributes:
        patient: Who; ``patient.acs`` is the label.
        visit: When, with the times of the beats.
        later: The record whose second half stands for this one's, if it was retaken midway. What
            else is told here is true of the first half.
    """

    patient: Patient
    visit: Visit
    later: SyntheticRecord | None = None

    @property
    def clean_mv(self) -> NDArray[np.float64]:
        """The signal before noise, faults and ADC: ``(12, samples)`` mV, computed anew."""
        cutoff = _SITES[self.patient.site].cutoff_hz
        clean = _twelve(clean_signal(self.patient, self.visit, cutoff_hz=cutoff))
        return clean if self.later is None else _halves(clean, self.later.clean_mv)

    @property
    def truth(self) -> dict[str, object]:
        """What the generator knows, as a row of the labels file.

        ``st_mv`` is the severity: ST deviation at J + 60 ms, mean over the territory's leads.
        ``mimic`` names what makes a patient without an acute event look as if there were one.
        """
        patient, visit = self.patient, self.visit
        return {
            "record_id": f"synthetic/{self.name}",
            "patient_id": self.meta["patient_id"],
            "ACS": int(patient.acs),
            "age": patient.age,
            "sex": patient.sex,
            "territory": patient.territory,
            "st_mv": round(visit.st_mv, 4),
            "subtle": int(patient.subtle),
            "mimic": "" if patient.acs else patient.condition,
            "condition": patient.condition,
            "rhythm": visit.rhythm,
            "ectopic_beats": int(visit.ectopic.sum()),
            "onset_h": round(patient.onset_h + visit.hours, 2) if patient.acs else "",
            "site": self.meta["site"],
            "device": self.meta["device"],
            "quality": ";".join(self.quality),
            "synthetic": "true",
            "generator": GENERATOR,
        }


def cohort(
    n: int, *, seed: int, acs: float = 0.20, varied: bool = False, retaken: bool = False
) -> Iterator[SyntheticRecord]:
    """Make a cohort, one record at a time.

    Ten seconds at 500 Hz, twelve leads, 1 to 4.88 µV per count by site; about one patient in
    eight has more than one record. The same seed gives the same counts on any machine.

    Args:
        n: How many records.
        seed: Seed of the cohort, not negative.
        acs: Probability that a patient has an acute coronary syndrome.
        varied: Whether hearts differ as `ecgstore.variety` makes them, for pretraining; the
            patients are otherwise the same.
        retaken: Whether the second half of each record, of varied hearts, is from another ECG of
            that patient: the disease is the same, and waves, electrodes, rate and noise are drawn
            anew. What two halves then share is the disease. One record a patient.

    Raises:
        UsageError: A number out of range.

    Example:
        >>> record = next(cohort(1, seed=0))
        >>> record, record.meta["site"]
        (Record('S00001_1', 12 leads × 5000 samples, 500 Hz), 'synthetic A')
    """
    if n < 0 or seed < 0 or not 0 <= acs <= 1:
        msg = f"A cohort needs n ≥ 0, seed ≥ 0 and 0 ≤ acs ≤ 1, not {n}, {seed} and {acs}."
        raise UsageError(msg)
    make = _retaken if retaken else _varied if varied else _visits
    people = (draw_patient(seed, number, acs=acs, sites=len(_SITES)) for number in count(1))
    return islice(chain.from_iterable(make(seed, one) for one in people), n)


def _visits(seed: int, patient: Patient) -> Iterator[SyntheticRecord]:
    for visit in range(1, patient.visits + 1):
        yield _record(patient, visit, generator(seed, patient.number, visit))


def _varied(seed: int, patient: Patient) -> Iterator[SyntheticRecord]:
    return _visits(seed, vary(patient, generator(seed, patient.number, _VARIETY)))


def _retaken(seed: int, patient: Patient) -> Iterator[SyntheticRecord]:
    first, second = (_retake(seed, patient, visit) for visit in (1, 2))
    quality = (*first.quality, *(word for word in second.quality if word not in first.quality))
    digital = _halves(first.digital, second.digital)
    yield replace(first, digital=digital, quality=quality, later=second)


def _retake(seed: int, patient: Patient, visit: int) -> SyntheticRecord:
    now = generator(seed, patient.number, _VARIETY - visit)
    lasting = generator(seed, patient.number, _VARIETY)
    return _record(vary(patient, now, lasting), 1, generator(seed, patient.number, visit))


def _record(patient: Patient, number: int, rng: np.random.Generator) -> SyntheticRecord:
    site = _SITES[patient.site]
    visit = draw_visit(patient, number, rng)
    noise, quality = _noise(rng, visit, site)
    basic = clean_signal(patient, visit, cutoff_hz=site.cutoff_hz) + _FROM_ELECTRODES @ noise
    fault = str(rng.choice(_FAULTS)) if rng.random() < _FAULT_SHARE else ""
    if fault == "swapped arms":
        basic[1] -= basic[0]  # II becomes III
        basic[0] *= -1
    digital = _digitise(basic, site.gain)
    if fault:
        quality.append(_break(digital, fault, rng))
    identifier = f"S{patient.number:05d}"
    return SyntheticRecord(
        name=f"{identifier}_{number}",
        leads=LEADS,
        rate_hz=float(RATE_HZ),
        digital=digital,
        gain=np.full(12, site.gain),
        baseline=np.zeros(12, np.int32),
        meta={
            "patient_id": identifier,
            "age": patient.age,
            "sex": patient.sex,
            "site": site.name,
            "device": site.device,
            "recorded_at": _EPOCH + timedelta(hours=7 * patient.number + visit.hours),
            "synthetic": True,
        },
        quality=tuple(quality),
        patient=patient,
        visit=visit,
    )


def _noise(
    rng: np.random.Generator, visit: Visit, site: _Site
) -> tuple[NDArray[np.float64], list[str]]:
    """Draw what each electrode adds, ``(9, N_SAMPLES)`` mV, and the words for what is striking.

    Noise belongs to electrodes, not to leads: so Einthoven's law holds with it.
    """
    time = np.arange(N_SAMPLES) / RATE_HZ
    wander, muscle, hum = site.noise * np.exp(
        rng.normal(np.log([0.025, 0.006, 0.002]), [0.8, 0.6, 0.8])
    )
    wander, muscle = min(wander, 0.3), min(muscle, 0.05)
    quality = [
        word
        for word, striking in (("baseline drift", wander > 0.07), ("static noise", muscle > 0.015))
        if striking
    ]
    slow_hz = np.append(rng.uniform(0.05, 0.5, 4), visit.respiration[0])
    noise = wander * (_complex_normal(rng, (9, 5)) @ _rotations(slow_hz)).real / np.sqrt(5)
    fast = _muscle(rng, site) * muscle * np.exp(rng.normal(0, 0.3, (9, 1)))
    if rng.random() < 0.03:
        burst = 5 * np.exp(-0.5 * ((time - rng.uniform(1, 9)) / rng.uniform(0.2, 0.8)) ** 2)
        fast *= 1 + burst * (rng.random((9, 1)) < 0.5)
        quality.append("burst noise")
    noise += fast
    mains_hz = site.mains_hz * np.array([1, 3])
    size = hum * np.array([1, 0.2]) * np.exp(-0.5 * np.log(2) * (mains_hz / site.cutoff_hz) ** 2)
    noise += ((_complex_normal(rng, (9, 2)) * size) @ _rotations(mains_hz)).real
    if rng.random() < 0.03:
        since = time - rng.uniform(0.5, 9.5)
        step = rng.normal(0, 0.5) * np.exp(-np.maximum(since, 0) / rng.uniform(0.3, 2.0))
        noise[rng.integers(9)] += np.where(since > 0, step, 0.0)
        quality.append("electrode step")
    return noise, quality


def _complex_normal(rng: np.random.Generator, shape: tuple[int, int]) -> NDArray[np.complex128]:
    real, imaginary = rng.normal(size=(2, *shape))
    return np.asarray(real + 1j * imaginary)


def _rotations(hertz: NDArray[np.float64]) -> NDArray[np.complex128]:
    """Return exp(2πi·f·t), ``(frequencies, N_SAMPLES)``, as products of few exponentials."""
    step = 2j * np.pi * hertz[:, None] / RATE_HZ
    fine, coarse = np.exp(step * np.arange(100)), np.exp(step * np.arange(0, N_SAMPLES, 100))
    return np.asarray(coarse[:, :, None] * fine[:, None, :]).reshape(len(hertz), N_SAMPLES)


def _muscle(rng: np.random.Generator, site: _Site) -> NDArray[np.float64]:
    """Draw flat noise from 20 Hz to the device's cut-off, ``(9, N_SAMPLES)`` of unit power."""
    low, high = (int(hertz * N_SAMPLES / RATE_HZ) for hertz in (20, site.cutoff_hz))
    spectrum = np.zeros((9, N_SAMPLES // 2 + 1), np.complex128)
    spectrum[:, low:high] = _complex_normal(rng, (9, high - low))
    return np.fft.irfft(spectrum / np.sqrt(high - low), N_SAMPLES) * (N_SAMPLES / 2)


def _halves(first: NDArray[Any], second: NDArray[Any]) -> NDArray[Any]:
    """Return the first half of one signal, and then the second of the other."""
    middle = first.shape[1] // 2
    return np.concatenate([first[:, :middle], second[:, middle:]], axis=1)


def _twelve(basic: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the twelve leads from the eight of `BASIC_LEADS`."""
    first, second = basic[0], basic[1]
    limb = [first, second, second - first, -(first + second) / 2]
    return np.vstack([*limb, first - second / 2, second - first / 2, basic[2:]])


def _digitise(basic: NDArray[np.float64], gain: float) -> NDArray[np.int16]:
    """Return counts, ``(12, samples)``; as in a device, leads are added after the ADC.

    So III = II − I exactly, and the augmented leads are within half a count of their sums.
    """
    counts = np.rint(_twelve(np.rint(basic * gain)))
    return np.clip(counts, INVALID + 1, 32767).astype(np.int16)


def _break(digital: NDArray[np.int16], fault: str, rng: np.random.Generator) -> str:
    """Damage a record in place and say how."""
    lead = int(rng.integers(6, 12))
    match fault:
        case "flat lead":
            digital[lead] = 0
        case "clipped lead":
            limit = int(0.6 * np.abs(digital[lead]).max())
            np.clip(digital[lead], -limit, limit, out=digital[lead])
        case "missing V leads":
            digital[lead:] = 0
            return f"missing {LEADS[lead]} to V6"
        case "lost samples":
            begin = int(rng.integers(N_SAMPLES - 500))
            digital[:, begin : begin + int(rng.integers(50, 500))] = INVALID
            return fault
        case _:
            return fault
    return f"{fault} {LEADS[lead]}"


def write_wfdb(folder: Path, records: Iterable[SyntheticRecord]) -> Path:
    """Write records as WFDB format 16 and what is known of them as ``labels.csv``.

    Args:
        folder: Where to; made when missing.
        records: Such as a `cohort`; read one by one.

    Returns:
        The labels file: one row a record, columns as in `SyntheticRecord.truth`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "labels.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        rows: csv.DictWriter[str] | None = None
        for record in records:
            signals, one = _signals(record), [1] * len(record.leads)
            samples = samples_16(signals, one, record.n_samples)
            (folder / f"{record.name}.dat").write_bytes(samples)
            (folder / f"{record.name}.hea").write_text(_header(record), encoding="ascii")
            truth = record.truth
            if rows is None:
                rows = csv.DictWriter(file, list(truth), lineterminator="\n")
                rows.writeheader()
            rows.writerow(truth)
    return path


def _signals(record: SyntheticRecord) -> list[Signal]:
    return lead_signals(record.leads, record.digital, record.gain, record.baseline)


def _header(record: SyntheticRecord) -> str:
    """Return the header file, after header(5) of the WFDB Applications Guide."""
    meta = record.meta
    size = f"{len(record.leads)} {record.rate_hz:g} {record.n_samples}"
    lines = [
        f"{record.name} {size} {meta['recorded_at']:%H:%M:%S %d/%m/%Y}",
        *signal_lines(f"{record.name}.dat", _signals(record), [1] * len(record.leads)),
        f"#Age: {meta['age']:g}",
        f"#Sex: {str(meta['sex']).capitalize()}",
        f"#Site: {meta['site']}",
        f"#Device: {meta['device']}",
        "#synthetic: true",
        f"#generator: {GENERATOR}",
    ]
    return "\n".join(lines) + "\n"
