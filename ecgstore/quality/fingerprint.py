"""Which records are the same ECG: a short fingerprint, and the search for pairs of them.

`Record.signal_sha256` finds exact copies. The same ECG in another dataset is rarely one: it was
resampled, requantised, trimmed, padded, filtered a little, or holds other leads besides. What
stays is how the waves follow each other from beat to beat, and no two ECGs of even one patient
share that.

From each of the first `BEATS` beats on, three seconds of I, II and V1 to V6 become 64 bits: the
signs of random projections, so that the share of equal bits tells the angle between two stretches
(Charikar, STOC 2002). Amplitudes are taken by their square root first: what lies between the QRS
complexes, which tells one ECG of a patient from the next, then counts as well. Two more bytes a
beat are the milliseconds to the next one. Anchoring at beats makes the start of the record
irrelevant.
"""

from __future__ import annotations

import functools
import hashlib
from typing import TYPE_CHECKING

import numpy as np

from ecgstore.quality.bands import Bands, without_gaps
from ecgstore.quality.rpeaks import find_beats, qrs_envelope, windows_at

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = ["ALIKE", "BEATS", "LENGTH", "fingerprint", "near"]

BEATS = 12
"""Beats of a fingerprint, ten bytes each; those of beats that are not there are 0."""

LENGTH = 10 * BEATS
"""Bytes of a fingerprint."""

ALIKE = 0.9
"""Share of equal bits from which two records are near-duplicates.

Copies of 374 records of PTB-XL at 100 Hz share 0.95 and more; those trimmed or padded by up to a
second, requantised to 40 µV, or filtered to 0.5-35 Hz without phase shift, 0.91 and more in 19 of
20. Of 110,000 pairs of different ECGs the most alike share 0.86.
"""

_LEADS = ("I", "II", "V1", "V2", "V3", "V4", "V5", "V6")
_SPAN_S = 16.0  # of the record that is looked at
_BAND_HZ = (3.0, 15.0)  # what filters of diagnostic and of monitoring ECGs both leave alone
_OFFSETS_S = np.arange(-12, 138) * 0.02
_GRID_HZ = 100.0
_LEAST = 3  # beats to tell two ECGs apart
_SHIFT = 4  # beats that may be missing at the start of one of them: a second at 180 bpm and more
_KEYS = ((0, 3), (3, 6), (5, 8))  # bytes of a beat by which pairs are looked up
_JITTER_MS = 8  # between the same interval of two copies
_IN_TIME = 0.75  # of the intervals must be equal: a beat at a cut edge may be found elsewhere
_HITS = 2  # beats that must be found so, for a pair to be compared
_PAIRS = 1 << 16  # compared at a time
_NEIGHBOURS = 64  # entries of one key that each is paired with


@functools.cache
def _projections() -> NDArray[np.float32]:
    """Return signs that are the same for ever, ``(leads × offsets, 64)`` of ±1."""
    rows = len(_LEADS) * _OFFSETS_S.size
    noise = hashlib.shake_256(b"ecgstore fingerprint 1").digest(8 * rows)
    bits = np.unpackbits(np.frombuffer(noise, np.uint8)).reshape(rows, 64)
    return bits.astype(np.float32) * 2 - 1


def fingerprint(
    leads: Sequence[str], signal_mv: NDArray[np.floating], rate_hz: float
) -> NDArray[np.uint8] | None:
    """Return the fingerprint of a record, ``(LENGTH,)`` bytes.

    None where fewer than three beats are followed by three seconds of signal: such a record could
    not be told from others. A record without any of I, II and V1 to V6 goes by its first lead.

    Args:
        leads: Names, standard ones spelt as in `ecgstore.record.LEADS`.
        signal_mv: ``(leads, samples)`` in any unit, NaN where a sample is invalid.
        rate_hz: Samples per second.
    """
    rows = [(place, leads.index(lead)) for place, lead in enumerate(_LEADS) if lead in leads]
    rows = rows or [(1, 0)]
    n_samples = min(signal_mv.shape[1], round(_SPAN_S * rate_hz)) if len(leads) else 0
    if n_samples < (_OFFSETS_S[-1] - _OFFSETS_S[0]) * rate_hz:
        return None
    places, there = zip(*rows, strict=True)
    bands = Bands.of(without_gaps(signal_mv[list(there), :n_samples]), rate_hz)
    time_s = find_beats(*qrs_envelope(bands)).time_s
    step_s = bands.duration_s / (points := bands.points(_GRID_HZ))
    inside = (time_s + _OFFSETS_S[0] >= 0) & (time_s + _OFFSETS_S[-1] <= (points - 1) * step_s)
    gaps_s = np.append(np.diff(time_s), 0)[inside][:BEATS]
    time_s = time_s[inside][:BEATS]
    if time_s.size < _LEAST:
        return None
    waves = windows_at(bands.filtered(*_BAND_HZ, points), step_s, time_s, _OFFSETS_S)
    stretches = np.zeros((time_s.size, len(_LEADS), _OFFSETS_S.size), np.float32)
    stretches[:, places] = (np.sign(waves) * np.sqrt(np.abs(waves))).transpose(1, 0, 2)
    stretches -= stretches.mean(axis=2, keepdims=True)
    projected = stretches.reshape(time_s.size, -1) @ _projections()
    result = np.zeros((BEATS, 10), np.uint8)
    result[: time_s.size, :8] = np.packbits(projected > 0, axis=1)
    result[: time_s.size, 8:] = np.rint(gaps_s * 1000).astype("<u2").view(np.uint8).reshape(-1, 2)
    return result.reshape(-1)


