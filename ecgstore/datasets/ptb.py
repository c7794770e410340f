"""PTB Diagnostic ECG Database: 549 records of 290 subjects, 15 leads, 1000 Hz.

Bousseljot et al., Biomedizinische Technik 40, suppl. 1:317 (1995), doi 10.13026/C28C71. A folder a
patient, ``patient001/s0010_re.hea`` with ``.dat`` (12 leads) and ``.xyz`` (Frank's), and what is
known of the patient in comments of the header.
"""

from __future__ import annotations

import datetime as dt
import re
from types import MappingProxyType
from typing import TYPE_CHECKING

from ecgstore.datasets.source import (
    Collection,
    Label,
    Missing,
    Source,
    exists,
    files_below,
    single_folder,
)
from ecgstore.datasets.tables import RowError, inside
from ecgstore.errors import ReadError, UsageError
from ecgstore.io.files import file_bytes

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

__all__ = ["CLASSES", "collect", "header_comments"]

CLASSES: Mapping[str, str] = MappingProxyType(
    {
        "myocardial infarction": "MI",
        "healthy control": "NORM",
        "cardiomyopathy": "PTB:HF",
        "heart failure": "PTB:HF",
        "bundle branch block": "PTB:BBB",
        "dysrhythmia": "PTB:DYS",
        "hypertrophy": "PTB:HYP",
        "myocardial hypertrophy": "PTB:HYP",
        "valvular heart disease": "PTB:VHD",
        "myocarditis": "PTB:MYOCARDITIS",
        "stable angina": "PTB:MISC",
        "unstable angina": "PTB:MISC",
        "palpitation": "PTB:MISC",
    }
)
"""Task of each reason for admission: the nine diagnostic classes of the database's own table."""

_TASKS = tuple(dict.fromkeys(CLASSES.values()))
_PATIENT = re.compile(r"patient\d{3}")
_COMMENT = re.compile(r"\s*([^:]*?)\s*:\s*(.*?)\s*")
_GRADE = re.compile(r"\s*\(.*\)$")  # Heart failure (NYHA 2)
_DATE = re.compile(r"(\d\d?)/(\d\d?)/(\d{4})")
_NOT_KNOWN = {"", "n/a"}
_MAX_BYTES = 2**20
_LIST = "RECORDS"


def collect(folders: Sequence[Path], *, rate: int | None = None) -> Collection:
    """List the records of the PTB Diagnostic ECG Database with patients and diagnoses.

    A patient is admitted for one reason: the records are labelled 1 in the task of it (see
    `CLASSES`) and 0 in the others. ``MI`` and ``NORM`` are the tasks of the same names of PTB-XL,
    though here a clinical diagnosis and not what the ECG shows. Without a reason, or with one that
    is not in that table, a record has no labels and the flag ``no_diagnosis``. Site and age of
    infarctions, catheter findings and drugs are not taken.

    ``patient_id`` is the name of the patient's folder, ``recorded_at`` the day of the ECG.

    Args:
        folders: The database's root folder.
        rate: Not for this dataset.

    Raises:
        UsageError: There is not one such folder, or a rate was given.
    """
    root = single_folder(folders, rate, wanted="the root folder of the PTB Diagnostic ECG Database")
    sources: dict[str, Source] = {}
    missing: list[Missing] = []
    strangers = 0
    for uri, path in files_below(root, {".hea"}, missing):
        patient = path.parent.name
        if not _PATIENT.fullmatch(patient):
            strangers += 1
        elif path.stem in sources:
            missing.append(Missing(uri, "bad metadata", "a record of this name is there twice"))
        else:
            sources[path.stem] = _source(path, uri, patient)
    if not sources:
        msg = f"{str(root)!r} holds no records in folders such as 'patient001'."
        raise UsageError(msg, hint="Give the root folder of the PTB Diagnostic ECG Database.")
    missing += _announced(root)
    notes = [f"{strangers} headers outside the patients' folders not read"] if strangers else []
    return Collection(tuple(sources.values()), missing=tuple(missing), notes=tuple(notes))


def header_comments(path: Path) -> list[str]:
    """Return the comments of a WFDB header, none where it cannot be read: its reader says why."""
    try:
        data = file_bytes(path, limit=_MAX_BYTES)
    except ReadError:
        return []
    lines = data.decode("latin-1").splitlines()
    return [line.lstrip("# \t").rstrip() for line in lines if line.startswith("#")]


def _source(path: Path, uri: str, patient: str) -> Source:
    said: dict[str, str] = {}
    for line in header_comments(path):
        if match := _COMMENT.fullmatch(line):
            said.setdefault(match[1].lower(), match[2])
    reason = _GRADE.sub("", said.get("reason for admission", "").lower())
    task = CLASSES.get(reason)
    recorded = _day(said.get("ecg date", ""))
    return Source(
        name=path.stem,
        path=path,
        uri=uri,
        meta={"patient_id": patient} | ({} if recorded is None else {"recorded_at": recorded}),
        labels=() if task is None else (Label(task, 1.0, None),),
        tasks=() if task is None else _TASKS,
        quality=("no_diagnosis",) if task is None else (),
    )


def _day(text: str) -> dt.datetime | None:
    """Return a day written as day, month, year."""
    match = _DATE.fullmatch(text)
    try:
        return dt.datetime(int(match[3]), int(match[2]), int(match[1])) if match else None
    except ValueError:
        return None


def _announced(root: Path) -> list[Missing]:
    """Return the records that the database's own list names and that are not there."""
    try:
        lines = file_bytes(root / _LIST, limit=_MAX_BYTES).decode("utf-8", "replace").splitlines()
    except ReadError:  # the list is not needed
        return []
    absent = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            uri = f"{inside(line.strip())}.hea"
        except RowError as error:
            absent.append(Missing(f"{_LIST}:{number}", error.reason, str(error)))
            continue
        if not exists(root / uri):
            absent.append(Missing(uri, "missing file", "the list of records names it"))
    return absent
