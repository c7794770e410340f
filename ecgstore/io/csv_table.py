"""Read CSV: a header of lead names and a row for each sample, in any of the usual dialects.

Columns part at semicolons, tabs, commas or blanks; decimals may have a comma where columns do not.
The rate comes from a time column, a comment (``# rate_hz: 500``) or the layout; the unit from the
header (``I (mV)``, ``I_uV``), a row of units below it, a comment or the layout. Where nothing says
the unit, whole numbers beyond 50 are microvolts and all else millivolts, flagged
``assumed_unit:<unit>``. Columns that are neither a known lead nor have a unit are left out, flagged
``columns_left_out:<n>``; a file that ends within a line, which may have lost digits, is flagged
``unterminated_last_row``.
"""

from __future__ import annotations

import csv
import hashlib
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ecgstore.io.arrays import Rows, assumed_unit, in_memory, only_record
from ecgstore.io.assemble import MAX_VALUES, refuse
from ecgstore.io.files import file_bytes
from ecgstore.io.identity import is_identity, naming
from ecgstore.io.layout import (
    declared,
    is_known_lead,
    layout_of,
    missing,
    per_millivolt,
    rate_of,
)
from ecgstore.io.reader import Reader

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from ecgstore.record import Record

__all__ = ["READER", "open_rows", "read"]

_KEYS = ("rate", "leads", "unit", "gain", "baseline")
_MAX_BYTES = 2**29  # some 20 h of three leads at 250 Hz
_TOP_BYTES = 2**16  # within which the first row of samples begins
_MAX_COLUMNS = 1024
_TOLERANCE = 0.01  # by which the step between two times may differ from the mean
_SECONDS = {
    "s": 1.0, "sec": 1.0, "secs": 1.0, "second": 1.0, "seconds": 1.0,
    "ms": 1e-3, "msec": 1e-3, "millisecond": 1e-3, "milliseconds": 1e-3,
    "us": 1e-6, "µs": 1e-6, "microseconds": 1e-6,
}  # fmt: skip
_TIMES = {"time", "t", "elapsed time", "elapsed_time", "timestamp"}
_SLOWEST_HZ = 20.0  # times without a unit that give less were not seconds
_IN_BRACKETS = re.compile(r"(.*?)\s*[(\[]\s*([^()\[\]]+?)\s*[)\]]")
_SUFFIX = re.compile(r"(.+?)[_ ]([A-Za-zµμ]+)")
_NUMBER = re.compile(r"\s*(?:[+-]?(?:\d+[.,]?\d*|[.,]\d+)(?:[eE][+-]?\d+)?|[+-]?inf|nan|)\s*", re.I)
_COMMENT = re.compile(r"#\s*([^:=]+?)\s*[:=]\s*(.+)")
_RATES = {"rate", "rate_hz", "fs", "sampling rate", "sampling_rate", "sample rate", "sample_rate"}


class _Column(NamedTuple):
    name: str
    unit: str | None


@dataclass(frozen=True)
class _Top:
    """What stands above the samples of a table, and how its rows are written.

    Attributes:
        delimiter: What parts columns; a blank stands for any run of white space.
        decimal: ``.`` or ``,``.
        columns: Name and unit of each column; None where the file has no header.
        width: Number of columns.
        start: Byte at which the samples begin.
        said: What comments say, by their keys in lower case.
        identifiers: What comments say of people.
    """

    delimiter: str
    decimal: str
    columns: tuple[_Column, ...] | None
    width: int
    start: int
    said: Mapping[str, str]
    identifiers: tuple[str, ...]


def read(path: Path) -> Record:
    """Return the record of a table.

    Raises:
        ReadError: It cannot be read, or leaves open its leads or rate.
    """
    return only_record(path, open_rows(path, {}))


