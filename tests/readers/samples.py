"""A real file of every format that can be read: what contract tests and mutants begin from."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from ecgstore.io import read, readers

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["SAMPLES", "Sample", "file_of", "parts_of"]


@dataclass(frozen=True)
class Sample:
    """A file and what it must give.

    Attributes:
        path: Below the folder of test data; empty for one that is made.
        rate_hz: Samples per second.
        n_samples: Samples per lead.
        n_leads: Leads, derived ones included.
        layout: What a user has to declare to read it.
    """

    path: str
    rate_hz: float
    n_samples: int
    n_leads: int = 12
    layout: Mapping[str, str] = field(default_factory=dict)


_FORMATS = "data/formats"
SAMPLES = {
    "csv": Sample(f"{_FORMATS}/csv/00004_hr_mv_time.csv", 500, 5000),
    "dicom": Sample(f"{_FORMATS}/dicom/example_500hz.dcm", 500, 5000),
    "edf": Sample(f"{_FORMATS}/edf_bdf/00004_hr_12lead.edf", 500, 5000),
    "hdf5": Sample("data/sph/records/SPH00001.h5", 500, 5000),
    "hl7": Sample(f"{_FORMATS}/hl7_aecg/example_aecg.xml", 500, 5000),
    "ishne": Sample(f"{_FORMATS}/ishne/00004_hr_12lead.ecg", 500, 5000),
    "matlab": Sample("data/cpsc2018_original/A1980.mat", 500, 5000),
    "muse": Sample(f"{_FORMATS}/muse_xml/muse_ecg1.xml", 500, 5000),
    "numpy": Sample("", 500, 5000),
    "philips": Sample(f"{_FORMATS}/philips_xml/1_03__129DYPRG.XML", 500, 5264),
    "schiller": Sample(f"{_FORMATS}/schiller_xml/sample.xml", 500, 5000),
    "scp": Sample(f"{_FORMATS}/scp/example_12lead_huffman.scp", 500, 5000),
    "wfdb": Sample("data/ptbxl/records500/00000/00001_hr.hea", 500, 5000),
}
"""For each reader a file of its format, real where there are any."""


def file_of(name: str, test_data: Path, folder: Path) -> Path:
    """Return the file of a reader's sample, which is written into a folder if there is none."""
    if SAMPLES[name].path:
        return test_data / SAMPLES[name].path
    record = read(test_data / SAMPLES["wfdb"].path)
    path = folder / "made.npz"
    np.savez(
        path,
        signal=record.signal_mv.astype(np.float32),
        rate_hz=record.rate_hz,
        leads=np.array(record.leads),
        unit=np.array("mV"),
    )
    return path


def parts_of(source: Path) -> list[Path]:
    """Return a file with those that belong to it, such as the samples beside a header."""
    companions = {suffix for name in readers for suffix in readers.get(name).companions}
    if source.suffix.lower() not in {".hea"}:
        return [source]
    beside = (source.with_suffix(suffix) for suffix in sorted(companions))
    return [source, *(part for part in beside if part.exists())]
