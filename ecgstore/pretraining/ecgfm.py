"""Pretraining of ECG-FM: wav2vec 2.0 on masked leads and frames, with contrast of segments.

McKeen, Masood, Toma, Rubin, Wang: ECG-FM: An Open Electrocardiogram Foundation Model, 2024,
arXiv 2408.05178. An item is a pair of adjacent segments of 5 s of one record. Leads are zeroed
and spans of frames hidden; for each hidden frame the network must tell the target made of what
was there from those of other hidden frames, and both segments of a record must find each other.
"""

from __future__ import annotations

import contextlib
import math
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar, Self, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from ecgstore.errors import UsageError
from ecgstore.models.ecgfm import EcgFm, EcgFmEncoder
from ecgstore.models.ecgfm_keys import PRETRAINING, EcgFmConfiguration
from ecgstore.models.model import models
from ecgstore.models.weights import renamed
from ecgstore.pretraining.contrast import (
    contrastive,
    diversity,
    likeness,
    perplexity,
    segment_contrast,
)
from ecgstore.pretraining.method import Draws, Method, Setting, methods
from ecgstore.pretraining.quantizer import Quantizer, Width
from ecgstore.pretraining.recipe import Recipe
from ecgstore.pretraining.spans import draw_negatives, draw_spans

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ecgstore.models.arithmetic import Arithmetic, Signal
    from ecgstore.models.weights import Checkpoint
    from ecgstore.pretraining.method import Batch
    from ecgstore.pretraining.ranks import Ranks

__all__ = ["EcgFmPretraining"]

_RATE_HZ = 500.0
_POSITION = "position.parametrizations.weight.original"
_EXACT_BELOW = 16
"""Channels a group for which PyTorch 2.13 errs in a bfloat16 convolution on CPUs."""

_PUBLISHED = (
    (r"^layers\.", "encoder.layers."),
    (r"\.attention\.out\.", ".self_attn.out_proj."),
    (r"\.attention_norm\.", ".self_attn_layer_norm."),
    (r"\.mlp_norm\.", ".final_layer_norm."),
    (r"\.mlp\.(fc[12])\.", r".\1."),
    (r"^norm\.", "encoder.layer_norm."),
    (r"^feature_norm\.", "layer_norm."),
    (r"^projection\.", "post_extract_proj."),
    (r"^position\.", "conv_pos.pos_conv.0."),
    (r"^stem\.(\d+)\.conv\.", r"feature_extractor.conv_layers.\1.0."),
    (r"^stem\.(\d+)\.norm\.", r"feature_extractor.conv_layers.\1.2."),
)
"""From the names of `ecgstore.models.ecgfm.EcgFm` to published ones."""
_OVER_CHANNELS = (r"^(feature_extractor\.conv_layers\.\d+\.2)\.", r"\1.1.")
"""The other spelling of the stem's norms, where they are over channels."""


