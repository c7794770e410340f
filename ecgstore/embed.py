"""From records to vectors: what is missing, through the engine, into the tables.

Waveforms are read in shard order, one row group at a time, so memory does not grow with the
number of records. What is finished is committed every few minutes, so an interrupted run goes on
where it was.
"""

from __future__ import annotations

import time
import zlib
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import pyarrow as pa

from ecgstore import engine
from ecgstore.catalog import Catalog
from ecgstore.errors import DamagedError, UsageError
from ecgstore.first_use import introduce
from ecgstore.progress import Progress, Silent
from ecgstore.record import LEADS
from ecgstore.vector_sink import VectorSink
from ecgstore.waveforms import Waveform, scan

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from ecgstore.models import Encoder
    from ecgstore.warehouse import Warehouse

__all__ = [
    "EmbedResult",
    "Plan",
    "embed",
    "embed_all",
    "plan",
    "read_shard",
    "waveforms_of",
    "windows_at_once",
]

_COMMAND = "embed"
_NO_LEADS = "no standard lead"


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


@dataclass(frozen=True, eq=False)
class Plan:
    """What is left to do for one model.

    Attributes:
        encoder: The model.
        todo: Samples per second of each record to embed, by id.
        existing: Records that have their vector.
        without: Records without any standard lead.
    """

    encoder: Encoder
    todo: Mapping[str, float]
    existing: int
    without: int

    @property
    def key(self) -> dict[str, str]:
        """What keys the vectors besides the record."""
        encoder = self.encoder
        return {
            "model": encoder.spec.name,
            "version": encoder.version,
            "pooling": encoder.pooling,
        }

    @property
    def keeps_probabilities(self) -> bool:
        """Whether the head's probabilities are stored; read-outs for study leave them out."""
        chosen = (self.encoder.readouts[0], "logits")
        return bool(self.encoder.labels) and self.encoder.readout in chosen


def embed(
    warehouse: Warehouse,
    encoder: Encoder,
    *,
    where: str | None = None,
    shard: str | None = None,
    batch_size: int | None = None,
    keep_windows: bool = False,
    overwrite: bool = False,
    dry_run: bool = False,
    progress: Progress | None = None,
    commit_s: float = 120.0,
) -> EmbedResult:
    """Embed the records that do not have this model's vector yet; see `embed_all`."""
    return embed_all(
        warehouse,
        [[encoder]],
        where=where,
        shard=shard,
        batch_size=batch_size,
        keep_windows=keep_windows,
        overwrite=overwrite,
        dry_run=dry_run,
        progress=progress,
        commit_s=commit_s,
    )[0]


def embed_all(
    warehouse: Warehouse,
    devices: Sequence[Sequence[Encoder]],
    *,
    where: str | None = None,
    shard: str | None = None,
    batch_size: int | None = None,
    keep_windows: bool = False,
    overwrite: bool = False,
    dry_run: bool = False,
    progress: Progress | None = None,
    commit_s: float = 120.0,
) -> list[EmbedResult]:
    """Embed with several models in one pass: each waveform is decoded once.

    Args:
        warehouse: Where records are read and vectors written.
        devices: For each device the loaded encoders, the same in the same order. Their names,
            versions and poolings key the rows.
        where: SQL predicate over ``records``, such as ``"age >= 65 and dataset = 'ptbxl'"``.
        shard: ``i/n``: take the i-th of n parts of the records only, as array jobs do. Which part
            a record is in follows from its id alone; all parts commit to the same tables.
        batch_size: Windows per forward pass; default 8 on a CPU, 256 on a GPU.
        keep_windows: Also store the vector of each window in ``windows``.
        overwrite: Embed again what is there, replacing it.
        dry_run: Count and write nothing.
        progress: Told of every record, once a model.
        commit_s: Commit what is done at least this often, seconds.

    Returns:
        One result a model.

    Raises:
        DeviceError: A device was lost or lacks memory; what was done is committed.
        QueryError: ``where`` is not a predicate over ``records``.
        UsageError: ``shard`` makes no sense, or a model is given twice.
    """
    began = time.perf_counter()
    progress = progress or Silent()
    plans = [
        plan(
            warehouse,
            encoder,
            where=where,
            shard=shard,
            overwrite=overwrite,
            keep_windows=keep_windows,
        )
        for encoder in devices[0]
    ]
    if len({tuple(one.key.values()) for one in plans}) < len(plans):
        msg = "A model is given twice with the same weights, variant and read-out."
        raise UsageError(msg)
    skipped = [Counter({_NO_LEADS: one.without} if one.without else {}) for one in plans]
    if dry_run or not any(one.todo for one in plans):
        return [_result(one, count) for one, count in zip(plans, skipped, strict=True)]
    for one in filter(lambda one: one.todo, plans):
        introduce(warehouse, one.encoder, command=_COMMAND, progress=progress)
    sinks = [
        VectorSink(
            warehouse,
            one.key,
            labels=one.encoder.labels if one.keeps_probabilities else (),
            keep_windows=keep_windows,
            overwrite=overwrite,
            commit_s=commit_s,
        )
        for one in plans
    ]
    incomplete = [0] * len(plans)
    progress.start(sum(len(one.todo) for one in plans), "records" if len(plans) == 1 else "vectors")
    rates: dict[str, float] = {}
    for one in plans:
        rates.update(one.todo)
    try:
        for item in engine.run(
            waveforms_of(warehouse, rates),
            devices,
            [one.todo for one in plans],
            rates=rates,
            batch_size=batch_size or windows_at_once(devices),
        ):
            if isinstance(item, engine.Vectors):
                incomplete[item.task] += len(item.record_ids) if item.incomplete else 0
                bad = sinks[item.task].add(item)
                progress.advance(len(item.record_ids), rejected=bad)
            else:
                skipped[item.task][item.reason] += 1
                progress.advance(1, rejected=1)
    finally:
        for sink in sinks:
            sink.commit()
    seconds = time.perf_counter() - began
    return [
        replace(
            _result(one, count + sink.skipped),
            embedded=sink.written,
            incomplete=part,
            seconds=seconds,
        )
        for one, count, sink, part in zip(plans, skipped, sinks, incomplete, strict=True)
    ]


