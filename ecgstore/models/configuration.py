"""What the tensors of a checkpoint tell of a network, and the tensors once they are believed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, Self

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from ecgstore.models.heads import Head
    from ecgstore.models.weights import Checkpoint

__all__ = ["Configuration", "Weights"]


class Configuration(Protocol):
    """The dimensions of one network, told by its tensors and the settings beside them."""

    @property
    def dim(self) -> int:
        """Length of a default vector."""

    @property
    def depth(self) -> int:
        """Number of blocks, or stages, that have a read-out of their own."""

    @property
    def classes(self) -> int:
        """Outputs of the head, 0 without one."""

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

    def fold(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the tensors as the network's own state dict, fused where it wants them so.

        They may be taken out of ``tensors``, so that what is fused is not held twice.
        """


@dataclass(frozen=True)
class Weights:
    """Tensors that have passed every check, with the configuration they imply.

    Attributes:
        name: Name of the file, or ``untrained (seed 0)``.
        sha256: Digest of the file, or of the tensors where there is no file.
        configuration: The dimensions.
        tensors: Finite float32 state dict with the keys of `Configuration.shapes`. The encoder
            that is made of them takes them out.
        head: The head that finetuning here put on it, or None.
        trained: Of a training by ecgstore; see `ecgstore.models.weights.Checkpoint`.
    """

    name: str
    sha256: str
    configuration: Configuration
    tensors: dict[str, Tensor]
    head: Head | None = None
    trained: Mapping[str, object] = field(default_factory=dict)
