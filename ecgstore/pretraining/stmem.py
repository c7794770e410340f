"""ST-MEM: patches of single leads are masked, and each lead is told from what is left of all.

Na, Park, Tae, Joo: Guiding Masked Representation Learning to Capture Spatio-Temporal Relationship
of Electrocardiogram, ICLR 2024, arXiv 2402.09450.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from ecgstore.models.patches import filtered
from ecgstore.models.stmem import StMem, StMemConfiguration, StMemEncoder
from ecgstore.pretraining.autoencoder import Decoder, DecoderSize, MaskedAutoencoder
from ecgstore.pretraining.method import Draws, methods
from ecgstore.pretraining.recipe import Recipe
from ecgstore.signal import fourier_length

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ecgstore.models.arithmetic import Arithmetic, Signal
    from ecgstore.models.patches import PatchConfiguration
    from ecgstore.models.weights import Checkpoint
    from ecgstore.pretraining.masking import Choice
    from ecgstore.pretraining.method import Setting

__all__ = ["PatchPretraining", "StMemPretraining"]

_RATE_HZ, _HEAD_DIM = 250.0, 64


class PatchPretraining(MaskedAutoencoder):
    """What ST-MEM and its siblings MTAE and MLAE do alike; their position tables stay as they are.

    A window of 9 s is cut from a piece at random, then filtered and standardised on its own.
    """

    configuration: PatchConfiguration

    least_s = 9.0

    recipe = Recipe(
        source=(
            "arXiv 2402.09450 and its code; chosen here: batch size and share of the warm-up, "
            "which nobody stated"
        ),
        learning_rate=1.5e-4,
        rate_for=256,
        batch_size=256,
        epochs=800,
        betas=(0.9, 0.95),
        weight_decay=0.01,
        warmup=0.05,
    )

    decoders: ClassVar = {
        "base": DecoderSize(),
        "small": DecoderSize(),
        "mini": DecoderSize(dim=64, depth=2, heads=1, hidden=128),
        "tiny": DecoderSize(dim=48, depth=1, heads=1, hidden=96),
    }

    mask_key = "mask_embedding"

    names = (
        (r"^network\.patch_embedding\.2\.", "encoder.to_patch_embedding.3."),
        (r"^network\.patch_embedding\.1\.", "encoder.to_patch_embedding.2."),
        (r"^network\.patch_embedding\.0\.", "encoder.to_patch_embedding.1."),
        (r"^network\.blocks\.(\d+)\.", r"encoder.block\1."),
        (r"^network\.", "encoder."),
        (r"^decoder\.embedding\.", "to_decoder_embedding."),
        (r"^decoder\.mask$", "mask_embedding"),
        (r"^decoder\.positions$", "decoder_pos_embed"),
        (r"^decoder\.", "decoder_"),
        (r"\.attention_norm\.", ".attn.norm."),
        (r"\.attention\.qkv\.", ".attn.fn.to_qkv."),
        (r"\.attention\.out\.", ".attn.fn.to_out.0."),
        (r"\.mlp_norm\.", ".ff.norm."),
        (r"\.mlp\.fc1\.", ".ff.fn.net.0."),
        (r"\.mlp\.fc2\.", ".ff.fn.net.3."),
    )

    def __init__(
        self, configuration: PatchConfiguration, settings: Mapping[str, Setting] | None = None
    ) -> None:
        super().__init__(configuration, settings)
        self._positions.requires_grad = False
        self.decoder.positions.requires_grad = False

    def _decoder(self, size: DecoderSize) -> Decoder:
        c = self.configuration
        return Decoder(
            size,
            inputs=c.dim,
            rows=c.positions,
            outputs=c.features,
            head_dim=_HEAD_DIM,
            eps=1e-5,
        )

    @property
    def _positions(self) -> nn.Parameter:
        table: nn.Parameter = self.network.get_parameter("pos_embedding")
        return table

    @classmethod
    def _decoder_of(cls, checkpoint: Checkpoint) -> dict[str, Setting]:
        first = "decoder_blocks.0"
        rows = checkpoint.shape(f"{first}.attn.fn.to_qkv.weight", 2)[0]
        return {
            "decoder_dim": checkpoint.shape("mask_embedding", 3)[2],
            "decoder_depth": checkpoint.count(r"decoder_blocks\.(\d+)\."),
            "decoder_heads": rows // (3 * _HEAD_DIM),
            "decoder_hidden": checkpoint.shape(f"{first}.ff.fn.net.0.weight", 2)[0],
        }

    def published(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return tensors under published keys, with the second copy of the patch embedding."""
        tensors = super().published(state)
        patch = "encoder.to_patch_embedding."
        copies = {k: v.clone() for k, v in tensors.items() if k.startswith(patch)}
        return tensors | {key.removeprefix("encoder."): one for key, one in copies.items()}

    def _noise(self, leads: int) -> tuple[int, ...]:
        """Return the shape of the noise of one record."""
        return (self.configuration.patches,)

    def draw(self, items: int, leads: int, generator: torch.Generator) -> Draws:
        """Draw ``crop``, where the window starts, and ``noise``, which masks; both uniform."""
        crop = torch.rand(items, generator=generator, dtype=torch.float64)
        noise = torch.rand(items, *self._noise(leads), generator=generator)
        return Draws({"crop": crop, "noise": noise})

    def windows(
        self, signal: Signal, rate_hz: float, dsp: Arithmetic[Signal], draws: Draws
    ) -> Signal:
        """Resample whole pieces, cut a window of each at random, filter and standardise it."""
        length = fourier_length(signal.shape[-1], rate_hz, _RATE_HZ)
        samples = self.configuration.window_samples
        starts = (draws.each["crop"] * (length - samples + 1)).long()
        windows = dsp.cut_each(dsp.resample_fourier(signal, length), starts, samples)
        return filtered(windows, _RATE_HZ, dsp)

    def decode(self, latent: Tensor, choice: Choice) -> Tensor:
        """Return ``(batch, patches, numbers)``."""
        out: Tensor = self.decoder(latent, choice)
        return out


