"""The command of learning curves."""

from __future__ import annotations

from typing import Annotated

import typer

from .options import (
    Features,
    FormatOption,
    JsonOption,
    SetOption,
    SplitName,
    as_format,
    globals_of,
    key_values,
    open_store,
)
from .output import emit, live, notice

__all__ = ["learning_curve"]


def learning_curve(
    context: typer.Context,
    features: Features,
    split_name: SplitName,
    fraction: Annotated[
        list[float], typer.Option("--fraction", help="Part of the training patients.")
    ] = [0.05, 0.1, 0.2, 0.4, 0.7, 1.0],  # noqa: B006  Typer copies it
    classifier: Annotated[str, typer.Option("--classifier", help="What to fit.")] = "logistic",
    baseline: Annotated[
        str | None,
        typer.Option("--baseline", help="Count labels saved against this set, or resnet50."),
    ] = None,
    metric: Annotated[
        str | None, typer.Option("--metric", help="Metric; default the first of the task's.")
    ] = None,
    task: Annotated[
        str | None, typer.Option("--task", help="A task of the split; default its only one.")
    ] = None,
    settings: SetOption = None,
    resamples: Annotated[
        int, typer.Option("--resamples", help="Bootstrap resamples.", min=100)
    ] = 1000,
    seed: Annotated[int, typer.Option("--seed", help="Seed of parts and bootstrap.")] = 0,
    fits: Annotated[
        bool, typer.Option("--fits", help="Print power laws and labels saved, not points.")
    ] = False,
    form: FormatOption = None,
    as_json: JsonOption = False,
) -> None:
    """Learn from parts of the training records: the curve, its power law, the labels it saves.

    Example: ecgstore learning-curve --features fusion --split mi10 --baseline stmem
    """
    with open_store(context) as store, live(quiet=globals_of(context).quiet) as progress:
        result = store.learning_curve(
            features,
            split_name,
            fractions=fraction,
            classifier=classifier,
            baseline=baseline,
            metric=metric,
            task=task,
            params=key_values(settings),
            resamples=resamples,
            seed=seed,
            progress=progress,
        )
    emit(result.fit_rows if fits else result.rows, form=as_format(form, as_json=as_json))
    for sentence in result.sentences:
        notice(sentence)
