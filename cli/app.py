"""The Typer app: global options, the list of commands, and where errors become messages."""

from __future__ import annotations

import logging
import os
import sys
import traceback
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from ecgstore.errors import EcgStoreError, UnknownNameError, UsageError

from . import (
    admin,
    clinical,
    codes,
    compare,
    complementarity,
    distil,
    embed,
    evaluate,
    exchange,
    explain,
    finetune,
    history,
    ingest,
    learn,
    learning_curve,
    look,
    models,
    pretrain,
    probe,
    query,
    repair,
    split,
    subgroups,
    upkeep,
)
from .options import Globals
from .output import notice

__all__ = ["app"]

_INTERRUPTED = "interrupted: what was written stays valid; run the same command to go on"


class _Boundary(TyperGroup):
    """Turns errors into one line on stderr and an exit code; takes ``--at`` after a command too."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:  # noqa: ANN401
        return super().parse_args(ctx, _at_first(args))

    def invoke(self, ctx: Any) -> Any:  # noqa: ANN401  types of Typer's own base
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            notice(_INTERRUPTED)
            raise typer.Exit(130) from None
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(0) from None
        except EcgStoreError as error:
            if ctx.obj is not None and ctx.obj.debug:
                traceback.print_exc()
            notice(f"error: {error.message}")
            if error.hint:
                notice(f"hint: {error.hint}")
            raise typer.Exit(2 if isinstance(error, UsageError | UnknownNameError) else 1) from None
        except OSError as error:
            if ctx.obj is not None and ctx.obj.debug:
                traceback.print_exc()
            where = f" ({error.filename})" if error.filename else ""
            notice(f"error: {error.strerror or error}{where}")
            raise typer.Exit(1) from None


def _at_first(words: list[str]) -> list[str]:
    """Put ``--at`` and its value before the command, wherever before ``--`` they stand."""
    end = words.index("--") if "--" in words else len(words)
    for place, word in enumerate(words[:end]):
        stop = place + 1 + (word == "--at")
        if (word == "--at" or word.startswith("--at=")) and stop <= end:
            return [*words[place:stop], *words[:place], *words[stop:]]
    return words


app = typer.Typer(
    cls=_Boundary,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


def _version(value: bool) -> None:
    if value:
        import ecgstore

        sys.stdout.write(f"ecgstore {ecgstore.code_version()}\n")
        raise typer.Exit


@app.callback()
def main(
    context: typer.Context,
    warehouse: Annotated[
        Path | None,
        typer.Option(
            "-w",
            "--warehouse",
            envvar="ECGSTORE_WAREHOUSE",
            help="Warehouse folder; default ./warehouse.",
        ),
    ] = None,
    at: Annotated[
        str | None,
        typer.Option("--at", metavar="TIME|RUN", help="Read as of an ISO time or a run id."),
    ] = None,
    debug: Annotated[bool, typer.Option("--debug", help="Show a traceback on errors.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress, no notes.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", help="Log what is done.")] = False,
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    """Keep ECGs and their foundation-model embeddings as tables; query, fuse and evaluate them.

    Example: ecgstore demo
    """
    if verbose:
        logging.basicConfig(level=logging.INFO, format="%(name)s: %(message)s")
    context.obj = Globals(warehouse=warehouse, at=at, debug=debug, quiet=quiet)


for command in (
    ingest.init,
    ingest.ingest,
    ingest.labels,
    look.quality,
    look.plot,
    embed.embed,
    codes.codes,
    repair.repair,
    pretrain.pretrain,
    distil.distil,
    finetune.finetune,
    split.split,
    learn.fuse,
    learn.train,
    evaluate.evaluate,
    evaluate.predict,
    learn.project,
    compare.compare,
    complementarity.complementarity,
    clinical.clinical,
    explain.explain,
    subgroups.subgroups,
    probe.probe,
    learning_curve.learning_curve,
    query.sql,
    query.report,
    exchange.export,
    history.log,
    history.reproduce,
    upkeep.verify,
    upkeep.compact,
    upkeep.gc,
    upkeep.forget,
    admin.doctor,
    admin.demo,
):
    app.command()(command)
app.add_typer(models.models, name="models")
app.add_typer(query.queries, name="queries")
