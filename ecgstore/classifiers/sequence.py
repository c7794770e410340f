"""A classifier of long records: a second transformer, over the vectors of their windows."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Self

import numpy as np

from ecgstore.classifiers.classifier import Setting, classifiers
from ecgstore.classifiers.held_out import HeldOutClassifier
from ecgstore.classifiers.inner import Scaled
from ecgstore.classifiers.network import device
from ecgstore.classifiers.tensors import from_tensors, to_tensors
from ecgstore.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch
    from numpy.typing import NDArray

    from ecgstore.tasks import Target

__all__ = ["Sequence"]


class Sequence(HeldOutClassifier):
    """A transformer of two layers over a record's windows, and their mean.

    The ultra-long task of Wang, Cao, Hu et al., arXiv 2411.17711; its width is chosen here. It
    takes ``(records, windows, dim)``; a record with fewer windows than others has rows of NaN
    behind them, which change nothing.
    """

    name = "sequence"
    reads = "windows"
    defaults: ClassVar[Mapping[str, Setting]] = {
        "width": 64,
        "heads": 4,
        "dropout": 0.2,
        "learning_rate": 0.001,
        **HeldOutClassifier.training,
        "batch_size": 32,
    }
    space: ClassVar[Mapping[str, tuple[Setting, ...]]] = {
        "width": ("choice", 32, 64, 128),
        "dropout": ("number", 0.0, 0.6),
        "learning_rate": ("log", 1e-4, 1e-2),
        "weight_decay": ("log", 1e-4, 1.0),
    }

    def __init__(
        self, params: Mapping[str, Setting] | None = None, *, target: Target = "binary"
    ) -> None:
        super().__init__(params, target=target)
        width, heads = int(self.params["width"]), int(self.params["heads"])
        if width % (2 * heads):
            msg = f"The setting 'width' of {self.name} is {width}; with {heads} heads "
            raise UsageError(msg + f"it must be a multiple of {2 * heads}.")

    @property
    def dim(self) -> None:
        """None: the second axis of what it takes is windows, of which there may be any number."""
        return

    def save(self) -> bytes:
        """Return the weights and the scale of the input, in single precision."""
        return to_tensors(
            {**self._arrays(), "input.mean": self._mean, "input.scale": self._scale}, self.params
        )

    @classmethod
    def load(cls, data: bytes, *, target: Target = "binary") -> Self:
        """Return the classifier that `save` saved."""
        arrays, params = from_tensors(data)
        classifier = cls(params, target=target)
        classifier._mean = arrays.pop("input.mean").astype(np.float32)
        classifier._scale = arrays.pop("input.scale").astype(np.float32)
        network = classifier._build(len(classifier._mean), len(arrays["head.bias"]))
        classifier._take(network, arrays)
        return classifier

    def _refuse(self, x: NDArray[np.float32]) -> None:
        """Let whole rows of NaN behind a record's windows pass; the rest must be numbers."""
        if x.ndim != 3:
            msg = f"{self.name} takes (records, windows, dim), not the shape {x.shape}."
            raise UsageError(msg, hint="Give it the windows of long records.")
        fitted = getattr(self, "_mean", None)
        if fitted is not None and x.shape[2] != len(fitted):
            msg = f"A vector has {x.shape[2]} numbers; {self.name} was fitted to {len(fitted)}."
            raise UsageError(msg, hint="Give the features of the run, made as they were then.")
        there = ~np.isnan(x).all(axis=2)
        counts = there.sum(axis=1)
        ordered = there == (np.arange(x.shape[1]) < counts[:, None])
        if not (ordered.all() and counts.all() and np.isfinite(x[there]).all()):
            msg = "A window holds a value that is infinite or missing, or a record has no window."
            raise UsageError(msg, hint="Look at the vectors, or embed with overwrite.")

    def _standardise(self, x: NDArray[np.float32]) -> None:
        scaled = Scaled(x[~np.isnan(x[..., 0])])
        self._mean, self._scale = scaled.mean.astype(np.float32), scaled.scale.astype(np.float32)

    def _build(self, dim: int, out: int) -> torch.nn.Module:
        from ecgstore.classifiers.sequence_network import SequenceNetwork

        width, heads = int(self.params["width"]), int(self.params["heads"])
        dropout = float(self.params["dropout"])
        return SequenceNetwork(dim, width, heads, out, dropout).to(device())

    def _input(self, x: NDArray[np.float32]) -> torch.Tensor:
        import torch

        return torch.from_numpy((x - self._mean) / self._scale).to(device())


classifiers.add(Sequence.name, Sequence)