@methods.register("ecgfm")
class EcgFmPretraining(Method):
    """Contrast of masked frames, diversity of codes, feature penalty, contrast of segments.

    The loss is the published sum divided by the number of masked frames, by which its gradient is
    divided too: ``contrastive + 0.1 diversity + 10 penalty + cmsc``. The published run looked for
    pairs of segments, and at the use of codes, within each GPU; here they are looked for in all
    that the processes hold at once, so that the loss does not depend on their number.

    It tells ``contrastive`` in bits a frame, ``diversity``, ``penalty`` and ``cmsc`` (in nats)
    before they are weighted, ``accuracy``, the share of frames whose own target wins, and
    ``codes``, the perplexity of the codes chosen without noise, summed over groups.

    Dropout is drawn from PyTorch's own generator; everything else by `draw`.
    """

    name = "ecgfm"
    model = "ecgfm"
    encoder = EcgFmEncoder
    configuration: EcgFmConfiguration
    sizes: ClassVar[Mapping[str, EcgFmConfiguration]] = {
        "base": EcgFmConfiguration(),
        "mini": EcgFmConfiguration(
            stem=((64, 4, 4), *((64, 2, 2),) * 3),
            dim=128,
            depth=2,
            heads=4,
            hidden=256,
            position_kernel=32,
            position_groups=8,
        ),
        "tiny": cast("EcgFmConfiguration", models.get("ecgfm.tiny").untrained),
    }
    recipe = Recipe(
        source="arXiv 2408.05178 and the settings within its authors' pretrained file",
        learning_rate=5e-5,
        batch_size=512,
        epochs=200,
        betas=(0.9, 0.98),
        eps=1e-6,
        weight_decay=0.01,
        schedule="constant",
    )
    defaults: ClassVar[Mapping[str, Setting]] = {
        "lead_drop": 0.5,
        "mask_share": 0.65,
        "mask_span": 10,
        "negatives": 100,
        "temperature": 0.1,
        "tau": 2.0,
        "tau_decay": 0.999995,
        "tau_floor": 0.5,
        "diversity": 0.1,
        "penalty": 10.0,
        "cmsc": 1.0,
        "dropout": 0.1,
        "stem_gradient": 0.1,
        "final_dim": 0,
        "latent_groups": 2,
        "latent_vars": 0,
    }
    """``mask_share`` is that of all spans together before they overlap, which leaves about half;
    ``tau``, of the quantizer, falls by ``tau_decay`` an update to ``tau_floor``. The last three
    are those of the published file's settings; 0 gives a file's own, else the published 256 and
    320 at 256 channels of the stem, and in proportion at others [chosen]."""

    flat_leads = False

    def __init__(
        self, configuration: EcgFmConfiguration, settings: Mapping[str, Setting] | None = None
    ) -> None:
        super().__init__(replace(configuration, classes=0), settings)
        c = self.configuration
        self.network = EcgFm(c)
        self._frames = self.network.frames(c.window_samples)
        if self._spans(1.0) > self._frames - self._whole("mask_span"):
            msg = f"{self._frames} frames cannot hold the spans to mask."
            raise UsageError(msg, hint="Lower mask_share or mask_span.")
        nn.utils.parametrizations.weight_norm(self.network.position, dim=2)
        self.mask_emb = nn.Parameter(torch.empty(c.dim))
        width = self.width
        self.quantizer = Quantizer(self._channels, width)
        self.project_q = nn.Linear(width.groups * width.entry, width.final)
        self.final_proj = nn.Linear(c.dim, width.final)
        self.updates: Tensor
        self.register_buffer("updates", torch.zeros((), dtype=torch.int64))

    @classmethod
    def of(
        cls, size: str, settings: Mapping[str, Setting], checkpoint: Checkpoint | None = None
    ) -> Self:
        """Do as `Method.of`; a quantizer in the checkpoint tells its dimensions too."""
        if checkpoint is not None and "quantizer.vars" in checkpoint.tensors:
            width = Width.of(checkpoint)
            told = {"final_dim": width.final, "latent_groups": width.groups}
            settings = {**told, "latent_vars": width.entries, **settings}
        return super().of(size, settings, checkpoint)

    @property
    def width(self) -> Width:
        """The dimensions of quantizer and targets."""
        channels, whole = self._channels, self._whole
        return Width(
            final=whole("final_dim") or channels,
            groups=whole("latent_groups"),
            entries=whole("latent_vars") or channels * 5 // 4,
        )

    @property
    def _channels(self) -> int:
        return self.configuration.stem[-1][0]

    def _number(self, name: str) -> float:
        return float(self.settings[name])

    def _whole(self, name: str) -> int:
        return int(self.settings[name])

    def _spans(self, rounding: float) -> int:
        share, span = self._number("mask_share"), self._whole("mask_span")
        return max(2, int(share * self._frames / span + rounding))

    # ------------------------------------------------------------------ weights in and out

    def start(self, seed: int) -> None:
        """Give every weight its first value; the spec of the published run tells none of them.

        The stem has the deviation of He and others (2015, arXiv 1502.01852), linear layers have
        0.02 as in BERT (arXiv 1810.04805), and entries and mask are uniform. Chosen here: linear
        layers of narrower networks have more, by the root of the width; the position convolution
        keeps the deviation of independent frames; the quantizer's logits stand well above the
        noise. Norms are 1, biases 0.
        """
        generator = torch.Generator().manual_seed(seed)
        linear = 0.02 * (768 / self.configuration.dim) ** 0.5
        with torch.no_grad():
            for name, weight in self.named_parameters():
                weight.copy_(_first_value(name, weight.shape, linear, generator))
            named = dict(self.named_parameters())
            direction = named[f"network.{_POSITION}1"]
            norm = torch.linalg.vector_norm(direction, dim=(0, 1), keepdim=True)
            named[f"network.{_POSITION}0"].copy_(norm)
            self.updates.zero_()

    def take(self, checkpoint: Checkpoint) -> tuple[str, ...]:
        """Take a pretrained file, or a finetuned one, which holds the encoder alone."""
        if EcgFmEncoder.recognise(checkpoint) is None:
            checkpoint.refuse(f"no checkpoint of {EcgFmEncoder.family}")
        c, selected = self.configuration, EcgFmEncoder.select(checkpoint)
        headless = {key: one for key, one in selected.items() if not key.startswith("proj.")}
        encoder = checkpoint.dense(headless)
        found, wanted = EcgFmConfiguration.infer(encoder).facts(), c.facts()
        if found != wanted:
            keys = [key for key in wanted if found.get(key) != wanted[key]]
            other = (f"{key} {found.get(key)} for {wanted[key]}" for key in keys)
            checkpoint.refuse(f"of another size ({', '.join(other)})")
        tensors = encoder.matched(c.shapes())
        norm = {key: value for key, value in tensors.items() if "parametrizations" in key}
        folded = c.fold(tensors)
        del folded["position.weight"]
        folded |= {key.replace("conv_pos.pos_conv.0", "position"): norm[key] for key in norm}
        state = {f"network.{key}": value for key, value in folded.items()}
        beside = {k: v for k, v in checkpoint.tensors.items() if k.startswith(PRETRAINING)}
        shapes = self.width.shapes(c.dim, self._channels)
        if beside:
            state |= checkpoint.dense(beside).matched(shapes)
        self.load_state_dict({**self.state_dict(), **state})
        return () if beside else tuple(shapes)

    def published(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return tensors as a file of the pretrained model has them, in the newer spelling."""
        encoder, beside = dict[str, Tensor](), dict[str, Tensor]()
        for key, tensor in state.items():
            name = key.removeprefix("network.")
            if name.startswith("stem.") and name.endswith(".conv.weight"):
                kernel = self.configuration.stem[int(name.split(".")[1])][1]
                taps = tensor.reshape(len(tensor), kernel, -1)
                encoder[name] = taps.transpose(1, 2).contiguous()
            elif ".attention.qkv." in name:
                for letter, part in zip("qkv", tensor.chunk(3), strict=True):
                    split = name.replace(".attention.qkv.", f".self_attn.{letter}_proj.")
                    encoder[split] = part.contiguous()
            elif name != key:
                encoder[name] = tensor
            elif key.startswith(PRETRAINING):
                beside[key] = tensor
        over_channels = (_OVER_CHANNELS,) if self.configuration.layer_norms else ()
        return renamed(encoder, _PUBLISHED + over_channels) | beside

    # ---------------------------------------------------------------------------- a batch

    def draw(self, items: int, leads: int, generator: torch.Generator) -> Draws:
        """Draw which leads stay, which frames are hidden, their negatives, and Gumbel noise."""
        keep = torch.rand((items, 2, leads), generator=generator) >= self._number("lead_drop")
        places = draw_spans(
            2 * items,
            self._frames,
            count=self._spans(float(torch.rand((), generator=generator))),
            span=self._whole("mask_span"),
            generator=generator,
        ).reshape(items, 2, -1)
        count = self._whole("negatives")
        negatives = draw_negatives(items, places.shape[2], count, generator=generator)
        shape = (*places.shape, self.width.groups, self.width.entries)
        uniform = torch.rand(shape, generator=generator).clamp_(min=2.0**-25)
        noise = uniform.log_().neg_().log_().neg_()
        return Draws({"lead_keep": keep, "places": places, "negatives": negatives, "noise": noise})

    def windows(
        self, signal: Signal, rate_hz: float, dsp: Arithmetic[Signal], draws: Draws
    ) -> Signal:
        """Return ``(items, 2, leads, samples)``: both segments of each piece of 10 s.

        At some rates resampling gives a sample less than 10 s; the segments overlap by it then.
        """
        length = self.configuration.window_samples
        signal = dsp.standardise_leads(dsp.resample_linear(signal, rate_hz, _RATE_HZ))
        second = min(length, signal.shape[-1] - length)
        return dsp.cut_windows(signal, (0, second), length)

    def forward(self, batch: Batch, ranks: Ranks) -> dict[str, Tensor]:
        """Return the loss and its terms."""
        each = {name: one.flatten(0, 1) for name, one in batch.draws.each.items()}
        segments = batch.windows.flatten(0, 1) * each["lead_keep"][..., None]
        features, normed = self._features(segments)
        frames = self._frames_of(normed, each["places"])
        with torch.autocast(frames.device.type, enabled=False):
            return self._terms(features.float(), normed, frames.float(), each, batch, ranks)

    def _features(self, segments: Tensor) -> tuple[Tensor, Tensor]:
        """Return what the stem gives, and that normed, of which targets are made."""
        features: Tensor = self.network.stem(segments.transpose(1, 2))
        fixed = features.detach()
        features = fixed + self._number("stem_gradient") * (features - fixed)
        return features, self.network.feature_norm(features)

    def _drop(self, x: Tensor) -> Tensor:
        return functional.dropout(x, self._number("dropout"), self.training)

    def _frames_of(self, normed: Tensor, places: Tensor) -> Tensor:
        """Return what the last layer gives where frames are hidden."""
        network, device = self.network, normed.device.type
        frames = self._drop(network.projection(normed)).float()
        hidden = torch.zeros(frames.shape[:2], dtype=torch.bool, device=frames.device)
        hidden.scatter_(1, places, value=True)
        frames = torch.where(hidden[..., None], self.mask_emb, frames)
        narrow = self.configuration.dim // self.configuration.position_groups < _EXACT_BELOW
        with torch.autocast(device, enabled=False) if narrow else contextlib.nullcontext():
            frames = frames + network.position(frames)
        if not self.configuration.norm_first:
            frames = network.norm(frames)
        frames = self._drop(frames)
        for layer in network.layers:
            dropout = self._number("dropout") if self.training else 0.0
            frames = layer(frames, dropout=dropout)
        return network.leave(frames)

    def _terms(
        self,
        features: Tensor,
        normed: Tensor,
        frames: Tensor,
        each: Mapping[str, Tensor],
        batch: Batch,
        ranks: Ranks,
    ) -> dict[str, Tensor]:
        places, settings = each["places"], self._number
        clean = self.quantizer.logits(self._drop(_at(normed, places)))
        decayed = settings("tau") * settings("tau_decay") ** self.updates.double()
        tau = decayed.clamp(min=settings("tau_floor")).float()
        noisy = clean + each["noise"] if self.training else clean
        chosen, codes = self.quantizer(noisy, tau)
        logits = likeness(
            self.final_proj(_at(frames, places)),
            self.project_q(chosen),
            codes,
            temperature=settings("temperature"),
        )
        contrast, accuracy = contrastive(logits, each["negatives"].long())
        shares = ranks.gather(clean.softmax(-1).mean((0, 1))[None]).mean(0)
        pooled = ranks.gather(self.network.pool(frames).reshape(len(batch), 2, -1))
        terms = {
            "diversity": diversity(shares),
            "penalty": features.square().mean(),
            "cmsc": segment_contrast(
                pooled[:, 0],
                pooled[:, 1],
                ranks.gather(batch.records),
                temperature=settings("temperature"),
            ),
        }
        loss = contrast + sum(settings(name) * term for name, term in terms.items())
        best = clean.detach().argmax(-1)
        used = functional.one_hot(best, clean.shape[-1]).float().mean((0, 1))
        told = {
            "contrastive": contrast / math.log(2),
            **terms,
            "accuracy": accuracy,
            "codes": perplexity(ranks.total(used) / ranks.size),
        }
        return {"loss": loss, **{name: term.detach() for name, term in told.items()}}

    # ----------------------------------------------------------------------------- between

    def stepped(self, done: float) -> None:
        """Count the update: the quantizer's temperature follows from it."""
        self.updates += 1


def _at(frames: Tensor, places: Tensor) -> Tensor:
    """Return ``(segments, places, dim)``, the frames at ``(segments, places)``."""
    return frames.gather(1, places[..., None].expand(-1, -1, frames.shape[-1]))


def _first_value(name: str, shape: torch.Size, linear: float, generator: torch.Generator) -> Tensor:
    if name == "mask_emb" or name == "quantizer.vars":
        return torch.rand(shape, generator=generator)
    if len(shape) == 1 or name.endswith("original0"):
        return torch.zeros(shape) if name.endswith("bias") else torch.ones(shape)
    inputs = math.prod(shape[1:])
    if name.startswith("network.stem."):
        deviation = (2 / inputs) ** 0.5
    elif name.endswith("original1"):
        deviation = inputs**-0.5
    else:
        deviation = 1.0 if name.startswith("quantizer.") else linear
    values: Tensor = torch.randn(shape, generator=generator) * deviation
    return values
