"""What every encoder does: check a record, prepare its windows, and turn windows into vectors."""

from __future__ import annotations

import abc
import functools
import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn, Protocol, Self

import numpy as np
import torch

from ecgstore.errors import UnfitRecordError, UnknownNameError, UsageError
from ecgstore.models.layers import use_bfloat16
from ecgstore.record import LEADS, OTHER_LEADS, lead_name, signal_name
from ecgstore.registry import Registry
from ecgstore.settings import device_name

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from contextlib import AbstractContextManager

    from numpy.typing import ArrayLike, NDArray
    from torch import Tensor, nn

    from ecgstore.models.spec import ModelSpec
    from ecgstore.models.weights import Checkpoint

__all__ = ["Configuration", "Encoder", "Model", "Weights", "models"]


class Configuration(Protocol):
    """The dimensions of one network, told by its tensors and the settings beside them."""

    @property
    def dim(self) -> int:
        """Length of a vector."""

    @property
    def window_samples(self) -> int:
        """Samples of a window as it was trained on."""

    @classmethod
    def infer(cls, checkpoint: Checkpoint) -> Self:
        """Read the dimensions off the selected tensors of a checkpoint."""

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the key and shape of every tensor, as published checkpoints spell them."""

    def settings(self) -> dict[str, object]:
        """Return what the tensors do not tell, as plain values that `infer` reads back."""

    def facts(self) -> dict[str, object]:
        """Return all dimensions as plain values, for people and for the contract."""

    def untrained(self, seed: int) -> dict[str, Tensor]:
        """Return seeded tensors of these shapes, the same on every machine."""

    def fold(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the tensors as the network's own state dict, fused where it wants them so."""


@dataclass(frozen=True)
class Weights:
    """Tensors that have passed every check, with the configuration they imply.

    Attributes:
        name: Name of the file, or ``untrained (seed 0)``.
        sha256: Digest of the file, or of the tensors where there is no file.
        configuration: The dimensions.
        tensors: Finite float32 state dict with the keys of `Configuration.shapes`.
    """

    name: str
    sha256: str
    configuration: Configuration
    tensors: Mapping[str, Tensor]


