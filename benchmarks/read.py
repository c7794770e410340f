"""What it costs to read ECGs from a warehouse: one at random, a random batch, one lead of all.

Makes a warehouse of synthetic ECGs, 12 leads of 10 s at 500 Hz: few are drawn, the others are
those moved in time and with other noise in the last bits, which compress as well. Then prints

- one record at random, through `Store.read`, and through the waveform reader alone: in a process
  that has not read yet, and in one that has;
- a random batch of 64 out of the feed, next to an index of a bare numpy memory map of that shape;
- a scan of one lead, in DuckDB and in pyarrow, next to the same scan of whole records.

    python benchmarks/read.py --records 20000
    python benchmarks/read.py --records 20000 --keep DIR       keeps the warehouse, for more runs
"""

from __future__ import annotations

import argparse
import json
import statistics as stats
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

import ecgstore
from ecgstore.catalog import Catalog
from ecgstore.feed import Feed, drop
from ecgstore.record import COLUMNS
from ecgstore.schema import TABLES
from ecgstore.synthetic import cohort
from ecgstore.warehouse import Warehouse
from ecgstore.waveforms import read, scan

if TYPE_CHECKING:
    from collections.abc import Callable

Array = np.ndarray[Any, Any]
POOL, SAMPLES, BATCH = 200, 5000, 64
SCHEMA = TABLES["waveforms"]


def build(root: Path, records: int) -> Warehouse:
    """Make the warehouse, a shard at a time."""
    began = time.perf_counter()
    warehouse = Warehouse.create(root)
    pool = np.stack([record.digital for record in cohort(POOL, seed=0)])
    rng = np.random.default_rng(0)
    made = warehouse.table("records").read(["record_id"]).num_rows
    for start in range(made, records, SCHEMA.rows_per_file):
        numbers = range(start, min(start + SCHEMA.rows_per_file, records))
        ids = [f"bench/{number:07d}" for number in numbers]
        n = len(ids)
        x = np.empty((12, n, SAMPLES), np.int16)  # lead by lead, as the columns are
        for k, source in enumerate(rng.integers(POOL, size=n)):
            x[:, k] = np.roll(pool[source], rng.integers(SAMPLES), axis=1)
        x += rng.integers(-1, 2, x.shape, dtype=np.int16)
        ends = pa.array(np.arange(n + 1, dtype=np.int32) * SAMPLES)
        leads = (pa.ListArray.from_arrays(ends, pa.array(lead.reshape(-1))) for lead in x)
        waveforms: dict[str, object] = {
            "record_id": ids,
            "gain": [[1000.0] * 12] * n,
            "baseline": [[0] * 12] * n,
            **dict(zip(COLUMNS, leads, strict=True)),
        }
        warehouse.append("waveforms", pa.table(waveforms), command="benchmark")
        rows = {"record_id": ids, "rate_hz": [500.0] * n, "n_samples": [SAMPLES] * n}
        warehouse.append("records", pa.table(rows), command="benchmark")
    files = warehouse.table("waveforms").files()
    size = sum(file.stat().st_size for file in files)
    print(
        f"warehouse: {records} records in {len(files)} shards, {size / records / 1000:.1f} kB a "
        f"record, made in {time.perf_counter() - began:.0f} s"
    )
    return warehouse


