"""From records to vectors: stream waveforms, prepare, batch, run the encoder, write, commit.

Waveforms are read in shard order, one row group at a time, so memory does not grow with the
number of records. Only windows of equal shape share a batch: padding changes embeddings
(ecgfm.md, section 6). What is finished is committed every few minutes, so an interrupted run
goes on where it was.
"""

from __future__ import annotations

import json
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from ecgstore.catalog import Catalog
from ecgstore.errors import DamagedError, UnfitRecordError
from ecgstore.progress import Progress, Silent
from ecgstore.record import LEADS
from ecgstore.schema import table_schema
from ecgstore.waveforms import Waveform, scan

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from numpy.typing import NDArray

    from ecgstore.models import Encoder
    from ecgstore.warehouse import Warehouse

__all__ = ["EmbedResult", "embed"]

_COMMAND = "embed"
_NO_LEADS = "no standard lead"
_ROWS_HELD = 16_384
"""Vectors held before a shard is written: 50 MB at 768 dimensions."""


@dataclass(frozen=True)
class EmbedResult:
    """What an `embed` call did.

    Attributes:
        model: Registry name of the model.
        version: Digest of what makes its vectors.
        pooling: Read-out of the vectors.
        dim: Numbers per vector.
        embedded: Records embedded now (with ``dry_run``: that would be tried).
        existing: Records that had their vector already.
        skipped: Records left out by reason; nothing is stored for them.
        incomplete: Records embedded although a lead was missing, as the model's contract allows.
        seconds: Time taken.
    """

    model: str
    version: str
    pooling: str
    dim: int
    embedded: int
    existing: int
    skipped: Mapping[str, int] = field(default_factory=dict)
    incomplete: int = 0
    seconds: float = 0.0

    @property
    def rejected(self) -> int:
        """Records skipped, whatever the reason."""
        return sum(self.skipped.values())

    @property
    def rows(self) -> list[dict[str, object]]:
        """The result as one row."""
        return [
            {
                "model": self.model,
                "version": self.version,
                "pooling": self.pooling,
                "dim": self.dim,
                "embedded": self.embedded,
                "existing": self.existing,
                "skipped": self.rejected,
                "reasons": dict(self.skipped),
                "incomplete": self.incomplete,
                "seconds": round(self.seconds, 3),
            }
        ]

    def __repr__(self) -> str:
        return (
            f"EmbedResult({self.model}@{self.version}:{self.pooling}, {self.embedded} embedded, "
            f"{self.existing} existing, {self.rejected} skipped)"
        )

    def _repr_html_(self) -> str:
        return (
            f"<b>{self.model}@{self.version}</b>: {self.embedded} embedded, "
            f"{self.existing} existing, {self.rejected} skipped"
        )


def embed(
    warehouse: Warehouse,
    encoder: Encoder,
    *,
    where: str | None = None,
    batch_size: int | None = None,
    keep_windows: bool = False,
    overwrite: bool = False,
    dry_run: bool = False,
    progress: Progress | None = None,
    commit_s: float = 120.0,
) -> EmbedResult:
    """Embed the records that do not have this model's vector yet.

    Args:
        warehouse: Where records are read and vectors written.
        encoder: A loaded encoder; its name, version and read-out key the rows.
        where: SQL predicate over ``records``, such as ``"age >= 65 and dataset = 'ptbxl'"``.
        batch_size: Windows per forward pass; default 8 on a CPU, 256 on a GPU.
        keep_windows: Also store the vector of each window in ``windows``.
        overwrite: Embed again what is there, replacing it.
        dry_run: Count and write nothing.
        progress: Told of every record.
        commit_s: Commit what is done at least this often, seconds.

    Raises:
        QueryError: ``where`` is not a predicate over ``records``.
    """
    began = time.perf_counter()
    progress = progress or Silent()
    key = {
        "model": encoder.spec.name,
        "version": encoder.version,
        "pooling": encoder.readout,
    }
    todo, existing, without = _plan(
        warehouse, key, where=where, overwrite=overwrite, keep_windows=keep_windows
    )
    skipped: Counter[str] = Counter({_NO_LEADS: without} if without else {})
    result = EmbedResult(
        model=key["model"],
        version=key["version"],
        pooling=key["pooling"],
        dim=encoder.dim,
        embedded=len(todo),
        existing=existing,
        skipped=dict(skipped),
    )
    if dry_run or not todo:
        return result
    if warehouse.append("models", _model_row(encoder, key), command=_COMMAND):
        progress.note(_terms(encoder))
    writer = _Writer(
        warehouse, key, keep_windows=keep_windows, overwrite=overwrite, commit_s=commit_s
    )
    progress.start(len(todo), "records")
    batches = _Batches(encoder, batch_size or (256 if encoder.device.type == "cuda" else 8))
    try:
        for vectors, refused in batches.run(_waveforms(warehouse, todo), rates=todo):
            skipped.update(refused)
            writer.add(vectors)
            progress.advance(len(vectors) + len(refused), rejected=len(refused))
    finally:
        writer.commit()
    if writer.erased:
        skipped["erased meanwhile"] = writer.erased
    return replace(
        result,
        embedded=writer.written,
        skipped=dict(skipped),
        incomplete=batches.incomplete,
        seconds=time.perf_counter() - began,
    )


