"""One small registry, used for models, readers and datasets alike."""

from __future__ import annotations

import fnmatch
from importlib import metadata
from typing import TYPE_CHECKING, Generic, TypeVar

from ecgstore.errors import EcgStoreError, UnknownNameError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["Registry"]

T = TypeVar("T")


class Registry(Generic[T]):
    """A map from name to object that refuses duplicates and suggests near names.

    Args:
        kind: What the entries are, in the singular; used in messages.
        group: Entry-point group through which other packages add entries, or None.
    """

    def __init__(self, kind: str, *, group: str | None = None) -> None:
        self.kind = kind
        self._group = group
        self._entries: dict[str, T] = {}
        self._loaded = group is None

    def add(self, name: str, entry: T) -> T:
        """Add one entry.

        Raises:
            EcgStoreError: The name is taken.
        """
        if name in self._entries:
            msg = f"The {self.kind} {name!r} is registered twice."
            raise EcgStoreError(msg)
        self._entries[name] = entry
        return entry

    def register(self, name: str) -> Callable[[T], T]:
        """Return a decorator that adds what it decorates under a name."""
        return lambda entry: self.add(name, entry)

    def get(self, name: str) -> T:
        """Return one entry.

        Raises:
            UnknownNameError: There is none of this name; the error holds the nearest.
        """
        self._load()
        if name not in self._entries:
            raise UnknownNameError(name, kind=self.kind, known=self._entries)
        return self._entries[name]

    def names(self, pattern: str = "*") -> list[str]:
        """List names in order, those that match a shell pattern such as ``stmem*``."""
        self._load()
        return sorted(fnmatch.filter(self._entries, pattern))

    def __contains__(self, name: str) -> bool:
        self._load()
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())

    def _load(self) -> None:
        if not self._loaded:
            self._loaded = True
            for point in metadata.entry_points(group=self._group or ""):
                self.add(point.name, point.load())
