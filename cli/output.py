"""How results reach the user: data on stdout in the format asked for, all else on stderr."""

from __future__ import annotations

import csv
import json
import math
import os
import sys
from contextlib import contextmanager
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Literal, TextIO

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence
    from pathlib import Path

    import pyarrow as pa
    from rich.progress import Progress as Bar

    from ecgstore.finetuning import FinetuneResult
    from ecgstore.pretraining.course import PretrainResult

__all__ = ["Format", "Live", "emit", "live", "notice", "tell_training"]


class Format(StrEnum):
    """The forms in which a command prints rows."""

    table = "table"
    json = "json"
    jsonl = "jsonl"
    csv = "csv"
    parquet = "parquet"


_GAP = 3  # characters between the columns of a table
_BY_SUFFIX = {f".{form.value}": form for form in Format} | {".ndjson": Format.jsonl}


def emit(
    data: Sequence[dict[str, object]] | pa.Table,
    *,
    form: Format | None,
    out: Path | None = None,
    aside: Collection[str] = (),
) -> None:
    """Print rows, or write them to a file.

    Args:
        data: Rows as dictionaries, or an Arrow table.
        form: The format; None takes the file's suffix, else a table on a terminal and JSON
            lines in a pipe.
        out: A file instead of stdout. It is written whole or not at all.
        aside: Columns that a table leaves out, to be narrow enough for a screen.
    """
    if form is None and out is not None:
        form = _BY_SUFFIX.get(out.suffix.lower(), Format.csv)
    if form is None:
        form = Format.table if sys.stdout.isatty() else Format.jsonl
    if form is Format.parquet:
        _write_parquet(_as_arrow(data), out)
        return
    rows = data if isinstance(data, list) else _as_rows(data)
    columns = list(rows[0]) if rows else _column_names(data)
    if form is Format.table:
        columns = [name for name in columns if name not in aside]
    if out is None:
        _write_text(rows, columns, form, sys.stdout)
        sys.stdout.flush()
        return
    partial = out.with_name(f".{out.name}.part")
    try:
        with partial.open("w", encoding="utf-8", newline="") as stream:
            _write_text(rows, columns, form, stream)
        partial.replace(out)
    finally:
        partial.unlink(missing_ok=True)


def _write_text(
    rows: Sequence[dict[str, object]], columns: list[str], form: Format, stream: TextIO
) -> None:
    if form is Format.json:
        json.dump([_plain(row) for row in rows], stream, indent=2, ensure_ascii=False)
        stream.write("\n")
    elif form is Format.jsonl:
        stream.writelines(json.dumps(_plain(row), ensure_ascii=False) + "\n" for row in rows)
    elif form is Format.csv:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows([_cell(row[name], missing="") for name in columns] for row in rows)
    else:
        _write_table(rows, columns, stream)