def _plan(
    warehouse: Warehouse,
    key: Mapping[str, str],
    *,
    where: str | None,
    overwrite: bool,
    keep_windows: bool,
) -> tuple[dict[str, float], int, int]:
    """Return the rate of every record to embed by id, how many are done, and without a lead."""
    mine = "model = $model and version = $version and pooling = $pooling"
    done_if = " and ".join(
        f"record_id in (select record_id from {table} where {mine})"
        for table in ("embeddings", *(["windows"] if keep_windows else []))
    )
    with Catalog(warehouse.relations()) as catalog:
        wanted = catalog.table(
            f"select record_id, rate_hz, {done_if} as done,\n"
            "leads is null or list_has_any(leads, $standard) as standard\n"
            f"from records where ({where or 'true'}\n)",
            {**key, "standard": list(LEADS)},
        )
    without = int((~wanted.column("standard").to_numpy()).sum())
    wanted = wanted.filter(wanted.column("standard"))
    done = wanted.column("done").to_numpy()
    todo = wanted if overwrite else wanted.filter(pa.array(~done))
    rates = dict(
        zip(todo.column("record_id").to_pylist(), todo.column("rate_hz").to_pylist(), strict=True)
    )
    return rates, 0 if overwrite else int(done.sum()), without


def _waveforms(warehouse: Warehouse, wanted: Collection[str]) -> Iterator[Waveform]:
    """Yield waveforms; begin anew with the rest when shards were erased or merged meanwhile."""
    rest = set(wanted)
    while True:
        table = warehouse.table("waveforms")
        try:
            for waveform in scan(table.files(), rest):
                rest.discard(waveform.record_id)
                yield waveform
        except DamagedError:
            if not table.behind:
                raise
        else:
            return


def _terms(encoder: Encoder) -> str:
    """Return what a user must know of a model on first use: licence and whom to cite."""
    spec = encoder.spec
    lines = [f"{spec.name}: weights under {spec.licence}."]
    if spec.licence_note:
        lines.append(spec.licence_note)
    if encoder.weights_name.startswith("untrained"):
        lines.append("These weights are untrained: the vectors show the machinery, not a model.")
    return "\n".join([*lines, *(f"Cite: {citation}" for citation in spec.citations)])


def _model_row(encoder: Encoder, key: Mapping[str, str]) -> pa.Table:
    return pa.Table.from_pylist(
        [
            {
                **key,
                "weights_sha256": encoder.weights_sha256,
                "contract": json.dumps(encoder.contract, sort_keys=True),
                "precision": encoder.precision,
                "dim": encoder.dim,
                "licence": encoder.spec.licence,
                "citation": "\n".join(encoder.spec.citations),
                "source": encoder.weights_name,
            }
        ],
        schema=table_schema("models").arrow,
    )


@dataclass(frozen=True, eq=False)
class _Windows:
    """The windows of one record and when each starts.

    ``values`` is ``(windows, leads, samples)`` prepared, then ``(windows, dim)`` embedded.
    """

    record_id: str
    values: NDArray[np.float32]
    starts_s: tuple[float, ...]


