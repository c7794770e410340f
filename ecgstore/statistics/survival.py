"""How well risks order the times of an event: Harrell's C-index, on many resamples at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Array = NDArray[np.float64]

__all__ = ["concordance"]

_PAIRS = 1 << 22


def concordance(labels: Array, scores: Array) -> Callable[[Array], Array]:
    """Return what gives the C-index of resamples.

    Of two records the order is known where one had its event before the other's time, or at the
    time at which the other was last seen without it. The index is the part of these pairs in
    which the earlier one has the higher risk; equal risks count half (Harrell et al. 1982, 1996).

    Args:
        labels: ``(n,)`` times, negative where the event was not seen until then.
        scores: ``(n,)`` risks.
    """
    times, events = np.abs(labels), labels > 0
    early = np.flatnonzero(events)
    step = max(1, _PAIRS // len(labels))

    def kernel(counts: Array) -> Array:
        # Single precision is exact here: sums of whole numbers far below 2**24.
        weights = counts.astype(np.float32)
        right, known = np.zeros(len(counts)), np.zeros(len(counts))
        for start in range(0, len(early), step):
            here = early[start : start + step]
            later = times > times[here, None]
            later |= (times == times[here, None]) & ~events
            risk = scores[here, None]
            won = later * ((risk > scores) + np.float32(0.5) * (risk == scores))
            right += np.einsum("ij,ij->i", counts[:, here], weights @ won.T.astype(np.float32))
            known += np.einsum("ij,ij->i", counts[:, here], weights @ later.T.astype(np.float32))
        return right / known

    return kernel
