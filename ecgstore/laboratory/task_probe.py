"""Whether a task is merely heart rate: what usual figures tell of it, with the vectors and without.

Concepts such as age, sex and the intervals predict a task by themselves. Vectors are worth having
where they add to them; the difference in AUROC of the concepts with and without the vectors says
how much (the added value of a marker: Steyerberg et al. 2010, Epidemiology 21:128).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ecgstore.errors import NotEnoughDataError
from ecgstore.splitting.drawing import draw_inner
from ecgstore.statistics.bootstrap import Sample, metric_interval, paired_interval
from ecgstore.statistics.metrics import METRICS
from ecgstore.statistics.ridge import Ridge

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from ecgstore.laboratory.concepts import Concept
    from ecgstore.statistics.interval import Interval

__all__ = ["TaskProbe", "task_probe"]

_KNOWN = 0.8
"""Part of the records a concept must be known of to be taken; the records without one are left."""

_LEAST = 10


@dataclass(frozen=True)
class TaskProbe:
    """What a task is made of, as far as concepts tell.

    Attributes:
        task: The task.
        concepts: The concepts taken.
        rows: As in `ecgstore.laboratory.probes.ProbeResult`.
        sentence: What they come to.
    """

    task: str
    concepts: tuple[str, ...]
    rows: list[dict[str, object]]
    sentence: str


def task_probe(
    features: str,
    task: str,
    x: NDArray[np.float32],
    labels: NDArray[np.float64],
    concepts: Sequence[Concept],
    patients: NDArray[np.intp],
    folds: int,
    *,
    resamples: int = 2000,
    seed: int = 0,
) -> TaskProbe:
    """Hold vectors against concepts at a binary task, on records of unseen patients.

    Concepts enter a logistic regression as they are and squared, for both too slow and too fast
    may matter; angles as cosine and sine. Vectors enter as one score, made out of fold.

    Args:
        features: Name of the feature set.
        task: Name of the task.
        x: ``(records, dim)`` its vectors.
        labels: ``(records,)`` 0, 1 or NaN.
        concepts: What is known of the records.
        patients: ``(records,)`` number of each record's patient.
        folds: Folds, which keep patients whole.
        resamples: Bootstrap resamples.
        seed: Seed of folds and resamples.
    """
    labelled = ~np.isnan(labels)
    taken = [
        one
        for one in concepts
        if one.known[labelled].mean() >= _KNOWN and len(np.unique(one.values[one.known])) > 1
    ]
    here = labelled.copy()
    for one in taken:
        here &= one.known
    y, groups = labels[here], np.unique(patients[here], return_inverse=True)[1]
    names = tuple(one.name for one in taken)
    row: dict[str, object] = {"features": features, "about": None, "figure": None}
    row |= dict.fromkeys(("value", "low", "high", "chance", "p"))
    row |= {"records": len(y), "patients": len(np.unique(groups)), "reason": None}
    fold, reason = _drawn(y, groups, folds, seed, names)
    if fold is None:
        sentence = f"What {task} is made of cannot be told: {reason}."
        rows = [{**row, "about": task, "reason": reason}]
        return TaskProbe(task, names, rows, sentence)
    columns = {one.name: _columns(one, here) for one in taken}
    ridge = Ridge(x[here], fold)
    vectors = ridge.nested(y[:, None])[:, :, 0]
    told = np.hstack(list(columns.values()))
    scores = {"concepts": _logistic(told, y, ridge.rows)}
    if "heart_rate" in columns:
        scores["heart_rate"] = _logistic(columns["heart_rate"], y, ridge.rows)
    scores["vectors"] = [vectors[o, rows] for o, rows in enumerate(ridge.rows)]
    scores["concepts and vectors"] = _logistic(told, y, ridge.rows, vectors)
    samples = {
        name: [
            Sample(y[rows], part, groups[rows])
            for rows, part in zip(ridge.rows, parts, strict=True)
        ]
        for name, parts in scores.items()
    }
    auroc, drawn = METRICS["AUROC"], {"resamples": resamples, "seed": seed}
    found = {name: metric_interval(one, auroc, **drawn) for name, one in samples.items()}
    both = samples["concepts and vectors"]
    gains = {
        "what vectors add": paired_interval(both, samples["concepts"], auroc, **drawn),
        "what concepts add": paired_interval(both, samples["vectors"], auroc, **drawn),
    }
    rows = [_row(row, f"{task}: {name}", "AUROC", one, 0.5) for name, one in found.items()]
    rows += [
        _row(row, f"{task}: {name}", "AUROC difference", one, 0.0) for name, one in gains.items()
    ]
    return TaskProbe(task, names, rows, _sentence(features, task, names, found, gains))


def _drawn(
    y: NDArray[np.float64],
    groups: NDArray[np.intp],
    folds: int,
    seed: int,
    names: Sequence[str],
) -> tuple[NDArray[np.intp] | None, str]:
    """Draw folds, or return why there are none."""
    positive, negative = int((y == 1).sum()), int((y == 0).sum())
    if not names:
        return None, f"no concept is known of {_KNOWN:.0%} of the labelled records"
    if min(positive, negative) < _LEAST:
        return None, (
            f"{positive} positive and {negative} negative records have all vectors and concepts; "
            f"{_LEAST} of each are needed"
        )
    try:
        return draw_inner(y, groups, folds, seed), ""
    except NotEnoughDataError as error:
        return None, error.message.removesuffix(".")


def _columns(concept: Concept, here: NDArray[np.bool_]) -> NDArray[np.float64]:
    columns = concept.columns()[here]
    if concept.kind != "number":
        return columns
    centred = columns - columns.mean(axis=0)  # only for precision: the models are the same
    return np.hstack([centred, centred**2])


def _logistic(
    columns: NDArray[np.float64],
    y: NDArray[np.float64],
    folds: Sequence[NDArray[np.intp]],
    nested: NDArray[np.float64] | None = None,
) -> list[NDArray[np.float64]]:
    """Return the scores of each fold by a regression fitted to the others.

    Args:
        columns: ``(records, columns)``.
        y: Labels.
        folds: Records of each fold.
        nested: ``(folds, records)`` one column more, other for each fold; see `Ridge.nested`.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    scores = []
    for o, rows in enumerate(folds):
        x = columns if nested is None else np.column_stack([columns, nested[o]])
        rest = np.ones(len(y), dtype=bool)
        rest[rows] = False
        scaler = StandardScaler().fit(x[rest])
        model = LogisticRegression(max_iter=5000).fit(scaler.transform(x[rest]), y[rest])
        scores.append(model.decision_function(scaler.transform(x[rows])))
    return scores


def _row(
    row: dict[str, object], about: str, figure: str, ends: Interval, chance: float
) -> dict[str, object]:
    numbers = {name: getattr(ends, name) for name in ("value", "low", "high")}
    told = {name: float(one) if np.isfinite(one) else None for name, one in numbers.items()}
    reason = ends.method if None in told.values() else None
    return {**row, "about": about, "figure": figure, **told, "chance": chance, "reason": reason}


def _sentence(
    features: str,
    task: str,
    names: Sequence[str],
    found: dict[str, Interval],
    gains: dict[str, Interval],
) -> str:
    alone = f"{', '.join(names)} alone reach AUROC {found['concepts'].value:.3f}"
    if "heart_rate" in found and len(names) > 1:
        alone += f" (heart rate {found['heart_rate'].value:.3f})"
    gain = gains["what vectors add"]
    verdict = f"{task} is more than these"
    if not gain.low > 0:
        verdict = f"nothing shows that they tell more of {task} than these"
    return (
        f"{task}: {alone}, the vectors of {features} {found['vectors'].value:.3f}. Added to them "
        f"the vectors change AUROC by {gain.value:+.3f} ({gain.level:.0%} interval {gain.low:+.3f} "
        f"to {gain.high:+.3f}): {verdict}."
    )
