"""Any folder with a table of the user's own that says what belongs to each file."""

from __future__ import annotations

import csv
from collections import Counter
from typing import TYPE_CHECKING

from ecgstore import io
from ecgstore.datasets.source import (
    Collection,
    Label,
    Missing,
    Source,
    exists,
    files_below,
    source_folder,
)
from ecgstore.datasets.tables import RowError, inside, keyed_rows, moment, number
from ecgstore.errors import ReadError, UsageError
from ecgstore.io.clinical import MEASUREMENTS, age_of, measured, report_of, sex_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

__all__ = ["collect"]

_DELIMITERS = ",;\t"
_FILE = "file"
_PLAIN = ("site", "device")
_KNOWN = {
    _FILE,
    "record",
    "patient_id",
    "recorded_at",
    "age",
    "sex",
    "report",
    "strat_fold",
    *_PLAIN,
}
_LABEL, _MEASURE = "label:", "measure:"
_HEADER = ".hea"
_MAX_FOLD = 2**31 - 1  # of the column of ``records``


def collect(
    folders: Sequence[Path],
    *,
    manifest: Path,
    rate: int | None = None,
    layout: Mapping[str, str] | None = None,
) -> Collection:
    """List the files that a table names, with what the table says of them.

    The table is a CSV with a header, its cells apart by comma, semicolon or tab. Its columns:

    - ``file``, needed: path below the folder; a WFDB record with or without ``.hea``; a record of
      a file that holds many as ``exams.hdf5#438277``, by the name it has in there.
    - ``record``: name within the dataset, else the ``file`` without ``.hea``.
    - ``patient_id``, ``recorded_at`` (ISO 8601), ``age`` (years), ``sex`` (m, f, male, female),
      ``site``, ``device``, ``strat_fold`` (a whole number).
    - ``report``: statements, a line each; those that may name a person are withheld, as with the
      statements of carts.
    - ``label:TASK``: a number, mostly 0 or 1; an empty cell leaves the record without a label.
    - ``measure:NAME``: a name of `ecgstore.io.clinical.MEASUREMENTS`, in its unit.

    An empty cell says nothing; numbers have a decimal point. A row that cannot be used is reported
    by its line, never by a name that it holds.

    Args:
        folders: Folders below which the files are.
        manifest: The table.
        rate: Not for a manifest: it names the file to read.
        layout: Where arrays are in files that do not say so themselves.

    Raises:
        UsageError: A folder or the table is not there, or the table is not as above.
    """
    if rate is not None:
        msg = "A manifest names the files to read: no rate can be chosen besides."
        raise UsageError(msg)
    roots = [source_folder(folder, wanted="a folder of ECG files") for folder in folders]
    delimiter, header = _header(manifest)
    missing: list[Missing] = []
    reader = _Rows(roots, [column for column in header if _is_known(column)], layout or {})
    sources = keyed_rows(manifest, [_FILE], reader.take, missing, delimiter=delimiter)
    notes = []
    ignored = [column for column in header if not _is_known(column)]
    if ignored:
        notes.append(f"columns of the manifest not used: {', '.join(map(repr, ignored))}")
    if unlisted := _unlisted(roots, manifest, reader.paths):
        notes.append(f"{unlisted} files that may hold ECGs are not in the manifest, and not read")
    return Collection(tuple(sources.values()), missing=tuple(missing), notes=tuple(notes))


def _is_known(column: str) -> bool:
    if column.startswith(_LABEL):
        return bool(column.removeprefix(_LABEL).strip()) and column.isprintable()
    if column.startswith(_MEASURE):
        return column.removeprefix(_MEASURE) in MEASUREMENTS
    return column in _KNOWN


def _header(manifest: Path) -> tuple[str, list[str]]:
    """Return delimiter and columns: of those that give a column ``file``, the one with most."""
    if not manifest.is_file():
        msg = f"There is no manifest {str(manifest)!r}."
        raise UsageError(msg)
    try:
        with manifest.open(encoding="utf-8-sig", newline="") as file:
            line = file.readline(2**20)
        ways = [(one, next(csv.reader([line], delimiter=one))) for one in _DELIMITERS]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        msg = f"{manifest.name} is not a readable table in UTF-8."
        raise UsageError(msg, hint="Save it as CSV in UTF-8.") from error
    fitting = [(delimiter, header) for delimiter, header in ways if _FILE in header]
    if not fitting:
        msg = f"{manifest.name} has no column {_FILE!r}."
        raise UsageError(msg, hint="Its first line must name the columns; 'file' is needed.")
    return max(fitting, key=lambda way: len(way[1]))


