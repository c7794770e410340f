"""Which frames wav2vec 2.0 hides, and from which others each must be told."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["draw_negatives", "draw_spans"]


def draw_spans(
    segments: int, frames: int, *, count: int, span: int, generator: torch.Generator
) -> Tensor:
    """Return which frames are hidden, as many in every segment.

    Spans start at different frames, never so late that they reach the last. Where they overlap
    they hide less, so frames are then left out at random until all segments have as many hidden
    as the one whose spans overlap most.

    Args:
        segments: How many.
        frames: Of each.
        count: Spans in a segment.
        span: Frames of a span.
        generator: Where the numbers come from.

    Returns:
        ``(segments, hidden)`` int64, ascending.
    """
    order = torch.rand((segments, frames - span), generator=generator)
    starts = order.topk(count).indices
    inside = (starts[..., None] + torch.arange(span)).flatten(1)
    hidden = torch.zeros((segments, frames), dtype=torch.bool).scatter_(1, inside, value=True)
    fewest = int(hidden.sum(1).min())
    order = torch.rand((segments, frames), generator=generator).masked_fill_(~hidden, -1.0)
    return order.topk(fewest).indices.sort().values


def draw_negatives(items: int, hidden: int, count: int, *, generator: torch.Generator) -> Tensor:
    """Return for each hidden frame others of its segment, with replacement.

    Args:
        items: Pairs of segments.
        hidden: Hidden frames of a segment.
        count: Negatives of each.
        generator: Where the numbers come from.

    Returns:
        ``(items, 2, hidden, count)`` int16: there are many, and they travel to a GPU.
    """
    shape = (items, 2, hidden, count)
    negatives = torch.randint(0, hidden - 1, shape, generator=generator, dtype=torch.int16)
    return negatives + (negatives >= torch.arange(hidden, dtype=torch.int16)[:, None])
