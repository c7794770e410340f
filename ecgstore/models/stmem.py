"""ST-MEM: a vision transformer over patches of single leads, trained as a masked auto-encoder.

Na, Park, Tae, Joo: Guiding Masked Representation Learning to Capture Spatio-Temporal Relationship
of Electrocardiogram, ICLR 2024, arXiv 2402.09450.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Self, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from ecgstore.models.model import Model, mini, models
from ecgstore.models.patches import (
    PatchConfiguration,
    PatchEncoder,
    PatchTransformer,
    variants,
)
from ecgstore.models.spec import ModelSpec
from ecgstore.record import LEADS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ecgstore.models.configuration import Configuration
    from ecgstore.models.layers import Block
    from ecgstore.models.weights import Checkpoint

__all__ = ["StMem", "StMemConfiguration", "StMemEncoder"]


@dataclass(frozen=True, kw_only=True)
class StMemConfiguration(PatchConfiguration):
    """The dimensions of one ST-MEM encoder; ``patches`` are those of one lead.

    Attributes:
        leads: Leads with an embedding of their own.
    """

    leads: int = len(LEADS)

    @property
    def features(self) -> int:
        """Numbers in a patch."""
        return self.patch

    @property
    def positions(self) -> int:
        """Rows of the position table; the first and the last are for the separators."""
        return self.patches + 2

    @property
    def window_samples(self) -> int:
        """Samples of a full window."""
        return self.patch * self.patches

    @property
    def vectors(self) -> tuple[str, ...]:
        """The separator, and one embedding a lead."""
        return "sep_embedding", *(f"lead_embeddings.{lead}" for lead in range(self.leads))

    @classmethod
    def infer(cls, checkpoint: Checkpoint) -> Self:
        """Read every dimension off the tensors; the settings beside them are not needed."""
        patches = checkpoint.shape("pos_embedding", 3)[1] - 2
        leads = checkpoint.count(r"lead_embeddings\.(\d+)$")
        if patches < 1 or leads != len(LEADS):
            what = f"{patches} patches, {leads} leads"
            checkpoint.refuse(f"not an ST-MEM encoder of 12 leads ({what})")
        patch = checkpoint.shape("to_patch_embedding.1.weight", 1)[0]
        return cls(patch=patch, patches=patches, leads=leads, **cls.blocks_of(checkpoint))

    def settings(self) -> dict[str, object]:
        """Return nothing: the tensors tell everything."""
        return {}

    def fold(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Rename, and stack the lead embeddings into one table."""
        state = super().fold(tensors)
        leads = [state.pop(f"lead_embeddings.{lead}") for lead in range(self.leads)]
        return state | {"lead_embeddings": torch.stack(leads)}


class StMem(PatchTransformer):
    """The network of ST-MEM: patches of each lead between two separators, one sequence for all."""

    def __init__(self, configuration: StMemConfiguration) -> None:
        super().__init__(configuration)
        self.sep_embedding = nn.Parameter(torch.empty(configuration.dim))
        self.lead_embeddings = nn.Parameter(torch.empty(configuration.leads, configuration.dim))

    def tokens(self, x: Tensor, leads: Sequence[int]) -> Tensor:
        """Return ``(batch, leads * (patches + 2), dim)``."""
        patch = self.configuration.patch
        patches: Tensor = self.patch_embedding(x.reshape(*x.shape[:2], -1, patch))
        return self.sequence(patches + self.pos_embedding[0, 1 : patches.shape[2] + 1], leads)

    def sequence(self, patches: Tensor, leads: Sequence[int]) -> Tensor:
        """Put embedded patches of each lead between separators, and the leads behind each other.

        Args:
            patches: ``(batch, leads, patches, dim)`` with their positions.
            leads: As for `tokens`.
        """
        position = self.pos_embedding[0]
        left, right = self.sep_embedding + position[0], self.sep_embedding + position[-1]
        edge = (*patches.shape[:2], 1, -1)
        tokens = torch.cat([left.expand(edge), patches, right.expand(edge)], dim=2)
        return (tokens + self.lead_embeddings[list(leads), None]).flatten(1, 2)

    def pool(self, tokens: Tensor, leads: int) -> Tensor:
        """Return the mean over all patches of all leads."""
        return _patches(tokens, leads).mean(dim=(1, 2))

    def parts(self, tokens: Tensor, leads: int) -> Tensor:
        """Return the patches of all leads: all but the separators."""
        return _patches(tokens, leads).flatten(1, 2)

    def pool_parts(self, tokens: Tensor) -> Tensor:
        """Return their mean."""
        return tokens.mean(1)

    def finish(self, tokens: Tensor, leads: int) -> dict[str, Tensor]:
        """Run the last block as far as means over patches need it.

        Separators go into no mean, so they skip the MLP; its second layer is linear, so it acts on
        the mean of each lead. The vector of a lead is the norm of its mean.
        """
        block = cast("Block", self.blocks[-1])
        patches = _patches(tokens + block.attention(block.attention_norm(tokens)), leads)
        inner = functional.gelu(block.mlp.fc1(block.mlp_norm(patches)))
        means = patches.mean(2) + block.mlp.fc2(inner.mean(2, dtype=torch.float32))
        mean = means.mean(1)
        return {
            "embedding": self.norm(mean),
            "tokens-mean": mean,
            "lead": self.norm(means).flatten(1),
            f"block{len(self.blocks) - 1}": mean,
        }


