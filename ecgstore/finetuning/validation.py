"""How well a finetuned network does on patients of the training part that it does not learn from.

Records are prepared, run and pooled by the engine that embeds, so a figure here is what the file
gives later.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ecgstore import engine
from ecgstore.errors import NotEnoughDataError
from ecgstore.feed import stream
from ecgstore.splitting.drawing import draw, draw_several
from ecgstore.statistics.metrics import METRICS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from ecgstore.models import Encoder
    from ecgstore.models.heads import Output
    from ecgstore.warehouse import Warehouse

__all__ = ["Judged", "hold_out", "judge", "measured"]

_LEAST = 1e-7
"""A probability counts as no smaller, nor as nearer to 1, as float32 tells them."""


@dataclass(frozen=True)
class Judged:
    """What a network is worth on the validation records.

    Attributes:
        step: Updates done.
        loss: Mean log loss, or mean square of standardised numbers, over the labels known.
        auroc: Mean AUROC over the tasks of which both classes are there; NaN for numbers.
        records: Records that could be judged.
    """

    step: int
    loss: float
    auroc: float
    records: int


def hold_out(
    labels: NDArray[np.float64],
    patients: NDArray[np.int64],
    share: float,
    *,
    seed: int,
    output: Output,
    tasks: Sequence[str],
) -> NDArray[np.bool_]:
    """Draw the records to validate on: those of some patients, stratified by the labels.

    Args:
        labels: ``(records, tasks)``, NaN where not known.
        patients: ``(records,)`` any numbers.
        share: Part of the patients.
        seed: Of the draw.
        output: What the labels are.
        tasks: Their names, for messages.

    Returns:
        ``(records,)`` bool.

    Raises:
        NotEnoughDataError: There are too few patients for both parts to have both classes.
    """
    groups = np.unique(patients, return_inverse=True)[1]
    one = labels.shape[1] == 1
    try:
        if output == "binary" and not one:
            drawn = draw_several(labels, groups, repeats=1, test_size=share, seed=seed)
        else:
            told = labels[:, 0]  # continuous labels are stratified by the first
            told = np.where(np.isnan(told), np.nanmedian(told), told)
            target: Any = output
            drawn = draw(told, groups, repeats=1, test_size=share, seed=seed, target=target)
        held = next(iter(drawn))
    except ValueError as error:
        raise _too_few(tasks, groups, str(tasks[0])) from error
    if output == "binary":
        for part, every in ((~held, True), (held, one)):
            lacking = [
                task
                for task, column in zip(tasks, labels[part].T, strict=True)
                if not {0.0, 1.0} <= {*column[~np.isnan(column)].tolist()}
            ]
            if lacking and (every or len(lacking) == len(tasks)):
                raise _too_few(tasks, groups, lacking[0])
    return held


def _too_few(tasks: Sequence[str], groups: NDArray[np.intp], lacking: str) -> NotEnoughDataError:
    count = len(np.unique(groups))
    msg = (
        f"The {count} training patients do not give both classes of {lacking!r} to a training and "
        "a validation part."
    )
    hint = "Label more records, leave the task out, or change --validation."
    return NotEnoughDataError(msg, task=",".join(tasks), counts={"patients": count}, hint=hint)


def judge(
    encoder: Encoder,
    warehouse: Warehouse,
    labels: Mapping[str, NDArray[np.float64]],
    rates: Mapping[str, float | None],
    *,
    step: int,
    batch_size: int,
) -> Judged:
    """Run a network on the validation records and say what it is worth.

    Args:
        encoder: The network as it is, with its head.
        warehouse: Where the records are, at fixed versions.
        labels: ``(tasks,)`` labels of each record, NaN where not known.
        rates: Samples per second of each.
        step: Updates done.
        batch_size: Windows at once.
    """
    ids: list[str] = []
    parts: list[NDArray[np.float32]] = []
    told = {name: float(rate or 0) for name, rate in rates.items() if name in labels}
    for item in engine.run(
        stream(warehouse, told), [[encoder]], [told], rates=told, batch_size=batch_size
    ):
        if isinstance(item, engine.Vectors) and item.probabilities is not None:
            ids += item.record_ids
            parts.append(item.probabilities)
    if not ids:
        msg = "None of the validation records can be taken by the model."
        raise NotEnoughDataError(msg, task="validation", hint="Choose another split or model.")
    known = np.stack([labels[name] for name in ids])
    assert encoder.head is not None  # there is one
    scores = np.concatenate(parts).astype(np.float64)
    if encoder.head.configuration.output == "binary":
        loss, auroc = measured(known, scores)
        return Judged(step, loss, auroc, len(ids))
    scale = encoder.head.deviation.double().cpu().numpy()
    return Judged(step, float(np.nanmean(((scores - known) / scale) ** 2)), np.nan, len(ids))


def measured(labels: NDArray[np.float64], scores: NDArray[np.float64]) -> tuple[float, float]:
    """Return log loss and mean AUROC.

    Args:
        labels: ``(records, tasks)`` 0, 1, or NaN where not known.
        scores: Probabilities of 1.
    """
    clipped = scores.clip(_LEAST, 1 - _LEAST)
    losses = -np.where(labels == 1, np.log(clipped), np.log(1 - clipped))
    known = ~np.isnan(labels)
    aurocs = [
        float(METRICS["AUROC"].of(column[there], score[there], None)[0])
        for column, score, there in zip(labels.T, scores.T, known.T, strict=True)
        if len(np.unique(column[there])) == 2
    ]
    return float(losses[known].mean()), float(np.mean(aurocs)) if aurocs else float("nan")
