"""How ECG-FM checkpoints are spelt, and the dimensions that follow from their tensors."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Self

import torch
from torch import Tensor

from ecgstore.models.weights import renamed, seeded_tensors
from ecgstore.record import LEADS

if TYPE_CHECKING:
    from ecgstore.models.weights import Checkpoint

__all__ = ["EVENTS", "LABELS", "OLD_NAMES", "PRETRAINING", "EcgFmConfiguration", "weight_norm"]

LABELS = (
    "Poor data quality",
    "Sinus rhythm",
    "Premature ventricular contraction",
    "Tachycardia",
    "Ventricular tachycardia",
    "Supraventricular tachycardia with aberrancy",
    "Atrial fibrillation",
    "Atrial flutter",
    "Bradycardia",
    "Accessory pathway conduction",
    "Atrioventricular block",
    "1st degree atrioventricular block",
    "Bifascicular block",
    "Right bundle branch block",
    "Left bundle branch block",
    "Infarction",
    "Electronic pacemaker",
)
"""What the 17 outputs of the published finetuned file stand for, in order."""

EVENTS = (
    "Poor data quality",
    "Premature ventricular contraction",
    "Ventricular tachycardia",
    "Supraventricular tachycardia with aberrancy",
    "Electronic pacemaker",
)
"""Those that a record has when any part of it has."""

_STEM = "feature_extractor.conv_layers"
_SCALE = "conv_pos.pos_conv.0.parametrizations.weight.original0"
_DIRECTION = "conv_pos.pos_conv.0.parametrizations.weight.original1"

OLD_NAMES = {
    "conv_pos.pos_conv.0.weight_g": _SCALE,
    "conv_pos.pos_conv.0.weight_v": _DIRECTION,
}
"""The spelling of the weight norm before January 2025, and the one since."""

PRETRAINING = ("mask_emb", "quantizer.", "project_q.", "final_proj.")
"""What the keys begin with that only pretraining needs."""

_REPEATED = r"\[\s*((?:\(\s*\d+\s*,\s*\d+\s*,\s*\d+\s*\)\s*,?\s*)+)\]\s*(?:\*\s*(\d{1,2}))?"


def _parse_stem(text: str) -> list[tuple[int, int, int]]:
    """Read ``[(channels, kernel, stride), …] * n + …``; nothing of it is evaluated."""
    if not re.fullmatch(rf"\s*{_REPEATED}\s*(?:\+\s*{_REPEATED}\s*)*", text):
        msg = f"cannot read {text!r}"
        raise ValueError(msg)
    blocks = []
    for listed, times in re.findall(_REPEATED, text):
        numbers = [int(number) for number in re.findall(r"\d+", listed)]
        triples = list(zip(numbers[::3], numbers[1::3], numbers[2::3], strict=True))
        blocks += triples * int(times or 1)
    return blocks


@dataclass(frozen=True)
class EcgFmConfiguration:
    """The dimensions of one ECG-FM encoder.

    Attributes:
        stem: Channels, kernel and stride of each convolution of the stem.
        dim: Width of the frames.
        depth: Number of transformer layers.
        heads: Attention heads.
        hidden: Width inside the MLP.
        position_kernel: Taps of the position convolution.
        position_groups: Its groups.
        norm_first: Whether the layers are pre-norm (no published file is).
        layer_norms: Whether every block of the stem has a layer norm over channels in place of the
            group norm in the first (in no published file).
        classes: Outputs of the finetuned head, 0 without one.
    """

    stem: tuple[tuple[int, int, int], ...] = ((256, 2, 2),) * 4
    dim: int = 768
    depth: int = 12
    heads: int = 12
    hidden: int = 3072
    position_kernel: int = 128
    position_groups: int = 16
    norm_first: bool = False
    layer_norms: bool = False
    classes: int = 0

    @property
    def window_samples(self) -> int:
        """Samples of a window: 5 s, though the network takes other lengths."""
        return 2500

    @classmethod
    def infer(cls, checkpoint: Checkpoint) -> Self:
        """Read dimensions off the tensors, and off the settings what tensors do not tell."""
        settings = checkpoint.settings
        layer_norms = f"{_STEM}.0.2.1.weight" in checkpoint.tensors
        mode = "layer_norm" if layer_norms else "default"
        if (told := settings.get("extractor_mode", mode)) != mode:
            checkpoint.refuse(f"extractor_mode {told!r} does not fit the stem's tensors")
        dim = checkpoint.shape("encoder.layer_norm.weight", 1)[0]
        rows, per_group, kernel = checkpoint.shape(_DIRECTION, 3)
        head = checkpoint.shape("proj.weight", 2)[0] if "proj.bias" in checkpoint.tensors else 0
        heads = settings.get("encoder_attention_heads", dim // 64 if dim % 64 == 0 else None)
        if not isinstance(heads, int) or heads < 1 or dim % heads:
            what = f"its width {dim} does not tell the number of heads (settings: {heads!r})"
            checkpoint.refuse(what)
        return cls(
            stem=_infer_stem(checkpoint),
            dim=dim,
            depth=checkpoint.count(r"encoder\.layers\.(\d+)\."),
            heads=heads,
            hidden=checkpoint.shape("encoder.layers.0.fc1.weight", 2)[0],
            position_kernel=kernel,
            position_groups=max(1, rows // per_group),
            norm_first=settings.get("layer_norm_first") is True,
            layer_norms=layer_norms,
            classes=head,
        )

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the key and shape of every tensor of a pretrained file that inference needs."""
        dim, channels = self.dim, self.stem[-1][0]
        shapes: dict[str, tuple[int, ...]] = {}
        fed = len(LEADS)
        for block, (out, kernel, _) in enumerate(self.stem):
            shapes[f"{_STEM}.{block}.0.weight"] = (out, fed, kernel)
            fed = out
        pairs: dict[str, tuple[int, ...]] = {f"{_STEM}.0.2": (self.stem[0][0],)}
        if self.layer_norms:
            pairs = {f"{_STEM}.{i}.2.1": (out,) for i, (out, _, _) in enumerate(self.stem)}
        pairs["layer_norm"] = (channels,)
        if channels != dim:
            pairs["post_extract_proj"] = (dim, channels)
        layers: dict[str, tuple[int, ...]] = {
            f"self_attn.{name}_proj": (dim, dim) for name in "qkv"
        }
        layers |= {"self_attn.out_proj": (dim, dim), "self_attn_layer_norm": (dim,)}
        layers |= {"fc1": (self.hidden, dim), "fc2": (dim, self.hidden), "final_layer_norm": (dim,)}
        for layer in range(self.depth):
            pairs |= {f"encoder.layers.{layer}.{name}": size for name, size in layers.items()}
        pairs["encoder.layer_norm"] = (dim,)
        if self.classes:
            pairs["proj"] = (self.classes, dim)
        for name, shape in pairs.items():
            shapes[f"{name}.weight"] = shape
            shapes[f"{name}.bias"] = shape[:1]
        shapes["conv_pos.pos_conv.0.bias"] = (dim,)
        shapes[_SCALE] = (1, 1, self.position_kernel)
        shapes[_DIRECTION] = (dim, dim // self.position_groups, self.position_kernel)
        return shapes

    def settings(self) -> dict[str, object]:
        """Return what the tensors do not tell, under the names that published files use."""
        return {
            "encoder_attention_heads": self.heads,
            "layer_norm_first": self.norm_first,
            "conv_feature_layers": " + ".join(f"[{block}]" for block in self.stem),
        }

    def facts(self) -> dict[str, object]:
        """Return all dimensions; the stem's norms where they are not as published."""
        facts = asdict(self) | {"stem": [list(block) for block in self.stem]}
        if not self.layer_norms:
            del facts["layer_norms"]
        return facts

    def untrained(self, seed: int) -> dict[str, Tensor]:
        """Return seeded tensors; each position tap has the norm its direction has on average."""
        tensors = seeded_tensors(self.shapes(), seed=seed)
        norm = (self.dim / self.position_kernel) ** 0.5
        tensors[_SCALE] = torch.full((1, 1, self.position_kernel), norm)
        return tensors

    def fold(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Rename, fold the weight norm, and make matrices of the stem and of query-key-value."""
        state = renamed(tensors, _NAMES)
        for block in range(len(self.stem)):
            name = f"stem.{block}.conv.weight"
            state[name] = state[name].transpose(1, 2).flatten(1)
        direction = state.pop(_DIRECTION)
        state["position.weight"] = state.pop(_SCALE) * direction / _tap_norm(direction)
        for layer in range(self.depth):
            for part in ("weight", "bias"):
                names = [f"layers.{layer}.self_attn.{name}_proj.{part}" for name in "qkv"]
                fused = torch.cat([state.pop(name) for name in names])
                state[f"layers.{layer}.attention.qkv.{part}"] = fused
        return state


def _infer_stem(checkpoint: Checkpoint) -> tuple[tuple[int, int, int], ...]:
    count = checkpoint.count(r"feature_extractor\.conv_layers\.(\d+)\.0\.weight$")
    shapes = [checkpoint.shape(f"{_STEM}.{block}.0.weight", 3) for block in range(max(1, count))]
    if shapes[0][1] != len(LEADS):
        checkpoint.refuse(f"takes {shapes[0][1]} leads, expected {len(LEADS)}")
    if (text := checkpoint.settings.get("conv_feature_layers")) is None:
        return tuple((out, kernel, kernel) for out, _, kernel in shapes)
    try:
        blocks = _parse_stem(str(text))
    except ValueError as error:
        checkpoint.refuse(f"conv_feature_layers: {error}")
    if [block[:2] for block in blocks] != [(out, kernel) for out, _, kernel in shapes] or any(
        stride == 0 for _, _, stride in blocks
    ):
        checkpoint.refuse(f"conv_feature_layers {text!r} does not fit the stem's tensors")
    return tuple(blocks)


def weight_norm(weight: Tensor) -> dict[str, Tensor]:
    """Return the position's weight as published files keep it: a direction and its norm a tap."""
    weight = weight.detach().float()
    return {_SCALE: _tap_norm(weight), _DIRECTION: weight.clone()}


def _tap_norm(direction: Tensor) -> Tensor:
    """Return the norm over the first two axes: the position weights keep one scale a tap."""
    norm: Tensor = torch.linalg.vector_norm(direction, dim=(0, 1), keepdim=True)
    return norm


_NAMES = (
    (r"^encoder\.layers\.", "layers."),
    (r"^encoder\.layer_norm\.", "norm."),
    (r"^layer_norm\.", "feature_norm."),
    (r"^feature_extractor\.conv_layers\.(\d+)\.0\.", r"stem.\1.conv."),
    (r"^feature_extractor\.conv_layers\.(\d+)\.2\.(1\.)?", r"stem.\1.norm."),
    (r"^conv_pos\.pos_conv\.0\.bias$", "position.bias"),
    (r"^post_extract_proj\.", "projection."),
    (r"^proj\.", "head."),
    (r"\.self_attn\.out_proj\.", ".attention.out."),
    (r"\.self_attn_layer_norm\.", ".attention_norm."),
    (r"\.final_layer_norm\.", ".mlp_norm."),
    (r"\.(fc[12])\.", r".mlp.\1."),
)
"""From published names to those of `ecgstore.models.ecgfm.EcgFm`."""