class Encoder(abc.ABC):
    """A network with its input contract: from millivolts to vectors.

    Made by `ecgstore.load_encoder`. A subclass says how one architecture cuts windows and runs.

    Args:
        spec: The facts about the model.
        weights: Checked weights.
        readout: One of ``spec.readouts``.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        precision: ``auto``, ``fp32`` or ``bf16``.

    Attributes:
        spec: The facts about the model.
        readout: How a record's vector is made; the ``pooling`` of its rows.
        network: The PyTorch module, in evaluation mode on `device`.
        dim: Length of a vector.
        rate_hz: Samples per second of a prepared window.
        window_samples: Samples of a prepared window.
        device: Where it runs.
        precision: ``fp32`` or ``bf16``, the type of its matrix products.
        weights_name: Name of the weights file, or ``untrained (seed 0)``.
        weights_sha256: Digest of that file, or of the built-in tensors.
    """

    family: ClassVar[str]
    """What people call the architecture; named when a checkpoint is of another one."""

    network_type: ClassVar[type[nn.Module]]
    """Takes the configuration as its one argument."""

    configuration: ClassVar[type[Configuration]]

    def __init__(
        self, spec: ModelSpec, weights: Weights, *, readout: str, device: str, precision: str
    ) -> None:
        if readout not in spec.readouts:
            raise UnknownNameError(readout, kind="readout", known=spec.readouts)
        self.spec = spec
        self.readout = readout
        self.device = _device(device)
        self.precision = _precision(precision, self.device)
        self.weights_name = weights.name
        self.weights_sha256 = weights.sha256
        self.dim = weights.configuration.dim
        self.rate_hz = spec.rate_hz
        self.window_samples = weights.configuration.window_samples
        self._facts = weights.configuration.facts()
        with torch.device("meta"):
            self.network = self.network_type(weights.configuration)
        self.network.load_state_dict(weights.configuration.fold(weights.tensors), assign=True)
        self.network.eval().requires_grad_(requires_grad=False)
        if self.precision == "bf16":
            use_bfloat16(self.network)
        self.network.to(self.device)

    @classmethod
    @abc.abstractmethod
    def recognise(cls, checkpoint: Checkpoint) -> str | None:
        """Return `family`, or a sibling's name, if the keys are of that kind, else None."""

    @classmethod
    @abc.abstractmethod
    def select(cls, checkpoint: Checkpoint) -> dict[str, Tensor]:
        """Return the encoder's tensors of a checkpoint under their published names."""

    @abc.abstractmethod
    def _length(self, n_samples: int, rate_hz: float) -> int:
        """Return the samples left of ``n_samples`` after resampling to the model's rate."""

    @abc.abstractmethod
    def _starts(self, length: int) -> tuple[int, ...]:
        """Return the first sample of each window, after resampling; ``()`` if there is none."""

    @abc.abstractmethod
    def _cut(self, signal: NDArray[Any], rate_hz: float) -> NDArray[Any]:
        """Resample, normalise and cut finite leads into ``(windows, leads, samples)``."""

    @abc.abstractmethod
    def _check_window(self, samples: int) -> None:
        """Raise `UsageError` when the network cannot take windows of this many samples."""

    @abc.abstractmethod
    def _vectors(self, windows: Tensor, leads: list[int]) -> Tensor:
        """Return ``(windows, dim)`` float32; ``leads`` are positions in ``spec.leads``."""

    @functools.cached_property
    def contract(self) -> dict[str, object]:
        """Everything that makes a vector, besides weights and precision; plain values only."""
        return {
            "arch": self.spec.arch,
            "rate_hz": self.rate_hz,
            "window_samples": self.window_samples,
            "leads": list(self.spec.leads),
            "missing_leads": self.spec.missing_leads,
            "preparation": list(self.spec.preparation),
            "configuration": self._facts,
            "readout": self.readout,
        }

    @functools.cached_property
    def version(self) -> str:
        """Twelve hexadecimal digits that change whenever the same record gives other numbers.

        A digest of the weights' digest, the contract and the precision. A converted copy of a
        checkpoint gives equal vectors, but is another file and so another version.
        """
        whole = [self.weights_sha256, self.contract, self.precision]
        return hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()[:12]

    def prepare(
        self, signal: ArrayLike, *, rate_hz: float, leads: Sequence[str]
    ) -> NDArray[np.float32]:
        """Turn a record into the windows the model was trained on.

        The steps are those of ``spec.preparation``. Nothing is repaired in silence: a lead that
        is NaN throughout counts as one the record lacks, and any other NaN or infinite sample
        refuses the record. What becomes of lacking leads is told by ``spec.missing_leads``.

        Args:
            signal: ``(leads, samples)`` in millivolts, leads in any order.
            rate_hz: Samples per second.
            leads: Name of each row, in any usual spelling.

        Returns:
            ``(windows, leads, samples)`` float32; `window_leads` names the middle axis.

        Raises:
            UnfitRecordError: The record is too short, has a NaN, or lacks leads it must have.
            UnknownNameError: A name is not one of the twelve standard leads.
            UsageError: Shape, names or rate make no sense.
        """
        rows = self._rows(signal, leads)
        if not (np.isfinite(rate_hz) and rate_hz > 0):
            msg = f"A rate of {rate_hz!r} Hz makes no sense."
            raise UsageError(msg)
        kept = self._kept(rows)
        array = np.stack([rows[lead] for lead in kept])
        if not np.isfinite(array).all():
            bad = [lead for lead in kept if not np.isfinite(rows[lead]).all()]
            self._refuse("NaN", f"has NaN or infinite samples in {', '.join(bad)}")
        n_samples = array.shape[1]
        if not self._starts(self._length(n_samples, rate_hz)):
            needed = self.window_samples / self.rate_hz
            what = f"has {n_samples / rate_hz:g} s of signal, expected at least {needed:g} s"
            self._refuse("too short", what)
        windows = np.ascontiguousarray(self._cut(array, rate_hz), dtype=np.float32)
        if self.spec.missing_leads != "zero" or len(kept) == len(self.spec.leads):
            return windows
        filled = np.zeros((len(windows), len(self.spec.leads), windows.shape[2]), np.float32)
        filled[:, [self.spec.leads.index(lead) for lead in kept]] = windows
        return filled

    def window_starts(self, n_samples: int, *, rate_hz: float) -> tuple[float, ...]:
        """Return the second at which each window of a record starts; ``()`` if it has none."""
        return tuple(s / self.rate_hz for s in self._starts(self._length(n_samples, rate_hz)))

    def window_leads(
        self, leads: Sequence[str], *, signal: ArrayLike | None = None
    ) -> tuple[str, ...]:
        """Return the leads of `prepare`'s rows, in order.

        Args:
            leads: The leads of the record.
            signal: The record's samples, if some leads may be NaN throughout.
        """
        blank = np.zeros((len(leads), 1)) if signal is None else signal
        kept = self._kept(self._rows(blank, leads))
        return self.spec.leads if self.spec.missing_leads == "zero" else kept

    def embed(
        self, windows: NDArray[np.floating], *, leads: Sequence[str] | None = None
    ) -> NDArray[np.float32]:
        """Run the network on windows that `prepare` made, as one batch.

        Args:
            windows: ``(windows, leads, samples)`` float32.
            leads: Names of the middle axis as `window_leads` gives them; None means all.

        Returns:
            ``(windows, dim)`` float32, one vector a window. A record's vector is their mean.

        Raises:
            UnfitRecordError: A value in a window, or in a vector, is not finite.
            UsageError: The shape does not fit the model or the leads.
        """
        names = self.spec.leads if leads is None else tuple(leads)
        if windows.ndim != 3 or windows.shape[1] != len(names):
            msg = f"Windows have the shape {windows.shape}, expected (windows, {len(names)}, n)."
            raise UsageError(msg, hint="Name the leads: encoder.embed(windows, leads=…)")
        if self.spec.missing_leads != "omit" and names != self.spec.leads:
            msg = f"{self.spec.name!r} takes the leads {', '.join(self.spec.leads)} in this order."
            raise UsageError(msg)
        unknown = [lead for lead in names if lead not in self.spec.leads]
        if unknown:
            raise UnknownNameError(unknown[0], kind="lead", known=self.spec.leads)
        self._check_window(windows.shape[2])
        if not len(windows):
            return np.empty((0, self.dim), np.float32)
        if not np.isfinite(windows).all():
            self._refuse("NaN", "has NaN or infinite values after preparation")
        with torch.inference_mode(), _no_tf32():
            batch = torch.from_numpy(np.ascontiguousarray(windows, np.float32)).to(self.device)
            vectors = self._vectors(batch, [self.spec.leads.index(lead) for lead in names])
            out: NDArray[np.float32] = vectors.float().cpu().numpy()
        if not np.isfinite(out).all():
            self._refuse("NaN", "gives a vector with NaN or infinite values")
        return out

    def _rows(self, signal: ArrayLike, leads: Sequence[str]) -> dict[str, NDArray[Any]]:
        """Check the outer form of a record; returns its rows by standard lead name."""
        array = np.asarray(signal)
        if array.ndim != 2 or array.shape[0] != len(leads):
            msg = f"The signal has the shape {array.shape}, expected ({len(leads)}, samples)."
            raise UsageError(msg)
        if array.dtype not in (np.float32, np.float64):
            array = array.astype(np.float64)
        rows = {}
        for raw, row in zip(leads, array, strict=True):
            lead = lead_name(raw)
            if lead is None and signal_name(raw) in OTHER_LEADS:
                continue  # such as Frank's X, which a record may hold and no model here takes
            if lead is None:
                raise UnknownNameError(raw, kind="lead", known=LEADS)
            if lead in rows:
                msg = f"The lead {lead!r} is given twice."
                raise UsageError(msg)
            rows[lead] = row
        return rows

    def _kept(self, rows: Mapping[str, NDArray[Any]]) -> tuple[str, ...]:
        """Return the model's leads that the record has, in the model's order."""
        kept = tuple(x for x in self.spec.leads if x in rows and not np.isnan(rows[x]).all())
        lacking = [lead for lead in self.spec.leads if lead not in kept]
        if not kept or (lacking and self.spec.missing_leads == "refuse"):
            self._refuse("missing leads", f"lacks the leads {', '.join(lacking)}")
        return kept

    def _refuse(self, reason: str, what: str) -> NoReturn:
        msg = f"The record {what}; {self.spec.name!r} cannot take it."
        raise UnfitRecordError(msg, model=self.spec.name, reason=reason)

    def __repr__(self) -> str:
        return (
            f"Encoder({self.spec.name}:{self.readout}, {self.weights_name}, dim {self.dim}, "
            f"{self.precision} on {self.device}, version {self.version})"
        )


