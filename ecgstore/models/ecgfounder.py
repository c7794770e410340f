"""ECGFounder: a grouped convolutional network, trained on the diagnoses of ten million records.

Li, Aguirre, Moura, et al.: An Electrocardiogram Foundation Model Built on over 10 Million
Recordings, NEJM AI 2025, 2(7), AIoa2401033, arXiv 2410.04133.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from ecgstore.errors import UsageError
from ecgstore.models.ecgfounder_keys import FIRST, NEVER_RUN, STRIDE, EcgFounderConfiguration
from ecgstore.models.ecgfounder_labels import LABELS
from ecgstore.models.encoder import Encoder
from ecgstore.models.layers import Linear
from ecgstore.models.model import Model, models
from ecgstore.models.spec import HubFile, ModelSpec, Variant
from ecgstore.record import LEADS
from ecgstore.signal import butterworth, consecutive_starts, notch

if TYPE_CHECKING:
    from ecgstore.models.arithmetic import Arithmetic, Signal
    from ecgstore.models.configuration import Configuration
    from ecgstore.models.weights import Checkpoint

__all__ = [
    "CHECK_LOGITS",
    "CHECK_TOLERANCE",
    "EcgFounder",
    "EcgFounder1Encoder",
    "EcgFounderEncoder",
]

CHECK_LOGITS = (
    8.3751173, -4.1527028, -6.7856750, -2.8647900, 4.4135675,
    -2.2547250, -5.3009405, -6.1225495, -1.0395477, -1.8894272,
)  # fmt: skip
"""The first ten logits of the published 12-lead weights in float32.

