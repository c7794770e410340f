"""Gathering: everything the report says, read or computed at one state of the tables."""

from __future__ import annotations

import platform
from dataclasses import replace
from importlib import metadata
from typing import TYPE_CHECKING, ParamSpec, TypeVar

import numpy as np

from ecgstore.catalog import Catalog
from ecgstore.errors import EcgStoreError, UnknownNameError, UsageError
from ecgstore.explain.shap import shap_of_run
from ecgstore.features import SIGNAL, FeatureSet, feature_set, is_member, member_parameters
from ecgstore.laboratory.clinical import clinical
from ecgstore.laboratory.complementarity import complementarity
from ecgstore.laboratory.samples import samples_of
from ecgstore.laboratory.subgroups import subgroups
from ecgstore.leakage import datasets_of, marks
from ecgstore.predictions import predictions_of
from ecgstore.project import lay_out, only_split
from ecgstore.report.cohort import cohort
from ecgstore.report.comparison import against
from ecgstore.report.examples import examples
from ecgstore.report.findings import (
    gaps,
    models,
    newest,
    pr_curve,
    roc_curve,
    runs,
    split_named,
)
from ecgstore.report.study import Study, best_of
from ecgstore.splitting.split import reshuffles
from ecgstore.splitting.split_check import check
from ecgstore.statistics.bootstrap import metric_interval
from ecgstore.statistics.metrics import METRICS, reported

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from ecgstore.laboratory.clinical import ClinicalResult
    from ecgstore.laboratory.complementarity import ComplementarityResult
    from ecgstore.leakage import Mark
    from ecgstore.predictions import Predictions
    from ecgstore.progress import Progress
    from ecgstore.project import Method, Projection
    from ecgstore.report.comparison import Comparison
    from ecgstore.report.plots import Curve
    from ecgstore.report.study import Run
    from ecgstore.statistics.interval import Interval
    from ecgstore.warehouse import Warehouse

__all__ = ["gather"]

_P = ParamSpec("_P")
_T = TypeVar("_T")

_PACKAGES = ("duckdb", "numpy", "pyarrow", "scikit-learn", "scipy", "torch", "xgboost")
_MAPS: tuple[Method, ...] = ("tsne", "umap")
_ELDERLY = "age >= 65"


def gather(
    warehouse: Warehouse,
    split: str | None,
    *,
    title: str | None,
    by: Sequence[str],
    resamples: int,
    seed: int,
    progress: Progress,
) -> Study:
    """Read and compute everything; what cannot be told is a sentence instead.

    Args:
        warehouse: At the state the report is about.
        split: Name of the split; None takes the only one.
        title: Of the page; None takes the task.
        by: SQL expressions whose groups are told apart; none takes sex and age.
        resamples: Bootstrap resamples of every interval.
        seed: Of the resamples, and of the maps.
        progress: Told of every part.

    Raises:
        UsageError: There are several splits and none was named.
        UnknownNameError: There is no such split.
    """
    with Catalog(warehouse.relations()) as catalog:
        name = split or only_split(catalog)
        study = _read(catalog, name, title, warehouse.versions())
        if name is None or not study.runs:
            return study
        steps = 2 * len(study.runs) + len(_MAPS) * len(study.sets)
        progress.start(steps, "figures")
        predictions = {run.run_id: predictions_of(catalog, run.run_id) for run in study.runs}
        study = replace(
            study,
            predictions=predictions,
            marks=_marks(catalog, study, predictions),
            gaps=gaps(catalog, study.task or "", study.metrics[0]),
        )
        if study.target == "binary":
            study = replace(
                study,
                curves=_curves(predictions),
                maps=_maps(catalog, study, name, seed=seed, progress=progress),
            )
        groups = list(by) or _groups(catalog)
    return _examined(
        warehouse, study, name, groups, resamples=resamples, seed=seed, progress=progress
    )


