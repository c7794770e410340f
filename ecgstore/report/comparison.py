"""Every run against the best single model: paired differences and their p-values, after Holm."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ecgstore.laboratory.compare import compare
from ecgstore.statistics.metrics import METRICS
from ecgstore.statistics.multiple import holm
from ecgstore.statistics.verdict import sentence

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ecgstore.report.study import Run
    from ecgstore.statistics.interval import Interval
    from ecgstore.warehouse import Warehouse

__all__ = ["TESTS", "Against", "Comparison", "against"]

TESTS = {
    "corrected": "the resampled t-test corrected for overlap (Nadeau and Bengio, 2003)",
    "DeLong": "DeLong's test, clustered by patient (DeLong et al., 1988; Obuchowski, 1997)",
    "permutation": "the permutation test over patients",
}
"""The tests whose p-value may be quoted, as they are written for readers."""


@dataclass(frozen=True)
class Against:
    """One run against the best single model.

    Attributes:
        run_id: The run.
        difference: Its metric less that of the best single model, with the paired interval.
        tested: The difference with the interval of the quoted test.
        p: The quoted p-value, None where there is none.
        adjusted: After Holm over all comparisons of the page, None likewise.
        quoted: Which test it is of: ``corrected``, ``DeLong``, ``permutation`` or empty.
        records: Records that both were tested on.
        patients: Their patients.
        sentence: What it comes to.
        notes: What to mind.
    """

    run_id: str
    difference: Interval
    tested: Interval
    p: float | None
    adjusted: float | None
    quoted: str
    records: int
    patients: int
    sentence: str
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Comparison:
    """Every run against the best single model.

    Attributes:
        best: Run of the best single model.
        metric: The metric compared.
        rows: One a run, in the order given.
    """

    best: str
    metric: str
    rows: tuple[Against, ...]


def against(
    warehouse: Warehouse,
    best: Run,
    others: Sequence[Run],
    *,
    metric: str,
    resamples: int,
    seed: int,
) -> Comparison:
    """Compare runs with the best single model, each on the records both were tested on.

    Raises:
        EcgStoreError: What `ecgstore.laboratory.compare.compare` raises.
    """
    found = [
        compare(warehouse, [run.run_id, best.run_id], metric=metric, resamples=resamples, seed=seed)
        for run in others
    ]
    pairs = [one.comparisons[0] for one in found]
    adjusted = holm([one.pair.p for one in pairs])
    return Comparison(
        best=best.run_id,
        metric=metric,
        rows=tuple(
            Against(
                run_id=run.run_id,
                difference=pair.pair.over_patients,
                tested=pair.pair.interval,
                p=_told(pair.pair.p),
                adjusted=_told(float(p)),
                quoted=pair.pair.quoted,
                records=one.records,
                patients=one.patients,
                sentence=sentence(
                    pair.pair,
                    pair.names,
                    METRICS[metric],
                    p_adjusted=float(p),
                    comparisons=len(pairs),
                    correction="holm",
                ),
                notes=one.notes,
            )
            for run, one, pair, p in zip(others, found, pairs, adjusted, strict=True)
        ),
    )


def _told(p: float) -> float | None:
    return None if math.isnan(p) else p
