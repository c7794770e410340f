"""For whom a run works: its metric in each group of records, and whether groups differ.

A group is a value of any SQL expression over ``records``. Groups that are too small for a figure
are listed without one, so nobody reads chance as a difference, or misses who was not there.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from ecgstore.catalog import Catalog
from ecgstore.errors import NotEnoughDataError, UnknownNameError, UsageError
from ecgstore.laboratory.groups import groups_of, shut
from ecgstore.laboratory.samples import samples_of
from ecgstore.predictions import predictions_of
from ecgstore.statistics.bootstrap import bootstrap
from ecgstore.statistics.heterogeneity import Heterogeneity, covariance_between, heterogeneity
from ecgstore.statistics.metrics import METRICS, reported
from ecgstore.statistics.multiple import adjusted
from ecgstore.statistics.operating import threshold_for_sensitivity

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from ecgstore.predictions import Predictions
    from ecgstore.statistics.bootstrap import Sample
    from ecgstore.statistics.interval import Interval
    from ecgstore.statistics.metrics import Metric
    from ecgstore.tasks import Target
    from ecgstore.warehouse import Warehouse

    Counts = NDArray[np.integer[Any]]
    Statistic = Callable[[Counts], NDArray[np.float64]]

__all__ = ["GroupTest", "SubgroupsResult", "subgroups"]

_SENSITIVITY = 0.95
_RATES = ("sensitivity", "specificity")


@dataclass(frozen=True)
class GroupTest:
    """Whether a metric differs between the groups of one expression.

    Attributes:
        by: The expression.
        metric: Name of the metric.
        groups: The groups compared: those that have a figure.
        found: Cochran's Q and what follows from it, or None where it cannot be told.
        p_adjusted: Its p after Holm (1979) over all expressions asked for at once.
        reason: Why it cannot be told; empty where it can.
        sentence: What it comes to.
    """

    by: str
    metric: str
    groups: tuple[str, ...]
    found: Heterogeneity | None
    p_adjusted: float | None
    reason: str
    sentence: str


@dataclass(frozen=True)
class SubgroupsResult:
    """A run's figures by group.

    Attributes:
        run_id: The run.
        task: Its task.
        rows: One row an expression, group and metric; None where there is no figure, with the
            ``reason``. First comes the row of all records.
        tests: One an expression and metric.
        notes: What to mind.
    """

    run_id: str
    task: str
    rows: list[dict[str, object]]
    tests: tuple[GroupTest, ...]
    notes: tuple[str, ...] = ()

    @property
    def sentences(self) -> tuple[str, ...]:
        """What the tests come to, and what to mind."""
        return (*(test.sentence for test in self.tests), *self.notes)

    def __repr__(self) -> str:
        by = len({test.by for test in self.tests})
        return f"SubgroupsResult({self.run_id}, {self.task}: {len(self.rows) - 1} groups by {by})"

    def _repr_html_(self) -> str:
        from html import escape

        lines = "".join(f"<li>{escape(one)}</li>" for one in self.sentences)
        return f"<b>{escape(self.task)}</b> by group<ul>{lines}</ul>"


@dataclass(frozen=True, eq=False)
class _Size:
    """How much a group holds; `positives` counts events of survival, None where nothing is one."""

    records: int
    patients: int
    positives: int | None
    classes: NDArray[np.intp]


def subgroups(
    warehouse: Warehouse,
    run: str,
    by: Sequence[str],
    *,
    metrics: Sequence[str] | None = None,
    least: int = 10,
    resamples: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> SubgroupsResult:
    """Tell how well a run does in each group of its test records.

    A figure is the mean over the reshuffles in which the group defines it; its interval is BCa over
    patients, drawn for all groups together. Whether groups differ is Cochran's Q with the bootstrap
    covariance of those figures as weights, so a patient may have records in several groups.

    Args:
        warehouse: Where predictions and records are read; nothing is written.
        run: Id of a run that was evaluated, or the beginning of one.
        by: SQL expressions over ``records``, such as ``sex``, ``age >= 65`` or ``device``.
        metrics: Names of metrics; default the first that is reported for such a target.
        least: Positive and negative records (of several classes: records of two classes; of
            numbers: half the records) a group needs for a figure, and half the patients.
        resamples: Bootstrap resamples.
        seed: Seed of the draws.
        level: Confidence level.

    Raises:
        UnknownNameError: No such run or metric.
        UsageError: An expression is no SQL over ``records``, or has too many values.
    """
    asked = [by] if isinstance(by, str) else list(dict.fromkeys(by))
    if not asked:
        msg = "No groups were asked for."
        raise UsageError(msg, hint='Name an expression, such as --by sex or --by "age >= 65".')
    with Catalog(warehouse.relations()) as catalog:
        predictions = predictions_of(catalog, run)
        chosen = _metrics(metrics, predictions.target)
        shut(catalog)
        groups = {one: groups_of(catalog, one, predictions.record_ids) for one in asked}
    tested = np.zeros(len(predictions.record_ids), dtype=bool)
    for part in predictions.parts:
        tested[part.test] = True
    limits = _thresholds(predictions)

    def figures(
        masks: Sequence[NDArray[np.bool_]], metric: Metric, limits: Sequence[float] | None
    ) -> Statistic:
        return _statistic([samples_of(predictions, mask) for mask in masks], metric, limits)

    def ends(masks: Sequence[NDArray[np.bool_]], metric: Metric) -> list[list[Interval]]:
        """Return per group the metric's interval, and those of the rates beside the first."""
        statistic = figures(masks, metric, limits if metric is chosen[0] else None)
        found = bootstrap(statistic, patients, level=level, resamples=resamples, seed=seed)
        flat = found if isinstance(found, list) else [found]
        width = len(flat) // len(masks)
        return [flat[i : i + width] for i in range(0, len(flat), width)]

    patients = int(predictions.patients.max()) + 1
    rows, tests = [], []
    for metric in chosen:
        (whole,) = ends([tested], metric)
        rows.append(_row("", "all", _size(predictions, tested), metric, whole, ""))
    for expression, found in groups.items():
        masks = {name: mask & tested for name, mask in found.items() if (mask & tested).any()}
        sizes = {name: _size(predictions, mask) for name, mask in masks.items()}
        refused = {n: _too_small(size, predictions.target, least) for n, size in sizes.items()}
        large = [name for name, reason in refused.items() if not reason]
        for metric in chosen:
            mine = [masks[name] for name in large]
            told = dict(zip(large, ends(mine, metric) if large else [], strict=True))
            for name, size in sizes.items():
                rows.append(_row(expression, name, size, metric, told.get(name, []), refused[name]))
            values = {name: one[0].value for name, one in told.items()}
            statistic = figures(mine, metric, None)
            covariance = partial(
                covariance_between, statistic, patients, resamples=resamples, seed=seed
            )
            tests.append(_test(expression, metric, values, covariance))
    return SubgroupsResult(
        run_id=predictions.run_id,
        task=predictions.task,
        rows=rows,
        tests=_finished(tests),
        notes=_notes(predictions, chosen, limits),
    )


