"""Encoders: what there is, how weights are loaded, and how a checkpoint is checked or converted.

A model is a name in a registry with a frozen `ModelSpec`; a new one is one new file. Everything
here needs PyTorch, which is why ``import ecgstore`` does not import it.
"""

from __future__ import annotations

from importlib.resources import as_file, files
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ecgstore.errors import UsageError, WeightsError
from ecgstore.models import (
    anyecg,
    ecgflow,
    ecgfm,
    ecgfounder,
    ecgjepa,
    mae,
    resnet_encoder,
    stmem,
)
from ecgstore.models.configuration import Configuration, Weights
from ecgstore.models.contract import contracts as list_contracts
from ecgstore.models.contract import diff as diff_contracts
from ecgstore.models.contract import show as show_contract
from ecgstore.models.encoder import Encoder
from ecgstore.models.heads import apart, read_head
from ecgstore.models.hub import pull as pull_weights
from ecgstore.models.model import Model, models
from ecgstore.models.spec import HubFile, ModelSpec, Variant
from ecgstore.models.weights import digest_of, read_checkpoint, write_safetensors

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping, Sequence

    from ecgstore.models.weights import Checkpoint

__all__ = [
    "Configuration",
    "Encoder",
    "HubFile",
    "Model",
    "ModelSpec",
    "Variant",
    "Weights",
    "anyecg",
    "check_weights",
    "convert_weights",
    "diff_contracts",
    "ecgflow",
    "ecgfm",
    "ecgfounder",
    "ecgjepa",
    "get_spec",
    "list_contracts",
    "list_models",
    "load_encoder",
    "load_encoders",
    "load_weights",
    "mae",
    "models",
    "pull_weights",
    "resnet_encoder",
    "show_contract",
    "stmem",
]

_CHECKS = ("file", "family", "configuration", "tensors", "numbers")


def list_models(pattern: str = "*") -> list[ModelSpec]:
    """Return the facts about every model whose name matches, such as ``stmem*``."""
    return [models.get(name).spec for name in models.names(pattern)]


def get_spec(name: str) -> ModelSpec:
    """Return the facts about one model.

    Raises:
        UnknownNameError: There is no such model; the error names the nearest.
    """
    return models.get(name).spec


def load_encoder(
    name: str,
    *,
    weights: str | Path | None = None,
    device: str = "auto",
    precision: Literal["auto", "fp32", "bf16"] = "auto",
    variant: str | None = None,
    readout: str | None = None,
    settings: Mapping[str, object] | None = None,
) -> Encoder:
    """Load a model with its weights, ready to prepare records and embed them.

    Args:
        name: Registry name; behind it, if wanted, ``:variant``, ``:readout`` or both, as in
            ``stmem:centre.block5``.
        weights: Checkpoint or safetensors file; models that are built in need none.
        device: ``auto`` (a GPU if there is one), ``cpu``, ``cuda`` or ``cuda:N``.
        precision: ``fp32``, ``bf16``, or ``auto``: bf16 where the hardware multiplies it.
        variant: How to feed it; one of ``spec.variants`` by name, the one that fits the weights
            by default.
        readout: How to make a record's vector; one of ``spec.readouts``, the first by default.
        settings: What the tensors of a file do not tell, such as ``{"heads": 4}``, where its own
            settings are silent too.

    Raises:
        UnknownNameError: There is no such model or readout.
        UsageError: The device or precision cannot be had.
        WeightsError: The weights are absent, unsafe, damaged, or of another model.

    Example:
        >>> load_encoder("ecgfm.tiny", device="cpu", precision="fp32").dim
        64
    """
    bare, _, pooling = name.partition(":")
    model = models.get(bare)
    spec = model.spec
    checked = load_weights(bare, weights=weights, settings=settings)
    named_variant, named_readout = spec.named(pooling)
    return model.encoder(
        spec,
        checked,
        variant=variant or named_variant,
        readout=readout or named_readout,
        device=device,
        precision=precision,
    )


def load_weights(
    name: str,
    *,
    weights: str | Path | None = None,
    settings: Mapping[str, object] | None = None,
) -> Weights:
    """Return the checked weights of a model by its bare name; see `load_encoder`."""
    model = models.get(name)
    if weights is not None:
        return _read(model, Path(weights), settings)
    if model.untrained is not None:
        return _untrained(model, model.untrained)
    if model.packaged is not None:
        with as_file(files(__name__) / "minis" / model.packaged) as path:
            return _read(model, path, settings)
    msg = f"{name!r} needs weights, which ecgstore does not ship."
    hint = f"{model.spec.weights_source}; then give its path: weights=PATH, or --weights PATH."
    raise WeightsError(msg, model=name, hint=hint)


def load_encoders(
    names: Sequence[str],
    *,
    weights: Sequence[str | Path | None] | None = None,
    device: str = "auto",
    precision: Literal["auto", "fp32", "bf16"] = "auto",
    readout: str | None = None,
    settings: Sequence[Mapping[str, object]] | None = None,
) -> list[list[Encoder]]:
    """Load several models on one or several devices.

    Args:
        names: As for `load_encoder`.
        weights: A file, or None, for each.
        device: As for `load_encoder`, or several with commas between them.
        precision: As for `load_encoder`.
        readout: Of all models.
        settings: As for `load_encoder`, for each.

    Returns:
        For each device the encoders in the order of their names.

    Raises:
        UsageError: The numbers of names and files differ.
    """
    files = weights or [None] * len(names)
    if len(files) != len(names):
        msg = f"{len(names)} models were given with {len(files)} weights files."
        hint = "Give one for each model, in order; '-' for a model that needs none."
        raise UsageError(msg, hint=hint)
    first, *others = device.split(",")
    encoders = [
        load_encoder(
            name,
            weights=None if str(file) == "-" else file,
            device=first,
            precision=precision,
            readout=readout,
            settings=told,
        )
        for name, file, told in zip(names, files, settings or [{} for _ in names], strict=True)
    ]
    return [encoders, *([one.on(other) for one in encoders] for other in others)]


