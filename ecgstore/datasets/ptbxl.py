"""PTB-XL: 21,799 clinical 12-lead ECGs with SCP-ECG statements (doi 10.13026/kfzx-aw45).

Wagner et al., PTB-XL, a large publicly available electrocardiography dataset, Sci Data 7:154
(2020). The folder holds ``ptbxl_database.csv``, ``scp_statements.csv`` and the same records at
100 Hz (``records100``) and 500 Hz (``records500``).
"""

from __future__ import annotations

import ast
import csv
import datetime as dt
import math
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from ecgstore.datasets.source import Collection, Label, Missing, Source, exists, source_folder
from ecgstore.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

__all__ = ["SUPERCLASSES", "collect"]

SUPERCLASSES = ("NORM", "MI", "STTC", "CD", "HYP")
"""The diagnostic superclasses, each a task of its own."""

_DATABASE = "ptbxl_database.csv"
_STATEMENTS = "scp_statements.csv"
_FILES = {500: "filename_hr", 100: "filename_lr"}
_SEX = {"0": "male", "1": "female"}
_NOTES = ("baseline_drift", "static_noise", "burst_noise", "electrodes_problems", "pacemaker")
# The source writes 300 for patients older than 89, to protect them.
_HIDDEN_AGE, _AGE_SHOWN, _AGE_FLAG = 300, 90.0, "age_over_89"


class _RowError(ValueError):
    """A row of the database cannot be used."""


def collect(folders: Sequence[Path], *, rate: int | None = None) -> Collection:
    """List the records of PTB-XL with their metadata and labels.

    A record is read at 500 Hz where that file is there, else at 100 Hz; `rate` puts the other way
    round. It is labelled 1 in ``NORM``, ``MI``, ``STTC``, ``CD`` and ``HYP`` when one of its
    statements is of that superclass, and in ``scp:CODE`` for each of its statements, whatever
    their likelihood, as 0 per cent means that it is not known; in all other tasks it is labelled
    0. The likelihood of a superclass is the highest of its statements. An age of 300, the
    source's word for "over 89", becomes 90 with the flag ``age_over_89``.

    Args:
        folders: The dataset's root folder.
        rate: Rate to prefer, 500 or 100 Hz.

    Raises:
        UsageError: There is not one such folder, its tables are missing, or there is no such rate.
    """
    if len(folders) != 1:
        msg = f"PTB-XL is one folder, {len(folders)} were given."
        raise UsageError(msg)
    if rate not in {None, *_FILES}:
        msg = f"PTB-XL has no files at {rate} Hz; known rates: 100, 500."
        raise UsageError(msg)
    root = source_folder(folders[0], wanted="the root folder of PTB-XL")
    statements = _rows(root / _STATEMENTS, "", "diagnostic_class")
    classes = {row[""]: row["diagnostic_class"].strip() for row in statements}
    order = [_FILES[100], _FILES[500]] if rate == 100 else [_FILES[500], _FILES[100]]
    sources: dict[str, Source] = {}
    missing: list[Missing] = []
    wanted = ("ecg_id", "patient_id", "scp_codes", *order)
    for line, row in enumerate(_rows(root / _DATABASE, *wanted), 2):
        try:
            source = _source(root, row, order, classes)
            if source is None:
                missing.append(Missing(f"{row[order[0]]}.hea", "missing file", "at neither rate"))
            elif source.name in sources:
                missing.append(
                    Missing(f"{_DATABASE}:{line}", "bad metadata", "ecg_id occurs twice")
                )
            else:
                sources[source.name] = source
        except ValueError as error:
            detail = str(error) if isinstance(error, _RowError) else "no number or date"
            missing.append(Missing(f"{_DATABASE}:{line}", "bad metadata", detail))
    tasks = (*SUPERCLASSES, *(f"scp:{code}" for code in classes))
    return Collection(tuple(sources.values()), tasks=tasks, missing=tuple(missing))


