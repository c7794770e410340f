"""Tables of a dataset: a row that cannot be used is told by its line, and the rest is taken.

No row can name a file outside its folder.
"""

from __future__ import annotations

import csv
import datetime as dt
import math
from collections import Counter
from typing import TYPE_CHECKING, TypeVar

from ecgstore.datasets.source import Missing
from ecgstore.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

__all__ = ["RowError", "inside", "keyed_rows", "moment", "number"]

T = TypeVar("T")


class RowError(ValueError):
    """A row of a table cannot be used.

    Args:
        detail: Why, without any value of the row that may name a person.
        reason: A key of `ecgstore.io.assemble.REASONS`.
        uri: The file at fault; None for the row itself.
    """

    def __init__(
        self, detail: str, *, reason: str = "bad metadata", uri: str | None = None
    ) -> None:
        super().__init__(detail)
        self.reason = reason
        self.uri = uri


def keyed_rows(
    path: Path,
    columns: Sequence[str],
    take: Callable[[dict[str, str]], tuple[str, T]],
    missing: list[Missing],
    *,
    delimiter: str = ",",
) -> dict[str, T]:
    """Return what each row of a table says, by its key.

    Args:
        path: A CSV file with a header, in UTF-8.
        columns: Columns it must have; an absent cell of a short row is empty.
        take: Returns key and content of a row, or raises ValueError.
        missing: Is told of the rows that cannot be used, and of every second row of a key.
        delimiter: What stands between two cells.

    Raises:
        UsageError: There is no such file, it is no CSV, or lacks a column.
    """
    if not path.is_file():
        msg = f"There is no {path.name} in {str(path.parent)!r}."
        raise UsageError(msg, hint="Give the root folder of the dataset, which holds its tables.")
    found: dict[str, T] = {}
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, restval="", delimiter=delimiter)
            _check_header(path, reader.fieldnames or (), columns)
            for row in reader:
                try:
                    key, content = take(_fitting(row))
                    _once(key, found)
                    found[key] = content
                except RowError as error:
                    uri = error.uri or f"{path.name}:{reader.line_num}"
                    missing.append(Missing(uri, error.reason, str(error)))
                except ValueError:
                    uri = f"{path.name}:{reader.line_num}"
                    missing.append(Missing(uri, "bad metadata", "no number or date"))
    except (csv.Error, UnicodeDecodeError) as error:
        msg = f"{path.name} is not a readable CSV file in UTF-8: {error}."
        raise UsageError(msg) from error
    except OSError as error:
        msg = f"{path.name} cannot be read."
        raise UsageError(msg, hint="Check its permissions.") from error
    return found


def _check_header(path: Path, header: Sequence[str], columns: Sequence[str]) -> None:
    absent = [column for column in columns if column not in header]
    if absent:
        msg = f"{path.name} has no column {absent[0]!r}."
        raise UsageError(msg, hint=f"It needs these columns: {', '.join(columns)}.")
    twice = [column for column, count in Counter(header).items() if count > 1 and column]
    if twice:
        msg = f"{path.name} has two columns {twice[0][:40]!r}."
        raise UsageError(msg)


def _once(key: str, found: Mapping[str, object]) -> None:
    if key in found:
        msg = "it occurs twice"
        raise RowError(msg)


def _fitting(row: dict[str, str]) -> dict[str, str]:
    if None in row:
        msg = "the row has more cells than the table has columns"
        raise RowError(msg)
    return row


def number(row: Mapping[str, str], column: str) -> float | None:
    """Return a cell as a finite number, None where it is empty or the column is not there.

    Raises:
        RowError: It is anything else.
    """
    text = row.get(column, "").strip()
    if not text:
        return None
    try:
        value = float(text) if "_" not in text else math.nan  # Python would take 1_0 for ten
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        msg = f"column {column[:40]!r} is not a number"
        raise RowError(msg)
    return value


def moment(row: Mapping[str, str], column: str) -> dt.datetime | None:
    """Return a cell in ISO 8601 as a time without zone, None where it is empty.

    A time with a zone becomes UTC.

    Raises:
        RowError: It is no time.
    """
    text = row.get(column, "").strip()
    if not text:
        return None
    try:
        when = dt.datetime.fromisoformat(text)
        return when if when.tzinfo is None else when.astimezone(dt.UTC).replace(tzinfo=None)
    except (ValueError, OverflowError) as error:
        msg = f"column {column[:40]!r} is not a date or time such as 2020-12-31 23:59:58"
        raise RowError(msg) from error


def inside(name: str) -> str:
    """Return a path that a table gives, after a check that it stays below its folder.

    Raises:
        RowError: It is empty, absolute, climbs, or is not printable text.
    """
    parts = [part for part in name.split("/") if part not in {"", "."}]
    if not parts or name[0] == "/" or ".." in parts:
        msg = "a file name that leads out of the folder" if parts else "no file name"
        raise RowError(msg)
    if not name.isprintable():
        msg = "a file name that is not printable text"
        raise RowError(msg)
    return "/".join(parts)
