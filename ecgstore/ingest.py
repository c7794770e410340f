"""Bring ECG files into a warehouse: worker processes read and write shards, one parent commits.

The parent commits shard by shard, ``records`` last: what is interrupted between two commits is
finished by running the same command again.
"""

from __future__ import annotations

import itertools
import math
import re
import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ecgstore import io, settings
from ecgstore.datasets import collect, datasets
from ecgstore.deidentify import Deidentifier, load_key
from ecgstore.errors import ReadError, UsageError, WarehouseError
from ecgstore.intake import BATCH_ROWS, Done, Task, reject, take_in, veiled
from ecgstore.io.assemble import REASONS
from ecgstore.pool import run_tasks
from ecgstore.progress import Silent
from ecgstore.schema import TABLES
from ecgstore.sinks import FILLED

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from ecgstore.datasets import Collection, Missing, Source
    from ecgstore.progress import Progress
    from ecgstore.warehouse import Warehouse

__all__ = ["IngestResult", "ingest"]

_COMMAND = "ingest"
_SHARD_ROWS = TABLES["waveforms"].rows_per_file
_ROWS_AT_ONCE = 1024
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


@dataclass(frozen=True)
class IngestResult:
    """What an ingest did.

    Attributes:
        ingested: Records added; in a dry run, records that would be.
        existing: Records that were there already.
        rejected: Files refused.
        seconds: Time taken.
        reasons: Files refused, by reason.
    """

    ingested: int
    existing: int
    rejected: int
    seconds: float
    reasons: Mapping[str, int] = field(default_factory=dict)

    @property
    def rows(self) -> list[dict[str, object]]:
        """One row an outcome, rejected files by reason."""
        return [
            {"outcome": "ingested", "reason": None, "records": self.ingested},
            {"outcome": "existing", "reason": None, "records": self.existing},
            *(
                {"outcome": "rejected", "reason": reason, "records": count}
                for reason, count in self.reasons.items()
            ),
        ]

    def __repr__(self) -> str:
        return (
            f"IngestResult(ingested={self.ingested}, existing={self.existing}, "
            f"rejected={self.rejected}, seconds={self.seconds:.1f})"
        )

    def _repr_html_(self) -> str:
        return (
            f"<b>{self.ingested}</b> records ingested, {self.existing} there already, "
            f"{self.rejected} rejected, {self.seconds:.1f} s"
        )


