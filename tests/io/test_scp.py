"""SCP-ECG: real files against other formats, and every compression against our own encoder."""

from __future__ import annotations

import datetime as dt
import importlib
import struct
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecgstore.errors import ReadError
from ecgstore.io.scp import READER, read
from ecgstore.io.scp_huffman import ScpError
from ecgstore.io.scp_rhythm import rhythm_of
from ecgstore.record import LEADS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

# An encoder that shares nothing with the reader; its folder is no package.
encoder: Any = importlib.import_module("tests.io.scp_encoder")

HL7 = "{urn:hl7-org:v3}"


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    def call(sections: Mapping[int, bytes], **options: bool) -> Path:
        path = tmp_path / "x.scp"
        path.write_bytes(encoder.record(sections, **options))
        return path

    return call


def test_real_file_has_the_samples_of_its_hl7_twin(test_data: Path) -> None:
    got = read(test_data / "data/formats/scp/example_12lead_huffman.scp")
    root = ElementTree.parse(test_data / "data/formats/hl7_aecg/example_aecg.xml").getroot()
    twin: dict[str, NDArray[np.int64]] = {}
    for one in root.iter(f"{HL7}sequence"):
        code, digits = one.find(f"{HL7}code"), one.findtext(f"{HL7}value/{HL7}digits")
        name = "" if code is None else code.get("code", "")
        if name.startswith("MDC_ECG_LEAD_"):  # the rhythm comes before the representative beat
            twin.setdefault(name[13:], np.array((digits or "").split(), np.int64))
    assert got.leads == LEADS
    assert got.rate_hz == 500
    assert got.gain.tolist() == [400.0] * 12  # 2.5 µV
    for lead, counts in zip(got.leads, got.digital, strict=True):
        assert np.array_equal(counts, twin[lead.upper()])
    assert got.meta["recorded_at"] == dt.datetime(2002, 11, 22, 9, 10)
    assert got.meta["age"] == 49
    assert got.meta["sex"] == "male"
    assert got.meta["patient_id"] == "SBJ-123"
    assert got.meta["device"] == "ECGConversion ELI250"
    measured: Any = got.meta["measurements"]
    assert measured["qrs"] == 554 - 434
    assert measured["qt"] == 854 - 434
    assert measured["qrs_axis"] == -61
    assert "heart_rate" not in measured
    assert got.quality == ()


def test_real_file_of_first_differences_and_unusual_leads(test_data: Path) -> None:
    path = test_data / "data/formats/scp/full_anon.scp"
    got = read(path)
    assert got.leads == (*LEADS[:8], "V4", "V6", "V3R", "V7")
    assert got.rate_hz == pytest.approx(599.88, abs=0.001)
    data = path.read_bytes()
    sizes = struct.unpack_from("<8H", data, 2135 - 1 + 22)
    at = 2135 - 1 + 22 + 16
    codes = {bits: value for value, bits in encoder.DEFAULT.items()}
    for lead, size in zip(("I", "II", "V3R", "V1", "V2", "V4", "V6", "V7"), sizes, strict=True):
        bits = "".join(f"{byte:08b}" for byte in data[at : at + size])
        at += size
        x: list[int] = []
        begin = here = 0
        while len(x) < 6000:  # code by code, bit by bit
            here += 1
            value = codes.get(bits[begin:here])
            if isinstance(value, str):
                number = int(bits[here : here + int(value)], 2)
                here += int(value)
                value = number - (2 ** int(value) if number >= 2 ** (int(value) - 1) else 0)
            if value is not None:
                x.append(value)
                begin = here
        stored = got.digital[got.leads.index(lead)]
        assert np.array_equal(np.cumsum(x), stored)
        assert got.gain[got.leads.index(lead)] == pytest.approx(1000 / 3.75)
    assert got.meta["recorded_at"] == dt.datetime(2000, 1, 1)  # high byte first
    assert got.meta["age"] == 36
    assert "sex" not in got.meta
    assert got.meta["device"] == "Welch Allyn Cardio Control MDW14"
    measured: Any = got.meta["measurements"]
    assert (measured["rr"], measured["heart_rate"], measured["qtc"]) == (731, 82, 401)
    assert "withheld_statements:5" in got.quality
    assert "derived:III,aVR,aVL,aVF" in got.quality


