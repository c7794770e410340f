"""GE MUSE XML, held against the standard library's base64 and struct, and files made here."""

from __future__ import annotations

import base64
import datetime as dt
import random
import struct
import zlib
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree
from xml.sax.saxutils import escape

import numpy as np
import pytest

from ecgstore.errors import ReadError
from ecgstore.io.muse import READER, read
from ecgstore.record import LEADS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

REAL = ("braveheart_example1", "braveheart_example2", "muse_ecg1", "muse_ecg2")
STORED = ("I", "II", "V1", "V2", "V3", "V4", "V5", "V6")


def lead(name: str, counts: Sequence[int], **changed: object) -> str:
    raw = struct.pack(f"<{len(counts)}h", *counts)
    fields: dict[str, object] = {
        "LeadByteCountTotal": len(raw),
        "LeadTimeOffset": 0,
        "LeadSampleCountTotal": len(counts),
        "LeadAmplitudeUnitsPerBit": 4.88,
        "LeadAmplitudeUnits": "MICROVOLTS",
        "LeadHighLimit": 32767,
        "LeadLowLimit": -32768,
        "LeadID": name,
        "LeadOffsetFirstSample": 0,
        "FirstSampleBaseline": 0,
        "LeadSampleSize": 2,
        "LeadOff": "FALSE",
        "BaselineSway": "FALSE",
        "LeadDataCRC32": zlib.crc32(raw),
        "WaveFormData": base64.encodebytes(raw).decode(),
    } | changed
    parts = (f"<{tag}>{text}</{tag}>" for tag, text in fields.items() if text is not None)
    return f"<LeadData>{''.join(parts)}</LeadData>"


def waveform(
    leads: Sequence[str],
    *,
    kind: str = "Rhythm",
    base: object = 500,
    exponent: int = 0,
    number: int | None = None,
) -> str:
    return (
        f"<Waveform><WaveformType>{kind}</WaveformType>"
        f"<NumberofLeads>{len(leads) if number is None else number}</NumberofLeads>"
        "<SampleType>CONTINUOUS_SAMPLES</SampleType>"
        f"<SampleBase>{base}</SampleBase><SampleExponent>{exponent}</SampleExponent>"
        f"{''.join(leads)}</Waveform>"
    )


def diagnosis(*pieces: tuple[str, bool], tag: str = "Diagnosis") -> str:
    body = "".join(
        f"<DiagnosisStatement>{'<StmtFlag>ENDSLINE</StmtFlag>' if ends else ''}"
        f"<StmtText>{escape(text)}</StmtText></DiagnosisStatement>"
        for text, ends in pieces
    )
    return f"<{tag}><Modality>RESTING</Modality>{body}</{tag}>"


@pytest.fixture
def muse(tmp_path: Path) -> Callable[..., Path]:
    """Return a call that writes a file of the sections given."""

    def write(*sections: str) -> Path:
        path = tmp_path / "x.xml"
        path.write_text(
            '<?xml version="1.0" encoding="ISO-8859-1"?>\n'
            '<!DOCTYPE RestingECG SYSTEM "restecg.dtd">\n'
            f"<RestingECG>{''.join(sections)}</RestingECG>",
            encoding="latin-1",
        )
        return path

    return write


def refused(path: Path) -> ReadError:
    with pytest.raises(ReadError) as caught:
        read(path)
    return caught.value


RAMP = list(range(-50, 50))


@pytest.mark.parametrize("name", REAL)
def test_counts_of_real_files_are_those_of_the_standard_library(test_data: Path, name: str) -> None:
    path = test_data / f"data/formats/muse_xml/{name}.xml"
    rhythm = ElementTree.parse(path).getroot().findall("Waveform")[1]
    truth = {
        one.findtext("LeadID"): np.array(
            struct.unpack("<5000h", base64.b64decode(one.findtext("WaveFormData") or ""))
        )
        for one in rhythm.findall("LeadData")
    }
    record = read(path)
    assert (record.leads, record.rate_hz, record.n_samples) == (LEADS, 500.0, 5000)
    for stored in STORED:
        at = record.leads.index(stored)
        np.testing.assert_array_equal(record.digital[at], truth[stored])
        assert (record.gain[at], record.baseline[at]) == (1000 / 4.88, 0)
    one, two = truth["I"] * 0.00488, truth["II"] * 0.00488
    derived = (two - one, -(one + two) / 2, one - two / 2, two - one / 2)
    np.testing.assert_allclose(record.signal_mv[2:6], derived, atol=1e-9)
    assert "derived:III,aVR,aVL,aVF" in record.quality
    assert "unverified_checksum" not in record.quality


