"""Put a damaged warehouse right: what cannot be read is set aside, and what was lost is told.

Nothing is deleted: files move to ``_set_aside/<time>/<table>``, where ``report.json`` says what
each was. The report is written first, then the file moves, then the table is committed without
it; a repair that is interrupted anywhere is finished by the next one.
"""

from __future__ import annotations

import json
import re
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from ecgstore.errors import WarehouseError
from ecgstore.storage import disk
from ecgstore.storage.commits import decode
from ecgstore.storage.keys import found, open_shards
from ecgstore.storage.log import Log
from ecgstore.storage.shards import write_shards
from ecgstore.storage.staging import place
from ecgstore.upkeep.audit import DENIED
from ecgstore.upkeep.findings import Finding, mendable, without_signal
from ecgstore.upkeep.mend import mend

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from ecgstore.upkeep.audit import Audit, Fault
    from ecgstore.warehouse import Warehouse

__all__ = ["ASIDE", "Aside", "repair_records", "repair_table"]

ASIDE = "_set_aside"
"""Folder of a warehouse in which repairs put what they take away."""

_COMMAND = "repair"
_REPORT = "report.json"
_TOLD = re.compile(rb'"rowsAdded": ?(\d+)')


@dataclass(frozen=True)
class _Loss:
    """What a repair took away: a file, and the rows that went with it."""

    table: str
    version: int
    file: str
    what: str
    rows: int = 0


class Aside:
    """The folder of one repair, made when first needed.

    Args:
        root: The warehouse folder.

    Attributes:
        known: Table and name of each file that this or an earlier repair told of.
    """

    def __init__(self, root: Path) -> None:
        self._folder = root / ASIDE / f"{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}"
        self._losses: list[_Loss] = []
        self.known: set[tuple[str, str]] = set()
        for path in root.glob(f"{ASIDE}/*/{_REPORT}"):
            with suppress(ValueError, TypeError, KeyError):
                report = json.loads(path.read_bytes())
                self.known |= {(loss["table"], loss["file"]) for loss in report}

    def tell(self, loss: _Loss) -> None:
        """Add a loss to the report."""
        self._losses.append(loss)
        self.known.add((loss.table, loss.file))
        report = json.dumps([asdict(one) for one in self._losses], indent=1)
        disk.make_dir(self._folder)
        disk.put(self._folder / _REPORT, report.encode())

    def move(self, path: Path, loss: _Loss) -> None:
        """Tell of a loss, then move its file, if there is one."""
        self.tell(loss)
        if path.exists():
            target = self._folder / loss.table / path.name
            disk.make_dir(target.parent)
            disk.rename(path, target)
            disk.sync_dir(target.parent)
            disk.sync_dir(path.parent)

    def keep(self, table: str, name: str, data: bytes) -> None:
        """Write a file beside those set aside."""
        disk.make_dir(self._folder / table)
        disk.put(self._folder / table / name, data)


def repair_table(warehouse: Warehouse, audit: Audit, aside: Aside) -> Iterator[Finding]:
    """Put one table right as far as that can be done; shards only where the log is whole.

    Args:
        warehouse: The warehouse, whose lock the caller holds alone.
        audit: What was found.
        aside: Where files go.

    Yields:
        What was done.

    Raises:
        WarehouseError: A commit failed.
        OSError: The system refused.
    """
    folder = warehouse.root / audit.schema.name
    for fault in audit.faults:
        yield from _log_file(folder, audit, fault, aside)
    if audit.newest is None:
        return
    bad = {name: what for name, what in audit.bad.items() if what != DENIED}
    live = bad.keys() & audit.newest.entries.keys()
    for name in sorted(bad.keys() - live):
        expected = (folder.name, name) in aside.known or audit.shards[name].last < audit.forgotten
        if (folder / name).exists() or not expected:
            loss = _Loss(folder.name, audit.shards[name].last, name, bad[name])
            aside.move(folder / name, loss)
            yield _repaired(loss, "it was set aside; newer versions do not need it.")
    for version in sorted({audit.shards[name].spans[-1][0] for name in live}):
        names = sorted(name for name in live if audit.shards[name].spans[-1][0] == version)
        yield from _shards(warehouse, audit, version, names, aside)


def repair_records(
    warehouse: Warehouse, records: Audit, waveforms: Audit, aside: Aside
) -> Iterator[Finding]:
    """Set the records aside whose waveforms are lost, so that they can be ingested again.

    Args:
        warehouse: The warehouse, whose lock the caller holds alone.
        records: What was found of the table ``records``.
        waveforms: What was found of the table ``waveforms``.
        aside: Where their rows go.

    Yields:
        What was done.

    Raises:
        WarehouseError: The commit failed.
        OSError: The system refused.
    """
    ids = without_signal(records, waveforms)
    if not len(ids):
        return
    keys = pa.table({"record_id": ids})
    rows = warehouse.table("records").read()
    sink = pa.BufferOutputStream()
    pq.write_table(rows.filter(found(rows, keys, ["record_id"])), sink)
    file = "without_waveform.parquet"
    loss = _Loss("records", records.version, file, "their waveforms are lost", len(ids))
    aside.tell(loss)
    aside.keep("records", file, sink.getvalue().to_pybytes())
    warehouse.delete("records", keys, command=_COMMAND)
    what = f"{len(ids)} records had no waveform: their rows were set aside."
    remedy = "Ingest their sources again."
    yield Finding("repaired", "records", records.version, f"records/{file}", what, remedy)


