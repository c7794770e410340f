"""What AnyECG's two stages of training do alike: sizes, preparation, and files."""

from __future__ import annotations

import abc
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar, Self

from ecgstore.errors import UsageError
from ecgstore.models.anyecg import (
    RATE_HZ,
    SIZES,
    AnyEcgConfiguration,
    AnyEcgEncoder,
    lengthened,
    prepared,
)
from ecgstore.models.rhythm_codes import PATCH, EncoderSize, TokeniserSize
from ecgstore.pretraining.method import Method
from ecgstore.pretraining.recipe import Recipe

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from ecgstore.models.arithmetic import Arithmetic, Signal
    from ecgstore.models.configuration import Configuration
    from ecgstore.models.weights import Checkpoint
    from ecgstore.pretraining.method import Draws, Setting

__all__ = ["DEVIATION", "AnyEcgMethod"]

_TOKENISER_DEPTH = 4
"""Blocks of the tokeniser [paper]; it is as wide as the encoder of its size [chosen]."""
_VARIANTS = ("denoised", "filtered", "raw")
DEVIATION = 0.02
"""Of starting weights, as is usual for transformers (Devlin et al. 2019, arXiv 1810.04805). With
``1 / sqrt(inputs)`` the blocks of a small network drown each second in its neighbours, and nothing
of its form is learned in hundreds of steps."""


def _sized(size: EncoderSize) -> AnyEcgConfiguration:
    return AnyEcgConfiguration(size, TokeniserSize(replace(size, depth=_TOKENISER_DEPTH)))


class AnyEcgMethod(Method, abc.ABC):
    """What both stages do alike: sizes, preparation, and files.

    Settings:
        variant: How records are filtered, as the encoder's variant of that name.
    """

    model = "anyecg"
    encoder = AnyEcgEncoder
    sizes: ClassVar[Mapping[str, Configuration]] = {
        "tiny": _sized(SIZES["tiny"]),
        "mini": _sized(EncoderSize(128, 3, 2, 512)),
        "small": _sized(SIZES["small"]),
        "base": _sized(SIZES["B"]),
    }
    recipe = Recipe(
        source="chosen here: arXiv 2411.17711 does not tell how it was trained",
        learning_rate=5e-4,
        batch_size=64,
        epochs=100,
        weight_decay=0.05,
        decay_vectors=False,
        warmup=0.05,
    )
    defaults: ClassVar[Mapping[str, Setting]] = {"variant": "denoised"}
    all_leads = False
    configuration: AnyEcgConfiguration

    def __init__(
        self, configuration: AnyEcgConfiguration, settings: Mapping[str, Setting] | None = None
    ) -> None:
        super().__init__(configuration, settings)
        self.taken = frozenset[str]()
        """Parts that came from a file, by what their keys begin with."""
        if self.settings["variant"] not in _VARIANTS:
            msg = f"There is no variant {self.settings['variant']!r} of {self.model!r}."
            raise UsageError(msg, hint=f"Take one of {', '.join(_VARIANTS)}.")

    @classmethod
    def of(
        cls, size: str, settings: Mapping[str, Setting], checkpoint: Checkpoint | None = None
    ) -> Self:
        """Return the method at a size, or at that of a file of either stage.

        A file of the first stage tells the size of the tokeniser; the encoder's is the one that
        stands beside it in `sizes`.

        Raises:
            UsageError: The file has no tokeniser.
            UnknownNameError: There is no such size.
            WeightsError: The file does not tell its dimensions, or no size has such a tokeniser.
        """
        if checkpoint is None:
            return super().of(size, settings)
        tensors = checkpoint.dense(AnyEcgEncoder.select(checkpoint))
        tokeniser = AnyEcgConfiguration.infer_tokeniser(tensors)
        if tokeniser is None:
            msg = f"{checkpoint.path.name!r} holds no tokeniser, which {cls.name!r} needs."
            hint = "Train one first: pretrain anyecg.tokeniser; then give its file by --weights."
            raise UsageError(msg, hint=hint)
        if any(key.startswith("encoder.") for key in tensors.tensors):
            return cls(AnyEcgConfiguration.infer(tensors), settings)
        known = (one for one in cls.sizes.values() if isinstance(one, AnyEcgConfiguration))
        fitting = next((one for one in known if one.tokeniser == tokeniser), None)
        if fitting is None:
            checkpoint.refuse(f"no size of AnyECG has a tokeniser as in it: {tokeniser}")
        return cls(fitting, settings)

    @property
    def size(self) -> TokeniserSize:
        """The dimensions of the tokeniser.

        Raises:
            UsageError: The configuration has none.
        """
        if self.configuration.tokeniser is None:
            msg = f"{self.name!r} needs a configuration with a tokeniser."
            raise UsageError(msg)
        return self.configuration.tokeniser

    @classmethod
    @abc.abstractmethod
    def key(cls, name: str) -> str:
        """Return how a file spells the name of a tensor of `state_dict`, "" if it has none."""

    def published(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return them as `ecgstore.models.anyecg` lays out a file."""
        return {key: tensor for name, tensor in state.items() if (key := self.key(name))}

    def take(self, checkpoint: Checkpoint) -> tuple[str, ...]:
        """Take what the file holds of encoder, tokeniser, decoder and head, each whole or not."""
        state = self.state_dict()
        names = {key: name for name in state if (key := self.key(name))}
        known = {_part(key) for key in names}
        held = {key: x for key, x in checkpoint.tensors.items() if _part(key) in known}
        self.taken = frozenset(map(_part, held))
        heads = {"encoder": "heads", "tokeniser": "tokeniser_heads"}
        own = self.configuration.settings()
        checkpoint = checkpoint.with_settings(
            {heads[part]: own[heads[part]] for part in self.taken & heads.keys()}
        )
        wanted = {
            key: tuple(state[name].shape) for key, name in names.items() if _part(key) in self.taken
        }
        tensors = checkpoint.dense(held).matched(wanted)
        self.load_state_dict({names[key]: x for key, x in tensors.items()}, strict=False)
        return tuple(key for key in names if key not in wanted)

    def windows(
        self, signal: Signal, rate_hz: float, dsp: Arithmetic[Signal], draws: Draws
    ) -> Signal:
        """Return ``(items, leads, samples)`` at 300 Hz, whole seconds, each lead standardised."""
        ready = prepared(signal, rate_hz, dsp, variant=str(self.settings["variant"]))
        samples = self.seconds * PATCH
        return lengthened(ready, samples)[..., :samples]

    @property
    def seconds(self) -> int:
        """Tokens of a lead."""
        return round(self.piece_s * RATE_HZ) // PATCH


def _part(key: str) -> str:
    """Return what part of a file a key belongs to, such as ``pretraining.decoder``."""
    first, _, rest = key.partition(".")
    return f"{first}.{rest.partition('.')[0]}" if first == "pretraining" else first
