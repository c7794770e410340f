"""Drawing what is estimated: forest plots, reliability curves and decision curves as small SVG."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ecgstore.report.axes import Axes, ticks
from ecgstore.report.plots import SERIES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = ["Estimate", "Line", "forest", "lines"]

_ROW = 24.0  # height of a row of a forest plot, in user units
_LETTER = 6.6  # width of a letter at 12 px, about


@dataclass(frozen=True)
class Estimate:
    """A row of a forest plot.

    Attributes:
        name: What stands before it.
        value: The estimate.
        low: Lower end of its interval, NaN where there is none.
        high: Upper end.
    """

    name: str
    value: float
    low: float
    high: float


@dataclass(frozen=True, eq=False)
class Line:
    """A line of a chart.

    Attributes:
        x: ``(points,)`` abscissae, ascending.
        y: ``(points,)`` ordinates; where one is NaN the line is broken.
        low: ``(points,)`` lower edge of a band around it, None without a band.
        high: ``(points,)`` its upper edge.
        style: ``series``, or ``reference`` for a dotted line that is no series.
        points: Whether its points are marked.
    """

    x: NDArray[np.float64]
    y: NDArray[np.float64]
    low: NDArray[np.float64] | None = None
    high: NDArray[np.float64] | None = None
    style: str = "series"
    points: bool = False


def forest(rows: Sequence[Estimate], *, x_label: str, alt: str, line: float | None = None) -> str:
    """Draw estimates with their intervals, one below the other.

    Args:
        rows: From top to bottom.
        x_label: What is estimated.
        alt: What the picture shows, for those who cannot see it.
        line: Draw an upright line there: no difference, or the figure of everybody.
    """
    ends = [v for row in rows for v in (row.value, row.low, row.high) if np.isfinite(v)]
    ends += [] if line is None else [line]
    scale = ticks(min(ends, default=0.0), max(ends, default=1.0))
    if len(scale) < 2:
        scale = [scale[0] - 0.1, scale[0], scale[0] + 0.1]
    left = 24 + _LETTER * max((len(row.name) for row in rows), default=0)
    axes = Axes(
        640,
        _ROW * len(rows) + 56,
        x=(scale[0], scale[-1]),
        y=(0, len(rows)),
        left=min(left, 300),
        right=16,
    )
    parts = [axes.scale_x(scale, x_label, form="g")]
    if line is not None:
        parts.append(axes.segment("reference", (line, line), axes.y))
    for place, row in enumerate(rows):
        y = len(rows) - place - 0.5
        down = axes.down(y)
        parts.append(
            axes.text(axes.left - 12, down + 4, row.name, anchor="end").replace(
                "<text", '<text class="name"', 1
            )
        )
        if np.isfinite(row.low) and np.isfinite(row.high):
            parts.append(axes.segment("whisker", (row.low, row.high), (y, y)))
        if np.isfinite(row.value):
            across = axes.across(row.value)
            parts.append(
                f'<rect class="estimate" x="{across - 4:.1f}" y="{down - 4:.1f}" '
                'width="8" height="8"/>'
            )
    parts.append(axes.segment("axis", axes.x, (0, 0)))
    return axes.picture(alt, *parts)


def lines(
    series: Sequence[Line],
    *,
    x_label: str,
    y_label: str,
    alt: str,
    x: tuple[float, float] = (0.0, 1.0),
    y: tuple[float, float] | None = None,
) -> str:
    """Draw lines over a common pair of axes; what lies beyond the axes is cut off.

    Args:
        series: Lines, drawn in order; the n-th that is no reference has the n-th colour.
        x_label: Name of the horizontal axis.
        y_label: Name of the vertical axis.
        alt: What the picture shows.
        x: Ends of the horizontal axis.
        y: Ends of the vertical axis; default what encloses the lines.
    """
    if y is None:
        seen = np.concatenate([line.y[np.isfinite(line.y)] for line in series] or [np.zeros(1)])
        y = float(seen.min(initial=0.0)), float(seen.max(initial=0.0))
    across, upward = ticks(*x), ticks(*y)
    axes = Axes(400, 380, x=(across[0], across[-1]), y=(upward[0], upward[-1]), left=52)
    parts = [
        axes.scale_y(upward, y_label, form="g"),
        axes.scale_x(across, x_label, form="g"),
    ]
    index = 0
    for line in series:
        shown = np.clip(line.y, *axes.y)
        if line.style == "reference":
            parts += _paths(axes, "reference", line.x, np.where(line.y == shown, line.y, np.nan))
            continue
        style = f"s{index % SERIES}"
        if line.low is not None and line.high is not None:
            keep = np.isfinite(line.low) & np.isfinite(line.high)
            if keep.any():
                edges = np.clip(line.low[keep], *axes.y), np.clip(line.high[keep], *axes.y)
                x_there = line.x[keep]
                edge = axes.path([*x_there, *x_there[::-1]], [*edges[1], *edges[0][::-1]])
                parts.append(f'<path class="band {style}" d="{edge}Z"/>')
        parts += _paths(axes, f"line {style}", line.x, np.where(line.y == shown, line.y, np.nan))
        if line.points:
            parts += [
                f'<circle class="point {style}" cx="{axes.across(a):.1f}" '
                f'cy="{axes.down(b):.1f}" r="4"/>'
                for a, b in zip(line.x, line.y, strict=True)
                if np.isfinite(b)
            ]
        index += 1
    parts.append(axes.segment("axis", axes.x, (axes.y[0], axes.y[0])))
    parts.append(axes.segment("axis", (axes.x[0], axes.x[0]), (axes.y[1], axes.y[0])))
    return axes.picture(alt, *parts)


def _paths(axes: Axes, style: str, x: NDArray[np.float64], y: NDArray[np.float64]) -> list[str]:
    """Draw a line, broken where it is NaN."""
    there = np.flatnonzero(np.isfinite(y))
    runs = np.split(there, np.flatnonzero(np.diff(there) > 1) + 1) if len(there) else []
    return [f'<path class="{style}" d="{axes.path(x[run], y[run])}"/>' for run in runs]