def _patches(tokens: Tensor, leads: int) -> Tensor:
    """Return ``(batch, leads, patches, dim)``: all tokens but the separators."""
    return tokens.reshape(len(tokens), leads, -1, tokens.shape[2])[:, :, 1:-1]


class StMemEncoder(PatchEncoder):
    """ST-MEM with its preparation; the leads a record lacks are left out of the sequence."""

    family = "ST-MEM"
    network_type = StMem
    configuration = StMemConfiguration

    @classmethod
    def recognise(cls, checkpoint: Checkpoint) -> str | None:
        """Tell by the separators."""
        names = {key.removeprefix("encoder.") for key in checkpoint.tensors}
        return cls.family if "sep_embedding" in names else None

    def _width(self, facts: Configuration) -> int:
        return len(LEADS) * facts.dim if self.readout == "lead" else super()._width(facts)


_VECTOR = "mean of the patch tokens, then layer norm"

_SPEC = ModelSpec(
    name="stmem",
    arch="stmem",
    summary="Masked auto-encoder over patches of single leads (ViT-B, reconstruction).",
    rate_hz=250.0,
    window_s=9.0,
    leads=LEADS,
    missing_leads="omit",
    variants=variants(_VECTOR),
    readouts=("embedding", "tokens-mean", "lead", "block{k}", "logits"),
    dim=768,
    licence="CC-BY-NC-4.0",
    licence_note=(
        "The ST-MEM weights are © VUNO Inc. under CC BY-NC 4.0: for non-commercial use only, with "
        "attribution; so is anything made by changing them, a converted copy too."
    ),
    citations=(
        (
            "Yeongyeon Na, Minje Park, Yunwon Tae, Sunghoon Joo: Guiding Masked Representation "
            "Learning to Capture Spatio-Temporal Relationship of Electrocardiogram. ICLR 2024, "
            "arXiv:2402.09450."
        ),
    ),
    weights_source=(
        "Get st_mem_vit_base_encoder.pth (or …_full.pth) from the link that its authors give at "
        "github.com/bakqui/ST-MEM"
    ),
    pretraining=("Chapman-Shaoxing", "Ningbo", "CODE-15%"),
    commercial=False,
    known_weights=(
        (
            "6f63d370fd1a2ccf2fbddd681571adf985eeae3f652973f0071342a39b7793d6",
            "st_mem_vit_base_encoder.pth",
        ),
    ),
)

models.add(_SPEC.name, Model(_SPEC, StMemEncoder))
models.add(
    "stmem.tiny",
    Model(
        replace(
            _SPEC,
            name="stmem.tiny",
            summary="ST-MEM at very small size, built in and untrained: for demos and tests.",
            dim=48,
            licence="MIT",
            licence_note=None,
            commercial=True,
            weights_source=None,
            pretraining=(),
            known_weights=(),
        ),
        StMemEncoder,
        StMemConfiguration(dim=48, depth=2, heads=1, hidden=96),
    ),
)
models.add(
    "stmem.mini",
    mini(
        replace(_SPEC, window_s=3.0, variants=variants(_VECTOR, seconds=3)), StMemEncoder, dim=128
    ),
)