def _examined(
    warehouse: Warehouse,
    study: Study,
    split: str,
    by: Sequence[str],
    *,
    resamples: int,
    seed: int,
    progress: Progress,
) -> Study:
    """Add what is computed from predictions."""
    best = study.best
    assert best is not None
    intervals, bedside = {}, {}
    for run in study.runs:
        mine = study.predictions[run.run_id]
        intervals[run.run_id] = _intervals(mine, run, resamples=resamples, seed=seed)
        progress.advance()
        if study.target == "binary":
            bedside[run.run_id] = _told(_clinical, warehouse, mine, resamples=resamples, seed=seed)
        progress.advance()
    seen = study.predictions[best.run_id]
    return replace(
        study,
        intervals=intervals,
        clinical=bedside,
        comparison=_compared(warehouse, study, resamples=resamples, seed=seed),
        check=_told(check, warehouse, split),
        subgroups=(
            _told(subgroups, warehouse, best.run_id, by, resamples=resamples, seed=seed)
            if by
            else None
        ),
        complementarity=_complements(warehouse, study, split, resamples=resamples, seed=seed),
        shap={
            run.run_id: _told(shap_of_run, warehouse, run.run_id)
            for run in study.runs
            if _fused(run, study)
        },
        examples=_told(examples, warehouse, seen) if study.target == "binary" else None,
    )


def _told(call: Callable[_P, _T], *given: _P.args, **named: _P.kwargs) -> _T | str:
    """Return what a call finds, or the sentence why it cannot."""
    try:
        return call(*given, **named)
    except EcgStoreError as error:
        return " ".join(filter(None, (error.message, error.hint)))


def _read(
    catalog: Catalog, split: str | None, title: str | None, versions: Mapping[str, int]
) -> Study:
    """Read what stands in the tables."""
    stored = split_named(catalog, split) if split else None
    found = runs(catalog, split) if split else []
    every = cohort(catalog, split)
    task = stored.task if stored else None
    tasks = {run.task for run in found}
    if tasks and task not in tasks:  # a family: the commonest label is worked out
        order = [one.name for one in every.tasks if one.name in tasks]
        task = order[0] if order else min(tasks)
    mine = [run for run in found if run.task == task]
    target = mine[-1].target if mine else "binary"
    mine = [run for run in mine if run.target == target]
    shown = newest(mine)
    family = newest([run for run in found if run.target == target]) if len(tasks) > 1 else []
    sets = _sets(catalog, shown)
    metrics = [one.name for one in reported(target) if any(one.name in run.values for run in shown)]
    return Study(
        title=title or (f"{task} from the ECG" if task else "The cohort"),
        cohort=every,
        split=stored,
        task=task,
        target=target,
        metrics=metrics,
        better=reported(target)[0].better,
        runs=sorted(shown, key=lambda run: _size(sets, run)),
        earlier=[run for run in mine if run not in shown],
        family=family,
        sets=sets,
        covered={name: _covered(catalog, one, split) for name, one in sets.items()},
        models=models(catalog),
        versions=versions,
        environment=_environment(),
    )


def _size(sets: Mapping[str, FeatureSet], run: Run) -> int:
    return len(sets[run.features].members) if run.features in sets else 0


def _fused(run: Run, study: Study) -> bool:
    return _size(study.sets, run) > 1


def _sets(catalog: Catalog, found: Sequence[Run]) -> dict[str, FeatureSet]:
    """Return what the features of each run are made of, single models before fused ones."""
    sets = {}
    for name in dict.fromkeys(run.features for run in found if run.features != SIGNAL):
        try:
            sets[name] = feature_set(catalog, name)
        except (UnknownNameError, UsageError):
            continue  # its vectors were erased, or the name has come to fit several
    return dict(sorted(sets.items(), key=lambda pair: len(pair[1].members)))


def _covered(catalog: Catalog, features: FeatureSet, split: str | None) -> int:
    """Count the records of the split that have the vector of every member."""
    members = range(len(features.members))
    rows = catalog.table(
        f"""
        with covered as (
            select record_id
            from embeddings
            where ({" or ".join(f"({is_member(i)})" for i in members)})
                and record_id in (select record_id from splits where split_id = $split)
            group by record_id
            having count(*) = {len(members)}
        )
        select count(*) as n
        from covered
        """,
        {**member_parameters(features.members), "split": split},
    )
    count: int = rows["n"][0].as_py()
    return count


