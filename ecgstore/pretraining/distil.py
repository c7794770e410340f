"""Teaching a small encoder what a large one says of the records of a warehouse."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ecgstore import trainings
from ecgstore.catalog import Catalog
from ecgstore.errors import NotEnoughDataError, UsageError
from ecgstore.features import CONCATENATION, feature_set, matrix
from ecgstore.models import get_spec
from ecgstore.pretraining.course import Course, PretrainResult, as_begun, teach
from ecgstore.pretraining.method import methods
from ecgstore.pretraining.student import Student, Teacher
from ecgstore.pretraining.training import find_records, read_start
from ecgstore.progress import Progress, Silent
from ecgstore.splitting.reshuffles import reshuffles

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from ecgstore.features import Member
    from ecgstore.pretraining.method import Method
    from ecgstore.warehouse import Warehouse

__all__ = ["distil"]

_RUNS = """
    with recursive chain(sha256) as (
        select weights_sha256
        from models
        where model = $model and version = $version
        union
        select started_from
        from trainings
        join chain on weights_sha256 = sha256
    )
    select run_id, datasets
    from trainings
    where weights_sha256 in (select sha256 from chain)
    order by run_id
"""
"""The trainings in this warehouse that weights come from."""

_SOURCE = """
    select any_value(source) as source, any_value(licence) as licence
    from models
    where model = $model and version = $version
"""

_SEEN = """
    select dataset
    from pretraining
    where model = $name
    order by dataset