class _Batches:
    """Groups prepared windows of equal shape and runs the encoder on full batches."""

    def __init__(self, encoder: Encoder, batch_size: int) -> None:
        self._encoder = encoder
        self._size = batch_size
        self.incomplete = 0

    def run(
        self, waveforms: Iterator[Waveform], *, rates: Mapping[str, float]
    ) -> Iterator[tuple[list[_Windows], list[str]]]:
        """Yield embedded windows and the reasons of refusals, as they come."""
        waiting: dict[tuple[tuple[str, ...], tuple[int, ...]], list[_Windows]] = defaultdict(list)
        for waveform in waveforms:
            rate_hz, signal = rates[waveform.record_id], waveform.signal_mv
            try:
                values = self._encoder.prepare(signal, rate_hz=rate_hz, leads=waveform.leads)
            except UnfitRecordError as error:
                yield [], [error.reason]
                continue
            present = sum(not np.isnan(lead).all() for lead in signal)
            self.incomplete += present < len(self._encoder.spec.leads)
            starts = self._encoder.window_starts(signal.shape[1], rate_hz=rate_hz)
            same = (self._encoder.window_leads(waveform.leads, signal=signal), values.shape)
            waiting[same].append(_Windows(waveform.record_id, values, starts))
            if len(waiting[same]) == self._size:
                yield self._embed(same[0], waiting.pop(same))
        for (leads, _), records in waiting.items():
            yield self._embed(leads, records)

    def _embed(
        self, leads: tuple[str, ...], records: list[_Windows]
    ) -> tuple[list[_Windows], list[str]]:
        stacked = np.concatenate([record.values for record in records])
        vectors = np.concatenate(
            [
                self._encoder.embed(stacked[i : i + self._size], leads=leads)
                for i in range(0, len(stacked), self._size)
            ]
        ).reshape(len(records), -1, self._encoder.dim)
        finite = np.isfinite(vectors).all(axis=(1, 2))
        good = [replace(record, values=vectors[i]) for i, record in enumerate(records) if finite[i]]
        return good, ["vector not finite"] * int((~finite).sum())


class _Writer:
    """Holds finished vectors and commits them by size and by time."""

    def __init__(
        self,
        warehouse: Warehouse,
        key: Mapping[str, str],
        *,
        keep_windows: bool,
        overwrite: bool,
        commit_s: float,
    ) -> None:
        self._warehouse = warehouse
        self._key = key
        self._keep_windows = keep_windows
        self._write = warehouse.replace if overwrite else warehouse.append
        self._commit_s = commit_s
        self._held: list[_Windows] = []
        self._last = time.monotonic()
        self.written = 0
        self.erased = 0

    def add(self, vectors: list[_Windows]) -> None:
        self._held += vectors
        late = time.monotonic() - self._last > self._commit_s
        if late or len(self._held) >= _ROWS_HELD:
            self.commit()

    def commit(self) -> None:
        """Write what is held: windows first, then the vectors that say a record is done.

        What belongs to a record that was erased meanwhile is dropped; the lock keeps it from
        being erased between the look and the commit.
        """
        if self._held:
            with self._warehouse.shared():
                there = set(self._warehouse.table("records").read(["record_id"])[0].to_pylist())
                erased = [one for one in self._held if one.record_id not in there]
                self._held = [one for one in self._held if one.record_id in there]
                self.erased += len(erased)
                if self._held and self._keep_windows:
                    self._write("windows", self._window_rows(), command=_COMMAND)
                if self._held:
                    self._write("embeddings", self._rows(), command=_COMMAND)
            self.written += len(self._held)
        self._held = []
        self._last = time.monotonic()

    def _rows(self) -> pa.Table:
        n = len(self._held)
        mean = np.stack([v.values.mean(axis=0, dtype=np.float64) for v in self._held])
        columns = {
            "record_id": [v.record_id for v in self._held],
            **{name: [value] * n for name, value in self._key.items()},
            "dim": [mean.shape[1]] * n,
            "n_windows": [len(v.values) for v in self._held],
            "embedding": _lists(mean.astype(np.float32)),
        }
        return pa.table(columns, schema=table_schema("embeddings").arrow)

    def _window_rows(self) -> pa.Table:
        flat = [(v, k) for v in self._held for k in range(len(v.values))]
        columns = {
            "record_id": [v.record_id for v, _ in flat],
            **{name: [value] * len(flat) for name, value in self._key.items()},
            "window": [k for _, k in flat],
            "start_s": [v.starts_s[k] for v, k in flat],
            "embedding": _lists(np.concatenate([v.values for v in self._held])),
        }
        return pa.table(columns, schema=table_schema("windows").arrow)


def _lists(matrix: NDArray[np.float32]) -> pa.ListArray:
    """Return the rows of a matrix as one Arrow list each, without a loop over elements."""
    kind = table_schema("embeddings").arrow.field("embedding").type
    offsets = pa.array(np.arange(len(matrix) + 1, dtype=np.int32) * matrix.shape[1])
    return pa.ListArray.from_arrays(offsets, pa.array(matrix.reshape(-1)), type=kind)
