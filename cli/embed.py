"""Commands about encoders: embed, and models list, show, check, convert."""

from __future__ import annotations

import dataclasses
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from ecgstore.errors import UsageError

from .options import (
    DryRun,
    FormatOption,
    JsonOption,
    Overwrite,
    as_format,
    complete_model,
    globals_of,
    open_store,
)
from .output import emit, live, notice

__all__ = ["embed", "models"]


class Precision(StrEnum):
    """Arithmetic of an encoder."""

    auto = "auto"
    fp32 = "fp32"
    bf16 = "bf16"


ModelName = Annotated[
    str, typer.Argument(metavar="MODEL", help="Registry name.", autocompletion=complete_model)
]
Weights = Annotated[Path, typer.Option("--weights", help="Checkpoint file.")]


def embed(
    context: typer.Context,
    model: Annotated[
        list[str],
        typer.Option(
            "--model",
            help="Model, with :readout where not the default; may be repeated.",
            autocompletion=complete_model,
        ),
    ],
    weights: Annotated[
        list[Path] | None,
        typer.Option("--weights", help="Checkpoint of the model; one for each --model, in order."),
    ] = None,
    where: Annotated[
        str | None, typer.Option("--where", help="SQL predicate over records, as age >= 65.")
    ] = None,
    device: Annotated[
        str,
        typer.Option("--device", help="cpu, cuda, cuda:1 or auto.", envvar="ECGSTORE_DEVICE"),
    ] = "auto",
    batch_size: Annotated[
        int | None,
        typer.Option("--batch-size", help="Windows per batch; default 8, on a GPU 256.", min=1),
    ] = None,
    precision: Annotated[
        Precision, typer.Option("--precision", help="auto takes bf16 where the hardware has it.")
    ] = Precision.auto,
    keep_windows: Annotated[
        bool, typer.Option("--keep-windows", help="Also keep the vector of each window.")
    ] = False,
    overwrite: Overwrite = False,
    dry_run: DryRun = False,
    form: FormatOption = None,
    as_json: JsonOption = False,
) -> None:
    """Embed the records that lack a model's vector.

    Example: ecgstore embed --model ecgfm --weights ecgfm.pt --where "age >= 65"
    """
    files: list[Path | None] = [*weights] if weights else [None] * len(model)
    if len(files) != len(model):
        msg = f"{len(model)} models were given with {len(files)} weights files."
        raise UsageError(msg, hint="Give one --weights for each --model, or run them one by one.")
    results = []
    with open_store(context) as store, live(quiet=globals_of(context).quiet) as progress:
        for name, file in zip(model, files, strict=True):
            results.append(
                store.embed(
                    name,
                    weights=file,
                    where=where,
                    device=device,
                    batch_size=batch_size,
                    precision=precision.value,
                    keep_windows=keep_windows,
                    overwrite=overwrite,
                    dry_run=dry_run,
                    progress=progress,
                )
            )
    emit([row for result in results for row in result.rows], form=as_format(form, as_json=as_json))
    if any(result.rejected for result in results):
        raise typer.Exit(3)


models = typer.Typer(no_args_is_help=True, help="List, show, check and convert encoders.")


@models.command("list")
def list_(
    pattern: Annotated[str, typer.Argument(help="Shell pattern, such as stmem*.")] = "*",
    form: FormatOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the encoders with what they need.

    Example: ecgstore models list "ecg*"
    """
    import ecgstore

    rows: list[dict[str, object]] = [
        {
            "model": spec.name,
            "rate_hz": spec.rate_hz,
            "window_s": spec.window_s,
            "leads": len(spec.leads),
            "dim": spec.dim,
            "readouts": ", ".join(spec.readouts),
            "licence": spec.licence,
            "summary": spec.summary,
        }
        for spec in ecgstore.list_models(pattern)
    ]
    emit(rows, form=as_format(form, as_json=as_json))


@models.command()
def show(model: ModelName, form: FormatOption = None, as_json: JsonOption = False) -> None:
    """Show everything known of an encoder: contract, licence, citations.

    Example: ecgstore models show stmem
    """
    import ecgstore

    facts = dataclasses.asdict(ecgstore.get_spec(model))
    rows: list[dict[str, object]] = [
        {"field": name, "value": "\n".join(map(str, value)) if isinstance(value, tuple) else value}
        for name, value in facts.items()
    ]
    emit(rows, form=as_format(form, as_json=as_json))


@models.command()
def check(
    model: ModelName, weights: Weights, form: FormatOption = None, as_json: JsonOption = False
) -> None:
    """Check a checkpoint: container, keys, shapes, values; ends with code 1 if one fails.

    Example: ecgstore models check ecgfm --weights ecgfm.pt
    """
    import ecgstore

    rows = ecgstore.check_weights(model, weights)
    emit(rows, form=as_format(form, as_json=as_json))
    if any(row["result"] != "ok" for row in rows):
        raise typer.Exit(1)


@models.command()
def convert(
    model: ModelName,
    weights: Weights,
    out: Annotated[Path, typer.Option("-o", "--out", help="The .safetensors file to write.")],
) -> None:
    """Convert a checkpoint to safetensors, which holds the encoder alone.

    Example: ecgstore models convert ecgfm --weights ecgfm.pt -o ecgfm.safetensors
    """
    import ecgstore

    ecgstore.convert_weights(model, weights, out)
    notice(f"written: {out}")
