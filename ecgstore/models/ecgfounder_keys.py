"""How ECGFounder checkpoints are spelt, and the dimensions that follow from their tensors."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Self

from ecgstore.models.weights import renamed, seeded_tensors

if TYPE_CHECKING:
    from torch import Tensor

    from ecgstore.models.weights import Checkpoint

__all__ = ["FIRST", "NEVER_RUN", "STRIDE", "EcgFounderConfiguration"]

FIRST = "first_conv.conv.weight"
"""The key of the first convolution's weights, ``(filters, leads, kernel)``."""

NEVER_RUN = re.compile(
    r"(first_bn|stage_list\.\d+\.block_list\.\d+\.bn[123])"
    r"\.(weight|bias|running_mean|running_var|num_batches_tracked)"
)
"""Batch norms, which the files hold and the released network does not run."""

STRIDE = 2
"""Of the first convolution and of the first block of every stage, in every published file."""


@dataclass(frozen=True)
class EcgFounderConfiguration:
    """The dimensions of one ECGFounder network.

    Attributes:
        leads: Rows of the input.
        stem: Filters of the first convolution.
        filters: Filters of each stage.
        blocks: Blocks of each stage.
        kernel: Taps of the first convolution and of every grouped one.
        group_width: Filters of a group.
        classes: Outputs of the head, 0 without one.
    """

    leads: int = 12
    stem: int = 64
    filters: tuple[int, ...] = (64, 160, 160, 400, 400, 1024, 1024)
    blocks: tuple[int, ...] = (2, 2, 2, 3, 3, 4, 4)
    kernel: int = 16
    group_width: int = 16
    classes: int = 150

    @property
    def dim(self) -> int:
        """Filters of the last stage."""
        return self.filters[-1]

    @property
    def depth(self) -> int:
        """Number of stages."""
        return len(self.filters)

    @property
    def window_samples(self) -> int:
        """Samples of a full window: 10 s, though the network takes other lengths."""
        return 5000

    def tokens(self, samples: int) -> int:
        """Return how many tokens so many samples give: each stride halves, rounded up."""
        stride: int = STRIDE ** (1 + self.depth)
        return -(-samples // stride)

    @classmethod
    def infer(cls, checkpoint: Checkpoint) -> Self:
        """Read every dimension off the tensors; only the stride is not told, and is always 2."""
        stem, leads, kernel = checkpoint.shape(FIRST, 3)
        width = checkpoint.shape("stage_list.0.block_list.0.conv2.conv.weight", 3)[1]
        stages = range(checkpoint.count(r"stage_list\.(\d+)\."))
        last = "stage_list.{}.block_list.0.conv3.conv.weight"
        filters = tuple(checkpoint.shape(last.format(stage), 3)[0] for stage in stages)
        if any(count % width for count in filters):
            checkpoint.refuse(f"its stages of {filters} filters are no whole groups of {width}")
        head = "dense.weight"
        classes = checkpoint.shape(head, 2)[0] if head in checkpoint.tensors else 0
        return cls(
            leads=leads,
            stem=stem,
            filters=filters,
            blocks=tuple(
                checkpoint.count(rf"stage_list\.{stage}\.block_list\.(\d+)\.") for stage in stages
            ),
            kernel=kernel,
            group_width=width,
            classes=classes,
        )

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the key and shape of every tensor that the network runs."""
        stem = (self.stem, self.leads, self.kernel)
        layers: dict[str, tuple[int, ...]] = {"first_conv.conv": stem}
        fed = self.stem
        for stage, (filters, blocks) in enumerate(zip(self.filters, self.blocks, strict=True)):
            for block in range(blocks):
                name = f"stage_list.{stage}.block_list.{block}"
                layers |= {
                    f"{name}.conv1.conv": (filters, fed, 1),
                    f"{name}.conv2.conv": (filters, self.group_width, self.kernel),
                    f"{name}.conv3.conv": (filters, filters, 1),
                    f"{name}.se_fc1": (filters // 2, filters),
                    f"{name}.se_fc2": (filters, filters // 2),
                }
                fed = filters
        if self.classes:
            layers["dense"] = (self.classes, self.dim)
        shapes = {}
        for name, shape in layers.items():
            shapes[f"{name}.weight"] = shape
            shapes[f"{name}.bias"] = shape[:1]
        return shapes

    def settings(self) -> dict[str, object]:
        """Return nothing: the tensors tell everything."""
        return {}

    def facts(self) -> dict[str, object]:
        """Return all dimensions, the stride among them."""
        lists = {"filters": list(self.filters), "blocks": list(self.blocks)}
        return asdict(self) | lists | {"stride": STRIDE}

    def untrained(self, seed: int) -> dict[str, Tensor]:
        """Return seeded tensors."""
        return seeded_tensors(self.shapes(), seed=seed)

    def fold(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Rename, and make matrices of the convolutions of one tap."""
        state = renamed(tensors, _NAMES)
        pointwise = (".enter.weight", ".leave.weight")
        return {key: x[..., 0] if key.endswith(pointwise) else x for key, x in state.items()}


_NAMES = (
    (r"^first_conv\.conv\.", "stem."),
    (r"^stage_list\.(\d+)\.block_list\.(\d+)\.", r"stages.\1.\2."),
    (r"\.conv1\.conv\.", ".enter."),
    (r"\.conv2\.conv\.", ".grouped."),
    (r"\.conv3\.conv\.", ".leave."),
    (r"\.se_fc1\.", ".squeeze."),
    (r"\.se_fc2\.", ".excite."),
    (r"^dense\.", "head."),
)
"""From published names to those of `ecgstore.models.ecgfounder.EcgFounder`."""
