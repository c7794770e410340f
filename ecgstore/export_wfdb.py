"""Records as WFDB files: the same integers, gains, baselines, names, units and rates."""

from __future__ import annotations

import math
import os
import re
import uuid
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from ecgstore.io.wfdb_write import samples_16, signal_lines
from ecgstore.record import lead_signals
from ecgstore.waveforms import scan, signals_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path
    from typing import BinaryIO

    import pyarrow as pa

    from ecgstore.catalog import Catalog
    from ecgstore.progress import Progress
    from ecgstore.record import Signal
    from ecgstore.waveforms import Waveform

__all__ = ["Written", "whole", "write_records"]

_AT_ONCE = 64
_NAME = re.compile(r"[A-Za-z0-9_-]+")
_OF_FILES = str.maketrans(".#", "__")  # as in "cart.xml" and "exams.hdf5#438277"
_MAX_BYTES = 255 - len(".hea")  # of a file's name on the usual file systems

_BAD_NAME = "WFDB names a record by letters, digits, '_' and '-'"
_SAME_NAME = "another record has the same name in WFDB's letters"
_BAD_FOLDER = "a part of the name cannot be a folder"
_BAD_RATE = "the sampling rate is not known"
_BAD_GAIN = "a gain is zero or not finite"
_NO_FRAME = "its rates or lengths do not fit into the frames of one signal file"


class Written(NamedTuple):
    """What was written: records, those refused by reason, files and bytes."""

    records: int
    refused: dict[str, int]
    files: int
    size: int


def write_records(
    catalog: Catalog, chosen: str, out: Path, progress: Progress, *, dry_run: bool
) -> Written:
    """Write all signals of some records as ``<record_id>.hea`` and ``.dat``, format 16.

    Dots and ``#`` of a name become ``_``. A record whose signals differ in rate is written in
    frames, as header(5) has it; annotations are not written.

    Args:
        catalog: The warehouse.
        chosen: Rows of ``waveforms`` or ``signals``, as SQL after ``from``.
        out: The folder.
        progress: Told of every record.
        dry_run: Count what would be written, and write nothing.
    """
    catalog.sql(
        "create temp table chosen as select record_id, rate_hz, "
        "record_id in (select record_id from waveforms) as standard "
        f"from (select distinct record_id from (select record_id, gain from {chosen})) "
        "join records using (record_id)"
    )
    progress.start(_count(catalog, "chosen"), "records")
    tally = _Tally(Counter(), set())
    for rates, signals in _parts(catalog):
        for record_id, own in signals:
            why = tally.refusal(record_id, rates[record_id], own)
            progress.advance(rejected=why is not None)
            if why is None and not dry_run:
                tally.size += _write(out, _name(record_id), rates[record_id], own)
    files = 0 if dry_run else 2 * tally.written
    return Written(tally.written, dict(tally.refused), files, tally.size)


@dataclass
class _Tally:
    """What became of the records so far, and the names that are taken."""

    refused: Counter[str]
    taken: set[str]
    written: int = 0
    size: int = 0

    def refusal(
        self, record_id: str, rate_hz: float | None, signals: Sequence[Signal]
    ) -> str | None:
        """Return why a record cannot be held by WFDB or the file system, None when it can."""
        name = _name(record_id)
        why = _why_not(name, rate_hz, signals)
        if why is None and name in self.taken:
            why = _SAME_NAME
        if why is None:
            self.taken.add(name)
            self.written += 1
        else:
            self.refused[why] += 1
        return why


def _name(record_id: str) -> str:
    """Return what WFDB is to call a record."""
    folder, slash, name = record_id.rpartition("/")
    return record_id if name in {"", ".", ".."} else folder + slash + name.translate(_OF_FILES)


_Parts = tuple[dict[str, float | None], "Iterator[tuple[str, list[Signal]]]"]


