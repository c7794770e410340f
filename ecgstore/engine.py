"""The engine: from waveforms to vectors on one or several devices, each waveform decoded once.

One thread decodes shards and groups records of equal rate, length and leads. One thread a device
copies their ADC counts there, as they are stored, and does everything else on it: millivolts,
resampling, filters, normalising, network. Windows of equal shape run together, whatever records
they come from; none is padded, because padding changes embeddings (ecgfm.md, section 6). Results
come back while the next batch runs, and the caller writes them meanwhile. What waits anywhere is
bounded, so memory does not grow with the records.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch

from ecgstore.errors import DeviceError
from ecgstore.grouping import Batch, Grouping, Refused
from ecgstore.models.device import exact_float32
from ecgstore.pipe import Pipe

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from ecgstore.models import Encoder
    from ecgstore.waveforms import Waveform

__all__ = ["Vectors", "run"]

T = TypeVar("T")

_SHAPES_HELD = 4
"""Windows of all shapes wait for company until there are so many full batches of them."""


@dataclass(frozen=True, eq=False)
class Vectors:
    """What one model made of some records.

    Attributes:
        task: Position of the model in the list given to `run`.
        record_ids: The records, all of equal rate, length and leads.
        values: ``(records, windows, dim)`` float32.
        probabilities: ``(records, classes)`` float32 of the head, or None without one.
        starts_s: Second at which each window starts.
        incomplete: Whether leads of the model are missing.
    """

    task: int
    record_ids: Sequence[str]
    values: NDArray[np.float32]
    probabilities: NDArray[np.float32] | None
    starts_s: tuple[float, ...]
    incomplete: bool

    def only(self, kept: NDArray[np.bool_]) -> Vectors:
        """Return those of some records, ``(records,)`` bool."""
        if kept.all():
            return self
        return replace(
            self,
            record_ids=[name for name, keep in zip(self.record_ids, kept, strict=True) if keep],
            values=self.values[kept],
            probabilities=None if self.probabilities is None else self.probabilities[kept],
        )


def run(
    waveforms: Iterable[Waveform],
    devices: Sequence[Sequence[Encoder]],
    todo: Sequence[Collection[str]],
    *,
    rates: Mapping[str, float],
    batch_size: int,
) -> Iterator[Vectors | Refused]:
    """Embed records with several models, decoding each waveform once.

    Args:
        waveforms: Records in any order.
        devices: For each device its encoders, in the same order.
        todo: For each encoder the ids of the records it is to embed.
        rates: Samples per second of each record.
        batch_size: Windows a network takes at once. When memory runs out it is halved.

    Yields:
        What became of the records, as it comes. Each that came is told once for every model
        that wants it. Vectors may hold values that are not finite; the caller judges.

    Raises:
        DeviceError: A device was lost, or has no memory for a single window.
    """
    stop = threading.Event()
    batches: Pipe[Batch] = Pipe(stop, 2 * len(devices), writers=1)
    results: Pipe[Vectors | Refused] = Pipe(stop, 16 * len(devices), writers=1 + len(devices))

    def group() -> None:
        pinned = devices[0][0].device.type == "cuda"
        grouping = Grouping(devices[0], todo, rates, batch_size, pinned=pinned)
        for item in grouping.of(waveforms):
            if isinstance(item, Batch):
                batches.put(item)
            else:
                results.put(item)
        for _ in devices:
            batches.close()

    def embed(encoders: Sequence[Encoder]) -> Callable[[], None]:
        return lambda: _Device(encoders, batch_size).embed(batches, results)

    jobs = [group, *(embed(encoders) for encoders in devices)]
    threads = [threading.Thread(target=results.fed_by(job), daemon=True) for job in jobs]
    with exact_float32():  # for the whole process, so that no thread undoes it for another
        for thread in threads:
            thread.start()
        try:
            yield from results
        finally:
            stop.set()
            for thread in threads:
                thread.join()


class _Device:
    """Runs batches through the encoders of one device."""

    def __init__(self, encoders: Sequence[Encoder], batch_size: int) -> None:
        self._encoders = encoders
        self._device = encoders[0].device
        self._limits = [batch_size] * len(encoders)
        self._held: list[dict[tuple[tuple[str, ...], int], list[_Piece]]] = [
            defaultdict(list) for _ in encoders
        ]
        stream: Any = torch.cuda.Stream  # untyped
        self._copies = stream(self._device) if self._device.type == "cuda" else None

    def embed(self, batches: Pipe[Batch], results: Pipe[Vectors | Refused]) -> None:
        """Take batches and give results; on a GPU one is under way while the last is fetched.

        Raises:
            DeviceError: The GPU failed, which shows only when results are waited for.
        """
        try:
            self._embed(batches, results)
        except RuntimeError as error:
            if not _lost(error):
                raise
            line = str(error).strip().partition("\n")[0]
            msg = f"The device {str(self._device)!r} stopped working ({line})."
            hint = "What was committed stays; run the same command again to go on."
            raise DeviceError(msg, device=str(self._device), hint=hint) from error

    def _embed(self, batches: Pipe[Batch], results: Pipe[Vectors | Refused]) -> None:
        if self._device.type == "cuda":
            torch.cuda.set_device(self._device)  # each thread has a current device of its own
        under_way: list[_Fetch] = []
        for batch in batches:
            launched = self._launch(batch)
            if self._copies is None:
                under_way += launched
                launched = []
            _deliver(under_way, results)
            under_way = launched
        rest = [self._run(task, key) for task, held in enumerate(self._held) for key in list(held)]
        _deliver([*under_way, *rest], results)

    def _launch(self, batch: Batch) -> list[_Fetch]:
        """Prepare a batch for every encoder, and start those that have enough windows.

        Windows of equal shape are run together, whatever the length of their records. On a GPU
        nothing waits for what is started.
        """
        raw = self._moved(batch)
        started = []
        for task, leads in batch.tasks.items():
            encoder, held = self._encoders[task], self._held[task]
            windows = self._fitting(task, partial(_prepared, encoder, batch, raw))
            names = encoder.spec.leads if encoder.spec.missing_leads == "zero" else leads
            starts = encoder.window_starts(batch.counts.shape[2], rate_hz=batch.rate_hz)
            piece = _Piece(batch.record_ids, windows, starts, leads != encoder.spec.leads)
            held[names, windows.shape[3]].append(piece)
            counts = {key: sum(map(len, pieces)) for key, pieces in held.items()}
            crowded = sum(counts.values()) >= _SHAPES_HELD * self._limits[task]
            started += [
                self._run(task, key)
                for key, count in counts.items()
                if crowded or count >= self._limits[task]
            ]
        return started

    def _moved(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Copy a batch to the device, on a GPU beside what runs there."""
        parts = (batch.counts, batch.gain, batch.baseline)
        if self._copies is None:
            return parts
        with torch.cuda.stream(self._copies):
            moved = tuple(part.to(self._device, non_blocking=True) for part in parts)
        current = torch.cuda.current_stream(self._device)
        current.wait_stream(self._copies)
        for part in moved:
            part.record_stream(current)
        return moved[0], moved[1], moved[2]

    def _run(self, task: int, key: tuple[tuple[str, ...], int]) -> _Fetch:
        """Run the network on the windows of one shape."""
        encoder, pieces = self._encoders[task], self._held[task].pop(key)
        windows = torch.cat([piece.windows.flatten(0, 1) for piece in pieces])
        vectors, chances = self._fitting(task, partial(_encoded, encoder, windows, key[0]))
        return _Fetch(task, encoder, pieces, vectors, chances)

    def _fitting(self, task: int, work: Callable[[int], T]) -> T:
        """Do work on so many windows or records at once as the memory holds."""
        while True:
            limit = self._limits[task]
            try:
                return work(limit)
            except (RuntimeError, MemoryError) as error:
                if not _out_of_memory(error):
                    raise
                if limit == 1:
                    name = self._encoders[task].spec.name
                    msg = f"{name!r} needs more memory than {self._device} has free."
                    raise DeviceError(msg, device=str(self._device)) from error
                self._limits[task] = limit // 2


