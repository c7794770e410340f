"""Occlusion: what a score loses when a lead, or a moment of a lead, is made flat.

As Zeiler and Fergus (2014, "Visualizing and understanding convolutional networks", ECCV) for
pictures. It needs nothing but scores, so it explains any encoder with any head, trees as well. The
signal is changed before it is prepared, as if it had been recorded so: filters and normalisation
see the change. A lead is replaced by its own median, which is a flat lead and keeps its offset; a
stretch of time by the line between the samples at its two ends, which makes no step.

Leads I to aVF are made of two differences: flattening one of them leaves the others as they are,
which no electrode could do. The figures say what the model reads, not what the heart did.
"""

from __future__ import annotations

from itertools import chain, islice
from typing import TYPE_CHECKING

import numpy as np

from ecgstore.embed import windows_at_once
from ecgstore.errors import UnfitRecordError, UsageError
from ecgstore.explain.attribution import Attribution
from ecgstore.progress import Progress, Silent

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from numpy.typing import NDArray

    from ecgstore.models import Encoder

    Signal = NDArray[np.float64]
    Score = Callable[[Sequence[NDArray[np.float32]]], NDArray[np.float64]]

__all__ = ["occlusion"]

_STRETCH_S = 10.0
"""What is drawn of a record, and so looked at moment by moment."""


def occlusion(
    encoders: Sequence[Encoder],
    head: Score,
    signal: NDArray[np.floating],
    *,
    rate_hz: float,
    leads: Sequence[str],
    unit: str = "log-odds",
    window_s: float = 0.2,
    step_s: float | None = None,
    start_s: float = 0.0,
    progress: Progress | None = None,
) -> Attribution:
    """Return how much of a score goes when parts of an ECG are made flat.

    What a part adds is the score of the record less its score without the part: positive where the
    part raises the score.

    Args:
        encoders: One a member of the feature set.
        head: Makes ``(records,)`` scores of ``(records, dim)`` vectors, a block an encoder.
        signal: ``(leads, samples)`` millivolts.
        rate_hz: Samples per second.
        leads: Name of each row, standard leads.
        unit: What scores are counted in.
        window_s: Length of the stretch made flat, seconds.
        step_s: From one stretch to the next; by default they lie side by side. Where stretches
            overlap, a moment gets the mean of those over it.
        start_s: Where the ten seconds begin that are looked at moment by moment.
        progress: Told of every changed copy that was scored.

    Raises:
        UnfitRecordError: An encoder cannot take the record as it is.
        UsageError: A length makes no sense.
    """
    progress = progress or Silent()
    given = np.asarray(signal, dtype=np.float64)
    step_s = step_s or window_s
    if not (window_s > 0 and step_s > 0 and 0 <= start_s < given.shape[1] / rate_hz):
        msg = f"Stretches of {window_s:g} s every {step_s:g} s from {start_s:g} s make no sense."
        raise UsageError(msg)
    stop_s = min(given.shape[1] / rate_hz, start_s + _STRETCH_S)
    bins = max(1, int(np.ceil((stop_s - start_s) / step_s - 1e-9)))
    edges = np.minimum(start_s + np.arange(bins + 1) * step_s, stop_s)
    reach = max(1, round(window_s / step_s))  # bins that a stretch covers
    read = [i for i, lead in enumerate(leads) if any(lead in one.spec.leads for one in encoders)]
    places = [(lead, first) for lead in read for first in range(bins)]
    progress.start(len(read) + len(places), "copies")
    (score,) = _scores(encoders, head, [given], rate_hz=rate_hz, leads=leads, strict=True)
    copies = chain(
        (_flat_lead(given, lead) for lead in read),
        (
            _flat_stretch(given, lead, edges[first], edges[min(first + reach, bins)], rate_hz)
            for lead, first in places
        ),
    )
    lost = np.array(
        [
            score - one
            for one in _scores(
                encoders, head, copies, rate_hz=rate_hz, leads=leads, step=progress.advance
            )
        ]
    )
    by_lead = np.zeros(len(leads))  # a lead that no model reads adds nothing
    by_lead[read] = lost[: len(read)]
    values = np.zeros((len(leads), bins))
    values[read] = _spread(lost[len(read) :].reshape(len(read), bins), reach)
    return Attribution("occlusion", unit, tuple(leads), edges, values, by_lead, float(score))


