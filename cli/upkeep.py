"""Commands that look after a warehouse: verify, compact, gc, forget."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from .options import DryRun, FormatOption, JsonOption, as_format, globals_of, open_store
from .output import emit, live, notice

__all__ = ["compact", "forget", "gc", "verify"]


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


def compact(
    context: typer.Context,
    table: Annotated[
        list[str] | None, typer.Argument(help="Tables to work on; all by default.")
    ] = None,
    retention: Annotated[
        float,
        typer.Option(
            "--retention",
            metavar="DAYS",
            min=0,
            help="Let versions go that are older, unless a run has read them.",
        ),
    ] = 30,
    dry_run: DryRun = False,
    form: FormatOption = None,
    as_json: JsonOption = False,
) -> None:
    """Merge small shards, remove rows without a record, let old versions go.

    Example: ecgstore compact --retention 90
    """
    with open_store(context) as store, live(quiet=globals_of(context).quiet) as progress:
        result = store.compact(table, retention_days=retention, dry_run=dry_run, progress=progress)
    emit(result.rows, form=as_format(form, as_json=as_json))
    if not result.changed:
        notice("unchanged: nothing to merge, remove or let go")


def gc(
    context: typer.Context,
    grace: Annotated[
        float,
        typer.Option("--grace", metavar="SECONDS", min=0, help="Leave files that are younger."),
    ] = 86_400,
    dry_run: DryRun = False,
    form: FormatOption = None,
    as_json: JsonOption = False,
) -> None:
    """Remove files that no version names: what a kill left, and shards of versions let go.

    Example: ecgstore gc --grace 3600
    """
    with open_store(context) as store, live(quiet=globals_of(context).quiet) as progress:
        result = store.gc(grace_s=grace, dry_run=dry_run, progress=progress)
    emit(result.rows, form=as_format(form, as_json=as_json))
    verb = "would be removed" if dry_run else "removed"
    notice(f"{result.files} files, {result.bytes / 1e6:.1f} MB {verb}")


def forget(
    context: typer.Context,
    patient: Annotated[list[str], typer.Argument(help="Patient ids, as in records.patient_id.")],
    yes: Annotated[
        bool, typer.Option("--yes", help="Really erase; otherwise only show what would go.")
    ] = False,
    out: Annotated[
        Path | None, typer.Option("-o", "--out", help="Also write the certificate to this file.")
    ] = None,
    form: FormatOption = None,
    as_json: JsonOption = False,
) -> None:
    """Erase patients from every table, shard, log, cache and older version.

    With --yes it prints a certificate in JSON. Source files, backups and exports are not reached.

    Example: ecgstore forget 15709 --yes -o erased.json
    """
    with open_store(context) as store, live(quiet=globals_of(context).quiet) as progress:
        result = store.forget(patient, yes=yes, progress=progress)
    if result.trainings:
        notice(f"trained on them, and not reached: the weights of {', '.join(result.trainings)}")
    if not result.erased:
        emit(result.rows, form=as_format(form, as_json=as_json))
        notice(f"{result.records} ECGs of {result.patients} patients would go; --yes erases them")
        return
    certificate = json.dumps(result.certificate, indent=2) + "\n"
    sys.stdout.write(certificate)
    if out is not None:
        out.write_text(certificate, encoding="utf-8")
        notice(f"written: {out}")
