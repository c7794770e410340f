"""Runs: a classifier on a feature set over a split, read once and named by what it is made of.

The id of a run is a digest of all that determines its numbers: vectors or signals, labels, split,
settings and the library that fits. So a run that was done is found again, and changed data makes
a new one.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from ecgstore.catalog import Catalog
from ecgstore.errors import NotEnoughDataError, UsageError
from ecgstore.features import SIGNAL, FeatureSet, feature_set, matrix
from ecgstore.feed import stream
from ecgstore.fuse import fitted_statistics, keep_statistics, stored_statistics
from ecgstore.scaling import fused
from ecgstore.schema import table_schema
from ecgstore.split import EVERYTHING, Reshuffle
from ecgstore.supervised import signals
from ecgstore.warehouse import Warehouse

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from ecgstore.classifiers import Classifier, Setting
    from ecgstore.scaling import Statistics

    Scaling = Callable[[Catalog, FeatureSet, str], list[dict[int, Statistics]]]

__all__ = [
    "Fold",
    "Run",
    "check_reads",
    "fit_fold",
    "fitted_scaling",
    "keep_predictions",
    "pinned",
    "prepare",
    "repeats_in",
    "stored_scaling",
]

_RECIPE = 1
"""Counts changes to this program that change its numbers; part of every run id."""


@dataclass(frozen=True, eq=False)
class Fold:
    """A reshuffle as places in the arrays of a `Run`.

    Attributes:
        repeat: Number of the reshuffle.
        train: ``(n_train,)`` places of the records to learn from.
        test: ``(n_test,)`` places of the records to be tested on.
    """

    repeat: int
    train: NDArray[np.intp]
    test: NDArray[np.intp]


@dataclass(frozen=True, eq=False)
class Run:
    """A classifier on a feature set over a split, with all it needs at hand.

    Attributes:
        run_id: Digest of what determines the numbers.
        features: Name of the feature set.
        kind: The classifier.
        params: Its settings.
        library: Name and version of the library that fits it.
        split_id: The split.
        task: Its task.
        record_ids: ``(records,)`` ids, sorted.
        labels: ``(records,)`` 0 or 1.
        folds: The reshuffles.
        left_out: Records of the split that are not used, by reason.
        inputs: Returns the input of all records, scaled as fitted on a repeat's training records.
    """

    run_id: str
    features: str
    kind: type[Classifier]
    params: Mapping[str, Setting]
    library: str
    split_id: str
    task: str
    record_ids: NDArray[np.object_]
    labels: NDArray[np.float64]
    folds: tuple[Fold, ...]
    left_out: Mapping[str, int]
    inputs: Callable[[int], NDArray[np.float32]]


def pinned(
    warehouse: Warehouse, names: Iterable[str], split_id: str, *, dry_run: bool
) -> Warehouse:
    """Bring the statistics of fused sets up to date and return the warehouse as it is now.

    Every number of a run is read from this one set of table versions.
    """
    if not dry_run:
        with Catalog(warehouse.relations()) as catalog:
            sets = [feature_set(catalog, name) for name in names if name != SIGNAL]
            for one in sets:
                if one.scale != "none":
                    keep_statistics(warehouse, catalog, one, [split_id])
    return Warehouse(warehouse.root, at=warehouse.versions())


def prepare(
    warehouse: Warehouse,
    catalog: Catalog,
    features: str,
    split: Sequence[Reshuffle],
    kind: type[Classifier],
    params: Mapping[str, Setting],
    *,
    scaling: Scaling | None = None,
) -> Run:
    """Read all that a run needs and name it; see `train`.

    Statistics of a scaled feature set are those in ``norm_stats``, unless `scaling` returns others.
    """
    task, split_id = split[0].task, split[0].split_id
    check_reads(kind, features)
    members = sorted({*split[0].train, *split[0].test})
    found = catalog.table(
        "select record_id, label from labels join records using (record_id) where task = $task and "
        "label is not null and record_id in (select unnest($ids)) order by record_id",
        {"task": task, "ids": members},
    )
    labels_by_id = dict(zip(found["record_id"].to_pylist(), found["label"].to_numpy(), strict=True))
    left_out = Counter({"no label": len(members) - len(labels_by_id)})
    digest = hashlib.sha256()
    if features == SIGNAL:
        definition: dict[str, object] = {"members": SIGNAL}
        ids, inputs = _signal_inputs(
            warehouse, catalog, sorted(labels_by_id), params, digest=digest, left_out=left_out
        )
    else:
        one = feature_set(catalog, features)
        definition = one.definition
        ids, inputs = _vector_inputs(
            catalog,
            one,
            split_id,
            sorted(labels_by_id),
            scaling=scaling or stored_scaling,
            digest=digest,
            left_out=left_out,
        )
    labels = np.array([labels_by_id[record_id] for record_id in ids], dtype=np.float64)
    library = kind.library()
    identity = [_RECIPE, definition, kind.name, dict(params), library, split_id, task]
    digest.update(json.dumps(identity, sort_keys=True).encode())
    digest.update(labels.tobytes())
    folds = tuple(_folds(split, ids, digest=digest))
    for fold in folds:
        _check_classes(labels, fold, task=task, features=features)
    return Run(
        run_id=digest.hexdigest()[:12],
        features=features,
        kind=kind,
        params=params,
        library=library,
        split_id=split_id,
        task=task,
        record_ids=ids,
        labels=labels,
        folds=folds,
        left_out=dict(+left_out),
        inputs=inputs,
    )


def stored_scaling(
    catalog: Catalog, features: FeatureSet, split_id: str
) -> list[dict[int, Statistics]]:
    """Return what ``norm_stats`` holds of each member by repeat; 0 when fitted on every record."""
    key = EVERYTHING if features.fit == "all" else split_id
    return [stored_statistics(catalog, member, key) for member in features.members]


def fitted_scaling(
    catalog: Catalog, features: FeatureSet, split_id: str
) -> list[dict[int, Statistics]]:
    """Fit what `stored_scaling` reads anew."""
    fitted = dict(fitted_statistics(catalog, features, [split_id]))
    return [
        {repeat: found for (_, repeat), found in fitted[member].items()}
        for member in features.members
    ]


def repeats_in(catalog: Catalog, table: str, run: Run) -> set[int]:
    """Return the reshuffles of a run that ``classifiers`` or ``predictions`` holds already."""
    query = f"select distinct repeat from {table} where run_id = $run_id"
    return set(catalog.table(query, {"run_id": run.run_id})["repeat"].to_pylist())


def fit_fold(
    run: Run, fold: Fold, *, step: Callable[[], None]
) -> tuple[Classifier, NDArray[np.float64], float]:
    """Fit on the training records of a reshuffle.

    Returns:
        The classifier, its scores of the test records, and the seconds both took.
    """
    began = time.perf_counter()
    x = run.inputs(fold.repeat)
    model = run.kind(run.params)
    model.fit(x[fold.train], run.labels[fold.train], step=step)
    scores = model.predict(x[fold.test])
    return model, scores, time.perf_counter() - began


def keep_predictions(
    warehouse: Warehouse, run: Run, fold: Fold, scores: NDArray[np.float64], *, command: str
) -> None:
    """Write the scores of the test records of a reshuffle."""
    n = len(fold.test)
    columns = {
        "run_id": pa.array([run.run_id] * n),
        "repeat": pa.array([fold.repeat] * n, pa.int32()),
        "record_id": pa.array(run.record_ids[fold.test], pa.string()),
        "split": pa.array(["test"] * n),
        "score": pa.array(scores),
        "label": pa.array(run.labels[fold.test]),
    }
    rows = pa.table(columns, schema=table_schema("predictions").arrow)
    warehouse.append("predictions", rows, command=command)


def _vector_inputs(
    catalog: Catalog,
    features: FeatureSet,
    split_id: str,
    record_ids: Sequence[str],
    *,
    scaling: Scaling,
    digest: hashlib._Hash,
    left_out: Counter[str],
) -> tuple[NDArray[np.object_], Callable[[int], NDArray[np.float32]]]:
    """Read vectors once; they enter the digest, so an embedding made anew makes a new run."""
    ids, blocks = matrix(catalog, features.members, record_ids)
    left_out["no vector"] = len(record_ids) - len(ids)
    if left_out["no vector"] and features.missing == "error":
        msg = f"{left_out['no vector']} records of the split lack a vector of {features.name!r}."
        raise NotEnoughDataError(msg, task=features.name, counts=left_out)
    for block in blocks:
        digest.update(block.data)
    if features.fit == "all":
        for member in features.members:
            every, (block,) = matrix(catalog, [member])
            digest.update("\0".join(every).encode())
            digest.update(block.data)
    if features.scale == "none":
        whole = blocks[0] if len(blocks) == 1 else np.hstack(blocks)
        return ids, lambda _: whole
    statistics = scaling(catalog, features, split_id)
    out = np.empty((len(ids), sum(block.shape[1] for block in blocks)), np.float32)

    def inputs(repeat: int) -> NDArray[np.float32]:
        fitted = [one[0 if features.fit == "all" else repeat] for one in statistics]
        return fused(blocks, fitted, scale=features.scale, out=out)

    return ids, inputs


def _signal_inputs(
    warehouse: Warehouse,
    catalog: Catalog,
    record_ids: Sequence[str],
    params: Mapping[str, Setting],
    *,
    digest: hashlib._Hash,
    left_out: Counter[str],
) -> tuple[NDArray[np.object_], Callable[[int], NDArray[np.float32]]]:
    """Read signals once; the digest of each stands for its samples."""
    rows = catalog.table(
        "select record_id, rate_hz, signal_sha256 from records "
        "where record_id in (select unnest($ids)) order by record_id",
        {"ids": list(record_ids)},
    )
    digest.update(json.dumps(rows.to_pylist()).encode())
    rates = dict(zip(rows["record_id"].to_pylist(), rows["rate_hz"].to_pylist(), strict=True))
    ids, x, refused = signals(
        stream(warehouse, rates),
        rates,
        rate_hz=float(params["rate_hz"]),
        seconds=float(params["seconds"]),
    )
    left_out.update(refused)
    return ids, lambda _: x


def _folds(
    split: Sequence[Reshuffle], ids: NDArray[np.object_], *, digest: hashlib._Hash
) -> Iterable[Fold]:
    place = {record_id: i for i, record_id in enumerate(ids)}
    for one in split:
        sides = [
            np.array([place[i] for i in side if i in place], dtype=np.intp)
            for side in (one.train, one.test)
        ]
        for record_ids in (one.train, one.test):
            digest.update("\0".join([str(one.repeat), *record_ids, ""]).encode())
        yield Fold(one.repeat, *sides)


def check_reads(kind: type[Classifier], features: str) -> None:
    """Raise `UsageError` unless a classifier can be given a feature set."""
    if (kind.reads == "signal") != (features == SIGNAL):
        takes = f"the feature set {SIGNAL!r}" if kind.reads == "signal" else "vectors"
        msg = f"The classifier {kind.name!r} reads {takes}, not {features!r}."
        raise UsageError(msg)


def _check_classes(labels: NDArray[np.float64], fold: Fold, *, task: str, features: str) -> None:
    for side, rows in (("training", fold.train), ("test", fold.test)):
        positive = int(labels[rows].sum())
        if not 0 < positive < len(rows):
            msg = (
                f"The {side} part of reshuffle {fold.repeat} has {positive} positive and "
                f"{len(rows) - positive} negative records with features of {features!r} for task "
                f"{task!r}; both classes are needed."
            )
            counts = {"positive": positive, "negative": len(rows) - positive}
            raise NotEnoughDataError(
                msg, task=task, counts=counts, hint="Embed or label more records."
            )