def _flat_lead(signal: Signal, lead: int) -> Signal:
    copy = signal.copy()
    there = np.isfinite(copy[lead])
    if there.any():
        copy[lead, there] = np.median(copy[lead, there])
    return copy


def _flat_stretch(signal: Signal, lead: int, from_s: float, to_s: float, rate_hz: float) -> Signal:
    """Replace the valid samples of a stretch by a line; at an end of the record it is level."""
    first, stop = round(from_s * rate_hz), min(round(to_s * rate_hz), signal.shape[1])
    copy = signal.copy()
    row = copy[lead]
    known = np.flatnonzero(np.isfinite(row))
    outside = known[(known < first) | (known >= stop)]
    inside = known[(known >= first) & (known < stop)]
    if len(outside):
        row[inside] = np.interp(inside, outside, row[outside])
    return copy


def _spread(values: Signal, reach: int) -> Signal:
    """Return for each bin the mean over the stretches that cover it: its own and those before."""
    padded = np.pad(values, ((0, 0), (reach - 1, 0)), mode="constant", constant_values=np.nan)
    shifted = np.stack([padded[:, k : k + values.shape[1]] for k in range(reach)])
    known = np.isfinite(shifted)
    count = known.sum(axis=0)
    total = np.where(known, shifted, 0).sum(axis=0)
    return np.where(count, total / np.maximum(count, 1), np.nan)


def _scores(
    encoders: Sequence[Encoder],
    head: Score,
    signals: Iterable[Signal],
    *,
    rate_hz: float,
    leads: Sequence[str],
    step: Callable[[], None] | None = None,
    strict: bool = False,
) -> Iterator[float]:
    """Yield the score of each signal; NaN for one that an encoder cannot take, unless strict."""
    at_once = windows_at_once([encoders])
    rest = iter(signals)
    while group := list(islice(rest, at_once)):
        blocks = [
            _vectors(one, group, rate_hz=rate_hz, leads=leads, at_once=at_once, strict=strict)
            for one in encoders
        ]
        fit = np.logical_and.reduce([np.isfinite(block).all(axis=1) for block in blocks])
        scores = np.full(len(group), np.nan)
        if fit.any():
            scores[fit] = head([block[fit] for block in blocks])
        for score in scores.tolist():
            if step is not None:
                step()
            yield score


def _vectors(
    encoder: Encoder,
    signals: Sequence[Signal],
    *,
    rate_hz: float,
    leads: Sequence[str],
    at_once: int,
    strict: bool,
) -> NDArray[np.float32]:
    """Return ``(signals, dim)``, the mean over the windows of each; NaN for what does not fit."""
    prepared: list[NDArray[np.float32] | None] = []
    for signal in signals:
        try:
            prepared.append(encoder.prepare(signal, rate_hz=rate_hz, leads=leads))
        except UnfitRecordError:
            if strict:
                raise
            prepared.append(None)
    out = np.full((len(signals), encoder.dim), np.nan, np.float32)
    fit = [i for i, one in enumerate(prepared) if one is not None]
    if fit:
        windows = np.stack([one for one in prepared if one is not None])
        names = encoder.window_leads(leads, signal=signals[fit[0]])
        flat = windows.reshape(-1, *windows.shape[2:])
        vectors = np.concatenate(
            [
                encoder.embed(flat[start : start + at_once], leads=names)
                for start in range(0, len(flat), at_once)
            ]
        )
        shape = (len(fit), windows.shape[1], -1)
        out[fit] = vectors.reshape(shape).mean(axis=1, dtype=np.float64)
    return out
