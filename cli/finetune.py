"""The command that trains encoders on labels: finetune."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from .options import (
    Accumulate,
    DryRun,
    FormatOption,
    JsonOption,
    LearningRate,
    OneDevice,
    Precision,
    PrecisionOption,
    Resume,
    SplitName,
    TrainingBatch,
    TrainingSeed,
    as_format,
    complete_model,
    globals_of,
    open_store,
    settings_of,
)
from .output import live, tell_training

__all__ = ["finetune"]


class Head(StrEnum):
    """What is put on the encoder."""

    linear = "linear"
    attention = "attention"
    mlp = "mlp"


class Output(StrEnum):
    """What labels say."""

    binary = "binary"
    continuous = "continuous"


def finetune(
    context: typer.Context,
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="Encoder, with :variant if wanted.",
            autocompletion=complete_model,
        ),
    ],
    split_name: SplitName,
    task: Annotated[
        list[str] | None,
        typer.Option(
            "--task",
            help="Task, or a pattern such as 'scp:*'; may be repeated. Default the split's.",
        ),
    ] = None,
    repeat: Annotated[
        int | None,
        typer.Option("--repeat", help="Reshuffle to learn from; default the only one.", min=0),
    ] = None,
    weights: Annotated[
        Path | None, typer.Option("--weights", help="File of the encoder; built-in ones need none.")
    ] = None,
    told: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="What that file does not tell."),
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option(
            "--preset", help="Recipe, such as ecgfm-lvef; default the one published for MODEL."
        ),
    ] = None,
    head: Annotated[
        Head | None, typer.Option("--head", help="What is put on it; default the recipe's.")
    ] = None,
    target: Annotated[
        Output | None,
        typer.Option("--target", help="What labels say; default what they look like."),
    ] = None,
    freeze: Annotated[
        str | None,
        typer.Option(
            "--freeze",
            metavar="none|stem|all|N",
            help="What is not trained; N trains the top N blocks.",
        ),
    ] = None,
    layer_decay: Annotated[
        float | None,
        typer.Option(
            "--layer-decay",
            help="Factor of the learning rate from each block to the one below.",
            min=0.01,
            max=1,
        ),
    ] = None,
    class_weights: Annotated[
        bool | None,
        typer.Option(
            "--class-weights/--no-class-weights",
            help="Let positives weigh as much as there are negatives for each.",
        ),
    ] = None,
    epochs: Annotated[
        int | None, typer.Option("--epochs", help="Passes over the records at most.", min=1)
    ] = None,
    patience: Annotated[
        int | None,
        typer.Option("--patience", help="Epochs without a better validation; then stop.", min=1),
    ] = None,
    validation: Annotated[
        float,
        typer.Option("--validation", help="Part of the training patients held out.", min=0.01),
    ] = 0.15,
    batch_size: TrainingBatch = None,
    accumulate: Accumulate = 1,
    learning_rate: LearningRate = None,
    seed: TrainingSeed = 0,
    precision: PrecisionOption = Precision.auto,
    device: OneDevice = "auto",
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", help="Folder of the run; default finetuned/MODEL."),
    ] = None,
    resume: Resume = False,
    dry_run: DryRun = False,
    form: FormatOption = None,
    as_json: JsonOption = False,
) -> None:
    """Put a head on an encoder and train both on the training records of one reshuffle.

    The folder then holds model.safetensors, to give to embed; with the read-out logits it is
    evaluated by --classifier head. Some training patients are held out to know when to stop.

    Example: ecgstore finetune ecgfm --weights ecgfm.pt --split mi10 --repeat 0 --task MI
    """
    with open_store(context) as store, live(quiet=globals_of(context).quiet) as progress:
        result = store.finetune(
            model,
            split=split_name,
            tasks=task or (),
            repeat=repeat,
            weights=weights,
            settings=settings_of([model], told)[0],
            preset=preset,
            head=None if head is None else head.value,
            target=None if target is None else target.value,
            freeze=freeze,
            layer_decay=layer_decay,
            class_weights=class_weights,
            epochs=epochs,
            patience=patience,
            validation=validation,
            batch_size=batch_size,
            accumulate=accumulate,
            learning_rate=learning_rate,
            seed=seed,
            precision=precision.value,
            device=device,
            out=out,
            resume=resume,
            dry_run=dry_run,
            progress=progress,
        )
    tell_training(result, form=as_format(form, as_json=as_json))
