"""The entropy coding of SCP-ECG: Huffman codes, of the standard's table or of tables in the file.

No code tells where the next one begins until it is read, so a stream can only be followed from its
start. Here every bit is looked at as if a code began there, all at once, which gives a map from
each bit to the next code; the codes that are there are then found by following that map from the
first bit, in strides of 32.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = ["DEFAULT", "Code", "Decoder", "ScpError", "default_decoder"]

_MAX_PREFIX = 16  # bits; those of the standard's own table have at most 10
_MAX_CODE = 32  # bits; the longest of the standard's own table has 26
_MAX_TABLES = 16
_MAX_STATES = 2**18  # bits of a stream times tables, of several tables
_DOUBLINGS = 5
_PADDING = 16  # bits; a stream may end in an unfinished byte and, to make it even, one more
_HEAD = 24  # bits; the same for a prefix
_WORD = 40  # bits; a code that begins anywhere in the first byte of a word ends in it


class ScpError(ValueError):
    """Bytes do not follow the SCP-ECG standard.

    Args:
        message: What is wrong, without a full stop.
        reason: A key of `ecgstore.io.assemble.REASONS`.
    """

    def __init__(self, message: str, reason: str = "bad header") -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Code:
    """One code structure of a Huffman table (EN 1064, 5.5).

    Attributes:
        prefix_bits: Bits that tell this code from the others.
        total_bits: Bits of the whole code; what follows the prefix is a signed number, most
            significant bit first.
        base: The value that the code stands for, or is added to the number after the prefix; the
            number of the table to go on with, counted from 1, if it `switches`.
        prefix: The prefix; its least significant bit comes first in the stream.
        switches: Whether it stands for no value but changes the table.
    """

    prefix_bits: int
    total_bits: int
    base: int
    prefix: int
    switches: bool = False


# EN 1064, Annex C, default Huffman table: 0, then 1 to 8 of either sign by unary length, then
# numbers of 8 and 16 bits as they are.
DEFAULT: tuple[Code, ...] = (
    Code(1, 1, 0, 0),
    Code(3, 3, 1, 1), Code(3, 3, -1, 5),
    Code(4, 4, 2, 3), Code(4, 4, -2, 11),
    Code(5, 5, 3, 7), Code(5, 5, -3, 23),
    Code(6, 6, 4, 15), Code(6, 6, -4, 47),
    Code(7, 7, 5, 31), Code(7, 7, -5, 95),
    Code(8, 8, 6, 63), Code(8, 8, -6, 191),
    Code(9, 9, 7, 127), Code(9, 9, -7, 383),
    Code(10, 10, 8, 255), Code(10, 10, -8, 767),
    Code(10, 18, 0, 511), Code(10, 26, 0, 1023),
)  # fmt: skip
"""The codes of a file that names table 19999."""


class _Table:
    """What the next bits of a stream mean.

    Attributes:
        width: Bits that are looked at.
        length: ``(2**width,)`` bits of the code that they begin with, 0 where they begin none.
        target: ``(2**width,)`` tables to go on by, in steps from this one.
    """

    def __init__(self, codes: Sequence[Code], own_number: int) -> None:
        self.width = _width(codes)
        self.length = np.zeros(2**self.width, np.int32)
        self.target = np.zeros(2**self.width, np.int32)
        self._base = np.zeros(2**self.width, np.int64)
        self._tail = np.zeros(2**self.width, np.int64)
        self._switches = np.zeros(2**self.width, bool)
        for code in codes:
            fits = 1 <= code.prefix_bits <= code.total_bits <= _MAX_CODE
            if not fits or code.prefix >> code.prefix_bits:
                msg = "a Huffman code does not fit its number of bits"
                raise ScpError(msg)
            in_order = int(f"{code.prefix:0{code.prefix_bits}b}"[::-1], 2)
            spare = self.width - code.prefix_bits
            same = slice(in_order << spare, (in_order + 1) << spare)
            if self.length[same].any():
                msg = "two Huffman codes of a table begin alike"
                raise ScpError(msg)
            self.length[same] = code.total_bits
            self.target[same] = code.base - own_number if code.switches else 0
            self._base[same] = code.base
            self._tail[same] = code.total_bits - code.prefix_bits
            self._switches[same] = code.switches

    def bits(self, words: NDArray[np.int64]) -> NDArray[np.int32]:
        """Return the bits to look up that begin at each bit of the first byte of words."""
        heads = (words >> (_WORD - _HEAD)).astype(np.int32)
        shifts = np.arange(_HEAD - self.width, _HEAD - self.width - 8, -1, dtype=np.int32)
        return (heads[:, None] >> shifts & np.int32((1 << self.width) - 1)).ravel()

    def values(
        self, bits: NDArray[np.int32], words: NDArray[np.int64], at: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Return the values of codes, and which of them only switch.

        Args:
            bits: What they begin with.
            words: The words of a stream.
            at: The bits of the stream where they begin.
        """
        value = self._base[bits]
        longer = np.flatnonzero(self._tail[bits])
        tail, total, begin = self._tail[bits[longer]], self.length[bits[longer]], at[longer]
        number = words[begin >> 3] >> (_WORD - total - (begin & 7)) & (1 << tail) - 1
        value[longer] += number - (number >> (tail - 1) << tail)  # two's complement
        return value, self._switches[bits]


