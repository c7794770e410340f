"""The command that says what is in vectors."""

from __future__ import annotations

from typing import Annotated

import typer

from .options import Features, FormatOption, JsonOption, as_format, globals_of, open_store
from .output import emit, live, notice

__all__ = ["probe"]


def probe(
    context: typer.Context,
    features: Features,
    concept: Annotated[
        list[str] | None,
        typer.Option("--concept", help="Such as age, qrs or device; default all that are known."),
    ] = None,
    task: Annotated[
        str | None, typer.Option("--task", help="Hold this task against the concepts.")
    ] = None,
    split_name: Annotated[
        str | None, typer.Option("--split", help="Only its records, and its task.")
    ] = None,
    folds: Annotated[int, typer.Option("--folds", help="Folds; patients stay whole.", min=3)] = 5,
    resamples: Annotated[
        int, typer.Option("--resamples", help="Bootstrap resamples.", min=100)
    ] = 2000,
    seed: Annotated[int, typer.Option("--seed", help="Seed of folds and bootstrap.")] = 0,
    form: FormatOption = None,
    as_json: JsonOption = False,
) -> None:
    """Read age, sex, intervals, site and device off vectors; hold a task against them.

    Example: ecgstore probe --features stmem --features ecgfm --task MI
    """
    with open_store(context) as store, live(quiet=globals_of(context).quiet) as progress:
        result = store.probe(
            features,
            concepts=concept,
            task=task,
            split=split_name,
            folds=folds,
            resamples=resamples,
            seed=seed,
            progress=progress,
        )
    emit(result.rows, form=as_format(form, as_json=as_json))
    for sentence in result.sentences:
        notice(sentence)
