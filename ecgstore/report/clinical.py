"""Calibration, decision curve and operating points: whether a score can be acted on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ecgstore.report.axes import minus
from ecgstore.report.charts import Line, lines
from ecgstore.report.page import (
    Column,
    Html,
    details,
    figure,
    join,
    legend,
    note,
    section,
    table,
    tag,
)
from ecgstore.report.plots import line_key
from ecgstore.report.summary import ends, name_of, unit

if TYPE_CHECKING:
    from ecgstore.laboratory.clinical import ClinicalResult
    from ecgstore.report.study import Study
    from ecgstore.statistics.calibration import Calibration
    from ecgstore.statistics.decision import DecisionCurve
    from ecgstore.statistics.interval import Interval

__all__ = ["clinical_chapter"]

_FIGURES = {
    "sensitivity": "Sensitivity",
    "specificity": "Specificity",
    "ppv": "PPV",
    "npv": "NPV",
    "f1": "F1",
}
_TOLD = (0.05, 0.1, 0.2, 0.3, 0.5)
"""Threshold probabilities whose net benefit stands in the text alternative."""


def clinical_chapter(study: Study) -> Html | None:
    """Show what the scores are worth at the bedside; None where no run has such figures."""
    best = study.best
    if best is None or not study.clinical:
        return None
    others = [run for run in study.runs if run is not best and run.run_id in study.clinical]
    return section(
        "clinical",
        "Calibration and usefulness",
        tag("p", "For ", tag("b", name_of(best, study)), ", the run with the best mean score:"),
        *_of_run(study.clinical.get(best.run_id), study),
        *(
            details(name_of(run, study), *_of_run(study.clinical[run.run_id], study))
            for run in others
        ),
    )


def _of_run(found: ClinicalResult | str | None, study: Study) -> list[Html]:
    if found is None or isinstance(found, str):
        return [note("Not told.", found or "No figures of this run.")]
    parts = []
    if found.calibration or found.decision is not None:
        parts.append(_curves(found))
    if found.calibration:
        parts.append(_calibration(found))
    if found.rules:
        parts.append(_operating(found, study))
    return [*parts, *(tag("p", words, class_="foot") for words in found.notes)]


def _curves(found: ClinicalResult) -> Html:
    pictures = []
    if found.calibration:
        keys = legend((line_key(i), _scale(name)) for i, name in enumerate(found.calibration))
        picture = lines(
            [_diagonal(), *(_reliability(one) for one in found.calibration.values())],
            x_label="Mean score of a bin",
            y_label="Part that is positive",
            y=(0, 1),
            alt=f"Reliability of {found.features}. {_bins(found)}",
        )
        words = (
            "Reliability: ten bins of equally many scores; the band is Wilson's (1927) interval of "
            "a bin. Dotted: a score that is right about itself."
        )
        pictures.append(figure(picture, words, tag("h3", "Reliability"), keys))
    if found.decision is not None:
        pictures.append(_decision(found.decision, found))
    return tag("div", *pictures, class_="pair")


def _diagonal() -> Line:
    ends = np.array([0.0, 1.0])
    return Line(ends, ends, style="reference")


def _reliability(one: Calibration) -> Line:
    bins = one.bins
    return Line(bins.score, bins.observed, low=bins.low, high=bins.high, points=True)


def _bins(found: ClinicalResult) -> str:
    told = []
    for name, one in found.calibration.items():
        pairs = ", ".join(
            f"{score:.2f}: {observed:.2f}"
            for score, observed in zip(one.bins.score, one.bins.observed, strict=True)
            if np.isfinite(observed)
        )
        told.append(f"Score and part positive, {_scale(name)}: {pairs}.")
    return " ".join(told)


def _decision(curve: DecisionCurve, found: ClinicalResult) -> Html:
    top = float(max(np.nanmax(curve.model), np.nanmax(curve.treat_all), 0.01))
    at = [int(np.argmin(np.abs(curve.thresholds - wanted))) for wanted in _TOLD]
    told = ", ".join(
        f"{curve.thresholds[i]:g}: {curve.model[i]:.3f} against {curve.treat_all[i]:.3f}"
        for i in dict.fromkeys(at)
    )
    picture = lines(
        [
            Line(curve.thresholds, np.zeros_like(curve.thresholds), style="reference"),
            Line(curve.thresholds, curve.model, low=curve.low, high=curve.high),
            Line(curve.thresholds, curve.treat_all),
        ],
        x_label="Threshold probability",
        y_label="Net benefit",
        y=(-0.25 * top, top),
        alt=minus(
            f"Decision curve of {found.features}. Net benefit of the score against treating all, "
            f"by threshold probability: {told}. Treating nobody: 0."
        ),
    )
    words = (
        "Net benefit (Vickers and Elkin, 2006): true positives less false positives at the odds of "
        "the threshold, per record; the band is over patients. Dotted: treating nobody. Acting on "
        "the score is worth it where its line is the highest."
    )
    keys = legend([(line_key(0), "act on the score"), (line_key(1), "treat all")])
    return figure(picture, words, tag("h3", "Decision curve"), keys)


def _scale(name: str) -> str:
    return {"platt": "recalibrated (Platt)", "isotonic": "recalibrated (isotonic)"}.get(name, name)


def _calibration(found: ClinicalResult) -> Html:
    rows = [
        [
            _scale(name),
            _with_ends(one.brier),
            _with_ends(one.error),
            _with_ends(one.slope),
            _with_ends(one.intercept),
            _with_ends(one.in_the_large),
        ]
        for name, one in found.calibration.items()
    ]
    return table(
        "Calibration, with intervals over patients",
        [
            Column("Scores"),
            *(
                Column(head, "figures")
                for head in ("Brier", "ECE", "Slope", "Intercept", "Intercept, slope 1")
            ),
        ],
        rows,
        foot=[
            (
                "Brier: mean squared distance of score and label, 0 is best. ECE: mean distance of "
                "score and part positive over the bins. A slope below 1 says that scores are too "
                "extreme, an intercept above 0 that they are too low. Recalibration is fitted on "
                "out-of-fold scores of training records."
            )
        ],
    )


def _operating(found: ClinicalResult, study: Study) -> Html:
    rows: list[list[object]] = []
    for rule in found.rules:
        low, high = min(rule.thresholds), max(rule.thresholds)
        span = minus(f"{low:.3f} to {high:.3f}") if low < high else "in all"
        counts = rule.operating
        rows.append(
            [
                minus(rule.name.replace(">=", "≥")),
                _lines(minus(f"{rule.operating.threshold:.3f}"), f"({span})"),
                *(_with_ends(rule.figures[name]) for name in _FIGURES),
                join(
                    [
                        f"{counts.tp:.1f} / {counts.fp:.1f}",
                        Html("<br>"),
                        f"{counts.fn:.1f} / {counts.tn:.1f}",
                    ]
                ),
            ]
        )
    each = unit(study.split)
    scale = " of the recalibrated score" if found.recalibrated else ""
    return table(
        "Operating points on test records",
        [
            Column("Rule"),
            Column(f"Threshold{scale}", "figures"),
            *(Column(head, "figures") for head in _FIGURES.values()),
            Column("TP / FP, FN / TN", "figures"),
        ],
        rows,
        foot=[
            (
                f"Each threshold is fitted in each {each} on out-of-fold scores of its training "
                f"records; its mean and range are shown. Counts are the mean of a {each}, figures "
                "are pooled, with BCa intervals over patients. PPV and NPV hold for a "
                f"prevalence of {found.prevalence:.3f}."
            )
        ],
    )


def _with_ends(interval: Interval) -> Html | str:
    """Write a figure over its interval."""
    if not np.isfinite(interval.value):
        return "–"
    value = minus(f"{interval.value:.3f}")
    if not np.isfinite(interval.low):
        return value
    return _lines(value, f"({ends(interval)})")


def _lines(figure: str, below: str) -> Html:
    return join([figure, Html("<br>"), tag("small", below)])
