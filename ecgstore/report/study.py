"""What the report knows: one reading of the warehouse, from which every form of it is written."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from numpy.typing import NDArray

    from ecgstore.explain import ShapResult
    from ecgstore.features import FeatureSet
    from ecgstore.laboratory.clinical import ClinicalResult
    from ecgstore.laboratory.complementarity import ComplementarityResult
    from ecgstore.laboratory.subgroups import SubgroupsResult
    from ecgstore.leakage import Mark
    from ecgstore.predictions import Predictions
    from ecgstore.project import Projection
    from ecgstore.report.cohort import Cohort
    from ecgstore.report.comparison import Comparison
    from ecgstore.report.examples import Examples
    from ecgstore.report.plots import Curve
    from ecgstore.splitting.split_check import CheckResult
    from ecgstore.statistics.interval import Interval
    from ecgstore.tasks import Target

__all__ = ["Gap", "Run", "Split", "Study", "best_of"]


@dataclass(frozen=True)
class Split:
    """A stored split.

    Attributes:
        name: Its name.
        task: The task it is stratified by, or the pattern of several.
        params: How it was drawn.
        sizes: For each repeat: training and test records, and positives among each.
        shared_patients: Patients with records on both sides, the most in any repeat.
    """

    name: str
    task: str
    params: Mapping[str, Any]
    sizes: Sequence[Mapping[str, int]]
    shared_patients: int

    @property
    def protocol(self) -> str:
        """The protocol it was drawn by: ``paper``, ``sound``, or empty."""
        return str(self.params.get("protocol") or "")


@dataclass(frozen=True, eq=False)
class Run:
    """One feature set and classifier, scored over the repeats of a split.

    Attributes:
        run_id: Its id in ``scores`` and ``predictions``.
        features: Name of the feature set.
        classifier: Name of the classifier.
        task: What it was scored on.
        target: What the labels of the task say.
        params: Settings of the classifier.
        at: When it was scored.
        versions: Version of every table it read.
        code: Version of ecgstore that ran.
        seconds: Time taken over all repeats.
        repeats: Numbers of the repeats.
        values: Metric to ``(repeats,)`` values, NaN where it is not defined.
        tested: Records scored in each repeat.
    """

    run_id: str
    features: str
    classifier: str
    task: str
    target: Target
    params: Mapping[str, Any]
    at: datetime
    versions: Mapping[str, int]
    code: str
    seconds: float
    repeats: tuple[int, ...]
    values: Mapping[str, NDArray[np.float64]]
    tested: tuple[int, ...]

    def mean(self, metric: str) -> float:
        """Return the mean over the repeats on which the metric is defined."""
        return float(np.nanmean(self.values[metric]))


@dataclass(frozen=True)
class Gap:
    """The same features and classifier under both protocols.

    Attributes:
        features: Name of the feature set.
        classifier: Name of the classifier.
        metric: The metric.
        splits: Protocol to the split it was scored over.
        runs: Protocol to the run.
        means: Protocol to the mean over its repeats.
    """

    features: str
    classifier: str
    metric: str
    splits: Mapping[str, str]
    runs: Mapping[str, str]
    means: Mapping[str, float]

    @property
    def difference(self) -> float:
        """By how much the paper's protocol is above the sound one."""
        return self.means["paper"] - self.means["sound"]


@dataclass(frozen=True, eq=False)
class Study:
    """Everything the report says about a split, gathered at one state of the tables.

    Where a field is a text, it is the one sentence why its chapter cannot be written; where it is
    None, nobody asked for it or there is nothing it could be about.

    Attributes:
        title: Of the page.
        cohort: Who and what was recorded.
        split: The split, None where none is drawn yet.
        task: The task that is worked out, None where there is no split.
        target: What its labels say.
        metrics: The metrics of this target that runs are scored by, the deciding one first.
        better: Whether more of the deciding metric is better.
        runs: The newest run of each feature set and classifier on the task, as they are shown.
        earlier: Runs that a newer one of the same feature set and classifier stands for.
        family: The newest runs on every task of the split, where it has several.
        sets: What the features of a run are made of, by name; absent for signals and for names
            that no longer stand for one thing.
        covered: Records of the split that have every vector of a feature set, by name.
        models: Rows of ``models`` with the number of ``records`` embedded.
        marks: What is known of the pretraining of these models on these datasets.
        predictions: What each run predicted, by run id.
        intervals: Run id to metric to its interval, or why there is none.
        comparison: Every run against the best single model.
        gaps: Feature sets under both protocols.
        curves: ROC and precision-recall curve by run id.
        maps: Projections, or why there is none, by method and feature set.
        check: What crosses the split.
        clinical: Operating points, calibration and decision curve by run id.
        subgroups: Figures of the best run by group.
        complementarity: What each model adds.
        shap: Share of each model in the score, by run id.
        examples: Twelve ECGs of the best run.
        versions: Version of every table read.
        environment: What the page was made with.
    """

    title: str
    cohort: Cohort
    split: Split | None = None
    task: str | None = None
    target: Target = "binary"
    metrics: Sequence[str] = ()
    better: str = "higher"
    runs: Sequence[Run] = ()
    earlier: Sequence[Run] = ()
    family: Sequence[Run] = ()
    sets: Mapping[str, FeatureSet] = field(default_factory=dict)
    covered: Mapping[str, int] = field(default_factory=dict)
    models: Sequence[Mapping[str, Any]] = ()
    marks: Sequence[Mark] = ()
    predictions: Mapping[str, Predictions] = field(default_factory=dict)
    intervals: Mapping[str, Mapping[str, Interval | str]] = field(default_factory=dict)
    comparison: Comparison | str | None = None
    gaps: Sequence[Gap] = ()
    curves: Mapping[str, tuple[Curve, Curve]] = field(default_factory=dict)
    maps: Mapping[tuple[str, str], Projection | str] = field(default_factory=dict)
    check: CheckResult | str | None = None
    clinical: Mapping[str, ClinicalResult | str] = field(default_factory=dict)
    subgroups: SubgroupsResult | str | None = None
    complementarity: ComplementarityResult | str | None = None
    shap: Mapping[str, ShapResult | str] = field(default_factory=dict)
    examples: Examples | str | None = None
    versions: Mapping[str, int] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def best(self) -> Run | None:
        """The run with the best mean of the deciding metric."""
        return best_of(self.runs, self)


def best_of(runs: Sequence[Run], study: Study) -> Run | None:
    """Return the run with the best mean of the deciding metric, None where there is no run."""
    sign = 1 if study.better == "higher" else -1
    return max(runs, key=lambda run: sign * run.mean(study.metrics[0]), default=None)
