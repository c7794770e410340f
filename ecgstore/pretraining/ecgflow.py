"""ECGFlow: patches of 8 leads together are masked and told from the others.

Moody et al.: A foundation transformer model with self-supervised learning for ECG-based assessment
of cardiac and coronary function, NEJM AI 2(12), 2025, doi 10.1056/AIoa2500164.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from ecgstore.errors import UnknownNameError
from ecgstore.models.ecgflow import CONSTANTS, EcgFlow, EcgFlowEncoder, centre_window
from ecgstore.models.ecgflow_keys import LEADS8, PATCH, EcgFlowConfiguration
from ecgstore.pretraining.autoencoder import Decoder, DecoderSize, MaskedAutoencoder
from ecgstore.pretraining.method import Draws, methods
from ecgstore.pretraining.recipe import Recipe

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ecgstore.models.arithmetic import Arithmetic, Signal
    from ecgstore.models.weights import Checkpoint
    from ecgstore.pretraining.masking import Choice
    from ecgstore.pretraining.method import Setting

__all__ = ["EcgFlowPretraining"]

_EPS = 1e-6
"""Of every layer norm."""


class EcgFlowPretraining(MaskedAutoencoder):
    """ECGFlow: masked signal modelling without augmentation, on the 10 s in the middle.

    Its starting values and that the position tables start at sines and cosines are chosen here, as
    is that biases and norms decay: nothing was published of them. Position tables are trained.

    Settings:
        variant: By which dataset's mean and deviation records are scaled [chosen: ``mimic_iv``,
            those the published weights were trained with].
    """

    name = "ecgflow"
    model = "ecgflow"
    encoder = EcgFlowEncoder
    network: EcgFlow
    configuration: EcgFlowConfiguration

    sizes: ClassVar[Mapping[str, Any]] = {
        "base": EcgFlowConfiguration(),
        "mini": EcgFlowConfiguration(dim=128, depth=3, heads=2, hidden=256),
        "tiny": EcgFlowConfiguration(dim=64, depth=2, heads=2, hidden=256),
    }

    decoders: ClassVar = {
        "base": DecoderSize(depth=8, heads=16),
        "mini": DecoderSize(dim=64, depth=2, heads=2, hidden=128),
        "tiny": DecoderSize(dim=32, depth=1, heads=2, hidden=64),
    }

    recipe = Recipe(
        source="doi 10.1056/AIoa2500164 and its code",
        learning_rate=1e-3,
        batch_size=384,
        epochs=300,
        weight_decay=2e-5,
        power=7.0,
        warmup=5 / 300,
        start=1e-5,
    )

    defaults: ClassVar[Mapping[str, Setting]] = {
        **MaskedAutoencoder.defaults,
        "mask_ratio": 0.6,
        "variant": "mimic_iv",
    }

    lost_samples = True

    mask_key = "mask_token"

    names = (
        (r"^network\.patch_embedding\.", "patch_embed.proj."),
        (r"^network\.", ""),
        (r"^decoder\.embedding\.", "decoder_embed."),
        (r"^decoder\.mask$", "mask_token"),
        (r"^decoder\.positions$", "decoder_pos_embed"),
        (r"^decoder\.head\.", "decoder_pred."),
        (r"^decoder\.", "decoder_"),
        (r"\.attention_norm\.", ".norm1."),
        (r"\.mlp_norm\.", ".norm2."),
        (r"\.attention\.qkv\.", ".attn.qkv."),
        (r"\.attention\.out\.", ".attn.proj."),
    )

    def __init__(
        self, configuration: EcgFlowConfiguration, settings: Mapping[str, Setting] | None = None
    ) -> None:
        super().__init__(configuration, settings)
        if (variant := str(self.settings["variant"])) not in CONSTANTS:
            raise UnknownNameError(variant, kind="variant", known=CONSTANTS)
        self._variant = variant

    def _decoder(self, size: DecoderSize) -> Decoder:
        c = self.configuration
        outputs = len(LEADS8) * c.patch
        return Decoder(size, inputs=c.dim, rows=c.patches + 1, outputs=outputs, eps=_EPS)

    @property
    def _positions(self) -> nn.Parameter:
        return self.network.pos_embed

    @classmethod
    def _decoder_of(cls, checkpoint: Checkpoint) -> dict[str, Setting]:
        dim = checkpoint.shape("mask_token", 3)[2]
        known = {size.dim: size.heads for size in cls.decoders.values()}
        told: dict[str, Setting] = {
            "decoder_dim": dim,
            "decoder_depth": checkpoint.count(r"decoder_blocks\.(\d+)\."),
            "decoder_hidden": checkpoint.shape("decoder_blocks.0.mlp.fc1.weight", 2)[0],
        }
        return told | ({"decoder_heads": known[dim]} if dim in known else {})

    def published(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return tensors under published keys, the patch projection as a convolution."""
        tensors = super().published(state)
        if PATCH in tensors:
            shape = (-1, len(LEADS8), self.configuration.patch)
            tensors[PATCH] = tensors[PATCH].reshape(shape)
        return tensors

    def draw(self, items: int, leads: int, generator: torch.Generator) -> Draws:
        """Draw ``noise``, which masks, uniform."""
        return Draws({"noise": torch.rand(items, self.configuration.patches, generator=generator)})

    def windows(
        self, signal: Signal, rate_hz: float, dsp: Arithmetic[Signal], draws: Draws
    ) -> Signal:
        """Return the 10 s in the middle of each piece, as the encoder is fed."""
        samples = self.configuration.window_samples
        return centre_window(signal, rate_hz, dsp, self._variant, samples)[..., 0, :, :]

    def encode(self, x: Tensor, choice: Choice, leads: Sequence[int]) -> Tensor:
        """Return ``(batch, 1 + kept, dim)``, the class token first."""
        patches = self.network.patches(x)
        return self._through(self._with_class_token(patches, choice, self.network.cls_token[0]))

    def decode(self, latent: Tensor, choice: Choice) -> Tensor:
        """Return ``(batch, patches, numbers)``."""
        out: Tensor = self.decoder(latent, choice)
        return out

    def targets(self, x: Tensor) -> Tensor:
        """Return ``(batch, patches, numbers)``; within a patch, leads run faster than time."""
        cut = x.reshape(*x.shape[:2], -1, self.configuration.patch)
        return cut.permute(0, 2, 3, 1).flatten(2)


methods.add(EcgFlowPretraining.name, EcgFlowPretraining)
