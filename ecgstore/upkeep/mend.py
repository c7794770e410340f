"""One flipped bit, found again: the commonest damage of a disk, and one that costs nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["mend"]

_LARGEST = 32_768
"""Bytes; a larger file would take minutes."""


def mend(data: bytes, sound: Callable[[bytes], bool]) -> bytes | None:
    """Return the bytes as they were before one bit of them flipped.

    Args:
        data: The bytes now.
        sound: Tells whether bytes are what was written, by a digest.

    Returns:
        None when no single bit makes them sound, or there are too many to try.

    Example:
        >>> mend(b"abb", lambda data: data == b"abc")
        b'abc'
    """
    if len(data) > _LARGEST:
        return None
    trial = bytearray(data)
    for place in range(len(trial)):
        for bit in range(8):
            trial[place] ^= 1 << bit
            if sound(bytes(trial)):
                return bytes(trial)
            trial[place] ^= 1 << bit
    return None
