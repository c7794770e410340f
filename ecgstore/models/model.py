"""The registry of models: what each is called, its facts, and the class that does the work."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ecgstore.registry import Registry

if TYPE_CHECKING:
    from ecgstore.models.configuration import Configuration
    from ecgstore.models.encoder import Encoder
    from ecgstore.models.spec import ModelSpec

__all__ = ["Model", "models"]


@dataclass(frozen=True)
class Model:
    """One entry of the registry: the facts and the class that does the work.

    Attributes:
        spec: The facts.
        encoder: The class that runs it.
        untrained: Dimensions of a built-in model that needs no weights file, else None.
        seed: Seed of a built-in model's weights.
        packaged: Weights file in ``ecgstore/models/minis`` that is used where no other is given.
    """

    spec: ModelSpec
    encoder: type[Encoder]
    untrained: Configuration | None = None
    seed: int = 0
    packaged: str | None = None


models: Registry[Model] = Registry("model", group="ecgstore.models", of=Model)
"""Every model by name; other packages add theirs by the entry-point group ``ecgstore.models``."""
