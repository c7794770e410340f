"""Options that several commands share, each written once, and what the global ones hold."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ecgstore.errors import UsageError

from .output import Format

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ecgstore import Store

__all__ = [
    "Accumulate",
    "CheckpointEvery",
    "Classifier",
    "DryRun",
    "Features",
    "FormatOption",
    "Globals",
    "JsonOption",
    "KeepIds",
    "LearningRate",
    "OneDevice",
    "Overwrite",
    "Precision",
    "PrecisionOption",
    "Resume",
    "SetOption",
    "SplitName",
    "Target",
    "TargetOption",
    "TrainingBatch",
    "TrainingSeed",
    "Where",
    "as_format",
    "globals_of",
    "key_values",
    "mapping",
    "open_store",
    "read_settings",
    "settings_of",
]


@dataclass(frozen=True)
class Globals:
    """The options before the command."""

    warehouse: Path | None = None
    at: str | None = None
    debug: bool = False
    quiet: bool = False


class Target(StrEnum):
    """What the labels of a task say."""

    binary = "binary"
    multiclass = "multiclass"
    continuous = "continuous"
    survival = "survival"


class Precision(StrEnum):
    """Arithmetic of an encoder."""

    auto = "auto"
    fp32 = "fp32"
    bf16 = "bf16"


Where = Annotated[
    str | None, typer.Option("--where", help="SQL predicate over records, as age >= 65.")
]
PrecisionOption = Annotated[
    Precision, typer.Option("--precision", help="auto takes bf16 where the hardware has it.")
]
OneDevice = Annotated[
    str, typer.Option("--device", help="cpu, cuda, or auto.", envvar="ECGSTORE_DEVICE")
]
TrainingBatch = Annotated[
    int | None,
    typer.Option("--batch-size", help="Records an update; default the recipe's.", min=1),
]
Accumulate = Annotated[
    int, typer.Option("--accumulate", help="Parts of a batch, computed in turn.", min=1)
]
LearningRate = Annotated[
    float | None,
    typer.Option("--learning-rate", help="Highest learning rate; default the recipe's."),
]
TrainingSeed = Annotated[int, typer.Option("--seed", help="Seed of all that is random.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with the run in that folder.")]
CheckpointEvery = Annotated[
    int | None,
    typer.Option(
        "--checkpoint-every", help="Updates between checkpoints; default a 20th of all.", min=1
    ),
]


def globals_of(context: typer.Context) -> Globals:
    """Return the global options of a running command."""
    found = context.find_object(Globals)
    return found if found is not None else Globals()


def open_store(context: typer.Context) -> Store:
    """Return the store the global options name."""
    import ecgstore

    given = globals_of(context)
    return ecgstore.connect(given.warehouse, at=given.at)


def as_format(form: Format | None, *, as_json: bool) -> Format | None:
    """Merge ``--format`` and its short form ``--json``."""
    return Format.json if as_json else form


def key_values(pairs: Sequence[str] | None) -> dict[str, str]:
    """Parse ``k=v`` options.

    Raises:
        UsageError: A pair has no ``=``.
    """
    parsed = {}
    for pair in pairs or ():
        key, equals, value = pair.partition("=")
        if not equals or not key:
            msg = f"{pair!r} is not of the form key=value."
            raise UsageError(msg)
        parsed[key] = value
    return parsed


def read_settings(pairs: Sequence[str] | None) -> dict[str, object]:
    """Parse ``k=v`` options whose values may be numbers or truth values."""
    return {key: _plain(value) for key, value in key_values(pairs).items()}


def settings_of(models: Sequence[str], pairs: Sequence[str] | None) -> list[dict[str, object]]:
    """Parse ``model.k=v`` options, for one model ``k=v``; returns the settings of each model.

    Raises:
        UsageError: One is for a model that is not there.
    """
    told: dict[str, dict[str, object]] = {name.partition(":")[0]: {} for name in models}
    for key, value in read_settings(pairs).items():
        name, _, setting = key.rpartition(".")
        if not name and len(told) == 1:
            name = next(iter(told))
        if name not in told:
            msg = f"{key!r} names none of the models {', '.join(told)}."
            raise UsageError(msg, hint="Write it as MODEL.KEY=VALUE, such as ecgjepa.heads=4.")
        told[name][setting] = value
    return [told[name.partition(":")[0]] for name in models]


def _plain(text: str) -> object:
    """Return a number or a truth value where the text is one."""
    if text in ("true", "false"):
        return text == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def mapping(texts: Sequence[str] | None) -> dict[str, str]:
    """Parse ``k=v,k=v`` options; a part without ``=`` belongs to the value before it.

    Raises:
        UsageError: The first part has no ``=``.
    """
    pairs: list[str] = []
    for text in texts or ():
        for number, part in enumerate(text.split(",")):
            if number and "=" not in part:
                pairs[-1] += f",{part}"
            else:
                pairs.append(part)
    return key_values(pairs)


def complete_model(incomplete: str) -> list[str]:
    """Complete a model name."""
    import ecgstore

    return [spec.name for spec in ecgstore.list_models(f"{incomplete}*")]


def complete_method(incomplete: str) -> list[str]:
    """Complete the name of a method of pretraining."""
    import ecgstore

    return ecgstore.list_methods(f"{incomplete}*")


def complete_query(incomplete: str) -> list[str]:
    """Complete the name of a query."""
    import ecgstore

    return [name for name in ecgstore.queries() if name.startswith(incomplete)]


FormatOption = Annotated[
    Format | None,
    typer.Option(
        "--format",
        help="Print rows in this form; default a table on a terminal, JSON lines in a pipe.",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON: short for --format json.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print the plan and write nothing.")]
KeepIds = Annotated[
    bool, typer.Option("--keep-ids", help="Store patients' ids as they are, not hidden by a key.")
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what is there already.")]
SplitName = Annotated[str, typer.Option("--split", help="Name given to `ecgstore split`.")]
Features = Annotated[
    list[str],
    typer.Option(
        "--features",
        help="Feature set: a model, model@version, model:readout, or a name given to fuse.",
    ),
]
Classifier = Annotated[
    str,
    typer.Option(
        "--classifier",
        help="What to fit: xgboost, logistic, logistic_cv, ridge, knn, mlp, sequence on windows "
        "of long records, or resnet50 on raw signals; head passes a finetuned head's logits on.",
    ),
]
TargetOption = Annotated[
    Target | None,
    typer.Option(
        "--target",
        help="What labels say; default what they look like. Survival: a time, negative where the "
        "event was not seen.",
    ),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Set a parameter of the classifier, such as max_depth=4 or resnet50.epochs=5.",
    ),
]
