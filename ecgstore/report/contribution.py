"""What each model adds: likeness of vectors, overlap of errors, what is lost without it, SHAP."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ecgstore.report.axes import minus
from ecgstore.report.page import Column, Html, note, section, table, tag
from ecgstore.report.plots import bar
from ecgstore.report.summary import name_of, percent

if TYPE_CHECKING:
    from ecgstore.explain.shap import ShapResult
    from ecgstore.laboratory.complementarity import ComplementarityResult, Figure
    from ecgstore.report.study import Study

__all__ = ["contribution_chapter"]

_MEANS = {
    "CKA": "alignment of the two models' vectors: 1 where one is the other turned or scaled",
    "double fault": "part of the records that both get wrong",
    "error overlap": "part of the records that either gets wrong which both do",
    "Q statistic": "Yule's Q of right and wrong: 1 where they err together, below 0 apart",
    "kappa": "agreement of right and wrong beyond chance",
    "oracle": "part that at least one of them gets right",
    "contribution": "what the fused set loses without the model",
    "over best single": "what the fused set gains on the best single model",
    "gain": "part of the classifier's total gain that is the model's",
}
"""What each figure says, in a few words."""


def contribution_chapter(study: Study) -> Html | None:
    """Show what each model adds; None where there is nothing fused."""
    if study.complementarity is None and not study.shap:
        return None
    parts: list[object] = []
    if isinstance(study.complementarity, str):
        parts.append(note("Not told.", study.complementarity))
    elif study.complementarity is not None:
        parts += _complementarity(study.complementarity)
    told = {run.run_id: name_of(run, study) for run in study.runs}
    shares = {one: found for one, found in study.shap.items() if not isinstance(found, str)}
    for run_id, found in shares.items():
        parts.append(_shap(told.get(run_id, run_id), found))
    refused = dict.fromkeys(words for words in study.shap.values() if isinstance(words, str))
    parts += [tag("p", f"No SHAP shares: {words}", class_="foot") for words in refused]
    return section("contribution", "What each model adds", *parts)


def _complementarity(found: ComplementarityResult) -> list[Html]:
    names = list(dict.fromkeys(one.name for one in found.figures))
    meanings = [f"{name}: {_MEANS[name]}." for name in names if name in _MEANS]
    notes = any(one.note for one in found.figures)
    columns = [
        Column("Figure"),
        Column("Of"),
        Column("Value", "figures"),
        Column("95 % interval", "figures"),
        Column("Records", "figures"),
    ]
    rows: list[list[object]] = [
        [
            _name(one, found.metric),
            one.of,
            "–" if one.value is None else minus(f"{one.value:.3f}"),
            _ends(one),
            "–" if one.records is None else f"{one.records:,}",
        ]
        for one in found.figures
    ]
    if notes:
        columns.append(Column("To know"))
        rows = [[*row, one.note] for row, one in zip(rows, found.figures, strict=True)]
    return [
        table(
            f"How {' and '.join(found.features)} complement each other in {found.fused}",
            columns,
            rows,
            foot=[" ".join(meanings)],
        )
    ]


def _name(one: Figure, metric: str) -> str:
    return f"{one.name}, {metric}" if one.name in {"contribution", "over best single"} else one.name


def _ends(one: Figure) -> str:
    if one.low is None or one.high is None:
        return "–"
    return minus(f"{one.low:.3f} to {one.high:.3f}")


def _shap(name: str, found: ShapResult) -> Html:
    rows = [
        [
            row["block"],
            f"{row['dim']:,}",
            f"{row['mean_abs_shap']:.4f}",
            percent(round(1000 * float(str(row["share"]))), 1000),
            Html(bar(float(str(row["share"])))),
        ]
        for row in found.rows
    ]
    return table(
        f"Share of each model in the score of {name}",
        [
            Column("Model"),
            Column("Numbers", "figures"),
            Column("Mean |SHAP|", "figures"),
            Column("Share", "figures"),
            Column("0–100 %", "bar"),
        ],
        rows,
        foot=[
            (
                f"TreeSHAP (Lundberg et al., 2020) of the {len(found.record_ids):,} test records "
                f"of repeat {found.repeat}, in {found.unit}; every patient counts once."
            )
        ],
    )
