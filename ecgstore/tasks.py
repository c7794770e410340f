"""Tasks: where the label of a record comes from, what kind of target it is, and families of tasks.

A task is a name in ``labels``; else a column of ``records`` that is a number, or ``sex``; else
``measurement:NAME``; else ``anomaly``. What is NULL is left out, each task by itself.
"""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Literal

import numpy as np
import pyarrow as pa

from ecgstore.catalog import quote
from ecgstore.errors import NotEnoughDataError, UnknownNameError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from ecgstore.catalog import Catalog

__all__ = [
    "ANOMALY",
    "MEASUREMENT",
    "TARGETS",
    "Target",
    "cohort",
    "expand",
    "labels_of",
    "source",
    "target_of",
    "untold",
]

Target = Literal["binary", "multiclass", "continuous", "survival"]
"""What a label says, in scikit-learn's words: 0 or 1; one of several classes 0, 1, 2, …; a number;
or a time that is negative where the event was not seen until then (as XGBoost's Cox objective
takes it)."""

TARGETS: tuple[Target, ...] = ("binary", "multiclass", "continuous", "survival")

MEASUREMENT = "measurement:"
"""How the name of a task begins that is a figure of ``measurements``."""

ANOMALY = "anomaly"
"""The task of whether a record has any statement (``scp:``, ``snomed:``) other than that it is
normal or in sinus rhythm: AnyECG's anomaly detection (arXiv 2411.17711), as far as that tells."""

_STATEMENTS = ("scp:", "snomed:")
_HARMLESS = ("scp:NORM", "scp:SR", "snomed:426783006")

_MOST_CLASSES = 20
_WANTED: dict[str, str] = {
    "binary": "0 and 1 were expected",
    "multiclass": f"whole numbers 0, 1, … up to at most {_MOST_CLASSES - 1}, each occurring, "
    "were expected",
    "continuous": "finite numbers were expected",
    "survival": "times were expected, negative where censored and never 0",
}

_COHORT = """
    with told as (
        {sources}
    ),
    cohort as (
        select t.*, r.patient_id
        from (select record_id, {labels} from told where label is not null group by record_id) t
        join records r using (record_id)
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
        dense_rank() over (order by first) - 1 as patient,
        patient_id is null as alone,
        {columns}
    from named
    order by record_id
"""


def source(catalog: Catalog, task: str) -> str:
    """Return the SQL of a task: a query of ``record_id`` and ``label``, NULL where it is not told.

    Raises:
        UnknownNameError: No table has a task of this name.
    """
    if task in _labelled(catalog):
        return (
            "select record_id, label from labels semi join records using (record_id) "
            f"where task = {_literal(task)}"
        )
    if task == "sex":
        return (
            "select record_id, case sex when 'male' then 1.0 when 'female' then 0.0 end as label "
            "from records"
        )
    if task in _numbers(catalog):
        return f"select record_id, {quote(task)}::double as label from records"
    if task.startswith(MEASUREMENT) and task in _measured(catalog):
        return (
            "select record_id, value as label from measurements semi join records "
            f"using (record_id) where name = {_literal(task.removeprefix(MEASUREMENT))}"
        )
    if task == ANOMALY and _stated(labelled := _labelled(catalog)):
        listed = ", ".join(map(_literal, sorted(_stated(labelled))))
        worse = f"label = 1 and task not in ({', '.join(map(_literal, _HARMLESS))})"
        return (
            f"select record_id, max(({worse})::int)::double as label from labels "
            f"semi join records using (record_id) where task in ({listed}) group by record_id"
        )
    raise _unknown(catalog, task)


def cohort(catalog: Catalog, tasks: Sequence[str]) -> pa.Table:
    """Return the records that have a label in any of some tasks, in order of their ids.

    Returns:
        Columns ``record_id``; ``patient``, 0 … p-1; ``alone``, whether the record has no patient
        id and so is a patient of its own; then a column a task, float64, by its name.

    Raises:
        UnknownNameError: There is no such task.
        NotEnoughDataError: No record has a label.
    """
    numbers = range(len(tasks))
    sources = "\n        union all by name\n        ".join(
        f"select *, {number} as task from ({source(catalog, task)})"
        for number, task in enumerate(tasks)
    )
    found = catalog.table(
        _COHORT.format(
            sources=sources,
            labels=", ".join(f"max(label) filter (task = {i}) as label{i}" for i in numbers),
            columns=", ".join(f"label{i}::double" for i in numbers),
        )
    )
    if not len(found):
        named = ", ".join(repr(task) for task in tasks)
        msg = f"No record has a label for task {named}."
        raise NotEnoughDataError(msg, task=",".join(tasks), counts={"records": 0})
    return found.rename_columns(["record_id", "patient", "alone", *tasks])


