"""The operations that are broken off: each is a few calls, made on a warehouse that others made."""

from __future__ import annotations

import pickle
import shutil
import tempfile
import traceback
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from ecgstore.errors import UsageError
from ecgstore.schema import TABLES
from ecgstore.storage.log import CHECKPOINT_EVERY
from ecgstore.store import Store
from ecgstore.warehouse import Warehouse

from .content import (
    Content,
    content,
    differences,
    erasure,
    examined,
    grave,
    leftovers,
    unlike_sources,
)
from .forks import forked
from .sources import patient_id, write_sources

if TYPE_CHECKING:
    from collections.abc import Callable

    from .forks import Tell

_STORAGE = (
    "ecgstore.ingest",
    "ecgstore.labels",
    "ecgstore.upkeep.verify",
    "ecgstore.upkeep.gc",
    "pyarrow.acero",
)
_UPKEEP = (*_STORAGE, "ecgstore.upkeep.compact", "ecgstore.upkeep.forget")
_NETWORK = (*_STORAGE, "ecgstore.models", "ecgstore.embed", "scipy.signal")
_LEARNING = (
    *_STORAGE,
    "ecgstore.splitting.split",
    "ecgstore.fuse",
    "ecgstore.evaluate",
    "sklearn.linear_model",
    "sklearn.metrics",
    "sklearn.model_selection",
)

ERASED = patient_id(1)
"""The patient that is erased."""


@dataclass(frozen=True)
class Operation:
    """Calls on a warehouse; what one has returned from is done.

    Attributes:
        name: What it is called.
        calls: Each is given the warehouse and the folder of sources.
        after: The operations that make the warehouse it starts from.
        imports: What it needs in memory before the fork.
        damaged: Whether it starts from a warehouse that cannot be read whole.
        erased: Patients of whom nothing must be left in the end.
    """

    name: str
    calls: tuple[Callable[[Path, Path], object], ...]
    after: tuple[str, ...] = ()
    imports: tuple[str, ...] = _STORAGE
    damaged: bool = False
    erased: tuple[str, ...] = ()


@dataclass
class Stage:
    """An operation with the warehouse it starts from, and what it makes of it undisturbed.

    Attributes:
        operation: The operation.
        home: Folder of the warehouses that are made.
        sources: Folder of the sources.
        base: The warehouse it starts from; nothing there for the first.
        contents: What the warehouse holds before the first call and after each; None where it
            cannot be told.
    """

    operation: Operation
    home: Path
    sources: Path
    base: Path
    contents: list[Content | None] = field(default_factory=list)

    def copy(self) -> Path:
        """Return a fresh copy of the warehouse it starts from."""
        root = Path(tempfile.mkdtemp(dir=self.home)) / "warehouse"
        if self.base.exists():
            shutil.copytree(self.base, root)
        return root

    def drop(self, root: Path) -> None:
        """Remove a copy."""
        shutil.rmtree(root.parent, ignore_errors=True)

    def run(self, root: Path, tell: Tell) -> None:
        """Make all calls, telling the number of each that has returned."""
        for number, call in enumerate(self.operation.calls, 1):
            call(root, self.sources)
            tell(number)

    def problems(self, root: Path, done: int, *, again: bool = True) -> list[str]:
        """Return what is wrong with a warehouse in which the operation was broken off.

        Args:
            root: The warehouse.
            done: How many calls had returned.
            again: Run the operation again, and look at what it makes then.
        """
        last = len(self.contents) - 1
        found: list[str] = []
        try:
            if not self.operation.damaged:
                found = examined(root, self.contents[done], self.contents[min(done + 1, last)])
            if self.operation.erased and not found:
                found = erasure(root, self.operation.erased, done=done == last)
            return found or (self._finished(root) if again else [])
        except Exception:  # noqa: BLE001  what cannot be looked at is a problem, too
            return [traceback.format_exc(limit=-2)]

    def _finished(self, root: Path) -> list[str]:
        """Run the operation to its end; it must come to where an undisturbed one does."""
        self.run(root, lambda _: None)
        wanted = self.contents[-1]
        assert wanted is not None
        Store(root).gc(grace_s=0)
        result = Store(root).verify()
        found = [*grave(result), *leftovers(result), *differences(content(root), wanted)]
        if not found and self.operation.erased:
            found = erasure(root, self.operation.erased, done=True)
        return [f"run again: {one}" for one in found]


