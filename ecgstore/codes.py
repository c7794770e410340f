"""Rhythm codes as data: which code a tokeniser gives each second of each lead, in a table.

Records go the way they go to be embedded: read in shard order, grouped by shape, prepared by the
encoder. What is finished is committed every few minutes, a record whole or not at all.
"""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from ecgstore.catalog import Catalog
from ecgstore.embed import waveforms_of, windows_at_once
from ecgstore.errors import UsageError
from ecgstore.first_use import introduce
from ecgstore.grouping import Grouping, Refused
from ecgstore.models.anyecg import AnyEcgEncoder
from ecgstore.progress import Progress, Silent
from ecgstore.record import LEADS
from ecgstore.schema import table_schema

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from ecgstore.grouping import Batch
    from ecgstore.models import Encoder
    from ecgstore.warehouse import Warehouse

__all__ = ["CodesResult", "fill_codes"]

_COMMAND = "codes"
_ROWS_HELD = 500_000
"""A commit follows after so many codes: 4,000 records of 10 s and twelve leads."""


@dataclass(frozen=True)
class CodesResult:
    """What a `fill_codes` call did.

    Attributes:
        model: Registry name of the model.
        version: Digest of what makes its codes.
        coded: Records given codes now (with ``dry_run``: that would be tried).
        existing: Records that had theirs already.
        rows: Codes written.
        skipped: Records left out by reason.
        seconds: Time taken.
    """

    model: str
    version: str
    coded: int
    existing: int
    rows: int = 0
    skipped: Mapping[str, int] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def rejected(self) -> int:
        """Records skipped, whatever the reason."""
        return sum(self.skipped.values())

    @property
    def row(self) -> dict[str, object]:
        """The result as one row."""
        return {
            "model": self.model,
            "version": self.version,
            "coded": self.coded,
            "existing": self.existing,
            "codes": self.rows,
            "skipped": self.rejected,
            "reasons": dict(self.skipped),
            "seconds": round(self.seconds, 3),
        }

    def __repr__(self) -> str:
        return (
            f"CodesResult({self.model}@{self.version}, {self.coded} coded, "
            f"{self.existing} existing, {self.rejected} skipped)"
        )

    def _repr_html_(self) -> str:
        return (
            f"<b>{self.model}@{self.version}</b>: {self.coded} coded, {self.existing} existing, "
            f"{self.rejected} skipped"
        )


def fill_codes(
    warehouse: Warehouse,
    encoder: Encoder,
    *,
    where: str | None = None,
    batch_size: int | None = None,
    overwrite: bool = False,
    dry_run: bool = False,
    progress: Progress | None = None,
    commit_s: float = 120.0,
) -> CodesResult:
    """Give the records that have none the rhythm codes of a model.

    A record longer than a window of the model is cut into consecutive windows; what is left behind
    the last whole one has no codes. Seconds are counted from the start of the record.

    Args:
        warehouse: Where records are read and codes written.
        encoder: An AnyECG with its tokeniser.
        where: SQL predicate over ``records``.
        batch_size: Windows at once; default 8 on a CPU, 256 on a GPU.
        overwrite: Name the codes again where they are there.
        dry_run: Count and write nothing.
        progress: Told of every record.
        commit_s: Commit what is done at least this often, seconds.

    Raises:
        QueryError: ``where`` is not a predicate over ``records``.
        UsageError: The model has no tokeniser, or its windows overlap.
    """
    began = time.perf_counter()
    progress = progress or Silent()
    able = _with_codes(encoder)
    todo, result = _plan(warehouse, able, where=where, overwrite=overwrite)
    if dry_run or not todo:
        return result
    introduce(warehouse, able, command=_COMMAND, progress=progress)
    sink = _Sink(warehouse, able, overwrite=overwrite, commit_s=commit_s)
    skipped = Counter(result.skipped)
    size = batch_size or windows_at_once([[able]])
    grouping = Grouping([able], [todo], todo, size, pinned=False)
    progress.start(len(todo), "records")
    try:
        for item in grouping.of(waveforms_of(warehouse, todo)):
            if isinstance(item, Refused):
                skipped[item.reason] += 1
                progress.advance(1, rejected=1)
            else:
                sink.add(_Coded.of(able, item, size))
                progress.advance(len(item.record_ids))
    finally:
        sink.commit()
    if sink.erased:
        skipped["erased meanwhile"] += sink.erased
    seconds = time.perf_counter() - began
    return replace(result, coded=sink.written, rows=sink.rows, skipped=skipped, seconds=seconds)


def _with_codes(encoder: Encoder) -> AnyEcgEncoder:
    """Return the encoder if it names codes, one for each second.

    Raises:
        UsageError: It does not.
    """
    if not isinstance(encoder, AnyEcgEncoder):
        msg = f"{encoder.spec.name!r} has no rhythm codes; they are AnyECG's."
        raise UsageError(msg, hint="Use anyecg with its weights, or anyecg.tiny for a try.")
    if encoder.variant.name == "long" or encoder.readout != encoder.readouts[0]:
        msg = f"{encoder.pooling!r} is a way to make vectors, not codes."
        raise UsageError(msg, hint=f"Write the model as {encoder.spec.name} alone.")
    encoder.codes(np.empty((0, len(LEADS), round(encoder.rate_hz)), np.float32))  # or says why not
    return encoder


