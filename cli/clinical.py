"""The command of clinical figures: thresholds, calibration, decision curves."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from .options import FormatOption, JsonOption, as_format, open_store
from .output import emit, notice

__all__ = ["clinical"]


class Recalibrate(StrEnum):
    """How scores become probabilities."""

    platt = "platt"
    isotonic = "isotonic"


class Show(StrEnum):
    """Which rows are printed."""

    operating = "operating"
    calibration = "calibration"
    reliability = "reliability"
    decision = "decision"


def clinical(
    context: typer.Context,
    run: Annotated[str, typer.Argument(help="Id of a run, or the beginning of one.")],
    sensitivity: Annotated[
        list[float],
        typer.Option("--sensitivity", help="Sensitivity to reach on training records."),
    ] = [0.9, 0.95, 0.99],  # noqa: B006  Typer copies it
    specificity: Annotated[
        list[float] | None,
        typer.Option("--specificity", help="Specificity to reach on training records."),
    ] = None,
    threshold: Annotated[
        list[float] | None, typer.Option("--threshold", help="Threshold given beforehand.")
    ] = None,
    youden: Annotated[
        bool, typer.Option("--youden", help="Add the threshold of Youden's index.")
    ] = False,
    prevalence: Annotated[
        list[float] | None,
        typer.Option("--prevalence", help="Also tell predictive values at this prevalence."),
    ] = None,
    recalibrate: Annotated[
        Recalibrate | None,
        typer.Option("--recalibrate", help="Recalibrate on out-of-fold scores first."),
    ] = None,
    show: Annotated[Show, typer.Option("--show", help="Which rows to print.")] = Show.operating,
    resamples: Annotated[
        int, typer.Option("--resamples", help="Bootstrap resamples.", min=100)
    ] = 2000,
    seed: Annotated[int, typer.Option("--seed", help="Seed of the bootstrap.")] = 0,
    form: FormatOption = None,
    as_json: JsonOption = False,
) -> None:
    """Tell what a run's scores do at chosen thresholds, whether they are calibrated, and of use.

    Example: ecgstore clinical 3f2a9c --sensitivity 0.95 --prevalence 0.05 --recalibrate platt
    """
    with open_store(context) as store:
        result = store.clinical(
            run,
            sensitivities=sensitivity,
            specificities=specificity or (),
            thresholds=threshold or (),
            youden=youden,
            prevalence=prevalence,
            recalibrate=recalibrate.value if recalibrate else None,
            resamples=resamples,
            seed=seed,
        )
    emit(result.rows_of(show.value), form=as_format(form, as_json=as_json))
    for note in result.notes:
        notice(note)
