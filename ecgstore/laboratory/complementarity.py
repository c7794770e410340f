"""Complementarity: what several models add to each other, and whether fusing them pays.

Two models can only complement each other if they see different things (alignment of their vectors)
and err on different records (overlap of their errors); how much of that a fused set takes up is
told by what it loses when a model is left out.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, replace
from shlex import quote
from typing import TYPE_CHECKING

import numpy as np

from ecgstore.catalog import Catalog
from ecgstore.errors import EcgStoreError, UsageError
from ecgstore.features import CONCATENATION, SIGNAL, FeatureSet, feature_set, matrix
from ecgstore.laboratory.gains import block_gains
from ecgstore.laboratory.samples import samples_of
from ecgstore.laboratory.shared_errors import aligned, oracle_interval, overlap_intervals, right_of
from ecgstore.predictions import predictions_of, run_named
from ecgstore.statistics.bootstrap import paired_interval
from ecgstore.statistics.metrics import reported
from ecgstore.statistics.similarity import linear_cka

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ecgstore.predictions import Predictions
    from ecgstore.statistics.interval import Interval
    from ecgstore.warehouse import Warehouse

__all__ = ["ComplementarityResult", "Figure", "complementarity"]


@dataclass(frozen=True)
class Figure:
    """One figure of complementarity.

    Attributes:
        name: ``CKA``, ``double fault``, ``error overlap``, ``Q statistic``, ``kappa``, ``oracle``,
            ``contribution``, ``over best single`` or ``gain``.
        of: The model, or both models, it is about.
        value: The figure; None where it cannot be told, and `note` says why.
        low: Lower end of its 95 % interval over patients; None where it has none.
        high: Upper end.
        records: Records it was taken over.
        note: What to know when reading it.
    """

    name: str
    of: str
    value: float | None
    low: float | None = None
    high: float | None = None
    records: int | None = None
    note: str = ""


@dataclass(frozen=True)
class ComplementarityResult:
    """What several models add to each other.

    Attributes:
        split_id: The split.
        task: Its task.
        features: The single models.
        fused: The fused feature set.
        metric: The metric of ``contribution``.
        figures: All figures, by subject.
    """

    split_id: str
    task: str
    features: tuple[str, ...]
    fused: str
    metric: str
    figures: tuple[Figure, ...]

    @property
    def rows(self) -> list[dict[str, object]]:
        """One row a figure."""
        return [
            {
                "figure": one.name,
                "of": one.of,
                "value": one.value,
                "low": one.low,
                "high": one.high,
                "records": one.records,
                "note": one.note,
            }
            for one in self.figures
        ]

    def __repr__(self) -> str:
        models = ", ".join(self.features)
        return f"ComplementarityResult({self.fused!r} of {models} over {self.split_id!r})"

    def _repr_html_(self) -> str:
        from html import escape

        body = "".join(
            f"<tr><td>{escape(one.name)}</td><td>{escape(one.of)}</td>"
            f"<td>{'' if one.value is None else f'{one.value:.3f}'}</td></tr>"
            for one in self.figures
        )
        return f"<table><tr><th>figure</th><th>of</th><th>value</th></tr>{body}</table>"


def complementarity(
    warehouse: Warehouse,
    split_id: str,
    *,
    features: Sequence[str],
    fused: str,
    task: str | None = None,
    classifier: str | None = None,
    resamples: int = 2000,
    seed: int = 0,
) -> ComplementarityResult:
    """Tell what each model adds to the others; see the guide of each figure in `Figure`.

    Runs must have been evaluated over the split: each model alone, and the fused set. A record is
    wrong when it is on the other side of a threshold than its label: Youden's on out-of-fold
    scores of training records where the run has them, else the prevalence; with several classes,
    when another class is likelier. Records of all reshuffles are pooled; intervals draw patients.

    Args:
        warehouse: Read only.
        split_id: The split.
        features: The single models.
        fused: The fused feature set, or a run of it.
        task: Of a split with several tasks, which; None takes that of the newest run of the set.
        classifier: Which classifier's runs; None takes that of the newest run of the fused set.
        resamples: Bootstrap resamples.
        seed: Their seed.

    Raises:
        UnknownNameError: There is no such feature set or run.
        UsageError: Fewer than two models were named, one is not single, or a run is missing; the
            hint says which command makes it.
        NotEnoughDataError: No record has scores of all models.
    """
    names = list(dict.fromkeys([features] if isinstance(features, str) else features))
    if len(names) < 2:
        msg = f"{len(names)} model was named; complementarity is between two or more."
        raise UsageError(msg)
    with Catalog(warehouse.relations()) as catalog:
        sets = {name: _single(catalog, name) for name in names}
        whole = _fused_run(catalog, fused, split_id, classifier, task)
        alone = {name: _run(catalog, name, whole) for name in names}
        draws: dict[str, int] = {"resamples": resamples, "seed": seed}
        figures = [
            *_alignments(catalog, sets, split_id),
            *_overlaps(alone, **draws),
            *_contributions(catalog, whole, sets, alone, **draws),
            *_gains(catalog, whole),
        ]
    return ComplementarityResult(
        split_id=split_id,
        task=whole.task,
        features=tuple(names),
        fused=whole.features,
        metric=reported(whole.target)[0].name,
        figures=tuple(figures),
    )


def _single(catalog: Catalog, name: str) -> FeatureSet:
    one = feature_set(catalog, name)
    if len(one.members) > 1:
        msg = f"{name!r} joins {len(one.members)} models; a single one was expected."
        raise UsageError(msg, hint="Give the fused set with fused, and its models one by one.")
    return one


def _fused_run(
    catalog: Catalog, fused: str, split_id: str, classifier: str | None, task: str | None
) -> Predictions:
    found = _newest(catalog, fused, split_id, classifier, task)
    if found is None:
        try:
            whole = predictions_of(catalog, run_named(catalog, fused))
        except EcgStoreError:
            feature_set(catalog, fused)  # an unknown name is told as such
            raise _not_evaluated(fused, split_id, classifier, task) from None
    else:
        whole = predictions_of(catalog, found)
    if whole.split_id != split_id:
        msg = f"The run {whole.run_id!r} is over the split {whole.split_id!r}, not {split_id!r}."
        raise UsageError(msg)
    return whole


def _run(catalog: Catalog, name: str, like: Predictions) -> Predictions:
    """Read the newest run of a feature set with the classifier, split and task of another."""
    found = _newest(catalog, name, like.split_id, like.classifier, like.task, like=like.run_id)
    if found is None:
        raise _not_evaluated(name, like.split_id, like.classifier, like.task)
    return predictions_of(catalog, found)


def _newest(
    catalog: Catalog,
    name: str,
    split_id: str,
    classifier: str | None,
    task: str | None,
    *,
    like: str = "",
) -> str | None:
    """Return the newest run; one with the settings of a run it is to be `like` comes first."""
    rows = catalog.table(
        "select run_id from scores where features = $name and split_id = $split "
        "and ($classifier is null or classifier = $classifier) "
        "and ($task is null or task = $task) group by run_id "
        "order by any_value(params) is not distinct from "
        "(select any_value(params) from scores where run_id = $model) desc, "
        'max("at") desc, run_id limit 1',
        {
            "name": name,
            "split": split_id,
            "classifier": classifier,
            "task": task,
            "model": like,
        },
    )
    return rows["run_id"][0].as_py() if len(rows) else None


def _not_evaluated(
    name: str, split_id: str, classifier: str | None, task: str | None
) -> UsageError:
    how = f" with {classifier}" if classifier else ""
    option = f" --classifier {classifier}" if classifier else ""
    option += f" --task {quote(task)}" if task else ""
    msg = f"{name!r} was not evaluated over the split {split_id!r}{how}."
    hint = f"Do it with: ecgstore evaluate --features {name} --split {split_id}{option}"
    return UsageError(msg, hint=hint)


def _alignments(catalog: Catalog, sets: Mapping[str, FeatureSet], split_id: str) -> list[Figure]:
    """Return the alignment of each pair of models over the records of the split that have both."""
    rows = catalog.table(
        "select distinct record_id from splits where split_id = $split", {"split": split_id}
    )
    wanted = rows["record_id"].to_pylist()
    figures = []
    for (a, first), (b, second) in itertools.combinations(sets.items(), 2):
        ids, blocks = matrix(catalog, [*first.members, *second.members], wanted)
        value = linear_cka(*blocks)
        note = "the vectors of one model are all alike" if math.isnan(value) else ""
        figures.append(Figure("CKA", f"{a} × {b}", _told(value), records=len(ids), note=note))
    return figures


def _overlaps(alone: Mapping[str, Predictions], *, resamples: int, seed: int) -> list[Figure]:
    """Return how far the errors of the models overlap, and the bound of an oracle."""
    target = next(iter(alone.values())).target
    if target not in ("binary", "multiclass"):
        why = f"a {target} target is not right or wrong"
        return [Figure("error overlap", " × ".join(alone), None, note=why)]
    right, patients = right_of(list(alone.values()))
    figures = []
    for (i, a), (j, b) in itertools.combinations(enumerate(alone), 2):
        found = overlap_intervals(right[:, [i, j]], patients, resamples=resamples, seed=seed)
        expected = np.prod(1 - right[:, [i, j]].mean(axis=0))
        notes = {"double fault": f"{expected:.3f} were expected of independent errors"}
        figures += [
            _figure(name, f"{a} × {b}", one, len(right), notes.get(name, ""))
            for name, one in found.items()
        ]
    best, most = max(zip(alone, right.mean(axis=0), strict=True), key=lambda one: float(one[1]))
    note = f"share that one model at least gets right; {best} alone {most:.3f}"
    found_oracle = oracle_interval(right, patients, resamples=resamples, seed=seed)
    return [*figures, _figure("oracle", " + ".join(alone), found_oracle, len(right), note)]


def _gains(catalog: Catalog, whole: Predictions) -> list[Figure]:
    """Return the share of each model in the gain of the classifier's splits."""
    try:
        shares = block_gains(catalog, whole)
    except UsageError as error:
        note = " ".join(filter(None, (error.message, error.hint)))
        return [Figure("gain", whole.features, None, note=note)]
    return [
        Figure(
            "gain",
            member,
            float(np.mean(found)),
            note=f"mean share of {len(found)} reshuffles, {min(found):.3f} to {max(found):.3f}",
        )
        for member, found in shares.items()
    ]