def _metrics(names: Sequence[str] | None, target: Target) -> list[Metric]:
    fitting = {name: one for name, one in METRICS.items() if target in one.targets}
    if not names:
        return [reported(target)[0]]
    by_case = {name.lower(): name for name in fitting}
    for name in names:
        if name.lower() not in by_case:
            raise UnknownNameError(name, kind="metric", known=fitting)
    return [fitting[by_case[name.lower()]] for name in dict.fromkeys(names)]


def _thresholds(predictions: Predictions) -> list[float] | None:
    """Return of each reshuffle the threshold of its own training records, out of fold."""
    parts = predictions.parts
    if predictions.target != "binary" or any(not predictions.labels[p.train].any() for p in parts):
        return None
    return [
        threshold_for_sensitivity(predictions.labels[p.train], p.train_scores, _SENSITIVITY)
        for p in parts
    ]


def _statistic(
    groups: Sequence[Sequence[Sample]], metric: Metric, limits: Sequence[float] | None
) -> Statistic:
    """Return what tells of each group the metric and, with thresholds, sensitivity, specificity."""

    def told(counts: Counts) -> NDArray[np.float64]:
        columns = []
        for samples in groups:
            parts = [counts[:, one.groups] for one in samples]
            found = [
                metric.of(one.labels, one.scores, mine)
                for one, mine in zip(samples, parts, strict=True)
                if len(one.labels)
            ]
            columns.append(_mean(found))
            if limits is not None:
                for label in (1, 0):
                    rates = [
                        _rate(one, mine, limit, label)
                        for one, mine, limit in zip(samples, parts, limits, strict=True)
                    ]
                    columns.append(_mean(rates))
        return np.column_stack(columns)

    return told


def _rate(one: Sample, counts: Counts, limit: float, label: int) -> NDArray[np.float64]:
    """Return sensitivity, or for label 0 specificity, at a threshold."""
    mine = one.labels == label
    right = (one.scores >= limit) == (label == 1)
    with np.errstate(invalid="ignore"):
        rate: NDArray[np.float64] = counts[:, mine & right].sum(1) / counts[:, mine].sum(1)
    return rate


