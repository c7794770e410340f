"""The way back from a network to the keys of its file: the inverse of `Configuration.fold`."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ecgstore.models.configuration import Configuration

__all__ = ["unfolded"]


def unfolded(configuration: Configuration, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a network's tensors under the keys and shapes of its file, to the last bit.

    Folding renames, reshapes, cuts and joins, so every number of the file ends up in one place.
    Which one is seen by folding numbers that tell where they come from; double precision holds
    them exactly.

    Args:
        configuration: Dimensions of the network.
        state: Its state dict, float32 on the CPU.

    Returns:
        What could be followed; a tensor that folding computes from others is left out with them.
    """
    shapes = configuration.shapes()
    sizes = [math.prod(shape) for shape in shapes.values()]
    ends = torch.tensor(sizes).cumsum(0).tolist()
    places = torch.arange(sum(sizes), dtype=torch.float64)
    parts = zip(shapes.items(), ends, sizes, strict=True)
    marked = {key: places[end - n : end].reshape(shape) for (key, shape), end, n in parts}
    numbers = torch.full((sum(sizes),), torch.nan)
    for key, folded in configuration.fold(marked).items():
        came = folded.flatten()
        if key not in state or not came.is_floating_point() or state[key].numel() != came.numel():
            continue
        if (came == came.round()).all():  # else it was computed, and comes from nowhere
            numbers[came.long()] = state[key].detach().float().flatten()
    found = {}
    for (key, shape), end, n in zip(shapes.items(), ends, sizes, strict=True):
        part = numbers[end - n : end]
        if not part.isnan().any():
            found[key] = part.reshape(shape).clone()
    return found