class StMemPretraining(PatchPretraining):
    """ST-MEM: patches are masked in each lead separately, and each lead is decoded on its own."""

    name = "stmem"
    model = "stmem"
    encoder = StMemEncoder
    network: StMem
    configuration: StMemConfiguration

    sizes: ClassVar[Mapping[str, Any]] = {
        "base": StMemConfiguration(),
        "small": StMemConfiguration(dim=384, heads=6, hidden=1536),
        "mini": StMemConfiguration(patch=25, dim=128, depth=2, heads=2, hidden=256),
        "tiny": StMemConfiguration(dim=48, depth=2, heads=1, hidden=96),
    }

    def _noise(self, leads: int) -> tuple[int, ...]:
        return leads, self.configuration.patches

    def published(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return tensors under published keys, with one for each lead."""
        tensors = super().published(state)
        leads = tensors.pop("encoder.lead_embeddings", torch.empty(0))
        rows = {f"encoder.lead_embeddings.{lead}": row.clone() for lead, row in enumerate(leads)}
        return tensors | rows

    def encode(self, x: Tensor, choice: Choice, leads: Sequence[int]) -> Tensor:
        """Return ``(batch, leads * (kept + 2), dim)``: kept patches between separators."""
        position = self._positions[0]
        patches = self.network.patch_embedding(choice.of(self._patches(x)))
        return self._through(self.network.sequence(patches + position[1 + choice.kept], leads))

    def decode(self, latent: Tensor, choice: Choice) -> Tensor:
        """Return ``(batch, leads, patches, numbers)``; no lead sees another."""
        batch, leads = choice.kept.shape[:2]
        one = latent.reshape(batch * leads, -1, latent.shape[2])
        out: Tensor = self.decoder(one, choice, after=1)
        return out.reshape(batch, leads, -1, out.shape[2])

    def targets(self, x: Tensor) -> Tensor:
        """Return ``(batch, leads, patches, samples)``."""
        return self._patches(x)

    def _patches(self, x: Tensor) -> Tensor:
        return x.reshape(*x.shape[:2], -1, self.configuration.patch)


methods.add(StMemPretraining.name, StMemPretraining)
