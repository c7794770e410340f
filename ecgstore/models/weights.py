"""Checkpoints: read without running anything from them, then checked before they are believed.

A file that loads can still lie, so what is taken from it must be dense floating tensors that fit
into the file's own size, with exactly the keys and shapes of the configuration, all finite.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import stat
import zipfile
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import safetensors
import safetensors.torch
import torch

from ecgstore.errors import UsageError, WeightsError
from ecgstore.models.unpickle import Inert, unpickle

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

__all__ = [
    "Checkpoint",
    "digest_of",
    "read_checkpoint",
    "renamed",
    "safetensors_bytes",
    "seeded_tensors",
    "write_safetensors",
]

_METADATA = "ecgstore"
_FITTED = "params"
"""Under which a fitted ResNet-50 keeps its settings; see `ecgstore.supervised`."""
_STATE_KEYS = ("model", "state_dict", "encoder")
"""Under which training programs keep the tensors: most, Lightning and timm, ECG-JEPA."""
_NOT_WEIGHTS = "Give the file that PyTorch or safetensors wrote, as it was downloaded."


@dataclass(frozen=True)
class Checkpoint:
    """What one file holds, as far as an encoder needs it.

    Attributes:
        model: Registry name of the model the file was given for.
        path: The file.
        size: Its bytes.
        sha256: Its digest.
        container: ``PyTorch`` or ``safetensors``.
        reading: How it was read, in words.
        tensors: State dict, checked only as far as `dense` and `matched` say.
        settings: Plain values of the configuration kept beside the weights; empty if absent.
        trained: What ecgstore keeps of a training of its own; see `ecgstore.trainings`. Empty for
            weights that others made.
    """

    model: str
    path: Path
    size: int
    sha256: str
    container: str
    reading: str
    tensors: Mapping[str, Tensor]
    settings: Mapping[str, object] = field(default_factory=dict)
    trained: Mapping[str, object] = field(default_factory=dict)

    def refuse(self, what: str) -> NoReturn:
        """Raise the `WeightsError` that says what is wrong with this file."""
        raise _error(self.model, self.path, what)

    def ask(self, what: str, *keys: str) -> NoReturn:
        """Raise the `WeightsError` for what neither tensors nor settings tell.

        Args:
            what: What that is, such as ``the number of heads``.
            keys: The settings that would tell it.
        """
        given = " ".join(f"--set {key}=…" for key in keys)
        told = ", ".join(f"{key!r}: …" for key in keys)
        hint = f"Give it: {given}, with the model's name before the key where there are several"
        hint += f"; in Python settings={{{told}}}."
        raise _error(self.model, self.path, f"does not tell {what}", hint=hint)

    def with_settings(self, settings: Mapping[str, object]) -> Checkpoint:
        """Return the checkpoint with settings that it does not tell itself.

        Raises:
            WeightsError: It tells another value.
        """
        for key, value in settings.items():
            if key in self.settings and self.settings[key] != value:
                self.refuse(f"its own setting {key!r} is {self.settings[key]!r}, not {value!r}")
        return replace(self, settings={**self.settings, **settings})

    def shape(self, key: str, axes: int) -> tuple[int, ...]:
        """Return the shape of a tensor from which a dimension is read.

        Raises:
            WeightsError: There is no such tensor, or it has another number of axes or is empty.
        """
        if key not in self.tensors:
            self.refuse(f"the key {key!r} is missing")
        shape = tuple(self.tensors[key].shape)
        if len(shape) != axes or 0 in shape:
            self.refuse(f"{key!r} has the shape {shape}, expected {axes} axes")
        return shape

    def count(self, pattern: str) -> int:
        """Return how many different numbers the keys carry where ``pattern`` has its group."""
        found = re.compile(pattern)
        matches = (found.match(key) for key in self.tensors)
        return len({match.group(1) for match in matches if match})

    def dense(self, tensors: Mapping[str, Tensor]) -> Checkpoint:
        """Return the checkpoint with these tensors only, each one plain, dense and floating.

        Raises:
            WeightsError: One is something else, or together they claim more than the file holds.
        """
        claimed = 0
        for key, tensor in tensors.items():
            if type(tensor) not in (torch.Tensor, torch.nn.Parameter):
                self.refuse(f"{key!r} is no tensor")
            if tensor.layout != torch.strided or tensor.device.type != "cpu":
                self.refuse(f"{key!r} is not a dense tensor")
            if not tensor.is_floating_point():
                self.refuse(f"{key!r} holds {tensor.dtype}, expected floating point")
            claimed += tensor.numel() * tensor.element_size()
            if claimed > self.size:
                self.refuse(f"its tensors claim more than its own {self.size} bytes")
        return replace(self, tensors=dict(tensors))

    def matched(self, wanted: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
        """Return finite float32 copies of the tensors, in the order of ``wanted``.

        Raises:
            WeightsError: A key is missing, unexpected or of another shape, or a value is NaN or
                infinite; the message names the first few of each kind.
        """
        found = {key: tuple(tensor.shape) for key, tensor in self.tensors.items()}
        reshaped = [
            f"{key} {found[key]}, expected {shape}"
            for key, shape in wanted.items()
            if key in found and found[key] != shape
        ]
        faults = [
            _listed("missing", [key for key in wanted if key not in found]),
            _listed("unexpected", [key for key in found if key not in wanted]),
            _listed("of another shape", reshaped),
        ]
        if any(faults):
            self.refuse(f"keys do not fit: {'; '.join(filter(None, faults))}")
        copies = {}
        for key in wanted:
            copy = self.tensors[key].detach().to(torch.float32, copy=True).contiguous()
            if not copy.isfinite().all():
                self.refuse(f"{key!r} holds NaN or infinite values")
            copies[key] = copy
        return copies


def _error(model: str, path: Path, what: str, *, hint: str | None = None) -> WeightsError:
    return WeightsError(f"{path.name!r} for {model!r}: {what}.", model=model, path=path, hint=hint)


def _listed(kind: str, names: list[str], show: int = 3) -> str:
    rest = ", …" if len(names) > show else ""
    return f"{len(names)} {kind} ({', '.join(names[:show])}{rest})" if names else ""


def read_checkpoint(model: str, path: Path) -> Checkpoint:
    """Read a PyTorch zip archive or a safetensors file, running nothing from it.

    Args:
        model: Registry name of the model it is for, used in messages.
        path: The file; its suffix does not matter.

    Returns:
        The state dict (under ``model`` or bare, without a ``module.`` prefix) and the plain
        values of the configuration beside it. Tensors are views of the mapped file.

    Raises:
        WeightsError: The file is not a regular one, is damaged, or is no such container.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise _error(model, path, "not a regular file", hint=_NOT_WEIGHTS)
        with path.open("rb") as file:
            head = file.read(9)
            file.seek(0)
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        what = f"cannot be read ({error.strerror or error})"
        raise _error(model, path, what) from error
    size = status.st_size
    if head.startswith(b"PK\x03\x04"):
        container, (reading, content) = "PyTorch", _read_zip(model, path, size)
        state, settings = _state_and_settings(content)
        trained: dict[str, object] = {}
    elif head[8:] == b"{" or path.suffix == ".safetensors":
        container, reading = "safetensors", "holds no code by construction"
        state, settings, trained = _read_safetensors(model, path, size, head)
    else:
        what = "neither a PyTorch zip archive nor a safetensors file, or cut short"
        hint = f"{_NOT_WEIGHTS} PyTorch before 1.6 wrote another format, which is not read."
        raise _error(model, path, what, hint=hint)
    if not state or not all(isinstance(key, str) for key in state):
        raise _error(model, path, "holds no state dict of named tensors", hint=_NOT_WEIGHTS)
    if all(key.startswith("module.") for key in state):
        state = {key.removeprefix("module."): value for key, value in state.items()}
    return Checkpoint(model, path, size, sha256, container, reading, state, settings, trained)


