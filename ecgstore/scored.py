"""What an evaluation found: one score a task, feature set and classifier, as rows and as a page."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from ecgstore.leakage import Mark, summary
from ecgstore.statistics.metrics import reported

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ecgstore.statistics.interval import Interval
    from ecgstore.tasks import Target

__all__ = ["EvaluateResult", "Score", "column_of"]

MACRO = "macro"
"""Stands in place of a task where a row is the mean over all tasks of the call."""


def column_of(metric: str) -> str:
    """Return the name of a metric as a column: ``macro AUROC`` is ``macro_auroc``."""
    return metric.lower().replace(" ", "_").replace("-", "_")


@dataclass(frozen=True)
class Score:
    """How well one feature set did at one task.

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
        task: The task.
        target: What its labels say.
        split_id: The split.
        protocol: Protocol of the split: ``paper``, ``sound`` or empty.
        intervals: Per metric, the interval of its mean over patients, where it was computed.
        least: Patients of the smallest class; None where labels are not classes.
    """

    run_id: str
    features: str
    classifier: str
    records: int
    left_out: Mapping[str, int]
    values: Mapping[str, tuple[float, ...]]
    added: int
    marks: tuple[Mark, ...]
    task: str = ""
    target: Target = "binary"
    split_id: str = ""
    protocol: str = ""
    intervals: Mapping[str, Interval] = field(default_factory=dict, hash=False)
    least: int | None = None

    @property
    def metrics(self) -> tuple[str, ...]:
        """The metrics that are reported for the target, in order."""
        return tuple(metric.name for metric in reported(self.target))

    @property
    def row(self) -> dict[str, object]:
        """The score as a flat row; the deviation is that of a sample (n - 1)."""
        row: dict[str, object] = {"features": self.features, "classifier": self.classifier}
        for metric in self.metrics:
            name = column_of(metric)
            row |= _spread(name, self.values.get(metric, ()))
            if metric in self.intervals:
                found = self.intervals[metric]
                row[f"{name}_low"], row[f"{name}_high"] = _finite(found.low), _finite(found.high)
        row["pretraining"] = summary(self.marks)
        row["n_repeats"] = len(self.values.get(self.metrics[0], ()))
        row["records"] = self.records
        row["left_out"] = sum(self.left_out.values())
        row["added"] = self.added
        row["run_id"] = self.run_id
        return row


@dataclass(frozen=True)
class EvaluateResult:
    """What an `evaluate` call found; printed as a table.

    Attributes:
        split_id: The split; of several, the last.
        task: The task, or several with commas.
        scores: One per protocol, task and feature set, in the order asked for, the baseline last.
        notes: What to mind when comparing them.
    """

    split_id: str
    task: str
    scores: tuple[Score, ...]
    notes: tuple[str, ...] = ()

    @property
    def rows(self) -> list[dict[str, object]]:
        """One row a score; with several tasks, then their mean for each feature set.

        Where there are several protocols or tasks a row says which it is of.
        """
        protocols = {score.protocol for score in self.scores}
        rows = []
        for score in self.scores:
            told: dict[str, object] = {}
            if len(protocols) > 1:
                told["protocol"] = score.protocol
            if len(self.tasks) > 1:
                told["task"] = score.task
            rows.append(told | score.row)
        rows += self._macro_rows()
        columns = dict.fromkeys(name for row in rows for name in row)
        return [{name: row.get(name) for name in columns} for row in rows]

    @property
    def tasks(self) -> tuple[str, ...]:
        """The tasks that were scored."""
        return tuple(dict.fromkeys(score.task for score in self.scores))

    def _macro_rows(self) -> list[dict[str, object]]:
        """Return the mean over tasks for each feature set, deviation over the reshuffles."""
        alike: dict[tuple[str, str, str, Target], list[Score]] = {}
        for score in self.scores:
            key = (score.protocol, score.features, score.classifier, score.target)
            alike.setdefault(key, []).append(score)
        protocols = {score.protocol for score in self.scores}
        rows = []
        for (protocol, features, classifier, _), scores in alike.items():
            if len(scores) < 2:
                continue
            row: dict[str, object] = {"protocol": protocol} if len(protocols) > 1 else {}
            row |= {"task": MACRO, "features": features, "classifier": classifier}
            for metric in scores[0].metrics:
                values = [score.values.get(metric, ()) for score in scores]
                whole = len({len(found) for found in values}) == 1
                means = np.mean(values, axis=0).tolist() if whole and values[0] else ()
                row |= _spread(column_of(metric), means)
            row["tasks"] = len(scores)
            rows.append(row)
        return rows

    def __repr__(self) -> str:
        best = max((s for s in self.scores if s.values), key=_first, default=None)
        found = ""
        if best is not None and best.values[best.metrics[0]]:
            found = f", best {best.metrics[0]} {_first(best):.3f} ({best.features})"
        return f"EvaluateResult({self.task} over {self.split_id!r}: {len(self.scores)} sets{found})"

    def __str__(self) -> str:
        table = [(*self._heads, "records"), *map(self._cells, self.scores)]
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in table
        ]
        return "\n".join([*lines, *self.notes])

    def _repr_html_(self) -> str:
        from html import escape

        heads = "".join(f"<th>{escape(head)}</th>" for head in self._heads)
        body = "".join(
            f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in self._cells(score)[:-1])}</tr>"
            for score in self.scores
        )
        return f"<table><tr>{heads}</tr>{body}</table>"

    @property
    def _metrics(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(name for score in self.scores for name in score.metrics))

    @property
    def _told(self) -> tuple[str, ...]:
        """What of the protocol and the task differs between scores."""
        names = ("protocol", "task")
        return tuple(n for n in names if len({getattr(s, n) for s in self.scores}) > 1)

    @property
    def _heads(self) -> tuple[str, ...]:
        return (*self._told, "features", "classifier", *self._metrics, "pretraining")

    def _cells(self, score: Score) -> tuple[str, ...]:
        told = [str(getattr(score, name)) for name in self._told]
        figures = []
        for metric in self._metrics:
            values = score.values.get(metric, ())
            if not values:
                figures.append("-")
            else:
                spread = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
                found = score.intervals.get(metric)
                ends = f" [{found.low:.3f}, {found.high:.3f}]" if found and found.told else ""
                figures.append(f"{statistics.fmean(values):.3f}{spread}{ends}")
        last = (summary(score.marks), str(score.records))
        return (*told, score.features, score.classifier, *figures, *last)


def _spread(name: str, values: Sequence[float]) -> dict[str, object]:
    return {
        f"{name}_mean": statistics.fmean(values) if values else None,
        f"{name}_std": statistics.stdev(values) if len(values) > 1 else None,
    }


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None


def _first(score: Score) -> float:
    values = score.values.get(score.metrics[0], ())
    return statistics.fmean(values) if values else -np.inf
