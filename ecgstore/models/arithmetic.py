"""The signal arithmetic a preparation is written in, for arrays and for tensors alike.

`ecgstore.signal` does it on NumPy arrays in the way the publications did; `tensor_signal` does the
same on batches of tensors, wherever they are. A preparation is written once and takes either.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ecgstore.signal import Filter

__all__ = ["Arithmetic", "Signal"]

Signal = TypeVar("Signal", NDArray[np.floating], Tensor)
"""``(…, leads, samples)``."""


class Arithmetic(Protocol[Signal]):
    """The functions of `ecgstore.signal` that act on signals, each along the last axis."""

    def fill_lost(self, signal: Signal, value: float) -> Signal:
        """Put a value where there is NaN."""

    def resample_linear(self, signal: Signal, rate_hz: float, to_hz: float) -> Signal:
        """Interpolate as ECG-FM was trained on; ``signal.linear_length`` samples."""

    def resample_ends(self, signal: Signal, n_wanted: int) -> Signal:
        """Interpolate linearly between grids that both hold the first and the last sample."""

    def resample_fourier(self, signal: Signal, n_wanted: int) -> Signal:
        """Resample by the Fourier method."""

    def resample_polyphase(
        self, signal: Signal, rate_hz: float, to_hz: float, *, line: bool = False
    ) -> Signal:
        """Resample with SciPy's default anti-alias filter."""

    def filter_both_ways(self, signal: Signal, filter: Filter) -> Signal:  # noqa: A002
        """Filter forward and backward, without phase shift."""

    def running_median(self, signal: Signal, width: int) -> Signal:
        """Return the median of an odd number of samples around each, zeros beyond the ends."""

    def standardise_leads(self, signal: Signal) -> Signal:
        """Give each lead zero mean and unit deviation; a constant lead becomes 0."""

    def standardise_windows(self, windows: Signal, *, eps: float = 0.0) -> Signal:
        """Give all leads together zero mean and unit deviation; a constant one becomes 0."""

    def cut_windows(self, signal: Signal, starts: Sequence[int], length: int) -> Signal:
        """Return ``(…, windows, leads, length)``."""

    def cut_each(self, signal: Signal, starts: Tensor, length: int) -> Signal:
        """Return ``(items, leads, length)``: of each item the window from its own start."""
