"""Mean, deviation and peak of each lead: the smallest encoder that another package can add."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Self

import torch
from torch import Tensor, nn

from ecgstore.errors import UsageError
from ecgstore.models import Encoder, Model
from ecgstore.models.spec import ModelSpec, Variant
from ecgstore.record import LEADS
from ecgstore.signal import linear_length

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ecgstore.models.arithmetic import Arithmetic, Signal
    from ecgstore.models.weights import Checkpoint

RATE_HZ, SAMPLES = 100.0, 200


@dataclass(frozen=True)
class Statistics:
    """The dimensions; a network with weights reads them off the tensors."""

    dim: int = 3 * len(LEADS)
    depth: int = 0
    classes: int = 0
    window_samples: int = SAMPLES

    @classmethod
    def infer(cls, checkpoint: Checkpoint) -> Self:
        checkpoint.refuse("this model has no weights")

    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {}

    def settings(self) -> dict[str, object]:
        return {}

    def facts(self) -> dict[str, object]:
        return asdict(self)

    def untrained(self, seed: int) -> dict[str, Tensor]:
        return {}

    def fold(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return dict(tensors)


class Network(nn.Module):
    """From ``(batch, leads, samples)`` to ``(batch, 3 * leads)``."""

    def __init__(self, configuration: Statistics) -> None:
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x.mean(-1), x.std(-1), x.abs().amax(-1)], dim=1)


class StatsEncoder(Encoder):
    """Consecutive windows of two seconds at 100 Hz, in millivolts."""

    family = "statistics"
    network_type = Network
    configuration = Statistics
    network: Network

    @classmethod
    def recognise(cls, checkpoint: Checkpoint) -> str | None:
        return None

    @classmethod
    def select(cls, checkpoint: Checkpoint) -> dict[str, Tensor]:
        return dict(checkpoint.tensors)

    def _starts(self, n_samples: int, rate_hz: float) -> tuple[float, ...]:
        windows = linear_length(n_samples, rate_hz, RATE_HZ) // SAMPLES
        return tuple(SAMPLES / RATE_HZ * number for number in range(windows))

    def _cut(self, signal: Signal, rate_hz: float, dsp: Arithmetic[Signal]) -> Signal:
        signal = dsp.resample_linear(signal, rate_hz, RATE_HZ)
        starts = range(0, signal.shape[-1] - SAMPLES + 1, SAMPLES)
        return dsp.cut_windows(signal, starts, SAMPLES)

    def _check_window(self, samples: int) -> None:
        if samples != SAMPLES:
            msg = f"A window has {samples} samples, expected {SAMPLES}."
            raise UsageError(msg)

    def _run(self, windows: Tensor, leads: list[int]) -> tuple[Tensor, Tensor | None]:
        return self.network(windows), None


_SPEC = ModelSpec(
    name="stats",
    arch="stats",
    summary="Mean, deviation and peak of each lead.",
    rate_hz=RATE_HZ,
    window_s=SAMPLES / RATE_HZ,
    leads=LEADS,
    missing_leads="zero",
    variants=(
        Variant(
            name="",
            units="mV",
            resampler="linear interpolation, no anti-alias filter",
            filters=(),
            normalisation="none",
            windows="consecutive ones of 2 s from the start; the mean of their vectors",
            preparation=(
                "resample to 100 Hz by linear interpolation, to int(samples * (100 / rate))",
                "put zeros for leads that are missing",
                "cut consecutive windows of 200 samples from the start; drop the rest",
                "mean, deviation and largest absolute value of each lead",
            ),
        ),
    ),
    readouts=("embedding",),
    dim=3 * len(LEADS),
    licence="MIT",
    licence_note=None,
    citations=("Cite the paper that describes your encoder here.",),
    weights_source=None,
)

STATS = Model(_SPEC, StatsEncoder, untrained=Statistics())