def untold(catalog: Catalog, task: str) -> int:
    """Return how many records a task knows without telling their label (NULL)."""
    query = f"select count(*) as n from ({source(catalog, task)}) where label is null"
    return int(catalog.table(query)["n"][0].as_py())


def labels_of(catalog: Catalog, task: str, record_ids: Sequence[str]) -> pa.Table:
    """Return ``record_id`` and ``label`` of those of some records that have one, in order."""
    return catalog.table(
        f"select record_id, label from ({source(catalog, task)}) where label is not null and "
        "record_id in (select unnest($ids)) order by record_id",
        {"ids": list(record_ids)},
    )


def expand(catalog: Catalog, patterns: Sequence[str]) -> list[str]:
    """Return the tasks that some names and patterns such as ``scp:*`` stand for, sorted.

    A pattern is matched against the tasks of ``labels`` and against ``measurement:NAME``; a
    column of ``records`` is named whole.

    Raises:
        UnknownNameError: One fits nothing.
    """
    labelled = _labelled(catalog)
    many, single = labelled | _measured(catalog), {"sex"} | _numbers(catalog)
    if _stated(labelled):
        single.add(ANOMALY)
    found: set[str] = set()
    for pattern in patterns:
        exact = {pattern} & (many | single)
        fitting = exact or {name for name in many if fnmatchcase(name, pattern)}
        if not fitting:
            raise _unknown(catalog, pattern)
        found |= fitting
    return sorted(found)


def target_of(labels: NDArray[np.float64], given: str | None = None, *, task: str = "") -> Target:
    """Tell what kind of target labels are: binary, multiclass or continuous.

    0 and 1 are binary; whole numbers 0 … k-1 that all occur, with 3 ≤ k ≤ 20, are classes; all
    else is a number. Times to an event look like numbers: say so with `given`.

    Args:
        labels: ``(records,)`` none missing.
        given: What the user says they are; it is checked.
        task: Name of the task, for the message.

    Raises:
        UsageError: The labels are not of the kind given, or not finite.
    """
    values = np.unique(labels)
    finite = bool(np.isfinite(values).all())
    binary = bool(np.isin(values, (0, 1)).all())
    classes = len(values) <= _MOST_CLASSES and np.array_equal(values, np.arange(len(values)))
    fits: dict[Target, bool] = {
        "binary": binary,
        "multiclass": classes and len(values) > 1 and finite,
        "continuous": finite,
        "survival": finite and not (values == 0).any(),
    }
    if given is not None and given not in fits:
        msg = f"Unknown target {given!r}; known: {', '.join(TARGETS)}."
        raise UsageError(msg)
    guess: Target = "binary" if binary else "multiclass" if fits["multiclass"] else "continuous"
    target: Target = next((one for one in TARGETS if one == given), guess)
    if not fits[target]:
        shown = ", ".join(f"{value:g}" for value in values[:5]) + (", …" if len(values) > 5 else "")
        msg = f"Task {task!r} is not {target}: its labels are {shown}; {_WANTED[target]}."
        hint = None if given else "Attach labels that are numbers; leave out what is not known."
        if target == "binary":
            hint = "Derive a task with labels 0 and 1 and attach that."
        raise UsageError(msg, hint=hint)
    return target


def _labelled(catalog: Catalog) -> set[str]:
    return set(catalog.table("select distinct task from labels")["task"].to_pylist())


def _stated(tasks: set[str]) -> set[str]:
    """Return those of some tasks that are statements of a published vocabulary."""
    return {task for task in tasks if task.startswith(_STATEMENTS)}


def _numbers(catalog: Catalog) -> set[str]:
    schema = catalog.relations["records"][1]
    return {
        column.name
        for column in schema
        if pa.types.is_floating(column.type) or pa.types.is_integer(column.type)
    }


def _measured(catalog: Catalog) -> set[str]:
    names = catalog.table("select distinct name from measurements")["name"].to_pylist()
    return {MEASUREMENT + name for name in names}


def _unknown(catalog: Catalog, name: str) -> UnknownNameError:
    """Return the error that names every task that has a value somewhere."""
    columns = sorted({"sex"} | _numbers(catalog))
    counts = ", ".join(f"count({quote(column)}) as {quote(column)}" for column in columns)
    (filled,) = catalog.table(f"select {counts} from records").to_pylist()
    told = {column for column, count in filled.items() if count}
    known = _labelled(catalog) | _measured(catalog) | told
    return UnknownNameError(name, kind="task", known=known)


def _literal(text: str) -> str:
    """Quote a text as a value: what `source` returns is put into queries that have no place for it.

    DuckDB knows no escape in a plain literal but the doubled quote.
    """
    return "'" + text.replace("'", "''") + "'"
