"""The grounds of the report: the cohort, the models, and where each figure is from."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from ecgstore.report.page import (
    Column,
    Html,
    code,
    details,
    facts,
    figure,
    join,
    legend,
    section,
    shell,
    table,
    tag,
)
from ecgstore.report.plots import bar, histogram, mark_key
from ecgstore.report.summary import name_of, percent, spread, task_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ecgstore.report.cohort import Cohort, Task
    from ecgstore.report.study import Run, Study

__all__ = ["cohort_chapter", "listed", "models_chapter", "sources_chapter", "span"]

_DECADES = ("0–9", *(f"{10 * i}s" for i in range(1, 9)), "90+")


_SHOWN = 12
"""Rows of a long table that stand in the open; the rest opens on request."""

_DIGEST = 12
"""Digits of a digest that are printed."""


def cohort_chapter(study: Study) -> Html:
    """Describe who and what was recorded."""
    cohort, n = study.cohort, study.cohort.records
    pairs: list[tuple[object, object]] = [
        ("ECGs", _of_stored(cohort)),
        ("Patients", _patients(cohort)),
        ("Datasets", _counted(cohort.datasets, n)),
        ("Age", _age(cohort)),
        ("Sex", _counted(cohort.sexes, n)),
        ("Sampling rate", _counted({f"{rate:g} Hz": k for rate, k in cohort.rates.items()}, n)),
        ("Length", _counted({f"{length:g} s": k for length, k in cohort.durations.items()}, n)),
        ("All twelve leads", _share(cohort.complete, n)),
        ("Quality flags", _counted(cohort.flags, n) or "none"),
        ("Files refused", "; ".join(f"{r}: {k:,}" for r, k in cohort.rejects.items()) or "none"),
    ]
    if cohort.recorded:
        first, last = cohort.recorded
        years = f"{first}" if first == last else f"{first} to {last}"
        pairs.insert(3, ("Recorded", years))
    return section("cohort", "Cohort", facts(pairs), *_ages(cohort), *_prevalence(study))


def models_chapter(study: Study) -> Html | None:
    """Name the models, their licences, papers and weights; None without any."""
    if not study.models:
        return None
    rows, papers = [], []
    for model in study.models:
        name = f"{model['model']}@{model['version']}:{model['pooling']}"
        loose = (model["source"] or "").startswith("untrained")
        weights: object = tag("span", "untrained", class_="tag") if loose else model["source"]
        digest = (model["weights_sha256"] or "")[:_DIGEST]
        rows.append(
            [
                code(name),
                join([weights, Html("<br>"), code(digest)]) if digest else weights,
                model["precision"],
                f"{model['dim']:,}",
                f"{model['records']:,}",
                model["licence"],
            ]
        )
        papers.append((name, [line for line in (model["citation"] or "").split("\n") if line]))
    return section(
        "models",
        "Models",
        table(
            "Models with vectors in this warehouse",
            [
                Column("Model, version, read-out"),
                Column("Weights, SHA-256"),
                Column("Precision"),
                Column("Dimensions", "figures"),
                Column("Records", "figures"),
                Column("Licence"),
            ],
            rows,
            foot=["The version is a digest of the weights, the preparation and the precision."],
        ),
        *_marks(study),
        tag("h3", "To cite"),
        facts((code(name), join(lines, Html("<br>"))) for name, lines in papers if lines),
    )


def sources_chapter(study: Study) -> Html:
    """Say where every figure is from and how to ask for it."""
    parts = []
    if study.runs:
        parts.append(_runs("Runs on this page", study, study.runs))
    if study.earlier:
        parts.append(
            details(
                f"Earlier runs of the same features and classifier ({len(study.earlier)})",
                _runs("Earlier runs, not shown above", study, study.earlier),
            )
        )
    read: dict[str, list[str]] = {}
    for run in (*study.runs, *study.earlier):
        read.setdefault(_versions(run.versions), []).append(run.run_id)
    pairs: list[tuple[object, object]] = [
        *((join(map(code, ids), ", "), f"read {versions}") for versions, ids in read.items()),
        ("This page", f"read {_versions(study.versions)}"),
        ("Made with", listed(study.environment)),
    ]
    return section(
        "sources",
        "Where each figure is from",
        tag(
            "p",
            "Scores and curves are read from the tables scores and predictions, counts from "
            "records, labels and splits. The same figures come out of SQL:",
        ),
        shell(*_queries(study)),
        *parts,
        tag("h3", "Versions of the tables"),
        facts(pairs),
    )


def _marks(study: Study) -> list[Html]:
    """Show what is known of the models' pretraining on the datasets of the cohort."""
    if not study.marks:
        return []
    rows = [[mark.model, mark.dataset, mark.status, mark.reason] for mark in study.marks]
    return [
        tag("h3", "Leakage marks"),
        table(
            "Whether a model has seen a dataset in pretraining",
            [Column("Model"), Column("Dataset"), Column("Status"), Column("What tells it")],
            rows,
            foot=["What is not known to be clean is unknown, never clean."],
        ),
    ]


