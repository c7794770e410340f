"""The whole of a warehouse checked: what is damaged, what the past has lost, what lies about.

Nothing is believed that can be computed anew: every log file is played through, every shard is
read, and what one table says of another is compared.
"""

from __future__ import annotations

import time
from collections import Counter
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ecgstore.errors import UsageError, WarehouseError
from ecgstore.progress import Silent
from ecgstore.schema import TABLES, table_schema
from ecgstore.storage.shards import translated
from ecgstore.upkeep.audit import LOG, audit_log, log_files
from ecgstore.upkeep.findings import Finding, across, in_table
from ecgstore.upkeep.repair import Aside, repair_records, repair_table
from ecgstore.upkeep.shard_audit import audit_shards
from ecgstore.upkeep.strays import strays

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from ecgstore.progress import Progress
    from ecgstore.upkeep.audit import Audit
    from ecgstore.warehouse import Warehouse

__all__ = ["VerifyResult", "verify"]

_LOOKS = 3  # what is found while others write is looked at again, so often


@dataclass(frozen=True)
class VerifyResult:
    """What `verify` found.

    Attributes:
        findings: What is not as it should be, and what was repaired.
        tables: Tables checked.
        versions: Versions of them that can be opened.
        commits: Commits read.
        unsealed: Commits that carry no digest, by an older version or another engine: a changed
            bit in one of them may not be noticed.
        shards: Shards checked.
        bytes: Bytes of shards that were read.
        seconds: Time taken.
    """

    findings: tuple[Finding, ...]
    tables: int
    versions: int
    commits: int
    unsealed: int
    shards: int
    bytes: int
    seconds: float

    @property
    def clean(self) -> bool:
        """Whether every answer, of now and of the versions kept, is as it was written."""
        return not _grave(self.findings)

    @property
    def rows(self) -> list[dict[str, object]]:
        """One row a finding."""
        return [vars(finding).copy() for finding in self.findings]

    @property
    def summary(self) -> str:
        """What was checked and how much of it was found wanting, one line."""
        kinds = Counter(finding.severity for finding in self.findings)
        found = ", ".join(f"{count} {severity}" for severity, count in kinds.items())
        unsealed = f" ({self.unsealed} unsealed)" if self.unsealed else ""
        return (
            f"{found or 'all is well'}: {self.tables} tables, {self.versions} versions, "
            f"{self.commits} commits{unsealed}, {self.shards} shards, {self.bytes:,} bytes read, "
            f"{self.seconds:.1f} s"
        )

    def __repr__(self) -> str:
        return f"VerifyResult({self.summary})"

    def _repr_html_(self) -> str:
        return f"<b>{'clean' if self.clean else 'damaged'}</b>: {self.summary}"


def verify(
    warehouse: Warehouse,
    *,
    tables: Collection[str] | None = None,
    fast: bool = False,
    repair: bool = False,
    progress: Progress | None = None,
) -> VerifyResult:
    """Check tables, their logs and all their versions against everything known of them.

    Args:
        warehouse: The warehouse.
        tables: Tables to check; None checks all, and what lies beside them.
        fast: Look at the logs and at the sizes of shards, and read no shard.
        repair: Set aside what cannot be read, say what was lost, and put together again what can
            be. Nobody else can write meanwhile. Nothing is deleted.
        progress: Told of every shard.

    Raises:
        UnknownNameError: There is no such table.
        UsageError: A repair was asked for that reads no shard.
        SchemaError: A newer program wrote a table: this one cannot judge it.
        WarehouseError: Files cannot be listed or written.
    """
    if repair and fast:
        msg = "A repair reads every shard: it cannot be fast."
        raise UsageError(msg, hint="Leave one of the two out.")
    began = time.perf_counter()
    names = [table_schema(name).name for name in tables or TABLES]
    for name in names:
        with suppress(WarehouseError):  # what is damaged is told below
            warehouse.table(name)
    look = _Look(warehouse, fast=fast, progress=progress or Silent())
    with translated(warehouse.root), warehouse.exclusive() if repair else nullcontext():
        look.at(names)
        repaired = _repaired(look, names) if repair else []
        findings = look.findings(whole=tables is None)
        for _ in range(_LOOKS):
            if repair or not _grave(findings) or not look.moved():
                break
            look.at(names)
            findings = look.findings(whole=tables is None)
    audits = look.audits
    return VerifyResult(
        findings=(*repaired, *findings),
        tables=len(audits),
        versions=sum(audit.versions for audit in audits.values()),
        commits=sum(audit.commits for audit in audits.values()),
        unsealed=sum(audit.unsealed for audit in audits.values()),
        shards=sum(len(audit.shards) for audit in audits.values()),
        bytes=sum(audit.size for audit in audits.values()),
        seconds=time.perf_counter() - began,
    )


class _Look:
    """What a warehouse is found to be at one time."""

    def __init__(self, warehouse: Warehouse, *, fast: bool, progress: Progress) -> None:
        self.warehouse = warehouse
        self.audits: dict[str, Audit] = {}
        self._fast = fast
        self._progress = progress

    def at(self, names: Collection[str]) -> None:
        """Look at tables; ``records`` first, for what a record needs is committed before it."""
        for name in names:
            self.audits.pop(name, None)
            folder = self.warehouse.root / name
            if (folder / LOG).is_dir():
                audit = audit_log(folder / LOG, table_schema(name))
                if audit.files or any(folder.glob("*.parquet")):
                    self.audits[name] = audit
        mine = [self.audits[name] for name in names if name in self.audits]
        self._progress.start(sum(len(audit.shards) for audit in mine), "shards")
        for audit in mine:
            folder = self.warehouse.root / audit.schema.name
            audit_shards(audit, folder, fast=self._fast, advance=self._progress.advance)

    def moved(self) -> bool:
        """Tell whether somebody committed or cleaned since."""
        logs = {name: self.warehouse.root / name / LOG for name in self.audits}
        return any(log_files(logs[name]) != audit.files for name, audit in self.audits.items())

    def findings(self, *, whole: bool) -> list[Finding]:
        """Return what was found; with what lies beside the tables when `whole`."""
        root = self.warehouse.root
        known = Aside(root).known
        found = [one for audit in self.audits.values() for one in in_table(audit, known)]
        found += across(self.audits, known)
        found += strays(root, self.audits, whole=whole, fast=self._fast)
        return found


def _repaired(look: _Look, names: Collection[str]) -> list[Finding]:
    """Repair until there is nothing left that can be: logs, then shards, then records."""
    aside = Aside(look.warehouse.root)
    repaired: list[Finding] = []
    while True:
        done = [
            one
            for audit in look.audits.values()
            for one in repair_table(look.warehouse, audit, aside)
        ]
        if not done and {"records", "waveforms"} <= look.audits.keys():
            records, waveforms = look.audits["records"], look.audits["waveforms"]
            if records.whole and waveforms.whole:
                done = [*repair_records(look.warehouse, records, waveforms, aside)]
        if not done:
            return repaired
        repaired += done
        look.at([name for name in names if name in {one.table for one in done}])


def _grave(findings: Iterable[Finding]) -> bool:
    return any(finding.severity in ("damage", "history") for finding in findings)
