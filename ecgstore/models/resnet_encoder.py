"""The supervised ResNet-50 as an encoder: what its head sees of a record, and the head's output.

The weights are those that a fit stored, with the scale of its input beside them; see
`ecgstore.supervised`, whose rules for a record this follows.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Self

import torch
from torch import Tensor, nn

from ecgstore.models.encoder import Encoder
from ecgstore.models.model import Model, models
from ecgstore.models.resnet import ResNet50
from ecgstore.models.spec import ModelSpec, Variant
from ecgstore.models.weights import seeded_tensors
from ecgstore.record import LEADS
from ecgstore.signal import polyphase_length

if TYPE_CHECKING:
    from ecgstore.models.arithmetic import Arithmetic, Signal
    from ecgstore.models.configuration import Weights
    from ecgstore.models.weights import Checkpoint

__all__ = ["ResNet50Configuration", "ResNet50Encoder", "ScaledResNet50"]

_COUNTER = "num_batches_tracked"
"""Batches a norm has seen in training; nothing reads it afterwards, and it is no float."""

_MOST_SAMPLES = 1_000_000
"""Longer windows than any fit takes: a file that asks for more is not believed."""


@dataclass(frozen=True)
class ResNet50Configuration:
    """The dimensions of one fitted network, and of the input it was fitted to.

    Attributes:
        width: Channels of the stem.
        rate_hz: Samples per second of its input.
        seconds: Length of its input.
    """

    width: int = 64
    rate_hz: float = 100.0
    seconds: float = 10.0

    @property
    def dim(self) -> int:
        """Channels of the last stage: eight times those of the first, four times expanded."""
        return self.width * 32

    @property
    def depth(self) -> int:
        """No stage has a read-out of its own."""
        return 0

    @property
    def classes(self) -> int:
        """The one output."""
        return 1

    @property
    def window_samples(self) -> int:
        """Samples of the input."""
        return round(self.seconds * self.rate_hz)

    @classmethod
    def infer(cls, checkpoint: Checkpoint) -> Self:
        """Read the width off the tensors, rate and length off the settings of the fit."""
        width = checkpoint.shape("stem.0.weight", 3)[0]
        told = [checkpoint.settings.get(key) for key in ("rate_hz", "seconds")]
        numbers = [float(value) for value in told if isinstance(value, int | float)]
        if len(numbers) < len(told):
            checkpoint.ask("its input", "rate_hz", "seconds")
        rate_hz, seconds = numbers
        samples = rate_hz * seconds if min(numbers) > 0 else math.nan
        if not 1 <= samples <= _MOST_SAMPLES:
            checkpoint.refuse(f"an input of {seconds:g} s at {rate_hz:g} Hz makes no sense")
        return cls(width, rate_hz, seconds)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the key and shape of every tensor that a stored classifier needs."""
        with torch.device("meta"):
            state = ScaledResNet50(self).state_dict()
        return {key: tuple(value.shape) for key, value in state.items() if _COUNTER not in key}

    def settings(self) -> dict[str, object]:
        """Return the input, under the names that a fit uses."""
        return {"rate_hz": self.rate_hz, "seconds": self.seconds}

    def facts(self) -> dict[str, object]:
        """Return all dimensions."""
        return asdict(self)

    def untrained(self, seed: int) -> dict[str, Tensor]:
        """Return seeded tensors; norms and the input's scale change nothing."""
        tensors = seeded_tensors(self.shapes(), seed=seed)
        for key, tensor in tensors.items():
            if key == "input.deviation":
                tensors[key] = torch.ones_like(tensor)
            elif key.endswith("mean"):
                tensors[key] = torch.zeros_like(tensor)
        return tensors

    def fold(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Put the counters back."""
        norms = [key.removesuffix("running_mean") for key in tensors if "running_mean" in key]
        return {**tensors, **{f"{norm}{_COUNTER}": torch.tensor(0) for norm in norms}}


class _Scale(nn.Module):
    """The mean and deviation that each lead had over the training records."""

    def __init__(self) -> None:
        super().__init__()
        self.mean = nn.Parameter(torch.empty(len(LEADS), 1))
        self.deviation = nn.Parameter(torch.empty(len(LEADS), 1))

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean) / self.deviation


class ScaledResNet50(ResNet50):
    """The network with the scale of its input, under the names they are stored by."""

    def __init__(self, configuration: ResNet50Configuration) -> None:
        super().__init__(leads=len(LEADS), width=configuration.width)
        self.input = _Scale()

    def features(self, x: Tensor) -> Tensor:
        """Return what the head sees of ``(batch, 12, samples)`` float32 millivolts."""
        return super().features(self.input(x))


class ResNet50Encoder(Encoder):
    """A fitted ResNet-50; its rate and window are those of the fit, told by the file.

    See `Encoder` for the arguments.
    """

    family = "ResNet-50"
    network_type = ScaledResNet50
    configuration = ResNet50Configuration
    network: ScaledResNet50

    def __init__(
        self,
        spec: ModelSpec,
        weights: Weights,
        *,
        variant: str | None = None,
        readout: str | None = None,
        device: str = "auto",
        precision: str = "auto",
    ) -> None:
        c = weights.configuration
        assert isinstance(c, ResNet50Configuration)  # as `infer` made it
        self._seconds = c.seconds
        super().__init__(
            replace(spec, rate_hz=c.rate_hz, window_s=c.seconds, dim=c.dim),
            weights,
            variant=variant,
            readout=readout,
            device=device,
            precision=precision,
        )

    @classmethod
    def recognise(cls, checkpoint: Checkpoint) -> str | None:
        """Tell by the scale of the input beside a bottleneck."""
        keys = {"input.mean", "input.deviation", "blocks.0.branch.0.weight"}
        return cls.family if keys <= checkpoint.tensors.keys() else None

    @classmethod
    def select(cls, checkpoint: Checkpoint) -> dict[str, Tensor]:
        """Take all but the counters."""
        return {key: value for key, value in checkpoint.tensors.items() if _COUNTER not in key}

    def _starts(self, n_samples: int, rate_hz: float) -> tuple[float, ...]:
        taken = self._taken(rate_hz)
        reached = polyphase_length(taken, rate_hz, self.rate_hz)
        return (0.0,) if taken <= n_samples and self.window_samples <= reached else ()

    def _taken(self, rate_hz: float) -> int:
        return round(self._seconds * rate_hz)

    def _cut(self, signal: Signal, rate_hz: float, dsp: Arithmetic[Signal]) -> Signal:
        signal = signal[..., : self._taken(rate_hz)]
        signal = dsp.resample_polyphase(signal, rate_hz, self.rate_hz, line=True)
        return dsp.cut_windows(signal, (0,), self.window_samples)

    def _tokens(self, windows: Tensor, leads: list[int]) -> Tensor:
        network = self.network
        stages: Tensor = network.blocks(network.stem(network.input(windows)))
        return stages.transpose(1, 2)

    def _run(self, windows: Tensor, leads: list[int]) -> tuple[Tensor, Tensor | None]:
        features = self.network.features(windows)
        logits = self.network.head(features)
        return (logits if self.readout == "logits" else features).float(), logits


_SPEC = ModelSpec(
    name="resnet50",
    arch="resnet50",
    summary="Supervised ResNet-50 on raw signals, as `train` fits and stores it.",
    rate_hz=100.0,
    window_s=10.0,
    leads=LEADS,
    missing_leads="refuse",
    variants=(
        Variant(
            name="",
            units="mV",
            resampler="anti-aliased polyphase filter, ends extended along a line",
            filters=(),
            normalisation="each lead by its mean and deviation over the training records",
            windows="the first one, as long as those of the fit",
            preparation=(
                "keep the first round(seconds * rate) samples, seconds as fitted",
                (
                    "resample to the fitted rate by a polyphase filter (Kaiser, beta 5), its ratio "
                    "with terms up to 10,000, the ends extended along the line from first to last "
                    "sample"
                ),
                "cut the window of round(seconds * fitted rate) samples at 0",
                "each lead: subtract the mean, divide by the deviation over the training records",
                "mean over time of the last stage",
            ),
        ),
    ),
    readouts=("embedding", "logits"),
    dim=2048,
    licence="LicenseRef-own",
    licence_note=None,
    citations=(
        (
            "Kaiming He, Xiangyu Zhang, Shaoqing Ren, Jian Sun: Deep Residual Learning for Image "
            "Recognition. CVPR 2016, arXiv:1512.03385."
        ),
    ),
    weights_source=(
        "Fit it (`train --classifier resnet50`), then write the column `model` of its row in the "
        "table `models` to a file"
    ),
)

models.add(_SPEC.name, Model(_SPEC, ResNet50Encoder))
