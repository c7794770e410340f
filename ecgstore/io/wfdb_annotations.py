"""Decode WFDB annotation files (annot(5) of the WFDB Software Package) in the MIT format.

A file is a row of 16-bit little-endian words: six bits of code, ten bits of time since the last
annotation. Codes above 58 say more of the annotation before them, and a zero word ends the file.
"""

from __future__ import annotations

import functools
import os
import re
import time
from typing import TYPE_CHECKING

import numpy as np

from ecgstore.errors import ReadError
from ecgstore.io.files import file_bytes
from ecgstore.io.vocabulary import is_annotation
from ecgstore.record import Annotations

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

__all__ = ["SUFFIXES", "AnnotationError", "annotations_beside", "decode"]

SUFFIXES = tuple(
    f".{name}"
    for name in (
        *("atr", "qrs", "ecg", "ann", "ari", "man", "st", "sta", "stb", "stc", "st-", "16a"),
        *("pu", "pu0", "pu1", "q1c", "q2c", "qt1", "qt2", "pwave", "gqrs", "wqrs", "sqrs", "apn"),
        *("aha", "cvp", "ecgi", "event", "marker", "nqrs", "trigger", "wabp", "xws"),
    )
)
"""Suffixes under which PhysioNet keeps annotations; a header does not name them."""

# annot(5): the letter of each annotation code.
_SYMBOLS = dict(
    enumerate(
        (
            *(" ", "N", "L", "R", "a", "V", "F", "J", "A", "S", "E", "j", "/", "Q", "~", "[15]"),
            *("|", "[17]", "s", "T", "*", "D", '"', "=", "p", "B", "^", "t", "+", "u", "?", "!"),
            *("[", "]", "e", "n", "@", "x", "f", "(", ")", "r"),
        )
    )
)
_SKIP, _NUM, _SUB, _CHN, _AUX = 59, 60, 61, 62, 63
_NOTE = 22
_MAX_BYTES = 2**28
_SETTLED_NS = 5 * 10**9  # file systems keep time stamps of 2 s at the coarsest
_RESOLUTION = re.compile(r"## time resolution: ([0-9.]{1,12})")


class AnnotationError(ValueError):
    """A file is not made of annotations."""


def annotations_beside(
    header: Path, rate_hz: float, seen: Callable[[Path, bytes], None]
) -> tuple[list[Annotations], list[str]]:
    """Return the annotations in the files beside a header, and flags.

    A file that bears the suffix of an annotator but holds something else is left alone, one that
    cannot be decoded is flagged ``unread_annotations:<annotator>``, and texts that might name a
    person are withheld, flagged ``withheld_statements:<count>``.

    Args:
        header: The ``.hea`` file.
        rate_hz: Frames per second of the record, in which annotations count time.
        seen: Called with each file and its bytes.
    """
    found: list[Annotations] = []
    flags: list[str] = []
    withheld = 0
    stem = os.fspath(header.with_suffix(""))
    for suffix in _suffixes_in(header.parent):
        if not os.path.lexists(stem + suffix):
            continue
        path = header.with_suffix(suffix)
        if path.is_symlink():
            continue
        annotator = suffix[1:]
        try:
            data = file_bytes(path, limit=_MAX_BYTES)
            if data.startswith((b"ISHNE", b"ANN  1.0")):
                continue
            annotations, hidden = decode(data, annotator=annotator, rate_hz=rate_hz)
        except (AnnotationError, ReadError):
            flags.append(f"unread_annotations:{annotator}")
            continue
        seen(path, data)
        withheld += hidden
        found.append(annotations)
    if withheld:
        flags.append(f"withheld_statements:{withheld}")
    return found, flags


def _suffixes_in(folder: Path) -> tuple[str, ...]:
    """Return the suffixes that annotations in a folder may have.

    Nearly all folders hold none, or those of two annotators, and an archive has thousands of
    records in one: so it is listed once. One that was changed just now may be changed again
    without a trace in its time stamp.
    """
    try:
        changed_ns = folder.stat().st_mtime_ns
        settled = time.time_ns() - changed_ns > _SETTLED_NS
        return _listed(folder, changed_ns) if settled else SUFFIXES
    except OSError:  # such as a folder whose files may be read but not listed
        return SUFFIXES


