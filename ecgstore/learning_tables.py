"""The tables of learning: labels, splits, feature sets, and what runs fitted, predicted, scored."""

from __future__ import annotations

import pyarrow as pa

from ecgstore.columns import DOUBLE, INT, TEXT, TIME, VECTOR, TableSchema, columns

__all__ = ["LEARNING"]

LEARNING = (
    TableSchema(
        "labels",
        "The label of a record in a task, and who says so: a dataset, the record's own file, or a "
        "table of one's own by its name; likelihood in per cent where the source gives one.",
        columns(("record_id", TEXT), ("task", TEXT), label=DOUBLE, likelihood=DOUBLE, source=TEXT),
        key=("record_id", "task"),
        sort=("task", "record_id"),
        version=2,  # 2: the column ``source``
    ),
    TableSchema(
        "splits",
        "Which side of which reshuffle a record is on; params is JSON.",
        columns(
            ("split_id", TEXT),
            ("repeat", INT),
            ("record_id", TEXT),
            split=TEXT,
            task=TEXT,
            params=TEXT,
        ),
        key=("split_id", "repeat", "record_id"),
        sort=("split_id", "repeat", "record_id"),
    ),
    TableSchema(
        "feature_sets",
        "What a name given to fuse stands for; definition is JSON.",
        columns(("name", TEXT), definition=TEXT, at=TIME),
        key=("name",),
    ),
    TableSchema(
        "norm_stats",
        "Per-dimension statistics of a model over the training records of a reshuffle.",
        columns(
            ("split_id", TEXT),
            ("repeat", INT),
            ("model", TEXT),
            ("version", TEXT),
            ("pooling", TEXT),
            mn=VECTOR,
            mx=VECTOR,
            mean=VECTOR,
            std=VECTOR,
            n_train=pa.int64(),
        ),
        key=("split_id", "repeat", "model", "version", "pooling"),
    ),
    TableSchema(
        "classifiers",
        "A fitted classifier of a run and reshuffle, in a format that cannot run code; NULL where "
        "a fusion scores without one. What else a fused run learned is in fusions.",
        columns(
            ("run_id", TEXT),
            ("repeat", INT),
            classifier=TEXT,
            format=TEXT,
            model=pa.binary(),
            features=TEXT,
            task=TEXT,
            target=TEXT,
            split_id=TEXT,
            params=TEXT,
        ),
        key=("run_id", "repeat"),
        dictionary=False,
        version=2,  # 2: the columns from ``features`` on
    ),
    TableSchema(
        "fusions",
        "What a fused run learned besides its classifier in a reshuffle: the fusion itself, or the "
        "classifier of a member, in a format that cannot run code.",
        columns(
            ("run_id", TEXT),
            ("repeat", INT),
            ("part", TEXT),
            name=TEXT,
            format=TEXT,
            model=pa.binary(),
        ),
        key=("run_id", "repeat", "part"),
        dictionary=False,
    ),
    TableSchema(
        "predictions",
        "The score a run gave a record of a reshuffle's test part; with split train, the score of "
        "a training record by a classifier fitted without its patient (out of fold).",
        columns(
            ("run_id", TEXT),
            ("repeat", INT),
            ("record_id", TEXT),
            split=TEXT,
            score=DOUBLE,
            label=DOUBLE,
        ),
        key=("run_id", "repeat", "record_id"),
        sort=("run_id", "repeat", "record_id"),
    ),
    TableSchema(
        "class_probabilities",
        "The probability that a run gave a record for each class of a task with several.",
        columns(
            ("run_id", TEXT),
            ("repeat", INT),
            ("record_id", TEXT),
            ("class", INT),
            split=TEXT,
            probability=DOUBLE,
        ),
        key=("run_id", "repeat", "record_id", "class"),
        sort=("run_id", "repeat", "record_id", "class"),
    ),
    TableSchema(
        "fused_vectors",
        "The vector that a run's fusion made of a record, fitted on a reshuffle's training part.",
        columns(
            ("run_id", TEXT),
            ("repeat", INT),
            ("record_id", TEXT),
            dim=INT,
            vector=VECTOR,
        ),
        key=("run_id", "repeat", "record_id"),
        sort=("run_id", "repeat", "record_id"),
        encodings={"vector.list.element": "BYTE_STREAM_SPLIT"},
        dictionary=False,
        rows_per_group=2048,
        rows_per_file=65_536,
    ),
    TableSchema(
        "scores",
        "A metric of a run on a reshuffle; versions (JSON) names every table version it read.",
        columns(
            ("run_id", TEXT),
            ("repeat", INT),
            ("metric", TEXT),
            at=TIME,
            versions=TEXT,
            features=TEXT,
            task=TEXT,
            split_id=TEXT,
            classifier=TEXT,
            params=TEXT,
            value=DOUBLE,
            seconds=DOUBLE,
            code=TEXT,
            target=TEXT,
        ),
        key=("run_id", "repeat", "metric"),
        sort=("run_id", "repeat", "metric"),
        version=2,  # 2: the column ``target``
    ),
)
"""In the order of work."""
