"""What a reader of a format is, for files of one record and for files that hold many."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from ecgstore.errors import ReadError
    from ecgstore.record import Record

__all__ = ["Container", "Reader"]


class Container(Protocol):
    """A file that holds many records; it may be far larger than memory."""

    @property
    def names(self) -> Sequence[str]:
        """Name of each record within the file, by its row."""
        ...

    def read(self, rows: Sequence[int]) -> Iterator[Record | ReadError]:
        """Yield the record of each row, or why it cannot be read; ascending rows are fastest."""
        ...


@dataclass(frozen=True)
class Reader:
    """A format that can be read.

    Attributes:
        name: Name in the registry.
        summary: What the format is, one sentence.
        suffixes: Usual suffixes, lower case; a record is found by the first of them when only
            its name is given.
        matches: Tells from the first `ecgstore.io.files.HEAD_BYTES` of a file, and its path for
            what those leave open, whether it is of this format. It raises nothing.
        read: Returns the record of a file or raises `ecgstore.errors.ReadError`; None where
            every file of the format is a container.
        container: Opens a file that holds many records, given the layout that a user declared
            (empty if none was); None for formats that hold one record a file.
        companions: Suffixes of files that come with it; naming one of them means the same record.
    """

    name: str
    summary: str
    suffixes: tuple[str, ...]
    matches: Callable[[bytes, Path], bool]
    read: Callable[[Path], Record] | None = None
    container: Callable[[Path, Mapping[str, str]], Container] | None = None
    companions: tuple[str, ...] = ()