def _read_zip(model: str, path: Path, size: int) -> tuple[str, object]:
    """Check the archive's directory, then unpickle it; returns how, and what."""
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise _error(model, path, "the archive is damaged or cut short") from error
    # torch.save stores entries as they are: anything compressed or overlapping can only expand.
    if any(entry.compress_type or entry.file_size != entry.compress_size for entry in entries):
        raise _error(model, path, "the archive has compressed entries, which PyTorch never writes")
    if sum(entry.file_size for entry in entries) > size:
        raise _error(model, path, "the archive's entries overlap")
    if any(Path(entry.filename).name == "constants.pkl" for entry in entries):
        raise _error(model, path, "a TorchScript program, not weights", hint=_NOT_WEIGHTS)
    try:
        return unpickle(path)
    except Exception as error:
        reason = str(error).strip().partition("\n")[0][:200]
        what = f"the archive is damaged or no checkpoint ({type(error).__name__}: {reason})"
        raise _error(model, path, what) from error


def _state_and_settings(content: object) -> tuple[dict[str, Any], dict[str, object]]:
    """Find the state dict and the plain settings in what a training program saved."""
    if not isinstance(content, dict):
        return {}, {}
    found = (content.get(key) for key in _STATE_KEYS)
    state = next((value for value in found if isinstance(value, dict)), None)
    if state is None:
        return content, {}
    cfg, config = (_branch(content.get(key)) for key in ("cfg", "config"))
    branches = (cfg.get("model"), config.get("model"), config)
    settings = next(filter(None, map(_branch, branches)), {}) or _namespace(content.get("args"))
    leaves = {key: _inside(value, "_val") for key, value in settings.items()}
    return state, {k: v for k, v in leaves.items() if isinstance(v, bool | int | float | str)}


