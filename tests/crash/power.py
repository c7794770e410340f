"""A file system that may lose what was not forced to disk, and every state a power loss leaves.

It is more forgetful than any real one. Of a file only what was written before its last ``sync``
is certain; what came later may be there, in part, or as zeros. Of a folder only the names it had
at its last ``sync_dir`` are certain; each name given, taken or moved since may be so or not,
whatever happened to the others. A rename can be seen as both names or as neither.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    import random
    from collections.abc import Iterator
    from pathlib import Path

    from ecgstore.storage.disk import Step

Fate = Literal["kept", "lost", "torn", "zeros"]
"""What becomes of the bytes of a file that were not forced to disk."""


class Data(bytes):
    """The bytes of a file, whose digest is taken once."""

    @cached_property
    def sha256(self) -> str:
        return hashlib.sha256(self).hexdigest()


State: TypeAlias = Mapping[str, Data | None]
"""The files below a folder by path, and folders as None."""


@dataclass(eq=False)
class _File:
    data: bytearray = field(default_factory=bytearray)
    synced: int = 0
    shown: dict[tuple[int, int, Fate], Data] = field(default_factory=dict)

    def seen(self, fate: Fate) -> Data:
        size, extra = len(self.data), len(self.data) - self.synced
        key = (size, self.synced, fate if extra else "kept")
        if key not in self.shown:
            left = {"kept": size, "torn": self.synced + extra // 2}.get(fate, self.synced)
            self.shown[key] = Data(self.data[:left] + bytes(extra if fate == "zeros" else 0))
        return self.shown[key]


@dataclass(eq=False)
class _Folder:
    """Names that are certain, and the changes since: a name given to something, or to nothing."""

    certain: dict[str, _File | _Folder] = field(default_factory=dict)
    pending: list[tuple[str, _File | _Folder | None]] = field(default_factory=list)

    def names(self, lost: set[tuple[int, int]]) -> dict[str, _File | _Folder]:
        """Return the names when some of the changes are lost, told by folder and place."""
        names = dict(self.certain)
        for place, (name, node) in enumerate(self.pending):
            if (id(self), place) not in lost:
                names.pop(name, None)
                if node is not None:
                    names[name] = node
        return names

    def now(self, name: str) -> _File | _Folder | None:
        for given, node in reversed(self.pending):
            if given == name:
                return node
        return self.certain.get(name)


@dataclass(frozen=True)
class _Pending:
    """Something not forced to disk: a change of a name, or the end of a file."""

    folder: _Folder | None = None
    place: int = 0
    file: _File | None = None


class Disk:
    """The folder of a warehouse on such a file system.

    Args:
        root: The warehouse; what is there now is certain. What lies beside it is not looked at.
        ignore: Names at its top that are left out, as they may be deleted at any time.
    """

    def __init__(self, root: Path, *, ignore: tuple[str, ...] = ("_cache", "_locks")) -> None:
        self._root = root
        self._ignore = ignore
        self._top = _Folder()
        if root.is_dir():
            self._top.certain[root.name] = self._load(root)

    def apply(self, step: Step) -> None:
        """Do what a step did."""
        if self._ignored(step.path):
            return
        folder, name = self._find(step.path)
        node = folder.now(name)
        if step.kind == "create":
            folder.pending.append((name, _File()))
        elif step.kind == "write" and isinstance(node, _File):
            node.data += step.data or b""
        elif step.kind == "sync" and isinstance(node, _File):
            node.synced = len(node.data)
        elif step.kind in ("rename", "link") and step.target is not None:
            if step.kind == "rename":
                folder.pending.append((name, None))
            other, new = self._find(step.target)
            other.pending.append((new, node))
        elif step.kind in ("remove", "rmdir") and node is not None:
            folder.pending.append((name, None))
        elif step.kind == "mkdir" and node is None:
            folder.pending.append((name, _Folder()))
        elif step.kind == "sync_dir" and isinstance(node, _Folder):
            node.certain = node.names(set())
            node.pending = []

    def now(self) -> State:
        """Return what a process sees that runs on."""
        return self._state(set(), {}, "kept")

    def states(self, draw: random.Random, *, samples: int) -> Iterator[State]:
        """Yield the states that a power loss at this moment may leave.

        They are: nothing lost; everything lost; each pending thing lost alone, and kept alone;
        with all names there, the ends of files torn or zero; and random choices.

        Args:
            draw: Makes the random choices.
            samples: How many of these.
        """
        every = list(self._pending())
        yield self.now()
        yield self._chosen(every, "lost")
        for one in every:
            yield self._chosen([one], "lost")
            yield self._chosen([other for other in every if other is not one], "lost")
            if one.file is not None:
                yield self._chosen([one], "torn")
                yield self._chosen([one], "zeros")
        for _ in range(samples if len(every) > 1 else 0):
            chosen = [one for one in every if draw.random() < 0.5]
            fate: Fate = draw.choice(("lost", "torn", "zeros"))
            yield self._chosen(chosen, fate)

    def _chosen(self, gone: list[_Pending], fate: Fate) -> State:
        names = {(id(one.folder), one.place) for one in gone if one.folder is not None}
        files = {id(one.file): fate for one in gone if one.file is not None}
        return self._state(names, files, "kept")

    def _state(self, lost: set[tuple[int, int]], fates: Mapping[int, Fate], rest: Fate) -> State:
        found: dict[str, Data | None] = {}

        def walk(folder: _Folder, path: str) -> None:
            for name, node in folder.names(lost).items():
                if isinstance(node, _Folder):
                    found[path + name] = None
                    walk(node, f"{path}{name}/")
                else:
                    found[path + name] = node.seen(fates.get(id(node), rest))

        walk(self._top, "")
        return found

    def _pending(self) -> Iterator[_Pending]:
        seen: set[int] = set()

        def walk(folder: _Folder) -> Iterator[_Pending]:
            for place in range(len(folder.pending)):
                yield _Pending(folder=folder, place=place)
            reached = [*folder.certain.values(), *(node for _, node in folder.pending)]
            for node in reached:
                if node is None or id(node) in seen:
                    continue
                seen.add(id(node))
                if isinstance(node, _Folder):
                    yield from walk(node)
                elif node.synced < len(node.data):
                    yield _Pending(file=node)

        return walk(self._top)

    def _find(self, path: Path) -> tuple[_Folder, str]:
        """Return the folder a path is in; one that was made without a step is never certain."""
        parts = path.relative_to(self._root.parent).parts
        if not parts:
            return _Folder({"": self._top}), ""
        folder = self._top
        for name in parts[:-1]:
            node = folder.now(name)
            if node is None:
                node = _Folder()
                folder.pending.append((name, node))
            assert isinstance(node, _Folder)
            folder = node
        return folder, parts[-1]

    def _ignored(self, path: Path) -> bool:
        below = path.parts[len(self._root.parts) :]
        return bool(below) and below[0] in self._ignore

    def _load(self, path: Path) -> _Folder:
        folder = _Folder()
        for one in path.iterdir():
            if one.parent == self._root and one.name in self._ignore:
                continue
            if one.is_dir():
                folder.certain[one.name] = self._load(one)
            else:
                data = bytearray(one.read_bytes())
                folder.certain[one.name] = _File(data, len(data))
        return folder


def digest(state: State) -> str:
    """Return a digest of a state."""
    told = [
        f"{path} {data.sha256 if data is not None else 'folder'}" for path, data in state.items()
    ]
    return hashlib.sha256("\n".join(sorted(told)).encode()).hexdigest()


def on_disk(root: Path, *, ignore: tuple[str, ...] = ("_cache", "_locks")) -> State:
    """Return what lies below a warehouse in fact."""
    return Disk(root, ignore=ignore).now()


class Pool:
    """Where states are put on a real disk; files that several have in common are linked.

    Args:
        home: A folder for them.
    """

    def __init__(self, home: Path) -> None:
        self._home = home
        self._files = home / "files"
        self._files.mkdir()
        self._count = 0

    def put(self, state: State) -> Path:
        """Make the files of a state; return the folder above its warehouse."""
        self._count += 1
        folder = self._home / f"{self._count:06d}"
        folder.mkdir()
        for path in sorted(state):
            data = state[path]
            target = folder / path
            if data is None:
                target.mkdir()
                continue
            kept = self._files / data.sha256
            if not kept.exists():
                kept.write_bytes(data)
            os.link(kept, target)
        return folder
