"""Files of the binary formats and of tables, with people planted in every place they have."""

from __future__ import annotations

import binascii
import datetime as dt
import importlib
import struct
from typing import TYPE_CHECKING, Any

import numpy as np

from .people import SAID, STAFF

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from .people import Person

__all__ = ["csv", "dicom", "edf", "hdf5", "ishne", "matlab", "numpy_arrays", "plain_edf", "scp"]
__all__ += ["wfdb"]

encoder: Any = importlib.import_module("tests.io.scp_encoder")
KEPT = "Normal sinus rhythm"


def counts(n_leads: int = 2, n: int = 1000) -> NDArray[np.int16]:
    """Return a signal that is nobody's, ``(leads, samples)`` microvolts."""
    t = np.arange(n) / 500
    rows = [300 * (k + 1) * np.sin(2 * np.pi * 1.2 * t) ** 9 for k in range(n_leads)]
    return np.rint(rows).astype(np.int16)


def scp(data: Path, path: Path, one: Person) -> None:
    """SCP-ECG."""
    del data
    device = struct.pack("<HHHBB6s", 0, 0, 0, 0, 0, b"MK2000") + bytes(21)
    device += b"\0" + b"1.0\0" + f"{one.other}\0".encode() + b"2.0\0" + b"Acme\0"
    year, month, day = one.born
    fields = {
        0: one.family.upper(),
        1: one.given,
        2: one.number,
        3: one.family,
        5: struct.pack("<HBB", year, month, day),
        8: b"\2",
        10: struct.pack("<BBB", 0, 0, 0) + SAID[3].format(one).encode() + b"\0",
        13: SAID[4].format(one),
        14: device,
        15: device.replace(b"Acme", STAFF[1].encode()),
        16: "Floonhaven",
        17: "Drubbelgate",
        18: "Floonhaven",
        19: "Drubbelgate",
        20: STAFF[0],
        21: STAFF[1],
        22: STAFF[2],
        23: "Floonhaven 4711234",
        25: struct.pack("<HBB", 2011, 3, 1),
        26: bytes([7, 8, 9]),
        30: SAID[3].format(one),
        31: one.other,
        35: SAID[5].format(one),
        255: b"",
    }
    section_1 = b"".join(
        encoder.field(tag, value if isinstance(value, bytes) else f"{value}\0".encode())
        for tag, value in fields.items()
    )
    said = [text.format(one).encode() + b"\0" for text in (*SAID, KEPT)]
    eleven = encoder.statements(*(b"\1" + text for text in said))
    sections = encoder.simple(
        encoder.ecg(3, 400), s1=section_1, s8=encoder.statements(*said), s11=eleven
    )
    path.write_bytes(encoder.record({**sections, 10: b"\0".join(said)}))


def dicom(data: Path, path: Path, one: Person) -> None:
    """DICOM, with private elements and annotations."""
    import pydicom
    from pydicom.dataset import Dataset
    from pydicom.sequence import Sequence

    root = pydicom.dcmread(data / "data/formats/dicom/example_500hz.dcm")
    more = Dataset()
    more.PatientID = one.other
    root.OtherPatientIDsSequence = Sequence([more])
    for keyword, text in {
        "PatientName": f"{one.family}^{one.given}",
        "PatientID": one.number,
        "OtherPatientNames": f"{one.given}^{one.family}",
        "PatientBirthDate": one.ymd,
        "PatientSex": "F",
        "PatientAge": "079Y",
        "PatientAddress": "1 Drubbelgate",
        "PatientTelephoneNumbers": "555-0173",
        "PatientComments": SAID[3].format(one),
        "AdditionalPatientHistory": SAID[4].format(one),
        "AccessionNumber": one.other,
        "StudyID": one.other,
        "StudyDescription": f"ECG of {one.family}",
        "InstitutionName": "Floonhaven",
        "InstitutionAddress": "Drubbelgate",
        "InstitutionalDepartmentName": "Floonhaven",
        "StationName": "Floonhaven",
        "ReferringPhysicianName": f"{STAFF[0]}^Dr",
        "PerformingPhysicianName": STAFF[0],
        "NameOfPhysiciansReadingStudy": STAFF[1],
        "OperatorsName": STAFF[2],
        "DeviceSerialNumber": one.other,
        "CurrentPatientLocation": "Floonhaven",
        "AdmissionID": one.other,
        "Manufacturer": "Acme",
        "ManufacturerModelName": "Cart 9",
        "AcquisitionDateTime": "20110301070809",
        "StudyInstanceUID": f"1.2.3.{one.number}.{one.other}",
        "SOPInstanceUID": f"1.2.3.{one.number}.{one.ymd}",
    }.items():
        setattr(root, keyword, text)
    private = root.private_block(0x0009, "QUENBYHART 1.0", create=True)
    private.add_new(1, "LO", f"{one.family} {one.number}")
    notes = []
    for text in (*SAID, KEPT):
        note = Dataset()
        note.UnformattedTextValue = text.format(one)
        notes.append(note)
    root.WaveformAnnotationSequence = Sequence(notes)
    first = root.WaveformSequence[0].ChannelDefinitionSequence[0]
    first.ChannelLabel = one.family
    root.save_as(path)


