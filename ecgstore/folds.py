"""One reshuffle of a run: fit to its training part, score either part, look for better settings."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from ecgstore.errors import UsageError
from ecgstore.fitting import Fitted, Plan, out_of_fold
from ecgstore.tune import tune

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import numpy as np
    from numpy.typing import NDArray

    from ecgstore.classifiers import Setting
    from ecgstore.runs import Fold, Run

__all__ = ["fit_fold", "score_training", "tuned"]


def fit_fold(
    run: Run,
    fold: Fold,
    *,
    step: Callable[[], None],
    params: Mapping[str, Setting] | None = None,
) -> tuple[Fitted, NDArray[np.float64], float]:
    """Fit on the training records of a reshuffle.

    Args:
        run: The run.
        fold: The reshuffle.
        step: Told of progress.
        params: Settings of the classifier; default those of the run.

    Returns:
        What was fitted, its scores of the test records, and the seconds both took.
    """
    began = time.perf_counter()
    blocks, train = run.blocks(fold.repeat), fold.train
    fitted = Fitted.fit(
        _plan(run, params),
        [block[train] for block in blocks],
        run.labels[train],
        run.patients[train],
        step=step,
    )
    scores = fitted.predict([block[fold.test] for block in blocks])
    return fitted, scores, time.perf_counter() - began


def score_training(
    run: Run,
    fold: Fold,
    *,
    step: Callable[[], None],
    folds: int,
    params: Mapping[str, Setting] | None = None,
) -> NDArray[np.float64]:
    """Score the training records of a reshuffle, each by a fit without its patient.

    A concatenated set stays scaled as it is for the test records: on the whole training part.
    """
    blocks, train = run.blocks(fold.repeat), fold.train
    return out_of_fold(
        _plan(run, params),
        [block[train] for block in blocks],
        run.labels[train],
        run.patients[train],
        step=step,
        folds=folds,
    )


def tuned(run: Run, fold: Fold, *, seconds: float) -> dict[str, Setting]:
    """Return the best settings found within a time on inner folds of a training part."""
    if run.plan.fusion is not None:
        msg = f"Only a set whose vectors are set side by side can be tuned, not {run.features!r}."
        raise UsageError(msg, hint="Evaluate it without --tune, or fuse with the method concat.")
    x = run.inputs(fold.repeat)
    found = tune(
        run.kind,
        x[fold.train],
        run.labels[fold.train],
        run.patients[fold.train],
        seconds=seconds,
        target=run.target,
        fixed=run.params,
    )
    return dict(found.params)


def _plan(run: Run, params: Mapping[str, Setting] | None) -> Plan:
    if params is None:
        return run.plan
    plan = run.plan
    return Plan(plan.kind, params, fusion=plan.fusion, settings=plan.settings, target=plan.target)
