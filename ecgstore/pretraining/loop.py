"""The training loop, the same for every method.

Everything random in a step follows from the seed and the step's number: which pieces it takes and
what is drawn for them (`loader`), and the noise of dropout, whose generator is set before every
part. Weights, moments of the optimiser and history are in the checkpoint, so a run that goes on
from one does what it would have done. Loss and gradients are reduced over processes so that they
are those of one process with the whole batch.
"""

from __future__ import annotations

import inspect
import math
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, distributed
from torch.nn.parallel import DistributedDataParallel

from ecgstore.errors import EcgStoreError
from ecgstore.models.device import exact_float32
from ecgstore.pretraining import curve
from ecgstore.pretraining.pieces import draw_seed
from ecgstore.pretraining.state import State

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ecgstore.pretraining.loader import Loader
    from ecgstore.pretraining.method import Batch, Method
    from ecgstore.pretraining.ranks import Ranks
    from ecgstore.pretraining.recipe import Recipe
    from ecgstore.pretraining.state import RunFolder
    from ecgstore.progress import Progress

__all__ = ["History", "NotFiniteError", "train"]

_NOISE = 3
"""Marks the stream of random numbers of dropout."""
_TOLD = 500
"""Updates whose losses are shown while it runs."""
_SHOWN = 8
"""Records that an error names at most."""


class NotFiniteError(EcgStoreError, ArithmeticError):
    """The loss became NaN or infinite."""


@dataclass
class History:
    """What every update lost.

    Attributes:
        names: The terms, the loss first.
        values: One row an update, the terms in this order.
        rates: The learning rate of each update.
    """

    names: tuple[str, ...] = ()
    values: list[list[float]] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.values)

    def add(self, told: dict[str, float], rate: float) -> None:
        """Take in one update."""
        self.names = self.names or tuple(told)
        self.values.append([told[name] for name in self.names])
        self.rates.append(rate)

    def losses(self, last: int = 0) -> list[float]:
        """Return the loss of every update, or of the last so many."""
        return [row[0] for row in self.values[-last:]]


def train(
    method: Method,
    loader: Loader,
    recipe: Recipe,
    *,
    steps: int,
    seed: int,
    folder: RunFolder,
    ranks: Ranks,
    device: torch.device,
    precision: str,
    every: int,
    progress: Progress,
    kept: Callable[[History], None] | None = None,
    each_step: Callable[[int], bool] | None = None,
) -> History:
    """Train a method, from its last checkpoint if there is one.

    Args:
        method: What is trained, on `device`, with its starting weights.
        loader: Its batches.
        recipe: Optimiser and learning rate.
        steps: Updates of the whole run.
        seed: Of dropout; that of the loader is its own.
        folder: Where checkpoints are.
        ranks: The processes.
        device: Where it runs.
        precision: ``fp32``, or ``bf16``: matrix products in bfloat16, weights in float32
            (Micikevicius et al. 2018, arXiv 1710.03740).
        every: Updates between checkpoints.
        progress: Told of every update.
        kept: Called with the history after each checkpoint, on the first process only.
        each_step: Called after every update with how many are done; True ends the run there.

    Returns:
        The history of the whole run.

    Raises:
        NotFiniteError: The loss became NaN; the last checkpoint is from before that.
        WarehouseError: A checkpoint could not be written.
    """
    optimiser = _optimiser(method, recipe, device)
    history, done = History(), 0
    if (last := folder.last()) is not None:
        history, done = _restore(last, method, optimiser), last.step
    progress.start(steps, "steps")
    if done:
        progress.advance(done)
    if done and each_step is not None and each_step(done):
        return history
    network = method if ranks.size == 1 else _distributed(method, device)
    method.train()
    pending: tuple[int, dict[str, Tensor], float] | None = None

    def settle() -> None:
        """Look at the loss of the update before, once the next one is under way."""
        nonlocal pending
        if pending is not None:
            step, told, rate = pending
            numbers = _numbers(told, ranks)
            if not math.isfinite(numbers["loss"]):
                raise _not_finite(step, numbers["loss"], loader.records(step), folder)
            history.add(numbers, rate)
            progress.tell(f"loss {curve.spark(history.losses(_TOLD))}")
            progress.advance()
            pending = None

    with exact_float32():
        for step, parts in enumerate(loader.steps(done, steps), start=done):
            rate = recipe.rate(step, steps)
            told = _update(
                network,
                optimiser,
                parts,
                rate,
                recipe,
                ranks,
                precision=precision,
                seed=(seed, step),
            )
            method.stepped((step + 1) / steps)
            settle()
            pending = (step, told, rate)
            ended = each_step is not None and each_step(step + 1)
            if ended or (step + 1) % every == 0 or step + 1 == steps:
                settle()
                if not all(bool(one.isfinite().all()) for one in method.parameters()):
                    raise _not_finite(step, math.nan, loader.records(step), folder)
                if ranks.first:
                    folder.save(_state(step + 1, method, optimiser, history))
                    if kept is not None:
                        kept(history)
            if ended:
                break
    method.eval()
    return history


