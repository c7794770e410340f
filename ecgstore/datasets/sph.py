"""Shandong Provincial Hospital: 25,770 12-lead ECGs of 24,666 patients, 500 Hz, 10 to 60 s.

Liu et al., A large-scale multi-label 12-lead electrocardiogram database with standardized
diagnostic statements, Sci Data 9:272 (2022), doi 10.1038/s41597-022-01403-5. The folder holds
``metadata.csv`` and ``records`` with an HDF5 file a record.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from ecgstore.datasets.source import Collection, Label, Missing, Source, files_below, single_folder
from ecgstore.datasets.tables import RowError, inside, keyed_rows, moment, number
from ecgstore.errors import UsageError
from ecgstore.io.clinical import age_of, sex_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

__all__ = ["collect"]

_TABLE, _RECORDS, _SUFFIX = "metadata.csv", "records", ".h5"
_STATEMENT = re.compile(r"\d{1,3}(?:\+\d{1,3})*")
_CODE = re.compile(r"\d{1,18}")


def collect(folders: Sequence[Path], *, rate: int | None = None) -> Collection:
    """List the records of the SPH database with patients and statements.

    A statement is a code of the AHA/ACC/HRS recommendations (Mason et al., Circulation 115:1325,
    2007) and may have modifiers: ``60+310;22`` is labelled 1 in ``aha:60``, ``aha:60+310`` and
    ``aha:22``. A modifier may weaken a statement (possible, probable) or say where it holds, so
    both tasks are there to choose from. Where a copy of the table has a column ``SNOMEDCTCode``,
    its codes are labelled in ``snomed:CODE``. A record is labelled 0 in all other codes of the
    table. One without a row has no labels and the flag ``no_metadata``.

    ``recorded_at`` is the day, its time is not known.

    Args:
        folders: The database's root folder.
        rate: Not for this dataset.

    Raises:
        UsageError: There is not one such folder, it lacks its table or records, or a rate was
            given.
    """
    root = single_folder(folders, rate, wanted="the root folder of the SPH database")
    missing: list[Missing] = []
    files: dict[str, tuple[str, Path]] = {}
    for uri, path in files_below(root, {_SUFFIX}, missing):
        if path.stem in files:
            missing.append(Missing(uri, "bad metadata", "a record of this name is there twice"))
        else:
            files[path.stem] = uri, path

    def take(row: dict[str, str]) -> tuple[str, tuple[dict[str, object], tuple[Label, ...]]]:
        name = inside(row["ECG_ID"].strip()).removesuffix(_SUFFIX)
        said = _meta(row), _labels(row)
        if name not in files:
            uri = f"{_RECORDS}/{name}{_SUFFIX}"
            msg = "its row is there, the file is not"
            raise RowError(msg, reason="missing file", uri=uri)
        return name, said

    wanted = ("ECG_ID", "AHA_Code", "Patient_ID", "Age", "Sex", "Date")
    known = keyed_rows(root / _TABLE, wanted, take, missing)
    if not files:
        msg = f"{str(root)!r} holds {_TABLE}, but no {_SUFFIX} files."
        raise UsageError(msg, hint=f"They belong into the folder {_RECORDS!r} beside the table.")
    tasks = tuple(sorted({label.task for _, labels in known.values() for label in labels}))
    return Collection(
        tuple(_source(name, *file, known.get(name), tasks) for name, file in files.items()),
        missing=tuple(missing),
    )


def _source(
    name: str,
    uri: str,
    path: Path,
    known: tuple[dict[str, object], tuple[Label, ...]] | None,
    tasks: tuple[str, ...],
) -> Source:
    if known is None:
        return Source(name, path, uri, quality=("no_metadata",))
    return Source(name, path, uri, meta=known[0], labels=known[1], tasks=tasks)


def _meta(row: Mapping[str, str]) -> dict[str, object]:
    meta = {
        "patient_id": row["Patient_ID"].strip() or None,
        "age": age_of(number(row, "Age")),
        "sex": sex_of(row["Sex"]),
        "recorded_at": moment(row, "Date"),
    }
    return {key: value for key, value in meta.items() if value is not None}


def _labels(row: Mapping[str, str]) -> tuple[Label, ...]:
    statements = [part.strip() for part in row["AHA_Code"].split(";") if part.strip()]
    codes = [part.strip() for part in row.get("SNOMEDCTCode", "").split(",") if part.strip()]
    if not all(map(_STATEMENT.fullmatch, statements)) or not all(map(_CODE.fullmatch, codes)):
        msg = "its codes are not numbers such as 60+310;22"
        raise RowError(msg)
    tasks = [f"aha:{primary}" for one in statements for primary in (one.split("+")[0], one)]
    tasks += [f"snomed:{code}" for code in codes]
    return tuple(Label(task, 1.0, None) for task in dict.fromkeys(tasks))