def test_what_a_real_file_says_besides(test_data: Path) -> None:
    meta: Any = read(test_data / "data/formats/muse_xml/muse_ecg1.xml").meta
    assert meta["recorded_at"] == dt.datetime(2021, 5, 10, 13, 15, 18)
    assert (meta["age"], meta["sex"], meta["device"]) == (60.0, "male", "MAC55")
    assert meta["patient_id"] == "JAX01234"
    assert {"TEST 05", "LAST", "JAX01234", "SCD06526477PA"} <= set(meta["identifiers"])
    assert "report" not in meta  # its statements are placeholders
    assert meta["measurements"] == {
        "heart_rate": 60, "atrial_rate": 60, "rr": 1000, "pr": 158, "qrs": 78, "qt": 364,
        "qtc": 364, "p_axis": 49, "qrs_axis": 54, "t_axis": 46, "p_onset": 280, "p_offset": 358,
        "qrs_onset": 438, "qrs_offset": 516, "t_offset": 802,
    }  # fmt: skip


def test_only_muse_is_recognised(test_data: Path, muse: Any) -> None:
    formats = test_data / "data/formats"
    for folder in ("muse_xml", "philips_xml", "schiller_xml", "hl7_aecg", "scp", "csv"):
        for path in (formats / folder).iterdir():
            head = path.read_bytes()[:4096]
            assert READER.matches(head, path) is (folder == "muse_xml"), path.name
    assert not READER.matches(b"", muse())
    assert refused(formats / "schiller_xml/sample.xml").reason == "unknown format"


def test_leads_beyond_the_eight_are_kept_and_twelve_need_no_deriving(muse: Any) -> None:
    names = (*STORED, "III", "AVR", "AVL", "AVF", "V3R", "V4R", "V7")
    leads = [lead(name, [at] * 9 + [0]) for at, name in enumerate(names)]
    record = read(muse(waveform(leads, base=1, exponent=3)))
    assert record.leads == (*LEADS, "V3R", "V4R", "V7")
    assert record.digital[:, 0].tolist() == [0, 1, 8, 9, 10, 11, 2, 3, 4, 5, 6, 7, 12, 13, 14]
    assert record.rate_hz == 1000.0
    assert not any(flag.startswith("derived") for flag in record.quality)


def test_unit_and_scale_are_those_of_each_lead(muse: Any) -> None:
    leads = [
        lead("I", RAMP, LeadAmplitudeUnitsPerBit=0.01, LeadAmplitudeUnits="MILLIVOLTS"),
        lead("V1", RAMP, LeadAmplitudeUnitsPerBit=2.5),
    ]
    record = read(muse(waveform(leads)))
    np.testing.assert_allclose(record.signal_mv[0], np.array(RAMP) * 0.01)
    np.testing.assert_allclose(record.signal_mv[1], np.array(RAMP) * 0.0025)


def test_what_the_cart_says_of_a_lead_becomes_a_flag(muse: Any) -> None:
    leads = [
        lead("I", RAMP, LeadOff="TRUE"),
        lead("II", RAMP, BaselineSway="TRUE"),
        lead("V1", RAMP, LeadDataCRC32=0),
        lead("V2", [*RAMP[1:], 2047], LeadHighLimit=2047, LeadLowLimit=-2048),
        lead("V3", RAMP, FirstSampleBaseline=7),
    ]
    quality = read(muse(waveform(leads))).quality
    assert {
        "lead_off:I", "baseline_sway:II", "unverified_checksum", "saturated:V2",
        "first_sample_baseline:V3",
    } <= set(quality)  # fmt: skip
    assert not {"lead_off:II", "saturated:V1"} & set(quality)


