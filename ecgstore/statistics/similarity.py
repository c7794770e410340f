"""How alike two models are: in their vectors of the same records, and in their errors."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ecgstore.errors import NotEnoughDataError, UsageError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

__all__ = ["OVERLAPS", "linear_cka", "overlaps"]

_FEWEST = 4
"""Records that the unbiased estimate divides by: n (n - 3)."""

OVERLAPS = ("double fault", "error overlap", "Q statistic", "kappa")
"""The figures of `overlaps`, in its order."""


def linear_cka(x: NDArray[np.floating], y: NDArray[np.floating]) -> float:
    """Return the linear centred kernel alignment of two models' vectors of the same records.

    1 where one is the other turned, mirrored or scaled; about 0 where they have nothing in common.
    The alignment is that of Kornblith et al. (2019, ICML, arXiv 1905.00414); each of its three
    terms is the unbiased estimate of Song et al. (2012, JMLR 13:1393), as Nguyen, Raghu and
    Kornblith (2021, ICLR, arXiv 2010.15327) use it: the plain one comes near 1 for anything when
    vectors are long and records few. So it may be a little below 0. Work and memory grow with the
    number of records, not with its square.

    Args:
        x: ``(records, dim)`` vectors of one model.
        y: ``(records, dim)`` vectors of the other.

    Returns:
        The alignment; NaN where the vectors of one model are all alike.

    Raises:
        NotEnoughDataError: There are fewer than 4 records.
        UsageError: The numbers of records differ.
    """
    if len(x) != len(y):
        msg = f"{len(x)} and {len(y)} vectors do not belong to the same records."
        raise UsageError(msg)
    if len(x) < _FEWEST:
        msg = f"{len(x)} records have the vectors of both models; the alignment needs {_FEWEST}."
        raise NotEnoughDataError(msg, task="CKA", counts={"records": len(x)})
    a, b = _centred(x), _centred(y)
    own = _dependence(a, a), _dependence(b, b)
    if min(own) <= 0:
        return float("nan")
    return _dependence(a, b) / float(np.sqrt(own[0] * own[1]))


def _centred(x: NDArray[np.floating]) -> Array:
    """Centre and scale as a whole: neither changes the alignment, both keep digits."""
    centred: Array = x.astype(np.float64)
    centred -= centred.mean(axis=0)
    return centred / max(float(np.abs(centred).max()), np.finfo(np.float64).tiny)


def _dependence(x: Array, y: Array) -> float:
    """Return the unbiased HSIC of Song et al. (2012), equation 5, for linear kernels.

    With K and L the inner products of all records without those of a record with itself, it is
    (tr KL + 1'K1 1'L1 / ((n-1)(n-2)) - 2/(n-2) 1'KL1) / (n (n-3)); none of it needs K or L.
    """
    n = len(x)
    own_x, own_y = np.square(x).sum(axis=1), np.square(y).sum(axis=1)
    row_x, row_y = x @ x.sum(axis=0) - own_x, y @ y.sum(axis=0) - own_y
    trace = np.square(x.T @ y).sum() - own_x @ own_y
    chance = row_x.sum() * row_y.sum() / ((n - 1) * (n - 2))
    return float((trace + chance - 2 / (n - 2) * (row_x @ row_y)) / (n * (n - 3)))


def overlaps(cells: Array) -> Array:
    """Return how much two models err on the same records.

    Double fault (Giacinto and Roli 2001) is the share of records both get wrong; error overlap,
    the same among the records that either gets wrong; Yule's Q and kappa as Kuncheva and Whitaker
    (2003, Machine Learning 51:181) define them for right and wrong, both 0 where errors are
    independent and 1 where they are the same. Lower is more complementary.

    Args:
        cells: ``(..., 4)`` numbers of records: both right, only the first, only the second, none.

    Returns:
        ``(..., 4)`` the figures of `OVERLAPS`; NaN where one is not defined.
    """
    both, first, second, none = np.moveaxis(np.asarray(cells, np.float64), -1, 0)
    total, cross = both + first + second + none, both * none - first * second
    chance = (both + first) * (first + none) + (both + second) * (second + none)
    figures = (
        (none, total),
        (none, first + second + none),
        (cross, both * none + first * second),
        (2 * cross, chance),
    )
    return np.stack(
        [np.divide(up, low, out=np.full(up.shape, np.nan), where=low > 0) for up, low in figures],
        axis=-1,
    )
