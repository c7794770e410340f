"""Every error a user can meet, under one root.

Each class also derives from the built-in exception a caller may already expect::

    EcgStoreError
    ├─ ReadError(ValueError)              a file could not be read          path, reason, offset
    ├─ UnfitRecordError(ValueError)       a record does not fit a model     model, reason
    ├─ UnknownNameError(LookupError)      no such model, task, query, lead  name, near
    ├─ SchemaError(ValueError)            table or version does not fit     table, found, wanted
    ├─ UsageError(ValueError)             an argument cannot be used
    │  └─ SplitTakenError                 a split of this name is another
    ├─ QueryError(ValueError)             DuckDB refused a query
    ├─ WarehouseError(OSError)            missing or broken warehouse       path
    │  ├─ DamagedError                    a file is missing or was changed  table, version, file
    │  │  └─ LogError                     … of the transaction log
    │  └─ ErasedError                     a version can no longer be opened table, version
    ├─ WeightsError(ValueError)           absent, wrong digest, wrong keys  model, path
    ├─ DeviceError(RuntimeError)          a GPU was lost or has no memory   device
    ├─ MissingDependencyError(ImportError)  what for, what to install       package, extra
    └─ NotEnoughDataError(ValueError)     a class or split is too small     task, counts

A message says what is wrong, with the value in quotes, and what was expected; ``hint`` says what
to do and is shown on a line of its own.
"""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

__all__ = [
    "DamagedError",
    "DeviceError",
    "EcgStoreError",
    "ErasedError",
    "LogError",
    "MissingDependencyError",
    "NotEnoughDataError",
    "QueryError",
    "ReadError",
    "SchemaError",
    "SplitTakenError",
    "UnfitRecordError",
    "UnknownNameError",
    "UsageError",
    "WarehouseError",
    "WeightsError",
]


class EcgStoreError(Exception):
    """The root of all errors raised on purpose by ecgstore.

    Args:
        message: What is wrong and what was expected, one sentence or two.
        hint: What to do about it, one sentence; None when there is nothing to say.
    """

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return self.message if self.hint is None else f"{self.message}\n{self.hint}"

    def __reduce__(self) -> tuple[object, ...]:
        """Make errors cross process borders whole, whatever keyword arguments they took."""
        return _rebuild, (type(self), self.args, self.__dict__)


def _rebuild(
    kind: type[EcgStoreError], args: tuple[object, ...], state: dict[str, object]
) -> EcgStoreError:
    error = kind.__new__(kind)
    error.args = args
    error.__dict__.update(state)
    return error


class ReadError(EcgStoreError, ValueError):
    """A file could not be read as an ECG.

    Args:
        message: What is wrong with the file.
        path: The file.
        reason: A short fixed phrase that can be counted, such as ``truncated``.
        offset: Byte at which reading failed, when known.
        hint: What to do about it.
    """

    def __init__(
        self,
        message: str,
        *,
        path: Path | str,
        reason: str,
        offset: int | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(message, hint=hint)
        self.path = path
        self.reason = reason
        self.offset = offset


class UnfitRecordError(EcgStoreError, ValueError):
    """A record does not satisfy the input contract of a model.

    Args:
        message: What is wrong with the record.
        model: Registry name of the model.
        reason: A short fixed phrase that can be counted, such as ``too short``.
    """

    def __init__(self, message: str, *, model: str, reason: str) -> None:
        super().__init__(message)
        self.model = model
        self.reason = reason


class UnknownNameError(EcgStoreError, LookupError):
    """A name is not known: no such model, task, query, lead or table.

    Args:
        name: The name given.
        kind: What the name was meant to be, such as ``model``.
        known: The names that exist; the nearest become the hint.
        total: How many exist, when `known` holds only the nearest of them.
    """

    def __init__(
        self, name: str, *, kind: str, known: Iterable[str], total: int | None = None
    ) -> None:
        names = sorted(known)
        shown = ", ".join(names[:20]) + (", …" if len(names) > 20 else "")
        message = f"Unknown {kind} {name!r}. Known {kind}s: {shown or 'none yet'}."
        if total is not None:
            message = f"Unknown {kind} {name!r}; there are {total} {kind}s."
        self.near = tuple(difflib.get_close_matches(name, names, n=3, cutoff=0.5))
        hint = f"Did you mean {' or '.join(repr(n) for n in self.near)}?" if self.near else None
        super().__init__(message, hint=hint)
        self.name = name


class SchemaError(EcgStoreError, ValueError):
    """A table, its version or its rows do not fit what was declared."""

    def __init__(
        self,
        message: str,
        *,
        table: str,
        found: object = None,
        wanted: object = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(message, hint=hint)
        self.table = table
        self.found = found
        self.wanted = wanted


class UsageError(EcgStoreError, ValueError):
    """An argument or option cannot be used as given."""


class SplitTakenError(UsageError):
    """A split of this name is stored with other settings or other records."""


class QueryError(EcgStoreError, ValueError):
    """DuckDB refused a query; the message is its own first line."""


class WarehouseError(EcgStoreError, OSError):
    """The warehouse is missing, broken, or could not be written."""

    def __init__(self, message: str, *, path: Path | str, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.path = path


class DamagedError(WarehouseError):
    """A file of a table is missing, or does not hold what was written.

    Args:
        message: What is wrong.
        path: The table's folder.
        table: The table.
        file: Name of the file in the table's folder.
        version: The version of the table that needs it, when known.
        hint: What to do about it.
    """

    def __init__(
        self,
        message: str,
        *,
        path: Path | str,
        table: str,
        file: str,
        version: int | None = None,
        hint: str | None = "See what is hurt, and what can be done: ecgstore verify",
    ) -> None:
        super().__init__(message, path=path, hint=hint)
        self.table = table
        self.file = file
        self.version = version


class LogError(DamagedError):
    """A file of a table's transaction log is missing, or does not hold what was written."""


class ErasedError(WarehouseError):
    """A version of a table was erased in part or expired, and can no longer be opened."""

    def __init__(
        self,
        message: str,
        *,
        path: Path | str,
        table: str,
        version: int,
        hint: str | None = "Open a newer version.",
    ) -> None:
        super().__init__(message, path=path, hint=hint)
        self.table = table
        self.version = version


class WeightsError(EcgStoreError, ValueError):
    """A checkpoint is absent, unsafe, damaged, or of another model."""

    def __init__(
        self, message: str, *, model: str, path: Path | str | None = None, hint: str | None = None
    ) -> None:
        super().__init__(message, hint=hint)
        self.model = model
        self.path = path


class DeviceError(EcgStoreError, RuntimeError):
    """A device was lost, or has no memory for the smallest piece of work.

    Args:
        message: See `EcgStoreError`.
        device: Its name, such as ``cuda:0``.
        hint: See `EcgStoreError`.
    """

    def __init__(self, message: str, *, device: str, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.device = device


class MissingDependencyError(EcgStoreError, ImportError):
    """An optional library is needed: says what for and how to install it."""

    def __init__(self, *, purpose: str, package: str, extra: str) -> None:
        message = f"{purpose} needs the package {package!r}, which is not installed."
        super().__init__(message, hint=f"Install it with: pip install 'ecgstore[{extra}]'")
        self.package = package
        self.extra = extra


class NotEnoughDataError(EcgStoreError, ValueError):
    """A class, a split or a selection is too small for what was asked."""

    def __init__(
        self,
        message: str,
        *,
        task: str,
        counts: Mapping[str, int] | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(message, hint=hint)
        self.task = task
        self.counts = dict(counts or {})
