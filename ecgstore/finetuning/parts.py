"""The parts of a network in order of depth: what is frozen, and how fast the rest learns."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from ecgstore.errors import UsageError

if TYPE_CHECKING:
    from torch import nn

__all__ = ["Parts", "read_freeze"]

_BLOCK = re.compile(r"(?:^|\.)(?:blocks|layers|stages)\.(\d+)\.")

_UNUSED = ("tokeniser.", "input.", "head.")
"""What a vector does not depend on, or is data and no weights: AnyECG's tokeniser, the scale of a
fitted ResNet's input, and the head that such a network keeps."""


class Parts:
    """The tensors of an encoder's network by depth.

    Args:
        network: The network.

    Attributes:
        depth: Number of blocks (layers, stages).
    """

    def __init__(self, network: nn.Module) -> None:
        names = [name for name, _ in network.named_parameters()]
        numbers = [self._block(name) for name in names]
        self.depth = max((number + 1 for number in numbers if number is not None), default=0)
        configuration: Any = getattr(network, "configuration", None)
        # ECG-FM's one norm stands before its layers, unless those are pre-norm.
        self._early_norm = getattr(configuration, "norm_first", None) is False
        # ECGFlow's last norm is put on anew with a head, so it learns with the head.
        self._fresh_norm = getattr(configuration, "mean_first", False)
        self._convolutional = any(name.startswith("stem.") for name in names)

    @staticmethod
    def _block(name: str) -> int | None:
        found = None if name.startswith(_UNUSED) else _BLOCK.search(name)
        return int(found[1]) if found else None

    def level(self, name: str) -> int:
        """Return how deep a tensor is: 0 before the blocks, 1 for the first, …, depth + 1 after."""
        number = self._block(name)
        if number is not None:
            return number + 1
        after = re.search(r"(?:^|\.)norm\.", name) and not name.startswith("stem.")
        return self.depth + 1 if after and not self._early_norm else 0

    def is_stem(self, name: str) -> bool:
        """Tell what ``stem`` freezes: the convolutions, or what makes tokens of patches."""
        return name.startswith("stem.") if self._convolutional else self.level(name) == 0

    def is_trained(self, name: str, freeze: str | int) -> bool:
        """Tell whether a tensor is trained.

        Args:
            name: Its name in the network.
            freeze: ``none``, ``stem``, ``all``, or the number of blocks on top that are trained,
                with what follows them.

        Raises:
            UsageError: There are fewer blocks.
        """
        if name.startswith(_UNUSED):
            return False
        if freeze == "all":
            return self._fresh_norm and self.level(name) > self.depth
        if isinstance(freeze, int):
            if freeze > self.depth:
                msg = f"The top {freeze} blocks cannot be trained: there are {self.depth}."
                raise UsageError(msg)
            return self.level(name) > self.depth - freeze
        return freeze == "none" or not self.is_stem(name)

    def scale(self, name: str, decay: float) -> float:
        """Return by what the learning rate of a tensor is multiplied.

        That is ``decay ** (depth + 1 - level)``, so that each block learns slower than the next
        (layer-wise decay; Clark et al. 2020, ELECTRA, arXiv 2003.10555); heads learn at 1.
        """
        return float(decay ** (self.depth + 1 - self.level(name)))


def read_freeze(given: str | int) -> str | int:
    """Return what to freeze: ``none``, ``stem``, ``all`` or a number of blocks.

    Raises:
        UsageError: It is something else.
    """
    text = str(given)
    if text in {"none", "stem", "all"}:
        return text
    if text.isdecimal():
        return int(text) or "all"
    msg = f"{text!r} is nothing that can be frozen; expected none, stem, all or a number."
    raise UsageError(msg, hint="A number says how many blocks on top are trained.")