def _result(one: Plan, skipped: Counter[str]) -> EmbedResult:
    key = one.key
    return EmbedResult(
        model=key["model"],
        version=key["version"],
        pooling=key["pooling"],
        dim=one.encoder.dim,
        embedded=len(one.todo),
        existing=one.existing,
        skipped=dict(skipped),
    )


def plan(
    warehouse: Warehouse,
    encoder: Encoder,
    *,
    where: str | None = None,
    shard: str | None = None,
    overwrite: bool = False,
    keep_windows: bool = False,
) -> Plan:
    """Return what `embed_all` would do for one model; see there."""
    part = None if shard is None else read_shard(shard)
    empty = Plan(encoder, {}, 0, 0)
    beside = [*(["windows"] if keep_windows else [])]
    mine = "model = $model and version = $version"
    done_if = " and ".join(
        [
            *(
                f"record_id in (select record_id from {table} where {mine} and pooling = $pooling)"
                for table in ("embeddings", *beside)
            ),
            *(
                [f"record_id in (select record_id from head_outputs where {mine})"]
                if empty.keeps_probabilities
                else []
            ),
        ]
    )
    with Catalog(warehouse.relations()) as catalog:
        wanted = catalog.table(
            f"select record_id, rate_hz, {done_if} as done,\n"
            "leads is null or list_has_any(leads, $standard) as standard\n"
            f"from records where ({where or 'true'}\n)",
            {**empty.key, "standard": list(LEADS)},
        )
    if part is not None:
        number, count = part
        ids = wanted.column("record_id").to_pylist()
        wanted = wanted.filter(
            pa.array([zlib.crc32(one.encode()) % count == number - 1 for one in ids], pa.bool_())
        )
    without = int((~wanted.column("standard").to_numpy()).sum())
    wanted = wanted.filter(wanted.column("standard"))
    done = wanted.column("done").to_numpy()
    todo = wanted if overwrite else wanted.filter(pa.array(~done))
    rates = dict(
        zip(todo.column("record_id").to_pylist(), todo.column("rate_hz").to_pylist(), strict=True)
    )
    return Plan(encoder, rates, 0 if overwrite else int(done.sum()), without)


def windows_at_once(devices: Sequence[Sequence[Encoder]]) -> int:
    """Return the default batch size: 256 on a GPU, 8 on a CPU."""
    return 256 if devices[0][0].device.type == "cuda" else 8


def read_shard(text: str) -> tuple[int, int]:
    """Return number and count of a part such as ``2/8``.

    Raises:
        UsageError: It is none.
    """
    number, _, count = text.partition("/")
    if number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count):
        return int(number), int(count)
    msg = f"{text!r} is no part of the records; expected i/n with i from 1 to n, such as 2/8."
    raise UsageError(msg)


def waveforms_of(warehouse: Warehouse, wanted: Collection[str]) -> Iterator[Waveform]:
    """Yield the waveforms of records in the order of the shards, whatever happens to those.

    When shards were erased or merged meanwhile, it begins anew with the rest.

    Raises:
        DamagedError: A shard is missing or damaged.
    """
    rest = set(wanted)
    while True:
        table = warehouse.table("waveforms")
        try:
            for waveform in scan(table.files(), rest, ahead=True):
                rest.discard(waveform.record_id)
                yield waveform
        except DamagedError:
            if not table.behind:
                raise
        else:
            return
