"""Heads of finetuned encoders: what they compute, and how a file keeps them beside the encoder.

A file that ``finetune`` wrote holds the encoder under its published keys, the head under
``finetuned_head.``, and in its settings what the head's tensors do not tell. It is the same for
every architecture, whatever heads the published files of one have.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Literal, Self, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from ecgstore.models.layers import LayerNorm

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ecgstore.models.spec import ModelSpec
    from ecgstore.models.weights import Checkpoint

__all__ = ["SETTING", "Head", "HeadConfiguration", "Kind", "Output", "apart", "read_head"]

Kind = Literal["linear", "attention", "mlp"]
Output = Literal["binary", "continuous"]

SETTING = "finetuned_head"
"""Setting that describes the head; its tensors have this, and a dot, before their names."""

_PREFIX = f"{SETTING}."


@dataclass(frozen=True)
class HeadConfiguration:
    """What a head is.

    Attributes:
        kind: ``linear`` on the record's vector; ``mlp``, a hidden layer as wide as the vector and
            GELU before that; ``attention``, which pools the tokens for each output on its own.
        labels: What the outputs stand for.
        output: ``binary``: outputs are logits. ``continuous``: numbers in the labels' units.
        variant: How the encoder was fed when it was finetuned.
    """

    kind: Kind
    labels: tuple[str, ...]
    output: Output
    variant: str

    @classmethod
    def infer(cls, checkpoint: Checkpoint) -> Self:
        """Read it off the settings of a file.

        Raises:
            WeightsError: They do not describe a head.
        """
        told = checkpoint.settings.get(SETTING)
        if not isinstance(told, dict):
            checkpoint.refuse(f"its head has no setting {SETTING!r} that describes it")
        kind, output, variant = (told.get(key) for key in ("kind", "output", "variant"))
        labels = told.get("labels")
        named = isinstance(labels, list) and all(isinstance(one, str) and one for one in labels)
        if not named or not labels or len(set(labels)) < len(labels):
            checkpoint.refuse(f"the labels of its head are {labels!r}, expected different names")
        known: tuple[Kind, ...] = get_args(Kind)
        outputs: tuple[Output, ...] = get_args(Output)
        if kind not in known or output not in outputs:
            checkpoint.refuse(f"its head is {kind!r} of {output!r} outputs, which is not known")
        return cls(
            known[known.index(kind)],
            tuple(labels),
            outputs[outputs.index(output)],
            str(variant or ""),
        )

    def settings(self) -> dict[str, object]:
        """Return what `infer` reads back, under `SETTING`."""
        return {SETTING: self.facts()}

    def facts(self) -> dict[str, object]:
        """Return all of it as plain values."""
        return asdict(self) | {"labels": list(self.labels)}

    def shapes(self, dim: int) -> dict[str, tuple[int, ...]]:
        """Return key and shape of every tensor of such a head on vectors of ``dim``."""
        with torch.device("meta"):
            state = Head(self, dim).state_dict()
        return {f"{_PREFIX}{key}": tuple(one.shape) for key, one in state.items()}


class Head(nn.Module):
    """A head in float32, on one window at a time.

    Attention pooling has one learned query an output: softmax over tokens of the scaled product
    of query and normed token, as pooling by attention with a seed vector of Lee et al. 2019 (Set
    Transformer, arXiv 1810.00825), with one head and no projections [chosen].

    Args:
        configuration: What it is.
        dim: Width of tokens and vectors.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, configuration: HeadConfiguration, dim: int) -> None:
        super().__init__()
        self.configuration = configuration
        count = len(configuration.labels)
        if configuration.kind == "attention":
            self.norm = LayerNorm(dim)
            self.queries = nn.Parameter(torch.empty(count, dim))
        if configuration.kind == "mlp":
            self.hidden = nn.Linear(dim, dim)
        self.weight = nn.Parameter(torch.empty(count, dim))
        self.bias = nn.Parameter(torch.empty(count))
        if configuration.output == "continuous":
            self.register_buffer("mean", torch.zeros(count))
            self.register_buffer("deviation", torch.ones(count))

    def start(self, generator: torch.Generator) -> None:
        """Give weights their starting values: Xavier-uniform, zero biases; queries at 0.02.

        Xavier and zeros are those published for ECG-FM's head; the rest is chosen.
        """
        with torch.no_grad():
            nn.init.xavier_uniform_(self.weight, generator=generator)
            nn.init.zeros_(self.bias)
            if self.configuration.kind == "mlp":
                nn.init.xavier_uniform_(self.hidden.weight, generator=generator)
                nn.init.zeros_(self.hidden.bias)
            if self.configuration.kind == "attention":
                nn.init.normal_(self.queries, std=0.02, generator=generator)

    def forward(self, tokens: Tensor, vectors: Tensor) -> Tensor:
        """Return logits, or standardised numbers, ``(windows, outputs)`` float32.

        Args:
            tokens: ``(windows, tokens, dim)`` what the encoder's vector is made of.
            vectors: ``(windows, dim)`` that vector.
        """
        with torch.autocast(vectors.device.type, enabled=False):
            x = vectors.float()
            if self.configuration.kind == "mlp":
                x = functional.gelu(self.hidden(x))
            if self.configuration.kind == "attention":
                normed = self.norm(tokens)
                scores = normed @ self.queries.T * normed.shape[-1] ** -0.5
                pooled = scores.softmax(1).transpose(1, 2) @ normed
                logits: Tensor = (pooled * self.weight).sum(-1) + self.bias
                return logits
            return functional.linear(x, self.weight, self.bias)

    def told(self, logits: Tensor) -> Tensor:
        """Return what outputs say: probabilities, or numbers in the units of the labels."""
        if self.configuration.output == "binary":
            return logits.sigmoid()
        return logits * self.deviation + self.mean

    def published(self) -> dict[str, Tensor]:
        """Return the tensors under the keys of a file."""
        return {f"{_PREFIX}{key}": one for key, one in self.state_dict().items()}

    @classmethod
    def of(cls, configuration: HeadConfiguration, tensors: Mapping[str, Tensor]) -> Self:
        """Return a head with the tensors of a file."""
        state = {key.removeprefix(_PREFIX): one for key, one in tensors.items()}
        with torch.device("meta"):
            head = cls(configuration, state["weight"].shape[1])
        head.load_state_dict(state, assign=True)
        return head


def apart(checkpoint: Checkpoint) -> tuple[Checkpoint, Checkpoint | None]:
    """Return a checkpoint without its finetuned head, and one of that head, None without."""
    mine = {key: one for key, one in checkpoint.tensors.items() if key.startswith(_PREFIX)}
    if not mine:
        return checkpoint, None
    rest = {key: one for key, one in checkpoint.tensors.items() if key not in mine}
    return replace(checkpoint, tensors=rest), checkpoint.dense(mine)


def read_head(checkpoint: Checkpoint, dim: int, spec: ModelSpec) -> Head:
    """Return the head of a checkpoint that `apart` gave.

    Args:
        checkpoint: The head's tensors, and the settings of the file.
        dim: Length of the encoder's vector.
        spec: The facts about the model.

    Raises:
        WeightsError: It is not described, does not fit, or was fed in a way the model is not.
    """
    configuration = HeadConfiguration.infer(checkpoint)
    known = [variant.name for variant in spec.variants]
    if configuration.variant not in known:
        checkpoint.refuse(f"its head was fed by {configuration.variant!r}, expected one of {known}")
    return Head.of(configuration, checkpoint.matched(configuration.shapes(dim)))