def _of_stored(cohort: Cohort) -> str:
    others = cohort.stored - cohort.records
    return f"{cohort.records:,}" + (f"; {others:,} more stored, not in the split" if others else "")


def _patients(cohort: Cohort) -> str:
    words = f"{cohort.patients:,}"
    if cohort.unidentified:
        words += f"; {cohort.unidentified:,} ECGs without a patient id"
    return words


def _age(cohort: Cohort) -> str:
    if cohort.age is None:
        return "not stored"
    low, middle, high = cohort.age
    words = f"median {middle:.0f} years (quartiles {low:.0f} and {high:.0f})"
    missing = cohort.records - cohort.age_known
    return words + (f"; unknown for {missing:,}" if missing else "")


def _share(part: int, whole: int) -> str:
    return f"{part:,} ({percent(part, whole)})"


def _counted(counts: Mapping[str, int], whole: int) -> str:
    """List what was counted, without the count where there is one thing only."""
    if len(counts) == 1 and whole in counts.values():
        return next(iter(counts))
    shown = [f"{name}: {_share(n, whole)}" for name, n in list(counts.items())[:_SHOWN]]
    rest = len(counts) - _SHOWN
    return "; ".join(shown) + (f"; and {rest} more" if rest > 0 else "")


def span(counts: Sequence[int]) -> str:
    """Write the least and the greatest of counts."""
    if not counts:
        return "–"
    low, high = min(counts), max(counts)
    return f"{low:,}" if low == high else f"{low:,}–{high:,}"


def _ages(cohort: Cohort) -> list[Html]:
    if not cohort.ages:
        return []
    filled = [i for i in range(10) if any(counts[i] for counts in cohort.ages.values())]
    chosen = range(filled[0], filled[-1] + 1)
    sexes = {sex: [counts[i] for i in chosen] for sex, counts in cohort.ages.items()}
    listed = "; ".join(
        f"{sex} " + ", ".join(f"{_DECADES[i]}: {n}" for i, n in zip(chosen, counts, strict=True))
        for sex, counts in sexes.items()
    )
    picture = histogram(
        [_DECADES[i] for i in chosen],
        sexes,
        x_label="Age, years",
        alt=f"ECGs by age and sex. {listed}.",
    )
    keys = legend((mark_key(i), sex) for i, sex in enumerate(sexes))
    return [tag("h3", "Age and sex"), tag("div", keys, figure(picture, ""), class_="single")]


def _prevalence(study: Study) -> list[Html]:
    own = task_of(study)
    tasks = [*([own] if own else []), *(task for task in study.cohort.tasks if task != own)]
    if not tasks:
        return []
    rest = tasks[_SHOWN:]
    parts = [tag("h3", "Labels"), _tasks("Prevalence of labels in this cohort", tasks[:_SHOWN])]
    if rest:
        parts.append(details(f"{len(rest)} more labels", _tasks("Further labels", rest)))
    return parts


def _tasks(caption: str, tasks: Sequence[Task]) -> Html:
    return table(
        caption,
        [
            Column("Task"),
            Column("Positive", "figures"),
            Column("Labelled", "figures"),
            Column("Prevalence", "figures"),
            Column("0–100 %", "bar"),
        ],
        [
            [
                task.name,
                f"{task.positives:,}",
                f"{task.labelled:,}",
                percent(task.positives, task.labelled),
                Html(bar(task.prevalence)),
            ]
            for task in tasks
        ],
    )


def listed(settings: Mapping[str, object]) -> str:
    """Write settings in a line."""
    return ", ".join(
        f"{key} {value if isinstance(value, str) else json.dumps(value)}"
        for key, value in settings.items()
    )


def _versions(versions: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {version}" for name, version in sorted(versions.items()))


def _runs(caption: str, study: Study, runs: Sequence[Run]) -> Html:
    return table(
        caption,
        [
            Column("Run"),
            Column("Features"),
            *(Column(metric, "figures") for metric in study.metrics),
            Column("Scored, UTC"),
            Column("By ecgstore"),
        ],
        [
            [
                code(run.run_id),
                name_of(run, study),
                *(
                    spread(run.values[metric]) if metric in run.values else "–"
                    for metric in study.metrics
                ),
                tag("time", f"{run.at:%Y-%m-%d %H:%M}"),
                code(run.code),
            ]
            for run in runs
        ],
    )


def _queries(study: Study) -> list[str]:
    """Return commands that give the figures of this page, ready for a shell."""
    if study.split is None:
        return [_command("select dataset, count(*) from records group by dataset")]
    split = _literal(study.split.name)
    task = _literal(study.task or study.split.task)
    commands = [
        _command(
            "select features, classifier, metric, avg(value), stddev_samp(value)\n"
            f"  from scores where split_id = {split} group by all"
        ),
        _command(f"select count(*), sum(label) from labels where task = {task}"),
    ]
    if study.runs:
        run = _literal(study.runs[-1].run_id)
        commands.append(_command(f"select * from predictions where run_id = {run}"))
    return commands


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _command(query: str) -> str:
    escaped = "".join(f"\\{char}" if char in '\\"$`' else char for char in query)
    return f'ecgstore sql "{escaped}"'
