"""What is trained: an encoder with a head, its loss on labels, and the best of it kept."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from ecgstore.errors import UsageError
from ecgstore.finetuning.augmentation import augmented
from ecgstore.finetuning.augmentation import draw as draw_augmentation
from ecgstore.finetuning.parts import Parts
from ecgstore.models import Weights, models
from ecgstore.models.heads import Head, HeadConfiguration
from ecgstore.models.patches import PatchConfiguration, filtered
from ecgstore.pretraining.method import Draws, Method
from ecgstore.pretraining.recipe import Recipe
from ecgstore.signal import fourier_length

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ecgstore.models.arithmetic import Arithmetic, Signal
    from ecgstore.models.configuration import Configuration
    from ecgstore.models.weights import Checkpoint
    from ecgstore.pretraining.method import Batch
    from ecgstore.pretraining.ranks import Ranks

__all__ = ["Finetuned", "Training"]

_STANDING = ("looked", "best", "loss", "auroc", "since")
"""Update of the last look at the validation records; update, loss and AUROC of the best one; and
how many looks have not been better since."""

_PIECE_S = 10.0
"""A longer record is learned from in pieces of so many seconds that all have its labels."""


@dataclass(frozen=True, eq=False)
class Training:
    """How a finetuned network learns; see `Preset` for what is not told here.

    Attributes:
        freeze: What is not trained.
        layer_decay: See `Preset`.
        smoothing: See `Preset`.
        augment: See `Preset`.
        weights: Weight of a positive for each output, empty for 1.
        mean: Mean of continuous labels over the training records, by output; else empty.
        deviation: Their deviation.
    """

    freeze: str | int = "none"
    layer_decay: float = 1.0
    smoothing: float = 0.0
    augment: bool = False
    weights: Sequence[float] = field(default_factory=tuple)
    mean: Sequence[float] = field(default_factory=tuple)
    deviation: Sequence[float] = field(default_factory=tuple)


class _Described:
    """A configuration that tells of the head as well."""

    def __init__(self, encoder: Configuration, head: HeadConfiguration) -> None:
        self._encoder, self._head = encoder, head

    def settings(self) -> dict[str, object]:
        return self._encoder.settings() | self._head.settings()

    def facts(self) -> dict[str, object]:
        return self._encoder.facts() | {"head": self._head.facts()}


class Finetuned(Method):
    """An encoder and a head on it.

    The loss is binary cross-entropy of logits, or the mean square of standardised numbers, over
    the labels that are known, each window of a record by itself. Batch norms keep the statistics
    of the encoder [chosen]; no network here has dropout when it is finetuned.

    The best weights that `judge` saw so far are part of the state, so a run that goes on has them.

    Args:
        model: Registry name.
        weights: Of the encoder; they are taken out.
        head: What head is put on it.
        training: How it learns.
    """

    name = "finetune"
    standing: Tensor
    recipe = Recipe(source="", learning_rate=1e-4, batch_size=64, epochs=1)

    def __init__(
        self, model: str, weights: Weights, head: HeadConfiguration, training: Training
    ) -> None:
        entry = models.get(model)
        facts, tensors = entry.encoder.bare(weights.configuration, weights.tensors)
        described: Any = _Described(facts, head)
        super().__init__(described)
        self._model, self._facts, self._first = entry, facts, dict(tensors)
        self._head_facts, self._training = head, training
        self._encoder = entry.encoder(
            entry.spec,
            Weights(weights.name, weights.sha256, facts, tensors, head=Head(head, facts.dim)),
            variant=head.variant or None,
            device="cpu",
            precision="fp32",
        )
        self.network: nn.Module = self._encoder.network
        self.head = cast("Head", self._encoder.head)
        self._parts = Parts(self.network)
        for name, one in self.network.named_parameters():
            one.requires_grad_(self._parts.is_trained(name, training.freeze))
        self.head.requires_grad_(requires_grad=True)
        if head.kind == "attention":
            self._freeze_unused()
        least = self._encoder.least_seconds()
        patches = isinstance(facts, PatchConfiguration)
        if training.augment and not patches:
            msg = f"Windows of {model!r} are not augmented; those of ST-MEM and its siblings are."
            raise UsageError(msg, hint="Choose another preset.")
        piece_s = max(_PIECE_S, least)
        vars(self).update(  # what other methods say for all their models
            model=model,
            encoder=entry.encoder,
            piece_s=piece_s,
            # Pieces of a batch must have windows of one shape; these are cut from any length.
            least_s=least if patches else piece_s,
            all_leads=entry.spec.missing_leads == "refuse",
            lost_samples=entry.spec.lost_samples == "fill",
        )
        self.best = nn.Module()
        for number, (_, one) in enumerate(self._trained()):
            self.best.register_buffer(str(number), one.detach().clone())
        untold = torch.full((len(_STANDING),), torch.nan, dtype=torch.float64)
        self.register_buffer("standing", untold)

    def _freeze_unused(self) -> None:
        """Leave out of training what no output depends on: attention passes the last norm by."""
        spec, trained = self._encoder.spec, [one for _, one in self._trained()]
        zeros = torch.zeros(1, len(spec.leads), self._facts.window_samples)
        _, logits = self._encoder.forward(zeros, spec.leads)
        assert logits is not None  # there is a head
        for one, gradient in zip(
            trained, torch.autograd.grad(logits.sum(), trained, allow_unused=True), strict=True
        ):
            one.requires_grad_(gradient is not None)

    @property
    def training_plan(self) -> Training:
        """How it learns."""
        return self._training

    @property
    def live(self) -> Any:  # noqa: ANN401  an encoder
        """The encoder as it is now, on the device where its weights are."""
        self._encoder.device = self.head.bias.device
        return self._encoder

    def _trained(self) -> list[tuple[str, nn.Parameter]]:
        """Return the parameters that are trained, by name."""
        both = {"network": self.network, "head": self.head}
        return [
            (f"{part}.{name}", one)
            for part, module in both.items()
            for name, one in module.named_parameters()
            if one.requires_grad
        ]

    def groups(self, recipe: Recipe) -> list[dict[str, Any]]:
        """Return a group for each learning rate, and for vectors that do not decay."""
        found: dict[tuple[float, float], list[nn.Parameter]] = {}
        for name, one in self._trained():
            part, _, rest = name.partition(".")
            decay = self._training.layer_decay
            scale = 1.0 if part == "head" else self._parts.scale(rest, decay)
            spared = one.ndim < 2 and not recipe.decay_vectors
            found.setdefault((scale, 0.0 if spared else recipe.weight_decay), []).append(one)
        return [
            {"params": params, "scale": scale, "weight_decay": decay}
            for (scale, decay), params in sorted(found.items(), key=lambda item: item[0])
        ]

    def train(self, mode: bool = True) -> Self:  # noqa: FBT001, FBT002  as PyTorch has it
        """Stay in evaluation mode; see the class."""
        return super().train(mode=False)

    # ------------------------------------------------------------------ weights in and out

    def start(self, seed: int) -> None:
        """Start the head from the seed; the encoder has its weights."""
        self.head.start(torch.Generator().manual_seed(seed))
        if self._head_facts.output == "continuous":
            self.head.mean = torch.tensor(self._training.mean, dtype=torch.float32)
            self.head.deviation = torch.tensor(self._training.deviation, dtype=torch.float32)
        for number, (_, one) in enumerate(self._trained()):
            self.best.get_buffer(str(number)).copy_(one.detach())

    def take(self, checkpoint: Checkpoint) -> tuple[str, ...]:
        """Take nothing: the encoder was made with its weights."""
        return ()

    def published(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the best weights: the encoder under published keys, and the head."""
        state = dict(state)
        if not state["standing"][0].isnan():  # there was a look
            for number, (name, _) in enumerate(self._trained()):
                state[name] = state[f"best.{number}"]
        parts: dict[str, dict[str, Tensor]] = {"network": {}, "head": {}}
        for key, one in state.items():
            part, _, name = key.partition(".")
            if part in parts:
                parts[part][name] = one
        head = Head.of(self._head_facts, parts["head"])
        return self._unfolded(parts["network"]) | head.published()

    def _unfolded(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the encoder; what was not trained is as it was, to the last bit."""
        trained = {name for name, one in self.network.named_parameters() if one.requires_grad}
        moved = {name: one for name, one in state.items() if name in trained}
        return self._first | self._model.encoder.unfold(self._facts, moved)

    # ---------------------------------------------------------------------------- a batch

    def draw(self, items: int, leads: int, generator: torch.Generator) -> Draws:
        """Draw where windows are cut and how they are augmented, if they are."""
        if not self._training.augment:
            return Draws()
        crop = torch.rand(items, generator=generator, dtype=torch.float64)
        drawn = draw_augmentation(items, leads, self._facts.window_samples, generator)
        return Draws({"crop": crop, **drawn.each})

    def windows(
        self, signal: Signal, rate_hz: float, dsp: Arithmetic[Signal], draws: Draws
    ) -> Signal:
        """Return ``(items, windows, leads, samples)`` as they are embedded.

        Those that are augmented are one each, ``(items, leads, samples)``, cut at random.
        """
        if not self._training.augment:
            return self._encoder._cut(signal, rate_hz, dsp)
        there, samples = self._encoder.rate_hz, self._facts.window_samples
        length = fourier_length(signal.shape[-1], rate_hz, there)
        starts = (draws.each["crop"] * (length - samples + 1)).long()
        windows = dsp.cut_each(dsp.resample_fourier(signal, length), starts, samples)
        return filtered(windows, there, dsp)

    def forward(self, batch: Batch, ranks: Ranks) -> dict[str, Tensor]:
        """Return the mean loss over the labels that are known.

        Args:
            batch: Its facts are the labels, NaN where not known.
            ranks: The processes; the mean is over all of them.
        """
        x = batch.windows
        if self._training.augment:
            x = augmented(x, batch.draws)[:, None]
        spec, leads = self._encoder.spec, [*batch.leads]
        if spec.missing_leads == "zero" and len(leads) < len(spec.leads):
            filled = x.new_zeros(*x.shape[:2], len(spec.leads), x.shape[3])
            filled[:, :, leads] = x
            x, leads = filled, [*range(len(spec.leads))]
        names = [spec.leads[place] for place in leads]
        _, logits = self._encoder.forward(x.flatten(0, 1), names)
        assert logits is not None  # there is a head
        labels = batch.facts.repeat_interleave(x.shape[1], 0)
        known = ~labels.isnan()
        losses = self._losses(logits.float(), labels.nan_to_num()) * known
        count = ranks.total(known.sum().float()) / ranks.size
        return {"loss": losses.sum() / count.clamp(min=1)}

    def _losses(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the loss of each label, ``(windows, outputs)``."""
        training = self._training
        if self._head_facts.output == "continuous":
            wanted = (labels - self.head.mean) / self.head.deviation
            return (logits - wanted).square()
        smooth = labels * (1 - training.smoothing) + training.smoothing / 2
        weights = torch.tensor(training.weights, device=logits.device) if training.weights else None
        return functional.binary_cross_entropy_with_logits(
            logits, smooth, pos_weight=weights, reduction="none"
        )

    # ----------------------------------------------------------------------- the best so far

    @property
    def record(self) -> dict[str, float]:
        """How it stands: see `_STANDING`; NaN before the first look."""
        return dict(zip(_STANDING, self.standing.tolist(), strict=True))

    @torch.no_grad()
    def judge(self, step: int, loss: float, auroc: float, *, by: str) -> None:
        """Take in a look at the validation records; the weights are kept if they are the best yet.

        Args:
            step: Updates done.
            loss: Of the validation records.
            auroc: Of them, NaN for numbers.
            by: Which of the two is looked at.
        """
        now = self.record
        score = auroc if by == "auroc" else -loss
        before = now["auroc"] if by == "auroc" else -now["loss"]
        if math.isnan(before) or score > before:
            for number, (_, one) in enumerate(self._trained()):
                self.best.get_buffer(str(number)).copy_(one)
            now |= {"best": step, "loss": loss, "auroc": auroc, "since": 0}
        else:
            now["since"] += 1
        now["looked"] = step
        self.standing.copy_(torch.tensor([now[name] for name in _STANDING], dtype=torch.float64))
