"""An ECG as cardiologists read it: on millimetre paper, 25 mm/s and 10 mm/mV, in true size.

Twelve leads stand as 3 × 4 pieces of 2.5 s over a rhythm strip of 10 s, further leads as strips
below; any other record is drawn in strips of 10 s. Nothing is filtered. Each trace is centred in
its row by its median, as a recorder without a DC path does, and traces may cross as they do on
paper: an amplitude is never scaled to fit. Nothing of the patient is written on it.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ecgstore.errors import UnknownNameError, UsageError
from ecgstore.record import INVALID, LEADS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle
    from numpy.typing import NDArray

    from ecgstore.record import Record

__all__ = ["draw", "save"]

SPEED_MM_S = 25.0
GAIN_MM_MV = 10.0

_STRIP_S = 10.0
_ROW_MM = 30.0
_LABEL_MM = 10.0  # above the baseline
_PULSE_MM = (2.5, 5.0, 2.5)  # before, during and after 200 ms of 1 mV
_MARGIN_MM = 8.0
_TITLE_MM = 11.0
_NOTE_MM = 7.0
_STRIPS = 6  # of a record that is not drawn as 3 × 4, at most
_EXTRA = 6  # further leads under a 3 × 4, at most

_MINOR, _MAJOR = "#f7dcd8", "#e5a29a"  # light enough for a black trace in any colour vision
_TRACE, _TEXT, _FAINT = "#111111", "#222222", "#8a5a55"
_MADE, _NOT_MEASURED = "#1f5fbf", "reconstructed, not measured"
_WIDTHS_PT = {"minor": 0.3, "major": 0.6, "trace": 0.85, "pulse": 0.85, "mark": 0.8}
_FORMATS = {".png": {"Software": None}, ".svg": {"Date": None}, ".pdf": {"CreationDate": None}}
_SETTINGS: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "path.simplify": True,
    "savefig.bbox": None,
    "savefig.facecolor": "white",
    "svg.fonttype": "path",
    "svg.hashsalt": "ecgstore",
    "text.usetex": False,
}
"""Whatever the user's own settings: the same record gives the same bytes."""


@dataclass(frozen=True)
class _Piece:
    """A stretch of a lead somewhere on the paper; places in mm from the grid's lower left."""

    lead: str
    start_s: float
    length_s: float
    x_mm: float
    y_mm: float
    label: str


