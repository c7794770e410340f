"""Two classifiers on the same records, or on different ones: every figure of their difference.

Each test answers a question of its own:

* The **BCa interval over patients** takes the fitted classifiers as they are: how far would the
  difference move with other patients? It says nothing of what another training would give.
* The **corrected resampled t-test** over reshuffles asks whether the *way of learning* is better:
  classifiers fitted again on other records are part of its uncertainty. It is the one to quote
  where there are several reshuffles.
* **DeLong's test** compares, for the AUROC, each record's mean score over the reshuffles, its
  records grouped by patient: is the one score better on these patients? It is the one to quote
  where there is one reshuffle.
* The **permutation test** over patients asks the same of the mean metric without any formula for a
  variance, and stands beside the others as a check.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ecgstore.statistics import delong
from ecgstore.statistics.bootstrap import Sample, paired_interval
from ecgstore.statistics.permutation import Permuted, permutation
from ecgstore.statistics.resampled import Corrected, corrected_t

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from ecgstore.statistics.interval import Interval
    from ecgstore.statistics.metrics import Metric

__all__ = ["Draws", "Pair", "paired", "unpaired"]


@dataclass(frozen=True)
class Draws:
    """How resamples are drawn and intervals told.

    Attributes:
        resamples: Bootstrap resamples, and permutations.
        seed: Of both.
        level: Confidence level.
    """

    resamples: int = 2000
    seed: int = 0
    level: float = 0.95


@dataclass(frozen=True)
class Pair:
    """The difference of two classifiers.

    Attributes:
        a: Mean metric of the first over the reshuffles.
        b: Of the second.
        over_patients: BCa interval of a - b.
        over_reshuffles: Corrected resampled t-test; None where unpaired.
        delong: DeLong's test; None for another metric than AUROC.
        permuted: Permutation test; None where unpaired.
        quoted: Which p-value stands for the comparison: ``corrected``, ``DeLong``,
            ``permutation``; empty where there is none.
    """

    a: float
    b: float
    over_patients: Interval
    over_reshuffles: Corrected | None
    delong: delong.Difference | None
    permuted: Permuted | None
    quoted: str

    @property
    def p(self) -> float:
        """The quoted p-value; NaN where there is none."""
        one = {
            "corrected": self.over_reshuffles,
            "DeLong": self.delong,
            "permutation": self.permuted,
        }.get(self.quoted)
        return math.nan if one is None else one.p

    @property
    def interval(self) -> Interval:
        """The interval that belongs to the quoted p-value; that over patients beside no other."""
        if self.quoted == "corrected" and self.over_reshuffles:
            return self.over_reshuffles.interval
        if self.quoted == "DeLong" and self.delong:
            return self.delong.interval
        return self.over_patients


def paired(
    a: Sequence[Sample],
    b: Sequence[Sample],
    records: Sequence[NDArray[np.intp]],
    metric: Metric,
    *,
    test_to_train: float,
    draws: Draws,
) -> Pair:
    """Compare two classifiers that scored the same records in the same reshuffles.

    Args:
        a: Samples of the first; the metric is defined on each.
        b: Of the second: the same records in the same order.
        records: Number of each record, by sample, alike in all samples.
        metric: The figure compared.
        test_to_train: Test records for each training record.
        draws: How to draw.
    """
    values = np.array([_values(run, metric) for run in (a, b)])
    over_reshuffles = corrected_t(
        values[0] - values[1], test_to_train=test_to_train, level=draws.level
    )
    found = None
    if metric.name == "AUROC":
        labels, first, groups = _mean_scores(a, records)
        _, second, _ = _mean_scores(b, records)
        found = delong.paired(labels, first, second, groups, level=draws.level)
    swapped = permutation(a, b, metric, resamples=draws.resamples, seed=draws.seed)
    choices = {
        "corrected": over_reshuffles.p,
        "DeLong": found.p if found and len(a) == 1 else math.nan,
        "permutation": swapped.p,
    }
    return Pair(
        a=float(values[0].mean()),
        b=float(values[1].mean()),
        over_patients=_over_patients(a, b, metric, draws),
        over_reshuffles=over_reshuffles,
        delong=found,
        permuted=swapped,
        quoted=next((name for name, p in choices.items() if math.isfinite(p)), ""),
    )


def unpaired(
    a: Sequence[Sample],
    b: Sequence[Sample],
    records: Sequence[Sequence[NDArray[np.intp]]],
    metric: Metric,
    *,
    draws: Draws,
) -> Pair:
    """Compare two classifiers that were tested on different records or reshuffles.

    The interval over patients draws a patient of both cohorts for both at once. DeLong's test takes
    the cohorts for independent, which is cautious where they share patients.

    Args:
        a: Samples of the first; the metric is defined on each.
        b: Of the second; patients are numbered alike.
        records: Number of each record, by run and sample.
        metric: The figure compared.
        draws: How to draw.
    """
    found = None
    if metric.name == "AUROC":
        (labels_a, first, groups_a), (labels_b, second, groups_b) = (
            _mean_scores(run, places) for run, places in zip((a, b), records, strict=True)
        )
        found = delong.unpaired(
            labels_a, first, labels_b, second, groups_a, groups_b, level=draws.level
        )
    return Pair(
        a=float(np.mean(_values(a, metric))),
        b=float(np.mean(_values(b, metric))),
        over_patients=_over_patients(a, b, metric, draws),
        over_reshuffles=None,
        delong=found,
        permuted=None,
        quoted="DeLong" if found and math.isfinite(found.p) else "",
    )


def _values(samples: Sequence[Sample], metric: Metric) -> list[float]:
    return [float(metric.of(one.labels, one.scores, None)[0]) for one in samples]


def _over_patients(
    a: Sequence[Sample], b: Sequence[Sample], metric: Metric, draws: Draws
) -> Interval:
    return paired_interval(
        a, b, metric, resamples=draws.resamples, seed=draws.seed, level=draws.level
    )


def _mean_scores(
    samples: Sequence[Sample], records: Sequence[NDArray[np.intp]]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.intp]]:
    """Return label, mean score over the samples, and patient of every record in any sample."""
    _, first, place = np.unique(np.concatenate(records), return_index=True, return_inverse=True)
    scores = np.concatenate([one.scores for one in samples])
    mean = np.bincount(place, scores) / np.bincount(place)
    labels = np.concatenate([one.labels for one in samples])[first]
    return labels, mean, np.concatenate([one.groups for one in samples])[first]
