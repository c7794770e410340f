"""The DICOM reader: equal to pydicom's own arrays, groups and codes of carts, names kept out."""

from __future__ import annotations

import contextlib
import datetime as dt
import io
import random
import sys
import warnings
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from ecgstore.errors import MissingDependencyError, ReadError
from ecgstore.io.dicom import READER, read
from ecgstore.record import LEADS

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from ecgstore.record import Record

pydicom = pytest.importorskip("pydicom")
from pydicom.dataset import Dataset, FileMetaDataset  # noqa: E402
from pydicom.uid import (  # noqa: E402
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

FOLDER = "data/formats/dicom"
ECG_12_LEAD = "1.2.840.10008.5.1.4.1.1.9.1.1"


def item(**elements: Any) -> Dataset:
    made = Dataset()
    for keyword, value in elements.items():
        setattr(made, keyword, value)
    return made


def code(value: str, meaning: str = "", scheme: str = "MDC") -> list[Dataset]:
    return [item(CodeValue=value, CodingSchemeDesignator=scheme, CodeMeaning=meaning)]


def channel(source: list[Dataset] | None, **elements: Any) -> Dataset:
    usual = {
        "ChannelSensitivity": "2.5",
        "ChannelSensitivityUnitsSequence": code("uV", scheme="UCUM"),
        "ChannelSensitivityCorrectionFactor": "1",
        "ChannelBaseline": "0",
        "ChannelSampleSkew": "0",
        "WaveformBitsStored": 16,
    }
    if source is not None:
        usual["ChannelSourceSequence"] = source
    return item(**usual | elements)


def group(
    frames: Any, channels: Sequence[Dataset], *, dtype: str = "<i2", **elements: Any
) -> Dataset:
    """Return a multiplex group of ``(samples, channels)`` counts."""
    counts = np.asarray(frames)
    data = counts.astype(dtype).tobytes()
    usual = {
        "MultiplexGroupTimeOffset": "0",
        "WaveformOriginality": "ORIGINAL",
        "NumberOfWaveformChannels": counts.shape[1],
        "NumberOfWaveformSamples": counts.shape[0],
        "SamplingFrequency": "500",
        "MultiplexGroupLabel": "RHYTHM",
        "ChannelDefinitionSequence": list(channels),
        "WaveformBitsAllocated": 8 * np.dtype(dtype).itemsize,
        "WaveformSampleInterpretation": "SS",
        "WaveformData": data + b"\0" * (len(data) % 2),
    }
    made = item(**usual | elements)
    for ambiguous in {"WaveformData", "WaveformPaddingValue"} & {one.keyword for one in made}:
        made[ambiguous].VR = "OW"
    return made


def encoded(
    groups: Sequence[Dataset], *, syntax: str = ExplicitVRLittleEndian, **elements: Any
) -> bytes:
    """Return a whole file, written by pydicom."""
    usual = {"SOPClassUID": ECG_12_LEAD, "SOPInstanceUID": "1.2.3", "WaveformSequence": [*groups]}
    made = item(**usual | elements)
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = UID(syntax)
    made.file_meta.MediaStorageSOPClassUID = UID(ECG_12_LEAD)
    made.file_meta.MediaStorageSOPInstanceUID = UID("1.2.3")
    out = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pydicom.dcmwrite(out, made, enforce_file_format=True)
    return out.getvalue()


TWO = [channel(code("2:1", "Lead I")), channel(code("2:2", "Lead II"))]
FRAMES = np.array([[1, -2], [3, -4], [5, -6], [400, -800]])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ecg.dcm"


def record_of(path: Path, *groups: Dataset, **options: Any) -> Record:
    path.write_bytes(encoded(groups, **options))
    return read(path)


def refused(path: Path, data: bytes) -> ReadError:
    path.write_bytes(data)
    with pytest.raises(ReadError) as caught:
        read(path)
    return caught.value


@pytest.mark.parametrize("name", ["example_500hz", "waveform_ecg"])
def test_real_files_equal_pydicom(test_data: Path, name: str) -> None:
    real = test_data / FOLDER / f"{name}.dcm"
    record = read(real)
    with pydicom.config.disable_value_validation():
        data = pydicom.dcmread(real)
        microvolts = data.waveform_array(0).T
    assert record.leads == LEADS
    assert record.rate_hz == float(data.WaveformSequence[0].SamplingFrequency)
    np.testing.assert_allclose(record.signal_mv, microvolts / 1000, rtol=0, atol=1e-12)


def test_what_a_real_file_says(test_data: Path) -> None:
    record = read(test_data / FOLDER / "waveform_ecg.dcm")
    assert record.meta["recorded_at"] == dt.datetime(2013, 1, 25, 10, 59, 19)
    said = [record.meta[key] for key in ("age", "sex", "device", "patient_id")]
    assert said == [42.0, "female", "Mortara Instrument, Inc. el250", "642341"]
    assert record.meta["measurements"] == {
        "rr": 982, "pr": 161, "qrs": 75, "qt": 368, "qtc": 370,
        "p_axis": 74, "qrs_axis": 52, "t_axis": 57,
    }  # fmt: skip
    other = read(test_data / FOLDER / "example_500hz.dcm")
    assert other.meta["age"] == 49.0  # from the birth date
    assert other.meta["measurements"]["qrs_axis"] == -61.0  # type: ignore[index]
    # Its padding value is 0, which lies amid the signal: nothing may be lost for it.
    assert "padding_value:0" in other.quality
    assert not np.isnan(other.signal_mv).any()


SYNTAXES = [ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian]


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_transfer_syntaxes(path: Path, syntax: str) -> None:
    dtype = ">i2" if syntax == ExplicitVRBigEndian else "<i2"
    record = record_of(path, group(FRAMES, TWO, dtype=dtype), syntax=syntax)
    assert record.digital.tolist() == FRAMES.T.tolist()
    assert record.signal_mv[1, 3] == -2.0


@pytest.mark.parametrize("implicit", [True, False])
def test_without_preamble_and_meta(path: Path, implicit: bool) -> None:  # noqa: FBT001
    out = io.BytesIO()
    made = item(
        SOPClassUID=ECG_12_LEAD,
        SOPInstanceUID="1.2.3",
        StudyDate="20200102",
        WaveformSequence=[group(FRAMES, TWO)],
    )
    pydicom.dcmwrite(out, made, implicit_vr=implicit, little_endian=True)
    assert READER.matches(out.getvalue()[:4096], path)
    path.write_bytes(out.getvalue())
    assert read(path).digital.tolist() == FRAMES.T.tolist()
    assert read(path).meta["recorded_at"] == dt.datetime(2020, 1, 2)


def test_lead_codes_and_names(path: Path) -> None:
    channels = [
        channel(code("5.6.3-9-61", "Lead III", "SCPECG")),
        channel(code("2:64", "aVF, augmented voltage, foot")),
        channel(code("131075", "")),
        channel([item(LongCodeValue="MDC_ECG_LEAD_V2", CodingSchemeDesignator="MDC")]),
        channel(code("99-1", "Lead V3", "99LOCAL")),
        channel(None, ChannelLabel="LEAD I"),
        channel(code("2:11", "Lead V3R")),
        channel(code("2:33", "Derived Lead V1")),
    ]
    record = record_of(path, group([range(8), range(8)], channels))
    assert record.leads == ("I", "III", "aVF", "V1", "V2", "V3", "V3R", "Derived Lead V1")


def test_scale(path: Path) -> None:
    channels = [
        channel(code("2:1"), ChannelSensitivity="1", ChannelSensitivityCorrectionFactor="0.5",
                ChannelSensitivityUnitsSequence=code("mV"), ChannelBaseline="3"),
        channel(code("2:2"), ChannelSensitivity="4.88", ChannelBaseline="1"),
    ]  # fmt: skip
    record = record_of(path, group(FRAMES, channels))
    np.testing.assert_allclose(record.signal_mv[0], FRAMES[:, 0] * 0.5 + 3)
    np.testing.assert_allclose(
        record.signal_mv[1], (FRAMES[:, 1] * 4.88 + 1) / 1000, rtol=0, atol=4.88 / 2000
    )
    assert "baseline_rounded" in record.quality
    pressure = channel(code("2:2"), ChannelSensitivityUnitsSequence=code("mm[Hg]"))
    assert refused(path, encoded([group(FRAMES, [TWO[0], pressure])])).reason == "unknown unit"


@pytest.mark.parametrize(
    ("kind", "dtype", "values"),
    [
        ("UB", "u1", [0, 127, 255]),
        ("SB", "i1", [-127, 0, 127]),
        ("US", "<u2", [32760, 32768, 32780]),
        ("SL", "<i4", [-70_000, 0, 60_000]),
        ("UL", "<u4", [0, 40_000, 60_000]),
    ],
)
def test_kinds_of_samples(path: Path, kind: str, dtype: str, values: list[int]) -> None:
    only = channel(code("2:2"), WaveformBitsStored=8 * np.dtype(dtype).itemsize)
    made = group(np.array([values]).T, [only], dtype=dtype, WaveformSampleInterpretation=kind)
    record = record_of(path, made)
    atol = 2.5e-3 if kind == "SL" else 1e-9
    np.testing.assert_allclose(record.signal_mv[0], np.array(values) / 400, atol=atol, rtol=0)


def test_padding_and_missing_samples(path: Path) -> None:
    frames = np.array([[1, 2], [999, 3], [4, -32768], [5, 6]])
    padding = np.array([999], "<i2").tobytes()
    record = record_of(path, group(frames, TWO, WaveformPaddingValue=padding))
    assert np.isnan(record.signal_mv).tolist() == [
        [False, True, False, False],
        [False, False, True, False],
    ]
    assert {"invalid_samples:I", "invalid_samples:II"} <= set(record.quality)


def test_averaged_beats_are_not_the_record(path: Path) -> None:
    beat = group(FRAMES * 9, TWO, MultiplexGroupLabel="MEDIAN BEAT", WaveformOriginality="DERIVED")
    record = record_of(path, beat, group(FRAMES, TWO))
    assert record.digital.tolist() == FRAMES.T.tolist()
    assert refused(path, encoded([beat])).reason == "no signals"
    computed = record_of(path, beat, group(FRAMES, TWO, WaveformOriginality="DERIVED"))
    assert computed.quality == ("derived_waveform",)


def test_a_printout_of_four_times_three_leads(path: Path) -> None:
    numbers = [[1, 2, 61], [62, 63, 64], [3, 4, 5], [6, 7, 8]]
    groups = [
        group(
            np.full((25, 3), 10 * k + 1),
            [channel(code(f"2:{number}")) for number in row],
            MultiplexGroupTimeOffset=str(50 * k),
        )
        for k, row in enumerate(numbers)
    ]
    strip = group(np.full((100, 1), 7), [TWO[1]], MultiplexGroupLabel="RHYTHM STRIP")
    record = record_of(path, *groups, strip)
    assert (record.leads, record.n_samples) == (LEADS, 100)
    assert {"sequential_groups:5", "repeated_lead:II"} <= set(record.quality)
    valid = ~np.isnan(record.signal_mv)
    assert valid[1].all()  # the strip
    for row, lead in enumerate(LEADS):
        if lead != "II":
            there = slice(25 * (row // 3), 25 * (row // 3) + 25)
            assert valid[row].sum() == 25
            assert (record.digital[row, there] == 10 * (row // 3) + 1).all()


def test_groups_of_one_time(path: Path) -> None:
    chest = [channel(code("2:3")), channel(code("2:4"))]
    record = record_of(path, group(FRAMES, TWO), group(FRAMES + 1, chest))
    assert record.leads[:2] == ("I", "II")
    assert record.digital[-2:].tolist() == (FRAMES.T + 1).tolist()
    assert not any("groups" in flag for flag in record.quality)
    unrelated = group(FRAMES, chest)
    del unrelated.MultiplexGroupTimeOffset
    assert "unsynchronised_groups:2" in record_of(path, group(FRAMES, TWO), unrelated).quality


def test_without_pydicom(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path.write_bytes(encoded([group(FRAMES, TWO)]))
    monkeypatch.setitem(sys.modules, "pydicom.filereader", None)
    with pytest.raises(MissingDependencyError, match=r"ecgstore\[dicom\]"):
        read(path)


def test_channel_skew_and_status(path: Path) -> None:
    channels = [channel(code("2:1"), ChannelSampleSkew="0.25"),
                channel(code("2:2"), ChannelStatus="DISCONNECTED")]  # fmt: skip
    record = record_of(path, group(FRAMES, channels))
    assert record.quality == ("channel_skew:I", "disconnected:II")


def test_annotations_and_identity(path: Path) -> None:
    def note(value: str, meaning: str, number: str, unit: str, channels: Sequence[int]) -> Dataset:
        return item(
            ConceptNameCodeSequence=code(value, meaning),
            NumericValue=number,
            MeasurementUnitsCodeSequence=code(unit),
            ReferencedWaveformChannels=list(channels),
        )

    record = record_of(
        path,
        group(FRAMES, TWO),
        SpecificCharacterSet="ISO_IR 192",
        PatientName="Håkansson^Åsa",
        PatientID="19 121212",
        PatientAge="018M",
        PatientSex="F",
        OperatorsName="Tech^Nick",
        AccessionNumber="ACC-4711",
        AcquisitionDateTime="20240229235958.25+0100",
        WaveformAnnotationSequence=[
            note("1", "Ventricular Heart Rate", "61", "/min", [1, 0]),
            note("2:15872", "PR interval global", "0.16", "s", [1, 0]),
            note("2:16156", "QRS duration", "99", "ms", [1, 0]),
            note("2:16156", "QRS duration", "999", "ms", [1, 0]),
            note("2:16160", "QT interval", "400", "ms", [1, 2]),
            item(UnformattedTextValue="Sinus rhythm"),
            item(UnformattedTextValue="Confirmed by Nick Tech"),
            item(UnformattedTextValue="Sinus Åsa"),
        ],
    )
    assert record.meta["measurements"] == {"heart_rate": 61.0, "pr": 160.0, "qrs": 99.0}
    assert record.meta["report"] == "Sinus rhythm"
    assert "withheld_statements:2" in record.quality
    assert record.meta["recorded_at"] == dt.datetime(2024, 2, 29, 23, 59, 58, 250_000)
    assert (record.meta["age"], record.meta["sex"]) == (1.5, "female")
    names = ("Håkansson^Åsa", "19 121212", "ACC-4711", "Tech^Nick")
    assert record.meta["identifiers"] == names


def test_other_objects_say_what_they_are(path: Path) -> None:
    storage = "1.2.840.10008.5.1.4.1.1"
    kinds = {"104.1": "PDF", "2": "CT Image", "9.2.1": "Hemodynamic", "987": "unknown kind"}
    for kind, word in kinds.items():
        error = refused(path, encoded([group(FRAMES, TWO)], SOPClassUID=f"{storage}.{kind}"))
        assert error.reason == "unsupported format"
        assert word in str(error)


def test_contradictions_are_refused(path: Path) -> None:
    def reason(**elements: Any) -> str:
        return refused(path, encoded([group(FRAMES, TWO, **elements)])).reason

    assert reason(NumberOfWaveformSamples=5) == "truncated"
    assert reason(NumberOfWaveformSamples=2**32 - 1) == "truncated"
    assert reason(NumberOfWaveformSamples=0) == "no samples"
    assert reason(NumberOfWaveformChannels=3) == "bad header"
    assert reason(SamplingFrequency="0") == "bad header"
    assert reason(WaveformBitsAllocated=8) == "bad header"
    assert reason(WaveformSampleInterpretation="MB") == "unsupported format"  # companded sound
    chest = [channel(code("2:3")), channel(code("2:4"))]
    late = group(FRAMES, chest, MultiplexGroupTimeOffset="1e9")
    assert refused(path, encoded([group(FRAMES, TWO), late])).reason == "too large"
    mixed = [channel(code("2:3", "Lead V2")), TWO[1]]
    assert refused(path, encoded([group(FRAMES, mixed)])).reason == "bad header"
    twelve = [channel(code("2:1"), WaveformBitsStored=12)]
    unsigned = group([[4000], [1]], twelve)  # the sign of -96 was left out of the other bits
    assert refused(path, encoded([unsigned])).reason == "bad samples"
    whole = encoded([group(FRAMES, TWO)])
    assert refused(path, whole[:-3]).reason in {"truncated", "bad header"}
    assert refused(path, b"").reason == "empty file"
    assert refused(path, b"no DICOM at all").reason == "bad header"


def test_bombs(path: Path) -> None:
    head = bytearray(encoded([group(FRAMES, TWO)], syntax=DeflatedExplicitVRLittleEndian))
    start = 144 + int.from_bytes(head[140:144], "little")
    deflate = zlib.compressobj(9, zlib.DEFLATED, -15)
    bomb = deflate.compress(bytes(2**25)) + deflate.flush()
    assert refused(path, bytes(head[:start]) + bomb).reason == "too large"
    plain = encoded([group(FRAMES, TWO)])
    begin = plain.index(b"\x00\x54\x00\x01SQ")
    nest = b"\x00\x54\x00\x01SQ\0\0\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff"
    assert refused(path, plain[:begin] + nest * 2_000).reason == "bad header"
    crowd = b"".join(
        b"\x09\x00" + bytes((k & 255, k >> 8)) + b"UN\0\0\0\0\0\0" for k in range(2**15)
    )
    assert refused(path, plain[:begin] + crowd * 3).reason == "too large"


def test_damaged_files_are_refused_or_read(path: Path) -> None:
    rng = random.Random(3)
    whole = encoded([group(FRAMES, TWO)], PatientName="Secret^Sam")
    for _ in range(80):
        data = bytearray(whole)
        for _ in range(rng.randrange(1, 5)):
            data[rng.randrange(132, len(data))] = rng.choice([0, 255, rng.randrange(256)])
        path.write_bytes(data[: rng.choice([len(data), rng.randrange(len(data))])])
        with contextlib.suppress(ReadError):
            assert read(path).digital.size <= 2 * FRAMES.size
