"""Blocks that several transformers share, with the precision of each step decided in one place.

Matrix products run in the type of their weights, float32 or bfloat16 (`use_bfloat16` casts the
weights); the residual stream, every layer norm and all pooling stay in float32.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["Attention", "Block", "LayerNorm", "Linear", "Mlp", "use_bfloat16"]


_FEW_TOKENS = 256


class Linear(nn.Linear):
    """A matrix product in the type of its weights, whatever comes in."""

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x W' + b``."""
        return functional.linear(x.to(self.weight.dtype), self.weight, self.bias)


class LayerNorm(nn.LayerNorm):
    """A layer norm over the last axis in float32, whatever comes in."""

    def forward(self, x: Tensor) -> Tensor:
        """Return float32."""
        return super().forward(x.float())


class Attention(nn.Module):
    """Multi-head self-attention with one product for query, key and value.

    Args:
        dim: Width of the tokens.
        heads: Number of heads.
        head_dim: Width of a head; ``heads * head_dim`` need not equal ``dim``.
        bias: Whether query, key and value have one.
    """

    def __init__(self, dim: int, heads: int, head_dim: int, *, bias: bool = True) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = Linear(dim, 3 * heads * head_dim, bias=bias)
        self.out = Linear(heads * head_dim, dim)

    def _split(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        fused: Tensor = self.qkv(x)
        parts = fused.reshape(*x.shape[:2], 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        return parts[0], parts[1], parts[2]

    def forward(self, x: Tensor, allowed: Tensor | None = None, *, dropout: float = 0.0) -> Tensor:
        """Attend over all tokens.

        Args:
            x: ``(batch, tokens, dim)``.
            allowed: Bool, false for keys that must not be seen; spreads to ``(batch, heads,
                queries, keys)``.
            dropout: Share of the softmax weights that are dropped.
        """
        query, key, value = self._split(x)
        if allowed is None and _at_once(query):
            scores = (query * query.shape[-1] ** -0.5) @ key.transpose(-1, -2)
            weights = scores.softmax(-1)
            if dropout:
                weights = functional.dropout(weights, dropout)
            mixed = weights @ value
        else:
            mixed = functional.scaled_dot_product_attention(
                query, key, value, attn_mask=allowed, dropout_p=dropout
            )
        out: Tensor = self.out(mixed.transpose(1, 2).flatten(2))
        return out

    def weights(self, x: Tensor, allowed: Tensor | None = None) -> Tensor:
        """Return the softmax weights, ``(batch, heads, queries, keys)`` float32."""
        query, key, _ = self._split(x)
        scale: float = query.shape[-1] ** -0.5
        scores = query.float() @ key.float().transpose(-1, -2) * scale
        if allowed is not None:
            scores = scores.masked_fill(~allowed, -torch.inf)
        return scores.softmax(-1)


def _at_once(query: Tensor) -> bool:
    """Tell whether all scores at once are faster: for few tokens on a CPU, in whose cache they fit.

    By a third at 156 tokens; the fused kernel is twice as fast at 384.
    """
    small = query.device.type == "cpu" and query.dtype == torch.float32
    return small and query.shape[2] <= _FEW_TOKENS


class Mlp(nn.Module):
    """Two linear layers with the exact (erf) GELU between them."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = Linear(dim, hidden)
        self.fc2 = Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Map each token on its own."""
        out: Tensor = self.fc2(functional.gelu(self.fc1(x)))
        return out


class Block(nn.Module):
    """A pre-norm transformer block.

    Args:
        dim: Width of the tokens.
        heads: Number of heads.
        head_dim: Width of a head.
        hidden: Width inside the MLP.
        eps: Of the layer norms.
        bias: Whether query, key and value have one.
    """

    compiled = True
    """Whether it is worth compiling; see `ecgstore.models.compiling`."""

    def __init__(
        self,
        dim: int,
        heads: int,
        head_dim: int,
        hidden: int,
        *,
        eps: float = 1e-5,
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.attention_norm = LayerNorm(dim, eps)
        self.attention = Attention(dim, heads, head_dim, bias=bias)
        self.mlp_norm = LayerNorm(dim, eps)
        self.mlp = Mlp(dim, hidden)

    def forward(self, x: Tensor, allowed: Tensor | None = None) -> Tensor:
        """Map ``(batch, tokens, dim)`` float32 to the same."""
        x = x + self.attention(self.attention_norm(x), allowed)
        out: Tensor = x + self.mlp(self.mlp_norm(x))
        return out


def use_bfloat16(network: nn.Module) -> None:
    """Make the matrix products of a network run in bfloat16.

    A module that is no `Linear` can take part by a method ``use_bfloat16`` of its own.
    """
    for module in network.modules():
        if isinstance(module, Linear):
            module.to(torch.bfloat16)
        elif callable(cast := getattr(module, "use_bfloat16", None)):
            cast()
