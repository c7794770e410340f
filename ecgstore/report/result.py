"""The result: Table 1, every run against the best single model, families, both protocols."""

from __future__ import annotations

from shlex import quote
from typing import TYPE_CHECKING

import numpy as np

from ecgstore.report.axes import minus
from ecgstore.report.comparison import TESTS
from ecgstore.report.page import Column, Html, details, join, note, section, shell, table, tag
from ecgstore.report.summary import (
    ends,
    kind_of,
    name_of,
    repeats,
    spread,
    task_of,
    unit,
    untrained,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ecgstore.report.comparison import Comparison
    from ecgstore.report.study import Run, Study

__all__ = ["gap_chapter", "result_chapter"]

# Table 1 of Meng et al., arXiv 2502.17476 (2025).
_PUBLISHED = {
    "baseline": {"AUROC": "0.701 ± 0.471", "AUCPR": "0.471 ± 0.078"},
    "stmem": {"AUROC": "0.783 ± 0.007", "AUCPR": "0.594 ± 0.013"},
    "ecgfm": {"AUROC": "0.835 ± 0.012", "AUCPR": "0.667 ± 0.024"},
    "fusion": {"AUROC": "0.843 ± 0.006", "AUCPR": "0.674 ± 0.012"},
}
_MISPRINT = tag("sup", "†", class_="mark")


def result_chapter(study: Study) -> Html:
    """Make Table 1 for this cohort beside the published one, or say what to type."""
    if not study.runs:
        return section("result", "Result", tag("p", "To get there:"), shell(*_to_type(study)))
    return section(
        "result",
        "Result",
        _table_1(study),
        *_against(study),
        *_family(study),
        details(f"Every {unit(study.split)}", *(_by_repeat(study, one) for one in study.metrics)),
    )


def gap_chapter(study: Study) -> Html | None:
    """Set the paper's protocol beside the sound one; None where only one was run."""
    if not study.gaps:
        return None
    metric = study.gaps[0].metric
    most = max(study.gaps, key=lambda gap: abs(gap.difference))
    higher = most.difference > 0
    flatters = higher == (study.better == "higher")
    words = (
        f"The paper's protocol draws records one by one, so ECGs of a patient may stand on both "
        f"sides, and fits scaling on all records; the sound one keeps patients apart and fits "
        f"everything on training records. The same features and classifier reach, for "
        f"{most.features}, {most.means['paper']:.3f} under the first and "
        f"{most.means['sound']:.3f} under the second: the paper's protocol is "
        f"{abs(most.difference):.3f} {'higher' if higher else 'lower'}, which "
        f"{'flatters' if flatters else 'does not flatter'}. Only the second is a figure for new "
        "patients; whether the difference is more than chance was not tested."
    )
    rows = [
        [
            gap.features,
            gap.classifier,
            minus(f"{gap.means['paper']:.3f}"),
            minus(f"{gap.means['sound']:.3f}"),
            minus(f"{gap.difference:+.3f}"),
            f"{gap.splits['paper']}, {gap.splits['sound']}",
        ]
        for gap in study.gaps
    ]
    return section(
        "protocols",
        "Two protocols",
        tag("p", minus(words)),
        table(
            f"Mean {metric} of the same features under both protocols",
            [
                Column("Features"),
                Column("Classifier"),
                Column("Paper", "figures"),
                Column("Sound", "figures"),
                Column("Paper − sound", "figures"),
                Column("Splits"),
            ],
            rows,
        ),
    )


def _table_1(study: Study) -> Html:
    published = [metric for metric in study.metrics if metric in _PUBLISHED["fusion"]]
    columns = [Column("Features")]
    for metric in study.metrics:
        columns += [
            Column(metric, "figures", "This cohort"),
            Column("95 % interval", "figures", "This cohort"),
        ]
    columns += [Column(metric, "aside", "Published, another cohort*") for metric in published]
    rows: list[list[object]] = []
    for run in study.runs:
        row: list[object] = [_marked(run, study)]
        for metric in study.metrics:
            row.append(spread(run.values[metric]) if metric in run.values else "–")
            row.append(ends(study.intervals.get(run.run_id, {}).get(metric)))
        rows.append([*row, *(_landmark(kind_of(run, study), metric) for metric in published)])
    best = next((i for i, run in enumerate(study.runs) if run is study.best), None)
    return table(
        f"Table 1. Mean ± sample standard deviation over {repeats(_most(study), study.split)}, "
        "with the interval over patients",
        columns,
        rows,
        strong=best if len(rows) > 1 else None,
        foot=_foot(study, published=bool(published)),
    )


def _landmark(kind: str, metric: str) -> object:
    words = _PUBLISHED.get(kind, {}).get(metric, "–")
    return join([words, _MISPRINT]) if kind == "baseline" and metric == "AUROC" else words


def _foot(study: Study, *, published: bool) -> list[str]:
    foot = []
    if len({run.tested for run in study.runs}) > 1:
        foot.append("The rows were not tested on the same records; compare them with care.")
    task = task_of(study)
    chance = f" and an AUCPR of about {task.prevalence:.3f}, the prevalence" if task else ""
    ignorant = {
        "binary": f"A score that knows nothing has an AUROC of 0.5{chance}.",
        "multiclass": "A score that knows nothing has a macro AUROC of 0.5.",
        "continuous": "A prediction that is always the mean has an R2 of 0.",
        "survival": "A risk that knows nothing has a C-index of 0.5.",
    }[study.target]
    foot.append(
        f"{ignorant} The row set off has the best mean {study.metrics[0]}. "
        f"The {unit(study.split)}s share records, so they spread less than new cohorts would; the "
        "interval is the BCa bootstrap over patients (Efron, 1987), drawn for all of them together."
    )
    lacking = {
        words
        for found in study.intervals.values()
        for words in (_lacking(one) for one in found.values())
        if words
    }
    foot += [f"No interval: {words}." for words in sorted(lacking)]
    if published:
        foot.append(
            "* Meng et al., arXiv 2502.17476 (2025): MEDIC, a private registry, 5,813 prehospital "
            "ECGs, 20.8 % with acute coronary syndrome. Other patients and another label: a "
            "landmark, not a comparison."
        )
        if any(kind_of(run, study) == "baseline" for run in study.runs):
            foot.append(
                "† As printed. The 0.471 repeats the mean AUCPR and is surely a misprint; the "
                "right value is not known."
            )
    return foot


def _lacking(interval: object) -> str:
    """Return why there is no interval, or nothing."""
    if isinstance(interval, str):
        return interval.rstrip(".")
    low = getattr(interval, "low", 0.0)
    return "" if np.isfinite(low) else str(getattr(interval, "method", ""))


def _against(study: Study) -> list[Html]:
    """Make the table of paired differences from the best single model."""
    found = study.comparison
    if found is None:
        return []
    if isinstance(found, str):
        return [note("No paired tests.", found)]
    named = {run.run_id: name_of(run, study) for run in study.runs}
    rows = [
        [
            named.get(row.run_id, row.run_id),
            minus(f"{row.difference.value:+.3f}"),
            ends(row.difference),
            ends(row.tested),
            _p(row.p),
            _p(row.adjusted),
        ]
        for row in found.rows
    ]
    return [
        table(
            f"Table 2. Difference in {found.metric} from {named.get(found.best, found.best)}, "
            "the best single model",
            [
                Column("Features"),
                Column("Difference", "figures"),
                Column("95 % interval, patients", "figures"),
                Column("95 % interval, test", "figures"),
                Column("p", "figures"),
                Column("p, Holm", "figures"),
            ],
            rows,
            foot=_tests(found),
        ),
        details("In words", *(tag("p", row.sentence) for row in found.rows)),
    ]


def _tests(found: Comparison) -> list[str]:
    told = [TESTS[name] for name in dict.fromkeys(row.quoted for row in found.rows) if name]
    sizes = {(row.records, row.patients) for row in found.rows}
    (records, patients), *others = sorted(sizes)
    whom = (
        "the records that both were tested on"
        if others
        else (f"the {records:,} records of {patients:,} patients that both were tested on")
    )
    foot = [
        f"Each pair is compared on {whom}; the first interval is the paired "
        "BCa bootstrap over patients"
        + (f", p and the second interval are of {' or '.join(told)}" if told else "")
        + f", and Holm's (1979) p holds over all comparisons of the table, {len(found.rows)}. That "
        "the best single model is the best was learned from the same records."
    ]
    return [*foot, *dict.fromkeys(words for row in found.rows for words in row.notes)]


def _p(p: float | None) -> str:
    if p is None or not np.isfinite(p):
        return "–"
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def _family(study: Study) -> list[Html]:
    """Make the table of a family of tasks: one row a task, a column a feature set."""
    if not study.family:
        return []
    metric = study.metrics[0]
    tasks = sorted({run.task for run in study.family})
    sets = list(dict.fromkeys(name_of(run, study) for run in study.family))
    means = {
        (run.task, name_of(run, study)): run.mean(metric)
        for run in study.family
        if metric in run.values
    }
    rows = [
        [task, *(minus(f"{means[task, one]:.3f}") if (task, one) in means else "–" for one in sets)]
        for task in tasks
    ]
    whole = [task for task in tasks if all((task, one) in means for one in sets)]
    if whole:
        macro = [np.mean([means[task, one] for task in whole]) for one in sets]
        words = f"Macro average of {len(whole)} tasks"
        rows.append([words, *(minus(f"{value:.3f}") for value in macro)])
    return [
        tag("h3", "Every task of the family"),
        table(
            f"Mean {metric} by task and features",
            [Column("Task"), *(Column(one, "figures") for one in sets)],
            rows,
            strong=len(rows) - 1 if whole else None,
            foot=[
                (
                    f"The rest of this page is about {study.task}. A macro average counts every "
                    "task alike, and takes those that all columns have."
                )
            ],
        ),
    ]


def _marked(run: Run, study: Study) -> Html:
    """Return the name of a run with what takes away from its figures."""
    marks = []
    features = study.sets.get(run.features)
    if features and any(member.model in untrained(study) for member in features.members):
        marks.append("untrained")
    if len(run.repeats) < _most(study):
        marks.append(f"{repeats(len(run.repeats), study.split)} only")
    return join([name_of(run, study), *(tag("span", mark, class_="tag") for mark in marks)], " ")


def _most(study: Study) -> int:
    return len(_repeats(study.runs))


def _repeats(runs: Iterable[Run]) -> list[int]:
    return sorted({repeat for run in runs for repeat in run.repeats})


def _by_repeat(study: Study, metric: str) -> Html:
    known = [
        dict(zip(run.repeats, run.values[metric], strict=True)) if metric in run.values else {}
        for run in study.runs
    ]
    return table(
        f"{metric} by {unit(study.split)}",
        [
            Column(unit(study.split).capitalize()),
            *(Column(name_of(run, study), "figures") for run in study.runs),
        ],
        [
            [repeat, *(_figure(values.get(repeat)) for values in known)]
            for repeat in _repeats(study.runs)
        ],
    )


def _figure(value: float | None) -> str:
    return "–" if value is None or not np.isfinite(value) else minus(f"{value:.4f}")


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
