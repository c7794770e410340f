"""The rhythm signal of an SCP-ECG record: decoded, at one rate, with the reference beat added back.

A cart may store the ECG as it is, or store what is left after its reference beat was subtracted
from every complex of the dominant type; and it may keep one sample in four, the mean of these,
outside the protected areas around the complexes (EN 1064, 5.7 to 5.9 and Annex C).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ecgstore.io.scp_huffman import ScpError
from ecgstore.io.scp_sections import beats_of, decoder_of, leads_of, waveforms_of
from ecgstore.record import INVALID, Signal

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from ecgstore.io.scp_huffman import Decoder
    from ecgstore.io.scp_sections import Beats, Lead, Waveforms

__all__ = ["Rhythm", "rhythm_of"]

_DECIMATION = 4  # samples that become one outside protected areas (EN 1064, Annex C)
_MAX_DECIMATION = 16
_MAX_STORED = 2**17  # second differences of 16 bit samples
_MAX_SAMPLES = 2**23  # of all leads: 12 leads, 1 kHz, 10 minutes
_VALUES_PER_BYTE = 32  # of the file, that leads recorded one after another may need together


@dataclass(frozen=True, slots=True)
class Rhythm:
    """The signals of a record, their rate, and flags."""

    signals: list[Signal]
    rate_hz: float
    flags: list[str]


def rhythm_of(sections: Mapping[int, bytes]) -> Rhythm:
    """Return the signals that sections 2 to 6 hold.

    Leads that were not recorded at the same time keep their place: the samples before and after
    are lost ones. A decimated record is flagged ``interpolated_outside_qrs``.

    Raises:
        ScpError: The sections do not follow the standard or contradict each other.
    """
    if 6 not in sections:
        msg = "it holds no short-term rhythm data (section 6)"
        raise ScpError(msg, "unsupported format" if 12 in sections else "no samples")
    if 3 not in sections:
        msg = "it does not say which leads it holds (section 3)"
        raise ScpError(msg, "no leads")
    header = leads_of(sections[3])
    leads = header.leads
    sizes = [lead.n_samples for lead in leads]
    if sum(sizes) > _MAX_SAMPLES:
        msg = f"it announces {sum(sizes)} samples"
        raise ScpError(msg, "too large")
    decoder = decoder_of(sections.get(2))
    stored = waveforms_of(sections[6], len(leads), "section 6")
    if header.subtracted or stored.bimodal:
        return _restored(sections, leads, stored, decoder, subtracted=header.subtracted)
    counts = [
        _samples(stream, size, stored.differences, decoder)
        for stream, size in zip(stored.streams, sizes, strict=True)
    ]
    gain = 1e6 / stored.nanovolts
    if len({(lead.first, size) for lead, size in zip(leads, sizes, strict=True)}) == 1:
        signals = [_signal(lead, x, gain) for lead, x in zip(leads, counts, strict=True)]
    else:
        n_bytes = sum(map(len, sections.values()))
        signals = _side_by_side(leads, counts, gain, _VALUES_PER_BYTE * n_bytes)
    return Rhythm(signals, 1e6 / stored.interval_us, [])


def _samples(
    stream: bytes, n: int, differences: int, decoder: Decoder | None, *, start_only: bool = False
) -> NDArray[np.int64]:
    """Return the samples of a stream, ``(n,)``; its first `n` if only its start is wanted."""
    if decoder is not None:
        values = decoder.decode(stream, n, start_only=start_only)
    else:
        if len(stream) < 2 * n:
            msg = f"a lead ends after {len(stream) // 2} of {n} samples"
            raise ScpError(msg, "truncated")
        if len(stream) > 2 * n and not start_only:
            msg = f"a lead goes on after its {n} samples"
            raise ScpError(msg, "bad samples")
        values = np.frombuffer(stream, "<i2", n).astype(np.int64)
    if np.abs(values).max(initial=0) > _MAX_STORED:
        msg = "a lead holds differences that samples of 16 bits cannot have"
        raise ScpError(msg, "bad samples")
    # 5.8.3: the first sample of first differences, and two of second differences, are as they are.
    if differences == 2 and n > 1:
        values[1] -= values[0]
        values[1:] = np.cumsum(values[1:])
    if differences:
        values = np.cumsum(values)
    if n and not -(2**15) <= values.min() <= values.max() < 2**15:
        msg = "a lead holds samples that do not fit 16 bits"
        raise ScpError(msg, "bad samples")
    return values


def _signal(lead: Lead, counts: NDArray[np.int64], gain: float) -> Signal:
    """Return a signal; counts that int16 has no room for, or no other meaning, stay int32."""
    fits = counts.min() > INVALID and counts.max() < 2**15
    return Signal(lead.name, counts.astype(np.int16 if fits else np.int32), gain, 0)


def _side_by_side(
    leads: Sequence[Lead], counts: Sequence[NDArray[np.int64]], gain: float, limit: int
) -> list[Signal]:
    """Return leads of different times on the time axis of all."""
    start = min(lead.first for lead in leads)
    n = max(lead.first - start + len(x) for lead, x in zip(leads, counts, strict=True))
    if n * len(leads) > limit:
        msg = f"its {len(leads)} leads lie too far apart, over {n} samples"
        raise ScpError(msg)
    signals = []
    for lead, x in zip(leads, counts, strict=True):
        at = slice(lead.first - start, lead.first - start + len(x))
        whole, lost = np.zeros(n, np.int32), np.ones(n, bool)
        whole[at], lost[at] = x, False
        signals.append(Signal(lead.name, whole, gain, 0, lost=lost))
    return signals


def _restored(
    sections: Mapping[int, bytes],
    leads: Sequence[Lead],
    stored: Waveforms,
    decoder: Decoder | None,
    *,
    subtracted: bool,
) -> Rhythm:
    """Return leads that were decimated, or from which the reference beat was subtracted."""
    n = leads[0].n_samples
    if any((lead.first, lead.n_samples) != (leads[0].first, n) for lead in leads):
        msg = "its leads are compressed by beats and of different times"
        raise ScpError(msg, "unsupported format")
    beats = beats_of(sections[4]) if {4, 5} <= set(sections) else None
    if beats is None or (subtracted and len(beats.protected) and not len(beats.zones)):
        msg = "it is compressed by beats, but its reference beat or their places are not there"
        raise ScpError(msg)
    reference = waveforms_of(sections[5], len(leads), "section 5")
    step = _decimation(stored, reference)
    n_stored = n if step == 1 else _stored_of(n, beats.protected, step)
    rows = [_samples(s, n_stored, stored.differences, decoder) for s in stored.streams]
    where = None if step == 1 else _where(n, beats.protected, step)
    unit = stored.nanovolts
    beat_rows: list[NDArray[np.int64]] = []
    if subtracted:
        unit = math.gcd(stored.nanovolts, reference.nanovolts)
        place, n_beat = _places(n, beats, reference.interval_us)
        beat_rows = [
            _samples(s, n_beat, reference.differences, decoder, start_only=True)
            for s in reference.streams
        ]
    signals = []
    for number, (lead, row) in enumerate(zip(leads, rows, strict=True)):
        counts = row * (stored.nanovolts // unit)
        if where is not None:
            counts = np.rint(np.interp(where, np.arange(n_stored), counts)).astype(np.int64)
        if subtracted:
            beat = np.append(beat_rows[number] * (reference.nanovolts // unit), 0)
            counts = counts + beat[place]  # the zero at the end is for samples of no beat
        signals.append(_signal(lead, counts, 1e6 / unit))
    flags = [] if where is None else ["interpolated_outside_qrs"]
    return Rhythm(signals, 1e6 / reference.interval_us, flags)


def _decimation(stored: Waveforms, reference: Waveforms) -> int:
    """Return how many samples became one.

    The sampling interval of section 5 is the original one; that of section 6 may be given for the
    decimated samples.
    """
    ratio = round(stored.interval_us / reference.interval_us)
    same = abs(stored.interval_us - ratio * reference.interval_us) <= ratio // 2
    if not same or ratio > (_MAX_DECIMATION if stored.bimodal else 1):
        msg = "its reference beat and its rhythm data have different sampling rates"
        raise ScpError(msg, "unsupported format")
    if not stored.bimodal:
        return 1
    return _DECIMATION if ratio == 1 else ratio


def _areas(n: int, protected: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the protected areas and the stretches before, between and after them, as slices."""
    areas = protected[protected[:, 1] > 0] - (1, 0)
    edges = np.concatenate([[0], areas.ravel(), [n]])
    if (np.diff(edges) < 0).any():
        msg = "its protected areas overlap or lie outside the record"
        raise ScpError(msg)
    return areas, edges.reshape(-1, 2)


