"""The command that hands data to other programs: export."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from .options import DryRun, FormatOption, JsonOption, Overwrite, as_format, globals_of, open_store
from .output import emit, live, notice

__all__ = ["export"]


class To(StrEnum):
    """What a table can be exported to."""

    parquet = "parquet"
    csv = "csv"
    wfdb = "wfdb"


def export(
    context: typer.Context,
    table: Annotated[str, typer.Argument(help="Table, such as records.")],
    out: Annotated[
        Path, typer.Option("-o", "--out", help="File to write; for WFDB, the folder of its files.")
    ],
    where: Annotated[
        str | None, typer.Option("--where", help="SQL predicate over the table, as age >= 65.")
    ] = None,
    to: Annotated[
        To | None, typer.Option("--to", help="Write this; default what the suffix says.")
    ] = None,
    overwrite: Overwrite = False,
    dry_run: DryRun = False,
    form: FormatOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write a table as Parquet or CSV, or signals as WFDB, for other programs.

    Ends with code 3 when the format could not hold some rows; they are counted by reason.

    Example: ecgstore export waveforms --to wfdb -o wfdb/ --where "record_id like 'ptbxl/%'"
    """
    with open_store(context) as store, live(quiet=globals_of(context).quiet) as progress:
        result = store.export(
            table,
            out,
            where=where,
            form=None if to is None else to.value,
            overwrite=overwrite,
            dry_run=dry_run,
            progress=progress,
        )
    emit(result.rows, form=as_format(form, as_json=as_json))
    if not dry_run:
        notice(f"written: {result.path}")
    if result.refused:
        raise typer.Exit(3)
