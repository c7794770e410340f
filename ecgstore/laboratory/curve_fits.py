"""What learning curves come to: intervals of their points, power laws, labels that are saved."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ecgstore.statistics.bootstrap import counts_of
from ecgstore.statistics.power_law import POINTS, PowerLaw, fit_power_law

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from ecgstore.statistics.bootstrap import Sample
    from ecgstore.statistics.metrics import Metric

    Array = NDArray[np.float64]

__all__ = ["Curve", "CurveFit", "Point", "fit_curves"]

_BLOCK = 100
"""Resamples counted at once."""

_SLOWEST = 0.05
"""A power law this slow bends so little that where it ends cannot be told."""


@dataclass(frozen=True, eq=False)
class Point:
    """What was learned from one fraction.

    Attributes:
        fraction: Part of the training patients.
        labels: Training records, mean over the reshuffles.
        samples: The test part of each reshuffle; none where nothing could be fitted.
        reason: Why not.
    """

    fraction: float
    labels: float
    samples: tuple[Sample, ...]
    reason: str


@dataclass(frozen=True, eq=False)
class Curve:
    """The points of one feature set and classifier, by fraction."""

    features: str
    classifier: str
    points: Sequence[Point]


@dataclass(frozen=True)
class CurveFit:
    """The power law of a curve, and what it says against a baseline.

    Attributes:
        row: ``a``, ``b``, ``c`` of metric = a - b · n^(-c) (for errors, a + b · n^(-c)), the
            metric of the baseline, the labels needed to reach it and those saved, each with its
            interval; None is what cannot be told, with the ``reason``.
        sentence: The same in words.
    """

    row: dict[str, object]
    sentence: str


def fit_curves(
    curves: Sequence[Curve],
    metric: Metric,
    baseline: int | None,
    n_patients: int,
    *,
    resamples: int,
    seed: int,
    level: float,
) -> tuple[list[dict[str, object]], tuple[CurveFit, ...]]:
    """Return one row a point, and one fit a curve.

    Args:
        curves: One a feature set.
        metric: What is measured.
        baseline: Place of the curve that labels are saved against.
        n_patients: Patients are numbered below this in all samples.
        resamples: How often patients and reshuffles are drawn.
        seed: Seed of the draws.
        level: Confidence level.
    """
    drawn = [
        _resampled(curve, metric, n_patients, resamples=resamples, seed=seed) for curve in curves
    ]
    ends = ((1 - level) / 2, (1 + level) / 2)
    rows = [
        _row(curve, point, metric, column, ends)
        for curve, values in zip(curves, drawn, strict=True)
        for point, column in zip(curve.points, values.T, strict=True)
    ]
    goal = None if baseline is None else _Goal.of(curves[baseline], drawn[baseline])
    fits = tuple(
        _fit(curve, values, metric, goal if number != baseline else None, ends)
        for number, (curve, values) in enumerate(zip(curves, drawn, strict=True))
    )
    return rows, fits


def _resampled(
    curve: Curve, metric: Metric, n_patients: int, *, resamples: int, seed: int
) -> Array:
    """Return ``(1 + resamples, points)`` means over reshuffles, as they are and redrawn.

    Patients and reshuffles are drawn with replacement; all curves draw the same.
    """
    rng = np.random.default_rng(seed)
    repeats = max(len(point.samples) for point in curve.points)
    found = [_means(curve, metric, np.ones((1, n_patients), np.int32), np.ones((1, repeats)))]
    for start in range(0, resamples, _BLOCK):
        n = min(_BLOCK, resamples - start)
        counts = counts_of(rng.integers(0, n_patients, (n, n_patients)))
        times = rng.multinomial(repeats, np.full(repeats, 1 / repeats), n) if repeats else None
        if times is not None:
            found.append(_means(curve, metric, counts, times.astype(np.float64)))
    return np.concatenate(found)


def _means(curve: Curve, metric: Metric, counts: NDArray[np.int32], times: Array) -> Array:
    """Return ``(resamples, points)``: means over reshuffles that define the metric, by weight."""
    out = np.full((len(counts), len(curve.points)), np.nan)
    for k, point in enumerate(curve.points):
        if not point.samples:
            continue
        each = np.column_stack(
            [metric.of(one.labels, one.scores, counts[:, one.groups]) for one in point.samples]
        )
        weight = np.where(np.isfinite(each), times, 0)
        with np.errstate(invalid="ignore"):
            out[:, k] = (np.nan_to_num(each) * weight).sum(axis=1) / weight.sum(axis=1)
    return out


def _row(
    curve: Curve, point: Point, metric: Metric, column: Array, ends: tuple[float, float]
) -> dict[str, object]:
    value, low, high = _told(column, ends)
    reason = point.reason or ("the metric is not defined" if value is None else None)
    return {
        "features": curve.features,
        "classifier": curve.classifier,
        "fraction": point.fraction,
        "labels": point.labels,
        "repeats": len(point.samples),
        "metric": metric.name,
        "value": value,
        "low": low,
        "high": high,
        "reason": reason,
    }


def _told(
    column: Array, ends: tuple[float, float]
) -> tuple[float | None, float | None, float | None]:
    """Return the estimate, which comes first, and quantiles of the rest; None where not finite.

    Quantiles are values that occur, so that infinite ones, which stand for "never", may be among
    them.
    """
    rest = column[1:][~np.isnan(column[1:])]
    found = [float(column[0])]
    if 2 * len(rest) >= len(column) - 1 and len(rest):
        found += np.quantile(rest, ends, method="inverted_cdf").tolist()
    else:
        found += [np.nan, np.nan]
    value, low, high = (one if np.isfinite(one) else None for one in found)
    return value, low, high


@dataclass(frozen=True, eq=False)
class _Goal:
    """What a baseline reaches with all its labels: as it is, and in each resample."""

    features: str
    labels: float
    values: Array

    @classmethod
    def of(cls, curve: Curve, values: Array) -> _Goal:
        return cls(f"{curve.features} ({curve.classifier})", curve.points[-1].labels, values[:, -1])


def _fit(
    curve: Curve, values: Array, metric: Metric, goal: _Goal | None, ends: tuple[float, float]
) -> CurveFit:
    told = [k for k, point in enumerate(curve.points) if point.samples]
    sizes = np.array([curve.points[k].labels for k in told])
    row: dict[str, object] = {"features": curve.features, "classifier": curve.classifier}
    row |= {"metric": metric.name, "sizes": len(sizes), "reason": None}
    figures = ("a", "b", "c", "goal", "labels_needed", "labels_saved")
    row |= dict.fromkeys(f"{one}{end}" for one in figures for end in ("", "_low", "_high"))
    defined: NDArray[np.bool_] = np.isfinite(values[:, told].sum(axis=1))
    reason = ""
    if len(np.unique(sizes)) < POINTS:
        reason = f"{len(np.unique(sizes))} sizes could be learned from; {POINTS} are needed"
    elif not defined[0] or 2 * defined.sum() < len(defined):
        reason = "the metric is not defined in most resamples"
    if reason:
        sentence = f"{curve.features}: no power law is fitted: {reason}."
        return CurveFit({**row, "reason": reason}, sentence)
    sign, ceiling = (1.0, 1.0) if metric.better == "higher" else (-1.0, 0.0)
    law = fit_power_law(sizes, sign * values[defined][:, told], ceiling=ceiling)
    for name, column in (("a", sign * law.a), ("b", law.b), ("c", law.c)):
        row |= _named(name, _told(column, ends))
    words, reason = _shape(law, metric, row, sizes, ceiling)
    sentence = f"{curve.features}: {words}"
    if goal is not None:
        sentence += " " + _saved(row, law, sizes, goal, defined, sign, ends, metric)
    row["reason"] = reason or None
    return CurveFit(row, sentence)


def _shape(
    law: PowerLaw, metric: Metric, row: dict[str, object], sizes: Array, ceiling: float
) -> tuple[str, str]:
    """Return what the power law says, and why its end is not told where it is not."""
    span = f"{sizes[0]:,.0f} to {sizes[-1]:,.0f} labels"
    if not law.b[0] > 0:
        row |= dict.fromkeys(("b", "b_low", "b_high", "c", "c_low", "c_high"))
        return f"{metric.name} does not rise from {span}.", "the curve is level"
    unknown, reason = "", ""
    if law.a[0] >= ceiling:
        unknown = f"{metric.name} tends to the best value there is, so where it ends is not told."
        reason = "the power law ends on the best value there is"
    elif law.c[0] < _SLOWEST:
        unknown = f"{metric.name} bends too little from {span} to tell where it ends."
        reason = "the curve bends too little to tell where it ends"
    if reason:
        row |= dict.fromkeys(("a", "a_low", "a_high"))
        return unknown, reason
    end = f"{row['a']:.3f}"
    if row["a_low"] is not None and row["a_high"] is not None:
        low, high = sorted((float(str(row["a_low"])), float(str(row["a_high"]))))
        end += f" ({low:.3f} to {high:.3f})"
    return f"{metric.name} tends to {end} beyond the {span} seen.", ""


def _saved(
    row: dict[str, object],
    law: PowerLaw,
    sizes: Array,
    goal: _Goal,
    defined: NDArray[np.bool_],
    sign: float,
    ends: tuple[float, float],
    metric: Metric,
) -> str:
    """Fill in the labels needed for what the baseline reaches, and say it in words.

    A power law is not asked beyond the sizes it was fitted to: fewer than the least is minus
    infinity, more than the most infinity, and neither is told as a number.
    """
    row |= _named("goal", _told(goal.values, ends))
    if row["goal"] is None:
        return f"What {goal.features} reaches is not known."
    wanted = sign * goal.values[defined]
    needed = law.needed(wanted)
    needed = np.where(law.at(sizes[0]) >= wanted, -np.inf, needed)
    needed = np.where(needed > sizes[-1], np.inf, needed)
    needed = np.where(np.isnan(wanted), np.nan, needed)
    row |= _named("labels_needed", _told(needed, ends))
    value, low, high = _told(goal.labels - needed, ends)
    row |= _named("labels_saved", (value, low, high))
    least, most = f"fewer than {sizes[0]:,.0f}", f"more than {sizes[-1]:,.0f}"

    def words(name: str, place: float) -> str:
        number = row[name]
        if isinstance(number, float):
            return f"{number:,.0f}"
        return least if place < 0 else most

    lower, upper = np.quantile(needed[1:][~np.isnan(needed[1:])], ends, method="inverted_cdf")
    among = [words("labels_needed_low", lower), words("labels_needed_high", upper)]
    span = " to ".join(dict.fromkeys(among))
    about = (
        f"{metric.name} {row['goal']:.3f}, which {goal.features} reaches with {goal.labels:,.0f}"
    )
    if needed[0] == np.inf:
        return f"It does not reach {about}, with the labels at hand ({span} are needed)."
    text = f"For {about}, it needs {words('labels_needed', needed[0])} labels ({span})"
    if value is None:
        return f"{text}."
    share = value / goal.labels
    return f"{text}: {value:,.0f} are saved ({share:.0%})." if value > 0 else f"{text}: none saved."


def _named(name: str, told: tuple[float | None, float | None, float | None]) -> dict[str, object]:
    return dict(zip((name, f"{name}_low", f"{name}_high"), told, strict=True))
