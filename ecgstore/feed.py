"""Samples ready to use: the int16 counts of every record, uncompressed, mapped into memory.

Parquet is made to be kept and to be scanned; a random batch out of it costs hundreds of times what
it costs out of an array. Work that reads records again and again reads them from here.

The feed is derived and lies under ``_cache/feed``: for each shard of ``waveforms`` a folder with
one Arrow file, named, as the shard is, by the SHA-256 of its bytes. A shard never changes, so
neither does its copy; a new version of the table costs its new shards, and two versions share what
they have in common. A copy that is damaged is made anew, one whose shard is gone is never found.
"""

from __future__ import annotations

import logging
import shutil
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Self

import numpy as np

from ecgstore.copies import mapped, room, write_copy
from ecgstore.errors import DamagedError, UsageError, WarehouseError
from ecgstore.progress import Silent
from ecgstore.record import LEADS
from ecgstore.storage import disk, integrity
from ecgstore.storage.locks import claim
from ecgstore.storage.shards import translated
from ecgstore.warehouse import Warehouse
from ecgstore.waveforms import scan

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from ecgstore.copies import Block
    from ecgstore.progress import Progress
    from ecgstore.waveforms import Waveform

__all__ = ["Batch", "Feed", "build", "drop", "stream"]

_log = logging.getLogger(__name__)

_CACHE, _FEED = "_cache", "feed"
_LAYOUT = "1"
"""Folder of this layout; that of another is never read, and removed when a copy is made."""


@dataclass(frozen=True, eq=False)
class Batch:
    """Records of equal length, all twelve leads in standard order.

    Attributes:
        record_ids: Their keys.
        digital: ``(records, 12, samples)`` int16 ADC counts; `INVALID` marks a lost sample, and
            every sample of a missing lead.
        gain: ``(records, 12)`` float64 counts per millivolt, NaN for a missing lead.
        baseline: ``(records, 12)`` int32 count that stands for 0 mV.
        present: ``(records, 12)`` bool, whether the record has the lead.
    """

    record_ids: tuple[str, ...]
    digital: NDArray[np.int16]
    gain: NDArray[np.float64]
    baseline: NDArray[np.int32]
    present: NDArray[np.bool_]


