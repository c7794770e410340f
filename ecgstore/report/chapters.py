"""The findings of the report: Table 1, curves and maps."""

from __future__ import annotations

from shlex import quote
from typing import TYPE_CHECKING

from ecgstore.evaluate import METRICS
from ecgstore.project import METHODS, Projection
from ecgstore.report.page import (
    Column,
    Html,
    details,
    figure,
    join,
    legend,
    section,
    shell,
    table,
    tag,
)
from ecgstore.report.plots import curves, line_key, mark_key, scatter
from ecgstore.report.summary import kind_of, name_of, reshuffles, spread, task_of, untrained

if TYPE_CHECKING:
    from ecgstore.report.findings import Run, Study

__all__ = ["curves_chapter", "maps_chapter", "result_chapter"]

# Table 1 of Meng et al., arXiv 2502.17476 (2025), in the order of METRICS.
_PUBLISHED = {
    "baseline": ("0.701 ± 0.471", "0.471 ± 0.078"),
    "stmem": ("0.783 ± 0.007", "0.594 ± 0.013"),
    "ecgfm": ("0.835 ± 0.012", "0.667 ± 0.024"),
    "fusion": ("0.843 ± 0.006", "0.674 ± 0.012"),
}
_MISPRINT = tag("sup", "†", class_="mark")


def result_chapter(study: Study) -> Html:
    """Make Table 1 for this cohort beside the published one, or say what to type."""
    if not study.runs:
        return section("result", "Result", tag("p", "To get there:"), shell(*_to_type(study)))
    columns = [
        Column("Features"),
        *(Column(metric, "figures", "This cohort") for metric in METRICS),
        *(Column(metric, "aside", "Published, another cohort*") for metric in METRICS),
    ]
    rows: list[list[object]] = []
    for run in study.runs:
        kind = kind_of(run, study)
        auroc, aucpr = _PUBLISHED.get(kind, ("–", "–"))
        printed = join([auroc, _MISPRINT]) if kind == "baseline" else auroc
        own = [spread(run.values[metric]) for metric in METRICS]
        rows.append([_marked(run, study), *own, printed, aucpr])
    best = max(range(len(rows)), key=lambda i: study.runs[i].values["AUROC"].mean())
    task = task_of(study)
    chance = f" and an AUCPR of about {task.prevalence:.3f}, the prevalence" if task else ""
    foot = [
        (
            f"A score that knows nothing has an AUROC of 0.5{chance}. The row set off has the "
            "highest mean AUROC. Reshuffles share records, so they spread less than new cohorts "
            "would; no test was made of whether a difference is more than chance."
        ),
        (
            "* Meng et al., arXiv 2502.17476 (2025): MEDIC, a private registry, 5,813 prehospital "
            "ECGs, 20.8 % with acute coronary syndrome. Other patients and another label: a "
            "landmark, not a comparison."
        ),
    ]
    if len({run.tested for run in study.runs}) > 1:
        foot.insert(0, "The rows were not tested on the same records; compare them with care.")
    if any(kind_of(run, study) == "baseline" for run in study.runs):
        foot.append(
            "† As printed. The 0.471 repeats the mean AUCPR and is surely a misprint; the right "
            "value is not known."
        )
    return section(
        "result",
        "Result",
        table(
            f"Table 1. Mean ± sample standard deviation over {reshuffles(len(_repeats(study)))}",
            columns,
            rows,
            strong=best if len(rows) > 1 else None,
            foot=foot,
        ),
        details("Every reshuffle", *(_by_reshuffle(study, metric) for metric in METRICS)),
    )


def curves_chapter(study: Study) -> Html | None:
    """Draw the mean ROC and precision-recall curves with their spread; None without any."""
    drawn = [run for run in study.runs if run.run_id in study.curves]
    if not drawn:
        return None
    task = task_of(study)
    means = {
        metric: "; ".join(f"{name_of(run, study)} {spread(run.values[metric])}" for run in drawn)
        for metric in METRICS
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
                "deviation over the reshuffles. Dotted: a score that knows nothing.",
            ),
            figure(
                precision,
                "Precision–recall: the mean precision at each recall, with the same band. "
                "Dotted: the prevalence, the precision of a score that knows nothing.",
            ),
            class_="pair",
        ),
    )


def maps_chapter(study: Study) -> Html | None:
    """Set the maps of the feature sets side by side; None without any."""
    found = [one for one in study.maps.values() if isinstance(one, Projection)]
    refused = [words for words in study.maps.values() if isinstance(words, str)]
    if not found:
        return None
    first = found[0]
    same = all(one.record_ids == first.record_ids for one in found)
    panels = [
        figure(
            scatter(
                one.xy,
                one.labels == 1,
                alt=f"{METHODS[one.method]} map of {one.features}: {_drawn(one)}.",
            ),
            _drawn(one) if not same else "",
            tag("h3", one.features),
        )
        for one in found
    ]
    return section(
        "maps",
        "Maps of the vectors",
        legend(
            [
                (mark_key(triangle=True), f"{first.task} positive"),
                (mark_key(), f"{first.task} negative"),
            ]
        ),
        tag("div", *panels, class_="panels"),
        tag(
            "p",
            f"{METHODS[first.method]} of records of the training part of reshuffle "
            f"{first.repeat}{f', the same {_drawn(first)} in every panel' if same else ''}; "
            f"seed {first.seed}. Near points have similar vectors; distances between groups and "
            "the directions of the axes mean nothing.",
            class_="foot",
        ),
        *(tag("p", words, class_="foot") for words in refused),
    )


def _marked(run: Run, study: Study) -> Html:
    """Return the name of a run with what takes away from its figures."""
    marks = []
    features = study.sets.get(run.features)
    if features and any(member.model in untrained(study) for member in features.members):
        marks.append("untrained")
    if len(run.repeats) < len(_repeats(study)):
        marks.append(f"{len(run.repeats)} reshuffles only")
    return join([name_of(run, study), *(tag("span", mark, class_="tag") for mark in marks)], " ")


def _drawn(one: Projection) -> str:
    positives = int(one.labels.sum())
    return f"{positives:,} positive and {len(one.labels) - positives:,} negative records"


def _repeats(study: Study) -> list[int]:
    return sorted({repeat for run in study.runs for repeat in run.repeats})


def _by_reshuffle(study: Study, metric: str) -> Html:
    known = [dict(zip(run.repeats, run.values[metric], strict=True)) for run in study.runs]
    return table(
        f"{metric} by reshuffle",
        [
            Column("Reshuffle"),
            *(Column(name_of(run, study), "figures") for run in study.runs),
        ],
        [
            [repeat, *(f"{values[repeat]:.4f}" if repeat in values else "–" for values in known)]
            for repeat in _repeats(study)
        ],
    )


def _to_type(study: Study) -> list[str]:
    """Return the commands that lead from here to a Table 1."""
    tasks = study.cohort.tasks
    task = study.split.task if study.split else tasks[0].name if tasks else "TASK"
    models = sorted({model["model"] for model in study.models})
    lines = [] if tasks else [f"ecgstore labels labels.csv --task {quote(task)}"]
    lines += [] if models else ["ecgstore embed --model MODEL --weights FILE"]
    split = study.split.name if study.split else f"{task.lower()}10"
    lines += [] if study.split else [f"ecgstore split {quote(split)} --task {quote(task)}"]
    chosen = " ".join(f"--features {quote(model)}" for model in models or ["MODEL"])
    return [*lines, f"ecgstore evaluate {chosen} --split {quote(split)}", "ecgstore report"]
