"""Commands of learning: fuse, train, project."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from .options import (
    Classifier,
    DryRun,
    FormatOption,
    JsonOption,
    SetOption,
    SplitName,
    TargetOption,
    as_format,
    complete_model,
    globals_of,
    key_values,
    open_store,
)
from .output import emit, live, notice

__all__ = ["fuse", "project", "train"]


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
    """What becomes of a record without one of the vectors."""

    drop = "drop"
    error = "error"
    keep = "keep"


class Fusion(StrEnum):
    """How several vectors become one, or several scores."""

    concat = "concat"
    pca = "pca"
    whiten = "whiten"
    cca = "cca"
    average = "average"
    rank = "rank"
    stacking = "stacking"
    attention = "attention"


class Method(StrEnum):
    """How many dimensions become two."""

    tsne = "tsne"
    pca = "pca"
    umap = "umap"


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
    method: Annotated[
        Fusion, typer.Option("--method", help="Join vectors side by side, or otherwise.")
    ] = Fusion.concat,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Set a parameter of the method."),
    ] = None,
    scale: Annotated[
        Scale | None, typer.Option("--scale", help="Scaling of concat; default minmax.")
    ] = None,
    fit: Annotated[
        Fit, typer.Option("--fit", help="Fit the scaling on training records, or on all.")
    ] = Fit.train,
    missing: Annotated[
        Missing,
        typer.Option("--missing", help="Drop records that lack a vector, refuse, or keep them."),
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
            method=method.value,
            settings=key_values(settings),
            scale=scale.value if scale else None,
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
    task: Annotated[
        str | None, typer.Option("--task", help="One of the split's tasks; default its only one.")
    ] = None,
    target: TargetOption = None,
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
            task=task,
            target=None if target is None else target.value,
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
