"""What the masked auto-encoders do alike: decoder, starting values, weights in and out, loss."""

from __future__ import annotations

import abc
import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

import torch
from torch import Tensor, nn

from ecgstore.errors import UsageError
from ecgstore.models.layers import Block, LayerNorm, Linear
from ecgstore.models.patches import sincos_table
from ecgstore.models.weights import renamed
from ecgstore.pretraining.masking import (
    Choice,
    choose,
    count_kept,
    masked_mean_square,
    normalised,
)
from ecgstore.pretraining.method import Method

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ecgstore.models.ecgflow import EcgFlow
    from ecgstore.models.ecgflow_keys import EcgFlowConfiguration
    from ecgstore.models.mae import Mae
    from ecgstore.models.patches import PatchConfiguration
    from ecgstore.models.stmem import StMem
    from ecgstore.models.weights import Checkpoint
    from ecgstore.pretraining.method import Batch, Setting
    from ecgstore.pretraining.ranks import Ranks

__all__ = ["Decoder", "DecoderSize", "MaskedAutoencoder"]

_NORM_EPS = 1e-6
"""Of the decoder's last norm in all of them, whatever that of its blocks is."""

_DEVIATION = 0.02
"""Of the normal numbers that learned vectors start at."""


@dataclass(frozen=True)
class DecoderSize:
    """The dimensions of a decoder.

    Attributes:
        dim: Width of the tokens.
        depth: Number of blocks.
        heads: Attention heads.
        hidden: Width inside the MLP.
    """

    dim: int = 256
    depth: int = 4
    heads: int = 4
    hidden: int = 1024


class Decoder(nn.Module):
    """From the tokens of the encoder that were kept to the numbers of every patch.

    Args:
        size: Its dimensions.
        inputs: Width of the encoder's tokens.
        rows: Rows of the position table.
        outputs: Numbers of a patch.
        head_dim: Width of an attention head; None: ``dim / heads``.
        eps: Of the norms in the blocks.
    """

    def __init__(
        self,
        size: DecoderSize,
        *,
        inputs: int,
        rows: int,
        outputs: int,
        head_dim: int | None = None,
        eps: float,
    ) -> None:
        super().__init__()
        if head_dim is None and size.dim % size.heads:
            msg = f"A decoder of width {size.dim} does not divide into {size.heads} heads."
            raise UsageError(msg, hint="Set decoder_dim to a multiple of decoder_heads.")
        self.embedding = Linear(inputs, size.dim)
        self.mask = nn.Parameter(torch.empty(1, 1, size.dim))
        self.positions = nn.Parameter(torch.empty(1, rows, size.dim))
        head_dim = head_dim or size.dim // size.heads
        self.blocks = nn.ModuleList(
            Block(size.dim, size.heads, head_dim, size.hidden, eps=eps) for _ in range(size.depth)
        )
        self.norm = LayerNorm(size.dim, _NORM_EPS)
        self.head = Linear(size.dim, outputs)

    def forward(self, latent: Tensor, choice: Choice, after: int = 0) -> Tensor:
        """Return ``(batch, patches, outputs)``.

        Args:
            latent: ``(batch, 1 + kept + after, inputs)``: one token before the patches, and one
                or none after them; they are dropped in the end.
            choice: Which were kept; its axes before the last are joined to one.
            after: 1 if there is a token after the patches, whose position is the last row.
        """
        embedded = self.embedding(latent).float()
        stop = embedded.shape[1] - after
        whole = choice.whole(embedded[:, 1:stop], self.mask)
        patches, position = whole.shape[1], self.positions
        first, last = embedded[:, :1] + position[:, :1], embedded[:, stop:] + position[:, -1:]
        tokens = torch.cat([first, whole + position[:, 1 : patches + 1], last], dim=1)
        for block in self.blocks:
            tokens = block(tokens)
        out: Tensor = self.head(self.norm(tokens[:, 1 : patches + 1]))
        return out


