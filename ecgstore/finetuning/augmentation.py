"""Augmentation of prepared windows as ST-MEM was finetuned with: two of eight operations.

Na, Park, Tae, Joo, ICLR 2024, arXiv 2402.09450, as its code does it. Two operations are picked
without replacement and each is applied with probability 0.5, for every window on its own [chosen].
Every operation is a pure function of windows ``(n, leads, samples)`` and of numbers drawn uniformly
from [0, 1), ``(n,)`` each.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ecgstore.pretraining.method import Draws

if TYPE_CHECKING:
    from collections.abc import Callable

    Operation = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]

__all__ = [
    "OPERATIONS",
    "augmented",
    "draw",
    "lead_dropped",
    "negated",
    "noise_added",
    "points_dropped",
    "shifted",
    "sine_added",
    "stretch_dropped",
    "stretch_of_sine_added",
]

_MOST = 0.3
"""Largest part of a window that is shifted, zeroed or disturbed."""
_STRENGTH = 0.3
"""Amplitude of the sine and deviation of the noise, in deviations of the window."""
_PERIODS = 2
_PICKED = 2
_CHANCE = 0.5


def shifted(x: Tensor, amount: Tensor, place: Tensor, noise: Tensor) -> Tensor:
    """Shift by up to 30 %, to either side, with zeros where nothing comes from."""
    samples = x.shape[-1]
    by = (amount * _MOST * samples).long() * torch.where(place < 0.5, -1, 1)
    source = torch.arange(samples, device=x.device) - by[:, None]
    there = (source >= 0) & (source < samples)
    taken = x.gather(-1, source.clamp(0, samples - 1)[:, None].expand_as(x))
    return taken * there[:, None]


def stretch_dropped(x: Tensor, amount: Tensor, place: Tensor, noise: Tensor) -> Tensor:
    """Put zeros for a stretch of up to 30 %, in all leads."""
    return x * ~_stretch(x, amount, place)


def points_dropped(x: Tensor, amount: Tensor, place: Tensor, noise: Tensor) -> Tensor:
    """Put zeros for up to 30 % of the points in time, in all leads; `noise` picks them."""
    count = (amount * _MOST * x.shape[-1]).long()
    # The noise of one lead orders the points; those that come first are dropped.
    rank = noise[:, 0].argsort(-1).argsort(-1)
    return x * (rank >= count[:, None])[:, None]


def negated(x: Tensor, amount: Tensor, place: Tensor, noise: Tensor) -> Tensor:
    """Turn the signal upside down."""
    return -x


def lead_dropped(x: Tensor, amount: Tensor, place: Tensor, noise: Tensor) -> Tensor:
    """Put zeros for one lead."""
    lead = (place * x.shape[1]).long()
    return x * (torch.arange(x.shape[1], device=x.device) != lead[:, None])[..., None]


def sine_added(x: Tensor, amount: Tensor, place: Tensor, noise: Tensor) -> Tensor:
    """Add a sine of amplitude 0.3 with two periods a window, to all leads."""
    return x + _sine(x)


def stretch_of_sine_added(x: Tensor, amount: Tensor, place: Tensor, noise: Tensor) -> Tensor:
    """Add such a sine to a stretch of up to 30 %."""
    return x + _sine(x) * _stretch(x, amount, place)


def noise_added(x: Tensor, amount: Tensor, place: Tensor, noise: Tensor) -> Tensor:
    """Add white noise of deviation 0.3 to a stretch of up to 30 %."""
    return x + _STRENGTH * noise * _stretch(x, amount, place)


OPERATIONS: tuple[Operation, ...] = (
    shifted,
    stretch_dropped,
    points_dropped,
    negated,
    lead_dropped,
    sine_added,
    stretch_of_sine_added,
    noise_added,
)


def draw(items: int, leads: int, samples: int, generator: torch.Generator) -> Draws:
    """Draw for windows.

    Args:
        items: How many.
        leads: Leads of each.
        samples: Samples of each lead.
        generator: Where the numbers come from.

    Returns:
        ``order``, eight numbers whose smallest two say which operations; ``apply``, ``amount`` and
        ``place`` of each of the two; ``noise``, normal.
    """

    def uniform(count: int) -> Tensor:
        return torch.rand(items, count, generator=generator)

    each = {"order": uniform(len(OPERATIONS))}
    each |= {name: uniform(_PICKED) for name in ("apply", "amount", "place")}
    return Draws(each | {"noise": torch.randn(items, leads, samples, generator=generator)})


def augmented(x: Tensor, draws: Draws) -> Tensor:
    """Return the windows as the draws change them.

    Args:
        x: ``(items, leads, samples)`` standardised windows.
        draws: As `draw` makes them.
    """
    each = draws.each
    picked = each["order"].argsort(-1)[:, :_PICKED]
    for turn in range(_PICKED):
        applied = each["apply"][:, turn] < _CHANCE
        for number, operation in enumerate(OPERATIONS):
            rows = (applied & (picked[:, turn] == number)).nonzero()[:, 0]
            if len(rows):
                amount, place = (each[name][rows, turn] for name in ("amount", "place"))
                x = x.index_copy(0, rows, operation(x[rows], amount, place, each["noise"][rows]))
    return x


def _stretch(x: Tensor, amount: Tensor, place: Tensor) -> Tensor:
    """Return where a stretch is, ``(n, 1, samples)`` bool."""
    samples = x.shape[-1]
    length = (amount * _MOST * samples).long()
    start = (place * (samples - length + 1)).long()
    time = torch.arange(samples, device=x.device)
    inside = (time >= start[:, None]) & (time < (start + length)[:, None])
    return inside[:, None]


def _sine(x: Tensor) -> Tensor:
    time = torch.arange(x.shape[-1], device=x.device) / x.shape[-1]
    return _STRENGTH * torch.sin(2 * math.pi * _PERIODS * time)