def check_weights(
    name: str, path: str | Path, *, settings: Mapping[str, object] | None = None
) -> list[dict[str, object]]:
    """Check a weights file step by step.

    Args:
        name: Registry name.
        path: The file.
        settings: What it does not tell, as for `load_encoder`.

    Returns:
        One row a check with ``check``, ``result`` (``ok`` or ``failed``) and ``detail``. Checks
        stop at the first that fails. Where numbers of the published weights are known, the last
        one is whether this file gives them.
    """
    from ecgstore.models import published

    model = models.get(name.partition(":")[0])
    rows: list[dict[str, object]] = []
    checks = _examine(model, Path(path), settings)
    try:
        while True:
            try:
                rows.append({"check": _CHECKS[len(rows)], "result": "ok", "detail": next(checks)})
            except StopIteration as done:
                weights: Weights = done.value
                break
        if model.spec.arch in published.ARCHITECTURES:
            encoder = model.encoder(model.spec, weights, device="cpu", precision="fp32")
            if (detail := published.check(encoder)) is not None:
                rows.append({"check": "numbers", "result": "ok", "detail": detail})
    except WeightsError as error:
        check = _CHECKS[len(rows)]
        rows.append({"check": check, "result": "failed", "detail": error.message})
    return rows


def convert_weights(
    name: str,
    path: str | Path,
    out: str | Path,
    *,
    settings: Mapping[str, object] | None = None,
) -> Path:
    """Write the encoder's part of a checkpoint to one safetensors file.

    The file holds the float32 tensors (with a finetuned head, without what only pretraining
    needs), the settings the tensors do not tell, and the SHA-256 of its source. It gives the
    vectors of its source to the last bit. As a file of its own it has a digest of its own, so
    `Encoder.version` differs, and by nothing else.

    Raises:
        UsageError: ``out`` holds something else, or cannot be written.
        WeightsError: The checkpoint does not fit the model.
    """
    model = models.get(name.partition(":")[0])
    source, target = Path(path), Path(out)
    if target.exists() and target.samefile(source):
        msg = f"{str(out)!r} is the file to convert."
        raise UsageError(msg)
    weights = _read(model, source, settings)
    tensors, told = weights.tensors, weights.configuration.settings()
    if weights.head is not None:
        tensors = tensors | weights.head.published()
        told = told | weights.head.configuration.settings()
    write_safetensors(
        target, tensors, settings=told, source=weights.sha256, trained=weights.trained
    )
    return target


def _untrained(model: Model, configuration: Configuration) -> Weights:
    tensors = configuration.untrained(model.seed)
    name = f"untrained (seed {model.seed})"
    return Weights(name, digest_of(tensors), configuration, tensors)


def _read(model: Model, path: Path, settings: Mapping[str, object] | None) -> Weights:
    """Read a file through every check."""
    checks = _examine(model, path, settings)
    while True:
        try:
            next(checks)
        except StopIteration as done:
            weights: Weights = done.value
            return weights


def _examine(
    model: Model, path: Path, settings: Mapping[str, object] | None
) -> Generator[str, None, Weights]:
    """Go through the checks of `_CHECKS`; yields what each found, returns the weights."""
    name = model.spec.name
    checkpoint = read_checkpoint(name, path)
    checkpoint = checkpoint.with_settings(settings or {})
    known = dict(model.spec.known_weights).get(checkpoint.sha256)
    recognised = f", recognised as {known}" if known else ""
    yield (
        f"{checkpoint.container}, {checkpoint.size} bytes, sha256 {checkpoint.sha256}"
        f"{recognised}; read as: {checkpoint.reading}"
    )
    checkpoint, beside = apart(checkpoint)
    family = _family(checkpoint)
    if family != model.encoder.family:
        seen = f"looks like {family}" if family else "no known kind of checkpoint"
        checkpoint.refuse(f"{seen}, expected {model.encoder.family}")
    yield family
    checkpoint = checkpoint.dense(model.encoder.select(checkpoint))
    configuration = model.encoder.configuration.infer(checkpoint)
    yield ", ".join(f"{key} {value}" for key, value in configuration.facts().items())
    tensors = checkpoint.matched(configuration.shapes())
    head = None if beside is None else read_head(beside, configuration.dim, model.spec)
    every = [*tensors.values(), *(head.state_dict().values() if head else ())]
    count = sum(tensor.numel() for tensor in every)
    yield f"{len(every)} tensors, {count} parameters, all keys and shapes fit, all finite"
    return Weights(
        path.name, checkpoint.sha256, configuration, tensors, head=head, trained=checkpoint.trained
    )


def _family(checkpoint: Checkpoint) -> str | None:
    """Return which known kind of checkpoint has these keys."""
    encoders = dict.fromkeys(models.get(name).encoder for name in models)
    families = (encoder.recognise(checkpoint) for encoder in encoders)
    return next(filter(None, families), None)
