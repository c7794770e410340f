"""MTAE and MLAE, the siblings of ST-MEM: masked auto-encoders with a class token.

MTAE cuts all leads together along time, MLAE takes each lead as one patch, and both read out the
class token where ST-MEM takes the mean of its patches.

Na, Park, Tae, Joo: Guiding Masked Representation Learning to Capture Spatio-Temporal Relationship
of Electrocardiogram, ICLR 2024, arXiv 2402.09450.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Self

import torch
from torch import Tensor, nn

from ecgstore.models import stmem  # noqa: F401  its facts are theirs
from ecgstore.models.model import Model, models
from ecgstore.models.patches import PatchConfiguration, PatchEncoder, PatchTransformer, variants
from ecgstore.record import LEADS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ecgstore.models.weights import Checkpoint

__all__ = ["Mae", "MaeConfiguration", "MlaeEncoder", "MtaeEncoder"]


@dataclass(frozen=True, kw_only=True)
class MaeConfiguration(PatchConfiguration):
    """The dimensions of MTAE, whose patches hold all leads, or of MLAE, whose patches hold one.

    Attributes:
        patch_leads: Leads of a patch, 12 or 1.
    """

    patch_leads: int = len(LEADS)

    @property
    def features(self) -> int:
        """Numbers in a patch."""
        return self.patch * self.patch_leads

    @property
    def positions(self) -> int:
        """Rows of the position table; the first is for the class token."""
        return self.patches + 1

    @property
    def window_samples(self) -> int:
        """Samples of a full window."""
        return self.patches * self.features // len(LEADS)

    @property
    def vectors(self) -> tuple[str, ...]:
        """The class token."""
        return ("cls_embedding",)

    @classmethod
    def infer(cls, checkpoint: Checkpoint) -> Self:
        """Read dimensions off the tensors; the settings tell the size of a patch."""
        rows = checkpoint.shape("pos_embedding", 3)[1]
        features = checkpoint.shape("to_patch_embedding.1.weight", 1)[0]
        told = {"patch_size": _PUBLISHED.get((rows, features)), **checkpoint.settings}
        if told["patch_size"] is None:
            checkpoint.ask("the size of a patch", "patch_size")
        leads = 1 if _kind(rows, told) == "MLAE" else len(LEADS)
        blocks = cls.blocks_of(checkpoint)
        c = cls(patch=features // leads, patches=rows - 1, patch_leads=leads, **blocks)
        wanted = c.settings() | {"num_leads": len(LEADS), "seq_len": c.window_samples}
        odd = [
            f"{key} {told[key]!r}" for key, fits in wanted.items() if told.get(key, fits) != fits
        ]
        if odd or features != c.features or rows < 2:
            what = f"{rows - 1} patches of {features} numbers do not make windows of 12 leads"
            checkpoint.refuse(", ".join([what, *odd]))
        return c

    def settings(self) -> dict[str, object]:
        """Return the size of a patch as published files tell it: samples, for MLAE leads."""
        return {"patch_size": 1 if self.patch_leads == 1 else self.patch}


_PUBLISHED = {(31, 900): 75, (13, 2250): 1}
"""The size of a patch by rows of the position table and numbers of a patch, as published."""


def _kind(rows: int, settings: Mapping[str, object]) -> str:
    """Tell MLAE, whose table has one row for the class token and one a lead, from MTAE."""
    whole = rows == len(LEADS) + 1 and settings.get("patch_size", 1) == 1
    return "MLAE" if whole else "MTAE"


class Mae(PatchTransformer):
    """The network of MTAE and MLAE: a class token, then the patches."""

    def __init__(self, configuration: MaeConfiguration) -> None:
        super().__init__(configuration)
        self.patch, self.patch_leads = configuration.patch, configuration.patch_leads
        self.cls_embedding = nn.Parameter(torch.empty(configuration.dim))

    def patches(self, x: Tensor) -> Tensor:
        """Return ``(batch, patches, features)``; within a patch, leads run faster than time."""
        batch, rows, samples = x.shape
        times = samples // self.patch
        cut = x.reshape(batch, rows // self.patch_leads, self.patch_leads, times, self.patch)
        return cut.permute(0, 1, 3, 4, 2).flatten(3).flatten(1, 2)

    def tokens(self, x: Tensor, leads: Sequence[int]) -> Tensor:
        """Return ``(batch, 1 + patches, dim)``."""
        patches = self.patch_embedding(self.patches(x))
        first = self.cls_embedding.expand(len(x), 1, -1)
        return torch.cat([first, patches], dim=1) + self.pos_embedding[:, : patches.shape[1] + 1]

    def pool(self, tokens: Tensor, leads: int) -> Tensor:
        """Return the class token."""
        return tokens[:, 0]

    def parts(self, tokens: Tensor, leads: int) -> Tensor:
        """Return all tokens."""
        return tokens

    def pool_parts(self, tokens: Tensor) -> Tensor:
        """Return the class token."""
        return tokens[:, 0]

    def finish(self, tokens: Tensor, leads: int) -> dict[str, Tensor]:
        """Run the last block."""
        tokens = self.blocks[-1](tokens)
        return {
            "embedding": self.norm(tokens[:, 0]),
            "tokens-mean": tokens[:, 1:].mean(1),
            f"block{len(self.blocks) - 1}": self.pool(tokens, leads),
        }


class MtaeEncoder(PatchEncoder):
    """MTAE with the preparation of ST-MEM."""

    family = "MTAE"
    network_type = Mae
    configuration = MaeConfiguration

    @classmethod
    def recognise(cls, checkpoint: Checkpoint) -> str | None:
        """Tell by the class token, and the two of them apart by the position table."""
        tensors = {key.removeprefix("encoder."): v for key, v in checkpoint.tensors.items()}
        if not {"cls_embedding", "pos_embedding", "to_patch_embedding.1.weight"} <= tensors.keys():
            return None
        shape = tuple(getattr(tensors["pos_embedding"], "shape", ()))
        return _kind(shape[1] if len(shape) == 3 else 0, checkpoint.settings)


class MlaeEncoder(MtaeEncoder):
    """MLAE with the preparation of ST-MEM."""

    family = "MLAE"


for _encoder, _summary in (
    (MtaeEncoder, "Masked auto-encoder over patches of all leads along time (sibling of ST-MEM)."),
    (MlaeEncoder, "Masked auto-encoder over whole leads (sibling of ST-MEM)."),
):
    _name = _encoder.family.lower()
    _sibling = replace(
        models.get("stmem").spec,
        name=_name,
        arch=_name,
        summary=_summary,
        missing_leads="refuse",
        variants=variants("layer norm of the class token"),
        readouts=("embedding", "tokens-mean", "block{k}", "logits"),
        weights_source="None are published; train it as github.com/bakqui/ST-MEM does",
        licence_note=(
            "The authors' code that trains such weights is © VUNO Inc. under CC BY-NC 4.0, for "
            "non-commercial use only; no weights are published."
        ),
        pretraining=(),
        known_weights=(),
    )
    models.add(_name, Model(_sibling, _encoder))
