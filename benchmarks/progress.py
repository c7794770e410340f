"""What the progress bar of ``ecgstore ingest`` costs: with one drawn on a terminal, and without.

    python benchmarks/progress.py --records 2000

Ingests the same folder in turns with standard error on a pseudo-terminal, where the bar is drawn,
and on a pipe, where it is not. Prints the median of the difference in CPU time, all processes of a
command together, as a share of the whole (wanted: less than 1 %). Two ways that do not differ are
measured against each other as well: so much is noise.
"""

from __future__ import annotations

import argparse
import os
import pty
import statistics as stats
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

from ingest import write_records


def drained(descriptor: int) -> int:
    """Return how many bytes can be read until the other end is closed."""
    size = 0
    while True:
        try:
            part = os.read(descriptor, 2**16)
        except OSError:  # how Linux says that nobody has the terminal open
            return size
        if not part:
            return size
        size += len(part)


def ingest(source: Path, warehouse: Path, *, terminal: bool) -> tuple[float, int]:
    """Ingest in a process of its own; return its CPU seconds and the bytes on standard error."""
    reading, writing = pty.openpty() if terminal else os.pipe()
    command = [sys.executable, "-m", "ecgstore", "-w", str(warehouse), "ingest", str(source)]
    command += ["--dataset", "bench", "--jobs", "2", "--json"]
    paths = {"PYTHONPATH": str(Path(__file__).resolve().parent.parent), "TERM": "xterm-256color"}
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=writing, env={**os.environ, **paths}
    )
    os.close(writing)
    sizes: list[int] = []
    reader = threading.Thread(target=lambda: sizes.append(drained(reading)))
    reader.start()
    _, status, usage = os.wait4(process.pid, 0)
    reader.join()
    os.close(reading)
    if status:
        sys.exit("the ingest failed")
    return usage.ru_utime + usage.ru_stime, sizes[0]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--records", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    costs, noise = [], []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_records(folder / "source", options.records)
        for turn in range(options.rounds):
            runs = [
                ingest(folder / "source", folder / f"{turn}{number}", terminal=number == 1)
                for number in range(3)
            ]
            (before, _), (drawn, size), (after, _) = runs
            costs.append(2 * drawn / (before + after) - 1)
            noise.append(abs(after / before - 1))
            print(
                f"round {turn + 1}: {before:.2f} s without, {drawn:.2f} s with a bar of "
                f"{size / 1000:.1f} kB, {after:.2f} s without"
            )
    print(f"the bar costs {100 * stats.median(costs):.1f} % (wanted: less than 1 %)")
    print(f"two runs without it differ by {100 * stats.median(noise):.1f} %")


if __name__ == "__main__":
    main()
