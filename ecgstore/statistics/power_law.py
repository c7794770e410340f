"""Power laws of learning curves: how a metric grows with the labels it was learned from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ecgstore.errors import NotEnoughDataError

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["POINTS", "PowerLaw", "fit_power_law"]

POINTS = 4
"""Sizes that three parameters need at least: one more than they are."""

_RATES = np.geomspace(0.01, 3, 400)
"""Rates tried, 1.4 % apart. Below, the curve is a logarithm; above, a step."""


@dataclass(frozen=True, eq=False)
class PowerLaw:
    """metric = a - b · n^(-c), one a fit.

    Attributes:
        a: ``(…)`` value with labels without end.
        b: ``(…)`` what is missing to it at one label, not negative.
        c: ``(…)`` rate; NaN where b is 0, as a level line has none.
    """

    a: NDArray[np.float64]
    b: NDArray[np.float64]
    c: NDArray[np.float64]

    def at(self, n: float) -> NDArray[np.float64]:
        """Return the metric at so many labels."""
        with np.errstate(invalid="ignore"):
            fallen: NDArray[np.float64] = self.b * np.float64(n) ** -self.c
        return self.a - np.where(self.b > 0, fallen, 0)

    def needed(self, value: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the labels at which the metric reaches a value.

        Infinity where it never does; 0 where the line is level and there already.
        """
        gap = self.a - value
        with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
            found = (self.b / gap) ** (1 / self.c)
        level = np.where(gap >= 0, 0.0, np.inf)
        return np.where(self.b > 0, np.where(gap > 0, found, np.inf), level)


def fit_power_law(
    n: NDArray[np.float64], values: NDArray[np.float64], *, ceiling: float = np.inf
) -> PowerLaw:
    """Fit metric = a - b · n^(-c) by bounded least squares, to many curves at once.

    Inverse power law of classifiers after Figueroa, Zeng-Treitler, Kandula and Ngo 2012, BMC Med
    Inform Decis Mak 12:8; why three parameters, and when they mislead: Viering and Loog 2023, IEEE
    TPAMI 45:7799. For a given c the best a and b are found in closed form under b ≥ 0 and
    a ≤ `ceiling`; c is the best of a grid from 0.01 to 3, so there is no start to depend on.

    Args:
        n: ``(sizes,)`` labels, positive and different.
        values: ``(…, sizes)`` the metric, higher is better.
        ceiling: The best value the metric can have, such as 1 for AUROC.

    Raises:
        NotEnoughDataError: There are fewer than `POINTS` sizes.
    """
    n, values = np.asarray(n, dtype=np.float64), np.asarray(values, dtype=np.float64)
    if len(np.unique(n)) < POINTS:
        msg = f"A power law needs {POINTS} sizes at least; {len(np.unique(n))} were given."
        raise NotEnoughDataError(msg, task="", counts={"sizes": len(n)})
    unit = np.exp(np.log(n).mean())
    z = (n / unit) ** -_RATES[:, None]  # (rates, sizes)
    middle = values.mean(axis=-1)[..., None]
    rest, room = values - middle, ceiling - middle
    centred = z - z.mean(axis=1, keepdims=True)
    b = np.maximum(-(rest @ centred.T) / (centred**2).sum(axis=1), 0)  # (…, rates)
    a = b * z.mean(axis=1)
    if ceiling < np.inf:  # beyond it the best is on it: least squares in b alone
        held = (room * z.sum(axis=1) - rest @ z.T) / (z**2).sum(axis=1)
        b, a = np.where(a > room, np.maximum(held, 0), b), np.minimum(a, room)
    best = _squares(rest, z, a, b).argmin(axis=-1)[..., None]

    def taken(found: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.take_along_axis(found, best, axis=-1)[..., 0]

    rate = _RATES[best[..., 0]]
    level, b = middle[..., 0] + taken(a), taken(b)
    return PowerLaw(a=level, b=b * unit**rate, c=np.where(b > 0, rate, np.nan))


def _squares(
    values: NDArray[np.float64],
    z: NDArray[np.float64],
    a: NDArray[np.float64],
    b: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Return the sum of squared errors of each rate, without an array of all errors."""
    k = z.shape[1]
    rising, squares = z.sum(axis=1), (z**2).sum(axis=1)
    total = (values**2).sum(axis=-1)[..., None]
    left: NDArray[np.float64] = (
        total
        - 2 * a * values.sum(axis=-1)[..., None]
        + 2 * b * (values @ z.T)
        + k * a**2
        - 2 * a * b * rising
        + b**2 * squares
    )
    return left
