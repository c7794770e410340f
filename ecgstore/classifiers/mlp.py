"""A small network on vectors: a probe that may bend, where a linear one may not."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Self

import numpy as np

from ecgstore.classifiers.classifier import Setting, classifiers
from ecgstore.classifiers.held_out import HeldOutClassifier
from ecgstore.classifiers.inner import Scaled
from ecgstore.classifiers.network import device
from ecgstore.classifiers.tensors import from_tensors, to_tensors

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch
    from numpy.typing import NDArray

    from ecgstore.tasks import Target

__all__ = ["MLP"]


class MLP(HeldOutClassifier):
    """A perceptron with one hidden layer on standardised vectors.

    ReLU, and dropout (Srivastava et al. 2014) before and behind it.
    """

    name = "mlp"
    reads = "features"
    defaults: ClassVar[Mapping[str, Setting]] = {
        "hidden": 128,
        "dropout": 0.3,
        "learning_rate": 0.001,
        **HeldOutClassifier.training,
    }
    space: ClassVar[Mapping[str, tuple[Setting, ...]]] = {
        "hidden": ("choice", 32, 64, 128, 256, 512),
        "dropout": ("number", 0.0, 0.6),
        "learning_rate": ("log", 1e-4, 1e-2),
        "weight_decay": ("log", 1e-4, 1.0),
    }

    @property
    def dim(self) -> int:
        """Length of the vectors it was fitted to."""
        return int(self._mean.shape[0])

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
        network = classifier._build(classifier.dim, len(arrays["4.bias"]))
        classifier._take(network, arrays)
        return classifier

    def _standardise(self, x: NDArray[np.float32]) -> None:
        scaled = Scaled(x)
        self._mean, self._scale = scaled.mean.astype(np.float32), scaled.scale.astype(np.float32)

    def _build(self, dim: int, out: int) -> torch.nn.Module:
        from torch import nn

        hidden, dropout = int(self.params["hidden"]), float(self.params["dropout"])
        return nn.Sequential(
            nn.Dropout(dropout),
            nn.Linear(dim, hidden),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, out),
        ).to(device())

    def _input(self, x: NDArray[np.float32]) -> torch.Tensor:
        import torch

        return torch.from_numpy((x - self._mean) / self._scale).to(device())


classifiers.add(MLP.name, MLP)