def _log_file(folder: Path, audit: Audit, fault: Fault, aside: Aside) -> Iterator[Finding]:
    log = Log(folder)
    path = log.path / fault.file
    loss = _Loss(folder.name, fault.version, fault.file, fault.what)
    data = path.read_bytes() if path.exists() and fault.what != DENIED else b""
    mended = mend(data, _is_sealed) if fault.kind == "commit" else None
    if mended is not None:
        aside.keep(folder.name, fault.file, data)
        disk.put(path, mended)
        yield _repaired(loss, "one bit had flipped, and was flipped back.", log=True)
        return
    told = not path.exists() and (folder.name, fault.file) in aside.known
    if told or not mendable(audit, fault):
        return
    aside.move(path, loss)
    if fault.kind == "commit":
        done = "it was set aside; newer versions do not need it."
        if fault.until == audit.version:
            count = _TOLD.search(data)
            rows = f" It told of {int(count[1])} rows." if count else ""
            done = f"it was set aside, and what it did is undone.{rows}"
    else:
        done = "it was set aside, and made anew from the commits."
        _sum_up(log, fault)
    yield _repaired(loss, done, log=True)


def _sum_up(log: Log, fault: Fault) -> None:
    """Write a checkpoint and what points to it anew, where the commits still tell its state."""
    versions = [fault.version]
    if fault.kind == "pointer":
        versions = sorted(int(p.name[:20]) for p in log.path.glob("*.checkpoint.parquet"))[-1:]
    for version in versions:
        with suppress(WarehouseError):
            log.checkpoint(log.snapshot(version))


def _shards(
    warehouse: Warehouse, audit: Audit, version: int, names: Sequence[str], aside: Aside
) -> Iterator[Finding]:
    """Replace the live shards that one commit added, by their rows or by nothing."""
    table = warehouse.table(audit.schema.name)
    rows = _rearranged(table.folder, audit, version, names)
    entries = [audit.shards[name].entry for name in names]
    lost = 0 if rows is not None else sum(one.rows or 0 for one in entries)
    for one in entries:
        path = table.folder / one.name
        if rows is None:
            aside.keep(table.folder.name, f"{one.name}.record_ids.json", _record_ids(path))
        gone = 0 if rows is not None else one.rows or 0
        loss = _Loss(table.folder.name, audit.version, one.name, audit.bad[one.name], gone)
        aside.move(path, loss)
        done = "its rows were put together again from older shards."
        yield _repaired(loss, done if rows is not None else f"set aside, {gone} rows are lost.")
    with table.staging() as staging:
        new = [] if rows is None else write_shards(staging, audit.schema, rows)
        if {shard.path.name for shard in new} == {*names}:
            place(new, table.folder)  # the same bytes as before
        else:
            old = [table.folder / name for name in names]
            table.swap(old, new, command=_COMMAND, dropped=lost)


def _rearranged(folder: Path, audit: Audit, version: int, names: Sequence[str]) -> pa.Table | None:
    """Return the rows of shards that a commit made of older ones which can still be read.

    A commit that only rearranges leaves the rows as they are. So what it took away and did not
    put into its other shards was in these, and their number must agree.
    """
    try:
        actions = decode((folder / "_delta_log" / f"{version:020d}.json").read_bytes())[1]
    except (OSError, ValueError):
        return None
    changes = [a[kind] for a in actions for kind in ("add", "remove") if kind in a]
    old = [action["remove"]["path"] for action in actions if "remove" in action]
    others = [a["add"]["path"] for a in actions if "add" in a and a["add"]["path"] not in names]
    counts = [audit.shards[name].entry.rows for name in names]
    if any(one.get("dataChange", True) for one in changes) or None in counts:
        return None
    if not old or not audit.rows.keys() >= {*old, *others}:
        return None
    rows = open_shards(audit.schema, [folder / name for name in old]).to_table()
    if others:
        elsewhere = pa.concat_tables([audit.rows[name] for name in others])
        rows = rows.filter(~found(rows, elsewhere, list(audit.schema.key)))
    return rows if rows.num_rows == sum(count or 0 for count in counts) else None


def _record_ids(path: Path) -> bytes:
    """Return the record ids that a damaged shard still shows, as JSON, for whoever has sources."""
    ids: list[str] = []
    with suppress(OSError, KeyError, ValueError, pa.ArrowException):
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            column = file.read(columns=["record_id"], use_threads=False)["record_id"]
        ids = column.unique().to_pylist()
    return json.dumps(ids).encode()


def _is_sealed(data: bytes) -> bool:
    try:
        return decode(data)[2]
    except ValueError:
        return False


def _repaired(loss: _Loss, done: str, *, log: bool = False) -> Finding:
    file = f"{loss.table}/{'_delta_log/' if log else ''}{loss.file}"
    what = f"The {'log file' if log else 'shard'} {loss.what}: {done}"
    return Finding("repaired", loss.table, loss.version, file, what, "")
