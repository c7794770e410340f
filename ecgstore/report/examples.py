"""Twelve ECGs of the best run: where it is surest, and right or wrong, drawn on paper."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

import numpy as np

from ecgstore.errors import EcgStoreError
from ecgstore.explain.drawing import svg_of
from ecgstore.explain.record import explain_record
from ecgstore.report.page import Html, figure, join, note, section, tag
from ecgstore.report.summary import name_of
from ecgstore.statistics.operating import threshold_of_youden
from ecgstore.stored import stored_record

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from ecgstore.explain.attribution import Attribution
    from ecgstore.predictions import Predictions
    from ecgstore.report.study import Study
    from ecgstore.warehouse import Warehouse

__all__ = ["KINDS", "Example", "Examples", "examples", "examples_chapter"]

_EACH = 3
"""ECGs of each kind."""

_TREES = "xgboost"
"""The classifier that needs no look into PyTorch to know that it has no gradient."""

KINDS = {
    "true positive": "rightly called positive; of these, the highest scores",
    "false positive": "wrongly called positive; of these, the highest scores",
    "false negative": "wrongly called negative; of these, the lowest scores",
    "true negative": "rightly called negative; of these, the lowest scores",
}
"""The kinds of decision, in the order they are shown, and which of each are shown."""


@dataclass(frozen=True)
class Example:
    """One ECG, drawn.

    Attributes:
        record_id: Its key.
        kind: One of `KINDS`.
        score: Mean of its scores over the repeats that tested it.
        label: Its label.
        tests: How many repeats tested it.
        picture: The ECG on paper as inline SVG.
        attributed: Whether it shows what raises and what lowers the score.
    """

    record_id: str
    kind: str
    score: float
    label: float
    tests: int
    picture: str
    attributed: bool


@dataclass(frozen=True)
class Examples:
    """Up to twelve ECGs of a run.

    Attributes:
        run_id: The run.
        threshold: Scores from here on are called positive.
        rule: Where the threshold is from.
        counts: Kind to how many tested records are of it.
        shown: The ECGs, three of each kind where there are so many.
        unattributed: Why some show no attribution; empty where all do.
    """

    run_id: str
    threshold: float
    rule: str
    counts: dict[str, int]
    shown: tuple[Example, ...]
    unattributed: str


def examples(warehouse: Warehouse, predictions: Predictions) -> Examples:
    """Choose and draw up to three ECGs of each kind of decision.

    The score of a record is the mean over the repeats that tested it. Of those called positive the
    highest scores are shown, of those called negative the lowest; equal ones by their id.

    Raises:
        WarehouseError: A waveform is not there.
        UsageError: A record has no leads.
    """
    rows = np.concatenate([part.test for part in predictions.parts])
    scores = np.concatenate([part.scores for part in predictions.parts])
    tests = np.bincount(rows, minlength=len(predictions.record_ids))
    total = np.bincount(rows, scores, len(predictions.record_ids))
    tested = np.flatnonzero(tests)
    mean = total[tested] / tests[tested]
    labels = predictions.labels[tested]
    threshold, rule = _threshold(predictions, labels)
    called, counts, shown = mean >= threshold, {}, []
    for kind in KINDS:
        right, side = kind.split()
        positive = side == "positive"
        is_positive = positive == (right == "true")
        chosen = np.flatnonzero((called == positive) & ((labels == 1) == is_positive))
        counts[kind] = len(chosen)
        order = np.lexsort((chosen, -mean[chosen] if positive else mean[chosen]))
        shown += [(kind, place) for place in chosen[order[:_EACH]]]
    drawn = []
    why = "Trees have no gradient." if predictions.classifier == _TREES else ""
    for kind, place in shown:
        record_id = str(predictions.record_ids[tested[place]])
        record, attribution = stored_record(warehouse, record_id), None
        if not why:  # what one cannot be given, the others cannot either
            try:
                attribution = _attribution(warehouse, predictions, int(tested[place]))
            except EcgStoreError as error:
                why = error.message
        drawn.append(
            Example(
                record_id=record_id,
                kind=kind,
                score=float(mean[place]),
                label=float(labels[place]),
                tests=int(tests[tested[place]]),
                picture=svg_of(record, attribution),
                attributed=attribution is not None,
            )
        )
    return Examples(predictions.run_id, threshold, rule, counts, tuple(drawn), why)


def _attribution(warehouse: Warehouse, predictions: Predictions, place: int) -> Attribution:
    """Explain the score by the first repeat that tested the record, on the CPU, without weights.

    Only gradients are asked for: occlusion takes minutes for an ECG.
    """
    repeat = next(part.repeat for part in predictions.parts if place in part.test)
    record_id = str(predictions.record_ids[place])
    return explain_record(
        warehouse, predictions.run_id, record_id, method="gradients", repeat=repeat, device="cpu"
    ).attribution


def examples_chapter(study: Study) -> Html | None:
    """Show the ECGs on paper; None where there is nobody to show."""
    found = study.examples
    if found is None or study.best is None:
        return None
    if isinstance(found, str):
        return section("examples", "Twelve ECGs", note("Not drawn.", found))
    best = name_of(study.best, study)
    parts: list[object] = [
        tag(
            "p",
            f"Records that {best} was tested on. A score from {found.threshold:.3f} on is called "
            f"positive: {found.rule}. A record's score is the mean over the repeats that tested "
            "it. Nothing is filtered; 25 mm/s, 10 mm/mV.",
        ),
        _attributed(found),
    ]
    for kind, words in KINDS.items():
        mine = [one for one in found.shown if one.kind == kind]
        parts.append(tag("h3", f"{kind.capitalize()}s"))
        parts.append(tag("p", f"{found.counts[kind]:,} records {words}.", class_="foot"))
        parts.append(tag("div", *(_drawn(one, study) for one in mine), class_="stack"))
    return section("examples", "Twelve ECGs", *parts)


def _attributed(found: Examples) -> Html:
    if not found.unattributed:
        words = "Bands behind the traces show what raises and what lowers the score."
        return tag("p", words, class_="foot")
    return tag(
        "p",
        f"No attribution is drawn, as a report has no weights at hand: {found.unattributed} To see "
        "which lead and moment moved a score: ",
        tag("code", f"ecgstore explain {found.run_id} --record ID --weights FILE"),
        class_="foot",
    )


def _drawn(one: Example, study: Study) -> Html:
    words = _caption(one, study)
    alternative = f'aria-label="{escape(one.record_id + words)} '
    picture = one.picture.replace('aria-label="', alternative, 1)
    return figure(picture, join([tag("code", one.record_id), words]))


def _caption(one: Example, study: Study) -> str:
    verdict = "right" if one.kind.startswith("true") else "wrong"
    label = "positive" if one.label == 1 else "negative"
    called = one.kind.split()[1]
    return (
        f": score {one.score:.3f}, called {called} for {study.task}; the label is {label}, so the "
        f"classifier is {verdict}."
    )


def _threshold(predictions: Predictions, labels: NDArray[np.float64]) -> tuple[float, str]:
    """Return the threshold and where it is from."""
    cuts: Sequence[float] = [
        threshold_of_youden(predictions.labels[part.train], part.train_scores)
        for part in predictions.parts
        if len(np.unique(predictions.labels[part.train])) == 2
    ]
    if len(cuts) == len(predictions.parts):
        return float(np.mean(cuts)), (
            "the threshold with the highest sensitivity + specificity on out-of-fold scores of "
            "training records (Youden, 1950), mean over the repeats"
        )
    return float(labels.mean()), (
        "the prevalence, as the run has no out-of-fold scores to choose a threshold by"
    )
