"""What is trained on: pieces of records, and the order in which they come."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from ecgstore.errors import NotEnoughDataError
from ecgstore.record import INVALID

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from ecgstore.progress import Progress
    from ecgstore.waveforms import Waveform

__all__ = ["Order", "Pieces", "Wanted", "draw_seed", "find_pieces"]


class Wanted(Protocol):
    """What a method says of the pieces it takes; see `ecgstore.pretraining.method.Method`."""

    piece_s: float
    least_s: float
    all_leads: bool
    flat_leads: bool
    lost_samples: bool


@dataclass(frozen=True, eq=False)
class Pieces:
    """Pieces of records that may be trained on.

    Attributes:
        record_ids: The records that have any, sorted.
        record: ``(pieces,)`` int64 place of each piece's record in `record_ids`.
        start: ``(pieces,)`` int64 sample it starts at.
        samples: ``(pieces,)`` int64 samples it has.
        rate_hz: ``(pieces,)`` float64 samples per second.
        kind: ``(pieces,)`` int64 which of `lead_sets` it has.
        lead_sets: Leads that pieces have, in the model's order.
        left_out: Why records or pieces were left out, and how many.
    """

    record_ids: tuple[str, ...]
    record: NDArray[np.int64]
    start: NDArray[np.int64]
    samples: NDArray[np.int64]
    rate_hz: NDArray[np.float64]
    kind: NDArray[np.int64]
    lead_sets: tuple[tuple[str, ...], ...]
    left_out: Mapping[str, int]

    def __len__(self) -> int:
        return len(self.record)

    @property
    def digest(self) -> str:
        """Twelve hexadecimal digits of which pieces these are."""
        whole = hashlib.sha256("\n".join(self.record_ids).encode())
        for part in (self.record, self.start, self.samples, self.rate_hz, self.kind):
            whole.update(part.tobytes())
        whole.update(repr(self.lead_sets).encode())
        return whole.hexdigest()[:12]

    def that_fill(self, batch_size: int) -> Pieces:
        """Return the pieces that a batch can ever hold, the others counted in `left_out`.

        A batch has the same leads throughout, so those with leads that fewer pieces than a batch
        have are never trained on. Where that would leave none, all stay.
        """
        fills = np.bincount(self.kind, minlength=len(self.lead_sets)) >= batch_size
        if fills.all() or not fills.any():
            return self
        kept = fills[self.kind]
        records, place = np.unique(self.record[kept], return_inverse=True)
        why = "fewer than a batch with their leads"
        return Pieces(
            tuple(self.record_ids[one] for one in records),
            record=place.astype(np.int64),
            start=self.start[kept],
            samples=self.samples[kept],
            rate_hz=self.rate_hz[kept],
            kind=(np.cumsum(fills) - 1)[self.kind[kept]],
            lead_sets=tuple(one for one, full in zip(self.lead_sets, fills, strict=True) if full),
            left_out={**self.left_out, why: int((~kept).sum())},
        )


def find_pieces(
    waveforms: Iterable[Waveform],
    rates: Mapping[str, float | None],
    leads: Sequence[str],
    wanted: Wanted,
    *,
    progress: Progress,
) -> Pieces:
    """Look through records and return the pieces that a method takes.

    Args:
        waveforms: The records, each at most once, in any order.
        rates: All of them, each with its samples per second.
        leads: Those the model knows, in its order.
        wanted: What the method takes.
        progress: Told of every record.
    """
    progress.start(len(rates), "records looked through")
    left_out: Counter[str] = Counter()
    sets: dict[tuple[str, ...], int] = {}
    rows: list[tuple[str, int, int, float, int]] = []
    seen = 0
    for waveform in waveforms:
        seen += 1
        rate = rates[waveform.record_id]
        found = _pieces(waveform, rate, leads, wanted, left_out)
        for kept, start, samples in found:
            rows.append(
                (waveform.record_id, start, samples, rate or 0.0, sets.setdefault(kept, len(sets)))
            )
        progress.advance(1, rejected=0 if found else 1)
    if seen < len(rates):
        left_out["no waveform"] = len(rates) - seen
    rows.sort()
    names = sorted({row[0] for row in rows})
    place = {name: number for number, name in enumerate(names)}
    # Numbered by their names, so that the order in which shards lie does not matter.
    ordered = sorted(sets)
    number = {sets[one]: ordered.index(one) for one in ordered}
    return Pieces(
        tuple(names),
        record=np.array([place[row[0]] for row in rows], np.int64),
        start=np.array([row[1] for row in rows], np.int64),
        samples=np.array([row[2] for row in rows], np.int64),
        rate_hz=np.array([row[3] for row in rows], np.float64),
        kind=np.array([number[row[4]] for row in rows], np.int64),
        lead_sets=tuple(ordered),
        left_out=dict(left_out),
    )


def _pieces(
    waveform: Waveform,
    rate: float | None,
    leads: Sequence[str],
    wanted: Wanted,
    left_out: Counter[str],
) -> list[tuple[tuple[str, ...], int, int]]:
    """Return leads, start and length of each piece of a record, counting what is left out."""
    if rate is None or not rate > 0:
        left_out["no rate"] += 1
        return []
    there = [lead for lead in leads if lead in waveform.leads]
    rows = [waveform.leads.index(lead) for lead in there]
    counts = waveform.digital[rows]
    valid = (counts != INVALID).any(axis=1) if counts.size else np.zeros(len(rows), bool)
    kept = tuple(lead for lead, has in zip(there, valid, strict=True) if has)
    if not kept or (wanted.all_leads and len(kept) < len(leads)):
        left_out["missing leads"] += 1
        return []
    counts = counts[valid]
    total, length = counts.shape[1], round(wanted.piece_s * rate)
    if total < length:
        length = total
    if total < round(wanted.least_s * rate) or not length:
        left_out["too short"] += 1
        return []
    found = []
    for start in range(0, total - length + 1, length):
        piece = counts[:, start : start + length]
        lost, flat = piece == INVALID, piece.min(axis=1) == piece.max(axis=1)
        if lost.any() and not wanted.lost_samples:
            left_out["lost samples"] += 1
        elif lost.all(axis=1).any():
            left_out["missing leads"] += 1
        elif flat.all() or (flat.any() and not wanted.flat_leads):
            left_out["flat"] += 1
        else:
            found.append((kept, start, length))
    return found


def draw_seed(*numbers: int) -> int:
    """Return a seed for one purpose; different numbers give unrelated streams."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1))