@dataclass(frozen=True, eq=False)
class _Piece:
    """Prepared records: ``windows`` is ``(records, windows, leads, samples)``."""

    record_ids: Sequence[str]
    windows: Tensor
    starts_s: tuple[float, ...]
    incomplete: bool

    def __len__(self) -> int:
        return self.windows.shape[0] * self.windows.shape[1]


def _prepared(encoder: Encoder, batch: Batch, raw: tuple[Tensor, ...], limit: int) -> Tensor:
    """Return the windows of a batch, prepared in parts of so many records."""
    parts = zip(*(torch.split(tensor, limit) for tensor in raw), strict=True)
    return torch.cat(
        [encoder.prepare_batch(*part, rate_hz=batch.rate_hz, leads=batch.leads) for part in parts]
    )


def _encoded(
    encoder: Encoder, windows: Tensor, names: tuple[str, ...], limit: int
) -> tuple[Tensor, Tensor | None]:
    """Return vectors and probabilities of windows, run in parts of so many."""
    parts = [encoder.encode(part, names) for part in torch.split(windows, limit)]
    vectors, chances = zip(*parts, strict=True)
    return torch.cat(vectors), torch.cat(chances) if encoder.labels else None


def _deliver(fetches: Iterable[_Fetch], results: Pipe[Vectors | Refused]) -> None:
    for fetch in fetches:
        for vectors in fetch.wait():
            results.put(vectors)


