"""What a warehouse costs as it grows: bytes a row, seconds and memory of a question, many shards.

Makes a warehouse of 20,000 synthetic ECGs with signals and 30,000 without, 50,000 vectors of each
of two models (768 numbers), labels, and a split of ten reshuffles. Prints the bytes a row of every
table takes; then the seconds and the peak memory of opening, counting, joining, fusing and of
nearest neighbours, each in a process of its own: memory is the greatest resident memory, less what
the process had after its imports. ``docs/scale.md`` counts on from these figures.

Then it asks the same rows in 10 shards and in 2,000, as 2,000 appends leave them and as they are
when nothing merges them, and prints the ratios. Last, waveforms of 10 full shards and of 196, as
many as 800,000 ECGs have.

    python benchmarks/scale.py
    python benchmarks/scale.py --keep DIR       keeps the warehouse, for more runs
    python benchmarks/scale.py --signals 0 --records 2000 --shards 100      a quick look
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import statistics as stats
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from read import build as build_signals

import ecgstore
from ecgstore.catalog import Catalog
from ecgstore.features import feature_set, matrix
from ecgstore.fuse import fuse, stored_statistics
from ecgstore.record import LEADS
from ecgstore.scaling import fused
from ecgstore.schema import TABLES
from ecgstore.splitting.split import split
from ecgstore.storage.integrity import sha256
from ecgstore.storage.shards import write_shards
from ecgstore.warehouse import Warehouse
from ecgstore.waveforms import read

if TYPE_CHECKING:
    from collections.abc import Callable

MODELS, DIM, REPEATS = ("one", "two"), 768, 10
LABELS, FEW, POINT = 20_000, 10, "select label from labels where record_id = 'bench/0012345'"
SETTLED_S = 4
PRESENT = "select gain from waveforms where record_id = 'bench/0000017'"
COUNT = "select count(*) from labels"


def build(root: Path, signals: int, records: int) -> Warehouse:
    """Make the warehouse, or open the one that is there."""
    if root.exists():
        return Warehouse(root)
    began = time.perf_counter()
    warehouse = build_signals(root, signals) if signals else Warehouse.create(root)
    rng = np.random.default_rng(0)
    ids = [f"bench/{i:07d}" for i in range(records)]
    digests = [hashlib.sha256(one.encode()).hexdigest() for one in ids]
    rows: dict[str, object] = {
        "record_id": ids,
        "signal_sha256": digests,
        "patient_id": [f"p{i}" for i in rng.integers(records // 2, size=records)],
        "dataset": ["bench"] * records,
        "source_uri": [f"files/p1{i // 1000:03d}/s{i:08d}/{i:08d}.hea" for i in range(records)],
        "source_format": ["wfdb"] * records,
        "source_sha256": digests[::-1],
        "recorded_at": pa.array(np.sort(rng.integers(2**60, size=records)) // 1000).cast(
            TABLES["records"].arrow.field("recorded_at").type
        ),
        "rate_hz": [500.0] * records,
        "n_samples": pa.array([5000] * records, pa.int32()),
        "leads": [list(LEADS)] * records,
        "age": rng.integers(18, 100, records).astype(np.float64),
        "sex": rng.choice(["male", "female"], records),
    }
    warehouse.replace("records", pa.table(rows), command="benchmark")
    labels = (rng.random(records) < 0.2).astype(np.float64)
    warehouse.append("labels", labelled(ids, labels), command="benchmark")
    for model in MODELS:
        x = rng.standard_normal(records * DIM, dtype=np.float32)
        ends = pa.array(np.arange(records + 1, dtype=np.int32) * DIM)
        columns = {
            "record_id": pa.array(ids),
            "model": pa.array([model] * records),
            "version": pa.array([digests[0][:12]] * records),
            "pooling": pa.array(["record_mean"] * records),
            "dim": pa.array([DIM] * records, pa.int32()),
            "embedding": pa.ListArray.from_arrays(ends, pa.array(x)),
        }
        warehouse.append("embeddings", pa.table(columns), command="benchmark")
    split(warehouse, "s", task="T", repeats=REPEATS)
    fuse(warehouse, MODELS, name="fusion")
    print(f"made in {time.perf_counter() - began:.0f} s")
    return warehouse


def labelled(ids: list[str], labels: np.ndarray) -> pa.Table:
    """Return rows of labels."""
    return pa.table({"record_id": ids, "task": ["T"] * len(ids), "label": labels})


# --- seconds and memory of one thing, in a process of its own


def ask(query: str) -> Callable[[Path], object]:
    """Return a call that opens a warehouse and asks one question."""

    def call(root: Path) -> object:
        with ecgstore.connect(root) as store:
            return store.table(query)

    return call


def fuse_one(root: Path) -> object:
    """Make the fused matrix of one reshuffle."""
    with Catalog(Warehouse(root).relations()) as catalog:
        features = feature_set(catalog, "fusion")
        _, blocks = matrix(catalog, features.members)
        fitted = [stored_statistics(catalog, member, "s")[0] for member in features.members]
        return fused(blocks, fitted, scale=features.scale)


def neighbours(root: Path) -> object:
    """Load the vectors of one model and search them once."""
    with ecgstore.connect(root) as store:
        return store.neighbours("one").nearest("bench/0000000")


ACTS: dict[str, Callable[[Path], object]] = {
    "open": ask("select count(*) from records"),
    "count": ask("select model, count(*), count(distinct record_id) from embeddings group by all"),
    "join": ask(
        "select model, sex, label, count(*), avg(embedding[1]) from embeddings "
        "join records using (record_id) join labels using (record_id) group by all"
    ),
    "one row of records": lambda root: (
        Warehouse(root).table("records").read(where=pc.field("record_id") == "bench/0012345")
    ),
    "split": lambda root: split(Warehouse(root), "t", task="T", repeats=REPEATS, dry_run=True),
    "fuse one reshuffle": fuse_one,
    "fuse all reshuffles": lambda root: fuse(Warehouse(root), MODELS, name="z", scale="zscore"),
    "nearest neighbours": neighbours,
}


def resident() -> int:
    """Return the greatest resident memory of this process so far, in bytes, as Linux tells it."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def measure(name: str, root: Path) -> None:
    """Do one thing in this process and print what it took."""
    import sklearn.model_selection  # noqa: F401  imports are not what is measured

    before, began = resident(), time.perf_counter()
    ACTS[name](root)
    seconds = time.perf_counter() - began
    print(json.dumps({"seconds": seconds, "before": before, "peak": resident()}))


