"""Integrated gradients: how much of a score each moment of each lead makes.

Sundararajan, Taly and Yan (2017), "Axiomatic attribution for deep networks", ICML, equation 1: the
gradient of the score along the straight line from a baseline without signal to the record, averaged
and multiplied by their difference. The parts add up to the score less that of the baseline
(completeness), which is checked and told. The baseline is a prepared window of zeros in every lead:
where a model centres its leads that is a flat lead, where it does not it is 0 mV.

The integral is taken by Gauss and Legendre's rule at the eighth powers of its nodes, which puts
them close together near the baseline: an encoder that normalises what it reads hardly looks at how
strong a signal is, so its score changes within the first thousandth of the way.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from ecgstore.errors import UsageError
from ecgstore.explain.attribution import Attribution
from ecgstore.explain.differentiable import OTHERWISE
from ecgstore.progress import Progress, Silent

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from ecgstore.models import Encoder

    Score = Callable[[Sequence[Tensor]], Tensor]

__all__ = ["gradients"]

_POWER = 8
_GAP = 0.01  # of the difference that the parts must add up to
_WINDOWS_CPU, _WINDOWS_GPU = 8, 32  # at once: gradients keep what every layer saw


def gradients(
    encoders: Sequence[Encoder],
    head: Score,
    signal: NDArray[np.floating],
    *,
    rate_hz: float,
    leads: Sequence[str],
    unit: str = "log-odds",
    steps: int = 50,
    most_steps: int = 400,
    bin_s: float = 0.1,
    progress: Progress | None = None,
) -> Attribution:
    """Return the integrated gradients of a score, summed over stretches of time.

    Args:
        encoders: One a member of the feature set.
        head: Makes ``(records,)`` scores of ``(records, dim)`` float64 tensors, a block an
            encoder; gradients flow through it. For an encoder's own head, take its read-out
            ``logits`` and ``lambda blocks: blocks[0][:, k]``.
        signal: ``(leads, samples)`` millivolts.
        rate_hz: Samples per second.
        leads: Name of each row, standard leads.
        unit: What scores are counted in.
        steps: Points of the integral; doubled until the parts add up within 1 per cent.
        most_steps: Where doubling ends.
        bin_s: Stretches of time that are summed, seconds.
        progress: Told of every step.

    Raises:
        UnfitRecordError: An encoder cannot take the record.
        UsageError: No gradient reaches the signal.
    """
    progress = progress or Silent()
    given = np.asarray(signal, dtype=np.float64)
    names = [one.window_leads(leads, signal=given) for one in encoders]
    windows = [
        torch.from_numpy(one.prepare(given, rate_hz=rate_hz, leads=leads)).to(one.device)
        for one in encoders
    ]

    def score(inputs: Sequence[Tensor]) -> Tensor:
        """Return ``(copies,)`` scores of ``(copies, windows, leads, samples)`` an encoder."""
        blocks = []
        for one, x, own in zip(encoders, inputs, names, strict=True):
            vectors, _ = one.forward(x.flatten(0, 1), own)
            blocks.append(vectors.double().reshape(*x.shape[:2], -1).mean(1).cpu())
        return head(blocks)

    with torch.no_grad():
        found = float(score([x[None] for x in windows])[0])
        baseline = float(score([torch.zeros_like(x)[None] for x in windows])[0])
    while True:
        slopes = _mean_slopes(score, windows, steps, progress=progress)
        parts = [
            (x.double().cpu() * slope).numpy() for x, slope in zip(windows, slopes, strict=True)
        ]
        gap = sum(float(part.sum()) for part in parts) - (found - baseline)
        if abs(gap) <= _GAP * max(abs(found - baseline), 1.0) or steps >= most_steps:
            break
        steps *= 2
    bins = max(1, int(np.ceil(given.shape[1] / rate_hz / bin_s - 1e-9)))
    values = np.zeros((len(leads), bins))
    for one, windowed, own in zip(encoders, parts, names, strict=True):
        starts = one.window_starts(given.shape[1], rate_hz=rate_hz)
        for begin_s, window in zip(starts, windowed, strict=True):
            time_s = begin_s + np.arange(window.shape[1]) / one.rate_hz
            place = np.minimum((time_s / bin_s + 1e-9).astype(np.intp), bins - 1)
            for lead, samples in zip(own, window, strict=True):
                if lead in leads:
                    values[list(leads).index(lead)] += np.bincount(place, samples, bins)
    edges = np.minimum(np.arange(bins + 1) * bin_s, given.shape[1] / rate_hz)
    made = Attribution(
        method="integrated gradients",
        unit=unit,
        leads=tuple(leads),
        edges_s=edges,
        values=values,
        by_lead=values.sum(axis=1),
        score=found,
        baseline=baseline,
    )
    return made.noted(
        f"The baseline is prepared windows of zeros, score {baseline:+.4f} {unit}; the parts add "
        f"up to {made.by_lead.sum():+.4f}, score less baseline is {found - baseline:+.4f} "
        f"(gap {made.gap:+.2g} at {steps} steps)."
    )


def _mean_slopes(
    score: Callable[[Sequence[Tensor]], Tensor],
    windows: Sequence[Tensor],
    steps: int,
    *,
    progress: Progress,
) -> list[Tensor]:
    """Return the gradient averaged over the way from zero to prepared windows, float64."""
    nodes, weights = np.polynomial.legendre.leggauss(steps)
    nodes, weights = (nodes + 1) / 2, weights / 2
    path, weights = nodes**_POWER, weights * _POWER * nodes ** (_POWER - 1)
    most = _WINDOWS_CPU if windows[0].device.type == "cpu" else _WINDOWS_GPU
    at_once = max(1, most // max(len(x) for x in windows))
    total = [torch.zeros(x.shape, dtype=torch.float64) for x in windows]
    progress.start(steps, "steps")
    for start in range(0, steps, at_once):
        share = torch.from_numpy(path[start : start + at_once])
        weight = torch.from_numpy(weights[start : start + at_once])
        inputs = [(x * share.to(x)[:, None, None, None]).requires_grad_() for x in windows]
        with torch.enable_grad():
            slopes = torch.autograd.grad(score(inputs).sum(), inputs, allow_unused=True)
        for i, slope in enumerate(slopes):
            if slope is None:
                msg = "No gradient of the score reaches the signal."
                raise UsageError(msg, hint=OTHERWISE)
            total[i] += torch.einsum("k,kwls->wls", weight, slope.double().cpu())
        progress.advance(len(share))
    return total
