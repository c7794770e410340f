"""Commands of learning: split, fuse, train, evaluate, project."""

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
    SplitName,
    as_format,
    complete_model,
    globals_of,
    key_values,
    open_store,
)
from .output import emit, live, notice

__all__ = ["evaluate", "fuse", "project", "split", "train"]


class Group(StrEnum):
    """What is kept on one side of a split."""

    patient_id = "patient_id"
    none = "none"


class Scale(StrEnum):
    """How the numbers of each model are scaled before they are joined."""

    minmax = "minmax"
    zscore = "zscore"
    none = "none"


class Fit(StrEnum):
    """On which records scaling is fitted."""

    train = "train"
    all = "all"


class Missing(StrEnum):
    """What a record without one of the vectors does."""

    drop = "drop"
    error = "error"


class Method(StrEnum):
    """How many dimensions become two."""

    tsne = "tsne"
    pca = "pca"
    umap = "umap"


def split(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="A new name for the split.")],
    task: Annotated[str, typer.Option("--task", help="Task to stratify by.")],
    repeats: Annotated[int, typer.Option("--repeats", help="Reshuffles.", min=1)] = 10,
    test_size: Annotated[float, typer.Option("--test-size", help="Part held out.")] = 0.2,
    seed: Annotated[int, typer.Option("--seed", help="Seed of the first reshuffle.")] = 0,
    group: Annotated[
        Group, typer.Option("--group", help="Keep patients on one side, or none.")
    ] = Group.patient_id,
    dry_run: DryRun = False,
    form: FormatOption = None,
    as_json: JsonOption = False,
) -> None:
    """Draw stratified train/test reshuffles; patients never cross unless --group none.

    Example: ecgstore split mi10 --task MI --repeats 10 --test-size 0.2 --seed 0
    """
    with open_store(context) as store:
        result = store.split(
            name,
            task=task,
            repeats=repeats,
            test_size=test_size,
            seed=seed,
            group=group.value,
            dry_run=dry_run,
        )
    emit(result.rows, form=as_format(form, as_json=as_json))
    if result.unidentified and group is Group.patient_id:
        notice(f"{result.unidentified} records have no patient id: each is taken as a patient.")
    if not result.added and not dry_run:
        notice(f"unchanged: {name}")


def fuse(
    context: typer.Context,
    model: Annotated[
        list[str],
        typer.Argument(
            help="Models to join, in order; model@version or model:readout where several fit.",
            autocompletion=complete_model,
        ),
    ],
    name: Annotated[str, typer.Option("--name", help="A new name for the feature set.")],
    scale: Annotated[Scale, typer.Option("--scale", help="Scaling.")] = Scale.minmax,
    fit: Annotated[
        Fit, typer.Option("--fit", help="Fit the scaling on training records, or on all.")
    ] = Fit.train,
    missing: Annotated[
        Missing, typer.Option("--missing", help="Drop records that lack a vector, or refuse.")
    ] = Missing.drop,
    dry_run: DryRun = False,
    form: FormatOption = None,
    as_json: JsonOption = False,
) -> None:
    """Join the vectors of several models under one name.

    Example: ecgstore fuse stmem ecgfm --name fusion
    """
    with open_store(context) as store:
        result = store.fuse(
            model,
            name=name,
            scale=scale.value,
            fit=fit.value,
            missing=missing.value,
            dry_run=dry_run,
        )
    emit(result.rows, form=as_format(form, as_json=as_json))
    if not result.added and not dry_run:
        notice(f"unchanged: {name}")


def train(
    context: typer.Context,
    features: Annotated[str, typer.Option("--features", help="Feature set to train on.")],
    split_name: SplitName,
    classifier: Classifier = "xgboost",
    settings: SetOption = None,
    dry_run: DryRun = False,
    form: FormatOption = None,
    as_json: JsonOption = False,
) -> None:
    """Fit a classifier on each reshuffle and keep it with its test predictions.

    Example: ecgstore train --features fusion --split mi10 --set max_depth=4
    """
    with open_store(context) as store, live(quiet=globals_of(context).quiet) as progress:
        result = store.train(
            features,
            split_name,
            classifier=classifier,
            params=key_values(settings),
            dry_run=dry_run,
            progress=progress,
        )
    emit(result.rows, form=as_format(form, as_json=as_json))


def evaluate(
    context: typer.Context,
    features: Features,
    split_name: SplitName,
    classifier: Classifier = "xgboost",
    baseline: Annotated[
        str | None, typer.Option("--baseline", help="Also score this: resnet50 on raw signals.")
    ] = None,
    settings: SetOption = None,
    dry_run: DryRun = False,
    form: FormatOption = None,
    as_json: JsonOption = False,
) -> None:
    """Score feature sets over the reshuffles of a split: AUROC and AUCPR, mean and deviation.

    Example: ecgstore evaluate --features stmem --features ecgfm --features fusion --split mi10
    """
    with open_store(context) as store, live(quiet=globals_of(context).quiet) as progress:
        result = store.evaluate(
            features,
            split_name,
            classifier=classifier,
            baseline=baseline,
            params=key_values(settings),
            dry_run=dry_run,
            progress=progress,
        )
    emit(result.rows, form=as_format(form, as_json=as_json))


def project(
    context: typer.Context,
    features: Annotated[str, typer.Option("--features", help="Feature set to lay out.")],
    split_name: Annotated[
        str | None, typer.Option("--split", help="Split whose training part is drawn.")
    ] = None,
    method: Annotated[Method, typer.Option("--method", help="Method.")] = Method.tsne,
    n: Annotated[int, typer.Option("--n", help="Records drawn, half of each class.", min=4)] = 500,
    seed: Annotated[int, typer.Option("--seed", help="Seed of sample and layout.")] = 0,
    out: Annotated[Path, typer.Option("-o", "--out", help="Picture to write.")] = Path(
        "projection.png"
    ),
) -> None:
    """Draw training records in two dimensions, half of each class.

    Example: ecgstore project --features fusion --split mi10 -o fusion.png
    """
    with open_store(context) as store:
        projection = store.project(features, split=split_name, method=method.value, n=n, seed=seed)
    projection.save(out)
    notice(f"written: {out}")
