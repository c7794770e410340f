"""Commands that bring data in: init, ingest, labels."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from .options import (
    DryRun,
    FormatOption,
    JsonOption,
    KeepIds,
    Overwrite,
    as_format,
    globals_of,
    mapping,
    open_store,
)
from .output import emit, live, notice

__all__ = ["ingest", "init", "labels"]


class OnError(StrEnum):
    """What a file that cannot be read does to an ingest."""

    skip = "skip"
    stop = "stop"


def init(context: typer.Context) -> None:
    """Make an empty warehouse.

    Example: ecgstore -w my-warehouse init
    """
    with open_store(context) as store:
        store.init()
        notice(f"warehouse ready: {store.root}")


def ingest(
    context: typer.Context,
    sources: Annotated[list[Path], typer.Argument(help="Folders or files with ECGs.")],
    dataset: Annotated[
        str, typer.Option("--dataset", help="A known dataset (ptbxl), or a name for your own.")
    ],
    reader: Annotated[str, typer.Option("--reader", help="Reader, or auto.")] = "auto",
    rate: Annotated[
        int | None,
        typer.Option("--rate", help="Prefer files of this rate in Hz where there are several."),
    ] = None,
    jobs: Annotated[
        int | None, typer.Option("--jobs", help="Processes; default all cores.", min=1)
    ] = None,
    limit: Annotated[
        int | None, typer.Option("--limit", help="Take at most this many records.", min=1)
    ] = None,
    layout: Annotated[
        list[str] | None,
        typer.Option(
            "--map", help="Where arrays are in HDF5, NumPy or CSV files: tracings=ecg,rate=500,…"
        ),
    ] = None,
    manifest: Annotated[
        Path | None,
        typer.Option("--manifest", help="CSV of file, patient_id, age, sex, label:TASK, …"),
    ] = None,
    keep_ids: KeepIds = False,
    shift_dates: Annotated[
        int,
        typer.Option(
            "--shift-dates", help="Move each patient's dates by up to so many days.", min=0
        ),
    ] = 0,
    pool_ages: Annotated[
        bool, typer.Option("--pool-ages", help="Store ages above 89 as 90.")
    ] = False,
    on_error: Annotated[
        OnError, typer.Option("--on-error", help="Skip a bad file into rejects, or stop.")
    ] = OnError.skip,
    dry_run: DryRun = False,
    form: FormatOption = None,
    as_json: JsonOption = False,
) -> None:
    """Read ECG files of any known format; a bad file becomes a row in rejects.

    Names, ids and birth dates stay outside: a patient's id becomes a keyed digest whose key is
    kept beside your own settings, in the file that ECGSTORE_KEY names.

    Example: ecgstore ingest ptb-xl/ --dataset ptbxl
    """
    with open_store(context) as store, live(quiet=globals_of(context).quiet) as progress:
        result = store.ingest(
            *sources,
            dataset=dataset,
            reader=reader,
            rate=rate,
            jobs=jobs,
            limit=limit,
            layout=mapping(layout),
            manifest=manifest,
            keep_ids=keep_ids,
            shift_dates=shift_dates,
            pool_ages=pool_ages,
            on_error=on_error.value,
            dry_run=dry_run,
            progress=progress,
        )
    emit(result.rows, form=as_format(form, as_json=as_json))
    if result.rejected:
        raise typer.Exit(3)


def labels(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(help="CSV file with a header line.")],
    task: Annotated[str, typer.Option("--task", help="Name of the task, such as ACS.")],
    id_column: Annotated[
        str, typer.Option("--id", help="Column with the record's id or unique name.")
    ] = "record_id",
    label: Annotated[str, typer.Option("--label", help="Column with the label.")] = "label",
    patient: Annotated[
        str | None, typer.Option("--patient", help="Column with the patient's id.")
    ] = None,
    keep_ids: KeepIds = False,
    overwrite: Overwrite = False,
    dry_run: DryRun = False,
    form: FormatOption = None,
    as_json: JsonOption = False,
) -> None:
    """Attach your own labels, and patient ids, to records.

    Example: ecgstore labels acs.csv --task ACS --id ecg --label acs --patient pid
    """
    with open_store(context) as store, live(quiet=globals_of(context).quiet) as progress:
        result = store.label(
            file,
            task=task,
            id=id_column,
            label=label,
            patient=patient,
            keep_ids=keep_ids,
            overwrite=overwrite,
            dry_run=dry_run,
            progress=progress,
        )
    emit(result.rows, form=as_format(form, as_json=as_json))
    if result.rejected:
        raise typer.Exit(3)
