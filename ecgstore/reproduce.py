"""Reproduction: run a run again on the table versions it read, and compare every number.

What was stored is compared, never used: vectors, labels and splits are read as they were, the
scaling of a fused set and the classifiers are fitted anew. Nothing is written.
"""

from __future__ import annotations

import json
import math
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.compute as pc

from ecgstore import settings
from ecgstore.catalog import Catalog
from ecgstore.classifiers import classifiers
from ecgstore.errors import ErasedError
from ecgstore.folds import fit_fold
from ecgstore.predictions import only_run
from ecgstore.progress import Progress, Silent
from ecgstore.runs import fitted_scaling, prepare, stored_scaling
from ecgstore.splitting.split import reshuffles
from ecgstore.statistics.metrics import measure
from ecgstore.tasks import MEASUREMENT
from ecgstore.warehouse import Warehouse

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    import pyarrow as pa

    from ecgstore.classifiers import Classifier
    from ecgstore.features import FeatureSet
    from ecgstore.runs import Fold, Run
    from ecgstore.scaling import Statistics

__all__ = ["Again", "ReproduceResult", "reproduce"]

_TABLES = ("feature_sets", "labels", "norm_stats", "records", "splits")
"""The tables that make a run, besides ``embeddings`` or ``waveforms``, and what its task is of."""

_UNTOLD = "the processor is not stored and may be another"


@dataclass(frozen=True)
class Again:
    """One reshuffle of a run, as stored and as it came out now.

    Attributes:
        repeat: Number of the reshuffle.
        values: Per metric, the value stored and the value now.
        predictions: Test records of the reshuffle.
        differ: Those whose score differs in any bit, or was not stored, or is not made any more.
        largest: Largest difference between two scores of a record.
    """

    repeat: int
    values: Mapping[str, tuple[float, float]]
    predictions: int
    differ: int
    largest: float

    @property
    def identical(self) -> bool:
        """Whether every number is the same, to the last bit."""
        return not self.differ and all(stored == now for stored, now in self.values.values())


@dataclass(frozen=True)
class ReproduceResult:
    """What a `reproduce` call found.

    Attributes:
        run_id: The run.
        features: Name of its feature set.
        classifier: Name of its classifier.
        split_id: Its split.
        reshuffles: What was compared, by reshuffle.
        reasons: What is not as it was then, and so may make numbers differ.
    """

    run_id: str
    features: str
    classifier: str
    split_id: str
    reshuffles: tuple[Again, ...]
    reasons: tuple[str, ...] = ()

    @property
    def identical(self) -> bool:
        """Whether every metric and prediction is the same, to the last bit."""
        return all(one.identical for one in self.reshuffles)

    @property
    def rows(self) -> list[dict[str, object]]:
        """One row a reshuffle and metric; predictions are counted by reshuffle."""
        return [
            {
                "repeat": one.repeat,
                "metric": metric,
                "stored": stored,
                "now": now,
                "identical": stored == now,
                "predictions": one.predictions,
                "differ": one.differ,
                "largest_difference": one.largest,
            }
            for one in self.reshuffles
            for metric, (stored, now) in one.values.items()
        ]

    @property
    def summary(self) -> str:
        """The outcome in one sentence; where numbers differ, with what may explain it."""
        values = [pair for one in self.reshuffles for pair in one.values.values()]
        predictions = sum(one.predictions for one in self.reshuffles)
        if self.identical:
            return f"identical: {len(values)} values and {predictions} predictions."
        found = (
            f"differs in {sum(not one.identical for one in self.reshuffles)} of "
            f"{len(self.reshuffles)} reshuffles: {sum(a != b for a, b in values)} of "
            f"{len(values)} values, {sum(one.differ for one in self.reshuffles)} of {predictions} "
            f"predictions, by {max(one.largest for one in self.reshuffles):.2g} at most"
        )
        return "; ".join([found, *self.reasons, _UNTOLD]) + "."

    def __repr__(self) -> str:
        return f"ReproduceResult({self.run_id}: {self.summary.rstrip('.')})"

    def _repr_html_(self) -> str:
        from html import escape

        return f"<b>{self.run_id}</b> {escape(self.summary)}"


def reproduce(
    warehouse: Warehouse, run: str, *, progress: Progress | None = None
) -> ReproduceResult:
    """Run a run again on the table versions it read, and compare every number with the stored.

    Args:
        warehouse: Where the run's scores and predictions are; only read.
        run: Id of a run that was evaluated, or the beginning of one.
        progress: Told of every step.

    Raises:
        UnknownNameError: No run that was evaluated has this id.
        UsageError: Several have ids that begin so.
        ErasedError: A table can no longer be opened at the version the run read.
        NotEnoughDataError: Part of a reshuffle lacks a class.
    """
    progress = progress or Silent()
    scores = _stored_scores(warehouse, run)
    told = scores[-1]  # a run that was resumed read equal data at later versions too
    kind = classifiers.get(told["classifier"])
    params = json.loads(told["params"])
    library = params.pop("library", "?")
    tune = params.pop("tune", 0)
    params = {key: value for key, value in params.items() if key in kind.known_settings()}
    past = Warehouse(warehouse.root, at=json.loads(told["versions"]))
    relations = _opened(past, kind.reads, told["task"], told["run_id"])
    reasons: dict[str, None] = {}
    with Catalog(relations) as catalog:
        split = reshuffles(catalog, told["split_id"])
        again = prepare(
            past,
            catalog,
            told["features"],
            split,
            kind,
            params,
            task=told["task"],
            target=told["target"] or None,
            tune=tune,
            scaling=lambda *given: _fitted(*given, reasons=reasons),
            only={row["repeat"] for row in scores},
        )
        predictions = _stored_predictions(warehouse, told["run_id"])
        by_repeat: dict[int, list[dict[str, Any]]] = {}
        for row in scores:
            by_repeat.setdefault(row["repeat"], []).append(row)
        progress.start(len(again.folds) * kind(params).steps, "steps")
        compared = []
        for fold in again.folds:
            rows, before = by_repeat[fold.repeat], predictions.get(fold.repeat, {})
            with _as_then(kind, rows[0], reasons=reasons):
                compared.append(_again(again, fold, rows, before, step=progress.advance))
    if again.library != library:
        reasons[f"library: {again.library} now, {library} then"] = None
    elif again.run_id != told["run_id"] and not tune:
        reasons[f"the same inputs make run {again.run_id} now"] = None
    if settings.code_version() != told["code"]:
        reasons[f"ecgstore: {settings.code_version()} now, {told['code']} then"] = None
    return ReproduceResult(
        run_id=told["run_id"],
        features=told["features"],
        classifier=kind.name,
        split_id=told["split_id"],
        reshuffles=tuple(compared),
        reasons=tuple(reasons),
    )


