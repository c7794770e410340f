"""What a self-supervised method is: a network, what must be drawn, and the loss of a batch."""

from __future__ import annotations

import abc
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Self

from torch import nn

from ecgstore.errors import UnknownNameError, UsageError
from ecgstore.registry import Registry

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import torch
    from torch import Tensor

    from ecgstore.models import Encoder
    from ecgstore.models.arithmetic import Arithmetic, Signal
    from ecgstore.models.configuration import Configuration
    from ecgstore.models.weights import Checkpoint
    from ecgstore.pretraining.ranks import Ranks
    from ecgstore.pretraining.recipe import Recipe

__all__ = ["Batch", "Draws", "Method", "Setting", "methods"]

Setting = bool | int | float | str


@dataclass(frozen=True, eq=False)
class Draws:
    """Everything random about a batch.

    Attributes:
        each: Random numbers of single items; the first axis is over items.
        shared: Random numbers that all items of the batch have in common.
    """

    each: Mapping[str, Tensor] = field(default_factory=dict)
    shared: Mapping[str, Tensor] = field(default_factory=dict)

    def of(self, items: slice | Tensor) -> Draws:
        """Return those of some items."""
        return Draws({name: one[items] for name, one in self.each.items()}, self.shared)

    def to(self, device: torch.device) -> Draws:
        """Return them on a device."""
        each, shared = (
            {name: one.to(device, non_blocking=True) for name, one in part.items()}
            for part in (self.each, self.shared)
        )
        return Draws(each, shared)


@dataclass(frozen=True, eq=False)
class Batch:
    """Pieces of records, prepared, where the network is.

    Attributes:
        windows: ``(items, leads, samples)`` float32, or what `Method.windows` makes instead.
        leads: Which of the model's leads the rows are.
        records: ``(items,)`` int64 number of the record each piece is of.
        facts: ``(items, columns)`` float32 of `Method.columns`, NaN where not known.
        draws: What was drawn for these items.
    """

    windows: Tensor
    leads: tuple[int, ...]
    records: Tensor
    facts: Tensor
    draws: Draws

    def __len__(self) -> int:
        return len(self.windows)


