"""Prediction: scores of any records by the classifiers that a run kept.

A run keeps a classifier for each reshuffle. The score of a record is the mean over those that did
not learn from any record of its patient; a record whose patient all of them learned from has none.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ecgstore.catalog import Catalog
from ecgstore.classifiers import classifiers
from ecgstore.errors import NotEnoughDataError, UsageError
from ecgstore.features import CONCATENATION, SIGNAL, FeatureSet, feature_set, matrix
from ecgstore.feed import stream
from ecgstore.fuse import stored_statistics
from ecgstore.predictions import only_run
from ecgstore.progress import Progress, Silent
from ecgstore.runs import under
from ecgstore.scaling import fused
from ecgstore.sequences import window_sequences
from ecgstore.splitting.split import EVERYTHING
from ecgstore.stored_fits import load_fitted
from ecgstore.supervised import signals
from ecgstore.terms import terms_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from ecgstore.tasks import Target
    from ecgstore.warehouse import Warehouse

__all__ = ["PredictResult", "predict"]

_LEARNED = """
    with people as (
        select record_id, coalesce(patient_id, record_id) as patient
        from records
    ),
    learned as (
        select distinct repeat, patient
        from splits
        join people using (record_id)
        where split_id = $split and split = 'train'
    )
    select repeat, record_id
    from learned
    join people using (patient)
"""
"""Every record of each patient that a reshuffle's training part has a record of."""


@dataclass(frozen=True, eq=False)
class PredictResult:
    """Scores of records by the classifiers of a run.

    Attributes:
        run_id: The run.
        features: Name of its feature set.
        task: Its task.
        target: What a score says: a probability, a class, a value or a risk.
        record_ids: Records scored, sorted.
        scores: ``(records,)`` or ``(records, classes)`` mean scores; NaN where no classifier is
            free of the patient.
        classifiers: ``(records,)`` how many classifiers the mean is of.
        learned: Records whose patient every classifier learned from: they have no score.
        left_out: Records without the vectors that are needed.
    """

    run_id: str
    features: str
    task: str
    target: Target
    record_ids: tuple[str, ...]
    scores: NDArray[np.float64]
    classifiers: NDArray[np.intp]
    learned: int
    left_out: int

    @property
    def rows(self) -> list[dict[str, object]]:
        """One row a record; ``score`` is None where no classifier is free of the patient."""
        classes = self.scores.shape[1] if self.scores.ndim > 1 else 0
        rows = []
        for record_id, score, n in zip(
            self.record_ids, self.scores, self.classifiers.tolist(), strict=True
        ):
            row: dict[str, object] = {"record_id": record_id, "run_id": self.run_id}
            if classes:
                row["score"] = float(np.argmax(score)) if n else None
                row |= {f"class_{k}": float(score[k]) if n else None for k in range(classes)}
            else:
                row["score"] = float(score) if n else None
            rows.append({**row, "classifiers": n})
        return rows

    @property
    def notes(self) -> tuple[str, ...]:
        """What must be known to read the scores."""
        notes = []
        if self.learned:
            notes.append(
                f"{self.learned} records have no score: every classifier of the run learned from "
                "their patients."
            )
        if self.left_out:
            notes.append(f"{self.left_out} records lack the vectors of {self.features!r}.")
        return tuple(notes)

    def __repr__(self) -> str:
        return f"PredictResult({self.task} by {self.run_id}: {len(self.record_ids)} records)"

    def _repr_html_(self) -> str:
        return f"{self.task} by <b>{self.run_id}</b>: {len(self.record_ids)} records scored"


