"""The db6 wavelet transform: noise taken out of a record, and one view that AnyECG learns from.

Written once, on tensors; arrays are taken as tensors of the same memory.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from ecgstore.models.arithmetic import Signal

__all__ = ["DB6", "analyse", "denoise", "synthesise"]

DB6 = (
    0.11154074335010947,
    0.49462389039845306,
    0.7511339080210954,
    0.31525035170919763,
    -0.22626469396543983,
    -0.12976686756726194,
    0.09750160558732304,
    0.027522865530305727,
    -0.03158203931748603,
    0.0005538422011614961,
    0.004777257510945511,
    -0.0010773010853084796,
)
"""The scaling filter with six vanishing moments and extremal phase: Daubechies, Ten Lectures on
Wavelets, SIAM 1992, section 6.4. It is the factor of ``((1 + z) / 2) ** 6`` times those roots of
``sum(binomial(5 + k, k) * y**k for k < 6)``, ``y = (2 - z - 1 / z) / 4``, that lie inside the unit
circle, scaled to sum to the square root of 2."""

_TAPS = len(DB6)
_MAD = 0.6745
"""Median of the absolute value of a standard normal variable."""


def analyse(signal: Tensor, levels: int) -> list[tuple[Tensor, Tensor]]:
    """Split a signal into coarser and coarser approximations and what each leaves out.

    Args:
        signal: ``(…, samples)`` floating, any unit; its ends are reflected, the outermost sample
            repeated (half-sample symmetry).
        levels: How often to halve the rate.

    Returns:
        Approximation and detail of each level, the finest first; n samples become
        ``(n + 11) // 2`` coefficients of either kind.
    """
    found = []
    for _ in range(levels):
        signal, detail = _split(signal)
        found.append((signal, detail))
    return found


def synthesise(approximation: Tensor, detail: Tensor, n_samples: int) -> Tensor:
    """Return the ``(…, n_samples)`` that one level of `analyse` splits into these."""
    half = _TAPS // 2
    pair = torch.cat([x.unfold(-1, half, 1) for x in (approximation, detail)], dim=-1)
    taps = _filters(pair).reshape(half, 2, 2).flip(0)  # the later a coefficient, the earlier a tap
    return (pair @ taps.movedim(-1, 0).flatten(0, 1)).flatten(-2)[..., :n_samples]


def _split(signal: Tensor) -> tuple[Tensor, Tensor]:
    n = signal.shape[-1]
    place = torch.arange(2 - _TAPS, n + _TAPS - 1, device=signal.device) % (2 * n)
    mirrored = signal[..., torch.minimum(place, 2 * n - 1 - place)]
    approximation, detail = (mirrored.unfold(-1, _TAPS, 2) @ _filters(signal)).unbind(-1)
    return approximation, detail


def _filters(like: Tensor) -> Tensor:
    """Return the filters of approximation and detail, ``(taps, 2)``."""
    mirror = [(-1) ** i * tap for i, tap in enumerate(reversed(DB6))]
    return like.new_tensor(list(zip(DB6, mirror, strict=True)))


def denoise(signal: Signal, levels: int = 4) -> Signal:
    """Shrink the details of each lead towards 0 by what noise alone would reach.

    Soft thresholding at ``sigma * sqrt(2 ln n)`` with ``sigma = median(|d|) / 0.6745`` over the
    finest details d of the n samples: Donoho and Johnstone, Ideal spatial adaptation by wavelet
    shrinkage, Biometrika 81 (1994), 425.

    Args:
        signal: ``(…, leads, samples)`` array or tensor, any unit, each lead on its own.
        levels: Levels of details to shrink; the last approximation stays.
    """
    if isinstance(signal, np.ndarray):
        return _denoise(torch.from_numpy(np.ascontiguousarray(signal)), levels).numpy()
    return _denoise(signal, levels)


def _denoise(signal: Tensor, levels: int) -> Tensor:
    n = signal.shape[-1]
    found = analyse(signal, levels)
    noise = _median(found[0][1].abs()) / _MAD * math.sqrt(2 * math.log(n))
    lengths = [n, *(approximation.shape[-1] for approximation, _ in found)]
    result = found[-1][0]
    for (_, detail), length in zip(reversed(found), lengths[-2::-1], strict=True):
        shrunk = detail.sign() * (detail.abs() - noise).clamp(min=0)
        result = synthesise(result, shrunk, length)
    return result


def _median(x: Tensor) -> Tensor:
    """Return the median over the last axis, which is kept; PyTorch's own is the lower of two."""
    lower, upper = (sign * (sign * x).median(dim=-1, keepdim=True).values for sign in (1, -1))
    return (lower + upper) / 2
