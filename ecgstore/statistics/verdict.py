"""What a comparison says, in one plain sentence."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ecgstore.statistics.metrics import Metric
    from ecgstore.statistics.multiple import Correction
    from ecgstore.statistics.pair import Pair

__all__ = ["sentence"]

_NAMES = {"holm": "Holm", "bh": "Benjamini and Hochberg"}


def sentence(
    pair: Pair,
    names: tuple[str, str],
    metric: Metric,
    *,
    p_adjusted: float,
    comparisons: int,
    correction: Correction,
) -> str:
    """Return which of two is better, by how much, how sure that is, and whether it is shown.

    Args:
        pair: The figures.
        names: What the two are called.
        metric: The figure compared.
        p_adjusted: The quoted p-value after correction; NaN where there is none.
        comparisons: How many were corrected for.
        correction: How.
    """
    sign = 1 if metric.better == "higher" else -1
    lead = sign * (pair.a - pair.b)
    if lead < 0:
        sign, lead, names = -sign, -lead, (names[1], names[0])
    if lead:
        said = f"{names[0]} is better than {names[1]} by {_figure(lead)} {metric.name}"
    else:
        said = f"{names[0]} and {names[1]} have the same {metric.name}, {_figure(pair.a)}"
    interval = pair.interval
    if math.isnan(interval.low):
        details = [f"no interval: {interval.method}"]
    else:
        low, high = sorted((sign * interval.low, sign * interval.high))
        details = [f"{100 * interval.level:g} % interval {_figure(low)} to {_figure(high)}"]
    if math.isfinite(pair.p):
        told = f"{pair.quoted} p {_p(pair.p)}"
        if comparisons > 1:
            told += f", by {_NAMES[correction]} over {comparisons} comparisons p {_p(p_adjusted)}"
        details.append(told)
        shown = p_adjusted < 1 - interval.level
    else:
        shown = interval.excludes_zero
    verdict = "show a difference" if shown else "do not show a difference"
    return f"{said} ({'; '.join(details)}): the data {verdict}."


def _figure(value: float) -> str:
    """Return three decimals, more where the figure is smaller than these tell; a true minus."""
    text = f"{value:.3f}" if abs(value) >= 0.0005 else f"{value:.1g}"
    return text.replace("-", "−")


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"= {value:.2g}"
