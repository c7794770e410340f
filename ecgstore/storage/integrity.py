"""Whether a shard still holds what was written.

The name of a shard is the SHA-256 of its bytes, so any change can be found. Reading every byte
before every query would cost more than most queries; so a shard that was seen whole is noted under
``_cache/checked`` with its size, inode and time of last change, and read again only when one of
these differs. A change that goes through the file system is found at once; one below it, on the
medium itself, is found by ``ecgstore verify``, which trusts no note, and by the page checksums.
"""

from __future__ import annotations

import hashlib
import os
import re
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from ecgstore import settings
from ecgstore.errors import DamagedError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ecgstore.storage.commits import Entry

__all__ = ["changed", "check", "remember", "sha256"]

_NOTES = Path("_cache") / "checked"
_NAME = 64  # hex digits of a SHA-256; other engines name their shards otherwise

_LINE = re.compile(rb"^(\S+) (\d{1,20}) (\d{1,20}) (\d{1,20})$", re.MULTILINE)

_Note = tuple[str, int, int, int]
_known: dict[Path, tuple[int, set[_Note]]] = {}


def check(folder: Path, entries: Iterable[Entry], *, version: int, anew: bool = False) -> None:
    """Check that shards are there and unchanged.

    Args:
        folder: The table's folder.
        entries: The shards.
        version: The version that names them, for the message.
        anew: Read those too that were seen whole before.

    Raises:
        DamagedError: One is missing, was changed or cannot be read.
    """
    by_path = {folder / entry.name: entry for entry in entries}
    for path, entry in by_path.items():
        try:
            size = os.stat(path).st_size  # noqa: PTH116  called for every shard of every query
        except FileNotFoundError as error:
            raise _damaged(folder, entry, "is missing", version) from error
        if size != entry.size:
            raise _damaged(folder, entry, f"has {size} bytes, not {entry.size}", version)
    try:
        bad = changed(folder.parent, by_path, anew=anew)
    except FileNotFoundError:
        raise  # it went meanwhile
    except OSError as error:
        entry = by_path[Path(error.filename)]
        what = f"cannot be read ({error.strerror})"
        raise _damaged(folder, entry, what, version) from error
    for path in bad:
        raise _damaged(folder, by_path[path], "was changed after it was written", version)


def changed(root: Path, paths: Iterable[Path], *, anew: bool = False) -> list[Path]:
    """Return the files that do not hold the bytes whose SHA-256 is their name.

    Args:
        root: The warehouse folder, which keeps the notes.
        paths: Files of the warehouse; one that is not named by a digest counts as whole.
        anew: Read those too that were seen whole before.

    Raises:
        OSError: One cannot be read.
    """
    seen = set() if anew else _notes(root)
    unseen = {path: note for path in paths if (note := _note(path)) not in seen}
    named = [path for path in unseen if _is_digest(path.name)]
    with ThreadPoolExecutor(settings.threads()) as pool:
        digests = list(pool.map(sha256, named))
    bad = [path for path, digest in zip(named, digests, strict=True) if digest != path.stem]
    _add(root, [note for path, note in unseen.items() if path not in bad])
    return bad


def remember(folder: Path, names: Iterable[str]) -> None:
    """Note shards as whole, which their writer knows without reading them."""
    with suppress(OSError):
        _add(folder.parent, [_note(folder / name) for name in names])


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, in hex digits.

    Raises:
        OSError: It cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        error.filename = str(path)  # unknown to a read that failed
        raise


def _notes(root: Path) -> set[_Note]:
    """Return the notes of a warehouse, reading what was added since the last call."""
    path = root / _NOTES
    offset, seen = _known.get(path, (0, set()))
    try:
        size = path.stat().st_size
    except OSError:
        size = 0
    if size < offset:  # it was dropped, with the rest of the cache
        offset, seen = 0, set()
    if size > offset:
        with suppress(OSError), path.open("rb") as file:
            file.seek(offset)
            data = file.read()
            whole = data.rfind(b"\n") + 1
            for name, *numbers in _LINE.findall(data[:whole]):  # it may begin amid a line
                size, changed_ns, inode = map(int, numbers)
                seen.add((name.decode("utf-8", "replace"), size, changed_ns, inode))
            offset += whole
    _known[path] = (offset, seen)
    return seen


def _add(root: Path, notes: list[_Note]) -> None:
    """Add notes; a warehouse that cannot be written does without."""
    fresh = [note for note in notes if note not in _notes(root)]
    if not fresh:
        return
    path = root / _NOTES
    text = "".join("{} {} {} {}\n".format(*note) for note in fresh)
    with suppress(OSError):
        path.parent.mkdir(exist_ok=True)
        with path.open("ab", buffering=0) as file:  # one write a call: lines of others stay whole
            file.write(text.encode())


def _note(path: Path) -> _Note:
    status = os.stat(path)  # noqa: PTH116  called for every shard of every query
    return path.name, status.st_size, status.st_ctime_ns, status.st_ino


def _is_digest(name: str) -> bool:
    stem = Path(name).stem
    return len(stem) == _NAME and not set(stem) - set("0123456789abcdef")


def _damaged(folder: Path, entry: Entry, what: str, version: int) -> DamagedError:
    """Return the error to raise; it says what still opens: the time before there was this shard."""
    msg = f"Table {folder.name!r}, version {version}: the shard {entry.name!r} {what}."
    since = datetime.fromtimestamp(entry.modified_ms / 1000, UTC)
    hint = (
        f"The warehouse as it was still opens, with --at a time before {since:%Y-%m-%dT%H:%M:%S}. "
        "See what is hurt, and what can be done: ecgstore verify"
    )
    return DamagedError(
        msg, path=folder, table=folder.name, file=entry.name, version=version, hint=hint
    )
