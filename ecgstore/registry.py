"""One small registry, used for models, readers and datasets alike."""

from __future__ import annotations

import fnmatch
import logging
from importlib import metadata
from typing import TYPE_CHECKING, Generic, TypeVar

from ecgstore.errors import EcgStoreError, UnknownNameError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["Registry"]

_LOG = logging.getLogger(__name__)

T = TypeVar("T")


class Registry(Generic[T]):
    """A map from name to object that refuses duplicates and suggests near names.

    Args:
        kind: What the entries are, in the singular; used in messages.
        group: Entry-point group through which other packages add entries, or None.
        of: What an entry must be an instance of to be taken from another package.
    """

    def __init__(self, kind: str, *, group: str | None = None, of: type[T] | None = None) -> None:
        self.kind = kind
        self._of = of
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

        Other packages are asked only for a name that is not ours.

        Raises:
            UnknownNameError: There is none of this name; the error holds the nearest.
        """
        if name not in self:
            raise UnknownNameError(name, kind=self.kind, known=self._entries)
        return self._entries[name]

    def names(self, pattern: str = "*") -> list[str]:
        """List names in order, those that match a shell pattern such as ``stmem*``."""
        self._load()
        return sorted(fnmatch.filter(self._entries, pattern))

    def __contains__(self, name: str) -> bool:
        if name not in self._entries:
            self._load()
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())

    def _load(self) -> None:
        """Add the entries of other packages; one that cannot be had leaves the rest as they are."""
        if self._loaded:
            return
        self._loaded = True
        for point in metadata.entry_points(group=self._group or ""):
            try:
                entry = point.load()
                if self._of is not None and not isinstance(entry, self._of):
                    what = f"{point.value!r} is a {type(entry).__name__}, no {self._of.__name__}"
                    raise TypeError(what)
                self.add(point.name, entry)
            except Exception as error:  # noqa: BLE001  whatever the code of a stranger may raise
                package = point.dist.name if point.dist else "another package"
                why = str(error).strip().partition("\n")[0]
                what = "The %s %r of the package %r is left out (%s: %s)"
                _LOG.warning(what, self.kind, point.name, package, type(error).__name__, why)
