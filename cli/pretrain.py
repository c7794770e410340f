"""The command that trains encoders without labels: pretrain."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .options import (
    Accumulate,
    CheckpointEvery,
    DryRun,
    FormatOption,
    JsonOption,
    LearningRate,
    OneDevice,
    Precision,
    PrecisionOption,
    Resume,
    TrainingBatch,
    TrainingSeed,
    Where,
    as_format,
    complete_method,
    globals_of,
    key_values,
    open_store,
)
from .output import live, tell_training

__all__ = ["pretrain"]


def pretrain(
    context: typer.Context,
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="Method, named as the model it trains, such as stmem, ecgfm or ecgjepa.",
            autocompletion=complete_method,
        ),
    ],
    size: Annotated[
        str | None,
        typer.Option("--size", help="base as published (the default), mini, or tiny for tests."),
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option("--steps", help="Updates; default the epochs of the recipe.", min=1),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", help="Folder of the run; default pretrained/MODEL."),
    ] = None,
    resume: Resume = False,
    where: Where = None,
    weights: Annotated[
        Path | None,
        typer.Option("--weights", help="Start from this file, published or of an earlier run."),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Set what the method has of its own, such as mask_ratio=0.5; may be repeated.",
        ),
    ] = None,
    batch_size: TrainingBatch = None,
    accumulate: Accumulate = 1,
    learning_rate: LearningRate = None,
    seed: TrainingSeed = 0,
    precision: PrecisionOption = Precision.auto,
    device: OneDevice = "auto",
    checkpoint_every: CheckpointEvery = None,
    dry_run: DryRun = False,
    form: FormatOption = None,
    as_json: JsonOption = False,
) -> None:
    """Train an encoder on the warehouse's own ECGs, without labels.

    The folder then holds model.safetensors, to give to embed, and loss.png. Under torchrun
    several processes share the work.

    Example: ecgstore pretrain stmem --size mini --steps 200 --where "dataset = 'ptbxl'"
    """
    with open_store(context) as store, live(quiet=globals_of(context).quiet) as progress:
        result = store.pretrain(
            model,
            size=size,
            steps=steps,
            out=out,
            resume=resume,
            where=where,
            weights=weights,
            settings=key_values(settings),
            batch_size=batch_size,
            accumulate=accumulate,
            learning_rate=learning_rate,
            seed=seed,
            precision=precision.value,
            device=device,
            checkpoint_every=checkpoint_every,
            dry_run=dry_run,
            progress=progress,
        )
    tell_training(result, form=as_format(form, as_json=as_json))
