"""Undo XLI, the compression of ECG samples in the XML of Philips carts.

Nothing is published about it. The rules below follow from files: all of their leads decode to the
announced number of samples and end on the same calibration pulse, back at exactly zero. A block is
one chunk a lead. A chunk is a header of 8 bytes (`_HEADER`), then codes of 10 bits, high bit
first, of an LZW coder (Welch, Computer 17(6):8, 1984). They give the high bytes of all values,
then the low bytes. The first two values are samples, each later one is 64 less the second
difference of the samples. The header holds the first second difference, and the last value is
unused.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["MAX_CHUNKS", "MAX_SAMPLES", "XliError", "decompress"]

MAX_SAMPLES = 2**17
"""Samples of a lead beyond which a chunk is refused: four minutes at 500 Hz; carts record 11 s."""

MAX_CHUNKS = 32
"""Chunks beyond which a block is refused; carts allocate 16."""

_TOO_MANY = f"a chunk holds more than {MAX_SAMPLES} samples"
_HEADER = struct.Struct("<Ihh")  # bytes of codes, a number that is always 1, first difference
_END = 1023  # the code after the last one; the dictionary grows until the code before it
_BIAS = 64
_AT_ONCE = 4096  # codes unpacked before their bytes are counted
_SINGLE = [bytes([value]) for value in range(256)]


class XliError(ValueError):
    """The bytes are not what the coder writes."""


def decompress(data: bytes) -> list[NDArray[np.int16]]:
    """Return the samples of each chunk of a block, ``(samples,)`` int16 counts.

    Raises:
        XliError: A chunk is cut short, has no end, a code that nothing stands for, more than
            `MAX_SAMPLES` samples or fewer than three, or samples that do not fit 16 bits.
    """
    leads: list[NDArray[np.int16]] = []
    at = 0
    while at < len(data):
        if len(leads) == MAX_CHUNKS:
            msg = f"it has more than {MAX_CHUNKS} chunks"
            raise XliError(msg)
        if len(data) - at < _HEADER.size:
            msg = f"chunk {len(leads) + 1} ends within its header"
            raise XliError(msg)
        size, _, first = _HEADER.unpack_from(data, at)
        at += _HEADER.size
        if size > len(data) - at:
            msg = f"chunk {len(leads) + 1} announces {size} bytes, {len(data) - at} are left"
            raise XliError(msg)
        leads.append(_integrated(_values(data[at : at + size]), first))
        at += size
    return leads


def _values(packed: bytes) -> NDArray[np.int64]:
    """Return the 16-bit values of a chunk: its high bytes come first, then its low bytes."""
    unpacked = np.frombuffer(_unpacked(_codes(packed)), np.uint8)
    n_samples, odd = divmod(len(unpacked), 2)
    if odd or n_samples < 3:
        msg = f"{len(unpacked)} bytes are not three samples or more"
        raise XliError(msg)
    high, low = unpacked[:n_samples], unpacked[n_samples:]
    return (high.astype(np.uint16) << 8 | low).view(np.int16).astype(np.int64)


def _integrated(values: NDArray[np.int64], first: int) -> NDArray[np.int16]:
    """Return the samples of which all but the first two values are second differences."""
    bent = np.concatenate(([first], values[2:-1] - _BIAS))
    slopes = values[1] - values[0] - np.cumsum(bent)
    samples = np.concatenate((values[:2], values[1] + np.cumsum(slopes)))
    if samples.min() < -(2**15) or samples.max() >= 2**15:
        msg = "its samples do not fit 16 bits"
        raise XliError(msg)
    return samples.astype(np.int16)


def _codes(packed: bytes) -> NDArray[np.uint16]:
    """Return the codes before the end code; five bytes hold four."""
    whole = len(packed) * 8 // 10
    if whole > 2 * MAX_SAMPLES + 8:  # each code stands for a byte or more
        raise XliError(_TOO_MANY)
    padded = np.frombuffer(packed + bytes(-len(packed) % 5), np.uint8)
    b = padded.reshape(-1, 5).T.astype(np.uint16)
    codes = np.stack(
        [
            b[0] << 2 | b[1] >> 6,
            (b[1] & 63) << 4 | b[2] >> 4,
            (b[2] & 15) << 6 | b[3] >> 2,
            (b[3] & 3) << 8 | b[4],
        ],
        axis=1,
    ).ravel()[:whole]
    ends = np.flatnonzero(codes == _END)
    if not ends.size:
        msg = "a chunk has no end code"
        raise XliError(msg)
    return codes[: ends[0]]


def _unpacked(codes: NDArray[np.uint16]) -> bytearray:
    """Return the bytes that codes stand for.

    Until the dictionary is full, each code adds as an entry what it stands for and the byte that
    follows, which is the first of the next code. So first bytes are found before whole entries.
    """
    building = codes[: _END - len(_SINGLE) + 1].tolist()
    heads = _SINGLE.copy()
    try:
        for code in building:
            heads.append(heads[code])
    except IndexError:
        msg = f"code {code} comes before its entry"
        raise XliError(msg) from None
    table = _SINGLE.copy()
    for code, following in zip(building, heads[len(_SINGLE) + 1 :], strict=False):
        table.append(table[code] + following)
    unpacked = bytearray()
    for at in range(0, len(codes), _AT_ONCE):
        unpacked += b"".join([table[code] for code in codes[at : at + _AT_ONCE].tolist()])
        if len(unpacked) > 2 * MAX_SAMPLES:
            raise XliError(_TOO_MANY)
    return unpacked
