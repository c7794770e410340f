"""CODE-15 %: 345,779 12-lead ECGs of 233,770 patients, 400 Hz, in HDF5 files of 20,000 exams.

Ribeiro et al., CODE-15%: a large scale annotated dataset of 12-lead ECGs, doi
10.5281/zenodo.4916206; Lima et al., Nat Commun 12:5117 (2021) for ages and deaths. The folder
holds ``exams.csv`` and any of ``exams_part0.hdf5`` to ``exams_part17.hdf5``.
"""

from __future__ import annotations

import functools
import sys
from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

from ecgstore import io
from ecgstore.datasets.source import Collection, Label, Missing, Source, single_folder
from ecgstore.datasets.tables import RowError, keyed_rows, number
from ecgstore.errors import ReadError, UsageError
from ecgstore.io.clinical import age_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

__all__ = ["TASKS", "collect"]

TASKS = ("1dAVb", "RBBB", "LBBB", "SB", "ST", "AF", "normal_ecg")
"""What each exam is labelled in: six abnormalities, and whether the ECG is normal."""

_TABLE = "exams.csv"
_PARTS = "*.hdf5"
_PADDING = "0"  # exam_id of the row of zeros that ends each part
_TRUTH = {"true": 1.0, "1": 1.0, "1.0": 1.0, "false": 0.0, "0": 0.0, "0.0": 0.0}
_VALUES = ("nn_predicted_age", "timey")


class _Exam(NamedTuple):
    """What the table says of an exam."""

    part: str
    meta: Mapping[str, object]
    labels: tuple[Label, ...]
    tasks: tuple[str, ...]


def collect(folders: Sequence[Path], *, rate: int | None = None) -> Collection:
    """List the exams of CODE-15 % that the HDF5 files hold, with patients, labels and follow-up.

    An exam is labelled in `TASKS`, in ``death`` (within the follow-up; only where it is known),
    and with numbers in ``timey`` (years of follow-up) and ``nn_predicted_age`` (years, from a
    network). One that the table does not name has no labels and the flag ``no_metadata``. Rows of
    padding are reported as such, and so are exams of the table that their file does not hold; of a
    part that is not there only the number of its exams.

    Args:
        folders: The folder of table and HDF5 files.
        rate: Not for this dataset.

    Raises:
        UsageError: There is not one such folder, it has no table or no HDF5 file, or a rate was
            given.
    """
    root = single_folder(folders, rate, wanted="the folder of CODE-15 %")
    missing: list[Missing] = []
    wanted = ("exam_id", "age", "is_male", "patient_id", *TASKS, "trace_file")
    exams = keyed_rows(root / _TABLE, wanted, _exam, missing)
    parts = sorted(path for path in root.glob(_PARTS) if not path.name.startswith("."))
    if not parts:
        msg = f"{str(root)!r} holds {_TABLE}, but no HDF5 file."
        raise UsageError(msg, hint="Put files such as exams_part0.hdf5 beside the table.")
    sources: dict[str, Source] = {}
    read: set[str] = set()
    for path in parts:
        try:
            container = io.open_container(path)
            names = () if container is None else container.names
        except ReadError as error:
            detail = error.message.split(": ", 1)[-1].strip(".")
            missing.append(Missing(path.name, error.reason, detail))
        else:
            read.add(path.name)
            _take(path, names, exams, sources, missing)
    missing += _absent(exams, sources, read, {path.name for path in parts})
    return Collection(tuple(sources.values()), missing=tuple(missing))


def _take(
    path: Path,
    names: Sequence[str],
    exams: Mapping[str, _Exam],
    sources: dict[str, Source],
    missing: list[Missing],
) -> None:
    """Add the exams of a file."""
    for row, name in enumerate(names):
        uri = f"{path.name}#{row if name == _PADDING else name}"
        if name == _PADDING:
            missing.append(Missing(uri, "empty row", "padding, its exam_id is 0"))
        elif name in sources:
            missing.append(Missing(f"{path.name}#{row}", "bad metadata", "an exam_id occurs twice"))
        elif (exam := exams.get(name)) is None:
            sources[name] = Source(name, path, uri, row=row, quality=("no_metadata",))
        else:
            sources[name] = Source(
                name, path, uri, meta=exam.meta, labels=exam.labels, tasks=exam.tasks, row=row
            )


def _absent(
    exams: Mapping[str, _Exam], sources: Mapping[str, Source], read: set[str], there: set[str]
) -> Iterator[Missing]:
    """Yield the exams that a file was to hold, and the files that were to be there."""
    of_part: Counter[str] = Counter()
    for name, exam in exams.items():
        if name in sources:
            continue
        if exam.part in read:
            uri = f"{exam.part}#{name}"
            yield Missing(uri, "missing file", "the file does not hold this exam")
        else:
            of_part[exam.part] += 1
    for part, count in sorted(of_part.items()):
        if part not in there:  # else it was reported when it could not be opened
            detail = f"the file is not there, {count} exams of the table are in it"
            yield Missing(part, "missing file", detail)


def _exam(row: dict[str, str]) -> tuple[str, _Exam]:
    exam_id = row["exam_id"].strip()
    part = row["trace_file"].strip()
    if not exam_id.isdecimal() or len(exam_id) > 18 or exam_id == _PADDING:
        msg = "column 'exam_id' is not a number"
        raise RowError(msg)
    if not part.isprintable() or "/" in part or not part:
        msg = "column 'trace_file' is not the name of a file"
        raise RowError(msg)
    told = {task: _truth(row, task) for task in (*TASKS, "death")}
    values = {task: number(row, task) for task in _VALUES}
    labels = [Label(task, 1.0, None) for task, value in told.items() if value]
    labels += [Label(task, value, None) for task, value in values.items() if value is not None]
    male = _truth(row, "is_male")
    meta = {
        "patient_id": row["patient_id"].strip() or None,
        "age": age_of(number(row, "age")),
        "sex": None if male is None else "male" if male else "female",
    }
    return str(int(exam_id)), _Exam(
        part=sys.intern(part),
        meta={key: value for key, value in meta.items() if value is not None},
        labels=tuple(labels),
        tasks=_one_copy(tuple(task for task, value in told.items() if value is not None)),
    )


def _truth(row: Mapping[str, str], column: str) -> float | None:
    text = row.get(column, "").strip().lower()
    if text and text not in _TRUTH:
        msg = f"column {column!r} is neither true nor false"
        raise RowError(msg)
    return _TRUTH.get(text)


@functools.cache
def _one_copy(tasks: tuple[str, ...]) -> tuple[str, ...]:
    """Return the first of equal tuples: there are hundreds of thousands of exams."""
    return tasks
