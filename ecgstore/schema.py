"""The format on disk: the columns, key, order and Parquet encodings of every table.

A warehouse outlives the program that wrote it, so each table carries a version; a column may be
added (old shards read as NULL there), never renamed or retyped.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

import pyarrow as pa

from ecgstore.columns import COUNTS, DOUBLE, INT, TEXT, TIME, VECTOR, TableSchema, columns
from ecgstore.errors import UnknownNameError
from ecgstore.learning_tables import LEARNING
from ecgstore.record import COLUMNS
from ecgstore.training_tables import TRAINING

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["TABLES", "TableSchema", "table_schema"]


_embedding_key = (("record_id", TEXT), ("model", TEXT), ("version", TEXT), ("pooling", TEXT))

_ALL = (
    TableSchema(
        "records",
        "One row an ECG; a record exists when its row here does. Sex is male, female or NULL.",
        columns(
            ("record_id", TEXT),
            signal_sha256=TEXT,
            patient_id=TEXT,
            dataset=TEXT,
            source_uri=TEXT,
            source_format=TEXT,
            source_sha256=TEXT,
            recorded_at=TIME,
            rate_hz=DOUBLE,
            n_samples=INT,
            leads=pa.list_(pa.field("element", TEXT)),
            age=DOUBLE,
            sex=TEXT,
            quality=pa.list_(pa.field("element", TEXT)),
            site=TEXT,
            device=TEXT,
            strat_fold=INT,
            report=TEXT,
            assessed=TEXT,
            snr_db=DOUBLE,
            range_mv=DOUBLE,
            flat_leads=INT,
            nan_fraction=DOUBLE,
            saturated_fraction=DOUBLE,
            clipped_fraction=DOUBLE,
            hum_mv=DOUBLE,
            wander_mv=DOUBLE,
            noise_mv=DOUBLE,
            einthoven_mv=DOUBLE,
            augmented_mv=DOUBLE,
            reversal=TEXT,
            unit_suspicion=TEXT,
            heart_rate=DOUBLE,
            r_agreement=DOUBLE,
            fingerprint=pa.binary(),
            duplicate_of=TEXT,
            near_duplicate_of=TEXT,
        ),
        key=("record_id",),
        sort=("record_id",),  # by which one is looked up; a patient's are few in any order
        rows_per_group=16_384,
        version=2,  # 2: the columns from ``assessed`` on
    ),
    TableSchema(
        "waveforms",
        "The samples of a record as the source stored them; mV = (x - baseline) / gain.",
        columns(
            ("record_id", TEXT),
            gain=pa.list_(pa.field("element", DOUBLE)),
            baseline=pa.list_(pa.field("element", INT)),
            **dict.fromkeys(COLUMNS, COUNTS),
        ),
        key=("record_id",),
        sort=("record_id",),
        encodings={f"{column}.list.element": "DELTA_BINARY_PACKED" for column in COLUMNS},
        dictionary=False,
        rows_per_group=64,
        rows_per_file=4096,
    ),
    TableSchema(
        "signals",
        "What a record holds besides the twelve leads, such as MLII, V3R, Frank's X or a pressure; "
        "value = (x - baseline) / gain in the unit.",
        columns(
            ("record_id", TEXT),
            ("number", INT),
            name=TEXT,
            unit=TEXT,
            rate_hz=DOUBLE,
            gain=DOUBLE,
            baseline=INT,
            samples=COUNTS,
        ),
        key=("record_id", "number"),
        sort=("record_id", "number"),
        encodings={"samples.list.element": "DELTA_BINARY_PACKED"},
        dictionary=False,
        rows_per_group=64,
        rows_per_file=4096,
    ),
    TableSchema(
        "annotations",
        "What an annotator said of a record: beats, rhythms, waves or events; symbols are WFDB's.",
        columns(
            ("record_id", TEXT),
            ("annotator", TEXT),
            ("number", INT),
            time_s=DOUBLE,
            sample=pa.int64(),
            symbol=TEXT,
            subtype=pa.int16(),
            channel=pa.int16(),
            num=pa.int16(),
            text=TEXT,
        ),
        key=("record_id", "annotator", "number"),
        sort=("record_id", "annotator", "number"),
    ),
    TableSchema(
        "quality",
        "Figures of the signal quality of a lead; NULL is what cannot be told.",
        columns(
            ("record_id", TEXT),
            ("lead", TEXT),
            flat=pa.bool_(),
            flat_fraction=DOUBLE,
            saturated_fraction=DOUBLE,
            clipped_fraction=DOUBLE,
            nan_fraction=DOUBLE,
            range_mv=DOUBLE,
            peak_to_peak_mv=DOUBLE,
            hum_mv=DOUBLE,
            mains_hz=INT,
            wander_mv=DOUBLE,
            noise_mv=DOUBLE,
            snr_db=DOUBLE,
            r_agrees=pa.bool_(),
        ),
        key=("record_id", "lead"),
        sort=("record_id", "lead"),
    ),
    TableSchema(
        "measurements",
        "What a cart or a dataset measured on a whole record, such as qt in ms.",
        columns(("record_id", TEXT), ("name", TEXT), value=DOUBLE, unit=TEXT, source=TEXT),
        key=("record_id", "name"),
        sort=("record_id", "name"),
    ),
    TableSchema(
        "embeddings",
        "One vector a record, model, version and pooling: the mean over the model's windows.",
        columns(*_embedding_key, dim=INT, n_windows=pa.int16(), embedding=VECTOR),
        key=("record_id", "model", "version", "pooling"),
        sort=("record_id",),
        encodings={"embedding.list.element": "BYTE_STREAM_SPLIT"},
        dictionary=False,
        rows_per_group=2048,
        rows_per_file=65_536,
    ),
    TableSchema(
        "windows",
        "One vector a window of a record, kept on request.",
        columns(*_embedding_key, ("window", pa.int16()), start_s=DOUBLE, embedding=VECTOR),
        key=("record_id", "model", "version", "pooling", "window"),
        sort=("record_id", "window"),
        encodings={"embedding.list.element": "BYTE_STREAM_SPLIT"},
        dictionary=False,
        rows_per_group=2048,
        rows_per_file=65_536,
    ),
    TableSchema(
        "head_outputs",
        "The probability that a model's own head, one of named labels, gave a record: the mean "
        "over the model's windows.",
        columns(
            ("record_id", TEXT),
            ("model", TEXT),
            ("version", TEXT),
            ("label", TEXT),
            probability=pa.float32(),
        ),
        key=("record_id", "model", "version", "label"),
        # An append looks its keys up by record, and an erasure rewrites the shards of a few; a
        # label of all records is read as a whole column in any order.
        sort=("record_id", "label"),
        rows_per_group=65_536,
    ),
    TableSchema(
        "codes",
        "The rhythm code that a model's tokeniser gave each second of a lead, counted from the "
        "record's start.",
        columns(
            ("record_id", TEXT),
            ("model", TEXT),
            ("version", TEXT),
            ("lead", TEXT),
            ("second", INT),
            code=pa.int16(),
        ),
        key=("record_id", "model", "version", "lead", "second"),
        sort=("record_id", "model", "version", "lead", "second"),  # runs of equal values in each
        rows_per_group=65_536,
    ),
    TableSchema(
        "reconstructions",
        "A lead as a model made it from the others, in millivolts: reconstructed, not measured. "
        "psnr_db, ssim and mae say how near it comes to what was measured, where anything was.",
        columns(
            ("record_id", TEXT),
            ("lead", TEXT),
            ("model", TEXT),
            ("version", TEXT),
            rate_hz=DOUBLE,
            scale=TEXT,
            psnr_db=DOUBLE,
            ssim=DOUBLE,
            mae=DOUBLE,
            signal=VECTOR,
        ),
        key=("record_id", "lead", "model", "version"),
        sort=("record_id", "lead"),
        encodings={"signal.list.element": "BYTE_STREAM_SPLIT"},
        dictionary=False,
        rows_per_group=256,
        rows_per_file=16_384,
    ),
    TableSchema(
        "models",
        "What made the vectors of a model, version and pooling; labels says what each number of a "
        "head's logits stands for.",
        columns(
            ("model", TEXT),
            ("version", TEXT),
            ("pooling", TEXT),
            weights_sha256=TEXT,
            contract=TEXT,
            precision=TEXT,
            dim=INT,
            licence=TEXT,
            citation=TEXT,
            source=TEXT,
            labels=pa.list_(pa.field("element", TEXT)),
        ),
        key=("model", "version", "pooling"),
    ),
    TableSchema(
        "pretraining",
        "A corpus or dataset that a model has seen in pretraining, and who says so.",
        columns(("model", TEXT), ("dataset", TEXT), source=TEXT),
        key=("model", "dataset"),
        sort=("model", "dataset"),
    ),
    *LEARNING,
    *TRAINING,
    TableSchema(
        "rejects",
        "A file or row that was refused, and why.",
        columns(("source_uri", TEXT), ("reason", TEXT), reader=TEXT, detail=TEXT, at=TIME),
        key=("source_uri", "reason"),
    ),
)

TABLES: Mapping[str, TableSchema] = MappingProxyType({table.name: table for table in _ALL})
"""Every table of a warehouse by name."""


def table_schema(name: str) -> TableSchema:
    """Return the schema of a table.

    Raises:
        UnknownNameError: There is no such table.
    """
    if name not in TABLES:
        raise UnknownNameError(name, kind="table", known=TABLES)
    return TABLES[name]
