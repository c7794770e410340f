"""The command that tells why: explain."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from .options import FormatOption, JsonOption, as_format, globals_of, open_store
from .output import emit, live, notice

__all__ = ["explain"]


class How(StrEnum):
    """What a score is divided among."""

    shap = "shap"
    occlusion = "occlusion"
    gradients = "gradients"


def explain(
    context: typer.Context,
    run: Annotated[str, typer.Argument(help="Id of a trained run, or the beginning of one.")],
    record: Annotated[
        str | None, typer.Option("--record", help="Explain this ECG; without it, the run.")
    ] = None,
    method: Annotated[
        How | None,
        typer.Option("--method", help="Default shap for a run, occlusion for an ECG."),
    ] = None,
    repeat: Annotated[int, typer.Option("--repeat", help="Reshuffle to explain.", min=0)] = 0,
    where: Annotated[
        str | None, typer.Option("--where", help="Of shap: SQL predicate over records.")
    ] = None,
    records: Annotated[bool, typer.Option("--records", help="Of shap: a row a record.")] = False,
    patients: Annotated[
        bool, typer.Option("--patients", help="Of shap: a row a patient, by number.")
    ] = False,
    weights: Annotated[
        list[Path] | None,
        typer.Option(
            "--weights",
            help="Checkpoint of each model of the run, in order; - for one built in.",
        ),
    ] = None,
    device: Annotated[
        str, typer.Option("--device", help="cpu, cuda or auto.", envvar="ECGSTORE_DEVICE")
    ] = "auto",
    window: Annotated[
        float, typer.Option("--window", help="Of occlusion: seconds made flat at a time.")
    ] = 0.2,
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", help="Picture of an ECG to write: .png, .svg or .pdf."),
    ] = None,
    form: FormatOption = None,
    as_json: JsonOption = False,
) -> None:
    """Tell why a run gives its scores: by model, or for one ECG by lead and moment.

    Positive figures raise the score. Example: ecgstore explain 3f2a --record ptbxl/00004 -o why.png
    """
    with open_store(context) as store, live(quiet=globals_of(context).quiet) as progress:
        result = store.explain(
            run,
            record=record,
            method=None if method is None else method.value,
            repeat=repeat,
            where=where,
            weights=weights,
            device=device,
            window_s=window,
            out=out,
            progress=progress,
        )
    each = "patient" if patients else "record" if records else "block"
    emit(result.table(each), form=as_format(form, as_json=as_json))
    for note in (*result.notes, *([f"written: {out}"] if out else [])):
        notice(note)
