"""What every encoder does: check a record, prepare its windows, and turn windows into vectors."""

from __future__ import annotations

import abc
import copy
import functools
import hashlib
import json
from typing import TYPE_CHECKING, ClassVar, Self

import numpy as np
import torch

from ecgstore.errors import UnknownNameError, UsageError
from ecgstore.models.compiling import (
    can_compile,
    compile_blocks,
    is_compiler_failure,
    uncompile,
)
from ecgstore.models.device import exact_float32, find_device, find_precision
from ecgstore.models.finetunable import Finetunable
from ecgstore.models.layers import use_bfloat16

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from torch import Tensor, nn

    from ecgstore.models.configuration import Configuration, Weights
    from ecgstore.models.heads import Head
    from ecgstore.models.spec import ModelSpec
    from ecgstore.models.weights import Checkpoint

__all__ = ["Encoder"]


class Encoder(Finetunable, abc.ABC):
    """A network with its input contract: from millivolts to vectors.

    Made by `ecgstore.load_encoder`. A subclass says how one architecture cuts windows and runs.

    Args:
        spec: The facts about the model.
        weights: Checked weights.
        variant: One of ``spec.variants`` by name; None takes the one that fits the weights.
        readout: One of `readouts`; None takes the first.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        precision: ``auto``, ``fp32`` or ``bf16``.

    Attributes:
        spec: The facts about the model.
        variant: How records are prepared.
        readouts: The ways to make a vector that these weights allow.
        readout: The one chosen.
        pooling: Variant and read-out in one word, such as ``three``, ``block5`` or
            ``centre.block5``; it keys the rows of vectors.
        network: The PyTorch module, in evaluation mode on `device`.
        head: The head that finetuning here put on it, in float32, or None; one that a published
            file has is part of the network.
        dim: Length of a vector.
        labels: What the outputs of the head stand for; empty without a head.
        rate_hz: Samples per second of a prepared window.
        window_samples: Samples of a full prepared window.
        device: Where it runs.
        precision: ``fp32`` or ``bf16``, the type of its matrix products.
        weights_name: Name of the weights file, or ``untrained (seed 0)``.
        weights_sha256: Digest of that file, or of the built-in tensors.
        trained: What the file tells of a training by ecgstore; see `ecgstore.trainings.note`.
    """

    family: ClassVar[str]
    """What people call the architecture; named when a checkpoint is of another one."""

    network_type: ClassVar[type[nn.Module]]
    """Takes the configuration as its one argument."""

    configuration: ClassVar[type[Configuration]]

    def __init__(
        self,
        spec: ModelSpec,
        weights: Weights,
        *,
        variant: str | None = None,
        readout: str | None = None,
        device: str = "auto",
        precision: str = "auto",
    ) -> None:
        facts = weights.configuration
        self.spec = spec
        head = self.head = weights.head
        fitting = head.configuration.variant if head else self.fitting_variant(spec, facts)
        self.variant = spec.variant(variant or fitting)
        self.readouts = spec.readouts_of(
            depth=facts.depth, head=head is not None or facts.classes > 0
        )
        if head is not None and "logits" not in self.readouts:
            self.readouts += ("logits",)
        self.readout = readout or self.readouts[0]
        if self.readout not in self.readouts:
            known = [*(one.name for one in spec.variants if one.name), *self.readouts]
            raise UnknownNameError(self.readout, kind="variant or readout", known=known)
        self.pooling = spec.pooling(self.variant, self.readout)
        self.device = find_device(device)
        self.precision = find_precision(precision, self.device)
        self.weights_name = weights.name
        self.weights_sha256 = weights.sha256
        self.trained = weights.trained
        self.labels = head.configuration.labels if head else self._labels(facts)
        self.dim = len(self.labels) if self.readout == "logits" else self._width(facts)
        self.rate_hz = spec.rate_hz
        self.window_samples = facts.window_samples
        self._facts = facts.facts()
        with torch.device("meta"):
            self.network = self.network_type(facts)
        self.network.load_state_dict(facts.fold(weights.tensors), assign=True)
        weights.tensors.clear()
        self.network.eval().requires_grad_(requires_grad=False)
        if self.precision == "bf16":
            use_bfloat16(self.network)
        self.network.to(self.device)
        if head is not None:
            head.to(self.device).eval().requires_grad_(requires_grad=False)
        if can_compile(self.device):
            compile_blocks(self.network)

    # ------------------------------------------------------- what an architecture says

    @classmethod
    @abc.abstractmethod
    def recognise(cls, checkpoint: Checkpoint) -> str | None:
        """Return `family`, or a sibling's name, if the keys are of that kind, else None."""

    @classmethod
    @abc.abstractmethod
    def select(cls, checkpoint: Checkpoint) -> dict[str, Tensor]:
        """Return the encoder's tensors of a checkpoint under their published names."""

    def _check_window(self, samples: int) -> None:
        """Raise `UsageError` when the network cannot take windows of this many samples."""
        if samples != self.window_samples:
            msg = (
                f"A window of {samples} samples does not fit {self.spec.name!r}: expected "
                f"{self.window_samples}."
            )
            raise UsageError(msg)

    @abc.abstractmethod
    def _run(self, windows: Tensor, leads: list[int]) -> tuple[Tensor, Tensor | None]:
        """Run the network.

        Args:
            windows: ``(windows, leads, samples)`` float32 on `device`.
            leads: Positions of the middle axis in ``spec.leads``.

        Returns:
            The vectors of the read-out, ``(windows, dim)`` float32, and the logits of the head,
            ``(windows, classes)`` float32, or None without a head.
        """

    def _headed(self, windows: Tensor, leads: list[int], head: Head) -> tuple[Tensor, Tensor]:
        """Do as `_run`, with a head of our own."""
        tokens = self._tokens(windows, leads).float()
        vectors = self._pooled(tokens)
        logits = head(tokens, vectors)
        if self.readout == "logits":
            return logits, logits
        if self.readout != self.readouts[0]:
            vectors, _ = self._run(windows, leads)
        return vectors, logits

    def _width(self, facts: Configuration) -> int:
        """Return the length of a vector of the chosen read-out."""
        return facts.classes if self.readout == "logits" else facts.dim

    def _labels(self, facts: Configuration) -> tuple[str, ...]:
        """Return the names of the head's outputs; their numbers where nobody published names."""
        return tuple(f"output {number}" for number in range(facts.classes))

    @property
    def also_seen(self) -> tuple[str, ...]:
        """Datasets that such weights were trained on besides ``spec.pretraining``."""
        return ()

    @classmethod
    def fitting_variant(cls, spec: ModelSpec, facts: Configuration) -> str:
        """Return the variant that such weights were trained with."""
        return spec.variants[0].name

    def pool_probabilities(self, windows: NDArray[np.floating]) -> NDArray[np.floating]:
        """Return a record's probabilities from those of its windows: their mean.

        Args:
            windows: ``(…, windows, classes)``.
        """
        pooled: NDArray[np.floating] = windows.mean(axis=-2)
        return pooled

    # ------------------------------------------------------------------------ contract

    @functools.cached_property
    def contract(self) -> dict[str, object]:
        """Everything that makes a vector, besides weights and precision; plain values only."""
        told: dict[str, object] = {
            "arch": self.spec.arch,
            "rate_hz": self.rate_hz,
            "window_samples": self.window_samples,
            "leads": list(self.spec.leads),
            "missing_leads": self.spec.missing_leads,
            "preparation": list(self.variant.preparation),
            "configuration": self._facts,
            "readout": self.pooling,
        }
        return told if self.head is None else told | {"head": self.head.configuration.facts()}

    @functools.cached_property
    def version(self) -> str:
        """Twelve hexadecimal digits that change whenever the same record gives other numbers.

        A digest of the weights' digest, the contract and the precision. A converted copy of a
        checkpoint gives equal vectors, but is another file and so another version.
        """
        whole = [self.weights_sha256, self.contract, self.precision]
        return hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()[:12]

    # -------------------------------------------------------------- windows in memory

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
        vectors, _ = self._on_arrays(windows, leads)
        if not np.isfinite(vectors).all():
            self._refuse("NaN", "gives a vector with NaN or infinite values")
        return vectors

    def classify(
        self, windows: NDArray[np.floating], *, leads: Sequence[str] | None = None
    ) -> NDArray[np.float32]:
        """Return the head's probabilities, ``(windows, classes)``, named by `labels`.

        Args:
            windows: As for `embed`.
            leads: As for `embed`.

        Raises:
            UsageError: The weights have no head.
        """
        if not self.labels:
            msg = f"{self.weights_name!r} has no head; probabilities need a finetuned file."
            raise UsageError(msg)
        _, logits = self._on_arrays(windows, leads)
        assert logits is not None  # where there are labels there is a head
        return logits

    def _checked(
        self, windows: NDArray[np.floating], leads: Sequence[str] | None
    ) -> tuple[str, ...]:
        """Check shape, leads and values of windows; returns the names of their leads."""
        names = self.spec.leads if leads is None else tuple(leads)
        if windows.ndim != 3 or windows.shape[1] != len(names):
            msg = f"Windows have the shape {windows.shape}, expected (windows, {len(names)}, n)."
            raise UsageError(msg, hint="Name the leads: leads=…")
        if self.spec.missing_leads != "omit" and names != self.spec.leads:
            msg = f"{self.spec.name!r} takes the leads {', '.join(self.spec.leads)} in this order."
            raise UsageError(msg)
        unknown = [lead for lead in names if lead not in self.spec.leads]
        if unknown:
            raise UnknownNameError(unknown[0], kind="lead", known=self.spec.leads)
        self._check_window(windows.shape[2])
        if not np.isfinite(windows).all():
            self._refuse("NaN", "has NaN or infinite values after preparation")
        return names

    def _on_arrays(
        self, windows: NDArray[np.floating], leads: Sequence[str] | None
    ) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
        """Check windows, run them, and return vectors and probabilities."""
        names = self._checked(windows, leads)
        if self.readout == "lead" and names != self.spec.leads:
            needed = ", ".join(self.spec.leads)
            msg = f"The read-out 'lead' of {self.spec.name!r} needs the leads {needed}."
            raise UsageError(msg)
        if not len(windows):
            none = np.empty((0, len(self.labels)), np.float32)
            return np.empty((0, self.dim), np.float32), none if self.labels else None
        batch = torch.from_numpy(np.ascontiguousarray(windows, np.float32)).to(self.device)
        vectors, probabilities = self.encode(batch, names)
        return vectors.cpu().numpy(), None if probabilities is None else probabilities.cpu().numpy()

    # ---------------------------------------------------------------- batches on a device

    @torch.inference_mode()
    def encode(self, windows: Tensor, leads: Sequence[str]) -> tuple[Tensor, Tensor | None]:
        """Run the network on windows that are where it is.

        Args:
            windows: ``(windows, leads, samples)`` float32.
            leads: Names of the middle axis.

        Returns:
            ``(windows, dim)`` float32 vectors, and ``(windows, classes)`` float32 probabilities
            of the head (numbers, of one that was finetuned to numbers), or None without one.
        """
        vectors, logits = self.forward(windows, leads)
        if logits is None:
            return vectors, None
        return vectors, logits.sigmoid() if self.head is None else self.head.told(logits)

    def forward(self, windows: Tensor, leads: Sequence[str]) -> tuple[Tensor, Tensor | None]:
        """Run the network as `encode` does, but let gradients through to the windows.

        Returns:
            Vectors as of `encode`, and the logits of the head.
        """
        with exact_float32():
            try:
                vectors, logits = self._outputs(windows, leads)
            except Exception as error:
                if not is_compiler_failure(error):
                    raise
                uncompile(self.network, error)
                vectors, logits = self._outputs(windows, leads)
        return vectors.float(), None if logits is None else logits.float()

    def _outputs(self, windows: Tensor, leads: Sequence[str]) -> tuple[Tensor, Tensor | None]:
        places = self._places(leads)
        if self.head is None:
            return self._run(windows, places)
        return self._headed(windows, places, self.head)

    def on(self, device: str) -> Self:
        """Return the same encoder on another device, with a copy of its network.

        Raises:
            UsageError: There is no such device.
        """
        other = copy.copy(self)
        other.device = find_device(device)
        other.network = copy.deepcopy(self.network).to(other.device)
        other.head = copy.deepcopy(self.head)
        if other.head is not None:
            other.head.to(other.device)
        if can_compile(other.device):
            compile_blocks(other.network)
        return other

    # --------------------------------------------------------------------------- private

    def __repr__(self) -> str:
        return (
            f"Encoder({self.spec.name}:{self.pooling}, {self.weights_name}, dim {self.dim}, "
            f"{self.precision} on {self.device}, version {self.version})"
        )
