"""Every durable write of a warehouse, step by step.

A step is one request to the file system. All of them pass through here for two reasons: what must
survive a power loss is forced to disk in one place, and a test can watch the steps, fail one, or
end the process between any two of them.
"""

from __future__ import annotations

import os
import uuid
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Self

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from types import TracebackType

__all__ = [
    "File",
    "Step",
    "link",
    "make_dir",
    "put",
    "put_new",
    "remove",
    "remove_tree",
    "rename",
    "sync_dir",
    "temporary",
    "watch",
]

Kind = Literal["create", "write", "sync", "rename", "link", "remove", "mkdir", "rmdir", "sync_dir"]


@dataclass(frozen=True)
class Step:
    """One request to the file system.

    Attributes:
        kind: What is done.
        path: To which file or folder.
        target: The new name, of a rename or link.
        data: The bytes that a write adds at the end of the file.
    """

    kind: Kind
    path: Path
    target: Path | None = None
    data: bytes | None = None


_watchers: list[Callable[[Step, bool], None]] = []


@contextmanager
def watch(watcher: Callable[[Step, bool], None]) -> Iterator[None]:
    """Call ``watcher(step, done)`` before (False) and after (True) each step of this process.

    It may record the step, raise the `OSError` that a failing disk would, or end the process.
    """
    _watchers.append(watcher)
    try:
        yield
    finally:
        _watchers.remove(watcher)


class File:
    """A new file, written from start to end.

    Args:
        path: Where; nothing may be there.

    Raises:
        OSError: The system refused.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with ExitStack() as failed:
            with _step("create", path):
                self._file = failed.enter_context(path.open("xb", buffering=0))
            failed.pop_all()

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Add bytes at the end."""
        with _step("write", self.path, data=bytes(data) if _watchers else None):
            view = memoryview(data)
            while view.nbytes:
                view = view[self._file.write(view) :]

    def sync(self) -> None:
        """Force what was written to disk."""
        with _step("sync", self.path):
            os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file; without `sync` before, a power loss may empty it."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def temporary(path: Path) -> Path:
    """Return a name beside `path` that nobody else uses and nobody reads."""
    return path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")


def put(path: Path, data: bytes) -> None:
    """Write a small file whole or not at all, in place of what was there, and force it to disk.

    Raises:
        OSError: The system refused; the file is as it was.
    """
    draft = temporary(path)
    try:
        with File(draft) as file:
            file.write(data)
            file.sync()
        rename(draft, path)
    except BaseException:
        with suppress(OSError):
            draft.unlink(missing_ok=True)
        raise
    sync_dir(path.parent)


def put_new(path: Path, data: bytes) -> None:
    """Write a small file whole and force it to disk, before anybody can see it.

    Raises:
        FileExistsError: It is there already, which makes this a compare-and-swap.
        OSError: The system refused.
    """
    draft = temporary(path)
    try:
        with File(draft) as file:
            file.write(data)
            file.sync()
        link(draft, path)
        sync_dir(path.parent)
    finally:
        with suppress(OSError):
            remove(draft)


def rename(old: Path, new: Path) -> None:
    """Give a file its new name in one step; `sync_dir` makes it last."""
    with _step("rename", old, target=new):
        old.replace(new)


def link(old: Path, new: Path) -> None:
    """Give a file a second name.

    Raises:
        FileExistsError: The name is taken, which makes this a compare-and-swap.
    """
    with _step("link", old, target=new):
        os.link(old, new)


def remove(path: Path) -> None:
    """Remove a file; one that is gone already is no error."""
    with _step("remove", path):
        path.unlink(missing_ok=True)


def make_dir(path: Path, *, sync: bool = True) -> None:
    """Make a folder and those above it, and make them last unless told not to."""
    if path.is_dir():
        return
    make_dir(path.parent, sync=sync)
    with _step("mkdir", path):
        path.mkdir(exist_ok=True)
    if sync:
        sync_dir(path.parent)


def remove_tree(path: Path) -> None:
    """Remove a folder and all in it; what is gone already is no error."""
    if path.is_symlink() or not path.is_dir():
        remove(path)
        return
    for one in sorted(path.iterdir()):
        remove_tree(one)
    with _step("rmdir", path), suppress(FileNotFoundError):
        path.rmdir()


def sync_dir(path: Path) -> None:
    """Force the names in a folder to disk."""
    with _step("sync_dir", path):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextmanager
def _step(
    kind: Kind, path: Path, *, target: Path | None = None, data: bytes | None = None
) -> Iterator[None]:
    if not _watchers:
        yield
        return
    step = Step(kind, path, target, data)
    for watcher in tuple(_watchers):
        watcher(step, False)  # noqa: FBT003  part of the watcher's interface
    yield
    for watcher in tuple(_watchers):
        watcher(step, True)  # noqa: FBT003
