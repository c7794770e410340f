"""One process or several (PyTorch's distributed data parallel): who has which part of a batch."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, distributed

__all__ = ["Ranks", "joined"]


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
        gathered: Tensor = _Gather.apply(tensor, self)  # type: ignore[no-untyped-call]
        return gathered

    def wait(self) -> None:
        """Wait until every process is here."""
        if self.size > 1:
            distributed.barrier()

    def total(self, number: Tensor) -> Tensor:
        """Return the sum over processes of a number, without gradient."""
        number = number.detach().clone()
        if self.size > 1:
            distributed.all_reduce(number)
        return number


def joined(device: torch.device) -> tuple[Ranks, torch.device]:
    """Join the other processes that torchrun started, if it did.

    Returns:
        The processes, and the device of this one: its own GPU, or the CPU.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) < 2:
        return Ranks(), device
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    if not distributed.is_initialized():
        distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    return Ranks(distributed.get_rank(), distributed.get_world_size()), device


class _Gather(torch.autograd.Function):
    """The rows of all processes; back comes the gradient of one's own, summed over them."""

    @staticmethod
    def forward(context: Any, tensor: Tensor, ranks: Ranks) -> Tensor:  # noqa: ANN401  as PyTorch has it
        context.ranks, context.rows = ranks, len(tensor)
        parts = [torch.empty_like(tensor) for _ in range(ranks.size)]
        distributed.all_gather(parts, tensor.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor, None]:  # noqa: ANN401
        whole = gradients[0].contiguous()
        distributed.all_reduce(whole)
        start = context.ranks.rank * context.rows
        return whole[start : start + context.rows], None