def test_the_lowest_count_is_a_sample_not_a_gap(muse: Any) -> None:
    record = read(muse(waveform([lead("I", [-32768, 0, 100, 200])])))
    np.testing.assert_allclose(record.signal_mv[0], [-32768 * 0.00488, 0, 0.488, 0.976], atol=1e-9)
    assert "saturated:I" in record.quality


def test_a_median_is_no_record_and_a_second_rhythm_is_flagged(muse: Any) -> None:
    median, rhythm = waveform([lead("I", [1, 2])], kind="Median"), waveform([lead("I", RAMP)])
    assert read(muse(median, rhythm)).n_samples == len(RAMP)
    assert "unread_waveforms:1" in read(muse(rhythm, rhythm)).quality
    assert refused(muse(median)).reason == "no signals"


DATA = base64.b64encode(bytes(range(200))).decode()


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"LeadDataCRC32": 1}, "wrong checksum"),
        ({"LeadSampleCountTotal": 101, "LeadByteCountTotal": 202}, "truncated"),
        ({"LeadSampleCountTotal": 4_000_000_000}, "truncated"),
        ({"LeadSampleCountTotal": 99, "LeadByteCountTotal": 198}, "bad samples"),
        ({"LeadSampleCountTotal": "many"}, "bad header"),
        ({"WaveFormData": DATA[:-3] + "*A="}, "bad samples"),
        ({"WaveFormData": ""}, "truncated"),
        ({"WaveFormData": None}, "truncated"),
        ({"WaveFormData": "é"}, "bad samples"),
        ({"LeadSampleSize": 4}, "unsupported format"),
        ({"LeadTimeOffset": 1250}, "unsupported format"),
        ({"LeadAmplitudeUnitsPerBit": 0}, "bad header"),
        ({"LeadAmplitudeUnitsPerBit": "nan"}, "bad header"),
        ({"LeadAmplitudeUnitsPerBit": None}, "bad header"),
        ({"LeadAmplitudeUnits": "MMHG"}, "unknown unit"),
        ({"LeadAmplitudeUnits": None}, "unknown unit"),
        ({"LeadID": None}, "no leads"),
        ({"LeadID": "I"}, "duplicate leads"),
    ],
)
def test_a_lead_that_contradicts_itself_is_refused(
    muse: Any, changed: dict[str, Any], reason: str
) -> None:
    assert refused(muse(waveform([lead("I", RAMP), lead("II", RAMP, **changed)]))).reason == reason


@pytest.mark.parametrize(
    ("section", "reason"),
    [
        ("", "no signals"),
        (waveform([]), "no signals"),
        (waveform([lead("I", RAMP)], number=8), "truncated"),
        (waveform([lead("I", RAMP)] * 2, number=1), "bad header"),
        (waveform([lead("I", RAMP)], base=""), "bad header"),
        (waveform([lead("I", RAMP)], base=-500), "bad header"),
        (waveform([lead("I", RAMP)], exponent=400), "bad header"),
        (waveform([lead("I", RAMP)], base="inf"), "bad header"),
        (waveform([lead("I", [])]), "no samples"),
        (waveform([lead("I", RAMP), lead("II", RAMP[1:])]), "truncated"),
    ],
)
def test_a_waveform_that_contradicts_itself_is_refused(
    muse: Any, section: str, reason: str
) -> None:
    assert refused(muse(section)).reason == reason


def test_statements_are_joined_to_lines_and_the_overreader_has_the_word(muse: Any) -> None:
    rhythm = waveform([lead("I", RAMP)])
    machine = diagnosis(("Sinus tachycardia", True), tag="OriginalDiagnosis")
    human = diagnosis(
        ("Sinus rhythm", False),
        ("with 1st degree A-V block", True),
        ("Reviewed by Dr. Mustermann", True),
        ("Abnormal ECG", True),
    )
    record = read(muse(machine, human, rhythm))
    assert record.meta["report"] == "Sinus rhythm with 1st degree A-V block\nAbnormal ECG"
    assert "withheld_statements:1" in record.quality
    assert read(muse(machine, diagnosis(), rhythm)).meta["report"] == "Sinus tachycardia"


