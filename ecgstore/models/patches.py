"""Masked auto-encoders over patches: what ST-MEM shares with its siblings MTAE and MLAE.

One publication trains the three on the same signals, prepared alike. They differ in what a patch
is and in which tokens stand beside the patches; see `stmem` and `mae`.

Na, Park, Tae, Joo: Guiding Masked Representation Learning to Capture Spatio-Temporal Relationship
of Electrocardiogram, ICLR 2024, arXiv 2402.09450.
"""

from __future__ import annotations

import abc
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Literal, Self

import numpy as np
import torch
from torch import Tensor, nn

from ecgstore.errors import UsageError
from ecgstore.models.encoder import Encoder
from ecgstore.models.layers import Block, LayerNorm, Linear
from ecgstore.models.spec import Variant
from ecgstore.models.weights import renamed, seeded_tensors
from ecgstore.signal import butterworth, evaluation_starts, fourier_length

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ecgstore.models.arithmetic import Arithmetic, Signal
    from ecgstore.models.weights import Checkpoint

__all__ = [
    "PatchConfiguration",
    "PatchEncoder",
    "PatchTransformer",
    "filtered",
    "sincos_table",
    "variants",
]

_HEAD_DIM = 64
"""Width of an attention head in all of them, whatever the tokens are wide."""

_DECODER = ("decoder_", "mask_embedding", "to_decoder_embedding.", "to_patch_embedding.")
"""What the keys of a pretraining file begin with that belong to its decoder."""

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
"""From published names to those of `PatchTransformer`."""


_FILTERS: tuple[tuple[Literal["highpass", "lowpass"], float], ...] = (
    ("highpass", 0.67),
    ("lowpass", 40.0),
)


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


