"""MIMIC-IV-ECG: 800,035 12-lead ECGs of 161,352 patients, 500 Hz, 10 s.

Gow et al., MIMIC-IV-ECG: Diagnostic Electrocardiogram Matched Subset 1.0, doi 10.13026/4nqg-sb35.
The folder holds ``record_list.csv``, ``machine_measurements.csv``, ``waveform_note_links.csv`` and
the records, ``files/p1000/p10000032/s40689238/40689238.hea``.
"""

from __future__ import annotations

import functools
import sys
from typing import TYPE_CHECKING

from ecgstore.datasets.source import Collection, Missing, Source, exists, single_folder
from ecgstore.datasets.tables import RowError, inside, keyed_rows, moment
from ecgstore.errors import UsageError
from ecgstore.io.clinical import measured

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

__all__ = ["collect"]

_RECORDS, _MACHINE, _NOTES = (
    "record_list.csv",
    "machine_measurements.csv",
    "waveform_note_links.csv",
)
_REPORTS = tuple(f"report_{number}" for number in range(18))
_MEASURES = {
    "rr_interval": "rr",
    "p_onset": "p_onset",
    "p_end": "p_offset",
    "qrs_onset": "qrs_onset",
    "qrs_end": "qrs_offset",
    "t_end": "t_offset",
    "p_axis": "p_axis",
    "qrs_axis": "qrs_axis",
    "t_axis": "t_axis",
}
_NOT_MEASURED = 29_999  # machine_measurements_data_dictionary.csv

_Said = tuple[str | None, "Mapping[str, float]"]
_NOTHING: _Said = (None, {})


def collect(folders: Sequence[Path], *, rate: int | None = None) -> Collection:
    """List the records of MIMIC-IV-ECG with patients, statements and measurements of the carts.

    A record is named by its study. ``patient_id`` is ``subject_id``, ``recorded_at`` is
    ``ecg_time`` (moved into the future by the source, by a span of each patient's own), ``report``
    the cart's statements, a line each, as published. What says 29999 was not measured. There are
    no labels, ages or sexes in this dataset: they are in MIMIC-IV itself, by ``subject_id``, which
    stays as it is when ids are kept. Filter settings and numbers of carts are not taken, nor the
    links to cardiologists' notes: ``waveform_note_links.csv`` has them by ``study_id``, which is
    the record's name.

    Args:
        folders: The root folder of the dataset.
        rate: Not for this dataset.

    Raises:
        UsageError: There is not one such folder, its list of records is missing, or a rate was
            given.
    """
    root = single_folder(folders, rate, wanted="the root folder of MIMIC-IV-ECG")
    missing: list[Missing] = []
    notes: list[str] = []
    if not (root / _RECORDS).is_file():
        msg = f"There is no {_RECORDS} in {str(root)!r}."
        raise UsageError(msg, hint="Give the root folder of MIMIC-IV-ECG, which holds its tables.")
    said: dict[str, _Said] = {}
    if (root / _MACHINE).is_file():
        said = keyed_rows(root / _MACHINE, ("study_id", *_REPORTS[:1]), _measured, missing)
    else:
        notes.append(f"without {_MACHINE} there are no reports and measurements")

    def take(row: dict[str, str]) -> tuple[str, Source]:
        name = _study(row)
        uri = f"{inside(row['path'].strip()).removesuffix('.hea')}.hea"
        path = root / uri
        if not exists(path):
            msg = "the list of records names it"
            raise RowError(msg, reason="missing file", uri=uri)
        report, measurements = said.pop(name, _NOTHING)
        subject = row["subject_id"].strip()
        meta = {
            "patient_id": sys.intern(subject) if subject else None,
            "recorded_at": moment(row, "ecg_time"),
            "report": report,
        }
        known = {key: value for key, value in meta.items() if value is not None}
        return name, Source(name, path, uri, meta=known, measurements=measurements)

    wanted = ("subject_id", "study_id", "ecg_time", "path")
    sources = keyed_rows(root / _RECORDS, wanted, take, missing)
    if said:
        notes.append(f"{len(said)} rows of {_MACHINE} belong to no record that was found")
    if (root / _NOTES).is_file():
        notes.append(f"{_NOTES} is not read: join it by study_id, the name of a record")
    return Collection(tuple(sources.values()), missing=tuple(missing), notes=tuple(notes))


def _study(row: Mapping[str, str]) -> str:
    study = row["study_id"].strip()
    if not study.isdecimal() or len(study) > 18:
        msg = "column 'study_id' is not a number"
        raise RowError(msg)
    return study


def _measured(row: dict[str, str]) -> tuple[str, _Said]:
    statements = [text.strip() for column in _REPORTS if (text := row.get(column))]
    report = "\n".join(filter(None, statements)) or None
    found = ((name, _value(name, row.get(column, ""))) for column, name in _MEASURES.items())
    values = {name: value for name, value in found if value is not None}
    return _study(row), (None if report is None else sys.intern(report), values)


@functools.lru_cache(maxsize=2**16)  # 800,000 rows of a few thousand numbers
def _value(name: str, text: str) -> float | None:
    """Return a measurement; a cell that is empty, no number or out of all bounds says nothing."""
    value = (measured({name: text}) or {}).get(name)
    return None if value is None or abs(value) == _NOT_MEASURED else value
