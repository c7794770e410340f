"""Distillation: a small encoder learns to predict the vectors of a large one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from ecgstore.errors import UsageError
from ecgstore.models import Weights
from ecgstore.models.layers import Linear
from ecgstore.models.weights import Checkpoint
from ecgstore.pretraining.method import Draws, Method
from ecgstore.pretraining.recipe import Recipe

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray
    from torch import Tensor

    from ecgstore.models import ModelSpec
    from ecgstore.models.arithmetic import Arithmetic, Signal
    from ecgstore.pretraining.method import Batch
    from ecgstore.pretraining.ranks import Ranks

__all__ = ["Student", "Teacher"]

_OWN = "method."
"""Before the names of the student's own tensors."""


@dataclass(frozen=True, eq=False)
class Teacher:
    """How the vectors of a teacher are standardised.

    Attributes:
        mean: ``(dim,)`` float32 over the records that are learned from.
        deviation: ``(dim,)`` float32, 1 where all of them are equal.
    """

    mean: NDArray[np.float32]
    deviation: NDArray[np.float32]

    @classmethod
    def of(cls, vectors: NDArray[np.float32]) -> Teacher:
        """Measure vectors, ``(records, dim)``."""
        mean = vectors.mean(axis=0, dtype=np.float64)
        deviation = vectors.std(axis=0, dtype=np.float64)
        # What float32 makes of equal numbers is no deviation to divide by.
        deviation[deviation <= 1e-6 * np.abs(mean)] = 1.0
        return cls(mean.astype(np.float32), deviation.astype(np.float32))


class Student(Method):
    """An encoder as it embeds, and a linear layer from its vector to the teacher's.

    The loss of a record is ``(1 - cosine) + mean square`` of prediction and vector, both in units
    of the teacher's deviation: the mean square after a linear layer is that of FitNets (Romero et
    al. 2015, arXiv 1412.6550), the cosine that of DistilBERT (Sanh et al. 2019, arXiv 1910.01108);
    that they are added with equal weight is chosen here. An untrained layer that predicts nothing
    has a mean square of 1.

    Records are prepared as they are embedded, and a record's vector is the mean over its windows.
    Of what a method of pretraining has besides its encoder nothing is trained, nor anything else
    that the vector does not depend on.

    Args:
        method: The pretraining method of the student's architecture; its starting weights, and
            how they are published, are used.
        spec: The student's facts.
        teacher: What predictions are measured in.
        variant: How the student is fed; None takes the first way.

    Raises:
        UsageError: The method trains no encoder.
    """

    teacher_mean: Tensor
    teacher_deviation: Tensor

    name = "distil"
    recipe = Recipe(
        source="chosen here; the losses are of arXiv 1412.6550 and arXiv 1910.01108",
        learning_rate=1e-3,
        batch_size=64,
        epochs=20,
        betas=(0.9, 0.98),
        weight_decay=0.01,
        decay_vectors=False,
        warmup=0.05,
        clip=1.0,
    )

    def __init__(
        self, method: Method, spec: ModelSpec, teacher: Teacher, *, variant: str | None = None
    ) -> None:
        super().__init__(method.configuration, {})
        network = getattr(method, "network", None)
        if not isinstance(network, method.encoder.network_type):
            msg = f"{method.name!r} trains no encoder that could learn to embed."
            raise UsageError(msg)
        self.model = spec.name
        self.method = method
        blank = Weights("student", "", method.configuration, method.configuration.untrained(0))
        self._student = method.encoder(spec, blank, variant=variant, device="cpu", precision="fp32")
        self._student.network = network
        self.projection = Linear(self._student.dim, len(teacher.mean))
        self.register_buffer("teacher_mean", torch.from_numpy(teacher.mean))
        self.register_buffer("teacher_deviation", torch.from_numpy(teacher.deviation))
        self._freeze()

    def _freeze(self) -> None:
        """Leave out of training what the vector does not depend on."""
        leads = self._student.spec.leads
        trained = [one for one in self.method.parameters() if one.requires_grad]
        vector, _ = self._student.forward(
            torch.zeros(1, len(leads), self._student.window_samples), leads
        )
        found = torch.autograd.grad(vector.sum(), trained, allow_unused=True)
        for one, gradient in zip(trained, found, strict=True):
            one.requires_grad_(gradient is not None)

    def start(self, seed: int) -> None:
        """Start the student as its method does, the layer near 0 so that it predicts the mean.

        Its weights are normal with deviation 0.02 [chosen].
        """
        self.method.start(seed)
        generator = torch.Generator().manual_seed(seed)
        nn.init.normal_(self.projection.weight, std=0.02, generator=generator)
        nn.init.zeros_(self.projection.bias)

    def take(self, checkpoint: Checkpoint) -> tuple[str, ...]:
        """Start the student from weights; the layer keeps its value."""
        return self.method.take(checkpoint)

    def published(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the student's encoder as it is published, without what was not trained."""
        own = {key.removeprefix(_OWN): one for key, one in state.items() if key.startswith(_OWN)}
        whole = Checkpoint(self.model, Path(), 0, "", "", "", self.method.published(own))
        encoder = self.method.encoder.select(whole)
        return {key: encoder[key] for key in self.configuration.shapes()}

    def draw(self, items: int, leads: int, generator: torch.Generator) -> Draws:
        """Draw nothing: a record is always prepared as it is embedded."""
        return Draws()

    def windows(
        self, signal: Signal, rate_hz: float, dsp: Arithmetic[Signal], draws: Draws
    ) -> Signal:
        """Return ``(items, windows, leads, samples)``."""
        return self._student._cut(signal, rate_hz, dsp)

    def forward(self, batch: Batch, ranks: Ranks) -> dict[str, Tensor]:
        """Return the loss with its terms, ``cosine`` (what it lacks to 1) and ``mse``.

        Args:
            batch: Its facts are the teacher's vectors.
            ranks: Not needed: the loss is a mean over records.
        """
        names = [self._student.spec.leads[place] for place in batch.leads]
        vectors, _ = self._student.forward(batch.windows.flatten(0, 1), names)
        mean = vectors.reshape(*batch.windows.shape[:2], -1).mean(1)
        predicted = self.projection(mean).float()
        wanted = (batch.facts - self.teacher_mean) / self.teacher_deviation
        cosine = (1 - functional.cosine_similarity(predicted, wanted)).mean()
        mse = functional.mse_loss(predicted, wanted)
        return {"loss": cosine + mse, "cosine": cosine, "mse": mse}
