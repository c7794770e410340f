"""Metrics of decisions for one of several classes: all follow from three sums a class.

The class with the highest probability is the decision. A resample's figures need, of each class,
how often it is true, how often it is decided, and how often both: no confusion matrix.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    Array = NDArray[np.float64]
    Sums = Callable[[Array], tuple[Array, Array, Array]]

__all__ = ["PREPARED"]


def _sums(labels: Array, scores: Array) -> Sums:
    """Return what gives, of resamples, ``(resamples, classes)`` true, decided and both."""
    classes = np.arange(scores.shape[1])
    true = (labels[:, None] == classes).astype(np.float64)
    decided = (scores.argmax(axis=1)[:, None] == classes).astype(np.float64)
    both = true * decided
    return lambda counts: (counts @ true, counts @ decided, counts @ both)


def _accuracy(labels: Array, scores: Array) -> Callable[[Array], Array]:
    sums = _sums(labels, scores)

    def kernel(counts: Array) -> Array:
        true, _, both = sums(counts)
        share: Array = both.sum(axis=1) / true.sum(axis=1)
        return share

    return kernel


def _balanced_accuracy(labels: Array, scores: Array) -> Callable[[Array], Array]:
    """Mean sensitivity over the classes that occur (Brodersen et al. 2010)."""
    sums = _sums(labels, scores)

    def kernel(counts: Array) -> Array:
        true, _, both = sums(counts)
        found = (both / np.maximum(true, 1)).sum(axis=1)
        mean: Array = found / (true > 0).sum(axis=1)
        return mean

    return kernel


def _macro_f1(labels: Array, scores: Array) -> Callable[[Array], Array]:
    """Mean F1 over the classes that are true or decided somewhere."""
    sums = _sums(labels, scores)

    def kernel(counts: Array) -> Array:
        true, decided, both = sums(counts)
        either = true + decided
        f1 = 2 * both / np.maximum(either, 1)
        mean: Array = f1.sum(axis=1) / (either > 0).sum(axis=1)
        return mean

    return kernel


def _kappa(labels: Array, scores: Array) -> Callable[[Array], Array]:
    """Agreement beyond chance (Cohen 1960); not defined where chance alone agrees always."""
    sums = _sums(labels, scores)

    def kernel(counts: Array) -> Array:
        true, decided, both = sums(counts)
        n = true.sum(axis=1)
        by_chance = (true * decided).sum(axis=1) / n**2
        by_chance = np.where(by_chance < 1, by_chance, np.nan)
        kappa: Array = (both.sum(axis=1) / n - by_chance) / (1 - by_chance)
        return kappa

    return kernel


PREPARED: Mapping[str, Callable[[Array, Array], Callable[[Array], Array]]] = {
    "accuracy": _accuracy,
    "balanced accuracy": _balanced_accuracy,
    "macro F1": _macro_f1,
    "kappa": _kappa,
}
"""The metrics by name; each takes labels and probabilities and returns what takes counts."""
