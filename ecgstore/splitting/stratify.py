"""Stratification: what a patient counts as, so that every part of a split holds its share of each.

Labels are of records, but patients are drawn; these functions go from the one to the other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from ecgstore.tasks import Target

__all__ = ["deal", "iterative", "marks", "strata"]

_BINS = 10
_PER_BIN = 10
"""Groups a bin holds at least, so that a tenth of them can be tested on."""
_UNIT = 1 << 20
"""What is wanted of a part is counted in whole numbers, so that no rounding decides a tie."""


def strata(
    labels: NDArray[np.float64], groups: NDArray[np.intp], target: Target
) -> NDArray[np.intp]:
    """Return the stratum of each group.

    Args:
        labels: ``(records,)``
        groups: ``(records,)`` numbers 0 … g-1; each occurs.
        target: Of binary labels a group counts as positive when any of its records is; of
            several classes as the one that fewest groups have, of those it has; of survival as
            an event when any is seen; of numbers by its mean, in tenths of equal size.

    Returns:
        ``(g,)`` whole numbers from 0.
    """
    n = int(groups.max()) + 1
    if target == "continuous":
        means = np.bincount(groups, labels, n) / np.bincount(groups, minlength=n)
        rank = np.empty(n, dtype=np.intp)
        rank[means.argsort(kind="stable")] = np.arange(n)
        bins: NDArray[np.intp] = rank * max(1, min(_BINS, n // _PER_BIN)) // n
        return bins
    if target == "multiclass":
        has = marks(labels[:, None] == np.arange(labels.max() + 1), groups)
        rarest_first = np.argsort(has.sum(axis=0), kind="stable")
        rarest: NDArray[np.intp] = rarest_first[has[:, rarest_first].argmax(axis=1)]
        return rarest
    positive = labels == 1 if target == "binary" else labels > 0
    return marks(positive[:, None], groups)[:, 0].astype(np.intp)


def marks(positive: NDArray[np.bool_], groups: NDArray[np.intp]) -> NDArray[np.bool_]:
    """Return for each group and label whether any of its records has it, ``(groups, labels)``."""
    out = np.zeros((int(groups.max()) + 1, positive.shape[1]), dtype=bool)
    np.logical_or.at(out, groups, positive)
    return out


def deal(strata: NDArray[np.intp], k: int, seed: int) -> NDArray[np.intp]:
    """Deal groups into k folds like cards, one stratum after the other, each well shuffled.

    So the folds differ by at most one group in each stratum, and by at most one in all.

    Args:
        strata: ``(groups,)`` from `strata`.
        k: Folds.
        seed: Seed, 0 … 2**32 - 1.

    Returns:
        ``(groups,)`` fold numbers 0 … k-1.
    """
    # RandomState and not Generator: NumPy promises that its draws never change (NEP 19).
    shuffled = np.random.RandomState(seed).permutation(len(strata))
    order = shuffled[np.argsort(strata[shuffled], kind="stable")]
    folds = np.empty(len(strata), dtype=np.intp)
    folds[order] = np.arange(len(strata)) % k
    return folds


def iterative(has: NDArray[np.bool_], parts: Sequence[float], seed: int) -> NDArray[np.intp]:
    """Divide groups by several labels at once.

    Iterative stratification (Sechidis, Tsoumakas & Vlahavas 2011, On the stratification of
    multi-label data, ECML PKDD, algorithm 1): the label that fewest of the remaining groups have
    is dealt out first, each of its groups to the part that still wants most of that label, then
    to the one that wants most groups; ties fall by lot.

    Args:
        has: ``(groups, labels)`` from `marks`.
        parts: Share of each part; they sum to 1.
        seed: Seed, 0 … 2**32 - 1.

    Returns:
        ``(groups,)`` the part of each group.
    """
    lot = np.random.RandomState(seed)
    shares = [round(part * _UNIT) for part in parts]
    left: list[int] = has.sum(axis=0).tolist()
    wanted = [share * len(has) for share in shares]  # groups a part still wants, in units
    wanted_of = [[share * count for share in shares] for count in left]  # the same by label
    order = lot.permutation(len(has))
    labels_of = [np.flatnonzero(one).tolist() for one in has]
    out = np.full(len(has), -1, dtype=np.intp)

    def put(group: int, by: list[int]) -> None:
        needs = list(zip(by, wanted, strict=True))
        most = max(needs)
        best = [part for part, need in enumerate(needs) if need == most]
        part = best[0] if len(best) == 1 else best[lot.randint(len(best))]
        out[group] = part
        wanted[part] -= _UNIT
        for label in labels_of[group]:
            wanted_of[label][part] -= _UNIT
            left[label] -= 1

    while any(left):
        label = min((count, label) for label, count in enumerate(left) if count)[1]
        for group in order[has[order, label] & (out[order] < 0)].tolist():
            put(group, wanted_of[label])
    for group in order[out[order] < 0].tolist():  # groups without any label
        put(group, wanted)
    return out