def _plan(
    warehouse: Warehouse, encoder: AnyEcgEncoder, *, where: str | None, overwrite: bool
) -> tuple[dict[str, float], CodesResult]:
    """Return the rate of each record to do, and what can be told before that."""
    key = {"model": encoder.spec.name, "version": encoder.version}
    with Catalog(warehouse.relations()) as catalog:
        wanted = catalog.table(
            "select record_id, rate_hz,\n"
            "record_id in (select record_id from codes\n"
            "where model = $model and version = $version) as done,\n"
            "leads is null or list_has_any(leads, $standard) as standard\n"
            f"from records where ({where or 'true'}\n)",
            {**key, "standard": list(LEADS)},
        ).to_pylist()
    fit = [row for row in wanted if row["standard"]]
    done = 0 if overwrite else sum(row["done"] for row in fit)
    todo = {row["record_id"]: row["rate_hz"] for row in fit if overwrite or not row["done"]}
    without = len(wanted) - len(fit)
    skipped = {"no standard lead": without} if without else {}
    return todo, CodesResult(
        model=key["model"],
        version=key["version"],
        coded=len(todo),
        existing=done,
        skipped=skipped,
    )


@dataclass(frozen=True, eq=False)
class _Coded:
    """Records of equal shape with their codes, ``(records, windows, leads, seconds)`` int16."""

    record_ids: Sequence[str]
    leads: tuple[str, ...]
    starts_s: tuple[float, ...]
    codes: NDArray[np.int16]

    @classmethod
    def of(cls, encoder: AnyEcgEncoder, batch: Batch, size: int) -> _Coded:
        leads, rate_hz = batch.tasks[0], batch.rate_hz
        raw = (part.to(encoder.device) for part in (batch.counts, batch.gain, batch.baseline))
        windows = encoder.prepare_batch(*raw, rate_hz=rate_hz, leads=batch.leads)
        flat = windows.flatten(0, 1)
        parts = [flat[start : start + size].cpu().numpy() for start in range(0, len(flat), size)]
        codes = np.concatenate([encoder.codes(part, leads=leads) for part in parts])
        codes = codes.reshape(*windows.shape[:3], -1)
        starts = encoder.window_starts(batch.counts.shape[2], rate_hz=rate_hz)
        return cls(batch.record_ids, leads, starts, codes)

    def columns(self, there: set[str]) -> dict[str, NDArray[np.generic]]:
        """Return one row a second of the records that are there."""
        kept = [i for i, name in enumerate(self.record_ids) if name in there]
        codes = self.codes[kept].transpose(0, 2, 1, 3)  # all seconds of a lead together
        records, leads, windows, seconds = codes.shape
        second = np.add.outer(np.array(self.starts_s), np.arange(seconds)).astype(np.int32)
        names = np.array([self.record_ids[i] for i in kept], dtype=object)
        return {
            "record_id": np.repeat(names, leads * windows * seconds),
            "lead": np.tile(
                np.repeat(np.array(self.leads, dtype=object), windows * seconds), records
            ),
            "second": np.tile(second.reshape(-1), records * leads),
            "code": codes.reshape(-1),
        }


class _Sink:
    """Holds codes and commits them by number and by time.

    Attributes:
        written: Records committed.
        rows: Codes committed.
        erased: Records that were erased before their codes were committed.
    """

    def __init__(
        self, warehouse: Warehouse, encoder: AnyEcgEncoder, *, overwrite: bool, commit_s: float
    ) -> None:
        self._warehouse = warehouse
        self._key = {"model": encoder.spec.name, "version": encoder.version}
        self._write = warehouse.replace if overwrite else warehouse.append
        self._commit_s = commit_s
        self._held: list[_Coded] = []
        self._last = time.monotonic()
        self.written = self.rows = self.erased = 0

    def add(self, coded: _Coded) -> None:
        self._held.append(coded)
        late = time.monotonic() - self._last > self._commit_s
        if late or sum(one.codes.size for one in self._held) >= _ROWS_HELD:
            self.commit()

    def commit(self) -> None:
        """Write what is held; the lock keeps records from being erased between look and commit."""
        held, self._held = self._held, []
        names = list(chain.from_iterable(one.record_ids for one in held))
        if names:
            with self._warehouse.shared():
                there = set(self._warehouse.table("records").read(["record_id"])[0].to_pylist())
                parts = [one.columns(there) for one in held]
                columns = {name: np.concatenate([one[name] for one in parts]) for name in parts[0]}
                rows = len(columns["code"])
                key = {
                    name: np.full(rows, value, dtype=object) for name, value in self._key.items()
                }
                schema = table_schema("codes").arrow
                table = pa.table({**columns, **key}).select(schema.names).cast(schema)
                self._write("codes", table, command=_COMMAND)
            kept = sum(name in there for name in names)
            self.written += kept
            self.rows += rows
            self.erased += len(names) - kept
        self._last = time.monotonic()
