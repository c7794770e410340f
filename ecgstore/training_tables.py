"""The tables of training: what was trained, how its loss fell, and on which records."""

from __future__ import annotations

import pyarrow as pa

from ecgstore.columns import DOUBLE, INT, TEXT, TIME, TableSchema, columns

__all__ = ["TRAINING"]

TRAINING = (
    TableSchema(
        "trainings",
        "A run that trained an encoder: pretrain, finetune or distil; running until it is done. "
        "params (JSON) has every option, versions (JSON) every table version it read; "
        "weights_sha256 names the file it made, started_from the one it started from, if any.",
        columns(
            ("run_id", TEXT),
            kind=TEXT,
            method=TEXT,
            model=TEXT,
            size=TEXT,
            params=TEXT,
            started_from=TEXT,
            datasets=pa.list_(pa.field("element", TEXT)),
            records=pa.int64(),
            pieces=pa.int64(),
            steps=pa.int64(),
            seed=pa.int64(),
            weights_sha256=TEXT,
            versions=TEXT,
            code=TEXT,
            at=TIME,
            seconds=DOUBLE,
            state=TEXT,
        ),
        key=("run_id",),
    ),
    TableSchema(
        "losses",
        "The loss, or a term of it, of a step of a training, and the learning rate it was made "
        "with; validation_loss and validation_auroc are of the records held out, after the step.",
        columns(
            ("run_id", TEXT), ("step", INT), ("name", TEXT), value=DOUBLE, learning_rate=DOUBLE
        ),
        key=("run_id", "step", "name"),
        sort=("run_id", "step", "name"),
    ),
    TableSchema(
        "trained_records",
        "A record that a training learned from (train) or chose its best step by (validation).",
        columns(("run_id", TEXT), ("record_id", TEXT), part=TEXT),
        key=("run_id", "record_id"),
        sort=("run_id", "record_id"),
    ),
)
"""In the order of work."""