@pytest.mark.parametrize("coding", encoder.CODINGS)
@pytest.mark.parametrize("times", [0, 1, 2])
def test_samples_come_back_as_they_were(
    write: Callable[..., Path], coding: str, times: int
) -> None:
    x = encoder.ecg(3, 700)
    x[0, 9:12] = (8000, -8000, 8000)  # second differences of 32,000
    got = read(write(encoder.simple(x, coding=coding, times=times)))
    assert np.array_equal(got.digital[[got.leads.index(lead) for lead in ("I", "II", "V1")]], x)
    assert got.rate_hz == 500
    assert got.gain[0] == 400


@given(st.lists(st.integers(-8000, 8000), min_size=1, max_size=60), st.sampled_from([0, 1, 2]))
@settings(max_examples=40, deadline=None)
def test_every_stream_of_codes_is_decoded(x: list[int], times: int) -> None:
    for coding in encoder.CODINGS:
        got = rhythm_of(encoder.simple([x], coding=coding, times=times))
        assert got.signals[0].counts.tolist() == x


def test_lowest_count_is_a_sample(write: Callable[..., Path]) -> None:
    got = read(write(encoder.simple([[-32768, 0, 100, 5]])))
    assert np.allclose(got.signal_mv[0], np.array([-32768, 0, 100, 5]) / 400, atol=1e-9)
    assert got.quality == ()


def test_leads_of_different_times_keep_their_place(write: Callable[..., Path]) -> None:
    x = encoder.ecg(2, 50)
    sections = encoder.simple(x) | {3: encoder.section_3([(1, 1, 50), (66, 41, 90)])}
    got = read(write(sections))
    assert got.leads == ("I", "V8")
    mv = got.signal_mv
    assert np.array_equal(mv[0, :50], x[0] / 400)
    assert np.isnan(mv[0, 50:]).all()
    assert np.isnan(mv[1, :40]).all()
    assert np.array_equal(mv[1, 40:], x[1] / 400)
    assert got.quality == ("invalid_samples:I", "invalid_samples:V8")
    with pytest.raises(ReadError, match="too far apart"):
        read(write(sections | {3: encoder.section_3([(1, 1, 50), (2, 10**6, 10**6 + 49)])}))


def test_plain_samples_may_be_counted_from_zero(write: Callable[..., Path]) -> None:
    got = read(write(encoder.simple(encoder.ecg(1, 100)) | {3: encoder.section_3([(1, 0, 100)])}))
    assert got.n_samples == 100


@pytest.mark.parametrize("coding", ["default", "own"])
def test_reference_beat_is_added_back(write: Callable[..., Path], coding: str) -> None:
    residual, beat = encoder.ecg(2, 400, seed=1) % 50, encoder.ecg(2, encoder.BEAT, seed=2) % 900
    got = read(write(encoder.compressed(residual, beat, step=1, coding=coding, us=2000)))
    microvolts = residual * 5
    for start in encoder.STARTS:
        microvolts[:, start - 1 : start - 1 + encoder.BEAT] += beat
    assert np.array_equal(got.digital, microvolts)
    assert got.gain.tolist() == [1000, 1000]
    assert got.quality == ()


