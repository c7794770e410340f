"""How fast files are read, one process on one core, next to what there is besides.

    python benchmarks/readers.py

Prints, in CPU time so that a busy machine counts little,

- WFDB format 16 next to ``wfdb.rdrecord(physical=False)`` on the same records, in turns;
- a file of each other format, with the XML formats held to 50 a second;
- CODE-15 %'s HDF5 layout next to loops over its rows in plain h5py: one that only loads them, and
  one that makes the same records of them.

Real files are taken from the folder that ECGSTORE_TEST_DATA names; without it WFDB records are
generated and the other formats left out.
"""

from __future__ import annotations

import argparse
import math
import os
import statistics as stats
import tempfile
import time
import warnings
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import h5py
import numpy as np
import wfdb
from ingest import patterns, write_records

from ecgstore.io import open_container, read, readers
from ecgstore.record import LEADS, Record

if TYPE_CHECKING:
    from collections.abc import Callable

XML_WANTED = 50
FILES = {
    "muse": "muse_xml/muse_ecg1.xml",
    "philips": "philips_xml/1_03__129DYPRG.XML",
    "philips 1.04": "philips_xml/1_04__3191723_ZZDEMOPTONLY_1-04_orig.xml",
    "hl7": "hl7_aecg/example_aecg.xml",
    "schiller": "schiller_xml/sample.xml",
    "scp": "scp/example_12lead_huffman.scp",
    "dicom": "dicom/example_500hz.dcm",
    "edf": "edf_bdf/00004_hr_12lead.edf",
    "ishne": "ishne/00004_hr_12lead.ecg",
    "csv": "csv/00004_hr_mv_time.csv",
}
XML = {"muse", "philips", "philips 1.04", "hl7", "schiller"}
ROWS, SAMPLES, SHORT = 400, 4096, 2934  # CODE-15 %: 10 s or 7 s at 400 Hz, the latter padded


def in_turns(rounds: int, *ways: Callable[[], object]) -> list[list[float]]:
    """Return the CPU seconds of each way in each round, after one that does not count."""
    seconds: list[list[float]] = [[] for _ in ways]
    for turn in range(rounds + 1):
        for way, own in zip(ways, seconds, strict=True):
            began = time.process_time()
            way()
            if turn:
                own.append(time.process_time() - began)
    return seconds


def ratio(theirs: list[float], ours: list[float]) -> float:
    """Return the median of how many times as long the others took, round by round."""
    return stats.median(a / b for a, b in zip(theirs, ours, strict=True))


def report_wfdb(folder: Path, data: Path, records: int, rounds: int) -> None:
    """Compare with the package wfdb."""
    headers = sorted((data / "data/ptbxl/records500").rglob("*.hea"))[:records]
    what = "PTB-XL"
    if not headers:
        write_records(folder / "wfdb", records)
        headers, what = sorted((folder / "wfdb").glob("*.hea")), "generated"
    one = readers.get("wfdb").read
    assert one is not None

    def ours() -> None:
        for header in headers:
            one(header)

    def whole() -> None:
        for header in headers:
            read(header)

    def theirs() -> None:
        for header in headers:
            wfdb.rdrecord(os.fspath(header.with_suffix("")), physical=False)

    mine, detected, other = in_turns(rounds, ours, whole, theirs)
    a, b, c = (1e3 * stats.median(own) / len(headers) for own in (mine, detected, other))
    print(f"WFDB format 16, {len(headers)} {what} records, medians of {rounds} rounds in turns")
    print(f"  reader {a:.2f} ms, with detection {b:.2f} ms, wfdb.rdrecord {c:.2f} ms a record")
    print(f"  reader {ratio(other, mine):.1f} times as fast as wfdb (wanted: 15)")


def report_formats(data: Path, rounds: int) -> None:
    """Print the speed of each format."""
    print("files a second of one core, median (best) of rounds, detection included")
    for name, place in FILES.items():
        path = data / "data/formats" / place
        if path.exists():
            (seconds,) = in_turns(rounds, lambda path=path: [read(path) for _ in range(5)])
            median, best = 5 / stats.median(seconds), 5 / min(seconds)
            wanted = f" (wanted: {XML_WANTED})" if name in XML else ""
            print(f"  {name:14}{median:7.0f} ({best:.0f}){wanted}")


