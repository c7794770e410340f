"""The registry of models: what each is called, its facts, and the class that does the work."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ecgstore.registry import Registry

if TYPE_CHECKING:
    from ecgstore.models.configuration import Configuration
    from ecgstore.models.encoder import Encoder
    from ecgstore.models.spec import ModelSpec

__all__ = ["Model", "mini", "models"]


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

    @property
    def built_in(self) -> bool:
        """Whether it needs no weights file."""
        return self.untrained is not None or self.packaged is not None


models: Registry[Model] = Registry("model", group="ecgstore.models", of=Model)
"""Every model by name; other packages add theirs by the entry-point group ``ecgstore.models``."""


def mini(spec: ModelSpec, encoder: type[Encoder], *, dim: int, then: str = "") -> Model:
    """Return the small pretrained encoder of an architecture that comes with ecgstore.

    Args:
        spec: The facts about the published model.
        encoder: The class that runs it.
        dim: Length of its vector.
        then: What was done after pretraining, for the summary.
    """
    name = f"{spec.arch}.mini"
    facts = replace(
        spec,
        name=name,
        summary=(
            f"{encoder.family}, small, pretrained on synthetic ECGs and 73 open ones{then}: for "
            "demos and laptops, not for clinical use."
        ),
        dim=dim,
        licence="MIT",
        licence_note=None,
        commercial=True,
        weights_source=None,
        pretraining=("synthetic-varied", "synthetic-retaken", "ecgstore open ECGs"),
        known_weights=(),
        hub=None,
    )
    return Model(facts, encoder, packaged=f"{name}.safetensors")
