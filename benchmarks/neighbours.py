"""How long exact nearest neighbours take next to a numpy product with a partial sort.

Both work on the same matrix in memory, one question at a time and in batches, in turn. The results
must be equal. Prints the ratio of the medians (wanted: at most 3), and that of the seconds in which
the matrix is read from the warehouse and by pyarrow alone from the same files.

    python benchmarks/neighbours.py --records 100000 --dim 768
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

import ecgstore
from ecgstore.warehouse import Warehouse

if TYPE_CHECKING:
    from collections.abc import Callable

    from ecgstore.neighbours import Neighbours

Array = np.ndarray[Any, Any]
K, LOADS = 10, 3


def build(root: Path, records: int, dim: int) -> Warehouse:
    """Make a warehouse with the vectors of one model."""
    warehouse = Warehouse.create(root)
    ids = [f"bench/{i:07d}" for i in range(records)]
    x = np.random.default_rng(0).standard_normal(records * dim, dtype=np.float32)
    offsets = pa.array(np.arange(0, records * dim + 1, dim, dtype=np.int32))
    columns = {
        "record_id": pa.array(ids),
        **dict.fromkeys(("model", "version", "pooling"), pa.array(["one"] * records)),
        "dim": pa.array([dim] * records, pa.int32()),
        "embedding": pa.ListArray.from_arrays(offsets, pa.array(x)),
    }
    warehouse.append("embeddings", pa.table(columns), command="benchmark")
    warehouse.append("records", pa.table({"record_id": ids}), command="benchmark")
    return warehouse


def load(root: Path) -> Neighbours:
    """Read the matrix as a user does."""
    with ecgstore.connect(root) as store:
        return store.neighbours("one")


def plain_load(files: list[Path]) -> tuple[list[str], Array]:
    """Read the matrix with pyarrow alone."""
    rows = pa.concat_tables(
        pq.read_table(file, columns=["record_id", "embedding"]) for file in files
    )
    rows = rows.sort_by("record_id").combine_chunks()
    vectors = rows["embedding"].chunk(0).flatten().to_numpy().reshape(rows.num_rows, -1)
    return rows["record_id"].to_pylist(), vectors


def plain(unit: Array, questions: Array) -> list[list[int]]:
    """Return the places of the nearest by a product and a partial sort."""
    scores = questions @ unit.T
    found = []
    for row in scores:
        best = np.argpartition(row, len(row) - K)[-K:]
        found.append(best[np.argsort(-row[best])].tolist())
    return found


def timed(act: Callable[[], Any]) -> tuple[Any, float]:
    """Return what a call returns, and its seconds."""
    began = time.perf_counter()
    return act(), time.perf_counter() - began


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--records", type=int, default=100_000)
    parser.add_argument("--dim", type=int, default=768)
    parser.add_argument("--rounds", type=int, default=15)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        warehouse = build(Path(folder) / "warehouse", given.records, given.dim)
        files = warehouse.table("embeddings").files()
        loads: dict[str, list[float]] = {"ours": [], "pyarrow": []}
        for _ in range(LOADS):
            near, seconds = timed(lambda: load(warehouse.root))
            loads["ours"].append(seconds)
            (_, vectors), seconds = timed(lambda: plain_load(files))
            loads["pyarrow"].append(seconds)
        if not np.array_equal(near.vectors, vectors):
            msg = "the matrices differ"
            raise SystemExit(msg)
        del vectors
    ours_s, arrow_s = (statistics.median(loads[name]) for name in ("ours", "pyarrow"))
    print(
        f"{given.records} x {given.dim} loaded in {ours_s:.2f} s, by pyarrow in {arrow_s:.2f} s, "
        f"ratio {ours_s / arrow_s:.2f}"
    )
    unit = near.vectors / np.linalg.norm(near.vectors, axis=1, keepdims=True)
    rng = np.random.default_rng(1)
    for count in (1, 64):
        times: dict[str, list[float]] = {"ours": [], "numpy": []}
        for _ in range(given.rounds if count == 1 else 5):
            questions = rng.standard_normal((count, given.dim), dtype=np.float32)
            ours, took = timed(lambda: near.search(questions, k=K))  # noqa: B023  called at once
            times["ours"].append(took)
            theirs, took = timed(lambda: plain(unit, questions))  # noqa: B023
            times["numpy"].append(took)
            named = [[near.record_ids[i] for i in row] for row in theirs]
            if [[one.record_id for one in row] for row in ours] != named:
                msg = "the results differ"
                raise SystemExit(msg)
        ours_s, numpy_s = (statistics.median(times[name]) for name in ("ours", "numpy"))
        print(
            f"{count} at a time: {1e3 * ours_s:.1f} ms, numpy {1e3 * numpy_s:.1f} ms, "
            f"ratio {ours_s / numpy_s:.2f} (wanted at most 3), results equal"
        )


if __name__ == "__main__":
    main()
