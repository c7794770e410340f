"""Gated attention over the members of a feature set: a small network that fuses and scores at once.

Each member's standardised vector is projected to a token; a gate decides how much each token
counts for this record (Ilse, Tomczak and Welling 2018, "Attention-based deep multiple instance
learning", arXiv 1802.04712, equation 9); a perceptron scores the weighted mean. While it is
fitted, members are dropped at random (as modality dropout, Neverova et al. 2016, IEEE TPAMI
38:1692), so that a record which lacks one is scored from the others.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, NamedTuple

import numpy as np

from ecgstore.errors import NotEnoughDataError, UsageError
from ecgstore.fusion.fusion import Fusion, need_records, present

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import torch
    from numpy.typing import NDArray

    from ecgstore.classifiers import Setting

    Block = NDArray[np.floating]

__all__ = ["Attention"]

_AT_ONCE = 4096
"""Records scored in one piece."""


class _Data(NamedTuple):
    """Records on the device: ``(n, dim)`` per member, ``(n, members)`` bool, ``(n,)`` labels."""

    blocks: list[torch.Tensor]
    has: torch.Tensor
    y: torch.Tensor

    def of(self, rows: torch.Tensor) -> _Data:
        return _Data([block[rows] for block in self.blocks], self.has[rows], self.y[rows])


class Attention(Fusion):
    """Gated attention over members, with a perceptron as head.

    AdamW on cross-entropy, for a number on the squared error of the standardised label. A part
    ``validation`` of the patients among the training records, drawn from each class, is kept back;
    the weights are those with the least loss on it, and fitting ends after ``patience`` epochs
    without a lesser one. The same records, seed, device and threads give the same network.
    """

    name = "attention"
    takes = "vectors"
    makes = "scores"
    targets: ClassVar[frozenset[str]] = frozenset({"binary", "multiclass", "continuous"})
    defaults: ClassVar[Mapping[str, Setting]] = {
        "width": 64,
        "dropout": 0.2,
        "member_dropout": 0.2,
        "epochs": 100,
        "patience": 10,
        "batch_size": 128,
        "learning_rate": 0.001,
        "weight_decay": 0.01,
        "validation": 0.2,
        "seed": 0,
    }

    def fit(
        self, blocks: Sequence[Block], y: NDArray[np.float64], *, groups: NDArray[np.intp]
    ) -> None:
        """Fit the network. See `Fusion.fit`."""
        self._check()
        has = present(blocks)
        kept = _kept_back(
            y if self.target != "continuous" else np.zeros(len(y)),
            groups,
            part=float(self.params["validation"]),
            seed=int(self.params["seed"]),
        )
        need_records(has[~kept], least=2, name=self.name)
        self.fitted = {}
        for i, block in enumerate(blocks):
            x = block[has[:, i] & ~kept].astype(np.float64)
            deviation = x.std(axis=0)
            deviation[x.max(axis=0) == x.min(axis=0)] = 1
            self.fitted |= {
                f"input.mean.{i}": x.mean(axis=0).astype(np.float32),
                f"input.deviation.{i}": deviation.astype(np.float32),
            }
        spread = y[~kept].std()
        centre, unit = (y[~kept].mean(), spread or 1.0) if self.target == "continuous" else (0, 1)
        self.fitted |= {"output.mean": np.array([centre]), "output.deviation": np.array([unit])}
        classes = int(y.max()) + 1 if self.target == "multiclass" else 1
        dims = [block.shape[1] for block in blocks]
        self._learn(self._data(blocks, (y - centre) / unit), kept, dims=dims, classes=classes)

    def apply(self, blocks: Sequence[Block]) -> NDArray[np.float64]:
        """Return probabilities or the value, ``(records,)`` or ``(records, classes)`` float64."""
        import torch

        members = sum(name.startswith("input.mean.") for name in self.fitted)
        lost = int((~present(blocks, members=members).any(axis=1)).sum())
        if lost:
            msg = f"{lost} of {len(blocks[0])} records lack the vectors of every member, so "
            msg += "'attention' has nothing to fuse."
            raise NotEnoughDataError(msg, task=self.name, hint="Embed them first.")
        network = self._restored([block.shape[1] for block in blocks])
        out = []
        with torch.inference_mode():
            for start in range(0, len(blocks[0]), _AT_ONCE):
                part = [block[start : start + _AT_ONCE] for block in blocks]
                data = self._data(part, np.zeros(len(part[0])))
                out.append(network(data.blocks, data.has).double().cpu())
        z = torch.cat(out) if out else torch.zeros(0, len(self.fitted["head.3.bias"])).double()
        if self.target == "multiclass":
            return z.softmax(dim=1).numpy()
        if self.target == "binary":
            return z[:, 0].sigmoid().numpy()
        scores: NDArray[np.float64] = z[:, 0].numpy() * self.fitted["output.deviation"]
        scores += self.fitted["output.mean"]
        return scores

    @staticmethod
    def library() -> str:
        """Return the version of PyTorch."""
        import torch

        return f"torch {torch.__version__}"

    def _check(self) -> None:
        for key, value in self.params.items():
            number = float(value)
            if key in ("dropout", "member_dropout"):
                usable, wanted = 0 <= number < 1, "from 0 up to 1"
            elif key == "validation":
                usable, wanted = 0 < number < 1, "between 0 and 1"
            else:
                usable, wanted = number > 0 or key in ("seed", "weight_decay"), "above 0"
            if not usable:
                msg = f"The setting {key!r} of attention is {value}; it must be {wanted}."
                raise UsageError(msg)

    def _data(self, blocks: Sequence[Block], y: NDArray[np.float64]) -> _Data:
        """Standardise and bring to the device; what is lacking becomes 0 and is masked."""
        import torch

        from ecgstore.models.device import find_device

        device = find_device("auto")
        scaled = [
            np.nan_to_num(
                (block - self.fitted[f"input.mean.{i}"]) / self.fitted[f"input.deviation.{i}"]
            )
            for i, block in enumerate(blocks)
        ]
        return _Data(
            [torch.from_numpy(block.astype(np.float32)).to(device) for block in scaled],
            torch.from_numpy(present(blocks)).to(device),
            torch.from_numpy(y.astype(np.float32)).to(device),
        )

    def _learn(
        self, data: _Data, kept: NDArray[np.bool_], *, dims: Sequence[int], classes: int
    ) -> None:
        import torch

        device, seed, batch = (
            data.y.device,
            int(self.params["seed"]),
            int(self.params["batch_size"]),
        )
        train, validation = (
            torch.from_numpy(np.flatnonzero(rows)).to(device) for rows in (~kept, kept)
        )
        shuffle = torch.Generator().manual_seed(seed)
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            torch.manual_seed(seed)
            network = self._network(dims, classes).to(device)
            optimiser = torch.optim.AdamW(
                network.parameters(),
                lr=float(self.params["learning_rate"]),
                weight_decay=float(self.params["weight_decay"]),
            )
            least, waited = float("inf"), 0
            for _ in range(int(self.params["epochs"])):
                network.train()
                order = train[torch.randperm(len(train), generator=shuffle).to(device)]
                for rows in torch.split(order, batch):
                    part = data.of(rows)
                    optimiser.zero_grad()
                    torch.autograd.backward(self._loss(network, part, self._dropped(part.has)))
                    optimiser.step()
                network.eval()
                with torch.inference_mode():
                    part = data.of(validation)
                    loss = float(self._loss(network, part, part.has))
                waited += 1
                if loss < least:
                    least, waited = loss, 0
                    state = network.state_dict().items()
                    self.fitted |= {name: value.cpu().numpy().copy() for name, value in state}
                if waited >= int(self.params["patience"]):
                    break
        if least == float("inf"):
            msg = "The gated attention did not learn: its loss is not a number."
            raise UsageError(msg, hint="Lower learning_rate.")

    def _dropped(self, has: torch.Tensor) -> torch.Tensor:
        """Hide members at random, never the last one a record has."""
        import torch

        rate = float(self.params["member_dropout"])
        left = has & (torch.rand(has.shape, device=has.device) >= rate)
        return torch.where(left.any(dim=1, keepdim=True), left, has)

    def _loss(self, network: torch.nn.Module, data: _Data, has: torch.Tensor) -> torch.Tensor:
        from torch.nn import functional

        z = network(data.blocks, has)
        if self.target == "multiclass":
            return functional.cross_entropy(z, data.y.long())
        if self.target == "binary":
            return functional.binary_cross_entropy_with_logits(z[:, 0], data.y)
        return functional.mse_loss(z[:, 0], data.y)

    def _network(self, dims: Sequence[int], classes: int) -> torch.nn.Module:
        from ecgstore.fusion.gate import GatedAttention

        width, dropout = int(self.params["width"]), float(self.params["dropout"])
        return GatedAttention(dims, width=width, out=classes, dropout=dropout)

    def _restored(self, dims: Sequence[int]) -> torch.nn.Module:
        import torch

        from ecgstore.models.device import find_device

        network = self._network(dims, len(self.fitted["head.3.bias"]))
        network.load_state_dict(
            {
                name: torch.from_numpy(value.copy())
                for name, value in self.fitted.items()
                if not name.startswith(("input.", "output."))
            }
        )
        return network.to(find_device("auto")).eval()


def _kept_back(
    y: NDArray[np.float64], groups: NDArray[np.intp], *, part: float, seed: int
) -> NDArray[np.bool_]:
    """Choose records for early stopping: a part of the patients of each class, all records of each.

    A patient of several classes counts for the highest.

    Raises:
        NotEnoughDataError: A class has fewer than 2 patients.
    """
    patients, place = np.unique(groups, return_inverse=True)
    label = np.full(len(patients), -np.inf)
    np.maximum.at(label, place, y)
    rng = np.random.default_rng(seed)
    chosen = np.zeros(len(patients), dtype=bool)
    for one in np.unique(y):
        mine = rng.permutation(np.flatnonzero(label == one))
        if len(mine) < 2:
            msg = f"Class {one:g} has {len(mine)} patients among the training records; 'attention' "
            msg += "needs 2 or more, one to learn from and one to tell when to stop."
            raise NotEnoughDataError(msg, task="attention", hint="Use another fusion.")
        chosen[mine[: min(max(round(len(mine) * part), 1), len(mine) - 1)]] = True
    return chosen[place]
