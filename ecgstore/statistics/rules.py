"""Rules for a threshold, each judged on the test records of all reshuffles together."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from ecgstore.statistics.bootstrap import bootstrap
from ecgstore.statistics.operating import (
    CELLS,
    FIGURES,
    SHARES,
    Operating,
    columns_of,
    figures_of,
    ppv_npv,
    wilson,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from ecgstore.statistics.interval import Interval

__all__ = ["Rule", "judged"]


@dataclass(frozen=True)
class Rule:
    """What a rule for the threshold does on test records.

    Attributes:
        name: The rule, such as ``sensitivity >= 0.95``.
        thresholds: The threshold of each reshuffle.
        operating: Counts, the mean of a reshuffle; its threshold is the mean one.
        figures: Per figure of `ecgstore.statistics.operating.FIGURES`, its value over the pooled
            counts and its interval; also ``ppv_at_0.05`` and ``npv_at_0.05`` for a prevalence.
    """

    name: str
    thresholds: tuple[float, ...]
    operating: Operating
    figures: Mapping[str, Interval]

    @property
    def row(self) -> dict[str, object]:
        """The rule as a flat row; a figure that is not defined is None, with the reason."""
        counts = self.operating
        row: dict[str, object] = {
            "rule": self.name,
            "threshold": counts.threshold,
            "threshold_low": min(self.thresholds),
            "threshold_high": max(self.thresholds),
            **{name: getattr(counts, name) for name in CELLS},
        }
        reasons: dict[str, None] = {}
        for name, one in self.figures.items():
            row |= columns_of(name, one)
            if math.isnan(one.low):
                why = counts.why(name) if name in FIGURES else None
                reasons[f"{name}: {why or one.method}"] = None
        row["reason"] = "; ".join(reasons) or None
        return row


def judged(
    labels: NDArray[np.float64],
    scores: NDArray[np.float64],
    patients: NDArray[np.intp],
    parts: NDArray[np.intp],
    rules: Mapping[str, Sequence[float]],
    *,
    prevalences: Sequence[float] = (),
    resamples: int = 2000,
    seed: int = 0,
) -> tuple[Rule, ...]:
    """Judge rules by what their thresholds do on test records.

    Args:
        labels: ``(rows,)`` 0 or 1, of the test records of all parts, one after the other.
        scores: ``(rows,)`` their scores.
        patients: ``(rows,)`` number of the patient, 0 … patients - 1, each of which occurs.
        parts: ``(rows,)`` number of the part, from 0.
        rules: The threshold of every part, by name of the rule.
        prevalences: Prevalences to tell predictive values for.
        resamples: Bootstrap resamples.
        seed: Seed of the bootstrap.
    """
    if not rules:
        return ()
    n, positive = int(patients.max()) + 1, labels == 1
    cells = []
    for cuts in rules.values():
        called = scores >= np.asarray(cuts)[parts]
        outcomes = positive & called, ~positive & called, positive & ~called, ~positive & ~called
        cells += [np.bincount(patients, outcome, n) for outcome in outcomes]
    sums = np.column_stack(cells)  # of each patient, so that a resample is one matrix product
    names = [*FIGURES, *(f"{one}_at_{p:g}" for p in prevalences for one in ("ppv", "npv"))]

    def figures(counts: NDArray[np.integer]) -> NDArray[np.float64]:
        told = figures_of((counts @ sums).reshape(len(counts), len(rules), 4))
        shifted = [one for p in prevalences for one in ppv_npv(told[..., 0], told[..., 1], p)]
        every = np.concatenate([told, *(one[..., None] for one in shifted)], axis=-1)
        return every.reshape(len(counts), -1)

    many = bootstrap(figures, n, resamples=resamples, seed=seed)
    intervals = iter(many if isinstance(many, list) else [many])
    carriers = (sums.reshape(n, len(rules), 4) > 0).transpose(1, 2, 0)
    counts = sums.sum(axis=0).reshape(-1, 4) / (int(parts.max()) + 1)
    means: list[tuple[float, float, float, float]] = [tuple(row) for row in counts.tolist()]
    return tuple(
        Rule(
            name=name,
            thresholds=tuple(cuts),
            operating=Operating(*mean, threshold=float(np.mean(cuts))),
            figures={figure: _honest(figure, next(intervals), mine) for figure in names},
        )
        for (name, cuts), mean, mine in zip(rules.items(), means, carriers, strict=True)
    )


def _honest(figure: str, found: Interval, carriers: NDArray[np.bool_]) -> Interval:
    """Widen the interval of a figure that no resample can move, such as an NPV without a miss.

    A part of 0 or 1 gets the interval of Wilson, with the patients who have such a record for
    records, which is as little as they can tell; anything else gets none.

    Args:
        figure: Its name.
        found: Its interval.
        carriers: ``(4, patients)`` who has a tp, fp, fn or tn.
    """
    if found.low != found.high:
        return found
    if figure not in SHARES:
        return replace(found, low=math.nan, high=math.nan, method="all resamples are alike")
    patients = int((carriers[[CELLS.index(cell) for cell in SHARES[figure]]]).any(axis=0).sum())
    low, high = wilson(patients if found.value else 0, 0 if found.value else patients, found.level)
    return replace(found, low=low, high=high, method="Wilson over patients")