class Decoder:
    """Decodes streams by one or several Huffman tables; each stream begins with the first.

    Args:
        tables: The codes of each table.

    Raises:
        ScpError: A code is impossible, or begins like another of its table.
    """

    def __init__(self, tables: Sequence[Sequence[Code]]) -> None:
        if len(tables) > _MAX_TABLES:
            msg = f"it has {len(tables)} Huffman tables, at most {_MAX_TABLES} expected"
            raise ScpError(msg, "too large")
        switches = [code.base for codes in tables for code in codes if code.switches]
        if not tables or not all(1 <= number <= len(tables) for number in switches):
            msg = "it has no Huffman table, or switches to one that is not there"
            raise ScpError(msg)
        self._tables = [_Table(codes, number) for number, codes in enumerate(tables, 1)]

    def decode(self, data: bytes, n: int, *, start_only: bool = False) -> NDArray[np.int64]:
        """Return the first `n` values of a stream, ``(n,)``.

        Args:
            data: The stream.
            n: Values wanted.
            start_only: Whether it may hold more.

        Raises:
            ScpError: It holds what is no code, ends too early, or far from the last value.
        """
        n_bits = 8 * len(data)
        # A state is a table and a bit; the bits after the end are where the last code may lead.
        stride = n_bits + _MAX_CODE
        if len(self._tables) > 1 and len(self._tables) * stride > _MAX_STATES:
            msg = f"{len(self._tables)} Huffman tables for {len(data)} bytes are too many"
            raise ScpError(msg, "too large")
        words = _words(data)
        bits = [table.bits(words) for table in self._tables]
        following = np.arange(len(self._tables) * stride, dtype=np.int32)
        for number, table in enumerate(self._tables):
            states = following[number * stride :][:n_bits]
            states += table.length.take(bits[number], mode="clip")
            if len(self._tables) > 1:
                states += table.target[bits[number]] * stride

        path = _path(following)
        at, end = path % stride, following[path] % stride
        value = np.empty(len(path), np.int64)
        no_value = np.empty(len(path), bool)
        for number, table in enumerate(self._tables):
            own = np.flatnonzero(path // stride == number)
            begin = at[own]
            value[own], no_value[own] = table.values(bits[number][begin], words, begin)
        wanted = np.flatnonzero(~no_value & (end <= n_bits))[:n]
        if len(wanted) < n:
            ran_out = not len(end) or end[-1] >= n_bits
            msg = f"a lead {'ends' if ran_out else 'holds no code'} after {len(wanted)} samples"
            raise ScpError(msg, "truncated" if ran_out else "bad samples")
        if not start_only and n_bits - (end[wanted[-1]] if n else 0) >= _PADDING:
            msg = f"a lead goes on after its {n} samples"
            raise ScpError(msg, "bad samples")
        return value[wanted]


@functools.cache
def default_decoder() -> Decoder:
    """Return the decoder for the standard's own table, one for all files."""
    return Decoder([DEFAULT])


def _words(data: bytes) -> NDArray[np.int64]:
    """Return the 40 bits that begin at each byte, zeros after the end."""
    stream = np.frombuffer(data + bytes(4), np.uint8).astype(np.int64)
    words = np.zeros(len(data), np.int64)
    for first in range(5):
        words = (words << 8) | stream[first : first + len(data)]
    return words


def _path(following: NDArray[np.int32]) -> NDArray[np.int64]:
    """Return the states from 0 on that lead to another one."""
    jumps = [following]
    for _ in range(_DOUBLINGS):
        jumps.append(jumps[-1].take(jumps[-1], mode="clip"))
    far = jumps.pop()
    strides = [0]
    while (state := int(far[strides[-1]])) != strides[-1]:
        strides.append(state)
    states = np.array(strides, np.int64)
    for jump in reversed(jumps):
        finer = np.empty(2 * len(states), np.int64)
        finer[::2], finer[1::2] = states, jump[states]
        states = finer
    moves: NDArray[np.bool_] = following[states] != states
    return states[moves]


def _width(codes: Sequence[Code]) -> int:
    """Return the bits of the longest prefix of a table."""
    width = max((code.prefix_bits for code in codes), default=0)
    if not 1 <= width <= _MAX_PREFIX:
        msg = f"a Huffman table has prefixes of {width} bits, 1 to {_MAX_PREFIX} expected"
        raise ScpError(msg)
    return width
