"""Logistic regression on one variable by maximum likelihood: the line calibration asks for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.special import expit

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

__all__ = ["LEAST", "logistic_fit", "logits", "no_line"]

LEAST = 1e-6
"""The least probability, and the least distance from 1, of which a logit is taken."""


def logits(scores: ArrayLike) -> tuple[NDArray[np.float64], int]:
    """Return the logits of probabilities, and how many were moved to `LEAST` from 0 or 1."""
    values = np.asarray(scores, dtype=np.float64)
    inside = np.clip(values, LEAST, 1 - LEAST)
    return np.log(inside) - np.log1p(-inside), int((inside != values).sum())


def logistic_fit(
    x: NDArray[np.float64], targets: NDArray[np.float64], *, slope: float | None = None
) -> tuple[float, float]:
    """Return slope and intercept of most likelihood, by Newton's method with halved steps.

    Args:
        x: ``(records,)`` what the probability depends on.
        targets: ``(records,)`` 0 to 1, for which a line of finite slope exists.
        slope: Holds the slope there, and fits the intercept alone.
    """
    share = float(np.clip(targets.mean(), LEAST, 1 - LEAST))
    line = np.array([slope or 0.0, np.log(share / (1 - share)) - (slope or 0.0) * x.mean()])
    free = slice(0 if slope is None else 1, 2)
    design = np.column_stack([x, np.ones_like(x)])

    def loss(at: NDArray[np.float64]) -> float:
        z = design @ at
        return float(np.mean(np.logaddexp(0, z) - targets * z))

    now = loss(line)
    for _ in range(100):
        p = expit(design @ line)
        gradient = design.T @ (targets - p) / len(x)
        curvature = (design * (p * (1 - p))[:, None]).T @ design / len(x)
        step = np.zeros(2)
        step[free] = np.linalg.lstsq(curvature[free, free], gradient[free], rcond=None)[0]
        size = 1.0
        while (after := loss(line + size * step)) > now + 1e-15 and size > 1e-8:
            size /= 2
        line, now = line + size * step, min(after, now)
        if np.abs(step).max() < 1e-10 * (1 + np.abs(line).max()):
            break
    return float(line[0]), float(line[1])


def no_line(truth: NDArray[np.float64], x: NDArray[np.float64]) -> str | None:
    """Return why no finite calibration line exists (Albert and Anderson, Biometrika 1984)."""
    positive, negative = x[truth == 1], x[truth == 0]
    if not len(positive) or not len(negative):
        return f"no record is {'negative' if len(positive) else 'positive'}"
    if x.min() == x.max():
        return "all scores are equal"
    if negative.max() <= positive.min() or positive.max() <= negative.min():
        return "one threshold parts the classes without error, so that no finite slope exists"
    return None
