"""ECG-FM and ST-MEM written down plainly from published tensors: what the engine is compared with.

One eager operation after the other, as research code does it: three projections, a softmax over
the whole matrix of scores, convolutions as convolutions, everything in the type of the tensors.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn import functional

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from ecgstore.models.ecgfm_keys import EcgFmConfiguration
    from ecgstore.models.stmem import StMemConfiguration

__all__ = ["ecgfm", "stmem"]


def _linear(t: Mapping[str, Tensor], name: str, x: Tensor) -> Tensor:
    return functional.linear(x, t[f"{name}.weight"], t[f"{name}.bias"])


def _norm(t: Mapping[str, Tensor], name: str, x: Tensor) -> Tensor:
    return functional.layer_norm(x, x.shape[-1:], t[f"{name}.weight"], t[f"{name}.bias"])


def _attend(q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
    q, k, v = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (q, k, v))
    scores = (q @ k.transpose(-1, -2)) * q.shape[-1] ** -0.5
    return (scores.softmax(-1) @ v).transpose(1, 2).flatten(2)


def ecgfm(t: Mapping[str, Tensor], c: EcgFmConfiguration, x: Tensor) -> Tensor:
    """Return the embeddings of ``(batch, 12, samples)``."""
    for block, (out, _, stride) in enumerate(c.stem):
        x = functional.conv1d(
            x, t[f"feature_extractor.conv_layers.{block}.0.weight"], stride=stride
        )
        if block == 0:
            name = "feature_extractor.conv_layers.0.2"
            x = functional.group_norm(x, out, t[f"{name}.weight"], t[f"{name}.bias"])
        x = functional.gelu(x)
    x = _linear(t, "post_extract_proj", _norm(t, "layer_norm", x.transpose(1, 2)))
    scale, direction = "weight.original0", "weight.original1"
    g, v = (t[f"conv_pos.pos_conv.0.parametrizations.{part}"] for part in (scale, direction))
    weight = g * v / torch.linalg.vector_norm(v, dim=(0, 1), keepdim=True)
    position = functional.conv1d(
        x.transpose(1, 2),
        weight,
        t["conv_pos.pos_conv.0.bias"],
        padding=c.position_kernel // 2,
        groups=c.position_groups,
    )
    x = x + functional.gelu(position[:, :, : x.shape[1]]).transpose(1, 2)
    x = _norm(t, "encoder.layer_norm", x)
    for layer in range(c.depth):
        p = f"encoder.layers.{layer}"
        q, k, v = (_linear(t, f"{p}.self_attn.{part}_proj", x) for part in "qkv")
        x = x + _linear(t, f"{p}.self_attn.out_proj", _attend(q, k, v, c.heads))
        x = _norm(t, f"{p}.self_attn_layer_norm", x)
        x = x + _linear(t, f"{p}.fc2", functional.gelu(_linear(t, f"{p}.fc1", x)))
        x = _norm(t, f"{p}.final_layer_norm", x)
    return x.sum(1) / (x != 0).sum(1)


def stmem(t: Mapping[str, Tensor], c: StMemConfiguration, x: Tensor) -> Tensor:
    """Return the embeddings of ``(batch, 12, samples)``."""
    leads = x.shape[1]
    x = x.unflatten(-1, (-1, c.patch))
    x = _norm(t, "to_patch_embedding.1", x)
    x = _norm(t, "to_patch_embedding.3", _linear(t, "to_patch_embedding.2", x))
    position = t["pos_embedding"][0]
    x = x + position[1 : x.shape[2] + 1]
    edge = (*x.shape[:2], 1, c.dim)
    left = (t["sep_embedding"] + position[0]).expand(edge)
    right = (t["sep_embedding"] + position[-1]).expand(edge)
    x = torch.cat([left, x, right], dim=2)
    x = x + torch.stack([t[f"lead_embeddings.{lead}"] for lead in range(leads)])[:, None]
    x = x.flatten(1, 2)
    for block in range(c.depth):
        p = f"block{block}"
        qkv = _linear(t, f"{p}.attn.fn.to_qkv", _norm(t, f"{p}.attn.norm", x))
        x = x + _linear(t, f"{p}.attn.fn.to_out.0", _attend(*qkv.chunk(3, -1), c.heads))
        inner = _linear(t, f"{p}.ff.fn.net.0", _norm(t, f"{p}.ff.norm", x))
        x = x + _linear(t, f"{p}.ff.fn.net.3", functional.gelu(inner))
    x = x.unflatten(1, (leads, -1))[:, :, 1:-1].mean(dim=(1, 2))
    return _norm(t, "norm", x)
