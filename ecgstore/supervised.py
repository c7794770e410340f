"""The supervised baseline: a ResNet-50 fitted to the ECGs themselves, and the input it takes.

The network sees the first ``seconds`` of each record, all twelve leads in standard order, resampled
to ``rate_hz``, in millivolts, each lead scaled by the mean and deviation it has over the training
records. A record that is shorter, lacks a lead or has lost samples is refused, not padded.
"""

from __future__ import annotations

from collections import Counter
from fractions import Fraction
from typing import TYPE_CHECKING, ClassVar, Self

import numpy as np

from ecgstore.classifiers import Setting, classifiers
from ecgstore.classifiers.network import NetworkClassifier, device, outputs
from ecgstore.classifiers.tensors import from_tensors, to_tensors
from ecgstore.errors import UsageError
from ecgstore.record import INVALID, LEADS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    import torch
    from numpy.typing import NDArray

    from ecgstore.tasks import Target
    from ecgstore.waveforms import Waveform

__all__ = ["ResNet50", "signals"]

_LEAST_SAMPLES = 64
"""The network divides the length by 32; batch norm needs more than one place of the result."""

_PRECISIONS = ("fp32", "bf16")


class ResNet50(NetworkClassifier):
    """A one-dimensional ResNet-50 on raw signals: Adam, no early stopping.

    Epochs, batch size and learning rate are those of Meng et al. (2025, arXiv 2502.17476). The
    paper states no sampling rate: 100 Hz keeps what most published networks on PTB-XL see, at a
    fifth of the cost of 500 Hz. With ``precision`` at ``bf16`` training multiplies in bfloat16
    (Micikevicius et al. 2018, arXiv 1710.03740); weights and scores stay in single precision.
    """

    name = "resnet50"
    reads = "signal"
    defaults: ClassVar[Mapping[str, Setting]] = {
        "epochs": 100,
        "batch_size": 64,
        "learning_rate": 0.001,
        "width": 64,
        "rate_hz": 100,
        "seconds": 10.0,
        "seed": 0,
    }
    later: ClassVar[Mapping[str, Setting]] = {"precision": "fp32"}

    def __init__(
        self, params: Mapping[str, Setting] | None = None, *, target: Target = "binary"
    ) -> None:
        super().__init__(params, target=target)
        for key in self.defaults:
            value = self.params[key]
            if key != "seed" and not float(value) > 0:
                msg = f"The setting {key!r} of {self.name} is {value}; it must be above 0."
                raise UsageError(msg)
        if (precision := self.setting("precision")) not in _PRECISIONS:
            msg = f"The setting 'precision' of {self.name} is {str(precision)!r}; "
            raise UsageError(msg + f"{' or '.join(map(repr, _PRECISIONS))} was expected.")
        if self.samples < _LEAST_SAMPLES:
            msg = f"{self.name} needs at least {_LEAST_SAMPLES} samples, not {self.samples}."
            raise UsageError(msg, hint="Raise seconds or rate_hz.")

    @property
    def dim(self) -> None:
        """None: it reads signals."""
        return

    @property
    def samples(self) -> int:
        """Length of the input."""
        return round(float(self.params["seconds"]) * int(self.params["rate_hz"]))

    @property
    def steps(self) -> int:
        """One step an epoch."""
        return int(self.params["epochs"])

    def _fit(
        self,
        x: NDArray[np.float32],
        y: NDArray[np.float64],
        *,
        step: Callable[[], None],
        groups: NDArray[np.intp] | None,
    ) -> None:
        """Fit. The same records and seed give the same network."""
        import torch

        seed, batch = int(self.params["seed"]), int(self.params["batch_size"])
        here = device()
        self._scale = _scale(x)
        wanted = self._wanted(y)
        shuffle = torch.Generator().manual_seed(seed)
        rounded = torch.autocast(
            here.type, torch.bfloat16, enabled=self.setting("precision") == "bf16"
        )
        with (
            torch.random.fork_rng([here] if here.type == "cuda" else []),
            torch.backends.cudnn.flags(deterministic=True, benchmark=False),
        ):
            torch.manual_seed(seed)
            self._network = self._build(outputs(y, self.target))
            optimiser = torch.optim.Adam(
                self._network.parameters(), lr=float(self.params["learning_rate"])
            )
            for _ in range(self.steps):
                order = torch.randperm(len(x), generator=shuffle).numpy()
                for start in range(0, len(x), batch):
                    rows = order[start : start + batch]
                    with rounded:
                        found = self._network(self._input(x[rows]))
                    loss = self._loss(found.float(), wanted[rows])
                    optimiser.zero_grad()
                    torch.autograd.backward(loss)
                    optimiser.step()
                step()

    def _predict(self, x: NDArray[np.float32]) -> NDArray[np.float64]:
        import torch

        self._network.eval()
        with torch.inference_mode():
            parts = [
                self._scores(self._network(self._input(x[start : start + 256])))
                for start in range(0, len(x), 256)
            ]
        return np.concatenate(parts)

    def save(self) -> bytes:
        """Return the weights and the scale of the input as safetensors, in single precision."""
        mean, deviation = self._scale
        arrays = {**self._arrays(), "input.mean": mean, "input.deviation": deviation}
        return to_tensors(arrays, self.params)

    @classmethod
    def load(cls, data: bytes, *, target: Target = "binary") -> Self:
        """Return the classifier that `save` saved."""
        arrays, params = from_tensors(data)
        classifier = cls(params, target=target)
        mean, deviation = arrays.pop("input.mean"), arrays.pop("input.deviation")
        classifier._scale = (mean.astype(np.float32), deviation.astype(np.float32))
        classifier._take(classifier._build(len(arrays["head.bias"])), arrays)
        return classifier

    def _build(self, out: int) -> torch.nn.Module:
        from ecgstore.models.layers import Linear
        from ecgstore.models.resnet import ResNet50 as Network

        network = Network(leads=len(LEADS), width=int(self.params["width"]))
        if out > 1:
            network.head = Linear(network.head.in_features, out)
        return network.to(device())

    def _input(self, x: NDArray[np.float32]) -> torch.Tensor:
        import torch

        mean, deviation = self._scale
        return torch.from_numpy((x - mean) / deviation).to(device())


