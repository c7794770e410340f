"""Read WFDB records (PhysioNet): ``.hea`` headers with their signal files.

Format 16 in one signal file, the form of nearly every 12-lead archive, is decoded here with the
header's checksums verified; every other format goes through the package ``wfdb``. The names in a
header are checked first: nothing outside the header's own folder is ever opened.
"""

from __future__ import annotations

import hashlib
import math
import os
import stat
import warnings
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ecgstore.io.assemble import MAX_VALUES, Signal, assemble, refuse, standard_lead
from ecgstore.io.wfdb_header import Header, HeaderError, SignalLine, parse_header
from ecgstore.record import INVALID

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from ecgstore.record import Record

__all__ = ["read"]

_MAX_HEADER_BYTES = 2**20
_UNVERIFIED = "unverified_checksum"

# Millivolts in one unit; header(5) leaves the spelling free.
_UNITS_PER_MV = {"v": 1e-3, "mv": 1.0, "uv": 1e3, "µv": 1e3, "μv": 1e3, "nv": 1e6}

# signal(5): bytes a sample takes, and the code of an invalid sample.
_BYTES_PER_SAMPLE = {
    8: 1.0, 16: 2.0, 24: 3.0, 32: 4.0, 61: 2.0, 80: 1.0, 160: 2.0, 212: 1.5, 310: 4 / 3, 311: 4 / 3,
}  # fmt: skip
_INVALID_CODE = {
    16: -(2**15), 24: -(2**23), 32: -(2**31), 61: -(2**15), 80: -(2**7), 160: -(2**15),
    212: -(2**11), 310: -(2**9), 311: -(2**9), 508: -(2**7), 516: -(2**15), 524: -(2**23),
}  # fmt: skip
_FLAC = frozenset({508, 516, 524})
_FLAC_SAMPLES_PER_BYTE = 8192  # a constant block of 65,535 samples takes some 10 bytes


class _Part(NamedTuple):
    """What one header without segments gives: standard leads, their rate, and what was left."""

    signals: list[Signal]
    rate_hz: float
    others: list[str]
    quality: list[str]


