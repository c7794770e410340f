"""Evaluation: how well each feature set separates the classes on records it was not fitted on."""

from __future__ import annotations

import json
import statistics
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pyarrow as pa

from ecgstore import settings
from ecgstore.catalog import Catalog
from ecgstore.errors import UsageError
from ecgstore.features import SIGNAL, feature_set
from ecgstore.feed import build
from ecgstore.leakage import Mark, cautions, datasets_of, marks, summary
from ecgstore.progress import Progress, Silent
from ecgstore.runs import (
    Run,
    check_reads,
    fit_fold,
    keep_predictions,
    pinned,
    prepare,
    repeats_in,
)
from ecgstore.schema import table_schema
from ecgstore.split import reshuffles
from ecgstore.train import classifiers, read_settings

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from ecgstore.warehouse import Warehouse

__all__ = ["METRICS", "EvaluateResult", "Score", "evaluate", "measure"]

METRICS = ("AUROC", "AUCPR")
"""Area under the receiver operating characteristic; average precision, the area under the
precision-recall curve as a sum of steps."""

_HEADS = ("features", "classifier", *METRICS, "pretraining")


@dataclass(frozen=True)
class Score:
    """How well one feature set did.

    Attributes:
        run_id: Id of the run, for ``scores`` and ``predictions``.
        features: Name of the feature set.
        classifier: Name of the classifier.
        records: Records used, of both parts.
        left_out: Records of the split that were not, by reason.
        values: Per metric, its value on each reshuffle; in a dry run, of those scored before.
        added: Reshuffles scored by this call; in a dry run, those that would be.
        marks: Of each model of the feature set and each dataset of the records, whether the model
            has seen it in pretraining; none where nothing was pretrained.
    """

    run_id: str
    features: str
    classifier: str
    records: int
    left_out: Mapping[str, int]
    values: Mapping[str, tuple[float, ...]]
    added: int
    marks: tuple[Mark, ...]

    @property
    def row(self) -> dict[str, object]:
        """The score as a flat row; the deviation is that of a sample (n - 1)."""
        row: dict[str, object] = {"features": self.features, "classifier": self.classifier}
        for metric in METRICS:
            values = self.values.get(metric, ())
            name = metric.lower()
            row[f"{name}_mean"] = statistics.fmean(values) if values else None
            row[f"{name}_std"] = statistics.stdev(values) if len(values) > 1 else None
        row["pretraining"] = summary(self.marks)
        row["n_repeats"] = len(self.values.get(METRICS[0], ()))
        row["records"] = self.records
        row["left_out"] = sum(self.left_out.values())
        row["added"] = self.added
        row["run_id"] = self.run_id
        return row


@dataclass(frozen=True)
class EvaluateResult:
    """What an `evaluate` call found; printed as a table.

    Attributes:
        split_id: The split.
        task: Its task.
        scores: One per feature set, in the order asked for, the baseline last.
        notes: What to mind when comparing them.
    """

    split_id: str
    task: str
    scores: tuple[Score, ...]
    notes: tuple[str, ...] = ()

    @property
    def rows(self) -> list[dict[str, object]]:
        """One row a feature set."""
        return [score.row for score in self.scores]

    def __repr__(self) -> str:
        best = max((s for s in self.scores if s.values), key=_mean_auroc, default=None)
        found = f", best AUROC {_mean_auroc(best):.3f} ({best.features})" if best else ""
        return f"EvaluateResult({self.task} over {self.split_id!r}: {len(self.scores)} sets{found})"

    def __str__(self) -> str:
        table = [(*_HEADS, "records"), *map(_cells, self.scores)]
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in table
        ]
        return "\n".join([*lines, *self.notes])

    def _repr_html_(self) -> str:
        from html import escape

        heads = "".join(f"<th>{head}</th>" for head in _HEADS)
        body = "".join(
            f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in _cells(score)[:-1])}</tr>"
            for score in self.scores
        )
        return f"<table><tr>{heads}</tr>{body}</table>"


