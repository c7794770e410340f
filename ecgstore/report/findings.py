"""What was found over a split: its runs, their curves, and the models they stand on.

Each figure is read from stored scores or computed from stored predictions; nothing is kept from
the run that wrote them.
"""

from __future__ import annotations

import json
from collections import defaultdict
from typing import TYPE_CHECKING, Any

import numpy as np

from ecgstore.errors import UnknownNameError
from ecgstore.report.plots import Curve
from ecgstore.report.study import Gap, Run, Split
from ecgstore.statistics.metrics import reported

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from ecgstore.catalog import Catalog
    from ecgstore.predictions import Predictions
    from ecgstore.tasks import Target

__all__ = [
    "GRID",
    "gaps",
    "models",
    "newest",
    "pr_curve",
    "roc_curve",
    "runs",
    "split_named",
]

GRID = np.linspace(0, 1, 201)
"""Abscissae at which curves are averaged."""


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
    """Return every run over a split that was scored, oldest first."""
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
    return [run for run in found if run is not None]


def newest(found: Sequence[Run]) -> list[Run]:
    """Keep the newest run of each task, features and classifier, in order of first appearance."""
    kept: dict[tuple[str, str, str], Run] = {}
    for run in found:
        kept[run.task, run.features, run.classifier] = run
    return list(kept.values())


def gaps(catalog: Catalog, task: str, metric: str) -> list[Gap]:
    """Set the newest runs on a task over splits of both protocols side by side.

    Args:
        catalog: The warehouse.
        task: The task.
        metric: The metric that is compared.
    """
    rows = catalog.table(
        """
        with protocols as (
            select split_id, any_value(params ->> '$.protocol') as protocol
            from splits
            group by split_id
        ),
        means as (
            select
                features,
                classifier,
                protocol,
                split_id,
                run_id,
                avg(value) filter (not isnan(value)) as value,
                max("at") as scored
            from scores
            join protocols using (split_id)
            where task = $task and metric = $metric and protocol in ('paper', 'sound')
            group by all
        )
        select features, classifier, protocol, split_id, run_id, value
        from means
        where value is not null
        qualify row_number() over (
            partition by features, classifier, protocol order by scored desc, run_id
        ) = 1
        order by features, classifier, protocol
        """,
        {"task": task, "metric": metric},
    ).to_pylist()
    sides: dict[tuple[str, str], dict[str, dict[str, Any]]] = defaultdict(dict)
    for row in rows:
        sides[row["features"], row["classifier"]][row["protocol"]] = row
    return [
        Gap(
            features=features,
            classifier=classifier,
            metric=metric,
            splits={name: row["split_id"] for name, row in pair.items()},
            runs={name: row["run_id"] for name, row in pair.items()},
            means={name: row["value"] for name, row in pair.items()},
        )
        for (features, classifier), pair in sides.items()
        if len(pair) == 2
    ]


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


def roc_curve(predictions: Predictions) -> Curve | None:
    """Average the ROC curves of a run's repeats at fixed false positive rates.

    This is the vertical averaging of Fawcett, Pattern Recognition Letters 27 (2006), 861-874.
    """
    from sklearn.metrics import roc_curve as points

    curves = []
    for labels, scores in _tests(predictions):
        fpr, tpr, _ = points(labels, scores)
        curves.append(np.interp(GRID, fpr, tpr))
    return _average(predictions, curves)


def pr_curve(predictions: Predictions) -> Curve | None:
    """Average the precision-recall curves of a run's repeats at fixed recalls.

    Between two thresholds the precision of the next one that reaches the recall is taken, as in
    average precision: a straight line between them would be too high (Davis and Goadrich, ICML
    2006, 233-240).
    """
    from sklearn.metrics import precision_recall_curve

    curves = []
    for labels, scores in _tests(predictions):
        precision, recall, _ = precision_recall_curve(labels, scores)
        reached = np.searchsorted(recall[::-1], GRID, side="left")
        curves.append(precision[::-1][reached])
        # Recall 0 is reached by no threshold; scikit-learn puts precision 1 there.
        curves[-1][0] = curves[-1][1]
    return _average(predictions, curves)


def _average(predictions: Predictions, curves: Sequence[NDArray[np.float64]]) -> Curve | None:
    if not curves:
        return None
    stacked = np.stack(curves)
    std = stacked.std(axis=0, ddof=1) if len(stacked) > 1 else np.zeros_like(GRID)
    return Curve(label=predictions.features, x=GRID, mean=stacked.mean(axis=0), std=std)


def _tests(predictions: Predictions) -> list[tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """Return labels and scores of each repeat's test records, where both classes occur."""
    parts = [(predictions.labels[part.test], part.scores) for part in predictions.parts]
    return [(labels, scores) for labels, scores in parts if len(np.unique(labels)) == 2]


def _run(rows: Sequence[Mapping[str, Any]], tested: Sequence[int]) -> Run | None:
    """Make a run of its rows of ``scores``; None where its deciding metric is never defined."""
    last = rows[-1]
    target: Target = last["target"] or "binary"
    seconds = {row["repeat"]: row["seconds"] or 0.0 for row in rows}
    place = {repeat: i for i, repeat in enumerate(seconds)}
    values = {metric.name: np.full(len(place), np.nan) for metric in reported(target)}
    for row in rows:
        if row["metric"] in values and row["value"] is not None:
            values[row["metric"]][place[row["repeat"]]] = row["value"]
    defined = {name: found for name, found in values.items() if not np.isnan(found).all()}
    if reported(target)[0].name not in defined:
        return None
    return Run(
        run_id=last["run_id"],
        features=last["features"],
        classifier=last["classifier"],
        task=last["task"],
        target=target,
        params=json.loads(last["params"] or "{}"),
        at=max(row["at"] for row in rows),
        versions=json.loads(last["versions"] or "{}"),
        code=last["code"] or "unknown",
        seconds=sum(seconds.values()),
        repeats=tuple(seconds),
        values=defined,
        tested=tuple(tested),
    )
