"""Philips XML: real files, an encoder of its own for variants that none of them covers, damage."""

from __future__ import annotations

import base64
import datetime as dt
import importlib
import xml.etree.ElementTree as ET
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from ecgstore.errors import ReadError
from ecgstore.io.philips import READER, read
from ecgstore.record import INVALID, LEADS

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from ecgstore.record import Record

encoder: Any = importlib.import_module("tests.io.xli_encoder")
_FIFTEEN = (*LEADS, "V3R", "V4R", "V8")
_NAMESPACE = "{http://www3.medical.philips.com}"
_PULSE = np.r_[np.zeros(50, int), np.full(100, 200), np.zeros(50, int)]


def halved(number: int) -> int:
    """Divide by two as C does."""
    return number // 2 if number >= 0 else -(-number // 2)


def residuals(leads: NDArray[np.int64], names: tuple[str, ...]) -> NDArray[np.int64]:
    """Return what a cart stores of all leads: limb leads but I and II less what predicts them."""
    stored = leads.copy()
    at = {name: row for row, name in enumerate(names)}
    for t, (one, two, three) in enumerate(leads[:3].T.tolist()):
        guess = {
            "III": two - one,
            "aVR": -halved(one + two),
            "aVL": halved(one - three),
            "aVF": halved(two + three),
        }
        for name, value in guess.items():
            stored[at[name], t] = value - leads[at[name], t]
    return stored