def staged(name: str, scratch: Path) -> Stage:
    """Make the warehouse that an operation starts from, and run it on a copy; once a folder."""
    home = scratch / name
    stage = Stage(OPERATIONS[name], home, home / "sources", home / "base" / "warehouse")
    known = home / "contents"
    if not known.exists():
        home.mkdir()
        write_sources(stage.sources)
        forked(lambda _: _made(stage)).result()
        known.write_bytes(pickle.dumps(forked(lambda _: _undisturbed(stage)).result()))
    stage.contents = pickle.loads(known.read_bytes())
    return stage


def _made(stage: Stage) -> None:
    stage.base.parent.mkdir()
    for one in stage.operation.after:
        calls = OPERATIONS[one].calls if one in OPERATIONS else (_SCENERY[one],)
        for call in calls:
            call(stage.base, stage.sources)


def _undisturbed(stage: Stage) -> list[Content | None]:
    root = stage.copy()
    known = root.exists() and not stage.operation.damaged
    contents = [content(root) if known else None]
    for call in stage.operation.calls:
        call(root, stage.sources)
        contents.append(content(root))
    assert not unlike_sources(root)
    stage.drop(root)
    return contents


def _init(root: Path, _: Path) -> None:
    Store(root).init()


def _ingest(folder: str) -> Callable[[Path, Path], object]:
    return lambda root, sources: Store(root).ingest(sources / folder, dataset="ds", jobs=1)


def _label(file: str, *, overwrite: bool) -> Callable[[Path, Path], object]:
    def call(root: Path, sources: Path) -> None:
        path = sources / f"{file}.csv"
        Store(root).label(path, task="ACS", patient="who", overwrite=overwrite)

    return call


def _embed(root: Path, _: Path) -> None:
    where = "record_id < 'ds/r03'"
    Store(root).embed("stmem.tiny", where=where, keep_windows=True, device="cpu", precision="fp32")


def _quality(root: Path, _: Path) -> None:
    Store(root).quality(jobs=1)


def _vectors(root: Path, _: Path) -> None:
    """Put vectors and the outputs of a head in place as a model would, and faster."""
    records = Warehouse(root).table("records").read(["record_id"])["record_id"].to_pylist()
    values = np.random.default_rng(0).standard_normal((len(records), _DIM), dtype=np.float32)
    key = {"model": "small", "version": "v1", "pooling": "mean"}
    rows = [
        {"record_id": record, **key, "dim": _DIM, "n_windows": 1, "embedding": vector}
        for record, vector in zip(records, values, strict=True)
    ]
    table = pa.Table.from_pylist(rows, schema=TABLES["embeddings"].arrow)
    Warehouse(root).append("embeddings", table, command="test")
    heads = [
        {"record_id": record, "model": "small", "version": "v1", "label": label, "probability": 0.5}
        for record in records
        for label in ("AF", "MI")
    ]
    table = pa.Table.from_pylist(heads, schema=TABLES["head_outputs"].arrow)
    Warehouse(root).append("head_outputs", table, command="test")


def _split(root: Path, _: Path) -> None:
    Store(root).split("s", task="ACS", repeats=2, test_size=0.4)


def _fuse(root: Path, _: Path) -> None:
    Store(root).fuse(["small"], name="fusion")


def _evaluate(root: Path, _: Path) -> None:
    Store(root).evaluate(["fusion"], "s", classifier="logistic")


def _crowd(root: Path, _: Path) -> None:
    """Make as many small shards as a table keeps: with one more they are merged."""
    for number in range(63):
        _append(root, number)


