"""Scaling of vectors, per dimension, fitted on some records and applied to all: pure numpy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = ["Scale", "Statistics", "fused", "normalise", "statistics"]

Scale = Literal["minmax", "zscore", "none"]

_BLOCK = 256
"""Rows scanned at once for statistics: 1.5 MB in double precision at 768 dimensions, for the
processor's cache."""


@dataclass(frozen=True, eq=False)
class Statistics:
    """Per-dimension figures of one member over the records scaling is fitted on.

    Attributes:
        mn: ``(dim,)`` float32 least values.
        mx: ``(dim,)`` float32 greatest values.
        mean: ``(dim,)`` float32 means.
        std: ``(dim,)`` float32 population standard deviations; 0 where all values are equal.
        n_train: Records they were taken over.
    """

    mn: NDArray[np.float32]
    mx: NDArray[np.float32]
    mean: NDArray[np.float32]
    std: NDArray[np.float32]
    n_train: int

    def matches(self, other: Statistics) -> bool:
        """Tell whether both describe the same records; means may differ by rounding."""
        return (
            self.n_train == other.n_train
            and np.array_equal(self.mn, other.mn)
            and np.array_equal(self.mx, other.mx)
            and np.allclose(self.mean, other.mean, rtol=1e-5, atol=1e-7)
            and np.allclose(self.std, other.std, rtol=1e-5, atol=1e-7)
        )


def statistics(x: NDArray[np.float32], fitted_on: NDArray[np.bool_]) -> list[Statistics]:
    """Compute the statistics of several selections of rows in one pass.

    Rows outside a selection do not enter it, not even by rounding.

    Args:
        x: ``(records, dim)`` float32, all finite.
        fitted_on: ``(selections, records)`` bool; each selects a record at least.
    """
    shape = (len(fitted_on), x.shape[1])
    mn, mx = np.full(shape, np.inf, np.float32), np.full(shape, -np.inf, np.float32)
    total, squares = np.zeros(shape), np.zeros(shape)
    for start in range(0, len(x), _BLOCK):
        part = x[start : start + _BLOCK]
        chosen = fitted_on[:, start : start + _BLOCK]
        for k, rows in enumerate(chosen):
            if rows.any():
                mine = part[rows]
                np.minimum(mn[k], mine.min(axis=0), out=mn[k])
                np.maximum(mx[k], mine.max(axis=0), out=mx[k])
        weight, wide = chosen.astype(np.float64), part.astype(np.float64)
        total += weight @ wide
        squares += weight @ np.square(wide, out=wide)
    n = fitted_on.sum(axis=1)
    mean = total / n[:, None]
    variance = np.maximum(squares / n[:, None] - mean**2, 0)
    std = np.where(mx > mn, np.sqrt(variance), 0)
    return [
        Statistics(mn[k], mx[k], mean[k].astype(np.float32), std[k].astype(np.float32), int(n[k]))
        for k in range(len(n))
    ]


def normalise(
    x: NDArray[np.float32],
    fitted: Statistics,
    *,
    scale: Literal["minmax", "zscore"],
    out: NDArray[np.float32] | None = None,
) -> NDArray[np.float32]:
    """Scale vectors, ``(records, dim)`` float32, into ``out`` or a new array.

    ``minmax`` equals the SQL macro ``minmax01`` of DuckDB bit for bit: all in single precision.
    A row of NaN, which stands for a vector that is lacking, stays NaN.
    """
    with np.errstate(over="ignore"):  # values far outside a tiny range become infinite, as in SQL
        low, span = (
            (fitted.mn, fitted.mx - fitted.mn) if scale == "minmax" else (fitted.mean, fitted.std)
        )
        flat = ~(span > 0)
        out = np.subtract(x, low, out=out)
        np.divide(out, np.where(flat, np.float32(1), span), out=out)
    if flat.any():
        out[:, flat] = np.where(np.isnan(out[:, flat]), np.float32(np.nan), np.float32(0))
    return out


def fused(
    blocks: Sequence[NDArray[np.float32]],
    fitted: Sequence[Statistics],
    *,
    scale: Scale,
    out: NDArray[np.float32] | None = None,
) -> NDArray[np.float32]:
    """Scale the vectors of each member and concatenate them.

    Args:
        blocks: ``(records, dim)`` float32 per member, as `matrix` returns them.
        fitted: Statistics per member; not looked at when ``scale`` is ``none``.
        scale: ``minmax``, ``zscore`` or ``none``.
        out: ``(records, sum of dims)`` float32 to write into; a new array by default.
    """
    if out is None:
        out = np.empty((len(blocks[0]), sum(x.shape[1] for x in blocks)), np.float32)
    start = 0
    for i, x in enumerate(blocks):
        part = out[:, start : start + x.shape[1]]
        if scale == "none":
            part[:] = x
        else:
            normalise(x, fitted[i], scale=scale, out=part)
        start += x.shape[1]
    return out