@pytest.mark.parametrize("us", [2000, 8000])
def test_decimated_samples_are_interpolated(write: Callable[..., Path], us: int) -> None:
    residual, beat = encoder.ecg(2, 403, seed=1) % 50, encoder.ecg(2, encoder.BEAT, seed=2) % 900
    residual[:, :40] = 7
    residual[:, 340:] = np.arange(63) // 4 * 4  # steps whose means are on a line
    got = read(write(encoder.compressed(residual, beat, step=4, coding="default", us=us)))
    assert got.rate_hz == 500
    assert got.quality == ("interpolated_outside_qrs",)
    rest = got.digital.astype(int)
    for start in encoder.STARTS:
        rest[:, start - 1 : start - 1 + encoder.BEAT] -= beat
    for first in (*(s + 9 for s in encoder.STARTS), 279):
        exact = slice(first, first + 30)
        assert np.array_equal(rest[:, exact], 5 * residual[:, exact])
    assert (rest[:, :40] == 35).all()
    # After the last complex: four samples of one value, then a line through the middles of fours.
    first = 279 + 30
    means = [
        np.rint(residual[:, k : min(k + 4, 403)].mean(axis=1)) * 5 for k in range(first, 403, 4)
    ]
    assert np.array_equal(rest[:, first], means[0])
    assert np.array_equal(rest[:, first + 1], means[0])
    assert np.array_equal(rest[:, first + 2], np.rint(means[0] * 7 / 8 + means[1] / 8))
    assert np.array_equal(rest[:, first + 5], np.rint(means[0] / 8 + means[1] * 7 / 8))
    assert np.array_equal(rest[:, -1], means[-1])


def test_beats_that_do_not_fit_are_refused(write: Callable[..., Path]) -> None:
    sections = encoder.compressed(
        encoder.ecg(1, 400) % 9, encoder.ecg(1, encoder.BEAT) % 9, step=4, coding="default", us=2000
    )
    for number in (4, 5):
        with pytest.raises(ReadError, match="not there"):
            read(write({k: v for k, v in sections.items() if k != number}))
    late = bytearray(sections[4])
    late[12:16] = struct.pack("<I", 5)  # fiducial point before its zone
    with pytest.raises(ReadError, match="reference beat"):
        read(write(sections | {4: bytes(late)}))


def test_header_is_reduced_to_what_names_nobody(write: Callable[..., Path]) -> None:
    device = bytes(7) + b"\xffMK2000" + bytes(21) + b"\x04rev\0SN-77\0sw\0scp\0Acme\0"
    fields = {
        0: b"Mustermann\0",
        1: b"Erika\0",
        2: b"PAT-4711\0",
        5: struct.pack("<HBB", 1950, 6, 30),
        8: b"\2",
        14: device,
        20: b"Dr. Who\0",
        23: b"Room 5\0",
        25: struct.pack("<HBB", 2020, 6, 29),
        26: bytes([7, 8, 9]),
        255: b"",
    }
    section_1 = b"".join(encoder.field(tag, value) for tag, value in fields.items())
    eight = encoder.statements(b"Sinus rhythm\0", b"Normal ECG, Mustermann\0")
    eleven = encoder.statements(b"\2Left axis deviation\0", b"\1XYZ\0\0")
    got = read(write(encoder.simple(encoder.ecg(3, 50), s1=section_1, s8=eight, s11=eleven)))
    assert got.meta["age"] == 69
    assert got.meta["sex"] == "female"
    assert got.meta["recorded_at"] == dt.datetime(2020, 6, 29, 7, 8, 9)
    assert got.meta["device"] == "Acme MK2000"
    assert got.meta["patient_id"] == "PAT-4711"
    assert got.meta["report"] == "Sinus rhythm\nLeft axis deviation"
    assert got.meta["identifiers"] == ("Mustermann", "Erika", "PAT-4711", "Dr. Who")
    assert "withheld_statements:2" in got.quality
    assert "1950" not in str(dict(got.meta))


