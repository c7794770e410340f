"""The command that makes a corrupted or lacking lead from the others."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .options import (
    DryRun,
    FormatOption,
    JsonOption,
    Overwrite,
    as_format,
    complete_model,
    globals_of,
    open_store,
    settings_of,
)
from .output import emit, live, notice

__all__ = ["repair"]


def repair(
    context: typer.Context,
    record: Annotated[str, typer.Argument(help="Id of a record.")],
    lead: Annotated[str, typer.Option("--lead", help="The lead to make, such as V3.")],
    model: Annotated[
        str, typer.Option("--model", help="An AnyECG.", autocompletion=complete_model)
    ] = "anyecg",
    weights: Annotated[
        Path | None,
        typer.Option("--weights", help="File that pretrain anyecg wrote, with both stages."),
    ] = None,
    told: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="What the file does not tell."),
    ] = None,
    device: Annotated[
        str, typer.Option("--device", help="cpu, cuda or auto.", envvar="ECGSTORE_DEVICE")
    ] = "auto",
    out: Annotated[Path, typer.Option("-o", "--out", help="Picture: .png, .svg or .pdf.")] = Path(
        "repaired.png"
    ),
    overwrite: Overwrite = False,
    dry_run: DryRun = False,
    form: FormatOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a lead of a record from its others, store it flagged as made, and draw it.

    It goes into the table reconstructions, never among the waveforms. Where the lead was measured
    too, PSNR, SSIM and MAE say how near the two are.

    Example: ecgstore repair ptbxl/00004 --lead V3 --weights anyecg.safetensors
    """
    with open_store(context) as store, live(quiet=globals_of(context).quiet) as progress:
        result = store.repair(
            record,
            lead=lead,
            model=model,
            weights=weights,
            settings=settings_of([model], told)[0],
            device=device,
            out=out,
            overwrite=overwrite,
            dry_run=dry_run,
            progress=progress,
        )
    emit([result.row], form=as_format(form, as_json=as_json))
    notice(f"{result.lead} is reconstructed, not measured")
    if not dry_run:
        notice(f"written: {out}")
