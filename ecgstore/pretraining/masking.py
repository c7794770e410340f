"""Masking as the masked auto-encoders do it: which tokens are kept, and the loss over the others.

He et al.: Masked Autoencoders Are Scalable Vision Learners, CVPR 2022, arXiv 2111.06377; taken
over by ST-MEM (arXiv 2402.09450) and ECGFlow (doi 10.1056/AIoa2500164).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from ecgstore.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Choice", "choose", "count_kept", "masked_mean_square", "normalised"]


@dataclass(frozen=True, eq=False)
class Choice:
    """Which tokens are kept.

    Attributes:
        kept: ``(…, kept)`` places of the kept tokens, in the order of their noise; attention does
            not care that they are not in that of time.
        restore: ``(…, tokens)`` where each token stands when the removed follow the kept.
        mask: ``(…, tokens)`` float32, 1 for a removed token.
    """

    kept: Tensor
    restore: Tensor
    mask: Tensor

    def of(self, tokens: Tensor) -> Tensor:
        """Return those that are kept of ``(…, tokens, dim)``."""
        return tokens.gather(-2, self.kept[..., None].expand(*self.kept.shape, tokens.shape[-1]))

    def whole(self, kept: Tensor, filler: Tensor) -> Tensor:
        """Return ``(batch, tokens, dim)`` in the order of time, a filler for what was removed.

        Args:
            kept: ``(batch, kept, dim)``; axes of the choice before its last are joined to one.
            filler: ``(1, 1, dim)``.
        """
        restore = self.restore.flatten(0, -2)
        removed = filler.expand(len(kept), restore.shape[1] - kept.shape[1], -1)
        places = restore[..., None].expand(-1, -1, kept.shape[2])
        return torch.cat([kept, removed], dim=1).gather(1, places)


def count_kept(tokens: int, ratio: float) -> int:
    """Return how many tokens are kept, ``int(tokens * (1 - ratio))``.

    Raises:
        UsageError: That is none or all: a loss over removed tokens needs some of either.
    """
    kept = int(tokens * (1 - ratio)) if 0 < ratio < 1 else 0
    if not 0 < kept < tokens:
        msg = f"mask_ratio {ratio:g} of {tokens} patches masks none or keeps none."
        raise UsageError(msg, hint="Give one between 0 and 1 that keeps at least one patch.")
    return kept


def choose(noise: Tensor, kept: int) -> Choice:
    """Keep the tokens with the least noise; of equal ones the first.

    Args:
        noise: ``(…, tokens)`` uniform numbers.
        kept: How many are kept.
    """
    order = noise.argsort(dim=-1, stable=True)
    restore = order.argsort(dim=-1)
    return Choice(order[..., :kept], restore, (restore >= kept).float())


def normalised(patches: Tensor) -> Tensor:
    """Give each patch zero mean and unit deviation: ``(x - mean) / sqrt(var + 1e-6)``.

    The variance is the unbiased one, of ``n - 1``. The last axis is over the numbers of a patch.
    """
    mean = patches.mean(-1, keepdim=True)
    return (patches - mean) / (patches.var(-1, keepdim=True) + 1e-6).sqrt()


def masked_mean_square(predicted: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Return the mean square error of a patch, as a mean over all that were masked.

    Args:
        predicted: ``(…, tokens, numbers)``.
        target: Of the same shape, float32.
        mask: ``(…, tokens)``, 1 for a masked one.
    """
    errors = (predicted.float() - target).square().mean(-1)
    return (errors * mask).sum() / mask.sum()
