"""Write SCP-ECG records in every compression, by code that shares nothing with the reader."""

from __future__ import annotations

import struct
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

Table = dict[int | str, str]

# Codes as the bits come in the stream. The standard's default table, by its own construction:
# ones, a zero and a sign; two escapes for numbers of 8 and 16 bits.
DEFAULT: Table = {0: "0", "8": "1111111110", "16": "1111111111"}
for _size in range(1, 9):
    DEFAULT |= {_size: "1" * _size + "00", -_size: "1" * _size + "01"}

# Two tables of a cart of our own: small numbers, and 12 bit ones after ``S2``; each can switch.
OWN: tuple[Table, Table] = (
    {0: "1", 1: "010", -1: "011", "16": "000", "S2": "001"},
    {"12": "1", "16": "01", "S1": "00"},
)


def crc(data: bytes) -> int:
    """CRC-CCITT, bit by bit."""
    register = 0xFFFF
    for byte in data:
        register ^= byte << 8
        for _ in range(8):
            register = (register << 1 ^ (0x1021 if register & 0x8000 else 0)) & 0xFFFF
    return register


def record(sections: Mapping[int, bytes], *, section_crc: bool = True) -> bytes:
    """Put the data parts of sections together."""
    bodies: dict[int, bytes] = {0: bytes(120), **sections}
    position, pointers = 7, b""
    for number in range(12):
        size = len(bodies[number]) + 16 if number in bodies else 0
        pointers += struct.pack("<HII", number, size, position if size else 0)
        position += size
    bodies[0] = pointers
    whole = b""
    for number, body in sorted(bodies.items()):
        reserved = b"SCPECG" if number == 0 else bytes(6)
        head = struct.pack("<HIBB6s", number, len(body) + 16, 20, 20, reserved)
        whole += struct.pack("<H", crc(head + body) if section_crc else 0) + head + body
    whole = struct.pack("<I", len(whole) + 6) + whole
    return struct.pack("<H", crc(whole)) + whole


def differences(x: Sequence[int], times: int) -> list[int]:
    """Return the samples as they are stored: first ones as they are, then differences."""
    if times == 0:
        return list(x)
    if times == 1:
        return [x[0], *(b - a for a, b in pairwise(x))]
    return [*x[:2], *(c - 2 * b + a for a, b, c in zip(x, x[1:], x[2:], strict=False))]


