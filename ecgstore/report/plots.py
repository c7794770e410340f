"""Drawing: plain arrays to small SVG pictures that follow the theme of the page around them.

The pictures are written by hand rather than by a plotting library because they live inside one
page: they take its fonts, its light and dark colours (`STYLE` names CSS variables, never a colour)
and print with it, a scatter of 500 points costs a few kilobytes, and the same arrays always give
the same bytes. A series is told apart by colour and by dash, a class by colour and by shape.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ecgstore.report.axes import Axes

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

__all__ = ["STYLE", "Curve", "bar", "curves", "histogram", "line_key", "mark_key", "scatter"]

STYLE = """
.plot { display: block; width: 100%; height: auto; overflow: visible; }
.plot text { font: 12px var(--sans); fill: var(--muted); font-variant-numeric: tabular-nums; }
.plot .axis { fill: none; stroke: var(--rule-strong); stroke-width: 1; }
.plot .grid { fill: none; stroke: var(--rule); stroke-width: 1; }
.plot .reference { fill: none; stroke: var(--muted); stroke-width: 1; stroke-dasharray: 1 4;
  stroke-linecap: round; }
.plot .line, .key .line { fill: none; stroke-width: 2; stroke-linejoin: round; }
.plot .band { stroke: none; opacity: .16; }
.plot .bar { stroke: none; }
.key { width: 2.4em; height: .8em; vertical-align: baseline; overflow: visible; flex: none; }
.key.small { width: .9em; }
.s0 { --ink: var(--series-0); } .s1 { --ink: var(--series-1); } .s2 { --ink: var(--series-2); }
.s3 { --ink: var(--series-3); } .s4 { --ink: var(--series-4); } .s5 { --ink: var(--series-5); }
.line { stroke: var(--ink); } .band, .bar { fill: var(--ink); }
.s1.line { stroke-dasharray: 8 3; } .s2.line { stroke-dasharray: 2 3; }
.s3.line { stroke-dasharray: 9 3 2 3; } .s4.line { stroke-dasharray: 5 2; }
.s5.line { stroke-dasharray: 1 2; }
.dots { fill: none; stroke: var(--series-0); stroke-width: 5; stroke-linecap: round; opacity: .75; }
.triangles { fill: var(--series-1); stroke: var(--surface); stroke-width: .6; opacity: .9; }
.plot .whisker { fill: none; stroke: var(--series-0); stroke-width: 2; }
.plot .estimate { fill: var(--series-0); stroke: none; }
.plot text.name { fill: var(--text); }
.plot .point { fill: var(--ink); stroke: var(--surface); stroke-width: 1; }
.meter { width: 100%; height: .7em; display: block; }
.meter rect { fill: var(--series-0); } .meter .rail { fill: var(--rule); }
"""
"""The style sheet of every picture; the page defines the variables for both themes."""

SERIES = 6
"""Series that can be told apart; a seventh would look like the first."""

_TICKS = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)


@dataclass(frozen=True)
class Curve:
    """A curve averaged over reshuffles at fixed abscissae (vertical averaging).

    Attributes:
        label: What it belongs to, such as a feature set.
        x: ``(points,)`` abscissae in [0, 1], ascending.
        mean: ``(points,)`` mean ordinate over the reshuffles.
        std: ``(points,)`` sample standard deviation, 0 where there is one reshuffle.
    """

    label: str
    x: NDArray[np.float64]
    mean: NDArray[np.float64]
    std: NDArray[np.float64]


def curves(
    series: Sequence[Curve],
    *,
    x_label: str,
    y_label: str,
    alt: str,
    diagonal: bool = False,
    level: float | None = None,
) -> str:
    """Draw mean curves with a band of one standard deviation, both axes from 0 to 1.

    Args:
        series: Curves, drawn in order; the last lies on top.
        x_label: Name of the horizontal axis.
        y_label: Name of the vertical axis.
        alt: What the picture shows, for those who cannot see it.
        diagonal: Draw the line of a score that knows nothing in ROC space.
        level: Draw a horizontal line there: the prevalence in precision-recall space.
    """
    axes = Axes(400, 380)
    parts = [
        axes.scale_y(_TICKS, y_label, form=".1f"),
        axes.scale_x(_TICKS, x_label, form=".1f"),
    ]
    if diagonal:
        parts.append(axes.segment("reference", (0, 1), (0, 1)))
    if level is not None:
        parts.append(axes.segment("reference", (0, 1), (level, level)))
    for index, curve in enumerate(series):
        low = np.clip(curve.mean - curve.std, 0, 1)
        high = np.clip(curve.mean + curve.std, 0, 1)
        edge = axes.path([*curve.x, *curve.x[::-1]], [*high, *low[::-1]])
        parts.append(f'<path class="band s{index % SERIES}" d="{edge}Z"/>')
    for index, curve in enumerate(series):
        line = axes.path(curve.x, curve.mean)
        parts.append(f'<path class="line s{index % SERIES}" d="{line}"/>')
    parts.append(axes.segment("axis", (0, 0), (1, 0)) + axes.segment("axis", (0, 1), (0, 0)))
    return axes.picture(alt, *parts)


def scatter(xy: NDArray[np.float32], positive: NDArray[np.bool_], *, alt: str) -> str:
    """Draw points of two classes in a square: dots, and triangles for the positives.

    Args:
        xy: ``(points, 2)`` positions; only their relative places matter, both axes share a scale.
        positive: ``(points,)`` whether a point is of the positive class.
        alt: What the picture shows.
    """
    low, high = xy.min(axis=0), xy.max(axis=0)
    half = float(max((high - low).max(), 1e-9)) / 2 * 1.04
    middle = (low + high) / 2
    axes = Axes(
        300,
        300,
        x=(float(middle[0]) - half, float(middle[0]) + half),
        y=(float(middle[1]) - half, float(middle[1]) + half),
        left=6,
        right=6,
        top=6,
        bottom=6,
    )
    places = [(axes.across(float(x)), axes.down(float(y))) for x, y in xy]
    dots = "".join(
        f"M{x:.1f} {y:.1f}h0" for (x, y), p in zip(places, positive, strict=True) if not p
    )
    triangles = "".join(
        f"M{x:.1f} {y - 3.6:.1f}l3.4 6h-6.8z"
        for (x, y), p in zip(places, positive, strict=True)
        if p
    )
    frame = '<rect class="grid" x=".5" y=".5" width="299" height="299"/>'
    return axes.picture(
        alt,
        frame,
        f'<path class="dots" d="{dots}"/>',
        f'<path class="triangles" d="{triangles}"/>',
    )


def histogram(
    edges: Sequence[str], counts: Mapping[str, Sequence[int]], *, x_label: str, alt: str
) -> str:
    """Draw counts by class interval, the series of an interval side by side.

    Args:
        edges: Name of each interval, in order.
        counts: Series name to one count an interval.
        x_label: Name of the horizontal axis.
        alt: What the picture shows.
    """
    ticks = _whole_ticks(max((max(values, default=0) for values in counts.values()), default=0))
    axes = Axes(440, 260, x=(0, len(edges)), y=(0, ticks[-1]), left=56)
    parts = [axes.scale_y(ticks, "ECGs", form=","), axes.label_x(x_label)]
    width = 0.84 / max(len(counts), 1)
    for place, name in enumerate(edges):
        parts.append(axes.text(axes.across(place + 0.5), axes.down(0) + 17, name))
        for index, values in enumerate(counts.values()):
            left, right = (axes.across(place + 0.08 + width * (index + side)) for side in (0, 1))
            top = axes.down(values[place])
            parts.append(
                f'<rect class="bar s{index % SERIES}" x="{left:.1f}" y="{top:.1f}" '
                f'width="{right - left - 1:.1f}" height="{axes.down(0) - top:.1f}"/>'
            )
    parts.append(axes.segment("axis", axes.x, (0, 0)))
    return axes.picture(alt, *parts)


def bar(fraction: float) -> str:
    """Draw a fraction in [0, 1] as a bar on a rail, for a table cell beside its figure."""
    filled = min(max(fraction, 0.0), 1.0) * 100
    return (
        '<svg class="meter" viewBox="0 0 100 4" preserveAspectRatio="none" aria-hidden="true">'
        '<rect class="rail" y="1.6" width="100" height=".8"/>'
        f'<rect width="{filled:.2f}" height="4"/></svg>'
    )


def line_key(index: int) -> str:
    """Draw the key of the curve at ``index``, for a legend in the page."""
    return (
        '<svg class="key" viewBox="0 0 36 12" aria-hidden="true">'
        f'<path class="line s{index % SERIES}" d="M0 7H36"/></svg>'
    )


def mark_key(index: int | None = None, *, triangle: bool = False) -> str:
    """Draw the key of a bar series, or of a class of a scatter where no index is given."""
    if index is not None:
        mark = f'<rect class="bar s{index % SERIES}" x="0" y="1" width="11" height="11"/>'
    elif triangle:
        mark = '<path class="triangles" d="M6 1l5.5 10h-11z"/>'
    else:
        mark = '<path class="dots" style="stroke-width:9" d="M6 7h0"/>'
    return f'<svg class="key small" viewBox="0 0 12 12" aria-hidden="true">{mark}</svg>'


def _whole_ticks(highest: int) -> list[int]:
    """Return four to six ticks from 0 to at least ``highest``, at 1, 2 or 5 times a power of 10."""
    rough = max(highest, 1) / 4
    power = 10 ** math.floor(math.log10(rough)) if rough >= 1 else 1
    step = next(step for m in (1, 2, 5, 10) if (step := m * power) >= rough)
    return [step * i for i in range(max(1, math.ceil(highest / step)) + 1)]
