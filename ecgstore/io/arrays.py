"""Records out of an array of samples, many at a time: what readers of array files share.

An array of a large archive is on disk and larger than memory. Rows are read in blocks that follow
its chunks, so that each chunk is unpacked once however many records are asked for.
"""

from __future__ import annotations

import functools
from contextlib import nullcontext
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from ecgstore.errors import ReadError
from ecgstore.io.assemble import assemble, refuse
from ecgstore.io.digitise import from_floats
from ecgstore.io.files import file_sha256
from ecgstore.record import INVALID, Signal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    from numpy.typing import NDArray

    from ecgstore.io.layout import Array, Layout
    from ecgstore.io.reader import Container
    from ecgstore.record import Record

__all__ = ["Rows", "assumed_unit", "in_memory", "only_record", "sha256_once", "unpacked_limit"]

_BLOCK_BYTES = 2**22  # stays in the processor's cache until it is decoded
_MOST_BLOCK_BYTES = 2**26  # of records in large chunks
_MAX_SKIP = 4  # rows not asked for that are read along, to stay in one slice
_PREFIX = 256  # samples looked at before all are
# Electrodes add up to 300 mV (IEC 60601-2-25, input signals). A value far beyond is damage or in
# another unit, and the rest would be rounded to what is left of int16 beside it.
_MOST_MV = 1000.0
_LARGE_PEAK = 50  # no ECG has 50 mV: whole numbers beyond are microvolts
_SMALL_BYTES = 2**26
_MAX_UNPACKED = 2**31
_FAILURES = (OSError, RuntimeError, ValueError, TypeError, LookupError, MemoryError, OverflowError)


def _nobody(_: int) -> tuple[str, ...]:
    return ()


