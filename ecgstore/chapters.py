"""The findings of the report: what was asked, the answer, Table 1, curves and maps.

Figures come in, sections of a page go out; nothing is computed here but means, spreads and
differences of stored scores.
"""

from __future__ import annotations

from shlex import quote
from typing import TYPE_CHECKING

from ecgstore.features import SIGNAL
from ecgstore.findings import METRICS
from ecgstore.page import (
    Column,
    Html,
    details,
    facts,
    figure,
    join,
    legend,
    note,
    section,
    shell,
    table,
    tag,
)
from ecgstore.plots import curves, line_key, mark_key, scatter
from ecgstore.project import METHODS, Projection

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ecgstore.cohort import Task
    from ecgstore.findings import Run, Study

__all__ = [
    "answer",
    "curves_chapter",
    "headline",
    "kind_of",
    "maps_chapter",
    "name_of",
    "percent",
    "question",
    "result_chapter",
    "spread",
    "task_of",
    "untrained",
    "warnings",
]

# Table 1 of Meng et al., arXiv 2502.17476 (2025), in the order of METRICS.
_PUBLISHED = {
    "baseline": ("0.701 ± 0.471", "0.471 ± 0.078"),
    "stmem": ("0.783 ± 0.007", "0.594 ± 0.013"),
    "ecgfm": ("0.835 ± 0.012", "0.667 ± 0.024"),
    "fusion": ("0.843 ± 0.006", "0.674 ± 0.012"),
}
_PLUS_MINUS = "\N{NO-BREAK SPACE}±\N{NO-BREAK SPACE}"
_MISPRINT = tag("sup", "†", class_="mark")


def name_of(run: Run, study: Study) -> str:
    """Return what a run is called on the page: its features, and its classifier where needed."""
    if run.features == SIGNAL:
        return f"{run.classifier} on the signal"
    several = len({other.classifier for other in study.runs if other.features != SIGNAL}) > 1
    return f"{run.features}, {run.classifier}" if several else run.features


def kind_of(run: Run, study: Study) -> str:
    """Tell which row of the published table a run answers to.

    Returns:
        ``baseline``, the architecture of the only member, ``fusion`` for that of the published
        table, ``other fusion``, or ``unknown`` where the name no longer stands for one thing.
    """
    if run.features == SIGNAL:
        return "baseline"
    features = study.sets.get(run.features)
    if features is None:
        return "unknown"
    architectures = [member.model.split(".")[0] for member in features.members]
    if len(architectures) == 1:
        return architectures[0]
    return "fusion" if sorted(architectures) == ["ecgfm", "stmem"] else "other fusion"


def task_of(study: Study) -> Task | None:
    """Return the labels of the split's task in the cohort."""
    if study.split is None:
        return None
    return next((task for task in study.cohort.tasks if task.name == study.split.task), None)


def spread(values: NDArray[np.float64]) -> str:
    """Write a mean, with its sample standard deviation where there are several values."""
    if len(values) < 2:
        return f"{values.mean():.3f}"
    return f"{values.mean():.3f}{_PLUS_MINUS}{values.std(ddof=1):.3f}"


def percent(part: int, whole: int) -> str:
    """Write a part of a whole in per cent, a dash where there is no whole."""
    return f"{100 * part / whole:.1f}\N{NO-BREAK SPACE}%" if whole else "–"


def untrained(study: Study) -> list[str]:
    """List the models with random weights that a run on the page stands on."""
    used = {member for features in study.sets.values() for member in features.members}
    return sorted(
        {
            model["model"]
            for model in study.models
            if model["source"] == "untrained"
            and (model["model"], model["version"], model["pooling"]) in used
        }
    )


def question(study: Study) -> Html:
    """Say in one line what was asked and how."""
    split = study.split
    if split is None:
        return tag("p", "The cohort as it is stored; no split has been drawn yet.", class_="asked")
    units = {"patient_id": "patients", "none": "records"}.get(str(split.params.get("group")))
    share = split.params.get("test_size")
    tested = f", {100 * share:g} % of the {units} to test on" if share and units else ""
    return tag(
        "p",
        f"Can the label “{split.task}” be told from the ECG? Split {split.name}: "
        f"{_reshuffles(len(split.sizes), 'stratified ')}{tested}.",
        class_="asked",
    )


