"""Evaluation: how well each feature set separates the classes on records it was not fitted on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ecgstore.catalog import Catalog
from ecgstore.classifiers import classifiers, read_settings
from ecgstore.errors import NotEnoughDataError, SplitTakenError, UsageError
from ecgstore.features import SIGNAL
from ecgstore.feed import build
from ecgstore.leakage import cautions
from ecgstore.progress import Progress, Silent
from ecgstore.protocols import PROTOCOLS
from ecgstore.runs import check_reads, pinned, prepare
from ecgstore.scored import EvaluateResult, Score
from ecgstore.scoring import Scorer
from ecgstore.splitting.split import Reshuffle, reshuffles, split
from ecgstore.tasks import expand
from ecgstore.terms import Terms, terms_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ecgstore.classifiers import Classifier, Setting
    from ecgstore.tasks import Target
    from ecgstore.warehouse import Warehouse

__all__ = ["Drawing", "evaluate"]

_FEW = 10
"""Fewer patients of a class than this are told of."""


@dataclass(frozen=True)
class Drawing:
    """How an evaluation draws the split of a protocol itself.

    Attributes:
        repeats: Reshuffles.
        test_size: Part to test on.
        seed: Seed of the draw.
    """

    repeats: int = 10
    test_size: float = 0.2
    seed: int = 0


def evaluate(
    warehouse: Warehouse,
    features: Sequence[str],
    split_id: str | None = None,
    *,
    protocols: Sequence[str] = (),
    tasks: Sequence[str] = (),
    target: Target | None = None,
    drawing: Drawing | None = None,
    only: Sequence[int] = (),
    classifier: str = "xgboost",
    baseline: str | None = None,
    params: Mapping[str, object] | None = None,
    out_of_fold: int | None = None,
    tune: float = 0,
    dry_run: bool = False,
    progress: Progress | None = None,
) -> EvaluateResult:
    """Score feature sets on the test part of each reshuffle of a split.

    The split is named, or drawn under one protocol or several; see `ecgstore.protocols`.
    Everything is fitted on training records only. Predictions that are stored are used; missing
    ones are made, and stored, though not their classifiers. Each reshuffle is committed when it is
    done, so an interrupted call goes on where it was, and a second call changes nothing. Beside
    each score stands what is known of its models' pretraining; see `ecgstore.leakage`.

    Args:
        warehouse: Where features and labels are read and results are written.
        features: Feature sets; ``signal`` for a classifier that reads the ECG itself.
        split_id: Name of a split; None draws one for `tasks` under each protocol.
        protocols: ``sound`` (the default without a split), ``paper``, or both.
        tasks: Tasks or patterns such as ``scp:*``; with a split, default those it was drawn for.
        target: What the labels say; default what the split was drawn for, or they look like.
        drawing: How a protocol draws.
        only: Reshuffles to score on, all by default. Weights that were finetuned on the training
            part of one can be scored on no other.
        classifier: Name of a classifier, used on every feature set.
        baseline: A classifier on signals to score besides: ``resnet50``.
        params: Settings that differ from the defaults, as ``key`` for the classifier or
            ``resnet50.key`` for the baseline; text is converted.
        out_of_fold: Inner folds by which training records are scored as well, for thresholds and
            recalibration that never see a test record; default what the protocol says, 0 for none.
        tune: Seconds to look for better settings in each reshuffle's training part; 0 for none.
        dry_run: Count and write nothing.
        progress: Told of every step.

    Raises:
        UnknownNameError: No such feature set, task, split, protocol or classifier.
        UsageError: A setting is unknown or cannot be used, a classifier does not take the
            features or the target, or weights were finetuned on records under test.
        NotEnoughDataError: Part of a reshuffle lacks a class.
    """
    progress = progress or Silent()
    names = [features] if isinstance(features, str) else list(features)
    plan = dict.fromkeys((name, classifier) for name in names)
    if baseline is not None:
        plan[SIGNAL, baseline] = None
    if not plan:
        msg = "Nothing to evaluate: name a feature set or a baseline."
        raise UsageError(msg)
    kinds = {
        name: classifiers.get(name) for name in (classifier, *([baseline] if baseline else []))
    }
    chosen = dict(zip(kinds, read_settings(list(kinds.values()), params), strict=True))
    for name, kind in plan:
        check_reads(kinds[kind], name)
    job = _Job(
        warehouse,
        list(plan),
        kinds,
        chosen,
        target,
        tuple(only),
        out_of_fold,
        tune,
        dry_run,
        progress,
    )
    splits = _splits(job, split_id, protocols, tasks, drawing or Drawing())
    scores: list[Score] = []
    notes: list[str] = []
    for name, would_be in splits.items():
        if would_be is not None:
            scores += would_be
            continue
        found, told = job.over(name, tasks if split_id is not None else ())
        scores += found
        notes += told
    marks = dict.fromkeys(mark for score in scores for mark in score.marks)
    notes = [*dict.fromkeys(notes), *_gap(scores), *cautions(marks)]
    for note in notes:
        progress.note(note)
    named = ", ".join(dict.fromkeys(score.task for score in scores))
    return EvaluateResult(list(splits)[-1], named, tuple(scores), tuple(notes))


def _splits(
    job: _Job,
    split_id: str | None,
    protocols: Sequence[str],
    tasks: Sequence[str],
    drawing: Drawing,
) -> dict[str, list[Score] | None]:
    """Return the splits to score over; in a dry run, what one yet to be drawn would give."""
    if split_id is not None:
        if protocols:
            msg = "A protocol draws its own split; give a split or protocols, not both."
            raise UsageError(msg)
        return {split_id: None}
    if not tasks:
        msg = "Name the task to evaluate, or a split."
        raise UsageError(msg, hint="Write it as --task MI, or --split NAME.")
    splits: dict[str, list[Score] | None] = {}
    for protocol in protocols or ("sound",):
        if protocol not in PROTOCOLS:
            msg = f"Unknown protocol {protocol!r}; known: {', '.join(PROTOCOLS)}."
            raise UsageError(msg)
        name, records = _drawn(job, protocol, tasks, drawing)
        splits[name] = None
        if records is not None:
            splits[name] = [
                Score("", features, kind, records, {}, {}, drawing.repeats, (), task)
                for task in tasks
                for features, kind in job.plan
            ]
    return splits


def _drawn(
    job: _Job, protocol: str, tasks: Sequence[str], drawing: Drawing
) -> tuple[str, int | None]:
    """Draw the split of a protocol, or find it drawn.

    Its name is the protocol and the task; when more records were labelled since, or other settings
    are asked for, a number is added, for a split is never changed.

    Returns:
        The name, and in a dry run of a split that is not there how many records it would hold.
    """
    with Catalog(job.warehouse.relations()) as catalog:
        rows = catalog.table("select distinct split_id from splits")
        known = set(rows["split_id"].to_pylist())
    base = f"{protocol}-{'+'.join(tasks)}"
    number = 1
    while True:
        name = base if number == 1 else f"{base}-{number}"
        try:
            result = split(
                job.warehouse,
                name,
                task=list(tasks),
                repeats=drawing.repeats,
                test_size=drawing.test_size,
                seed=drawing.seed,
                group=PROTOCOLS[protocol].group,
                protocol=protocol,
                target=job.target,
                dry_run=job.dry_run,
            )
        except SplitTakenError:
            number += 1
            continue
        there = name in known or not job.dry_run
        return name, None if there else result.records


@dataclass(frozen=True)
class _Job:
    """What is asked of every split."""

    warehouse: Warehouse
    plan: list[tuple[str, str]]
    kinds: Mapping[str, type[Classifier]]
    chosen: Mapping[str, Mapping[str, Setting]]
    target: Target | None
    only: tuple[int, ...]
    out_of_fold: int | None
    tune: float
    dry_run: bool
    progress: Progress

    def over(self, split_id: str, tasks: Sequence[str]) -> tuple[list[Score], list[str]]:
        """Score everything over one split: scores, and what to mind when comparing them."""
        names = [name for name, _ in self.plan]
        past = pinned(self.warehouse, names, split_id, dry_run=self.dry_run)
        if not self.dry_run and SIGNAL in names:
            build(past, progress=self.progress)
        scores: list[Score] = []
        notes: list[str] = []
        with Catalog(past.relations()) as catalog:
            terms = terms_of(catalog, split_id)
            parts = reshuffles(catalog, split_id)
            each = expand(catalog, tasks) if tasks else terms.tasks(catalog)
            if not self.dry_run:
                folds = len(set(self.only)) or len(parts)
                self.progress.start(len(each) * folds * self._steps(terms), "steps")
            for task in each:
                try:
                    found = self._task(past, catalog, parts, task, terms)
                except NotEnoughDataError as error:
                    if len(each) == 1:
                        raise
                    notes.append(f"{task} is left out: {error.message}")
                    continue
                notes += _uneven(found)
                scores += found
        if not scores:
            msg = f"None of the {len(each)} tasks of {terms.task!r} can be scored: {notes[0]}"
            raise NotEnoughDataError(msg, task=terms.task)
        return scores, notes

    def _task(
        self,
        past: Warehouse,
        catalog: Catalog,
        parts: Sequence[Reshuffle],
        task: str,
        terms: Terms,
    ) -> list[Score]:
        """Score every feature set at one task; all are read first, so that an error comes early."""
        runs = [
            prepare(
                past,
                catalog,
                name,
                parts,
                self.kinds[kind],
                self.chosen[kind],
                task=task,
                target=self.target,
                tune=self.tune,
                only=self.only,
            )
            for name, kind in self.plan
        ]
        return [
            Scorer(
                self.warehouse,
                catalog,
                past.versions(),
                protocol=terms.protocol,
                folds=self._folds(terms, run.kind),
                tune=self.tune,
                dry_run=self.dry_run,
                progress=self.progress,
            ).score(run)
            for run in {run.run_id: run for run in runs}.values()
        ]

    def _steps(self, terms: Terms) -> int:
        """Return the steps of a reshuffle, as far as they are known before anything is read."""
        return sum(
            self.kinds[kind](self.chosen[kind]).steps * (1 + self._folds(terms, self.kinds[kind]))
            for _, kind in self.plan
        )

    def _folds(self, terms: Terms, kind: type[Classifier]) -> int:
        """Return the inner folds for scores out of fold; a network on signals has none unasked."""
        if self.out_of_fold is not None:
            return self.out_of_fold
        if kind.reads == "signal" or not terms.protocol:
            return 0
        return PROTOCOLS[terms.protocol].folds


def _uneven(scores: Sequence[Score]) -> list[str]:
    """Say what was left out, what is too little, and what was scored on different records."""
    notes = [
        f"{score.task}: only {score.least} patients of the smaller class; figures over so few say "
        "little."
        for score in scores[:1]
        if score.least is not None and score.least < _FEW
    ]
    notes += [
        f"{score.features}: {sum(score.left_out.values())} of the split's records left out ("
        + ", ".join(f"{count} {reason}" for reason, count in score.left_out.items())
        + ")."
        for score in scores
        if score.left_out
    ]
    if len({score.records for score in scores}) > 1:
        notes.append("The feature sets were scored on different records; compare with care.")
    return notes


def _gap(scores: Sequence[Score]) -> list[str]:
    """Say how much better a feature set looks under the published protocol than under the sound."""
    found: dict[tuple[str, str, str], dict[str, Score]] = {}
    for score in scores:
        found.setdefault((score.task, score.features, score.classifier), {})[score.protocol] = score
    notes = []
    for (task, features, _), by in found.items():
        if {"paper", "sound"} <= by.keys() and all(one.values for one in by.values()):
            metric = by["sound"].metrics[0]
            means = {name: float(np.mean(one.values[metric])) for name, one in by.items()}
            notes.append(
                f"Optimism gap of {features} at {task}: {metric} {means['paper']:.3f} under the "
                f"paper's protocol, {means['sound']:.3f} under the sound one "
                f"({means['paper'] - means['sound']:+.3f})."
            )
    return notes
