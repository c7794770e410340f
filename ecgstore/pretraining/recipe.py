"""How a method is trained: optimiser, learning rate over the steps, and batch, as published."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

__all__ = ["Recipe"]


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """AdamW (Loshchilov & Hutter 2019, arXiv 1711.05101) with one learning rate for all weights.

    Attributes:
        source: Publication the numbers come from, and which of them are chosen here.
        learning_rate: Highest rate, for a batch of `batch_size`, or for one of `rate_for`.
        rate_for: Batch the rate is quoted for: it grows in proportion to the batch. None: it does
            not depend on the batch.
        batch_size: Pieces of records an update, over all processes and accumulated parts.
        epochs: Passes over the records, where no number of steps is asked for.
        betas: Decay of AdamW's moments.
        eps: Of AdamW.
        weight_decay: Decoupled, in units of the learning rate.
        decay_vectors: Whether biases, norms and other vectors decay too.
        schedule: ``constant``, or ``cosine`` from the highest rate to `floor`.
        power: Of the time in the cosine; 1 is the plain one (k-decay, Zhang & Li 2020,
            arXiv 2004.05909).
        warmup: Share of all steps over which the rate rises from `start` to its highest.
        start: First rate of the warm-up.
        floor: Last rate.
        clip: Largest norm of the gradient, or None where none was published.
    """

    source: str
    learning_rate: float
    batch_size: int
    epochs: int
    rate_for: int | None = None
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.0
    decay_vectors: bool = True
    schedule: Literal["constant", "cosine"] = "cosine"
    power: float = 1.0
    warmup: float = 0.0
    start: float = 0.0
    floor: float = 0.0
    clip: float | None = None

    def told(self, *, batch_size: int | None, learning_rate: float | None) -> Recipe:
        """Return the recipe with what a user says instead; a rate told holds for any batch."""
        recipe = replace(self, batch_size=batch_size or self.batch_size)
        if learning_rate is None:
            return recipe
        return replace(recipe, learning_rate=learning_rate, rate_for=None)

    def rate(self, step: int, steps: int) -> float:
        """Return the learning rate of one update.

        Args:
            step: Updates done before it.
            steps: Updates of the whole run.
        """
        highest = self.learning_rate
        if self.rate_for is not None:
            highest *= self.batch_size / self.rate_for
        warm = round(self.warmup * steps)
        if step < warm:
            return self.start + (highest - self.start) * step / warm
        if self.schedule == "constant":
            return highest
        done = (step - warm) / max(1, steps - warm)
        return self.floor + (highest - self.floor) * (1 + math.cos(math.pi * done**self.power)) / 2
