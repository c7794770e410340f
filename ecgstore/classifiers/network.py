"""What classifiers that PyTorch fits have in common: device, loss, score and form on disk."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

from ecgstore.classifiers.classifier import Classifier

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import torch
    from numpy.typing import NDArray

    from ecgstore.tasks import Target

__all__ = ["NetworkClassifier", "device", "outputs"]


class NetworkClassifier(Classifier):
    """A classifier whose parameters PyTorch fits.

    Binary labels are fitted by cross-entropy of one logit, classes by that of one logit each,
    numbers by squared error after they were standardised over the training records.
    """

    format = "safetensors"
    targets = frozenset({"binary", "multiclass", "continuous"})
    _network: torch.nn.Module
    _labels: NDArray[np.float64]
    """Mean and deviation of continuous training labels; 0 and 1 for other targets."""

    @staticmethod
    def library() -> str:
        """Return the version of PyTorch."""
        import torch

        return f"torch {torch.__version__}"

    @staticmethod
    def machine() -> dict[str, str | int]:
        """Return the device and the threads, over which PyTorch adds numbers up in parts."""
        import torch

        here = device()
        name = torch.cuda.get_device_name(here) if here.type == "cuda" else here.type
        return {"device": name, "threads": torch.get_num_threads()}

    @classmethod
    @contextmanager
    def as_on(cls, machine: Mapping[str, str | int]) -> Iterator[None]:
        """Fit with as many threads as that machine did."""
        import torch

        threads = torch.get_num_threads()
        torch.set_num_threads(int(machine.get("threads", threads)))
        try:
            yield
        finally:
            torch.set_num_threads(threads)

    def _wanted(self, y: NDArray[np.float64]) -> torch.Tensor:
        """Return training labels as `_loss` takes them, and note their mean and deviation."""
        import torch

        self._labels = np.array([0.0, 1.0])
        if self.target == "continuous":
            self._labels = np.array([y.mean(), y.std()])
        scaled = (y - self._labels[0]) / self._labels[1]
        kind = np.int64 if self.target == "multiclass" else np.float32
        return torch.from_numpy(scaled.astype(kind)).to(device())

    def _loss(self, found: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
        from torch.nn import functional

        if self.target == "binary":
            return functional.binary_cross_entropy_with_logits(found, wanted)
        if self.target == "multiclass":
            return functional.cross_entropy(found, wanted)
        return functional.mse_loss(found, wanted)

    def _scores(self, found: torch.Tensor) -> NDArray[np.float64]:
        found = found.double()
        if self.target == "binary":
            found = found.sigmoid()
        elif self.target == "multiclass":
            found = found.softmax(dim=1)
        scores: NDArray[np.float64] = found.cpu().numpy() * self._labels[1] + self._labels[0]
        return scores

    def _arrays(self) -> dict[str, NDArray[np.generic]]:
        """Return the weights, and for continuous labels their mean and deviation."""
        arrays = {name: value.cpu().numpy() for name, value in self._network.state_dict().items()}
        return {**arrays, "labels": self._labels} if self.target == "continuous" else arrays

    def _take(self, network: torch.nn.Module, arrays: dict[str, NDArray[np.generic]]) -> None:
        """Take what `_arrays` returned into a network of the same shape."""
        import torch

        self._labels = np.asarray(arrays.pop("labels", np.array([0.0, 1.0])), np.float64)
        network.load_state_dict({name: torch.from_numpy(value) for name, value in arrays.items()})
        self._network = network


def outputs(y: NDArray[np.float64], target: Target) -> int:
    """Return how many numbers a network gives for a record."""
    return int(y.max()) + 1 if target == "multiclass" else 1


def device() -> torch.device:
    """Return the device that settings ask for, else a GPU where there is one."""
    from ecgstore.models.device import find_device

    return find_device("auto")
