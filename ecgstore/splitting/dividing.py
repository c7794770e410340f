"""Division: from a cohort and a method to the two sides of every repeat.

Some methods draw (`ecgstore.splitting.drawing`); others take the sides from what is known of a
record: its fold, its date, or where it comes from. There a patient that is tested on is never
learnt from.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

from ecgstore.errors import NotEnoughDataError, UsageError
from ecgstore.splitting.drawing import draw, draw_folds, draw_several, held_out

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from ecgstore.catalog import Catalog
    from ecgstore.tasks import Target

__all__ = ["METHODS", "Cohort", "Division", "Method", "Plan", "Sides", "divide"]

Method = Literal[
    "shuffle",
    "kfold",
    "strat_fold",
    "temporal",
    "leave-one-site-out",
    "leave-one-device-out",
    "leave-one-dataset-out",
]

METHODS: tuple[Method, ...] = (
    "shuffle",
    "kfold",
    "strat_fold",
    "temporal",
    "leave-one-site-out",
    "leave-one-device-out",
    "leave-one-dataset-out",
)

_SHIFTED = "ptbxl"
"""Its publishers moved every patient's dates by a number of days of the patient's own
(Wagner et al. 2020, PTB-XL, Scientific Data 7:154)."""


_DATES = (
    "Dates count as they are stored: where they were shifted patient by patient (--shift-dates), "
    "what came first cannot be told between patients."
)


@dataclass(frozen=True, eq=False)
class Cohort:
    """The labelled records to be divided.

    Attributes:
        task: Name of the task, or of the tasks together.
        tasks: The tasks one by one.
        target: What the labels are.
        record_ids: ``(records,)`` sorted.
        labels: ``(records,)``; of several tasks ``(records, tasks)``, NaN where one is not told.
        groups: ``(records,)`` numbers 0 … g-1 of what stays whole: patients, or single records.
        what: The groups in words: patients or records.
    """

    task: str
    tasks: tuple[str, ...]
    target: Target
    record_ids: NDArray[np.object_]
    labels: NDArray[np.float64]
    groups: NDArray[np.intp]
    what: str


@dataclass(frozen=True)
class Plan:
    """How to divide; see `ecgstore.splitting.split.split`."""

    method: Method
    repeats: int
    folds: int
    test_size: float
    seed: int
    before: datetime | None


class Sides(NamedTuple):
    """One repeat.

    Attributes:
        train: ``(records,)`` bool.
        test: ``(records,)`` bool.
        tested: What is tested on, where it has a name, such as ``site 3``.
        left_out: Records that are on neither side because their patient is tested on.
    """

    train: NDArray[np.bool_]
    test: NDArray[np.bool_]
    tested: str | None = None
    left_out: int = 0


class Division(NamedTuple):
    """All repeats.

    Attributes:
        sides: One a repeat, in order.
        left_out: Records in no repeat at all, by reason.
        notes: What the user should know, a sentence each.
    """

    sides: list[Sides]
    left_out: dict[str, int]
    notes: tuple[str, ...]


def divide(catalog: Catalog, cohort: Cohort, plan: Plan) -> Division:
    """Divide a cohort.

    Raises:
        NotEnoughDataError: A side would lack a class, or no record is of known fold, date or
            origin.
    """
    if plan.method in ("shuffle", "kfold"):
        found = Division([Sides(~test, test) for test in _drawn(cohort, plan)], {}, ())
    elif plan.method == "temporal":
        found = _temporal(catalog, cohort, plan)
    else:
        found = _by_value(catalog, cohort, plan)
    return found._replace(notes=(*found.notes, *_sparse(cohort, found.sides)))


def _drawn(cohort: Cohort, plan: Plan) -> list[NDArray[np.bool_]]:
    labels, groups = cohort.labels, cohort.groups
    tests: Iterator[NDArray[np.bool_]]
    if plan.method == "kfold":
        if plan.folds > int(groups.max()) + 1:
            raise _too_few(cohort)
        tests = draw_folds(
            labels,
            groups,
            folds=plan.folds,
            repeats=plan.repeats,
            seed=plan.seed,
            target=cohort.target,
        )
    elif labels.ndim == 2:
        tests = draw_several(
            labels, groups, repeats=plan.repeats, test_size=plan.test_size, seed=plan.seed
        )
    else:
        tests = draw(
            labels,
            groups,
            repeats=plan.repeats,
            test_size=plan.test_size,
            seed=plan.seed,
            target=cohort.target,
        )
    try:
        masks = list(tests)
    except ValueError as error:
        raise _too_few(cohort) from error
    for test in masks:
        if lacking := _lacking(cohort, test, ~test, every=True):
            raise _too_few(cohort, lacking)
    return masks


def _temporal(catalog: Catalog, cohort: Cohort, plan: Plan) -> Division:
    if plan.before is None:
        msg = "The method 'temporal' needs the date that parts training from test records."
        raise UsageError(msg, hint="Give it with --before, such as --before 2020-01-01.")
    late = _values(catalog, cohort, "recorded_at >= $before", before=plan.before)
    known = np.array([value is not None for value in late], dtype=bool)
    if not known.any():
        msg = "No record of the cohort has a date (recorded_at), so none is before another."
        raise _nothing(cohort, msg)
    sides = _sides(cohort, _true(late), known, f"from {_day(plan.before)}")
    if lacking := _lacking(cohort, sides.test, sides.train):
        msg = f"Parted at {_day(plan.before)}, {lacking}."
        raise _nothing(cohort, msg, hint="Choose another date.")
    datasets = _values(catalog, cohort, "dataset")
    future = _values(catalog, cohort, "recorded_at > $before", before=_now())
    notes = [_DATES]
    if any("".join(filter(str.isalnum, name or "")).lower() == _SHIFTED for name in datasets):
        notes.append("PTB-XL's publishers shifted its dates patient by patient.")
    if ahead := int(_true(future).sum()):
        notes.append(f"{ahead} records are dated in the future, so their dates were shifted.")
    return Division([sides], _unknown(known, "date"), tuple(notes))


def _by_value(catalog: Catalog, cohort: Cohort, plan: Plan) -> Division:
    what = "fold" if plan.method == "strat_fold" else plan.method.split("-")[2]
    values = _values(catalog, cohort, "strat_fold" if what == "fold" else what)
    known = np.array([value is not None for value in values], dtype=bool)
    found = sorted(set(values[known]))
    if len(found) < 2:
        have = f"are all of {what} {found[0]}" if found else f"have no {what}"
        msg = f"The labelled records {have}; {plan.method!r} needs two at least."
        raise _nothing(cohort, msg)
    kept, notes = [], []
    for value in found:
        sides = _sides(cohort, values == value, known, f"{what} {value}")
        if lacking := _lacking(cohort, sides.test, sides.train):
            notes.append(f"{what.capitalize()} {value} is not tested on: {lacking}.")
        else:
            kept.append(sides)
    if not kept:
        msg = f"No {what} can be tested on. {notes[0]}"
        raise _nothing(cohort, msg)
    return Division(kept, _unknown(known, what), tuple(notes))


def _sides(cohort: Cohort, test: NDArray[np.bool_], known: NDArray[np.bool_], tested: str) -> Sides:
    train, crossing = held_out(test, cohort.groups)
    return Sides(train & known, test, tested, int((crossing & known).sum()))


def _values(
    catalog: Catalog, cohort: Cohort, expression: str, **values: object
) -> NDArray[np.object_]:
    """Return what an SQL expression says of each record, None where it says nothing."""
    rows = catalog.table(
        f"select {expression} as value from records where record_id in (select unnest($ids)) "
        "order by record_id",
        {"ids": cohort.record_ids.tolist(), **values},
    )
    return np.array([*rows["value"].to_pylist(), None], dtype=object)[:-1]


def _true(values: NDArray[np.object_]) -> NDArray[np.bool_]:
    return np.array([value is True for value in values], dtype=bool)


def _lacking(
    cohort: Cohort, test: NDArray[np.bool_], train: NDArray[np.bool_], *, every: bool = False
) -> str:
    """Say which side has too little to be learnt from or tested on, or nothing.

    Of several tasks each is looked at when it is scored; here both sides need records.

    Args:
        cohort: Whose labels.
        test: What is tested on.
        train: What is learnt from.
        every: Whether the test part needs every class too, and not just two.
    """
    labels, target = cohort.labels, cohort.target
    for side, rows in (("test", test), ("training", train)):
        count = int(rows.sum())
        if count < 2:
            return f"the {side} part has {count} record{'' if count == 1 else 's'}"
        if labels.ndim == 2:
            continue
        if target == "continuous":
            if np.ptp(labels[rows]) == 0:
                return f"the {side} part has {count} records of one and the same label"
            continue
        classes = labels > 0 if target == "survival" else labels
        here, all_ = len(np.unique(classes[rows])), len(np.unique(classes))
        if target == "survival":
            if not classes[rows].any():
                return f"the {side} part has {count} records and no event"
        elif here < (2 if side == "test" and not every else max(all_, 2)):
            return f"the {side} part has {count} records of {here} of {max(all_, 2)} classes"
    return ""


def _sparse(cohort: Cohort, sides: list[Sides]) -> tuple[str, ...]:
    """Name the tasks of several that cannot be scored in some repeat."""
    if cohort.labels.ndim == 1:
        return ()
    whole = np.ones(len(cohort.tasks), dtype=bool)
    for one in sides:
        for rows in (one.train, one.test):
            for value in (0, 1):
                whole &= (cohort.labels[rows] == value).any(axis=0)
    names = [task for task, good in zip(cohort.tasks, whole, strict=True) if not good]
    if not names:
        return ()
    shown = ", ".join(names[:8]) + (", …" if len(names) > 8 else "")
    count = f"{len(names)} of {len(cohort.tasks)} tasks"
    return (f"{count} lack a class on a side of some repeat and cannot be scored there: {shown}.",)


def _too_few(cohort: Cohort, lacking: str = "") -> NotEnoughDataError:
    labels, groups, what = cohort.labels, cohort.groups, cohort.what
    total = int(groups.max()) + 1
    if labels.ndim == 1 and cohort.target == "binary":
        positive = len(np.unique(groups[labels == 1]))
        counts = {"positive": positive, "negative": total - positive}
        told = f"{positive} positive and {total - positive} negative {what} do not give both sides"
        told = f"{told} of every reshuffle both classes"
    else:
        counts = {what: total}
        told = lacking or f"{total} {what} are too few for both sides of every repeat"
    return NotEnoughDataError(
        f"Task {cohort.task!r} cannot be split: {told}.",
        task=cohort.task,
        counts=counts,
        hint="Label more records, or choose another task or test size.",
    )


def _nothing(cohort: Cohort, message: str, hint: str | None = None) -> NotEnoughDataError:
    return NotEnoughDataError(
        message,
        task=cohort.task,
        counts={"records": len(cohort.record_ids)},
        hint=hint or "Choose another method.",
    )


def _unknown(known: NDArray[np.bool_], what: str) -> dict[str, int]:
    count = int((~known).sum())
    return {f"no {what}": count} if count else {}


def _day(when: datetime) -> str:
    return when.isoformat().removesuffix("T00:00:00")


def _now() -> datetime:
    return datetime.now(UTC).replace(tzinfo=None)
