"""The test parts of runs as statistics take them: labels, scores and patients."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import reduce
from typing import TYPE_CHECKING

import numpy as np

from ecgstore.statistics.bootstrap import Sample

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from ecgstore.catalog import Catalog
    from ecgstore.predictions import Predictions

__all__ = ["Aligned", "aligned", "numbered_alike", "samples_of"]

_PATIENTS = """
    select
        record_id,
        case
            when patient_id is null then record_id
            else min(record_id) over (partition by patient_id)
        end as first
    from records
    where record_id in (select unnest($ids))
    order by record_id
"""


def samples_of(predictions: Predictions, rows: NDArray[np.bool_] | None = None) -> list[Sample]:
    """Return one sample a reshuffle: its test records, or those of them that belong to a subgroup.

    A reshuffle without any such record gives an empty sample. Patients are numbered alike in all
    samples.

    Args:
        predictions: What the run predicted.
        rows: ``(records,)`` which of its records to take; None takes all.
    """
    samples = []
    for part in predictions.parts:
        test, scores = part.test, part.scores
        if rows is not None:
            test, scores = test[rows[test]], scores[rows[test]]
        samples.append(Sample(predictions.labels[test], scores, predictions.patients[test]))
    return samples


def numbered_alike(catalog: Catalog, runs: Sequence[Predictions]) -> list[Predictions]:
    """Return the same predictions, a patient having the same number in all of them.

    Args:
        catalog: The warehouse.
        runs: Predictions of several runs, whichever records they hold.
    """
    ids = sorted({one for run in runs for one in run.record_ids})
    rows = catalog.table(_PATIENTS, {"ids": ids})
    first = dict(zip(rows["record_id"].to_pylist(), rows["first"].to_pylist(), strict=True))
    names = [first.get(one, one) for one in ids]
    _, numbers = np.unique(np.array(names, dtype=str), return_inverse=True)
    place = dict(zip(ids, numbers.tolist(), strict=True))
    return [
        replace(run, patients=np.array([place[one] for one in run.record_ids], dtype=np.intp))
        for run in runs
    ]


@dataclass(frozen=True, eq=False)
class Aligned:
    """Runs over one split, cut down to what was tested in all of them.

    Attributes:
        samples: By run, one sample a reshuffle that all runs have; the same records in the same
            order in every run.
        records: By sample, ``(n,)`` number of each record.
        n_train: By sample, records that were trained on.
        left_out: Records tested in some run and compared in none.
        changed: Records whose label is not the same in all runs.
    """

    samples: list[list[Sample]]
    records: list[NDArray[np.intp]]
    n_train: list[int]
    left_out: int
    changed: int


def aligned(runs: Sequence[Predictions]) -> Aligned:
    """Return the test records that runs over one split have in common, reshuffle by reshuffle.

    Args:
        runs: Predictions whose patients are numbered alike; see `numbered_alike`.
    """
    ids = np.array(sorted({one for run in runs for one in run.record_ids}), dtype=object)
    codes = [np.searchsorted(ids, run.record_ids) for run in runs]
    parts = [{part.repeat: part for part in run.parts} for run in runs]
    samples: list[list[Sample]] = [[] for _ in runs]
    records, n_train = [], []
    changed: set[int] = set()
    for repeat in sorted(set.intersection(*(set(one) for one in parts))):
        here = [one[repeat] for one in parts]
        tested = [code[part.test] for code, part in zip(codes, here, strict=True)]
        both = reduce(np.intersect1d, tested)
        for number, (run, part, code) in enumerate(zip(runs, here, tested, strict=True)):
            order = np.argsort(code)
            place = order[np.searchsorted(code, both, sorter=order)]
            row = part.test[place]
            sample = Sample(run.labels[row], part.scores[place], run.patients[row])
            samples[number].append(sample)
            changed |= set(both[sample.labels != samples[0][-1].labels].tolist())
        records.append(both)
        n_train.append(min(part.n_train for part in here))
    every = {i for run, code in zip(runs, codes, strict=True) for i in _tested(run, code)}
    kept = {int(i) for both in records for i in both}
    return Aligned(samples, records, n_train, len(every - kept), len(changed))


def _tested(run: Predictions, codes: NDArray[np.intp]) -> set[int]:
    return {int(i) for part in run.parts for i in codes[part.test]}