def _intervals(
    predictions: Predictions, run: Run, *, resamples: int, seed: int
) -> dict[str, Interval | str]:
    """Return the interval of each metric, over the repeats that define it."""
    found: dict[str, Interval | str] = {}
    for name in run.values:
        metric = METRICS[name]
        samples = [
            one
            for one in samples_of(predictions)
            if len(one.labels) and np.isfinite(metric.of(one.labels, one.scores, None)[0])
        ]
        if samples:
            found[name] = _told(metric_interval, samples, metric, resamples=resamples, seed=seed)
    return found


def _curves(predictions: Mapping[str, Predictions]) -> dict[str, tuple[Curve, Curve]]:
    drawn = {}
    for run_id, one in predictions.items():
        roc, precision = roc_curve(one), pr_curve(one)
        if roc is not None and precision is not None:
            drawn[run_id] = (roc, precision)
    return drawn


def _maps(
    catalog: Catalog, study: Study, split: str, *, seed: int, progress: Progress
) -> dict[tuple[str, str], Projection | str]:
    maps: dict[tuple[str, str], Projection | str] = {}
    reshuffle = replace(reshuffles(catalog, split)[0], task=study.task or "")
    for method in _MAPS:
        for name, features in study.sets.items():
            maps[method, name] = _told(
                lay_out, catalog, features, reshuffle, method=method, seed=seed
            )
            progress.advance()
    return maps


def _groups(catalog: Catalog) -> list[str]:
    """Return what groups are told apart by where nobody said: sex and age, where known."""
    (known,) = catalog.table(
        "select count(distinct sex) as sexes, count(*) filter (age >= 65) as old, "
        "count(*) filter (age < 65) as young from records"
    ).to_pylist()
    return [
        *(["sex"] if known["sexes"] > 1 else []),
        *([_ELDERLY] if known["old"] and known["young"] else []),
    ]


def _marks(
    catalog: Catalog, study: Study, predictions: Mapping[str, Predictions]
) -> tuple[Mark, ...]:
    every = [m for features in study.sets.values() for m in features.members]
    used = dict.fromkeys(f"{one.model}@{one.version}" for one in every)
    tested = {i for one in predictions.values() for p in one.parts for i in one.record_ids[p.test]}
    ids = sorted(tested)
    return marks(catalog, used, datasets_of(catalog, ids), record_ids=ids) if used else ()


def _clinical(
    warehouse: Warehouse, predictions: Predictions, *, resamples: int, seed: int
) -> ClinicalResult:
    """Return clinical figures, of recalibrated scores where there is what to fit that to."""
    ready = all(len(np.unique(predictions.labels[one.train])) == 2 for one in predictions.parts)
    return clinical(
        warehouse,
        predictions.run_id,
        youden=True,
        recalibrate="platt" if ready else None,
        resamples=resamples,
        seed=seed,
    )


def _compared(
    warehouse: Warehouse, study: Study, *, resamples: int, seed: int
) -> Comparison | str | None:
    """Compare every run with the best that is not fused; None where there is nothing to compare."""
    best = best_of([run for run in study.runs if not _fused(run, study)], study)
    others = [run for run in study.runs if run is not best]
    if best is None or not others:
        return None
    metric = study.metrics[0]
    return _told(against, warehouse, best, others, metric=metric, resamples=resamples, seed=seed)


def _complements(
    warehouse: Warehouse, study: Study, split: str, *, resamples: int, seed: int
) -> ComplementarityResult | str | None:
    """Return what each model of the best fused run adds, None where nothing is fused."""
    fused = best_of([run for run in study.runs if _fused(run, study)], study)
    if fused is None:
        return None
    singles = {one.members[0]: name for name, one in study.sets.items() if len(one.members) == 1}
    return _told(
        complementarity,
        warehouse,
        split,
        features=[singles.get(one, str(one)) for one in study.sets[fused.features].members],
        fused=fused.run_id,
        classifier=fused.classifier,
        resamples=resamples,
        seed=seed,
    )


def _environment() -> dict[str, str]:
    found = {"Python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found
