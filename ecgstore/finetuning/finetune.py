"""From a split and labels to an encoder with a head that knows the training part alone."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np

from ecgstore import trainings
from ecgstore.catalog import Catalog
from ecgstore.errors import UsageError
from ecgstore.finetuning.network import Finetuned, Training
from ecgstore.finetuning.parts import read_freeze
from ecgstore.finetuning.presets import Preset, find_preset
from ecgstore.finetuning.selection import Labelled, find_labelled, find_reshuffle
from ecgstore.finetuning.validation import hold_out
from ecgstore.finetuning.watch import Watch
from ecgstore.models import load_weights, models
from ecgstore.models.heads import HeadConfiguration
from ecgstore.pretraining.course import Course, as_begun, teach
from ecgstore.progress import Progress, Silent
from ecgstore.tasks import expand
from ecgstore.terms import terms_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from ecgstore.finetuning.validation import Judged
    from ecgstore.models import Model, Weights
    from ecgstore.models.heads import Kind
    from ecgstore.models.weights import Checkpoint
    from ecgstore.warehouse import Warehouse

__all__ = ["FinetuneResult", "finetune"]


@dataclass(frozen=True)
class FinetuneResult:
    """What a `finetune` call did.

    Attributes:
        run_id: Digest of all that determines the weights.
        model: The model that takes the weights.
        preset: The recipe.
        head: Kind of head.
        tasks: What its outputs stand for, in order.
        split: The split, and which reshuffle of it was learned from.
        records: Records learned from.
        validation: Records of the training part that were validated on instead.
        left_out: Records left out, by reason.
        steps: Updates that were planned.
        done: Updates done now; 0 in a dry run.
        best: The update whose weights were kept.
        loss: Validation loss of those.
        auroc: Their mean validation AUROC; None for numbers.
        judged: Every look at the validation records of this call, in order.
        out: Folder of the run.
        weights: The file to give to ``embed --weights``.
        weights_sha256: Its digest.
        seconds: Time taken.
        told: Whether this process is the one that tells people.
    """

    run_id: str
    model: str
    preset: str
    head: str
    tasks: tuple[str, ...]
    split: str
    records: int
    validation: int
    left_out: Mapping[str, int] = field(default_factory=dict)
    steps: int = 0
    done: int = 0
    best: int | None = None
    loss: float | None = None
    auroc: float | None = None
    judged: tuple[Judged, ...] = ()
    out: Path = Path()
    weights: Path | None = None
    weights_sha256: str | None = None
    seconds: float = 0.0
    told: bool = True

    @property
    def rows(self) -> list[dict[str, object]]:
        """The result as one row; none in a process that is not the first of several."""
        row: dict[str, object] = dict(vars(self))
        del row["told"], row["judged"]
        row |= {
            "tasks": list(self.tasks),
            "out": str(self.out),
            "weights": None if self.weights is None else str(self.weights),
            "seconds": round(self.seconds, 3),
        }
        return [row] if self.told else []

    def __repr__(self) -> str:
        return (
            f"FinetuneResult({self.run_id}: {self.model} on {', '.join(self.tasks)}, "
            f"best of {self.done} steps {self.best}, AUROC {self.auroc}, loss {self.loss})"
        )

    def _repr_html_(self) -> str:
        return (
            f"<b>{self.model}</b> finetuned on {', '.join(self.tasks)}: step {self.best} of "
            f"{self.done}, validation AUROC {self.auroc}, loss {self.loss} (run {self.run_id})"
        )


def finetune(
    warehouse: Warehouse,
    model: str,
    *,
    split: str,
    tasks: Sequence[str] = (),
    repeat: int | None = None,
    target: str | None = None,
    weights: Path | None = None,
    settings: Mapping[str, object] | None = None,
    preset: str | None = None,
    head: Kind | None = None,
    freeze: str | int | None = None,
    layer_decay: float | None = None,
    class_weights: bool | None = None,
    epochs: int | None = None,
    patience: int | None = None,
    validation: float = 0.15,
    batch_size: int | None = None,
    accumulate: int = 1,
    learning_rate: float | None = None,
    seed: int = 0,
    precision: str = "auto",
    device: str = "auto",
    out: Path | None = None,
    resume: bool = False,
    dry_run: bool = False,
    progress: Progress | None = None,
) -> FinetuneResult:
    """Put a head on an encoder and train both on the training records of one reshuffle.

    Some patients of those are held out and looked at once an epoch; training stops when they have
    not done better for a while, and the best weights are kept. The test records of the reshuffle
    are never read. The file that comes of it is a version of the model: ``embed`` stores its
    vectors and its head's outputs.

    Args:
        warehouse: Where records and labels are read and what was done is kept.
        model: Registry name, with ``:variant`` where it is not to be fed the first way.
        split: A split.
        tasks: Tasks or patterns; default those the split was drawn for.
        repeat: Which reshuffle of the split; needed where it has several.
        target: ``binary`` or ``continuous``; default what labels look like.
        weights: File of the encoder; models that are built in need none.
        settings: What that file does not tell.
        preset: A recipe of `ecgstore.finetuning.presets`; default the one published for the model.
        head: ``linear``, ``attention`` or ``mlp``; default that of the recipe, as for the next.
        freeze: ``none``, ``stem``, ``all``, or how many blocks on top are trained.
        layer_decay: Factor of the learning rate from each block to the one below.
        class_weights: Whether positives weigh as much as there are negatives for each.
        epochs: Passes over the records at most.
        patience: Epochs without a better validation before it stops.
        validation: Part of the training patients to validate on.
        batch_size: Records an update; default the published, or all there are.
        accumulate: Parts of a batch that are computed one after another.
        learning_rate: The highest, whatever the batch.
        seed: Of the head's starting values, the validation part, order and augmentation.
        precision: ``fp32``, ``bf16``, or ``auto``.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        out: Folder of the run; default ``finetuned/MODEL``.
        resume: Go on with the run in that folder.
        dry_run: Count and write nothing.
        progress: Told of every step.

    Raises:
        UnknownNameError: There is no such model, task, split or preset.
        UsageError: An option makes no sense, or the folder holds another run.
        NotEnoughDataError: A class is missing in the part to train or to validate on.
        WeightsError: The file does not fit, or there is none.
    """
    progress = progress or Silent()
    name, _, variant = model.partition(":")
    entry = models.get(name)
    out = out or Path("finetuned") / name
    past = as_begun(warehouse, out, resume=resume)
    with Catalog(past.relations()) as catalog:
        terms = terms_of(catalog, split)
        chosen = find_reshuffle(catalog, split, repeat)
        names = expand(catalog, tasks) if tasks else terms.tasks(catalog)
        target = target or (None if tasks else terms.target)
        data = find_labelled(catalog, names, chosen, target)
    recipe = find_preset(preset, entry.spec.arch, data.output)
    weighed = recipe.class_weights if class_weights is None else class_weights
    _check(recipe, data, names, weighed=weighed and class_weights is not None)
    held = hold_out(
        data.labels, data.patients, validation, seed=seed, output=data.output, tasks=names
    )
    loaded = load_weights(name, weights=weights, settings=settings)
    described = HeadConfiguration(
        head or recipe.head,
        tuple(names),
        data.output,
        _variant(entry, loaded, variant),
    )
    before = _lineage(entry, loaded)
    sha256, named = loaded.sha256, loaded.name
    if loaded.head is not None:
        progress.note(
            f"The head of {named!r} on {', '.join(loaded.head.configuration.labels)} is dropped."
        )
    method = Finetuned(
        name,
        loaded,
        described,
        replace(
            _statistics(data, ~held, weighed=weighed),
            freeze=_frozen(recipe, loaded) if freeze is None else read_freeze(freeze),
            layer_decay=recipe.layer_decay if layer_decay is None else layer_decay,
            smoothing=recipe.smoothing,
            augment=recipe.augment,
        ),
    )
    method.start(seed)
    ids = data.record_ids
    batch = batch_size or min(recipe.recipe.batch_size, int((~held).sum()))
    rule = recipe.recipe.told(batch_size=batch, learning_rate=learning_rate)
    rule = replace(rule, epochs=epochs or rule.epochs)
    watch = Watch(
        method,
        past,
        labels={one: row for one, row, out_ in zip(ids, data.labels, held, strict=True) if out_},
        rates=data.rates,
        every=max(1, int((~held).sum()) // batch),
        patience=recipe.patience if patience is None else patience,
        by=recipe.watch if data.output == "binary" else "loss",
        batch_size=batch,
        progress=progress,
    )
    course = Course(
        kind="finetune",
        method=method,
        recipe=rule,
        size=f"{described.kind} head on {named}",
        accumulate=accumulate,
        seed=seed,
        precision=precision,
        device=device,
        started_from=sha256,
        before=before,
        options={
            "model": name,
            "preset": recipe.name,
            "tasks": names,
            "split": [split, chosen.repeat],
            "labels": hashlib.sha256(data.labels.tobytes()).hexdigest()[:12],
            "validation": validation,
            "patience": watch.patience,
            "watch": watch.by,
            "training": asdict(method.training_plan),
        },
        validation=[one for one, out_ in zip(ids, held, strict=True) if out_],
        watch=watch,
    )
    done = teach(
        warehouse,
        past,
        course,
        rates={one: data.rates[one] for one, out_ in zip(ids, held, strict=True) if not out_},
        facts=dict(zip(ids, data.labels.astype(np.float32), strict=True)),
        out=out,
        resume=resume,
        dry_run=dry_run,
        progress=progress,
    )
    best = method.record
    return FinetuneResult(
        run_id=done.run_id,
        model=name,
        preset=recipe.name,
        head=described.kind,
        tasks=tuple(names),
        split=f"{split}, reshuffle {chosen.repeat}",
        records=done.records,
        validation=int(held.sum()),
        left_out=done.left_out,
        steps=done.steps,
        done=done.done,
        best=None if np.isnan(best["best"]) else int(best["best"]),
        loss=None if np.isnan(best["loss"]) else best["loss"],
        auroc=None if np.isnan(best["auroc"]) else best["auroc"],
        judged=tuple(watch.judged),
        out=done.out,
        weights=done.weights,
        weights_sha256=done.weights_sha256,
        seconds=done.seconds,
        told=done.told,
    )


def _check(recipe: Preset, data: Labelled, tasks: Sequence[str], *, weighed: bool) -> None:
    """Raise `UsageError` where a recipe does not fit the labels."""
    if recipe.single and len(tasks) > 1:
        msg = f"The preset {recipe.name!r} takes one task, not {len(tasks)}."
        raise UsageError(msg, hint="Name one with --task.")
    if recipe.output not in (None, data.output):
        msg = f"The preset {recipe.name!r} is for {recipe.output} labels, not {data.output} ones."
        raise UsageError(msg, hint="Choose another preset, or none.")
    if weighed and data.output == "continuous":
        msg = "Class weights are for labels of 0 and 1; these are continuous."
        raise UsageError(msg)


def _variant(entry: Model, loaded: Weights, named: str) -> str:
    """Return how the encoder is fed: as named, else as the weights were."""
    if named:
        return entry.spec.variant(named).name
    if loaded.head is not None:
        return loaded.head.configuration.variant
    return entry.encoder.fitting_variant(entry.spec, loaded.configuration)


def _frozen(recipe: Preset, loaded: Weights) -> str | int:
    """Return what a recipe freezes; of a small network all blocks may be on top."""
    if isinstance(recipe.freeze, int):
        return min(recipe.freeze, loaded.configuration.depth)
    return recipe.freeze


def _statistics(data: Labelled, train: NDArray[np.bool_], *, weighed: bool) -> Training:
    """Return what training records tell of each output: how rare positives are, or the scale."""
    labels = data.labels[train]
    if data.output == "continuous":
        deviation = np.nanstd(labels, axis=0)
        deviation[deviation == 0] = 1.0
        return Training(mean=np.nanmean(labels, axis=0).tolist(), deviation=deviation.tolist())
    if not weighed:
        return Training()
    return Training(weights=((labels == 0).sum(axis=0) / (labels == 1).sum(axis=0)).tolist())


def _lineage(entry: Model, loaded: Weights) -> dict[str, list[str]]:
    """Return what the weights had seen before."""
    if loaded.name.startswith("untrained"):
        return {}
    known = loaded.configuration.classes > 0
    also = ("ptbxl",) if known and entry.spec.arch == "ecgflow" else ()
    return trainings.lineage(entry.spec, cast("Checkpoint", loaded), also=also)
