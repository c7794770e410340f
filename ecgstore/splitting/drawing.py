"""Drawing: the ways to divide records into parts, as pure functions of labels and groups.

Every function keeps groups (patients) whole, and gives the same draw for the same seed anywhere.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ecgstore.errors import NotEnoughDataError
from ecgstore.splitting.stratify import deal, iterative, marks, strata

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from ecgstore.tasks import Target

__all__ = ["draw", "draw_folds", "draw_inner", "draw_several", "held_out"]


def draw(
    labels: NDArray[np.float64],
    groups: NDArray[np.intp],
    *,
    repeats: int,
    test_size: float,
    seed: int,
    target: Target = "binary",
) -> Iterator[NDArray[np.bool_]]:
    """Draw stratified reshuffles that keep groups whole.

    Args:
        labels: ``(records,)``
        groups: ``(records,)`` group numbers 0 … g-1; each occurs.
        repeats: How many.
        test_size: Part of the groups to test on.
        seed: Seed of the draw. The first k of n repeats are those of k repeats.
        target: What the labels are; see `strata` for what a group counts as.

    Yields:
        ``(records,)`` bool, True for test, one a repeat.

    Raises:
        ValueError: A stratum has too few groups for both sides.
    """
    from sklearn.model_selection import StratifiedShuffleSplit

    stratum = strata(labels, groups, target)
    splitter = StratifiedShuffleSplit(repeats, test_size=test_size, random_state=seed)
    for _, chosen in splitter.split(stratum[:, None], stratum):
        test = np.zeros(len(stratum), dtype=bool)
        test[chosen] = True
        yield test[groups]


def draw_several(
    labels: NDArray[np.float64],
    groups: NDArray[np.intp],
    *,
    repeats: int,
    test_size: float,
    seed: int,
) -> Iterator[NDArray[np.bool_]]:
    """Draw reshuffles that are stratified by several binary labels at once; see `iterative`.

    Args:
        labels: ``(records, labels)`` 0 or 1, NaN where it is not told.
        groups: See `draw`.
        repeats: See `draw`.
        test_size: See `draw`.
        seed: See `draw`.

    Yields:
        ``(records,)`` bool, True for test, one a repeat.
    """
    has = marks(labels == 1, groups)
    for seed_of in _seeds(seed, repeats):
        yield iterative(has, (1 - test_size, test_size), seed_of)[groups] == 1


def draw_folds(
    labels: NDArray[np.float64],
    groups: NDArray[np.intp],
    *,
    folds: int,
    repeats: int,
    seed: int,
    target: Target = "binary",
) -> Iterator[NDArray[np.bool_]]:
    """Draw stratified k-fold cross-validation, once or repeatedly.

    Args:
        labels: ``(records,)``, or ``(records, labels)`` to stratify by several.
        groups: See `draw`.
        folds: How many parts; each is the test part once a repetition.
        repeats: How many times all are dealt anew.
        seed: See `draw`.
        target: See `draw`; without meaning for several labels.

    Yields:
        ``(records,)`` bool, True for test: the folds of the first repetition, then of the next.
    """
    for seed_of in _seeds(seed, repeats):
        fold = _folds(labels, groups, folds, seed_of, target)
        for number in range(folds):
            yield fold == number


def draw_inner(
    labels: NDArray[np.float64],
    groups: NDArray[np.intp],
    k: int,
    seed: int,
    target: Target = "binary",
) -> NDArray[np.intp]:
    """Divide training records into k stratified folds that keep groups whole.

    Args:
        labels: ``(records,)``, or ``(records, labels)`` to stratify by several.
        groups: ``(records,)`` any group numbers, such as the patients of a training part.
        k: Folds.
        seed: Seed, 0 … 2**32 - 1.
        target: What the labels are.

    Returns:
        ``(records,)`` fold numbers 0 … k-1. Without any one fold every class is still there.

    Raises:
        NotEnoughDataError: There are too few groups, in all or with a class.
    """
    codes = np.unique(groups, return_inverse=True)[1]
    count = int(codes.max()) + 1 if len(codes) else 0
    if not 2 <= k <= count:
        msg = f"{count} patients cannot be divided into {k} folds."
        raise NotEnoughDataError(msg, task="", counts={"patients": count, "folds": k})
    fold = _folds(labels, codes, k, seed, target)
    if labels.ndim == 1 and target in ("binary", "multiclass"):
        for value in np.unique(labels):
            having = labels == value
            if len(np.unique(fold[having])) == 1:
                patients = len(np.unique(codes[having]))
                msg = (
                    f"The training part cannot be divided into {k} folds: {patients} patient"
                    f"{'' if patients == 1 else 's'} with label {value:g} leave a fold that "
                    "holds all of them."
                )
                hint = "Label more records, or ask for fewer folds."
                raise NotEnoughDataError(msg, task="", counts={"patients": patients}, hint=hint)
    return fold


def held_out(
    test: NDArray[np.bool_], groups: NDArray[np.intp]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Take the records of a group that is tested on out of the training part.

    Args:
        test: ``(records,)`` what is tested on.
        groups: ``(records,)`` group numbers 0 … g-1.

    Returns:
        ``(records,)`` bool what is learnt from, and what is on neither side.
    """
    tested = marks(test[:, None], groups)[:, 0][groups]
    return ~tested, tested & ~test


def _folds(
    labels: NDArray[np.float64], groups: NDArray[np.intp], k: int, seed: int, target: Target
) -> NDArray[np.intp]:
    if labels.ndim == 2:
        return iterative(marks(labels == 1, groups), [1 / k] * k, seed)[groups]
    return deal(strata(labels, groups, target), k, seed)[groups]


def _seeds(seed: int, repeats: int) -> list[int]:
    """Return a seed a repeat; the first is the seed itself."""
    more = np.random.SeedSequence(seed).generate_state(max(repeats - 1, 1))
    return [seed, *map(int, more)][:repeats]
