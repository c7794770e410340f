"""Formats that ECGs come in and that cannot be read: what they are, and what to do instead."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from ecgstore.io.xml import root_name

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Unsupported", "what_is"]


class Unsupported(NamedTuple):
    """A format that is known by name only.

    Attributes:
        name: What it is.
        hint: What to do.
    """

    name: str
    hint: str


_UNPACK = "Unpack it first; the files inside can be read."
_SCAN = "Ask the cart's archive for the digital record, such as XML, SCP-ECG or DICOM."
_EXPORT = "Export it from the vendor's program as DICOM, HL7 aECG, SCP-ECG, EDF or CSV."

# Where a magic number stands, and what it means. Sources: the format specifications named.
_MAGIC = (
    (0, b"%PDF", Unsupported("a PDF (a printed ECG)", _SCAN)),
    (0, b"\x89PNG", Unsupported("a picture (PNG)", _SCAN)),
    (0, b"\xff\xd8\xff", Unsupported("a picture (JPEG)", _SCAN)),
    (0, b"II*\0", Unsupported("a picture (TIFF)", _SCAN)),
    (0, b"MM\0*", Unsupported("a picture (TIFF)", _SCAN)),
    (0, b"\x1f\x8b", Unsupported("a gzip archive", _UNPACK)),
    (0, b"BZh", Unsupported("a bzip2 archive", _UNPACK)),
    (0, b"\xfd7zXZ", Unsupported("an xz archive", _UNPACK)),
    (0, b"7z\xbc\xaf", Unsupported("a 7-Zip archive", _UNPACK)),
    (257, b"ustar", Unsupported("a tar archive", _UNPACK)),
    (0, b"PK\x03\x04", Unsupported("a ZIP archive", _UNPACK)),
    (0, b"\xd0\xcf\x11\xe0", Unsupported("an old Microsoft Office document", _EXPORT)),
    (0, b"GDF ", Unsupported("General Data Format (GDF)", "Convert it to EDF with biosig.")),
    (0, b"ALIVE\0\0\0", Unsupported("AliveCor ATC", "Export it as EDF or CSV.")),
    (0, b"POLY SAMPLE FILE", Unsupported("TMSi Poly5", "Export it as EDF.")),
    (0, b"Brain Vision", Unsupported("BrainVision", "Convert it to EDF with MNE-Python.")),
    (0, b"\x40\x20", Unsupported("MFER (ISO 22077)", "Export it as DICOM or HL7 aECG.")),
    (0, b"CFWB", Unsupported("LabChart binary (CFWB)", "Export it as EDF or CSV.")),
    (0, b"ANN  1.0", Unsupported("ISHNE annotations", "Read the .ecg file beside it.")),
    (0, b"SQLite format 3", Unsupported("an SQLite database", _EXPORT)),
    (0, b"PAR1", Unsupported("Parquet", "Query it with ecgstore sql: from 'file.parquet'.")),
    (0, b"\x80\x04\x95", Unsupported("a Python pickle, which can run code", "Save it as .npz.")),
    (0, b"\x80\x05\x95", Unsupported("a Python pickle, which can run code", "Save it as .npz.")),
)
_ROOTS = {
    "ECGExport": "XML of a Mortara ELI cart",
    "ECG": "XML of an unknown cart",
    "CardiologyXML": "GE CardioSoft/Case XML",
    "sapphire": "GE Sapphire XML",
    "StressTest": "a stress test in XML",
    "HolterECG": "a Holter report in XML",
    "Observation": "HL7 FHIR in XML",
    "Bundle": "HL7 FHIR in XML",
    "html": "a web page",
}
_XML_STARTS = (b"<", b"\xef\xbb\xbf<", b"\xff\xfe<", b"\xfe\xff\x00<")


def what_is(head: bytes, path: Path) -> Unsupported | None:
    """Return what a file is that no reader takes, None where it is not known at all.

    Args:
        head: Its first bytes.
        path: Its name decides where content does not.
    """
    for at, magic, found in _MAGIC:
        if head[at:].startswith(magic):
            return found
    if head.lstrip().startswith(_XML_STARTS):
        root = root_name(head)
        what = _ROOTS.get(root or "", "XML that is not of a known ECG cart")
        return Unsupported(what, _EXPORT)
    if head.lstrip().startswith((b"{", b"[")):
        return Unsupported("JSON", "Write a CSV or .npz of the samples, or an HL7 aECG.")
    if path.suffix.lower() in {".mwf", ".mfer"}:
        return Unsupported("MFER (ISO 22077)", "Export it as DICOM or HL7 aECG.")
    if path.suffix.lower() in {".pkl", ".pickle"}:
        return Unsupported("a Python pickle, which can run code", "Save it as .npz.")
    return None