@dataclass(frozen=True)
class Rows:
    """The records of an array; a `Container`.

    Attributes:
        path: The file.
        reader: Name of its reader.
        layout: How the array is to be read.
        opened: Opens the array.
        sha256: Returns the digest of the file.
        chunk: Records that are stored together.
        meta: What the file says of its records besides; see `ecgstore.io.assemble.META`.
        quality: Flags of every record.
        identities: Returns the texts that name people in a row; see `ecgstore.io.identity`.
    """

    path: Path
    reader: str
    layout: Layout
    opened: Callable[[], AbstractContextManager[Array]]
    sha256: Callable[[], str]
    chunk: int = 1
    meta: Mapping[str, object] = field(default_factory=lambda: MappingProxyType({}))
    quality: tuple[str, ...] = ()
    identities: Callable[[int], tuple[str, ...]] = _nobody

    @property
    def names(self) -> Sequence[str]:
        """Name of each record, by its row."""
        return self.layout.names

    def read(self, rows: Sequence[int]) -> Iterator[Record | ReadError]:
        """Yield the record of each row, or why it cannot be read; ascending rows are fastest."""
        with self.opened() as array:
            for group in self._groups(rows, array.dtype.itemsize):
                yield from self._block(array, group)

    def _groups(self, rows: Sequence[int], itemsize: int) -> Iterator[list[int]]:
        """Yield runs of rows that are near each other and, with those between, fit a block."""
        row_bytes = self.layout.n_samples * len(self.layout.leads) * itemsize
        per = max(
            1, min(max(_BLOCK_BYTES // row_bytes, self.chunk), _MOST_BLOCK_BYTES // row_bytes)
        )
        if per > self.chunk:
            per -= per % self.chunk
        near = max(self.chunk, _MAX_SKIP)
        group: list[int] = []
        for row in rows:
            if group and not (0 < row - group[-1] <= near and row // per == group[0] // per):
                yield group
                group = []
            group.append(row)
        if group:
            yield group

    def _block(self, array: Array, rows: Sequence[int]) -> Iterator[Record | ReadError]:
        try:
            block = self._load(array, rows[0], rows[-1] + 1)
        except _FAILURES:
            if len(rows) > 1:  # such as a damaged chunk: the other rows can be read
                for row in rows:
                    yield from self._block(array, [row])
            else:
                yield refuse(self.path, "decoder failed", f"row {rows[0]} cannot be read")
            return
        for row in rows:
            try:
                yield self._record(block[row - rows[0]], row)
            except ReadError as error:
                yield error

    def _load(self, array: Array, start: int, stop: int) -> NDArray[Any]:
        """Return rows as ``(records, leads, samples)`` in their own type."""
        axes = self.layout.axes
        index = tuple(slice(start, stop) if axis == "n" else slice(None) for axis in axes)
        part = np.asarray(array[index])
        part = part.transpose([axes.index(axis) for axis in "nls" if axis in axes])
        if "n" not in axes:
            part = part[np.newaxis]
        return part if "l" in axes else part[:, np.newaxis]

    def _record(self, values: NDArray[Any], row: int) -> Record:
        layout, quality = self.layout, list(self.quality)
        native = np.float64 if values.dtype.itemsize > 8 else values.dtype.newbyteorder("=")
        values = np.ascontiguousarray(values, dtype=native)
        if values.dtype.kind == "f" and not (finite := np.isfinite(values)).all():
            values = np.where(finite, values, values.dtype.type(np.nan))  # no signalling NaN
        if layout.padded:
            used = np.flatnonzero(values.any(axis=0))
            if not used.size:
                raise refuse(self.path, "empty row", f"row {row} holds nothing but zeros")
            before, after = int(used[0]), values.shape[1] - 1 - int(used[-1])
            if before or after:
                quality.append(f"padding_removed:{before},{after}")
                values = values[:, before : values.shape[1] - after]
        per_mv = layout.per_mv
        if per_mv is None:
            unit, step = assumed_unit(values, has_gain=layout.gain is not None)
            per_mv = np.full(len(values), step)
            quality.append(f"assumed_unit:{unit}")
        self._check_range(values, per_mv)
        signals, rounded = _signals(self.path, values, layout, per_mv)
        rate = layout.rates_hz[row if len(layout.rates_hz) > 1 else 0]
        return assemble(
            self.path,
            signals,
            rate_hz=rate,
            meta={
                "identifiers": self.identities(row) or None,
                **self.meta,
                "source_format": self.reader,
                "source_sha256": self.sha256(),
            },
            quality=[*quality, "quantised"] if rounded else quality,
            name=layout.names[row],
        )

    def _check_range(self, values: NDArray[Any], per_mv: NDArray[np.float64]) -> None:
        """Refuse samples that are no ECG in the unit they are said to have."""
        layout = self.layout
        low = np.fmin.reduce(values, axis=1).astype(np.float64)
        high = np.fmax.reduce(values, axis=1).astype(np.float64)
        zero = 0 if layout.baseline is None else layout.baseline
        scale = per_mv if layout.gain is None else per_mv * layout.gain
        peak = np.maximum(np.abs(low - zero), np.abs(high - zero)) / np.abs(scale)
        if layout.units is not None:
            peak[[unit is not None for unit in layout.units]] = 0
        if (most := float(np.nanmax(peak, initial=0))) > _MOST_MV:
            hint = "Declare the unit or the gain if they are other than the file says."
            detail = f"a sample of {most:.4g} mV is beyond any ECG"
            raise refuse(self.path, "bad samples", detail, hint=hint)


def in_memory(array: Array) -> Callable[[], AbstractContextManager[Array]]:
    """Return what opens an array that needs no opening."""
    return lambda: nullcontext(array)


def only_record(path: Path, container: Container) -> Record:
    """Return the record of a container that holds one.

    Raises:
        ReadError: It holds several, or it cannot be read.
    """
    n_records = len(container.names)
    if n_records != 1:
        hint = "Choose one by its row or name: item=0."
        raise refuse(path, "many records", f"it holds {n_records} records", hint=hint)
    found = next(iter(container.read([0])))
    if isinstance(found, ReadError):
        raise found
    return found


def unpacked_limit(size: int) -> int:
    """Return to how many bytes the compressed parts of a file may unpack.

    Ten seconds of silence pack a thousand to one, so a small file may grow; one as large as a
    record of a day is left a factor that no ECG reaches.

    Args:
        size: Bytes of the file.
    """
    return min(_SMALL_BYTES + 100 * size, _MAX_UNPACKED)


def sha256_once(path: Path) -> str:
    """Return the digest of a file, from memory if the file has not changed since.

    Parts of an archive are gigabytes, and are opened anew for every batch of their records.
    """
    try:
        status = path.stat()
    except OSError:
        return file_sha256(path)  # says what is wrong
    return _sha256(path, (status.st_ino, status.st_size, status.st_mtime_ns))


@functools.lru_cache(maxsize=64)
def _sha256(path: Path, _state: tuple[int, ...]) -> str:
    return file_sha256(path)


def assumed_unit(values: NDArray[Any], *, has_gain: bool) -> tuple[str, float]:
    """Return the unit that samples must have been written in, and how many make a millivolt.

    Whole numbers beyond 50 are microvolts; all else, and what has a gain, is millivolts.
    """
    known = values[np.isfinite(values)]
    whole = bool((known == np.rint(known)).all())
    large = known.size > 0 and max(-float(known.min()), float(known.max())) > _LARGE_PEAK
    return ("uV", 1e3) if whole and large and not has_gain else ("mV", 1.0)


def _signals(
    path: Path, values: NDArray[Any], layout: Layout, per_mv: NDArray[np.float64]
) -> tuple[list[Signal], bool]:
    """Return the signals of ``(leads, samples)`` numbers, and whether they were rounded.

    Integers are kept. So are whole numbers stored as floats, as CSV and MATLAB do. Other floats
    become the counts of the converter they came from, where these can be told.
    """
    lost = None
    if values.dtype.kind == "f":
        found = _whole(values)
        if found is None:
            if layout.gain is not None:
                detail = "'gain' is for whole numbers, and the samples are fractions"
                raise refuse(path, "unknown layout", detail)
            return _from_fractions(values, layout, per_mv)
        values, lost = found
    counts = _counts(path, values)
    if lost is None and counts.dtype == np.int16 and bool((counts == INVALID).any()):
        counts = counts.astype(np.int32)  # a number like any other: nothing says it is invalid
        lost = np.zeros(counts.shape, np.bool_)
    gains = per_mv if layout.gain is None else layout.gain * per_mv
    baselines = [0] * len(counts) if layout.baseline is None else layout.baseline.tolist()
    signals = [
        Signal(
            name,
            counts[i],
            float(gains[i]),
            baselines[i],
            unit=_unit(layout, i),
            lost=None if lost is None else lost[i],
        )
        for i, name in enumerate(layout.leads)
    ]
    return signals, False


def _unit(layout: Layout, lead: int) -> str:
    return (layout.units[lead] if layout.units else None) or "mV"


def _from_fractions(
    values: NDArray[np.floating], layout: Layout, per_mv: NDArray[np.float64]
) -> tuple[list[Signal], bool]:
    if (per_mv < 1).any():  # volts have counts of 1e6 and more a unit: counted in mV instead
        wide = values if values.dtype.itemsize > 2 else values.astype(np.float32)
        values = wide * (1 / np.minimum(per_mv, 1)).astype(wide.dtype)[:, np.newaxis]
        per_mv = np.maximum(per_mv, 1)
    signals, rounded = from_floats(layout.leads, values)
    scaled = [
        Signal(name, one.counts, one.gain * step, 0, unit=_unit(layout, i), lost=one.lost)
        for i, (name, one, step) in enumerate(
            zip(layout.leads, signals, per_mv.tolist(), strict=True)
        )
    ]
    return scaled, rounded


def _whole(
    values: NDArray[np.floating],
) -> tuple[NDArray[np.int32], NDArray[np.bool_] | None] | None:
    """Return floats as integers, with those that are lost, if all are whole and fit."""
    first = values[:, :_PREFIX]
    if not _is_whole(first[np.isfinite(first)]):
        return None
    finite = np.isfinite(values)
    if not _is_whole(values[finite]):
        return None
    if finite.all():
        return values.astype(np.int32), None
    return np.where(finite, values, 0).astype(np.int32), ~finite


def _is_whole(known: NDArray[np.floating]) -> bool:
    small = float(np.abs(known).max(initial=0)) < 2**31
    return small and bool((np.rint(known) == known).all())


def _counts(path: Path, values: NDArray[np.integer]) -> NDArray[np.signedinteger]:
    if values.dtype in (np.int16, np.int32):
        return values  # type: ignore[return-value]
    if values.dtype.itemsize == 8 and bool((values > 2**62).any() or (values < -(2**62)).any()):
        raise refuse(path, "bad samples", "its integers are beyond any converter")
    return values.astype(np.int64 if values.dtype.itemsize >= 4 else np.int32)
