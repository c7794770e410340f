"""The supervised baseline: a ResNet-50 fitted to the ECGs themselves, and the input it takes.

The network sees the first ``seconds`` of each record, all twelve leads in standard order, resampled
to ``rate_hz``, in millivolts, each lead scaled by the mean and deviation it has over the training
records. A record that is shorter, lacks a lead or has lost samples is refused, not padded.
"""

from __future__ import annotations

import json
from collections import Counter
from contextlib import contextmanager
from fractions import Fraction
from typing import TYPE_CHECKING, ClassVar, Self

import numpy as np

from ecgstore import settings
from ecgstore.classifiers import Classifier, Setting
from ecgstore.errors import UsageError
from ecgstore.record import INVALID, LEADS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    import torch
    from numpy.typing import NDArray

    from ecgstore.waveforms import Waveform

__all__ = ["ResNet50", "signals"]

_LEAST_SAMPLES = 64
"""The network divides the length by 32; batch norm needs more than one place of the result."""


class ResNet50(Classifier):
    """A one-dimensional ResNet-50 on raw signals: Adam, binary cross-entropy, no early stopping.

    Epochs, batch size and learning rate are those of Meng et al. (2025, arXiv 2502.17476). The
    paper states no sampling rate: 100 Hz keeps what most published networks on PTB-XL see, at a
    fifth of the cost of 500 Hz.
    """

    name = "resnet50"
    reads = "signal"
    format = "safetensors"
    defaults: ClassVar[Mapping[str, Setting]] = {
        "epochs": 100,
        "batch_size": 64,
        "learning_rate": 0.001,
        "width": 64,
        "rate_hz": 100,
        "seconds": 10.0,
        "seed": 0,
    }

    def __init__(self, params: Mapping[str, Setting] | None = None) -> None:
        super().__init__(params)
        for key, value in self.params.items():
            if key != "seed" and not float(value) > 0:
                msg = f"The setting {key!r} of {self.name} is {value}; it must be above 0."
                raise UsageError(msg)
        if self.samples < _LEAST_SAMPLES:
            msg = f"{self.name} needs at least {_LEAST_SAMPLES} samples, not {self.samples}."
            raise UsageError(msg, hint="Raise seconds or rate_hz.")

    @property
    def samples(self) -> int:
        """Length of the input."""
        return round(float(self.params["seconds"]) * int(self.params["rate_hz"]))

    @property
    def steps(self) -> int:
        """One step an epoch."""
        return int(self.params["epochs"])

    def fit(
        self, x: NDArray[np.float32], y: NDArray[np.float64], *, step: Callable[[], None]
    ) -> None:
        """Fit; see `Classifier.fit`. The same records and seed give the same network."""
        import torch

        seed, batch = int(self.params["seed"]), int(self.params["batch_size"])
        device = _device()
        self._scale = _scale(x)
        target = torch.from_numpy(y.astype(np.float32)).to(device)
        shuffle = torch.Generator().manual_seed(seed)
        cuda = [device] if device.type == "cuda" else []
        with (
            torch.random.fork_rng(cuda),
            torch.backends.cudnn.flags(deterministic=True, benchmark=False),
        ):
            torch.manual_seed(seed)
            self._network = self._build()
            optimiser = torch.optim.Adam(
                self._network.parameters(), lr=float(self.params["learning_rate"])
            )
            for _ in range(self.steps):
                order = torch.randperm(len(x), generator=shuffle).numpy()
                for start in range(0, len(x), batch):
                    rows = order[start : start + batch]
                    loss = torch.nn.functional.binary_cross_entropy_with_logits(
                        self._network(self._input(x[rows])), target[rows]
                    )
                    optimiser.zero_grad()
                    torch.autograd.backward(loss)
                    optimiser.step()
                step()

    def predict(self, x: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return the probability of label 1, ``(records,)``."""
        import torch

        self._network.eval()
        with torch.inference_mode():
            logits = [
                self._network(self._input(x[start : start + 256])).double().sigmoid().cpu()
                for start in range(0, len(x), 256)
            ]
        scores: NDArray[np.float64] = torch.cat(logits).numpy()
        return scores

    def save(self) -> bytes:
        """Return the weights and the scale of the input as safetensors, in single precision."""
        from safetensors.numpy import save

        weights = {name: value.cpu().numpy() for name, value in self._network.state_dict().items()}
        mean, deviation = self._scale
        tensors = {**weights, "input.mean": mean, "input.deviation": deviation}
        data: bytes = save(tensors, metadata={"params": json.dumps(self.params)})
        return data

    @classmethod
    def load(cls, data: bytes) -> Self:
        """Return the classifier that `save` saved."""
        import torch
        from safetensors.numpy import load

        # The first 8 bytes are the length of the JSON header, which keeps the metadata.
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        classifier = cls(json.loads(header["__metadata__"]["params"]))
        tensors = load(data)
        classifier._scale = (tensors.pop("input.mean"), tensors.pop("input.deviation"))
        classifier._network = classifier._build()
        classifier._network.load_state_dict(
            {name: torch.from_numpy(value) for name, value in tensors.items()}
        )
        return classifier

    @staticmethod
    def library() -> str:
        """Return the version of PyTorch."""
        import torch

        return f"torch {torch.__version__}"

    @staticmethod
    def machine() -> dict[str, str | int]:
        """Return the device and the threads, over which PyTorch adds numbers up in parts."""
        import torch

        device = _device()
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
        return {"device": name, "threads": torch.get_num_threads()}

    @classmethod
    @contextmanager
    def as_on(cls, machine: Mapping[str, str | int]) -> Iterator[None]:
        """Fit with as many threads as that machine did."""
        import torch

        threads = torch.get_num_threads()
        torch.set_num_threads(int(machine.get("threads", threads)))
        try:
            yield
        finally:
            torch.set_num_threads(threads)

    def _build(self) -> torch.nn.Module:
        from ecgstore.models.resnet import ResNet50 as Network

        return Network(leads=len(LEADS), width=int(self.params["width"])).to(_device())

    def _input(self, x: NDArray[np.float32]) -> torch.Tensor:
        import torch

        mean, deviation = self._scale
        return torch.from_numpy((x - mean) / deviation).to(_device())


def _device() -> torch.device:
    import torch

    name = settings.device_name()
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


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