def open_rows(path: Path, layout: Mapping[str, str]) -> Rows:
    """Return the one record of a table.

    Args:
        path: The file.
        layout: ``rate``, ``leads``, ``unit``, ``gain`` and ``baseline`` of
            `ecgstore.io.layout.KEYS`; leads name all columns but that of the time.

    Raises:
        ReadError: It cannot be read, or its layout leaves something open.
    """
    said = declared(path, layout, keys=_KEYS)
    stored = file_bytes(path, limit=_MAX_BYTES)
    if not stored:
        raise refuse(path, "empty file", "the file is empty")
    data = _utf8(stored)
    top = _top(data)
    if top is None:
        raise refuse(path, "bad header", "it is no table of numbers below a header")
    columns, chosen, time = _columns(path, top, said.get("leads"))
    quality = [] if data.endswith(b"\n") else ["unterminated_last_row"]
    left_out = top.width - len(chosen) - (time is not None)
    if left_out:
        quality.append(f"columns_left_out:{left_out}")
    comment = next((top.said[key] for key in _RATES if key in top.said), None)
    timed = time is not None and "rate" not in said  # the user knows better than a clock
    wanted = [*chosen, time] if timed and time is not None else chosen
    values = _numbers(path, _body(data[top.start :], top.delimiter), top, wanted)
    if timed and time is not None:
        rate = _rate_of_times(path, values[-1], columns[time])
        values = values[:-1]
        if comment is not None and abs(rate_of(path, comment) / rate - 1) > _TOLERANCE:
            raise refuse(path, "bad header", "its times contradict the rate in its comments")
        said["rate"] = repr(rate)
    elif comment is not None:
        said.setdefault("rate", repr(rate_of(path, comment)))
    units = [said.get("unit") or columns[at].unit or top.said.get("unit") for at in chosen]
    per_mv, others, flags = _scales(path, values, units, has_gain="gain" in said)
    names = tuple(columns[at].name for at in chosen)
    parts = {"samples": values, "leads": np.array(names)}
    said |= {"tracings": "samples", "leads": "leads", "axes": "ls", "unit": "mV"}
    found, _ = layout_of(path, said, names=[], find=parts.get)
    return Rows(
        path=path,
        reader="csv",
        layout=replace(found, leads=names, per_mv=per_mv, units=others),
        opened=in_memory(values),
        sha256=lambda: hashlib.sha256(stored).hexdigest(),
        meta={"identifiers": top.identifiers or None},
        quality=(*quality, *flags),
    )


def _matches(head: bytes, path: Path) -> bool:
    """Tell whether a file begins with a header of lead names and a row of numbers."""
    del path
    top = _top(_utf8(head))
    if top is None or top.columns is None:
        return False
    signals = [one for one in top.columns if not _is_time(one)]
    return 2 * sum(is_known_lead(one.name) for one in signals) >= max(len(signals), 1)


READER = Reader(
    name="csv",
    summary="CSV with a header of lead names and a row for each sample",
    suffixes=(".csv", ".tsv"),
    matches=_matches,
    read=read,
    container=open_rows,
)