def _update(
    network: torch.nn.Module,
    optimiser: torch.optim.Optimizer,
    parts: Sequence[Batch],
    rate: float,
    recipe: Recipe,
    ranks: Ranks,
    *,
    precision: str,
    seed: tuple[int, int],
) -> dict[str, Tensor]:
    """Do one update and return the mean of each term over its parts, without waiting for it."""
    device = parts[0].windows.device
    told: dict[str, Tensor] = {}
    optimiser.zero_grad(set_to_none=True)
    for number, batch in enumerate(parts):
        torch.manual_seed(draw_seed(seed[0], _NOISE, seed[1], number, ranks.rank))
        with ExitStack() as stack:
            if ranks.size > 1 and number + 1 < len(parts):
                stack.enter_context(network.no_sync())  # type: ignore[operator]
            with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
                terms: dict[str, Tensor] = network(batch, ranks)
            torch.autograd.backward(terms["loss"] / len(parts))
        for name, value in terms.items():
            told[name] = told.get(name, 0.0) + value.detach().float() / len(parts)
    weights = [one for group in optimiser.param_groups for one in group["params"]]
    if recipe.clip is not None:
        torch.nn.utils.clip_grad_norm_(weights, recipe.clip)
    for group in optimiser.param_groups:
        group["lr"] = rate * group["scale"]
    optimiser.step()
    return told


def _optimiser(method: Method, recipe: Recipe, device: torch.device) -> torch.optim.AdamW:
    return torch.optim.AdamW(
        method.groups(recipe),
        lr=recipe.learning_rate,
        betas=recipe.betas,
        eps=recipe.eps,
        fused=device.type == "cuda",
    )


def _distributed(method: Method, device: torch.device) -> DistributedDataParallel:
    """Return the method with gradients meant over processes; buffers are the same in all anyway."""
    ids = [device.index or 0] if device.type == "cuda" else None
    known = inspect.signature(DistributedDataParallel).parameters
    # PyTorch 2.13 warns of the old name, earlier ones do not know the new one.
    option = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"
    left_alone: dict[str, Any] = {option: False}
    return DistributedDataParallel(method, device_ids=ids, **left_alone)


def _numbers(told: dict[str, Tensor], ranks: Ranks) -> dict[str, float]:
    """Return terms as numbers, their mean over processes."""
    whole = torch.stack([value.double() for value in told.values()])
    if ranks.size > 1:
        distributed.all_reduce(whole)
    return dict(zip(told, (whole / ranks.size).tolist(), strict=True))


def _not_finite(step: int, loss: float, records: list[str], folder: RunFolder) -> NotFiniteError:
    last = folder.last()
    kept = "no checkpoint was made before" if last is None else f"step {last.step} is kept"
    more = f" and {len(records) - _SHOWN} more" if len(records) > _SHOWN else ""
    msg = (
        f"The loss of step {step + 1} is {loss}; the last good checkpoint: {kept}. "
        f"The records of its batch: {', '.join(records[:_SHOWN])}{more}."
    )
    hint = "Look at these records, or train with a smaller --learning-rate or in fp32."
    return NotFiniteError(msg, hint=hint)


# ------------------------------------------------------------------------------- checkpoints


def _state(step: int, method: Method, optimiser: torch.optim.AdamW, history: History) -> State:
    names = {id(one): name for name, one in method.named_parameters()}
    tensors = {f"method.{name}": one.detach().cpu() for name, one in method.state_dict().items()}
    # One tensor twice in a file is refused; a copy of its own costs nothing that matters here.
    tensors = {name: one.clone() for name, one in tensors.items()}
    for weight, moments in optimiser.state.items():
        for moment, value in moments.items():
            tensors[f"optimiser.{moment}.{names[id(weight)]}"] = value.detach().cpu().clone()
    tensors["history.values"] = torch.tensor(history.values, dtype=torch.float64)
    tensors["history.rates"] = torch.tensor(history.rates, dtype=torch.float64)
    tensors |= {f"history.name.{i}.{name}": torch.empty(0) for i, name in enumerate(history.names)}
    return State(step, tensors)


def _restore(state: State, method: Method, optimiser: torch.optim.AdamW) -> History:
    """Put a checkpoint's weights and moments in place and return its history."""
    parts: dict[str, dict[str, Tensor]] = {"method": {}, "optimiser": {}, "history": {}}
    for key, value in state.tensors.items():
        part, _, name = key.partition(".")
        parts[part][name] = value
    method.load_state_dict(parts["method"])
    weights = dict(method.named_parameters())
    for key, value in parts["optimiser"].items():
        moment, _, name = key.partition(".")
        weight = weights[name]
        # The count of steps stays on the host unless the optimiser runs fused.
        here: Any = value.clone()
        if moment != "step" or optimiser.defaults["fused"]:
            here = value.to(weight.device, copy=True)
        optimiser.state[weight][moment] = here
    told = parts["history"]
    named = (key.split(".", 2) for key in told if key.startswith("name."))
    names = tuple(name for _, _, name in sorted(named, key=lambda one: int(one[1])))
    return History(names, told["values"].tolist(), told["rates"].tolist())