def timed(work: Callable[[], object]) -> float:
    """Return the seconds a call takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def singles(root: Path, turns: int, seed: int) -> dict[str, list[float]]:
    """Return the milliseconds of single reads, the first of a process first."""
    rng = np.random.default_rng(seed)
    with ecgstore.connect(root) as store:
        rows = pq.read_metadata(store.warehouse.table("records").files()[0]).num_rows
        ids = [f"bench/{number:07d}" for number in rng.integers(rows, size=2 * turns)]
        through_store = [1e3 * timed(partial(store.read, one)) for one in ids[:turns]]
        files = store.warehouse.table("waveforms").files()
        alone = [1e3 * timed(partial(read, files, one)) for one in ids[turns:]]
    return {"Store.read": through_store, "waveforms.read": alone}


def report_singles(root: Path, fresh: int, turns: int) -> None:
    """Print the times of single reads, in new processes and in this one."""
    first = []
    for seed in range(fresh):
        command = [sys.executable, __file__, "--first", str(seed), "--keep", str(root)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        first.append(float(done.stdout))
    told("one record, first of a process (Store.read)", first)
    for name, times in singles(root, turns, seed=1).items():
        told(f"one record, warm ({name})", times[5:])


def told(what: str, times: list[float]) -> None:
    """Print median and 95th percentile of milliseconds."""
    middle, late = np.percentile(times, [50, 95])
    print(f"{what:46}{middle:7.1f} ms median, {late:7.1f} ms 95th percentile; wanted <= 60")


def report_batches(warehouse: Warehouse, folder: Path, turns: int) -> None:
    """Print how long a random batch takes out of the feed and out of a bare memory map."""
    drop(warehouse.root)
    seconds = timed(lambda: Feed.open(warehouse).close())
    again = timed(lambda: Feed.open(warehouse).close())
    with Feed.open(warehouse) as feed:
        n = len(feed)
        size = sum(f.stat().st_size for f in (warehouse.root / "_cache/feed").rglob("*.arrow"))
        print(
            f"feed: {n} records copied in {seconds:.1f} s ({n / seconds:.0f} a second), "
            f"{size / n / 1000:.1f} kB a record; opened again in {1e3 * again:.0f} ms"
        )
        path = folder / "bare.i16"
        bare = np.memmap(path, np.int16, "w+", shape=(n, 12, SAMPLES))
        for place, one in enumerate(feed.scan()):
            bare[place] = one.digital
        bare.flush()
        bare = np.memmap(path, np.int16, "r", shape=(n, 12, SAMPLES))
        rng = np.random.default_rng(2)
        ours: list[float] = []
        theirs: list[float] = []
        for _ in range(turns):
            places, others = rng.integers(n, size=(2, min(BATCH, n)))
            ids = [feed.record_ids[place] for place in places]
            ours.append(timed(partial(feed.batch, ids)))
            theirs.append(timed(partial(bare.__getitem__, others)))
        assert np.array_equal(feed.batch(ids).digital, bare[places])
    a, b = 1e3 * stats.median(ours), 1e3 * stats.median(theirs)
    print(
        f"random batch of {len(places)}: feed {a:.2f} ms, numpy memory map {b:.2f} ms (medians): ",
        end="",
    )
    print(f"{a / b:.2f} times the bare map; wanted <= 3")


def report_scans(warehouse: Warehouse, turns: int) -> None:
    """Print how much faster a scan of one lead is than one of whole records."""
    files = warehouse.table("waveforms").files()

    def in_pyarrow(columns: list[str]) -> None:
        for path in files:
            with pq.ParquetFile(path) as shard:
                for rows in shard.iter_batches(SCHEMA.rows_per_group or 64, columns=columns):
                    assert rows.num_rows

    def in_duckdb(catalog: Catalog, columns: list[str]) -> None:
        sums = ", ".join(f"sum(list_sum({column}))" for column in columns)
        catalog.table(f"select {sums} from waveforms")

    with Catalog(warehouse.relations()) as catalog:
        ways: dict[str, tuple[Callable[[], object], Callable[[], object]]] = {
            "DuckDB": (
                lambda: in_duckdb(catalog, ["ii"]),
                lambda: in_duckdb(catalog, list(COLUMNS)),
            ),
            "pyarrow": (
                lambda: in_pyarrow(["record_id", "ii"]),
                lambda: in_pyarrow(["record_id", "gain", "baseline", *COLUMNS]),
            ),
            "pyarrow, whole records by the library": (
                lambda: in_pyarrow(["record_id", "ii"]),
                lambda: sum(1 for _ in scan(files)),
            ),
        }
        for name, (one, whole) in ways.items():
            pairs = [(timed(one), timed(whole)) for _ in range(turns)]
            a, b = (stats.median(side) for side in zip(*pairs, strict=True))
            print(f"one lead of {name}: {a:.2f} s, whole records {b:.2f} s (medians): ", end="")
            print(f"{b / a:.1f} times faster; wanted >= 5")


def main() -> None:
    """Make or open the warehouse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--records", type=int, default=20_000)
    parser.add_argument("--keep", type=Path, help="Make the warehouse here, or use the one here.")
    parser.add_argument("--repeats", type=int, default=3, help="Scans of everything.")
    parser.add_argument("--turns", type=int, default=100, help="Single reads and batches.")
    parser.add_argument("--first", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.first is not None:
        print(json.dumps(singles(options.keep, 1, options.first)["Store.read"][0]))
        return
    with tempfile.TemporaryDirectory() as folder:
        root = options.keep or Path(folder) / "warehouse"
        warehouse = build(root, options.records)
        report_singles(root, min(options.turns, 20), options.turns)
        report_batches(warehouse, Path(folder), options.turns)
        report_scans(warehouse, options.repeats)


if __name__ == "__main__":
    main()
