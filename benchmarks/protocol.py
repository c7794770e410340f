"""How long the published protocol takes next to the XGBoost fits it consists of.

A warehouse of random vectors of the paper's size: 5,813 records, two models of 768 numbers, 20.8 %
positive. ``evaluate --protocol paper`` on both models and their fusion draws the reshuffles, reads
vectors, fits the scaling, fits and scores 30 classifiers and stores every prediction; the bare way
has the same matrices at hand and only fits and predicts. Both are timed in one run, turn about,
reshuffle sets of equal size; the ratio of the totals is printed.

    python benchmarks/protocol.py --turns 1
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa

from ecgstore import settings
from ecgstore.catalog import Catalog
from ecgstore.classifiers import XGBoost
from ecgstore.evaluate import Drawing, evaluate
from ecgstore.features import feature_set, matrix
from ecgstore.fuse import fuse
from ecgstore.scaling import fused, statistics
from ecgstore.schema import table_schema
from ecgstore.splitting.split import reshuffles
from ecgstore.warehouse import Warehouse

MODELS = ("one", "two")
SETS = (*MODELS, "fusion")


def build(root: Path, records: int, dim: int) -> Warehouse:
    """Make a warehouse whose vectors tell a little of the label."""
    rng = np.random.default_rng(0)
    warehouse = Warehouse.create(root)
    ids = [f"bench/{i:07d}" for i in range(records)]
    positive = rng.random(records) < 0.208
    for model in MODELS:
        x = rng.standard_normal((records, dim), dtype=np.float32)
        x[positive] += rng.standard_normal(dim, dtype=np.float32) * np.float32(0.15)
        offsets = pa.array(np.arange(0, records * dim + 1, dim, dtype=np.int32))
        columns = {
            "record_id": pa.array(ids),
            **{name: pa.array([name] * records) for name in ("version", "pooling")},
            "model": pa.array([model] * records),
            "dim": pa.array([dim] * records, pa.int32()),
            "embedding": pa.ListArray.from_arrays(offsets, pa.array(x.ravel())),
        }
        warehouse.append("embeddings", pa.table(columns), command="benchmark")
    rows = {"record_id": ids, "task": ["ACS"] * records, "label": positive.astype(np.float64)}
    warehouse.append("labels", pa.table(rows), command="benchmark")
    people = {"record_id": ids, "patient_id": ids}
    schema = table_schema("records").arrow
    table = pa.table(
        {n: pa.array(people.get(n, [None] * records), schema.field(n).type) for n in schema.names},
        schema=schema,
    )
    warehouse.append("records", table, command="benchmark")
    fuse(warehouse, MODELS, name="fusion")
    return warehouse


def bare(warehouse: Warehouse, split_id: str, params: dict[str, object]) -> float:
    """Fit and predict on matrices at hand; returns the seconds of that alone."""
    import xgboost

    with Catalog(warehouse.relations()) as catalog:
        parts = reshuffles(catalog, split_id)
        ids, blocks = matrix(catalog, feature_set(catalog, "fusion").members)
        rows = catalog.table("select record_id, label from labels order by record_id")
    labels = rows["label"].to_numpy()
    place = {record_id: i for i, record_id in enumerate(ids)}
    scaled = statistics(blocks[0], np.ones((1, len(ids)), bool)) + statistics(
        blocks[1], np.ones((1, len(ids)), bool)
    )
    inputs = [*blocks, fused(blocks, scaled, scale="minmax")]
    rounds = int(params.pop("n_estimators"))
    fixed = {
        **params,
        "objective": "binary:logistic",
        "tree_method": "hist",
        "nthread": settings.threads(),
        "verbosity": 0,
    }
    seconds = 0.0
    for x in inputs:
        for part in parts:
            train, test = ([place[i] for i in side] for side in (part.train, part.test))
            mine, other, y = x[train], x[test], labels[train]
            began = time.perf_counter()
            data = xgboost.QuantileDMatrix(mine, label=y, nthread=settings.threads())
            xgboost.train(fixed, data, num_boost_round=rounds).inplace_predict(other)
            seconds += time.perf_counter() - began
    return seconds


def main() -> None:
    """Print one line a turn, then the ratio of the totals."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=5813)
    parser.add_argument("--dim", type=int, default=768)
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--turns", type=int, default=1)
    given = parser.parse_args()
    whole, fits = [], []
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(given.turns):
            warehouse = build(Path(folder) / str(turn), given.records, given.dim)
            drawing = Drawing(repeats=given.repeats, seed=turn)
            began = time.perf_counter()
            result = evaluate(warehouse, SETS, protocols=["paper"], tasks=["ACS"], drawing=drawing)
            whole.append(time.perf_counter() - began)
            fits.append(bare(warehouse, result.split_id, dict(XGBoost.defaults)))
            print(json.dumps({"turn": turn, "protocol_s": whole[-1], "fits_s": fits[-1]}))
    print(json.dumps({"ratio": sum(whole) / sum(fits), "threads": settings.threads()}))


if __name__ == "__main__":
    main()
