"""ECG-FM: a wav2vec-2.0 transformer over a convolutional stem, trained by contrast.

McKeen, Masood, Toma, Rubin, Wang: ECG-FM: An Open Electrocardiogram Foundation Model, 2024,
arXiv 2408.05178.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from ecgstore.errors import UsageError
from ecgstore.models.ecgfm_keys import (
    EVENTS,
    LABELS,
    OLD_NAMES,
    PRETRAINING,
    EcgFmConfiguration,
    weight_norm,
)
from ecgstore.models.encoder import Encoder
from ecgstore.models.layers import Attention, LayerNorm, Linear, Mlp
from ecgstore.models.model import Model, mini, models
from ecgstore.models.spec import HubFile, ModelSpec, Variant
from ecgstore.record import LEADS
from ecgstore.signal import consecutive_starts, linear_length

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from numpy.typing import NDArray

    from ecgstore.models.arithmetic import Arithmetic, Signal
    from ecgstore.models.configuration import Configuration
    from ecgstore.models.weights import Checkpoint

__all__ = ["LABELS", "EcgFm", "EcgFmEncoder"]


class _TimeNorm(nn.Module):
    """A group norm of one channel a group: each channel over time, in float32."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(channels))
        self.bias = nn.Parameter(torch.empty(channels))

    def forward(self, x: Tensor) -> Tensor:
        x = x.float()
        x = x - x.mean(1, keepdim=True)
        variance = x.square().mean(1, keepdim=True)
        return x * ((variance + 1e-5).rsqrt() * self.weight) + self.bias


class _StemBlock(nn.Module):
    """A convolution without bias, a norm or none, GELU.

    Time comes before channels, so that a convolution whose stride is its kernel is one matrix
    product over a view of its input.
    """

    def __init__(self, fed: int, out: int, kernel: int, stride: int, norm: nn.Module) -> None:
        super().__init__()
        self.kernel, self.stride = kernel, stride
        self.conv = Linear(kernel * fed, out, bias=False)
        self.norm = norm

    def forward(self, x: Tensor) -> Tensor:
        taps = x.unfold(1, self.kernel, self.stride).transpose(2, 3).flatten(2)
        return functional.gelu(self.norm(self.conv(taps)))


def _stem_norm(c: EcgFmConfiguration, block: int) -> nn.Module:
    """Return the published norm of the first block only, or one over channels in every block."""
    if c.layer_norms:
        return LayerNorm(c.stem[block][0])
    return _TimeNorm(c.stem[block][0]) if block == 0 else nn.Identity()


