"""The command that teaches a small encoder the vectors of a large one."""

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
    open_store,
)
from .output import live, tell_training

__all__ = ["distil"]


def distil(
    context: typer.Context,
    student: Annotated[
        str,
        typer.Argument(
            metavar="STUDENT",
            help="Model that learns, such as stmem or ecgfm; with :variant if wanted.",
            autocompletion=complete_method,
        ),
    ],
    teacher: Annotated[
        str,
        typer.Option(
            "--teacher", help="Feature set that is learned: a model, model@version, or a fusion."
        ),
    ],
    size: Annotated[
        str | None, typer.Option("--size", help="Size of the student; default mini.")
    ] = None,
    weights: Annotated[
        Path | None, typer.Option("--weights", help="File the student starts from.")
    ] = None,
    where: Where = None,
    split_name: Annotated[
        str | None, typer.Option("--split", help="Learn from its training records only.")
    ] = None,
    repeat: Annotated[
        int | None, typer.Option("--repeat", help="Which reshuffle of the split, from 0.", min=0)
    ] = None,
    steps: Annotated[
        int | None, typer.Option("--steps", help="Updates; default those of 20 epochs.", min=1)
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", help="Folder of the run; default pretrained/distil-STUDENT."),
    ] = None,
    resume: Resume = False,
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
    """Teach a small encoder to predict the stored vectors of a large one.

    The folder then holds model.safetensors, to give to embed, and loss.png.

    Example: ecgstore distil stmem --teacher ecgfm --split acs10 --repeat 0 -o student
    """
    with open_store(context) as store, live(quiet=globals_of(context).quiet) as progress:
        result = store.distil(
            student,
            teacher=teacher,
            size=size,
            weights=weights,
            where=where,
            split=split_name,
            repeat=repeat,
            steps=steps,
            out=out,
            resume=resume,
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