def ingest(
    warehouse: Warehouse,
    sources: Sequence[Path],
    *,
    dataset: str,
    reader: str = "auto",
    rate: int | None = None,
    jobs: int | None = None,
    limit: int | None = None,
    layout: Mapping[str, str] | None = None,
    manifest: Path | None = None,
    keep_ids: bool = False,
    shift_dates: int = 0,
    pool_ages: bool = False,
    on_error: Literal["skip", "stop"] = "skip",
    dry_run: bool = False,
    progress: Progress | None = None,
) -> IngestResult:
    """Read ECG files into ``records`` and the tables of `ecgstore.sinks.FILLED`.

    Records that are there already are not read again. A file that cannot be read becomes a row in
    ``rejects``; it is tried again by the next ingest, and leaves ``rejects`` once it is fixed.
    ``source_uri`` is ``dataset/path below the source folder``: no path of this machine is stored.

    Args:
        warehouse: Where to.
        sources: Folders, or single files, that hold the dataset.
        dataset: A known dataset, whose tables are then used, or a name of the user's own.
        reader: Reader to use, or ``auto``.
        rate: Sampling rate in Hz to prefer, where a dataset holds its records at several.
        jobs: Processes; as many as `ecgstore.settings.threads` by default.
        limit: Take only the first so many records of the dataset.
        layout: Where arrays are in files that do not say so, such as ``{"tracings": "signals"}``.
        manifest: A CSV that says what belongs to each file; see `ecgstore.datasets.manifest`.
        keep_ids: Store patients' ids and file names as they are. Else an id becomes a keyed digest
            (see `ecgstore.deidentify`), and a file name that holds a name or id found in the file
            is replaced by one.
        shift_dates: Move the dates of each patient by up to so many days, all by the same number.
        pool_ages: Store ages above 89 as 90, flagged ``age_over_89``.
        on_error: ``stop`` raises the first `ReadError`; shards committed before it stay.
        dry_run: Read every file and count, but write nothing.
        progress: Told of every batch.

    Raises:
        UsageError: The sources hold no ECGs or are not that dataset.
        ReadError: A file cannot be read and `on_error` is ``stop``.
        WarehouseError: The warehouse cannot be written.
    """
    began = time.monotonic()
    progress = progress or Silent()
    _check(warehouse, dataset, reader, dry_run=dry_run)
    hide = Deidentifier(
        key=None if keep_ids else load_key(outside=warehouse.root),
        space=dataset if dataset in datasets else "",
        shift_days=shift_dates,
        pool_ages=pool_ages,
    )
    found = _listed(dataset, sources, rate=rate, layout=layout or {}, manifest=manifest)
    for note in found.notes:
        progress.note(note)
    known = _existing(warehouse, dataset, hide)
    chosen = found.sources[:limit]
    names = ((source, {source.name, hide.name(source.name)}) for source in chosen)
    todo = sorted(
        (source for source, own in names if not any(f"{dataset}/{x}" in known for x in own)),
        key=_place,
    )
    progress.start(len(todo) + len(found.missing), "records")
    commit = _Committer(warehouse, dataset=dataset, write=not dry_run)
    missing = [_veiled(hide, sources, entry) for entry in found.missing]
    if missing:
        if on_error == "stop":
            first = missing[0]
            msg = f"{first.uri!r}: {first.detail}."
            raise ReadError(msg, path=first.uri, reason=first.reason)
        commit(Done(rejects=[_announced(dataset, entry) for entry in missing]))
        progress.advance(len(missing), rejected=len(missing))
    commit.catch_up({(f"{dataset}/{entry.uri}", entry.reason) for entry in missing})
    jobs = min(settings.threads(jobs), math.ceil(len(todo) / BATCH_ROWS))
    with ExitStack() as stack:
        folder = None
        if not dry_run:  # one for the shards of all tables: they are linked from there
            folder = stack.enter_context(warehouse.table("waveforms").staging())
        tasks = [
            Task(
                folder=folder,
                dataset=dataset,
                reader=reader,
                tasks=found.tasks,
                sources=run,
                stop=on_error == "stop",
                hide=hide,
            )
            for run in _runs(todo, jobs)
        ]
        run_tasks(
            take_in,
            tasks,
            jobs=jobs,
            finished=commit,
            advance=lambda done, refused: progress.advance(done, rejected=refused),
        )
    return IngestResult(
        ingested=commit.ingested,
        existing=len(chosen) - len(todo) + commit.overtaken,
        rejected=commit.reasons.total(),
        seconds=time.monotonic() - began,
        reasons=dict(commit.reasons.most_common()),
    )


class _Committer:
    """Commits what workers made, one shard at a time, and counts."""

    def __init__(self, warehouse: Warehouse, *, dataset: str, write: bool) -> None:
        self._warehouse = warehouse
        self._write = write
        self._refused = self._earlier(dataset) if write else set()
        self.ingested = 0
        self.overtaken = 0
        self.reasons: Counter[str] = Counter()

    def __call__(self, done: Done) -> None:
        self.reasons.update(str(row["reason"]) for row in done.rejects)
        added = done.records.num_rows
        if self._write:
            house = self._warehouse
            if done.rejects:
                rejects = pa.Table.from_pylist(done.rejects, schema=TABLES["rejects"].arrow)
                house.append("rejects", rejects, command=_COMMAND)
            with house.shared():
                for name in FILLED:
                    if name in done.shards:
                        house.append_shards(name, done.shards[name], command=_COMMAND)
                if done.records.num_rows:
                    added = house.append("records", done.records, command=_COMMAND)
            refused = {(str(row["source_uri"]), str(row["reason"])) for row in done.rejects}
            self._clear(set(done.records["source_uri"].to_pylist()), refused)
        self.ingested += added
        self.overtaken += done.records.num_rows - added

    def _earlier(self, dataset: str) -> set[tuple[str, str]]:
        """Return address and reason of the files of a dataset that were refused before."""
        rows = self._warehouse.table("rejects").read(["source_uri", "reason"])
        pairs = zip(rows["source_uri"].to_pylist(), rows["reason"].to_pylist(), strict=True)
        return {(uri, reason) for uri, reason in pairs if uri.startswith(f"{dataset}/")}

    def catch_up(self, refused: set[tuple[str, str]]) -> None:
        """Clear what a run left that was cut short after it had added the records of mended files.

        Args:
            refused: Address and reason of what is refused again.
        """
        if self._refused:
            earlier = pc.field("source_uri").isin([uri for uri, _ in self._refused])
            read = self._warehouse.table("records").read(["source_uri"], earlier)
            self._clear(set(read["source_uri"].to_pylist()), refused)

    def _clear(self, read: set[str], refused: set[tuple[str, str]]) -> None:
        """Remove what was said of files that have been read, or refused for another reason."""
        seen = read | {uri for uri, _ in refused}
        stale = {pair for pair in self._refused if pair[0] in seen} - refused
        if stale:
            uris, reasons = zip(*sorted(stale), strict=True)
            keys = pa.table({"source_uri": uris, "reason": reasons})
            self._warehouse.delete("rejects", keys, command=_COMMAND)
            self._refused -= stale


