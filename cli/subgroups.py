"""The command that says for whom a run works."""

from __future__ import annotations

from typing import Annotated

import typer

from .options import FormatOption, JsonOption, as_format, open_store
from .output import emit, notice

__all__ = ["subgroups"]


def subgroups(
    context: typer.Context,
    run: Annotated[str, typer.Argument(help="Id of a run, or the beginning of one.")],
    by: Annotated[
        list[str],
        typer.Option("--by", help="SQL expression over records, such as sex or age >= 65."),
    ],
    metric: Annotated[
        list[str] | None, typer.Option("--metric", help="Metric; default the first of the task's.")
    ] = None,
    least: Annotated[
        int,
        typer.Option("--least", help="Positives and negatives a group needs for figures.", min=1),
    ] = 10,
    resamples: Annotated[
        int, typer.Option("--resamples", help="Bootstrap resamples.", min=100)
    ] = 2000,
    seed: Annotated[int, typer.Option("--seed", help="Seed of the bootstrap.")] = 0,
    level: Annotated[float, typer.Option("--level", help="Confidence level.")] = 0.95,
    form: FormatOption = None,
    as_json: JsonOption = False,
) -> None:
    """Tell how well a run does in each group of records, and whether groups differ.

    Example: ecgstore subgroups 3f2a9c --by sex --by "age >= 65" --by device
    """
    with open_store(context) as store:
        result = store.subgroups(
            run, by, metrics=metric, least=least, resamples=resamples, seed=seed, level=level
        )
    emit(result.rows, form=as_format(form, as_json=as_json))
    for sentence in result.sentences:
        notice(sentence)
