"""Read WFDB records (PhysioNet): ``.hea`` headers with their signal and annotation files.

Samples are unpacked here and held against the header's checksums; only the FLAC formats go
through the package ``wfdb``. The names in a header are checked first: nothing outside the
header's own folder is ever opened.
"""

from __future__ import annotations

import hashlib
import math
import os
import warnings
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from ecgstore.io.assemble import MAX_VALUES, assemble, in_millivolts, refuse
from ecgstore.io.files import file_bytes, file_size
from ecgstore.io.reader import Reader
from ecgstore.io.wfdb_annotations import SUFFIXES, annotations_beside
from ecgstore.io.wfdb_header import Header, HeaderError, SignalLine, looks_like_header, parse_header
from ecgstore.io.wfdb_samples import BYTES_PER_SAMPLE, FLAC, INVALID_CODE, unpack
from ecgstore.io.wfdb_segments import Part, joined
from ecgstore.record import INVALID, Signal

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from ecgstore.record import Record

__all__ = ["READER", "read"]

_Counts: TypeAlias = "NDArray[np.int16] | Sequence[NDArray[np.signedinteger]]"
"""Counts of each signal; often the rows of one array."""

_MAX_HEADER_BYTES = 2**20
_INT16 = np.dtype(np.int16)  # comparing types themselves takes several times as long
_UNVERIFIED = "unverified_checksum"

_FLAC_SAMPLES_PER_BYTE = 8192  # a constant block of 65,535 samples takes some 10 bytes


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

    All signals come with the integers that are stored, which are those of
    ``wfdb.rdrecord(physical=False, smooth_frames=False)``; invalid samples become `INVALID`.
    Annotation files beside the header, of the usual annotators, are read with it. ``meta`` holds
    ``source_format``, ``source_sha256`` (header, signal and annotation files) and, where the
    header has them, ``recorded_at``, ``age``, ``sex`` and the ``codes`` of a ``Dx`` comment.

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
    annotations, flags = annotations_beside(path, header.rate_hz, digest.add)
    meta = {
        "source_format": "wfdb",
        "source_sha256": digest.hexdigest(),
        "recorded_at": header.recorded_at,
        "age": header.age,
        "sex": header.sex,
        "codes": tuple(f"snomed:{code}" for code in header.dx) or None,
        "identifiers": header.identifiers or None,
    }
    return assemble(
        path,
        part.signals,
        rate_hz=header.rate_hz,
        meta=meta,
        quality=[*part.quality, *flags],
        annotations=annotations,
    )


def _matches(head: bytes, path: Path) -> bool:
    return path.suffix.lower() == ".hea" or looks_like_header(head)


READER = Reader(
    name="wfdb",
    summary="WFDB header with its signal and annotation files (PhysioNet)",
    suffixes=(".hea",),
    matches=_matches,
    read=read,
    companions=(".dat", ".mat", *SUFFIXES),
)


def _header(path: Path, digest: _Digest) -> Header:
    data = file_bytes(path, limit=_MAX_HEADER_BYTES)
    digest.add(path, data)
    if not data:
        raise refuse(path, "empty file", "the header is empty")
    try:
        return parse_header(data)
    except HeaderError as error:
        raise refuse(path, "bad header", str(error)) from error


def _read_signals(path: Path, header: Header, digest: _Digest) -> Part:
    """Read the signals of a header without segments."""
    if not header.signals:
        return Part([], [])
    n_frames, files = _checked_sizes(path, header)
    data = {name: file_bytes(target, of=path) for name, target in files.items()}
    for name, target in files.items():
        digest.add(target, data[name])
    if any(line.format in FLAC for line in header.signals):
        counts, shifted = _decode_with_wfdb(path, header, n_frames), True
    else:
        counts, shifted = _decode(path, header, n_frames, data), False
    quality = _verify(path, header.signals, counts, shifted=shifted)
    signals = [
        _signal(line, stored, number, header.rate_hz, shifted=shifted)
        for number, (line, stored) in enumerate(zip(header.signals, counts, strict=True), 1)
    ]
    return Part(signals, quality)


