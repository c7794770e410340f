"""Learning curves: what a metric becomes with fewer labels, and how many a feature set saves."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from ecgstore.catalog import Catalog
from ecgstore.classifiers import classifiers, read_settings
from ecgstore.errors import UnknownNameError, UsageError
from ecgstore.features import CONCATENATION, SIGNAL, feature_set
from ecgstore.feed import build
from ecgstore.folds import fit_fold
from ecgstore.laboratory.concepts import patients_of
from ecgstore.laboratory.curve_fits import Curve, CurveFit, Point, fit_curves
from ecgstore.progress import Silent
from ecgstore.runs import check_reads, fitted_scaling, prepare
from ecgstore.scaling import normalise, statistics
from ecgstore.splitting.reshuffles import reshuffles
from ecgstore.splitting.stratify import strata
from ecgstore.statistics.bootstrap import Sample
from ecgstore.statistics.metrics import METRICS, reported

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from ecgstore.progress import Progress
    from ecgstore.runs import Fold, Run
    from ecgstore.scaling import Scale
    from ecgstore.statistics.metrics import Metric
    from ecgstore.tasks import Target
    from ecgstore.warehouse import Warehouse

__all__ = ["FRACTIONS", "LearningCurveResult", "learning_curve", "nested"]

FRACTIONS = (0.05, 0.1, 0.2, 0.4, 0.7, 1.0)
"""Parts of the training patients, about doubling, as a power law is seen best."""

_LEAST = 2
"""Records of each class that a classifier is fitted to at least."""


@dataclass(frozen=True)
class LearningCurveResult:
    """What feature sets reach with parts of the training records.

    Attributes:
        split_id: The split.
        task: Its task.
        metric: Name of the metric.
        rows: One row a feature set and fraction; None where it could not be told, with the
            ``reason``.
        fits: One a feature set: its power law and, against a baseline, the labels it saves.
        notes: What to mind.
    """

    split_id: str
    task: str
    metric: str
    rows: list[dict[str, object]]
    fits: tuple[CurveFit, ...]
    notes: tuple[str, ...] = ()

    @property
    def fit_rows(self) -> list[dict[str, object]]:
        """The power laws, one row a feature set."""
        return [one.row for one in self.fits]

    @property
    def sentences(self) -> tuple[str, ...]:
        """What the fits come to, and what to mind."""
        return (*(one.sentence for one in self.fits), *self.notes)

    def __repr__(self) -> str:
        return (
            f"LearningCurveResult({self.task} over {self.split_id!r}: {self.metric} of "
            f"{len(self.fits)} feature sets, {len(self.rows)} points)"
        )

    def _repr_html_(self) -> str:
        from html import escape

        lines = "".join(f"<li>{escape(one)}</li>" for one in self.sentences)
        return f"<b>Learning curves of {escape(self.task)}</b><ul>{lines}</ul>"


def learning_curve(
    warehouse: Warehouse,
    features: Sequence[str],
    split: str,
    *,
    fractions: Sequence[float] = FRACTIONS,
    classifier: str = "logistic",
    baseline: str | None = None,
    metric: str | None = None,
    task: str | None = None,
    params: Mapping[str, object] | None = None,
    resamples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
    progress: Progress | None = None,
) -> LearningCurveResult:
    """Fit to parts of the training records of each reshuffle, and test on all its test records.

    Parts hold whole patients, are stratified by label, and the smaller lie inside the larger. They
    depend on record ids and the seed alone, so feature sets learn from the same patients. Scaling
    is fitted to the part. Intervals are of resampled patients and reshuffles (the two-way
    bootstrap of Owen 2007, Ann Appl Stat 1:386), as are those of the power law
    metric = a - b · n^(-c) and of the labels that are saved.

    Args:
        warehouse: Where everything is read; nothing is written, but for copies of signals.
        features: Feature sets.
        split: Name of a split.
        fractions: Parts of the training patients, above 0 and up to 1.
        classifier: What is fitted.
        baseline: What labels are saved against: a feature set, or a classifier on signals such as
            ``resnet50``. Its metric with the greatest fraction is what others have to reach.
        metric: Name of a metric; default the first that is reported for such a target.
        task: One of the split's tasks; default its only one.
        params: Settings of the classifier, or ``baseline.key``, as in `evaluate`.
        resamples: Bootstrap resamples.
        seed: Seed of the parts and of the resamples.
        level: Confidence level.
        progress: Told of every step.

    Raises:
        UnknownNameError: No such feature set, split, classifier or metric.
        UsageError: A fraction or setting cannot be used.
        NotEnoughDataError: Part of a reshuffle cannot be fitted to or tested on.
    """
    progress = progress or Silent()
    parts = sorted(set(fractions))
    if not parts or not 0 < parts[0] <= parts[-1] <= 1:
        told = ", ".join(f"{one:g}" for one in parts) or "none"
        msg = f"The fractions are {told}; each must be above 0 and at most 1."
        raise UsageError(msg)
    names = [features] if isinstance(features, str) else list(features)
    plan = list(dict.fromkeys((name, classifier) for name in names))
    base = None if baseline is None else _baseline(baseline, classifier)
    plan += [base] if base and base not in plan else []
    if not names:
        msg = "No feature set was named."
        raise UsageError(msg)
    kinds = {name: classifiers.get(name) for name in dict.fromkeys(kind for _, kind in plan)}
    chosen = dict(zip(kinds, read_settings(list(kinds.values()), params), strict=True))
    for name, kind in plan:
        check_reads(kinds[kind], name)
    if any(name == SIGNAL for name, _ in plan):
        build(warehouse, progress=progress)
    with Catalog(warehouse.relations()) as catalog:
        divided = reshuffles(catalog, split)
        steps = sum(kinds[kind](chosen[kind]).steps for _, kind in plan)
        progress.start(steps * len(divided) * len(parts), "steps")
        ids = sorted({i for one in divided for i in (*one.train, *one.test)})
        patients = dict(zip(ids, patients_of(catalog, ids).tolist(), strict=True))
        curves, notes = [], []
        for name, kind in plan:
            run = prepare(
                warehouse,
                catalog,
                name,
                divided,
                kinds[kind],
                chosen[kind],
                task=task,
                scaling=fitted_scaling,
            )
            if left := sum(run.left_out.values()):
                notes.append(f"{name}: {left} records of the split are left out.")
            groups = np.array([patients[i] for i in run.record_ids], dtype=np.intp)
            scale = _refitted(catalog, name)
            curves.append(
                Curve(
                    name,
                    kind,
                    [_point(run, part, groups, scale, seed, progress) for part in parts],
                )
            )
    measured = _metric(metric, run.target)
    if len({curve.points[-1].labels for curve in curves}) > 1:
        notes.append("The feature sets learn from different records; compare with care.")
    rows, fits = fit_curves(
        curves,
        measured,
        None if base is None else plan.index(base),
        max(patients.values()) + 1,
        resamples=resamples,
        seed=seed,
        level=level,
    )
    return LearningCurveResult(split, run.task, measured.name, rows, fits, tuple(notes))


def nested(
    labels: NDArray[np.float64],
    groups: NDArray[np.intp],
    record_ids: Sequence[str] | NDArray[np.object_],
    target: Target,
    fraction: float,
    *,
    seed: str = "0",
) -> NDArray[np.bool_]:
    """Choose part of the records: whole patients, each stratum its share, smaller inside larger.

    Patients of a stratum stand in an order that a digest of their first record's id and the seed
    gives; the k-th of n has the place (k + 1/2) / n, and who stands below the fraction is taken.

    Args:
        labels: ``(records,)``.
        groups: ``(records,)`` any patient numbers.
        record_ids: ``(records,)`` ids, sorted.
        target: What the labels are.
        fraction: Part of the patients.
        seed: Any text.

    Returns:
        ``(records,)`` whether a record is taken.
    """
    _, first, codes = np.unique(groups, return_index=True, return_inverse=True)
    lot = np.array(
        [hashlib.blake2b(f"{seed}/{record_ids[i]}".encode(), digest_size=8).digest() for i in first]
    )
    stratum = strata(labels, codes, target)
    place = np.empty(len(first))
    for one in np.unique(stratum):
        mine = np.flatnonzero(stratum == one)
        place[mine[np.argsort(lot[mine], kind="stable")]] = (np.arange(len(mine)) + 0.5) / len(mine)
    chosen: NDArray[np.bool_] = (place < fraction)[codes]
    return chosen


def _point(
    run: Run,
    fraction: float,
    groups: NDArray[np.intp],
    scale: Scale,
    seed: int,
    progress: Progress,
) -> Point:
    """Fit to one fraction of each reshuffle and test; a fraction that is too small says why."""
    chosen = []
    for fold in run.folds:
        mine = nested(
            run.labels[fold.train],
            groups[fold.train],
            run.record_ids[fold.train],
            run.target,
            fraction,
            seed=f"{seed}/{fold.repeat}",
        )
        chosen.append(replace(fold, train=fold.train[mine]))
    sizes = [len(fold.train) for fold in chosen]
    for fold, whole in zip(chosen, run.folds, strict=True):
        if reason := _too_small(run, fold, whole):
            for _ in chosen:
                progress.advance(run.kind(run.params).steps)
            return Point(fraction, float(np.mean(sizes)), (), reason)
    samples = []
    for fold in chosen:
        part = run if fraction == 1 or scale == "none" else _scaled(run, fold, scale)
        _, scores, _ = fit_fold(part, fold, step=progress.advance)
        samples.append(Sample(run.labels[fold.test], scores, groups[fold.test]))
    return Point(fraction, float(np.mean(sizes)), tuple(samples), "")


def _too_small(run: Run, fold: Fold, whole: Fold) -> str:
    """Return why a part of the training records cannot be fitted to, or nothing."""
    values, counts = np.unique(run.labels[fold.train], return_counts=True)
    if run.target in {"binary", "multiclass"}:
        known = len(np.unique(run.labels[whole.train]))
        if len(values) == known and counts.min() >= _LEAST:
            return ""
        least = int(counts.min()) if len(values) == known else 0
        return f"a class has {least} records in reshuffle {fold.repeat}; {_LEAST} are needed"
    events = int((run.labels[fold.train] > 0).sum()) if run.target == "survival" else len(values)
    return "" if events >= _LEAST else f"reshuffle {fold.repeat} has {events} labels to learn from"


def _scaled(run: Run, fold: Fold, scale: Literal["minmax", "zscore"]) -> Run:
    """Return a run whose vectors are scaled by the records at hand and no others.

    They come scaled by the whole training part; scaling once more gives what scaling by the part
    alone would, as either is a shift and a stretch of each number.
    """
    mine = np.zeros((1, len(run.labels)), dtype=bool)
    mine[0, fold.train] = True

    def blocks(repeat: int) -> list[NDArray[np.float32]]:
        return [
            normalise(block, statistics(block, mine)[0], scale=scale)
            for block in run.blocks(repeat)
        ]

    return replace(run, blocks=blocks)


def _refitted(catalog: Catalog, name: str) -> Scale:
    """Return how a feature set is scaled by training records; a fusion of its own fits itself."""
    if name == SIGNAL:
        return "none"
    one = feature_set(catalog, name)
    return one.scale if one.method == CONCATENATION and one.fit == "train" else "none"


def _baseline(name: str, classifier: str) -> tuple[str, str]:
    """Return feature set and classifier of a baseline."""
    if name in classifiers and classifiers.get(name).reads == "signal":
        return SIGNAL, name
    return name, classifier


def _metric(name: str | None, target: Target) -> Metric:
    if name is None:
        return reported(target)[0]
    fitting = {one.lower(): one for one, metric in METRICS.items() if target in metric.targets}
    if name.lower() not in fitting:
        raise UnknownNameError(name, kind="metric", known=fitting.values())
    return METRICS[fitting[name.lower()]]
