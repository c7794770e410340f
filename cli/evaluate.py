"""Commands that score: evaluate feature sets, predict with what was trained."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from .options import (
    Classifier,
    DryRun,
    Features,
    FormatOption,
    JsonOption,
    SetOption,
    TargetOption,
    as_format,
    globals_of,
    key_values,
    open_store,
)
from .output import emit, live, notice

__all__ = ["evaluate", "predict"]


class Protocol(StrEnum):
    """How an evaluation is done."""

    sound = "sound"
    paper = "paper"


def evaluate(
    context: typer.Context,
    features: Features,
    split_name: Annotated[
        str | None,
        typer.Option("--split", help="Name given to `ecgstore split`; default a protocol's own."),
    ] = None,
    protocol: Annotated[
        list[Protocol] | None,
        typer.Option("--protocol", help="Draw its split and follow it; default sound."),
    ] = None,
    task: Annotated[
        list[str] | None,
        typer.Option("--task", help="Task, or a pattern such as 'scp:*'; may be repeated."),
    ] = None,
    target: TargetOption = None,
    repeats: Annotated[int, typer.Option("--repeats", help="Reshuffles.", min=1)] = 10,
    test_size: Annotated[float, typer.Option("--test-size", help="Part held out.")] = 0.2,
    seed: Annotated[int, typer.Option("--seed", help="Seed of the draw.")] = 0,
    only: Annotated[
        list[int] | None,
        typer.Option("--repeat", help="Score on this reshuffle alone; may be repeated.", min=0),
    ] = None,
    classifier: Classifier = "xgboost",
    baseline: Annotated[
        str | None, typer.Option("--baseline", help="Also score this: resnet50 on raw signals.")
    ] = None,
    settings: SetOption = None,
    out_of_fold: Annotated[
        int | None,
        typer.Option(
            "--out-of-fold",
            help="Inner folds that score training records, for thresholds; default 5 under the "
            "protocol sound, else 0.",
            min=0,
        ),
    ] = None,
    tune: Annotated[
        float, typer.Option("--tune", help="Seconds of tuning in each training part.", min=0)
    ] = 0,
    report: Annotated[
        Path | None, typer.Option("-o", "--out", help="Also write the report of the last split.")
    ] = None,
    by: Annotated[
        list[str] | None, typer.Option("--by", help="Subgroup of the report: any SQL expression.")
    ] = None,
    dry_run: DryRun = False,
    form: FormatOption = None,
    as_json: JsonOption = False,
) -> None:
    """Score feature sets over a split, or under a protocol that draws its own.

    Example: ecgstore evaluate --protocol sound --task MI --features stmem --features fusion
    """
    with open_store(context) as store, live(quiet=globals_of(context).quiet) as progress:
        result = store.evaluate(
            features,
            split_name,
            protocol=[one.value for one in protocol or ()],
            task=task or (),
            target=None if target is None else target.value,
            repeats=repeats,
            test_size=test_size,
            seed=seed,
            only=only or (),
            classifier=classifier,
            baseline=baseline,
            params=key_values(settings),
            out_of_fold=out_of_fold,
            tune=tune,
            dry_run=dry_run,
            progress=progress,
        )
        if report is not None and not dry_run:
            store.report(report, split=result.split_id, by=by or (), progress=progress)
    emit(result.rows, form=as_format(form, as_json=as_json))
    if report is not None and not dry_run:
        notice(f"written: {report}")


def predict(
    context: typer.Context,
    run: Annotated[str, typer.Argument(help="Id of a trained run, or the beginning of it.")],
    where: Annotated[
        str | None, typer.Option("--where", help="SQL predicate over records; default all.")
    ] = None,
    form: FormatOption = None,
    as_json: JsonOption = False,
) -> None:
    """Score records with the classifiers that train kept, never by one that knows the patient.

    Example: ecgstore predict 5f3a --where "dataset = 'new'"
    """
    with open_store(context) as store, live(quiet=globals_of(context).quiet) as progress:
        result = store.predict(run, where=where, progress=progress)
    emit(result.rows, form=as_format(form, as_json=as_json))
    for note in result.notes:
        notice(note)