def _decode(path: Path, header: Header, n_frames: int, data: Mapping[str, bytes]) -> _Counts:
    """Return the counts of every signal in the order of the header, as stored."""
    by_file: dict[str, list[int]] = {}
    for at, line in enumerate(header.signals):
        by_file.setdefault(line.file, []).append(at)
    counts: list[NDArray[np.signedinteger]] = [np.empty(0, np.int16)] * len(header.signals)
    for name, places in by_file.items():
        lines = [header.signals[at] for at in places]
        form, offset = lines[0].format, lines[0].offset
        needed = offset + math.floor(BYTES_PER_SAMPLE[form] * n_frames * _width(lines))
        if len(data[name]) < needed:  # it shrank after its size was taken
            detail = f"{needed} bytes expected, {len(data[name])} found"
            raise refuse(path, "truncated", detail)
        if form == 8 and any(line.initial is None for line in lines):
            raise refuse(path, "bad header", "format 8 needs the initial value of its signals")
        unpacked = unpack(
            data[name],
            form,
            offset=offset,
            n_frames=n_frames,
            per_frame=[line.per_frame for line in lines],
            initial=[line.initial or 0 for line in lines],
        )
        if len(by_file) == 1:
            return unpacked
        for at, stored in zip(places, unpacked, strict=True):
            counts[at] = stored
    return counts


def _width(lines: Sequence[SignalLine]) -> int:
    return sum(line.per_frame for line in lines)


def _decode_with_wfdb(path: Path, header: Header, n_frames: int) -> _Counts:
    """Return the samples of every signal as the package ``wfdb`` decodes them."""
    if not all(line.file.isascii() for line in header.signals):
        # wfdb drops such bytes from a header, and would open another file than was checked
        raise refuse(path, "bad header", "a signal file's name is not ASCII")
    record_name = os.fspath(path.absolute().with_suffix(""))
    counts, failure = [], ""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # those of wfdb's own import and arithmetic
            import wfdb

            record = wfdb.rdrecord(record_name, physical=False, smooth_frames=False)
        counts = [np.asarray(signal) for signal in record.e_d_signal]
    except Exception as error:  # noqa: BLE001 - wfdb raises whatever its numpy calls raise
        failure = type(error).__name__
    if failure:  # raised here, without wfdb's own error, which quotes the header and the path
        raise refuse(path, "decoder failed", f"wfdb could not decode it ({failure})")
    lengths = [n_frames * line.per_frame for line in header.signals]
    if [signal.ndim for signal in counts] != [1] * len(lengths) or any(
        len(signal) != length for signal, length in zip(counts, lengths, strict=True)
    ):
        raise refuse(path, "truncated", "wfdb found fewer samples than the header says")
    return counts


def _verify(
    path: Path,
    lines: Sequence[SignalLine],
    counts: _Counts,
    *,
    shifted: bool,
) -> list[str]:
    """Check every signal's checksum and initial value; return flags.

    A record whose header has no usable checksums is flagged. Where they are right, a wrong initial
    value is an error of the header and flagged too.
    """
    off = [
        (line, first)
        for line, first in zip(lines, [int(stored[0]) for stored in counts], strict=True)
        if line.initial not in {None, first} and not (shifted and line.skew)
    ]
    # Some archives write 0 for "not computed", and wfdb shifts a skewed signal before we see it.
    unusable = not any(line.checksum for line in lines) or (shifted and any(x.skew for x in lines))
    if unusable or any(line.checksum is None for line in lines):
        for line, first in off:
            detail = f"signal {line.name[:20]!r} starts with {first}, its header: {line.initial}"
            raise refuse(path, "wrong initial value", detail)
        return [_UNVERIFIED]
    for line, found in zip(lines, _sums(counts), strict=True):
        if found != (line.checksum or 0) & 0xFFFF:
            detail = (
                f"the samples of {line.name[:20]!r} sum to {found}, "
                f"its header says {(line.checksum or 0) & 0xFFFF}"
            )
            raise refuse(path, "wrong checksum", detail)
    return [f"wrong_initial_value:{line.name[:20]}" for line, _ in off]


def _sums(counts: _Counts) -> list[int]:
    """Return the sum of each signal modulo 2**16.

    Sums wrap modulo 2**16 in int16 and modulo 2**64 in int64: both are right modulo 2**16.
    """
    if isinstance(counts, np.ndarray):  # all in one go take a fifth of the time
        return [total & 0xFFFF for total in np.add.reduce(counts, 1, dtype=np.int16).tolist()]
    return [int(np.add.reduce(stored, dtype=np.int64)) & 0xFFFF for stored in counts]


