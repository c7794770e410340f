"""The command that compares runs."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from .options import FormatOption, JsonOption, as_format, open_store
from .output import emit, notice

__all__ = ["compare"]


class Correction(StrEnum):
    """How p-values are adjusted for the number of comparisons."""

    holm = "holm"
    bh = "bh"


def compare(
    context: typer.Context,
    runs: Annotated[list[str], typer.Argument(help="Ids of runs, or their beginnings.")],
    metric: Annotated[
        str | None, typer.Option("--metric", help="Metric; default the first of the task's.")
    ] = None,
    correction: Annotated[
        Correction, typer.Option("--correction", help="For several comparisons.")
    ] = Correction.holm,
    resamples: Annotated[
        int, typer.Option("--resamples", help="Bootstrap resamples, and permutations.", min=1)
    ] = 2000,
    seed: Annotated[int, typer.Option("--seed", help="Seed of both.")] = 0,
    level: Annotated[float, typer.Option("--level", help="Confidence level.")] = 0.95,
    form: FormatOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say whether one run is better than another: difference, interval, p and a sentence.

    Example: ecgstore compare 1f0c 9ab2 --metric AUROC
    """
    with open_store(context) as store:
        result = store.compare(
            runs,
            metric=metric,
            correction=correction.value,
            resamples=resamples,
            seed=seed,
            level=level,
        )
    emit(result.rows, form=as_format(form, as_json=as_json))
    for line in (*result.sentence.splitlines(), *result.notes):
        notice(line)