_ORDER = 1
"""Marks the stream of random numbers that orders pieces."""


class Order:
    """Which pieces each update takes: every epoch all of them, shuffled anew.

    A batch is made of pieces that have the same leads. What does not fill a batch at the end of an
    epoch waits for the next one's order.

    Args:
        pieces: What there is.
        batch_size: Pieces an update.
        seed: Of the order.

    Raises:
        NotEnoughDataError: There are fewer pieces than a batch takes.
    """

    def __init__(self, pieces: Pieces, batch_size: int, seed: int) -> None:
        self._kinds = [np.flatnonzero(pieces.kind == i) for i in range(len(pieces.lead_sets))]
        self._batch, self._seed = batch_size, seed
        self.batches = sum(len(kind) // batch_size for kind in self._kinds)
        """Updates an epoch."""
        self._epoch: tuple[int, list[NDArray[np.int64]]] = (-1, [])
        if not self.batches:
            sizes = max(map(len, self._kinds), default=0)
            msg = f"{len(pieces)} pieces of records make no batch of {batch_size}."
            why = " of the same leads" if len(self._kinds) > 1 else ""
            raise NotEnoughDataError(
                msg, task="training", hint=f"Give --batch-size {max(sizes, 1)} or less{why}."
            )

    def __getitem__(self, step: int) -> NDArray[np.int64]:
        """Return the pieces of one update, ``(batch_size,)``."""
        epoch, place = divmod(step, self.batches)
        if self._epoch[0] != epoch:
            self._epoch = epoch, self._shuffled(epoch)
        return self._epoch[1][place]

    def _shuffled(self, epoch: int) -> list[NDArray[np.int64]]:
        rng = np.random.default_rng((self._seed, _ORDER, epoch))
        batches = []
        for kind in self._kinds:
            order = rng.permutation(kind)
            full = len(kind) // self._batch
            batches += list(order[: full * self._batch].reshape(full, self._batch))
        return [batches[place] for place in rng.permutation(len(batches))]
