"""From records to a weights file: train, write, and keep what was done in tables.

What pretraining, finetuning and distilling have in common.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from ecgstore import settings as program
from ecgstore import trainings
from ecgstore.catalog import Catalog
from ecgstore.errors import NotEnoughDataError, UsageError
from ecgstore.feed import Feed
from ecgstore.leakage import datasets_of
from ecgstore.models import models
from ecgstore.models.device import find_device, find_precision
from ecgstore.models.weights import safetensors_bytes
from ecgstore.pretraining import curve
from ecgstore.pretraining.loader import Loader
from ecgstore.pretraining.loop import History, train
from ecgstore.pretraining.pieces import Order, find_pieces
from ecgstore.pretraining.ranks import joined
from ecgstore.pretraining.state import RunFolder
from ecgstore.progress import Progress, Silent
from ecgstore.warehouse import Warehouse
from ecgstore.waveforms import scan

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from ecgstore.pretraining.method import Method
    from ecgstore.pretraining.pieces import Pieces
    from ecgstore.pretraining.ranks import Ranks
    from ecgstore.pretraining.recipe import Recipe

__all__ = ["Course", "PretrainResult", "as_begun", "teach"]

_WEIGHTS = "model.safetensors"

_CHECKPOINTS = 20
"""Checkpoints of a run, unless told otherwise."""

_OBSERVED = 8
"""Updates whose batches are looked at for statistics before the first."""

_SMOOTH = 10
"""Updates over which the first and the last loss are averaged."""


@dataclass(frozen=True)
class PretrainResult:
    """What a `pretrain` call did.

    Attributes:
        run_id: Digest of all that determines the weights.
        method: Name of the method.
        model: The model that takes the weights.
        size: Its size, or the file it started from.
        records: Records trained on.
        pieces: Pieces of them.
        left_out: Records or pieces left out, by reason.
        steps: Updates of the whole run.
        done: Updates done now; 0 in a dry run.
        first: Mean loss of the first ten updates.
        loss: Mean loss of the last ten.
        out: Folder of the run.
        weights: The file to give to ``embed --weights``.
        weights_sha256: Its digest.
        seconds: Time taken.
        told: Whether this process is the one that tells people.
    """

    run_id: str
    method: str
    model: str
    size: str
    records: int
    pieces: int
    left_out: Mapping[str, int] = field(default_factory=dict)
    steps: int = 0
    done: int = 0
    first: float | None = None
    loss: float | None = None
    out: Path = Path()
    weights: Path | None = None
    weights_sha256: str | None = None
    seconds: float = 0.0
    told: bool = True

    @property
    def rows(self) -> list[dict[str, object]]:
        """The result as one row; none in a process that is not the first of several."""
        row: dict[str, object] = dict(vars(self))
        del row["told"]
        row |= {
            "out": str(self.out),
            "weights": None if self.weights is None else str(self.weights),
            "seconds": round(self.seconds, 3),
        }
        return [row] if self.told else []

    def __repr__(self) -> str:
        return (
            f"PretrainResult({self.run_id}: {self.method} {self.size}, {self.done} of "
            f"{self.steps} steps, loss {self.loss})"
        )

    def _repr_html_(self) -> str:
        return (
            f"<b>{self.method}</b> {self.size}: {self.done} of {self.steps} steps on "
            f"{self.records} records, loss {self.loss} (run {self.run_id})"
        )


class Watch(Protocol):
    """Looks at validation records; see `ecgstore.finetuning.watch.Watch`."""

    @property
    def judged(self) -> Sequence[trainings.Look]:
        """The looks of this process."""

    def __call__(self, step: int) -> bool:
        """Tell whether to stop after so many updates."""


@dataclass(frozen=True, eq=False)
class Course:
    """What is to be trained and how; shared by pretraining, finetuning and distilling.

    Attributes:
        kind: ``pretrain``, ``finetune`` or ``distil``.
        method: What is trained, with its starting weights.
        recipe: Optimiser, learning rate and batch.
        size: Size of the encoder, in words.
        steps: Updates, or None for the epochs of the recipe.
        accumulate: Parts of a batch.
        seed: Of all that is random.
        precision: ``fp32``, ``bf16`` or ``auto``.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        every: Updates between checkpoints, or None.
        started_from: SHA-256 of the file the weights come from, or None.
        before: What those weights had seen, as `ecgstore.trainings.lineage` tells.
        options: What else determines the weights.
        validation: Records that are not trained on, by which the best update is chosen.
        watch: Called after every update, to end the run when validation says so.
    """

    kind: str
    method: Method
    recipe: Recipe
    size: str
    steps: int | None = None
    accumulate: int = 1
    seed: int = 0
    precision: str = "auto"
    device: str = "auto"
    every: int | None = None
    started_from: str | None = None
    before: Mapping[str, Sequence[str]] = field(default_factory=dict)
    options: Mapping[str, object] = field(default_factory=dict)
    validation: Sequence[str] = ()
    watch: Watch | None = None


def teach(
    warehouse: Warehouse,
    past: Warehouse,
    course: Course,
    *,
    rates: Mapping[str, float | None],
    facts: Mapping[str, NDArray[np.float32]],
    out: Path,
    resume: bool = False,
    dry_run: bool = False,
    progress: Progress,
) -> PretrainResult:
    """Train what a course says on records, write its weights, and keep what was done in tables.

    Args:
        warehouse: Where it is kept.
        past: The warehouse at fixed versions, where records are read.
        course: What is trained.
        rates: Records to train on, and their samples per second.
        facts: What the loss looks at besides, for each.
        out: Folder of the run.
        resume: Go on with the run in that folder.
        dry_run: Count and write nothing.
        progress: Told of every step.
    """
    began = time.perf_counter()
    method, recipe = course.method, course.recipe
    ranks, device = joined(find_device(course.device))
    quiet = progress if ranks.first else Silent()
    precision = find_precision(course.precision, device)
    if recipe.batch_size % (course.accumulate * ranks.size):
        msg = (
            f"A batch of {recipe.batch_size} cannot be divided into {course.accumulate} parts for "
            f"{ranks.size} processes."
        )
        raise UsageError(msg, hint="Give a --batch-size that is a multiple of both.")
    if not 0 < recipe.learning_rate < math.inf:
        msg = f"The learning rate is {recipe.learning_rate:g}; expected a number above 0."
        raise UsageError(msg)
    spec = models.get(method.model).spec
    if dry_run:
        waveforms = scan(past.table("waveforms").files(), rates.keys())
        pieces = find_pieces(waveforms, rates, spec.leads, method, progress=quiet)
    else:
        feed = _feed(past, ranks, quiet)
        pieces = find_pieces(feed.scan(rates.keys()), rates, spec.leads, method, progress=quiet)
    _check(pieces, spec.name)
    pieces = pieces.that_fill(recipe.batch_size)
    order = Order(pieces, recipe.batch_size, course.seed)
    steps = course.steps or recipe.epochs * order.batches
    options = _options(course, steps, precision, pieces)
    run_id = hashlib.sha256(json.dumps(options, sort_keys=True).encode()).hexdigest()[:12]
    result = PretrainResult(
        run_id=run_id,
        method=method.name,
        model=spec.name,
        size=course.size,
        records=len(pieces.record_ids),
        pieces=len(pieces),
        left_out=pieces.left_out,
        steps=steps,
        out=out,
        told=ranks.first,
    )
    if dry_run:
        return result
    folder = RunFolder(out)
    if ranks.first:
        folder.begin(options, resume=resume, versions=past.versions())
    ranks.wait()
    training = _training(course, past, pieces, options, result)
    if ranks.first:
        parts = dict.fromkeys(pieces.record_ids, "train")
        parts |= dict.fromkeys(course.validation, "validation")
        trainings.begin(warehouse, training, parts)
    loader = Loader(
        feed,
        pieces,
        method,
        spec.leads,
        facts=np.stack([facts[one] for one in pieces.record_ids]).astype(np.float32),
        batch_size=recipe.batch_size,
        accumulate=course.accumulate,
        seed=course.seed,
        ranks=ranks,
        device=device,
    )
    method.to(device)
    before = folder.last()
    if before is None:
        method.observe(loader.first(_OBSERVED))

    def keep(history: History) -> None:
        trainings.keep_losses(warehouse, run_id, history.names, history.values, history.rates)
        if course.watch is not None:
            trainings.keep_looks(warehouse, run_id, course.watch.judged)

    history = train(
        method,
        loader,
        recipe,
        steps=steps,
        seed=course.seed,
        folder=folder,
        ranks=ranks,
        device=device,
        precision=precision,
        every=course.every or max(1, steps // _CHECKPOINTS),
        progress=quiet,
        kept=keep,
        each_step=course.watch,
    )
    done = len(history) - (0 if before is None else before.step)
    weights, seconds = out / _WEIGHTS, time.perf_counter() - began
    if ranks.first:
        keep(history)
        if done or not weights.exists():
            folder.write(_WEIGHTS, _weights(course, training))
        what = method.name if course.kind == "pretrain" else f"{course.kind} {method.model}"
        title = f"{what} {course.size}, run {run_id}, seed {course.seed}, {steps} steps"
        folder.write("loss.png", curve.png(history, title=title))
        trainings.finish(warehouse, training, weights_sha256=_digest(weights), seconds=seconds)
    ranks.wait()
    losses = history.losses()
    return replace(
        result,
        done=done,
        first=float(np.mean(losses[:_SMOOTH])),
        loss=float(np.mean(losses[-_SMOOTH:])),
        weights=weights,
        weights_sha256=_digest(weights),
        seconds=seconds,
    )


def _training(
    course: Course,
    past: Warehouse,
    pieces: Pieces,
    options: Mapping[str, object],
    result: PretrainResult,
) -> trainings.Training:
    """Return the run as a row."""
    return trainings.Training(
        run_id=result.run_id,
        kind=course.kind,
        method=result.method,
        model=result.model,
        size=result.size,
        params=json.dumps(options, sort_keys=True),
        started_from=course.started_from,
        datasets=_datasets(past, pieces.record_ids),
        records=result.records,
        pieces=result.pieces,
        steps=result.steps,
        seed=course.seed,
        versions=json.dumps(past.versions(), sort_keys=True),
        code=program.code_version(),
    )


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def as_begun(warehouse: Warehouse, out: Path, *, resume: bool) -> Warehouse:
    """Return the warehouse as a run that is resumed began on it, or as it is now."""
    versions = RunFolder(out).versions() if resume else None
    return Warehouse(warehouse.root, at=versions or warehouse.versions())


def _feed(past: Warehouse, ranks: Ranks, progress: Progress) -> Feed:
    """Open the feed; of several processes the first makes it."""
    if not ranks.first:
        ranks.wait()
    feed = Feed.open(past, progress=progress)
    if ranks.first:
        ranks.wait()
    return feed


def _check(pieces: Pieces, model: str) -> None:
    if not len(pieces):
        why = ", ".join(f"{count} {reason}" for reason, count in pieces.left_out.items())
        msg = f"None of the records can train {model!r} ({why})."
        hint = "Choose others with --where."
        raise NotEnoughDataError(msg, task="training", counts=pieces.left_out, hint=hint)


def _options(course: Course, steps: int, precision: str, pieces: Pieces) -> dict[str, object]:
    """Return all that determines the weights, as plain values."""
    options = {
        "kind": course.kind,
        "method": course.method.name,
        "configuration": course.method.configuration.facts(),
        "settings": course.method.settings,
        "recipe": asdict(course.recipe),
        "steps": steps,
        "accumulate": course.accumulate,
        "seed": course.seed,
        "precision": precision,
        "started_from": course.started_from,
        "records": len(pieces.record_ids),
        "pieces": pieces.digest,
        **course.options,
    }
    plain: dict[str, object] = json.loads(json.dumps(options))
    return plain


def _datasets(past: Warehouse, record_ids: Sequence[str]) -> tuple[str, ...]:
    with Catalog(past.relations()) as catalog:
        return tuple(datasets_of(catalog, record_ids))


def _weights(course: Course, training: trainings.Training) -> bytes:
    """Return the file of the weights, which tells what they were made of."""
    method = course.method
    tensors = method.published({k: v.detach().cpu() for k, v in method.state_dict().items()})
    return safetensors_bytes(
        {name: one.float().contiguous().clone() for name, one in tensors.items()},
        settings=method.configuration.settings(),
        source=course.started_from,
        trained=trainings.note(training, course.before),
    )