class _Fetch:
    """Results on their way to the host."""

    def __init__(
        self,
        task: int,
        encoder: Encoder,
        pieces: Sequence[_Piece],
        vectors: Tensor,
        probabilities: Tensor | None,
    ) -> None:
        self._task = task
        self._encoder = encoder
        self._pieces = [(piece, piece.windows.shape[:2]) for piece in pieces]
        self._vectors = _to_host(vectors)
        self._probabilities = None if probabilities is None else _to_host(probabilities)
        event: Any = torch.cuda.Event  # untyped
        self._arrived = event() if vectors.device.type == "cuda" else None
        if self._arrived is not None:
            self._arrived.record(torch.cuda.current_stream(vectors.device))

    def wait(self) -> Iterator[Vectors]:
        """Yield the results of each piece once they are there."""
        if self._arrived is not None:
            self._arrived.synchronize()
        at = 0
        for piece, (records, windows) in self._pieces:
            rows = slice(at, at + records * windows)
            at = rows.stop
            chances = None
            if self._probabilities is not None:
                each = self._probabilities[rows].numpy().reshape(records, windows, -1)
                chances = self._encoder.pool_probabilities(each).astype(np.float32)
            yield Vectors(
                self._task,
                piece.record_ids,
                self._vectors[rows].numpy().reshape(records, windows, -1),
                chances,
                piece.starts_s,
                piece.incomplete,
            )


def _to_host(tensor: Tensor) -> Tensor:
    """Begin to copy a tensor to memory that a GPU can write to while the host goes on."""
    if tensor.device.type != "cuda":
        return tensor
    host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    return host.copy_(tensor, non_blocking=True)


def _out_of_memory(error: BaseException) -> bool:
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return "DefaultCPUAllocator" in str(error)  # a plain RuntimeError on the host


def _lost(error: BaseException) -> bool:
    """Tell whether CUDA itself failed; after that nothing runs on the device in this process."""
    kind = getattr(torch, "AcceleratorError", ())
    return isinstance(error, kind) or "CUDA error" in str(error)
