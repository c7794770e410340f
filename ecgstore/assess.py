"""Compute signal quality over a warehouse: worker processes read and compute, one parent commits.

Figures of leads go to ``quality``, those of records into columns of ``records``, which say in
``assessed`` by which rules they were made. What is interrupted is finished by the same command.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ecgstore import settings
from ecgstore.catalog import Catalog
from ecgstore.pool import run_tasks
from ecgstore.progress import Silent
from ecgstore.quality import assess
from ecgstore.quality.duplicates import equal_to, near_to
from ecgstore.quality.fingerprint import fingerprint
from ecgstore.quality.summary import of_leads, table_of
from ecgstore.record import INVALID, LEADS
from ecgstore.schema import TABLES
from ecgstore.storage.keys import open_shards
from ecgstore.waveforms import scan, signals_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from ecgstore.pool import Pulse
    from ecgstore.progress import Progress
    from ecgstore.warehouse import Warehouse

__all__ = ["RULES", "QualityResult", "assess_records"]

RULES = "1"
"""Version of the figures' definitions: records assessed by another are assessed again."""

_COMMAND = "quality"
_DERIVED = "derived:"
_COMMIT_S = 60.0
_TASK_ROWS = 512
_PULSE_ROWS = 16


@dataclass(frozen=True)
class QualityResult:
    """What was assessed, and how the records fare.

    Attributes:
        assessed: Records assessed now; in a dry run, that would be.
        existing: Records that had their figures already.
        rows: One row a figure: its unit, how many records have it, the median, the limit beyond
            which a look is worth while, how many records are beyond, and the worst of them.
        seconds: Time taken.
    """

    assessed: int
    existing: int
    rows: list[dict[str, object]] = field(default_factory=list)
    seconds: float = 0.0

    def __repr__(self) -> str:
        return f"QualityResult(assessed={self.assessed}, existing={self.existing})"

    def _repr_html_(self) -> str:
        return f"<b>{self.assessed}</b> records assessed, {self.existing} were already"


def assess_records(
    warehouse: Warehouse,
    *,
    where: str | None = None,
    worst: int = 3,
    jobs: int | None = None,
    overwrite: bool = False,
    dry_run: bool = False,
    progress: Progress | None = None,
) -> QualityResult:
    """Assess the records that are not yet, and find duplicates among all that are.

    Args:
        warehouse: Where records are read and figures written.
        where: SQL predicate over ``records``: which to assess and to tell of.
        worst: Records to name for each figure.
        jobs: Processes; as many as `ecgstore.settings.threads` by default.
        overwrite: Assess again what is assessed.
        dry_run: Count, and write nothing.
        progress: Told of every record.

    Raises:
        QueryError: ``where`` is not a predicate over ``records``.
        WarehouseError: A table cannot be read or written.
    """
    began = time.monotonic()
    progress = progress or Silent()
    chosen, todo = _plan(warehouse, where, overwrite=overwrite)
    existing = len(chosen) - len(todo)
    if not dry_run:
        tasks = list(_tasks(warehouse, todo))
        progress.start(len(todo), "records")
        commit = _Committer(warehouse)
        run_tasks(
            _work,
            tasks,
            jobs=min(settings.threads(jobs), len(tasks)),
            finished=commit,
            advance=lambda done, refused: progress.advance(done, rejected=refused),
        )
        commit.flush()
        _mark_duplicates(warehouse)
    told = warehouse.table("records").read(where=pc.field("record_id").isin(chosen))
    return QualityResult(
        assessed=len(todo),
        existing=existing,
        rows=table_of(told, worst=worst),
        seconds=time.monotonic() - began,
    )


@dataclass(frozen=True)
class _Wanted:
    """What must be known of a record to assess it."""

    rate_hz: float
    derived: tuple[str, ...]
    beyond: bool  # whether it has leads besides the twelve


@dataclass(frozen=True)
class _Task:
    """Records to assess, which one shard of ``waveforms`` holds, or none."""

    shard: Path | None
    records: Mapping[str, _Wanted]
    signals: tuple[Path, ...]


