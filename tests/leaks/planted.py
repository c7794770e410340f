"""A folder of files about two patients: well named, named after the patient, and damaged."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

from . import binary_files, xml_files
from .people import JANE, OTTO

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from .people import Person

__all__ = ["FORMATS", "Format", "damaged", "plant"]


@dataclass(frozen=True)
class Format:
    """How files of one format are made.

    Attributes:
        reader: Name of the reader.
        suffix: Of its files.
        write: Writes a file about somebody.
        patients: Whether it tells which patient it is of.
    """

    reader: str
    suffix: str
    write: Callable[[Path, Path, Person], None]
    patients: bool = True

    def make(self, data: Path, path: Path, one: Person) -> None:
        """Write a file; what the libraries that write say of odd values is of no interest."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.write(data, path, one)


FORMATS: Mapping[str, Format] = {
    "csv": Format("csv", ".csv", binary_files.csv, patients=False),
    "dicom": Format("dicom", ".dcm", binary_files.dicom),
    "edf": Format("edf", ".edf", binary_files.edf),
    "edf_plain": Format("edf", ".rec", binary_files.plain_edf, patients=False),
    "hdf5": Format("hdf5", ".h5", binary_files.hdf5, patients=False),
    "hl7": Format("hl7", ".xml", xml_files.hl7),
    "ishne": Format("ishne", ".ecg", binary_files.ishne),
    "matlab": Format("matlab", ".mat", binary_files.matlab, patients=False),
    "muse": Format("muse", ".xml", xml_files.muse),
    "numpy": Format("numpy", ".npz", binary_files.numpy_arrays, patients=False),
    "philips": Format("philips", ".xml", xml_files.philips),
    "schiller": Format("schiller", ".xml", xml_files.schiller),
    "scp": Format("scp", ".scp", binary_files.scp),
    "wfdb": Format("wfdb", ".hea", binary_files.wfdb, patients=False),
}
"""Every registered reader has one at least."""


def plant(data: Path, folder: Path, names: tuple[str, ...] = tuple(FORMATS)) -> None:
    """Write for each format two files of Jane, one of Otto, and one of Jane that is damaged.

    One of Jane's lies in a folder that bears her name and bears it too, and so does the damaged
    one.
    """
    for name in names:
        form = FORMATS[name]
        files = {
            f"plain/{name}-1": JANE,
            f"plain/{name}-2": OTTO,
            f"{name}/{JANE.family.upper()}/{JANE.given}_{JANE.number}": JANE,
            f"{name}/{JANE.given} {JANE.family} {JANE.iso}": JANE,
        }
        for own, one in files.items():
            path = folder / f"{own}{form.suffix}"
            path.parent.mkdir(parents=True, exist_ok=True)
            form.make(data, path, one)
        damaged(path)


def damaged(path: Path, *, keep: float = 0.7) -> None:
    """Cut a file short; of a WFDB record the header makes no sense afterwards."""
    raw = path.read_bytes()
    if path.suffix == ".hea":
        path.write_bytes(raw.replace(b".dat 16 1000/mV", b".dat 16 Quenbyhart"))
    else:
        path.write_bytes(raw[: round(keep * len(raw))])
