"""Rows of a table as files for other programs: Parquet, CSV, and signals as WFDB.

A file gets its name when it is finished; until then nothing can be seen that another program might
take for whole. What a format cannot hold exactly is refused and counted, never altered.
"""

from __future__ import annotations

import os
import time
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from html import escape
from typing import TYPE_CHECKING, Literal, cast

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from ecgstore.catalog import Catalog, quote
from ecgstore.errors import EcgStoreError, UsageError, WarehouseError
from ecgstore.export_wfdb import whole, write_records
from ecgstore.progress import Silent
from ecgstore.schema import table_schema

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path
    from typing import BinaryIO

    from ecgstore.progress import Progress
    from ecgstore.schema import TableSchema
    from ecgstore.warehouse import Warehouse

__all__ = ["ExportResult", "Form", "export"]

Form = Literal["parquet", "csv", "wfdb"]

_BATCH = 8192  # rows at once where the table does not say


@dataclass(frozen=True)
class ExportResult:
    """What an export wrote.

    Attributes:
        table: The table.
        path: The file, or the folder of WFDB files.
        form: Its format.
        written: Rows written.
        refused: Rows the format cannot hold, by reason.
        files: Files written.
        size: Bytes written.
        seconds: Time taken.
    """

    table: str
    path: Path
    form: Form
    written: int
    refused: Mapping[str, int] = field(default_factory=dict)
    files: int = 0
    size: int = 0
    seconds: float = 0.0

    @property
    def rows(self) -> list[dict[str, object]]:
        """One row an outcome, refused rows by reason."""
        refused = sorted(self.refused.items())
        return [
            {"outcome": "written", "reason": None, "rows": self.written},
            *({"outcome": "refused", "reason": why, "rows": count} for why, count in refused),
        ]

    def __repr__(self) -> str:
        refused = sum(self.refused.values())
        return f"ExportResult({self.table} as {self.form}: written={self.written}, {refused=})"

    def _repr_html_(self) -> str:
        return (
            f"<b>{self.written}</b> rows of {self.table} written to "
            f"{escape(str(self.path))}, {sum(self.refused.values())} refused"
        )


def export(
    warehouse: Warehouse,
    table: str,
    out: Path,
    *,
    where: str | None = None,
    form: Form | None = None,
    overwrite: bool = False,
    dry_run: bool = False,
    progress: Progress | None = None,
) -> ExportResult:
    """Write rows of a table to a file, or its signals to a folder, in bounded memory.

    Parquet holds the table's own columns and types. CSV holds lists as JSON text, bytes as
    hexadecimal digits, times in UTC, and nothing where a value is NULL. WFDB, of ``waveforms``
    or ``signals``, holds all signals of each record in format 16 as ``<out>/<record_id>.hea`` and
    ``.dat``: the same integers, gains, baselines, names, units and rates, and nothing about the
    patient.

    Args:
        warehouse: Read at the version it is opened at; nothing is written to it.
        table: Table to export.
        out: File, or folder of WFDB files; folders are made.
        where: SQL predicate over the table's rows, such as ``"dataset = 'ptbxl'"``.
        form: ``parquet``, ``csv`` or ``wfdb``; None takes it from the suffix of `out`.
        overwrite: Replace files that are there already.
        dry_run: Count what would be written, and write nothing.
        progress: Told of rows done.

    Raises:
        UnknownNameError: There is no such table.
        UsageError: The format is not known, does not fit the table, or `out` cannot be used.
        QueryError: ``where`` is not a predicate over the table.
        WarehouseError: A shard is damaged, or the files could not be written; those that have
            their names are whole.
    """
    began = time.perf_counter()
    schema = table_schema(table)
    form = form or _form_of(out)
    if form == "wfdb" and table not in {"waveforms", "signals"}:
        msg = f"Table {table!r} holds no signals to write as WFDB."
        raise UsageError(msg, hint="Export waveforms or signals, or choose another format.")
    _check_place(warehouse.root, out, form, overwrite=overwrite)
    chosen = f"{quote(table)} where ({where or 'true'}\n)"
    told = progress or Silent()
    with Catalog(warehouse.relations()) as catalog, _written(out):
        if form == "wfdb":
            told_of = write_records(catalog, chosen, out, told, dry_run=dry_run)
            done = ExportResult(table, out, form, *told_of)
        else:
            done = _rows(catalog, schema, chosen, out, form, told, dry_run=dry_run)
    return replace(done, seconds=time.perf_counter() - began)


