"""Whether a figure differs between groups by more than chance: Cochran's Q and I²."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ecgstore.errors import NotEnoughDataError, UsageError
from ecgstore.statistics.bootstrap import counts_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

__all__ = ["Heterogeneity", "covariance_between", "heterogeneity"]

_BLOCK = 100
"""Resamples counted at once."""

_RANK = 1e-9
"""Variances below this part of the greatest are taken as 0."""


@dataclass(frozen=True)
class Heterogeneity:
    """What is left between groups once one common value is fitted.

    Attributes:
        q: Cochran's Q.
        df: Its degrees of freedom, groups - 1.
        p: Probability of so large a Q where all groups have one value: chi-square with `df`.
        i2: Share of the variation that is not chance, 0 to 1: (Q - df) / Q, not below 0.
        common: The common value.
    """

    q: float
    df: int
    p: float
    i2: float
    common: float


def heterogeneity(
    values: NDArray[np.float64], covariance: NDArray[np.float64]
) -> Heterogeneity | None:
    """Test whether groups have one common value.

    Q = Σ wᵢ (xᵢ - x̄)² with wᵢ = 1 / varianceᵢ and x̄ their weighted mean (Cochran 1954, The
    combination of estimates from different experiments, Biometrics 10:101); I² after Higgins and
    Thompson 2002, Stat Med 21:1539. Given a whole covariance, as when patients are in several
    groups, Q is the same least sum of squares with the inverse of the covariance as weights
    (generalised least squares, Aitken 1935); with 0 beside the diagonal that is Cochran's.

    Args:
        values: ``(groups,)`` estimates.
        covariance: ``(groups,)`` their variances, or ``(groups, groups)``.

    Returns:
        None where it cannot be told: a variance is 0, or one group follows from the others.

    Raises:
        UsageError: There are fewer than two groups, or a figure is not finite.
    """
    from scipy.stats import chi2

    values = np.asarray(values, dtype=np.float64)
    covariance = np.asarray(covariance, dtype=np.float64)
    if covariance.ndim == 1:
        covariance = np.diag(covariance)
    if len(values) < 2 or not (np.isfinite(values).all() and np.isfinite(covariance).all()):
        msg = f"Heterogeneity needs finite figures of at least 2 groups; {len(values)} were given."
        raise UsageError(msg)
    spread = np.linalg.eigvalsh(covariance)
    if not spread[0] > _RANK * spread[-1]:
        return None
    ones = np.ones(len(values))
    solved = np.linalg.solve(covariance, np.column_stack([values, ones]))
    common = float(ones @ solved[:, 0] / (ones @ solved[:, 1]))
    rest = values - common
    q = float(rest @ np.linalg.solve(covariance, rest))
    df = len(values) - 1
    return Heterogeneity(
        q=q,
        df=df,
        p=float(chi2.sf(q, df)),
        i2=max(0.0, (q - df) / q) if q > 0 else 0.0,
        common=common,
    )


def covariance_between(
    statistic: Callable[[NDArray[np.integer[Any]]], NDArray[np.float64]],
    n_groups: int,
    *,
    resamples: int = 2000,
    seed: int = 0,
) -> NDArray[np.float64]:
    """Return the bootstrap covariance of several figures of the same patients.

    Patients are drawn with replacement, all their records with them (Efron 1979; clusters: Davison
    and Hinkley 1997, section 3.8). Resamples on which a figure is not defined are left out.

    Args:
        statistic: Takes ``(resamples, patients)`` counts and returns ``(resamples, figures)``.
        n_groups: Patients.
        resamples: How many to draw.
        seed: Seed of the draw.

    Returns:
        ``(figures, figures)``.

    Raises:
        NotEnoughDataError: Fewer than half of the resamples define every figure.
    """
    rng = np.random.default_rng(seed)
    found = [
        statistic(counts_of(rng.integers(0, n_groups, (min(_BLOCK, resamples - i), n_groups))))
        for i in range(0, resamples, _BLOCK)
    ]
    figures = np.concatenate(found)
    figures = figures[np.isfinite(figures).all(axis=1)]
    if len(figures) < max(2, resamples / 2):
        msg = f"Only {len(figures)} of {resamples} resamples define the figure in every group."
        raise NotEnoughDataError(msg, task="", counts={"resamples": len(figures)})
    return np.atleast_2d(np.cov(figures, rowvar=False))