def _write_table(rows: Sequence[dict[str, object]], columns: list[str], stream: TextIO) -> None:
    """Print a table; one too wide for its headings is printed row by row, a line a column."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    width = None if stream.isatty() else int(os.environ.get("COLUMNS", "200"))
    console = Console(file=stream, width=width, highlight=False)
    if sum(map(len, columns)) + _GAP * len(columns) > console.width:
        for row in rows:
            lines = Table.grid(padding=(0, 2, 0, 0))
            for name in columns:
                lines.add_row(Text(name, style="bold"), Text(_short(row[name]), overflow="fold"))
            console.print(lines, "")
        return
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in columns:
        values = [row[name] for row in rows if row[name] is not None]
        numeric = bool(rows) and all(isinstance(one, int | float) for one in values)
        times = bool(values) and all(isinstance(one, datetime) for one in values)
        justify: Literal["left", "right"] = "right" if numeric else "left"
        table.add_column(name, justify=justify, overflow="fold", no_wrap=times)
    for row in rows:
        table.add_row(*(Text(_short(row[name])) for name in columns))
    console.print(table)


def _write_parquet(table: pa.Table, out: Path | None) -> None:
    import pyarrow.parquet as pq

    if out is None and sys.stdout.isatty():
        from ecgstore.errors import UsageError

        msg = "Parquet is binary and does not belong on a terminal."
        raise UsageError(msg, hint="Give a file with -o FILE.parquet, or pipe the output.")
    if out is None:
        pq.write_table(table, sys.stdout.buffer)
        return
    partial = out.with_name(f".{out.name}.part")
    try:
        pq.write_table(table, partial)
        partial.replace(out)
    finally:
        partial.unlink(missing_ok=True)


def _as_arrow(data: Sequence[dict[str, object]] | pa.Table) -> pa.Table:
    import pyarrow as pa

    return pa.Table.from_pylist(data) if isinstance(data, list) else data


def _as_rows(data: Any) -> list[dict[str, object]]:  # noqa: ANN401  an Arrow table
    rows: list[dict[str, object]] = data.to_pylist()
    return rows


def _column_names(data: Any) -> list[str]:  # noqa: ANN401  an Arrow table or an empty list
    return list(getattr(data, "column_names", []))


def _plain(value: object) -> object:
    """Return a value as JSON knows it: NaN and infinities become null, times ISO 8601."""
    if isinstance(value, dict):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, bytes):
        return value.hex()
    if value is None or isinstance(value, str | int | bool):
        return value
    return value.isoformat() if hasattr(value, "isoformat") else str(value)


def _cell(value: object, *, missing: str) -> str:
    plain = _plain(value)
    if plain is None:
        return missing
    if isinstance(plain, str):
        return plain
    return json.dumps(plain, ensure_ascii=False)


def _short(value: object) -> str:
    """Return a value for a table: floats at six digits, times in UTC, the start of long lists."""
    if isinstance(value, datetime):
        utc = value.astimezone(UTC) if value.tzinfo else value
        text = utc.isoformat(" ", "milliseconds").removesuffix("+00:00").removesuffix(".000")
        return f"{text}Z" if value.tzinfo else text
    if isinstance(value, float) and math.isfinite(value):
        return f"{value:.6g}"
    if isinstance(value, list) and len(value) > 6 and not isinstance(value[0], str):
        return f"[{', '.join(_short(one) for one in value[:4])}, … {len(value)} values]"
    return _cell(value, missing="–")


def notice(message: str) -> None:
    """Tell the user something that is not data."""
    sys.stderr.write(message + "\n")
    sys.stderr.flush()


def tell_training(result: PretrainResult | FinetuneResult, *, form: Format | None) -> None:
    """Print what a training did, and where its weights are; of several processes one tells it."""
    if result.rows:
        emit(result.rows, form=form)
        if result.weights is not None:
            notice(f"written: {result.weights}")


class Live:
    """Progress on a terminal: what is done, how fast, what was rejected, time left, a text."""

    def __init__(self, bar: Bar | None, *, quiet: bool) -> None:
        self._bar = bar
        self._quiet = quiet
        self._rejected = 0
        self._task: Any = None

    def start(self, total: int, unit: str) -> None:
        """Begin a stage."""
        self._rejected = 0
        if self._bar is not None:
            if self._task is not None:
                self._bar.remove_task(self._task)
            self._task = self._bar.add_task(unit, total=total, rejected=0, told="")

    def advance(self, done: int = 1, *, rejected: int = 0) -> None:
        """Count units done."""
        self._rejected += rejected
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, advance=done, rejected=self._rejected)

    def tell(self, text: str) -> None:
        """Show a text behind the bar, in place of the last."""
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, told=text)

    def note(self, message: str) -> None:
        """Show a message once, above the bar."""
        if self._quiet:
            return
        if self._bar is not None:
            self._bar.console.print(message, highlight=False, markup=False)
        else:
            notice(message)


@contextmanager
def live(*, quiet: bool) -> Iterator[Live]:
    """Draw progress on stderr while the block runs; only on a terminal, and not when quiet."""
    if quiet or not sys.stderr.isatty():
        yield Live(None, quiet=quiet)
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )
    from rich.progress import Task as BarTask
    from rich.text import Text

    class Rate(TextColumn):
        def render(self, task: BarTask) -> Text:
            speed = task.finished_speed or task.speed
            return Text("" if speed is None else f"{speed:,.1f} {task.description}/s")

    class Rejected(TextColumn):
        def render(self, task: BarTask) -> Text:
            count = task.fields["rejected"]
            return Text(f"{count} rejected" if count else "")

    class Told(TextColumn):
        def render(self, task: BarTask) -> Text:
            return Text(task.fields["told"])

    columns: Iterable[Any] = (
        BarColumn(),
        MofNCompleteColumn(),
        Rate(""),
        Rejected(""),
        TimeRemainingColumn(),
        Told(""),
    )
    console = Console(stderr=True)
    with Progress(*columns, console=console, refresh_per_second=4) as bar:
        yield Live(bar, quiet=quiet)