def near(fingerprints: NDArray[np.uint8], *, alike: float = ALIKE) -> list[tuple[int, int, float]]:
    """Return the pairs of records that are the same ECG, the most alike first.

    Only pairs with some equal bytes in two beats are compared, found by sorting: 100,000
    fingerprints take seconds. Of more than `_NEIGHBOURS` records of one ECG not all pairs are
    named, but each record is in some.

    Args:
        fingerprints: ``(records, LENGTH)`` bytes.
        alike: Least share of equal bits.

    Returns:
        ``(one, other, share of equal bits)`` with ``one < other``, rows of ``fingerprints``.
    """
    records = fingerprints.reshape(len(fingerprints), BEATS, 10)
    beats = np.ascontiguousarray(records[:, :, :8])
    words = beats.view(np.uint64)[:, :, 0]
    gaps_ms = np.ascontiguousarray(records[:, :, 8:]).view("<u2")[:, :, 0].astype(np.int32)
    pairs = _candidates(beats, words != 0)
    found: list[tuple[int, int, float]] = []
    for start in range(0, len(pairs), _PAIRS):
        one, other = np.divmod(pairs[start : start + _PAIRS], len(beats))
        share = _equal_bits(words[one], words[other], gaps_ms[one], gaps_ms[other])
        good = share >= alike
        found += zip(one[good].tolist(), other[good].tolist(), share[good].tolist(), strict=True)
    return sorted(found, key=lambda pair: (-pair[2], pair))


def _candidates(beats: NDArray[np.uint8], there: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return pairs worth a look, each as ``one × records + other`` with ``one < other``."""
    record = np.nonzero(there)[0]
    flat = beats[there]
    hits = [np.empty(0, np.int64)]
    for start, stop in _KEYS:
        key = np.zeros((len(flat), 4), np.uint8)
        key[:, : stop - start] = flat[:, start:stop]
        keys = key.view(np.uint32)[:, 0]
        order = np.argsort(keys, kind="stable")
        sorted_keys, owners = keys[order], record[order]
        for step in range(1, _NEIGHBOURS + 1):
            same = sorted_keys[step:] == sorted_keys[:-step]
            if not same.any():
                break
            first, second = owners[:-step][same], owners[step:][same]
            low, high = np.minimum(first, second), np.maximum(first, second)
            hits.append((low * len(beats) + high)[low != high])
    pairs, counts = np.unique(np.concatenate(hits), return_counts=True)
    return pairs[counts >= _HITS]


def _equal_bits(
    one: NDArray[np.uint64],
    other: NDArray[np.uint64],
    one_gaps_ms: NDArray[np.int32],
    other_gaps_ms: NDArray[np.int32],
) -> NDArray[np.float64]:
    """Return the share of equal bits at the best shift of one against the other, a pair each.

    It is 0 where the beats do not follow each other at the same intervals.

    Args:
        one: ``(pairs, BEATS)`` the bits of each beat; 0 for none.
        other: The same of the others.
        one_gaps_ms: ``(pairs, BEATS)`` milliseconds to the next beat; 0 for none.
        other_gaps_ms: The same of the others.
    """
    best = np.zeros(len(one))
    for shift in range(-_SHIFT, _SHIFT + 1):
        mine = slice(max(shift, 0), BEATS + min(shift, 0))
        its = slice(max(-shift, 0), BEATS + min(-shift, 0))
        left, right = one[:, mine], other[:, its]
        both = (left != 0) & (right != 0)
        beats = both.sum(axis=1)
        equal = np.where(both, 64 - np.bitwise_count(left ^ right), 0).sum(axis=1)
        left_ms, right_ms = one_gaps_ms[:, mine], other_gaps_ms[:, its]
        timed = (left_ms > 0) & (right_ms > 0)
        in_time = (timed & (np.abs(left_ms - right_ms) <= _JITTER_MS)).sum(axis=1)
        fits = (beats >= _LEAST) & (in_time >= _IN_TIME * timed.sum(axis=1))
        share = np.divide(equal, 64 * beats, out=np.zeros(len(one)), where=fits)
        best = np.maximum(best, share)
    return best
