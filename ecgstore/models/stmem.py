"""ST-MEM: a vision transformer over patches of single leads, trained as a masked auto-encoder.

Na, Park, Tae, Joo: Guiding Masked Representation Learning to Capture Spatio-Temporal Relationship
of Electrocardiogram, ICLR 2024, arXiv 2402.09450.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
import torch
from torch import Tensor, nn

from ecgstore import signal as dsp
from ecgstore.errors import UsageError
from ecgstore.models.encoder import Encoder, Model, models
from ecgstore.models.layers import Attention, LayerNorm, Linear, Mlp
from ecgstore.models.spec import ModelSpec
from ecgstore.models.weights import renamed, seeded_tensors
from ecgstore.record import LEADS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from ecgstore.models.weights import Checkpoint

__all__ = ["StMem", "StMemConfiguration", "StMemEncoder", "sincos_table"]

HEAD_DIM = 64
_DECODER = ("decoder_", "mask_embedding", "to_decoder_embedding.", "to_patch_embedding.")


def sincos_table(patches: int, dim: int) -> Tensor:
    """Return the start value of the position table, ``(patches + 2, dim)`` float32.

    Rows 1 to ``patches`` hold all sines, then all cosines of the row's number at the frequencies
    ``10000 ** (-i / (dim / 2))``; the first and last row, for the separators, are zero. A trained
    table is always read from the checkpoint.
    """
    half = dim // 2
    frequency = 10000.0 ** (-np.arange(half) / half)
    angle = np.arange(patches)[:, None] * frequency
    table = np.zeros((patches + 2, dim))
    table[1:-1] = np.concatenate([np.sin(angle), np.cos(angle)], axis=1)
    return torch.from_numpy(table.astype(np.float32))


@dataclass(frozen=True)
class StMemConfiguration:
    """The dimensions of one ST-MEM encoder.

    Attributes:
        patch: Samples of a patch.
        patches: Patches of a full window, a lead.
        leads: Leads with an embedding of their own.
        dim: Width of the tokens.
        depth: Number of blocks.
        heads: Attention heads of 64.
        hidden: Width inside the MLP.
    """

    patch: int = 75
    patches: int = 30
    leads: int = 12
    dim: int = 768
    depth: int = 12
    heads: int = 12
    hidden: int = 3072

    @property
    def window_samples(self) -> int:
        """Samples of a full window."""
        return self.patch * self.patches

    @classmethod
    def infer(cls, checkpoint: Checkpoint) -> Self:
        """Read every dimension off the tensors; the settings beside them are not needed."""
        rows = checkpoint.shape("pos_embedding", 3)[1]
        qkv = checkpoint.shape("block0.attn.fn.to_qkv.weight", 2)[0]
        configuration = cls(
            patch=checkpoint.shape("to_patch_embedding.1.weight", 1)[0],
            patches=rows - 2,
            leads=checkpoint.count(r"lead_embeddings\.(\d+)$"),
            dim=checkpoint.shape("sep_embedding", 1)[0],
            depth=checkpoint.count(r"block(\d+)\."),
            heads=qkv // (3 * HEAD_DIM),
            hidden=checkpoint.shape("block0.ff.fn.net.0.weight", 2)[0],
        )
        if rows < 3 or qkv % (3 * HEAD_DIM) or configuration.leads != len(LEADS):
            what = f"{rows - 2} patches, {qkv} query-key-value rows, {configuration.leads} leads"
            checkpoint.refuse(f"not an ST-MEM encoder of 12 leads ({what})")
        return configuration

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the key and shape of every tensor of an encoder file."""
        dim, inner = self.dim, self.heads * HEAD_DIM
        shapes: dict[str, tuple[int, ...]] = {
            "pos_embedding": (1, self.patches + 2, dim),
            "sep_embedding": (dim,),
        }
        shapes |= {f"lead_embeddings.{lead}": (dim,) for lead in range(self.leads)}
        patch = {".1": (self.patch,), ".2": (dim, self.patch), ".3": (dim,)}
        for part, shape in patch.items():
            shapes[f"to_patch_embedding{part}.weight"] = shape
            shapes[f"to_patch_embedding{part}.bias"] = shape[:1]
        layers = {
            "attn.norm": (dim,),
            "attn.fn.to_qkv": (3 * inner, dim),
            "attn.fn.to_out.0": (dim, inner),
            "ff.norm": (dim,),
            "ff.fn.net.0": (self.hidden, dim),
            "ff.fn.net.3": (dim, self.hidden),
        }
        for block in range(self.depth):
            for layer, shape in layers.items():
                shapes[f"block{block}.{layer}.weight"] = shape
                shapes[f"block{block}.{layer}.bias"] = shape[:1]
        return shapes | {"norm.weight": (dim,), "norm.bias": (dim,)}

    def settings(self) -> dict[str, object]:
        """Return nothing: the tensors tell everything."""
        return {}

    def facts(self) -> dict[str, object]:
        """Return all dimensions."""
        return asdict(self)

    def untrained(self, seed: int) -> dict[str, Tensor]:
        """Return seeded tensors; the position table is the sine-cosine one."""
        tensors = seeded_tensors(self.shapes(), seed=seed)
        names = ["sep_embedding", *(f"lead_embeddings.{lead}" for lead in range(self.leads))]
        drawn = seeded_tensors(dict.fromkeys(names, (1, self.dim)), seed=seed + 1)
        tensors |= {name: row[0] for name, row in drawn.items()}
        tensors["pos_embedding"] = sincos_table(self.patches, self.dim)[None]
        return tensors

    def fold(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Rename, and stack the lead embeddings into one table."""
        state = renamed(tensors, _NAMES)
        leads = [state.pop(f"lead_embeddings.{lead}") for lead in range(self.leads)]
        return state | {"lead_embeddings": torch.stack(leads)}


_NAMES = (
    (r"^to_patch_embedding\.1\.", "patch_embedding.0."),
    (r"^to_patch_embedding\.2\.", "patch_embedding.1."),
    (r"^to_patch_embedding\.3\.", "patch_embedding.2."),
    (r"^block(\d+)\.", r"blocks.\1."),
    (r"\.attn\.norm\.", ".attention_norm."),
    (r"\.attn\.fn\.to_qkv\.", ".attention.qkv."),
    (r"\.attn\.fn\.to_out\.0\.", ".attention.out."),
    (r"\.ff\.norm\.", ".mlp_norm."),
    (r"\.ff\.fn\.net\.0\.", ".mlp.fc1."),
    (r"\.ff\.fn\.net\.3\.", ".mlp.fc2."),
)
"""From published names to those of `StMem`."""


class _Block(nn.Module):
    """A pre-norm transformer block."""

    def __init__(self, dim: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.attention_norm = LayerNorm(dim)
        self.attention = Attention(dim, heads, HEAD_DIM)
        self.mlp_norm = LayerNorm(dim)
        self.mlp = Mlp(dim, hidden)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.attention_norm(x))
        out: Tensor = x + self.mlp(self.mlp_norm(x))
        return out


class StMem(nn.Module):
    """The encoder network: patches of each lead between two separators, one sequence for all."""

    def __init__(self, configuration: StMemConfiguration) -> None:
        super().__init__()
        c = self.configuration = configuration
        self.patch_embedding = nn.Sequential(
            LayerNorm(c.patch), Linear(c.patch, c.dim), LayerNorm(c.dim)
        )
        self.pos_embedding = nn.Parameter(torch.empty(1, c.patches + 2, c.dim))
        self.sep_embedding = nn.Parameter(torch.empty(c.dim))
        self.lead_embeddings = nn.Parameter(torch.empty(c.leads, c.dim))
        self.blocks = nn.ModuleList(_Block(c.dim, c.heads, c.hidden) for _ in range(c.depth))
        self.norm = LayerNorm(c.dim)

    def tokens(self, x: Tensor, leads: Sequence[int]) -> Tensor:
        """Return what enters the first block.

        Args:
            x: ``(batch, leads, samples)``, samples a multiple of the patch.
            leads: Which lead embedding each row takes.

        Returns:
            ``(batch, leads * (patches + 2), dim)``.
        """
        patches: Tensor = self.patch_embedding(
            x.reshape(*x.shape[:2], -1, self.configuration.patch)
        )
        position = self.pos_embedding[0]
        patches = patches + position[1 : patches.shape[2] + 1]
        left, right = self.sep_embedding + position[0], self.sep_embedding + position[-1]
        edge = (*patches.shape[:2], 1, -1)
        tokens = torch.cat([left.expand(edge), patches, right.expand(edge)], dim=2)
        return (tokens + self.lead_embeddings[list(leads), None]).flatten(1, 2)

    def forward(self, x: Tensor, leads: Sequence[int]) -> Tensor:
        """Return the tokens after the last block, before the final norm."""
        tokens = self.tokens(x, leads)
        for block in self.blocks:
            tokens = block(tokens)
        return tokens

    def pool(self, tokens: Tensor, leads: int) -> Tensor:
        """Return the mean over all patches of all leads, ``(batch, dim)`` float32."""
        return tokens.reshape(len(tokens), leads, -1, tokens.shape[-1])[:, :, 1:-1].mean(dim=(1, 2))


class StMemEncoder(Encoder):
    """ST-MEM with its preparation; the leads a record lacks are left out of the sequence."""

    family = "ST-MEM"
    network_type = StMem
    configuration = StMemConfiguration
    network: StMem

    @classmethod
    def recognise(cls, checkpoint: Checkpoint) -> str | None:
        """Tell ST-MEM from its siblings MTAE and MLAE, which have a class token."""
        names = {key.removeprefix("encoder."): key for key in checkpoint.tensors}
        if "sep_embedding" in names:
            return cls.family
        if "cls_embedding" not in names or "pos_embedding" not in names:
            return None
        shape = getattr(checkpoint.tensors[names["pos_embedding"]], "shape", ())
        return "MLAE" if len(LEADS) + 1 in shape[1:2] else "MTAE"

    @classmethod
    def select(cls, checkpoint: Checkpoint) -> dict[str, Tensor]:
        """Take the encoder of a pretraining file, or all of an encoder file but the head."""
        tensors = checkpoint.tensors
        if any(key.startswith("encoder.") for key in tensors):
            kept = {k: v for k, v in tensors.items() if not k.startswith(_DECODER)}
            return {key.removeprefix("encoder."): value for key, value in kept.items()}
        return {key: value for key, value in tensors.items() if not key.startswith("head.")}

    def _length(self, n_samples: int, rate_hz: float) -> int:
        return dsp.fourier_length(n_samples, rate_hz, self.rate_hz)

    def _starts(self, length: int) -> tuple[int, ...]:
        count = {"three": 3, "centre": 1}[self.readout]
        return dsp.evaluation_starts(length, self.window_samples, count)

    def _cut(self, signal: NDArray[Any], rate_hz: float) -> NDArray[Any]:
        signal = dsp.resample_fourier(signal, rate_hz, self.rate_hz)
        windows = dsp.cut_windows(signal, self._starts(signal.shape[1]), self.window_samples)
        for kind, cutoff_hz in _FILTERS:
            sections = dsp.butterworth(kind, cutoff_hz, rate_hz=self.rate_hz)
            windows = dsp.filter_both_ways(windows, sections)
        return dsp.standardise_windows(windows)

    def _check_window(self, samples: int) -> None:
        patch = self.network.configuration.patch
        if samples % patch or not 0 < samples <= self.window_samples:
            msg = (
                f"A window of {samples} samples does not fit {self.spec.name!r}: expected a "
                f"multiple of {patch}, at most {self.window_samples}."
            )
            raise UsageError(msg)

    def _vectors(self, windows: Tensor, leads: list[int]) -> Tensor:
        pooled = self.network.pool(self.network(windows, leads), len(leads))
        vectors: Tensor = self.network.norm(pooled)
        return vectors


_FILTERS: tuple[tuple[Literal["highpass", "lowpass"], float], ...] = (
    ("highpass", 0.67),
    ("lowpass", 40.0),
)

_SPEC = ModelSpec(
    name="stmem",
    arch="stmem",
    summary="Masked auto-encoder over patches of single leads (ViT-B, reconstruction).",
    rate_hz=250.0,
    window_s=9.0,
    leads=LEADS,
    missing_leads="omit",
    readouts=("three", "centre"),
    dim=768,
    preparation=(
        "resample to 250 Hz by the Fourier method, to int(samples * 250 / rate)",
        "cut windows of 2250 samples: three at 0, s, 2 s, s = (samples - 2250) // 2; or one at s",
        "each window on its own: Butterworth high-pass 0.67 Hz, order 5, forward and backward",
        "Butterworth low-pass 40 Hz, order 5, forward and backward",
        "subtract one mean and divide by one population deviation over all leads of the window",
        "mean of the patch tokens, then layer norm; a record is the mean over its windows",
    ),
    licence="CC-BY-NC-4.0",
    licence_note=(
        "The ST-MEM weights are © VUNO Inc. under CC BY-NC 4.0: for non-commercial use only, with "
        "attribution; so is anything made by changing them, a converted copy too."
    ),
    citations=(
        (
            "Yeongyeon Na, Minje Park, Yunwon Tae, Sunghoon Joo: Guiding Masked Representation "
            "Learning to Capture Spatio-Temporal Relationship of Electrocardiogram. ICLR 2024, "
            "arXiv:2402.09450."
        ),
    ),
    weights_source=(
        "Get st_mem_vit_base_encoder.pth (or …_full.pth) from the link that its authors give at "
        "github.com/bakqui/ST-MEM"
    ),
    pretraining=("Chapman-Shaoxing", "Ningbo", "CODE-15%"),
    known_weights=(
        (
            "6f63d370fd1a2ccf2fbddd681571adf985eeae3f652973f0071342a39b7793d6",
            "st_mem_vit_base_encoder.pth",
        ),
    ),
)

models.add(_SPEC.name, Model(_SPEC, StMemEncoder))
models.add(
    "stmem.mini",
    Model(
        replace(
            _SPEC,
            name="stmem.mini",
            summary="ST-MEM at small size, built in and untrained: for demos and tests.",
            dim=48,
            licence="MIT",
            licence_note=None,
            weights_source=None,
            pretraining=(),
            known_weights=(),
        ),
        StMemEncoder,
        StMemConfiguration(dim=48, depth=2, heads=1, hidden=96),
    ),
)