def test_damaged_measurements_and_statements_are_flagged(write: Callable[..., Path]) -> None:
    seven = struct.pack("<BBHH", 9, 0, 800, 29999)
    got = read(
        write(
            encoder.simple(
                encoder.ecg(1, 50), s7=seven, s8=encoder.statements(b"Sinus rhythm\0")[:-3]
            )
        )
    )
    assert got.quality == ("unreadable_section:7", "unreadable_section:8")
    seven = struct.pack(
        "<BBHH5H3hHHHHB", 1, 0, 800, 29999, *[29999] * 5, 999, 30, 999, 0, *[29999] * 3, 0
    )
    got = read(write(encoder.simple(encoder.ecg(1, 50), s7=seven)))
    assert got.meta["measurements"] == {"rr": 800, "heart_rate": 75, "qrs_axis": 30}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({6: None}, "no samples"),
        ({3: None}, "no leads"),
        ({3: encoder.section_3([])}, "no signals"),
        ({3: encoder.section_3([(1, 1, 101), (2, 1, 101)])}, "truncated"),
        ({3: encoder.section_3([(1, 1, 50), (2, 1, 50)])}, "bad samples"),
        ({3: encoder.section_3([(1, 1, 100)])}, "bad header"),
        ({3: encoder.section_3([(1, 1, 100), (1, 1, 100)])}, "duplicate leads"),
        ({6: encoder.waveforms([encoder.raw([1] * 100)] * 2, times=3)}, "bad header"),
        ({6: encoder.waveforms([encoder.raw([30000] * 100)] * 2, times=2)}, "bad samples"),
        ({2: encoder.section_2([{0: "0", 1: "01"}])}, "bad header"),
        ({2: encoder.section_2([{0: "0", "S7": "1"}])}, "bad header"),
        ({2: encoder.section_2([{0: "00", 1: "01"}])}, "bad samples"),
        ({2: struct.pack("<H", 300)}, "truncated"),
    ],
)
def test_contradictions_are_refused(
    write: Callable[..., Path], change: dict[int, bytes | None], reason: str
) -> None:
    sections = encoder.simple(encoder.ecg(2, 100)) | change
    with pytest.raises(ReadError) as caught:
        read(write({number: body for number, body in sections.items() if body is not None}))
    assert caught.value.reason == reason


def test_checksums(write: Callable[..., Path], test_data: Path) -> None:
    path = write(encoder.simple(encoder.ecg(1, 50)), section_crc=False)
    assert read(path).quality == ("unverified_checksum",)
    real = (test_data / "data/formats/scp/full_anon.scp").read_bytes()
    for at in range(0, len(real), 1009):
        path.write_bytes(real[:at] + bytes([real[at] ^ 4]) + real[at + 1 :])
        with pytest.raises(ReadError):
            read(path)
        path.write_bytes(real[:at])
        with pytest.raises(ReadError) as caught:
            read(path)
        assert caught.value.reason in {"truncated", "empty file", "bad header"}
    path.write_bytes(real + b"more")
    assert "trailing_bytes:4" in read(path).quality


def test_detection_by_content(test_data: Path, tmp_path: Path) -> None:
    for path in sorted((test_data / "data/formats").glob("*/*")):
        if path.is_file():
            assert READER.matches(path.read_bytes()[:4096], path) == (path.suffix == ".scp")
    old = bytearray(encoder.record(encoder.simple(encoder.ecg(1, 9))))
    old[16:22] = bytes(6)  # before version 1.1
    assert READER.matches(bytes(old), tmp_path)
    assert not any(READER.matches(bytes(old[:n]), tmp_path) for n in range(32))


@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_any_change_gives_samples_or_the_one_error(data: st.DataObject) -> None:
    residual, beat = encoder.ecg(2, 403, seed=1) % 50, encoder.ecg(2, encoder.BEAT, seed=2) % 900
    coding = data.draw(st.sampled_from(["default", "own"]))
    sections = encoder.compressed(
        residual, beat, step=data.draw(st.sampled_from([1, 4])), coding=coding, us=2000
    )
    for _ in range(data.draw(st.integers(1, 3))):
        number = data.draw(st.sampled_from(sorted(sections)))
        body = bytearray(sections[number])
        at = data.draw(st.integers(0, len(body) - 1))
        body[at] = data.draw(st.sampled_from([0, 1, 127, 128, 255, body[at] ^ 1]))
        sections[number] = bytes(body[: data.draw(st.sampled_from([len(body), at]))] or b"\0")
    try:
        got = rhythm_of(sections)
    except ScpError:
        return
    assert all(len(one.counts) == len(got.signals[0].counts) for one in got.signals)