def _signal(
    line: SignalLine,
    counts: NDArray[np.signedinteger],
    number: int,
    frames_hz: float,
    *,
    shifted: bool,
) -> Signal:
    gain, unit = in_millivolts(line.gain, line.units)
    lost = None
    if counts.dtype != _INT16:
        code = INVALID_CODE.get(line.format)
        lost = np.zeros(len(counts), np.bool_) if code is None else counts == code
    if line.skew and not shifted:  # the signal lags: its first samples belong before the record
        late = min(line.skew * line.per_frame, len(counts))
        counts = np.roll(counts, -late)
        counts[len(counts) - late :] = INVALID
        if lost is not None:
            lost = np.roll(lost, -late)
            lost[len(lost) - late :] = True
    name = line.name or f"signal {number}"
    return Signal(name, counts, gain, line.baseline, unit, frames_hz * line.per_frame, lost)


def _read_segments(path: Path, header: Header, digest: _Digest) -> Part:
    """Read the segments of a multi-segment record and join them, with gaps as invalid samples."""
    total = sum(length for _, length in header.segments)
    if header.n_frames not in {None, total}:
        raise refuse(path, "bad header", f"its segments have {total} frames, not {header.n_frames}")
    if total * header.n_signals > MAX_VALUES:
        raise refuse(path, "too large", f"{total} frames of {header.n_signals} signals")
    parts: list[tuple[int, Part]] = []
    start = 0
    for name, length in header.segments:
        if name != "~" and length:  # "~" is a gap, length 0 the layout of a variable record
            segment_path = _inside(path, f"{name}.hea")
            segment = _header(segment_path, digest)
            if segment.segments:
                raise refuse(path, "bad header", "a segment has segments itself")
            if segment.n_frames not in {None, length} or segment.rate_hz != header.rate_hz:
                raise refuse(path, "bad header", "a segment differs in length or rate")
            parts.append((start, _read_signals(segment_path, segment, digest)))
        start += length
    return joined(path, parts, total, header.rate_hz)


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
        size = file_size(target, of=path)
        form, offset = lines[0].format, lines[0].offset
        if any((line.format, line.offset) != (form, offset) for line in lines):
            raise refuse(path, "bad header", "signals of one file differ in format or offset")
        if form not in BYTES_PER_SAMPLE and form not in FLAC:
            raise refuse(path, "unsupported format", f"WFDB has no signal format {form}")
        if size == 0:
            raise refuse(path, "empty file", f"{_shown(path, target)} is empty")
        per_frame = sum(line.per_frame for line in lines)
        if form in FLAC:
            if n_frames is None:
                raise refuse(path, "bad header", "a FLAC record must state its length")
            least = n_frames * per_frame / _FLAC_SAMPLES_PER_BYTE
        else:
            frame_bytes = BYTES_PER_SAMPLE[form] * per_frame
            if n_frames is None:
                n_frames = math.floor(max(0, size - offset) / frame_bytes + 1e-9)
            # the last sample of the packed formats may end inside its group of bytes
            least = offset + math.floor(n_frames * frame_bytes)
        if size < least:
            shown = _shown(path, target)
            detail = f"{shown} is truncated: {least:.0f} bytes expected, {size} found"
            raise refuse(path, "truncated", detail)
        if max(size, n_frames * per_frame) > 4 * MAX_VALUES:
            raise refuse(path, "too large", f"{_shown(path, target)} has {size} bytes")
    n_frames = n_frames or 0
    if n_frames == 0:
        raise refuse(path, "no samples", "there are no samples")
    if n_frames * sum(line.per_frame for line in header.signals) > MAX_VALUES:
        raise refuse(path, "too large", f"{n_frames} frames of {len(header.signals)} signals")
    return n_frames, files


def _shown(path: Path, target: Path) -> str:
    """Return the name of a signal file if it is the header's own, which a user knows already."""
    return repr(target.name) if target.stem == path.stem else "a signal file"


def _inside(path: Path, name: str) -> Path:
    """Return the file a header names, refusing names that lead out of the header's folder."""
    target = path.parent / name
    # the usual case, and a cheap test
    plain = "/" not in name and not os.path.islink(target)  # noqa: PTH114 - it raises nothing
    if not plain and (name.startswith("/") or not _is_below(target, path.parent)):
        detail = "the header names a file outside its folder"
        hint = "Put the signal file beside the header; links out of the folder are not followed."
        raise refuse(path, "outside folder", detail, hint=hint)
    return target


def _is_below(target: Path, folder: Path) -> bool:
    try:
        return target.resolve().is_relative_to(folder.resolve())
    except (OSError, RuntimeError):  # a loop of links
        return False
