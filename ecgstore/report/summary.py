"""The head of the report: what was asked, the answer in a sentence, marks not to overlook."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ecgstore.features import SIGNAL
from ecgstore.report.page import Html, facts, note, tag

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ecgstore.report.cohort import Task
    from ecgstore.report.findings import Run, Study

__all__ = [
    "answer",
    "headline",
    "kind_of",
    "name_of",
    "percent",
    "question",
    "reshuffles",
    "spread",
    "task_of",
    "untrained",
    "warnings",
]

_PLUS_MINUS = "\N{NO-BREAK SPACE}±\N{NO-BREAK SPACE}"


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


def reshuffles(n: int, kind: str = "") -> str:
    """Write a number of reshuffles, such as ``10 stratified reshuffles``."""
    return f"{n} {kind}{'reshuffle' if n == 1 else 'reshuffles'}"


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
        f"{reshuffles(len(split.sizes), 'stratified ')}{tested}.",
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
        (
            f" reached an AUROC of {spread(first.values['AUROC'])} and an AUCPR of "
            f"{spread(first.values['AUCPR'])} over {reshuffles(n)}"
        ),
    ]
    if others:
        second = max(others, key=auroc)
        words += [
            "; ",
            tag("b", name_of(second, study)),
            (
                f", the best of the others, {spread(second.values['AUROC'])} and "
                f"{spread(second.values['AUCPR'])}"
            ),
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
