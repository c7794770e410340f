"""Reshuffles: which labelled records a classifier learns from and which it is tested on.

A split is drawn once, stored record by record in ``splits``, and never changed: every run over it
sees the same records, on any machine.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import pyarrow as pa

from ecgstore.catalog import Catalog
from ecgstore.errors import NotEnoughDataError, UnknownNameError, UsageError
from ecgstore.schema import table_schema

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from ecgstore.warehouse import Warehouse

__all__ = ["EVERYTHING", "Reshuffle", "SplitResult", "draw", "reshuffles", "split"]

EVERYTHING = "all"
"""Stands in ``norm_stats.split_id`` for statistics over all records; no split may be named so."""

_COHORT = """
    with cohort as (
        select l.record_id, l.label, r.patient_id
        from labels l
        join records r using (record_id)
        where l.task = $task and l.label is not null
    ),
    named as (
        select
            *,
            case
                when patient_id is null then record_id
                else min(record_id) over (partition by patient_id)
            end as first  -- stands for the patient, whichever key hid the id
        from cohort
    )
    select
        record_id,
        label,
        patient_id is null as alone,
        dense_rank() over (order by first) - 1 as patient
    from named
    order by record_id
"""

_STORED = """
    select repeat, record_id, split, task, params
    from splits
    where split_id = $split_id
    order by repeat, record_id
