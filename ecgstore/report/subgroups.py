"""For whom the best run works: a forest plot and a table of its metric by group."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from ecgstore.report.axes import minus
from ecgstore.report.charts import Estimate, forest
from ecgstore.report.page import Column, Html, figure, note, section, table, tag
from ecgstore.report.summary import name_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ecgstore.report.study import Study

__all__ = ["subgroups_chapter"]


def subgroups_chapter(study: Study) -> Html | None:
    """Show the best run's figures by group; None where nobody asked and nothing is known."""
    found, best = study.subgroups, study.best
    if found is None or best is None:
        return None
    if isinstance(found, str):
        return section("subgroups", "For whom", note("Not told.", found))
    metric = study.metrics[0]
    rows = [row for row in found.rows if row["metric"] == metric]
    drawn = [row for row in rows if row["value"] is not None]
    told = "; ".join(f"{_name(row)} {_number(row['value'])}, {_ends(row)}" for row in drawn)
    everybody = next((row["value"] for row in rows if not row["by"]), None)
    picture = forest(
        [
            Estimate(_name(row), _float(row["value"]), _float(row["low"]), _float(row["high"]))
            for row in drawn
        ],
        x_label=metric,
        alt=f"{metric} of {name_of(best, study)} by group. {told}.",
        line=everybody if everybody is None else float(str(everybody)),
    )
    caption = (
        f"{metric} of {name_of(best, study)} in each group, with its BCa interval over patients. "
        "Dotted: all records."
    )
    return section(
        "subgroups",
        "For whom",
        *(tag("p", words) for words in found.sentences),
        tag("div", figure(picture, caption), class_="wide"),
        _table(rows, metric),
    )


def _table(rows: list[dict[str, Any]], metric: str) -> Html:
    rates = [one for one in ("sensitivity", "specificity") if any(row.get(one) for row in rows)]
    positives = any(row.get("positives") is not None for row in rows)
    columns = [
        Column("Group"),
        Column("Records", "figures"),
        Column("Patients", "figures"),
        *([Column("Positive", "figures")] if positives else []),
        Column(metric, "figures"),
        Column("95 % interval", "figures"),
        *(Column(one.capitalize(), "figures") for one in rates),
        Column("Why there is no figure"),
    ]
    cells = [
        [
            _name(row),
            f"{row['records']:,}",
            f"{row['patients']:,}",
            *([_count(row.get("positives"))] if positives else []),
            _number(row["value"]),
            _ends(row),
            *(_number(row.get(one)) for one in rates),
            row["reason"] or "",
        ]
        for row in rows
    ]
    foot = []
    if rates:
        foot.append(
            "Sensitivity and specificity at the threshold that reaches a sensitivity of 0.95 on "
            "out-of-fold scores of training records; the same for every group."
        )
    if not any(row["reason"] for row in rows):
        columns, cells = columns[:-1], [row[:-1] for row in cells]
    return table("The best run by group", columns, cells, foot=foot)


def _name(row: Mapping[str, Any]) -> str:
    if not row["by"]:
        return "all records"
    group = {"true": "yes", "false": "no"}.get(str(row["group"]).lower(), str(row["group"]))
    return f"{row['by']}: {group}"


def _count(value: object) -> str:
    return "–" if value is None else f"{value:,}"


def _float(value: object) -> float:
    return math.nan if value is None else float(str(value))


def _number(value: object) -> str:
    return "–" if value is None else minus(f"{value:.3f}")


def _ends(row: Mapping[str, Any]) -> str:
    if row["low"] is None:
        return "–"
    return minus(f"{row['low']:.3f} to {row['high']:.3f}")