def edf(data: Path, path: Path, one: Person) -> None:
    """EDF+, by the library."""
    del data
    import pyedflib

    writer = pyedflib.EdfWriter(str(path), 3, file_type=pyedflib.FILETYPE_EDFPLUS)
    writer.setPatientCode(one.number)
    writer.setPatientName(f"{one.given} {one.family}")
    writer.setPatientAdditional("Drubbelgate")
    writer.setBirthdate(dt.date(*one.born))
    writer.setSex(0)
    writer.setTechnician(STAFF[0])
    writer.setAdmincode("4711234")
    writer.setEquipment("Cart 9")
    writer.setRecordingAdditional("Floonhaven")
    writer.setStartdatetime(dt.datetime(2011, 3, 1, 7, 8, 9))
    rows = counts(3).astype(np.float64)
    for number, label in enumerate(("II", "V1", one.family)):
        writer.setSignalHeader(
            number,
            {
                "label": label,
                "dimension": "uV",
                "sample_frequency": 500,
                "physical_max": 32767,
                "physical_min": -32768,
                "digital_max": 32767,
                "digital_min": -32768,
                "transducer": f"by {STAFF[1]}",
                "prefilter": one.number,
            },
        )
    for second, text in enumerate((*SAID, KEPT)):
        writer.writeAnnotation(second / 8, -1, text.format(one))
    writer.writeSamples(list(rows))
    writer.close()


def plain_edf(data: Path, path: Path, one: Person) -> None:
    """EDF before EDF+, whose identification is free text."""
    raw = bytearray((data / "data/formats/edf_bdf/00004_hr_12lead.edf").read_bytes())
    raw[8:88] = f"{one.family} {one.given} {one.number} {one.dmy}".encode().ljust(80)
    raw[88:168] = f"Floonhaven, {STAFF[0]}, 4711234".encode().ljust(80)
    raw[192:197] = b"     "
    path.write_bytes(raw)


def ishne(data: Path, path: Path, one: Person) -> None:
    """ISHNE, its text block filled."""
    raw = (data / "data/formats/ishne/105_5min_2lead.ecg").read_bytes()
    header = bytearray(raw[10:522])
    n, offset = 720, struct.unpack_from("<i", header, 12)[0]
    text = "\r\n".join(said.format(one) for said in SAID).encode()
    struct.pack_into("<4i", header, 0, len(text), n, 522, 522 + len(text))
    year, month, day = one.born
    names = (one.given.encode(), one.family.encode(), one.number.encode())
    struct.pack_into("<40s40s20s2h3h3h", header, 18, *names, 2, 0, day, month, year, 1, 3, 2011)
    struct.pack_into("<40s", header, 222, f"recorder of {one.family}".encode())
    body = bytes(header) + text
    crc = binascii.crc_hqx(body, 0xFFFF)
    path.write_bytes(raw[:8] + struct.pack("<H", crc) + body + raw[offset : offset + 4 * n])