@dataclass(frozen=True, kw_only=True)
class PatchConfiguration(abc.ABC):
    """The dimensions of one encoder of the family.

    Attributes:
        patch: Samples of a patch.
        patches: Patches of a full window that have a row of their own in the position table.
        dim: Width of the tokens.
        depth: Number of blocks.
        heads: Attention heads of 64.
        hidden: Width inside the MLP.
        classes: Outputs of a finetuned head, 0 without one, as in every published file.
    """

    patch: int = 75
    patches: int = 30
    dim: int = 768
    depth: int = 12
    heads: int = 12
    hidden: int = 3072
    classes: int = 0

    @property
    @abc.abstractmethod
    def features(self) -> int:
        """Numbers in a patch."""

    @property
    @abc.abstractmethod
    def positions(self) -> int:
        """Rows of the position table."""

    @property
    @abc.abstractmethod
    def window_samples(self) -> int:
        """Samples of a full window."""

    @property
    @abc.abstractmethod
    def vectors(self) -> tuple[str, ...]:
        """Keys of the learned vectors besides: separators, class token, leads."""

    @classmethod
    @abc.abstractmethod
    def infer(cls, checkpoint: Checkpoint) -> Self:
        """Read the dimensions off the tensors of a checkpoint."""

    @abc.abstractmethod
    def settings(self) -> dict[str, object]:
        """Return what the tensors do not tell."""

    @staticmethod
    def blocks_of(checkpoint: Checkpoint) -> dict[str, int]:
        """Read the dimensions of blocks and head off the tensors."""
        rows = checkpoint.shape("block0.attn.fn.to_qkv.weight", 2)[0]
        if rows % (3 * _HEAD_DIM):
            what = f"{rows} query-key-value rows make no heads of {_HEAD_DIM}"
            checkpoint.refuse(f"not an ST-MEM encoder or one of its siblings ({what})")
        head = any(key.startswith("head.") for key in checkpoint.tensors)
        return {
            "dim": checkpoint.shape("norm.weight", 1)[0],
            "depth": checkpoint.count(r"block(\d+)\."),
            "heads": rows // (3 * _HEAD_DIM),
            "hidden": checkpoint.shape("block0.ff.fn.net.0.weight", 2)[0],
            "classes": checkpoint.shape("head.weight", 2)[0] if head else 0,
        }

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the key and shape of every tensor of an encoder file."""
        dim, inner = self.dim, self.heads * _HEAD_DIM
        shapes: dict[str, tuple[int, ...]] = {"pos_embedding": (1, self.positions, dim)}
        shapes |= dict.fromkeys(self.vectors, (dim,))
        pairs: dict[str, tuple[int, ...]] = {
            "to_patch_embedding.1": (self.features,),
            "to_patch_embedding.2": (dim, self.features),
            "to_patch_embedding.3": (dim,),
        }
        layers = {
            "attn.norm": (dim,),
            "attn.fn.to_qkv": (3 * inner, dim),
            "attn.fn.to_out.0": (dim, inner),
            "ff.norm": (dim,),
            "ff.fn.net.0": (self.hidden, dim),
            "ff.fn.net.3": (dim, self.hidden),
        }
        for block in range(self.depth):
            pairs |= {f"block{block}.{layer}": shape for layer, shape in layers.items()}
        pairs["norm"] = (dim,)
        if self.classes:
            pairs["head"] = (self.classes, dim)
        for name, shape in pairs.items():
            shapes |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
        return shapes

    def facts(self) -> dict[str, object]:
        """Return all dimensions; the head's only where there is one."""
        facts = asdict(self)
        if not self.classes:
            del facts["classes"]
        return facts

    def untrained(self, seed: int) -> dict[str, Tensor]:
        """Return seeded tensors; the position table is the sine-cosine one."""
        tensors = seeded_tensors(self.shapes(), seed=seed)
        drawn = seeded_tensors(dict.fromkeys(self.vectors, (1, self.dim)), seed=seed + 1)
        tensors |= {name: row[0] for name, row in drawn.items()}
        tensors["pos_embedding"] = sincos_table(self.patches, self.dim)[None, : self.positions]
        return tensors

    def fold(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Rename."""
        return renamed(tensors, _NAMES)


class PatchTransformer(nn.Module, abc.ABC):
    """The encoder network of the family, but for what its tokens are."""

    def __init__(self, configuration: PatchConfiguration) -> None:
        super().__init__()
        c = self.configuration = configuration
        self.patch_embedding = nn.Sequential(
            LayerNorm(c.features), Linear(c.features, c.dim), LayerNorm(c.dim)
        )
        self.pos_embedding = nn.Parameter(torch.empty(1, c.positions, c.dim))
        self.blocks = nn.ModuleList(
            Block(c.dim, c.heads, _HEAD_DIM, c.hidden) for _ in range(c.depth)
        )
        self.norm = LayerNorm(c.dim)
        self.head = Linear(c.dim, c.classes) if c.classes else None

    @abc.abstractmethod
    def tokens(self, x: Tensor, leads: Sequence[int]) -> Tensor:
        """Return what enters the first block, ``(batch, tokens, dim)`` float32.

        Args:
            x: ``(batch, leads, samples)``, samples a multiple of the patch.
            leads: Which leads these are, as places in the standard order.
        """

    @abc.abstractmethod
    def pool(self, tokens: Tensor, leads: int) -> Tensor:
        """Return the vector of ``block{k}``, ``(batch, dim)``, from the tokens behind a block."""

    @abc.abstractmethod
    def parts(self, tokens: Tensor, leads: int) -> Tensor:
        """Return those tokens behind the last block that vectors are made of."""

    @abc.abstractmethod
    def pool_parts(self, tokens: Tensor) -> Tensor:
        """Return what `pool` does, ``(batch, dim)``, from `parts`."""

    @abc.abstractmethod
    def finish(self, tokens: Tensor, leads: int) -> dict[str, Tensor]:
        """Run the last block and the norm; returns the vectors of every read-out behind it."""

    def forward(self, x: Tensor, leads: Sequence[int]) -> Tensor:
        """Return the tokens after the last block, before the final norm."""
        tokens = self.tokens(x, leads)
        for block in self.blocks:
            tokens = block(tokens)
        return tokens


class PatchEncoder(Encoder):
    """What the encoders of the family do alike: select, prepare, and go through the blocks."""

    network: PatchTransformer
    published_head = "head."

    @classmethod
    def select(cls, checkpoint: Checkpoint) -> dict[str, Tensor]:
        """Take the encoder of a pretraining file, or all of an encoder file."""
        tensors = checkpoint.tensors
        if any(key.startswith("encoder.") for key in tensors):
            kept = {k: v for k, v in tensors.items() if not k.startswith(_DECODER)}
            return {key.removeprefix("encoder."): value for key, value in kept.items()}
        return dict(tensors)

    def _starts(self, n_samples: int, rate_hz: float) -> tuple[float, ...]:
        length = fourier_length(n_samples, rate_hz, self.rate_hz)
        return tuple(start / self.rate_hz for start in self._window_starts(length))

    def _window_starts(self, length: int) -> tuple[int, ...]:
        count = {"three": 3, "centre": 1}[self.variant.name]
        return evaluation_starts(length, self.window_samples, count)

    def _cut(self, signal: Signal, rate_hz: float, dsp: Arithmetic[Signal]) -> Signal:
        length = fourier_length(signal.shape[-1], rate_hz, self.rate_hz)
        signal = dsp.resample_fourier(signal, length)
        windows = dsp.cut_windows(signal, self._window_starts(length), self.window_samples)
        return filtered(windows, self.rate_hz, dsp)

    def _check_window(self, samples: int) -> None:
        patch = self.network.configuration.patch
        if samples % patch or not 0 < samples <= self.window_samples:
            msg = (
                f"A window of {samples} samples does not fit {self.spec.name!r}: expected a "
                f"multiple of {patch}, at most {self.window_samples}."
            )
            raise UsageError(msg)

    def _tokens(self, windows: Tensor, leads: list[int]) -> Tensor:
        tokens = self.network(windows, leads)
        return self.network.parts(tokens, len(leads))

    def _pooled(self, tokens: Tensor) -> Tensor:
        vectors: Tensor = self.network.norm(self.network.pool_parts(tokens))
        return vectors

    def _run(self, windows: Tensor, leads: list[int]) -> tuple[Tensor, Tensor | None]:
        network, found = self.network, dict[str, Tensor]()
        tokens = network.tokens(windows, leads)
        for number, block in enumerate(network.blocks[:-1]):
            tokens = block(tokens)
            if self.readout == f"block{number}":
                found[self.readout] = network.pool(tokens, len(leads))
                if network.head is None:
                    return found[self.readout], None
        found |= network.finish(tokens, len(leads))
        if network.head is not None:
            found["logits"] = network.head(found["embedding"])
        return found[self.readout].float(), found.get("logits")


def filtered(windows: Signal, rate_hz: float, dsp: Arithmetic[Signal]) -> Signal:
    """Filter windows of the family, each on its own, and standardise them.

    Args:
        windows: ``(…, leads, samples)``, any unit.
        rate_hz: Their samples per second.
        dsp: `ecgstore.signal` for arrays, `ecgstore.models.tensor_signal` for tensors.
    """
    for kind, cutoff_hz in _FILTERS:
        windows = dsp.filter_both_ways(windows, butterworth(kind, cutoff_hz, rate_hz=rate_hz))
    return dsp.standardise_windows(windows)


def variants(vector: str, *, seconds: int = 9) -> tuple[Variant, ...]:
    """Return the two ways to feed a model of the family.

    Args:
        vector: How its vector is made, the last step of the preparation.
        seconds: Length of a window.
    """
    samples = 250 * seconds
    return tuple(
        Variant(
            name=name,
            units="any",
            resampler="Fourier method, whole record",
            filters=(
                "high-pass 0.67 Hz, Butterworth order 5, forward and backward, each window",
                "low-pass 40 Hz, Butterworth order 5, forward and backward, each window",
            ),
            normalisation="one mean and deviation over all leads of a window",
            windows=windows,
            preparation=(
                "resample to 250 Hz by the Fourier method, to int(samples * 250 / rate)",
                (
                    f"cut windows of {samples} samples: three at 0, s, 2 s, "
                    f"s = (samples - {samples}) // 2; or one at s"
                ),
                (
                    "each window on its own: Butterworth high-pass 0.67 Hz, order 5, forward and "
                    "backward"
                ),
                "Butterworth low-pass 40 Hz, order 5, forward and backward",
                (
                    "subtract one mean and divide by one population deviation over all leads of "
                    "the window"
                ),
                f"{vector}; a record is the mean over its windows",
            ),
        )
        for name, windows in (
            ("three", f"three of {seconds} s spread over the record; the mean of their vectors"),
            ("centre", f"the {seconds} s in the middle"),
        )
    )
