"""ECG-JEPA: a vision transformer over patches of leads, trained to predict masked time blocks.

Kim: Learning General Representation of 12-Lead Electrocardiogram with a Joint-Embedding Predictive
Architecture, 2024, arXiv 2410.08559.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Self

import torch
from torch import Tensor, nn

from ecgstore.models.encoder import Encoder
from ecgstore.models.layers import Block, LayerNorm, Linear
from ecgstore.models.model import Model, models
from ecgstore.models.patches import sincos_table
from ecgstore.models.spec import ModelSpec, Variant
from ecgstore.models.weights import renamed, seeded_tensors

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ecgstore.models.arithmetic import Arithmetic, Signal
    from ecgstore.models.configuration import Configuration
    from ecgstore.models.weights import Checkpoint

__all__ = [
    "LEADS",
    "EcgJepa",
    "EcgJepaConfiguration",
    "EcgJepaEncoder",
    "cross_pattern",
    "position_table",
    "ten_seconds",
]

LEADS = ("I", "II", "V1", "V2", "V3", "V4", "V5", "V6")
WINDOW_SAMPLES = 2500
"""Ten seconds at 250 Hz."""
_HALFWAY_HZ, _HALFWAY_SAMPLES = 500.0, 5000
"""Every record passes through this rate, where it is cut to ten seconds."""
_PRETRAINING = ("predictor.", "target_encoder.")
"""What keys begin with, in a file that pretraining wrote, that the encoder has no use for."""
_STRIP_S = 10.24
"""The strips of CODE-15%, 4096 samples at 400 Hz, which pretraining took for ten seconds."""


def position_table(leads: int, patches: int, dim: int) -> Tensor:
    """Return the published position table, ``(leads * patches, dim)`` float32, lead-major.

    The first half of a row stands for the patch, the second for the lead: each all sines, then all
    cosines of the number at the frequencies ``10000 ** (-i / (dim / 4))``.
    """
    patch, lead = (sincos_table(count, dim // 2)[1:-1] for count in (patches, leads))
    return torch.cat([patch.repeat(leads, 1), lead.repeat_interleave(patches, 0)], dim=1)


def cross_pattern(leads: int, patches: int, *, device: torch.device) -> Tensor:
    """Return which tokens see which: those of the same lead or of the same patch.

    Returns:
        ``(leads * patches, leads * patches)`` bool, tokens lead-major.
    """
    token = torch.arange(leads * patches, device=device)
    lead, patch = token // patches, token % patches
    return (lead[:, None] == lead) | (patch[:, None] == patch)


@dataclass(frozen=True)
class EcgJepaConfiguration:
    """The dimensions of one ECG-JEPA encoder.

    Attributes:
        patch: Samples of a patch.
        patches: Patches of a window, a lead.
        dim: Width of the tokens.
        depth: Number of blocks.
        heads: Attention heads.
        hidden: Width inside the MLP.
    """

    patch: int = 50
    patches: int = 50
    dim: int = 768
    depth: int = 12
    heads: int = 16
    hidden: int = 3072

    @property
    def classes(self) -> int:
        """No published file has a head."""
        return 0

    @property
    def window_samples(self) -> int:
        """Samples of a window."""
        return self.patch * self.patches

    @classmethod
    def infer(cls, checkpoint: Checkpoint) -> Self:
        """Read the dimensions off the tensors; the heads are known at the published width only."""
        dim, patch = checkpoint.shape("W_P.weight", 2)
        patches, left = divmod(checkpoint.shape("pos_embed", 2)[0], len(LEADS))
        if left or patch * patches != WINDOW_SAMPLES:
            what = f"{patches} patches of {patch} samples for {len(LEADS)} leads, {left} left over"
            checkpoint.refuse(f"not an ECG-JEPA encoder of {WINDOW_SAMPLES} samples ({what})")
        heads = checkpoint.settings.get("heads", cls.heads if dim == cls.dim else None)
        if heads is None:
            checkpoint.ask(f"how many heads share its width of {dim}", "heads")
        if type(heads) is not int or heads < 1 or dim % heads:
            checkpoint.refuse(f"its width {dim} cannot be split into {heads!r} heads")
        return cls(
            patch=patch,
            patches=patches,
            dim=dim,
            depth=checkpoint.count(r"encoder_blocks\.blocks\.(\d+)\."),
            heads=heads,
            hidden=checkpoint.shape("encoder_blocks.blocks.0.mlp.fc1.weight", 2)[0],
        )

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the key and shape of every tensor of a published file."""
        dim = self.dim
        norm = {"weight": (dim,), "bias": (dim,)}
        block: dict[str, tuple[int, ...]] = {
            **{f"norm1.{part}": shape for part, shape in norm.items()},
            **{f"norm2.{part}": shape for part, shape in norm.items()},
            "mlp.fc1.weight": (self.hidden, dim),
            "mlp.fc1.bias": (self.hidden,),
            "mlp.fc2.weight": (dim, self.hidden),
            "mlp.fc2.bias": (dim,),
            "attn.qkv.weight": (3 * dim, dim),
            "attn.proj.weight": (dim, dim),
            "attn.proj.bias": (dim,),
        }
        shapes: dict[str, tuple[int, ...]] = {"pos_embed": (len(LEADS) * self.patches, dim)}
        for number in range(self.depth):
            for key, shape in block.items():
                shapes[f"encoder_blocks.blocks.{number}.{key}"] = shape
        shapes |= {f"norm.{part}": shape for part, shape in norm.items()}
        return shapes | {"W_P.weight": (dim, self.patch), "W_P.bias": (dim,)}

    def settings(self) -> dict[str, object]:
        """Return the number of heads."""
        return {"heads": self.heads}

    def facts(self) -> dict[str, object]:
        """Return all dimensions."""
        return asdict(self)

    def untrained(self, seed: int) -> dict[str, Tensor]:
        """Return seeded tensors; the position table is the published one."""
        table = position_table(len(LEADS), self.patches, self.dim)
        return seeded_tensors(self.shapes(), seed=seed) | {"pos_embed": table}

    def fold(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Rename."""
        return renamed(tensors, _NAMES)


_NAMES = (
    (r"^W_P\.", "patch_embedding."),
    (r"^encoder_blocks\.", ""),
    (r"\.norm1\.", ".attention_norm."),
    (r"\.norm2\.", ".mlp_norm."),
    (r"\.attn\.qkv\.", ".attention.qkv."),
    (r"\.attn\.proj\.", ".attention.out."),
)
"""From published names to those of `EcgJepa`."""


class EcgJepa(nn.Module):
    """The encoder network: one sequence for the patches of all leads, lead-major."""

    def __init__(self, configuration: EcgJepaConfiguration) -> None:
        super().__init__()
        c = self.configuration = configuration
        self.patch_embedding = Linear(c.patch, c.dim)
        self.pos_embed = nn.Parameter(torch.empty(len(LEADS) * c.patches, c.dim))
        self.blocks = nn.ModuleList(
            Block(c.dim, c.heads, c.dim // c.heads, c.hidden, bias=False) for _ in range(c.depth)
        )
        self.norm = LayerNorm(c.dim)

    def forward(self, x: Tensor, leads: Sequence[int], depth: int | None = None) -> Tensor:
        """Return the tokens after so many blocks, all by default, before the final norm.

        Positions are added at the input of every block, not only of the first.

        Args:
            x: ``(batch, leads, samples)``.
            leads: Which of the eight leads each row is.
            depth: Blocks to run.

        Returns:
            ``(batch, leads, patches, dim)`` float32.
        """
        c = self.configuration
        tokens: Tensor = self.patch_embedding(x.reshape(len(x), -1, c.patch))
        rows = self.pos_embed.chunk(len(LEADS))
        position = torch.cat([rows[lead] for lead in leads])
        allowed = cross_pattern(len(leads), c.patches, device=x.device)
        for block in self.blocks[:depth]:
            tokens = block(tokens + position, allowed)
        return tokens.view(len(x), len(leads), c.patches, c.dim)


class EcgJepaEncoder(Encoder):
    """ECG-JEPA with its preparation; the leads a record lacks are left out of the sequence."""

    family = "ECG-JEPA"
    network_type = EcgJepa
    configuration = EcgJepaConfiguration
    network: EcgJepa

    @classmethod
    def recognise(cls, checkpoint: Checkpoint) -> str | None:
        """Tell by the names of patch embedding, positions and blocks together."""
        known = {"W_P.weight", "pos_embed", "encoder_blocks.blocks.0.attn.qkv.weight"}
        return cls.family if known <= checkpoint.tensors.keys() else None

    @classmethod
    def select(cls, checkpoint: Checkpoint) -> dict[str, Tensor]:
        """Take all but what only training needs."""
        tensors = checkpoint.tensors
        return {key: value for key, value in tensors.items() if not key.startswith(_PRETRAINING)}

    def _starts(self, n_samples: int, rate_hz: float) -> tuple[float, ...]:
        return (0.0,) if _halfway_length(n_samples, rate_hz) >= _HALFWAY_SAMPLES else ()

    def _cut(self, signal: Signal, rate_hz: float, dsp: Arithmetic[Signal]) -> Signal:
        if self.variant.name == "squeeze":
            strip = signal[..., : round(_STRIP_S * rate_hz)]
            signal = dsp.resample_fourier(strip, WINDOW_SAMPLES)
        else:
            signal = ten_seconds(signal, rate_hz, dsp)
        return dsp.cut_windows(signal, (0,), WINDOW_SAMPLES)

    def _tokens(self, windows: Tensor, leads: list[int]) -> Tensor:
        tokens: Tensor = self.network.norm(self.network(windows, leads))
        return tokens.flatten(1, 2)

    def _run(self, windows: Tensor, leads: list[int]) -> tuple[Tensor, Tensor | None]:
        if self.readout.startswith("block"):
            number = int(self.readout.removeprefix("block"))
            return self.network(windows, leads, number + 1).mean((1, 2)), None
        tokens = self.network.norm(self.network(windows, leads))
        if self.readout == "lead":
            return tokens.mean(2).flatten(1), None
        if self.readout == "time":
            return tokens.mean(1).flatten(1), None
        return tokens.mean((1, 2)), None

    def _width(self, facts: Configuration) -> int:
        assert isinstance(facts, EcgJepaConfiguration)
        return facts.dim * {"lead": len(LEADS), "time": facts.patches}.get(self.readout, 1)


def ten_seconds(signal: Signal, rate_hz: float, dsp: Arithmetic[Signal]) -> Signal:
    """Return the first ten seconds at 250 Hz, ``(…, leads, 2500)``; arguments as of `_cut`."""
    signal = dsp.resample_fourier(signal, _halfway_length(signal.shape[-1], rate_hz))
    return dsp.resample_fourier(signal[..., :_HALFWAY_SAMPLES], WINDOW_SAMPLES)


def _halfway_length(n_samples: int, rate_hz: float) -> int:
    """Return the samples of a record at 500 Hz.

    The publication truncates, which at some rates (121 Hz, say) makes 4999 of ten seconds and then
    drops the record as too short.
    """
    return round(n_samples * _HALFWAY_HZ / rate_hz)


_VECTOR = "layer norm of every token, then their mean; there is one window a record"

_SPEC = ModelSpec(
    name="ecgjepa",
    arch="ecgjepa",
    summary="Joint-embedding predictive transformer over patches of leads (ViT-B).",
    rate_hz=250.0,
    window_s=10.0,
    leads=LEADS,
    missing_leads="omit",
    variants=(
        Variant(
            name="",
            units="mV",
            resampler="Fourier method, whole record to 500 Hz, its first 10 s to 250 Hz",
            filters=(),
            normalisation="none",
            windows="the first 10 s",
            preparation=(
                "resample to 500 Hz by the Fourier method, to round(samples * 500 / rate)",
                "keep the first 5000 samples",
                "resample to 2500 samples by the Fourier method",
                _VECTOR,
            ),
        ),
        Variant(
            name="squeeze",
            units="mV",
            resampler="Fourier method, up to 10.24 s to 2500 samples, whatever their rate then is",
            filters=(),
            normalisation="none",
            windows="the first 10.24 s as if they were 10 s, all of a shorter record",
            preparation=(
                "keep the first round(10.24 * rate) samples",
                "resample them to 2500 samples by the Fourier method",
                _VECTOR,
            ),
        ),
    ),
    readouts=("embedding", "lead", "time", "block{k}"),
    dim=768,
    licence="MIT",
    licence_note=None,
    citations=(
        (
            "Sehun Kim: Learning General Representation of 12-Lead Electrocardiogram with a "
            "Joint-Embedding Predictive Architecture. 2024, arXiv:2410.08559."
        ),
    ),
    weights_source=(
        "Get multiblock_epoch100.pth (or random_epoch100.pth) from the link that its author gives "
        "at github.com/sehunfromdaegu/ECG_JEPA"
    ),
    pretraining=("Chapman-Shaoxing", "Ningbo", "CODE-15%"),
)

models.add(_SPEC.name, Model(_SPEC, EcgJepaEncoder))
models.add(
    "ecgjepa.tiny",
    Model(
        replace(
            _SPEC,
            name="ecgjepa.tiny",
            summary="ECG-JEPA at very small size, built in and untrained: for demos and tests.",
            dim=48,
            weights_source=None,
            pretraining=(),
        ),
        EcgJepaEncoder,
        EcgJepaConfiguration(dim=48, depth=2, heads=2, hidden=96),
    ),
)