def write_code15(path: Path, *, packed: bool) -> None:
    """Write exams in the published layout; every fourth one is short and padded with zeros."""
    rng = np.random.default_rng(0)
    pool = (patterns(rng) * 10).astype(np.float32)[:, :, :SAMPLES].transpose(0, 2, 1)
    exams = np.stack([np.roll(pool[row % len(pool)], row, axis=0) for row in range(ROWS)])
    pad = (SAMPLES - SHORT) // 2
    exams[::4, :pad] = exams[::4, SAMPLES - pad :] = 0
    with h5py.File(path, "w") as file:
        options = {"chunks": True, "compression": "gzip"} if packed else {}
        file.create_dataset("tracings", data=exams, **options)
        file.create_dataset("exam_id", data=np.arange(ROWS))


def bare_rows(path: Path) -> None:
    """Load row after row."""
    with h5py.File(path) as file:
        for row in range(ROWS):
            file["tracings"][row]


def round_gain(peak: float) -> float:
    """Return the largest gain of 1, 2 or 5 times a power of ten at which a peak fits int16."""
    power = 10.0 ** math.floor(math.log10(32_000 / peak))
    return max(digit * power for digit in (1, 2, 5) if digit * power * peak <= 32_000)


def plain_records(path: Path) -> list[Record]:
    """Return records as the container makes them, by a loop over rows."""
    made = []
    with h5py.File(path) as file:
        names = file["exam_id"][:]
        for row in range(ROWS):
            exam = file["tracings"][row]
            used = np.flatnonzero(exam.any(axis=1))
            mv = exam[used[0] : used[-1] + 1].T * 0.1
            gains = np.array([round_gain(peak) for peak in np.abs(mv).max(axis=1).tolist()])
            counts = np.rint(mv * gains[:, None]).astype(np.int16)
            zero = np.zeros(len(LEADS), np.int32)
            made.append(Record(str(names[row]), LEADS, 400.0, counts, gains, zero))
    return made


def report_hdf5(folder: Path, rounds: int) -> None:
    """Compare the container with loops in plain h5py."""
    for packed in (False, True):
        path = folder / f"exams_{packed}.hdf5"
        write_code15(path, packed=packed)
        container = open_container(path)
        assert container is not None
        ours = list(container.read(range(ROWS)))
        plain = plain_records(path)
        for one, other in zip(ours, plain, strict=True):
            assert isinstance(one, Record)
            assert (one.name, one.digital.shape) == (other.name, other.digital.shape)
            assert np.abs(one.signal_mv - other.signal_mv).max() < 0.001

        def contained(path: Path = path) -> None:
            container = open_container(path)
            assert container is not None
            for _ in container.read(range(ROWS)):
                pass

        mine, same, bare = in_turns(
            rounds, contained, partial(plain_records, path), partial(bare_rows, path)
        )
        what = "gzip, chunks of h5py's choice" if packed else "contiguous"
        each = [1e3 * stats.median(own) / ROWS for own in (mine, same, bare)]
        print(f"CODE-15 % layout, {ROWS} exams, {what}")
        print("  container {:.2f}, loop {:.2f}, bare loop {:.2f} ms a record".format(*each))
        print(
            f"  container {ratio(same, mine):.1f} times as fast as the loop (wanted: 3), "
            f"{ratio(bare, mine):.1f} times as the bare one"
        )


def main() -> None:
    """Run everything."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--records", type=int, default=60, help="WFDB records")
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    warnings.simplefilter("ignore")  # those of wfdb's own arithmetic
    beside = Path(__file__).resolve().parents[2] / "shared"
    data = Path(os.environ.get("ECGSTORE_TEST_DATA", beside))
    with tempfile.TemporaryDirectory() as folder:
        report_wfdb(Path(folder), data, options.records, options.rounds)
        report_formats(data, options.rounds)
        report_hdf5(Path(folder), min(options.rounds, 3))


if __name__ == "__main__":
    main()
