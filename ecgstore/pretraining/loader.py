"""From the feed to batches: pieces are cut, prepared and drawn for while the network computes."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ecgstore import signal as on_host
from ecgstore.models import tensor_signal as on_device
from ecgstore.pipe import Pipe
from ecgstore.pretraining.method import Batch, Draws
from ecgstore.pretraining.pieces import Order, draw_seed
from ecgstore.record import INVALID

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from ecgstore.feed import Feed
    from ecgstore.pretraining.method import Method
    from ecgstore.pretraining.pieces import Pieces
    from ecgstore.pretraining.ranks import Ranks

__all__ = ["Loader"]

_AHEAD = 3
"""Updates whose samples wait in memory."""

_DRAWN = 2
"""Marks the stream of random numbers that methods draw from."""


@dataclass(frozen=True, eq=False)
class _Group:
    """Pieces of one rate and length, as stored.

    Attributes:
        items: ``(n,)`` places in the batch.
        counts: ``(n, leads, samples)`` int16.
        gain: ``(n, leads)`` float64.
        baseline: ``(n, leads)`` float64.
        rate_hz: Samples per second.
    """

    items: Tensor
    counts: Tensor
    gain: Tensor
    baseline: Tensor
    rate_hz: float


@dataclass(frozen=True, eq=False)
class _Raw:
    """A batch before preparation; `batch` has no windows yet."""

    groups: list[_Group]
    batch: Batch


class Loader:
    """The batches of a run, each made ahead by a thread of its own.

    On a CPU the thread prepares too, with SciPy; for a GPU it only copies counts, which are
    prepared there.

    Args:
        feed: Where the samples are.
        pieces: What is trained on.
        method: Says how pieces are prepared and what is drawn.
        leads: All leads of the model, in its order.
        facts: ``(records, columns)`` float32 for each of ``pieces.record_ids``; None for none.
        batch_size: Pieces an update, over all processes and parts.
        accumulate: Parts an update is made of, one after another.
        seed: Of the order and of all that is drawn.
        ranks: Which share of every part is of this process.
        device: Where batches are wanted.

    Raises:
        NotEnoughDataError: There are fewer pieces than a batch takes.

    Attributes:
        epoch: Updates an epoch.
        waited_s: Seconds that whoever iterates has waited.
    """

    def __init__(
        self,
        feed: Feed,
        pieces: Pieces,
        method: Method,
        leads: Sequence[str],
        *,
        facts: NDArray[np.float32] | None = None,
        batch_size: int,
        accumulate: int = 1,
        seed: int = 0,
        ranks: Ranks,
        device: torch.device,
    ) -> None:
        self._feed, self._pieces, self._method = feed, pieces, method
        self._rows = [[*map(list(leads).index, one)] for one in pieces.lead_sets]
        empty = np.empty((len(pieces.record_ids), 0), np.float32)
        self._facts = torch.from_numpy(empty if facts is None else np.ascontiguousarray(facts))
        self._order = Order(pieces, batch_size, seed)
        self._parts, self._seed = accumulate, seed
        self._ranks, self._device = ranks, device
        self.epoch = self._order.batches
        self.waited_s = 0.0

    def records(self, step: int) -> list[str]:
        """Return the records of an update, each once."""
        places = np.unique(self._pieces.record[self._order[step]])
        return [self._pieces.record_ids[place] for place in places]

    def first(self, count: int) -> Iterator[Batch]:
        """Yield whole parts of the first updates, the same on every process, made when asked."""
        whole = replace(self._ranks, rank=0, size=1)
        for step in range(min(count, self.epoch)):
            for part in range(self._parts):
                yield self._prepared(self._raw(step, part, whole))

    def steps(self, first: int, last: int) -> Iterator[list[Batch]]:
        """Yield the parts of each update from `first` to before `last`."""
        stop = threading.Event()
        pipe: Pipe[list[Any]] = Pipe(stop, _AHEAD, writers=1)
        here = self._device.type == "cpu"

        def work() -> None:
            for step in range(first, last):
                raw = [self._raw(step, part, self._ranks) for part in range(self._parts)]
                pipe.put([self._prepared(one) for one in raw] if here else raw)

        thread = threading.Thread(target=pipe.fed_by(work), daemon=True)
        thread.start()
        try:
            parts = iter(pipe)
            while True:
                began = time.perf_counter()
                ready = next(parts, None)
                self.waited_s += time.perf_counter() - began
                if ready is None:
                    return
                yield ready if here else [self._prepared(one) for one in ready]
        finally:
            stop.set()
            thread.join()

    # ---------------------------------------------------------------------------- private

    def _raw(self, step: int, part: int, ranks: Ranks) -> _Raw:
        """Copy the samples of one part of an update, and draw for it."""
        whole = np.array_split(self._order[step], self._parts)[part]
        kind = int(self._pieces.kind[whole[0]])
        names = self._pieces.lead_sets[kind]
        generator = torch.Generator().manual_seed(draw_seed(self._seed, _DRAWN, step, part))
        share = ranks.part(len(whole))
        draws = self._method.draw(len(whole), len(names), generator).of(share)
        mine = whole[share]
        shapes: dict[tuple[float, int], list[int]] = {}
        for item, piece in enumerate(mine):
            key = (float(self._pieces.rate_hz[piece]), int(self._pieces.samples[piece]))
            shapes.setdefault(key, []).append(item)
        record = torch.from_numpy(self._pieces.record[mine])
        return _Raw(
            [self._group(items, mine[items], names, rate) for (rate, _), items in shapes.items()],
            Batch(
                windows=torch.empty(0),
                leads=tuple(self._rows[kind]),
                records=record,
                facts=self._facts[record],
                draws=draws,
            ),
        )

    def _group(
        self, items: list[int], pieces: NDArray[np.int64], names: tuple[str, ...], rate: float
    ) -> _Group:
        counts, gain, baseline = [], [], []
        for piece in pieces:
            waveform = self._feed[self._pieces.record_ids[self._pieces.record[piece]]]
            start = self._pieces.start[piece]
            cut = waveform.digital[:, start : start + self._pieces.samples[piece]]
            rows = [waveform.leads.index(name) for name in names]
            counts.append(cut[rows])
            gain.append(waveform.gain[rows])
            baseline.append(waveform.baseline[rows])
        stored = torch.from_numpy(np.stack(counts))
        return _Group(
            torch.tensor(items),
            stored.pin_memory() if self._device.type == "cuda" else stored,
            torch.from_numpy(np.stack(gain)),
            torch.from_numpy(np.stack(baseline).astype(np.float64)),
            rate,
        )

    @torch.no_grad()
    def _prepared(self, raw: _Raw) -> Batch:
        """Prepare a part where it is wanted."""
        batch, windows = raw.batch, torch.empty(0)
        draws = batch.draws if self._device.type == "cpu" else batch.draws.to(self._device)
        for group in raw.groups:
            cut = self._windows(group, draws.of(group.items.to(self._device)))
            if len(cut) == len(batch.records):  # all are of one shape, in their order
                windows = cut
                break
            if not len(windows):
                windows = cut.new_empty((len(batch.records), *cut.shape[1:]))
            windows[group.items.to(self._device)] = cut
        return replace(
            batch,
            windows=windows,
            draws=draws,
            records=batch.records.to(self._device),
            facts=batch.facts.to(self._device, non_blocking=True),
        )

    def _windows(self, group: _Group, draws: Draws) -> Tensor:
        """Return prepared windows of a group, float32."""
        counts, gain, baseline = (
            part.to(self._device, non_blocking=True)
            for part in (group.counts, group.gain, group.baseline)
        )
        signal = (counts - baseline[..., None]) / gain[..., None]
        if self._method.lost_samples:
            signal = signal.masked_fill(counts == INVALID, torch.nan)
        if self._device.type == "cpu":
            cut = self._method.windows(signal.numpy(), group.rate_hz, on_host, draws)
            with np.errstate(over="ignore"):  # infinite millivolts are found by their loss
                return torch.from_numpy(np.ascontiguousarray(cut, np.float32))
        return self._method.windows(signal, group.rate_hz, on_device, draws).float()