class Feed:
    """The samples of one version of ``waveforms``, mapped into memory and not to be written to.

    Opened by `open`. Arrays it hands out stay valid when it is closed or dropped.

    Attributes:
        record_ids: Every record, in the order of the table's shards.
        n_samples: ``(records,)`` int64 samples per lead, in that order.
    """

    def __init__(self, blocks: Sequence[Block]) -> None:
        self._blocks = tuple(blocks)
        self.record_ids = tuple(chain.from_iterable(block.record_ids for block in blocks))
        self._places = {
            record_id: (block, row)
            for block in blocks
            for row, record_id in enumerate(block.record_ids)
        }
        lengths = [np.diff(block.start) // len(LEADS) for block in blocks]
        self.n_samples: NDArray[np.int64] = np.concatenate([np.empty(0, np.int64), *lengths])

    @classmethod
    def open(cls, warehouse: Warehouse, *, progress: Progress | None = None) -> Self:
        """Map the samples of a warehouse, after copying those of shards that have no copy yet.

        Each copy was checked against its digest since it last changed on this machine. Copies
        of shards that neither this nor the newest version names are removed when one is made.

        Args:
            warehouse: Its ``waveforms`` are read at the version it is opened at.
            progress: Told of every record copied.

        Raises:
            WarehouseError: A copy cannot be written, or there is not enough room for it.
            DamagedError: A shard is missing or damaged.
        """
        return cls._open(warehouse, warehouse.table("waveforms").files(), progress or Silent())

    @classmethod
    def _open(cls, warehouse: Warehouse, shards: Sequence[Path], progress: Progress) -> Self:
        root = warehouse.root
        with translated(_home(root)):
            copies = _whole_copies(root, shards)
            missing = [shard for shard in shards if shard not in copies]
            if missing:
                _drop_stale(warehouse, shards)
                progress.start(_check_room(root, missing), "records")
                for shard in missing:
                    copies[shard] = _copy(warehouse, shard, progress)
            return cls([block for shard in shards for block in mapped(copies[shard])])

    def __len__(self) -> int:
        return len(self.record_ids)

    def __contains__(self, record_id: object) -> bool:
        return record_id in self._places

    def __getitem__(self, record_id: str) -> Waveform:
        """Return a record, its samples without a copy where it has all leads."""
        block, row = self._places[record_id]
        return block.waveform(row)

    def scan(self, wanted: Collection[str] | None = None) -> Iterator[Waveform]:
        """Yield records in the order of the shards, as `ecgstore.waveforms.scan` does.

        Args:
            wanted: Record ids to yield; None for all.
        """
        for block in self._blocks:
            for row, record_id in enumerate(block.record_ids):
                if wanted is None or record_id in wanted:
                    yield block.waveform(row)

    def batch(self, record_ids: Sequence[str]) -> Batch:
        """Copy records of equal length out of the feed, in the order given.

        Raises:
            UsageError: None or an unknown one is asked for, or they differ in length.
        """
        found = [self._places[one] for one in record_ids if one in self._places]
        if len(found) < len(record_ids):
            msg = f"{len(record_ids) - len(found)} of {len(record_ids)} records are not there."
            raise UsageError(msg)
        samples = [block.samples(row) for block, row in found]
        lengths = {one.shape[1] for one in samples}
        if len(lengths) != 1:
            msg = f"A batch is made of records of one length, not of {len(lengths)}."
            raise UsageError(msg, hint="Group the records by their n_samples.")
        return Batch(
            tuple(record_ids),
            digital=np.stack(samples),
            gain=np.stack([block.gain[row] for block, row in found]),
            baseline=np.stack([block.baseline[row] for block, row in found]),
            present=np.stack([block.present[row] for block, row in found]),
        )

    def close(self) -> None:
        """Let go of the maps."""
        self._blocks, self.record_ids, self._places = (), (), {}
        self.n_samples = np.empty(0, np.int64)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Feed({len(self)} records)"


def build(warehouse: Warehouse, *, progress: Progress | None = None) -> None:
    """Make what the feed lacks, so that whoever streams it later need not wait.

    Where it cannot be written nothing is said: `stream` says so and reads Parquet.

    Args:
        warehouse: Its ``waveforms`` are read at the version it is opened at.
        progress: Told of every record copied.

    Raises:
        DamagedError: A shard is missing or damaged.
    """
    try:
        Feed.open(warehouse, progress=progress).close()
    except DamagedError:
        raise
    except WarehouseError as error:
        _log.info("No feed: %s", error.message)


def stream(
    warehouse: Warehouse, wanted: Collection[str] | None = None, *, progress: Progress | None = None
) -> Iterator[Waveform]:
    """Yield records out of the feed, or out of Parquet where the feed cannot be written.

    Args:
        warehouse: Its ``waveforms`` are read at the version it is opened at.
        wanted: Record ids to yield; None for all.
        progress: Told of every record copied into the feed.

    Raises:
        WarehouseError: There is no such version.
        DamagedError: A shard is missing or damaged.
    """
    shards = warehouse.table("waveforms").files()
    try:
        feed = Feed._open(warehouse, shards, progress or Silent())
    except DamagedError:
        raise
    except WarehouseError as error:
        _log.warning("The feed cannot be used; records are read from Parquet. %s", error.message)
        yield from scan(shards, wanted)
    else:
        with feed:
            yield from feed.scan(wanted)


def drop(root: Path) -> None:
    """Remove the feed of a warehouse, with what others are writing to it right now.

    Who erases shards calls it once they are gone, holding the lock alone: a copy is begun and
    finished only while its shard is there.

    Args:
        root: The warehouse folder.

    Raises:
        WarehouseError: The folder cannot be written.
    """
    with translated(root / _CACHE):
        disk.remove_tree(root / _CACHE / _FEED)


def _home(root: Path) -> Path:
    return root / _CACHE / _FEED / _LAYOUT


def _whole_copies(root: Path, shards: Sequence[Path]) -> dict[Path, Path]:
    """Return the copy of each shard that has a whole one."""
    copies = {
        shard: copy
        for shard in shards
        for copy in sorted((_home(root) / shard.stem).glob("*.arrow"))[:1]
    }
    damaged = set(integrity.changed(root, copies.values()))
    if damaged:
        _log.warning("%d files of the feed were damaged and are made anew.", len(damaged))
    for copy in damaged:
        disk.remove(copy)
    return {shard: copy for shard, copy in copies.items() if copy not in damaged}


def _check_room(root: Path, shards: Sequence[Path]) -> int:
    """Check that the copies of shards fit on the disk and return how many records they hold."""
    records, needed = map(sum, zip(*map(room, shards), strict=True))
    free = shutil.disk_usage(root).free
    if needed > free:
        msg = f"The feed of {records} records needs {needed} bytes; the disk has {free} free."
        raise WarehouseError(msg, path=root, hint="Free some space.")
    return records


def _copy(warehouse: Warehouse, shard: Path, progress: Progress) -> Path:
    """Write the copy of a shard and return where it is; of two processes one waits for the other.

    Who waits holds no lock that the other may need.
    """
    folder = _home(warehouse.root) / shard.stem
    with _while_there(warehouse, shard):
        disk.make_dir(folder)
    with claim(folder, wait=True):
        if made := _whole_copies(warehouse.root, [shard]):
            progress.advance(room(shard)[0])
            return made[shard]
        for left in folder.glob("*.tmp"):  # nobody writes them: who does has the claim
            disk.remove(left)
        draft = disk.temporary(folder / _FEED)
        try:
            with disk.File(draft) as file:
                copy = folder / f"{write_copy(shard, file, step=progress.advance)}.arrow"
            with _while_there(warehouse, shard):
                disk.rename(draft, copy)
            disk.sync_dir(folder)
        except BaseException:
            with suppress(OSError):
                draft.unlink(missing_ok=True)
            raise
        cache = warehouse.root / _CACHE
        integrity.remember(cache, [str(copy.relative_to(cache))])
    return copy


@contextmanager
def _while_there(warehouse: Warehouse, shard: Path) -> Iterator[None]:
    """Keep whoever erases out for as long as the block runs; a shard erased already is an error."""
    with warehouse.shared():
        shard.stat()
        yield


def _drop_stale(warehouse: Warehouse, shards: Sequence[Path]) -> None:
    """Remove the copies of shards that neither this version nor the newest names."""
    newest = Warehouse(warehouse.root).table("waveforms").files()
    home, kept = _home(warehouse.root), {shard.stem for shard in (*shards, *newest)}
    others = (one for one in home.parent.glob("*") if one != home)
    gone = (one for one in home.glob("*") if one.name not in kept)
    for folder in (*others, *gone):
        with suppress(FileNotFoundError), claim(folder) as unused:
            if unused:
                disk.remove_tree(folder)