def csv(data: Path, path: Path, one: Person) -> None:
    """A table with comments, and columns that hold no signal."""
    del data
    lines = [
        f"# Patient: {one.given} {one.family}",
        f"# MRN = {one.number}",
        f"# Date of birth: {one.iso}",
        f"# Physician: Dr {STAFF[0]}, Floonhaven",
        *(f"# {text.format(one)}" for text in SAID),
        "# rate_hz: 500",
        f"I (mV),II (mV),V1 (mV),{one.family} (mmHg),mrn (number),patient_id",
        *(f"{a / 1000},{b / 1000},0,1,{one.number},{one.number}" for a, b in counts().T),
    ]
    path.write_text("\n".join(lines) + "\n")


def numpy_arrays(data: Path, path: Path, one: Person) -> None:
    """An archive of arrays with more than signals in it."""
    del data
    more: dict[str, Any] = {
        "patient_name": f"{one.family}, {one.given}",
        "patient_id": int(one.number),
        "birth_date": one.iso,
        "notes": np.array([text.format(one) for text in SAID]),
        one.family: np.arange(3),
    }
    leads = np.array(["II", "V1", one.family.upper()])
    np.savez(path, signal=counts(3), rate_hz=500, leads=leads, unit="uV", **more)


def matlab(data: Path, path: Path, one: Person) -> None:
    """MATLAB variables and a struct beside the signal."""
    del data
    import scipy.io

    patient = {"name": f"{one.given} {one.family}", "id": one.number, "dob": one.iso}
    variables: dict[str, Any] = {  # people first: they stay in a file that is cut short
        "patient": patient,
        "physician": STAFF[0],
        "val": counts(3),
        "fs": 500,
        "unit": "uV",
        "leads": np.array(["II", "V1", one.family], dtype=object),
        "notes": np.array([text.format(one) for text in SAID], dtype=object),
        one.family: 1,
    }
    scipy.io.savemat(path, variables)


def hdf5(data: Path, path: Path, one: Person) -> None:
    """HDF5 with attributes, data sets and groups beside the signals."""
    del data
    import h5py

    with h5py.File(path, "w") as file:
        signal = file.create_dataset("signal", data=counts(3))
        signal.attrs["operator"] = STAFF[0]
        signal.attrs["subject_name"] = one.given
        file["rate_hz"] = 500
        file["unit"] = "uV"
        file["leads"] = np.array([b"II", b"V1", one.family.encode()])
        file.attrs["patient_id"] = one.number
        file.attrs["comment"] = SAID[3].format(one)
        file["patient/name"] = f"{one.family}^{one.given}"
        file["notes"] = [text.format(one) for text in SAID]
        file[one.family] = np.arange(3)


def wfdb(data: Path, path: Path, one: Person) -> None:
    """A WFDB record: header with comments, samples, annotations with texts."""
    del data
    x, name = counts(3), path.stem
    header = [f"{name} 3 500 {x.shape[1]} 07:08:09 01/03/2011"]
    for lead, row in zip(("II", "V1", one.family), x, strict=True):
        total = int(row.sum(dtype=np.int64)) & 0xFFFF
        header.append(f"{name}.dat 16 1000/mV 16 0 {row[0]} {total} 0 {lead}")
    header += [
        "# Age: 79  Sex: F",
        f"# Name: {one.given} {one.family}",
        f"# Patient ID: {one.number}",
        f"# Born: {one.iso}",
        *(f"# {text.format(one)}" for text in SAID),
    ]
    path.write_text("\n".join(header) + "\n")
    path.with_suffix(".dat").write_bytes(x.T.tobytes())
    words = b""
    for text in (*SAID, "(AFIB", KEPT):
        raw = text.format(one).encode()
        words += (
            struct.pack("<HH", 22 << 10 | 9, 63 << 10 | len(raw)) + raw + b"\0" * (len(raw) % 2)
        )
    path.with_suffix(".atr").write_bytes(words + b"\0\0")
