"""Training: fit a classifier on the training part of each reshuffle and keep what it learned."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pyarrow as pa

from ecgstore.catalog import Catalog
from ecgstore.classifiers import Classifier, Logistic, Setting, XGBoost
from ecgstore.errors import UnknownNameError, UsageError
from ecgstore.feed import build
from ecgstore.progress import Progress, Silent
from ecgstore.registry import Registry
from ecgstore.runs import fit_fold, keep_predictions, pinned, prepare, repeats_in
from ecgstore.schema import table_schema
from ecgstore.split import reshuffles
from ecgstore.supervised import ResNet50

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ecgstore.warehouse import Warehouse

__all__ = ["TrainResult", "classifiers", "load_classifier", "read_settings", "train"]

classifiers: Registry[type[Classifier]] = Registry("classifier")
"""Every classifier by name."""
for _kind in (XGBoost, Logistic, ResNet50):
    classifiers.add(_kind.name, _kind)


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
        classifier: ``xgboost``, ``logistic`` or ``resnet50``.
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
        run = prepare(past, catalog, features, reshuffles(catalog, split_id), kind, chosen)
        done = repeats_in(catalog, "classifiers", run) & repeats_in(catalog, "predictions", run)
    todo = [fold for fold in run.folds if fold.repeat not in done]
    if not dry_run:
        progress.start(len(todo) * kind(chosen).steps, "steps")
        for fold in todo:
            model, scores, _ = fit_fold(run, fold, step=progress.advance)
            row = {
                "run_id": run.run_id,
                "repeat": fold.repeat,
                "classifier": kind.name,
                "format": kind.format,
                "model": model.save(),
            }
            rows = pa.Table.from_pylist([row], schema=table_schema("classifiers").arrow)
            warehouse.append("classifiers", rows, command=f"train {run.run_id}")
            keep_predictions(warehouse, run, fold, scores, command=f"train {run.run_id}")
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
    """
    query = "select * from classifiers where run_id = $run_id and repeat = $repeat"
    rows = catalog.table(query, {"run_id": run_id, "repeat": repeat}).to_pylist()
    if not rows:
        known = catalog.table("select run_id || '/' || repeat as name from classifiers")
        name = f"{run_id}/{repeat}"
        raise UnknownNameError(name, kind="trained classifier", known=known["name"].to_pylist())
    return classifiers.get(rows[0]["classifier"]).load(rows[0]["model"])


def read_settings(
    kinds: Sequence[type[Classifier]], given: Mapping[str, object] | None
) -> list[dict[str, Setting]]:
    """Return the settings of each classifier in use.

    Args:
        kinds: The classifiers; the first is meant by a bare key.
        given: Values by ``key`` or ``classifier.key``; text is converted to the default's type.

    Raises:
        UsageError: An unknown key, or a value that cannot be converted.
    """
    read = {kind.name: dict(kind.defaults) for kind in kinds}
    for name, value in (given or {}).items():
        owner, _, key = name.rpartition(".")
        owner = owner or kinds[0].name
        if owner not in read or key not in read[owner]:
            known = ", ".join(
                key if kind is kinds[0] else f"{kind.name}.{key}"
                for kind in dict.fromkeys(kinds)
                for key in kind.defaults
            )
            msg = f"Unknown setting {name!r}; known: {known}."
            raise UsageError(msg)
        read[owner][key] = _converted(name, value, like=read[owner][key])
    return [read[kind.name] for kind in kinds]


def _converted(name: str, value: object, *, like: Setting) -> Setting:
    try:
        return type(like)(str(value))
    except ValueError as error:
        what = "a whole number" if isinstance(like, int) else "a number"
        msg = f"The setting {name!r} is {str(value)!r}; {what} was expected."
        raise UsageError(msg) from error
