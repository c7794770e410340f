"""Shortcuts: whether vectors tell where or on what a record was made, and whether that can score.

A classifier that knows the device scores above chance wherever the task is more common among the
records of some devices, and fails on the next one (Zech et al. 2018, PLoS Med 15:e1002683).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ecgstore.statistics.bootstrap import Sample
from ecgstore.statistics.metrics import METRICS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from ecgstore.laboratory.concepts import Concept
    from ecgstore.statistics.ridge import Ridge

__all__ = ["ALARM", "alarm", "balanced", "chance_of"]

ALARM = "ALARM: "
"""How a sentence begins where a classifier can score by a shortcut."""

_TELLS = 0.6
"""AUROC whose interval must lie above: what chance or a handful of records makes lies below."""

_LEVEL = 0.05


def balanced(
    rows: Sequence[NDArray[np.intp]],
    values: NDArray[np.float64],
    predicted: NDArray[np.float64],
    patients: NDArray[np.intp],
    n_classes: int,
) -> list[Sample]:
    """Return one sample a fold, its scores as if classes were equally common.

    What regression on 0 and 1 predicts stands for the probability of a class; divided by the
    class's share of the training records it is the likelihood up to a factor (Bayes), so the
    greatest decides with equal say for each class. The order within a class is not changed.

    Args:
        rows: Records of each fold.
        values: ``(records,)`` place of the class.
        predicted: ``(records, classes)``, or one column for two classes.
        patients: ``(records,)`` number of the patient.
        n_classes: Classes.
    """
    whole = np.column_stack([1 - predicted, predicted]) if n_classes == 2 else predicted
    total = np.bincount(values.astype(int), minlength=n_classes)
    codes = np.unique(patients, return_inverse=True)[1]
    samples = []
    for mine in rows:
        trained = total - np.bincount(values[mine].astype(int), minlength=n_classes)
        scores = whole[mine] * (trained.sum() / np.maximum(trained, 1))
        samples.append(Sample(values[mine], scores, codes[mine]))
    return samples


def chance_of(
    ridge: Ridge,
    values: NDArray[np.float64],
    patients: NDArray[np.intp],
    found: float,
    classes: Sequence[str],
    draws: int,
    seed: int,
) -> float:
    """Return how often a probe of shuffled classes does as well: (1 + as good) / (1 + draws).

    Classes are dealt to patients in another order, so the records of one patient keep mostly one
    class. The count is that of a permutation test with random deals (Phipson and Smyth 2010).
    """
    rng = np.random.default_rng(seed)
    sorted_by = np.argsort(patients, kind="stable")
    dealt = np.empty((draws, len(values)))
    for k in range(draws):
        rank = rng.permutation(int(patients.max()) + 1)
        dealt[k, sorted_by] = values[np.argsort(rank[patients], kind="stable")]
    wanted = range(1, 2) if len(classes) == 2 else range(len(classes))
    columns = np.column_stack([(dealt == k).T for k in wanted]).astype(np.float64)
    scores = ridge.scores(columns)  # class by class, the deals of each side by side
    auroc = METRICS["AUROC"].of
    each = np.full((len(wanted), draws, len(ridge.rows)), np.nan)
    for j in range(columns.shape[1]):
        for f, rows in enumerate(ridge.rows):
            each[j // draws, j % draws, f] = auroc(columns[rows, j], scores[rows, j], None)[0]
    reached = np.nanmean(each, axis=(0, 2)) >= found
    return float((1 + reached.sum()) / (1 + draws))


def alarm(
    features: str,
    concept: Concept,
    values: NDArray[np.float64],
    patients: NDArray[np.intp],
    row: Mapping[str, object],
    p: float,
    task: str | None,
    labels: NDArray[np.float64] | None,
) -> str:
    """Return a sentence where vectors tell the class well above chance, else nothing.

    It is an alarm where the task is also unevenly spread over the classes: chi-square test of
    patients, each counted in the class of its first record and as positive when any record is.
    """
    value, least = row["value"], row["low"]
    if not isinstance(value, float) or not isinstance(least, float):
        return ""
    if p > _LEVEL or least <= _TELLS:
        return ""
    told = (
        f"The vectors of {features} tell the {concept.name}: {row['figure']} {value:.2f} "
        f"(at least {least:.2f}; chance 0.50) among {len(concept.classes)}"
    )
    if labels is None:
        return f"{told}. Name a task to see whether a classifier could score by it."
    shares, uneven = _spread(values, patients, labels, len(concept.classes))
    if uneven > _LEVEL or len(shares) < 2:
        return f"{told}; {task} is spread evenly over them, so that alone gives no score."
    low, high = (
        f"{shares[k]:.0%} of patients with {concept.classes[k]!r}"
        for k in (min(shares, key=shares.__getitem__), max(shares, key=shares.__getitem__))
    )
    return (
        f"{ALARM}{told[0].lower()}{told[1:]}, and {task} is in {low} but {high}. A classifier can "
        f"score by knowing the {concept.name} and fail on a new one: test it on a {concept.name} "
        f"it was not fitted to, and look at each by itself (ecgstore subgroups RUN --by "
        f"{concept.name})."
    )


def _spread(
    values: NDArray[np.float64],
    patients: NDArray[np.intp],
    labels: NDArray[np.float64],
    n_classes: int,
) -> tuple[dict[int, float], float]:
    """Return the share of positive patients in each class, and the p that they are equal."""
    from scipy.stats import chi2_contingency

    known = ~np.isnan(labels)
    if not known.any():
        return {}, 1.0
    _, first, codes = np.unique(patients[known], return_index=True, return_inverse=True)
    positive = np.zeros(len(first), dtype=bool)
    np.logical_or.at(positive, codes, labels[known] == 1)
    place = values[known][first].astype(int)
    table = np.array(
        [np.bincount(place[positive == one], minlength=n_classes) for one in (False, True)]
    )
    there = table.sum(axis=0) > 0
    shares = {k: float(table[1, k] / table[:, k].sum()) for k in np.flatnonzero(there).tolist()}
    if there.sum() < 2 or not table.any(axis=1).all():
        return shares, 1.0
    return shares, float(chi2_contingency(table[:, there]).pvalue)
