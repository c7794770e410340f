"""MTAE and MLAE, the siblings of ST-MEM: stretches of time are masked, or whole leads.

Na, Park, Tae, Joo: Guiding Masked Representation Learning to Capture Spatio-Temporal Relationship
of Electrocardiogram, ICLR 2024, arXiv 2402.09450.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from ecgstore.models.mae import Mae, MaeConfiguration, MlaeEncoder, MtaeEncoder
from ecgstore.pretraining.method import methods
from ecgstore.pretraining.stmem import PatchPretraining

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from ecgstore.pretraining.masking import Choice

__all__ = ["MlaePretraining", "MtaePretraining"]

_DIMENSIONS: dict[str, dict[str, int]] = {
    "base": {},
    "small": {"dim": 384, "heads": 6, "hidden": 1536},
    "mini": {"dim": 128, "depth": 3, "heads": 2, "hidden": 512},
    "tiny": {"dim": 48, "depth": 2, "heads": 1, "hidden": 96},
}
"""As those of ST-MEM; base as published."""


class MtaePretraining(PatchPretraining):
    """MTAE: patches of all leads together are masked."""

    name = "mtae"
    model = "mtae"
    encoder = MtaeEncoder
    network: Mae
    configuration: MaeConfiguration

    sizes: ClassVar[Mapping[str, Any]] = {
        size: MaeConfiguration(**dimensions) for size, dimensions in _DIMENSIONS.items()
    }

    def encode(self, x: Tensor, choice: Choice, leads: Sequence[int]) -> Tensor:
        """Return ``(batch, 1 + kept, dim)``, the class token first."""
        first = self.network.cls_embedding
        return self._through(self._with_class_token(self.targets(x), choice, first))

    def targets(self, x: Tensor) -> Tensor:
        """Return ``(batch, patches, numbers)``; within a patch, leads run faster than time."""
        return self.network.patches(x)


class MlaePretraining(MtaePretraining):
    """MLAE: whole leads are masked."""

    name = "mlae"
    model = "mlae"
    encoder = MlaeEncoder

    sizes: ClassVar[Mapping[str, Any]] = {
        size: MaeConfiguration(patch=2250, patches=12, patch_leads=1, **dimensions)
        for size, dimensions in _DIMENSIONS.items()
    }


for _method in (MtaePretraining, MlaePretraining):
    methods.add(_method.name, _method)