def _utf8(data: bytes) -> bytes:
    """Return a text without byte-order mark in UTF-8, its lines ended as everywhere else."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):  # as spreadsheets save "Unicode text"
        data = data.decode("utf-16", "replace").encode()
    data = data.removeprefix(b"\xef\xbb\xbf")
    return data if b"\n" in data[:_TOP_BYTES] else data.replace(b"\r", b"\n")


def _top(data: bytes) -> _Top | None:
    """Return what stands above the samples, None if no row of numbers follows."""
    said: dict[str, str] = {}
    comments: list[str] = []
    rows: list[tuple[int, str]] = []
    at = 0
    for raw in data[:_TOP_BYTES].split(b"\n"):
        line = raw.decode("utf-8", "replace").strip()
        match = _COMMENT.fullmatch(line)
        if match is not None:
            said.setdefault(match[1].lower(), match[2])
        if line.startswith("#"):
            comments.append(line.strip("# "))
        elif line:
            rows.append((at, line))
            if len(rows) == 3:
                break
        at += len(raw) + 1
    if not rows or "\0" in rows[0][1]:
        return None
    lines = [line for _, line in rows]
    delimiter = _delimiter(lines)
    cells = [_cells(line, delimiter) for line in lines]
    if not 0 < len(cells[0]) <= _MAX_COLUMNS:
        return None
    first = next((i for i, row in enumerate(cells) if _are_numbers(row)), None)
    if first is None or (first == 2 and not _are_units(cells[1])):
        return None
    columns = None
    if first:
        units = [unit.strip() or None for unit in cells[1]] if first == 2 else []
        units = (units + [None] * len(cells[0]))[: len(cells[0])]
        named = map(_named, cells[0])
        columns = tuple(
            _Column(one.name, one.unit or unit) for one, unit in zip(named, units, strict=True)
        )
    sample = data[rows[first][0] :][:_TOP_BYTES]
    comma = re.search(rb'"[+-]?\d*,\d', sample) if delimiter == "," else b"," in sample
    decimal = "," if comma else "."
    start, people = rows[first][0], naming(comments)
    return _Top(delimiter, decimal, columns, len(cells[0]), start, said, people)


def _delimiter(lines: Sequence[str]) -> str:
    """Return what parts the columns of a header and the rows below it."""
    bare = re.sub(r'"[^"]*"', "", lines[0])
    for delimiter in (";", "\t", ","):
        if delimiter in bare:
            return delimiter
    widths = {len(line.split()) for line in lines}
    return " " if len(widths) == 1 and widths != {1} else ";"


def _cells(line: str, delimiter: str) -> list[str]:
    try:
        cells = next(csv.reader([line], delimiter=delimiter)) if delimiter != " " else line.split()
    except csv.Error:  # such as the end of a line within one
        return []
    return [cell.strip().strip("'\"").strip() for cell in cells]


def _are_numbers(cells: Sequence[str]) -> bool:
    """Tell whether cells are a row of samples, which may have a label or lack one or the other."""
    numbers = [_NUMBER.fullmatch(cell) is not None for cell in cells]
    return (
        any(map(str.strip, cells))
        and any(is_number and cell for is_number, cell in zip(numbers, cells, strict=True))
        and 2 * sum(numbers) >= len(cells)
    )


def _are_units(cells: Sequence[str]) -> bool:
    return any(per_millivolt(cell) is not None for cell in cells)


def _named(cell: str) -> _Column:
    """Return the name and unit that a cell of the header gives: ``I (mV)``, ``I_uV``, ``I``."""
    if is_known_lead(cell):  # such as "Lead I (Einthoven)"
        return _Column(cell, None)
    if (match := _IN_BRACKETS.fullmatch(cell)) is not None:
        return _Column(match[1], match[2])
    match = _SUFFIX.fullmatch(cell)
    if match and (per_millivolt(match[2]) is not None or match[2].lower() in _SECONDS):
        return _Column(match[1], match[2])
    return _Column(cell, None)


def _is_time(column: _Column) -> bool:
    name = column.name.lower()
    return name in _TIMES or (name in _SECONDS and column.unit is None)


def _columns(
    path: Path, top: _Top, leads: str | None
) -> tuple[Sequence[_Column], list[int], int | None]:
    """Return all columns, which of them are signals, and which is the time, if any is."""
    columns = top.columns
    if columns is None:
        if leads is None:
            raise missing(path, "leads", "it has no header of lead names")
        columns = tuple(_Column("", None) for _ in range(top.width))
    time = next((i for i, one in enumerate(columns) if _is_time(one)), None)
    rest = [i for i in range(top.width) if i != time]
    if leads is None:
        chosen = [
            i
            for i in rest
            if is_known_lead(columns[i].name)
            or (columns[i].unit and not is_identity(columns[i].name))
        ]
        if not any(is_known_lead(columns[i].name) or _in_volts(columns[i]) for i in chosen):
            raise missing(path, "leads", "no column has the name of a lead")
        return columns, chosen, time
    names = [name.strip() for name in leads.split(",")]
    if len(names) != len(rest) or not all(names):
        raise missing(path, "leads", f"{len(names)} leads for {len(rest)} columns of samples")
    named = dict(zip(rest, names, strict=True))
    renamed = [_Column(named.get(i, one.name), one.unit) for i, one in enumerate(columns)]
    return renamed, rest, time


def _in_volts(column: _Column) -> bool:
    return column.unit is not None and per_millivolt(column.unit) is not None


def _body(data: bytes, delimiter: str) -> bytes:
    """Return the rows of samples, written as the parser of Arrow takes them."""
    data = data.rstrip(b"\r\n")
    if b"\n#" in data:
        data = re.sub(rb"\n#[^\n]*", b"", data)
    if b"+" in data:
        data = data.replace(b"+", b"")
    if delimiter == " ":
        data = re.sub(rb"[ \t]+", b" ", data)
        data = re.sub(rb"(?m)^ | (?=\r?$)", b"", data)
    return data


def _numbers(path: Path, body: bytes, top: _Top, wanted: Sequence[int]) -> NDArray[np.float64]:
    """Return ``(columns, rows)`` of those wanted, NaN where a cell is empty."""
    import pyarrow as pa
    from pyarrow import csv as arrow

    names = [str(i) for i in wanted]
    try:
        table = arrow.read_csv(
            pa.BufferReader(body),
            read_options=arrow.ReadOptions(
                column_names=[str(i) for i in range(top.width)], use_threads=False
            ),
            parse_options=arrow.ParseOptions(delimiter=top.delimiter, ignore_empty_lines=False),
            convert_options=arrow.ConvertOptions(
                include_columns=names,
                column_types=dict.fromkeys(names, pa.float64()),
                decimal_point=top.decimal,
                check_utf8=False,
            ),
        )
    except (pa.ArrowException, OSError, ValueError, LookupError, MemoryError) as error:
        table, uneven = None, "columns" in str(error)
    if table is None:  # raised here, without Arrow's own error, which quotes the cell
        what = "a row has more or fewer columns than the header"
        raise refuse(path, "bad samples", what if uneven else "a cell is no number")
    if table.num_rows * len(names) > MAX_VALUES:
        raise refuse(path, "too large", f"{table.num_rows} rows of {len(names)} columns")
    values = np.empty((len(names), table.num_rows))
    for row, name in enumerate(names):
        values[row] = table[name].to_numpy()
    return values


def _rate_of_times(path: Path, times: NDArray[np.float64], column: _Column) -> float:
    """Return the rate in Hz of rows at even times: the roundest that their digits allow."""
    unit = (column.unit or column.name).lower()
    scale = _SECONDS.get(unit)
    if scale is None and column.unit is not None:
        raise missing(path, "rate", "the unit of its times is not known")
    if len(times) < 3 or not np.isfinite(times).all():
        raise missing(path, "rate", "its times do not give a rate")
    steps = np.diff(times)
    step = float(times[-1] - times[0]) / len(steps)
    digit = _last_digit(times)
    # times rounded to a coarse last digit differ by up to one of it; beyond half a step that would
    # hide a lost row
    allowed = _TOLERANCE * step + (digit if digit < 0.45 * step else 0)
    if not step > 0 or float(np.abs(steps - step).max()) > allowed:
        raise missing(path, "rate", "its times are uneven: rows are lost or out of order")
    rate = 1 / (step * (scale or 1.0))
    if scale is None and rate < _SLOWEST_HZ:
        raise missing(path, "rate", f"its times have no unit and give {rate:.3g} Hz in seconds")
    slack = rate * (digit / (step * len(steps)) + 1e-12)
    rounded = (round(rate, digits) for digits in range(-1, 7))
    return next((one for one in rounded if one > 0 and abs(one - rate) <= slack), rate)


def _last_digit(times: NDArray[np.float64]) -> float:
    """Return what one in the last decimal of times is worth, 0 where they are not decimal."""
    for digits in range(10):
        scaled = times * 10.0**digits
        if float(np.abs(scaled - np.rint(scaled)).max()) < 1e-3:
            return 10.0**-digits
    return 0.0


def _scales(
    path: Path, values: NDArray[np.float64], units: Sequence[str | None], *, has_gain: bool
) -> tuple[NDArray[np.float64], tuple[str | None, ...], list[str]]:
    """Return units in a millivolt for each signal, those not in volts, and flags."""
    unknown = [i for i, unit in enumerate(units) if unit is None]
    assumed, step, flags = "mV", 1.0, []
    if unknown:
        assumed, step = assumed_unit(values[unknown], has_gain=has_gain)
        flags.append(f"assumed_unit:{assumed}")
    per_mv = [step if unit is None else per_millivolt(unit) for unit in units]
    others = tuple(unit if one is None else None for unit, one in zip(units, per_mv, strict=True))
    if all(others):
        raise refuse(path, "unknown unit", "the unit of its samples is not one of volts")
    return np.array([one or 1.0 for one in per_mv]), others, flags
