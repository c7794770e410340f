"""What runs leave behind: predictions, fused vectors and what was fitted; numbers, never code."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pyarrow as pa

from ecgstore.classifiers import classifiers
from ecgstore.errors import UnknownNameError
from ecgstore.fitting import Fitted, Plan
from ecgstore.fusion import fusions
from ecgstore.schema import table_schema

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from ecgstore.catalog import Catalog
    from ecgstore.runs import Fold, Run
    from ecgstore.tasks import Target
    from ecgstore.warehouse import Warehouse

__all__ = [
    "keep_fitted",
    "keep_predictions",
    "keep_vectors",
    "load_fitted",
    "repeats_in",
    "stored_scores",
]

Side = Literal["test", "train"]


def repeats_in(catalog: Catalog, table: str, run: Run, *, split: Side | None = None) -> set[int]:
    """Return the reshuffles of a run that a table has; of ``predictions``, those of a side."""
    side = "" if split is None else " and split = $split"
    query = f"select distinct repeat from {table} where run_id = $run_id{side}"
    given = {"run_id": run.run_id} | ({} if split is None else {"split": split})
    return set(catalog.table(query, given)["repeat"].to_pylist())


def keep_predictions(
    warehouse: Warehouse,
    run: Run,
    fold: Fold,
    sides: Mapping[Side, NDArray[np.float64]],
    *,
    command: str,
) -> None:
    """Write the scores of a reshuffle.

    Args:
        warehouse: Written to.
        run: The run.
        fold: The reshuffle.
        sides: Scores of the test records, and of training records out of fold, in the order of
            the fold.
        command: For the log.
    """
    places = {"test": fold.test, "train": fold.train}
    rows = np.concatenate([places[side] for side in sides])
    split = np.concatenate([np.repeat(side, len(places[side])) for side in sides])
    scores = np.concatenate(list(sides.values()))
    n = len(rows)
    ids = pa.array(run.record_ids[rows], pa.string())
    key = {
        "run_id": pa.array([run.run_id] * n),
        "repeat": pa.array([fold.repeat] * n, pa.int32()),
        "record_id": ids,
        "split": pa.array(split, pa.string()),
    }
    if scores.ndim > 1:  # the classes first: a record has a prediction when it has its classes
        _keep_classes(warehouse, key, scores, command=command)
        scores = scores.argmax(axis=1).astype(np.float64)
    columns = {**key, "score": pa.array(scores), "label": pa.array(run.labels[rows])}
    table = pa.table(columns, schema=table_schema("predictions").arrow)
    warehouse.append("predictions", table, command=command)


def _keep_classes(
    warehouse: Warehouse,
    key: Mapping[str, pa.Array],
    scores: NDArray[np.float64],
    *,
    command: str,
) -> None:
    n, classes = scores.shape
    place = pa.array(np.repeat(np.arange(n), classes))
    columns = {name: values.take(place) for name, values in key.items()}
    columns["class"] = pa.array(np.tile(np.arange(classes, dtype=np.int32), n))
    columns["probability"] = pa.array(scores.ravel())
    schema = table_schema("class_probabilities").arrow
    table = pa.table([columns[name] for name in schema.names], schema=schema)
    warehouse.append("class_probabilities", table, command=command)


def keep_vectors(
    warehouse: Warehouse, run: Run, fold: Fold, vectors: NDArray[np.float32], *, command: str
) -> None:
    """Write the vectors that the fusion of a reshuffle makes of all records of a run.

    A record whose vector is lacking in part is left out: a stored vector has no NaN.
    """
    whole = ~np.isnan(vectors).any(axis=1)
    kept = vectors[whole].astype(np.float32)
    n, dim = kept.shape
    schema = table_schema("fused_vectors").arrow
    lists = pa.ListArray.from_arrays(
        pa.array(np.arange(n + 1, dtype=np.int32) * dim),
        pa.array(kept.ravel()),
        type=schema.field("vector").type,
    )
    columns = [
        pa.array([run.run_id] * n),
        pa.array([fold.repeat] * n, pa.int32()),
        pa.array(run.record_ids[whole], pa.string()),
        pa.array([dim] * n, pa.int32()),
        lists,
    ]
    warehouse.append("fused_vectors", pa.table(columns, schema=schema), command=command)


def stored_scores(
    catalog: Catalog, run: Run, repeat: int, *, split: Side = "test"
) -> NDArray[np.float64]:
    """Return the stored scores of one side of a reshuffle, in the order of its fold."""
    given = {"run_id": run.run_id, "repeat": repeat, "split": split}
    here = "where run_id = $run_id and repeat = $repeat and split = $split"
    if run.target == "multiclass":
        rows = catalog.table(
            f"select list(probability order by class) as scores from class_probabilities {here} "
            "group by record_id order by record_id",
            given,
        )
        return np.array(rows["scores"].to_pylist(), dtype=np.float64)
    rows = catalog.table(f"select score from predictions {here} order by record_id", given)
    scores: NDArray[np.float64] = rows["score"].to_numpy()
    return scores


def keep_fitted(
    warehouse: Warehouse, run: Run, fold: Fold, fitted: Fitted, *, command: str
) -> None:
    """Write what a reshuffle's fit learned: fusion and members first, the classifier last."""
    parts = _parts(run, fitted)
    if parts:
        shared = {"run_id": run.run_id, "repeat": fold.repeat}
        rows = pa.Table.from_pylist(
            [{**shared, **part} for part in parts], schema=table_schema("fusions").arrow
        )
        warehouse.append("fusions", rows, command=command)
    alone = fitted.classifiers[0] if _one_classifier(fitted) else None
    row = {
        "run_id": run.run_id,
        "repeat": fold.repeat,
        "classifier": run.kind.name,
        "format": alone.format if alone else None,
        "model": alone.save() if alone else None,
        "features": run.features,
        "task": run.task,
        "target": run.target,
        "split_id": run.split_id,
        "params": json.dumps({**run.params, "library": run.library}),
    }
    rows = pa.Table.from_pylist([row], schema=table_schema("classifiers").arrow)
    warehouse.append("classifiers", rows, command=command)


