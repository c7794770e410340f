"""The command that names rhythm codes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .options import (
    DryRun,
    FormatOption,
    JsonOption,
    Overwrite,
    Precision,
    as_format,
    complete_model,
    globals_of,
    open_store,
    settings_of,
)
from .output import emit, live

__all__ = ["codes"]


def codes(
    context: typer.Context,
    model: Annotated[
        str,
        typer.Option(
            "--model", help="An AnyECG, with :variant if wanted.", autocompletion=complete_model
        ),
    ],
    weights: Annotated[
        Path | None, typer.Option("--weights", help="Its file; it must hold the tokeniser.")
    ] = None,
    told: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="What the file does not tell."),
    ] = None,
    where: Annotated[
        str | None, typer.Option("--where", help="SQL predicate over records, as age >= 65.")
    ] = None,
    device: Annotated[
        str, typer.Option("--device", help="cpu, cuda or auto.", envvar="ECGSTORE_DEVICE")
    ] = "auto",
    batch_size: Annotated[
        int | None,
        typer.Option("--batch-size", help="Windows per batch; default 8, on a GPU 256.", min=1),
    ] = None,
    precision: Annotated[
        Precision, typer.Option("--precision", help="fp32 gives the same codes on any machine.")
    ] = Precision.fp32,
    overwrite: Overwrite = False,
    dry_run: DryRun = False,
    form: FormatOption = None,
    as_json: JsonOption = False,
) -> None:
    """Name the rhythm codes of the records that have none: one each second of each lead.

    They fill the table codes; the queries code_histogram, code_ngrams and code_sequence ask it.

    Example: ecgstore codes --model anyecg --weights anyecg.safetensors
    """
    with open_store(context) as store, live(quiet=globals_of(context).quiet) as progress:
        result = store.codes(
            model,
            weights=weights,
            settings=settings_of([model], told)[0],
            where=where,
            device=device,
            batch_size=batch_size,
            precision=precision.value,
            overwrite=overwrite,
            dry_run=dry_run,
            progress=progress,
        )
    emit([result.row], form=as_format(form, as_json=as_json))
    if result.rejected:
        raise typer.Exit(3)
