"""What a head can be put on: the tokens behind a vector, and the network without its old head."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, ClassVar

from ecgstore.errors import UsageError
from ecgstore.models.preparation import Preparation
from ecgstore.models.unfolding import unfolded

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from ecgstore.models.configuration import Configuration

__all__ = ["Finetunable"]


class Finetunable(Preparation):
    """The part of an encoder that only finetuning and its heads need."""

    published_head: ClassVar[str] = ""
    """What the keys of a head begin with in published files, where it can be left out."""

    def _tokens(self, windows: Tensor, leads: list[int]) -> Tensor:
        """Return what the first read-out is made of, ``(windows, tokens, dim)``; as `_run`.

        Only encoders that can be finetuned have it.
        """
        msg = f"{self.spec.name!r} does not tell its tokens, so it takes no head."
        raise UsageError(msg)

    def _pooled(self, tokens: Tensor) -> Tensor:
        """Return the vector of the first read-out, ``(windows, dim)``, made of its tokens."""
        return tokens.mean(1)

    @classmethod
    def bare(
        cls, facts: Configuration, tensors: Mapping[str, Tensor]
    ) -> tuple[Configuration, dict[str, Tensor]]:
        """Return configuration and tensors without the head of a published file, for a new one."""
        if not cls.published_head:
            return facts, dict(tensors)
        whole: Any = facts
        kept = {k: one for k, one in tensors.items() if not k.startswith(cls.published_head)}
        return dataclasses.replace(whole, classes=0), kept

    @classmethod
    def unfold(cls, facts: Configuration, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the network's state dict under published keys: the inverse of folding."""
        return unfolded(facts, state)
