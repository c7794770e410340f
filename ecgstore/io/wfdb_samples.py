"""Unpack the samples of WFDB signal files: every format of signal(5) but the FLAC ones."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

__all__ = ["BYTES_PER_SAMPLE", "FLAC", "INVALID_CODE", "unpack"]

BYTES_PER_SAMPLE: Mapping[int, float] = MappingProxyType(
    {8: 1, 16: 2, 24: 3, 32: 4, 61: 2, 80: 1, 160: 2, 212: 1.5, 310: 4 / 3, 311: 4 / 3}
)
"""Bytes a sample takes, by format."""

FLAC = frozenset({508, 516, 524})
"""Formats whose files are FLAC."""

INVALID_CODE: Mapping[int, int] = MappingProxyType(
    {16: -(2**15), 24: -(2**23), 32: -(2**31), 61: -(2**15), 80: -(2**7), 160: -(2**15)}
    | {212: -(2**11), 310: -(2**9), 311: -(2**9), 508: -(2**7), 516: -(2**15), 524: -(2**23)}
)
"""The count that marks an invalid sample; format 8 has none."""


def unpack(
    data: bytes,
    form: int,
    *,
    offset: int,
    n_frames: int,
    per_frame: Sequence[int],
    initial: Sequence[int],
) -> NDArray[np.int16] | list[NDArray[np.signedinteger]]:
    """Return the counts of each signal of a file, ``(samples,)`` int16 or int32.

    Those of the usual case, format 16 and one sample a frame, are the rows of one array.

    Args:
        data: The whole file, checked to hold what is announced.
        form: Format, a key of `BYTES_PER_SAMPLE`.
        offset: Byte at which samples begin.
        n_frames: Frames to take.
        per_frame: Samples of each signal in a frame.
        initial: Value before the first sample of each signal, which format 8 needs.
    """
    width = sum(per_frame)
    counts = _PACKED[form](data, offset, n_frames * width)
    if form == 16 and width == len(per_frame):  # the usual case, in one go
        return np.ascontiguousarray(counts.reshape(n_frames, width).T, dtype=np.int16)
    frames = counts.reshape(n_frames, width)
    signals = []
    first = 0
    for own, before in zip(per_frame, initial, strict=True):
        signal = frames[:, first : first + own].reshape(-1)
        if form == 8:  # first differences
            signal = np.cumsum(signal, dtype=np.int64) + before
        signals.append(signal.astype(_KIND.get(form, np.int32)))
        first += own
    return signals


_KIND = {8: np.int64, 16: np.int16, 61: np.int16}


def _plain(kind: str, minus: int = 0) -> Callable[[bytes, int, int], NDArray[np.signedinteger]]:
    def take(data: bytes, offset: int, n: int) -> NDArray[np.signedinteger]:
        raw = np.frombuffer(data, kind, n, offset)
        return raw.astype(np.int32) - minus if minus else raw

    return take


def _groups(data: bytes, offset: int, n: int, *, samples: int, size: int) -> NDArray[np.int32]:
    """Return ``(groups, size)`` bytes; the last group may end within itself."""
    groups = -(-n // samples)
    raw = data[offset : offset + groups * size]
    raw += bytes(groups * size - len(raw))
    return np.frombuffer(raw, np.uint8).reshape(groups, size).astype(np.int32)


def _signed(values: NDArray[np.int32], bits: int) -> NDArray[np.int32]:
    half = 1 << (bits - 1)
    return (values & (2 * half - 1) ^ half) - half


def _take_24(data: bytes, offset: int, n: int) -> NDArray[np.int32]:
    low, middle, high = (
        np.frombuffer(data, np.uint8, 3 * n, offset).reshape(n, 3).T.astype(np.int32)
    )
    return _signed(low | middle << 8 | high << 16, 24)


def _take_212(data: bytes, offset: int, n: int) -> NDArray[np.int32]:
    """Two samples in three bytes; the middle one holds both high nibbles."""
    first, middle, second = _groups(data, offset, n, samples=2, size=3).T
    pairs = np.stack([first | (middle & 0x0F) << 8, second | (middle & 0xF0) << 4], axis=1)
    return _signed(pairs.reshape(-1)[:n], 12)


def _take_310(data: bytes, offset: int, n: int) -> NDArray[np.int32]:
    """Three samples in two 16-bit words: bits 1 to 10 of each, and the five high bits of both."""
    a, b, c, d = _groups(data, offset, n, samples=3, size=4).T
    one, two = a | b << 8, c | d << 8
    triples = np.stack([one >> 1, two >> 1, one >> 11 | two >> 11 << 5], axis=1)
    return _signed(triples.reshape(-1)[:n], 10)


def _take_311(data: bytes, offset: int, n: int) -> NDArray[np.int32]:
    """Three samples in the thirty low bits of a 32-bit word."""
    a, b, c, d = _groups(data, offset, n, samples=3, size=4).T
    word = a | b << 8 | c << 16 | (d & 0x3F) << 24
    triples = np.stack([word, word >> 10, word >> 20], axis=1)
    return _signed(triples.reshape(-1)[:n], 10)


_PACKED: dict[int, Callable[[bytes, int, int], NDArray[np.signedinteger]]] = {
    8: _plain("<i1"),
    16: _plain("<i2"),
    24: _take_24,
    32: _plain("<i4"),
    61: _plain(">i2"),
    80: _plain("<u1", minus=128),
    160: _plain("<u2", minus=32768),
    212: _take_212,
    310: _take_310,
    311: _take_311,
}
