"""Damage a file in the ways that break parsers: each mutant follows from a seed and a number."""

from __future__ import annotations

import re

import numpy as np

__all__ = ["mutant"]

_NUMBERS = re.compile(rb"[-+]?\d+(?:\.\d+)?")
_EXTREMES = (
    *(b"0", b"-1", b"1", b"32768", b"65536", b"2147483647", b"-2147483648", b"4294967296"),
    *(b"99999999999999999999", b"1e308", b"1e-308", b"nan", b"inf", b"0x7fffffff", b"", b"1/0"),
)
_BOMB = (
    b'<!DOCTYPE x [<!ENTITY a "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa">'
    + b"".join(b'<!ENTITY %c "%s">' % (98 + k, b"&%c;" % (97 + k) * 20) for k in range(9))
    + b"]>"
)
_OUTSIDE = b'<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]>'


def mutant(data: bytes, seed: int, number: int) -> bytes:
    """Return one mutant of a file; the same seed and number give the same."""
    rng = np.random.default_rng([seed, number])
    text = b"\0" not in data[:512] or data[:2] in {b"\xff\xfe", b"\xfe\xff"}
    ways = [_cut, _flip, _flip, _field, _field, _fill, _repeat, _remove, _swap, _grow]
    if text:
        ways += [_number, _number, _number, _nest, _entity, _line]
    for _ in range(int(rng.integers(1, 4))):
        way = ways[int(rng.integers(len(ways)))]
        data = way(data, rng)
    return data


def _place(data: bytes, rng: np.random.Generator) -> int:
    """Return a place; headers are hit as often as everything else."""
    end = max(1, len(data))
    return int(rng.integers(min(end, 1024) if rng.random() < 0.5 else end))


def _cut(data: bytes, rng: np.random.Generator) -> bytes:
    return data[: _place(data, rng)]


def _flip(data: bytes, rng: np.random.Generator) -> bytes:
    damaged = bytearray(data)
    for _ in range(int(rng.integers(1, 9)) if damaged else 0):
        damaged[_place(data, rng)] ^= 1 << int(rng.integers(8))
    return bytes(damaged)


def _field(data: bytes, rng: np.random.Generator) -> bytes:
    """Put an extreme value where a count or length may stand, of either byte order."""
    size = int(rng.choice([1, 2, 4, 8]))
    value = int(
        rng.choice(np.array([0, 1, 2**7, 2**15 - 1, 2**16 - 1, 2**31 - 1, 2**32 - 1], np.int64))
    )
    value = (value if rng.random() < 0.8 else -value) & ((1 << 8 * size) - 1)
    field = value.to_bytes(size, "little")
    at = _place(data, rng)
    return data[:at] + (field if rng.random() < 0.7 else field[::-1]) + data[at + size :]


def _fill(data: bytes, rng: np.random.Generator) -> bytes:
    at, length = _place(data, rng), int(rng.integers(1, 200))
    byte = bytes([int(rng.choice([0, 255, 32, 10, int(rng.integers(256))]))])
    return data[:at] + byte * min(length, len(data) - at) + data[at + length :]


def _repeat(data: bytes, rng: np.random.Generator) -> bytes:
    at, length = _place(data, rng), int(rng.integers(1, 2000))
    return data[:at] + data[at : at + length] * int(rng.integers(2, 20)) + data[at + length :]


def _remove(data: bytes, rng: np.random.Generator) -> bytes:
    at = _place(data, rng)
    return data[:at] + data[at + int(rng.integers(1, 500)) :]


def _swap(data: bytes, rng: np.random.Generator) -> bytes:
    a, b = sorted((_place(data, rng), _place(data, rng)))
    size = min(int(rng.integers(1, 100)), b - a)
    between, behind = data[a + size : b], data[b + size :]
    return data[:a] + data[b : b + size] + between + data[a : a + size] + behind


def _grow(data: bytes, rng: np.random.Generator) -> bytes:
    at = _place(data, rng)
    return data[:at] + rng.bytes(int(rng.integers(1, 5000))) + data[at:]


def _number(data: bytes, rng: np.random.Generator) -> bytes:
    """Replace a number written in digits by an extreme one."""
    at = _place(data, rng)
    match = _NUMBERS.search(data, at)
    if match is None:
        return data
    extreme = _EXTREMES[int(rng.integers(len(_EXTREMES)))]
    return data[: match.start()] + extreme + data[match.end() :]


def _nest(data: bytes, rng: np.random.Generator) -> bytes:
    at, depth = _place(data, rng), int(10 ** rng.uniform(1, 5))
    return data[:at] + b"<a>" * depth + data[at:]


def _entity(data: bytes, rng: np.random.Generator) -> bytes:
    """Declare entities after the XML declaration, and use one in the first text."""
    end = data.find(b"?>")
    declared = _BOMB if rng.random() < 0.5 else _OUTSIDE
    name = b"&j;" if declared is _BOMB else b"&a;"
    at = end + 2 if end >= 0 else 0
    close = data.find(b"</", at)
    close = len(data) if close < 0 else close
    return data[:at] + declared + data[at:close] + name + data[close:]


def _line(data: bytes, rng: np.random.Generator) -> bytes:
    """Repeat or drop a line."""
    lines = data.split(b"\n")
    at = int(rng.integers(len(lines)))
    lines[at : at + 1] = [lines[at]] * int(rng.choice([0, 2, 3]))
    return b"\n".join(lines)
