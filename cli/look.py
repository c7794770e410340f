"""Commands that look at ECGs: their quality, and their picture on paper."""

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
    globals_of,
    open_store,
)
from .output import emit, live, notice

__all__ = ["plot", "quality"]


def quality(
    context: typer.Context,
    where: Annotated[
        str | None, typer.Option("--where", help="SQL predicate over records: which to look at.")
    ] = None,
    worst: Annotated[
        int, typer.Option("--worst", help="Records to name for each figure.", min=0)
    ] = 3,
    jobs: Annotated[
        int | None, typer.Option("--jobs", help="Processes; default all cores.", min=1)
    ] = None,
    overwrite: Overwrite = False,
    dry_run: DryRun = False,
    form: FormatOption = None,
    as_json: JsonOption = False,
) -> None:
    """Assess the signal quality of records that are not yet, and show how all of them fare.

    The figures become columns of records (snr_db, reversal, duplicate_of, …) and, lead by lead,
    the table quality, so that any --where can be a gate.

    Example: ecgstore quality --where "dataset = 'ptbxl'"
    """
    with open_store(context) as store, live(quiet=globals_of(context).quiet) as progress:
        result = store.quality(
            where=where,
            worst=worst,
            jobs=jobs,
            overwrite=overwrite,
            dry_run=dry_run,
            progress=progress,
        )
    emit(result.rows, form=as_format(form, as_json=as_json))
    notice(f"{result.assessed} records assessed, {result.existing} were already")


def plot(
    context: typer.Context,
    record: Annotated[str, typer.Argument(help="Id of a record, or an ECG file.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="Picture: .png, .svg or .pdf.")] = Path(
        "ecg.png"
    ),
    start: Annotated[float, typer.Option("--start", help="Second to begin at.", min=0)] = 0.0,
    rhythm: Annotated[str, typer.Option("--rhythm", help="Lead of the rhythm strip.")] = "II",
    dpi: Annotated[
        int, typer.Option("--dpi", help="Dots per inch of a PNG.", min=50, max=600)
    ] = 150,
) -> None:
    """Draw an ECG on standard paper: 25 mm/s, 10 mm/mV, 3 × 4 leads and a rhythm strip.

    Example: ecgstore plot ptbxl/00004 -o 00004.png
    """
    import ecgstore

    if Path(record).exists():
        found = ecgstore.read(record)
    else:
        with open_store(context) as store:
            found = store.read(record)
    title = None if Path(record).exists() else record
    found.plot(out, start_s=start, title=title, rhythm=rhythm, dpi=dpi)
    notice(f"written: {out}")
