"""Commands about the past: log, reproduce."""

from __future__ import annotations

from typing import Annotated

import typer

from .options import FormatOption, JsonOption, as_format, globals_of, open_store
from .output import emit, live, notice

__all__ = ["log", "reproduce"]


def log(
    context: typer.Context,
    limit: Annotated[
        int | None, typer.Option("--limit", help="Show at most so many entries.", min=1)
    ] = None,
    table: Annotated[
        str | None, typer.Option("--table", help="Show what was written to this table alone.")
    ] = None,
    maintenance: Annotated[
        bool, typer.Option("--all", help="Also show merged shards and new layouts.")
    ] = False,
    form: FormatOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what was done to the warehouse, newest first: when, by which command, how many rows.

    Example: ecgstore log --limit 10
    """
    with open_store(context) as store:
        done = store.log(limit=limit, table=table, maintenance=maintenance)
    rows = [one.row for one in done]
    emit(rows, form=as_format(form, as_json=as_json), aside=("code", "job"))
    if cleaned := [one.at for one in done if not one.complete]:
        until = f"{max(cleaned):%Y-%m-%d %H:%M:%S} UTC"
        notice(f"Entries up to {until} may lack rows: compact has cleaned commits of that time.")


def reproduce(
    context: typer.Context,
    run: Annotated[str, typer.Argument(help="Id of a run, or the beginning of one.")],
    form: FormatOption = None,
    as_json: JsonOption = False,
) -> None:
    """Run a run again on the tables as it read them, and compare every number; writes nothing.

    Ends with code 0 when every metric and prediction is the same to the last bit, else with 1.

    Example: ecgstore reproduce 3f2a9c
    """
    with open_store(context) as store, live(quiet=globals_of(context).quiet) as progress:
        result = store.reproduce(run, progress=progress)
    emit(result.rows, form=as_format(form, as_json=as_json))
    notice(result.summary)
    if not result.identical:
        raise typer.Exit(1)
