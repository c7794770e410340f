"""Errors that runs share: which records each run gets right, and how far their errors overlap."""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from ecgstore.errors import NotEnoughDataError
from ecgstore.laboratory.samples import samples_of
from ecgstore.statistics.bootstrap import bootstrap
from ecgstore.statistics.operating import threshold_of_youden
from ecgstore.statistics.similarity import OVERLAPS, overlaps

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from ecgstore.predictions import Part, Predictions
    from ecgstore.statistics.bootstrap import Sample
    from ecgstore.statistics.interval import Interval

__all__ = ["aligned", "oracle_interval", "overlap_intervals", "right_of"]


def aligned(runs: Sequence[Predictions]) -> list[list[Sample]]:
    """Return the samples of each run: records and reshuffles that all have, patients alike.

    Raises:
        NotEnoughDataError: There are none.
    """
    ids = functools.reduce(np.intersect1d, [run.record_ids for run in runs])
    repeats = set.intersection(*({part.repeat for part in run.parts} for run in runs))
    if not len(ids) or not repeats:
        models = ", ".join(run.features for run in runs)
        msg = f"No record was scored with each of {models}."
        raise NotEnoughDataError(msg, task=runs[0].task, hint="Embed the same records with all.")
    samples = [
        samples_of(
            replace(run, parts=tuple(part for part in run.parts if part.repeat in repeats)),
            np.isin(run.record_ids, ids),
        )
        for run in runs
    ]
    return [
        [one._replace(groups=first.groups) for one, first in zip(mine, samples[0], strict=True)]
        for mine in samples
    ]


def right_of(runs: Sequence[Predictions]) -> tuple[NDArray[np.bool_], NDArray[np.intp]]:
    """Tell which test records each run gets right, over the reshuffles and records all have.

    With two classes a record is right when its score and its label are on the same side of a
    threshold: Youden's on the out-of-fold scores of the training records; where the run has none,
    the prevalence among the records that are not tested. With several classes, when its own class
    is the likeliest.

    Returns:
        ``(n, runs)`` bool, the reshuffles one after another, and ``(n,)`` numbers of patients.
    """
    samples = aligned(runs)
    columns = []
    shared = set.intersection(*({part.repeat for part in run.parts} for run in runs))
    for run, mine in zip(runs, samples, strict=True):
        parts = [part for part in run.parts if part.repeat in shared]
        columns.append(
            np.concatenate([_right(s, run, p) for s, p in zip(mine, parts, strict=True)])
        )
    groups = np.concatenate([one.groups for one in samples[0]])
    return np.stack(columns, axis=1), np.unique(groups, return_inverse=True)[1]


def overlap_intervals(
    right: NDArray[np.bool_], patients: NDArray[np.intp], *, resamples: int, seed: int
) -> dict[str, Interval]:
    """Return the figures of `ecgstore.statistics.similarity.overlaps` of two runs.

    Args:
        right: ``(n, 2)`` which records each run gets right.
        patients: ``(n,)`` whose they are.
        resamples: Bootstrap resamples.
        seed: Their seed.
    """
    a, b = right.T
    cells = _by_patient(np.stack([a & b, a & ~b, ~a & b, ~a & ~b], axis=1), patients)
    found = bootstrap(
        lambda counts: overlaps(counts @ cells), len(cells), resamples=resamples, seed=seed
    )
    return dict(zip(OVERLAPS, found if isinstance(found, list) else [found], strict=True))


def oracle_interval(
    right: NDArray[np.bool_], patients: NDArray[np.intp], *, resamples: int, seed: int
) -> Interval:
    """Return the share of records that one run at least gets right.

    No rule that picks a run for each record can get more right. Arguments as `overlap_intervals`,
    but for any number of runs.
    """
    some = right.any(axis=1)
    cells = _by_patient(np.stack([some, ~some], axis=1), patients)

    def share(counts: NDArray[np.integer]) -> NDArray[np.float64]:
        totals = counts @ cells
        return np.asarray(totals[:, 0] / totals.sum(axis=1))

    found = bootstrap(share, len(cells), resamples=resamples, seed=seed)
    return found[0] if isinstance(found, list) else found


def _right(sample: Sample, run: Predictions, part: Part) -> NDArray[np.bool_]:
    """Tell which records of a test part a run gets right."""
    if run.target == "multiclass":
        return np.asarray(sample.scores.argmax(axis=1) == sample.labels)
    if len(part.train):
        threshold = threshold_of_youden(run.labels[part.train], part.train_scores)
    else:
        others = np.ones(len(run.labels), dtype=bool)
        others[part.test] = False
        threshold = float(run.labels[others].mean()) if others.any() else 0.5
    return np.asarray((sample.scores >= threshold) == (sample.labels > 0))


def _by_patient(values: NDArray[np.bool_], patients: NDArray[np.intp]) -> NDArray[np.float64]:
    totals = np.zeros((int(patients.max()) + 1, values.shape[1]))
    np.add.at(totals, patients, values)
    return totals
