"""Attach a cohort's own labels, and patient ids, from a table of record ids."""

from __future__ import annotations

import csv
import datetime as dt
import math
import re
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import pyarrow as pa
import pyarrow.compute as pc

from ecgstore.datasets import datasets
from ecgstore.deidentify import Deidentifier, load_key
from ecgstore.errors import UsageError
from ecgstore.progress import Silent
from ecgstore.schema import TABLES

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from ecgstore.progress import Progress
    from ecgstore.warehouse import Warehouse

__all__ = ["LabelResult", "label"]

T = TypeVar("T")

_COMMAND = "labels"
_TRUTH = {"true": 1.0, "yes": 1.0, "false": 0.0, "no": 0.0}
_NOTHING = frozenset({"", "na", "nan", "null", "none", "<na>"})
_REASONS = {
    "unknown record": "no record has this id",
    "ambiguous record": "records of several datasets have this name; write dataset/name",
    "not a number": "the label is neither a number nor true, false, yes or no",
    "two labels": "another line labels the same record differently",
    "two patients": "another line gives the same record to another patient",
}
_INTEGRAL = re.compile(r"(\d+)\.0+")


@dataclass(frozen=True)
class LabelResult:
    """What a file of labels changed.

    Attributes:
        added: Labels written that were not there.
        changed: Labels that replaced another value.
        existing: Labels that were there already.
        empty: Rows without a label.
        patients: Records that were given a patient id.
        rejected: Rows refused.
        seconds: Time taken.
        reasons: Rows refused, by reason.
    """

    added: int
    changed: int
    existing: int
    empty: int
    patients: int
    rejected: int
    seconds: float
    reasons: Mapping[str, int] = field(default_factory=dict)

    @property
    def rows(self) -> list[dict[str, object]]:
        """One row an outcome, rejected rows by reason."""
        outcomes = ("added", "changed", "existing", "empty", "patients")
        return [
            *({"outcome": name, "reason": None, "rows": getattr(self, name)} for name in outcomes),
            *(
                {"outcome": "rejected", "reason": reason, "rows": count}
                for reason, count in self.reasons.items()
            ),
        ]

    def __repr__(self) -> str:
        return (
            f"LabelResult(added={self.added}, changed={self.changed}, existing={self.existing}, "
            f"empty={self.empty}, patients={self.patients}, rejected={self.rejected})"
        )

    def _repr_html_(self) -> str:
        return (
            f"<b>{self.added}</b> labels added, {self.changed} changed, "
            f"{self.existing} there already, {self.rejected} rows rejected"
        )


class _Row(NamedTuple):
    """One row of the file; the line is what messages name, never the id."""

    line: int
    name: str
    label: str
    patient: str


@dataclass
class _Plan:
    """What the rows say of each record, and the rows that were refused."""

    labels: dict[str, float] = field(default_factory=dict)
    patients: dict[str, str] = field(default_factory=dict)
    refused: dict[int, str] = field(default_factory=dict)
    empty: int = 0


