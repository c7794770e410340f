"""Compress leads as Philips carts do, written apart from the decoder."""

from __future__ import annotations

import struct
from typing import Any

__all__ = ["chunk", "lzw"]


def lzw(data: bytes) -> bytes:
    """Pack bytes into 10-bit codes, ended by 1023."""
    known = {bytes([i]): i for i in range(256)}
    codes, seen = [], b""
    for i in range(len(data)):
        longer = seen + data[i : i + 1]
        if longer in known:
            seen = longer
            continue
        codes.append(known[seen])
        if len(known) < 1023:
            known[longer] = len(known)
        seen = data[i : i + 1]
    bits = "".join(f"{code:010b}" for code in [*codes, known[seen], 1023])
    bits += "0" * (-len(bits) % 8)
    return int(bits, 2).to_bytes(len(bits) // 8)


def chunk(samples: Any) -> bytes:
    """Compress one lead."""
    x = [int(value) for value in samples]
    bent = [2 * x[i - 1] - x[i - 2] - x[i] for i in range(2, len(x))]
    values = [*x[:2], *(one + 64 for one in bent[1:]), 0]
    words = [struct.pack(">h", value) for value in values]
    packed = lzw(bytes(w[0] for w in words) + bytes(w[1] for w in words))
    return struct.pack("<ihh", len(packed), 1, bent[0]) + packed
