"""How long fusing two models takes next to plain numpy that does the same from the same files.

Makes a warehouse of random vectors, then builds the fused matrix of the first reshuffle in both
ways in turn: read Parquet, join by record, min-max over the training records, scale, concatenate.
Opening the warehouse and DuckDB counts for ecgstore. Prints the ratio of the medians, and with
``--memory`` what each way needs at its peak, as a multiple of the result: the greatest resident
memory of a process of its own, less what it had after its imports.

    python benchmarks/fuse.py --records 100000 --dim 768 --memory
"""

from __future__ import annotations

import argparse
import json
import statistics as stats
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ecgstore.catalog import Catalog
from ecgstore.features import feature_set, matrix
from ecgstore.fuse import fuse
from ecgstore.scaling import fused, statistics
from ecgstore.splitting.split import reshuffles, split
from ecgstore.warehouse import Warehouse

if TYPE_CHECKING:
    from collections.abc import Callable

Array = np.ndarray[Any, Any]
MODELS = ("one", "two")


def build(root: Path, records: int, dim: int) -> Warehouse:
    """Make a warehouse with two models, a split and their fusion."""
    rng = np.random.default_rng(0)
    warehouse = Warehouse.create(root)
    ids = [f"bench/{i:07d}" for i in range(records)]
    labels = (rng.random(records) < 0.2).astype(np.float64)
    rows: dict[str, object] = {"record_id": ids, "task": ["T"] * records, "label": labels}
    warehouse.append("labels", pa.table(rows), command="benchmark")
    for model in MODELS:
        x = rng.standard_normal(records * dim, dtype=np.float32)
        offsets = pa.array(np.arange(0, records * dim + 1, dim, dtype=np.int32))
        columns = {
            "record_id": pa.array(ids),
            **{name: pa.array([name] * records) for name in ("version", "pooling")},
            "model": pa.array([model] * records),
            "dim": pa.array([dim] * records, pa.int32()),
            "embedding": pa.ListArray.from_arrays(offsets, pa.array(x)),
        }
        warehouse.append("embeddings", pa.table(columns), command="benchmark")
    warehouse.append("records", pa.table({"record_id": ids}), command="benchmark")
    split(warehouse, "s", task="T", repeats=1)
    fuse(warehouse, MODELS, name="fusion")
    return warehouse


def training(root: Path) -> set[str]:
    """Return the training records of the first reshuffle."""
    with Catalog(Warehouse(root).relations()) as catalog:
        return set(reshuffles(catalog, "s")[0].train)


def store(root: Path, train: set[str]) -> Array:
    """Fuse as `evaluate` does."""
    with Catalog(Warehouse(root).relations()) as catalog:
        features = feature_set(catalog, "fusion")
        ids, blocks = matrix(catalog, features.members)
    rows = np.fromiter((one in train for one in ids), dtype=bool, count=len(ids))
    fitted = [statistics(block, rows[None])[0] for block in blocks]
    return fused(blocks, fitted, scale="minmax")


def plain(files: list[Path], train: set[str]) -> Array:
    """Fuse with pyarrow and numpy alone."""
    ids: dict[str, list[Array]] = {model: [] for model in MODELS}
    vectors: dict[str, list[Array]] = {model: [] for model in MODELS}
    for path in files:
        table = pq.read_table(path, columns=["record_id", "model", "embedding"])
        model = table["model"][0].as_py()
        ids[model].append(table["record_id"].to_numpy())
        for chunk in table["embedding"].chunks:
            vectors[model].append(chunk.flatten().to_numpy().reshape(len(chunk), -1))
    names = [np.concatenate(ids[model]) for model in MODELS]
    joined, *places = np.intersect1d(*names, assume_unique=True, return_indices=True)
    rows = np.fromiter((one in train for one in joined), dtype=bool, count=len(joined))
    scaled = []
    for model, place in zip(MODELS, places, strict=True):
        x = np.concatenate(vectors[model])[place]
        low, high = x[rows].min(axis=0), x[rows].max(axis=0)
        spread = high > low
        scaled.append(np.where(spread, (x - low) / np.where(spread, high - low, 1), 0))
    return np.concatenate(scaled, axis=1)


def timed(work: Callable[[], Array]) -> tuple[float, Array]:
    """Return the seconds a call takes, and what it returns."""
    began = time.perf_counter()
    result = work()
    return time.perf_counter() - began, result


def resident() -> int:
    """Return the greatest resident memory of this process so far, in bytes, as Linux tells it."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def measured(way: str, root: Path, files: list[Path], train: set[str]) -> None:
    """Fuse one way in this process and print what it needed."""
    before = resident()
    result = store(root, train) if way == "ecgstore" else plain(files, train)
    peak = resident()
    print(json.dumps({"before": before, "peak": peak, "result": result.nbytes}))


def memory(root: Path) -> None:
    """Fuse each way in a process of its own, and print what it needs."""
    for way in ("ecgstore", "numpy"):
        command = [sys.executable, __file__, "--measure", way, str(root)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        told = json.loads(done.stdout)
        before, peak, result = told["before"], told["peak"], told["result"]
        wanted = "; wanted <= 3" if way == "ecgstore" else ""
        print(
            f"{way}: peak {peak / 1e6:.0f} MB, {before / 1e6:.0f} MB of it before; "
            f"{(peak - before) / result:.2f} times the result of {result / 1e6:.0f} MB, "
            f"{peak / result:.2f} times with everything{wanted}"
        )


def main() -> None:
    """Run both ways in turn and print the ratio."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--records", type=int, default=20_000)
    parser.add_argument("--dim", type=int, default=768)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--memory", action="store_true", help="measure memory besides")
    parser.add_argument("--measure", nargs=2, metavar=("WAY", "ROOT"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        way, root = options.measure[0], Path(options.measure[1])
        measured(way, root, Warehouse(root).table("embeddings").files(), training(root))
        return
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "warehouse"
        files = build(root, options.records, options.dim).table("embeddings").files()
        train = training(root)
        if options.memory:
            memory(root)
        ours, theirs = [], []
        for _ in range(options.repeats):
            seconds, a = timed(lambda: store(root, train))
            ours.append(seconds)
            seconds, b = timed(lambda: plain(files, train))
            theirs.append(seconds)
        if not np.array_equal(a, b):
            msg = "The two matrices differ."
            raise SystemExit(msg)
    print(f"ecgstore {stats.median(ours):.3f} s, numpy {stats.median(theirs):.3f} s (medians)")
    print(f"fuse {options.records} x (2 x {options.dim}): ", end="")
    print(f"{stats.median(ours) / stats.median(theirs):.2f} times plain numpy; wanted <= 1.5")


if __name__ == "__main__":
    main()