def predict(
    warehouse: Warehouse,
    run: str,
    *,
    where: str | None = None,
    progress: Progress | None = None,
) -> PredictResult:
    """Score records with the classifiers that `ecgstore.train.train` kept for a run.

    Args:
        warehouse: Where classifiers and vectors are read; nothing is written.
        run: Id of a trained run, or the beginning of it.
        where: SQL predicate over ``records``; default all.
        progress: Told of every classifier.

    Raises:
        UnknownNameError: No run that was trained has this id.
        UsageError: Several runs begin so.
        QueryError: ``where`` is not a predicate over ``records``.
        NotEnoughDataError: No record has the vectors.
    """
    progress = progress or Silent()
    with Catalog(warehouse.relations()) as catalog:
        run_id, told, repeats = _trained(catalog, run)
        terms = terms_of(catalog, told["split_id"])
        wanted: list[str] = catalog.table(
            f"select record_id from records where ({where or 'true'}\n) order by record_id"
        )["record_id"].to_pylist()
        if told["features"] == SIGNAL:
            features = FeatureSet(SIGNAL, ())
            ids, blocks = _signals(warehouse, catalog, wanted, json.loads(told["params"] or "{}"))
        else:
            features = under(terms.protocol, feature_set(catalog, told["features"]))
            lacking: Literal["drop", "keep"] = "keep" if features.missing == "keep" else "drop"
            if classifiers.get(told["classifier"]).reads == "windows":
                ids, blocks = window_sequences(catalog, features, wanted)
            else:
                ids, blocks = matrix(catalog, features.members, wanted, lacking=lacking)
        if not len(ids):
            msg = f"None of {len(wanted)} records has what {features.name!r} needs."
            raise NotEnoughDataError(msg, task=told["task"], hint="Embed them first.")
        free = _free(catalog, terms.split_id, repeats, ids)
        progress.start(len(repeats), "classifiers")
        parts = []
        for repeat, mine in zip(repeats, free, strict=True):
            fitted = load_fitted(catalog, run_id, repeat)
            found = fitted.predict(_inputs(catalog, features, terms.split_id, repeat, blocks))
            parts.append(np.where(mine.reshape(-1, *[1] * (found.ndim - 1)), found, np.nan))
            progress.advance()
    n = free.sum(axis=0)
    scores = np.nansum(parts, axis=0)
    scores[n == 0] = np.nan
    scores /= np.maximum(n, 1).reshape(-1, *[1] * (scores.ndim - 1))
    return PredictResult(
        run_id=run_id,
        features=features.name,
        task=told["task"],
        target=told["target"] or "binary",
        record_ids=tuple(ids),
        scores=scores,
        classifiers=n,
        learned=int((n == 0).sum()),
        left_out=len(wanted) - len(ids),
    )


def _trained(catalog: Catalog, run: str) -> tuple[str, dict[str, Any], list[int]]:
    """Return the id of a trained run, what is written beside its classifiers, and its repeats."""
    rows = catalog.table("select distinct run_id from classifiers order by run_id")
    run_id = only_run(run, rows["run_id"].to_pylist(), kind="trained run")
    told = catalog.table(
        "select repeat, features, classifier, task, target, split_id, params from classifiers "
        "where run_id = $run_id order by repeat",
        {"run_id": run_id},
    ).to_pylist()
    if told[0]["features"] is None:
        msg = f"Run {run_id!r} was trained before runs said what they read."
        raise UsageError(msg, hint="Train it again: ecgstore train --features F --split NAME")
    return run_id, told[0], [row["repeat"] for row in told]


def _signals(
    warehouse: Warehouse, catalog: Catalog, wanted: Sequence[str], params: Mapping[str, Any]
) -> tuple[NDArray[np.object_], list[NDArray[np.float32]]]:
    rows = catalog.table(
        "select record_id, rate_hz from records where record_id in (select unnest($ids))",
        {"ids": list(wanted)},
    )
    rates = dict(zip(rows["record_id"].to_pylist(), rows["rate_hz"].to_pylist(), strict=True))
    ids, x, _ = signals(
        stream(warehouse, rates),
        rates,
        rate_hz=float(params["rate_hz"]),
        seconds=float(params["seconds"]),
    )
    return ids, [x]


def _inputs(
    catalog: Catalog,
    features: FeatureSet,
    split_id: str,
    repeat: int,
    blocks: Sequence[NDArray[np.float32]],
) -> list[NDArray[np.float32]]:
    """Return the input of a repeat's classifier, scaled as it was when that was fitted."""
    if features.name == SIGNAL or features.method != CONCATENATION:
        return list(blocks)
    if features.scale == "none":
        return [blocks[0] if len(blocks) == 1 else np.hstack(blocks)]
    every = features.fit == "all"
    key = EVERYTHING if every else split_id
    fitted = [
        stored_statistics(catalog, member, key)[0 if every else repeat]
        for member in features.members
    ]
    return [fused(blocks, fitted, scale=features.scale)]


def _free(
    catalog: Catalog, split_id: str, repeats: Sequence[int], ids: NDArray[np.object_]
) -> NDArray[np.bool_]:
    """Tell ``(repeats, records)`` whether no record of the patient was in the training part."""
    rows = catalog.table(_LEARNED, {"split": split_id})
    learned = rows["repeat"].to_numpy()
    names = rows["record_id"]
    free = np.ones((len(repeats), len(ids)), dtype=bool)
    here = pa.array(ids, pa.string())
    for place, repeat in enumerate(repeats):
        mine = names.filter(pa.array(learned == repeat))
        free[place] = ~pc.is_in(here, mine).to_numpy(zero_copy_only=False)
    return free