def draw(
    record: Record,
    *,
    start_s: float = 0.0,
    title: str | None = None,
    rhythm: str = "II",
    dpi: int = 150,
    reconstructed: Mapping[str, NDArray[np.float64]] | None = None,
) -> Figure:
    """Draw a record on ECG paper.

    Args:
        record: What to draw.
        start_s: Where to begin in a longer record, in seconds.
        title: What stands first in the line above, instead of the record's name.
        rhythm: The lead of the strip under the twelve.
        dpi: Dots an inch of a PNG; the size on paper is the same for any.
        reconstructed: Leads that something other than a recorder made, ``(samples,)`` millivolts
            at the record's rate, NaN where nothing was made. They are drawn in a colour of their
            own, over what was measured, and the drawing says so.

    Raises:
        UnknownNameError: The record has no such rhythm lead.
        UsageError: It has no leads, or ends before ``start_s``.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    if not record.leads or not record.n_samples:
        msg = f"{record.name!r} has no lead to draw."
        raise UsageError(msg)
    if not 0 <= start_s < record.duration_s:
        msg = f"Cannot draw from {start_s:g} s: {record.name!r} lasts {record.duration_s:g} s."
        raise UsageError(msg)
    pieces, n_rows = _layout(record, start_s, rhythm)
    pulse_mm = sum(_PULSE_MM)
    width = 5 * np.ceil((pulse_mm + _STRIP_S * SPEED_MM_S + 2.5) / 5)
    height = _ROW_MM * n_rows + 10
    page = (width + 2 * _MARGIN_MM, height + _TITLE_MM + _NOTE_MM + _MARGIN_MM)
    with rc_context(_SETTINGS):
        figure = Figure(figsize=(page[0] / 25.4, page[1] / 25.4), dpi=dpi)
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set_axis_off()
        axes.set(
            xlim=(-_MARGIN_MM, width + _MARGIN_MM),
            ylim=(-_NOTE_MM - _MARGIN_MM / 2, height + _TITLE_MM + _MARGIN_MM / 2),
        )
        paper = _draw_grid(axes, width, height)
        _draw_pulses(axes, sorted({piece.y_mm for piece in pieces}))
        beyond = [piece.lead for piece in pieces if _draw_piece(axes, record, piece, paper)]
        for piece in pieces:
            if piece.lead in (reconstructed or {}):
                made = (reconstructed or {})[piece.lead][_stretch(record, piece)]
                _draw_reconstructed(axes, record, piece, made, paper)
        _write(axes, 0, height + 4, title or record.name, size=11, weight="bold")
        _write(axes, width, height + 4, _facts(record), size=9, align="right")
        _write(axes, 0, -5, _notes(record, beyond), size=7.5, color=_FAINT)
    return figure


def save(figure: Figure, path: str | Path) -> Path:
    """Write a drawing as PNG, SVG or PDF by its suffix; the same drawing gives the same bytes.

    Raises:
        UsageError: Another suffix, or the file cannot be written.
    """
    from matplotlib import rc_context

    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in _FORMATS:
        msg = f"Cannot draw into {path.name!r}: the picture is a PNG, SVG or PDF file."
        raise UsageError(msg, hint=f"Name it {path.stem}.png.")
    picture = BytesIO()
    with rc_context(_SETTINGS), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # a script the font lacks shows as boxes
        figure.savefig(picture, format=suffix[1:], metadata=_FORMATS[suffix])
    try:
        path.write_bytes(picture.getvalue())
    except OSError as error:
        msg = f"Cannot write {str(path)!r}: {error.strerror}."
        raise UsageError(msg) from error
    return path


def _layout(record: Record, start_s: float, rhythm: str) -> tuple[list[_Piece], int]:
    """Return what goes where, and how many rows that makes."""
    there = set(record.leads)
    if not there.issuperset(LEADS):
        return _strips(record, start_s)
    if rhythm not in there:
        raise UnknownNameError(rhythm, kind="lead", known=record.leads)
    length_s = min(_STRIP_S, record.duration_s - start_s)
    piece_s = length_s / 4  # of a shorter record less, or V4 to V6 would have no place in it
    extra = [lead for lead in record.leads if lead not in LEADS][:_EXTRA]
    n_rows = 4 + len(extra)
    pieces = []
    for place, lead in enumerate(LEADS):
        column, row = divmod(place, 3)
        at_s = start_s + column * piece_s
        x_mm = sum(_PULSE_MM) + column * piece_s * SPEED_MM_S
        pieces.append(_Piece(lead, at_s, piece_s, x_mm, _middle(row, n_rows), lead))
    for row, lead in enumerate([rhythm, *extra], 3):
        pieces.append(_Piece(lead, start_s, length_s, sum(_PULSE_MM), _middle(row, n_rows), lead))
    return pieces, n_rows


def _strips(record: Record, start_s: float) -> tuple[list[_Piece], int]:
    """Return rows of ten seconds: all leads of the first ten, then of the next, as space allows."""
    leads = record.leads[: max(len(LEADS), _STRIPS)]
    left = int(np.ceil((record.duration_s - start_s) / _STRIP_S - 1e-9))
    strips = max(1, min(_STRIPS // len(leads), left))
    n_rows = strips * len(leads)
    pieces = []
    for strip in range(strips):
        at_s = start_s + strip * _STRIP_S
        for place, lead in enumerate(leads):
            y_mm = _middle(strip * len(leads) + place, n_rows)
            clock = f"   {_clock(at_s)}" if record.duration_s > _STRIP_S and not place else ""
            pieces.append(_Piece(lead, at_s, _STRIP_S, sum(_PULSE_MM), y_mm, f"{lead}{clock}"))
    return pieces, n_rows


def _middle(row: int, n_rows: int) -> float:
    """Return the height of a row's baseline: below its middle, as most waves point up."""
    return 5 + _ROW_MM * (n_rows - row - 0.5) - 2.5


def _draw_grid(axes: Axes, width: float, height: float) -> Rectangle:
    """Draw the paper and return its outline."""
    from matplotlib.collections import LineCollection
    from matplotlib.patches import Rectangle

    for step, colour, weight in ((1, _MINOR, "minor"), (5, _MAJOR, "major")):
        across = [[(0, y), (width, y)] for y in np.arange(0, height + 0.5, step)]
        upright = [[(x, 0), (x, height)] for x in np.arange(0, width + 0.5, step)]
        lines = LineCollection(
            across + upright, colors=colour, linewidths=_WIDTHS_PT[weight], zorder=step / 10
        )
        axes.add_collection(lines, autolim=False)
    edge = Rectangle(
        (0, 0), width, height, fill=False, edgecolor=_MAJOR, linewidth=_WIDTHS_PT["major"]
    )
    axes.add_patch(edge)
    return edge