def to_bytes(bits: str) -> bytes:
    bits += "0" * (-len(bits) % 8)
    return int("1" + bits, 2).to_bytes(len(bits) // 8 + 1, "big")[1:]


def signed(value: int, size: int) -> str:
    return format(value % 2**size, f"0{size}b")


def raw(values: Sequence[int]) -> bytes:
    return struct.pack(f"<{len(values)}h", *values)


def by_default(values: Sequence[int]) -> bytes:
    def one(v: int) -> str:
        if abs(v) <= 8:
            return DEFAULT[v]
        size = 8 if abs(v) < 128 else 16
        return DEFAULT[str(size)] + signed(v, size)

    return to_bytes("".join(map(one, values)))


def by_own(values: Sequence[int]) -> bytes:
    bits, table = "", 0
    for v in values:
        wanted = table if abs(v) > 2047 else int(abs(v) > 1)
        if wanted != table:
            bits += OWN[table][f"S{wanted + 1}"]
            table = wanted
        size = 16 if abs(v) > 2047 else 12
        bits += OWN[table][v] if v in OWN[table] else OWN[table][str(size)] + signed(v, size)
    return to_bytes(bits)


def section_2(tables: Sequence[Table]) -> bytes:
    whole = struct.pack("<H", len(tables))
    for table in tables:
        whole += struct.pack("<H", len(table))
        for value, bits in table.items():
            extra, base = (int(value), 0) if str(value) in {"12", "16"} else (0, value)
            switch = isinstance(base, str)
            number = int(base[1:]) if isinstance(base, str) else base
            total, prefix = len(bits) + extra, int(bits[::-1], 2)
            whole += struct.pack("<BBBhI", len(bits), total, not switch, number, prefix)
    return whole


CODINGS: dict[str, tuple[Callable[[Sequence[int]], bytes], bytes | None]] = {
    "plain": (raw, None),
    "default": (by_default, struct.pack("<H", 19999)),
    "own": (by_own, section_2(OWN)),
}


def section_3(leads: Sequence[tuple[int, int, int]], *, subtracted: bool = False) -> bytes:
    rows = b"".join(struct.pack("<IIB", first, last, code) for code, first, last in leads)
    return struct.pack("<BB", len(leads), subtracted | 4 | len(leads) << 3 & 0xFF) + rows


def waveforms(
    streams: Sequence[bytes],
    *,
    nv: int = 2500,
    us: int = 2000,
    times: int = 0,
    bimodal: bool = False,
) -> bytes:
    head = struct.pack("<HHBB", nv, us, times, bimodal)
    sizes = struct.pack(f"<{len(streams)}H", *map(len, streams))
    whole = head + sizes + b"".join(streams)
    return whole + bytes(len(whole) % 2)


def simple(rows: Any, *, coding: str = "plain", times: int = 0, **more: bytes) -> dict[int, bytes]:
    """Return the sections of leads I, II, V1, … that were recorded together."""
    encode, tables = CODINGS[coding]
    streams = [encode(differences(row, times)) for row in np.asarray(rows).tolist()]
    found = {
        3: section_3([(code, 1, len(row)) for code, row in enumerate(rows, 1)]),
        6: waveforms(streams, times=times),
    }
    if tables is not None:
        found[2] = tables
    return found | {int(number[1:]): body for number, body in more.items()}


def ecg(n_leads: int, n: int, *, seed: int = 0) -> NDArray[np.int64]:
    rng = np.random.default_rng(seed)
    slow = np.cumsum(rng.integers(-3, 4, (n_leads, n)), axis=1)
    slow[:, n // 2 : n // 2 + 4] += rng.integers(-9000, 9000, (n_leads, 4))
    return slow


BEAT = 60  # samples of the reference beat, its fiducial point the 21st
STARTS = (31, 131, 233)  # first samples of the zones


def compressed(
    residual: NDArray[np.int64], beat: NDArray[np.int64], *, step: int, coding: str, us: int
) -> dict[int, bytes]:
    """Return the sections of a record compressed by beats: protected from 11 to 40 of each beat."""
    encode, tables = CODINGS[coding]
    n = residual.shape[1]
    zones = b"".join(struct.pack("<HIII", 0, s, s + 20, s + BEAT - 1) for s in STARTS)
    zones += struct.pack("<HIII", 1, 0, 290, 0)  # an extrasystole
    areas = b"".join(struct.pack("<II", s + 10, s + 39) for s in (*STARTS, 280 - 10))
    rows = []
    for row in residual.tolist():
        kept, at = [], 0
        for first in (*(s + 9 for s in STARTS), 279, n):
            for k in range(at, first, step):
                part = row[k : min(k + step, first)]
                kept.append(round(sum(part) / len(part)))
            at = min(first + 30, n)
            kept += row[first:at]
        rows.append(kept if step > 1 else row)
    assert tables is not None
    leads = [(code, 1, n) for code, _ in enumerate(rows, 1)]
    return {
        2: tables,
        3: section_3(leads, subtracted=True),
        4: struct.pack("<HHH", 2 * BEAT, 21, 4) + zones + areas,
        5: waveforms([encode(differences(b, 1)) for b in beat.tolist()], nv=1000, times=1),
        6: waveforms(
            [encode(differences(r, 2)) for r in rows], nv=5000, us=us, times=2, bimodal=step > 1
        ),
    }


def field(tag: int, value: bytes) -> bytes:
    return struct.pack("<BH", tag, len(value)) + value


def statements(*texts: bytes) -> bytes:
    rows = (struct.pack("<BH", k, len(text)) + text for k, text in enumerate(texts, 1))
    return struct.pack("<BHBBBBBB", 1, 2020, 1, 2, 3, 4, 5, len(texts)) + b"".join(rows)
