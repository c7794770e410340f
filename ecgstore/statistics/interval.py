"""An estimate with its interval, and how the interval was made."""

from __future__ import annotations

import math
from dataclasses import dataclass

__all__ = ["Interval"]


@dataclass(frozen=True)
class Interval:
    """An estimate and an interval that covers the truth at a stated level.

    Attributes:
        value: The estimate.
        low: Lower end; NaN where no interval can be told.
        high: Upper end; NaN where no interval can be told.
        level: Confidence level, such as 0.95.
        method: How it was made: ``BCa``, ``percentile``, ``DeLong``, ``corrected t``.
        resamples: Bootstrap resamples drawn; 0 where none were.
        undefined: Those of them on which the figure is not defined, such as an AUROC of one class.
    """

    value: float
    low: float
    high: float
    level: float = 0.95
    method: str = ""
    resamples: int = 0
    undefined: int = 0

    @property
    def told(self) -> bool:
        """Whether there is an interval at all."""
        return math.isfinite(self.low) and math.isfinite(self.high)

    @property
    def excludes_zero(self) -> bool:
        """Whether 0 lies outside the interval; False where there is none."""
        return self.low > 0 or self.high < 0

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"