def _stored_scores(warehouse: Warehouse, run: str) -> list[dict[str, Any]]:
    """Return the rows of ``scores`` of the run that a name stands for, oldest first."""
    rows = warehouse.table("scores").read().sort_by([("at", "ascending"), ("metric", "ascending")])
    known = sorted(set(rows["run_id"].to_pylist()))
    mine = pc.equal(rows["run_id"], only_run(run, known))
    chosen: list[dict[str, Any]] = rows.filter(mine).to_pylist()
    return chosen


def _stored_predictions(warehouse: Warehouse, run_id: str) -> dict[int, dict[str, float]]:
    """Return the stored score of each record, by reshuffle."""
    columns = ["repeat", "record_id", "score"]
    tested = (pc.field("run_id") == run_id) & (pc.field("split") == "test")
    rows = warehouse.table("predictions").read(columns, where=tested)
    found: dict[int, dict[str, float]] = {}
    for row in rows.to_pylist():
        found.setdefault(row["repeat"], {})[row["record_id"]] = row["score"]
    return found


def _opened(
    past: Warehouse, reads: str, task: str, run_id: str
) -> dict[str, tuple[list[Path], pa.Schema]]:
    """Return shards and columns of the tables that make a run, or say which were erased."""
    names = [*_TABLES, "waveforms" if reads == "signal" else "embeddings"]
    names += ["windows"] if reads == "windows" else []
    names += ["measurements"] if task.startswith(MEASUREMENT) else []
    relations, erased = {}, []
    for name in names:
        try:
            table = past.table(name)
            relations[name] = (table.files(), table.schema.arrow)
        except ErasedError as error:
            erased.append(error)
    if erased:
        msg = " ".join([f"Run {run_id!r} cannot be reproduced.", *(e.message for e in erased)])
        hint = "Its scores stay; score what is there now with: ecgstore evaluate"
        first = erased[0]
        raise ErasedError(
            msg, path=past.root, table=first.table, version=first.version, hint=hint
        ) from first
    return relations


@contextmanager
def _as_then(
    kind: type[Classifier], row: Mapping[str, Any], *, reasons: dict[str, None]
) -> Iterator[None]:
    """Fit as the machine that wrote a row of ``scores`` did, and note what cannot be the same."""
    params = json.loads(row["params"])
    machine = {key: params[key] for key in kind.machine() if key in params}
    with kind.as_on(machine):
        for key, now in kind.machine().items():
            if key not in machine:
                reasons[f"{key}: {now} now, not stored then"] = None
            elif machine[key] != now:
                reasons[f"{key}: {now} now, {machine[key]} then"] = None
        yield


def _again(
    run: Run,
    fold: Fold,
    rows: Sequence[Mapping[str, Any]],
    before: Mapping[str, float],
    *,
    step: Callable[[], None],
) -> Again:
    """Fit a reshuffle again and compare it with its rows of ``scores`` and its predictions."""
    params = {
        key: value for key, value in json.loads(rows[0]["params"]).items() if key in run.params
    }
    _, scores, _ = fit_fold(run, fold, step=step, params=params)
    now = measure(run.labels[fold.test], scores, run.target)
    values = {row["metric"]: (row["value"], now.get(row["metric"], math.nan)) for row in rows}
    if scores.ndim > 1:
        scores = scores.argmax(axis=1).astype(np.float64)
    made = dict(zip(run.record_ids[fold.test], scores.tolist(), strict=True))
    both = before.keys() & made.keys()
    differences = [abs(before[i] - made[i]) for i in both if before[i] != made[i]]
    alone = len(before.keys() ^ made.keys())
    return Again(
        fold.repeat,
        values,
        predictions=len(both) + alone,
        differ=len(differences) + alone,
        largest=max(differences, default=0.0),
    )


def _fitted(
    catalog: Catalog, features: FeatureSet, split_id: str, *, reasons: dict[str, None]
) -> list[dict[int, Statistics]]:
    """Fit the scaling anew, and note where it is not what ``norm_stats`` holds."""
    fitted = fitted_scaling(catalog, features, split_id)
    used = ("mn", "mx") if features.scale == "minmax" else ("mean", "std")
    other, total = 0, 0
    for mine, kept in zip(fitted, stored_scaling(catalog, features, split_id), strict=True):
        total += len(mine)
        other += sum(
            repeat not in kept
            or any(not np.array_equal(vars(one)[u], vars(kept[repeat])[u]) for u in used)
            for repeat, one in mine.items()
        )
    if other:
        reasons[f"{other} of {total} rows of norm_stats are not what fitting gives now"] = None
    return fitted
