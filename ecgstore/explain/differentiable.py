"""The head of a run as a function of tensors, so that gradients flow from a score to the vectors.

Written anew from what each classifier keeps, in double precision, and compared with the head itself
before it is used.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import torch

from ecgstore.classifiers.tensors import from_tensors
from ecgstore.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import ArrayLike, NDArray
    from torch import Tensor

    from ecgstore.classifiers import Classifier
    from ecgstore.explain.head import Head

    Score = Callable[[Sequence[Tensor]], Tensor]

__all__ = ["OTHERWISE", "check", "differentiable"]

OTHERWISE = "Use --method occlusion, which explains any classifier."
"""The hint where there is no gradient."""

_CLOSE = 1e-3
"""By how much scores in single and in double precision may differ, absolute and relative."""

_SURE = 10.0


def differentiable(head: Head) -> Score:
    """Return the head of a run as a function of ``(records, dim)`` float64 tensors, one a member.

    Raises:
        UsageError: Its classifier or fusion has no gradient that is known here.
    """
    if not head.features.members:
        slope, shift = (float(one) for one in head.labels)
        return lambda blocks: blocks[0][:, 0] * slope + shift
    one = head.alone
    if one is None or one.name not in _KNOWN:
        who = f"the fusion {head.features.method!r}" if one is None else repr(head.classifier)
        msg = f"Integrated gradients need a head that has a gradient; {who} has none that is known."
        raise UsageError(msg, hint=OTHERWISE)
    classify, join = _KNOWN[one.name](one), _join(head)
    return lambda blocks: classify(join(blocks))


def check(head: Head, score: Score, blocks: Sequence[NDArray[np.float32]]) -> None:
    """Raise `UsageError` unless a function of tensors gives the scores of the head."""
    made = score([torch.from_numpy(block).double() for block in blocks]).detach().numpy()
    own = head(blocks)
    if head.unit == "log-odds":  # beyond this a probability is 0 or 1, and tells no log-odds
        made, own = (np.clip(one, -_SURE, _SURE) for one in (made, own))
    if not np.allclose(made, own, rtol=_CLOSE, atol=_CLOSE):
        msg = f"The gradient that is known of {head.classifier!r} is not that of its scores."
        raise UsageError(msg, hint=OTHERWISE)


def _join(head: Head) -> Callable[[Sequence[Tensor]], Tensor]:
    """Return the scaling or fusion of members, all linear: shift, then weigh, then join."""
    shifts: list[Tensor] = []
    weights: list[Tensor] = []
    fusion = head.fitted.fusion
    if fusion is not None:  # one that makes vectors, or the head would not stand alone
        for i in range(len(head.features.members)):
            deviation = _double(fusion.fitted[f"deviation.{i}"])
            shifts.append(_double(fusion.fitted[f"mean.{i}"]))
            weights.append(_double(fusion.fitted[f"weights.{i}"]) / deviation[:, None])
    for one in head.statistics:
        minmax = head.features.scale == "minmax"
        span = one.mx - one.mn if minmax else one.std
        shifts.append(_double(one.mn if minmax else one.mean))
        weights.append(_double(np.where(span > 0, 1 / np.where(span > 0, span, 1), 0)))

    def join(blocks: Sequence[Tensor]) -> Tensor:
        if not shifts:
            return torch.cat(list(blocks), dim=1)
        parts = []
        for block, shift, weight in zip(blocks, shifts, weights, strict=True):
            centred = block - shift
            parts.append(centred @ weight if weight.ndim == 2 else centred * weight)
        return torch.cat(parts, dim=1)

    return join


def _linear(classifier: Classifier) -> Callable[[Tensor], Tensor]:
    """Return logistic or ridge regression; of two classes, ridge has a logistic link (Platt)."""
    stored: Mapping[str, ArrayLike] = json.loads(classifier.save())
    mean, scale, coef = (_double(stored[name]) for name in ("mean", "scale", "coef"))
    intercept = float(_double(stored["intercept"]).reshape(-1)[0])
    slope, shift = (float(one) for one in _double(stored.get("link", (1.0, 0.0))))
    return lambda x: slope * (((x - mean) / scale) @ coef + intercept) + shift


def _mlp(classifier: Classifier) -> Callable[[Tensor], Tensor]:
    """Return the perceptron with one hidden layer."""
    arrays, _ = from_tensors(classifier.save())
    stored = {name: _double(array) for name, array in arrays.items()}
    shift, slope = (float(one) for one in stored.get("labels", (0.0, 1.0)))

    def score(x: Tensor) -> Tensor:
        scaled = (x - stored["input.mean"]) / stored["input.scale"]
        hidden = (scaled @ stored["1.weight"].T + stored["1.bias"]).relu()
        return (hidden @ stored["4.weight"].T + stored["4.bias"])[:, 0] * slope + shift

    return score


_KNOWN: Mapping[str, Callable[[Classifier], Callable[[Tensor], Tensor]]] = {
    "logistic": _linear,
    "ridge": _linear,
    "mlp": _mlp,
}


def _double(values: ArrayLike) -> Tensor:
    return torch.from_numpy(np.array(values, dtype=np.float64))
