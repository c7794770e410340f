"""Read DICOM waveform objects: 12-lead, general and ambulatory ECG (PS3.3, A.34), by pydicom."""

from __future__ import annotations

import datetime as dt
import hashlib
import itertools
import re
from types import MappingProxyType
from typing import TYPE_CHECKING

from ecgstore.io.assemble import assemble, refuse
from ecgstore.io.clinical import age_of, measured, report_of, sex_of
from ecgstore.io.dicom_file import DicomError, Node, looks_like_dicom, open_dicom
from ecgstore.io.dicom_report import annotations_of
from ecgstore.io.dicom_waveforms import waveforms
from ecgstore.io.files import file_bytes
from ecgstore.io.reader import Reader

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from ecgstore.record import Record

__all__ = ["READER", "read"]

# PS3.4, B.5: the SOP classes of electrocardiograms.
_ECG = frozenset(f"1.2.840.10008.5.1.4.1.1.9.{kind}" for kind in ("1.1", "1.2", "1.3", "1.4"))
_PRINTED: Mapping[str, str] = MappingProxyType(
    {
        "1.2.840.10008.5.1.4.1.1.104.1": "a PDF (a printed ECG)",
        "1.2.840.10008.5.1.4.1.1.7": "a picture (secondary capture)",
    }
)
_HINT = "Ask the archive for the waveform object of the ECG (modality ECG)."
_IDENTIFIERS = (
    *("PatientName", "PatientID", "OtherPatientIDs", "OtherPatientNames", "PatientBirthName"),
    *("PatientMotherBirthName", "PatientAddress", "PatientTelephoneNumbers", "AdmissionID"),
    *("MedicalRecordLocator", "AccessionNumber", "InstitutionName", "InstitutionAddress"),
    *("InstitutionalDepartmentName", "ReferringPhysicianName", "PerformingPhysicianName"),
    *("NameOfPhysiciansReadingStudy", "PhysiciansOfRecord", "RequestingPhysician"),
    *("ConsultingPhysicianName", "ScheduledPerformingPhysicianName", "OperatorsName"),
    *("ResponsiblePerson", "DeviceSerialNumber"),
)
_DATE = re.compile(r"(\d{4})\.?(\d\d)\.?(\d\d)")
_TIME = re.compile(r"(\d\d):?(\d\d)?:?(\d\d)?(?:\.(\d{1,6}))?")


def read(path: Path) -> Record:
    """Return the continuous ECG of a DICOM waveform object.

    Counts are those of the file. Samples that are padding, or the most negative number of a
    signed type, are invalid. Averaged beats are left out; see `ecgstore.io.dicom_waveforms` for
    flags and for an ECG in several multiplex groups. Measurements and statements are those of the
    waveform annotations.

    Args:
        path: The file, with or without preamble.

    Raises:
        ReadError: With a reason of `ecgstore.io.assemble.REASONS`.
        MissingDependencyError: pydicom is not installed.
    """
    data = file_bytes(path)
    if not data:
        raise refuse(path, "empty file", "the file is empty")
    try:
        root = open_dicom(data)
        _check_kind(path, root)
        ecg = waveforms(root)
        said = annotations_of(root)
        numbers = [node.texts("PatientID") for node in root.items("OtherPatientIDsSequence")]
        people = itertools.chain(*map(root.texts, _IDENTIFIERS), *numbers)
        identifiers = tuple(dict.fromkeys(people))
        report, withheld = report_of(said.statements, identifiers)
        meta = {
            "source_format": "dicom",
            "source_sha256": hashlib.sha256(data).hexdigest(),
            "patient_id": root.text("PatientID") or None,
            "sex": sex_of(root.text("PatientSex")),
            "device": _device(root),
            "report": report,
            "measurements": measured(said.values),
            "identifiers": identifiers,
            **_times(root),
        }
    except DicomError as error:
        raise refuse(path, error.reason, str(error)) from error
    flags = [*ecg.flags, *said.flags, *withheld]
    return assemble(path, ecg.signals, rate_hz=ecg.rate_hz, meta=meta, quality=flags)


def _matches(head: bytes, _: Path) -> bool:
    return looks_like_dicom(head)


READER = Reader(
    name="dicom",
    summary="DICOM waveform object: 12-lead, general or ambulatory ECG",
    suffixes=(".dcm", ".dicom"),
    matches=_matches,
    read=read,
)


def _check_kind(path: Path, root: Node) -> None:
    """Refuse an object that is no ECG, and say what it is."""
    from pydicom.config import IGNORE
    from pydicom.uid import UID

    kind = root.text("SOPClassUID")
    if kind in _ECG or (not kind and root.items("WaveformSequence", limit=2**31)):
        return
    known = UID(kind, validation_mode=IGNORE).name  # the number itself where it has no name
    named = f"of kind {known!r}" if kind and known != kind else "of an unknown kind"
    what = _PRINTED.get(kind) or named
    raise refuse(path, "unsupported format", f"it is a DICOM object, but {what}", hint=_HINT)


def _device(root: Node) -> str | None:
    made = [root.text("Manufacturer"), root.text("ManufacturerModelName")]
    return " ".join(one for one in made if one and one.lower() != "unknown") or None


def _times(root: Node) -> dict[str, object]:
    """Return when the ECG was recorded, and the patient's age then."""
    stamp = root.text("AcquisitionDateTime")
    recorded = _datetime(stamp[:8], stamp[8:])
    for of in ("Acquisition", "Content", "Study"):
        recorded = recorded or _datetime(root.text(f"{of}Date"), root.text(f"{of}Time"))
    born = _datetime(root.text("PatientBirthDate"), "")
    stated = root.text("PatientAge")  # PS3.5, 6.2: 054Y
    age = age_of(
        stated[:-1] or None,
        stated[-1:],
        born=born and born.date(),
        recorded=recorded and recorded.date(),
    )
    return {"recorded_at": recorded, "age": age}


def _datetime(date: str, time: str) -> dt.datetime | None:
    """Return the moment of a date (DA) and time (TM); the time zone of a DT is left out."""
    day, clock = _DATE.match(date), _TIME.match(time)
    if day is None:
        return None
    hour, minute, second, part = clock.groups() if clock else (None,) * 4
    try:
        return dt.datetime(
            int(day[1]),
            int(day[2]),
            int(day[3]),
            int(hour or 0),
            int(minute or 0),
            int(second or 0),
            int((part or "").ljust(6, "0")),
        )
    except ValueError:
        return None