def evaluate(
    warehouse: Warehouse,
    features: Sequence[str],
    split_id: str,
    *,
    classifier: str = "xgboost",
    baseline: str | None = None,
    params: Mapping[str, object] | None = None,
    dry_run: bool = False,
    progress: Progress | None = None,
) -> EvaluateResult:
    """Score feature sets on the test part of each reshuffle of a split.

    Everything is fitted on training records only. Predictions that are stored are used; missing
    ones are made, and stored, though not their classifiers. Each reshuffle is committed when it is
    done, so an interrupted call goes on where it was, and a second call changes nothing. Beside
    each score stands what is known of its models' pretraining; see `ecgstore.leakage`.

    Args:
        warehouse: Where features and labels are read and results are written.
        features: Feature sets; ``signal`` for a classifier that reads the ECG itself.
        split_id: Name of a split.
        classifier: ``xgboost``, ``logistic`` or ``resnet50``, on every feature set.
        baseline: A classifier on signals to score besides: ``resnet50``.
        params: Settings that differ from the defaults, as ``key`` for the classifier or
            ``resnet50.key`` for the baseline; text is converted.
        dry_run: Count and write nothing.
        progress: Told of every step.

    Raises:
        UnknownNameError: No such feature set, split or classifier.
        UsageError: A setting is unknown or cannot be used, or a classifier does not take the
            features.
        NotEnoughDataError: Part of a reshuffle lacks a class.
    """
    progress = progress or Silent()
    names = [features] if isinstance(features, str) else list(features)
    plan = dict.fromkeys((name, classifier) for name in names)
    if baseline is not None:
        plan[SIGNAL, baseline] = None
    if not plan:
        msg = "Nothing to evaluate: name a feature set or a baseline."
        raise UsageError(msg)
    kinds = {
        name: classifiers.get(name) for name in (classifier, *([baseline] if baseline else []))
    }
    chosen = dict(zip(kinds, read_settings(list(kinds.values()), params), strict=True))
    for name, kind in plan:
        check_reads(kinds[kind], name)
    past = pinned(warehouse, names, split_id, dry_run=dry_run)
    if not dry_run and any(name == SIGNAL for name, _ in plan):
        build(past, progress=progress)
    with Catalog(past.relations()) as catalog:
        split = reshuffles(catalog, split_id)
        steps = {name: kind(chosen[name]).steps for name, kind in kinds.items()}
        if not dry_run:
            progress.start(sum(steps[name] for _, name in plan) * len(split), "steps")
        scores: dict[str, Score] = {}
        for name, kind in plan:
            run = prepare(past, catalog, name, split, kinds[kind], chosen[kind])
            if run.run_id not in scores:
                scores[run.run_id] = _score(
                    warehouse, catalog, run, past.versions(), dry_run=dry_run, progress=progress
                )
    notes = _notes(list(scores.values()))
    for note in notes:
        progress.note(note)
    return EvaluateResult(split_id, split[0].task, tuple(scores.values()), notes)


def measure(labels: NDArray[np.float64], scores: NDArray[np.float64]) -> dict[str, float]:
    """Return every metric of `METRICS` for labels 0 and 1, both of which occur, and scores."""
    from sklearn.metrics import average_precision_score, roc_auc_score

    return {
        "AUROC": float(roc_auc_score(labels, scores)),
        "AUCPR": float(average_precision_score(labels, scores)),
    }


