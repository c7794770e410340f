"""AnyECG: any number of leads of any length, as seconds under sparse attention, and rhythm codes.

Wang, Cao, Hu et al.: AnyECG: Foundational Models for Multitask Cardiac Analysis in Real-World
Settings, arXiv 2411.17711. There are no published weights and no published widths: a file is one
that ecgstore wrote, with the encoder under ``encoder.``, the tokeniser under ``tokeniser.`` if it
is there, and what only training needs under ``pretraining.``.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from ecgstore.errors import UsageError, WeightsError
from ecgstore.models.device import exact_float32
from ecgstore.models.encoder import Encoder
from ecgstore.models.model import Model, models
from ecgstore.models.rhythm_codes import (
    LONGEST_S,
    PATCH,
    EncoderSize,
    TokenEncoder,
    Tokeniser,
    TokeniserSize,
)
from ecgstore.models.spec import ModelSpec, Variant
from ecgstore.models.wavelet import denoise
from ecgstore.models.weights import seeded_tensors
from ecgstore.record import LEADS
from ecgstore.signal import butterworth, consecutive_starts, notch, polyphase_length

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from ecgstore.models.arithmetic import Arithmetic, Signal
    from ecgstore.models.configuration import Configuration, Weights
    from ecgstore.models.weights import Checkpoint

__all__ = [
    "SIZES",
    "AnyEcg",
    "AnyEcgConfiguration",
    "AnyEcgEncoder",
    "lengthened",
    "prepared",
]

SIZES = {
    "tiny": EncoderSize(64, 4, 4, 256),
    "small": EncoderSize(192, 12, 3, 768),
    "B": EncoderSize(1024, 20, 16, 4096),
}
"""Dimensions chosen here: of its B the paper tells only the 254 million parameters."""

RATE_HZ = 300.0
LONG_S, LONG_STRIDE_S = 60, 30
"""Windows of the variant ``long`` and the seconds from one to the next [chosen]."""

_TOKENISER = "tokeniser."
_PRETRAINING = "pretraining."


@dataclass(frozen=True)
class AnyEcgConfiguration:
    """The dimensions of one AnyECG.

    Attributes:
        encoder: Those of the encoder.
        tokeniser: Those of the tokeniser, or None where the file has none.
    """

    encoder: EncoderSize = SIZES["tiny"]
    tokeniser: TokeniserSize | None = None

    @property
    def dim(self) -> int:
        """Length of a default vector."""
        return self.encoder.dim

    @property
    def depth(self) -> int:
        """Number of blocks."""
        return self.encoder.depth

    @property
    def classes(self) -> int:
        """No file has a head."""
        return 0

    @property
    def window_samples(self) -> int:
        """Samples of the longest window; shorter ones are as good."""
        return LONGEST_S * PATCH

    @classmethod
    def infer(cls, checkpoint: Checkpoint) -> Self:
        """Read all but the numbers of heads off the tensors."""
        if _is_first_stage(checkpoint):
            msg = f"{checkpoint.path.name!r} holds the tokeniser of AnyECG and no encoder."
            hint = "Train the second stage from it: pretrain anyecg --weights …"
            raise WeightsError(msg, model=checkpoint.model, path=checkpoint.path, hint=hint)
        encoder = EncoderSize.infer(checkpoint, "encoder.", "heads")
        return cls(encoder, cls.infer_tokeniser(checkpoint))

    @classmethod
    def infer_tokeniser(cls, checkpoint: Checkpoint) -> TokeniserSize | None:
        """Read what `infer` reads of the tokeniser; None where there is none."""
        if not any(key.startswith(_TOKENISER) for key in checkpoint.tensors):
            return None
        codes, code_dim = checkpoint.shape(f"{_TOKENISER}quantiser.codes", 2)
        if codes > np.iinfo(np.int16).max + 1:
            checkpoint.refuse(f"{codes} rhythm codes do not fit into 16 bits")
        size = EncoderSize.infer(checkpoint, f"{_TOKENISER}encoder.", "tokeniser_heads")
        return TokeniserSize(size, codes, code_dim)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the key and shape of every tensor; the keys are the network's own."""
        with torch.device("meta"):
            state = AnyEcg(self).state_dict()
        return {key: tuple(tensor.shape) for key, tensor in state.items()}

    def settings(self) -> dict[str, object]:
        """Return the numbers of heads."""
        told: dict[str, object] = {"heads": self.encoder.heads}
        if self.tokeniser is not None:
            told["tokeniser_heads"] = self.tokeniser.encoder.heads
        return told

    def facts(self) -> dict[str, object]:
        """Return all dimensions."""
        told: dict[str, object] = asdict(self.encoder)
        if self.tokeniser is not None:
            flat = asdict(self.tokeniser)
            flat |= flat.pop("encoder")
            told |= {f"tokeniser_{key}": value for key, value in flat.items()}
        return told

    def untrained(self, seed: int) -> dict[str, Tensor]:
        """Return seeded tensors."""
        return seeded_tensors(self.shapes(), seed=seed)

    def fold(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return them as they are."""
        return dict(tensors)


class AnyEcg(nn.Module):
    """The encoder of the second stage, and beside it the tokeniser of the first, if it is kept."""

    def __init__(self, configuration: AnyEcgConfiguration) -> None:
        super().__init__()
        self.encoder = TokenEncoder(configuration.encoder)
        size = configuration.tokeniser
        self.tokeniser = None if size is None else Tokeniser(size)


class AnyEcgEncoder(Encoder):
    """AnyECG with its preparation; the leads a record lacks are left out of the sequence."""

    family = "AnyECG"
    network_type = AnyEcg
    configuration = AnyEcgConfiguration
    network: AnyEcg

    def __init__(self, spec: ModelSpec, weights: Weights, **options: Any) -> None:  # noqa: ANN401
        super().__init__(spec, weights, **options)
        if self.variant.name == "long":
            self.window_samples = LONG_S * PATCH

    @classmethod
    def recognise(cls, checkpoint: Checkpoint) -> str | None:
        """Tell by the two position tables and the patch's projection."""
        keys = ("time_positions", "lead_positions", "temporal.projection.weight")
        found = all(f"encoder.{key}" in checkpoint.tensors for key in keys)
        return cls.family if found or _is_first_stage(checkpoint) else None

    @classmethod
    def select(cls, checkpoint: Checkpoint) -> dict[str, Tensor]:
        """Take all but what only training needs."""
        tensors = checkpoint.tensors
        return {key: value for key, value in tensors.items() if not key.startswith(_PRETRAINING)}

    def codes(
        self, windows: NDArray[np.floating], *, leads: Sequence[str] | None = None
    ) -> NDArray[np.int16]:
        """Return the rhythm code of each second of each lead.

        Args:
            windows: ``(windows, leads, samples)`` float32, as for `embed`.
            leads: Names of the middle axis; None means all twelve.

        Returns:
            ``(windows, leads, seconds)`` int16.

        Raises:
            UnfitRecordError: A value in a window is not finite.
            UsageError: The file has no tokeniser, or the shape does not fit.
        """
        tokeniser = self.network.tokeniser
        if tokeniser is None:
            msg = f"{self.weights_name!r} has no tokeniser; rhythm codes need one."
            raise UsageError(msg)
        names = self._checked(windows, leads)
        codes = np.empty((*windows.shape[:2], windows.shape[2] // PATCH), np.int16)
        if len(windows):
            batch = torch.from_numpy(np.ascontiguousarray(windows, np.float32)).to(self.device)
            with torch.inference_mode(), exact_float32():
                number = tokeniser(batch, self._places(names)).number
            codes[:] = number.reshape(codes.shape).cpu().numpy()
        return codes

    def _starts(self, n_samples: int, rate_hz: float) -> tuple[float, ...]:
        starts = self._window_starts(polyphase_length(n_samples, rate_hz, self.rate_hz))
        return tuple(start / self.rate_hz for start in starts)

    def _window_starts(self, length: int) -> tuple[int, ...]:
        if length < PATCH:
            return ()
        if self.variant.name == "long":
            return tuple(range(0, length - LONG_S * PATCH + 1, LONG_STRIDE_S * PATCH)) or (0,)
        return consecutive_starts(length, self.window_samples) or (0,)

    def least_seconds(self) -> float:
        """Return one second, the length of a token."""
        return PATCH / self.rate_hz

    def _cut(self, signal: Signal, rate_hz: float, dsp: Arithmetic[Signal]) -> Signal:
        steps = "denoised" if self.variant.name == "long" else self.variant.name
        signal = prepared(signal, rate_hz, dsp, variant=steps)
        starts = self._window_starts(signal.shape[-1])
        length = min(self.window_samples, -(-signal.shape[-1] // PATCH) * PATCH)
        return dsp.cut_windows(lengthened(signal, length), starts, length)

    def _check_window(self, samples: int) -> None:
        if samples % PATCH or not 0 < samples <= self.window_samples:
            msg = (
                f"A window of {samples} samples does not fit {self.spec.name!r}: expected a "
                f"multiple of {PATCH}, at most {self.window_samples}."
            )
            raise UsageError(msg)

    def _tokens(self, windows: Tensor, leads: list[int]) -> Tensor:
        encoder = self.network.encoder
        tokens: Tensor = encoder.norm(encoder(windows, leads))
        return tokens

    def _run(self, windows: Tensor, leads: list[int]) -> tuple[Tensor, Tensor | None]:
        encoder = self.network.encoder
        if self.readout.startswith("block"):
            depth = int(self.readout.removeprefix("block")) + 1
            return encoder(windows, leads, depth=depth).mean(dim=1), None
        tokens = encoder.norm(encoder(windows, leads))
        if self.readout == "lead":
            return tokens.unflatten(1, (len(leads), -1)).mean(dim=2).flatten(1), None
        return tokens.mean(dim=1), None

    def _width(self, facts: Configuration) -> int:
        return facts.dim * (len(self.spec.leads) if self.readout == "lead" else 1)


def _is_first_stage(checkpoint: Checkpoint) -> bool:
    known = f"{_TOKENISER}encoder.time_positions" in checkpoint.tensors
    return known and not any(key.startswith("encoder.") for key in checkpoint.tensors)


def prepared(
    signal: Signal, rate_hz: float, dsp: Arithmetic[Signal], *, variant: str = "denoised"
) -> Signal:
    """Resample to 300 Hz, filter, and standardise each lead; nothing is cut or filled up.

    Args:
        signal: ``(…, leads, samples)`` float64, any unit.
        rate_hz: Its samples per second.
        dsp: `ecgstore.signal` for arrays, `ecgstore.models.tensor_signal` for tensors.
        variant: ``denoised``, ``filtered`` or ``raw``.
    """
    # Of a constant lead the filters would leave their edges and rounding, made large below.
    varies = (signal != signal[..., :1]).any(-1)
    signal = dsp.resample_polyphase(signal * varies[..., None], rate_hz, RATE_HZ)
    if variant != "raw":
        band = butterworth("bandpass", (0.1, 75.0), rate_hz=RATE_HZ, order=4)
        signal = dsp.filter_both_ways(signal, band)
        signal = dsp.filter_both_ways(signal, notch(50.0, 30.0, rate_hz=RATE_HZ))
    if variant == "denoised":
        signal = denoise(signal, levels=4)
    return dsp.standardise_leads(signal)


def lengthened(signal: Signal, length: int) -> Signal:
    """Return the signal with zeros behind it up to a length; a longer one as it is."""
    lacking = max(0, length - signal.shape[-1])
    if isinstance(signal, np.ndarray):
        return np.pad(signal, [(0, 0)] * (signal.ndim - 1) + [(0, lacking)])
    return functional.pad(signal, (0, lacking))


_RESAMPLING = (
    "make leads that are constant 0",
    "resample to 300 Hz by the polyphase method, to ceil(samples * 300 / rate)",
)
_FILTERING = (
    "Butterworth band-pass 0.1-75 Hz, order 4, forward and backward, whole record",
    "notch at 50 Hz, quality 30, forward and backward, whole record",
)
_DENOISING = (
    (
        "db6 wavelet, 4 levels, symmetric edges, whole record: shrink the details of each lead "
        "softly by median(|finest details|) / 0.6745 * sqrt(2 ln(samples))"
    ),
)
_CUTTING = (
    "each lead over the whole record: subtract the mean, divide by the population deviation",
    (
        "up to 85 s: one window, the last partial second filled up with zeros; "
        "longer: consecutive windows of 85 s from the start, the rest dropped"
    ),
    "mean over the tokens after the final norm; a record is the mean over its windows",
)


def _variant(name: str, steps: Sequence[str], *filters: str) -> Variant:
    return Variant(
        name=name,
        units="any",
        resampler="polyphase method, SciPy's default anti-alias filter, whole record",
        filters=filters,
        normalisation="each lead by its mean and deviation over the whole record",
        windows=(
            "the whole record up to 85 s, the last partial second filled up with zeros; of a "
            "longer one consecutive 85 s from the start; the mean of their vectors"
        ),
        preparation=(*_RESAMPLING, *steps, *_CUTTING),
    )


_DENOISED = _variant("denoised", _FILTERING + _DENOISING, *_FILTERING, *_DENOISING)
_LONG = replace(
    _DENOISED,
    name="long",
    windows="60 s every 30 s, of a shorter record all of it; the mean of their vectors",
    preparation=(
        *_DENOISED.preparation[:-2],
        "up to 60 s: as denoised; longer: windows of 60 s that start every 30 s, the rest dropped",
        _CUTTING[-1],
    ),
)


_SPEC = ModelSpec(
    name="anyecg",
    arch="anyecg",
    summary="Transformer over single seconds of single leads, trained to name rhythm codes.",
    rate_hz=RATE_HZ,
    window_s=float(LONGEST_S),
    leads=LEADS,
    missing_leads="omit",
    variants=(
        _DENOISED,
        _variant("filtered", _FILTERING, *_FILTERING),
        _variant("raw", ()),
        _LONG,
    ),
    readouts=("embedding", "lead", "block{k}"),
    dim=1024,
    licence="NONE",
    licence_note="Nobody has published weights; those that you train are yours.",
    citations=(
        (
            "Yue Wang, Xu Cao, Yaojun Hu, Haochao Ying, Hongxia Xu, Ruijia Wu, James Matthew Rehg, "
            "Jimeng Sun, Jian Wu, Jintai Chen: AnyECG: Foundational Models for Multitask Cardiac "
            "Analysis in Real-World Settings. 2024, arXiv:2411.17711."
        ),
    ),
    weights_source="Nobody has published weights of AnyECG: write a file of your own with ecgstore",
)

models.add(_SPEC.name, Model(_SPEC, AnyEcgEncoder))
models.add(
    "anyecg.tiny",
    Model(
        replace(
            _SPEC,
            name="anyecg.tiny",
            summary="AnyECG at very small size, built in and untrained: for demos and tests.",
            dim=SIZES["tiny"].dim,
            licence="MIT",
            licence_note=None,
            weights_source=None,
        ),
        AnyEcgEncoder,
        AnyEcgConfiguration(SIZES["tiny"], TokeniserSize(SIZES["tiny"])),
    ),
)
