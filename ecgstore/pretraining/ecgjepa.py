"""ECG-JEPA's pretraining: predict, in the space of latents, the blocks of time that are hidden.

Kim: Learning General Representation of 12-Lead Electrocardiogram with a Joint-Embedding Predictive
Architecture, 2024, arXiv 2410.08559.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from ecgstore.errors import UsageError
from ecgstore.models.ecgjepa import (
    LEADS,
    EcgJepa,
    EcgJepaConfiguration,
    EcgJepaEncoder,
    cross_pattern,
    position_table,
    ten_seconds,
)
from ecgstore.models.layers import Block, LayerNorm, Linear
from ecgstore.models.patches import sincos_table
from ecgstore.models.weights import seeded_tensors
from ecgstore.pretraining.method import Draws, Method, methods
from ecgstore.pretraining.recipe import Recipe

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ecgstore.models.arithmetic import Arithmetic, Signal
    from ecgstore.models.configuration import Configuration
    from ecgstore.models.weights import Checkpoint
    from ecgstore.pretraining.method import Batch, Setting
    from ecgstore.pretraining.ranks import Ranks

__all__ = ["EcgJepaMethod", "draw_mask"]

_BLOCKS, _BLOCK_SHARES = 4, (0.175, 0.225)
_RANDOM_SHARES = (0.6, 0.7)
_MOMENTUM = 0.996
"""Of the moving average at the first update; it rises linearly to 1 at the last."""
_DEVIATION = 0.02
"""Of starting weights, as is usual for transformers (Devlin et al. 2019, arXiv 1810.04805)."""
_EPS = 1e-5
"""Of the layer norm over the targets."""

_BLOCK_KEYS = (
    (r"\.attention_norm\.", ".norm1."),
    (r"\.mlp_norm\.", ".norm2."),
    (r"\.attention\.qkv\.", ".attn.qkv."),
    (r"\.attention\.out\.", ".attn.proj."),
)
_ENCODER_KEYS = (
    (r"^patch_embedding\.", "W_P."),
    (r"^blocks\.", "encoder_blocks.blocks."),
    *_BLOCK_KEYS,
)
_PREDICTOR_KEYS = (
    (r"^(embed|norm|proj)\.", r"predictor_\1."),
    (r"^blocks\.", "predictor_blocks.blocks."),
    *_BLOCK_KEYS,
)
_PARTS = {
    "network": ("", _ENCODER_KEYS),
    "target": ("target_encoder.", _ENCODER_KEYS),
    "predictor": ("predictor.", _PREDICTOR_KEYS),
}
"""For each part of the method: what its keys begin with in a file, and how they are spelt there."""


def draw_mask(patches: int, masking: str, generator: torch.Generator) -> Tensor:
    """Draw which patches are hidden, ``(patches,)`` bool, the same in all leads.

    Args:
        patches: Patches of a lead.
        masking: ``multi-block``: four times, a share uniform in [0.175, 0.225), so many
            consecutive patches from a start uniform over all that leave room behind it; or
            ``random``: a share uniform in [0.6, 0.7), so many patches anywhere.
        generator: Where the numbers come from.
    """
    mask = torch.zeros(patches, dtype=torch.bool)
    if masking == "random":
        count = int(patches * _uniform(_RANDOM_SHARES, generator))
        mask[torch.randperm(patches, generator=generator)[:count]] = True
        return mask
    for _ in range(_BLOCKS):
        length = int(patches * _uniform(_BLOCK_SHARES, generator))
        start = int(torch.randint(patches - length, (), generator=generator))
        mask[start : start + length] = True
    return mask


def _uniform(limits: tuple[float, float], generator: torch.Generator) -> float:
    low, high = limits
    return low + (high - low) * float(torch.rand((), generator=generator))


class _Predictor(nn.Module):
    """Tells the latents of hidden patches of one lead from those of the others."""

    pos_embed: Tensor

    def __init__(self, patches: int, width: int, dim: int, depth: int, heads: int) -> None:
        super().__init__()
        self.mask_token = nn.Parameter(torch.empty(1, 1, dim))
        self.register_buffer("pos_embed", torch.empty(patches, dim))
        self.embed = Linear(width, dim)
        self.blocks = nn.ModuleList(
            Block(dim, heads, dim // heads, 4 * dim, bias=False) for _ in range(depth)
        )
        self.norm = LayerNorm(dim)
        self.proj = Linear(dim, width)

    def forward(self, context: Tensor, seen: Tensor, hidden: Tensor) -> Tensor:
        """Return the latents of all patches, the seen ones first.

        Args:
            context: ``(items * leads, seen, width)`` latents.
            seen: ``(seen,)`` numbers of their patches.
            hidden: ``(hidden,)`` numbers of the patches to predict.

        Returns:
            ``(items * leads, seen + hidden, width)`` float32.
        """
        known: Tensor = self.embed(context).float()
        blank = self.mask_token.expand(len(known), len(hidden), -1)
        tokens = torch.cat([known, blank], dim=1)
        position = self.pos_embed[torch.cat([seen, hidden])]
        for block in self.blocks:
            tokens = block(tokens + position)
        told: Tensor = self.proj(self.norm(tokens))
        return told.float()


def _lead_positions(patches: int, dim: int) -> Tensor:
    """Return the encoder's position table for one lead, ``(patches, dim)``.

    The half that tells the lead is that of lead 0: its sines 0, its cosines 1.
    """
    quarter = dim // 4
    lead = torch.tensor([0.0] * quarter + [1.0] * quarter).expand(patches, -1)
    return torch.cat([sincos_table(patches, dim // 2)[1:-1], lead], dim=1)


@methods.register("ecgjepa")
class EcgJepaMethod(Method):
    """Online encoder, predictor, and a moving average of the encoder that makes the targets.

    Settings:
        masking: ``multi-block`` or ``random``; see `draw_mask`.
        drop_path: Share of samples whose branch the last block skips while training, growing
            linearly from 0 in the first [paper]. The targets and the predictor skip none [chosen].
        predictor_depth: Blocks of the predictor, which is half as wide as the encoder.
        predictor_heads: Its attention heads.
    """

    name = "ecgjepa"
    model = "ecgjepa"
    encoder = EcgJepaEncoder
    sizes: ClassVar[Mapping[str, Configuration]] = {
        "tiny": EcgJepaConfiguration(dim=48, depth=2, heads=2, hidden=96),
        "mini": EcgJepaConfiguration(dim=192, depth=6, heads=6, hidden=768),
        "base": EcgJepaConfiguration(),
    }
    recipe = Recipe(
        source="arXiv 2410.08559 and its published code, multi-block masking",
        learning_rate=5.5e-5,
        batch_size=64,
        epochs=100,
        weight_decay=0.05,
        decay_vectors=False,
        warmup=0.05,
        start=1e-6,
        floor=1e-6,
    )
    defaults: ClassVar[Mapping[str, Setting]] = {
        "masking": "multi-block",
        "drop_path": 0.1,
        "predictor_depth": 6,
        "predictor_heads": 12,
    }
    configuration: EcgJepaConfiguration

    def __init__(
        self, configuration: EcgJepaConfiguration, settings: Mapping[str, Setting] | None = None
    ) -> None:
        super().__init__(configuration, settings)
        dim, heads = configuration.dim // 2, int(self.settings["predictor_heads"])
        if self.settings["masking"] not in ("multi-block", "random"):
            msg = f"There is no masking {self.settings['masking']!r}."
            raise UsageError(msg, hint="Take multi-block or random.")
        if not 0 <= float(self.settings["drop_path"]) < 1:
            msg = f"A drop_path of {self.settings['drop_path']} is no share below 1."
            raise UsageError(msg)
        if heads < 1 or dim % heads:
            msg = f"{heads} predictor_heads do not share its width of {dim} evenly."
            raise UsageError(msg)
        self.network = EcgJepa(configuration)
        self.target = EcgJepa(configuration).requires_grad_(requires_grad=False)
        depth = int(self.settings["predictor_depth"])
        self.predictor = _Predictor(configuration.patches, configuration.dim, dim, depth, heads)
        self.network.pos_embed.requires_grad = False

    @classmethod
    def recipe_for(cls, settings: Mapping[str, Setting]) -> Recipe:
        """Return the recipe published for the masking."""
        if settings.get("masking") != "random":
            return cls.recipe
        source = "arXiv 2410.08559 and its published code, random masking"
        return replace(cls.recipe, source=source, learning_rate=2.5e-5, batch_size=128)

    # ------------------------------------------------------------------ weights in and out

    def start(self, seed: int) -> None:
        """Start matrices uniformly with `_DEVIATION`, norms at 1, biases at 0 [chosen].

        The targets start from the same weights.
        """
        c = self.configuration
        tensors = seeded_tensors(c.shapes(), seed=seed, deviation=_DEVIATION)
        tensors["pos_embed"] = position_table(len(LEADS), c.patches, c.dim)
        self.network.load_state_dict(c.fold(tensors))
        self.target.load_state_dict(self.network.state_dict())
        shapes = {key: tuple(x.shape) for key, x in self.predictor.state_dict().items()}
        tensors = seeded_tensors(shapes, seed=seed + 1, deviation=_DEVIATION)
        tensors["pos_embed"] = _lead_positions(c.patches, c.dim // 2)
        self.predictor.load_state_dict(tensors)

    def take(self, checkpoint: Checkpoint) -> tuple[str, ...]:
        """Take an encoder, with predictor and target where the file holds them.

        Without a target the moving average starts from the encoder [chosen].
        """
        checkpoint = checkpoint.with_settings(self.configuration.settings())
        state = self.state_dict()
        lacking = {
            part
            for part in ("target", "predictor")
            if not any(key.startswith(_PARTS[part][0]) for key in checkpoint.tensors)
        }
        names = {_key(name): name for name in state}
        wanted = {
            key: tuple(state[name].shape)
            for key, name in names.items()
            if name.partition(".")[0] not in lacking
        }
        taken = checkpoint.dense(checkpoint.tensors).matched(wanted)
        self.load_state_dict({names[key]: x for key, x in taken.items()}, strict=False)
        if "target" in lacking:
            self.target.load_state_dict(self.network.state_dict())
        return tuple(key for key in names if key not in wanted)

    def published(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the encoder as it is published, the rest behind a prefix for each part.

        The published pretraining file has the three parts in dictionaries of their own; what one
        calls ``target_encoder`` and ``predictor`` are the prefixes here.
        """
        return {_key(name): tensor for name, tensor in state.items()}

    # ---------------------------------------------------------------------------- a batch

    def draw(self, items: int, leads: int, generator: torch.Generator) -> Draws:
        """Draw the mask that all items share, and for each which branches it may skip."""
        c = self.configuration
        mask = draw_mask(c.patches, str(self.settings["masking"]), generator)
        return Draws(
            each={"paths": torch.rand(items, c.depth, 2, generator=generator)},
            shared={"mask": mask},
        )

    def windows(
        self, signal: Signal, rate_hz: float, dsp: Arithmetic[Signal], draws: Draws
    ) -> Signal:
        """Return ``(items, leads, 2500)`` millivolts, neither filtered nor scaled."""
        return ten_seconds(signal, rate_hz, dsp)

    def forward(self, batch: Batch, ranks: Ranks) -> dict[str, Tensor]:
        """Return the loss, and how far targets lie ``apart``: at 0 all patches look the same.

        Smooth-L1 with its bend at 1, mean over everything hidden.
        """
        mask = batch.draws.shared["mask"]
        hidden, seen = mask.nonzero()[:, 0], (~mask).nonzero()[:, 0]
        targets = self.targets(batch.windows, batch.leads)[:, :, hidden]
        context = self.context(batch.windows, batch.leads, seen, self._kept(batch.draws))
        told = self.predictor(context.flatten(0, 1), seen, hidden)[:, len(seen) :]
        loss = functional.smooth_l1_loss(told.reshape(targets.shape), targets)
        apart = targets.flatten(1, 2).std(1, correction=0).mean()
        return {"loss": loss, "apart": apart}

    @torch.no_grad()
    def targets(self, x: Tensor, leads: Sequence[int]) -> Tensor:
        """Return the latents of the moving average, ``(items, leads, patches, dim)`` float32.

        Each token is scaled to mean 0 and variance 1.
        """
        tokens = self.target.norm(self.target(x, leads)).float()
        return functional.layer_norm(tokens, tokens.shape[-1:], eps=_EPS)

    def context(
        self, x: Tensor, leads: Sequence[int], seen: Tensor, kept: Tensor | None = None
    ) -> Tensor:
        """Return the latents of the patches that are seen, which see each other alone.

        Args:
            x: ``(items, leads, samples)``.
            leads: Which of the eight leads the rows are.
            seen: ``(seen,)`` numbers of patches, ascending.
            kept: ``(items, depth, 2)`` what each item's two branches of each block are multiplied
                by; None for 1.

        Returns:
            ``(items, leads, seen, dim)`` float32.
        """
        c, network = self.configuration, self.network
        patches = x.reshape(*x.shape[:2], c.patches, c.patch)[:, :, seen]
        tokens: Tensor = network.patch_embedding(patches.flatten(1, 2))
        rows = network.pos_embed.view(-1, c.patches, c.dim)[list(leads)]
        position = rows[:, seen].flatten(0, 1)
        allowed = cross_pattern(len(leads), len(seen), device=x.device)
        for number, block in enumerate(network.blocks):
            assert isinstance(block, Block)
            tokens = tokens + position
            if kept is None:
                tokens = block(tokens, allowed)
                continue
            attention, mlp = kept[:, number, :, None, None].unbind(1)
            tokens = tokens + attention * block.attention(block.attention_norm(tokens), allowed)
            tokens = tokens + mlp * block.mlp(block.mlp_norm(tokens))
        latents: Tensor = network.norm(tokens)
        return latents.view(len(x), len(leads), len(seen), c.dim)

    def _kept(self, draws: Draws) -> Tensor | None:
        """Return what branches are multiplied by: 0, or what keeps their mean as it was."""
        share = float(self.settings["drop_path"])
        if not share:
            return None
        paths = draws.each["paths"]
        rates = torch.linspace(0, share, self.configuration.depth, device=paths.device)[:, None]
        return (paths >= rates) / (1 - rates)

    # ----------------------------------------------------------------------------- between

    @torch.no_grad()
    def stepped(self, done: float) -> None:
        """Move the average towards the encoder."""
        share = (1 - _MOMENTUM) * (1 - done)
        for mean, now in zip(self.target.parameters(), self.network.parameters(), strict=True):
            mean.lerp_(now, share)


def _key(name: str) -> str:
    """Return how a file spells the name of a tensor of the method."""
    part, _, key = name.partition(".")
    prefix, rules = _PARTS[part]
    for pattern, substitute in rules:
        key = re.sub(pattern, substitute, key)
    return prefix + key
