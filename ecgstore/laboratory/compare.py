"""Comparison of runs: is one really better, on the same patients, and how sure is that?

See `ecgstore.statistics.pair` for the question that each p-value answers.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, get_args

import numpy as np

from ecgstore.catalog import Catalog
from ecgstore.errors import NotEnoughDataError, UnknownNameError, UsageError
from ecgstore.laboratory.samples import aligned, numbered_alike, samples_of
from ecgstore.predictions import predictions_of
from ecgstore.statistics.metrics import METRICS, reported
from ecgstore.statistics.multiple import Correction, adjusted
from ecgstore.statistics.pair import Draws, Pair, paired, unpaired
from ecgstore.statistics.verdict import sentence

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from ecgstore.predictions import Predictions
    from ecgstore.statistics.bootstrap import Sample
    from ecgstore.statistics.metrics import Metric
    from ecgstore.warehouse import Warehouse

__all__ = ["CompareResult", "Comparison", "compare"]


@dataclass(frozen=True)
class Comparison:
    """Two runs and their difference.

    Attributes:
        a: Id of the first run.
        b: Id of the second.
        names: What the two are called, as far as they differ.
        pair: The figures.
        p_adjusted: The quoted p-value, adjusted for the number of comparisons; NaN where there is
            none.
        sentence: What it says, in words.
    """

    a: str
    b: str
    names: tuple[str, str]
    pair: Pair
    p_adjusted: float
    sentence: str

    @property
    def row(self) -> dict[str, object]:
        """The comparison as a flat row; None where ``reason`` says why there is no figure."""
        pair = self.pair
        over, again, auroc = pair.over_patients, pair.over_reshuffles, pair.delong
        plain = {
            "value_a": pair.a,
            "value_b": pair.b,
            "difference": over.value,
            "low": over.low,
            "high": over.high,
            "low_reshuffles": again.interval.low if again else None,
            "high_reshuffles": again.interval.high if again else None,
            "p_corrected": again.p if again else None,
            "p_delong": auroc.p if auroc else None,
            "p_permutation": pair.permuted.p if pair.permuted else None,
            "p": pair.p,
            "p_adjusted": self.p_adjusted,
        }
        told = {name: None if x is None or math.isnan(x) else x for name, x in plain.items()}
        found = (over, again.interval if again else None, auroc.interval if auroc else None)
        lacking = [one.method for one in found if one and math.isnan(one.low)]
        return {
            "a": self.names[0],
            "b": self.names[1],
            **told,
            "quoted": pair.quoted or None,
            "method": over.method if math.isfinite(over.low) else None,
            "reason": "; ".join(dict.fromkeys(lacking)) or None,
            "run_a": self.a,
            "run_b": self.b,
        }


@dataclass(frozen=True)
class CompareResult:
    """What a `compare` call found; printed as a row a pair.

    Attributes:
        task: The task.
        metric: The figure compared.
        paired: Whether the runs were tested on the same records in the same reshuffles.
        reshuffles: Reshuffles compared.
        records: Records compared; where unpaired, of all runs together.
        patients: Their patients.
        level: Confidence level of the intervals, which are not adjusted.
        correction: How p-values were adjusted.
        comparisons: One a pair.
        notes: What to mind.
    """

    task: str
    metric: str
    paired: bool
    reshuffles: int
    records: int
    patients: int
    level: float
    correction: Correction
    comparisons: tuple[Comparison, ...]
    notes: tuple[str, ...] = ()

    @property
    def rows(self) -> list[dict[str, object]]:
        """One row a pair."""
        shared = {"metric": self.metric, "reshuffles": self.reshuffles}
        shared |= {"records": self.records, "patients": self.patients}
        return [{**one.row, **shared} for one in self.comparisons]

    @property
    def sentence(self) -> str:
        """One plain sentence a pair."""
        return "\n".join(one.sentence for one in self.comparisons)

    def __repr__(self) -> str:
        count = len(self.comparisons)
        kind = "paired" if self.paired else "unpaired"
        of = f"{self.records} records of {self.patients} patients"
        return f"CompareResult({self.task}, {self.metric}: {count} {kind} comparisons on {of})"

    def __str__(self) -> str:
        return "\n".join([self.sentence, *self.notes])

    def _repr_html_(self) -> str:
        from html import escape

        return "".join(f"<p>{escape(line)}</p>" for line in str(self).splitlines())


def compare(
    warehouse: Warehouse,
    runs: Sequence[str],
    *,
    metric: str | None = None,
    correction: Correction = "holm",
    resamples: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> CompareResult:
    """Compare runs on one task: two with each other, or the best of several with each of the rest.

    Runs over one split are compared record by record: those tested in the same reshuffle of every
    run, and no other. Runs over different splits are compared as strangers, and the notes say so.
    That the best of several is best was learned from the same records: its lead is a little
    flattered.

    The sentence quotes the corrected resampled t-test where there are several reshuffles, DeLong's
    test where there is one, and the permutation test where neither can be made; what each of them
    asks is told in `ecgstore.statistics.pair`.

    Args:
        warehouse: Where predictions are read.
        runs: Ids of runs that were evaluated, or beginnings of them.
        metric: Name of a metric; None takes the first that is reported for the task.
        correction: How p-values are adjusted when there are several: ``holm`` or ``bh``.
        resamples: Bootstrap resamples, and permutations.
        seed: Of both.
        level: Confidence level.

    Raises:
        UnknownNameError: No such run or metric.
        UsageError: Fewer than two runs, or runs that cannot be compared.
        NotEnoughDataError: No record was tested in all, or the metric is defined in no reshuffle.
    """
    _check(correction, resamples=resamples, level=level)
    draws = Draws(resamples, seed, level)
    with Catalog(warehouse.relations()) as catalog:
        found = numbered_alike(catalog, [predictions_of(catalog, one) for one in runs])
    ids = [one.run_id for one in found]
    twice = [one for one, count in Counter(ids).items() if count > 1]
    if len(ids) < 2 or twice:
        msg = f"The run {twice[0]!r} is named twice." if twice else "A comparison needs two runs."
        raise UsageError(msg, hint="Name two or more runs that differ.")
    chosen = _metric(found, metric)
    cohorts = _same(found, chosen) if len({o.split_id for o in found}) == 1 else _own(found, chosen)
    means = [_mean(run, chosen) for run in cohorts.samples]
    sign = 1 if chosen.better == "higher" else -1
    best = 0 if len(found) == 2 else int(np.argmax(sign * np.array(means)))
    others = [number for number in range(len(found)) if number != best]
    pairs = [_pair(cohorts, best, other, chosen, draws) for other in others]
    corrected = adjusted([one.p for one in pairs], correction)
    names = _names(found)
    said = [
        sentence(
            pair,
            (names[best], names[other]),
            chosen,
            p_adjusted=float(p),
            comparisons=len(pairs),
            correction=correction,
        )
        for other, pair, p in zip(others, pairs, corrected, strict=True)
    ]
    return CompareResult(
        task=found[0].task,
        metric=chosen.name,
        paired=cohorts.paired,
        reshuffles=len(cohorts.samples[0]),
        records=_distinct(place for run in cohorts.records for place in run),
        patients=_distinct(one.groups for run in cohorts.samples for one in run),
        level=level,
        correction=correction,
        comparisons=tuple(
            Comparison(ids[best], ids[other], (names[best], names[other]), pair, float(p), words)
            for other, pair, p, words in zip(others, pairs, corrected, said, strict=True)
        ),
        notes=cohorts.notes,
    )


@dataclass(frozen=True, eq=False)
class _Cohorts:
    """What is compared: by run and reshuffle, samples on which the metric is defined."""

    paired: bool
    samples: list[list[Sample]]
    records: list[list[NDArray[np.intp]]]
    test_to_train: float
    notes: tuple[str, ...]


def _same(runs: Sequence[Predictions], metric: Metric) -> _Cohorts:
    """Return what was tested in every run over one split."""
    common = aligned(runs)
    task = runs[0].task
    if common.changed:
        msg = f"The label of {common.changed} records was changed between the runs."
        raise UsageError(msg, hint="Evaluate again what is older, and compare the new runs.")
    if not any(map(len, common.records)):
        msg = "No record was tested in all of these runs."
        raise NotEnoughDataError(msg, task=task)
    kept = [
        number
        for number in range(len(common.records))
        if all(_defined(run[number], metric) for run in common.samples)
    ]
    notes = []
    if common.left_out:
        notes.append(f"{common.left_out} records were not tested in every run and are left out.")
    notes += _undefined(len(common.records) - len(kept), len(common.records), metric, task)
    records = [common.records[number] for number in kept]
    trained = sum(common.n_train[number] for number in kept)
    return _Cohorts(
        paired=True,
        samples=[[run[number] for number in kept] for run in common.samples],
        records=[records] * len(runs),
        test_to_train=sum(map(len, records)) / trained if trained else math.nan,
        notes=tuple(notes),
    )


def _own(runs: Sequence[Predictions], metric: Metric) -> _Cohorts:
    """Return what each run over a split of its own was tested on."""
    splits = ", ".join(repr(one) for one in dict.fromkeys(run.split_id for run in runs))
    notes = [f"The runs are over different splits ({splits}), so they are compared unpaired."]
    ids = sorted({one for run in runs for one in run.record_ids})
    samples, records = [], []
    for run in runs:
        code = np.searchsorted(np.array(ids, dtype=object), run.record_ids)
        pairs = [
            (one, code[part.test])
            for one, part in zip(samples_of(run), run.parts, strict=True)
            if _defined(one, metric)
        ]
        notes += _undefined(len(run.parts) - len(pairs), len(run.parts), metric, run.task)
        samples.append([one for one, _ in pairs])
        records.append([place for _, place in pairs])
    patients = [set(np.concatenate([one.groups for one in run]).tolist()) for run in samples]
    shared = len(set.intersection(*patients))
    if shared:
        notes.append(f"{shared} patients were tested in all; DeLong's test is too cautious then.")
    return _Cohorts(
        paired=False, samples=samples, records=records, test_to_train=math.nan, notes=tuple(notes)
    )


def _undefined(lost: int, of: int, metric: Metric, task: str) -> list[str]:
    """Return a note on reshuffles that are left out."""
    if lost == of:
        msg = f"{metric.name} is not defined on the test part of any reshuffle."
        raise NotEnoughDataError(msg, task=task, hint="Every class must occur among them.")
    one = f"{lost} of {of} reshuffles are left out: {metric.name} is not defined on them."
    return [one] if lost else []


def _pair(cohorts: _Cohorts, one: int, other: int, metric: Metric, draws: Draws) -> Pair:
    a, b = cohorts.samples[one], cohorts.samples[other]
    if cohorts.paired:
        ratio = cohorts.test_to_train
        return paired(a, b, cohorts.records[one], metric, test_to_train=ratio, draws=draws)
    return unpaired(a, b, (cohorts.records[one], cohorts.records[other]), metric, draws=draws)


def _check(correction: str, *, resamples: int, level: float) -> None:
    if correction not in get_args(Correction):
        raise UnknownNameError(correction, kind="correction", known=get_args(Correction))
    if resamples < 1 or not 0 < level < 1:
        msg = f"{resamples} resamples at level {level:g} make no interval."
        raise UsageError(msg, hint="Ask for some 2000 resamples, at a level such as 0.95.")


def _metric(runs: Sequence[Predictions], name: str | None) -> Metric:
    """Return the metric to compare by; all runs must be on one task."""
    for what in ("task", "target"):
        told = dict.fromkeys(str(getattr(one, what)) for one in runs)
        if len(told) > 1:
            msg = f"The runs differ in their {what}: {', '.join(map(repr, told))}."
            raise UsageError(msg, hint="Compare runs on one task.")
    target = runs[0].target
    if name is None:
        return reported(target)[0]
    known = {one.name.casefold(): one for one in METRICS.values() if target in one.targets}
    if name.casefold() not in known:
        names = [one.name for one in known.values()]
        raise UnknownNameError(name, kind="metric", known=names)
    return known[name.casefold()]


def _defined(sample: Sample, metric: Metric) -> bool:
    return bool(len(sample.labels)) and math.isfinite(_value(sample, metric))


def _value(sample: Sample, metric: Metric) -> float:
    return float(metric.of(sample.labels, sample.scores, None)[0])


def _mean(samples: Sequence[Sample], metric: Metric) -> float:
    return float(np.mean([_value(one, metric) for one in samples]))


def _distinct(numbers: Iterable[NDArray[np.intp]]) -> int:
    return len(np.unique(np.concatenate(list(numbers))))


def _names(runs: Sequence[Predictions]) -> list[str]:
    """Return the shortest names that tell runs apart: features, classifier, split, id."""
    ways = (
        [run.features for run in runs],
        [f"{run.features} ({run.classifier})" for run in runs],
        [f"{run.features} ({run.classifier}, {run.split_id})" for run in runs],
    )
    ids = [f"{run.features} ({run.run_id})" for run in runs]
    return next((names for names in ways if len(set(names)) == len(runs)), ids)
