"""How the scores were computed: the split and what crosses it, the features, what was fitted."""

from __future__ import annotations

from shlex import quote
from typing import TYPE_CHECKING

from ecgstore.report.lineage import listed, span
from ecgstore.report.page import Column, Html, code, facts, join, section, table, tag
from ecgstore.report.summary import name_of, repeats, task_of, unit

if TYPE_CHECKING:
    from ecgstore.report.study import Split, Study
    from ecgstore.splitting.split_check import CheckResult

__all__ = ["method_chapter"]

_AVERAGE = " (AUCPR is the average precision)"

_PROTOCOLS = {
    "paper": "paper: drawn by record, scaled over all records, as Meng et al. (2025) did",
    "sound": "sound: patients never on both sides, everything fitted on training records",
}

_METHODS = {
    "stratified shuffle": "stratified, drawn anew each time",
    "kfold": "stratified, every record tested once in a round",
    "strat_fold": "the dataset's own folds",
    "temporal": "train on what was recorded before, test on what came after",
    "leave-one-site-out": "one site tested at a time",
    "leave-one-device-out": "one device tested at a time",
    "leave-one-dataset-out": "one dataset tested at a time",
}


def method_chapter(study: Study) -> Html | None:
    """Say how the scores were computed; None where there is no split."""
    split = study.split
    if split is None:
        return None
    pairs: list[tuple[object, object]] = [
        ("Task", split.task),
        ("Split", f"{split.name}: {repeats(len(split.sizes), split)}, {_method(split)}"),
        ("Protocol", _PROTOCOLS.get(split.protocol, "none named")),
        ("Drawn by", _drawn_by(split)),
        ("Patients on both sides", f"{split.shared_patients:,}, counted in the tables"),
        ("Training records", span([size["train"] for size in split.sizes])),
        ("Test records", span([size["test"] for size in split.sizes])),
        *_positives(study, split),
        (
            "Metrics",
            (
                f"{' and '.join(study.metrics) or 'none yet'} on the test records of each "
                f"{unit(split)}{_AVERAGE if 'AUCPR' in study.metrics else ''}; ± is the sample "
                "standard deviation (n − 1)"
            ),
        ),
    ]
    sets = [
        [
            name,
            join((code(str(member)) for member in features.members), Html("<br>")),
            _scaling(features.scale, features.fit, members=len(features.members)),
            f"{study.covered[name]:,}",
        ]
        for name, features in study.sets.items()
    ]
    fitted = [
        [
            name_of(run, study),
            run.classifier,
            listed(run.params),
            span(run.tested),
            f"{run.seconds:,.1f}",
        ]
        for run in study.runs
    ]
    parts = [facts(pairs), *_checked(study.check)]
    if sets:
        heads = [Column("Features"), Column("Vectors"), Column("Scaling")]
        parts.append(table("What the features are", [*heads, Column("Records", "figures")], sets))
    if fitted:
        parts.append(
            table(
                "What was fitted",
                [
                    Column("Features"),
                    Column("Classifier"),
                    Column("Settings", "code"),
                    Column("Records tested", "figures"),
                    Column("Seconds", "figures"),
                ],
                fitted,
            )
        )
    return section("method", "How it was computed", *parts)


def _method(split: Split) -> str:
    method = str(split.params.get("method", "not stated"))
    return _METHODS.get(method, method)


def _drawn_by(split: Split) -> str:
    grouped = {
        "patient_id": "patients are drawn whole, never on both sides",
        "none": "records are drawn one by one, whoever they belong to",
    }.get(str(split.params.get("group")), "not stated")
    return f"{grouped}; seed {split.params.get('seed', 'not stated')}"


def _positives(study: Study, split: Split) -> list[tuple[object, object]]:
    """Tell how many of those tested are positive, where the task says so of each."""
    if task_of(study) is None or study.task != split.task:
        return []
    shares = [100 * one["test_positive"] / one["test"] for one in split.sizes if one["test"]]
    return [("Positives among tested", f"{min(shares):.1f} % to {max(shares):.1f} %")]


def _checked(found: CheckResult | str | None) -> list[Html]:
    """Show what was found to cross the split."""
    if found is None:
        return []
    if isinstance(found, str):
        return [tag("p", f"The split was not checked: {found}", class_="foot")]
    rows = [
        [
            row["what"],
            "not assessed" if row["crossing"] is None else f"{row['crossing']:,}",
            "–" if row["of"] is None else f"{row['of']:,}",
            "–" if row["repeats"] is None else f"{row['repeats']:,}",
            row.get("note") or "",
        ]
        for row in found.rows
    ]
    return [
        tag("h3", "What crosses the split"),
        tag("p", f"{found.summary}."),
        table(
            "Things on both sides of the split, counted in the tables",
            [
                Column("What"),
                Column("Crossing", "figures"),
                Column("Of", "figures"),
                Column("In repeats", "figures"),
                Column("To know"),
            ],
            rows,
            foot=[
                *found.notes,
                join(["To ask again: ", code(f"ecgstore split {quote(found.name)} --check")]),
            ],
        ),
    ]


def _scaling(scale: str, fit: str, *, members: int) -> str:
    joined = ", then concatenated" if members > 1 else ""
    if scale == "none":
        return f"none{joined}"
    name = {"minmax": "min–max to [0, 1]", "zscore": "z-score"}.get(scale, scale)
    where = (
        "the training records of each reshuffle"
        if fit == "train"
        else "all records, test records included"
    )
    return f"{name}, fitted on {where}{joined}"