def _form_of(out: Path) -> Form:
    suffix = out.suffix.lower().removeprefix(".")
    if suffix not in {"parquet", "csv"}:
        msg = f"The name {out.name!r} does not tell the format."
        raise UsageError(msg, hint="Give --to parquet, csv or wfdb.")
    return cast("Form", suffix)


def _check_place(root: Path, out: Path, form: Form, *, overwrite: bool) -> None:
    if out.resolve().is_relative_to(root.resolve()):
        msg = f"{str(out)!r} lies in the warehouse, which holds its own files alone."
        raise UsageError(msg, hint="Choose a place outside.")
    if out.exists() and out.is_dir() != (form == "wfdb"):
        msg = f"{str(out)!r} is {'a folder' if out.is_dir() else 'a file'}."
        raise UsageError(msg, hint="WFDB is written to a folder, other formats to a file.")
    if not overwrite and out.exists() and (form != "wfdb" or any(out.iterdir())):
        msg = f"{str(out)!r} is there already."
        raise UsageError(msg, hint="Choose another name, or give --overwrite.")


def _rows(
    catalog: Catalog,
    schema: TableSchema,
    chosen: str,
    out: Path,
    form: Form,
    progress: Progress,
    *,
    dry_run: bool,
) -> ExportResult:
    """Write rows to one file."""
    total = _count(catalog, chosen)
    done = ExportResult(schema.name, out, form, total)
    if dry_run:
        return done
    progress.start(total, "rows")
    at_once = schema.rows_per_group or _BATCH
    batches = catalog.batches(
        f"select {', '.join(map(quote, schema.arrow.names))} from {chosen}",
        rows=at_once // 4 if form == "csv" else at_once,  # text takes more memory on its way
    )
    kinds = pa.schema([_text_field(one) for one in schema.arrow]) if form == "csv" else schema.arrow
    as_text = ", ".join(map(_as_text, schema.arrow))
    out.parent.mkdir(parents=True, exist_ok=True)
    with whole(out) as file, catalog.connection.cursor() as aside:
        with _writer(file, schema, kinds, form) as writer:
            for batch in batches:
                rows = pa.Table.from_batches([batch])
                if form == "csv":  # bit by bit: DuckDB would hold the text of all rows at once
                    rows = aside.from_arrow(rows).project(as_text).to_arrow_table()
                writer.write_table(rows.cast(kinds))
                progress.advance(len(rows))
        size = file.tell()
    return replace(done, files=1, size=size)


def _writer(
    file: BinaryIO, schema: TableSchema, kinds: pa.Schema, form: Form
) -> pq.ParquetWriter | pyarrow.csv.CSVWriter:
    if form == "csv":
        return pyarrow.csv.CSVWriter(file, kinds)
    return pq.ParquetWriter(
        file,
        kinds,
        compression="zstd",
        use_dictionary=schema.dictionary,
        column_encoding=dict(schema.encodings) or None,
        write_page_checksum=True,
    )


def _as_text(column: pa.Field) -> str:
    """Return the SQL of a column whose values CSV can hold."""
    name = quote(column.name)
    if pa.types.is_list(column.type):
        return f"to_json({name})::varchar as {name}"
    return f"lower(hex({name})) as {name}" if pa.types.is_binary(column.type) else name


def _text_field(column: pa.Field) -> pa.Field:
    plain = not (pa.types.is_list(column.type) or pa.types.is_binary(column.type))
    return column if plain else column.with_type(pa.string())


def _count(catalog: Catalog, chosen: str) -> int:
    return int(catalog.table(f"select count(*) as n from {chosen}")["n"][0].as_py())


@contextmanager
def _written(out: Path) -> Iterator[None]:
    """Let what the system refuses leave as an error that names the place."""
    try:
        yield
    except EcgStoreError:
        raise
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        msg = f"Could not write to {str(out)!r}: {reason}."
        hint = "What has its name there is whole; put this right and export again."
        raise WarehouseError(msg, path=out, hint=hint) from error