class _Digest:
    """Hashes the bytes of a record's files in the order they are read, each file once."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self._seen: set[Path] = set()

    def add(self, path: Path, data: bytes) -> None:
        if path not in self._seen:
            self._seen.add(path)
            self._hash.update(data)

    def hexdigest(self) -> str:
        return self._hash.hexdigest()


def read(path: Path) -> Record:
    """Return the record of a header file.

    Standard leads come with the integers that are stored, which are those of
    ``wfdb.rdrecord(physical=False, smooth_frames=False)``; invalid samples become `INVALID`.
    ``meta`` holds ``source_format``, ``source_sha256`` (header and signal files) and, where the
    header has them, ``recorded_at``, ``age`` and ``sex``.

    Args:
        path: The ``.hea`` file.

    Raises:
        ReadError: With a reason of `ecgstore.io.assemble.REASONS`; no other error is raised.
    """
    digest = _Digest()
    header = _header(path, digest)
    part = (
        _read_segments(path, header, digest)
        if header.segments
        else _read_signals(path, header, digest)
    )
    meta = {
        "source_format": "wfdb",
        "source_sha256": digest.hexdigest(),
        "recorded_at": header.recorded_at,
        "age": header.age,
        "sex": header.sex,
    }
    return assemble(
        path,
        part.signals,
        rate_hz=part.rate_hz,
        meta={key: value for key, value in meta.items() if value is not None},
        others=part.others,
        quality=part.quality,
    )


def _header(path: Path, digest: _Digest) -> Header:
    data = _bytes(path, limit=_MAX_HEADER_BYTES)
    digest.add(path, data)
    if not data:
        raise refuse(path, "empty file", "the header is empty")
    try:
        header = parse_header(data)
    except HeaderError as error:
        raise refuse(path, "bad header", str(error)) from error
    if header.n_signals == 0:
        raise refuse(path, "no signals", "the header announces no signals")
    return header


def _read_signals(path: Path, header: Header, digest: _Digest) -> _Part:
    """Read the standard leads of a header without segments."""
    wanted = [line for line in header.signals if standard_lead(line.name)]
    others = [
        line.name or f"signal {number}"
        for number, line in enumerate(header.signals, 1)
        if not standard_lead(line.name)
    ]
    if not wanted:
        return _Part([], header.rate_hz, others, [])
    if len({line.per_frame for line in wanted}) > 1:
        raise refuse(path, "mixed rates", "its leads differ in samples per frame")
    n_frames, files = _checked_sizes(path, header)
    first = header.signals[0]
    plain = len(files) == 1 and all(
        line.format == 16 and line.per_frame == 1 and not line.skew and line.offset == first.offset
        for line in header.signals
    )
    data = {name: _bytes(target, limit=None) for name, target in files.items()}
    for name, target in files.items():
        digest.add(target, data[name])
    if plain:
        counts = _decode_16(path, header, n_frames, data[first.file])
    else:
        counts = _decode_with_wfdb(path, header, n_frames)
    quality = _verify(path, header.signals, counts)
    signals = [
        _signal(path, line, stored)
        for line, stored in zip(header.signals, counts, strict=True)
        if standard_lead(line.name)
    ]
    return _Part(signals, header.rate_hz * wanted[0].per_frame, others, quality)


def _decode_16(
    path: Path, header: Header, n_frames: int, data: bytes
) -> Sequence[NDArray[np.int16]]:
    """Return ``(signals, samples)`` of interleaved little-endian int16."""
    n_signals, offset = len(header.signals), header.signals[0].offset
    size = offset + 2 * n_signals * n_frames
    if len(data) < size:  # it shrank after its size was taken
        raise refuse(path, "truncated", f"{size} bytes expected, {len(data)} found")
    frames = np.frombuffer(data, "<i2", n_frames * n_signals, offset)
    counts = np.ascontiguousarray(frames.reshape(n_frames, n_signals).T, dtype=np.int16)
    for line, stored in zip(header.signals, counts, strict=True):
        if line.initial is not None and line.initial != stored[0]:
            detail = f"signal {line.name!r} starts with {stored[0]}, its header says {line.initial}"
            raise refuse(path, "wrong initial value", detail)
    return list(counts)


def _decode_with_wfdb(
    path: Path, header: Header, n_frames: int
) -> Sequence[NDArray[np.signedinteger]]:
    """Return the samples of every signal as the package ``wfdb`` decodes them."""
    if not all(line.file.isascii() for line in header.signals):
        # wfdb drops such bytes from a header, and would open another file than was checked
        raise refuse(path, "bad header", "a signal file's name is not ASCII")
    record_name = os.fspath(path.absolute().with_suffix(""))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # those of wfdb's own import and arithmetic
            import wfdb

            record = wfdb.rdrecord(record_name, physical=False, smooth_frames=False)
        counts = [np.asarray(signal) for signal in record.e_d_signal]
    except Exception as error:  # wfdb raises whatever its numpy calls raise
        said = " ".join(str(error).split()).replace(f"{path.absolute().parent}/", "")
        detail = said[:120] or type(error).__name__
        raise refuse(path, "decoder failed", f"wfdb could not decode it ({detail})") from error
    lengths = [n_frames * line.per_frame for line in header.signals]
    if [signal.ndim for signal in counts] != [1] * len(lengths) or any(
        len(signal) != length for signal, length in zip(counts, lengths, strict=True)
    ):
        raise refuse(path, "truncated", "wfdb found fewer samples than the header says")
    return counts


def _verify(
    path: Path, lines: Sequence[SignalLine], counts: Sequence[NDArray[np.signedinteger]]
) -> list[str]:
    """Check every signal's checksum; flag a record whose header does not have usable ones."""
    # Some archives write 0 for "not computed", and wfdb shifts a skewed signal before we see it.
    if not any(line.checksum for line in lines) or any(line.skew for line in lines):
        return [_UNVERIFIED]
    for line, stored in zip(lines, counts, strict=True):
        if line.checksum is None:
            return [_UNVERIFIED]
        # Sums wrap modulo 2**16 in int16 and modulo 2**64 in int64: both are right modulo 2**16.
        kind = np.int16 if stored.dtype == np.int16 else np.int64
        found = int(np.add.reduce(stored, dtype=kind)) & 0xFFFF
        if found != line.checksum & 0xFFFF:
            detail = (
                f"the samples of {line.name!r} sum to {found}, "
                f"its header says {line.checksum & 0xFFFF}"
            )
            raise refuse(path, "wrong checksum", detail)
    return []