def label(
    warehouse: Warehouse,
    file: Path,
    *,
    task: str,
    id: str = "record_id",  # noqa: A002 - the name of the column, as on the command line
    label: str = "label",
    patient: str | None = None,
    keep_ids: bool = False,
    overwrite: bool = False,
    dry_run: bool = False,
    progress: Progress | None = None,
) -> LabelResult:
    """Write a label in one task for each record that a table names.

    A label is a number or one of true, false, yes, no; rows without one are counted and passed
    over. A row that names no record, or names one that another row labels differently, becomes a
    row in ``rejects`` which gives the line, never the id.

    Args:
        warehouse: Holds the records.
        file: ``.csv`` (comma or semicolon), ``.tsv`` or ``.parquet``.
        task: Name of the task.
        id: Column with the record's id (``dataset/name``), or its name where only one has it.
        label: Column with the label.
        patient: Column with the patient's id, put into ``records``; None leaves that alone.
        keep_ids: Store patients' ids as they are, not as keyed digests; as in the ingest.
        overwrite: Replace labels and patient ids that differ; else they are an error.
        dry_run: Count, but write nothing.
        progress: Told of every row.

    Raises:
        UsageError: The file cannot be read, lacks a column, or contradicts the warehouse.
    """
    began = time.monotonic()
    progress = progress or Silent()
    if not task.strip() or not task.isprintable():
        msg = f"{task!r} is not a task name."
        raise UsageError(msg, hint="Give a short name such as ACS.")
    rows = list(_read(file, id, label, patient))
    progress.start(len(rows), "rows")
    records = warehouse.table("records").read(["record_id", "patient_id"])
    plan = _plan(rows, _index(records["record_id"].to_pylist()))
    progress.advance(len(rows), rejected=len(plan.refused))
    if plan.patients and not keep_ids:
        key = load_key(outside=warehouse.root)
        Deidentifier(key).check(records["patient_id"].to_pylist())
        plan.patients = {one: _hidden(one, who, key) for one, who in plan.patients.items()}

    stored = warehouse.table("labels").read(["record_id", "label"], pc.field("task") == task)
    known = dict(zip(stored["record_id"].to_pylist(), stored["label"].to_pylist(), strict=True))
    fresh = {key: value for key, value in plan.labels.items() if key not in known}
    differing = {key: v for key, v in plan.labels.items() if key in known and known[key] != v}
    owners = dict(zip(*(records[name].to_pylist() for name in records.column_names), strict=True))
    moved = {key: who for key, who in plan.patients.items() if owners[key] != who}
    contested = sum(owners[key] is not None for key in moved)
    if not overwrite:
        _refuse_change(len(differing), f"already have another label in task {task!r}")
        _refuse_change(contested, "already have another patient id")
    if not dry_run:
        _write_labels(warehouse, task, file.name, fresh, differing)
        _write_rejects(warehouse, f"label:{task}/{file.name}:", plan.refused)
        if moved:
            _write_patients(warehouse, moved)
    reasons = Counter(plan.refused.values())
    return LabelResult(
        added=len(fresh),
        changed=len(differing),
        existing=len(plan.labels) - len(fresh) - len(differing),
        empty=plan.empty,
        patients=len(moved),
        rejected=len(plan.refused),
        seconds=time.monotonic() - began,
        reasons=dict(reasons.most_common()),
    )


def _hidden(record_id: str, patient_id: str, key: bytes) -> str:
    """Return what stands for a patient's id in the dataset of one of their records."""
    dataset = record_id.partition("/")[0]
    return Deidentifier(key, space=dataset if dataset in datasets else "").patient(patient_id)


def _read(file: Path, name: str, label: str, patient: str | None) -> Iterator[_Row]:
    """Yield the rows of a table; blank values are empty text."""
    wanted = [name, label, *([patient] if patient is not None else [])]
    try:
        if file.suffix.lower() == ".parquet":
            yield from _read_parquet(file, wanted)
        else:
            yield from _read_text(file, wanted)
    except (OSError, UnicodeDecodeError, csv.Error, pa.ArrowException) as error:
        reason = getattr(error, "strerror", None) or "it is not a table in UTF-8"
        msg = f"{file.name!r} cannot be read: {reason}."
        raise UsageError(msg) from error


def _read_text(file: Path, wanted: Sequence[str]) -> Iterator[_Row]:
    with file.open(encoding="utf-8-sig", newline="") as lines:
        head = lines.readline()
        lines.seek(0)
        marks = "\t" if file.suffix.lower() == ".tsv" else ",;\t"
        mark = next((mark for mark in marks if mark in head), ",")
        reader = csv.DictReader(lines, restval="", delimiter=mark, strict=True)
        _check_columns(file, wanted, reader.fieldnames or ())
        for row in reader:
            yield _row(reader.line_num, [row[column] for column in wanted])


def _read_parquet(file: Path, wanted: Sequence[str]) -> Iterator[_Row]:
    import pyarrow.parquet as pq

    _check_columns(file, wanted, pq.read_schema(file).names)
    table = pq.read_table(file, columns=list(wanted))
    columns = [table[column].to_pylist() for column in wanted]
    for number, values in enumerate(zip(*columns, strict=True), 1):
        yield _row(number, ["" if value is None else str(value) for value in values])


def _row(line: int, values: Sequence[str]) -> _Row:
    name, label, *patient = (value.strip() for value in values)
    owner = patient[0] if patient else ""
    # a column of whole numbers with gaps is often saved as 15709.0
    whole = _INTEGRAL.fullmatch(owner)
    return _Row(line, name, label, whole[1] if whole else owner)


def _check_columns(file: Path, wanted: Sequence[str], present: Sequence[str]) -> None:
    for column in wanted:
        if column not in present:
            names = ", ".join(repr(name) for name in present) or "none"
            msg = f"{file.name!r} has no column {column!r}. Its columns: {names}."
            raise UsageError(msg, hint="Name the columns with --id, --label and --patient.")