def ecg(n_leads: int, *, samples: int = 400, seed: int = 1) -> NDArray[np.int64]:
    """Return wandering counts whose limb leads agree but for a count or so."""
    rng = np.random.default_rng(seed)
    x = np.cumsum(rng.integers(-9, 10, (n_leads, samples)), axis=1)
    if n_leads >= 12:
        noise = rng.integers(-1, 2, (4, samples))
        one, two = x[0], x[1]
        x[2:6] = np.array([two - one, -(one + two) // 2, one - two // 2, two - one // 2]) + noise
    x[:, -1] |= 1  # no lead ends at zero, as the calibration begins
    return x


def document(
    leads: NDArray[np.int64],
    names: tuple[str, ...] = LEADS,
    *,
    version: str = "1.04",
    kind: str = "PhilipsECG",
    how: str = "XLI",
    channels: NDArray[np.int64] | None = None,
    attributes: str = "",
    patient: str = "",
    extra: str = "",
    duration_ms: float | None = None,
) -> str:
    """Write counts as a file of schema 1.04, or 1.03 for that version."""
    stored = leads if channels is None else np.vstack([leads, channels])
    if how == "XLI":
        predicted = residuals(leads, names) if "aVF" in names else leads
        rows = predicted if channels is None else np.vstack([predicted, channels])
        text = base64.encodebytes(b"".join(encoder.chunk(row) for row in rows)).decode()
    elif how == "Base64":
        text = base64.b64encode(stored.astype("<i2").tobytes()).decode()
    else:
        text = "\n".join(" ".join(map(str, row)) for row in stored.tolist())
    encoding = "Plain" if how == "Plain" else "Base64"
    duration = leads.shape[1] * 2 if duration_ms is None else duration_ms
    old = version == "1.03"
    general = (
        "<signalcharacteristics><samplingrate>500</samplingrate><signalresolution>5"
        "</signalresolution><acquisitiontype>STD-12</acquisitiontype><bitspersample>16"
        "</bitspersample><numberchannelsvalid>12</numberchannelsvalid></signalcharacteristics>"
    )
    said = (
        f'compressflag="{how == "XLI"}" compressmethod="{"XLI" if how == "XLI" else ""}"'
        if old
        else f'compression="{"XLI" if how == "XLI" else "Uncompressed"}" resolution="5" '
        f'samplespersecond="500" numberofleads="{len(names)}" leadlabels="{" ".join(names)}"'
    )
    return (
        '<?xml version="1.0"?><restingecgdata xmlns="http://www3.medical.philips.com">'
        f"<documentinfo><documenttype>{kind}</documenttype><documentversion>{version}"
        f"</documentversion></documentinfo>{extra}"
        '<dataacquisition date="2020-02-29" time="10:20:30"><machine machineid="SN-77">PageWriter '
        f"TC70</machine>{general if old else ''}</dataacquisition><patient><generalpatientdata>"
        f"{patient}</generalpatientdata></patient><waveforms><parsedwaveforms {said} {attributes} "
        f'dataencoding="{encoding}" durationperchannel="{duration:g}">{text}</parsedwaveforms>'
        "</waveforms></restingecgdata>"
    )


@pytest.fixture
def written(tmp_path: Path) -> Any:
    """Return a call that writes a document and reads it."""

    def call(text: str, encoding: str = "utf-8") -> Record:
        path = tmp_path / "ecg.xml"
        path.write_bytes(text.encode(encoding))
        assert READER.matches(path.read_bytes()[:4096], path)
        return read(path)

    return call


@pytest.fixture(scope="session")
def folder(test_data: Path) -> Path:
    return test_data / "data/formats/philips_xml"


@pytest.fixture(scope="session")
def of_1_03(folder: Path) -> Record:
    return read(folder / "1_03__129DYPRG.XML")


@pytest.fixture(scope="session")
def of_1_04(folder: Path) -> Record:
    return read(folder / "1_04__3191723_ZZDEMOPTONLY_1-04_orig.xml")


def test_real_files_give_twelve_leads_without_the_calibration(
    of_1_03: Record, of_1_04: Record
) -> None:
    for record, samples, removed in ((of_1_03, 5264, 236), (of_1_04, 5300, 200)):
        assert record.leads == LEADS
        assert record.rate_hz == 500
        assert record.n_samples == samples
        assert record.quality == (f"calibration_removed:{removed}",)
        assert record.gain.tolist() == [200.0] * 12  # 5 uV a count
        assert not record.baseline.any()
    first = [48, 117, 69, -83, -10, 93, 33, 45, 50, 49, 45, 28]
    assert of_1_03.digital[:, 0].tolist() == first
    assert of_1_04.digital[[0, 1, 6, 8], 0].tolist() == [33, 38, 19, 217]


def test_limb_leads_agree(of_1_03: Record, of_1_04: Record) -> None:
    for record, most in ((of_1_03, 2), (of_1_04, 0)):
        one, two, three, vr, vl, vf = record.digital[:6].astype(int)
        assert np.abs(one + three - two).max() == most
        assert np.abs(vr + (one + two) / 2).max() <= 1.5
        assert np.abs(vl - (one - three) / 2).max() <= 1.5
        assert np.abs(vf - (two + three) / 2).max() <= 1.5
    one, two, three, vr, vl, vf = of_1_04.digital[:6].astype(int)
    for lead, double in ((vr, -one - two), (vl, one - three), (vf, two + three)):
        assert np.abs(lead - double / 2).max() == 0.5  # whole counts can be no nearer


def test_leads_have_the_amplitudes_that_the_cart_measured(folder: Path, of_1_03: Record) -> None:
    root = ET.parse(folder / "1_03__129DYPRG.XML").getroot()
    for one in root.iter(f"{_NAMESPACE}leadmeasurement"):
        lead = of_1_03.signal_mv[of_1_03.leads.index(one.get("leadname", ""))]
        waves = [
            float(one.findtext(f"{_NAMESPACE}{wave}amp", "nan")) / 1000
            for wave in ("p", "q", "r", "s", "t", "tp")
        ]
        beats = [float(np.ptp(part)) for part in np.array_split(lead, 6)]  # at 41 beats a minute
        wanted = max(waves) - min(waves)
        assert np.median(beats) == pytest.approx(wanted, abs=0.12), one.get("leadname")


def test_leads_look_like_the_beats_that_the_cart_averaged(folder: Path, of_1_04: Record) -> None:
    root = ET.parse(folder / "1_04__3191723_ZZDEMOPTONLY_1-04_orig.xml").getroot()
    beats = {
        one.get("leadname"): np.frombuffer(
            base64.b64decode(one.findtext(f"{_NAMESPACE}waveform", "")), "<i2"
        )[220:320]  # QRS; 2.5 uV a count
        / 400
        for one in root.iter(f"{_NAMESPACE}repbeat")
    }
    assert set(beats) == set(LEADS)
    beat = np.array([beats[lead] for lead in LEADS])
    windows = np.lib.stride_tricks.sliding_window_view(of_1_04.signal_mv, beat.shape[1], axis=1)
    error = ((windows - windows.mean(-1, keepdims=True)) ** 2).sum((0, 2))
    centred = beat - beat.mean(1, keepdims=True)
    score = np.einsum("lts,ls->t", windows, centred) / np.sqrt(error)
    best = windows[:, int(np.argmax(score))]
    for name, mine, theirs in zip(LEADS, best, centred, strict=True):
        slope = float((mine * theirs).sum() / (theirs**2).sum())
        assert np.corrcoef(mine, theirs)[0, 1] > 0.97, name
        assert slope == pytest.approx(1, abs=0.15), name


def test_what_the_cart_says(of_1_03: Record, of_1_04: Record) -> None:
    meta = of_1_03.meta
    assert meta["source_format"] == "philips"
    assert meta["recorded_at"] == dt.datetime(2011, 12, 1, 7, 27, 34)
    assert (meta["age"], meta["sex"], meta["device"]) == (50.0, "male", "HeartstartMRx")
    assert meta["patient_id"] == "1112010721168bdc"
    assert meta["measurements"] == {
        "heart_rate": 41, "atrial_rate": 41, "pr": 151, "qrs": 135, "qt": 476, "qtc": 393,
        "p_axis": 66, "qrs_axis": -21, "t_axis": 59,
    }  # fmt: skip
    assert "Sinus bradycardia" in str(meta["report"])
    meta = of_1_04.meta
    assert meta["recorded_at"] == dt.datetime(2010, 1, 19, 15, 19, 22)
    assert (meta["age"], meta["sex"], meta["device"]) == (60.0, "male", "PageWriter Touch")
    found = meta["measurements"]
    assert isinstance(found, dict)
    assert (found["heart_rate"], found["rr"], found["qtc"], found["t_axis"]) == (84, 714, 417, 67)
    assert "SINUS RHYTHM" in str(meta["report"])
    identifiers = meta["identifiers"]
    assert isinstance(identifiers, tuple)
    assert {"ZZDEMOPTONLY", "9999", "VWJ", "120190145"} <= set(identifiers)


def test_another_document_type_is_refused_by_name(folder: Path) -> None:
    path = folder / "invalid-doc-type.xml"
    assert READER.matches(path.read_bytes()[:4096], path)
    with pytest.raises(ReadError, match=r"'MortaraECG', version '1.03'.*SierraECG.*1.04.01") as why:
        read(path)
    assert why.value.reason == "unsupported format"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-8-sig"])
@pytest.mark.parametrize("version", ["1.03", "1.04", "1.04.01"])
@pytest.mark.parametrize("how", ["XLI", "Base64", "Plain"])
def test_every_variant_gives_the_counts_back(
    written: Any, how: str, version: str, encoding: str
) -> None:
    leads = ecg(12)
    kind = "SierraECG" if version == "1.03" else "PhilipsECG"
    record = written(document(leads, version=version, kind=kind, how=how), encoding)
    assert record.leads == LEADS
    np.testing.assert_array_equal(record.digital, leads)
    assert record.quality == ()


def test_fifteen_leads_and_empty_channels(written: Any) -> None:
    leads = np.hstack([ecg(15), np.tile(_PULSE, (15, 1))])
    empty = np.hstack([np.zeros((1, 400), int), _PULSE[None]])
    record = written(document(leads, _FIFTEEN, channels=empty))
    assert record.leads == _FIFTEEN
    np.testing.assert_array_equal(record.digital, leads[:, :400])
    assert record.quality == ("calibration_removed:200",)


def test_a_channel_without_name_is_flagged(written: Any) -> None:
    leads = ecg(12)
    assert "unnamed_signals:1" in written(document(leads, channels=leads[:1] + 1)).quality


def test_calibration_goes_only_where_it_is_one(written: Any) -> None:
    leads = ecg(12)
    early = np.hstack([np.tile(_PULSE, (12, 1)), leads])
    assert written(document(early)).n_samples == early.shape[1]
    half = np.hstack([leads, np.tile(_PULSE // 2, (12, 1))])
    assert written(document(half)).n_samples == half.shape[1]
    tail = np.hstack([leads, np.tile(_PULSE, (12, 1))])
    tail[3, -1] = 1
    assert written(document(tail, how="Base64")).n_samples == tail.shape[1]
    flat = np.hstack([np.zeros((12, 300), int), np.tile(_PULSE, (12, 1))])
    record = written(document(flat))
    assert record.n_samples == 350  # nothing tells what was flat from what leads into the pulse
    assert "calibration_removed:150" in record.quality


def test_a_lead_that_misses_the_pulse_was_damaged(written: Any) -> None:
    leads = np.hstack([ecg(12), np.tile(_PULSE, (12, 1))])
    leads[7, 500:] += 1
    with pytest.raises(ReadError, match="11 of 12 leads") as why:
        written(document(leads))
    assert why.value.reason == "bad samples"


def test_the_lowest_count_is_a_sample(written: Any) -> None:
    leads = ecg(12)
    leads[6, 5] = INVALID
    record = written(document(leads, how="Base64"))
    assert record.signal_mv[6, 5] == pytest.approx(INVALID / 200)


@pytest.mark.parametrize(
    ("age", "years"),
    [
        ("<years>54</years>", 54.0),
        ("<months>6</months>", 0.5),
        ("<dateofbirth>1950-03-01</dateofbirth>", 69.0),
        ("<years/>", None),
        ("<dateofbirth>unknown</dateofbirth>", None),
    ],
)
def test_age(written: Any, age: str, years: float | None) -> None:
    patient = f'<age defaultage="50">{age}</age><sex>Female</sex>'
    record = written(document(ecg(12), patient=patient))
    assert record.meta.get("age") == years
    assert record.meta["sex"] == "female"
    assert record.meta["device"] == "PageWriter TC70"


def test_the_latest_interpretation_counts_and_names_are_withheld(written: Any) -> None:
    def said(time: str, statement: str) -> str:
        return (
            f'<interpretation date="2020-02-29" time="{time}"><statement><leftstatement>{statement}'
            "</leftstatement></statement></interpretation>"
        )

    machine, reader = said("10:00:00", "Sinus rhythm"), said("11:00:00", "Atrial fibrillation")
    name = "<statement><leftstatement>Reviewed by Dr Quux</leftstatement></statement>"
    reader = reader.replace("<statement>", name + "<statement>", 1)
    extra = f"<interpretations>{reader}{machine}</interpretations>"
    record = written(document(ecg(12), extra=extra))
    assert record.meta["report"] == "Atrial fibrillation"
    assert record.quality == ("withheld_statements:1",)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (document(ecg(12), version="1.05"), "unsupported format"),
        (document(ecg(12)).replace('"XLI"', '"ZIP"'), "unsupported format"),
        (document(ecg(12), attributes='signaloffset="5"'), "unsupported format"),
        (document(ecg(12), attributes='bitspersample="12"'), "unsupported format"),
        (document(ecg(12), attributes='signalsigned="False"'), "unsupported format"),
        (document(ecg(12)).replace('="Base64"', '="Morse"'), "unsupported format"),
        (document(ecg(12)).replace(' resolution="5"', ""), "bad header"),
        (document(ecg(12)).replace('"500"', '"nan"'), "bad header"),
        (document(ecg(12)).replace("V6", ""), "no leads"),
        (document(ecg(12)).replace("V6", "V5"), "duplicate leads"),
        (document(ecg(12)).replace('="I II', '="V7 II'), "unknown layout"),
        (document(ecg(12), duration_ms=802), "truncated"),
        (document(ecg(12), how="Base64", duration_ms=802), "truncated"),
        (document(ecg(12), how="Plain", duration_ms=2), "truncated"),
        (document(ecg(12), how="Plain").replace(" 1 ", " 1.5 ", 1), "bad samples"),
        (document(ecg(12)).replace("<parsedwaveforms", "<other").replace("</parsedw", "</other"),
         "bad header"),
        (document(ecg(12)[:11]).replace('leads="11"', 'leads="12"'), "truncated"),
        ("<restingecgdata/>", "unsupported format"),
        ("<other/>", "bad header"),
        ('<!DOCTYPE r [<!ENTITY e "e">]><restingecgdata/>', "forbidden content"),
        ("", "empty file"),
    ],
)  # fmt: skip
def test_refusals(tmp_path: Path, text: str, reason: str) -> None:
    path = tmp_path / "ecg.xml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ReadError) as why:
        read(path)
    assert why.value.reason == reason


def test_damage_to_the_samples_is_refused_or_does_no_harm(tmp_path: Path) -> None:
    leads = np.hstack([ecg(12, samples=200), np.tile(_PULSE, (12, 1))])
    whole = document(leads).encode()
    begin, end = whole.index(b'="800">') + 7, whole.index(b"</parsedwaveforms")
    path = tmp_path / "ecg.xml"
    rng = np.random.default_rng(4)
    refused = 0
    for turn in range(80):
        data = bytearray(whole)
        for at in rng.integers(begin, end, 1 + turn % 4):
            data[at] ^= 1 << int(rng.integers(0, 7))
        path.write_bytes(data)
        try:
            record = read(path)
        except ReadError:
            refused += 1
        else:
            np.testing.assert_array_equal(record.digital, leads[:, :200])
    assert refused > 65
