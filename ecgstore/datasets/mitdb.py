"""Long annotated records of PhysioNet: the MIT-BIH Arrhythmia Database and others of its kind.

A folder of ``.hea``, ``.dat`` and annotation files (``.atr``, ``.ecg``, …), which the WFDB reader
turns into rows of ``annotations``. What it cannot know is who the subject is.
"""

from __future__ import annotations

import re
from types import MappingProxyType
from typing import TYPE_CHECKING

from ecgstore.datasets.ptb import header_comments
from ecgstore.datasets.source import Collection, Label, Missing, Source, files_below, single_folder
from ecgstore.errors import UsageError
from ecgstore.io.clinical import age_of, sex_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

__all__ = ["DATABASES", "collect"]

DATABASES: Mapping[str, re.Pattern[str]] = MappingProxyType(
    {
        # doi 10.13026/C2F305; x_108 is an excerpt of record 108's tape that has no annotations
        "mitdb": re.compile(r"(?:x_)?(?P<subject>[12]\d\d)"),
        # doi 10.13026/C2HS3T; 118e06 is record 118 of mitdb with noise, 6 dB; bw, em, ma noise
        "nstdb": re.compile(r"(?P<subject>11[89])e_?\d\d?|bw|em|ma"),
        # doi 10.13026/C24K53; named after the record of the database that each was taken from
        "qtdb": re.compile(r"sel(?P<subject>e?\d{2,5})"),
        # doi 10.13026/C2S881; beats only, without a signal
        "nsr2db": re.compile(r"(?P<subject>nsr\d{3})"),
        # doi 10.13026/ksya-qw89
        "cpsc2021": re.compile(r"data_(?P<subject>\d{1,4})_\d{1,3}"),
        # doi 10.13026/C2MW2D
        "afdb": re.compile(r"(?P<subject>\d{5})"),
    }
)
"""Names of the records of each database, and what in them is the subject."""

# "Records 201 and 202 came from the same male subject": the directory of the MIT-BIH database.
_SAME_SUBJECT = {"202": "201"}
_SHARES_MITDB = frozenset({"mitdb", "nstdb", "qtdb"})
# A line such as "69 M 1085 1629 x1": age, sex, tape and recorder of the MIT-BIH database.
_PERSON = re.compile(r"(-?\d{1,3}|\?)\s+([MF?])\b.*")
# What the header of a record of CPSC 2021 says of all of it.
_RHYTHMS = {
    "non atrial fibrillation": "CPSC2021:N",
    "persistent atrial fibrillation": "CPSC2021:AFf",
    "paroxysmal atrial fibrillation": "CPSC2021:AFp",
}


def collect(folders: Sequence[Path], *, database: str, rate: int | None = None) -> Collection:
    """List the records of a database with subjects, age and sex.

    A record is a subject but for 201 and 202 of the MIT-BIH Arrhythmia Database, which are one,
    and the records of CPSC 2021, whose names hold subject and part. The records of CPSC 2021 are
    labelled in ``CPSC2021:N``, ``CPSC2021:AFf`` (persistent) and ``CPSC2021:AFp`` (paroxysmal
    atrial fibrillation), where their headers say so. Noise without an ECG is flagged ``no_ecg``.

    Args:
        folders: The database's folder.
        database: A key of `DATABASES`.
        rate: Not for these datasets.

    Raises:
        UsageError: There is not one such folder, or a rate was given.
    """
    root = single_folder(folders, rate, wanted=f"the folder of {database}")
    names = DATABASES[database]
    sources: dict[str, Source] = {}
    missing: list[Missing] = []
    strangers = 0
    for uri, path in files_below(root, {".hea"}, missing):
        match = names.fullmatch(path.stem)
        if match is None:
            strangers += 1
        elif path.stem in sources:
            missing.append(Missing(uri, "bad metadata", "a record of this name is there twice"))
        else:
            sources[path.stem] = _source(path, uri, match["subject"], database)
    if not sources:
        msg = f"{str(root)!r} holds no records with names as those of {database}."
        raise UsageError(msg, hint=f"Give the folder of {database}, or take a name of your own.")
    notes = [f"{strangers} headers with other names not read"] if strangers else []
    return Collection(tuple(sources.values()), missing=tuple(missing), notes=tuple(notes))


def _source(path: Path, uri: str, subject: str | None, database: str) -> Source:
    comments = header_comments(path)
    meta: dict[str, object] = {}
    if subject is not None:
        shared = database in _SHARES_MITDB
        meta["patient_id"] = _SAME_SUBJECT.get(subject, subject) if shared else subject
    person = next((match for line in comments if (match := _PERSON.fullmatch(line))), None)
    if person is not None:
        known = {"age": age_of(person[1]), "sex": sex_of(person[2])}
        meta |= {key: value for key, value in known.items() if value is not None}
    rhythm = next((_RHYTHMS[line.lower()] for line in comments if line.lower() in _RHYTHMS), None)
    labelled = database == "cpsc2021" and rhythm is not None
    return Source(
        name=path.stem,
        path=path,
        uri=uri,
        meta=meta,
        labels=(Label(rhythm, 1.0, None),) if labelled and rhythm else (),
        tasks=tuple(_RHYTHMS.values()) if labelled else (),
        quality=() if subject is not None else ("no_ecg",),
    )
