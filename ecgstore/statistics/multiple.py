"""p-values adjusted for how many comparisons were made.

A p-value that is NaN, because its test could not be made, stays so and is not counted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import ArrayLike, NDArray

    Array = NDArray[np.float64]

__all__ = ["Correction", "adjusted", "benjamini_hochberg", "holm"]

Correction = Literal["holm", "bh"]


def holm(p: ArrayLike) -> Array:
    """Bound the chance of any false finding, whatever the dependence (Holm 1979).

    Args:
        p: ``(k,)`` p-values.

    Returns:
        ``(k,)`` adjusted ones, to be held against the level as one would a single one.

    Example:
        >>> holm([0.01, 0.04]).tolist()
        [0.02, 0.04]
    """
    return _of_known(p, _stepped_down)


def benjamini_hochberg(p: ArrayLike) -> Array:
    """Bound the share of false ones among the findings (Benjamini and Hochberg 1995).

    It holds where comparisons are independent or positively dependent.

    Args:
        p: ``(k,)`` p-values.

    Returns:
        As `holm`.
    """
    from scipy.stats import false_discovery_control

    return _of_known(p, false_discovery_control)


def adjusted(p: ArrayLike, correction: Correction) -> Array:
    """Return p-values adjusted by the correction of a name.

    Args:
        p: ``(k,)`` p-values.
        correction: ``holm``, see `holm`; or ``bh``, see `benjamini_hochberg`.
    """
    return holm(p) if correction == "holm" else benjamini_hochberg(p)


def _of_known(p: ArrayLike, adjust: Callable[[Array], Array]) -> Array:
    values = np.array(p, dtype=np.float64)
    known = np.isfinite(values)
    if known.any():
        values[known] = adjust(values[known])
    return values


def _stepped_down(p: Array) -> Array:
    order = np.argsort(p)
    out = np.empty_like(p)
    out[order] = np.minimum(np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)), 1)
    return out
