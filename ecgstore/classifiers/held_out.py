"""Networks whose epochs are chosen on training records held out of the fit."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from ecgstore.classifiers.inner import inner_folds
from ecgstore.classifiers.network import NetworkClassifier, device, outputs
from ecgstore.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import torch
    from numpy.typing import NDArray

    from ecgstore.classifiers.classifier import Setting
    from ecgstore.tasks import Target

__all__ = ["HeldOutClassifier"]

_MAY_BE_ZERO = {"seed", "dropout", "weight_decay"}


class HeldOutClassifier(NetworkClassifier):
    """A network on what a record's vectors are, fitted until held-out records gain no more.

    AdamW (Loshchilov and Hutter 2019). One of `folds` parts of the training records, whole
    patients, is held out: the weights kept are those of the epoch with the least loss there, and
    the fit ends `patience` epochs after it (Prechelt 1998). The same records and seed give the
    same network. Inputs are standardised by the records that are not held out.
    """

    training: ClassVar[Mapping[str, Setting]] = {
        "weight_decay": 0.01,
        "batch_size": 128,
        "epochs": 100,
        "patience": 10,
        "folds": 5,
        "seed": 0,
    }
    """The settings of the fit; part of `defaults`."""

    _mean: NDArray[np.float32]
    _scale: NDArray[np.float32]

    def __init__(
        self, params: Mapping[str, Setting] | None = None, *, target: Target = "binary"
    ) -> None:
        super().__init__(params, target=target)
        for key, value in self.params.items():
            if not float(value) >= 0 or (value == 0 and key not in _MAY_BE_ZERO):
                least = "0 or more" if key in _MAY_BE_ZERO else "above 0"
                msg = f"The setting {key!r} of {self.name} is {value}; it must be {least}."
                raise UsageError(msg)
        if float(self.params["dropout"]) >= 1:
            msg = f"The setting 'dropout' of {self.name} is {self.params['dropout']}; "
            raise UsageError(msg + "it must be below 1.")

    @property
    def steps(self) -> int:
        """One step an epoch."""
        return int(self.params["epochs"])

    @abstractmethod
    def _standardise(self, x: NDArray[np.float32]) -> None:
        """Take mean and scale of the records that are learned from."""

    @abstractmethod
    def _build(self, dim: int, out: int) -> torch.nn.Module:
        """Return a network of so many inputs and outputs, where it is to run."""

    @abstractmethod
    def _input(self, x: NDArray[np.float32]) -> torch.Tensor:
        """Return what the network is fed, where it runs."""

    def _fit(
        self,
        x: NDArray[np.float32],
        y: NDArray[np.float64],
        *,
        step: Callable[[], None],
        groups: NDArray[np.intp] | None,
    ) -> None:
        import torch

        seed, folds = int(self.params["seed"]), int(self.params["folds"])
        held = inner_folds(y, groups, folds, seed=seed, target=self.target) == 0
        self._standardise(x[~held])
        wanted = self._wanted(y)
        train, test = (torch.from_numpy(np.flatnonzero(rows)) for rows in (~held, held))
        here = device()
        with torch.random.fork_rng([here] if here.type == "cuda" else []):
            torch.manual_seed(seed)
            self._network = self._build(x.shape[-1], outputs(y, self.target))
            self._learn(self._input(x), wanted, train.to(here), test.to(here), step=step)

    def _learn(
        self,
        x: torch.Tensor,
        wanted: torch.Tensor,
        train: torch.Tensor,
        test: torch.Tensor,
        *,
        step: Callable[[], None],
    ) -> None:
        """Fit to some rows, and keep the weights that do best on others."""
        import torch

        network, batch = self._network, int(self.params["batch_size"])
        optimiser = torch.optim.AdamW(
            network.parameters(),
            lr=float(self.params["learning_rate"]),
            weight_decay=float(self.params["weight_decay"]),
        )
        shuffle = torch.Generator().manual_seed(int(self.params["seed"]))
        best: dict[str, torch.Tensor] = {}
        least, since = float("inf"), 0
        for epoch in range(self.steps):
            network.train()
            order = train[torch.randperm(len(train), generator=shuffle)]
            for rows in torch.split(order, batch):
                loss = self._loss(network(x[rows]).squeeze(-1), wanted[rows])
                optimiser.zero_grad()
                torch.autograd.backward(loss)
                optimiser.step()
            network.eval()
            with torch.inference_mode():
                held = float(self._loss(network(x[test]).squeeze(-1), wanted[test]))
            since += 1
            if held < least or not best:
                least, since = held, 0
                best = {name: value.clone() for name, value in network.state_dict().items()}
            step()
            if since == int(self.params["patience"]):
                for _ in range(epoch + 1, self.steps):
                    step()
                break
        network.load_state_dict(best)

    def _predict(self, x: NDArray[np.float32]) -> NDArray[np.float64]:
        import torch

        self._network.eval()
        with torch.inference_mode():
            return self._scores(self._network(self._input(x)).squeeze(-1))
