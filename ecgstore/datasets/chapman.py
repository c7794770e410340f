"""Chapman-Shaoxing and Ningbo: 45,152 12-lead ECGs of as many patients, 500 Hz, 10 s.

Zheng et al., A large scale 12-lead electrocardiogram database for arrhythmia study 1.0.0, doi
10.13026/wgex-er52; Sci Data 7:48 (2020) and Sci Rep 10:2898 (2020). The folder holds
``WFDBRecords/NN/NNN/JSnnnnn.hea`` with ``.mat``, and ``ConditionNames_SNOMED-CT.csv``. The older
copy of the first 10,646 records on figshare (doi 10.6084/m9.figshare.c.4560497) holds
``ECGData/MUSE_*.csv`` and ``Diagnostics.xlsx``.
"""

from __future__ import annotations

import re
from types import MappingProxyType
from typing import TYPE_CHECKING

from ecgstore.datasets.snomed import tasks_of
from ecgstore.datasets.source import Collection, Missing, Source, files_below, single_folder
from ecgstore.datasets.tables import RowError, keyed_rows
from ecgstore.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

__all__ = ["collect"]

_CONDITIONS, _CODE_COLUMN = "ConditionNames_SNOMED-CT.csv", "Snomed_CT"
_NAME = re.compile(r"JS(\d{5})")
_OLD_NAME = re.compile(r"MUSE_\d{8}_\d{6}_\d{5}")
_OLD_FOLDER = "ECGData"
_OLD_TABLE = "Diagnostics.xlsx"
# Neither stands in the files: 500 Hz and microvolts, Zheng et al., Sci Data 7:48, data records.
_OLD_LAYOUT = MappingProxyType({"rate": "500", "unit": "uV"})
# JS00001 to JS10646 are the records of Shaoxing in the first publication, the others Ningbo's;
# the PhysioNet challenge of 2021 divides them so.
_LAST_SHAOXING = 10_646
_SHAOXING, _NINGBO = "chapman_shaoxing", "ningbo"


def collect(folders: Sequence[Path], *, rate: int | None = None) -> Collection:
    """List the records of the arrhythmia database.

    The codes of a record stand in its header and are labelled 1 as ``snomed:CODE``; it is labelled
    0 in all other codes of ``ConditionNames_SNOMED-CT.csv`` or, without that table, in those that
    its hospital uses in the PhysioNet challenge. ``site`` is the hospital, by the number of the
    record. Each record is another patient, so there is no ``patient_id``.

    Of the copy on figshare the signals of ``ECGData`` are read, which are as recorded; neither the
    filtered ones in ``ECGDataDenoised`` nor labels, ages and sexes in ``Diagnostics.xlsx``: save
    that table as CSV with a column ``file`` and give it as a manifest.

    Args:
        folders: The database's root folder.
        rate: Not for this dataset.

    Raises:
        UsageError: There is not one such folder, or a rate was given.
    """
    root = single_folder(folders, rate, wanted="the root folder of the Chapman-Shaoxing database")
    sources: dict[str, Source] = {}
    missing: list[Missing] = []
    strangers = old = 0
    tasks = _tasks(root, missing)
    for uri, path in files_below(root, {".hea", ".csv"}, missing):
        if path.name == _CONDITIONS:
            continue
        site = _site(path)
        if site is None:
            strangers += 1
        elif path.stem in sources:
            missing.append(Missing(uri, "bad metadata", "a record of this name is there twice"))
        elif path.suffix.lower() == ".csv":
            old += 1
            meta, layout = {"site": site}, _OLD_LAYOUT
            sources[path.stem] = Source(path.stem, path, uri, meta=meta, layout=layout)
        else:
            sources[path.stem] = Source(
                path.stem, path, uri, meta={"site": site}, tasks=tasks[site]
            )
    if not sources:
        msg = f"{str(root)!r} holds no records such as 'JS00001.hea' or 'ECGData/MUSE_….csv'."
        raise UsageError(msg, hint="Give the root folder of the Chapman-Shaoxing database.")
    notes = [f"{strangers} other .hea and .csv files not read"] if strangers else []
    if old:
        notes.append(f"{_OLD_TABLE} is not read: the records of {_OLD_FOLDER} come without labels")
    return Collection(tuple(sources.values()), missing=tuple(missing), notes=tuple(notes))


def _site(path: Path) -> str | None:
    """Return the hospital of a record, None for what is no record of this database."""
    if path.suffix.lower() == ".csv":
        known = path.parent.name == _OLD_FOLDER and _OLD_NAME.fullmatch(path.stem)
        return _SHAOXING if known else None
    match = _NAME.fullmatch(path.stem)
    if match is None:
        return None
    return _SHAOXING if int(match[1]) <= _LAST_SHAOXING else _NINGBO


def _tasks(root: Path, missing: list[Missing]) -> dict[str, tuple[str, ...]]:
    """Return the tasks in which the records of each hospital are labelled."""
    if not (root / _CONDITIONS).is_file():
        return {site: tasks_of(site) for site in (_SHAOXING, _NINGBO)}
    codes = keyed_rows(root / _CONDITIONS, (_CODE_COLUMN,), _code, missing)
    return dict.fromkeys((_SHAOXING, _NINGBO), tuple(f"snomed:{code}" for code in codes))


def _code(row: dict[str, str]) -> tuple[str, None]:
    code = row[_CODE_COLUMN].strip()
    if not code.isdecimal() or len(code) > 18:
        msg = "a SNOMED CT code was expected"
        raise RowError(msg)
    return str(int(code)), None
