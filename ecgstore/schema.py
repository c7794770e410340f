"""The format on disk: the columns, key, order and Parquet encodings of every table.

A warehouse outlives the program that wrote it, so each table carries a version; a column may be
added (old shards read as NULL there), never renamed or retyped.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING

import pyarrow as pa

from ecgstore.errors import UnknownNameError
from ecgstore.record import COLUMNS

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["TABLES", "TableSchema", "table_schema"]


@dataclass(frozen=True)
class TableSchema:
    """One table: what it holds and how its shards are written.

    Attributes:
        name: Table name, a plural noun.
        summary: What a row is, one sentence.
        arrow: Columns with types; a key column is never NULL.
        key: Columns whose values are unique in the table at every version.
        sort: Columns by which a shard is ordered.
        encodings: Parquet encoding by leaf path, for columns where the writer's choice is worse.
        dictionary: Whether the writer may dictionary-encode the columns not named in `encodings`.
        rows_per_group: Rows per Parquet row group; None leaves it to the writer.
        rows_per_file: Rows a shard holds at most.
        version: Version of this layout, kept in the table's properties.
    """

    name: str
    summary: str
    arrow: pa.Schema
    key: tuple[str, ...]
    sort: tuple[str, ...] = ()
    encodings: Mapping[str, str] = field(default_factory=dict)
    dictionary: bool = True
    rows_per_group: int | None = None
    rows_per_file: int = 1_000_000
    version: int = 1


_text, _double, _int = pa.string(), pa.float64(), pa.int32()
_time = pa.timestamp("us", tz="UTC")
_vector = pa.list_(pa.field("element", pa.float32(), nullable=False))
_counts = pa.list_(pa.field("element", pa.int16()))


def _columns(*required: tuple[str, pa.DataType], **optional: pa.DataType) -> pa.Schema:
    fields = [pa.field(name, kind, nullable=False) for name, kind in required]
    return pa.schema([*fields, *(pa.field(name, kind) for name, kind in optional.items())])


_embedding_key = (("record_id", _text), ("model", _text), ("version", _text), ("pooling", _text))

_ALL = (
    TableSchema(
        "records",
        "One row an ECG; a record exists when its row here does. Sex is male, female or NULL.",
        _columns(
            ("record_id", _text),
            signal_sha256=_text,
            patient_id=_text,
            dataset=_text,
            source_uri=_text,
            source_format=_text,
            source_sha256=_text,
            recorded_at=_time,
            rate_hz=_double,
            n_samples=_int,
            leads=pa.list_(pa.field("element", _text)),
            age=_double,
            sex=_text,
            quality=pa.list_(pa.field("element", _text)),
            site=_text,
            device=_text,
            strat_fold=_int,
            report=_text,
            assessed=_text,
            snr_db=_double,
            range_mv=_double,
            flat_leads=_int,
            nan_fraction=_double,
            saturated_fraction=_double,
            clipped_fraction=_double,
            hum_mv=_double,
            wander_mv=_double,
            noise_mv=_double,
            einthoven_mv=_double,
            augmented_mv=_double,
            reversal=_text,
            unit_suspicion=_text,
            heart_rate=_double,
            r_agreement=_double,
            fingerprint=pa.binary(),
            duplicate_of=_text,
            near_duplicate_of=_text,
        ),
        key=("record_id",),
        sort=("record_id",),  # by which one is looked up; a patient's are few in any order
        rows_per_group=16_384,
        version=2,  # 2: the columns from ``assessed`` on
    ),
    TableSchema(
        "waveforms",
        "The samples of a record as the source stored them; mV = (x - baseline) / gain.",
        _columns(
            ("record_id", _text),
            gain=pa.list_(pa.field("element", _double)),
            baseline=pa.list_(pa.field("element", _int)),
            **dict.fromkeys(COLUMNS, _counts),
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
        _columns(
            ("record_id", _text),
            ("number", _int),
            name=_text,
            unit=_text,
            rate_hz=_double,
            gain=_double,
            baseline=_int,
            samples=_counts,
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
        _columns(
            ("record_id", _text),
            ("annotator", _text),
            ("number", _int),
            time_s=_double,
            sample=pa.int64(),
            symbol=_text,
            subtype=pa.int16(),
            channel=pa.int16(),
            num=pa.int16(),
            text=_text,
        ),
        key=("record_id", "annotator", "number"),
        sort=("record_id", "annotator", "number"),
    ),
    TableSchema(
        "quality",
        "Figures of the signal quality of a lead; NULL is what cannot be told.",
        _columns(
            ("record_id", _text),
            ("lead", _text),
            flat=pa.bool_(),
            flat_fraction=_double,
            saturated_fraction=_double,
            clipped_fraction=_double,
            nan_fraction=_double,
            range_mv=_double,
            peak_to_peak_mv=_double,
            hum_mv=_double,
            mains_hz=_int,
            wander_mv=_double,
            noise_mv=_double,
            snr_db=_double,
            r_agrees=pa.bool_(),
        ),
        key=("record_id", "lead"),
        sort=("record_id", "lead"),
    ),
    TableSchema(
        "measurements",
        "What a cart or a dataset measured on a whole record, such as qt in ms.",
        _columns(("record_id", _text), ("name", _text), value=_double, unit=_text, source=_text),
        key=("record_id", "name"),
        sort=("record_id", "name"),
    ),
    TableSchema(
        "embeddings",
        "One vector a record, model, version and pooling: the mean over the model's windows.",
        _columns(*_embedding_key, dim=_int, n_windows=pa.int16(), embedding=_vector),
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
        _columns(*_embedding_key, ("window", pa.int16()), start_s=_double, embedding=_vector),
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
        _columns(
            ("record_id", _text),
            ("model", _text),
            ("version", _text),
            ("label", _text),
            probability=pa.float32(),
        ),
        key=("record_id", "model", "version", "label"),
        # An append looks its keys up by record, and an erasure rewrites the shards of a few; a
        # label of all records is read as a whole column in any order.
        sort=("record_id", "label"),
        rows_per_group=65_536,
    ),
    TableSchema(
        "models",
        "What made the vectors of a model, version and pooling.",
        _columns(
            ("model", _text),
            ("version", _text),
            ("pooling", _text),
            weights_sha256=_text,
            contract=_text,
            precision=_text,
            dim=_int,
            licence=_text,
            citation=_text,
            source=_text,
        ),
        key=("model", "version", "pooling"),
    ),
    TableSchema(
        "pretraining",
        "A corpus or dataset that a model has seen in pretraining, and who says so.",
        _columns(("model", _text), ("dataset", _text), source=_text),
        key=("model", "dataset"),
        sort=("model", "dataset"),
    ),
    TableSchema(
        "labels",
        "The label of a record in a task, and who says so: a dataset, the record's own file, or a "
        "table of one's own by its name; likelihood in per cent where the source gives one.",
        _columns(
            ("record_id", _text), ("task", _text), label=_double, likelihood=_double, source=_text
        ),
        key=("record_id", "task"),
        sort=("task", "record_id"),
        version=2,  # 2: the column ``source``
    ),
    TableSchema(
        "splits",
        "Which side of which reshuffle a record is on; params is JSON.",
        _columns(
            ("split_id", _text),
            ("repeat", _int),
            ("record_id", _text),
            split=_text,
            task=_text,
            params=_text,
        ),
        key=("split_id", "repeat", "record_id"),
        sort=("split_id", "repeat", "record_id"),
    ),
    TableSchema(
        "feature_sets",
        "What a name given to fuse stands for; definition is JSON.",
        _columns(("name", _text), definition=_text, at=_time),
        key=("name",),
    ),
    TableSchema(
        "norm_stats",
        "Per-dimension statistics of a model over the training records of a reshuffle.",
        _columns(
            ("split_id", _text),
            ("repeat", _int),
            ("model", _text),
            ("version", _text),
            ("pooling", _text),
            mn=_vector,
            mx=_vector,
            mean=_vector,
            std=_vector,
            n_train=pa.int64(),
        ),
        key=("split_id", "repeat", "model", "version", "pooling"),
    ),
    TableSchema(
        "classifiers",
        "A fitted classifier of a run and reshuffle, in a format that cannot run code.",
        _columns(
            ("run_id", _text),
            ("repeat", _int),
            classifier=_text,
            format=_text,
            model=pa.binary(),
        ),
        key=("run_id", "repeat"),
        dictionary=False,
    ),
    TableSchema(
        "predictions",
        "The score a run gave a record of the test part of a reshuffle.",
        _columns(
            ("run_id", _text),
            ("repeat", _int),
            ("record_id", _text),
            split=_text,
            score=_double,
            label=_double,
        ),
        key=("run_id", "repeat", "record_id"),
        sort=("run_id", "repeat", "record_id"),
    ),
    TableSchema(
        "scores",
        "A metric of a run on a reshuffle; versions (JSON) names every table version it read.",
        _columns(
            ("run_id", _text),
            ("repeat", _int),
            ("metric", _text),
            at=_time,
            versions=_text,
            features=_text,
            task=_text,
            split_id=_text,
            classifier=_text,
            params=_text,
            value=_double,
            seconds=_double,
            code=_text,
        ),
        key=("run_id", "repeat", "metric"),
        sort=("run_id", "repeat", "metric"),
    ),
    TableSchema(
        "rejects",
        "A file or row that was refused, and why.",
        _columns(("source_uri", _text), ("reason", _text), reader=_text, detail=_text, at=_time),
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