@dataclass(frozen=True)
class _Done:
    """Rows of ``quality``, and the new columns of ``records`` by id."""

    leads: list[dict[str, object]]
    records: dict[str, dict[str, object]]


def _plan(
    warehouse: Warehouse, where: str | None, *, overwrite: bool
) -> tuple[list[str], dict[str, _Wanted]]:
    """Return the ids of the records asked for, and those of them to assess."""
    with Catalog(warehouse.relations()) as catalog:
        rows = catalog.table(
            "select record_id, rate_hz, coalesce(leads, []) as leads, "
            "coalesce(quality, []) as flags, assessed is distinct from $rules as fresh\n"
            f"from records where ({where or 'true'}\n) order by record_id",
            {"rules": RULES},
        ).to_pylist()
    todo = {
        row["record_id"]: _Wanted(
            rate_hz=row["rate_hz"],
            derived=tuple(
                lead
                for flag in row["flags"]
                if flag.startswith(_DERIVED)
                for lead in flag.removeprefix(_DERIVED).split(",")
            ),
            beyond=any(lead not in LEADS for lead in row["leads"]),
        )
        for row in rows
        if (row["fresh"] or overwrite) and row["rate_hz"]
    }
    return [row["record_id"] for row in rows], todo


def _tasks(warehouse: Warehouse, todo: Mapping[str, _Wanted]) -> Iterator[_Task]:
    signals = tuple(warehouse.files("signals"))
    rest = dict(todo)
    for shard in warehouse.files("waveforms"):
        ids = open_shards(TABLES["waveforms"], [shard]).to_table(["record_id"])["record_id"]
        own = [record_id for record_id in ids.to_pylist() if record_id in rest]
        for start in range(0, len(own), _TASK_ROWS):
            part = {record_id: rest.pop(record_id) for record_id in own[start : start + _TASK_ROWS]}
            beside = signals if any(one.beyond for one in part.values()) else ()
            yield _Task(shard, part, beside)
    ids = list(rest)
    for start in range(0, len(ids), _TASK_ROWS):
        part = {record_id: rest[record_id] for record_id in ids[start : start + _TASK_ROWS]}
        yield _Task(None, part, signals)


def _work(task: _Task, pulse: Pulse) -> _Done:
    """Assess the records of a task."""
    done = _Done([], {})
    beside = _beside(task)
    count = 0
    for record_id, leads, digital, mv in _signals(task, beside):
        wanted = task.records[record_id]
        figures, per_lead = assess(
            leads, mv, wanted.rate_hz, digital=digital, derived=wanted.derived
        )
        print_ = fingerprint(leads, mv, wanted.rate_hz)
        done.leads.extend({"record_id": record_id, **asdict(one)} for one in per_lead)
        done.records[record_id] = {
            **of_leads(per_lead),
            **asdict(figures),
            "fingerprint": None if print_ is None else print_.tobytes(),
            "assessed": RULES,
        }
        count += 1
        if count % _PULSE_ROWS == 0:
            pulse(_PULSE_ROWS, 0)
    pulse(count % _PULSE_ROWS, 0)
    return done


_Lead = tuple[str, "NDArray[np.int16]", "NDArray[np.float64]"]


def _beside(task: _Task) -> dict[str, list[_Lead]]:
    """Return the leads that records of a task hold besides the twelve."""
    wanted = [record_id for record_id, one in task.records.items() if one.beyond]
    if not task.signals or not wanted:
        return {}
    rows = open_shards(TABLES["signals"], list(task.signals)).to_table(
        filter=pc.field("record_id").isin(wanted)
    )
    rows = rows.sort_by([("record_id", "ascending"), ("number", "ascending")])
    found: dict[str, list[_Lead]] = {}
    for record_id, one in zip(rows["record_id"].to_pylist(), signals_of(rows), strict=True):
        if one.unit == "mV" and one.rate_hz == task.records[record_id].rate_hz:
            counts = one.counts.astype(np.int16, copy=False)
            mv = np.where(counts == INVALID, np.nan, (counts.astype(np.float64) - one.baseline))
            found.setdefault(record_id, []).append((one.name, counts, mv / one.gain))
    return found


