"""Commands about the house itself: doctor, demo."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated

import typer

from .options import FormatOption, JsonOption, as_format, globals_of
from .output import emit, live, notice

__all__ = ["demo", "doctor"]


def doctor(form: FormatOption = None, as_json: JsonOption = False) -> None:
    """Show which libraries, builds and devices were found.

    Example: ecgstore doctor
    """
    import ecgstore

    rows: list[dict[str, object]] = [dict(row) for row in ecgstore.environment()]
    emit(rows, form=as_format(form, as_json=as_json))


def demo(
    context: typer.Context,
    folder: Annotated[
        Path | None,
        typer.Option("-o", "--out", help="Folder to work in; default a new temporary one."),
    ] = None,
    records: Annotated[int, typer.Option("--records", help="ECGs to make.", min=60)] = 600,
    seed: Annotated[int, typer.Option("--seed", help="Seed of the cohort.")] = 0,
    form: FormatOption = None,
    as_json: JsonOption = False,
) -> None:
    """Run the whole job on synthetic ECGs: no files, no network, under two minutes.

    Example: ecgstore demo
    """
    import ecgstore

    home = folder or Path(tempfile.mkdtemp(prefix="ecgstore-demo-"))
    with live(quiet=globals_of(context).quiet) as progress:
        result = ecgstore.demo(home, records=records, seed=seed, progress=progress)
    emit(result.rows, form=as_format(form, as_json=as_json))
    notice(f"report: {result.report}")
    notice(f"warehouse: {result.warehouse} (try: ecgstore -w {result.warehouse} queries list)")
