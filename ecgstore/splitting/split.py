"""Splits: which labelled records a classifier learns from and which it is tested on.

A split is drawn once, stored record by record in ``splits``, and never changed: every run over it
sees the same records, on any machine.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Literal

import numpy as np
import pyarrow as pa

from ecgstore.catalog import Catalog
from ecgstore.errors import SplitTakenError, UsageError
from ecgstore.schema import table_schema
from ecgstore.splitting.dividing import METHODS, Cohort, Division, Method, Plan, Sides, divide
from ecgstore.splitting.drawing import draw, draw_inner
from ecgstore.splitting.reshuffles import EVERYTHING, Reshuffle, reshuffles, stored_rows
from ecgstore.tasks import cohort, expand, target_of, untold

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from ecgstore.warehouse import Warehouse

__all__ = ["EVERYTHING", "Reshuffle", "SplitResult", "draw", "reshuffles", "split"]

Group = Literal["patient_id", "none"]


@dataclass(frozen=True)
class SplitResult:
    """What a `split` call drew.

    Attributes:
        name: Name of the split.
        task: Its task; several, or a pattern, joined by commas.
        group: What is never on both sides: ``patient_id``, or ``none`` for single records.
        test_size: Part of the groups that is tested on, by the method ``shuffle``.
        seed: Seed it was drawn with.
        records: Labelled records divided.
        positives: Those of them labelled 1; None where the task is not one of 0 and 1.
        groups: Patients (or records, when not grouped) drawn from.
        unidentified: Records without a patient id, each taken as a patient of its own.
        rows: One row a repeat: records on each side, positives where the task has them, and what
            is tested on where that has a name.
        added: Whether anything was stored now; False when all was there already, or in a dry run.
        method: How it was made.
        target: What the labels are.
        tasks: The tasks one by one.
        left_out: Records in no repeat, by reason.
        notes: What should be known of it, a sentence each.
    """

    name: str
    task: str
    group: str
    test_size: float
    seed: int
    records: int
    positives: int | None
    groups: int
    unidentified: int
    rows: list[dict[str, object]]
    added: bool
    method: str = "shuffle"
    target: str = "binary"
    tasks: tuple[str, ...] = ()
    left_out: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def _told(self) -> str:
        positive = "" if self.positives is None else f", {self.positives} positive"
        kind = "reshuffles" if self.method == "shuffle" else "repeats"
        return f"{len(self.rows)} {kind} of {self.records} records{positive}"

    @property
    def notices(self) -> tuple[str, ...]:
        """All that should be known of it: the notes, and who was left out or has no patient id."""
        alone: tuple[str, ...] = ()
        if self.unidentified and self.group == "patient_id":
            alone = (
                f"{self.unidentified} records have no patient id: each is taken as a patient.",
            )
        left_out = tuple(f"{n} records are left out: {why}." for why, n in self.left_out.items())
        return (*self.notes, *left_out, *alone)

    def __repr__(self) -> str:
        state = "" if self.added else ", unchanged"
        return f"SplitResult({self.name!r}, {self.task}: {self._told}{state})"

    def _repr_html_(self) -> str:
        return f"<b>{self.name}</b>: {self._told} for {self.task}"


def split(
    warehouse: Warehouse,
    name: str,
    *,
    task: str | Sequence[str],
    method: Method = "shuffle",
    repeats: int | None = None,
    folds: int = 5,
    test_size: float = 0.2,
    seed: int = 0,
    group: Group = "patient_id",
    before: str | date | None = None,
    inner: int = 0,
    protocol: str | None = None,
    target: str | None = None,
    dry_run: bool = False,
) -> SplitResult:
    """Divide the labelled records of a task into training and test records, and store that.

    Args:
        warehouse: Where labels are read and the split is written.
        name: Name of the split.
        task: A task of `ecgstore.tasks`; records without a label are left out. Several tasks, or
            a pattern such as ``scp:*``, are stratified by together; their labels are 0 and 1.
        method: ``shuffle`` draws stratified reshuffles; ``kfold`` stratified folds, each tested
            on in turn; ``strat_fold`` tests on each of the dataset's own folds; ``temporal``
            learns from what was recorded before a date and tests on the rest;
            ``leave-one-site-out``, ``leave-one-device-out`` and ``leave-one-dataset-out`` test on
            each site, device or dataset in turn.
        repeats: Number of reshuffles, default 10; or how often the folds are dealt, default 1.
        folds: Folds of ``kfold``.
        test_size: Part that ``shuffle`` tests on, between 0 and 1: of the patients, or of the
            records when they are not grouped.
        seed: Seed of the draw; the same records and seed give the same draw anywhere.
        group: ``patient_id`` keeps the records of a patient on one side, whichever dataset they
            are in: where a method would part them, they stay in the test part and are left out of
            training. ``none`` takes record by record, as many papers do.
        before: The date of ``temporal``, in UTC.
        inner: Also store folds of the training part alone, so many, for tuning inside it: the
            split ``NAME.innerR`` for each repeat R.
        protocol: Name of the protocol that asks for the split, kept with it.
        target: What the labels are, where they do not tell: see `ecgstore.tasks.target_of`.
        dry_run: Draw and write nothing.

    Returns:
        What was drawn. A split that is stored already with the same settings is left as it is.

    Raises:
        UnknownNameError: No such task.
        NotEnoughDataError: A class is too small for both sides, or no fold, date or origin is
            known.
        UsageError: A setting is out of range, labels are not of the target, or the name stands
            for another split.
    """
    plan = _plan(method, repeats, folds=folds, test_size=test_size, seed=seed, before=before)
    _check(name, plan, group=group, inner=inner)
    with Catalog(warehouse.relations()) as catalog:
        people, unidentified, unlabelled = _cohort(catalog, task, group=group, target=target)
        division = divide(catalog, people, plan)
        tables = _tables(name, people, plan, division, group=group, inner=inner, protocol=protocol)
        stored = {one: stored_rows(catalog, one) for one in tables}
    used = np.any([one.train | one.test for one in division.sides], axis=0)
    counts = _counts(people, used)
    return SplitResult(
        name=name,
        task=people.task,
        group=group,
        test_size=test_size,
        seed=seed,
        records=int(used.sum()),
        positives=counts.get("positives"),
        groups=counts["groups"],
        unidentified=unidentified,
        rows=[_row(name, people, i, one) for i, one in enumerate(division.sides)],
        added=_keep(warehouse, name, tables, stored, dry_run=dry_run),
        method=method,
        target=people.target,
        tasks=people.tasks,
        left_out=unlabelled | division.left_out,
        notes=division.notes,
    )


def _plan(
    method: Method,
    repeats: int | None,
    *,
    folds: int,
    test_size: float,
    seed: int,
    before: str | date | None,
) -> Plan:
    if isinstance(before, str):
        try:
            before = datetime.fromisoformat(before)
        except ValueError as error:
            msg = f"{before!r} is not a date; such as 2020-01-01 was expected."
            raise UsageError(msg) from error
    if before is not None and not isinstance(before, datetime):
        before = datetime(before.year, before.month, before.day)
    if before is not None and before.tzinfo is not None:
        before = before.astimezone(UTC).replace(tzinfo=None)
    if repeats is None:
        repeats = 10 if method == "shuffle" else 1
    return Plan(method, repeats, folds, test_size, seed, before)


def _check(name: str, plan: Plan, *, group: str, inner: int) -> None:
    if not name or name == EVERYTHING:
        msg = f"A split cannot be named {name!r}."
        raise UsageError(msg, hint="Choose a name such as 'mi10'.")
    if plan.method not in METHODS:
        msg = f"Unknown method {plan.method!r}; known: {', '.join(METHODS)}."
        raise UsageError(msg)
    if plan.repeats < 1:
        msg = f"repeats is {plan.repeats}; a split needs at least 1 reshuffle."
        raise UsageError(msg)
    if plan.repeats > 1 and plan.method not in ("shuffle", "kfold"):
        msg = f"The method {plan.method!r} draws nothing, so nothing can be repeated."
        raise UsageError(msg, hint="Leave the number of repeats out.")
    if not 0 < plan.test_size < 1:
        msg = f"test_size is {plan.test_size:g}; it must lie between 0 and 1."
        raise UsageError(msg, hint="0.2 tests on a fifth.")
    for what, number in (("folds", plan.folds), ("inner", inner)):
        if number < 2 and not (what == "inner" and number == 0):
            msg = f"{what} is {number}; at least 2 are needed."
            raise UsageError(msg)
    if not 0 <= plan.seed < 2**32:
        msg = f"The seed is {plan.seed}; it must lie between 0 and {2**32 - 1}."
        raise UsageError(msg)
    if group not in {"patient_id", "none"}:
        msg = f"Cannot group by {group!r}; known: patient_id, none."
        raise UsageError(msg)
    if plan.before is not None and plan.method != "temporal":
        msg = f"A date is of no use to the method {plan.method!r}."
        raise UsageError(msg, hint="Choose --method temporal, or leave --before out.")


def _cohort(
    catalog: Catalog, task: str | Sequence[str], *, group: Group, target: str | None
) -> tuple[Cohort, int, dict[str, int]]:
    """Return the labelled records, how many have no patient id, and how many have no label."""
    patterns = sorted({task} if isinstance(task, str) else set(task))
    tasks = expand(catalog, patterns)
    found = cohort(catalog, tasks)
    columns = [found.column(3 + i).to_numpy() for i in range(len(tasks))]
    told = [column[~np.isnan(column)] for column in columns] if len(tasks) > 1 else columns
    wanted = target if len(tasks) == 1 else target or "binary"
    (kind, *more) = {target_of(one, wanted, task=of) for one, of in zip(told, tasks, strict=True)}
    if len(tasks) > 1 and (more or kind != "binary"):
        msg = f"Several tasks can be stratified by when their labels are 0 and 1, not {kind}."
        raise UsageError(msg, hint="Split each by itself.")
    people = Cohort(
        task=tasks[0] if len(tasks) == 1 else ",".join(patterns),
        tasks=tuple(tasks),
        target=kind,
        record_ids=found["record_id"].to_numpy(),
        labels=columns[0] if len(tasks) == 1 else np.column_stack(columns),
        groups=np.arange(len(found)) if group == "none" else found["patient"].to_numpy(),
        what="records" if group == "none" else "patients",
    )
    missing = {of: untold(catalog, of) for of in tasks}
    left_out = {
        "no label" if len(tasks) == 1 else f"no label for {of}": count
        for of, count in missing.items()
        if count
    }
    return people, int(found["alone"].to_numpy().sum()), left_out


def _counts(people: Cohort, used: NDArray[np.bool_]) -> dict[str, int]:
    counts = {"records": int(used.sum())}
    if people.target == "binary" and people.labels.ndim == 1:
        counts["positives"] = int(people.labels[used].sum())
    return counts | {"groups": len(np.unique(people.groups[used]))}


def _tables(
    name: str,
    people: Cohort,
    plan: Plan,
    division: Division,
    *,
    group: Group,
    inner: int,
    protocol: str | None,
) -> dict[str, pa.Table]:
    """Return the rows of the split, and of its inner ones, by their names."""
    used = np.any([one.train | one.test for one in division.sides], axis=0)
    shared: dict[str, object] = {"task": people.task}
    shared |= {"tasks": people.tasks} if len(people.tasks) > 1 else {}
    shared |= {"target": people.target} if people.target != "binary" else {}
    drawn: dict[str, dict[str, object]] = {
        "shuffle": {"repeats": plan.repeats, "test_size": plan.test_size, "seed": plan.seed},
        "kfold": {"repeats": plan.repeats, "folds": plan.folds, "seed": plan.seed},
    }
    method = "stratified shuffle" if plan.method == "shuffle" else plan.method
    params = {"method": method, **shared, **drawn.get(plan.method, {})}
    if plan.before is not None:
        params["before"] = plan.before.isoformat()
    if division.sides[0].tested is not None:
        params["tested"] = [one.tested for one in division.sides]
    params |= {"group": group, **_counts(people, used)}
    if protocol is not None:
        params["protocol"] = protocol
    tables = {name: _rows(name, people, division.sides, params)}
    for repeat, one in enumerate(division.sides) if inner else ():
        at, seed = np.flatnonzero(one.train), (plan.seed + repeat) % 2**32
        of = draw_inner(people.labels[at], people.groups[at], inner, seed, people.target)
        fold = np.full(len(people.record_ids), -1)
        fold[at] = of
        sides = [Sides(one.train & (fold != number), fold == number) for number in range(inner)]
        within = {"folds": inner, "seed": seed, "group": group, **_counts(people, one.train)}
        params = {"method": "kfold", **shared, "inner_of": name, "repeat": repeat, **within}
        own = f"{name}.inner{repeat}"
        tables[own] = _rows(own, people, sides, params)
    return tables


def _row(name: str, people: Cohort, repeat: int, sides: Sides) -> dict[str, object]:
    row: dict[str, object] = {"split": name, "repeat": repeat}
    if sides.tested is not None:
        row["tested"] = sides.tested
    for side, mask in (("train", sides.train), ("test", sides.test)):
        row[side] = int(mask.sum())
        labels = people.labels[mask]
        if labels.ndim == 2:
            row[f"{side}_positive"] = np.nansum(labels, axis=0).astype(int).tolist()
        elif people.target == "binary":
            row[f"{side}_positive"] = int(labels.sum())
        elif people.target == "multiclass":
            row[f"{side}_classes"] = np.bincount(labels.astype(int)).tolist()
        elif people.target == "survival":
            row[f"{side}_events"] = int((labels > 0).sum())
        else:
            row[f"{side}_mean"] = float(labels.mean())
    if sides.tested is not None:
        row["left_out"] = sides.left_out
    return row


def _rows(
    name: str, people: Cohort, sides: Sequence[Sides], params: Mapping[str, object]
) -> pa.Table:
    member = [one.train | one.test for one in sides]
    n = sum(int(one.sum()) for one in member)
    ids = pa.array(people.record_ids, pa.string())
    columns = {
        "split_id": pa.array([name] * n),
        "repeat": np.concatenate(
            [np.full(int(one.sum()), i, np.int32) for i, one in enumerate(member)]
        ),
        "record_id": pa.concat_arrays([ids.filter(pa.array(one)) for one in member]),
        "split": np.concatenate(
            [
                np.where(one.test[mask], "test", "train")
                for one, mask in zip(sides, member, strict=True)
            ]
        ),
        "task": pa.array([people.task] * n),
        "params": pa.array([json.dumps(params)] * n),
    }
    return pa.table(columns, schema=table_schema("splits").arrow)


def _keep(
    warehouse: Warehouse,
    name: str,
    tables: Mapping[str, pa.Table],
    stored: Mapping[str, pa.Table],
    *,
    dry_run: bool,
) -> bool:
    """Store what is not there yet, in one commit; return whether anything was stored."""
    for own, rows in tables.items():
        if len(stored[own]) and not _same(stored[own], rows):
            msg = f"The split {own!r} exists with other settings or other records."
            raise SplitTakenError(msg, hint="A split is never changed; choose another name.")
    new = [rows for own, rows in tables.items() if not len(stored[own])]
    if dry_run or not new:
        return False
    rows = pa.concat_tables(new)
    if warehouse.append("splits", rows, command=f"split {name}") == len(rows):
        return True
    with Catalog(warehouse.relations()) as catalog:  # another process stored it meanwhile
        now = {own: stored_rows(catalog, own) for own in tables}
    return _keep(warehouse, name, tables, now, dry_run=True)


def _same(stored: pa.Table, rows: pa.Table) -> bool:
    """Tell whether a stored split is the one drawn: same settings, same sides."""
    names = ["repeat", "record_id", "split", "task", "params"]
    return len(stored) == len(rows) and all(
        stored[name].combine_chunks().equals(rows[name].combine_chunks()) for name in names
    )