"""


@dataclass(frozen=True)
class Reshuffle:
    """One division of a task's records into two parts.

    Attributes:
        split_id: Name of the split it belongs to.
        repeat: Its number in the split, from 0.
        task: The task whose labels it was stratified by.
        train: Record ids to learn from, in order.
        test: Record ids to be tested on, in order.
    """

    split_id: str
    repeat: int
    task: str
    train: tuple[str, ...]
    test: tuple[str, ...]


@dataclass(frozen=True)
class SplitResult:
    """What a `split` call drew.

    Attributes:
        name: Name of the split.
        task: Its task.
        group: What is never on both sides: ``patient_id``, or ``none`` for single records.
        test_size: Part of the groups that is tested on.
        seed: Seed it was drawn with.
        records: Labelled records divided.
        positives: Those of them labelled 1.
        groups: Patients (or records, when not grouped) drawn from.
        unidentified: Records without a patient id, each taken as a patient of its own.
        rows: One row a reshuffle: records and positives on each side.
        added: Whether it was stored now; False when it was there already, or in a dry run.
    """

    name: str
    task: str
    group: str
    test_size: float
    seed: int
    records: int
    positives: int
    groups: int
    unidentified: int
    rows: list[dict[str, object]]
    added: bool

    def __repr__(self) -> str:
        state = "" if self.added else ", unchanged"
        return (
            f"SplitResult({self.name!r}, {self.task}: {len(self.rows)} reshuffles of "
            f"{self.records} records, {self.positives} positive{state})"
        )

    def _repr_html_(self) -> str:
        return (
            f"<b>{self.name}</b>: {len(self.rows)} reshuffles of {self.records} records, "
            f"{self.positives} positive for {self.task}"
        )


def draw(
    labels: NDArray[np.float64],
    groups: NDArray[np.int64],
    *,
    repeats: int,
    test_size: float,
    seed: int,
) -> Iterator[NDArray[np.bool_]]:
    """Draw stratified reshuffles that keep groups whole.

    A group counts as positive when any of its records is; `test_size` is a part of the groups.

    Args:
        labels: ``(records,)`` 0 or 1.
        groups: ``(records,)`` group numbers 0 … g-1; each occurs.
        repeats: How many.
        test_size: Part of the groups to test on.
        seed: Seed of the draw. The first k of n repeats are those of k repeats.

    Yields:
        ``(records,)`` bool, True for test, one a repeat.

    Raises:
        ValueError: A class has too few groups for both sides.
    """
    from sklearn.model_selection import StratifiedShuffleSplit

    positive = np.zeros(int(groups.max()) + 1, dtype=bool)
    np.logical_or.at(positive, groups, labels == 1)
    splitter = StratifiedShuffleSplit(repeats, test_size=test_size, random_state=seed)
    for _, chosen in splitter.split(positive[:, None], positive):
        test = np.zeros(len(positive), dtype=bool)
        test[chosen] = True
        yield test[groups]


def split(
    warehouse: Warehouse,
    name: str,
    *,
    task: str,
    repeats: int = 10,
    test_size: float = 0.2,
    seed: int = 0,
    group: Literal["patient_id", "none"] = "patient_id",
    dry_run: bool = False,
) -> SplitResult:
    """Draw stratified reshuffles of a task's labelled records and store them.

    Args:
        warehouse: Where labels are read and the split is written.
        name: Name of the split.
        task: A task with labels 0 and 1; records without a label are left out.
        repeats: Number of reshuffles.
        test_size: Part to test on, between 0 and 1: of the patients, or of the records when they
            are not grouped.
        seed: Seed of the draw; the same records and seed give the same reshuffles anywhere.
        group: ``patient_id`` keeps the records of a patient on one side, whichever dataset they
            are in; ``none`` draws record by record, as many papers do.
        dry_run: Draw and write nothing.

    Returns:
        What was drawn. A split that is stored already with the same settings is left as it is.

    Raises:
        UnknownNameError: No such task.
        NotEnoughDataError: A class is too small for both sides.
        UsageError: A setting is out of range, labels are not binary, or the name stands for
            another split.
    """
    _check(name, repeats=repeats, test_size=test_size, group=group)
    with Catalog(warehouse.relations()) as catalog:
        cohort = catalog.table(_COHORT, {"task": task})
        if not len(cohort):
            _refuse_empty(catalog, task)
        stored = catalog.table(_STORED, {"split_id": name})
    labels = cohort["label"].to_numpy()
    _check_binary(labels, task)
    groups = np.arange(len(cohort)) if group == "none" else cohort["patient"].to_numpy()
    counts = {
        "records": len(labels),
        "positives": int(labels.sum()),
        "groups": int(groups.max()) + 1,
    }
    try:
        masks = list(draw(labels, groups, repeats=repeats, test_size=test_size, seed=seed))
    except ValueError as error:
        raise _too_few(labels, groups, task=task, group=group) from error
    if not all(len(np.unique(labels[side])) == 2 for test in masks for side in (test, ~test)):
        raise _too_few(labels, groups, task=task, group=group)
    params = {
        "method": "stratified shuffle",
        "task": task,
        "repeats": repeats,
        "test_size": test_size,
        "seed": seed,
        "group": group,
        **counts,
    }
    rows = _rows(name, task, cohort["record_id"], masks, params=json.dumps(params))
    if len(stored) and not _same(stored, rows):
        _refuse_taken(name)
    added = False
    if not dry_run and not len(stored):
        added = warehouse.append("splits", rows, command=f"split {name}") == len(rows)
        if not added:  # another process stored a split of this name meanwhile
            with Catalog(warehouse.relations()) as catalog:
                if not _same(catalog.table(_STORED, {"split_id": name}), rows):
                    _refuse_taken(name)
    return SplitResult(
        name=name,
        task=task,
        group=group,
        test_size=test_size,
        seed=seed,
        **counts,
        unidentified=int(cohort["alone"].to_numpy().sum()),
        rows=[
            {
                "split": name,
                "repeat": repeat,
                "train": int((~test).sum()),
                "train_positive": int(labels[~test].sum()),
                "test": int(test.sum()),
                "test_positive": int(labels[test].sum()),
            }
            for repeat, test in enumerate(masks)
        ],
        added=added,
    )


def reshuffles(catalog: Catalog, split_id: str) -> list[Reshuffle]:
    """Return the reshuffles of a stored split in order.

    Raises:
        UnknownNameError: No split of this name is stored.
    """
    stored = catalog.table(_STORED, {"split_id": split_id})
    if not len(stored):
        known = catalog.table("select distinct split_id from splits")["split_id"].to_pylist()
        raise UnknownNameError(split_id, kind="split", known=known)
    repeat = stored["repeat"].to_numpy()
    ids = stored["record_id"].to_numpy()
    test = stored["split"].to_numpy() == "test"
    task = stored["task"][0].as_py()
    return [
        Reshuffle(
            split_id=split_id,
            repeat=int(number),
            task=task,
            train=tuple(ids[(repeat == number) & ~test]),
            test=tuple(ids[(repeat == number) & test]),
        )
        for number in np.unique(repeat)
    ]


def _check(name: str, *, repeats: int, test_size: float, group: str) -> None:
    if not name or name == EVERYTHING:
        msg = f"A split cannot be named {name!r}."
        raise UsageError(msg, hint="Choose a name such as 'mi10'.")
    if repeats < 1:
        msg = f"repeats is {repeats}; a split needs at least 1 reshuffle."
        raise UsageError(msg)
    if not 0 < test_size < 1:
        msg = f"test_size is {test_size:g}; it must lie between 0 and 1."
        raise UsageError(msg, hint="0.2 tests on a fifth.")
    if group not in {"patient_id", "none"}:
        msg = f"Cannot group by {group!r}; known: patient_id, none."
        raise UsageError(msg)


def _refuse_empty(catalog: Catalog, task: str) -> None:
    tasks = catalog.table("select distinct task from labels")["task"].to_pylist()
    if task not in tasks:
        raise UnknownNameError(task, kind="task", known=tasks)
    msg = f"No record has a label for task {task!r}."
    raise NotEnoughDataError(msg, task=task, counts={"records": 0})


def _check_binary(labels: NDArray[np.float64], task: str) -> None:
    values = np.unique(labels)
    if not np.isin(values, (0, 1)).all():
        shown = ", ".join(f"{value:g}" for value in values[:5]) + (", …" if len(values) > 5 else "")
        msg = f"Task {task!r} is not binary: its labels are {shown}; 0 and 1 were expected."
        raise UsageError(msg, hint="Derive a task with labels 0 and 1 and attach that.")


def _too_few(
    labels: NDArray[np.float64], groups: NDArray[np.int64], *, task: str, group: str
) -> NotEnoughDataError:
    total = int(groups.max()) + 1
    positive = len(np.unique(groups[labels == 1]))
    what = "records" if group == "none" else "patients"
    msg = (
        f"Task {task!r} cannot be split: {positive} positive and {total - positive} negative "
        f"{what} do not give both sides of every reshuffle both classes."
    )
    return NotEnoughDataError(
        msg,
        task=task,
        counts={"positive": positive, "negative": total - positive},
        hint="Label more records, or choose another task or test size.",
    )


def _rows(
    name: str,
    task: str,
    record_ids: pa.ChunkedArray,
    masks: list[NDArray[np.bool_]],
    *,
    params: str,
) -> pa.Table:
    n, repeats = len(record_ids), len(masks)
    ids = record_ids.combine_chunks()
    columns = {
        "split_id": pa.array([name] * (n * repeats)),
        "repeat": pa.array(np.repeat(np.arange(repeats, dtype=np.int32), n)),
        "record_id": pa.concat_arrays([ids] * repeats),
        "split": pa.array(np.where(np.concatenate(masks), "test", "train")),
        "task": pa.array([task] * (n * repeats)),
        "params": pa.array([params] * (n * repeats)),
    }
    return pa.table(columns, schema=table_schema("splits").arrow)


def _same(stored: pa.Table, rows: pa.Table) -> bool:
    """Tell whether a stored split is the one drawn: same settings, same sides."""
    names = ["repeat", "record_id", "split", "task", "params"]
    return len(stored) == len(rows) and all(
        stored[name].combine_chunks().equals(rows[name].combine_chunks()) for name in names
    )


def _refuse_taken(name: str) -> None:
    msg = f"The split {name!r} exists with other settings or other records."
    raise UsageError(msg, hint="A split is never changed; choose another name.")
