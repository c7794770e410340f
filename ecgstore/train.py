"""Training: fit a classifier on the training part of each reshuffle and keep what it learned."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ecgstore.catalog import Catalog
from ecgstore.classifiers import Classifier, classifiers, read_settings
from ecgstore.errors import UsageError
from ecgstore.feed import build
from ecgstore.folds import fit_fold
from ecgstore.progress import Progress, Silent
from ecgstore.runs import pinned, prepare
from ecgstore.splitting.split import reshuffles
from ecgstore.stored_fits import (
    keep_fitted,
    keep_predictions,
    keep_vectors,
    load_fitted,
    repeats_in,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ecgstore.tasks import Target
    from ecgstore.warehouse import Warehouse

__all__ = ["TrainResult", "classifiers", "load_classifier", "read_settings", "train"]


@dataclass(frozen=True)
class TrainResult:
    """What a `train` call did.

    Attributes:
        run_id: Id of the run, for ``predictions`` and ``classifiers``.
        features: Name of the feature set.
        classifier: Name of the classifier.
        split_id: The split.
        records: Records used.
        left_out: Records of the split that were not, by reason.
        repeats: Reshuffles of the split.
        fitted: Those fitted now; in a dry run, those that would be.
        seconds: Time taken.
    """

    run_id: str
    features: str
    classifier: str
    split_id: str
    records: int
    left_out: Mapping[str, int] = field(default_factory=dict)
    repeats: int = 0
    fitted: int = 0
    seconds: float = 0.0

    @property
    def rows(self) -> list[dict[str, object]]:
        """The result as one row."""
        return [{**vars(self), "seconds": round(self.seconds, 3)}]

    def __repr__(self) -> str:
        return (
            f"TrainResult({self.run_id}: {self.classifier} on {self.features}, "
            f"{self.fitted} of {self.repeats} reshuffles fitted)"
        )

    def _repr_html_(self) -> str:
        return (
            f"<b>{self.classifier}</b> on <b>{self.features}</b>: {self.fitted} of "
            f"{self.repeats} reshuffles fitted (run {self.run_id})"
        )


def train(
    warehouse: Warehouse,
    features: str,
    split_id: str,
    *,
    classifier: str = "xgboost",
    task: str | None = None,
    target: Target | None = None,
    params: Mapping[str, object] | None = None,
    dry_run: bool = False,
    progress: Progress | None = None,
) -> TrainResult:
    """Fit a classifier for each reshuffle; keep it and its scores of the test records.

    Each reshuffle is committed when it is done, so an interrupted call goes on where it was. A
    run that is complete is left as it is.

    Args:
        warehouse: Where features and labels are read and results are written.
        features: A feature set, or ``signal`` for a classifier that reads the ECG itself.
        split_id: Name of a split.
        classifier: Name of a classifier.
        task: One of the split's tasks; default its only one.
        target: What the labels say; default what the split was drawn for, or they look like.
        params: Settings that differ from the classifier's defaults; text is converted.
        dry_run: Count and write nothing.
        progress: Told of every step.

    Raises:
        UnknownNameError: No such feature set, split or classifier.
        UsageError: A setting is unknown or cannot be used, or the classifier does not take the
            features.
        NotEnoughDataError: Part of a reshuffle lacks a class.
    """
    began = time.perf_counter()
    progress = progress or Silent()
    kind = classifiers.get(classifier)
    (chosen,) = read_settings([kind], params)
    past = pinned(warehouse, [features], split_id, dry_run=dry_run)
    if not dry_run and kind.reads == "signal":
        build(past, progress=progress)
    with Catalog(past.relations()) as catalog:
        run = prepare(
            past,
            catalog,
            features,
            reshuffles(catalog, split_id),
            kind,
            chosen,
            task=task,
            target=target,
        )
        done = repeats_in(catalog, "classifiers", run) & repeats_in(
            catalog, "predictions", run, split="test"
        )
    todo = [fold for fold in run.folds if fold.repeat not in done]
    if not dry_run and todo:
        command = f"train {run.run_id}"
        progress.start(len(todo) * run.plan.steps(len(run.blocks(todo[0].repeat))), "steps")
        for fold in todo:
            fitted, scores, _ = fit_fold(run, fold, step=progress.advance)
            keep_fitted(warehouse, run, fold, fitted, command=command)
            if fitted.joins_vectors:
                vectors = fitted.join(run.blocks(fold.repeat))
                keep_vectors(warehouse, run, fold, vectors, command=command)
            keep_predictions(warehouse, run, fold, {"test": scores}, command=command)
    return TrainResult(
        run_id=run.run_id,
        features=features,
        classifier=kind.name,
        split_id=split_id,
        records=len(run.record_ids),
        left_out=run.left_out,
        repeats=len(run.folds),
        fitted=len(todo),
        seconds=time.perf_counter() - began,
    )


def load_classifier(catalog: Catalog, run_id: str, repeat: int) -> Classifier:
    """Return the classifier that `train` kept for a reshuffle of a run.

    Raises:
        UnknownNameError: None was kept.
        UsageError: The run's fusion scores by itself, or has a classifier for each member.
    """
    fitted = load_fitted(catalog, run_id, repeat)
    if len(fitted.classifiers) != 1:
        msg = f"Run {run_id!r} has no classifier that scores alone; its fusion does."
        raise UsageError(msg)
    return fitted.classifiers[0]
