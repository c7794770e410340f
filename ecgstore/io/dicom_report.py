"""What the annotations of a DICOM waveform object say of the whole ECG (PS3.3, C.10.10)."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from ecgstore.io.clinical import MEASUREMENTS
from ecgstore.io.dicom_file import DicomError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ecgstore.io.dicom_file import Node

__all__ = ["Said", "annotations_of"]

_MAX_BYTES = 2**26

# Code values: of MDC by PS3.16, CID 3227-3229; of SCPECG (the sections of EN 1064) as carts write
# them. QTc by Fridericia's formula (2:15892) is left out, as most carts give Bazett's.
_CODES: Mapping[str, str] = MappingProxyType(
    {
        "2:15872": "pr",
        "2:16156": "qrs",
        "2:16160": "qt",
        "2:15876": "qtc",
        "2:15880": "qtc",
        "2:16168": "rr",
        "2:16184": "p_duration",
        "2:16128": "p_axis",
        "2:16132": "qrs_axis",
        "2:16136": "t_axis",
        "5.13.5-7": "pr",
        "5.13.5-9": "qrs",
        "5.13.5-11": "qt",
        "5.10.2.5-5": "qtc",
        "5.10.2.1-3": "rr",
        "5.10.3-11": "p_axis",
        "5.10.3-13": "qrs_axis",
        "5.10.3-15": "t_axis",
    }
)
_MEANINGS: Mapping[str, str] = MappingProxyType(
    {
        "heart rate": "heart_rate",
        "ventricular rate": "heart_rate",
        "ventricular heart rate": "heart_rate",
        "atrial rate": "atrial_rate",
        "atrial heart rate": "atrial_rate",
        "rr interval": "rr",
        "p duration": "p_duration",
        "pr interval": "pr",
        "qrs duration": "qrs",
        "qt interval": "qt",
        "qtc interval": "qtc",
        "p axis": "p_axis",
        "qrs axis": "qrs_axis",
        "t axis": "t_axis",
    }
)
_MS_PER = {"ms": 1.0, "s": 1000.0, "us": 1e-3}


class Said(NamedTuple):
    """What is said of the whole ECG.

    Attributes:
        values: Measurements by name.
        statements: As the file has them.
        flags: ``unread_annotations:dicom`` where there are too many to read.
    """

    values: dict[str, float | str | None]
    statements: list[str]
    flags: list[str]


def annotations_of(root: Node) -> Said:
    """Return what the annotations say of the whole ECG.

    Those of a moment or of single leads are left out. Of several values of one measurement the
    first counts.
    """
    values: dict[str, float | str | None] = {}
    statements: list[str] = []
    try:
        nodes = root.items("WaveformAnnotationSequence", limit=_MAX_BYTES)
    except DicomError as error:
        if error.reason != "too large":
            raise
        return Said({}, [], ["unread_annotations:dicom"])
    for node in nodes:
        if node.data("ReferencedSamplePositions") or node.data("ReferencedTimeOffsets"):
            continue
        text = node.paragraph("UnformattedTextValue")
        coded = [item.text("CodeMeaning") for item in node.items("ConceptCodeSequence")]
        statements += [one for one in (text, *coded) if one]
        concept = next(iter(node.items("ConceptNameCodeSequence")), None)
        if concept is None or any(node.integers("ReferencedWaveformChannels")[1::2]):
            continue
        name = _measurement(concept)
        number = node.number("NumericValue")
        if name is not None and number is not None and name not in values:
            values[name] = number * _factor(node, name)
    return Said(values, statements, [])


def _measurement(concept: Node) -> str | None:
    meaning = " ".join(concept.text("CodeMeaning").lower().split()).removesuffix(" global")
    return _CODES.get(concept.code()) or _MEANINGS.get(meaning)


def _factor(node: Node, name: str) -> float:
    """Return what brings a value to the unit of `MEASUREMENTS`; one writer calls degrees "ms"."""
    units = next(iter(node.items("MeasurementUnitsCodeSequence")), None)
    unit = units.code() if units else ""
    return _MS_PER.get(unit, 1.0) if MEASUREMENTS[name] == "ms" else 1.0
