"""The command that makes vectors: embed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from .options import (
    DryRun,
    FormatOption,
    JsonOption,
    Overwrite,
    Precision,
    PrecisionOption,
    Where,
    as_format,
    complete_model,
    globals_of,
    open_store,
    settings_of,
)
from .output import emit, live

__all__ = ["embed"]


def embed(
    context: typer.Context,
    model: Annotated[
        list[str],
        typer.Option(
            "--model",
            help="Model, with :variant or :readout where not the default; may be repeated: "
            "each waveform is then decoded once for all.",
            autocompletion=complete_model,
        ),
    ],
    weights: Annotated[
        list[Path] | None,
        typer.Option(
            "--weights",
            help="Checkpoint of the model; one for each --model, in order; - for one built in.",
        ),
    ] = None,
    readout: Annotated[
        str | None,
        typer.Option("--readout", help="How vectors are made, such as block5, lead or logits."),
    ] = None,
    told: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="MODEL.KEY=VALUE",
            help="What a checkpoint does not tell, such as ecgjepa.heads=4; may be repeated.",
        ),
    ] = None,
    where: Where = None,
    shard: Annotated[
        str | None,
        typer.Option("--shard", metavar="I/N", help="The i-th of n parts only, for array jobs."),
    ] = None,
    device: Annotated[
        str,
        typer.Option(
            "--device", help="cpu, cuda, auto, or several: cuda:0,cuda:1.", envvar="ECGSTORE_DEVICE"
        ),
    ] = "auto",
    batch_size: Annotated[
        int | None,
        typer.Option("--batch-size", help="Windows per batch; default 8, on a GPU 256.", min=1),
    ] = None,
    precision: PrecisionOption = Precision.auto,
    keep_windows: Annotated[
        bool, typer.Option("--keep-windows", help="Also keep the vector of each window.")
    ] = False,
    overwrite: Overwrite = False,
    dry_run: DryRun = False,
    estimate: Annotated[
        bool,
        typer.Option("--estimate", help="Print what it would cost, by a probe, and write nothing."),
    ] = False,
    form: FormatOption = None,
    as_json: JsonOption = False,
) -> None:
    """Embed the records that lack a model's vector.

    Example: ecgstore embed --model ecgfm --weights ecgfm.pt --where "age >= 65"
    """
    given: dict[str, Any] = {
        "weights": weights,
        "readout": readout,
        "settings": settings_of(model, told),
        "where": where,
        "shard": shard,
        "device": device,
        "batch_size": batch_size,
        "precision": precision.value,
    }
    form = as_format(form, as_json=as_json)
    with open_store(context) as store, live(quiet=globals_of(context).quiet) as progress:
        if estimate:
            emit([one.row for one in store.estimate(model, **given)], form=form)
            return
        results = store.embed_all(
            model,
            **given,
            keep_windows=keep_windows,
            overwrite=overwrite,
            dry_run=dry_run,
            progress=progress,
        )
    emit([row for result in results for row in result.rows], form=form)
    if any(result.rejected for result in results):
        raise typer.Exit(3)
