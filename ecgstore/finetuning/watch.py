"""Early stopping: looking at the validation records once an epoch, and keeping the best."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import torch
from torch import distributed

from ecgstore.finetuning.validation import Judged, judge

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from numpy.typing import NDArray

    from ecgstore.finetuning.network import Finetuned
    from ecgstore.progress import Progress
    from ecgstore.warehouse import Warehouse

__all__ = ["Watch"]


@dataclass(eq=False)
class Watch:
    """Called after every update; says when to stop.

    Attributes:
        method: What is trained.
        warehouse: Where the records are, at fixed versions.
        labels: ``(tasks,)`` labels of each validation record.
        rates: Samples per second of each record.
        every: Updates between two looks.
        patience: Looks in a row that may be no better.
        by: What is looked at: the loss, or the mean AUROC.
        batch_size: Windows at once.
        progress: Told when it stops.
        judged: The looks so far, in this process.
    """

    method: Finetuned
    warehouse: Warehouse
    labels: Mapping[str, NDArray[np.float64]]
    rates: Mapping[str, float | None]
    every: int
    patience: int
    by: Literal["loss", "auroc"]
    batch_size: int
    progress: Progress
    judged: list[Judged] = field(default_factory=list)

    def __call__(self, step: int) -> bool:
        """Look, if it is time, and tell whether to stop."""
        before = self.method.record
        if before["since"] >= self.patience or before["looked"] == step:
            return before["since"] >= self.patience  # a run that is gone on with had its look
        if step % self.every:
            return False
        loss, auroc = self._look(step)
        self.method.judge(step, loss, auroc, by=self.by)
        since = int(self.method.record["since"])
        if since < self.patience:
            return False
        self.progress.note(
            f"Stopped at step {step}: no better validation {self.by} in {since} epochs."
        )
        return True

    def _look(self, step: int) -> tuple[float, float]:
        """Return loss and AUROC; of several processes the first looks and tells the others."""
        told = torch.zeros(2, dtype=torch.float64, device=self.method.standing.device)
        several = distributed.is_available() and distributed.is_initialized()
        if not several or distributed.get_rank() == 0:
            found = judge(
                self.method.live,
                self.warehouse,
                self.labels,
                self.rates,
                step=step,
                batch_size=self.batch_size,
            )
            self.judged.append(found)
            told[0], told[1] = found.loss, found.auroc
        if several:
            distributed.broadcast(told, 0)
        loss, auroc = told.tolist()
        return loss, auroc