def load_fitted(catalog: Catalog, run_id: str, repeat: int) -> Fitted:
    """Return what `ecgstore.train.train` kept for a reshuffle of a run.

    Raises:
        UnknownNameError: None was kept.
    """
    query = "select * from classifiers where run_id = $run_id and repeat = $repeat"
    rows = catalog.table(query, {"run_id": run_id, "repeat": repeat}).to_pylist()
    if not rows:
        known = catalog.table("select run_id || '/' || repeat as name from classifiers")
        name = f"{run_id}/{repeat}"
        raise UnknownNameError(name, kind="trained classifier", known=known["name"].to_pylist())
    row = rows[0]
    kind = classifiers.get(row["classifier"])
    target: Target = row["target"] or "binary"
    parts = catalog.table(
        "select part, name, model from fusions where run_id = $run_id and repeat = $repeat "
        "order by part",
        {"run_id": run_id, "repeat": repeat},
    ).to_pylist()
    params = {
        key: value for key, value in json.loads(row["params"] or "{}").items() if key != "library"
    }
    fusion, members = None, []
    for part in parts:
        if part["part"] == "fusion":
            fusion = fusions.get(part["name"]).load(part["model"], target=target)
        else:
            members.append(kind.load(part["model"], target=target))
    plan = Plan(kind, params, fusion=type(fusion) if fusion else None, target=target)
    if row["model"] is not None:
        members = [kind.load(row["model"], target=target)]
    return Fitted(plan, members, fusion)


def _one_classifier(fitted: Fitted) -> bool:
    return fitted.fusion is None or (fitted.fusion.takes == "vectors" and bool(fitted.classifiers))


def _parts(run: Run, fitted: Fitted) -> Sequence[Mapping[str, Any]]:
    if fitted.fusion is None:
        return []
    parts = [
        {
            "part": "fusion",
            "name": fitted.fusion.name,
            "format": "safetensors",
            "model": fitted.fusion.save(),
        }
    ]
    if not _one_classifier(fitted):
        parts += [
            {
                "part": f"member{i:02}",
                "name": run.kind.name,
                "format": one.format,
                "model": one.save(),
            }
            for i, one in enumerate(fitted.classifiers)
        ]
    return parts
