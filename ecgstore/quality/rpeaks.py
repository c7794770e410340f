"""When the heart beats: R peaks of each lead and of all leads together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ecgstore.quality.bands import Bands, Blocks, quantile, slide, without_gaps
from ecgstore.quality.thresholds import THRESHOLDS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Real = NDArray[np.float32]

__all__ = [
    "Beats",
    "dominant",
    "find_beats",
    "joined",
    "qrs_envelope",
    "r_peaks",
    "windows_at",
]

_GRID_HZ = 62.5  # points of the envelope a second, five times its width
_HIGHEST = 2.0  # usual peaks, to which a burst of noise in one lead is cut
_EDGE_S = 0.05  # where a wave that is cut off, or one end that does not fit the other, is a peak
_TINY = np.finfo(np.float32).tiny


@dataclass(frozen=True, eq=False)
class Beats:
    """R peaks of one stretch of a record.

    Attributes:
        time_s: ``(beats,)`` float64 seconds from the first sample, from all leads together.
        by_lead: ``(leads, points)`` bool, true at the R peaks of each lead alone.
        step_s: Seconds from one point of `by_lead` to the next.
    """

    time_s: NDArray[np.float64]
    by_lead: NDArray[np.bool_]
    step_s: float

    def tally(self, tolerance_s: float) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Return how many R peaks each lead has, and how many of them are beats.

        Args:
            tolerance_s: Farthest that a lead's R peak may be from the beat of all leads.
        """
        reach = int(tolerance_s / self.step_s)
        beats = np.zeros(self.by_lead.shape[1] + 2 * reach, bool)
        beats[reach + np.rint(self.time_s / self.step_s).astype(int)] = True
        near = slide(np.logical_or, beats, 2 * reach + 1)
        return self.by_lead.sum(axis=1), (self.by_lead & near).sum(axis=1)


def qrs_envelope(bands: Bands) -> tuple[Real, float]:
    """Return the envelope of the QRS band, ``(rows, points)`` millivolts, and its step in seconds.

    The points are few: `find_beats` finds what lies between them by a parabola, to about 2 ms.
    Below 40 Hz of sampling the band ends where the spectrum does.
    """
    points = bands.points(_GRID_HZ)
    return np.abs(bands.analytic(*THRESHOLDS.qrs_hz, n_points=points)), bands.duration_s / points


def find_beats(envelope: Real, step_s: float) -> Beats:
    """Find the beats of one stretch of 2 to 30 s.

    Each lead counts by how far its peaks stand out of its envelope, in units of its usual peak,
    so neither a lead of noise nor one of large amplitude decides alone.

    Args:
        envelope: ``(leads, points)`` from `qrs_envelope`.
        step_s: Seconds from one point to the next.
    """
    usual = _usual_peak(envelope, step_s)
    floor = quantile(envelope, 0.5)
    prominence = usual / np.maximum(floor, _TINY)
    scaled = envelope / np.maximum(usual, _TINY)[:, None]
    weight = np.minimum(np.maximum(prominence - 2, 0), 10) ** 2
    weight[usual <= 0] = 0
    by_lead = _tops(scaled, step_s) & (scaled >= THRESHOLDS.peak)
    by_lead[usual <= 0] = False
    edge = round(_EDGE_S / step_s)
    by_lead[:, :edge] = by_lead[:, -edge:] = False
    none = Beats(np.empty(0), by_lead, step_s)
    if not weight.any():
        return none
    together: Real = weight @ np.minimum(scaled, _HIGHEST) / weight.sum()
    usual_together = _usual_peak(together[None], step_s)[0]
    if usual_together < THRESHOLDS.prominence * quantile(together[None], 0.5)[0]:
        return none
    together /= usual_together
    tops = np.flatnonzero(_tops(together[None], step_s)[0] & (together >= THRESHOLDS.peak / 2))
    tops = tops[(tops >= edge) & (tops < together.size - edge)]
    return Beats(_refined(together, _chosen(together, tops, step_s)) * step_s, by_lead, step_s)


def _usual_peak(rows: Real, step_s: float) -> Real:
    """Return the median over windows of the highest point in each window, one a row."""
    n_windows = max(1, int(rows.shape[1] * step_s / THRESHOLDS.peak_window_s))
    width = rows.shape[1] // n_windows
    highest = rows[:, : n_windows * width].reshape(len(rows), n_windows, width).max(axis=2)
    return quantile(highest, 0.5)


def _tops(rows: NDArray[np.floating], step_s: float) -> NDArray[np.bool_]:
    """Return which points are the highest of all less than the refractory time away."""
    reach = max(1, int(THRESHOLDS.refractory_s / step_s))
    around = np.zeros((len(rows), rows.shape[1] + 2 * reach), rows.dtype)
    around[:, reach:-reach] = rows
    highest: NDArray[np.bool_] = rows == slide(np.maximum, around, 2 * reach + 1)
    return highest