"""

_UNTOLD = "what its teacher was trained on"
"""A dataset of which nothing is known, in place of what nobody has published."""


def distil(
    warehouse: Warehouse,
    student: str,
    *,
    teacher: str,
    size: str | None = None,
    weights: Path | None = None,
    where: str | None = None,
    split: str | None = None,
    repeat: int | None = None,
    steps: int | None = None,
    out: Path | None = None,
    resume: bool = False,
    batch_size: int | None = None,
    accumulate: int = 1,
    learning_rate: float | None = None,
    seed: int = 0,
    precision: str = "auto",
    device: str = "auto",
    checkpoint_every: int | None = None,
    dry_run: bool = False,
    progress: Progress | None = None,
) -> PretrainResult:
    """Train a small encoder to predict the stored vectors of a large one; no labels are used.

    What is learned, and from which loss, is told by `Student`. Ten seconds are learned from at a
    time: a longer record is cut into pieces that all have its vector, a shorter one, or one that
    lacks a lead, is left out.

    Args:
        warehouse: Where records and vectors are read and what was done is kept.
        student: Method of pretraining whose encoder learns, with ``:variant`` where it is not to
            be fed the first way.
        teacher: Feature set with the vectors, as for ``evaluate``; of several models the vectors
            side by side.
        size: Size of the student, ``mini`` by default; with `weights` the file tells it.
        weights: File the student starts from instead of from random weights.
        where: SQL predicate over ``records``.
        split: Learn from the training records of a split only, so that the student has not seen
            those that it is tested on.
        repeat: Which reshuffle of that split; needed where it has several.
        steps: Updates; default those of 20 epochs.
        out: Folder of the run; default ``pretrained/distil-STUDENT``.
        resume: Go on with the run in that folder.
        batch_size: Records an update, 64 by default.
        accumulate: Parts of a batch that are computed one after another.
        learning_rate: The highest, 0.001 by default.
        seed: Of starting weights and order.
        precision: ``fp32``, ``bf16``, or ``auto``.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        checkpoint_every: Updates between checkpoints; default a twentieth of all.
        dry_run: Count and write nothing.
        progress: Told of every step.

    Raises:
        UnknownNameError: There is no such student, size, variant, feature set, split or repeat.
        UsageError: An option makes no sense, or the folder holds another run.
        NotEnoughDataError: No record, or too few, can be learned from.
        WeightsError: The file does not fit.
        NotFiniteError: The loss became NaN.
        WarehouseError: A checkpoint could not be written.
    """
    progress = progress or Silent()
    name, _, variant = student.partition(":")
    kind = methods.get(name)
    spec = get_spec(kind.model)
    spec.variant(variant or None)
    if size is not None and weights is not None:
        msg = "A size was given and a file, which has one of its own."
        raise UsageError(msg, hint="Leave out --size.")
    checkpoint = None if weights is None else read_start(kind, weights)
    method: Method = kind.of(size or "mini", {}, checkpoint)
    out = out or Path("pretrained") / f"distil-{name}"
    past = as_begun(warehouse, out, resume=resume)
    rates, _ = find_records(past, where, ())
    with Catalog(past.relations()) as catalog:
        members = _members(catalog, teacher)
        if split is not None:
            chosen = _training_records(catalog, split, repeat)
            rates = {one: rate for one, rate in rates.items() if one in chosen}
        elif repeat is not None:
            msg = "A repeat was given without the split it is of."
            raise UsageError(msg, hint="Name it with --split.")
        found, blocks = matrix(catalog, members, list(rates))
        before = _seen(catalog, members)
    if len(found) < len(rates):
        progress.note(f"{len(rates) - len(found)} records have no vector of {teacher!r}.")
    if not len(found):
        msg = f"None of the records chosen has a vector of {teacher!r}."
        raise NotEnoughDataError(msg, task="distil", hint="Embed them first, or choose others.")
    vectors = np.concatenate(blocks, axis=1)
    taught = Student(method, spec, Teacher.of(vectors), variant=variant or None)
    taught.start(seed)
    if checkpoint is not None:
        taught.take(checkpoint)
    method.observe(())  # where it cannot do without a file, it says so
    recipe = taught.recipe.told(batch_size=batch_size, learning_rate=learning_rate)
    course = Course(
        kind="distil",
        method=taught,
        recipe=recipe,
        size=(size or "mini") if checkpoint is None else f"as {checkpoint.path.name}",
        steps=steps,
        accumulate=accumulate,
        seed=seed,
        precision=precision,
        device=device,
        every=checkpoint_every,
        started_from=None if checkpoint is None else checkpoint.sha256,
        before=_joined(before, trainings.lineage(spec, checkpoint)),
        options={
            "student": student,
            "teacher": [str(member) for member in members],
            "vectors": _digest(found, vectors),
            "where": where,
            "split": None if split is None else [split, repeat],
        },
    )
    ids: list[str] = found.tolist()
    return teach(
        warehouse,
        past,
        course,
        rates={one: rates[one] for one in ids},
        facts=dict(zip(ids, vectors, strict=True)),
        out=out,
        resume=resume,
        dry_run=dry_run,
        progress=progress,
    )


def _members(catalog: Catalog, teacher: str) -> tuple[Member, ...]:
    """Return whose vectors are learned."""
    features = feature_set(catalog, teacher)
    if features.method != CONCATENATION:
        msg = f"{teacher!r} is joined by {features.method!r}, anew for each reshuffle."
        raise UsageError(msg, hint="Learn from one of its members, or from one joined by concat.")
    return features.members


def _training_records(catalog: Catalog, split: str, repeat: int | None) -> frozenset[str]:
    found = {one.repeat: one for one in reshuffles(catalog, split)}
    if repeat is None and len(found) > 1:
        msg = f"The split {split!r} has {len(found)} reshuffles, each with other training records."
        raise UsageError(msg, hint="Name one with --repeat, from 0.")
    number = min(found) if repeat is None else repeat
    if number not in found:
        msg = f"The split {split!r} has no reshuffle {number}; it has 0 to {max(found)}."
        raise UsageError(msg)
    return frozenset(found[number].train)


def _seen(catalog: Catalog, members: Sequence[Member]) -> dict[str, list[str]]:
    """Return what teachers had seen, which their vectors tell of, as `trainings.lineage` does."""
    told: dict[str, list[str]] = {}
    for model, version, _ in members:
        key = {"model": model, "version": version}
        runs = catalog.table(_RUNS, key).to_pylist()
        named = [
            catalog.table(_SEEN, {"name": name})["dataset"].to_pylist()
            for name in (f"{model}@{version}", model)
        ]
        (row,) = catalog.table(_SOURCE, key).to_pylist()
        known = next(filter(None, named), [] if runs else [_UNTOLD])
        if untrained := (row["source"] or "").startswith("untrained"):
            known = []
        own = {name for run in runs for name in run["datasets"]}
        told = _joined(
            told,
            {
                "runs": [run["run_id"] for run in runs],
                "datasets": sorted(own),
                "before": [name for name in known if name not in own],
                "licences": [row["licence"]] if row["licence"] and not untrained else [],
            },
        )
    return told


def _joined(*told: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    keys = dict.fromkeys(key for one in told for key in one)
    return {key: list(dict.fromkeys(x for one in told for x in one.get(key, ()))) for key in keys}


def _digest(record_ids: NDArray[np.object_], vectors: NDArray[np.float32]) -> str:
    """Return twelve hexadecimal digits of what is learned."""
    whole = hashlib.sha256("\n".join(record_ids).encode())
    whole.update(vectors.tobytes())
    return whole.hexdigest()[:12]
