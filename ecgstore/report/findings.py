"""What was found over a split: its runs, their curves, and the models they stand on.

Each figure is read from stored scores or computed from stored predictions; nothing is kept from
the run that wrote them.
"""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ecgstore.errors import UnknownNameError
from ecgstore.evaluate import METRICS
from ecgstore.report.plots import Curve

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from numpy.typing import NDArray

    from ecgstore.catalog import Catalog
    from ecgstore.features import FeatureSet
    from ecgstore.project import Projection
    from ecgstore.report.cohort import Cohort

__all__ = [
    "GRID",
    "Run",
    "Split",
    "Study",
    "models",
    "newest",
    "pr_curve",
    "roc_curve",
    "runs",
    "split_named",
]

GRID = np.linspace(0, 1, 201)
"""Abscissae at which curves are averaged."""


@dataclass(frozen=True)
class Split:
    """A stored split.

    Attributes:
        name: Its name.
        task: The task it is stratified by.
        params: How it was drawn.
        sizes: For each reshuffle: training and test records, and positives among each.
        shared_patients: Patients with records on both sides, the most in any reshuffle.
    """

    name: str
    task: str
    params: Mapping[str, Any]
    sizes: Sequence[Mapping[str, int]]
    shared_patients: int


@dataclass(frozen=True, eq=False)
class Run:
    """One feature set and classifier, scored over the reshuffles of a split.

    Attributes:
        run_id: Its id in ``scores`` and ``predictions``.
        features: Name of the feature set.
        classifier: Name of the classifier.
        params: Settings of the classifier.
        at: When it was scored.
        versions: Version of every table it read.
        code: Version of ecgstore that ran.
        seconds: Time taken over all reshuffles.
        repeats: Numbers of the reshuffles.
        values: Metric to one value a reshuffle.
        tested: Records scored in each reshuffle.
    """

    run_id: str
    features: str
    classifier: str
    params: Mapping[str, Any]
    at: datetime
    versions: Mapping[str, int]
    code: str
    seconds: float
    repeats: tuple[int, ...]
    values: Mapping[str, NDArray[np.float64]]
    tested: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Study:
    """Everything the page says about a split, gathered at one state of the tables.

    Attributes:
        cohort: Who and what was recorded.
        split: The split, None where none is drawn yet.
        runs: The newest run of each feature set and classifier, as they are shown.
        earlier: Runs that a newer one of the same feature set and classifier stands for.
        sets: What the features of a run are made of, by name; absent for signals and for names
            that no longer stand for one thing.
        covered: Records of the split that have every vector of a feature set, by name.
        models: Rows of ``models`` with the number of ``records`` embedded.
        curves: ROC and precision-recall curve by run id.
        maps: Projections, or why there is none, by feature set.
        versions: Version of every table read.
    """

    cohort: Cohort
    split: Split | None
    runs: Sequence[Run]
    earlier: Sequence[Run]
    sets: Mapping[str, FeatureSet]
    covered: Mapping[str, int]
    models: Sequence[Mapping[str, Any]]
    curves: Mapping[str, tuple[Curve, Curve]]
    maps: Mapping[str, Projection | str]
    versions: Mapping[str, int]


def split_named(catalog: Catalog, name: str) -> Split:
    """Return a stored split.

    Raises:
        UnknownNameError: There is none of this name.
    """
    sizes = catalog.table(
        """
        select
            repeat,
            any_value(s.task) as task,
            any_value(s.params) as params,
            count(*) filter (split = 'train') as train,
            count(*) filter (split = 'train' and label = 1) as train_positive,
            count(*) filter (split = 'test') as test,
            count(*) filter (split = 'test' and label = 1) as test_positive
        from splits s
        left join labels l on l.record_id = s.record_id and l.task = s.task
        where split_id = $split
        group by repeat
        order by repeat
        """,
        {"split": name},
    ).to_pylist()
    if not sizes:
        known = catalog.table("select distinct split_id from splits")["split_id"].to_pylist()
        raise UnknownNameError(name, kind="split", known=known)
    shared = catalog.table(
        """
        with crossing as (
            select repeat, dataset, patient_id
            from splits
            join records using (record_id)
            where split_id = $split and patient_id is not null
            group by all
            having count(distinct split) > 1
        ),
        counted as (
            select count(*) as n
            from crossing
            group by repeat
        )
        select coalesce(max(n), 0) as shared
        from counted
        """,
        {"split": name},
    ).to_pylist()[0]["shared"]
    return Split(
        name=name,
        task=sizes[0]["task"],
        params=json.loads(sizes[0]["params"] or "{}"),
        sizes=sizes,
        shared_patients=shared,
    )