def _contributions(
    catalog: Catalog,
    whole: Predictions,
    sets: Mapping[str, FeatureSet],
    alone: Mapping[str, Predictions],
    *,
    resamples: int,
    seed: int,
) -> list[Figure]:
    """Return what the fused set loses without each model, and what it gains on the best."""
    metric = reported(whole.target)[0]

    def gained(name: str, of: str, other: Predictions, how: str) -> Figure:
        mine, theirs = aligned([whole, other])
        found = paired_interval(mine, theirs, metric, resamples=resamples, seed=seed)
        records = sum(len(one.labels) for one in mine)
        with_, without = (
            float(np.mean([metric.of(one.labels, one.scores, None)[0] for one in part]))
            for part in (mine, theirs)
        )
        note = f"{metric.name} {with_:.3f}, {how} {without:.3f}"
        return _figure(name, of, found, records, note)

    fused = feature_set(catalog, whole.features)
    figures = []
    for name, one in sets.items():
        if one.members[0] not in fused.members:
            why = f"{whole.features} does not contain it"
            figures.append(Figure("contribution", name, None, note=why))
            continue
        rest = replace(fused, members=tuple(m for m in fused.members if m != one.members[0]))
        if not rest.members:
            why = f"{whole.features} has no other model"
            figures.append(Figure("contribution", name, None, note=why))
            continue
        other = _run_of_members(catalog, rest, whole)
        if other is None:
            models = " ".join(map(str, rest.members))
            new = f"{whole.features}-without-{one.members[0].model}"
            how = f" --method {fused.method}" if fused.method != CONCATENATION else ""
            why = f"no run without it; make one with: ecgstore fuse {models} --name {new}{how} && "
            why += f"ecgstore evaluate --features {new} --split {whole.split_id}"
            why += f" --classifier {whole.classifier}"
            figures.append(Figure("contribution", name, None, note=why))
        else:
            figures.append(gained("contribution", name, other, "without it"))
    values = {
        name: np.mean([metric.of(one.labels, one.scores, None)[0] for one in samples_of(run)])
        for name, run in alone.items()
    }
    best = max(values, key=lambda name: float(np.nan_to_num(values[name], nan=-np.inf)))
    return [*figures, gained("over best single", whole.features, alone[best], f"{best} alone")]


