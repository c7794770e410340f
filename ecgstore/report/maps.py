"""The maps of the report: training records laid out in two dimensions, by each feature set."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ecgstore.project import METHODS, Projection
from ecgstore.report.page import Html, figure, join, legend, section, tag
from ecgstore.report.plots import mark_key, scatter

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ecgstore.report.study import Study

__all__ = ["maps_chapter"]


def maps_chapter(study: Study) -> Html | None:
    """Set the maps of the feature sets side by side, a row a method; None without any."""
    found = [one for one in study.maps.values() if isinstance(one, Projection)]
    refused = dict.fromkeys(words for words in study.maps.values() if isinstance(words, str))
    if not found:
        return None
    first = found[0]
    keys = legend(
        [
            (mark_key(triangle=True), f"{first.task} positive"),
            (mark_key(), f"{first.task} negative"),
        ]
    )
    by_method = [
        _panels([one for one in found if one.method == method])
        for method in dict.fromkeys(one.method for one in found)
    ]
    notes = [tag("p", words, class_="foot") for words in refused]
    return section("maps", "Maps of the vectors", keys, *by_method, *notes)


def _panels(found: Sequence[Projection]) -> Html:
    first = found[0]
    same = all(one.record_ids == first.record_ids for one in found)
    panels = [
        figure(
            scatter(
                one.xy,
                one.labels == 1,
                alt=f"{METHODS[one.method]} map of {one.features}: {_drawn(one)}.",
            ),
            "" if same else _drawn(one),
            tag("h3", f"{one.features}, {METHODS[one.method]}"),
        )
        for one in found
    ]
    words = (
        f"{METHODS[first.method]} of records of the training part of repeat {first.repeat}"
        f"{f', the same {_drawn(first)} in every panel' if same else ''}; seed {first.seed}. Near "
        "points have similar vectors; distances between groups and the directions of the axes "
        "mean nothing."
    )
    return join([tag("div", *panels, class_="panels"), tag("p", words, class_="foot")])


def _drawn(one: Projection) -> str:
    positives = int(one.labels.sum())
    return f"{positives:,} positive and {len(one.labels) - positives:,} negative records"
