"""AnyECG's first stage: each second of each lead becomes a token, and each token a rhythm code.

Wang, Cao, Hu et al., arXiv 2411.17711. Equations are the paper's; what it leaves open (widths,
kernels, code width, tolerance) is chosen here and said so. The second stage uses the same token
encoder, so this file holds that too. Losses are functions; there is no training here.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple, Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from ecgstore.models.layers import Block, LayerNorm, Linear
from ecgstore.models.wavelet import analyse
from ecgstore.record import LEADS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ecgstore.models.weights import Checkpoint

__all__ = [
    "DEMOGRAPHY",
    "FREQUENCIES",
    "LONGEST_S",
    "PATCH",
    "EncoderSize",
    "MultiViewDecoder",
    "Quantised",
    "Quantiser",
    "TokenEncoder",
    "Tokeniser",
    "TokeniserSize",
    "Views",
    "frequency_view",
    "nearest_codes",
    "quantiser_losses",
    "sparse_mask",
    "straight_through",
    "view_losses",
]

PATCH = 300
"""Samples of a patch: one second at 300 Hz [paper]."""

LONGEST_S = 1024 // len(LEADS)
"""Seconds of the longest window, 85: all leads of it are at most 1024 tokens [paper]."""

TOLERANCE_S = 1
"""Seconds apart that still count as the same [chosen; the paper says only that there is one]."""

DEMOGRAPHY = ("age", "weight", "sex")
"""Attributes that the demography view predicts, among others in the paper."""

WAVELET_LEVELS = 3
_CHANNELS, _GROUPS = 8, 4


@functools.lru_cache(maxsize=32)
def sparse_mask(
    leads: int,
    seconds: int,
    tolerance_s: int = TOLERANCE_S,
    device: torch.device | None = None,
) -> Tensor:
    """Return which tokens may attend to which: those of the same lead or of the same second.

    The paper's M is 0 where this is true and minus infinity elsewhere.

    Returns:
        ``(leads * seconds, leads * seconds)`` bool, all seconds of a lead together.
    """
    with torch.inference_mode(mode=False):  # it is kept, and training may ask for it later
        lead = torch.arange(leads, device=device).repeat_interleave(seconds)
        second = torch.arange(seconds, device=device).repeat(leads)
        near = (second[:, None] - second).abs() <= tolerance_s
        return near | (lead[:, None] == lead)


@dataclass(frozen=True)
class EncoderSize:
    """The dimensions of a token encoder.

    Attributes:
        dim: Width of the tokens.
        depth: Number of blocks.
        heads: Attention heads; they share ``dim`` evenly.
        hidden: Width inside the MLP.
    """

    dim: int = 64
    depth: int = 4
    heads: int = 4
    hidden: int = 256

    @classmethod
    def infer(cls, checkpoint: Checkpoint, prefix: str, heads: str) -> Self:
        """Read the dimensions off the tensors; the number of heads is a setting.

        Args:
            checkpoint: The selected tensors.
            prefix: Of their keys.
            heads: Name of the setting.
        """
        hidden, dim = checkpoint.shape(f"{prefix}blocks.0.mlp.fc1.weight", 2)
        depth = checkpoint.count(rf"{re.escape(prefix)}blocks\.(\d+)\.")
        number = checkpoint.settings.get(heads)
        if not isinstance(number, int) or isinstance(number, bool):
            checkpoint.ask(f"how many heads share its width of {dim}", heads)
        if number < 1 or dim % number:
            checkpoint.refuse(f"{number} {heads} do not share a width of {dim} evenly")
        return cls(dim, depth, number, hidden)


@dataclass(frozen=True)
class TokeniserSize:
    """The dimensions of a tokeniser.

    Attributes:
        encoder: Those of its token encoder; four blocks [paper].
        codes: Number of codes.
        code_dim: Width of a code.
    """

    encoder: EncoderSize = EncoderSize()
    codes: int = 1024
    code_dim: int = 64


class TemporalEncoder(nn.Module):
    """One second of one lead to one token: convolutions, group norms and GELU [paper].

    Three convolutions to 8 channels in 4 groups, kernels 15, 3, 3 and strides 8, 1, 1, then one
    linear layer over all they give [chosen]. Convolutions run in float32.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for fed, kernel, stride in ((1, 15, 8), (_CHANNELS, 3, 1), (_CHANNELS, 3, 1)):
            convolution = nn.Conv1d(fed, _CHANNELS, kernel, stride, padding=kernel // 2)
            layers += [convolution, nn.GroupNorm(_GROUPS, _CHANNELS), nn.GELU()]
        self.convolutions = nn.Sequential(*layers)
        self.projection = Linear(_CHANNELS * -(-PATCH // 8), dim)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(batch, leads, samples)`` to ``(batch, leads, seconds, dim)`` float32."""
        features = self.convolutions(x.reshape(-1, 1, PATCH))
        tokens: Tensor = self.projection(features.flatten(1))
        return tokens.float().reshape(*x.shape[:2], -1, tokens.shape[-1])


class TokenEncoder(nn.Module):
    """Patches of all leads in one sequence under sparse attention; both stages have one.

    Token k of lead j enters as ``h[j, k] = h'[j, k] + tau[k] + sigma[j]`` [paper].
    """

    def __init__(self, size: EncoderSize) -> None:
        super().__init__()
        self.temporal = TemporalEncoder(size.dim)
        self.time_positions = nn.Parameter(torch.empty(LONGEST_S, size.dim))
        self.lead_positions = nn.Parameter(torch.empty(len(LEADS), size.dim))
        self.blocks = nn.ModuleList(
            Block(size.dim, size.heads, size.dim // size.heads, size.hidden)
            for _ in range(size.depth)
        )
        self.norm = LayerNorm(size.dim)

    def forward(
        self,
        x: Tensor,
        leads: Sequence[int],
        *,
        depth: int | None = None,
        masked: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        """Return the tokens after the last block wanted, before the final norm.

        Args:
            x: ``(batch, leads, samples)``, whole seconds.
            leads: Which of the twelve each row is.
            depth: How many blocks to run; None runs all.
            masked: For training: which tokens to hide, ``(batch, leads, seconds)`` bool, and the
                vector put in their place before the positions are added.

        Returns:
            ``(batch, leads * seconds, dim)`` float32, all seconds of a lead together.
        """
        tokens: Tensor = self.temporal(x)
        if masked is not None:
            tokens = torch.where(masked[0][..., None], masked[1], tokens)
        seconds = tokens.shape[2]
        tokens = tokens + self.time_positions[:seconds] + self.lead_positions[list(leads), None]
        tokens = tokens.flatten(1, 2)
        allowed = sparse_mask(x.shape[1], seconds, device=x.device)
        for block in self.blocks[:depth]:
            tokens = block(tokens, allowed)
        return tokens


def nearest_codes(hidden: Tensor, codes: Tensor) -> Tensor:
    """Return the number of the code with the highest cosine, ``(…)`` int64.

    That code is the nearest one after both sides are scaled to length 1 [paper].

    Args:
        hidden: ``(…, code_dim)``.
        codes: ``(codes, code_dim)``.
    """
    return (functional.normalize(hidden, dim=-1) @ functional.normalize(codes, dim=-1).T).argmax(-1)


def straight_through(hidden: Tensor, codes: Tensor) -> Tensor:
    """Return the codes, with the gradient of what they were chosen for."""
    return hidden + (codes - hidden).detach()


def quantiser_losses(
    hidden: Tensor,
    codes: Tensor,
    *,
    beta: float = 1.0,
    reduction: Literal["mean", "sum"] = "mean",
) -> tuple[Tensor, Tensor]:
    """Return codebook and commitment loss, ``|sg(h) - v|^2`` and ``beta |h - sg(v)|^2``.

    Neither side is scaled. The paper sums squares; means [chosen] do not grow with the batch.

    Args:
        hidden: What was quantised.
        codes: The code chosen for each.
        beta: Weight of the commitment.
        reduction: Over all elements.
    """
    codebook = functional.mse_loss(codes, hidden.detach(), reduction=reduction)
    return codebook, beta * functional.mse_loss(hidden, codes.detach(), reduction=reduction)


class Quantised(NamedTuple):
    """What a quantiser makes of tokens.

    Attributes:
        hidden: Tokens at the width of the codes, ``(…, code_dim)`` float32.
        number: Which code each was given, ``(…)`` int64.
        codes: These codes, ``(…, code_dim)``.
    """

    hidden: Tensor
    number: Tensor
    codes: Tensor


class Quantiser(nn.Module):
    """Names each token by one of the rhythm codes, after a linear layer to their width."""

    def __init__(self, dim: int, codes: int, code_dim: int) -> None:
        super().__init__()
        self.projection = Linear(dim, code_dim)
        self.codes = nn.Parameter(torch.empty(codes, code_dim))

    def forward(self, tokens: Tensor) -> Quantised:
        """Quantise ``(…, dim)``."""
        hidden = self.projection(tokens).float()
        number = nearest_codes(hidden, self.codes)
        return Quantised(hidden, number, self.codes[number])


class Tokeniser(nn.Module):
    """Token encoder and quantiser; the second stage learns the codes it gives."""

    def __init__(self, size: TokeniserSize) -> None:
        super().__init__()
        self.encoder = TokenEncoder(size.encoder)
        self.quantiser = Quantiser(size.encoder.dim, size.codes, size.code_dim)

    def forward(self, x: Tensor, leads: Sequence[int]) -> Quantised:
        """Quantise windows as `TokenEncoder` takes them; all seconds of a lead together."""
        quantised: Quantised = self.quantiser(self.encoder.norm(self.encoder(x, leads)))
        return quantised


class Views(NamedTuple):
    """What a code must tell of its second.

    Attributes:
        morphology: The samples, ``(batch, tokens, 300)``.
        frequency: `frequency_view`, ``(batch, tokens, 570)``.
        demography: One number for each of `DEMOGRAPHY`, ``(batch, 3)``, NaN where not known.
    """

    morphology: Tensor
    frequency: Tensor
    demography: Tensor


FREQUENCIES = tuple(
    part.shape[-1] for pair in analyse(torch.zeros(PATCH), WAVELET_LEVELS) for part in pair
)
"""Coefficients of each array of `frequency_view`."""


def frequency_view(patches: Tensor, statistics: Tensor | None = None) -> Tensor:
    """Return db6 coefficients, approximation and detail of each of three levels, finest first.

    Args:
        patches: ``(…, 300)``.
        statistics: ``(6, 2)`` mean and deviation of each of these arrays over the training data;
            None leaves them as they are.
    """
    view = torch.cat([part for pair in analyse(patches, WAVELET_LEVELS) for part in pair], dim=-1)
    if statistics is None:
        return view
    widths = torch.tensor(FREQUENCIES, device=view.device)
    mean, deviation = statistics.repeat_interleave(widths, dim=0).unbind(-1)
    return (view - mean) / deviation


class MultiViewDecoder(nn.Module):
    """From codes back to three views of the signal; only the first stage's training needs it.

    Three blocks under the encoder's sparse attention, shared by one linear head a view [chosen].
    Codes enter without positions: what is not in a code cannot be told from it.
    """

    def __init__(self, size: TokeniserSize, *, depth: int = 3) -> None:
        super().__init__()
        c = size.encoder
        self.projection = Linear(size.code_dim, c.dim)
        self.blocks = nn.ModuleList(
            Block(c.dim, c.heads, c.dim // c.heads, c.hidden) for _ in range(depth)
        )
        self.norm = LayerNorm(c.dim)
        self.morphology = Linear(c.dim, PATCH)
        self.frequency = Linear(c.dim, sum(FREQUENCIES))
        self.demography = Linear(c.dim, len(DEMOGRAPHY))

    def forward(self, codes: Tensor, leads: int) -> Views:
        """Decode ``(batch, leads * seconds, code_dim)``; demography comes of the mean token."""
        tokens = self.projection(codes).float()
        allowed = sparse_mask(leads, codes.shape[1] // leads, device=codes.device)
        for block in self.blocks:
            tokens = block(tokens, allowed)
        tokens = self.norm(tokens)
        heads = (self.morphology(tokens), self.frequency(tokens), self.demography(tokens.mean(1)))
        return Views(*(head.float() for head in heads))


def view_losses(decoded: Views, wanted: Views) -> Views:
    """Return the loss of each view: the mean of squares where the paper has the sum [chosen].

    The loss of the frequencies is the sum of one such mean for each array of coefficients. An
    attribute that is NaN in ``wanted`` does not count.
    """
    arrays = (decoded.frequency - wanted.frequency).split_with_sizes(FREQUENCIES, -1)
    frequency = torch.stack([array.square().mean() for array in arrays]).sum()
    known = ~wanted.demography.isnan()
    squares = (decoded.demography - wanted.demography.nan_to_num()).square() * known
    return Views(
        functional.mse_loss(decoded.morphology, wanted.morphology),
        frequency,
        squares.sum() / known.sum().clamp(min=1),
    )
