"""A transformer over the windows of a record, some of which are padding."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ecgstore.models.layers import Block, LayerNorm

__all__ = ["SequenceNetwork"]

_LONGEST = 10_000.0
"""Wavelengths of the positions reach 2 pi times this many windows (Vaswani et al. 2017)."""


class SequenceNetwork(nn.Module):
    """Windows of a record to its outputs: two blocks [paper], then the mean over windows [paper].

    A linear layer takes vectors to the width of the blocks, sinusoids tell their order [chosen],
    and dropout stands before the first layer and the last [chosen].

    Args:
        dim: Length of a vector.
        width: Of the blocks.
        heads: That share it evenly.
        out: Outputs.
        dropout: Share of numbers dropped.
    """

    def __init__(self, dim: int, width: int, heads: int, out: int, dropout: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.projection = nn.Linear(dim, width)
        self.blocks = nn.ModuleList(
            Block(width, heads, width // heads, 2 * width) for _ in range(2)
        )
        self.norm = LayerNorm(width)
        self.head = nn.Linear(width, out)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(records, windows, dim)``, NaN where a record has no more, to outputs."""
        there = ~x[..., 0].isnan()
        tokens: Tensor = self.projection(self.dropout(x.nan_to_num()))
        tokens = tokens + _positions(x.shape[1], tokens.shape[2], x.device)
        for block in self.blocks:
            tokens = block(tokens, there[:, None, None])
        tokens = self.norm(tokens) * there[..., None]
        mean = tokens.sum(1) / there.sum(1, keepdim=True)
        out: Tensor = self.head(self.dropout(mean))
        return out


def _positions(windows: int, width: int, device: torch.device) -> Tensor:
    """Return ``(windows, width)`` sines, then cosines, of Vaswani et al. 2017, section 3.5."""
    place = torch.arange(windows, device=device)[:, None]
    step = torch.arange(0, width, 2, device=device)
    angle = place * torch.exp(-math.log(_LONGEST) * step / width)
    return torch.cat([angle.sin(), angle.cos()], dim=1)