def costs(root: Path, rounds: int) -> None:
    """Print what each thing takes, the median of some processes."""
    for name in ACTS:
        told = []
        for _ in range(rounds):
            command = [sys.executable, __file__, "--measure", name, str(root)]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            told.append(json.loads(done.stdout))
        seconds, before, peak = (
            stats.median(one[key] for one in told) for key in ("seconds", "before", "peak")
        )
        added = (peak - before) / 1e6
        print(f"{name}: {seconds:.2f} s, {added:.0f} MB beside {before / 1e6:.0f} MB of imports")


def sizes(warehouse: Warehouse) -> None:
    """Print the bytes a row of each table takes in its shards."""
    for name, table in warehouse.tables().items():
        entries = table.snapshot.entries.values()
        rows = sum(one.rows or 0 for one in entries)
        if rows:
            total = sum(one.size for one in entries)
            print(f"{name}: {rows} rows in {len(entries)} shards, {total / rows:.1f} bytes a row")


# --- shards


def sharded(root: Path, count: int, *, how: str) -> Path:
    """Make a warehouse with the same labels in so many shards, or in so many appends."""
    warehouse = Warehouse.create(root)
    ids = [f"bench/{i:07d}" for i in range(LABELS)]
    step = LABELS // count
    parts = [labelled(ids[start : start + step], np.ones(step)) for start in range(0, LABELS, step)]
    if how == "appends":
        for part in parts:
            warehouse.append("labels", part, command="benchmark")
    else:
        table = warehouse.table("labels")
        with table.staging() as folder:
            shards = [write_shards(folder, table.schema, part)[0] for part in parts]
            table.append_shards(shards, command="benchmark")
    return root


def asked(root: Path) -> dict[str, float]:
    """Return the milliseconds of opening with a first answer, and of later ones."""
    took = {}
    began = time.perf_counter()
    with ecgstore.connect(root) as store:
        for name, query in (("open and count", COUNT), ("count", COUNT), ("one record", POINT)):
            store.table(query)
            took[name] = 1e3 * (time.perf_counter() - began)
            began = time.perf_counter()
    return took


def shards(folder: Path, many: int, rounds: int) -> None:
    """Print what questions take of few shards and of many."""
    few = sharded(folder / "few", FEW, how="shards")
    for how in ("appends", "shards"):
        root = sharded(folder / how, many, how=how)
        told: dict[Path, list[dict[str, float]]] = {few: [], root: []}
        time.sleep(SETTLED_S)  # or every question would look into the logs again
        for _ in range(rounds):
            for one, answers in told.items():
                answers.append(asked(one))
        count = len(Warehouse(root).table("labels").snapshot.entries)
        for name in told[few][0]:
            small, large = (stats.median(row[name] for row in told[one]) for one in (few, root))
            print(
                f"{many} {how} ({count} shards), {name}: {large:.0f} ms, "
                f"{FEW} shards {small:.0f} ms, ratio {large / small:.1f}"
            )


def waveform_shards(warehouse: Warehouse, folder: Path) -> None:
    """Print what questions to ``waveforms`` take of as many full shards as 800,000 ECGs have."""
    schema = TABLES["waveforms"]
    full = max(warehouse.table("waveforms").files(), key=lambda path: path.stat().st_size)
    links = [folder / f"{i}.parquet" for i in range(800_000 // schema.rows_per_file + 1)]
    for link in links:
        shutil.copyfile(full, link) if link is links[0] else link.hardlink_to(links[0])
    for files in (links[:10], links):
        with Catalog({schema.name: (files, schema.arrow)}) as catalog:
            took = []
            for query in (f"select count(*) from {schema.name}", PRESENT, PRESENT):
                began = time.perf_counter()
                catalog.table(query)
                took.append(time.perf_counter() - began)
        began = time.perf_counter()
        read(files, "of nobody")
        looked = time.perf_counter() - began
        count, first, later = took
        print(
            f"{len(files)} full shards of waveforms: counted {count:.2f} s, one ECG by SQL "
            f"{first:.2f} s, again {later:.2f} s; limits of all shards read {looked:.2f} s"
        )
    began = time.perf_counter()
    sha256(full)
    print(f"SHA-256: {full.stat().st_size / 1e6 / (time.perf_counter() - began):.0f} MB a second")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--signals", type=int, default=20_000, help="records with signals")
    parser.add_argument("--records", type=int, default=50_000, help="records with vectors")
    parser.add_argument("--shards", type=int, default=2_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--measure", nargs=2, metavar=("ACT", "ROOT"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.measure:
        measure(given.measure[0], Path(given.measure[1]))
        return
    with tempfile.TemporaryDirectory() as folder:
        root = (given.keep or Path(folder)) / "warehouse"
        sizes(build(root, given.signals, given.records))
        costs(root, given.rounds)
        shards(Path(folder), given.shards, given.rounds)
        if given.signals:
            waveform_shards(Warehouse(root), Path(folder))


if __name__ == "__main__":
    main()
