"""Tuning: better settings of a classifier, looked for on inner folds of its training records.

What is tested on never takes part: nested cross-validation (Varma and Simon 2006) is tuning inside
each reshuffle of a split.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from itertools import takewhile
from statistics import fmean
from typing import TYPE_CHECKING

from ecgstore.classifiers import classifiers
from ecgstore.classifiers.inner import inner_folds
from ecgstore.errors import MissingDependencyError, NotEnoughDataError, UsageError
from ecgstore.progress import Progress, Silent
from ecgstore.statistics.metrics import reported

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from types import ModuleType

    import numpy as np
    from numpy.typing import NDArray
    from optuna.distributions import BaseDistribution

    from ecgstore.classifiers import Classifier, Setting
    from ecgstore.tasks import Target

__all__ = ["FOLDS", "Tuned", "tune"]

FOLDS = 5
"""Inner folds that each choice of settings is judged by."""


@dataclass(frozen=True)
class Tuned:
    """What a `tune` call found.

    Attributes:
        params: All settings, the best that were tried; the defaults where nothing was better.
        trials: How many were tried to the end.
        seconds: Time taken.
        value: Mean over the inner folds of the metric, for `params`.
        default: The same for the settings it began with; `value` is never less.
        metric: Name of the metric: the first that is reported of such labels.
    """

    params: Mapping[str, Setting]
    trials: int
    seconds: float
    value: float
    default: float
    metric: str

    @property
    def rows(self) -> list[dict[str, object]]:
        """The result as one row."""
        return [{**vars(self), "seconds": round(self.seconds, 3)}]

    def __repr__(self) -> str:
        return (
            f"Tuned({self.metric} {self.value:.3f} on inner folds, {self.default:.3f} by default; "
            f"{self.trials} trials)"
        )

    def _repr_html_(self) -> str:
        return (
            f"<b>{self.metric} {self.value:.3f}</b> on inner folds, {self.default:.3f} by default "
            f"({self.trials} trials)"
        )


def tune(
    kind: type[Classifier],
    x: NDArray[np.float32],
    y: NDArray[np.float64],
    groups: NDArray[np.intp],
    *,
    seconds: float,
    target: Target = "binary",
    seed: int = 0,
    trials: int | None = None,
    fixed: Mapping[str, Setting] | None = None,
    progress: Progress | None = None,
) -> Tuned:
    """Look for better settings of a classifier within a time.

    The settings it begins with are tried first and to the end, so what is returned is never worse
    than they are on the inner folds. The rest are drawn by the tree-structured Parzen estimator
    (Bergstra et al. 2011, as in Optuna); none is begun once the time is over, and one that is
    under way ends after its fold. The same records, seed and number of trials give the same
    settings where the time suffices for all.

    Args:
        kind: The classifier; it tells what there is to tune by its ``space``.
        x: ``(records, dim)`` vectors of training records, and of no others.
        y: ``(records,)`` their labels.
        groups: ``(records,)`` number of each record's patient; a patient is in one inner fold.
        seconds: Time to look for.
        target: What labels say.
        seed: Seed of the folds and of the draws.
        trials: At most so many; as many as there is time for by default.
        fixed: Settings to begin with; those that differ from the defaults are not tuned.
        progress: Told of the seconds of the time gone by.

    Raises:
        UsageError: The classifier has nothing to tune, cannot be fitted to such records, or there
            is no time.
        NotEnoughDataError: A class has too few patients for inner folds.
        MissingDependencyError: Optuna is not installed.
    """
    if not kind.space:
        others = ", ".join(name for name in classifiers if classifiers.get(name).space)
        msg = f"The classifier {kind.name!r} has no setting to tune."
        raise UsageError(msg, hint=f"These have: {others}.")
    if not seconds > 0:
        msg = f"Tuning was given {seconds:g} seconds; it needs some."
        raise UsageError(msg)
    if trials is not None and trials < 1:
        msg = f"Tuning was given {trials} trials; it needs at least 1."
        raise UsageError(msg)
    optuna = _optuna()
    start = {**kind.defaults, **(fixed or {})}
    free = {key: one for key, one in kind.space.items() if start[key] == kind.defaults[key]}
    space = {key: _distribution(*one) for key, one in free.items()}
    metric = reported(target)[0]
    fold = inner_folds(y, groups, FOLDS, seed=seed, target=target)
    clock = _Clock(seconds, progress or Silent())

    def scores(params: Mapping[str, Setting]) -> Iterator[float]:
        for k in range(FOLDS):
            out = fold == k
            model = kind(params, target=target)
            model.fit(x[~out], y[~out], step=clock.tell, groups=groups[~out])
            yield float(metric.of(y[out], model.predict(x[out]), None)[0])

    default = fmean(scores(start))
    if math.isnan(default):
        msg = f"{metric.name} is not defined on an inner fold of {len(y)} training records."
        raise NotEnoughDataError(msg, task=target, hint="Label more records.")
    best, best_value, done = start, default, 1
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=seed))
    # The sampler learns from the settings it begins with as from any others.
    known = {key: start[key] for key in space}
    study.add_trial(optuna.create_trial(params=known, distributions=space, value=default))
    while space and not clock.over and len(study.trials) != trials:
        trial = study.ask(space)
        params = {**start, **trial.params}
        try:
            found = list(takewhile(lambda _: not clock.over, scores(params)))
        except UsageError:  # such as a fit that does not settle: no settings to take
            found = []
        if len(found) < FOLDS:
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
            continue
        value = fmean(found)
        study.tell(trial, value)
        done += 1
        if value > best_value:
            best, best_value = params, value
    return Tuned(best, done, clock.gone, best_value, default, metric.name)


class _Clock:
    """The time there is, told of in whole seconds."""

    def __init__(self, seconds: float, progress: Progress) -> None:
        self._began, self._seconds, self._told = time.perf_counter(), seconds, 0
        self._progress = progress
        progress.start(math.ceil(seconds), "seconds")

    @property
    def gone(self) -> float:
        return time.perf_counter() - self._began

    @property
    def over(self) -> bool:
        return self.gone >= self._seconds

    def tell(self) -> None:
        passed = min(int(self.gone), math.ceil(self._seconds))
        if passed > self._told:
            self._progress.advance(passed - self._told)
            self._told = passed


def _optuna() -> ModuleType:
    try:
        import optuna
    except ImportError as error:
        purpose = "Tuning"
        raise MissingDependencyError(purpose=purpose, package="optuna", extra="tune") from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def _distribution(form: Setting, *values: Setting) -> BaseDistribution:
    """Return what Optuna draws a setting from; see `Classifier.space`."""
    from optuna.distributions import (
        CategoricalDistribution,
        FloatDistribution,
        IntDistribution,
    )

    if form == "choice":
        return CategoricalDistribution(values)
    low, high = (float(value) for value in values)
    if form == "whole":
        return IntDistribution(int(low), int(high))
    return FloatDistribution(low, high, log=form == "log")
