"""The command that tells what several models add to each other."""

from __future__ import annotations

from typing import Annotated

import typer

from .options import (
    Features,
    FormatOption,
    JsonOption,
    SplitName,
    as_format,
    open_store,
)
from .output import emit

__all__ = ["complementarity"]


def complementarity(
    context: typer.Context,
    features: Features,
    split_name: SplitName,
    fused: Annotated[str, typer.Option("--fused", help="Feature set that joins them, or its run.")],
    task: Annotated[
        str | None, typer.Option("--task", help="One of the split's tasks; default the newest.")
    ] = None,
    classifier: Annotated[
        str | None,
        typer.Option("--classifier", help="Whose runs; default that of the fused set's newest."),
    ] = None,
    resamples: Annotated[
        int, typer.Option("--resamples", help="Bootstrap resamples of patients.", min=100)
    ] = 2000,
    seed: Annotated[int, typer.Option("--seed", help="Seed of the resamples.")] = 0,
    form: FormatOption = None,
    as_json: JsonOption = False,
) -> None:
    """Tell how alike models are, which errors they share, and what each adds to the fused set.

    Example: ecgstore complementarity --features stmem --features ecgfm --fused fusion --split mi10
    """
    with open_store(context) as store:
        result = store.complementarity(
            split_name,
            features=features,
            fused=fused,
            task=task,
            classifier=classifier,
            resamples=resamples,
            seed=seed,
        )
    emit(result.rows, form=as_format(form, as_json=as_json))
