"""How well a signal was rebuilt: PSNR, SSIM and MAE, after both sides are scaled to 0..1."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from ecgstore.errors import NotEnoughDataError, UsageError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    Array = NDArray[np.float64]

__all__ = ["mae", "psnr", "rebuilt", "ssim", "unit_range"]

_WINDOW, _SIGMA = 11, 1.5
_K1, _K2 = 0.01, 0.03


def unit_range(x: ArrayLike) -> Array:
    """Return a signal scaled by its least and largest value to 0..1; a constant one becomes 0."""
    x = np.asarray(x, np.float64)
    low, high = x.min(), x.max()
    scaled: Array = (x - low) / (high - low) if high > low else np.zeros_like(x)
    return scaled


def mae(measured: ArrayLike, made: ArrayLike) -> float:
    """Return the mean absolute difference."""
    x, y = _pair(measured, made, least=1)
    return float(np.abs(x - y).mean())


def psnr(measured: ArrayLike, made: ArrayLike, *, peak: float = 1.0) -> float:
    """Return the peak signal-to-noise ratio, ``10 log10(peak^2 / mean squared difference)``.

    Args:
        measured: ``(samples,)``.
        made: ``(samples,)``.
        peak: The largest value a sample can have.

    Returns:
        Decibels; infinite where the two are equal.
    """
    x, y = _pair(measured, made, least=1)
    error = float(np.square(x - y).mean())
    return 10 * math.log10(peak**2 / error) if error else math.inf


def ssim(measured: ArrayLike, made: ArrayLike, *, peak: float = 1.0) -> float:
    """Return the mean structural similarity (Wang, Bovik et al. 2004, IEEE TIP 13:600), eq. 13.

    Its windows are those of the paper in one dimension: 11 samples, weighted by a Gaussian of
    deviation 1.5 whose weights add up to 1; K1 = 0.01, K2 = 0.03. Only windows that lie wholly in
    the signal count.

    Args:
        measured: ``(samples,)``, 11 at least.
        made: ``(samples,)``.
        peak: The range of the samples, L in the paper.

    Raises:
        NotEnoughDataError: The signals are shorter than a window.
    """
    x, y = _pair(measured, made, least=_WINDOW)
    weights = np.exp(-0.5 * ((np.arange(_WINDOW) - _WINDOW // 2) / _SIGMA) ** 2)
    weights /= weights.sum()

    def local(signal: Array) -> Array:
        return np.convolve(signal, weights, mode="valid")

    mean_x, mean_y = local(x), local(y)
    var_x, var_y = local(x * x) - mean_x**2, local(y * y) - mean_y**2
    covariance = local(x * y) - mean_x * mean_y
    c1, c2 = (_K1 * peak) ** 2, (_K2 * peak) ** 2
    above = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
    below = (mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2)
    return float((above / below).mean())


def rebuilt(measured: ArrayLike, made: ArrayLike) -> dict[str, float]:
    """Return ``psnr_db``, ``ssim`` and ``mae`` of a signal that was rebuilt.

    Each side is first scaled to 0..1 by its own least and largest value, as AnyECG's figures are
    taken to be [chosen], so neither unit nor offset counts.

    Args:
        measured: ``(samples,)`` what was measured.
        made: ``(samples,)`` what was made in its place.
    """
    x, y = unit_range(measured), unit_range(made)
    return {"psnr_db": psnr(x, y), "ssim": ssim(x, y), "mae": mae(x, y)}


def _pair(measured: ArrayLike, made: ArrayLike, *, least: int) -> tuple[Array, Array]:
    x, y = np.asarray(measured, np.float64), np.asarray(made, np.float64)
    if x.ndim != 1 or x.shape != y.shape:
        msg = f"Signals of the shapes {x.shape} and {y.shape} cannot be compared."
        raise UsageError(msg)
    if len(x) < least:
        msg = f"A signal has {len(x)} samples; {least} are needed."
        raise NotEnoughDataError(msg, task="reconstruction", counts={"samples": len(x)})
    return x, y