def _signals(
    task: _Task, beside: Mapping[str, Sequence[_Lead]]
) -> Iterator[tuple[str, tuple[str, ...], NDArray[np.int16], NDArray[np.float64]]]:
    """Yield id, leads, counts and millivolts of each record of a task."""
    if task.shard is not None:
        for one in scan([task.shard], task.records):
            own = beside.get(one.record_id, ())
            leads = (*one.leads, *(name for name, _, _ in own))
            digital = np.concatenate([one.digital, *(counts[None] for _, counts, _ in own)])
            mv = np.concatenate([one.signal_mv, *(values[None] for _, _, values in own)])
            yield one.record_id, leads, digital, mv
        return
    for record_id in task.records:
        own = beside.get(record_id, ())
        n_samples = len(own[0][1]) if own else 0
        digital = np.array([counts for _, counts, _ in own], np.int16).reshape(len(own), n_samples)
        mv = np.array([values for _, _, values in own], np.float64).reshape(len(own), n_samples)
        yield record_id, tuple(name for name, _, _ in own), digital, mv


class _Committer:
    """Gathers what workers made, and commits it now and then."""

    def __init__(self, warehouse: Warehouse) -> None:
        self._warehouse = warehouse
        self._leads: list[dict[str, object]] = []
        self._records: dict[str, dict[str, object]] = {}
        self._last = time.monotonic()

    def __call__(self, done: _Done) -> None:
        self._leads += done.leads
        self._records |= done.records
        if time.monotonic() - self._last > _COMMIT_S:
            self.flush()

    def flush(self) -> None:
        """Commit what there is; ``records`` last, and no record that was erased meanwhile."""
        if not self._records:
            return
        house = self._warehouse
        with house.shared():
            wanted = pc.field("record_id").isin(list(self._records))
            records = house.table("records").read(where=wanted)
            there = set(records["record_id"].to_pylist())
            rows = [row for row in self._leads if row["record_id"] in there]
            if rows:
                leads = pa.Table.from_pylist(rows, schema=TABLES["quality"].arrow)
                house.replace("quality", leads, command=_COMMAND)
            if there:
                house.replace("records", _updated(records, self._records), command=_COMMAND)
        self._leads, self._records, self._last = [], {}, time.monotonic()


def _updated(records: pa.Table, values: Mapping[str, Mapping[str, object]]) -> pa.Table:
    """Return rows of ``records`` with new values in some columns."""
    ids = records["record_id"].to_pylist()
    for name in next(iter(values.values()), {}):
        column = TABLES["records"].arrow.field(name)
        place = records.column_names.index(name)
        new = pa.array([values[record_id][name] for record_id in ids], column.type)
        records = records.set_column(place, column, new)
    return records


def _mark_duplicates(warehouse: Warehouse) -> None:
    """Say of each record of which earlier one it is a copy, where that changed."""
    columns = ["record_id", "n_samples", "signal_sha256", "fingerprint"]
    columns += ["duplicate_of", "near_duplicate_of"]
    rows = warehouse.table("records").read(columns).sort_by("record_id")
    ids = rows["record_id"].to_pylist()
    empty = pc.fill_null(pc.equal(rows["n_samples"], 0), False)  # noqa: FBT003 - annotations only
    digests = pc.if_else(empty, pa.scalar(None, pa.string()), rows["signal_sha256"])
    equal = equal_to(ids, digests.to_pylist())
    near = near_to(ids, rows["fingerprint"].to_pylist(), equal)
    before = zip(rows["duplicate_of"].to_pylist(), rows["near_duplicate_of"].to_pylist())  # noqa: B905
    changed = {
        record_id: {"duplicate_of": one, "near_duplicate_of": other}
        for record_id, one, other, old in zip(ids, equal, near, before, strict=True)
        if (one, other) != old
    }
    if not changed:
        return
    with warehouse.shared():
        records = warehouse.table("records").read(where=pc.field("record_id").isin(list(changed)))
        if records.num_rows:
            warehouse.replace("records", _updated(records, changed), command=_COMMAND)
