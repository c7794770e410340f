"""The quantizer of wav2vec 2.0, which makes a frame's target of a few learnt entries."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import torch
from torch import Tensor, nn
from torch.nn import functional

if TYPE_CHECKING:
    from ecgstore.models.weights import Checkpoint

__all__ = ["Quantizer", "Width"]


@dataclass(frozen=True)
class Width:
    """The dimensions of what ECG-FM needs in pretraining only.

    Attributes:
        final: Numbers of a prediction, of a target, and of one entry of every group together.
        groups: Of the quantizer.
        entries: Of each group.
    """

    final: int
    groups: int
    entries: int

    @property
    def entry(self) -> int:
        """Numbers of an entry."""
        return self.final // self.groups

    @classmethod
    def of(cls, checkpoint: Checkpoint) -> Self:
        """Return those of a file that holds the tensors.

        Raises:
            WeightsError: They tell none.
        """
        _, rows, entry = checkpoint.shape("quantizer.vars", 3)
        final, joined = checkpoint.shape("project_q.weight", 2)
        groups = max(1, joined // entry)
        return cls(final=final, groups=groups, entries=rows // groups)

    def shapes(self, dim: int, channels: int) -> dict[str, tuple[int, ...]]:
        """Return the key and shape of every tensor, for frames of `dim` and a stem's channels."""
        rows = self.groups * self.entries
        return {
            "mask_emb": (dim,),
            "quantizer.vars": (1, rows, self.entry),
            "quantizer.weight_proj.weight": (rows, channels),
            "quantizer.weight_proj.bias": (rows,),
            "project_q.weight": (self.final, self.groups * self.entry),
            "project_q.bias": (self.final,),
            "final_proj.weight": (self.final, dim),
            "final_proj.bias": (self.final,),
        }


class Quantizer(nn.Module):
    """Takes an entry of each group for a frame.

    Args:
        channels: Numbers of a frame.
        width: Dimensions.
    """

    def __init__(self, channels: int, width: Width) -> None:
        super().__init__()
        self.groups = width.groups
        self.vars = nn.Parameter(torch.empty(1, width.groups * width.entries, width.entry))
        self.weight_proj = nn.Linear(channels, width.groups * width.entries)

    def logits(self, frames: Tensor) -> Tensor:
        """Return ``(segments, frames, groups, entries)``."""
        logits: Tensor = self.weight_proj(frames)
        return logits.reshape(*frames.shape[:2], self.groups, -1)

    def forward(self, logits: Tensor, tau: Tensor) -> tuple[Tensor, Tensor]:
        """Choose the entries of the highest logits.

        In training the logits get the gradient of a softmax in place of that of the choice
        (straight through; Jang, Gu, Poole 2017, arXiv 1611.01144). The term that carries it is
        exactly zero.

        Args:
            logits: ``(segments, frames, groups, entries)``, with Gumbel noise in training.
            tau: What they are divided by in that softmax.

        Returns:
            The entries side by side, ``(segments, frames, groups * entry)``, and their numbers
            within groups, ``(segments, frames, groups)``.
        """
        codes = logits.detach().argmax(-1)
        entries = self.vars[0]
        first = torch.arange(self.groups, device=codes.device) * logits.shape[-1]
        chosen = functional.embedding(codes + first, entries)
        if self.training:
            soft = (logits / tau).softmax(-1)
            groups = entries.detach().reshape(self.groups, -1, entries.shape[1])
            chosen = chosen + torch.einsum("sfgv,gvn->sfgn", soft - soft.detach(), groups)
        return chosen.flatten(-2), codes