class _Rows:
    """Turns rows into sources.

    Attributes:
        paths: The files named so far.
    """

    def __init__(
        self, roots: Sequence[Path], columns: Sequence[str], layout: Mapping[str, str]
    ) -> None:
        self._roots = roots
        self._layout = layout
        self._labels = {x: x.removeprefix(_LABEL).strip() for x in columns if x.startswith(_LABEL)}
        self._measures = {x: x.removeprefix(_MEASURE) for x in columns if x.startswith(_MEASURE)}
        self._names: dict[Path, dict[str, int]] = {}
        self.paths: set[Path] = set()

    def take(self, row: dict[str, str]) -> tuple[str, Source]:
        """Return name and source of a row."""
        path, uri, item = self._file(inside(row[_FILE].strip()))
        index = None if item is None else self._row(path, item)
        self.paths.add(path)
        name = row.get("record", "").strip() or uri.removesuffix(_HEADER)
        if not name.isprintable():
            msg = "a name that is not printable text"
            raise RowError(msg)
        meta, quality = _meta(row)
        values = ((task, number(row, column)) for column, task in self._labels.items())
        numbers = {own: number(row, column) for column, own in self._measures.items()}
        return name, Source(
            name=name,
            path=path,
            uri=uri,
            meta=meta,
            labels=tuple(Label(task, value, None) for task, value in values if value is not None),
            quality=quality,
            row=index,
            layout=self._layout,
            measurements=measured(numbers) or {},
            identifiers=(str(meta["patient_id"]),) if "patient_id" in meta else (),
        )

    def _file(self, given: str) -> tuple[Path, str, str | None]:
        """Return file, path below its folder, and record within the file, if one was named."""
        before, mark, item = given.rpartition("#")
        ways: list[tuple[str, str, str | None]] = [(given, given, None)]
        ways += [(f"{given}{_HEADER}", f"{given}{_HEADER}", None)]
        ways += [(before, given, item)] if mark and before and item else []
        for name, uri, record in ways:
            found = [root / name for root in self._roots if exists(root / name)]
            found = [path for path in found if record is None or path.is_file()]
            if len(found) > 1:
                msg = "several of the folders hold a file of this name"
                raise RowError(msg)
            if found and not found[0].is_dir():
                return found[0], uri, record
        msg = "the file is not there"
        raise RowError(msg, reason="missing file")

    def _row(self, path: Path, item: str) -> int:
        """Return the row that a record has in its file."""
        if path not in self._names:
            try:
                container = io.open_container(path, layout=self._layout)
            except ReadError as error:
                msg = "the file that holds the record cannot be opened"
                raise RowError(msg, reason=error.reason) from error
            names = [] if container is None else container.names
            twice = {name for name, count in Counter(names).items() if count > 1}
            rows = {name: row for row, name in enumerate(names) if name not in twice}
            self._names[path] = rows
        if item not in self._names[path]:
            msg = "the file is there, but holds not one record of this name"
            raise RowError(msg, reason="missing file")
        return self._names[path][item]


def _meta(row: Mapping[str, str]) -> tuple[dict[str, object], tuple[str, ...]]:
    """Return columns of ``records``, and flags."""
    patient = row.get("patient_id", "").strip() or None
    age, sex = row.get("age", "").strip(), row.get("sex", "").strip()
    fold = number(row, "strat_fold")
    if fold is not None and not (fold.is_integer() and abs(fold) <= _MAX_FOLD):
        msg = "column 'strat_fold' is not a whole number"
        raise RowError(msg)
    report, flags = report_of(row.get("report", "").splitlines(), [patient] if patient else [])
    meta: dict[str, object] = {
        "patient_id": patient,
        "recorded_at": moment(row, "recorded_at"),
        "age": age_of(age or None),
        "sex": sex_of(sex),
        "strat_fold": None if fold is None else int(fold),
        "report": report,
        **{column: row.get(column, "").strip() or None for column in _PLAIN},
    }
    flags += ["unusable_age"] if age and meta["age"] is None else []
    flags += ["unusable_sex"] if sex and meta["sex"] is None else []
    return {key: value for key, value in meta.items() if value is not None}, tuple(flags)


def _unlisted(roots: Sequence[Path], manifest: Path, listed: set[Path]) -> int:
    """Return the number of files that a reader might take and no row names.

    Files beside a listed one of the same name, such as the samples of a header, belong to it.
    """
    suffixes = {suffix for name in io.readers for suffix in io.readers.get(name).suffixes}
    known = {path.absolute().with_suffix("") for path in (*listed, manifest)}
    found = (path for root in roots for _, path in files_below(root, suffixes, []))
    return sum(path.absolute().with_suffix("") not in known for path in found)