def _draw_pulses(axes: Axes, rows_mm: Sequence[float]) -> None:
    before, during, after = _PULSE_MM
    x = np.cumsum([0, before, 0, during, 0, after])
    y = np.array([0, 0, GAIN_MM_MV, GAIN_MM_MV, 0, 0])
    for row_mm in rows_mm:
        axes.plot(x, row_mm + y, color=_TRACE, linewidth=_WIDTHS_PT["pulse"], zorder=3)


def _draw_piece(axes: Axes, record: Record, piece: _Piece, paper: Rectangle) -> bool:
    """Draw a stretch of a lead with its label; return whether some of it leaves the paper."""
    signal = _millivolts(record, piece)
    valid = np.isfinite(signal)
    if piece.x_mm > sum(_PULSE_MM):
        mark = [piece.y_mm - 3, piece.y_mm + 3]
        axes.plot([piece.x_mm] * 2, mark, color=_TEXT, linewidth=_WIDTHS_PT["mark"], zorder=2)
    label = piece.label if valid.any() else f"{piece.label}   no signal"
    _write(axes, piece.x_mm + 1.5, piece.y_mm + _LABEL_MM, label, size=10, weight="bold")
    if not valid.any():
        return False
    y = _draw_trace(axes, record, piece, signal, paper, colour=_TRACE)
    return bool(np.nanmax(y) > paper.get_height() or np.nanmin(y) < 0)


def _draw_trace(
    axes: Axes,
    record: Record,
    piece: _Piece,
    signal: NDArray[np.float64],
    paper: Rectangle,
    *,
    colour: str,
) -> NDArray[np.float64]:
    """Draw millivolts, centred by their median; returns their heights on the paper."""
    x = piece.x_mm + np.arange(signal.size) / record.rate_hz * SPEED_MM_S
    y: NDArray[np.float64] = piece.y_mm + (signal - np.nanmedian(signal)) * GAIN_MM_MV
    (line,) = axes.plot(x, y, color=colour, linewidth=_WIDTHS_PT["trace"], zorder=3)
    line.set_solid_joinstyle("round")
    line.set_clip_path(paper)
    return y


def _draw_reconstructed(
    axes: Axes, record: Record, piece: _Piece, made: NDArray[np.float64], paper: Rectangle
) -> None:
    """Draw what was not measured, and say so behind the label."""
    where = (piece.x_mm + 1.5, piece.y_mm + _LABEL_MM - 4)
    _write(axes, *where, _NOT_MEASURED, size=7, color=_MADE)
    if np.isfinite(made).any():
        _draw_trace(axes, record, piece, made, paper, colour=_MADE)


def _stretch(record: Record, piece: _Piece) -> slice:
    """Return the samples of a piece up to and with the first one of the next."""
    first = round(piece.start_s * record.rate_hz)
    return slice(first, round((piece.start_s + piece.length_s) * record.rate_hz) + 1)


def _millivolts(record: Record, piece: _Piece) -> NDArray[np.float64]:
    """Return a stretch of a lead."""
    row = record.leads.index(piece.lead)
    counts = record.digital[row, _stretch(record, piece)]
    mv: NDArray[np.float64] = (counts - np.float64(record.baseline[row])) / record.gain[row]
    mv[counts == INVALID] = np.nan
    return mv


def _write(
    axes: Axes,
    x_mm: float,
    y_mm: float,
    text: str,
    *,
    size: float,
    weight: str = "normal",
    color: str = _TEXT,
    align: str = "left",
) -> None:
    """Write as it is: a name with dollar signs is no formula."""
    from matplotlib.patheffects import withStroke

    axes.text(
        x_mm,
        y_mm,
        text,
        fontsize=size,
        fontweight=weight,
        color=color,
        ha=align,
        va="center",
        parse_math=False,
        path_effects=[withStroke(linewidth=2, foreground="white")],
        zorder=2.5,  # under the traces: a label must hide no signal
    )


def _facts(record: Record) -> str:
    length = f"{record.duration_s:.4g} s" if record.duration_s < 600 else _clock(record.duration_s)
    return (
        f"{record.rate_hz:g} Hz   {length}   "
        f"{SPEED_MM_S:g} mm/s   {GAIN_MM_MV:g} mm/mV   filter: none"
    )


def _notes(record: Record, beyond: Sequence[str]) -> str:
    """Return what a reader of the picture should know of it."""
    notes = []
    derived = next((flag for flag in record.quality if flag.startswith("derived:")), None)
    if derived:
        notes.append(f"computed from I and II: {', '.join(derived.split(':')[1].split(','))}")
    if beyond:
        notes.append(f"beyond the paper: {', '.join(dict.fromkeys(beyond))}")
    return "      ".join(notes)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