def answer(study: Study) -> Html:
    """Say the result in a plain sentence or two."""
    if not study.runs:
        return tag(
            "p", "Nothing has been evaluated yet; this page shows the cohort.", class_="answer"
        )

    def auroc(run: Run) -> float:
        return float(run.values["AUROC"].mean())

    fusions = [run for run in study.runs if "fusion" in kind_of(run, study)]
    first = max(fusions or study.runs, key=auroc)
    others = [run for run in study.runs if run is not first and run not in fusions]
    n = len(first.repeats)
    words: list[object] = [
        tag("b", name_of(first, study)),
        f" reached an AUROC of {spread(first.values['AUROC'])} and an AUCPR of "
        f"{spread(first.values['AUCPR'])} over {_reshuffles(n)}",
    ]
    if others:
        second = max(others, key=auroc)
        words += [
            "; ",
            tag("b", name_of(second, study)),
            f", the best of the others, {spread(second.values['AUROC'])} and "
            f"{spread(second.values['AUCPR'])}",
        ]
        if n > 1 and first.repeats == second.repeats:
            gain = first.values["AUROC"] - second.values["AUROC"]
            size = f"{gain.mean():+.3f}{_PLUS_MINUS}{gain.std(ddof=1):.3f}".replace("-", "−")
            words += [
                f". The difference in AUROC is {size}, in favour of ",
                tag("b", name_of(first, study)),
                f" in {int((gain > 0).sum())} of {n} reshuffles",
            ]
    return tag("p", *words, ".", class_="answer")


def headline(study: Study) -> Html:
    """Show the few figures that say how large the matter is."""
    cohort, task = study.cohort, task_of(study)
    patients = f"{cohort.patients:,}" if cohort.patients else "not stored"
    pairs = [("ECGs", f"{cohort.records:,}"), ("Patients", patients)]
    if task:
        pairs.append((f"{task.name} positive", percent(task.positives, task.labelled)))
    if study.runs:
        best = max(run.values["AUROC"].mean() for run in study.runs)
        pairs.append(("Best mean AUROC", f"{best:.3f}"))
    return facts(pairs, large=True)


def warnings(study: Study) -> list[Html]:
    """Return the marks that nobody may overlook."""
    found = []
    if synthetic := study.cohort.datasets.get("synthetic"):
        found.append(
            note(
                "Synthetic cohort.",
                f"{synthetic:,} of {study.cohort.records:,} ECGs are computed, not recorded from "
                "anybody. Nothing on this page is evidence about patients.",
            )
        )
    if names := untrained(study):
        found.append(
            note(
                "Untrained models.",
                f"The weights of {' and '.join(names)} are random, so their vectors are random "
                "projections of the signal. The scores show that the machinery works; they say "
                "nothing about these architectures once they are trained.",
            )
        )
    if study.split and (shared := study.split.shared_patients):
        found.append(
            note(
                "Patients on both sides.",
                f"In one reshuffle, {shared:,} patients have ECGs in the training part and in the "
                "test part. Scores are then likely to be too high for new patients.",
            )
        )
    return found


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
    if any(kind_of(run, study) == "baseline" for run in study.runs):
        foot.append(
            "† As printed. The 0.471 repeats the mean AUCPR and is surely a misprint; the right "
            "value is not known."
        )
    return section(
        "result",
        "Result",
        table(
            f"Table 1. Mean ± sample standard deviation over {_reshuffles(len(_repeats(study)))}",
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
    """Return the name of a run, marked where it stands on random weights."""
    features = study.sets.get(run.features)
    random = features and any(member.model in untrained(study) for member in features.members)
    mark = [" ", tag("span", "untrained", class_="tag")] if random else []
    return join([name_of(run, study), *mark])


def _drawn(one: Projection) -> str:
    positives = int(one.labels.sum())
    return f"{positives:,} positive and {len(one.labels) - positives:,} negative records"


def _reshuffles(n: int, kind: str = "") -> str:
    return f"{n} {kind}{'reshuffle' if n == 1 else 'reshuffles'}"


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
