"""Pretraining: an encoder learns from the records of a warehouse without labels."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ecgstore import trainings
from ecgstore.catalog import Catalog
from ecgstore.errors import NotEnoughDataError, UsageError
from ecgstore.models import models
from ecgstore.models.weights import read_checkpoint
from ecgstore.pretraining.course import Course, PretrainResult, as_begun, teach
from ecgstore.pretraining.method import methods
from ecgstore.progress import Progress, Silent

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from ecgstore.models.weights import Checkpoint
    from ecgstore.pretraining.method import Method, Setting
    from ecgstore.warehouse import Warehouse

__all__ = ["PretrainResult", "find_records", "pretrain", "read_options", "read_start"]


def pretrain(
    warehouse: Warehouse,
    name: str,
    *,
    size: str | None = None,
    steps: int | None = None,
    out: Path | None = None,
    resume: bool = False,
    where: str | None = None,
    weights: Path | None = None,
    settings: Mapping[str, object] | None = None,
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
    """Train an encoder on the records of a warehouse without labels.

    The same options on the same records give the same weights. What was interrupted goes on from
    its last checkpoint with ``resume``; a finished run is left as it is.

    Args:
        warehouse: Where records are read and what was done is kept.
        name: Name of the method.
        size: One of its sizes, ``base`` by default; with `weights` the file tells it.
        steps: Updates; default the epochs of the published recipe.
        out: Folder of the run; default ``pretrained/NAME``.
        resume: Go on with the run in that folder.
        where: SQL predicate over ``records``.
        weights: File to start from instead of from random weights.
        settings: Settings of the method that differ from the published; text is converted.
        batch_size: Pieces of records an update; default the published.
        accumulate: Parts of a batch that are computed one after another.
        learning_rate: Highest learning rate; default the published for such a batch.
        seed: Of starting weights, order and all that is drawn.
        precision: ``fp32``, ``bf16``, or ``auto``.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        checkpoint_every: Updates between checkpoints; default a twentieth of all.
        dry_run: Count and write nothing.
        progress: Told of every step.

    Raises:
        UnknownNameError: There is no such method or size.
        UsageError: An option makes no sense, or the folder holds another run.
        NotEnoughDataError: No record, or too few, can be trained on.
        WeightsError: The file does not fit.
        NotFiniteError: The loss became NaN.
        WarehouseError: A checkpoint could not be written.
    """
    progress = progress or Silent()
    kind = methods.get(name)
    if size is not None and weights is not None:
        msg = "A size was given and a file, which has one of its own."
        raise UsageError(msg, hint="Leave out --size.")
    if weights is None and kind.needs_file is not None:
        msg = f"{name!r} starts from the weights that {kind.needs_file!r} makes, and got none."
        hint = f"Run ecgstore pretrain {kind.needs_file} first; then give its file by --weights."
        raise UsageError(msg, hint=hint)
    told = read_options(kind.defaults, settings, name=name)
    checkpoint = None if weights is None else read_start(kind, weights)
    size = size or "base"
    method = kind.of(size, told, checkpoint)
    recipe = kind.recipe_for(method.settings)
    recipe = recipe.told(batch_size=batch_size, learning_rate=learning_rate)
    method.start(seed)
    if checkpoint is not None and (missing := method.take(checkpoint)):
        progress.note(f"{checkpoint.path.name!r} lacks {len(missing)} tensors, which start anew.")
    course = Course(
        kind="pretrain",
        method=method,
        recipe=recipe,
        size=size if checkpoint is None else f"as {checkpoint.path.name}",
        steps=steps,
        accumulate=accumulate,
        seed=seed,
        precision=precision,
        device=device,
        every=checkpoint_every,
        started_from=None if checkpoint is None else checkpoint.sha256,
        before=trainings.lineage(models.get(kind.model).spec, checkpoint),
        options={"where": where},
    )
    out = out or Path("pretrained") / name
    past = as_begun(warehouse, out, resume=resume)
    rates, facts = find_records(past, where, kind.columns)
    return teach(
        warehouse,
        past,
        course,
        rates=rates,
        facts=facts,
        out=out,
        resume=resume,
        dry_run=dry_run,
        progress=progress,
    )


def read_options(
    defaults: Mapping[str, Setting], given: Mapping[str, object] | None, *, name: str
) -> dict[str, Setting]:
    """Return settings as the types of their defaults.

    Raises:
        UsageError: There is no such setting, or its value is of another type.
    """
    told: dict[str, Setting] = {}
    for key, value in (given or {}).items():
        if key not in defaults:
            known = ", ".join(defaults) or "none"
            msg = f"{name!r} has no setting {key!r}."
            raise UsageError(msg, hint=f"Its settings: {known}.")
        kind, text = type(defaults[key]), str(value)
        try:
            if kind is bool:
                told[key] = {"true": True, "false": False}[text.lower()]
            else:
                told[key] = kind(text)
        except (KeyError, ValueError) as error:
            msg = f"The setting {key!r} of {name!r} is {text!r}; expected {kind.__name__}."
            raise UsageError(msg, hint=f"Its default is {defaults[key]!r}.") from error
    return told


def find_records(
    past: Warehouse, where: str | None, columns: Sequence[str]
) -> tuple[dict[str, float | None], dict[str, NDArray[np.float32]]]:
    """Return the records that a predicate selects: their rates, and what columns say of each.

    Raises:
        NotEnoughDataError: There is none.
        QueryError: The predicate is none over ``records``.
    """
    listed = "".join(f", ({one})::double as fact{i}" for i, one in enumerate(columns))
    with Catalog(past.relations()) as catalog:
        found = catalog.table(
            f"select record_id, rate_hz{listed} from records where ({where or 'true'}\n) "
            "order by record_id"
        )
    if not found.num_rows:
        chosen = f" where {where}" if where else ""
        msg = f"There are no records{chosen} to train on."
        hint = "Choose others with --where." if where else "Ingest some first."
        raise NotEnoughDataError(msg, task="training", hint=hint)
    ids = found.column("record_id").to_pylist()
    facts = np.empty((len(ids), len(columns)), np.float32)
    for i in range(len(columns)):
        facts[:, i] = found.column(f"fact{i}").to_numpy(zero_copy_only=False).astype(np.float32)
    rates = dict(zip(ids, found.column("rate_hz").to_pylist(), strict=True))
    return rates, dict(zip(ids, facts, strict=True))


def read_start(kind: type[Method], path: Path) -> Checkpoint:
    """Read a file that a method is to start from.

    Raises:
        WeightsError: It is of another kind of model, or not safe.
    """
    checkpoint = read_checkpoint(kind.model, path)
    if (family := kind.encoder.recognise(checkpoint)) != kind.encoder.family:
        seen = f"looks like {family}" if family else "no checkpoint of its kind"
        checkpoint.refuse(f"{seen}, expected {kind.encoder.family}")
    return checkpoint
