"""Decision curves: what acting on a score is worth, beside treating everybody or nobody.

Net benefit is that of Vickers and Elkin (Medical Decision Making 2006): at a threshold
probability pt, true positives less false positives at the odds of pt, per record::

    net benefit = tp / n - fp / n * pt / (1 - pt)

Treating nobody has net benefit 0. Both need scores that are probabilities.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ecgstore.errors import UsageError
from ecgstore.statistics.bootstrap import bootstrap
from ecgstore.statistics.operating import binary

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

__all__ = ["THRESHOLDS", "DecisionCurve", "decision_curve", "net_benefit"]

THRESHOLDS = tuple(round(0.01 * k, 2) for k in range(1, 100))
"""Threshold probabilities a curve is drawn over: 0.01 to 0.99."""


@dataclass(frozen=True, eq=False)
class DecisionCurve:
    """Net benefit over threshold probabilities; every array is ``(thresholds,)`` float64.

    Attributes:
        thresholds: Threshold probabilities.
        model: Net benefit of acting where the score reaches the threshold.
        low: Lower end of its pointwise interval; NaN where none can be told.
        high: Upper end.
        treat_all: Net benefit of acting on everybody. That of acting on nobody is 0.
        avoided: Interventions avoided per 100 records, against treating all, without missing
            a positive more: ``100 (model - treat_all) (1 - pt) / pt`` (Vickers et al., BMC
            Medical Informatics and Decision Making 2008).
        level: Level of the interval.
    """

    thresholds: NDArray[np.float64]
    model: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    treat_all: NDArray[np.float64]
    avoided: NDArray[np.float64]
    level: float

    @property
    def rows(self) -> list[dict[str, object]]:
        """One row a threshold probability."""
        columns = zip(
            self.thresholds,
            self.model,
            self.low,
            self.high,
            self.treat_all,
            self.avoided,
            strict=True,
        )
        names = ("threshold", "net_benefit", "low", "high", "treat_all", "avoided_per_100")
        return [
            {
                name: None if np.isnan(value) else float(value)
                for name, value in zip(names, values, strict=True)
            }
            for values in columns
        ]

    def __repr__(self) -> str:
        better = self.thresholds[self.model > np.maximum(self.treat_all, 0)]
        where = f"from {better.min():g} to {better.max():g}" if len(better) else "nowhere"
        return f"DecisionCurve({len(self.thresholds)} thresholds, better than all and none {where})"

    def _repr_html_(self) -> str:
        from html import escape

        return escape(repr(self))


def net_benefit(
    tp: ArrayLike, fp: ArrayLike, n: ArrayLike, threshold: ArrayLike
) -> NDArray[np.float64]:
    """Return the net benefit of counts at a threshold probability; shapes are broadcast."""
    odds = np.asarray(threshold, np.float64) / (1 - np.asarray(threshold, np.float64))
    benefit: NDArray[np.float64] = (np.asarray(tp) - np.asarray(fp) * odds) / np.asarray(n)
    return benefit


def decision_curve(
    labels: ArrayLike,
    scores: ArrayLike,
    groups: NDArray[np.intp] | None = None,
    *,
    thresholds: ArrayLike = THRESHOLDS,
    resamples: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> DecisionCurve:
    """Return the decision curve of probabilities, with an interval over patients.

    Args:
        labels: ``(records,)`` 0 or 1; a record tested in several reshuffles stands once for each.
        scores: ``(records,)`` probability of label 1.
        groups: ``(records,)`` number of the patient, 0 … patients - 1, each of which occurs; None
            makes every record a patient.
        thresholds: Threshold probabilities, rising, above 0 and below 1.
        resamples: Bootstrap resamples.
        seed: Seed of the bootstrap.
        level: Level of the interval.

    Raises:
        UsageError: A score is no probability, or a threshold is out of range.
    """
    truth, values = binary(labels, scores)
    cuts = np.asarray(thresholds, dtype=np.float64)
    if not (len(cuts) and (cuts > 0).all() and (cuts < 1).all() and (np.diff(cuts) > 0).all()):
        msg = "Threshold probabilities must rise and lie between 0 and 1."
        raise UsageError(msg)
    if len(values) == 0 or values.min() < 0 or values.max() > 1:
        msg = "A decision curve needs probabilities: scores from 0 to 1, at least one."
        raise UsageError(msg, hint="Recalibrate them first: --recalibrate platt.")
    patients = np.arange(len(truth)) if groups is None else np.asarray(groups)
    sums = _by_patient(truth, values, patients, cuts)

    def model(counts: NDArray[np.float64]) -> NDArray[np.float64]:
        tp, fp, n, _ = np.split(counts @ sums, [len(cuts), 2 * len(cuts), 2 * len(cuts) + 1], 1)
        return net_benefit(tp, fp, n, cuts)

    found = bootstrap(model, len(sums), resamples=resamples, seed=seed, level=level)
    many = found if isinstance(found, list) else [found]
    benefit = np.array([one.value for one in many])
    n, positive = sums[:, -2:].sum(axis=0)
    everybody = net_benefit(positive, n - positive, n, cuts)
    return DecisionCurve(
        thresholds=cuts,
        model=benefit,
        low=np.array([one.low for one in many]),
        high=np.array([one.high for one in many]),
        treat_all=everybody,
        avoided=100 * (benefit - everybody) * (1 - cuts) / cuts,
        level=level,
    )


def _by_patient(
    truth: NDArray[np.float64],
    values: NDArray[np.float64],
    patients: NDArray[np.intp],
    cuts: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Return per patient tp and fp at every threshold, then records and positives.

    All of it is linear in how often a patient was drawn, so a resample is one matrix product.
    """
    n = int(patients.max()) + 1
    reached = np.searchsorted(cuts, values, side="right")  # so many thresholds a score reaches
    width = len(cuts) + 1
    columns = []
    for wanted in (1, 0):
        mine = truth == wanted
        table = np.bincount(patients[mine] * width + reached[mine], minlength=n * width)
        from_above = table.reshape(n, width)[:, ::-1].cumsum(axis=1)[:, ::-1]
        columns.append(from_above[:, 1:])
    records = np.bincount(patients, minlength=n)
    positives = np.bincount(patients, truth, minlength=n)
    return np.column_stack([*columns, records, positives]).astype(np.float64)
