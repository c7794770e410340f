"""Which records are learned from, and what their labels say."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ecgstore.errors import NotEnoughDataError, UsageError
from ecgstore.splitting.reshuffles import Reshuffle, reshuffles
from ecgstore.tasks import cohort, target_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from ecgstore.catalog import Catalog
    from ecgstore.models.heads import Output

__all__ = ["Labelled", "find_labelled", "find_reshuffle"]


@dataclass(frozen=True, eq=False)
class Labelled:
    """The training records of a reshuffle that have a label.

    Attributes:
        record_ids: ``(records,)`` sorted.
        patients: ``(records,)`` number of each record's patient.
        labels: ``(records, tasks)``, NaN where one is not told.
        rates: Samples per second of each record.
        output: What the labels are.
    """

    record_ids: list[str]
    patients: NDArray[np.int64]
    labels: NDArray[np.float64]
    rates: dict[str, float | None]
    output: Output


def find_reshuffle(catalog: Catalog, split: str, repeat: int | None) -> Reshuffle:
    """Return a reshuffle of a split by its number, or its only one.

    Raises:
        UnknownNameError: There is no such split.
        UsageError: It has several and none is named, or none of that number.
    """
    found = {one.repeat: one for one in reshuffles(catalog, split)}
    if repeat is None and len(found) > 1:
        msg = f"The split {split!r} has {len(found)} reshuffles, each with other training records."
        raise UsageError(msg, hint="Name one with --repeat, and evaluate on that one.")
    number = min(found) if repeat is None else repeat
    if number not in found:
        msg = f"The split {split!r} has no reshuffle {number}; it has {min(found)} to {max(found)}."
        raise UsageError(msg)
    return found[number]


def find_labelled(
    catalog: Catalog, tasks: Sequence[str], chosen: Reshuffle, target: str | None
) -> Labelled:
    """Return the training records that have a label in any of some tasks.

    Args:
        catalog: The warehouse.
        tasks: Names of tasks.
        chosen: Whose training records.
        target: ``binary`` or ``continuous``, or None for what the labels look like.

    Raises:
        UsageError: Labels are of another kind, or not all of the same.
        NotEnoughDataError: No training record has a label, or all have the same in some task.
    """
    people = cohort(catalog, tasks)
    people = people.filter(pc.is_in(people["record_id"], pa.array(chosen.train, pa.string())))
    if not len(people):
        msg = f"No training record of {chosen.split_id!r} has a label for {', '.join(tasks)}."
        raise NotEnoughDataError(msg, task=",".join(tasks), counts={"records": 0})
    ids: list[str] = people["record_id"].to_pylist()
    columns = [people[task].to_numpy(zero_copy_only=False).astype(np.float64) for task in tasks]
    outputs = {
        task: _output(task, column[~np.isnan(column)], target)
        for task, column in zip(tasks, columns, strict=True)
    }
    if len({*outputs.values()}) > 1:
        binary = [task for task, output in outputs.items() if output == "binary"]
        msg = f"Of the tasks only {', '.join(binary)} are binary; one head has outputs of one kind."
        raise UsageError(msg, hint="Finetune on them one after another.")
    rates = catalog.table(
        "select record_id, rate_hz from records where record_id in (select unnest($ids))",
        {"ids": ids},
    )
    return Labelled(
        record_ids=ids,
        patients=people["patient"].to_numpy(zero_copy_only=False),
        labels=np.stack(columns, axis=1),
        rates=dict(zip(*(rates[name].to_pylist() for name in rates.column_names), strict=True)),
        output=outputs[tasks[0]],
    )


def _output(task: str, labels: NDArray[np.float64], target: str | None) -> Output:
    if target not in (None, "binary", "continuous"):
        msg = f"An encoder is not finetuned to {target} labels; expected binary or continuous."
        raise UsageError(msg, hint="Make a task of 0 and 1 of each class.")
    if len(np.unique(labels)) < 2:
        told = f"all {len(labels)} have the same" if len(labels) else "none is told"
        msg = f"The labels of the training records for {task!r} tell nothing apart: {told}."
        raise NotEnoughDataError(msg, task=task, counts={"records": len(labels)})
    found = target_of(labels, target, task=task)
    if found not in ("binary", "continuous"):
        msg = f"The labels of {task!r} are several classes; a head has one yes or no each."
        raise UsageError(msg, hint="Make a task of 0 and 1 of each, or give --target continuous.")
    return found