def _chosen(height: Real, tops: NDArray[np.intp], step_s: float) -> NDArray[np.intp]:
    """Return which tops are beats."""
    first = tops[height[tops] >= THRESHOLDS.peak]
    if first.size > 1:
        wave = np.flatnonzero(
            (np.diff(first) * step_s < THRESHOLDS.t_wave_s)
            & (height[first[1:]] < 0.5 * height[first[:-1]])
        )
        first = np.delete(first, wave + 1)
    if first.size < 3:
        return first
    gaps = np.diff(first)
    more = []
    for gap in np.flatnonzero(gaps > THRESHOLDS.search_back * quantile(gaps, 0.5)):
        clear = THRESHOLDS.t_wave_s / step_s
        start, stop = first[gap] + clear, first[gap + 1] - clear
        inside = tops[(tops > start) & (tops < stop)]
        if inside.size:
            more.append(inside[np.argmax(height[inside])])
    return np.sort(np.append(first, more)).astype(np.intp) if more else first


def _refined(height: Real, tops: NDArray[np.intp]) -> NDArray[np.float64]:
    """Return the tops of the parabolas through each top and its neighbours, in points."""
    inner = np.minimum(np.maximum(tops, 1), height.size - 2)
    before, at, after = (height[inner + k].astype(np.float64) for k in (-1, 0, 1))
    bend = before - 2 * at + after
    offset = np.divide(before - after, 2 * bend, out=np.zeros_like(bend), where=bend < 0)
    refined: NDArray[np.float64] = inner + np.minimum(np.maximum(offset, -1), 1)
    return refined


def r_peaks(signal_mv: NDArray[np.floating], rate_hz: float) -> NDArray[np.float64]:
    """Return when the heart beats, in seconds from the first sample, from all leads together.

    Args:
        signal_mv: ``(leads, samples)`` millivolts, NaN where a sample is invalid.
        rate_hz: Samples per second.
    """
    leads, n_samples = signal_mv.shape
    if not leads or n_samples < THRESHOLDS.shortest_s * rate_hz:
        return np.empty(0)
    blocks = Blocks.of(n_samples, rate_hz)
    found = []
    for start in blocks.starts:
        rows = without_gaps(signal_mv[:, start : start + blocks.length])
        found.append(find_beats(*qrs_envelope(Bands.of(rows, rate_hz))).time_s)
    return joined(found, blocks, rate_hz)


def joined(
    times: Sequence[NDArray[np.float64]], blocks: Blocks, rate_hz: float
) -> NDArray[np.float64]:
    """Return the beats of a record from those of its blocks, in seconds from its first sample."""
    mine = []
    for index, (start, found) in enumerate(zip(blocks.starts, times, strict=True)):
        at = found + start / rate_hz
        low, high = blocks.cuts[index : index + 2] / rate_hz
        mine.append(at[(at >= low) & (at < high)])
    beats = np.concatenate(mine)
    return beats[np.diff(beats, prepend=-np.inf) >= THRESHOLDS.refractory_s]


def windows_at(
    rows: Real, step_s: float, times_s: NDArray[np.float64], offsets_s: NDArray[np.floating]
) -> Real:
    """Return the rows around some moments, between samples by straight lines.

    Args:
        rows: ``(rows, points)``.
        step_s: Seconds from one point to the next.
        times_s: ``(beats,)`` moments.
        offsets_s: ``(n,)`` seconds before or after each, inside the rows.

    Returns:
        ``(rows, beats, n)`` float32.
    """
    place = (times_s[:, None] + offsets_s) / step_s
    left = np.minimum(np.maximum(place.astype(np.intp), 0), rows.shape[1] - 2)
    share = (place - left).astype(np.float32)
    before = np.take(rows, left, axis=1)
    after = np.take(rows, left + 1, axis=1)
    after -= before
    after *= share
    after += before
    result: Real = after
    return result


def dominant(beats: Real, alike: float) -> Real:
    """Return the beats that resemble each other most, each less its own mean.

    Ectopic beats and artefacts are left out: what remains correlates with the most typical beat
    (the one whose correlations with all others have the highest median) by at least ``alike``.

    Args:
        beats: ``(leads, beats, samples)``.
        alike: Least correlation over all leads.
    """
    beats = beats - beats.sum(axis=2, keepdims=True) / np.float32(beats.shape[2])
    flat = np.ascontiguousarray(beats.transpose(1, 0, 2)).reshape(beats.shape[1], -1)
    length = np.sqrt(np.einsum("ij,ij->i", flat, flat))
    likeness = (flat @ flat.T) / np.maximum(np.outer(length, length), _TINY)
    typical = np.argmax(quantile(likeness, 0.5))
    chosen: Real = beats[:, likeness[typical] >= alike]
    return chosen
