"""An explanation drawn over the ECG it explains, on the paper of `ecgstore.paper`.

Two drawings share one layout. `draw` makes a figure in true size for a file. `svg_of` makes a small
picture to stand inside a page: it needs nothing but itself, and as ECG paper is pale in any light,
it is so in a dark page too. Behind each trace stand bands: orange where a stretch raises the score,
blue where it lowers it, the stronger the fuller. The two keep apart in every common kind of colour
blindness (after Okabe and Ito 2008, Color Universal Design), and the legend gives sign and unit.
"""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

import numpy as np

from ecgstore import paper
from ecgstore.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from ecgstore.explain.attribution import Attribution
    from ecgstore.paper import _Piece as Piece
    from ecgstore.record import Record

__all__ = ["draw", "svg_of"]

RAISES, LOWERS = "#e69f00", "#0072b2"
"""Orange and blue of Okabe and Ito."""

_FULLEST = 0.75  # opacity of the strongest band: the grid still shows through
_FAINTEST = 0.03  # of the strongest; what is fainter is not drawn
_BAND_MM = 11.0  # above and below a baseline: neighbouring rows keep apart
_UNITS_MM = 10  # whole units of the picture a millimetre, 10 µV each upward
_POINTS = 10_000  # of all traces of a picture: about 40 kB
_MOST_HZ = 250.0


def draw(
    record: Record,
    attribution: Attribution,
    *,
    start_s: float = 0.0,
    title: str | None = None,
    rhythm: str = "II",
    dpi: int = 150,
) -> Figure:
    """Draw a record on ECG paper with the attribution as bands behind its traces.

    Args:
        record: What to draw.
        attribution: What `occlusion` or `gradients` found of it.
        start_s: Where to begin in a longer record, in seconds.
        title: What stands above; by default method and score, and nothing of the person.
        rhythm: The lead of the strip under the twelve.
        dpi: Dots an inch of a PNG.

    Raises:
        UnknownNameError: The record has no such rhythm lead.
        UsageError: It has no leads, or ends before ``start_s``.
    """
    from matplotlib.collections import PatchCollection
    from matplotlib.patches import Rectangle

    title = title or f"{attribution.method}: score {attribution.score:+.2f} {attribution.unit}"
    figure = paper.draw(record, start_s=start_s, title=title, rhythm=rhythm, dpi=dpi)
    (axes,) = figure.axes
    pieces, _ = paper._layout(record, start_s, rhythm)
    for colour, of_sign in ((RAISES, 1), (LOWERS, -1)):
        boxes, strengths = [], []
        for piece in pieces:
            for x_mm, width_mm, strength in _bands(piece, attribution):
                if strength * of_sign > 0:
                    corner = (x_mm, piece.y_mm - _BAND_MM)
                    boxes.append(Rectangle(corner, width_mm, 2 * _BAND_MM))
                    strengths.append(abs(strength) * _FULLEST)
        axes.add_collection(
            PatchCollection(boxes, facecolor=colour, alpha=strengths or None, lw=0, zorder=0.7),
            autolim=False,
        )
    for x_mm, colour, words in _legend(attribution, _right_mm(pieces)):
        if colour:
            key = Rectangle((x_mm, -6.5), 4, 3, facecolor=colour, alpha=_FULLEST, lw=0)
            axes.add_patch(key)
        paper._write(axes, x_mm + 5.5, -5, words, size=7.5)
    return figure


