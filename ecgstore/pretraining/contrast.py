"""The terms of ECG-FM's pretraining loss, as pure functions in float32.

Contrast, diversity and feature penalty are those of wav2vec 2.0 (Baevski, Zhou, Mohamed, Auli
2020, arXiv 2006.11477); the contrast of adjacent segments is CMSC (Kiyasseh, Zhu, Clifton 2021,
arXiv 2005.13249). ECG-FM (McKeen and others 2024, arXiv 2408.05178) adds them up.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["contrastive", "diversity", "likeness", "perplexity", "segment_contrast"]

_LEAST = 1e-8
"""Of a norm that is divided by."""
_INSIDE_LOG = 1e-7


def likeness(predicted: Tensor, targets: Tensor, codes: Tensor, *, temperature: float) -> Tensor:
    """Return the cosine of every prediction with every target of its segment, by the temperature.

    Another frame whose target is the same gets minus infinity: it is no negative. Equal targets
    are told by the codes they are made of, since a matrix product may round equal rows apart.

    Args:
        predicted: ``(segments, frames, dim)``.
        targets: ``(segments, frames, dim)``.
        codes: ``(segments, frames, groups)`` int64, the entries each target is made of.
        temperature: What cosines are divided by.

    Returns:
        ``(segments, frames, frames)``; a frame's own target is on the diagonal.
    """
    predicted = functional.normalize(predicted, dim=-1, eps=_LEAST)
    targets = functional.normalize(targets, dim=-1, eps=_LEAST)
    same = (codes[:, :, None] == codes[:, None]).all(-1)
    others = ~torch.eye(codes.shape[1], dtype=torch.bool, device=codes.device)
    return (predicted @ targets.transpose(1, 2) / temperature).masked_fill(
        same & others, -torch.inf
    )


def contrastive(logits: Tensor, negatives: Tensor) -> tuple[Tensor, Tensor]:
    """Return how hard it is to tell a frame's own target from negatives, in nats a frame.

    A negative that was drawn n times stands n times in the sum of exponentials: log n is added
    to its logit, which spares the copies and sums in one order on any device.

    Args:
        logits: ``(segments, frames, frames)`` of `likeness`.
        negatives: ``(segments, frames, count)`` int64, other frames of the segment.

    Returns:
        The mean over frames of the cross-entropy, and the share of frames whose own target has
        the highest logit.
    """
    times = torch.zeros_like(logits, requires_grad=False)
    times.scatter_add_(2, negatives, torch.ones_like(negatives, dtype=times.dtype))
    times.diagonal(dim1=1, dim2=2).fill_(1.0)
    own = logits.diagonal(dim1=1, dim2=2)
    candidates = logits + times.log()
    highest = logits.detach().masked_fill(times == 0, -torch.inf).amax(-1)
    return (candidates.logsumexp(-1) - own).mean(), (own >= highest).float().mean()


def perplexity(shares: Tensor) -> Tensor:
    """Return the sum over groups of the exponential of the entropy of ``(groups, entries)``."""
    return torch.exp(-(shares * torch.log(shares + _INSIDE_LOG)).sum(-1)).sum()


def diversity(shares: Tensor) -> Tensor:
    """Return the share of a quantizer's entries that go unused.

    Args:
        shares: ``(groups, entries)``, the mean over frames of the softmax of their logits.
    """
    return (shares.numel() - perplexity(shares)) / shares.numel()


def segment_contrast(
    first: Tensor, second: Tensor, records: Tensor, *, temperature: float
) -> Tensor:
    """Return how hard it is to tell which segments are of one record (CMSC), in nats.

    Every pair of a first and a second segment of one record is a positive one; the norms by which
    vectors are divided are held constant in the gradient.

    Args:
        first: ``(pairs, dim)`` vectors of first segments.
        second: ``(pairs, dim)`` vectors of the segments that follow them.
        records: ``(pairs,)`` the record each pair is of.
        temperature: What cosines are divided by.
    """
    cosines = _unit(first) @ _unit(second).T / temperature
    positive = records[:, None] == records
    surprise = -(cosines.log_softmax(1) + cosines.log_softmax(0)) / 2
    return (surprise * positive).sum() / positive.sum()


def _unit(vectors: Tensor) -> Tensor:
    norm: Tensor = torch.linalg.vector_norm(vectors.detach(), dim=1, keepdim=True)
    return vectors / norm.clamp(min=_LEAST)
