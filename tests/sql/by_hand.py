"""A warehouse of four records whose every figure can be checked by hand."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa

from ecgstore.record import COLUMNS, LEADS

Relations = dict[str, tuple[list[Path], pa.Schema]]
"""Files and schema of each table."""

START = datetime(2020, 1, 1, 8)  # UTC, as the views give it
VECTORS = {
    "ecgfm": {"a/1": [0, 5], "a/2": [2, 5], "a/3": [4, 5], "b/1": [8, 7]},
    "stmem": {"a/1": [1, 0, 0], "a/2": [1, 1, 0], "a/3": [0, 1, 0], "b/1": [0, 0, 2]},
}

HEADS: list[tuple[str, str, str, float, tuple[str, ...]]] = [
    ("founder", "v1", "ATRIAL FIBRILLATION", 0.75, ("a/1", "b/1")),
    ("founder", "v1", "ATRIAL FIBRILLATION", 0.25, ("a/2", "gone/1")),
    ("founder", "v1", "SINUS RHYTHM", 0.5, ("a/1", "a/2", "b/1")),
    ("twice", "v1", "AF", 0.5, ("a/1",)),
    ("twice", "v2", "AF", 1.0, ("a/1", "a/2")),
]

RHYTHM: list[tuple[str, str, str, tuple[int, ...]]] = [
    ("a/1", "v1", "II", (5, 7, 7, 7, 5)),
    ("a/1", "v1", "V1", (7, 7)),
    ("b/1", "v1", "II", (5, 7, 5)),
    ("b/1", "v2", "II", (1,)),
    ("gone/1", "v1", "II", (5, 7, 7)),
]

SEXES = ("male", "male", "female", "female")


def member(model: str) -> dict[str, str]:
    return {"model": model, "version": "v1", "pooling": "mean"}


def tables() -> dict[str, list[dict[str, Any]]]:
    """Return a warehouse of four records whose every figure can be checked by hand."""
    ids = ["a/1", "a/2", "a/3", "b/1"]
    records: list[dict[str, Any]] = [
        {
            "record_id": record_id,
            "patient_id": patient,
            "dataset": record_id[0],
            "recorded_at": START + timedelta(days=10 * i),
            "rate_hz": 500.0,
            "n_samples": 5000,
            "leads": list(LEADS[: 11 if record_id == "a/3" else 12]),
            "age": age,
            "sex": sex,
            "quality": ["quantised"] if record_id == "b/1" else [],
        }
        for i, (record_id, patient, age, sex) in enumerate(
            zip(ids, ["p1", "p1", "p2", "p3"], [61, 69, 71, 35], SEXES, strict=True)
        )
    ]
    truth = {"MI": dict(zip(ids, [1, 0, 1, 0], strict=True)), "NORM": {"b/1": 1}}
    truth["MI"]["gone/1"] = 1  # a label without a record, as a killed ingest leaves it
    waves = [
        {
            "record_id": record_id,
            "gain": [100.0] * 11 + [200.0],
            "baseline": [50] * 12,
            **{c: [0, 100 * (n + 1), -32768] for c in COLUMNS[: len(records[n]["leads"])]},
        }
        for n, record_id in enumerate(ids)
    ]
    predictions = [
        {
            "run_id": run,
            "repeat": 0,
            "record_id": record_id,
            "split": "test",
            "score": score,
            "label": 1.0,
        }
        for run, scores in {"r1": [0.9, 0.2, 0.8, 0.1], "r2": [0.7, 0.6, 0.9, 0.4]}.items()
        for record_id, score in zip(ids, scores, strict=True)
    ]
    scores = [
        {
            "run_id": run,
            "repeat": repeat,
            "metric": metric,
            "at": START + timedelta(hours=int(run[1])),
            "features": features,
            "task": "MI",
            "split_id": "s",
            "classifier": "xgboost",
            "value": value + 0.1 * repeat,
        }
        for run, features, auroc, aucpr in [("r1", "ecgfm", 0.7, 0.4), ("r2", "fusion", 0.8, 0.5)]
        for metric, value in [("AUROC", auroc), ("AUCPR", aucpr)]
        for repeat in range(2)
    ]
    return {
        "records": records,
        "waveforms": waves,
        "labels": [
            {"record_id": record_id, "task": task, "label": float(label)}
            for task, labels in truth.items()
            for record_id, label in labels.items()
        ],
        "embeddings": [
            {"record_id": record_id, **member(model), "dim": len(vector), "embedding": vector}
            for model, vectors in VECTORS.items()
            for record_id, vector in vectors.items()
        ],
        "head_outputs": [
            {"record_id": i, "model": m, "version": v, "label": label, "probability": p}
            for m, v, label, p, ids in HEADS
            for i in ids
        ],
        "codes": [
            {"record_id": i, "model": "any", "version": v, "lead": lead, "second": s, "code": code}
            for i, v, lead, codes in RHYTHM
            for s, code in enumerate(codes)
        ],
        "pretraining": [{"model": "ecgfm", "dataset": "PhysioNet 2021", "source": "its paper"}],
        "models": [{**member("ecgfm"), "precision": "fp32", "source": "untrained"}],
        "splits": [
            {
                "split_id": "s",
                "repeat": 0,
                "record_id": record_id,
                "split": "test" if record_id == "b/1" else "train",
            }
            for record_id in ids
        ],
        "norm_stats": [
            {"split_id": "s", "repeat": 0, **member("ecgfm"), "mn": [0, 5], "mx": [4, 5]},
            {"split_id": "s", "repeat": 0, **member("stmem"), "mn": [0, 0, 0], "mx": [1, 1, 0]},
        ],
        "predictions": predictions,
        "scores": scores,
        "trainings": [
            {
                "run_id": run,
                "kind": kind,
                "method": "stmem",
                "size": "mini",
                "datasets": ["a", "b"],
                "records": 4,
                "steps": 4,
                "seconds": 1.5,
                "at": START + timedelta(hours=i),
                "state": "done",
                "weights_sha256": "f00d",
            }
            for i, (run, kind) in enumerate([("aa1", "pretrain"), ("aa2", "distil")])
        ],
        "losses": [
            {"run_id": "aa1", "step": i, "name": name, "value": value, "learning_rate": i / 8}
            for name, values in {"loss": (8, 4, 3, 1), "penalty": (2, 2, 1, 1)}.items()
            for i, value in enumerate(values, start=1)
        ],
        "rejects": [
            {"source_uri": f"{i}.hea", "reason": reason, "reader": "wfdb", "at": START}
            for i, reason in enumerate(["truncated", "checksum", "truncated"])
        ],
    }