class _Position(nn.Module):
    """The convolution over frames that tells position, with its weight norm folded in."""

    def __init__(self, dim: int, kernel: int, groups: int) -> None:
        super().__init__()
        self.groups = groups
        self.weight = nn.Parameter(torch.empty(dim, dim // groups, kernel))
        self.bias = nn.Parameter(torch.empty(dim))

    def use_bfloat16(self) -> None:
        """Cast where that is right: PyTorch 2.13 errs in bfloat16 with 8 channels a group."""
        if self.weight.shape[1] >= 16:
            self.to(torch.bfloat16)

    def forward(self, x: Tensor) -> Tensor:
        kernel = self.weight.shape[2]
        frames = x.transpose(1, 2).to(self.weight.dtype)
        frames = functional.conv1d(
            frames, self.weight, self.bias, padding=kernel // 2, groups=self.groups
        )
        return functional.gelu(frames[:, :, : x.shape[1]].transpose(1, 2))


class _Layer(nn.Module):
    """A transformer layer, post-norm as published or pre-norm."""

    compiled = True

    def __init__(self, c: EcgFmConfiguration) -> None:
        super().__init__()
        self.norm_first = c.norm_first
        self.attention = Attention(c.dim, c.heads, c.dim // c.heads)
        self.attention_norm = LayerNorm(c.dim)
        self.mlp = Mlp(c.dim, c.hidden)
        self.mlp_norm = LayerNorm(c.dim)

    def forward(self, x: Tensor, allowed: Tensor | None = None, *, dropout: float = 0.0) -> Tensor:
        """Map ``(batch, frames, dim)``; training drops of both branches and attention weights."""
        if self.norm_first:
            x = x + self._attend(self.attention_norm(x), allowed, dropout)
            x = x + _dropped(self.mlp(self.mlp_norm(x)), dropout)
        else:
            x = self.attention_norm(x + self._attend(x, allowed, dropout))
            x = self.mlp_norm(x + _dropped(self.mlp(x), dropout))
        return x

    def _attend(self, x: Tensor, allowed: Tensor | None, dropout: float) -> Tensor:
        return _dropped(self.attention(x, allowed, dropout=dropout), dropout)


def _dropped(x: Tensor, share: float) -> Tensor:
    return functional.dropout(x, share) if share else x


class EcgFm(nn.Module):
    """The encoder network; a frame is 16 samples (32 ms) of all leads."""

    def __init__(self, configuration: EcgFmConfiguration) -> None:
        super().__init__()
        c = self.configuration = configuration
        fed = (len(LEADS), *(out for out, _, _ in c.stem))
        self.stem = nn.Sequential(
            *(_StemBlock(fed[i], *block, _stem_norm(c, i)) for i, block in enumerate(c.stem))
        )
        self.feature_norm = LayerNorm(fed[-1])
        self.projection = Linear(fed[-1], c.dim) if fed[-1] != c.dim else nn.Identity()
        self.position = _Position(c.dim, c.position_kernel, c.position_groups)
        self.norm = LayerNorm(c.dim)
        self.layers = nn.ModuleList(_Layer(c) for _ in range(c.depth))
        self.head = Linear(c.dim, c.classes) if c.classes else None

    def frames(self, samples: int) -> int:
        """Return how many frames so many samples give."""
        for _, kernel, stride in self.configuration.stem:
            samples = (samples - kernel) // stride + 1
        return max(0, samples)

    def padded_frames(self, padding: Tensor) -> Tensor:
        """Return the frames to leave out, ``(batch, frames)`` bool, of padded samples.

        Args:
            padding: ``(batch, leads, samples)`` bool, true where a shorter record was filled up.
        """
        valid = (~padding[:, 0]).sum(-1).tolist()
        lengths = torch.tensor([self.frames(count) for count in valid], device=padding.device)
        count = self.frames(padding.shape[2])
        return torch.arange(count, device=padding.device) >= lengths[:, None]

    def forward(self, x: Tensor, padded: Tensor | None = None) -> Tensor:
        """Return the frames after the last layer, ``(batch, frames, dim)`` float32.

        Padding is not neutral: the stem's norm and the position convolution see it. Encoders
        batch windows of equal length instead.

        Args:
            x: ``(batch, 12, samples)``.
            padded: `padded_frames`, or None.
        """
        frames, allowed = self.enter(x, padded)
        for layer in self.layers:
            frames = layer(frames, allowed)
        return self.leave(frames)

    def enter(self, x: Tensor, padded: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Return what enters the first layer, and which keys attention may see."""
        frames = self.projection(self.feature_norm(self.stem(x.transpose(1, 2))))
        frames = frames.float() + self.position(frames)
        if padded is not None and padded.any():
            frames = frames.masked_fill(padded[..., None], 0.0)
        else:
            padded = None
        if not self.configuration.norm_first:
            frames = self.norm(frames)
        return frames, None if padded is None else ~padded[:, None, None]

    def leave(self, frames: Tensor) -> Tensor:
        """Return what the network gives: the last layer's output, normed where layers are not."""
        return self.norm(frames) if self.configuration.norm_first else frames

    def pool(self, frames: Tensor, padded: Tensor | None = None) -> Tensor:
        """Return, for each feature, its sum over time by its count of non-zero entries."""
        frames = frames.float()
        if padded is not None:
            frames = frames.masked_fill(padded[..., None], 0.0)
        return frames.sum(1) / (frames != 0).sum(1).clamp(min=1)

    def attention(self, x: Tensor, layer: int = -1) -> Tensor:
        """Return a layer's attention averaged over heads, ``(batch, queries, keys)``.

        The published saliency of a frame is its maximum over keys in the last layer.
        """
        frames, allowed = self.enter(x)
        index = range(len(self.layers))[layer]
        for earlier in self.layers[:index]:
            frames = earlier(frames, allowed)
        chosen = cast("_Layer", self.layers[index])
        if self.configuration.norm_first:
            frames = chosen.attention_norm(frames)
        weights: Tensor = chosen.attention.weights(frames, allowed)
        return weights.mean(1)


class EcgFmEncoder(Encoder):
    """ECG-FM with its preparation; a lead the record lacks is a row of zeros."""

    family = "ECG-FM"
    network_type = EcgFm
    configuration = EcgFmConfiguration
    network: EcgFm
    published_head = "proj."

    @classmethod
    def recognise(cls, checkpoint: Checkpoint) -> str | None:
        """Tell by the position convolution, in a pretrained or a finetuned file."""
        bias = "conv_pos.pos_conv.0.bias"
        found = bias in checkpoint.tensors or f"encoder.{bias}" in checkpoint.tensors
        return cls.family if found else None

    @classmethod
    def select(cls, checkpoint: Checkpoint) -> dict[str, Tensor]:
        """Take the encoder and head under one spelling; drop what only pretraining needs."""
        tensors = checkpoint.tensors
        if any(key.startswith("encoder.encoder.") for key in tensors):
            tensors = {key.removeprefix("encoder."): value for key, value in tensors.items()}
        return {
            OLD_NAMES.get(key, key): value
            for key, value in tensors.items()
            if not key.startswith(PRETRAINING)
        }

    def pool_probabilities(self, windows: NDArray[np.floating]) -> NDArray[np.floating]:
        """Return the maximum over windows for events, the mean for lasting states.

        That is what the authors do with their 17 labels; the head of any other file gets the mean.
        """
        pooled: NDArray[np.floating] = windows.mean(axis=-2)
        if self.labels == LABELS:
            events = [LABELS.index(label) for label in EVENTS]
            pooled[..., events] = windows[..., events].max(axis=-2)
        return pooled

    def _labels(self, facts: Configuration) -> tuple[str, ...]:
        return LABELS if facts.classes == len(LABELS) else super()._labels(facts)

    def _starts(self, n_samples: int, rate_hz: float) -> tuple[float, ...]:
        length = linear_length(n_samples, rate_hz, self.rate_hz)
        starts = consecutive_starts(length, self.window_samples)
        return tuple(start / self.rate_hz for start in starts)

    def _cut(self, signal: Signal, rate_hz: float, dsp: Arithmetic[Signal]) -> Signal:
        signal = dsp.standardise_leads(dsp.resample_linear(signal, rate_hz, self.rate_hz))
        starts = consecutive_starts(signal.shape[-1], self.window_samples)
        return dsp.cut_windows(signal, starts, self.window_samples)

    def _check_window(self, samples: int) -> None:
        if not self.network.frames(samples):
            msg = f"A window of {samples} samples is too short for {self.spec.name!r}."
            raise UsageError(msg)

    @classmethod
    def unfold(cls, facts: Configuration, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Give the position's weight back as a direction and its norm, equal to rounding."""
        found, weight = super().unfold(facts, state), state.get("position.weight")
        return found if weight is None else found | weight_norm(weight)

    def _tokens(self, windows: Tensor, leads: list[int]) -> Tensor:
        frames: Tensor = self.network(windows)
        return frames

    def _pooled(self, tokens: Tensor) -> Tensor:
        return self.network.pool(tokens)

    def _run(self, windows: Tensor, leads: list[int]) -> tuple[Tensor, Tensor | None]:
        network, found = self.network, dict[str, Tensor]()
        frames, _ = network.enter(windows)
        for number, layer in enumerate(network.layers):
            frames = layer(frames)
            if self.readout == f"block{number}":
                found[self.readout] = network.pool(frames)
                if network.head is None:
                    return found[self.readout], None
        found["embedding"] = network.pool(network.leave(frames))
        if network.head is not None:
            found["logits"] = network.head(found["embedding"])
        return found[self.readout].float(), found.get("logits")


_SPEC = ModelSpec(
    name="ecgfm",
    arch="ecgfm",
    summary="Contrastive transformer over a convolutional stem (wav2vec 2.0 with CMSC).",
    rate_hz=500.0,
    window_s=5.0,
    leads=LEADS,
    missing_leads="zero",
    variants=(
        Variant(
            name="record_mean",
            units="any",
            resampler="linear interpolation, no anti-alias filter",
            filters=(),
            normalisation="each lead by its mean and deviation over the whole record",
            windows="consecutive ones of 5 s from the start; the mean of their vectors",
            preparation=(
                "resample to 500 Hz by linear interpolation, to int(samples * (500 / rate))",
                (
                    "each lead over the whole record: subtract the mean, divide by the population "
                    "deviation"
                ),
                "make constant leads 0",
                "put zeros for leads that are missing",
                "cut consecutive windows of 2500 samples from the start; drop the rest",
                "mean over frames of the last layer; a record is the mean over its windows",
            ),
        ),
    ),
    readouts=("embedding", "block{k}", "logits"),
    dim=768,
    licence="MIT",
    licence_note=None,
    citations=(
        (
            "Kaden McKeen, Sameer Masood, Augustin Toma, Barry Rubin, Bo Wang: ECG-FM: An Open "
            "Electrocardiogram Foundation Model. 2024, arXiv:2408.05178."
        ),
    ),
    weights_source=("Get mimic_iv_ecg_physionet_pretrained.pt from huggingface.co/wanglab/ecg-fm"),
    pretraining=("MIMIC-IV-ECG", "PhysioNet 2021"),
    hub=HubFile("wanglab/ecg-fm", "mimic_iv_ecg_physionet_pretrained.pt"),
)

models.add(_SPEC.name, Model(_SPEC, EcgFmEncoder))
models.add(
    "ecgfm.tiny",
    Model(
        replace(
            _SPEC,
            name="ecgfm.tiny",
            summary="ECG-FM at very small size, built in and untrained: for demos and tests.",
            dim=64,
            weights_source=None,
            pretraining=(),
            hub=None,
        ),
        EcgFmEncoder,
        EcgFmConfiguration(
            stem=((32, 2, 2),) * 4,
            dim=64,
            depth=2,
            heads=2,
            hidden=128,
            position_kernel=16,
            position_groups=4,
        ),
    ),
)
models.add("ecgfm.mini", mini(_SPEC, EcgFmEncoder, dim=128))