def _index(record_ids: Sequence[str]) -> dict[str, str | None]:
    """Return the record for each id and for each bare name; None where several have that name."""
    index: dict[str, str | None] = {}
    for record_id in record_ids:
        name = record_id.split("/", 1)[-1]
        index[name] = None if name in index else record_id
    return index | {record_id: record_id for record_id in record_ids}


def _plan(rows: Sequence[_Row], index: Mapping[str, str | None]) -> _Plan:
    plan = _Plan()
    labels: defaultdict[str, list[tuple[int, float]]] = defaultdict(list)
    patients: defaultdict[str, list[tuple[int, str]]] = defaultdict(list)
    for row in rows:
        record_id = index.get(row.name)
        if record_id is None:
            ambiguous = row.name in index
            plan.refused[row.line] = "ambiguous record" if ambiguous else "unknown record"
            continue
        value = _number(row.label)
        if value is None:
            plan.refused[row.line] = "not a number"
        elif math.isnan(value):
            plan.empty += 1
        else:
            labels[record_id].append((row.line, value))
        if row.patient.lower() not in _NOTHING:
            patients[record_id].append((row.line, row.patient))
    plan.labels = _agreed(labels, plan.refused, "two labels")
    plan.patients = _agreed(patients, plan.refused, "two patients")
    return plan


def _agreed(
    given: Mapping[str, Sequence[tuple[int, T]]], refused: dict[int, str], reason: str
) -> dict[str, T]:
    """Return the value of each record whose rows agree; the rows of the others are refused."""
    agreed = {}
    for record_id, entries in given.items():
        if len({value for _, value in entries}) == 1:
            agreed[record_id] = entries[0][1]
        else:
            for line, _ in entries:
                refused.setdefault(line, reason)
    return agreed


def _number(text: str) -> float | None:
    """Return a label, NaN for an empty one, None for text that is not a number."""
    if text.lower() in _NOTHING:
        return math.nan
    if text.lower() in _TRUTH:
        return _TRUTH[text.lower()]
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _refuse_change(count: int, what: str) -> None:
    if count:
        msg = f"{count} records {what}; nothing was written."
        raise UsageError(msg, hint="Use --overwrite to replace what is there.")


def _write_labels(
    warehouse: Warehouse,
    task: str,
    source: str,
    fresh: Mapping[str, float],
    differing: Mapping[str, float],
) -> None:
    def rows(labels: Mapping[str, float]) -> pa.Table:
        ids, n = list(labels), len(labels)
        columns = [ids, [task] * n, list(labels.values()), [None] * n, [source] * n]
        return pa.table(columns, schema=TABLES["labels"].arrow)

    if differing:
        warehouse.replace("labels", rows({**fresh, **differing}), command=_COMMAND)
    elif fresh:
        warehouse.append("labels", rows(fresh), command=_COMMAND)


def _write_rejects(warehouse: Warehouse, prefix: str, refused: Mapping[int, str]) -> None:
    """Put the refused rows of a file in place of those of the last time."""
    now = dt.datetime.now(dt.UTC)
    rows = {
        (f"{prefix}{line}", reason): {
            "source_uri": f"{prefix}{line}",
            "reason": reason,
            "reader": _COMMAND,
            "detail": f"line {line}: {_REASONS[reason]}",
            "at": now,
        }
        for line, reason in refused.items()
    }
    stored = warehouse.table("rejects").read(["source_uri", "reason"]).to_pylist()
    before = {(row["source_uri"], row["reason"]) for row in stored}
    stale = [pair for pair in before if pair[0].startswith(prefix) and pair not in rows]
    if stale:
        uris, reasons = zip(*stale, strict=True)
        keys = pa.table({"source_uri": uris, "reason": reasons})
        warehouse.delete("rejects", keys, command=_COMMAND)
    if fresh := [row for pair, row in rows.items() if pair not in before]:
        table = pa.Table.from_pylist(fresh, schema=TABLES["rejects"].arrow)
        warehouse.append("rejects", table, command=_COMMAND)


def _write_patients(warehouse: Warehouse, moved: Mapping[str, str]) -> None:
    where = pc.field("record_id").isin(list(moved))
    records = warehouse.table("records").read(where=where)
    owners = [moved[record_id] for record_id in records["record_id"].to_pylist()]
    place = records.column_names.index("patient_id")
    records = records.set_column(place, "patient_id", pa.array(owners, pa.string()))
    warehouse.replace("records", records, command=_COMMAND)
