"""Commands that look after a warehouse: verify."""

from __future__ import annotations

from typing import Annotated

import typer

from .options import FormatOption, JsonOption, as_format, globals_of, open_store
from .output import emit, live, notice

__all__ = ["verify"]


def verify(
    context: typer.Context,
    table: Annotated[
        list[str] | None, typer.Option("--table", help="Check this table only; may be repeated.")
    ] = None,
    fast: Annotated[
        bool, typer.Option("--fast", help="Check logs and sizes, and read no shard.")
    ] = False,
    repair: Annotated[
        bool,
        typer.Option("--repair", help="Set aside what cannot be read, and say what was lost."),
    ] = False,
    form: FormatOption = None,
    as_json: JsonOption = False,
) -> None:
    """Check every file of the warehouse; ends with code 1 when something is damaged.

    Example: ecgstore verify --repair
    """
    with open_store(context) as store, live(quiet=globals_of(context).quiet) as progress:
        result = store.verify(table, fast=fast, repair=repair, progress=progress)
    emit(result.rows, form=as_format(form, as_json=as_json))
    notice(result.summary)
    if not result.clean:
        raise typer.Exit(1)
