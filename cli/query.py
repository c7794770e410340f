"""Commands that look: sql, queries, report."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from ecgstore.errors import UsageError

from .options import (
    FormatOption,
    JsonOption,
    as_format,
    complete_query,
    globals_of,
    key_values,
    open_store,
)
from .output import emit, live, notice

__all__ = ["queries", "report", "sql"]


def sql(
    context: typer.Context,
    query: Annotated[
        str | None, typer.Argument(help="One SQL statement; - or a pipe reads stdin.")
    ] = None,
    file: Annotated[
        Path | None, typer.Option("-f", "--file", help="File with the statement.")
    ] = None,
    name: Annotated[
        str | None,
        typer.Option("-n", "--name", help="A named query.", autocompletion=complete_query),
    ] = None,
    parameter: Annotated[
        list[str] | None,
        typer.Option("-p", "--param", metavar="KEY=VALUE", help="Parameter of the named query."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("-o", "--out", help="File to write; its suffix is the format.")
    ] = None,
    init: Annotated[
        bool,
        typer.Option("--init", help="Print SQL that gives any DuckDB client these tables."),
    ] = False,
    form: FormatOption = None,
    as_json: JsonOption = False,
) -> None:
    """Ask anything of the tables in SQL.

    Example: ecgstore sql "select dataset, count(*) from records group by dataset"
    """
    with open_store(context) as store:
        if init:
            sys.stdout.write(store.init_script())
            return
        if name is not None:
            rows = store.query(name, **key_values(parameter)).to_arrow_table()
        else:
            rows = store.table(_statement(query, file))
        emit(rows, form=as_format(form, as_json=as_json), out=out)


def _statement(query: str | None, file: Path | None) -> str:
    if query is not None and file is not None:
        msg = "A query and --file were both given."
        raise UsageError(msg, hint="Give one of them.")
    if file is not None:
        try:
            return file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            msg = f"The query file {str(file)!r} could not be read: {error}."
            raise UsageError(msg) from error
    if query == "-" or (query is None and not sys.stdin.isatty()):
        query = sys.stdin.read()
    if not query or not query.strip():
        msg = "There is no query to run."
        raise UsageError(msg, hint="Give SQL, -f FILE, or -n NAME (see: ecgstore queries list).")
    return query


queries = typer.Typer(no_args_is_help=True, help="List and show the named queries.")


@queries.command("list")
def list_(form: FormatOption = None, as_json: JsonOption = False) -> None:
    """List the named queries with their parameters.

    Example: ecgstore queries list
    """
    import ecgstore

    rows: list[dict[str, object]] = [
        {"query": name, "answers": one.summary, "parameters": ", ".join(one.parameters)}
        for name, one in ecgstore.queries().items()
    ]
    emit(rows, form=as_format(form, as_json=as_json))


@queries.command()
def show(
    name: Annotated[str, typer.Argument(help="Query.", autocompletion=complete_query)],
) -> None:
    """Print the SQL of a named query.

    Example: ecgstore queries show scores
    """
    import ecgstore

    known = ecgstore.queries()
    if name not in known:
        raise ecgstore.errors.UnknownNameError(name, kind="query", known=known)
    sys.stdout.write(known[name].text)


class ReportForm(StrEnum):
    """The forms of a report."""

    html = "html"
    md = "md"
    json = "json"


def report(
    context: typer.Context,
    out: Annotated[Path, typer.Option("-o", "--out", help="File to write.")] = Path("report.html"),
    split_name: Annotated[
        str | None, typer.Option("--split", help="Split to report; default the only one.")
    ] = None,
    title: Annotated[str | None, typer.Option("--title", help="Title of the page.")] = None,
    by: Annotated[
        list[str] | None,
        typer.Option(
            "--by",
            metavar="SQL",
            help="Groups of records to tell apart; default sex and age >= 65, where known.",
        ),
    ] = None,
    form: Annotated[
        ReportForm | None,
        typer.Option(
            "--format", help="Page, Markdown, or figures alone; default by the file's suffix."
        ),
    ] = None,
) -> None:
    """Write the result's model card: one self-contained page, or the same as Markdown or JSON.

    Example: ecgstore report --split mi10 --by device -o mi10.html
    """
    told = None if form is None else form.value
    with open_store(context) as store, live(quiet=globals_of(context).quiet) as progress:
        result = store.report(
            out, split=split_name, title=title, by=by or (), form=told, progress=progress
        )
    notice(f"{'written' if result.written else 'unchanged'}: {result.path}")
