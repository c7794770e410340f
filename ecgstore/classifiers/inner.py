"""Inner folds: training records held out of a fit, to choose a strength or to know when to stop."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ecgstore.errors import NotEnoughDataError, UsageError
from ecgstore.splitting.drawing import draw_inner

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ecgstore.tasks import Target

__all__ = ["Scaled", "inner_folds"]


def inner_folds(
    y: NDArray[np.float64],
    groups: NDArray[np.intp] | None,
    folds: int,
    *,
    seed: int,
    target: Target,
) -> NDArray[np.intp]:
    """Divide training records into stratified folds; each fold holds every class.

    Args:
        y: ``(records,)`` labels.
        groups: ``(records,)`` number of each record's patient, whose records stay together;
            without it each record is a patient of its own.
        folds: How many.
        seed: Seed of the draw.
        target: What the labels are.

    Returns:
        ``(records,)`` fold numbers from 0.

    Raises:
        UsageError: Fewer than two folds are asked for.
        NotEnoughDataError: There are fewer patients, in all or of a class, than folds.
    """
    if folds < 2:
        msg = f"folds is {folds}; at least 2 are needed to hold records out."
        raise UsageError(msg)
    groups = np.arange(len(y)) if groups is None else groups
    fold = draw_inner(y, groups, folds, seed=seed, target=target)
    if target in {"binary", "multiclass"}:
        for label in np.unique(y):
            mine = y == label
            patients = len(np.unique(groups[mine]))
            if len(np.unique(fold[mine])) < folds:
                msg = f"{patients} training patients with the label {label:g} "
                msg += f"cannot be divided into {folds} inner folds."
                hint = "Label more records, set fewer folds, or use xgboost or logistic."
                counts = {"patients": patients, "folds": folds}
                raise NotEnoughDataError(msg, task=target, counts=counts, hint=hint)
    return fold


class Scaled:
    """Standardisation fitted to training records, in double precision; flat features become 0.

    Args:
        x: ``(records, dim)`` training vectors.

    Attributes:
        mean: ``(dim,)`` means.
        scale: ``(dim,)`` population standard deviations; 1 where a feature is flat.
    """

    def __init__(self, x: NDArray[np.float32]) -> None:
        self.mean: NDArray[np.float64] = x.mean(axis=0, dtype=np.float64)
        scale = x.std(axis=0, dtype=np.float64)
        # Rounding leaves a trace of a deviation in a flat feature, which must not be blown up.
        flat = scale <= np.finfo(np.float32).eps * np.abs(self.mean)
        self.scale: NDArray[np.float64] = np.where(flat, 1.0, scale)

    def __call__(self, x: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return ``(records, dim)`` standardised vectors."""
        scaled: NDArray[np.float64] = (x - self.mean) / self.scale
        return scaled
