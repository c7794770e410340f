"""Checkpoints of a run: tensors as safetensors, beside them what they are as JSON.

A checkpoint counts from the moment its JSON has its name; that names the digest of the tensors.
Whatever ends the process before leaves the last one as it was. Two are kept.
"""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import safetensors.torch

from ecgstore.errors import UsageError, WarehouseError
from ecgstore.storage import disk

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from torch import Tensor

__all__ = ["RunFolder", "State"]

_OPTIONS, _CHECKPOINTS = "run.json", "checkpoints"
_KEPT = 2


@dataclass(frozen=True, eq=False)
class State:
    """Where a run stands.

    Attributes:
        step: Updates done.
        tensors: Weights, moments of the optimiser, and history.
    """

    step: int
    tensors: Mapping[str, Tensor]


class RunFolder:
    """The folder of one run: its options, its checkpoints, and in the end its weights.

    Args:
        path: The folder; it is made when something is written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def begin(
        self, options: Mapping[str, object], *, resume: bool, versions: Mapping[str, int]
    ) -> None:
        """Take the folder for a run with these options.

        Args:
            options: All that determines the weights.
            resume: Whether it may have been begun before.
            versions: Those of the tables it reads.

        Raises:
            UsageError: It holds a run and ``resume`` is false, or one with other options.
            WarehouseError: It cannot be written.
        """
        plain = json.loads(json.dumps(options))
        for draft in self.path.glob(".*.tmp"):  # of a process that was killed
            with suppress(OSError):
                disk.remove(draft)
        there = self._begun().get("options")
        if there is None:
            if self.path.exists() and (not self.path.is_dir() or any(self.path.iterdir())):
                msg = f"{str(self.path)!r} exists and holds something else."
                raise UsageError(msg, hint="Give another folder with -o.")
            told = {"options": plain, "versions": dict(versions)}
            self._write(_OPTIONS, json.dumps(told, indent=2, sort_keys=True).encode())
            return
        if there != plain:
            before, now = _flat(there), _flat(plain)
            differs = "; ".join(
                f"{key}: {before.get(key, 'none')} → {now.get(key, 'none')}"
                for key in sorted({*before, *now})
                if before.get(key) != now.get(key)
            )
            msg = f"{str(self.path)!r} holds a run with other options ({differs})."
            raise UsageError(msg, hint="Give the same options to go on, or another folder with -o.")
        if not resume:
            msg = f"{str(self.path)!r} holds such a run already."
            raise UsageError(msg, hint="Go on with it by --resume, or give another folder with -o.")

    def versions(self) -> dict[str, int] | None:
        """Return the versions of the tables that the run here reads; None without one."""
        return self._begun().get("versions")

    def _begun(self) -> dict[str, Any]:
        try:
            there: dict[str, Any] = json.loads((self.path / _OPTIONS).read_text())
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            msg = f"{_OPTIONS} in {str(self.path)!r} cannot be read."
            raise UsageError(msg, hint="Give another folder with -o.") from error
        return there

    def save(self, state: State) -> None:
        """Write a checkpoint, whole or not at all, and remove all but the last two.

        Raises:
            WarehouseError: There is no room, or the folder cannot be written.
        """
        name = f"{_CHECKPOINTS}/step-{state.step:08d}"
        data = safetensors.torch.save({key: one.contiguous() for key, one in state.tensors.items()})
        about = {"step": state.step, "sha256": hashlib.sha256(data).hexdigest()}
        self._write(f"{name}.safetensors", data)
        self._write(f"{name}.json", json.dumps(about).encode())
        kept = {path.stem for path in self._notes()[-_KEPT:]}
        with suppress(OSError):
            for path in (self.path / _CHECKPOINTS).iterdir():
                if path.stem not in kept:
                    disk.remove(path)

    def last(self) -> State | None:
        """Return the newest checkpoint that is whole, None if there is none."""
        for note in reversed(self._notes()):
            with suppress(OSError, ValueError, KeyError):
                about: dict[str, Any] = json.loads(note.read_text())
                data = note.with_suffix(".safetensors").read_bytes()
                if hashlib.sha256(data).hexdigest() == about["sha256"]:
                    return State(int(about["step"]), safetensors.torch.load(data))
        return None

    def write(self, name: str, data: bytes) -> Path:
        """Write a file of the run, whole or not at all; what had its name is replaced.

        Raises:
            WarehouseError: There is no room, or the folder cannot be written.
        """
        self._write(name, data)
        return self.path / name

    def _notes(self) -> list[Path]:
        return sorted((self.path / _CHECKPOINTS).glob("step-*.json"))

    def _write(self, name: str, data: bytes) -> None:
        path = self.path / name
        try:
            disk.make_dir(path.parent)
            disk.put(path, data)
        except OSError as error:
            last = self.last()
            kept = "" if last is None else f" The checkpoint of step {last.step} is kept."
            msg = f"{name!r} cannot be written ({error.strerror or error}).{kept}"
            hint = "Make room, then go on with --resume."
            raise WarehouseError(msg, path=self.path, hint=hint) from error


def _flat(options: Mapping[str, object], prefix: str = "") -> dict[str, str]:
    """Return options within options under names with dots, their values as JSON."""
    flat: dict[str, str] = {}
    for key, value in options.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = json.dumps(value)
    return flat