def runs(catalog: Catalog, split: str) -> list[Run]:
    """Return every run over a split that has both metrics, oldest first."""
    tested: dict[str, list[int]] = defaultdict(list)
    for row in catalog.table(
        """
        select run_id, repeat, count(*) as n
        from predictions
        where split = 'test'
        group by run_id, repeat
        order by run_id, repeat
        """
    ).to_pylist():
        tested[row["run_id"]].append(row["n"])
    by_run: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in catalog.table(
        'select * from scores where split_id = $split order by "at", run_id, repeat, metric',
        {"split": split},
    ).to_pylist():
        by_run[row["run_id"]].append(row)
    found = [_run(rows, tested[run_id]) for run_id, rows in by_run.items()]
    return [run for run in found if all(metric in run.values for metric in METRICS)]


def newest(found: Sequence[Run]) -> list[Run]:
    """Keep the newest run of each feature set and classifier, in order of first appearance."""
    kept: dict[tuple[str, str], Run] = {}
    for run in found:
        kept[run.features, run.classifier] = run
    return list(kept.values())


def models(catalog: Catalog) -> list[dict[str, Any]]:
    """Return every model with vectors, as in ``models``, and how many records it has."""
    rows: list[dict[str, Any]] = catalog.table(
        """
        select m.*, e.records
        from models m
        join (
            select model, version, pooling, count(*) as records
            from embeddings
            group by all
        ) e using (model, version, pooling)
        order by model, version, pooling
        """
    ).to_pylist()
    return rows


def roc_curve(catalog: Catalog, run: Run) -> Curve | None:
    """Average the ROC curves of a run's reshuffles at fixed false positive rates.

    This is the vertical averaging of Fawcett, Pattern Recognition Letters 27 (2006), 861-874.
    """
    from sklearn.metrics import roc_curve as points

    curves = []
    for labels, scores in _tests(catalog, run):
        fpr, tpr, _ = points(labels, scores)
        curves.append(np.interp(GRID, fpr, tpr))
    return _average(run, curves)


def pr_curve(catalog: Catalog, run: Run) -> Curve | None:
    """Average the precision-recall curves of a run's reshuffles at fixed recalls.

    Between two thresholds the precision of the next one that reaches the recall is taken, as in
    average precision: a straight line between them would be too high (Davis and Goadrich, ICML
    2006, 233-240).
    """
    from sklearn.metrics import precision_recall_curve

    curves = []
    for labels, scores in _tests(catalog, run):
        precision, recall, _ = precision_recall_curve(labels, scores)
        reached = np.searchsorted(recall[::-1], GRID, side="left")
        curves.append(precision[::-1][reached])
        # Recall 0 is reached by no threshold; scikit-learn puts precision 1 there.
        curves[-1][0] = curves[-1][1]
    return _average(run, curves)


def _average(run: Run, curves: Sequence[NDArray[np.float64]]) -> Curve | None:
    if not curves:
        return None
    stacked = np.stack(curves)
    std = stacked.std(axis=0, ddof=1) if len(stacked) > 1 else np.zeros_like(GRID)
    return Curve(label=run.features, x=GRID, mean=stacked.mean(axis=0), std=std)


def _tests(catalog: Catalog, run: Run) -> list[tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """Return labels and scores of each reshuffle's test records, where both classes occur."""
    table = catalog.table(
        """
        select repeat, label, score
        from predictions
        where run_id = $run and split = 'test'
        order by repeat, record_id
        """,
        {"run": run.run_id},
    )
    repeat, label, score = (table[name].to_numpy() for name in ("repeat", "label", "score"))
    parts = [(label[repeat == n], score[repeat == n]) for n in np.unique(repeat)]
    return [(labels, scores) for labels, scores in parts if len(np.unique(labels)) == 2]


def _run(rows: Sequence[Mapping[str, Any]], tested: Sequence[int]) -> Run:
    values: dict[str, list[float]] = defaultdict(list)
    seconds: dict[int, float] = {}
    for row in rows:
        values[row["metric"]].append(row["value"])
        seconds[row["repeat"]] = row["seconds"] or 0.0
    last = rows[-1]
    return Run(
        run_id=last["run_id"],
        features=last["features"],
        classifier=last["classifier"],
        params=json.loads(last["params"] or "{}"),
        at=max(row["at"] for row in rows),
        versions=json.loads(last["versions"] or "{}"),
        code=last["code"] or "unknown",
        seconds=sum(seconds.values()),
        repeats=tuple(seconds),
        values={metric: np.array(found) for metric, found in values.items()},
        tested=tuple(tested),
    )