def _signal(path: Path, line: SignalLine, counts: NDArray[np.signedinteger]) -> Signal:
    factor = _UNITS_PER_MV.get(line.units.lower())
    if factor is None:
        raise refuse(path, "unknown unit", f"lead {line.name} is in {line.units[:20]!r}")
    lost = None
    if counts.dtype != np.int16:
        code = _INVALID_CODE.get(line.format)
        lost = np.zeros(len(counts), np.bool_) if code is None else counts == code
    return Signal(line.name, counts, line.gain * factor, line.baseline, lost)


def _read_segments(path: Path, header: Header, digest: _Digest) -> _Part:
    """Read the segments of a multi-segment record and join them, with gaps as invalid samples."""
    total = sum(length for _, length in header.segments)
    if header.n_frames not in {None, total}:
        raise refuse(path, "bad header", f"its segments have {total} frames, not {header.n_frames}")
    if total * header.n_signals > MAX_VALUES:
        raise refuse(path, "too large", f"{total} frames of {header.n_signals} signals")
    parts: list[tuple[int, int, _Part]] = []
    others: dict[str, None] = {}
    quality: dict[str, None] = {}
    start = 0
    for name, length in header.segments:
        if name != "~" and length:  # "~" is a gap, length 0 the layout of a variable record
            segment_path = _inside(path, f"{name}.hea")
            segment = _header(segment_path, digest)
            if segment.segments:
                raise refuse(path, "bad header", f"segment {name!r} has segments itself")
            if segment.n_frames != length or segment.rate_hz != header.rate_hz:
                raise refuse(path, "bad header", f"segment {name!r} differs in length or rate")
            part = _read_signals(segment_path, segment, digest)
            others |= dict.fromkeys(part.others)
            quality |= dict.fromkeys(part.quality)
            if part.signals:
                parts.append((start, length, part))
        start += length
    rates = {part.rate_hz for _, _, part in parts}
    if len(rates) > 1:
        raise refuse(path, "mixed rates", "its segments differ in samples per frame")
    rate_hz = rates.pop() if rates else header.rate_hz
    per_frame = round(rate_hz / header.rate_hz)
    return _Part(_joined(path, parts, total, per_frame), rate_hz, list(others), list(quality))


def _joined(
    path: Path, parts: Sequence[tuple[int, int, _Part]], n_frames: int, per_frame: int
) -> list[Signal]:
    joined: dict[str, Signal] = {}
    for start, length, part in parts:
        names = [standard_lead(signal.name) for signal in part.signals]
        if len(set(names)) < len(names):
            raise refuse(path, "duplicate leads", "a segment holds one lead twice")
        for lead, signal in zip(names, part.signals, strict=True):
            whole = joined.setdefault(
                str(lead),
                Signal(
                    signal.name,
                    np.full(n_frames * per_frame, INVALID, np.int64),
                    signal.gain,
                    signal.baseline,
                    np.ones(n_frames * per_frame, np.bool_),
                ),
            )
            if (whole.gain, whole.baseline) != (signal.gain, signal.baseline):
                raise refuse(path, "mixed gains", f"the gain of {lead} changes between segments")
            here = slice(start * per_frame, (start + length) * per_frame)
            whole.counts[here] = signal.counts
            lost = signal.counts == INVALID if signal.lost is None else signal.lost
            np.copyto(whole.lost[here] if whole.lost is not None else lost, lost)
    return list(joined.values())


