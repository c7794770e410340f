"""One process or several (PyTorch's distributed data parallel): who has which part of a batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, distributed

__all__ = ["Ranks"]


@dataclass(frozen=True)
class Ranks:
    """The processes of a run.

    Attributes:
        rank: Number of this one.
        size: How many there are.
    """

    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the one that writes files and tables and talks to people."""
        return self.rank == 0

    def part(self, items: int) -> slice:
        """Return which of the items of a batch are of this process."""
        each = items // self.size
        return slice(self.rank * each, (self.rank + 1) * each)

    def gather(self, tensor: Tensor) -> Tensor:
        """Return the rows of all processes, in the order of one process with the whole batch.

        Gradients flow back to the process a row came from. A loss that is no plain mean over
        items gathers what it looks at, so that it does not depend on how many processes there are.
        Every process then has the same loss, and the mean of their gradients, which is what is
        applied, is that of one process.
        """
        if self.size == 1:
            return tensor
        from torch.distributed.nn import functional

        return torch.cat(cast("tuple[Tensor, ...]", functional.all_gather(tensor)))  # type: ignore[no-untyped-call]

    def total(self, number: Tensor) -> Tensor:
        """Return the sum over processes of a number, without gradient."""
        number = number.detach().clone()
        if self.size > 1:
            distributed.all_reduce(number)
        return number
