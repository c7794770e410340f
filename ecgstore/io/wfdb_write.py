"""Write the signal lines of WFDB headers, for signals of format 16."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = ["samples_16", "signal_lines"]


def signal_lines(
    file: str,
    leads: Sequence[str],
    digital: NDArray[np.int16],
    gain: NDArray[np.float64],
    baseline: NDArray[np.int32],
) -> list[str]:
    """Return one line a lead, after header(5) of the WFDB Applications Guide.

    Args:
        file: Name of the signal file.
        leads: Names.
        digital: ``(leads, samples)`` counts; the first and their sum become part of the line.
        gain: ``(leads,)`` counts per millivolt.
        baseline: ``(leads,)`` count that stands for 0 mV.
    """
    totals = digital.sum(axis=1, dtype=np.int64) & 0xFFFF
    return [
        f"{file} 16 {float(gain[k])!r}({baseline[k]})/mV 16 0 {row[0]} {totals[k]} 0 {leads[k]}"
        for k, row in enumerate(digital)
    ]


def samples_16(digital: NDArray[np.int16]) -> bytes:
    """Return the bytes of a signal file of format 16: one sample of each lead after the other."""
    return digital.T.astype("<i2").tobytes()
