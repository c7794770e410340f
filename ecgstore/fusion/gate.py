"""The network of the fusion ``attention``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["GatedAttention"]


class GatedAttention(nn.Module):
    """A token a member, a gated weight a token, a perceptron on their weighted mean.

    The weights are those of Ilse, Tomczak and Welling (2018, arXiv 1802.04712), equation 9, over
    the members that are there.

    Args:
        dims: Numbers in the vector of each member.
        width: Numbers in a token.
        out: Numbers returned for a record.
        dropout: Part of the numbers dropped before the perceptron.
    """

    def __init__(self, dims: Sequence[int], *, width: int, out: int, dropout: float) -> None:
        super().__init__()
        self.tokens = nn.ModuleList(
            nn.Sequential(nn.Linear(dim, width), nn.LayerNorm(width), nn.GELU()) for dim in dims
        )
        self.value = nn.Linear(width, width)
        self.gate = nn.Linear(width, width)
        self.weight = nn.Linear(width, 1)
        self.head = nn.Sequential(
            nn.Dropout(dropout), nn.Linear(width, width), nn.GELU(), nn.Linear(width, out)
        )

    def forward(self, blocks: Sequence[torch.Tensor], has: torch.Tensor) -> torch.Tensor:
        """Return ``(records, out)``.

        Args:
            blocks: ``(records, dim)`` vectors of each member; whatever is lacking is ignored.
            has: ``(records, members)`` bool, which are there; one at least of each record.
        """
        tokens = torch.stack(
            [project(x) for project, x in zip(self.tokens, blocks, strict=True)], dim=1
        )
        gated = torch.tanh(self.value(tokens)) * torch.sigmoid(self.gate(tokens))
        strength = self.weight(gated)[:, :, 0].masked_fill(~has, -torch.inf)
        fused = (strength.softmax(dim=1)[:, :, None] * tokens).sum(dim=1)
        scores: torch.Tensor = self.head(fused)
        return scores