def _stored_of(n: int, protected: NDArray[np.int64], step: int) -> int:
    """Return how many samples of a lead of `n` are stored."""
    areas, between = _areas(n, protected)
    return int(np.diff(areas).sum() + (-(-np.diff(between) // step)).sum())


def _where(n: int, protected: NDArray[np.int64], step: int) -> NDArray[np.float64]:
    """Return for each sample of a lead where it lies among the stored ones, ``(n,)``.

    A stored sample of an unprotected stretch is the mean of `step`, or of those that are left at
    its end, and lies amid them; samples between two such are interpolated linearly, those before
    the first and after the last have its value.
    """
    areas, between = _areas(n, protected)
    start, end = between[between[:, 0] < between[:, 1]].T
    n_means = -(-(end - start) // step)
    first = np.repeat(start, n_means) + step * _runs(np.zeros_like(start), n_means)
    last = np.minimum(first + step, np.repeat(end, n_means)) - 1
    kept = _runs(areas[:, 0], areas[:, 1] - areas[:, 0])
    middles = np.sort(np.concatenate([(first + last) / 2, kept]))
    times = np.concatenate([middles, start, end - 1])
    stored = np.concatenate(
        [
            np.arange(len(middles)),
            np.searchsorted(middles, start),
            np.searchsorted(middles, end - 1, "right") - 1,
        ]
    )
    order = np.argsort(times, kind="stable")
    where: NDArray[np.float64] = np.interp(np.arange(n), times[order], stored[order])
    return where


def _runs(starts: NDArray[np.int64], lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return consecutive numbers from each start on, one run after the other."""
    before = np.cumsum(lengths) - lengths
    return np.repeat(starts - before, lengths) + np.arange(lengths.sum())


def _places(n: int, beats: Beats, interval_us: int) -> tuple[NDArray[np.int64], int]:
    """Return for each sample its place in the reference beat, and how much of that is needed.

    Samples outside the zones get the place after the last.
    """
    kind, first, fiducial, last = beats.zones[beats.zones[:, 3] > 0].T
    dominant = kind == 0
    first, fiducial, last = first[dominant], fiducial[dominant], last[dominant]
    edges = np.stack([first - 1, last], axis=1)
    offset = beats.fiducial - fiducial  # both are counted from 1
    n_beat = int((last + offset).max(initial=0))
    if (
        (edges < 0).any()
        or (np.diff(edges.ravel()) < 0).any()
        or (edges[:, 0] >= n).any()
        or (first + offset < 1).any()
        or n_beat > beats.length_ms * 1000 / interval_us + 1
    ):
        msg = "the zones of the reference beat overlap, or lie outside the record or the beat"
        raise ScpError(msg)
    place = np.full(n, n_beat)
    lengths = np.minimum(last, n) - first + 1
    own = _runs(first - 1, lengths)
    place[own] = own + np.repeat(offset, lengths)
    return place, n_beat