def _late(root: Path, _: Path) -> None:
    """Bring a log, with few shards, to where the next commit is to sum it up."""
    number = 0
    while (version := Warehouse(root).table("labels").version) < CHECKPOINT_EVERY - 1:
        if version == CHECKPOINT_EVERY // 2:
            Store(root).compact(["labels"], retention_days=0)
            Store(root).gc(grace_s=0)
        _append(root, number)
        number += 1


def _append(root: Path, number: int) -> None:
    rows = {"record_id": ["ds/r00"], "task": [f"T{number:02d}"], "label": [float(number)]}
    Warehouse(root).append("labels", pa.table(rows), command="test")


def _scatter(root: Path, _: Path) -> None:
    """Commit small shards."""
    for number in range(3):
        _append(root, number)


def _stray(root: Path, _: Path) -> None:
    """Commit a row without a record."""
    rows = {"record_id": ["ds/nobody"], "task": ["ACS"], "label": [1.0]}
    Warehouse(root).append("labels", pa.table(rows), command="test")


def _litter(root: Path, _: Path) -> None:
    """Leave what killed commands leave, and what versions let go have left."""
    Store(root).compact(retention_days=0)
    (root / "records" / "_delta_log" / f".{0:020d}.json.{0:032x}.tmp").write_bytes(b"draft")
    staging = root / "waveforms" / "_staging" / f"{0:032x}"
    staging.mkdir(parents=True)
    (staging / f"{0:032x}.tmp").write_bytes(b"half a shard")


def _compact(root: Path, _: Path) -> None:
    Store(root).compact(retention_days=0)


def _forget(root: Path, _: Path) -> None:
    try:
        Store(root).forget([ERASED], yes=True)
    except UsageError as error:
        if "is in the warehouse" not in error.message:  # there is nothing left to erase
            raise


def _collect(root: Path, _: Path) -> None:
    Store(root).gc(grace_s=0)


def _tear(root: Path, _: Path) -> None:
    """Cut the newest log file of one table and flip a bit in a shard of another."""
    log = max((root / "labels" / "_delta_log").glob("*.json"))
    log.write_bytes(log.read_bytes()[:100])
    shard = min((root / "waveforms").glob("*.parquet"))
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(data)


_DIM = 4
_FILLED = ("init", "ingest", "label")

_ALL = [
    Operation("init", (_init,)),
    Operation("ingest", (_ingest("first"), _ingest("second")), after=("init",)),
    Operation("label", (_label("labels", overwrite=False),), after=("init", "ingest")),
    Operation(
        "quality", (_quality,), after=("init", "ingest"), imports=(*_STORAGE, "ecgstore.assess")
    ),
    Operation("relabel", (_label("relabels", overwrite=True),), after=_FILLED),
    Operation("embed", (_embed,), after=_FILLED, imports=_NETWORK),
    Operation(
        "learn",
        (_split, _fuse, _evaluate),
        after=(*_FILLED, "vectors"),
        imports=_LEARNING,
    ),
    Operation("tidy", (lambda root, _: _append(root, 99),), after=("init", "ingest", "crowd")),
    Operation("append", (lambda root, _: _append(root, 99),), after=("init", "ingest", "late")),
    Operation(
        "repair",
        (lambda root, _: Store(root).verify(repair=True),),
        after=(*_FILLED, "tear"),
        damaged=True,
    ),
    Operation("compact", (_compact,), after=(*_FILLED, "scatter", "stray"), imports=_UPKEEP),
    Operation(
        "forget",
        (_forget,),
        after=(*_FILLED, "scatter", "vectors"),
        imports=_UPKEEP,
        erased=(ERASED,),
    ),
    Operation("gc", (_collect,), after=(*_FILLED, "scatter", "litter"), imports=_UPKEEP),
]
_SCENERY = {
    "crowd": _crowd,
    "late": _late,
    "litter": _litter,
    "scatter": _scatter,
    "stray": _stray,
    "tear": _tear,
    "vectors": _vectors,
}
"""What else may be done to a warehouse before."""


OPERATIONS = {one.name: one for one in _ALL}
"""All operations by name."""
