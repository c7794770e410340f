"""Ingest against a plain loop of ``wfdb.rdrecord`` with pyarrow's default writer, side by side.

    python benchmarks/ingest.py                2,000 records: speed, bytes a record
    python benchmarks/ingest.py --memory       peak memory for 1,000 and 10,000 records

Both read the same synthetic 12-lead records of 10 s at 500 Hz and 4.88 µV a count from the same
folder, which has been read once before. The plain loop runs in a process of its own as well, so
that both sides pay for starting Python.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

LEADS = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
RATE_HZ, SAMPLES, GAIN = 500, 5000, 1000 / 4.88
PATTERNS = 100  # distinct records; the others are these with each lead shifted in time

PLAIN = """
import sys
from pathlib import Path
import pyarrow as pa, pyarrow.parquet as pq, wfdb
rows = []
for header in sorted(Path(sys.argv[1]).glob("*.hea")):
    record = wfdb.rdrecord(str(header.with_suffix("")), physical=False)
    row = dict(zip((name.lower() for name in record.sig_name), record.d_signal.T.astype("int16")))
    rows.append({"record_id": record.record_name, "gain": record.adc_gain} | row)
pq.write_table(pa.Table.from_pylist(rows), sys.argv[2])
"""


def patterns(rng: np.random.Generator) -> np.ndarray:
    """Return ``(PATTERNS, 12, SAMPLES)`` millivolts: beats, wander, mains-free muscle noise."""
    time_s = np.arange(SAMPLES) / RATE_HZ
    waves = ((-0.2, 0.025, 0.12), (-0.02, 0.009, -0.15), (0, 0.011, 1.1), (0.025, 0.01, -0.25))
    waves = (*waves, (0.27, 0.06, 0.3))  # P Q R S T: place and width in seconds, millivolts
    signals = np.empty((PATTERNS, len(LEADS), SAMPLES))
    for signal in signals:
        beats = np.cumsum(rng.normal(0.8, 0.03, 16))
        beat = sum(
            a * np.exp(-((time_s - b - at) ** 2) / (2 * w * w)) for at, w, a in waves for b in beats
        )
        size = rng.normal(0.8, 0.4, (len(LEADS), 1))
        wander = 0.1 * np.sin(2 * np.pi * 0.25 * time_s + rng.uniform(0, 6))
        spectrum = np.fft.rfft(rng.normal(size=(len(LEADS), SAMPLES)))
        hertz = np.fft.rfftfreq(SAMPLES, 1 / RATE_HZ)
        muscle = np.fft.irfft(spectrum * (hertz > 20) * (hertz < 150), SAMPLES)
        muscle *= rng.uniform(0.005, 0.03, (len(LEADS), 1)) / muscle.std(axis=1, keepdims=True)
        signal[:] = size * beat + wander + muscle + rng.normal(0, 0.004, signal.shape)
    return signals


def write_records(folder: Path, count: int) -> None:
    """Write WFDB format 16 records with full headers."""
    rng = np.random.default_rng(0)
    counts = np.rint(patterns(rng) * GAIN).astype("<i2")
    folder.mkdir()
    for number in range(count):
        shifts = rng.integers(0, SAMPLES, len(LEADS))
        leads = [
            np.roll(lead, k) for lead, k in zip(counts[number % PATTERNS], shifts, strict=True)
        ]
        name = f"{number:05d}"
        lines = [f"{name} {len(LEADS)} {RATE_HZ} {SAMPLES}"]
        for lead, samples in zip(LEADS, leads, strict=True):
            total = int(samples.sum(dtype=np.int64)) & 0xFFFF
            lines.append(f"{name}.dat 16 {GAIN:.6g}(0)/mV 16 0 {samples[0]} {total} 0 {lead}")
        (folder / f"{name}.hea").write_text("\n".join(lines) + "\n")
        (folder / f"{name}.dat").write_bytes(np.stack(leads, axis=1).tobytes())


def ingest(source: Path, warehouse: Path, jobs: int) -> float:
    """Ingest through the command line in a process of its own; return seconds."""
    command = ["-m", "ecgstore", "-w", warehouse, "ingest", source, "--dataset", "bench"]
    return timed([*command, "--jobs", jobs, "--json"])


def timed(arguments: list[object]) -> float:
    """Run Python with these arguments; return seconds."""
    began = time.perf_counter()
    subprocess.run(
        [sys.executable, *map(str, arguments)],
        check=True,
        stdout=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parent.parent)},
    )
    return time.perf_counter() - began


def speed(folder: Path, records: int, rounds: int) -> None:
    """Print seconds of both ways, their ratio and the size of what was stored."""
    source = folder / "source"
    write_records(source, records)
    ours, plain = [], []
    for turn in range(rounds):
        ours.append(ingest(source, folder / f"warehouse{turn}", 2))
        plain.append(timed(["-c", PLAIN, source, folder / f"plain{turn}.parquet"]))
        print(f"round {turn + 1}: ecgstore {ours[-1]:.2f} s, plain {plain[-1]:.2f} s")
    size = sum(f.stat().st_size for f in (folder / "warehouse0" / "waveforms").glob("*.parquet"))
    ratio = np.median(plain) / np.median(ours)
    print(f"{records} records, 2 processes against 1: {ratio:.1f} times as fast (wanted: 5)")
    print(f"waveforms: {size / records / 1000:.1f} kB a record (wanted: at most 45)")
    print(
        f"plain:     {(folder / 'plain0.parquet').stat().st_size / records / 1000:.1f} kB a record"
    )


def memory(folder: Path, counts: tuple[int, ...]) -> None:
    """Print the peak memory of the largest process of an ingest, for each number of records."""
    for count in counts:
        write_records(folder / f"source{count}", count)
        child = os.fork()
        if child == 0:  # so that the peak is that of this ingest alone
            ingest(folder / f"source{count}", folder / f"warehouse{count}", 2)
            peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
            print(
                f"{count:6d} records: peak memory of the largest process {peak:.0f} MiB", flush=True
            )
            os._exit(0)
        os.waitpid(child, 0)


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description="Measure ecgstore ingest.")
    parser.add_argument("--records", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--memory", action="store_true", help="measure memory instead of speed")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if options.memory:
            memory(Path(folder), (1000, 10_000))
        else:
            speed(Path(folder), options.records, options.rounds)


if __name__ == "__main__":
    main()