def _parts(catalog: Catalog) -> Iterator[_Parts]:
    """Yield the rates of some records and their signals: shard by shard, then those without."""
    for path in catalog.relations["waveforms"][0]:
        rows = catalog.table(
            "select record_id, rate_hz from chosen "
            "where record_id in (select record_id from read_parquet($path))",
            {"path": str(path)},
        )
        rates = _rates(rows)
        beside = _beside(catalog, list(rates))
        yield (
            rates,
            (
                (one.record_id, [*_leads(one), *beside.get(one.record_id, ())])
                for one in scan([path], rates)
            ),
        )
    rest = catalog.table(
        "select record_id, rate_hz from chosen where not standard order by record_id"
    )
    for start in range(0, len(rest), _AT_ONCE):
        rates = _rates(rest.slice(start, _AT_ONCE))
        yield rates, iter(_beside(catalog, list(rates)).items())


def _rates(rows: pa.Table) -> dict[str, float | None]:
    return dict(zip(rows["record_id"].to_pylist(), rows["rate_hz"].to_pylist(), strict=True))


def _leads(waveform: Waveform) -> list[Signal]:
    return lead_signals(waveform.leads, waveform.digital, waveform.gain, waveform.baseline)


def _beside(catalog: Catalog, record_ids: list[str]) -> dict[str, list[Signal]]:
    """Return what records hold besides the twelve leads, in order."""
    if not record_ids or not catalog.relations["signals"][0]:
        return {}
    rows = catalog.table(
        "select * from signals where record_id in (select unnest($ids)) order by all",
        {"ids": record_ids},
    )
    found: dict[str, list[Signal]] = {}
    for row, one in zip(rows["record_id"].to_pylist(), signals_of(rows), strict=True):
        found.setdefault(row, []).append(one)
    return found


def _why_not(name: str, rate_hz: float | None, signals: Sequence[Signal]) -> str | None:
    *folders, last = name.split("/")
    if not _NAME.fullmatch(last) or len(last) > _MAX_BYTES:
        return _BAD_NAME
    if not all(map(_is_folder, folders)):
        return _BAD_FOLDER
    if rate_hz is None or not 0 < rate_hz < math.inf:
        return _BAD_RATE
    if not all(one.gain and math.isfinite(one.gain) for one in signals):
        return _BAD_GAIN
    return None if _frames(rate_hz, signals) else _NO_FRAME


def _is_folder(part: str) -> bool:
    """Tell whether a name can be a folder's, and of no file that is written here."""
    if part in {"", ".", ".."} or "\0" in part or part.endswith((".hea", ".dat")):
        return False
    return len(os.fsencode(part)) <= _MAX_BYTES


def _frames(rate_hz: float, signals: Sequence[Signal]) -> tuple[float, list[int], int] | None:
    """Return frames per second, samples of each signal in a frame, and the number of frames."""
    rates = [one.rate_hz or rate_hz for one in signals]
    frame_hz = min(rates, default=rate_hz)
    per_frame = [round(rate / frame_hz) for rate in rates]
    lengths = {len(one.counts) / own for one, own in zip(signals, per_frame, strict=True)}
    even = all(
        math.isclose(own * frame_hz, rate, rel_tol=1e-9)
        for own, rate in zip(per_frame, rates, strict=True)
    )
    if not even or len(lengths) != 1 or not (frames := lengths.pop()).is_integer():
        return None
    return frame_hz, per_frame, int(frames)


def _write(out: Path, name: str, rate_hz: float | None, signals: Sequence[Signal]) -> int:
    """Write a record, its header last, without which the rest is nothing; return bytes."""
    fitting = _frames(rate_hz or 0, signals)
    assert fitting is not None
    frame_hz, per_frame, n_frames = fitting
    path = out / f"{name}.dat"
    lines = signal_lines(path.name, signals, per_frame)
    first = f"{path.stem} {len(signals)} {frame_hz!r} {n_frames}"
    header = "\n".join([first, *lines, ""]).encode()
    data = samples_16(signals, per_frame, n_frames)
    path.parent.mkdir(parents=True, exist_ok=True)
    for target, content in ((path, data), (path.with_suffix(".hea"), header)):
        with whole(target) as file:
            file.write(content)
    return len(data) + len(header)


def _count(catalog: Catalog, chosen: str) -> int:
    return int(catalog.table(f"select count(*) as n from {chosen}")["n"][0].as_py())


@contextmanager
def whole(path: Path) -> Iterator[BinaryIO]:
    """Open a file that gets its name when it is finished, and is gone when it is not."""
    draft = path.with_name(f".{uuid.uuid4().hex}.tmp")
    try:
        with draft.open("xb") as file:
            yield file
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
