"""The curves of the report: receiver operating characteristic, and precision against recall."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ecgstore.report.page import Html, figure, legend, section, tag
from ecgstore.report.plots import curves, line_key
from ecgstore.report.summary import name_of, spread, task_of

if TYPE_CHECKING:
    from ecgstore.report.study import Study

__all__ = ["curves_chapter"]


def curves_chapter(study: Study) -> Html | None:
    """Draw the mean ROC and precision-recall curves with their spread; None without any."""
    drawn = [run for run in study.runs if run.run_id in study.curves]
    if not drawn:
        return None
    task = task_of(study)
    means = {
        metric: "; ".join(f"{name_of(run, study)} {spread(run.values[metric])}" for run in drawn)
        for metric in ("AUROC", "AUCPR")
    }
    roc = curves(
        [study.curves[run.run_id][0] for run in drawn],
        x_label="False positive rate (1 − specificity)",
        y_label="True positive rate (sensitivity)",
        alt=f"ROC curves. AUROC: {means['AUROC']}.",
        diagonal=True,
    )
    precision = curves(
        [study.curves[run.run_id][1] for run in drawn],
        x_label="Recall (sensitivity)",
        y_label="Precision (positive predictive value)",
        alt=f"Precision-recall curves. AUCPR: {means['AUCPR']}.",
        level=task.prevalence if task else None,
    )
    return section(
        "curves",
        "Curves",
        legend((line_key(i), name_of(run, study)) for i, run in enumerate(drawn)),
        tag(
            "div",
            figure(
                roc,
                "ROC: the mean sensitivity at each false positive rate; the band is one standard "
                "deviation over the repeats. Dotted: a score that knows nothing.",
            ),
            figure(
                precision,
                "Precision–recall: the mean precision at each recall, with the same band. "
                "Dotted: the prevalence, the precision of a score that knows nothing.",
            ),
            class_="pair",
        ),
    )