def svg_of(record: Record, attribution: Attribution | None = None) -> str:
    """Return a record on ECG paper as an inline SVG: the same record gives the same bytes.

    The first ten seconds in the layout of `ecgstore.paper`. A trace sampled above 250 Hz is drawn
    by the least and the greatest value of each of 125 columns a second, so no peak is lost; a
    picture of many rows takes fewer. Colours are its own, whatever page it stands in, and nothing
    of the patient is in it.

    Args:
        record: What to draw.
        attribution: What to show behind the traces, if anything.

    Raises:
        UsageError: The record has no leads.
    """
    if not record.leads or not record.n_samples:
        msg = f"{record.name!r} has no lead to draw."
        raise UsageError(msg)
    pieces, n_rows = paper._layout(record, 0.0, "II")
    width = round((_right_mm(pieces) + 2.5) * _UNITS_MM)
    height = round((paper._ROW_MM * n_rows + 10) * _UNITS_MM)
    foot = 8 * _UNITS_MM if attribution is not None else 0
    label = f"ECG of {record.duration_s:.4g} s, {len(record.leads)} leads, on millimetre paper"
    if attribution is not None:
        label += (
            f"; bands behind the traces show what raises and what lowers the score of "
            f"{attribution.score:+.2f} {attribution.unit}"
        )
    parts = [
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height + foot}" '
            f'role="img" aria-label="{escape(label)}" font-family="sans-serif" font-weight="bold">'
        ),
        f'<path fill="#fff" d="M0 0h{width}v{height + foot}H0z"/>',
        *_svg_grid(width, height),
    ]
    rate_hz = min(_MOST_HZ, _POINTS / sum(piece.length_s for piece in pieces))
    if attribution is not None:
        parts.extend(_svg_bands(pieces, attribution, height))
    parts.append(
        '<g fill="none" stroke="#111" stroke-width="3" stroke-linejoin="round">'
        + "".join(_svg_pulse(y_mm, height) for y_mm in sorted({p.y_mm for p in pieces}))
        + "".join(_svg_mark(piece, height) for piece in pieces)
        + "".join(_svg_trace(record, piece, rate_hz, height) for piece in pieces)
        + "</g>"
    )
    parts.append(
        '<g font-size="34" fill="#222" stroke="#fff" stroke-width="8" paint-order="stroke">'
    )
    parts.extend(_svg_label(record, piece, height) for piece in pieces)
    parts.append("</g>")
    if attribution is not None:
        parts.extend(_svg_legend(attribution, _right_mm(pieces), height))
    return "".join([*parts, "</svg>"])


def _right_mm(pieces: list[Piece]) -> float:
    return max(piece.x_mm + piece.length_s * paper.SPEED_MM_S for piece in pieces)


def _bands(piece: Piece, attribution: Attribution) -> Iterator[tuple[float, float, float]]:
    """Yield left edge and width in mm, and strength from -1 to 1, of what falls into a piece."""
    strongest = _strongest(attribution)
    if piece.lead not in attribution.leads or not strongest > 0:
        return
    values = attribution.values[attribution.leads.index(piece.lead)] / strongest
    edges = np.clip(attribution.edges_s, piece.start_s, piece.start_s + piece.length_s)
    left_mm = piece.x_mm + (edges[:-1] - piece.start_s) * paper.SPEED_MM_S
    for x_mm, length_s, value in zip(left_mm, np.diff(edges), values, strict=True):
        if length_s > 0 and abs(value) >= _FAINTEST:  # NaN is not drawn either
            yield float(x_mm), float(length_s * paper.SPEED_MM_S), float(value)


def _strongest(attribution: Attribution) -> float:
    return float(np.abs(np.nan_to_num(attribution.values)).max(initial=0.0))


def _legend(attribution: Attribution, right_mm: float) -> tuple[tuple[float, str, str], ...]:
    """Return the place in mm, the colour and the words of each entry."""
    fullest = f"fullest colour: ±{_strongest(attribution):.2g} {attribution.unit}"
    return (
        (right_mm - 125, RAISES, "raises the score"),
        (right_mm - 88, LOWERS, "lowers it"),
        (right_mm - 68, "", fullest),
    )


def _svg_grid(width: int, height: int) -> Iterator[str]:
    """Yield the paper: a line as wide as the paper, dashed, is all lines of one direction."""
    for step, colour, weight in ((1, paper._MINOR, 1.2), (5, paper._MAJOR, 2.2)):
        dash = f'stroke-dasharray="{weight} {step * _UNITS_MM - weight:g}"'
        yield (
            f'<g stroke="{colour}" {dash} stroke-dashoffset="{weight / 2}">'
            f'<path stroke-width="{height}" d="M0 {height // 2}H{width}"/>'
            f'<path stroke-width="{width}" d="M{width // 2} {height}V0"/></g>'
        )


def _svg_pulse(y_mm: float, height: int) -> str:
    before, during, after = (round(one * _UNITS_MM) for one in paper._PULSE_MM)
    up = round(paper.GAIN_MM_MV * _UNITS_MM)
    return f'<path d="M0 {_down(y_mm, height)}h{before}v-{up}h{during}v{up}h{after}"/>'


def _svg_mark(piece: Piece, height: int) -> str:
    """Return the stroke that parts a lead from the one before it."""
    if piece.x_mm <= sum(paper._PULSE_MM):
        return ""
    return f'<path d="M{round(piece.x_mm * _UNITS_MM)} {_down(piece.y_mm + 3, height)}v60"/>'


