"""Clinical figures of a run: what its scores do at a threshold, and whether to believe them.

Thresholds that reach a sensitivity, and maps that recalibrate scores, are fitted in each reshuffle
on the out-of-fold scores of its training records; no label of a test record has a part in them.
Counts are then pooled over the test parts. Intervals are over patients, each drawn with all its
records of all reshuffles, and take the thresholds and maps as given.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Literal, TypedDict, Unpack

import numpy as np

from ecgstore.catalog import Catalog
from ecgstore.errors import NotEnoughDataError, UsageError
from ecgstore.predictions import command_for, predictions_of
from ecgstore.statistics.calibration import Calibration, calibrate
from ecgstore.statistics.decision import DecisionCurve, decision_curve
from ecgstore.statistics.operating import (
    FIGURES,
    binary,
    ppv_npv,
    threshold_for_sensitivity,
    threshold_for_specificity,
    threshold_of_youden,
)
from ecgstore.statistics.recalibration import Isotonic, Platt, RecalibrationMethod, recalibration
from ecgstore.statistics.rules import Rule, judged

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from ecgstore.predictions import Part, Predictions
    from ecgstore.statistics.interval import Interval
    from ecgstore.warehouse import Warehouse

    Choice = Callable[[NDArray[np.float64], NDArray[np.float64]], float]

__all__ = ["ClinicalResult", "Questions", "clinical", "clinical_of"]

_FEW = 10
"""Positive records below which figures are said to rest on few."""


@dataclass(frozen=True, eq=False)
class ClinicalResult:
    """What a `clinical` call found; printed as a row a rule.

    Attributes:
        run_id: The run.
        features: Its feature set.
        classifier: Its classifier.
        task: Its task.
        recalibrated: How scores were recalibrated; None where they are as predicted.
        reshuffles: Number of test parts.
        records: Different records in them.
        patients: Different patients in them.
        prevalence: Part of the tested records that is positive, pooled.
        rules: One per rule.
        calibration: Of the scores ``as predicted``, and after ``platt`` or ``isotonic``; empty
            where scores are no probabilities.
        decision: Net benefit, of recalibrated scores where they were; None likewise.
        notes: What to mind.
    """

    run_id: str
    features: str
    classifier: str
    task: str
    recalibrated: RecalibrationMethod | None
    reshuffles: int
    records: int
    patients: int
    prevalence: float
    rules: tuple[Rule, ...]
    calibration: Mapping[str, Calibration]
    decision: DecisionCurve | None
    notes: tuple[str, ...] = ()

    @property
    def rows(self) -> list[dict[str, object]]:
        """One row a rule."""
        return [rule.row for rule in self.rules]

    def rows_of(
        self, what: Literal["operating", "calibration", "reliability", "decision"]
    ) -> list[dict[str, object]]:
        """Return a row a rule; before and after recalibration; a bin; or a threshold probability.

        ``reliability`` are the bins of the curves of ``calibration``.
        """
        if what == "operating":
            return self.rows
        if what == "decision":
            return self.decision.rows if self.decision is not None else []
        if what == "calibration":
            return [{"scores": name, **one.row} for name, one in self.calibration.items()]
        return [
            {"scores": name, **row}
            for name, one in self.calibration.items()
            for row in one.bins.rows
        ]

    def __repr__(self) -> str:
        return (
            f"ClinicalResult({self.features!r}, {self.task}: {len(self.rules)} rules over "
            f"{self.reshuffles} reshuffles, {self.records} records of {self.patients} patients)"
        )

    def _repr_html_(self) -> str:
        from html import escape

        heads = "".join(f"<th>{head}</th>" for head in ("rule", "threshold", *FIGURES))
        body = "".join(
            f"<tr><td>{escape(rule.name)}</td><td>{rule.operating.threshold:.3g}</td>"
            + "".join(f"<td>{_cell(rule.figures[name])}</td>" for name in FIGURES)
            + "</tr>"
            for rule in self.rules
        )
        return f"<table><tr>{heads}</tr>{body}</table>"


class Questions(TypedDict, total=False):
    """What may be asked of a run; see `clinical_of`."""

    sensitivities: Sequence[float]
    specificities: Sequence[float]
    thresholds: Sequence[float]
    youden: bool
    prevalence: float | Sequence[float] | None
    recalibrate: RecalibrationMethod | None
    resamples: int
    seed: int


def clinical(warehouse: Warehouse, run: str, **asked: Unpack[Questions]) -> ClinicalResult:
    """Tell what the scores of a run do at chosen thresholds, and how well they are calibrated.

    Args:
        warehouse: Where the run's predictions are read.
        run: Id of a run, or the beginning of one.
        **asked: See `clinical_of`, as for the errors.

    Raises:
        UnknownNameError: No such run.
    """
    with Catalog(warehouse.relations()) as catalog:
        found = predictions_of(catalog, run)
    return clinical_of(found, **asked)


def clinical_of(
    found: Predictions,
    *,
    sensitivities: Sequence[float] = (0.90, 0.95, 0.99),
    specificities: Sequence[float] = (),
    thresholds: Sequence[float] = (),
    youden: bool = False,
    prevalence: float | Sequence[float] | None = None,
    recalibrate: RecalibrationMethod | None = None,
    resamples: int = 2000,
    seed: int = 0,
) -> ClinicalResult:
    """Do as `clinical` does, with predictions that were read already.

    Args:
        found: What the run predicted.
        sensitivities: Sensitivities to reach on training records, such as 0.95 to rule out. They
            are left out, with a note, where the run has no out-of-fold scores.
        specificities: Specificities to reach on training records, to rule in.
        thresholds: Thresholds given beforehand; of the recalibrated score where it is.
        youden: Whether to add the threshold of the highest sensitivity + specificity.
        prevalence: One or more prevalences to tell predictive values for.
        recalibrate: ``platt`` or ``isotonic``; None leaves scores as they are.
        resamples: Bootstrap resamples.
        seed: Seed of the bootstrap.

    Raises:
        UsageError: The task is not binary, or a setting is out of range.
        NotEnoughDataError: Recalibration is asked for, and the run has no out-of-fold scores; or a
            training part lacks a class.
    """
    asked = list(np.unique(prevalence)) if prevalence is not None else []
    _check(recalibrate, thresholds, asked)
    if found.target != "binary":
        msg = f"Task {found.task!r} has {found.target} labels; clinical figures need 0 and 1."
        raise UsageError(msg, hint="Choose a run on a binary task.")
    bare = [part.repeat for part in found.parts if not len(part.train)]
    if recalibrate and bare:
        raise _no_out_of_fold(found, bare)
    maps = [_map(found, part, recalibrate) for part in found.parts]
    rows = np.concatenate([part.test for part in found.parts])
    parts = np.repeat(np.arange(len(maps)), [len(part.test) for part in found.parts])
    _, patients = np.unique(found.patients[rows], return_inverse=True)
    labels, raw = binary(found.labels[rows], np.concatenate([part.scores for part in found.parts]))
    notes = _doubts_of_parts(found)
    scores, scales = raw, {"as predicted": raw}
    if recalibrate:
        pairs = zip(maps, found.parts, strict=True)
        scores = np.concatenate([_apply(fitted, part.scores) for fitted, part in pairs])
        scales[recalibrate] = scores

    choices = _choices(sensitivities, specificities, youden=youden)
    if choices and bare:
        lacking = _no_out_of_fold(found, bare)
        notes.append(f"{lacking.message} {lacking.hint}")
        choices = {}
    cuts = {
        name: [
            choose(found.labels[part.train], _apply(fitted, part.train_scores))
            for fitted, part in zip(maps, found.parts, strict=True)
        ]
        for name, choose in choices.items()
    }
    cuts |= {f"threshold {value:g}": [float(value)] * len(maps) for value in thresholds}
    rules = judged(
        labels, scores, patients, parts, cuts, prevalences=asked, resamples=resamples, seed=seed
    )
    calibration = {
        name: calibrate(labels, values, patients, resamples=resamples, seed=seed)
        for name, values in scales.items()
        if _are_probabilities(values)
    }
    decision = None
    if _are_probabilities(scores):
        decision = decision_curve(labels, scores, patients, resamples=resamples, seed=seed)
    notes += _doubts_of_probabilities(raw, calibration)
    return ClinicalResult(
        run_id=found.run_id,
        features=found.features,
        classifier=found.classifier,
        task=found.task,
        recalibrated=recalibrate,
        reshuffles=len(found.parts),
        records=len(np.unique(rows)),
        patients=int(patients.max()) + 1,
        prevalence=float(labels.mean()),
        rules=rules,
        calibration=calibration,
        decision=decision,
        notes=tuple(notes),
    )


def _choices(
    sensitivities: Sequence[float], specificities: Sequence[float], *, youden: bool
) -> dict[str, Choice]:
    """Return how each rule chooses its threshold from labels and scores of training records."""
    choices: dict[str, Choice] = {}
    for value in sensitivities:
        choices[f"sensitivity >= {value:g}"] = partial(threshold_for_sensitivity, sensitivity=value)
    for value in specificities:
        choices[f"specificity >= {value:g}"] = partial(threshold_for_specificity, specificity=value)
    if youden:
        choices["Youden"] = threshold_of_youden
    return choices


def _check(
    recalibrate: str | None, thresholds: Sequence[float], prevalences: Sequence[float]
) -> None:
    if recalibrate not in (None, "platt", "isotonic"):
        msg = f"Cannot recalibrate by {recalibrate!r}; known: platt, isotonic."
        raise UsageError(msg)
    for value in thresholds:
        if not math.isfinite(value):
            msg = f"A threshold of {value:g} parts nothing; a number was expected."
            raise UsageError(msg)
    for value in prevalences:
        ppv_npv(1.0, 1.0, value)  # refuses what is no prevalence


def _map(
    found: Predictions, part: Part, method: RecalibrationMethod | None
) -> Platt | Isotonic | None:
    if method is None:
        return None
    return recalibration(found.labels[part.train], part.train_scores, method)


def _apply(fitted: Platt | Isotonic | None, scores: NDArray[np.float64]) -> NDArray[np.float64]:
    return scores if fitted is None else fitted.apply(scores)


def _are_probabilities(scores: NDArray[np.float64]) -> bool:
    return bool(scores.min() >= 0 and scores.max() <= 1)


def _no_out_of_fold(found: Predictions, bare: Sequence[int]) -> NotEnoughDataError:
    which = "" if len(bare) == len(found.parts) else f" in reshuffles {', '.join(map(str, bare))}"
    msg = (
        f"Run {found.run_id!r} has no out-of-fold scores{which}: no threshold can be chosen and no "
        "score recalibrated on its training records."
    )
    hint = f"Make them: {command_for('evaluate', found)} --out-of-fold 5"
    return NotEnoughDataError(msg, task=found.task, hint=hint)


def _doubts_of_parts(found: Predictions) -> list[str]:
    """Say of test parts what makes their figures doubtful."""
    notes = []
    for part in found.parts:
        labels = found.labels[part.test]
        if labels.min() == labels.max():
            word = "negative" if labels[0] else "positive"
            notes.append(
                f"No test record of reshuffle {part.repeat} is {word}; it counts among the pooled "
                "records alone."
            )
        if part.scores.min() == part.scores.max():
            notes.append(
                f"All test scores of reshuffle {part.repeat} are {part.scores[0]:.3g}: no "
                "threshold tells its records apart."
            )
    tested = np.unique(np.concatenate([part.test for part in found.parts]))
    for word, wanted in (("positive", 1), ("negative", 0)):
        few = int((found.labels[tested] == wanted).sum())
        if few < _FEW:
            notes.append(
                f"Only {few} of {len(tested)} tested records are {word}: what rests on them is "
                "hardly known."
            )
    return notes


def _doubts_of_probabilities(
    raw: NDArray[np.float64], calibration: Mapping[str, Calibration]
) -> list[str]:
    """Say of scores why they have no calibration, or not all figures of it."""
    notes = []
    if not _are_probabilities(raw):
        notes.append(
            f"The scores run from {raw.min():.3g} to {raw.max():.3g} and are no probabilities: "
            "calibration and decision curves are told of recalibrated ones (platt) only."
        )
    for name, one in calibration.items():
        if one.reason:
            notes.append(f"Scores {name}: {one.reason}; slope and intercept are not defined.")
        if one.clipped:
            notes.append(
                f"Scores {name}: {one.clipped} of {len(raw)} were moved to 1e-6 from 0 or 1 for "
                "slope and intercept."
            )
    return notes


def _cell(one: Interval) -> str:
    """Return a figure and its interval to be read, a dash for what is not known."""
    value, low, high = (
        "–" if math.isnan(v) else f"{v:.3f}" for v in (one.value, one.low, one.high)
    )
    return f"{value} [{low}, {high}]"
