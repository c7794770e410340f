"""Ridge regression out of fold, its strength chosen inside: a linear probe of many targets at once.

Every training part is a union of folds, so its normal equations are sums of those of folds, which
are made once. Classes are regressed as 0 and 1; for two classes the direction is that of Fisher's
linear discriminant (Hastie, Tibshirani and Friedman 2009, exercise 4.2).
"""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Collection

    from numpy.typing import NDArray

    Array = NDArray[np.float64]

__all__ = ["STRENGTHS", "Ridge"]

STRENGTHS = np.logspace(-4, 2, 7)
"""Penalties tried (Hoerl and Kennard 1970), in units of a standardised vector's variance: the loss
is the mean squared error plus strength times the sum of squared coefficients."""


class Ridge:
    """Ridge regression on vectors that are divided into folds, three or more.

    Vectors are standardised by the training records of each fit. Which strength a target gets in
    the fit without fold o is decided by the other folds alone: each in turn is predicted by a fit
    without it and o (nested cross-validation, Stone 1974).

    Args:
        x: ``(records, dim)`` vectors.
        fold: ``(records,)`` fold of each record, 0 … k-1; all records of a patient have one.
    """

    def __init__(self, x: NDArray[np.float32], fold: NDArray[np.intp]) -> None:
        self._x = x - x.mean(axis=0, dtype=np.float64)  # for precision; each fit centres anew
        self.rows = [np.flatnonzero(fold == k) for k in range(int(fold.max()) + 1)]
        self._sums = np.array([self._x[rows].sum(axis=0) for rows in self.rows])
        self._grams = [self._x[rows].T @ self._x[rows] for rows in self.rows]
        self._n = len(x)

    def scores(self, targets: Array) -> Array:
        """Return what each record is predicted by a fit without its fold, as `targets`."""
        strengths = self._chosen(targets)
        out = np.empty_like(targets)
        for o, rows in enumerate(self.rows):
            out[rows] = self._predicted({o}, targets, strengths[o], rows)
        return out

    def nested(self, targets: Array) -> Array:
        """Return predictions for a second model that is fitted to them.

        Returns:
            ``(folds, records, targets)``: in place o the records of fold o are predicted by the
            fit without it, and each other record by a fit without its own fold and o. So what is
            fitted to the others has seen nothing of fold o.
        """
        strengths = self._chosen(targets)
        out = np.empty((len(self.rows), *targets.shape))
        for o in range(len(self.rows)):
            for i, rows in enumerate(self.rows):
                out[o, rows] = self._predicted({o, i}, targets, strengths[o], rows)
        return out

    def _chosen(self, targets: Array) -> NDArray[np.intp]:
        """Return of each held-out fold and target the place of the best strength."""
        folds = range(len(self.rows))
        error = np.zeros((len(self.rows), len(STRENGTHS), targets.shape[1]))
        for pair in combinations(folds, 2):
            for s, (weights, level) in enumerate(
                self._fits(set(pair), targets, range(len(STRENGTHS)))
            ):
                for out, inner in (pair, pair[::-1]):
                    rows = self.rows[inner]
                    missed = self._x[rows] @ weights + level - targets[rows]
                    error[out, s] += (missed**2).sum(axis=0)
        best: NDArray[np.intp] = error.argmin(axis=1)
        return best

    def _predicted(
        self,
        out: Collection[int],
        targets: Array,
        strengths: NDArray[np.intp],
        rows: NDArray[np.intp],
    ) -> Array:
        """Predict records by a fit without some folds, each target with its own strength."""
        found = np.empty((len(rows), targets.shape[1]))
        wanted = np.unique(strengths)
        for s, (weights, level) in zip(wanted, self._fits(out, targets, wanted), strict=True):
            mine = strengths == s
            found[:, mine] = (self._x[rows] @ weights + level)[:, mine]
        return found

    def _fits(
        self, out: Collection[int], targets: Array, strengths: Collection[int]
    ) -> list[tuple[Array, Array]]:
        """Fit without some folds: per strength ``(dim, targets)`` weights and the levels."""
        from scipy.linalg import cho_factor, cho_solve

        kept = [k for k in range(len(self.rows)) if k not in out]
        rows = np.concatenate([self.rows[k] for k in kept])
        mean = sum(self._sums[k] for k in kept) / len(rows)
        level = targets[rows].mean(axis=0)
        gram = sum(self._grams[k] for k in kept) / len(rows) - np.outer(mean, mean)
        right = self._x[rows].T @ (targets[rows] - level) / len(rows)
        deviation = np.sqrt(np.maximum(np.diag(gram), 0))
        flat = deviation <= 1e-9 * max(float(deviation.max()), 1e-300)
        deviation[flat] = np.inf  # a number that never changes tells nothing
        gram = gram / np.outer(deviation, deviation)
        right = right / deviation[:, None]
        fits = []
        for s in strengths:
            held = gram + STRENGTHS[s] * np.eye(len(gram))
            weights = cho_solve(cho_factor(held), right) / deviation[:, None]
            fits.append((weights, level - mean @ weights))
        return fits