class Method(nn.Module, abc.ABC):
    """A network with what only its training needs, and the loss of a batch.

    Parameters and buffers are all there is to its state: with the number of steps done and the
    moments of the optimiser they are what a checkpoint holds.

    Args:
        configuration: Dimensions of the encoder.
        settings: What differs from `settings`, already of the right types.
    """

    name: ClassVar[str]
    """What ``pretrain`` calls it."""

    model: str
    """The model in the registry whose weights it makes."""

    encoder: type[Encoder]

    sizes: ClassVar[Mapping[str, Configuration]]
    """Dimensions by name; ``base`` is as published, ``mini`` small, ``tiny`` for tests."""

    recipe: ClassVar[Recipe]

    defaults: ClassVar[Mapping[str, Setting]] = {}
    """Settings of the method, such as the share that is masked, as published."""

    piece_s: float = 10.0
    """A longer record is cut into consecutive pieces of so many seconds, the rest left out; each
    piece is then treated as a record of its own."""

    least_s: float = 10.0
    """A piece may be so short; records that are shorter are left out and counted."""

    all_leads: bool = True
    """Whether a record that lacks one of the model's leads is left out; otherwise a batch is made
    of records that have the same leads."""

    flat_leads: bool = True
    """Whether a piece with a constant lead may be taken."""

    lost_samples: bool = False
    """Whether a piece with lost samples may be taken; they are NaN in the signal then."""

    needs_file: ClassVar[str | None] = None
    """The method whose weights it must start from, or None."""

    columns: ClassVar[tuple[str, ...]] = ()
    """SQL expressions over ``records`` that the loss looks at, one number each."""

    def __init__(
        self, configuration: Configuration, settings: Mapping[str, Setting] | None = None
    ) -> None:
        super().__init__()
        unknown = set(settings or {}) - set(self.defaults)
        if unknown:
            known = ", ".join(self.defaults) or "none"
            msg = f"{self.name} has no setting {sorted(unknown)[0]!r}; it has: {known}."
            raise UsageError(msg)
        self.configuration = configuration
        self.settings: dict[str, Setting] = {**self.defaults, **(settings or {})}

    @classmethod
    def of(
        cls, size: str, settings: Mapping[str, Setting], checkpoint: Checkpoint | None = None
    ) -> Self:
        """Return the method at a size, or at that of a checkpoint it is to start from.

        Raises:
            UnknownNameError: There is no such size.
            WeightsError: The checkpoint does not tell its dimensions.
        """
        if checkpoint is not None:
            tensors = checkpoint.dense(cls.encoder.select(checkpoint))
            return cls(cls.encoder.configuration.infer(tensors), settings)
        if size not in cls.sizes:
            raise UnknownNameError(size, kind="size", known=cls.sizes)
        return cls(cls.sizes[size], settings)

    @classmethod
    def recipe_for(cls, settings: Mapping[str, Setting]) -> Recipe:
        """Return the recipe published for such settings."""
        return cls.recipe

    def groups(self, recipe: Recipe) -> list[dict[str, Any]]:
        """Return the parameter groups of AdamW.

        Each has ``params``, ``weight_decay``, and ``scale``, which multiplies the learning rate.
        """
        trained = [one for one in self.parameters() if one.requires_grad]
        vectors = [one for one in trained if one.ndim < 2 and not recipe.decay_vectors]
        kept = {id(one) for one in vectors}
        matrices = [one for one in trained if id(one) not in kept]
        groups = [
            {"params": matrices, "weight_decay": recipe.weight_decay, "scale": 1.0},
            {"params": vectors, "weight_decay": 0.0, "scale": 1.0},
        ]
        return [group for group in groups if group["params"]]

    # ------------------------------------------------------------------ weights in and out

    @abc.abstractmethod
    def start(self, seed: int) -> None:
        """Give every weight its published starting value, from the seed alone."""

    @abc.abstractmethod
    def take(self, checkpoint: Checkpoint) -> tuple[str, ...]:
        """Start from published weights or those of an earlier run, instead of from `start`.

        A file may hold the encoder alone; what it lacks keeps its value.

        Returns:
            The keys, as published files spell them, that it did not hold.

        Raises:
            WeightsError: It is of another model or size.
        """

    @abc.abstractmethod
    def published(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return tensors of `state_dict` under the keys and shapes of a published pretraining file.

        Every step is linear, so gradients can be put through it as well. What published files do
        not hold (such as an optimiser's numbers) is left out.
        """

    # ---------------------------------------------------------------------------- a batch

    @abc.abstractmethod
    def draw(self, items: int, leads: int, generator: torch.Generator) -> Draws:
        """Draw all that is random about a batch, on the CPU, so that it is the same everywhere.

        Args:
            items: Pieces in the batch, over all processes.
            leads: Leads of each.
            generator: Where the numbers come from.
        """

    @abc.abstractmethod
    def windows(
        self, signal: Signal, rate_hz: float, dsp: Arithmetic[Signal], draws: Draws
    ) -> Signal:
        """Prepare pieces of one length as the model is fed.

        Args:
            signal: ``(items, leads, samples)`` float64 millivolts, leads in the model's order.
            rate_hz: Its samples per second.
            dsp: `ecgstore.signal` for arrays, `ecgstore.models.tensor_signal` for tensors.
            draws: Those of these items; on the CPU for arrays, else where the tensors are.

        Returns:
            ``(items, leads, samples)``, or with other axes between items and leads.
        """

    @abc.abstractmethod
    def forward(self, batch: Batch, ranks: Ranks) -> dict[str, Tensor]:
        """Return the loss of a batch as ``loss``, and after it each term that is worth telling.

        Each is a number of which the mean over processes is meant.
        """

    # ----------------------------------------------------------------------------- between

    def observe(self, batches: Iterable[Batch]) -> None:
        """Take the statistics that the method needs before its first step; most need none."""

    def stepped(self, done: float) -> None:
        """Do what follows an update, such as moving an average.

        Args:
            done: Share of all steps that are done, in (0, 1].
        """


methods: Registry[type[Method]] = Registry("pretraining method")
"""Every method by name."""