The input is ``linspace(-1, 1, 60000).reshape(1, 12, 5000)``, straight into the network. The values
are those of a third party's public regression test.
"""

CHECK_TOLERANCE = 1e-5
"""How far the logits may be from `CHECK_LOGITS`."""

_SHORTEST_S = 2.5
"""Seconds of the shortest record: the network takes any length, but was studied from here on."""


class _Convolution(nn.Module):
    """A convolution over time, zero-padded as TensorFlow's ``same``.

    Of ``n`` samples come ``ceil(n / stride)``; an odd number of zeros has one more on the right.
    """

    def __init__(self, fed: int, out: int, kernel: int, stride: int, groups: int) -> None:
        super().__init__()
        self.stride, self.groups = stride, groups
        self.weight = nn.Parameter(torch.empty(out, fed // groups, kernel))
        self.bias = nn.Parameter(torch.empty(out))

    def use_bfloat16(self) -> None:
        """Cast where that is right: PyTorch 2.13 errs in bfloat16 with 8 channels a group."""
        if self.weight.shape[1] >= 16:
            self.to(torch.bfloat16)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(batch, time, channels)``.

        As an image of one row it keeps its channels last, which spares PyTorch two copies.
        """
        samples, kernel = x.shape[1], self.weight.shape[2]
        zeros = max(0, (-(-samples // self.stride) - 1) * self.stride + kernel - samples)
        x = functional.pad(x.to(self.weight.dtype), (0, 0, zeros // 2, zeros - zeros // 2))
        x = functional.conv2d(
            x.transpose(1, 2)[:, :, None],
            self.weight[:, :, None],
            self.bias,
            stride=(1, self.stride),
            groups=self.groups,
        )
        return x[:, :, 0].transpose(1, 2)


class _Block(nn.Module):
    """A residual block: 1x1, grouped and 1x1 convolution, each after swish, and a gate a filter."""

    def __init__(
        self, c: EcgFounderConfiguration, fed: int, out: int, stride: int, *, first: bool
    ) -> None:
        super().__init__()
        self.stride, self.first, self.grown = stride, first, out - fed
        self.enter = Linear(fed, out)
        self.grouped = _Convolution(out, out, c.kernel, stride, out // c.group_width)
        self.leave = Linear(out, out)
        self.squeeze = Linear(out, out // 2)
        self.excite = Linear(out // 2, out)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(batch, time, fed)`` float32 to ``(batch, ceil(time / stride), out)`` float32."""
        y = self.enter(x if self.first else functional.silu(x))  # the stem ends with a swish
        y = self.grouped(functional.silu(y, inplace=True))
        y = self.leave(functional.silu(y, inplace=True)).float()
        gate = self.excite(functional.silu(self.squeeze(y.mean(1)))).float().sigmoid()
        out: Tensor = y * gate[:, None] + self._shortcut(x)
        return out

    def _shortcut(self, x: Tensor) -> Tensor:
        """Return the maximum of each pair of samples, and zeros on both sides of the filters."""
        if self.stride == STRIDE:
            if x.shape[1] % STRIDE:  # the last of an odd number is compared with 0
                x = functional.pad(x, (0, 0, 0, 1))
            x = torch.maximum(x[:, ::STRIDE], x[:, 1::STRIDE])
        left = self.grown // 2
        return functional.pad(x, (left, self.grown - left)) if self.grown else x


class EcgFounder(nn.Module):
    """The network; a token of the last stage is 256 samples (0.5 s) of all leads."""

    def __init__(self, configuration: EcgFounderConfiguration) -> None:
        super().__init__()
        c = self.configuration = configuration
        self.stem = _Convolution(c.leads, c.stem, c.kernel, STRIDE, groups=1)
        self.stages = nn.ModuleList()
        fed = c.stem
        for stage, (out, blocks) in enumerate(zip(c.filters, c.blocks, strict=True)):
            entry = _Block(c, fed, out, STRIDE, first=stage == 0)
            rest = (_Block(c, out, out, 1, first=False) for _ in range(1, blocks))
            self.stages.append(nn.Sequential(entry, *rest))
            fed = out
        self.head = Linear(c.dim, c.classes) if c.classes else None

    def forward(self, x: Tensor, depth: int | None = None) -> list[Tensor]:
        """Return what each of the first ``depth`` stages gives, of all by default.

        Args:
            x: ``(batch, leads, samples)`` float32.
            depth: Where to stop.

        Returns:
            ``(batch, time, filters)`` float32 a stage; `EcgFounderConfiguration.tokens` tells the
            length of the last.
        """
        given = [functional.silu(self.stem(x.transpose(1, 2)).float())]
        for stage in self.stages[:depth]:
            given.append(stage(given[-1]))
        return given[1:]


class EcgFounderEncoder(Encoder):
    """ECGFounder with its preparation; all of its leads must be there, single samples need not."""

    family = "ECGFounder"
    network_type = EcgFounder
    configuration = EcgFounderConfiguration
    network: EcgFounder
    published_head = "dense."

    @classmethod
    def recognise(cls, checkpoint: Checkpoint) -> str | None:
        """Tell by the first convolution and the first gate, and which of the two by the leads."""
        tensors = checkpoint.tensors
        if FIRST not in tensors or "stage_list.0.block_list.0.se_fc1.weight" not in tensors:
            return None
        alone = getattr(tensors[FIRST], "shape", ())[1:2] == (1,)
        return (EcgFounder1Encoder if alone else EcgFounderEncoder).family

    @classmethod
    def select(cls, checkpoint: Checkpoint) -> dict[str, Tensor]:
        """Take all but the batch norms, which the released network does not run."""
        tensors = checkpoint.tensors
        return {key: value for key, value in tensors.items() if not NEVER_RUN.fullmatch(key)}

    def _width(self, facts: Configuration) -> int:
        assert isinstance(facts, EcgFounderConfiguration)
        if self.readout == "time":
            return facts.dim * facts.tokens(facts.window_samples)
        return facts.classes if self.readout == "logits" else facts.filters[self._stage()]

    def _stage(self) -> int:
        """Return the stage that the read-out is made of, -1 for the last."""
        found = re.fullmatch(r"stage(\d+)", self.readout)
        return int(found[1]) if found else -1

    def _labels(self, facts: Configuration) -> tuple[str, ...]:
        return LABELS if facts.classes == len(LABELS) else super()._labels(facts)

    def least_seconds(self) -> float:
        """Return 2.5 s, or 10 s where the number of tokens must be that of every vector."""
        return self.spec.window_s if self.readout == "time" else _SHORTEST_S

    def _spans(self, n_samples: int, rate_hz: float) -> tuple[tuple[int, ...], int, int]:
        """Return where windows start and their samples, at the record's rate, then at 500 Hz."""
        whole = round(self.spec.window_s * rate_hz)
        if n_samples >= whole:
            return consecutive_starts(n_samples, whole), whole, self.window_samples
        starts = (0,) if n_samples / rate_hz >= self.least_seconds() else ()
        return starts, n_samples, round(self.rate_hz * n_samples / rate_hz)

    def _starts(self, n_samples: int, rate_hz: float) -> tuple[float, ...]:
        return tuple(start / rate_hz for start in self._spans(n_samples, rate_hz)[0])

    def _cut(self, signal: Signal, rate_hz: float, dsp: Arithmetic[Signal]) -> Signal:
        starts, length, wanted = self._spans(signal.shape[-1], rate_hz)
        windows = dsp.cut_windows(dsp.fill_lost(signal, 0.0), starts, length)
        match self.variant.name:
            case "raw":
                return dsp.resample_ends(windows, wanted)
            case "ptbxl_eval":
                return dsp.resample_ends(dsp.standardise_windows(windows, eps=_EPS), wanted)
        windows = dsp.filter_both_ways(windows, notch(50.0, 30.0, rate_hz=rate_hz))
        # As second-order sections: as the published quotient of polynomials the same filter is
        # within 4e-6 at 500 Hz, but 6e-3 off at 1000 Hz, and of no use from 2000 Hz on.
        band = butterworth("bandpass", (0.67, 40.0), rate_hz=rate_hz, order=4)
        windows = dsp.filter_both_ways(windows, band)
        width = int(0.4 * rate_hz) + 1
        windows = windows - dsp.running_median(windows, width + (width % 2 == 0))
        return dsp.standardise_windows(dsp.resample_ends(windows, wanted), eps=_EPS)

    def _check_window(self, samples: int) -> None:
        tokens = self.network.configuration.tokens
        if not samples:
            msg = f"A window without samples is too short for {self.spec.name!r}."
            raise UsageError(msg)
        if self.readout == "time" and tokens(samples) != tokens(self.window_samples):
            msg = (
                f"A window of {samples} samples gives {tokens(samples)} tokens, expected "
                f"{tokens(self.window_samples)} for the read-out 'time' of {self.spec.name!r}."
            )
            raise UsageError(msg)

    def _tokens(self, windows: Tensor, leads: list[int]) -> Tensor:
        stages: list[Tensor] = self.network(windows)
        return stages[-1]

    def _run(self, windows: Tensor, leads: list[int]) -> tuple[Tensor, Tensor | None]:
        head, wanted = self.network.head, self._stage()
        # Whoever has a head wants its logits, and they take all stages.
        stages = self.network(windows, None if head is not None or wanted < 0 else wanted + 1)
        logits = None if head is None else head(stages[-1].mean(1))
        if self.readout == "logits" and logits is not None:
            return logits, logits
        tokens = stages[wanted]
        return tokens.flatten(1) if self.readout == "time" else tokens.mean(1), logits


class EcgFounder1Encoder(EcgFounderEncoder):
    """ECGFounder for lead I alone."""

    family = "ECGFounder for lead I"


_EPS = 1e-8
"""Added to the deviation by the published z-score."""

_FILL = "put 0 for lost samples; refuse the record if a lead is missing or lost throughout"
_WINDOWS = (
    "longer than 10 s: consecutive windows of 10 s from the start, the rest dropped; from 2.5 s to "
    "10 s: one window of the whole record"
)
_RESAMPLE = (
    "resample to 500 Hz, round(500 * seconds) samples, by linear interpolation between grids that "
    "both hold the first and the last sample"
)
_NORMALISE = (
    "one mean and one population deviation over all leads of the window: subtract the mean, divide "
    "by the deviation + 1e-8"
)
_POOL = "mean over time of the last stage; a record is the mean over its windows"
_FILTERS = (
    "notch 50 Hz, quality 30, second order, forward and backward, odd extension by 9 samples",
    (
        "Butterworth band-pass 0.67 to 40 Hz, order 4, in second-order sections, forward and "
        "backward, odd extension by 27 samples"
    ),
    (
        "subtract the running median of int(0.4 * rate) + 1 samples, one more where that is even, "
        "zeros beyond the ends"
    ),
)


def _variant(name: str, units: Literal["mV", "any"], *steps: str) -> Variant:
    """Return the variant of these steps between cutting windows and the network."""
    return Variant(
        name=name,
        units=units,
        resampler="linear interpolation between the first and the last sample",
        filters=tuple(step for step in steps if step in _FILTERS),
        normalisation=_NORMALISE if _NORMALISE in steps else "none",
        windows="consecutive ones of 10 s, or one of 2.5 to 10 s; the mean of their vectors",
        preparation=(_FILL, _WINDOWS, *steps, _POOL),
        # the notch at 50 Hz has to lie below half the rate
        least_rate_hz=101.0 if _FILTERS[0] in steps else 0.0,
    )


_SPEC = ModelSpec(
    name="ecgfounder",
    arch="ecgfounder",
    summary="Grouped convolutional network (RegNet, 1-d), supervised with 150 diagnoses.",
    rate_hz=500.0,
    window_s=10.0,
    leads=LEADS,
    missing_leads="refuse",
    variants=(
        _variant("dataset", "any", *_FILTERS, _RESAMPLE, _NORMALISE),
        _variant("ptbxl_eval", "any", _NORMALISE, _RESAMPLE),
        _variant("raw", "mV", _RESAMPLE),
    ),
    readouts=("embedding", "time", "stage{k}", "logits"),
    dim=1024,
    licence="MIT",
    licence_note=None,
    citations=(
        (
            "Jun Li, Aaron D. Aguirre, Valdery Moura Junior, Jiarui Jin, Che Liu, Lanhai Zhong, "
            "Chenxi Sun, Gari Clifford, M. Brandon Westover, Shenda Hong: An Electrocardiogram "
            "Foundation Model Built on over 10 Million Recordings. NEJM AI 2025, 2(7), "
            "AIoa2401033, arXiv:2410.04133."
        ),
    ),
    weights_source="Get 12_lead_ECGFounder.pth from huggingface.co/PKUDigitalHealth/ECGFounder",
    lost_samples="fill",
    pretraining=("HEEDB",),
    hub=HubFile("PKUDigitalHealth/ECGFounder", "12_lead_ECGFounder.pth"),
)

models.add(_SPEC.name, Model(_SPEC, EcgFounderEncoder))
models.add(
    "ecgfounder1",
    Model(
        replace(
            _SPEC,
            name="ecgfounder1",
            arch="ecgfounder1",
            summary="ECGFounder for lead I alone.",
            leads=LEADS[:1],
            weights_source=(
                "Get 1_lead_ECGFounder.pth from huggingface.co/PKUDigitalHealth/ECGFounder"
            ),
            hub=HubFile("PKUDigitalHealth/ECGFounder", "1_lead_ECGFounder.pth"),
        ),
        EcgFounder1Encoder,
    ),
)