def _run_of_members(catalog: Catalog, wanted: FeatureSet, like: Predictions) -> Predictions | None:
    """Return a run of a set with these members; of several members, joined in the same way."""
    names = catalog.table(
        "select distinct features from scores where split_id = $split and features <> $signal "
        "order by features",
        {"split": like.split_id, "signal": SIGNAL},
    )["features"].to_pylist()
    for name in names:
        try:
            one = feature_set(catalog, name)
        except EcgStoreError:  # its vectors are gone, or its name has come to mean several
            continue
        same = len(wanted.members) == 1 or (one.method, one.scale) == (wanted.method, wanted.scale)
        if set(one.members) == set(wanted.members) and same:
            found = _newest(
                catalog, name, like.split_id, like.classifier, like.task, like=like.run_id
            )
            if found is not None:
                return predictions_of(catalog, found)
    return None


def _told(value: float) -> float | None:
    return None if math.isnan(value) else value


def _figure(name: str, of: str, found: Interval, records: int, note: str) -> Figure:
    """Make a figure of an interval; what has no value or no interval says why."""
    if math.isnan(found.low):
        note = "; ".join(part for part in (note, f"no interval: {found.method}") if part)
    return Figure(name, of, _told(found.value), _told(found.low), _told(found.high), records, note)
