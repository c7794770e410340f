"""The command of splits: divide a cohort, or prove of a stored split that nothing crosses."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from ecgstore.errors import UsageError

from .options import DryRun, FormatOption, JsonOption, TargetOption, as_format, open_store
from .output import Format, emit, notice

__all__ = ["split"]


class Group(StrEnum):
    """What is kept on one side of a split."""

    patient_id = "patient_id"
    none = "none"


class Method(StrEnum):
    """How records are divided."""

    shuffle = "shuffle"
    kfold = "kfold"
    strat_fold = "strat_fold"
    temporal = "temporal"
    leave_one_site_out = "leave-one-site-out"
    leave_one_device_out = "leave-one-device-out"
    leave_one_dataset_out = "leave-one-dataset-out"


def split(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="A new name for the split; with --check, its name.")],
    task: Annotated[
        list[str] | None,
        typer.Option("--task", help="Task to stratify by; several, or a pattern such as scp:*."),
    ] = None,
    method: Annotated[Method, typer.Option("--method", help="How to divide.")] = Method.shuffle,
    repeats: Annotated[
        int | None,
        typer.Option(
            "--repeats", help="Reshuffles, default 10; of kfold, rounds, default 1.", min=1
        ),
    ] = None,
    folds: Annotated[int, typer.Option("--folds", help="Folds of kfold.", min=2)] = 5,
    test_size: Annotated[
        float, typer.Option("--test-size", help="Part that shuffle holds out.")
    ] = 0.2,
    seed: Annotated[int, typer.Option("--seed", help="Seed of the first reshuffle.")] = 0,
    group: Annotated[
        Group, typer.Option("--group", help="Keep patients on one side, or none.")
    ] = Group.patient_id,
    before: Annotated[
        str | None,
        typer.Option("--before", metavar="DATE", help="Of temporal: learn from what is older."),
    ] = None,
    inner: Annotated[
        int, typer.Option("--inner", help="Also store so many folds of each training part.", min=0)
    ] = 0,
    target: TargetOption = None,
    check: Annotated[
        bool, typer.Option("--check", help="Prove that nothing crosses; code 1 if something does.")
    ] = False,
    dry_run: DryRun = False,
    form: FormatOption = None,
    as_json: JsonOption = False,
) -> None:
    """Divide a task's records into training and test parts; patients cross only by --group none.

    Example: ecgstore split mi10 --task MI --repeats 10 --test-size 0.2 --seed 0
    """
    if check or not task:
        _prove(context, name, task, form=as_format(form, as_json=as_json), check=check)
        return
    with open_store(context) as store:
        result = store.split(
            name,
            task=task,
            method=method.value,
            repeats=repeats,
            folds=folds,
            test_size=test_size,
            seed=seed,
            group=group.value,
            before=before,
            inner=inner,
            target=None if target is None else target.value,
            dry_run=dry_run,
        )
    emit(result.rows, form=as_format(form, as_json=as_json))
    for sentence in result.notices:
        notice(sentence)
    if not result.added and not dry_run:
        notice(f"unchanged: {name}")


def _prove(
    context: typer.Context,
    name: str,
    task: list[str] | None,
    *,
    form: Format | None,
    check: bool,
) -> None:
    if not check or task:
        msg = "Either a task is needed, or --check without one."
        raise UsageError(msg, hint="Name it with --task, such as --task MI.")
    with open_store(context) as store:
        result = store.check_split(name)
    emit(result.rows, form=form)
    for sentence in (*result.notes, result.summary):
        notice(sentence)
    if result.crossing:
        raise typer.Exit(1)
