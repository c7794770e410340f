"""What is in the vectors: linear probes of what is known of patient, heart and recording.

Three questions. What can be read off a feature set in a straight line; whether it tells the site
or the device, by which a classifier could score without looking at the heart; and whether a task
is more than age, sex and the usual measurements.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ecgstore.catalog import Catalog
from ecgstore.errors import NotEnoughDataError, UsageError
from ecgstore.features import feature_set, matrix
from ecgstore.laboratory.concepts import SHORTCUTS, Concept, concepts_of, patients_of
from ecgstore.laboratory.shortcuts import ALARM, alarm, balanced, chance_of
from ecgstore.laboratory.task_probe import TaskProbe, task_probe
from ecgstore.progress import Silent
from ecgstore.splitting.drawing import draw_inner
from ecgstore.splitting.reshuffles import reshuffles
from ecgstore.statistics.bootstrap import Sample, bootstrap, metric_interval
from ecgstore.statistics.interval import Interval
from ecgstore.statistics.metrics import METRICS
from ecgstore.statistics.ridge import Ridge
from ecgstore.tasks import labels_of, target_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from ecgstore.progress import Progress
    from ecgstore.tasks import Target
    from ecgstore.warehouse import Warehouse

__all__ = ["ProbeResult", "probe"]

_RECORDS = 30
_CLASS = 10
_MOST_CLASSES = 20


@dataclass(frozen=True)
class ProbeResult:
    """What was found in the vectors of some feature sets.

    Attributes:
        features: The feature sets.
        records: Records that have the vectors of all of them.
        rows: One row a feature set, concept and figure; None where there is no figure, with the
            ``reason``. Rows of the task come last.
        tasks: One a feature set, where a task was named.
        shortcuts: What of the recording the vectors tell, one sentence each.
        notes: What to mind.
    """

    features: tuple[str, ...]
    records: int
    rows: list[dict[str, object]]
    tasks: tuple[TaskProbe, ...] = ()
    shortcuts: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def alarms(self) -> tuple[str, ...]:
        """The shortcuts by which a classifier could score at the task."""
        return tuple(one for one in self.shortcuts if one.startswith(ALARM))

    @property
    def sentences(self) -> tuple[str, ...]:
        """What it comes to."""
        return (*(one.sentence for one in self.tasks), *self.shortcuts, *self.notes)

    def __repr__(self) -> str:
        return (
            f"ProbeResult({', '.join(self.features)}: {len(self.rows)} figures of {self.records} "
            f"records, {len(self.alarms)} alarms)"
        )

    def _repr_html_(self) -> str:
        from html import escape

        lines = "".join(f"<li>{escape(one)}</li>" for one in self.sentences)
        return f"<b>Probes of {escape(', '.join(self.features))}</b><ul>{lines}</ul>"


def probe(
    warehouse: Warehouse,
    features: Sequence[str],
    *,
    concepts: Sequence[str] | None = None,
    task: str | None = None,
    split: str | None = None,
    folds: int = 5,
    draws: int = 99,
    resamples: int = 2000,
    seed: int = 0,
    progress: Progress | None = None,
) -> ProbeResult:
    """Probe feature sets for what the store knows of each record, and for what a task is made of.

    Every figure is of records whose patients the probe was not fitted to: folds keep patients
    whole, and the strength of each probe is chosen inside its training part (`Ridge`). Numbers are
    told as R², angles as R² of cosine and sine together, classes as AUROC (several: macro AUROC,
    one against the rest, and balanced accuracy). Intervals are BCa over patients. A feature set
    of several members is probed as its members side by side; how it scales them is of no
    consequence to a probe that standardises.

    Args:
        warehouse: Where vectors, records and labels are read; nothing is written.
        features: Feature sets; all are probed on the records that have the vectors of all.
        concepts: Names such as ``age``, ``qrs`` or ``device``; default all that are known.
        task: A task with labels 0 and 1 to hold against the concepts; default that of `split`.
        split: Only records of this split.
        folds: Folds, 3 or more.
        draws: Deals of shuffled labels that tell what chance makes of site, device and dataset.
        resamples: Bootstrap resamples.
        seed: Seed of folds, deals and resamples.
        progress: Told of every concept.

    Raises:
        UnknownNameError: No such feature set, concept, task or split.
        UsageError: An argument is out of range, or the task is not binary.
        NotEnoughDataError: Too few records have all vectors.
    """
    names = [features] if isinstance(features, str) else list(dict.fromkeys(features))
    if not names or folds < 3:
        msg = f"{folds} folds; 3 are needed at least." if names else "No feature set to probe."
        raise UsageError(msg)
    progress = progress or Silent()
    with Catalog(warehouse.relations()) as catalog:
        part = reshuffles(catalog, split) if split else []
        task = task or (part[0].task if part else None)
        within = sorted({i for one in part[:1] for i in (*one.train, *one.test)}) if part else None
        sets = [feature_set(catalog, name) for name in names]
        ids, blocks = matrix(catalog, [m for one in sets for m in one.members], within)
        notes = _left_out(catalog, ids, within)
        found = concepts_of(catalog, ids.tolist(), concepts)
        patients = patients_of(catalog, ids.tolist())
        labels = None if task is None else _labels(catalog, task, ids)
    job = _Job(patients, folds, draws, resamples, seed)
    rows: list[dict[str, object]] = []
    shortcuts: list[str] = []
    tasks = []
    progress.start(len(sets) * (len(found) + (task is not None)), "probes")
    for one in sets:
        mine, blocks = blocks[: len(one.members)], blocks[len(one.members) :]
        x = mine[0] if len(mine) == 1 else np.hstack(mine)
        for concept in found:
            told, warned = _concept(job, one.name, x, concept, task, labels)
            rows += told
            shortcuts += [warned] if warned else []
            progress.advance()
        if task is not None and labels is not None:
            others = [c for c in found if c.name not in (*SHORTCUTS, task)]
            tasks.append(
                task_probe(
                    one.name,
                    task,
                    x,
                    labels,
                    others,
                    patients,
                    folds,
                    resamples=resamples,
                    seed=seed,
                )
            )
            rows += tasks[-1].rows
            progress.advance()
    return ProbeResult(
        tuple(names), len(ids), rows, tuple(tasks), tuple(shortcuts), tuple(dict.fromkeys(notes))
    )


@dataclass(frozen=True, eq=False)
class _Job:
    """What all probes share."""

    patients: NDArray[np.intp]
    folds: int
    draws: int
    resamples: int
    seed: int


def _left_out(
    catalog: Catalog, ids: NDArray[np.object_], within: Sequence[str] | None
) -> list[str]:
    """Say how many records lack a vector; refuse where too few have all."""
    asked = len(within) if within is not None else 0
    if within is None:
        asked = catalog.table("select count(*) as n from records")["n"][0].as_py()
    if len(ids) < _RECORDS:
        msg = f"{len(ids)} of {asked} records have all vectors; probes need {_RECORDS}."
        raise NotEnoughDataError(
            msg, task="", counts={"records": len(ids)}, hint="Embed more records."
        )
    if len(ids) == asked:
        return []
    return [f"{asked - len(ids)} of {asked} records lack a vector and are left out."]


def _labels(catalog: Catalog, task: str, ids: NDArray[np.object_]) -> NDArray[np.float64]:
    """Return the label of each record, NaN where there is none."""
    rows = labels_of(catalog, task, ids.tolist())
    target_of(rows["label"].to_numpy(), "binary", task=task)
    labels = np.full(len(ids), np.nan)
    labels[np.searchsorted(ids.astype(str), rows["record_id"].to_numpy().astype(str))] = rows[
        "label"
    ].to_numpy()
    return labels


def _concept(
    job: _Job,
    features: str,
    x: NDArray[np.float32],
    concept: Concept,
    task: str | None,
    labels: NDArray[np.float64] | None,
) -> tuple[list[dict[str, object]], str]:
    """Probe one concept: its rows, and a sentence where it may be a shortcut."""
    concept, known = _usable(concept)
    values, patients = concept.values[known], job.patients[known]
    row: dict[str, object] = {"features": features, "about": concept.name, "figure": None}
    row |= dict.fromkeys(("value", "low", "high", "chance", "p"))
    row |= {"records": int(known.sum()), "patients": len(np.unique(patients)), "reason": None}
    reason = _too_little(concept, values, patients)
    classes = concept.kind == "classes"
    if not reason:
        target: Target = "multiclass" if classes else "continuous"
        try:
            fold = draw_inner(values, patients, job.folds, job.seed, target)
        except NotEnoughDataError as error:
            reason = error.message.removesuffix(".")
    if reason:
        return [{**row, "reason": reason}], ""
    ridge = Ridge(x[known], fold)
    truth = replace(concept, values=values).columns()
    predicted = ridge.scores(truth)
    if not classes:
        ends = _r2(ridge.rows, truth, predicted, patients, job)
        return [_told(row, "R2", ends, 0.0)], ""
    samples = balanced(ridge.rows, values, predicted, patients, len(concept.classes))
    drawn = {"resamples": job.resamples, "seed": job.seed}
    figures = ["AUROC"] if len(concept.classes) == 2 else ["macro AUROC", "balanced accuracy"]
    rows = []
    for name in figures:
        mine = samples
        if name == "AUROC":
            mine = [Sample(one.labels, one.scores[:, 1], one.groups) for one in samples]
        ends = metric_interval(mine, METRICS[name], **drawn)
        level = 1 / len(concept.classes) if name == "balanced accuracy" else 0.5
        rows.append(_told(row, name, ends, level))
    if concept.name not in SHORTCUTS:
        return rows, ""
    best = float(str(rows[0]["value"]))
    rows[0]["p"] = p = chance_of(
        ridge, values, patients, best, concept.classes, job.draws, job.seed
    )
    told = None if labels is None else labels[known]
    return rows, alarm(features, concept, values, patients, rows[0], p, task, told)


def _usable(concept: Concept) -> tuple[Concept, NDArray[np.bool_]]:
    """Leave out classes of too few records, and all but the twenty largest."""
    if concept.kind != "classes":
        return concept, concept.known
    sizes = np.bincount(concept.values[concept.known].astype(int), minlength=len(concept.classes))
    large = [k for k in np.argsort(-sizes, kind="stable")[:_MOST_CLASSES] if sizes[k] >= _CLASS]
    kept = sorted(int(k) for k in large)
    values = np.full(len(concept.values), np.nan)
    for place, k in enumerate(kept):
        values[concept.values == k] = place
    left = Concept(concept.name, "classes", values, tuple(concept.classes[k] for k in kept))
    return left, left.known


def _too_little(concept: Concept, values: NDArray[np.float64], patients: NDArray[np.intp]) -> str:
    """Return why a concept cannot be probed, or nothing."""
    if concept.kind == "classes" and len(concept.classes) < 2:
        what = f"only {concept.classes[0]!r} has" if concept.classes else "no class has"
        return f"{what} {_CLASS} records or more; two classes are needed"
    if len(values) < _RECORDS:
        return f"{len(values)} records tell it; {_RECORDS} are needed"
    if len(np.unique(values)) < 2:
        return "it is the same for all records"
    few = len(np.unique(patients))
    return "" if few >= _CLASS else f"{few} patients; {_CLASS} are needed"


def _r2(
    rows: Sequence[NDArray[np.intp]],
    truth: NDArray[np.float64],
    predicted: NDArray[np.float64],
    patients: NDArray[np.intp],
    job: _Job,
) -> Interval:
    """Return the mean R² over folds, all columns together, with its interval over patients."""
    codes = np.unique(patients, return_inverse=True)[1]
    centred = truth - truth.mean(axis=0)
    missed = ((truth - predicted) ** 2).sum(axis=1)

    def statistic(counts: NDArray[np.integer[Any]]) -> NDArray[np.float64]:
        found = []
        for mine in rows:
            weight = counts[:, codes[mine]].astype(np.float64)
            n = np.maximum(weight.sum(axis=1), 1)
            spread = weight @ (centred[mine] ** 2).sum(axis=1)
            spread -= ((weight @ centred[mine]) ** 2).sum(axis=1) / n
            found.append(1 - weight @ missed[mine] / np.where(spread > 0, spread, np.nan))
        mean: NDArray[np.float64] = np.mean(found, axis=0)
        return mean

    found = bootstrap(statistic, int(codes.max()) + 1, resamples=job.resamples, seed=job.seed)
    return found if isinstance(found, Interval) else found[0]


def _told(row: dict[str, object], figure: str, ends: Interval, chance: float) -> dict[str, object]:
    numbers = {name: getattr(ends, name) for name in ("value", "low", "high")}
    told = {name: float(one) if np.isfinite(one) else None for name, one in numbers.items()}
    reason = ends.method if None in told.values() else None
    return {**row, "figure": figure, **told, "chance": chance, "reason": reason}
