"""Write the signal lines of WFDB headers, for signals of format 16."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ecgstore.record import Signal

__all__ = ["samples_16", "signal_lines"]

_BLANK = re.compile(r"\s+")


def signal_lines(file: str, signals: Sequence[Signal], per_frame: Sequence[int]) -> list[str]:
    """Return one line a signal, after header(5) of the WFDB Applications Guide.

    Args:
        file: Name of the signal file.
        signals: The first count and the sum of all become part of the line.
        per_frame: Samples of each signal in a frame.
    """
    lines = []
    for one, own in zip(signals, per_frame, strict=True):
        form = f"16x{own}" if own > 1 else "16"
        unit = _BLANK.sub("_", one.unit.strip()) or "NU"
        scale = f"{float(one.gain)!r}({one.baseline})/{unit}"
        total = int(one.counts.sum(dtype=np.int64)) & 0xFFFF
        name = _BLANK.sub(" ", one.name)
        lines.append(f"{file} {form} {scale} 16 0 {one.counts[0]} {total} 0 {name}")
    return lines


def samples_16(signals: Sequence[Signal], per_frame: Sequence[int], n_frames: int) -> bytes:
    """Return the bytes of a signal file of format 16: frame after frame, signal after signal."""
    parts = zip(signals, per_frame, strict=True)
    frames = [one.counts.reshape(n_frames, own) for one, own in parts]
    return np.concatenate(frames, axis=1).astype("<i2").tobytes() if frames else b""
