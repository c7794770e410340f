"""Join the segments of a WFDB record, which may differ in signals, gain and baseline."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ecgstore.io.assemble import MAX_VALUES, refuse
from ecgstore.record import INVALID, Signal

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

__all__ = ["Part", "joined"]


class Part(NamedTuple):
    """What one header without segments gives: its signals and flags."""

    signals: list[Signal]
    quality: list[str]


def joined(path: Path, parts: Sequence[tuple[int, Part]], n_frames: int, rate_hz: float) -> Part:
    """Return the signals of all segments, a sample being lost where its segment lacks the signal.

    Where gain or baseline of a signal change, counts are brought to the highest gain and baseline
    0: exactly if that is a multiple of the others, else rounded and flagged ``quantised``.

    Args:
        path: The header of the whole record.
        parts: First frame of each segment with what it holds.
        n_frames: Frames of the whole record.
        rate_hz: Frames per second.

    Raises:
        ReadError: A segment holds a signal twice, or one changes its unit or rate.
    """
    quality = dict.fromkeys(flag for _, part in parts for flag in part.quality)
    by_name: dict[str, list[tuple[int, Signal]]] = {}
    for start, part in parts:
        names = [signal.name for signal in part.signals]
        if len(set(names)) < len(names):
            raise refuse(path, "duplicate leads", "a segment holds one signal twice")
        for signal in part.signals:
            by_name.setdefault(signal.name, []).append((start, signal))
    signals = []
    for name, pieces in by_name.items():
        kinds = {(signal.unit, signal.rate_hz) for _, signal in pieces}
        if len(kinds) > 1:
            detail = f"signal {name[:20]!r} changes its unit or rate between segments"
            raise refuse(path, "mixed rates", detail)
        if {(s.gain, s.baseline) for _, s in pieces} != {
            (pieces[0][1].gain, pieces[0][1].baseline)
        }:
            quality |= dict.fromkeys(["mixed_gains"])
            pieces, exact = _one_scale(pieces)
            if not exact:
                quality |= dict.fromkeys(["quantised"])
        signals.append(_whole(path, pieces, n_frames, rate_hz))
    return Part(signals, list(quality))


def _one_scale(pieces: Sequence[tuple[int, Signal]]) -> tuple[list[tuple[int, Signal]], bool]:
    """Return the pieces at the highest of their gains and baseline 0, and whether exactly."""
    gain = max((signal.gain for _, signal in pieces), key=abs)
    exact = all((gain / signal.gain).is_integer() for _, signal in pieces)
    scaled = []
    for start, one in pieces:
        counts = np.rint((one.counts.astype(np.int64) - one.baseline) * (gain / one.gain))
        kept = Signal(one.name, counts.astype(np.int64), gain, 0, one.unit, one.rate_hz, _lost(one))
        scaled.append((start, kept))
    return scaled, exact


def _whole(
    path: Path, pieces: Sequence[tuple[int, Signal]], n_frames: int, rate_hz: float
) -> Signal:
    first = pieces[0][1]
    per_frame = round((first.rate_hz or rate_hz) / rate_hz)
    n_samples = n_frames * per_frame
    if n_samples > MAX_VALUES:
        raise refuse(path, "too large", f"{n_samples} samples of one signal")
    counts = np.full(n_samples, INVALID, np.int64)
    lost = np.ones(n_samples, np.bool_)
    for start, one in pieces:
        here = slice(start * per_frame, start * per_frame + len(one.counts))
        counts[here] = one.counts
        lost[here] = _lost(one)
    return Signal(first.name, counts, first.gain, first.baseline, first.unit, first.rate_hz, lost)


def _lost(signal: Signal) -> NDArray[np.bool_]:
    return np.asarray(signal.counts == INVALID) if signal.lost is None else signal.lost
