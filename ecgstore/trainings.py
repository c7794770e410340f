"""Trainings as rows: what was trained on which records, how its loss fell, what came of it.

Every call may be made again, by a run that goes on where it was interrupted, and changes nothing
then. What a weights file must tell of its training, wherever it is taken, is made here too.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Protocol

import pyarrow as pa
import pyarrow.compute as pc

from ecgstore.schema import table_schema

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ecgstore.models.spec import ModelSpec
    from ecgstore.models.weights import Checkpoint
    from ecgstore.warehouse import Warehouse

__all__ = ["Training", "begin", "finish", "keep_looks", "keep_losses", "lineage", "note"]

_UNTOLD = "what its first weights were trained on"
"""A dataset of which nothing is known, in place of what nobody has published."""


class Look(Protocol):
    """What validation records said after some steps; AUROC is NaN where there is none."""

    @property
    def step(self) -> int: ...
    @property
    def loss(self) -> float: ...
    @property
    def auroc(self) -> float: ...


@dataclass(frozen=True, kw_only=True)
class Training:
    """A run that trains an encoder: a row of ``trainings`` as it is when the run begins.

    Attributes:
        run_id: Digest of all that determines the weights.
        kind: ``pretrain``, ``finetune`` or ``distil``.
        method: Name of the method.
        model: The model that takes the weights.
        size: Size of the encoder.
        params: Every option, the recipe included, as JSON.
        started_from: SHA-256 of the weights it started from, or None.
        datasets: Datasets of the records, as `ecgstore.leakage.datasets_of` gives them.
        records: Records that are learned from or validated on.
        pieces: Pieces they were cut into.
        steps: Updates of the whole run.
        seed: Of all that is random.
        versions: Version of every table that is read, as JSON.
        code: Version of the program.
    """

    run_id: str
    kind: str
    method: str
    model: str
    size: str
    params: str
    started_from: str | None
    datasets: tuple[str, ...]
    records: int
    pieces: int
    steps: int
    seed: int
    versions: str
    code: str


def begin(warehouse: Warehouse, training: Training, parts: Mapping[str, str]) -> None:
    """Write down that a run begins, its records first.

    Args:
        warehouse: Where the records are.
        training: The run.
        parts: Of each record, ``train`` or ``validation``.
    """
    command = f"{training.kind} {training.run_id}"
    columns = {
        "run_id": pa.array([training.run_id] * len(parts)),
        "record_id": pa.array(list(parts), pa.string()),
        "part": pa.array(list(parts.values()), pa.string()),
    }
    records = pa.table(columns, schema=table_schema("trained_records").arrow)
    warehouse.append("trained_records", records, command=command)
    row = _row(training, at=datetime.now(UTC), state="running")
    warehouse.append("trainings", row, command=command)


def keep_losses(
    warehouse: Warehouse,
    run_id: str,
    names: Sequence[str],
    values: Sequence[Sequence[float]],
    rates: Sequence[float],
) -> None:
    """Write the losses of the steps that are not there yet.

    Args:
        warehouse: Where the run is written down.
        run_id: The run.
        names: The terms.
        values: One row a step from the first on, the terms in the order of `names`.
        rates: Learning rate of each step.
    """
    done = 0
    if warehouse.files("losses"):
        where = (pc.field("run_id") == run_id) & pc.field("name").isin(list(names))
        mine = warehouse.table("losses").read(["step"], where)
        done = pc.max(mine["step"]).as_py() or 0
    rows = [
        {"run_id": run_id, "step": step, "name": name, "value": value, "learning_rate": rate}
        for step, (told, rate) in enumerate(zip(values, rates, strict=True), start=1)
        if step > done
        for name, value in zip(names, told, strict=True)
    ]
    if rows:
        table = pa.Table.from_pylist(rows, schema=table_schema("losses").arrow)
        warehouse.append("losses", table, command=f"losses {run_id}")


def keep_looks(warehouse: Warehouse, run_id: str, looks: Sequence[Look]) -> None:
    """Write what validation records said, those of the steps that are not there yet.

    Args:
        warehouse: Where the run is written down.
        run_id: The run.
        looks: What they said, each after so many steps.
    """
    rows = [
        {"run_id": run_id, "step": look.step, "name": f"validation_{name}", "value": value}
        for look in looks
        for name, value in (("loss", look.loss), ("auroc", look.auroc))
        if math.isfinite(value)
    ]
    if rows:
        table = pa.Table.from_pylist(rows, schema=table_schema("losses").arrow)
        warehouse.append("losses", table, command=f"losses {run_id}")


def finish(
    warehouse: Warehouse, training: Training, *, weights_sha256: str, seconds: float
) -> None:
    """Write down that a run is done; what is told of one that was done already stays.

    Args:
        warehouse: Where it was begun.
        training: The run.
        weights_sha256: Digest of the file it made.
        seconds: Time taken.
    """
    stored = warehouse.table("trainings").read(where=pc.field("run_id") == training.run_id)
    (began,) = stored.to_pylist() or [{"at": datetime.now(UTC), "weights_sha256": None}]
    if began["weights_sha256"] == weights_sha256:
        return
    row = _row(
        training,
        at=began["at"],
        state="done",
        weights_sha256=weights_sha256,
        seconds=seconds,
    )
    warehouse.replace("trainings", row, command=f"{training.kind} {training.run_id}")


def lineage(
    spec: ModelSpec, checkpoint: Checkpoint | None, *, also: Sequence[str] = ()
) -> dict[str, list[str]]:
    """Return what weights had seen before a training starts from them.

    Args:
        spec: The facts about their model.
        checkpoint: The file; None for random weights.
        also: Datasets that such published weights have seen besides those of the spec.

    Returns:
        ``runs``: earlier trainings by ecgstore; ``datasets``: those of their records; ``before``:
        corpora of the weights that the first of them started from; ``licences``: the terms of
        those.
    """
    told: dict[str, list[str]] = {"runs": [], "datasets": [], "before": [], "licences": []}
    if checkpoint is None:
        return told
    if not checkpoint.trained:
        before = list(dict.fromkeys([*spec.pretraining, *also])) or [_UNTOLD]
        return told | {"before": before, "licences": [spec.licence]}
    for key in told:
        found = checkpoint.trained.get(key)
        told[key] = [str(one) for one in found] if isinstance(found, list) else []
    return told


def note(
    training: Training, before: Mapping[str, Sequence[str]] | None = None
) -> dict[str, object]:
    """Return what the weights file tells of its training.

    Args:
        training: The run that made it.
        before: The `lineage` of the weights it started from.
    """
    earlier = before or {}
    return {
        "run": training.run_id,
        "kind": training.kind,
        "method": training.method,
        "records": training.records,
        "steps": training.steps,
        "seed": training.seed,
        "code": training.code,
        "runs": [*earlier.get("runs", ()), training.run_id],
        "datasets": list(dict.fromkeys([*earlier.get("datasets", ()), *training.datasets])),
        "before": list(earlier.get("before", ())),
        "licences": list(earlier.get("licences", ())),
    }


def _row(training: Training, **more: object) -> pa.Table:
    row = {**vars(training), "datasets": list(training.datasets), **more}
    return pa.Table.from_pylist([row], schema=table_schema("trainings").arrow)