@dataclass(frozen=True)
class Model:
    """One entry of the registry: the facts and the class that does the work.

    Attributes:
        spec: The facts.
        encoder: The class that runs it.
        untrained: Dimensions of a built-in model that needs no weights file, else None.
        seed: Seed of a built-in model's weights.
    """

    spec: ModelSpec
    encoder: type[Encoder]
    untrained: Configuration | None = None
    seed: int = 0


models: Registry[Model] = Registry("model", group="ecgstore.models")
"""Every model by name; other packages add theirs by the entry-point group ``ecgstore.models``."""


def _device(name: str) -> torch.device:
    wanted = device_name(None if name == "auto" else name)
    if wanted == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    match = re.fullmatch(r"cpu|cuda(?::(\d+))?", wanted)
    if match is None:
        msg = f"Unknown device {wanted!r}. Known devices: auto, cpu, cuda, cuda:N."
        raise UsageError(msg)
    if wanted != "cpu" and int(match.group(1) or 0) >= torch.cuda.device_count():
        msg = f"The device {wanted!r} was asked for, but PyTorch finds no such GPU here."
        raise UsageError(msg, hint="Use --device cpu, or a PyTorch build with CUDA.")
    return torch.device(wanted)


def _precision(name: str, device: torch.device) -> str:
    if name == "auto":
        return "bf16" if _has_bfloat16(device) else "fp32"
    if name not in ("fp32", "bf16"):
        msg = f"Unknown precision {name!r}. Known precisions: auto, fp32, bf16."
        raise UsageError(msg)
    return name


def _no_tf32() -> AbstractContextManager[None]:
    """Keep cuDNN from rounding float32 convolutions to ten bits, which is its default."""
    context: AbstractContextManager[None] = torch.backends.cudnn.flags(
        enabled=True, allow_tf32=False
    )
    return context


def _has_bfloat16(device: torch.device) -> bool:
    """Tell whether the hardware multiplies bfloat16 matrices itself."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    try:
        facts = Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    return bool({"amx_bf16", "avx512_bf16"} & set(facts.split()))
