"""Fingerprints: an ECG is known again after what archives do to it; no two are taken for one."""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING

import numpy as np
import pytest
from scipy.signal import butter, resample_poly, sosfiltfilt

import ecgstore
from ecgstore.quality.fingerprint import ALIKE, LENGTH, fingerprint, near

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    Signal = NDArray[np.float64]
    Copy = Callable[[Signal], tuple[Signal, float]]

_EIGHT = ["I", "II", "V1", "V2", "V3", "V4", "V5", "V6"]


def _filtered(signal: Signal) -> tuple[Signal, float]:
    sections = butter(3, [0.5, 35], "band", fs=500, output="sos")
    return sosfiltfilt(sections, signal, axis=1), 500


_COPIES: dict[str, Copy] = {
    "at 400 Hz": lambda signal: (resample_poly(signal, 4, 5, axis=1), 400),
    "at 100 Hz": lambda signal: (resample_poly(signal, 1, 5, axis=1), 100),
    "in microvolts": lambda signal: (signal * 1000, 500),
    "in steps of 20 µV": lambda signal: (np.round(signal / 0.02) * 0.02, 500),
    "without the first second": lambda signal: (signal[:, 500:], 500),
    "without the last second": lambda signal: (signal[:, :-500], 500),
    "padded with zeros": lambda signal: (np.pad(signal, ((0, 0), (500, 0))), 500),
    "filtered": _filtered,
}


def _records(test_data: Path, rate: str = "500", *, step: int = 10) -> list[ecgstore.Record]:
    folder = test_data / f"data/ptbxl/records{rate}/00000"
    return [ecgstore.read(header) for header in sorted(folder.glob("*.hea"))[::step]]


def _print(record: ecgstore.Record) -> NDArray[np.uint8]:
    found = fingerprint(record.leads, record.signal_mv, record.rate_hz)
    assert found is not None
    return found


@pytest.fixture(scope="module")
def records(test_data: Path) -> list[ecgstore.Record]:
    return _records(test_data)


@pytest.fixture(scope="module")
def prints(records: list[ecgstore.Record]) -> NDArray[np.uint8]:
    return np.stack([_print(record) for record in records])


def test_the_same_record_has_the_same_fingerprint(records: list[ecgstore.Record]) -> None:
    record = records[0]
    first = _print(record)
    assert first.shape == (LENGTH,)
    assert first.dtype == np.uint8
    assert (first == _print(record)).all()
    rows = [record.leads.index(lead) for lead in _EIGHT]
    eight = fingerprint(_EIGHT, record.signal_mv[rows], record.rate_hz)
    assert eight is not None
    assert (first == eight).all()  # the limb leads left are sums of I and II


@pytest.mark.parametrize("what", _COPIES)
def test_a_copy_is_known_again(
    records: list[ecgstore.Record], prints: NDArray[np.uint8], what: str
) -> None:
    copies = [fingerprint(one.leads, *_COPIES[what](one.signal_mv)) for one in records]
    both = np.concatenate([prints, np.stack([copy for copy in copies if copy is not None])])
    assert len(both) == 2 * len(records)
    pairs = {(one, other) for one, other, _ in near(both)}
    right = {(k, k + len(records)) for k in range(len(records))}
    assert pairs <= right
    assert len(pairs) >= 0.98 * len(right)


def test_two_rates_of_one_dataset(test_data: Path, prints: NDArray[np.uint8]) -> None:
    low = np.stack([_print(record) for record in _records(test_data, "100")])
    pairs = near(np.concatenate([prints, low]))
    assert [(one, other) for one, other, _ in sorted(pairs)] == [
        (k, k + len(prints)) for k in range(len(prints))
    ]
    assert all(share >= ALIKE for _, _, share in pairs)


def test_two_ecgs_of_one_patient_are_two(test_data: Path) -> None:
    folder = test_data / "data/ptbxl"
    with (folder / "ptbxl_database.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    patients = [row["patient_id"] for row in rows]
    several = [row for row in rows if patients.count(row["patient_id"]) > 1]
    records = [ecgstore.read(folder / f"{row['filename_hr']}.hea") for row in several]
    pairs = near(np.stack([_print(record) for record in records]))
    copies = {
        (one, other)
        for one in range(len(records))
        for other in range(one + 1, len(records))
        if (records[one].digital == records[other].digital).all()
    }
    assert len(copies) == 3  # PTB-XL holds some ECGs twice
    assert {(one, other) for one, other, _ in pairs} == copies


def test_the_forms_of_one_record(test_data: Path) -> None:
    formats = test_data / "data/formats/wfdb/rewritten"
    forms = [ecgstore.read(header) for header in sorted(formats.glob("00004*.hea"))]
    forms.append(ecgstore.read(test_data / "data/ptbxl/records100/00000/00004_lr.hea"))
    forms = [form for form in forms if len(form.leads) == 12]
    assert len(forms) > 3
    pairs = near(np.stack([_print(form) for form in forms]))
    assert len(pairs) == len(forms) * (len(forms) - 1) // 2


@pytest.mark.parametrize(
    "signal", [np.zeros((2, 5000)), np.full((2, 5000), np.nan), np.ones((2, 13)), np.ones((2, 0))]
)
def test_nothing_to_go_by(signal: Signal) -> None:
    assert fingerprint(["I", "II"], signal, 500) is None


def test_a_short_record_is_not_told_from_others(records: list[ecgstore.Record]) -> None:
    record = records[0]
    assert fingerprint(record.leads, record.signal_mv[:, :1500], 500) is None


def test_pairs_among_many() -> None:
    rng = np.random.default_rng(0)
    beats = rng.integers(1, 256, (20_000, LENGTH // 10, 10), np.uint8)
    beats[:, :, 8:] = [32, 3]  # 800 ms from beat to beat
    copy = beats[777].copy()
    copy[:, 7] ^= 5  # two bits of 64 differ
    beats[15_000] = copy
    beats[15_001, :-1] = beats[778, 1:]  # one beat later
    found = near(beats.reshape(len(beats), -1))
    assert found == [(778, 15_001, 1.0), (777, 15_000, 62 / 64)]


def test_no_records() -> None:
    assert near(np.empty((0, LENGTH), np.uint8)) == []
    assert near(np.zeros((3, LENGTH), np.uint8)) == []