@functools.lru_cache(maxsize=64)
def _listed(folder: Path, _changed_ns: int) -> tuple[str, ...]:
    with os.scandir(folder) as entries:
        there = {entry.name.rpartition(".")[2] for entry in entries}
    return tuple(suffix for suffix in SUFFIXES if suffix[1:] in there)


def decode(data: bytes, *, annotator: str, rate_hz: float) -> tuple[Annotations, int]:
    """Return the annotations of a file and how many texts of them were withheld.

    Args:
        data: The whole file.
        annotator: Who made them.
        rate_hz: Ticks per second, unless the file states its own resolution.

    Raises:
        AnnotationError: It does not follow annot(5), or ends in the middle.
    """
    if len(data) < 2 or len(data) % 2:
        msg = "an annotation file is a row of 16-bit words"
        raise AnnotationError(msg)
    words = np.frombuffer(data, "<u2").tolist()
    samples: list[int] = []
    codes: list[int] = []
    fields: dict[int, list[int]] = {_NUM: [], _SUB: [], _CHN: []}
    texts: list[str | None] = []
    at = time = number = channel = 0
    end = len(words)
    while at < end and words[at]:
        code, value = words[at] >> 10, words[at] & 0x3FF
        at += 1
        if code <= 49:
            time += value
            if code:
                samples.append(time)
                codes.append(code)
                fields[_NUM].append(number)  # num and chan hold until they are set anew
                fields[_CHN].append(channel)
                fields[_SUB].append(0)
                texts.append(None)
        elif code == _SKIP:
            if at + 2 > end:
                break
            skip = words[at] << 16 | words[at + 1]
            time += skip - (skip >> 31 << 32)
            at += 2
        elif code in fields and codes:
            signed = value - 1024 if value > 511 else value
            signed = (signed + 128) % 256 - 128
            fields[code][-1] = signed
            number = signed if code == _NUM else number
            channel = signed if code == _CHN else channel
        elif code == _AUX and codes:
            size = (value + 1) // 2
            if at + size > end:
                break
            raw = data[2 * at : 2 * at + value]
            texts[-1] = raw.split(b"\0", 1)[0].decode("utf-8", "replace")
            at += size
        else:
            msg = f"{code} is not an annotation code"
            raise AnnotationError(msg)
    if at >= end:
        msg = "it ends without the word that ends an annotation file"
        raise AnnotationError(msg)
    rate_hz, first = _resolution(codes, texts, rate_hz)
    ticks = np.array(samples[first:], np.int64)
    if len(ticks) and (ticks[0] < 0 or (np.diff(ticks) < 0).any()):
        msg = "its times go back"
        raise AnnotationError(msg)
    kept = [text if text is None or is_annotation(text) else None for text in texts[first:]]
    return Annotations(
        annotator=annotator,
        time_s=ticks / rate_hz,
        sample=ticks,
        symbol=tuple(_SYMBOLS.get(code, f"[{code}]") for code in codes[first:]),
        subtype=np.array(fields[_SUB][first:], np.int8),
        channel=np.array(fields[_CHN][first:], np.int8),
        number=np.array(fields[_NUM][first:], np.int8),
        text=tuple(text or None for text in kept),
    ), sum(bool(text) for text in texts[first:]) - sum(bool(text) for text in kept)


def _resolution(codes: list[int], texts: list[str | None], rate_hz: float) -> tuple[float, int]:
    """Return ticks per second and how many leading notes only describe the file."""
    first = 0
    while first < len(codes) and codes[first] == _NOTE and (texts[first] or "").startswith("## "):
        match = _RESOLUTION.match(texts[first] or "")
        if match is not None:
            rate_hz = float(match[1]) or rate_hz
        first += 1
    return rate_hz, first
