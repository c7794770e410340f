"""Erase patients: from every table, shard, log, cache and older version, and prove it.

The row in ``records`` goes first, so the record is gone at once for every reader. What is left to
do is kept in a journal until the end, and whoever erases next finishes it. Shards of older versions
that hold a row of the patient are removed from the disk; those versions can no longer be opened.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ecgstore import settings
from ecgstore.datasets import datasets
from ecgstore.deidentify import Deidentifier, load_key
from ecgstore.errors import UsageError, WarehouseError
from ecgstore.progress import Silent
from ecgstore.schema import TABLES
from ecgstore.splitting.split import EVERYTHING
from ecgstore.storage import disk
from ecgstore.storage.expire import naming
from ecgstore.storage.keys import open_shards
from ecgstore.storage.locks import claim
from ecgstore.storage.log import Log
from ecgstore.storage.shards import STAGING, translated
from ecgstore.upkeep.traces import Search, pieces
from ecgstore.waveforms import decode

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from ecgstore.progress import Progress
    from ecgstore.storage.tables import Table
    from ecgstore.warehouse import Warehouse

__all__ = ["JOURNAL", "ForgetResult", "forget"]

JOURNAL = "_erasing.json"
"""File of the warehouse folder that exists while an erasure is not finished."""

_COMMAND = "forget"
_ASIDE = ("_cache", "_set_aside")
_WAIT_S = 600.0  # commits take milliseconds; compactions hold the lock for seconds
_PIECES = 64  # pieces of signal that are looked for at the end
_FITTED = {  # with the reshuffle
    "norm_stats": "split_id",
    "classifiers": "run_id",
    "fusions": "run_id",
}
_TOUCHED = (
    "records",  # first: a record exists when its row here does
    *(name for name, one in TABLES.items() if name != "records" and "record_id" in one.arrow.names),
    "rejects",
    "trainings",  # whose predicate over records may name one
    *_FITTED,
)
_KEPT = "scores: figures over many records, which name no patient and no record"


@dataclass(frozen=True)
class ForgetResult:
    """What was erased, or would be.

    Attributes:
        erased: Whether it was done; False for a plan.
        patients: Patients found.
        records: ECGs of theirs.
        rows_by_table: Rows removed from the newest version of each table.
        files_by_table: Shards removed from disk, rewritten ones included.
        closed: Older versions of each table that can no longer be opened.
        trainings: Runs that trained an encoder on their ECGs. The files those made are not in the
            warehouse: they stay, and so do vectors made with them.
        certificate: What can be shown to whoever asked for the erasure; empty for a plan.
    """

    erased: bool
    patients: int
    records: int
    rows_by_table: dict[str, int]
    files_by_table: dict[str, int]
    closed: dict[str, list[int]]
    trainings: tuple[str, ...] = ()
    certificate: dict[str, object] = field(default_factory=dict, repr=False)

    @property
    def rows(self) -> list[dict[str, object]]:
        """One row a table that is touched."""
        names = [n for n in TABLES if self.rows_by_table.get(n) or self.files_by_table.get(n)]
        return [
            {
                "table": name,
                "rows": self.rows_by_table.get(name, 0),
                "files": self.files_by_table.get(name, 0),
                "versions": len(self.closed.get(name, ())),
            }
            for name in names
        ]


@dataclass
class _Erasure:
    """Whom and what an erasure is about: what the journal holds.

    Attributes:
        patients: Their ids.
        records: Ids of their ECGs.
        uris: Where those came from.
        fits: Split and reshuffle of which one of the ECGs was in the training part.
        runs: Run and reshuffle of the classifiers fitted on one of them.
        trainings: Runs that trained an encoder on one of them.
    """

    patients: list[str]
    records: list[str] = field(default_factory=list)
    uris: list[str] = field(default_factory=list)
    fits: list[list[object]] = field(default_factory=list)
    runs: list[list[object]] = field(default_factory=list)
    trainings: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._words = Search([*self.patients, *self.records], [])

    def of(self, name: str, rows: pa.Table) -> NDArray[np.bool_]:
        """Mark the rows of a table that are about the patients."""
        if name in _FITTED:
            wanted = {tuple(pair) for pair in (self.fits if name == "norm_stats" else self.runs)}
            have = zip(rows[_FITTED[name]].to_pylist(), rows["repeat"].to_pylist(), strict=True)
            return np.array([pair in wanted for pair in have], dtype=bool)
        mask = np.zeros(rows.num_rows, dtype=bool)
        ids = {"record_id": self.records, "patient_id": self.patients}
        if name == "rejects":
            ids = {"source_uri": self.uris}
            mask |= self._words.in_text(rows["source_uri"]) | self._words.in_text(rows["detail"])
        elif name == "trainings":
            mask |= self._words.in_text(rows["params"])
        for column in ids.keys() & {*rows.column_names}:
            among = pc.is_in(rows[column], pa.array(ids[column], pa.string()))
            mask |= among.to_numpy()
        return mask

    @property
    def journal(self) -> bytes:
        """What the journal holds."""
        names = ("patients", "records", "uris", "fits", "runs", "trainings")
        return json.dumps({name: getattr(self, name) for name in names}).encode()


def forget(
    warehouse: Warehouse,
    patients: Sequence[str],
    *,
    yes: bool = False,
    progress: Progress | None = None,
) -> ForgetResult:
    """Erase patients; without `yes` only tell what would go.

    Args:
        warehouse: The warehouse.
        patients: Values of ``records.patient_id``, or the ids from which those were made; the
            key that hides ids must be there for these.
        yes: Really erase.
        progress: Told of every table.

    Raises:
        UsageError: None of the patients is in the warehouse or an older version of it.
        WarehouseError: Something could not be read or removed, or was still found at the end; the
            erasure is not finished, and the same call goes on with it.
    """
    progress = progress or Silent()
    root = warehouse.root
    with warehouse.exclusive(wait_s=_WAIT_S), translated(root):
        erasure = _found(warehouse, patients)
        result = _plan(warehouse, erasure)
        if not yes:
            return result
        touched = _touched(warehouse)
        progress.start(2 * len(touched), "tables")
        signals = _signals(warehouse, erasure)
        disk.put(root / JOURNAL, erasure.journal)
        for name in touched:
            _remove_rows(warehouse, name, erasure)
            progress.advance(1)
        for name in touched:
            gone = [path for path, held in _shards(warehouse, name, erasure) if held]
            _say_so(warehouse.table(name), job=warehouse.job, needed=bool(gone))
            for path in gone:
                disk.remove(path)
            disk.sync_dir(root / name)
            progress.advance(1)
        living = _clear(warehouse)
        search = Search([*erasure.patients, *erasure.records], signals)
        search.look(_searched(root, living))
        if search.hits:
            shown = ", ".join(str(path.relative_to(root)) for path in search.hits[:3])
            msg = f"{len(search.hits)} files still hold traces of the patients: {shown}."
            raise WarehouseError(msg, path=root, hint="Run the same command again.")
        disk.remove(root / JOURNAL)
        disk.sync_dir(root)
        told = _certificate(root, erasure, result, search, living=len(living))
        return replace(result, erased=True, certificate=told)


def _touched(warehouse: Warehouse) -> list[str]:
    """Return the tables that may hold rows about patients; an older program made fewer of them."""
    return [name for name in _TOUCHED if Log(warehouse.root / name).exists()]


def _found(warehouse: Warehouse, patients: Sequence[str]) -> _Erasure:
    """Find the ECGs of the patients in every version, and what was fitted on them."""
    begun = _Erasure([])
    journal = warehouse.root / JOURNAL
    if journal.exists():
        begun = _Erasure(**json.loads(journal.read_bytes()))
    wanted = _Erasure([*_pseudonyms(patients), *begun.patients])
    columns = ["record_id", "patient_id", "source_uri"]
    mine = [
        rows.filter(wanted.of("records", rows)) for rows in _rows(warehouse, "records", columns)
    ]
    found = pa.concat_tables(mine) if mine else TABLES["records"].arrow.empty_table()
    known = {*found["patient_id"].to_pylist(), *begun.patients}
    if not known:
        msg = f"None of the {len(set(patients))} patients given is in the warehouse."
        hint = "Give ids as in records.patient_id, or as in the source if ECGSTORE_KEY is at hand."
        raise UsageError(msg, hint=hint)
    erasure = _Erasure(
        sorted(known),
        sorted({*found["record_id"].to_pylist(), *begun.records}),
        sorted({*found["source_uri"].drop_null().to_pylist(), *begun.uris}),
    )
    fits = {(EVERYTHING, 0), *((str(a), b) for a, b in begun.fits)}  # fitted on all records
    for rows in _rows(warehouse, "splits", ["split_id", "repeat", "record_id", "split"]):
        told = rows.filter(erasure.of("splits", rows)).to_pylist()
        fits |= {(one["split_id"], one["repeat"]) for one in told if one["split"] == "train"}
    runs = {(str(a), b) for a, b in begun.runs}
    for name in ("scores", "classifiers"):
        for rows in _rows(warehouse, name, ["run_id", "split_id", "repeat"]):
            told = [one for one in rows.to_pylist() if (one["split_id"], one["repeat"]) in fits]
            runs |= {(one["run_id"], one["repeat"]) for one in told}
    trained = set(begun.trainings)
    for rows in _rows(warehouse, "trained_records", ["run_id", "record_id"]):
        trained |= {*rows.filter(erasure.of("trained_records", rows))["run_id"].to_pylist()}
    erasure.trainings = sorted(trained)
    erasure.fits = [list(pair) for pair in sorted(fits)]
    erasure.runs = [list(pair) for pair in sorted(runs)]
    return erasure


def _pseudonyms(patients: Sequence[str]) -> list[str]:
    """Return ids with what they became in the warehouse, in whichever dataset."""
    key = load_key(make=False)
    spaces = ["", *datasets] if key else []
    hidden = [Deidentifier(key, space).patient(one) for one in patients for space in spaces]
    return [*patients, *hidden]


def _plan(warehouse: Warehouse, erasure: _Erasure) -> ForgetResult:
    rows, files, closed = {}, {}, {}
    for name in _touched(warehouse):
        table = warehouse.table(name)
        held = {path.name for path, held in _shards(warehouse, name, erasure) if held}
        rows[name] = int(erasure.of(name, table.read(_columns(name))).sum())
        files[name] = len(held)
        closed[name] = naming(table.log, held)
    return ForgetResult(
        erased=False,
        patients=len(erasure.patients),
        records=len(erasure.records),
        rows_by_table=rows,
        files_by_table=files,
        closed=closed,
        trainings=tuple(erasure.trainings),
    )


def _remove_rows(warehouse: Warehouse, name: str, erasure: _Erasure) -> None:
    """Remove the rows about the patients from the newest version of a table."""
    if "record_id" in TABLES[name].arrow.names:
        keys = pa.table({"record_id": pa.array(erasure.records, pa.string())})
    else:
        key = list(TABLES[name].key)
        rows = warehouse.table(name).read(list(dict.fromkeys([*key, *_columns(name)])))
        keys = rows.filter(pa.array(erasure.of(name, rows))).select(key)
    warehouse.delete(name, keys, command=_COMMAND)


def _say_so(table: Table, *, job: str, needed: bool) -> None:
    """Let the log tell why older versions cannot be opened, where no row had to be removed now."""
    if needed and table.log.told(table.version).command != _COMMAND:
        code = settings.code_version()
        table.log.commit(table.snapshot, command=_COMMAND, codeVersion=code, job=job)


def _columns(name: str) -> list[str]:
    """Return the columns by which rows about a patient are known."""
    if name == "rejects":
        return ["source_uri", "detail"]
    if name == "trainings":
        return ["params"]
    if name in _FITTED:
        return [_FITTED[name], "repeat"]
    return [one for one in ("record_id", "patient_id") if one in TABLES[name].arrow.names]


def _shards(warehouse: Warehouse, name: str, erasure: _Erasure) -> Iterator[tuple[Path, bool]]:
    """Yield every shard on disk, and whether it holds rows about the patients.

    One that cannot be read counts as one that does, unless the newest version needs it.
    """
    table = warehouse.table(name)
    table.files()  # raises when one that is needed is damaged
    for path in sorted((warehouse.root / name).glob("*.parquet")):
        try:
            rows = open_shards(TABLES[name], [path]).to_table(_columns(name))
        except (pa.ArrowException, OSError):
            yield path, path.name not in table.snapshot.entries
        else:
            yield path, bool(erasure.of(name, rows).any())


def _rows(warehouse: Warehouse, name: str, columns: list[str]) -> Iterator[pa.Table]:
    """Yield columns of every shard on disk that can be read, whichever version names it."""
    for path in sorted((warehouse.root / name).glob("*.parquet")):
        try:
            yield open_shards(TABLES[name], [path]).to_table(columns)
        except (pa.ArrowException, OSError):
            continue


def _signals(warehouse: Warehouse, erasure: _Erasure) -> list[NDArray[np.int16]]:
    """Return pieces of the signals, by which what is left of them would be known."""
    each = max(1, _PIECES // max(1, len(erasure.records)))
    chosen = pc.field("record_id").isin(erasure.records[:_PIECES])
    rows = warehouse.table("waveforms").read(where=chosen)
    return [piece for waveform in decode(rows) for piece in pieces(waveform, count=each)]


def _clear(warehouse: Warehouse) -> list[Path]:
    """Remove caches, what was set aside, drafts and staging folders; return those still claimed."""
    root, living = warehouse.root, []
    for draft in (*root.glob(".*.tmp"), *root.glob("*/.*.tmp")):
        disk.remove(draft)
    for name in _ASIDE:
        disk.remove_tree(root / name)
    for folder in sorted(root.glob(f"*/{STAGING}/*")):
        with claim(folder) as stale:
            if stale:
                disk.remove_tree(folder)
            else:
                living.append(folder)
    return living


def _searched(root: Path, living: Sequence[Path]) -> Iterator[Path]:
    for path in sorted(root.rglob("*")):
        ours = path.name != JOURNAL and not {*living} & {*path.parents}
        if path.is_file() and ours:
            yield path


def _certificate(
    root: Path, erasure: _Erasure, result: ForgetResult, search: Search, *, living: int
) -> dict[str, object]:
    """Return what was done and how it was checked, without an id of anybody."""
    body: dict[str, object] = {
        "certificate": "ecgstore erasure, version 1",
        "warehouse": root.name,
        "erased_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "code": settings.code_version(),
        "patients": len(erasure.patients),
        "patient_sha256": [hashlib.sha256(one.encode()).hexdigest() for one in erasure.patients],
        "records": len(erasure.records),
        "rows_removed": {name: n for name, n in result.rows_by_table.items() if n},
        "shards_removed": {name: n for name, n in result.files_by_table.items() if n},
        "versions_closed": {name: v for name, v in result.closed.items() if v},
        "removed_whole": list(_ASIDE),
        "kept": [_KEPT],
        "trained_on_them": erasure.trainings,
        "searched": {
            "files": search.files,
            "bytes": search.bytes,
            "ids": len(search.ids),
            "signal_pieces": len(search.signals),
            "hits": len(search.hits),
        },
        "commands_at_work": living,
    }
    text = json.dumps(body, sort_keys=True).encode()
    return {**body, "sha256": hashlib.sha256(text).hexdigest()}