def _check(warehouse: Warehouse, dataset: str, reader: str, *, dry_run: bool) -> None:
    if warehouse.read_only and not dry_run:
        msg = "The warehouse was opened as it was at another time: nothing can be added to it."
        raise WarehouseError(msg, path=warehouse.root, hint="Open it without a time.")
    if not _NAME.fullmatch(dataset):
        msg = f"{dataset!r} is not a dataset name: letters, digits, '_', '.' and '-' make one."
        raise UsageError(msg)
    if reader != "auto":
        io.readers.get(reader)


def _listed(
    dataset: str,
    sources: Sequence[Path],
    *,
    rate: int | None,
    layout: Mapping[str, str],
    manifest: Path | None,
) -> Collection:
    if not sources:
        msg = "No source was given."
        raise UsageError(msg, hint="Name the folder that holds the files.")
    found = collect(dataset, sources, rate=rate, layout=layout, manifest=manifest)
    if not found.sources and not found.missing:
        names = ", ".join(repr(str(source)) for source in sources)
        msg = f"There are no ECG files that can be read in {names}."
        raise UsageError(msg, hint="; ".join(found.notes) or None)
    return found


def _veiled(hide: Deidentifier, sources: Sequence[Path], entry: Missing) -> Missing:
    """Return what is missing without the name of a file that names a person, or that may."""
    if entry.reason == "bad name" and hide.key is not None:  # no file can be found by it
        return entry._replace(uri=hide.name(entry.uri))
    ways = (way for root in sources for way in (root / entry.uri, root) if way.name)
    path = next((way for way in ways if way.is_file() and entry.uri.endswith(way.name)), None)
    if path is None:
        return entry
    error = ReadError(entry.detail, path=path, reason=entry.reason)
    shown, uri = veiled(hide, error, entry.uri, path)
    return (
        entry
        if shown is error
        else entry._replace(uri=uri, detail=REASONS.get(entry.reason, entry.reason))
    )


def _announced(dataset: str, entry: Missing) -> dict[str, object]:
    return reject(dataset, entry.uri, entry.reason, reader=dataset, detail=entry.detail)


def _existing(warehouse: Warehouse, dataset: str, hide: Deidentifier) -> set[str]:
    """Return the ids of a dataset's records, after a look at the key of their patients.

    Raises:
        UsageError: Patients were hidden with another key: the same patient would become two.
    """
    rows = warehouse.table("records").read(["record_id", "dataset", "patient_id"])
    hide.check(pc.unique(rows["patient_id"]).to_pylist())
    return set(rows.filter(pc.equal(rows["dataset"], dataset))["record_id"].to_pylist())


def _place(source: Source) -> tuple[bool, str, int, str]:
    """Return where a source comes: patients together, but a file of many records in its order."""
    if source.row is not None:
        return True, str(source.path), source.row, source.name
    return False, str(source.meta.get("patient_id", "")), 0, source.name


def _runs(sources: Sequence[Source], jobs: int) -> Iterator[tuple[Source, ...]]:
    """Cut the sources into shards of equal size, a multiple of `jobs` in number.

    Patients stay together as far as they can, and a shard is in the order of its record ids.
    """
    for rows, group in itertools.groupby(sources, key=lambda source: source.row is not None):
        own = tuple(group)
        # records of one file are read in its order and wait in memory for that of their ids
        most = _ROWS_AT_ONCE if rows else _SHARD_ROWS
        rounds = math.ceil(len(own) / most / jobs)
        bounds = np.linspace(0, len(own), rounds * jobs + 1).astype(int).tolist()
        for start, stop in itertools.pairwise(bounds):
            if start < stop:
                run = own[start:stop]
                yield run if rows else tuple(sorted(run, key=lambda source: source.name))
