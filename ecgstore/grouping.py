"""From single waveforms to batches of equal shape: padding would change embeddings.

Equal are rate, length, leads, and which models take the record. What a model cannot take is told
here, before anything is computed.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from ecgstore.errors import UnfitRecordError
from ecgstore.record import INVALID

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

    from torch import Tensor

    from ecgstore.models import Encoder
    from ecgstore.waveforms import Waveform

__all__ = ["Batch", "Grouping", "Refused"]

_HELD_BYTES = 2**26
"""Counts of the records that wait for others of their shape, all together: 500 of 10 s."""
_KINDS = 10_000
"""Kinds of record of which is remembered who takes them."""

_BATCH_BYTES = 2**28
"""Float64 millivolts of a batch at most: 500 records of 10 s, or a part of a Holter's day."""


@dataclass(frozen=True)
class Refused:
    """A record that a model cannot take.

    Attributes:
        task: Position of the model.
        reason: Why, in two words.
    """

    task: int
    reason: str


@dataclass(frozen=True, eq=False)
class Batch:
    """Records of equal rate, length and leads that the same models want.

    Attributes:
        record_ids: The records.
        counts: ``(records, leads, samples)`` int16, in memory that a GPU can fetch from.
        gain: ``(records, leads)`` float64 counts per millivolt.
        baseline: ``(records, leads)`` int32 count that stands for 0 mV.
        rate_hz: Samples per second.
        leads: Names of the middle axis; each has a valid sample in every record.
        tasks: The leads that each model takes, by position of the model.
    """

    record_ids: Sequence[str]
    counts: Tensor
    gain: Tensor
    baseline: Tensor
    rate_hz: float
    leads: tuple[str, ...]
    tasks: Mapping[int, tuple[str, ...]]


class Grouping:
    """Sorts records into batches, and out those that a model cannot take.

    Args:
        encoders: The models.
        todo: For each the ids of the records it is to embed.
        rates: Samples per second of each record.
        batch_size: Records of a batch at most.
        pinned: Whether a GPU is to fetch the counts.
    """

    def __init__(
        self,
        encoders: Sequence[Encoder],
        todo: Sequence[Collection[str]],
        rates: Mapping[str, float],
        batch_size: int,
        *,
        pinned: bool,
    ) -> None:
        self._encoders = encoders
        self._todo = todo
        self._rates = rates
        self._size = batch_size
        self._pinned = pinned
        self._judged: dict[object, tuple[str, ...] | str] = {}

    def of(self, waveforms: Iterable[Waveform]) -> Iterator[Batch | Refused]:
        """Yield full batches, refusals as they are met, and the rest at the end."""
        waiting: dict[object, list[Waveform]] = defaultdict(list)
        tasks_of: dict[object, dict[int, tuple[str, ...]]] = {}
        key: object
        held = 0
        for waveform in waveforms:
            kept, lost = _present(waveform)
            flat = _flat(kept)
            rate_hz, samples = self._rates[kept.record_id] or 0.0, kept.digital.shape[1]
            tasks: dict[int, tuple[str, ...]] = {}
            for task, wanted in enumerate(self._todo):
                if kept.record_id not in wanted:
                    continue
                verdict = self._judge(task, lost, flat, samples, rate_hz)
                if isinstance(verdict, str):
                    yield Refused(task, verdict)
                else:
                    tasks[task] = verdict
            if not tasks:
                continue
            key = (rate_hz, samples, kept.leads, tuple(tasks))
            tasks_of[key] = tasks
            waiting[key].append(kept)
            held += kept.digital.nbytes
            if held >= _HELD_BYTES:  # records of many lengths: the largest group goes first
                key = max(waiting, key=lambda one: sum(w.digital.nbytes for w in waiting[one]))
            if held >= _HELD_BYTES or len(waiting[key]) >= self._records(kept):
                group = waiting.pop(key)
                held -= sum(one.digital.nbytes for one in group)
                yield self._batch(group, self._rates[group[0].record_id], tasks_of.pop(key))
        for key, records in waiting.items():
            yield self._batch(records, self._rates[records[0].record_id], tasks_of[key])

    def _judge(
        self,
        task: int,
        lost: Mapping[str, bool],
        flat: tuple[str, ...],
        samples: int,
        rate_hz: float,
    ) -> tuple[str, ...] | str:
        """Return the leads a model takes of such a record, or why it takes none."""
        if not rate_hz > 0:
            return "no rate"
        key = (task, tuple(lost.items()), flat, samples, rate_hz)
        if key not in self._judged:
            if len(self._judged) >= _KINDS:
                self._judged.clear()
            try:
                verdict: tuple[str, ...] | str = self._encoders[task].accept(
                    lost, samples, rate_hz=rate_hz, flat=flat
                )
            except UnfitRecordError as error:
                verdict = error.reason
            self._judged[key] = verdict
        return self._judged[key]

    def _records(self, waveform: Waveform) -> int:
        return min(self._size, max(1, _BATCH_BYTES // (8 * waveform.digital.size)))

    def _batch(
        self, records: Sequence[Waveform], rate_hz: float, tasks: Mapping[int, tuple[str, ...]]
    ) -> Batch:
        shape = (len(records), *records[0].digital.shape)
        counts = torch.empty(shape, dtype=torch.int16, pin_memory=self._pinned)
        np.stack([record.digital for record in records], out=counts.numpy())
        return Batch(
            record_ids=[record.record_id for record in records],
            counts=counts,
            gain=torch.from_numpy(np.stack([record.gain for record in records])),
            baseline=torch.from_numpy(np.stack([record.baseline for record in records])),
            rate_hz=rate_hz,
            leads=records[0].leads,
            tasks=tasks,
        )


def _flat(waveform: Waveform) -> tuple[str, ...]:
    """Return the leads that are constant throughout."""
    counts = waveform.digital
    if not counts.shape[1]:
        return ()
    same = counts.min(axis=1) == counts.max(axis=1)
    return tuple(lead for lead, flat in zip(waveform.leads, same, strict=True) if flat)


def _present(waveform: Waveform) -> tuple[Waveform, dict[str, bool]]:
    """Return the leads with any valid sample, and whether each has lost ones."""
    invalid = waveform.digital == INVALID
    lost = invalid.any(axis=1)
    if not lost.any():
        return waveform, dict.fromkeys(waveform.leads, False)
    there = ~invalid.all(axis=1)
    rows = np.flatnonzero(there)
    kept = type(waveform)(
        waveform.record_id,
        tuple(waveform.leads[row] for row in rows),
        waveform.digital[rows],
        waveform.gain[rows],
        waveform.baseline[rows],
    )
    return kept, {waveform.leads[row]: bool(lost[row]) for row in rows}