def test_no_name_or_id_leaves_through_meta_flags_or_errors(muse: Any) -> None:
    people = (
        "<PatientDemographics><PatientID>4711-0815</PatientID><DateofBirth>02-29-1960</DateofBirth>"
        "<Gender>FEMALE</Gender><PatientLastName>Müller Block</PatientLastName>"
        "<PatientFirstName>Left</PatientFirstName></PatientDemographics>"
        "<TestDemographics><AcquisitionDevice>MAC 5500 HD</AcquisitionDevice>"
        "<LocationName>Heart Center</LocationName><CartNumber>12</CartNumber>"
        "<AcquisitionDate>03-01-2020</AcquisitionDate><AcquisitionTime>23:59:58</AcquisitionTime>"
        "<OverreaderLastName>Nachname</OverreaderLastName></TestDemographics>"
        "<Order><ReferringMDHISID>MD777</ReferringMDHISID></Order>"
        "<ExtraQuestions><ExtraQuestion><Question>WARD</Question><Answer>West 9</Answer>"
        "</ExtraQuestion></ExtraQuestions>"
    )
    said = diagnosis(("Complete heart block", True), ("Left axis deviation", True))
    record = read(muse(people, said, waveform([lead("I", RAMP)])))
    meta: Any = dict(record.meta)
    assert meta.pop("patient_id") == "4711-0815"
    found = set(meta.pop("identifiers"))
    assert {"4711-0815", "Müller Block", "Left", "Nachname", "MD777", "West 9"} <= found
    assert "12" not in found
    assert meta["age"] == 60.0
    assert meta["recorded_at"] == dt.datetime(2020, 3, 1, 23, 59, 58)
    assert "report" not in meta  # both lines hold a part of the patient's name
    shown = f"{meta} {record.quality}".lower()
    for name in ("müller", "nachname", "4711", "md777", "west", "heart center", "1960"):
        assert name not in shown
    error = refused(muse(people, waveform([lead("I", RAMP, LeadDataCRC32=5)])))
    assert not any(name in str(error) for name in found)


def test_a_date_that_is_none_is_flagged(muse: Any) -> None:
    test = "<TestDemographics><AcquisitionDate>31-12-2020</AcquisitionDate></TestDemographics>"
    record = read(muse(test, waveform([lead("I", RAMP)])))
    assert "recorded_at" not in record.meta
    assert "unread_date" in record.quality


def test_measurements_of_the_cart_where_the_overreader_left_none(muse: Any) -> None:
    rhythm = waveform([lead("I", RAMP)])
    fields = "<VentricularRate>72</VentricularRate><RAxis>-30</RAxis><QOnset>216</QOnset>"
    cart = f"<OriginalRestingECGMeasurements>{fields}</OriginalRestingECGMeasurements>"
    empty = "<RestingECGMeasurements><PRInterval/></RestingECGMeasurements>"
    # without ECGSampleBase the unit of an onset is not known
    assert read(muse(empty, cart, rhythm)).meta["measurements"] == {
        "heart_rate": 72, "qrs_axis": -30,
    }  # fmt: skip


def test_damage_never_changes_a_sample_unseen(muse: Any, tmp_path: Path) -> None:
    path = muse(waveform([lead(name, [*RAMP, at]) for at, name in enumerate(STORED)]))
    data, truth = path.read_bytes(), read(path).digital
    rng = random.Random(1)
    damaged = tmp_path / "damaged.xml"
    kept = 0
    for turn in range(200):
        new = bytearray(data)
        if turn % 4:
            new[rng.randrange(len(new))] ^= 1 << rng.randrange(8)
        else:
            del new[rng.randrange(len(new)) :]
        damaged.write_bytes(new)
        try:
            record = read(damaged)
        except ReadError:
            continue
        kept += 1
        if record.digital.shape == truth.shape and record.leads == LEADS:
            np.testing.assert_array_equal(record.digital, truth)
    assert kept < 100
