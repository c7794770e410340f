"""ECGFlow, the Michigan ECG transformer: a vision transformer over patches of 8 leads together.

Moody et al.: A foundation transformer model with self-supervised learning for ECG-based assessment
of cardiac and coronary function, NEJM AI 2(12), 2025, doi 10.1056/AIoa2500164.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from ecgstore.models.ecgflow_keys import DECODER, LEADS8, PATCH, EcgFlowConfiguration
from ecgstore.models.encoder import Encoder
from ecgstore.models.layers import Block, LayerNorm, Linear
from ecgstore.models.model import Model, mini, models
from ecgstore.models.spec import HubFile, ModelSpec, Variant
from ecgstore.signal import evaluation_starts, polyphase_length

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ecgstore.models.arithmetic import Arithmetic, Signal
    from ecgstore.models.configuration import Configuration
    from ecgstore.models.weights import Checkpoint

__all__ = ["CONSTANTS", "EcgFlow", "EcgFlowEncoder", "centre_window"]

_EPS = 1e-6
"""Of every layer norm."""

_RATE_HZ = 500.0

_STATEMENTS = {44: "diag", 12: "rhythm", 19: "form"}
"""PTB-XL's groups of statements by the number of outputs of the published heads."""


class EcgFlow(nn.Module):
    """The encoder network: a class token, and one token for each patch of all leads."""

    def __init__(self, configuration: EcgFlowConfiguration) -> None:
        super().__init__()
        c = self.configuration = configuration
        self.patch_embedding = Linear(len(LEADS8) * c.patch, c.dim)
        self.cls_token = nn.Parameter(torch.empty(1, 1, c.dim))
        self.pos_embed = nn.Parameter(torch.empty(1, c.patches + 1, c.dim))
        self.blocks = nn.ModuleList(
            Block(c.dim, c.heads, c.dim // c.heads, c.hidden, eps=_EPS) for _ in range(c.depth)
        )
        self.norm = LayerNorm(c.dim, _EPS)
        self.head = Linear(c.dim, c.classes) if c.classes else None

    def patches(self, x: Tensor) -> Tensor:
        """Cut ``(batch, 8, samples)`` into ``(batch, patches, 8 * patch)``, lead by lead."""
        cut = x.reshape(*x.shape[:2], -1, self.configuration.patch)
        return cut.transpose(1, 2).flatten(2)

    def tokens(self, x: Tensor) -> Tensor:
        """Return what enters the first block, ``(batch, 1 + patches, dim)`` float32."""
        embedded = self.patch_embedding(self.patches(x)).float()
        first = self.cls_token.expand(len(x), -1, -1)
        return torch.cat([first, embedded], dim=1) + self.pos_embed


class EcgFlowEncoder(Encoder):
    """ECGFlow with its preparation; it takes records that have all of its 8 leads."""

    family = "ECGFlow"
    network_type = EcgFlow
    configuration = EcgFlowConfiguration
    network: EcgFlow

    @classmethod
    def recognise(cls, checkpoint: Checkpoint) -> str | None:
        """Tell by a patch projection over time alone; one of images has four axes."""
        shape = getattr(checkpoint.tensors.get(PATCH), "shape", ())
        return cls.family if len(shape) in (2, 3) and "pos_embed" in checkpoint.tensors else None

    @classmethod
    def select(cls, checkpoint: Checkpoint) -> dict[str, Tensor]:
        """Take everything but the decoder."""
        return {k: v for k, v in checkpoint.tensors.items() if not DECODER.fullmatch(k)}

    @property
    def also_seen(self) -> tuple[str, ...]:
        """PTB-XL, on which the published heads were fitted."""
        return ("ptbxl",) if self.network.head is not None else ()

    @classmethod
    def fitting_variant(cls, spec: ModelSpec, facts: Configuration) -> str:
        """Take the constants of PTB-XL for a head: all published ones were trained there."""
        return "ptbxl" if facts.classes else super().fitting_variant(spec, facts)

    def _labels(self, facts: Configuration) -> tuple[str, ...]:
        """Return names told, else numbers: nobody published the order of the statements."""
        assert isinstance(facts, EcgFlowConfiguration)
        kind = _STATEMENTS.get(facts.classes, "output")
        numbered = tuple(f"{kind} {number}" for number in range(facts.classes))
        return facts.label_names or numbered

    def _width(self, facts: Configuration) -> int:
        assert isinstance(facts, EcgFlowConfiguration)
        return facts.patches * facts.dim if self.readout == "time" else super()._width(facts)

    def _starts(self, n_samples: int, rate_hz: float) -> tuple[float, ...]:
        length = polyphase_length(n_samples, rate_hz, self.rate_hz)
        starts = evaluation_starts(length, self.window_samples, 1)
        return tuple(start / self.rate_hz for start in starts)

    def _cut(self, signal: Signal, rate_hz: float, dsp: Arithmetic[Signal]) -> Signal:
        return centre_window(signal, rate_hz, dsp, self.variant.name, self.window_samples)

    @classmethod
    def bare(
        cls, facts: Configuration, tensors: Mapping[str, Tensor]
    ) -> tuple[Configuration, dict[str, Tensor]]:
        """Leave out ``head``, and put a fresh norm of the mean for that of tokens [pub]."""
        assert isinstance(facts, EcgFlowConfiguration)
        facts = replace(facts, classes=0, label_names=(), mean_first=True)
        fresh = {"weight": torch.ones(facts.dim), "bias": torch.zeros(facts.dim)}
        norm = {f"fc_norm.{part}": tensors.get(f"fc_norm.{part}", fresh[part]) for part in fresh}
        kept = {key: tensors[key] for key in facts.shapes() if key not in norm}
        return facts, kept | norm

    def _tokens(self, windows: Tensor, leads: list[int]) -> Tensor:
        tokens = self.network.tokens(windows)
        for block in self.network.blocks:
            tokens = block(tokens)
        return tokens[:, 1:] if self._mean_first else self.network.norm(tokens)[:, 1:]

    def _pooled(self, tokens: Tensor) -> Tensor:
        mean = tokens.mean(1)
        return self.network.norm(mean) if self._mean_first else mean

    @property
    def _mean_first(self) -> bool:
        return self.network.configuration.pools_first

    def _run(self, windows: Tensor, leads: list[int]) -> tuple[Tensor, Tensor | None]:
        network, vectors = self.network, {}
        tokens = network.tokens(windows)
        for number, block in enumerate(network.blocks):
            tokens = block(tokens)
            if self.readout == f"block{number}":
                vectors[self.readout] = tokens[:, 1:].mean(1)
                if network.head is None:
                    return vectors[self.readout], None
        vectors["tokens-mean"] = tokens[:, 1:].mean(1)
        logits = None
        if self._mean_first:  # finetuning replaced the norm of each token by one of their mean
            vectors["embedding"] = network.norm(vectors["tokens-mean"])
        else:
            tokens = network.norm(tokens)
            vectors["embedding"] = tokens[:, 1:].mean(1)
        if network.head is not None:
            logits = vectors["logits"] = network.head(vectors["embedding"])
        if self.readout == "cls":
            return tokens[:, 0], logits
        if self.readout == "time":
            return tokens[:, 1:].flatten(1), logits
        return vectors[self.readout], logits


CONSTANTS = {"mimic_iv": (0.009892, 0.216624), "ptbxl": (-0.0012090115, 0.26843855)}
"""Mean and deviation in millivolts over the 8 leads of a whole dataset, as published."""


def centre_window(
    signal: Signal, rate_hz: float, dsp: Arithmetic[Signal], variant: str, samples: int
) -> Signal:
    """Return the window in the middle, ``(…, 1, leads, samples)``, scaled.

    Args:
        signal: ``(…, leads, samples)`` millivolts, NaN where lost.
        rate_hz: Its samples per second.
        dsp: `ecgstore.signal` for arrays, `ecgstore.models.tensor_signal` for tensors.
        variant: Which of `CONSTANTS`.
        samples: Of the window, at 500 Hz.
    """
    # As float64 numbers, not Python's: those would leave a float32 record in float32.
    mean, deviation = (np.float64(number) for number in CONSTANTS[variant])
    signal = dsp.resample_polyphase(dsp.fill_lost(signal, mean), rate_hz, _RATE_HZ, line=True)
    starts = evaluation_starts(signal.shape[-1], samples, 1)
    return (dsp.cut_windows(signal, starts, samples) - mean) / deviation


def _variant(name: str, dataset: str) -> Variant:
    mean, deviation = CONSTANTS[name]
    return Variant(
        name=name,
        units="mV",
        resampler="polyphase, its ends extended from a line",
        filters=(),
        normalisation=f"all leads by {mean} and {deviation} mV, mean and deviation of {dataset}",
        windows="the 10 s in the middle",
        preparation=(
            f"put {mean} mV for lost samples",
            (
                "resample to 500 Hz by a polyphase filter (Kaiser window, beta 5, 20 * max(up, "
                "down) + 1 taps), ends extended from the line between first and last sample"
            ),
            "cut the window of 5000 samples that starts at (samples - 5000) // 2",
            f"subtract {mean} mV, divide by {deviation} mV",
            (
                "layer norm of the tokens, then the mean over those of patches; in a file with a "
                "head the mean, then its layer norm"
            ),
        ),
    )


_SPEC = ModelSpec(
    name="ecgflow",
    arch="ecgflow",
    summary="Michigan transformer: masked auto-encoder over 100 ms patches of 8 leads together.",
    rate_hz=_RATE_HZ,
    window_s=10.0,
    leads=LEADS8,
    missing_leads="refuse",
    lost_samples="fill",
    variants=(_variant("mimic_iv", "MIMIC-IV-ECG"), _variant("ptbxl", "PTB-XL")),
    readouts=("embedding", "tokens-mean", "cls", "time", "block{k}", "logits"),
    dim=800,
    licence="Apache-2.0",
    licence_note="A copy that is passed on keeps its notices and says what was changed.",
    citations=(
        (
            "Jonathan B. Moody et al.: A Foundation Transformer Model with Self-Supervised "
            "Learning for ECG-Based Assessment of Cardiac and Coronary Function. NEJM AI 2(12), "
            "2025, doi:10.1056/AIoa2500164."
        ),
    ),
    weights_source=(
        "Get model.safetensors from huggingface.co/4dm-labs/1dvit_base_patch50_5000.ssl_mimic"
    ),
    pretraining=("MIMIC-IV-ECG",),
    hub=HubFile("4dm-labs/1dvit_base_patch50_5000.ssl_mimic", "model.safetensors"),
)

models.add(_SPEC.name, Model(_SPEC, EcgFlowEncoder))
models.add(
    "ecgflow.tiny",
    Model(
        replace(
            _SPEC,
            name="ecgflow.tiny",
            summary="ECGFlow at very small size, built in and untrained: for demos and tests.",
            dim=64,
            licence="MIT",
            licence_note=None,
            weights_source=None,
            pretraining=(),
            hub=None,
        ),
        EcgFlowEncoder,
        EcgFlowConfiguration(dim=64, depth=2, heads=2, hidden=256),
    ),
)
models.add(
    "ecgflow.mini",
    mini(_SPEC, EcgFlowEncoder, dim=128, then=", then taught by ecgfm.mini and stmem.mini"),
)