def _namespace(node: object) -> dict[str, object]:
    """Return the attributes of an `argparse.Namespace`, which is left inert."""
    state = node.state if isinstance(node, Inert) else None
    return state if isinstance(state, dict) else {}


def _branch(node: object) -> dict[str, object]:
    branch = _inside(node, "_content")
    return branch if isinstance(branch, dict) else {}


def _inside(node: object, attribute: str) -> object:
    """Return a value, also where omegaconf wrapped it: its nodes keep it in one attribute."""
    if isinstance(node, Inert):
        return node.state.get(attribute) if isinstance(node.state, dict) else None
    return node


def _read_safetensors(
    model: str, path: Path, size: int, head: bytes
) -> tuple[dict[str, Any], dict[str, object], dict[str, object]]:
    if len(head) < 9 or int.from_bytes(head[:8], "little") > size - 8:
        raise _error(model, path, "its header is longer than the file; damaged or cut short")
    try:
        with safetensors.safe_open(path, "pt") as file:
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - no mapping
            metadata = file.metadata() or {}
        note = json.loads(metadata.get(_METADATA, "{}"))
        settings = note.get("settings") or json.loads(metadata.get(_FITTED, "{}"))
        trained = note.get("trained")
    except Exception as error:
        what = f"damaged or cut short ({str(error).strip().partition(chr(10))[0][:200]})"
        raise _error(model, path, what) from error
    return (
        state,
        settings if isinstance(settings, dict) else {},
        trained if isinstance(trained, dict) else {},
    )


def safetensors_bytes(
    tensors: Mapping[str, Tensor],
    *,
    settings: Mapping[str, object],
    source: str | None,
    trained: Mapping[str, object] | None = None,
) -> bytes:
    """Return what `write_safetensors` writes."""
    note: dict[str, object] = {"settings": dict(settings), "source_sha256": source}
    if trained:
        note["trained"] = dict(trained)
    content: bytes = safetensors.torch.save(
        dict(tensors), metadata={_METADATA: json.dumps(note, sort_keys=True)}
    )
    return content


def write_safetensors(
    path: Path,
    tensors: Mapping[str, Tensor],
    *,
    settings: Mapping[str, object],
    source: str | None,
    trained: Mapping[str, object] | None = None,
) -> None:
    """Write weights and the settings they need to one safetensors file, whole or not at all.

    Args:
        path: The file to make. Nothing is done when it holds these very bytes already.
        tensors: State dict.
        settings: What the tensors do not tell, as plain values; `read_checkpoint` gives it back.
        source: SHA-256 of the file the weights come from; None where there is none.
        trained: What is to be known of the training that made them, as plain values.

    Raises:
        UsageError: The path holds something else, or cannot be written.
    """
    content = safetensors_bytes(tensors, settings=settings, source=source, trained=trained)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        if path.exists():
            if path.is_file() and path.read_bytes() == content:
                return
            msg = f"{str(path)!r} exists and holds something else."
            raise UsageError(msg, hint="Remove it, or give another name.")
        with temporary.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        msg = f"{str(path)!r} cannot be written ({error.strerror or error})."
        raise UsageError(msg) from error


def digest_of(tensors: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 of names, shapes and float32 values, in the order of the names."""
    digest = hashlib.sha256()
    for key in sorted(tensors):
        digest.update(f"{key}{tuple(tensors[key].shape)}".encode())
        digest.update(tensors[key].numpy().astype("<f4").tobytes())
    return digest.hexdigest()


def renamed(tensors: dict[str, Tensor], rules: Sequence[tuple[str, str]]) -> dict[str, Tensor]:
    """Take the tensors under other names: every rule, a pattern and its substitute, in turn."""
    names = {}
    for key in list(tensors):
        tensor = tensors.pop(key)
        name = key
        for pattern, substitute in rules:
            name = re.sub(pattern, substitute, name)
        names[name] = tensor
    return names


def seeded_tensors(
    shapes: Mapping[str, tuple[int, ...]], *, seed: int, deviation: float | None = None
) -> dict[str, Tensor]:
    """Return untrained weights, the same on every machine.

    Scales and norms start at 1, biases at 0, and matrices uniformly with the deviation given or
    ``1 / sqrt(inputs)``. Uniform numbers are exact integers divided by a power of two, so no
    library's sine or logarithm can make them differ.
    """
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for key, shape in shapes.items():
        if len(shape) == 1:
            tensors[key] = torch.zeros(shape) if key.endswith("bias") else torch.ones(shape)
            continue
        bound = 3.0**0.5 * (deviation or math.prod(shape[1:]) ** -0.5)
        tensors[key] = (torch.rand(shape, generator=generator) * 2 - 1) * bound
    return tensors