def _mean(found: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    """Return the mean over the reshuffles that define a figure, NaN where none does."""
    values = np.asarray(found)
    defined = np.isfinite(values)
    with np.errstate(invalid="ignore"):
        mean: NDArray[np.float64] = np.where(defined, values, 0).sum(axis=0) / defined.sum(axis=0)
    return mean


def _size(predictions: Predictions, mask: NDArray[np.bool_]) -> _Size:
    labels = predictions.labels[mask]
    counted = predictions.target in {"binary", "survival"}
    return _Size(
        records=len(labels),
        patients=len(np.unique(predictions.patients[mask])),
        positives=int((labels > 0).sum()) if counted else None,
        classes=np.unique(labels, return_counts=True)[1],
    )


def _too_small(size: _Size, target: Target, least: int) -> str:
    """Return why a group gets no figure, or nothing."""
    if size.patients < 2 * least:
        return f"{size.patients} patients; {2 * least} are needed"
    if target == "binary" and size.positives is not None:
        sides = {"positive": size.positives, "negative": size.records - size.positives}
        word = min(sides, key=lambda name: sides[name])
        return f"{sides[word]} {word} records; {least} are needed" if sides[word] < least else ""
    if target == "survival" and size.positives is not None:
        return f"{size.positives} events; {least} are needed" if size.positives < least else ""
    if target == "multiclass":
        large = int((size.classes >= least).sum())
        return f"{large} classes of {least} records; 2 are needed" if large < 2 else ""
    return f"{size.records} records; {2 * least} are needed" if size.records < 2 * least else ""


def _row(
    by: str,
    group: str,
    size: _Size,
    metric: Metric,
    ends: Sequence[Interval],
    reason: str,
) -> dict[str, object]:
    row: dict[str, object] = {
        "by": by,
        "group": group,
        "records": size.records,
        "patients": size.patients,
        "positives": size.positives,
        "metric": metric.name,
    }
    for number, name in enumerate(("value", *_RATES)):
        told = ends[number] if number < len(ends) else None
        low, high = ("low", "high") if name == "value" else (f"{name}_low", f"{name}_high")
        row[name] = _number(told.value) if told else None
        row[low] = _number(told.low) if told else None
        row[high] = _number(told.high) if told else None
    if ends and not reason and row["low"] is None:
        reason = ends[0].method if row["value"] is not None else "no reshuffle defines it"
    row["reason"] = reason or None
    return row


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _test(
    by: str,
    metric: Metric,
    values: Mapping[str, float],
    covariance: Callable[[], NDArray[np.float64]],
) -> GroupTest:
    def refused(reason: str) -> GroupTest:
        sentence = f"{by}: whether {metric.name} differs cannot be told: {reason}."
        return GroupTest(by, metric.name, tuple(values), None, None, reason, sentence)

    if len(values) < 2:
        return refused("only one group is large enough" if values else "no group is large enough")
    if not np.isfinite(list(values.values())).all():
        return refused("it is not defined in every group")
    try:
        found = heterogeneity(np.array(list(values.values())), covariance())
    except NotEnoughDataError:
        return refused("most resamples do not define it in every group")
    if found is None:
        return refused("its variance in a group is 0")
    low, high = min(values, key=values.__getitem__), max(values, key=values.__getitem__)
    sentence = (
        f"from {values[low]:.3f} ({low}) to {values[high]:.3f} ({high}); "
        f"Cochran's Q = {found.q:.2f} on {found.df}, I² = {found.i2:.0%}"
    )
    return GroupTest(by, metric.name, tuple(values), found, found.p, "", sentence)


def _finished(tests: Sequence[GroupTest]) -> tuple[GroupTest, ...]:
    """Adjust p over the expressions, each metric by itself, and finish the sentences."""
    done = []
    for test in tests:
        if test.found is None:
            done.append(test)
            continue
        family = [one for one in tests if one.found is not None and one.metric == test.metric]
        p = float(
            adjusted([one.found.p for one in family if one.found], "holm")[family.index(test)]
        )
        told = f"p = {p:.2g}" if p >= 0.001 else "p < 0.001"
        told += f" (Holm over {len(family)})" if len(family) > 1 else ""
        verdict = (
            "differs between groups by more than chance"
            if p < 0.05
            else "is not shown to differ between groups"
        )
        sentence = f"{test.by}: {test.metric} {verdict}: {test.sentence}, {told}."
        done.append(replace(test, p_adjusted=p, sentence=sentence))
    return tuple(done)


def _notes(
    predictions: Predictions, metrics: Sequence[Metric], limits: Sequence[float] | None
) -> tuple[str, ...]:
    notes = []
    if predictions.target == "binary" and limits is None:
        notes.append(
            "Sensitivity and specificity are not told: the run has no out-of-fold scores to choose "
            "a threshold by (evaluate it with --out-of-fold 5)."
        )
    if any(metric.name == "AUCPR" for metric in metrics):
        notes.append("AUCPR rises with the share of positives, which differs between groups too.")
    return tuple(notes)
