"""How ECGFlow checkpoints are spelt, and the dimensions that follow from their tensors."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Self

from ecgstore.models.weights import renamed, seeded_tensors

if TYPE_CHECKING:
    from torch import Tensor

    from ecgstore.models.weights import Checkpoint

__all__ = ["DECODER", "LEADS8", "PATCH", "EcgFlowConfiguration"]

LEADS8 = ("I", "II", "V1", "V2", "V3", "V4", "V5", "V6")
"""The leads that are measured; the other four limb leads follow from I and II."""

PATCH = "patch_embed.proj.weight"
"""The projection of a patch to a token."""

_LAYERS = r"(norm1|norm2|attn\.qkv|attn\.proj|mlp\.fc1|mlp\.fc2)\.(weight|bias)"
_BLOCK = re.compile(rf"blocks\.\d+\.{_LAYERS}")
DECODER = re.compile(
    r"mask_token|decoder_pos_embed|decoder_(embed|norm|pred)\.(weight|bias)"
    rf"|decoder_blocks\.\d+\.{_LAYERS}"
)
"""All that a self-supervised file holds beside the encoder."""

_HEADS = {
    (50, 800, 12): 8,
    (25, 800, 12): 8,
    (25, 400, 12): 8,
    (100, 800, 8): 4,
    (50, 1040, 16): 16,
}
"""Heads of the published sizes by patch, width and depth."""


@dataclass(frozen=True)
class EcgFlowConfiguration:
    """The dimensions of one ECGFlow encoder.

    Attributes:
        patch: Samples of a patch, which holds all 8 leads.
        patches: Patches of a window.
        dim: Width of the tokens.
        depth: Number of blocks.
        heads: Attention heads.
        hidden: Width inside the MLP.
        classes: Outputs of the finetuned head, 0 without one.
        flat_patches: Whether the patch projection is kept as a matrix, ``(dim, leads * patch)``
            with the samples of a lead together, and not as a convolution.
        label_names: What the outputs stand for, empty if nobody told.
        mean_first: Whether the last norm is one of the mean over tokens, as in every file with a
            head, though this one has none.
    """

    patch: int = 50
    patches: int = 100
    dim: int = 800
    depth: int = 12
    heads: int = 8
    hidden: int = 3200
    classes: int = 0
    flat_patches: bool = False
    label_names: tuple[str, ...] = ()
    mean_first: bool = False

    @property
    def window_samples(self) -> int:
        """Samples of a window."""
        return self.patch * self.patches

    @property
    def pools_first(self) -> bool:
        """Whether the last norm is one of the mean over tokens and not of each."""
        return self.mean_first or self.classes > 0

    @classmethod
    def infer(cls, checkpoint: Checkpoint) -> Self:
        """Read dimensions off the tensors; heads off the settings or the published sizes."""
        tensors = checkpoint.tensors
        for key in tensors:
            if key.startswith("blocks.") and not _BLOCK.fullmatch(key):
                what = "expected attention, then MLP, each with its norm"
                checkpoint.refuse(f"unknown block layout ({key!r}); {what}")
        patch, dim, flat = _infer_patch(checkpoint)
        depth = checkpoint.count(r"blocks\.(\d+)\.")
        classes = checkpoint.shape("head.weight", 2)[0] if "head.weight" in tensors else 0
        configuration = cls(
            patch=patch,
            patches=checkpoint.shape("pos_embed", 3)[1] - 1,
            dim=dim,
            depth=depth,
            heads=_infer_heads(checkpoint, dim, _HEADS.get((patch, dim, depth))),
            hidden=checkpoint.shape("blocks.0.mlp.fc1.weight", 2)[0],
            classes=classes,
            flat_patches=flat,
            label_names=_infer_labels(checkpoint, classes),
            mean_first=not classes and "fc_norm.weight" in tensors,
        )
        samples = configuration.window_samples
        if samples == 0 or (flat and samples != 5000):
            # Leads and samples of a flat projection are told apart by the length of the window.
            checkpoint.refuse(f"takes windows of {samples} samples, expected 8 leads of 5000")
        return configuration

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the key and shape of every tensor of the encoder, and of the head."""
        dim, leads = self.dim, len(LEADS8)
        flat, cube = (dim, leads * self.patch), (dim, leads, self.patch)
        pairs: dict[str, tuple[int, ...]] = {
            "patch_embed.proj": flat if self.flat_patches else cube
        }
        layers: dict[str, tuple[int, ...]] = {
            "norm1": (dim,),
            "attn.qkv": (3 * dim, dim),
            "attn.proj": (dim, dim),
            "norm2": (dim,),
            "mlp.fc1": (self.hidden, dim),
            "mlp.fc2": (dim, self.hidden),
        }
        for block in range(self.depth):
            pairs |= {f"blocks.{block}.{layer}": shape for layer, shape in layers.items()}
        pairs["fc_norm" if self.pools_first else "norm"] = (dim,)
        if self.classes:
            pairs["head"] = (self.classes, dim)
        shapes: dict[str, tuple[int, ...]] = {
            "cls_token": (1, 1, dim),
            "pos_embed": (1, self.patches + 1, dim),
        }
        for name, shape in pairs.items():
            shapes[f"{name}.weight"] = shape
            shapes[f"{name}.bias"] = shape[:1]
        return shapes

    def settings(self) -> dict[str, object]:
        """Return the number of heads, and what the outputs stand for if that was told."""
        names = {"label_names": json.dumps(self.label_names)} if self.label_names else {}
        return {"heads": self.heads, **names}

    def facts(self) -> dict[str, object]:
        """Return all dimensions, and the names that were told."""
        facts = asdict(self)
        names, mean_first = facts.pop("label_names"), facts.pop("mean_first")
        if mean_first:
            facts["mean_first"] = True
        return facts | ({"label_names": list(names)} if names else {})

    def untrained(self, seed: int) -> dict[str, Tensor]:
        """Return seeded tensors."""
        return seeded_tensors(self.shapes(), seed=seed)

    def fold(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Rename, and make a matrix of the patch projection."""
        state = renamed(tensors, _NAMES)
        state["patch_embedding.weight"] = state["patch_embedding.weight"].flatten(1)
        return state


_NAMES = (
    (r"^patch_embed\.proj\.", "patch_embedding."),
    (r"\.norm1\.", ".attention_norm."),
    (r"\.norm2\.", ".mlp_norm."),
    (r"\.attn\.qkv\.", ".attention.qkv."),
    (r"\.attn\.proj\.", ".attention.out."),
    (r"^fc_norm\.", "norm."),
)
"""From published names to those of `EcgFlow`."""


def _infer_patch(checkpoint: Checkpoint) -> tuple[int, int, bool]:
    """Return the samples of a patch, the width, and whether the projection is kept flat."""
    if checkpoint.tensors[PATCH].ndim == 3:
        dim, leads, patch = checkpoint.shape(PATCH, 3)
        if leads != len(LEADS8):
            checkpoint.refuse(f"takes {leads} leads, expected {len(LEADS8)}")
        return patch, dim, False
    dim, inputs = checkpoint.shape(PATCH, 2)
    if inputs % len(LEADS8):
        checkpoint.refuse(f"its patches have {inputs} values, expected a multiple of 8 leads")
    return inputs // len(LEADS8), dim, True


def _infer_heads(checkpoint: Checkpoint, dim: int, published: int | None) -> int:
    settings = checkpoint.settings
    heads = settings.get("heads", settings.get("num_heads", published))
    if heads is None:
        checkpoint.ask(f"how many heads share its width of {dim}", "heads")
    if isinstance(heads, bool) or not isinstance(heads, int) or heads < 1 or dim % heads:
        checkpoint.refuse(f"its width {dim} does not divide into {heads!r} heads")
    return heads


def _infer_labels(checkpoint: Checkpoint, classes: int) -> tuple[str, ...]:
    """Return the names in the settings: a JSON list, or names between commas."""
    text = checkpoint.settings.get("label_names")
    if text is None:
        return ()
    try:
        listed = json.loads(text) if isinstance(text, str) else text
    except json.JSONDecodeError:
        listed = str(text).split(",")
    names = tuple(str(name).strip() for name in listed) if isinstance(listed, list) else ()
    if len(names) != classes or len(set(names)) != classes or "" in names:
        checkpoint.refuse(f"label_names is {text!r}, expected {classes} different names")
    return names
