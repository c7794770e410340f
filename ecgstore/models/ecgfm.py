"""ECG-FM: a wav2vec-2.0 transformer over a convolutional stem, trained by contrast.

McKeen, Masood, Toma, Rubin, Wang: ECG-FM: An Open Electrocardiogram Foundation Model, 2024,
arXiv 2408.05178.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from ecgstore import signal as dsp
from ecgstore.errors import UsageError
from ecgstore.models.ecgfm_keys import OLD_NAMES, PRETRAINING, EcgFmConfiguration
from ecgstore.models.encoder import Encoder, Model, models
from ecgstore.models.layers import Attention, LayerNorm, Linear, Mlp
from ecgstore.models.spec import ModelSpec
from ecgstore.record import LEADS

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ecgstore.models.weights import Checkpoint

__all__ = ["LABELS", "EcgFm", "EcgFmEncoder"]

LABELS = (
    "Poor data quality",
    "Sinus rhythm",
    "Premature ventricular contraction",
    "Tachycardia",
    "Ventricular tachycardia",
    "Supraventricular tachycardia with aberrancy",
    "Atrial fibrillation",
    "Atrial flutter",
    "Bradycardia",
    "Accessory pathway conduction",
    "Atrioventricular block",
    "1st degree atrioventricular block",
    "Bifascicular block",
    "Right bundle branch block",
    "Left bundle branch block",
    "Infarction",
    "Electronic pacemaker",
)
"""What the 17 outputs of the published finetuned file stand for, in order."""


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
    """A convolution without bias, the norm in the first block only, GELU.

    Time comes before channels, so that a convolution whose stride is its kernel is one matrix
    product over a view of its input.
    """

    def __init__(self, fed: int, out: int, kernel: int, stride: int, *, norm: bool) -> None:
        super().__init__()
        self.kernel, self.stride = kernel, stride
        self.conv = Linear(kernel * fed, out, bias=False)
        self.norm = _TimeNorm(out) if norm else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        taps = x.unfold(1, self.kernel, self.stride).transpose(2, 3).flatten(2)
        return functional.gelu(self.norm(self.conv(taps)))


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

    def __init__(self, c: EcgFmConfiguration) -> None:
        super().__init__()
        self.norm_first = c.norm_first
        self.attention = Attention(c.dim, c.heads, c.dim // c.heads)
        self.attention_norm = LayerNorm(c.dim)
        self.mlp = Mlp(c.dim, c.hidden)
        self.mlp_norm = LayerNorm(c.dim)

    def forward(self, x: Tensor, allowed: Tensor | None = None) -> Tensor:
        if self.norm_first:
            x = x + self.attention(self.attention_norm(x), allowed)
            x = x + self.mlp(self.mlp_norm(x))
        else:
            x = self.attention_norm(x + self.attention(x, allowed))
            x = self.mlp_norm(x + self.mlp(x))
        return x


class EcgFm(nn.Module):
    """The encoder network; a frame is 16 samples (32 ms) of all leads."""

    def __init__(self, configuration: EcgFmConfiguration) -> None:
        super().__init__()
        c = self.configuration = configuration
        fed = (len(LEADS), *(out for out, _, _ in c.stem))
        self.stem = nn.Sequential(
            *(_StemBlock(fed[i], *block, norm=i == 0) for i, block in enumerate(c.stem))
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
        frames, allowed = self._enter(x, padded)
        for layer in self.layers:
            frames = layer(frames, allowed)
        return self.norm(frames) if self.configuration.norm_first else frames

    def _enter(self, x: Tensor, padded: Tensor | None) -> tuple[Tensor, Tensor | None]:
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
        frames, allowed = self._enter(x, None)
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

    def classify(self, windows: NDArray[np.floating]) -> NDArray[np.float32]:
        """Return the finetuned head's probabilities, ``(windows, classes)``; see `LABELS`.

        Raises:
            UsageError: The weights have no head.
        """
        if self.network.head is None:
            msg = f"{self.weights_name!r} has no head; probabilities need a finetuned file."
            raise UsageError(msg)
        with torch.inference_mode():
            pooled = torch.from_numpy(self.embed(windows)).to(self.device)
            scores: NDArray[np.float32] = self.network.head(pooled).float().sigmoid().cpu().numpy()
        return scores

    def _length(self, n_samples: int, rate_hz: float) -> int:
        return dsp.linear_length(n_samples, rate_hz, self.rate_hz)

    def _starts(self, length: int) -> tuple[int, ...]:
        return dsp.consecutive_starts(length, self.window_samples)

    def _cut(self, signal: NDArray[Any], rate_hz: float) -> NDArray[Any]:
        signal = dsp.standardise_leads(dsp.resample_linear(signal, rate_hz, self.rate_hz))
        return dsp.cut_windows(signal, self._starts(signal.shape[1]), self.window_samples)

    def _check_window(self, samples: int) -> None:
        if not self.network.frames(samples):
            msg = f"A window of {samples} samples is too short for {self.spec.name!r}."
            raise UsageError(msg)

    def _vectors(self, windows: Tensor, leads: list[int]) -> Tensor:
        return self.network.pool(self.network(windows))


_SPEC = ModelSpec(
    name="ecgfm",
    arch="ecgfm",
    summary="Contrastive transformer over a convolutional stem (wav2vec 2.0 with CMSC).",
    rate_hz=500.0,
    window_s=5.0,
    leads=LEADS,
    missing_leads="zero",
    readouts=("record_mean",),
    dim=768,
    preparation=(
        "resample to 500 Hz by linear interpolation, to int(samples * (500 / rate))",
        "each lead over the whole record: subtract the mean, divide by the population deviation",
        "make constant leads 0",
        "put zeros for leads that are missing",
        "cut consecutive windows of 2500 samples from the start; drop the rest",
        "mean over frames of the last layer; a record is the mean over its windows",
    ),
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
)

models.add(_SPEC.name, Model(_SPEC, EcgFmEncoder))
models.add(
    "ecgfm.mini",
    Model(
        replace(
            _SPEC,
            name="ecgfm.mini",
            summary="ECG-FM at small size, built in and untrained: for demos and tests.",
            dim=64,
            weights_source=None,
            pretraining=(),
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
