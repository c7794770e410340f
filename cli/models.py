"""Commands about encoders: list, show, pull, check, convert, seen, and contract diff."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .options import (
    FormatOption,
    JsonOption,
    as_format,
    complete_model,
    open_store,
    read_settings,
)
from .output import Format, emit, notice

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["models"]

ModelName = Annotated[
    str, typer.Argument(metavar="MODEL", help="Registry name.", autocompletion=complete_model)
]
Contract = Annotated[
    str,
    typer.Argument(
        metavar="MODEL[:VARIANT]",
        help="Registry name, with :variant where not the default.",
        autocompletion=complete_model,
    ),
]
Weights = Annotated[Path, typer.Option("--weights", help="Checkpoint file.")]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="What the tensors do not tell, such as heads=4; may be repeated.",
    ),
]

models = typer.Typer(
    no_args_is_help=True, help="List, show, compare, fetch, check and convert encoders."
)
contract = typer.Typer(no_args_is_help=True, help="Compare what encoders do with a record.")
models.add_typer(contract, name="contract")

_AT_A_GLANCE = (
    "model",
    "rate_hz",
    "window_s",
    "n_leads",
    "missing_leads",
    "variants",
    "dim",
    "licence",
)
"""Columns of the table; the other forms have them all."""

_WORD = 24  # characters; what is longer is read as a sentence


def _emit(
    rows: list[dict[str, object]], form: Format | None, *, columns: Sequence[str] = ()
) -> None:
    """Print rows, as a table with these columns only, where a list is one cell."""
    aside = set(rows[0]) - set(columns) if rows and columns else set()
    if form is Format.table or (form is None and sys.stdout.isatty()):
        rows = [{name: _cell(value) for name, value in row.items()} for row in rows]
    emit(rows, form=form, aside=aside)


def _cell(value: object) -> object:
    """Return a list as text: words in one line, sentences in a line each."""
    if not isinstance(value, list):
        return value
    texts = [str(one) for one in value]
    return (", " if all(len(text) < _WORD for text in texts) else "\n").join(texts)


@models.command("list")
def list_(
    pattern: Annotated[str, typer.Argument(help="Shell pattern, such as stmem*.")] = "*",
    form: FormatOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the encoders with what they need; --json has the whole contract of each.

    Example: ecgstore models list "ecg*"
    """
    import ecgstore

    rows = ecgstore.list_contracts(pattern)
    _emit(rows, as_format(form, as_json=as_json), columns=_AT_A_GLANCE)


@models.command()
def show(model: Contract, form: FormatOption = None, as_json: JsonOption = False) -> None:
    """Show everything known of an encoder: contract, licence, citations.

    Example: ecgstore models show stmem
    """
    import ecgstore

    _emit(ecgstore.show_contract(model), as_format(form, as_json=as_json))


@contract.command()
def diff(
    first: Contract,
    second: Contract,
    same: Annotated[bool, typer.Option("--same", help="Also show what is equal.")] = False,
    form: FormatOption = None,
    as_json: JsonOption = False,
) -> None:
    """Compare two contracts: a row for each field that differs, preparation line by line.

    Example: ecgstore models contract diff ecgfm stmem:centre
    """
    import ecgstore

    rows = ecgstore.diff_contracts(first, second, same=same)
    _emit(rows, as_format(form, as_json=as_json))


@models.command()
def pull(
    model: ModelName,
    revision: Annotated[
        str | None,
        typer.Option("--revision", metavar="SHA", help="Commit to fetch, 40 hexadecimal digits."),
    ] = None,
    accept_licence: Annotated[
        bool, typer.Option("--accept-licence", help="Accept a licence that asks more than MIT.")
    ] = False,
) -> None:
    """Fetch published weights, check them, and print their path; a second time needs no network.

    Example: ecgstore embed --model ecgfm --weights "$(ecgstore models pull ecgfm)"
    """
    import ecgstore

    path = ecgstore.pull_weights(
        model, revision=revision, accept_licence=accept_licence, tell=notice
    )
    sys.stdout.write(f"{path}\n")


@models.command()
def check(
    model: ModelName,
    weights: Weights,
    settings: Settings = None,
    form: FormatOption = None,
    as_json: JsonOption = False,
) -> None:
    """Check a checkpoint: container, keys, shapes, values; ends with code 1 if one fails.

    Example: ecgstore models check ecgfm --weights ecgfm.pt
    """
    import ecgstore

    rows = ecgstore.check_weights(model, weights, settings=read_settings(settings))
    emit(rows, form=as_format(form, as_json=as_json))
    if any(row["result"] != "ok" for row in rows):
        raise typer.Exit(1)


@models.command()
def convert(
    model: ModelName,
    weights: Weights,
    out: Annotated[Path, typer.Option("-o", "--out", help="The .safetensors file to write.")],
    settings: Settings = None,
) -> None:
    """Convert a checkpoint to safetensors, which holds the encoder alone.

    Example: ecgstore models convert ecgfm --weights ecgfm.pt -o ecgfm.safetensors
    """
    import ecgstore

    ecgstore.convert_weights(model, weights, out, settings=read_settings(settings))
    notice(f"written: {out}")


@models.command()
def seen(
    context: typer.Context,
    model: ModelName,
    dataset: Annotated[
        str, typer.Option("--dataset", help="Name of the dataset it was pretrained on.")
    ],
    source: Annotated[str, typer.Option("--source", help="Where that is said: paper, page.")],
) -> None:
    """Declare that a model was pretrained on a dataset, which `evaluate` then marks.

    Example: ecgstore models seen ecgfm --dataset mine --source "our own finetuning, 2024"
    """
    with open_store(context) as store:
        store.declare_seen(model, dataset=dataset, source=source)
    notice(f"declared: {model} has seen {dataset}")
