"""What the operations under test take in: small ECG files and tables of labels."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ecgstore.record import LEADS

if TYPE_CHECKING:
    from pathlib import Path

SAMPLES, RATE_HZ = 1000, 100
PATIENTS = 6
VISITS = 2
_BROKEN = "broken"


def write_sources(home: Path) -> None:
    """Write two folders of one dataset that overlap, and labels for it.

    ``first`` holds half of the records and a file that cannot be read; ``second`` holds all, and
    the file put right.
    """
    for number, name in enumerate(names()):
        for folder in ("first", "second")[number % 2 :]:
            _write(home / folder, name, counts(name))
    _write(home / "second", _BROKEN, counts(_BROKEN))
    _write(home / "first", _BROKEN, counts(_BROKEN))
    (home / "first" / f"{_BROKEN}.dat").write_bytes(b"\x00" * 10)
    for table, turn in (("labels", 0), ("relabels", 1)):
        lines = ["record_id,label,who"]
        for number, name in enumerate([*names(), _BROKEN]):
            patient = (number // VISITS + turn * (number == 0)) % PATIENTS
            label = int(patient % 2 == 0) ^ (turn & (number > PATIENTS * VISITS - VISITS))
            lines.append(f"ds/{name},{label},{patient_id(patient)}")
        lines.append(f"ds/nobody,1,{patient_id(0)}")
        (home / f"{table}.csv").write_text("\n".join(lines) + "\n")


def names() -> list[str]:
    """Return the names of the records that can be read in ``second`` but one."""
    return [f"r{number:02d}" for number in range(PATIENTS * VISITS)]


def patient_id(number: int) -> str:
    """Return an id long enough not to occur in other bytes by chance."""
    return f"patient-{number:04d}"


def counts(name: str) -> np.ndarray[tuple[int, ...], np.dtype[np.int16]]:
    """Return the samples of a record, ``(12, SAMPLES)`` ADC units."""
    seed = int.from_bytes(name.encode(), "big")
    noise = np.random.default_rng(seed).normal(0, 30, (len(LEADS), SAMPLES))
    return noise.cumsum(axis=1).clip(-20_000, 20_000).astype(np.int16)


def _write(
    folder: Path, name: str, digital: np.ndarray[tuple[int, ...], np.dtype[np.int16]]
) -> None:
    lines = [f"{name} {len(digital)} {RATE_HZ} {digital.shape[1]}"]
    for lead, samples in zip(LEADS, digital, strict=True):
        total = int(samples.sum(dtype=np.int64)) & 0xFFFF
        lines.append(f"{name}.dat 16 200(0)/mV 16 0 {samples[0]} {total} 0 {lead}")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.hea").write_text("\n".join(lines) + "\n")
    (folder / f"{name}.dat").write_bytes(digital.astype("<i2").T.tobytes())