classifiers.add(ResNet50.name, ResNet50)


def signals(
    waveforms: Iterable[Waveform],
    rates: Mapping[str, float | None],
    *,
    rate_hz: float,
    seconds: float,
) -> tuple[NDArray[np.object_], NDArray[np.float32], Counter[str]]:
    """Make the input of a classifier on signals.

    Args:
        waveforms: The records, each at most once, in any order.
        rates: The records wanted, each with its own samples per second.
        rate_hz: Samples per second wanted.
        seconds: Length wanted; longer records are cut after it.

    Returns:
        The ids of the records that qualify, sorted; ``(records, 12, samples)`` float32 millivolts
        in that order; and how many were refused by reason.
    """
    wanted = sorted(rates)
    place = {record_id: i for i, record_id in enumerate(wanted)}
    x = np.empty((len(wanted), len(LEADS), round(seconds * rate_hz)), np.float32)
    kept = np.zeros(len(wanted), dtype=bool)
    refused: Counter[str] = Counter()
    found = 0
    for waveform in waveforms:
        found += 1
        i = place[waveform.record_id]
        reason = _write_input(
            waveform, rates[waveform.record_id], seconds=seconds, rate_hz=rate_hz, out=x[i]
        )
        if reason is None:
            kept[i] = True
        else:
            refused[reason] += 1
    if found < len(wanted):
        refused["no waveform"] = len(wanted) - found
    ids = np.array(wanted, dtype=object)
    return (ids, x, refused) if kept.all() else (ids[kept], x[kept], refused)


def _write_input(
    waveform: Waveform,
    from_hz: float | None,
    *,
    seconds: float,
    rate_hz: float,
    out: NDArray[np.float32],
) -> str | None:
    """Write the input of one record, or return why it does not qualify."""
    from scipy.signal import resample_poly

    if from_hz is None or not from_hz > 0:
        return "no rate"
    if waveform.leads != LEADS:
        return "missing leads"
    taken = round(seconds * from_hz)
    digital = waveform.digital[:, :taken]
    if digital.shape[1] < taken:
        return "too short"
    if (digital == INVALID).any():
        return "lost samples"
    mv = ((digital - waveform.baseline[:, None]) / waveform.gain[:, None]).astype(np.float32)
    if from_hz != rate_hz:
        ratio = Fraction(rate_hz / from_hz).limit_denominator(10_000)
        # An anti-aliased polyphase filter; the ends are extended from a line, not from 0 mV.
        mv = resample_poly(mv, ratio.numerator, ratio.denominator, axis=-1, padtype="line")
    if mv.shape[1] < out.shape[1]:
        return "too short"
    out[:] = mv[:, : out.shape[1]]
    return None


def _scale(x: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return mean and deviation of each lead over all records; deviation 1 for a flat lead."""
    mean = x.mean(axis=(0, 2), dtype=np.float64)
    deviation = x.std(axis=(0, 2), dtype=np.float64)
    deviation[deviation == 0] = 1
    shape = (len(mean), 1)
    return mean.reshape(shape).astype(np.float32), deviation.reshape(shape).astype(np.float32)