def _svg_bands(pieces: list[Piece], attribution: Attribution, height: int) -> Iterator[str]:
    """Yield the bands, sixteen strengths of each colour, one path for each."""
    paths: dict[tuple[str, int], list[str]] = {}
    for piece in pieces:
        top = _down(piece.y_mm + _BAND_MM, height)
        tall = round(2 * _BAND_MM * _UNITS_MM)
        for x_mm, width_mm, strength in _bands(piece, attribution):
            left, right = round(x_mm * _UNITS_MM), round((x_mm + width_mm) * _UNITS_MM)
            level = min(16, int(abs(strength) * 16) + 1)
            colour = RAISES if strength > 0 else LOWERS
            path = f"M{left} {top}h{right - left}v{tall}H{left}z"
            paths.setdefault((colour, level), []).append(path)
    for (colour, level), boxes in sorted(paths.items()):
        opacity = f"{_FULLEST * level / 16:.2g}"
        yield f'<path fill="{colour}" fill-opacity="{opacity}" d="{"".join(boxes)}"/>'


def _svg_trace(record: Record, piece: Piece, rate_hz: float, height: int) -> str:
    """Return the path of a stretch of a lead; it is broken where samples were lost."""
    signal = paper._millivolts(record, piece)
    if not np.isfinite(signal).any():
        return ""
    y_mm = piece.y_mm + (signal - np.nanmedian(signal)) * paper.GAIN_MM_MV
    time_s, y_mm = _thinned(y_mm, record.rate_hz, rate_hz)
    x = np.rint((piece.x_mm + time_s * paper.SPEED_MM_S) * _UNITS_MM)
    y = np.clip(np.rint(height - y_mm * _UNITS_MM), 0, height)
    runs = np.flatnonzero(np.diff(np.isfinite(y), prepend=False, append=False)).reshape(-1, 2)
    return f'<path d="{"".join(_path(x[a:b], y[a:b]) for a, b in runs.tolist())}"/>'


def _thinned(
    signal: NDArray[np.float64], from_hz: float, to_hz: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return seconds and values of least and greatest sample of each column, in their order."""
    time_s = np.arange(signal.size) / from_hz
    wide = int(np.ceil(2 * from_hz / to_hz - 1e-9))
    if wide <= 2:  # two samples a column are all of them
        return time_s, signal
    columns = np.append(signal, np.full(-signal.size % wide, np.nan)).reshape(-1, wide)
    lost = ~np.isfinite(columns)
    ends = np.stack(
        [
            np.where(lost, np.inf, columns).argmin(1),
            np.where(lost, -np.inf, columns).argmax(1),
        ],
        axis=1,
    )
    ends.sort(axis=1)
    kept = (ends + np.arange(len(columns))[:, None] * wide).ravel()
    kept = np.minimum(kept, signal.size - 1)
    return time_s[kept], signal[kept]


def _path(x: NDArray[np.float64], y: NDArray[np.float64]) -> str:
    """Return a line through whole numbers, by steps; a point on a straight stretch is left out."""
    steps = np.stack([np.diff(x), np.diff(y)], axis=1).astype(int)
    steps = steps[steps.any(axis=1)]
    turns = np.ones(len(steps), dtype=bool)
    turns[1:] = (steps[1:] != steps[:-1]).any(axis=1)
    merged = np.add.reduceat(steps, np.flatnonzero(turns)) if len(steps) else steps
    words = "".join(f" {across}{up:+d}" if up < 0 else f" {across} {up}" for across, up in merged)
    return f"M{x[0]:.0f} {y[0]:.0f}l{words.lstrip()}" if words else ""


def _svg_label(record: Record, piece: Piece, height: int) -> str:
    lost = "" if np.isfinite(paper._millivolts(record, piece)).any() else "   no signal"
    x, y = round((piece.x_mm + 1.5) * _UNITS_MM), _down(piece.y_mm + 9, height)
    return f'<text x="{x}" y="{y}">{escape(piece.label + lost)}</text>'


def _svg_legend(attribution: Attribution, right_mm: float, height: int) -> Iterator[str]:
    top = height + 2 * _UNITS_MM
    for x_mm, colour, words in _legend(attribution, right_mm):
        x = round(x_mm * _UNITS_MM)
        if colour:
            yield f'<path fill="{colour}" fill-opacity="{_FULLEST}" d="M{x} {top}h40v40h-40z"/>'
        yield (
            f'<text x="{x + 55}" y="{top + 33}" font-size="34" font-weight="normal" '
            f'fill="#222">{escape(words)}</text>'
        )


def _down(y_mm: float, height: int) -> int:
    """Return a height on the paper as SVG counts it."""
    return height - round(y_mm * _UNITS_MM)
