"""The head of the report: what was asked, the answer in a sentence, marks not to overlook."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ecgstore.features import SIGNAL
from ecgstore.leakage import cautions
from ecgstore.report.axes import minus
from ecgstore.report.page import Html, facts, note, tag
from ecgstore.report.study import best_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ecgstore.report.cohort import Task
    from ecgstore.report.study import Run, Split, Study
    from ecgstore.statistics.interval import Interval

__all__ = [
    "among",
    "answer",
    "ends",
    "headline",
    "is_fused",
    "kind_of",
    "name_of",
    "percent",
    "question",
    "repeats",
    "spread",
    "task_of",
    "unit",
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


def is_fused(run: Run, study: Study) -> bool:
    """Tell whether a run stands on the vectors of several models."""
    features = study.sets.get(run.features)
    return features is not None and len(features.members) > 1


def task_of(study: Study) -> Task | None:
    """Return the labels of the worked-out task in the cohort; None unless they are 0 and 1."""
    if study.task is None or study.target != "binary":
        return None
    return next((task for task in study.cohort.tasks if task.name == study.task), None)


def spread(values: NDArray[np.float64]) -> str:
    """Write a mean, with its sample standard deviation where there are several values.

    Values that are not defined are left out, and how many are is said.
    """
    defined = values[np.isfinite(values)]
    if not len(defined):
        return "not defined"
    words = minus(f"{defined.mean():.3f}")
    if len(defined) > 1:
        words += f"{_PLUS_MINUS}{defined.std(ddof=1):.3f}"
    return words + (f" ({len(defined)} of {len(values)})" if len(defined) < len(values) else "")


def ends(interval: Interval | str | None, digits: int = 3) -> str:
    """Write the ends of an interval, a dash where there are none."""
    if interval is None or isinstance(interval, str) or not np.isfinite(interval.low):
        return "–"
    return minus(f"{interval.low:.{digits}f}") + " to " + minus(f"{interval.high:.{digits}f}")


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
            if (model["source"] or "").startswith("untrained")
            and (model["model"], model["version"], model["pooling"]) in used
        }
    )


def unit(split: Split | None) -> str:
    """Return what a repeat of a split is called: a reshuffle, a fold or a part."""
    method = str(split.params.get("method", "shuffle")) if split else "shuffle"
    return {"kfold": "fold", "strat_fold": "fold"}.get(
        method, "reshuffle" if method.endswith("shuffle") else "part"
    )


def repeats(n: int, split: Split | None, kind: str = "") -> str:
    """Write a number of repeats, such as ``10 stratified reshuffles``."""
    return f"{n} {kind}{unit(split)}{'' if n == 1 else 's'}"


def among(n: int, of: int, split: Split | None) -> str:
    """Write ``6 of 10 reshuffles``."""
    return f"{n} of {of} {unit(split)}{'' if of == 1 else 's'}"


def question(study: Study) -> Html:
    """Say in one line what was asked and how."""
    split = study.split
    if split is None:
        return tag("p", "The cohort as it is stored; no split has been drawn yet.", class_="asked")
    units = {"patient_id": "patients", "none": "records"}.get(str(split.params.get("group")))
    share = split.params.get("test_size")
    shuffled = unit(split) == "reshuffle"
    tested = ""
    if share and units and shuffled:
        tested = f", {100 * share:g} % of the {units} to test on"
    asked = {
        "binary": f"Can the label “{study.task}” be told from the ECG?",
        "multiclass": f"Can the class of “{study.task}” be told from the ECG?",
        "continuous": f"Can “{study.task}” be measured from the ECG?",
        "survival": f"Can the time to “{study.task}” be foretold from the ECG?",
    }[study.target]
    protocol = f", protocol {split.protocol}" if split.protocol else ""
    drawn = repeats(len(split.sizes), split, "stratified " if shuffled else "")
    return tag("p", f"{asked} Split {split.name}{protocol}: {drawn}{tested}.", class_="asked")


def answer(study: Study) -> Html:
    """Say the result in a plain sentence or two."""
    if not study.runs:
        return tag(
            "p", "Nothing has been evaluated yet; this page shows the cohort.", class_="answer"
        )
    metric = study.metrics[0]
    fusions = [run for run in study.runs if is_fused(run, study)]
    first = best_of(fusions or study.runs, study)
    assert first is not None
    second = best_of([run for run in study.runs if run not in {first, *fusions}], study)
    reached = " and ".join(
        f"{_article(name)} {name} of {spread(first.values[name])}" for name in _told(first, study)
    )
    words: list[object] = [
        tag("b", name_of(first, study)),
        f" reached {reached} over {repeats(len(first.repeats), study.split)}",
    ]
    if second is not None:
        others = " and ".join(spread(second.values[name]) for name in _told(second, study))
        words += ["; ", tag("b", name_of(second, study)), f", the best of the others, {others}"]
        words += _difference(first, second, study, metric)
    return tag("p", *words, ".", *_verdict(first, study), class_="answer")


def _told(run: Run, study: Study) -> list[str]:
    """Return the one or two metrics that the answer quotes."""
    return [name for name in study.metrics if name in run.values][:2]


def _article(name: str) -> str:
    return "an" if name[0] in ("AEFHILMNORSX" if name.isupper() else "aeio") else "a"


def _difference(first: Run, second: Run, study: Study, metric: str) -> list[object]:
    if len(first.repeats) < 2 or first.repeats != second.repeats:
        return []
    gain = first.values[metric] - second.values[metric]
    gain = gain[np.isfinite(gain)]
    if len(gain) < 2:
        return []
    size = minus(f"{gain.mean():+.3f}") + f"{_PLUS_MINUS}{gain.std(ddof=1):.3f}"
    wins = int((gain > 0).sum() if study.better == "higher" else (gain < 0).sum())
    return [
        f". The difference in {metric} is {size}, in favour of ",
        tag("b", name_of(first, study)),
        f" in {among(wins, len(gain), study.split)}",
    ]


def _verdict(run: Run, study: Study) -> list[object]:
    """Return what the paired tests say of a run, if they were made."""
    if study.comparison is None or isinstance(study.comparison, str):
        return []
    found = next((row for row in study.comparison.rows if row.run_id == run.run_id), None)
    return [f" {found.sentence}"] if found else []


def headline(study: Study) -> Html:
    """Show the few figures that say how large the matter is."""
    cohort, task = study.cohort, task_of(study)
    patients = f"{cohort.patients:,}" if cohort.patients else "not stored"
    pairs = [("ECGs", f"{cohort.records:,}"), ("Patients", patients)]
    if task:
        pairs.append((f"{task.name} positive", percent(task.positives, task.labelled)))
    if study.best is not None:
        metric = study.metrics[0]
        pairs.append((f"Best mean {metric}", minus(f"{study.best.mean(metric):.3f}")))
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
                f"In one {unit(study.split)}, {shared:,} patients have ECGs in the training part "
                "and in the test part. Scores are then likely to be too high for new patients.",
            )
        )
    if seen := cautions(study.marks):
        found.append(note("Seen in pretraining.", " ".join(seen)))
    return found