class MaskedAutoencoder(Method, abc.ABC):
    """An encoder that sees some patches, and a decoder that tells the others from them.

    Settings:
        mask_ratio: Share of the patches that are masked.
        normalise_patches: Whether what is to be told is each patch with zero mean and unit
            deviation, not the patch itself.
        decoder_dim, decoder_depth, decoder_heads, decoder_hidden: Its dimensions; 0: those of the
            size, or of the checkpoint it starts from.

    Args:
        configuration: As for `Method`.
        settings: As for `Method`.

    Raises:
        UsageError: ``mask_ratio`` masks no patch or all, or a setting makes no sense.
    """

    defaults: ClassVar[Mapping[str, Setting]] = {
        "mask_ratio": 0.75,
        "normalise_patches": True,
        "decoder_dim": 0,
        "decoder_depth": 0,
        "decoder_heads": 0,
        "decoder_hidden": 0,
    }

    decoders: ClassVar[Mapping[str, DecoderSize]]
    """Dimensions of the decoder by name of the size; of any other configuration those of base."""

    names: ClassVar[Sequence[tuple[str, str]]]
    """From names of `state_dict` to published ones, for `renamed`."""

    mask_key: ClassVar[str]
    """What published files call the vector that stands for a masked patch."""

    configuration: PatchConfiguration | EcgFlowConfiguration
    network: StMem | Mae | EcgFlow

    def __init__(
        self,
        configuration: PatchConfiguration | EcgFlowConfiguration,
        settings: Mapping[str, Setting] | None = None,
    ) -> None:
        super().__init__(configuration, settings)
        self.kept = count_kept(configuration.patches, float(self.settings["mask_ratio"]))
        network: Any = self.encoder.network_type(configuration)
        self.network = network
        self.decoder = self._decoder(self._decoder_size())

    @classmethod
    def of(
        cls, size: str, settings: Mapping[str, Setting], checkpoint: Checkpoint | None = None
    ) -> Self:
        """Do as `Method.of`; a decoder in the checkpoint tells its dimensions too."""
        if checkpoint is None:
            return super().of(size, settings)
        if cls.mask_key in checkpoint.tensors:
            settings = {**cls._decoder_of(checkpoint), **settings}
            if "decoder_heads" not in settings:
                checkpoint.ask("how many heads its decoder has", "decoder_heads")
        configuration: Any = cls.encoder.configuration.infer(cls._encoder_of(checkpoint))
        return cls(configuration, settings)

    @classmethod
    def _encoder_of(cls, checkpoint: Checkpoint) -> Checkpoint:
        """Return the encoder's part, without what finetuning put behind it."""
        part = cls.encoder.select(checkpoint)
        return checkpoint.dense({k: v for k, v in part.items() if not k.startswith("head.")})

    def _decoder_size(self) -> DecoderSize:
        named = (name for name, one in self.sizes.items() if one == self.configuration)
        size = asdict(self.decoders[next(named, "base")])
        for name in size:
            size[name] = int(self.settings[f"decoder_{name}"]) or size[name]
            if size[name] < 1:
                msg = f"decoder_{name} is {size[name]}, expected 1 or more."
                raise UsageError(msg)
        return DecoderSize(**size)

    # --------------------------------------------------------------- what a method says

    @abc.abstractmethod
    def _decoder(self, size: DecoderSize) -> Decoder:
        """Return a decoder of this size for the encoder."""

    @property
    @abc.abstractmethod
    def _positions(self) -> nn.Parameter:
        """The encoder's position table, ``(1, rows, dim)``."""

    @abc.abstractmethod
    def encode(self, x: Tensor, choice: Choice, leads: Sequence[int]) -> Tensor:
        """Return the normed tokens of the encoder over the kept patches.

        Args:
            x: ``(batch, leads, samples)``.
            choice: Which are kept.
            leads: Which leads these are.
        """

    @abc.abstractmethod
    def decode(self, latent: Tensor, choice: Choice) -> Tensor:
        """Return what the decoder says of every patch, of the shape of `targets`."""

    @abc.abstractmethod
    def targets(self, x: Tensor) -> Tensor:
        """Return the patches of ``(batch, leads, samples)`` as the decoder is to tell them."""

    @classmethod
    @abc.abstractmethod
    def _decoder_of(cls, checkpoint: Checkpoint) -> dict[str, Setting]:
        """Return the dimensions of the decoder in a checkpoint, as settings, as far as it tells."""

    # ------------------------------------------------------------------ weights in and out

    def start(self, seed: int) -> None:
        """Start as published, from the seed.

        Matrices start Xavier-uniform, biases at 0, norms at 1 and 0, position tables at sines and
        cosines, and every other vector (separators, leads, class token, mask) normal with
        deviation 0.02.
        """
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for module in self.modules():
                if isinstance(module, nn.LayerNorm):
                    module.reset_parameters()
                elif isinstance(module, nn.Linear):
                    bound = math.sqrt(6 / (module.in_features + module.out_features))
                    drawn = torch.rand(module.weight.shape, generator=generator)
                    module.weight.copy_((2 * drawn - 1) * bound)
                    module.bias.zero_()
            tables = (self._positions, self.decoder.positions)
            for name, vector in self.named_parameters():
                if any(vector is table for table in tables):
                    rows, dim = vector.shape[1:]
                    vector.copy_(sincos_table(self.configuration.patches, dim)[None, :rows])
                elif not name.endswith((".weight", ".bias")):
                    vector.copy_(torch.randn(vector.shape, generator=generator) * _DEVIATION)

    def take(self, checkpoint: Checkpoint) -> tuple[str, ...]:
        """Take the encoder of a file, and its decoder if it has one."""
        family, ours = self.encoder.family, self.configuration
        if self.encoder.recognise(checkpoint) != family:
            checkpoint.refuse(f"no {family} checkpoint")
        part = self._encoder_of(checkpoint)
        facts, wanted = ours.infer(part).facts(), ours.facts()
        if facts != wanted:
            odd = (
                f"{k} {facts[k]!r}, expected {wanted[k]!r}" for k in wanted if facts[k] != wanted[k]
            )
            checkpoint.refuse("; ".join(["of another size", *odd]))
        state = ours.fold(part.matched(ours.shapes()))
        state = {f"network.{key}": tensor for key, tensor in state.items()}
        decoder = {f"decoder.{key}": tensor for key, tensor in self.decoder.state_dict().items()}
        shapes = {key: tuple(tensor.shape) for key, tensor in self.published(decoder).items()}
        if self.mask_key not in checkpoint.tensors:
            self.load_state_dict(state, strict=False)
            return tuple(shapes)
        roots = {key.partition(".")[0] for key in shapes}
        found = {k: v for k, v in checkpoint.tensors.items() if k.partition(".")[0] in roots}
        taken = checkpoint.dense(found).matched(shapes)
        self.load_state_dict(state | dict(zip(decoder, taken.values(), strict=True)))
        return ()

    def published(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return tensors under published keys."""
        return renamed(dict(state), self.names)

    # ---------------------------------------------------------------------------- a batch

    def forward(self, batch: Batch, ranks: Ranks) -> dict[str, Tensor]:
        """Return the mean square error over the masked patches.

        As many are masked in each record, so the mean over processes is that of one process.
        """
        choice = choose(batch.draws.each["noise"], self.kept)
        latent = self.encode(batch.windows, choice, batch.leads)
        target = self.targets(batch.windows)
        if self.settings["normalise_patches"]:
            target = normalised(target)
        return {"loss": masked_mean_square(self.decode(latent, choice), target, choice.mask)}

    def _through(self, tokens: Tensor) -> Tensor:
        """Return the tokens behind all blocks and the norm."""
        for block in self.network.blocks:
            tokens = block(tokens)
        out: Tensor = self.network.norm(tokens)
        return out

    def _with_class_token(self, patches: Tensor, choice: Choice, first: Tensor) -> Tensor:
        """Embed the kept patches, add their positions, and put a class token before them.

        Args:
            patches: ``(batch, patches, numbers)``.
            choice: Which are kept.
            first: The class token, ``(…, dim)``.
        """
        position = self._positions[0]
        embedded = self.network.patch_embedding(choice.of(patches)) + position[1 + choice.kept]
        return torch.cat([(first + position[0]).expand(len(patches), 1, -1), embedded], dim=1)
