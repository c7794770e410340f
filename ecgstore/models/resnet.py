"""ResNet-50 on raw signals: the supervised baseline that embeddings are compared with.

The standard bottleneck network of He, Zhang, Ren and Sun (2016, arXiv 1512.03385) with every
two-dimensional convolution, pooling and batch norm replaced by its one-dimensional form: a stem of
kernel 7 and stride 2, max pooling 3/2, then 3, 4, 6 and 3 bottlenecks with kernels 1-3-1. The
first block of the last three stages halves the length in its kernel-3 convolution.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from ecgstore.models.layers import Linear

__all__ = ["ResNet50"]

_STAGES = (3, 4, 6, 3)
_EXPANSION = 4


class _Convolution(nn.Conv1d):
    """A convolution in the type of its weights; what it gives is float32, as all around it."""

    def use_bfloat16(self) -> None:
        """Cast the weights."""
        self.to(torch.bfloat16)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.to(self.weight.dtype)).float()


class _Bottleneck(nn.Module):
    """Convolutions of kernel 1, 3 and 1 around a shortcut."""

    def __init__(self, fed: int, width: int, stride: int) -> None:
        super().__init__()
        out = width * _EXPANSION
        self.branch = nn.Sequential(
            _Convolution(fed, width, 1, bias=False),
            nn.BatchNorm1d(width),
            nn.ReLU(),
            _Convolution(width, width, 3, stride, padding=1, bias=False),
            nn.BatchNorm1d(width),
            nn.ReLU(),
            _Convolution(width, out, 1, bias=False),
            nn.BatchNorm1d(out),
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or fed != out:
            self.shortcut = nn.Sequential(
                _Convolution(fed, out, 1, stride, bias=False), nn.BatchNorm1d(out)
            )

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.branch(x) + self.shortcut(x))


class ResNet50(nn.Module):
    """A one-dimensional ResNet-50 with one output.

    Args:
        leads: Rows of the input.
        width: Channels of the stem; 64 is the standard and gives 15,961,217 parameters.

    Example:
        >>> import torch
        >>> ResNet50(width=8).eval()(torch.zeros(2, 12, 1000)).shape
        torch.Size([2])
    """

    def __init__(self, *, leads: int = 12, width: int = 64) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            _Convolution(leads, width, 7, 2, padding=3, bias=False),
            nn.BatchNorm1d(width),
            nn.ReLU(),
            nn.MaxPool1d(3, 2, padding=1),
        )
        widths = [width * 2**stage for stage in range(len(_STAGES))]
        fed = [width, *(inner * _EXPANSION for inner in widths)]
        blocks = [
            _Bottleneck(
                fed[stage] if block == 0 else fed[stage + 1],
                widths[stage],
                2 if block == 0 and stage > 0 else 1,
            )
            for stage, count in enumerate(_STAGES)
            for block in range(count)
        ]
        self.blocks = nn.Sequential(*blocks)
        self.head = Linear(fed[-1], 1)
        for module in self.modules():
            # Drawing for a network without memory would import PyTorch's compiler, for seconds.
            if isinstance(module, nn.Conv1d) and not module.weight.is_meta:
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def features(self, x: Tensor) -> Tensor:
        """Return what the head sees of ``(batch, leads, samples)``: ``(batch, 32 * width)``."""
        pooled: Tensor = self.blocks(self.stem(x)).mean(-1)
        return pooled

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits, ``(batch,)``, of ``(batch, leads, samples)`` float32."""
        logits: Tensor = self.head(self.features(x)).squeeze(-1)
        return logits