def _rows(path: Path, *columns: str) -> Iterator[dict[str, str]]:
    if not path.is_file():
        msg = f"There is no {path.name} in {str(path.parent)!r}."
        raise UsageError(msg, hint="Give the root folder of PTB-XL, which holds the two tables.")
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file, restval="")
        absent = [column for column in columns if column not in (reader.fieldnames or ())]
        if absent:
            msg = f"{path.name} has no column {absent[0]!r}."
            raise UsageError(msg, hint="Check that the folder is PTB-XL 1.0.1 or newer.")
        try:
            yield from reader
        except (csv.Error, UnicodeDecodeError) as error:
            msg = f"{path.name} is not a readable CSV file: {error}."
            raise UsageError(msg) from error


def _source(
    root: Path, row: Mapping[str, str], order: Sequence[str], classes: Mapping[str, str]
) -> Source | None:
    """Return the record of a row, None when it has files at neither rate."""
    file = next((file for column in order if (file := _file(root, row[column]))), None)
    if file is None:
        return None
    return Source(
        name=f"{int(row['ecg_id']):05d}",
        path=root / file,
        uri=file,
        meta=_meta(row),
        labels=tuple(_labels(row["scp_codes"], classes)),
        quality=tuple(_quality(row)),
    )


def _file(root: Path, stem: str) -> str | None:
    """Return the header's path below the root when header and signal file are there."""
    parts = PurePosixPath(stem).parts
    if not parts or parts[0] == "/" or ".." in parts:
        msg = "a file name that leads out of the folder"
        raise _RowError(msg)
    there = exists(root / f"{stem}.hea") and exists(root / f"{stem}.dat")
    return f"{stem}.hea" if there else None


def _meta(row: Mapping[str, str]) -> dict[str, object]:
    """Return the columns of ``records`` that the database knows."""
    age = _number(row, "age")
    patient, site, fold = (_number(row, key) for key in ("patient_id", "site", "strat_fold"))
    recorded = row.get("recording_date", "").strip()
    meta: dict[str, object] = {
        "patient_id": None if patient is None else str(int(patient)),
        "age": _AGE_SHOWN if age == _HIDDEN_AGE else age,
        "sex": _SEX.get(row.get("sex", "").strip().removesuffix(".0")),
        "site": None if site is None else str(int(site)),
        "device": row.get("device", "").strip() or None,
        "recorded_at": dt.datetime.fromisoformat(recorded) if recorded else None,
        "strat_fold": None if fold is None else int(fold),
        "report": row.get("report", "").strip() or None,
    }
    return {key: value for key, value in meta.items() if value is not None}


def _number(row: Mapping[str, str], column: str) -> float | None:
    value = row.get(column, "").strip()
    if not value:
        return None
    number = float(value)
    if not math.isfinite(number) or abs(number) >= 2**31:
        msg = f"column {column!r} is not a number"
        raise _RowError(msg)
    return number


def _quality(row: Mapping[str, str]) -> Iterator[str]:
    yield from (note for note in _NOTES if row.get(note, "").strip())
    if _number(row, "age") == _HIDDEN_AGE:
        yield _AGE_FLAG


def _labels(scp_codes: str, classes: Mapping[str, str]) -> Iterator[Label]:
    """Return what a dict literal such as ``{'NORM': 100.0, 'SR': 0.0}`` says."""
    try:
        codes = ast.literal_eval(scp_codes)
        likelihoods = {str(code): float(value) for code, value in codes.items()}
    except (
        ValueError,
        SyntaxError,
        AttributeError,
        TypeError,
        RecursionError,
        MemoryError,
    ) as error:
        msg = "column 'scp_codes' is not a dict of statement and likelihood"
        raise _RowError(msg) from error
    for superclass in SUPERCLASSES:
        own = [value for code, value in likelihoods.items() if classes.get(code) == superclass]
        if own:
            yield Label(superclass, 1.0, max(own))
    for code, value in likelihoods.items():
        yield Label(f"scp:{code}", 1.0, value)