def _checked_sizes(path: Path, header: Header) -> tuple[int, dict[str, Path]]:
    """Return the number of frames and the signal files, after holding them against their sizes.

    Nothing is allocated before this: a header may promise any number of samples.
    """
    groups: dict[str, list[SignalLine]] = {}
    for line in header.signals:
        groups.setdefault(line.file, []).append(line)
    n_frames = header.n_frames
    files: dict[str, Path] = {}
    for name, lines in groups.items():
        target = files[name] = _inside(path, name)
        size = _size(path, target)
        form, offset = lines[0].format, lines[0].offset
        if any((line.format, line.offset) != (form, offset) for line in lines):
            raise refuse(path, "bad header", f"signals in {name[:40]!r} differ in format or offset")
        if form not in _BYTES_PER_SAMPLE and form not in _FLAC:
            raise refuse(path, "unsupported format", f"WFDB has no signal format {form}")
        if size == 0:
            raise refuse(path, "empty file", f"its signal file {target.name!r} is empty")
        per_frame = sum(line.per_frame for line in lines)
        if form in _FLAC:
            if n_frames is None:
                raise refuse(path, "bad header", "a FLAC record must state its length")
            least = n_frames * per_frame / _FLAC_SAMPLES_PER_BYTE
        else:
            frame_bytes = _BYTES_PER_SAMPLE[form] * per_frame
            if n_frames is None:
                n_frames = math.floor(max(0, size - offset) / frame_bytes + 1e-9)
            # the last sample of the packed formats may end inside its group of bytes
            least = offset + math.floor(n_frames * frame_bytes)
        if size < least:
            detail = f"{target.name!r} is truncated: {least:.0f} bytes expected, {size} found"
            raise refuse(path, "truncated", detail)
        if max(size, n_frames * per_frame) > 4 * MAX_VALUES:
            raise refuse(path, "too large", f"{target.name!r} has {size} bytes")
    n_frames = n_frames or 0
    if n_frames == 0:
        raise refuse(path, "no samples", "there are no samples")
    if n_frames * sum(line.per_frame for line in header.signals) > MAX_VALUES:
        raise refuse(path, "too large", f"{n_frames} frames of {len(header.signals)} signals")
    return n_frames, files


def _inside(path: Path, name: str) -> Path:
    """Return the file a header names, refusing names that lead out of the header's folder."""
    target = path.parent / name
    plain = "/" not in name and not _is_link(target)  # the usual case, and a cheap test
    if not plain and (name.startswith("/") or not _is_below(target, path.parent)):
        detail = f"the header names {name[:60]!r}, which is outside its folder"
        hint = "Put the signal file beside the header; links out of the folder are not followed."
        raise refuse(path, "outside folder", detail, hint=hint)
    return target


def _is_link(target: Path) -> bool:
    try:
        return target.is_symlink()
    except OSError:  # such as a name that is too long: there is no such file
        return False


def _is_below(target: Path, folder: Path) -> bool:
    try:
        return target.resolve().is_relative_to(folder.resolve())
    except (OSError, RuntimeError):  # a loop of links
        return False


def _size(path: Path, target: Path) -> int:
    """Return the size in bytes of a regular file."""
    try:
        status = target.stat()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise refuse(path, "missing file", f"{target.name[:60]!r} is not there") from error
    except (OSError, ValueError) as error:
        raise refuse(path, "unreadable", f"{target.name[:60]!r} cannot be opened") from error
    if not stat.S_ISREG(status.st_mode):
        raise refuse(path, "not a file", f"{target.name[:60]!r} is not a regular file")
    return status.st_size


def _bytes(path: Path, *, limit: int | None) -> bytes:
    size = _size(path, path)
    if limit is not None and size > limit:
        raise refuse(path, "too large", f"the header has {size} bytes")
    try:
        return path.read_bytes()
    except OSError as error:
        detail = f"it cannot be read ({error.strerror or 'input/output error'})"
        raise refuse(path, "unreadable", detail) from error