def _score(
    warehouse: Warehouse,
    catalog: Catalog,
    run: Run,
    versions: Mapping[str, int],
    *,
    dry_run: bool,
    progress: Progress,
) -> Score:
    known = _stored_scores(catalog, run)
    predicted = repeats_in(catalog, "predictions", run)
    todo = [fold for fold in run.folds if fold.repeat not in known]
    for fold in [] if dry_run else run.folds:
        steps = run.kind(run.params).steps
        if fold.repeat in known:
            progress.advance(steps)
            continue
        command = f"evaluate {run.run_id}"
        seconds = None
        if fold.repeat in predicted:
            scores = _stored_predictions(catalog, run, fold.repeat)
            progress.advance(steps)
        else:
            _, scores, seconds = fit_fold(run, fold, step=progress.advance)
            keep_predictions(warehouse, run, fold, scores, command=command)
        known[fold.repeat] = measure(run.labels[fold.test], scores)
        rows = _rows(run, fold.repeat, known[fold.repeat], versions, seconds)
        warehouse.append("scores", rows, command=command)
    return Score(
        run_id=run.run_id,
        features=run.features,
        classifier=run.kind.name,
        records=len(run.record_ids),
        left_out=run.left_out,
        values={m: tuple(known[repeat][m] for repeat in sorted(known)) for m in METRICS},
        added=len(todo),
        marks=_marks(catalog, run),
    )


def _marks(catalog: Catalog, run: Run) -> tuple[Mark, ...]:
    if run.features == SIGNAL:
        return ()
    models = [member.model for member in feature_set(catalog, run.features).members]
    return marks(catalog, models, datasets_of(catalog, run.record_ids.tolist()))


def _stored_scores(catalog: Catalog, run: Run) -> dict[int, dict[str, float]]:
    rows = catalog.table(
        "select repeat, metric, value from scores where run_id = $run_id", {"run_id": run.run_id}
    )
    known: dict[int, dict[str, float]] = {}
    for row in rows.to_pylist():
        known.setdefault(row["repeat"], {})[row["metric"]] = row["value"]
    return known


def _stored_predictions(catalog: Catalog, run: Run, repeat: int) -> NDArray[np.float64]:
    """Return the stored scores of a reshuffle's test records, in the order of its fold."""
    rows = catalog.table(
        "select score from predictions where run_id = $run_id and repeat = $repeat "
        "order by record_id",
        {"run_id": run.run_id, "repeat": repeat},
    )
    scores: NDArray[np.float64] = rows["score"].to_numpy()
    return scores


def _rows(
    run: Run,
    repeat: int,
    values: Mapping[str, float],
    versions: Mapping[str, int],
    seconds: float | None,
) -> pa.Table:
    machine = {} if seconds is None else run.kind.machine()
    shared = {
        "run_id": run.run_id,
        "repeat": repeat,
        "at": datetime.now(UTC),
        "versions": json.dumps(versions),
        "features": run.features,
        "task": run.task,
        "split_id": run.split_id,
        "classifier": run.kind.name,
        "params": json.dumps({**run.params, "library": run.library, **machine}),
        "seconds": seconds,
        "code": settings.code_version(),
    }
    rows = [{**shared, "metric": metric, "value": value} for metric, value in values.items()]
    return pa.Table.from_pylist(rows, schema=table_schema("scores").arrow)


def _notes(scores: Sequence[Score]) -> tuple[str, ...]:
    notes = [
        f"{score.features}: {sum(score.left_out.values())} records of the split left out ("
        + ", ".join(f"{count} {reason}" for reason, count in score.left_out.items())
        + ")."
        for score in scores
        if score.left_out
    ]
    if len({score.records for score in scores}) > 1:
        notes.append("The feature sets were scored on different records; compare with care.")
    every = dict.fromkeys(mark for score in scores for mark in score.marks)
    return (*notes, *cautions(every))


def _mean_auroc(score: Score) -> float:
    return statistics.fmean(score.values["AUROC"])


def _cells(score: Score) -> tuple[str, ...]:
    row = score.row
    metrics = []
    for metric in METRICS:
        mean, std = row[f"{metric.lower()}_mean"], row[f"{metric.lower()}_std"]
        spread = f" ± {std:.3f}" if isinstance(std, float) else ""
        metrics.append(f"{mean:.3f}{spread}" if isinstance(mean, float) else "-")
    return (score.features, score.classifier, *metrics, summary(score.marks), str(score.records))
