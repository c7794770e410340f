"""The loss of a run as a picture, and as a line of text for a terminal."""

from __future__ import annotations

import warnings
from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from ecgstore.pretraining.loop import History

__all__ = ["png", "spark"]

_COLOURS = ("#0072b2", "#d55e00", "#00835f", "#a8478f", "#8f6f00", "#4a5058")
"""Those of the report; after them they come again, with other dashes."""

_DASHES = ("solid", (0, (6, 2)), (0, (2, 2)), (0, (6, 2, 1, 2)))
_RULE, _TEXT = "#d5d9dd", "#22272b"
_BLOCKS = "▁▂▃▄▅▆▇█"
_WIDE = 20.0
"""A loss that spans more than this many times its least is drawn on a logarithmic scale."""

_POINTS = 100
"""Points of a smoothed line, each the mean of as many steps."""


def png(history: History, *, title: str) -> bytes:
    """Draw the loss and its terms over the steps; the same history gives the same bytes.

    Faint lines are single steps, strong ones means of a hundredth of all. Terms that are not all
    positive, or of a small range, are on a linear scale.

    Args:
        history: What every step lost.
        title: What stands above, such as model, run, seed and steps.

    Returns:
        A PNG of 900 by 560 pixels.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

    values = np.array(history.values, dtype=np.float64).reshape(
        len(history.values), len(history.names)
    )
    steps = np.arange(1, len(values) + 1)
    figure = Figure(figsize=(9, 5.6), dpi=100, layout="constrained", facecolor="white")
    axes = figure.add_subplot()
    for i, name in enumerate(history.names):
        colour, dash = _COLOURS[i % len(_COLOURS)], _DASHES[i % len(_DASHES)]
        if len(values) > _POINTS:
            axes.plot(steps, values[:, i], color=colour, linewidth=0.6, alpha=0.3)
        x, y = _smoothed(steps), _smoothed(values[:, i])
        marker = "o" if len(x) == 1 else None
        width = 2.4 if i == 0 else 1.5
        label = f"{name} {values[-1, i]:.4g}" if len(values) else name
        axes.plot(x, y, color=colour, linestyle=dash, linewidth=width, marker=marker, label=label)
    finite = values[np.isfinite(values)]
    if finite.size and finite.min() > 0 and finite.max() > _WIDE * finite.min():
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.yaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("step", fontsize=12, color=_TEXT)
    axes.set_ylabel("loss", fontsize=12, color=_TEXT)
    axes.set_title(title, fontsize=13, color=_TEXT, parse_math=False, wrap=True)
    axes.tick_params(labelsize=11, colors=_TEXT)
    axes.grid(color=_RULE, linewidth=0.8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(_RULE)
    if len(values):
        legend = axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize=11, frameon=False)
        for text in legend.get_texts():
            text.set_parse_math(False)
    picture = BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # a script the font lacks shows as boxes
        figure.savefig(picture, format="png")
    return picture.getvalue()


def spark(losses: Sequence[float], *, width: int = 24) -> str:
    """Return losses as a row of blocks, the highest full, with the last as a number.

    Args:
        losses: The loss of every step; those that are not finite are left out.
        width: Blocks at most, each the mean of as many steps.

    Example:
        >>> spark([8.0, 6.0, 4.0, 2.0, 1.0])
        '█▆▄▂▁ 1'
    """
    known = np.array(losses, dtype=np.float64)
    known = known[np.isfinite(known)]
    if not len(known):
        return ""
    means = np.array([part.mean() for part in np.array_split(known, min(width, len(known)))])
    if means.min() > 0 and means.max() > _WIDE * means.min():
        means = np.log(means)
    span = float(np.ptp(means)) or 1.0
    places = np.minimum((means - means.min()) / span * len(_BLOCKS), len(_BLOCKS) - 1).astype(int)
    return f"{''.join(_BLOCKS[place] for place in places)} {known[-1]:.4g}"


def _smoothed(numbers: NDArray[np.generic]) -> NDArray[np.float64]:
    """Return means of consecutive parts."""
    parts = np.array_split(numbers.astype(np.float64), min(_POINTS, max(1, len(numbers))))
    return np.array([part.mean() for part in parts if len(part)])
