"""HL7 aECG: real files against their own text and DICOM, written variants, damage."""

from __future__ import annotations

import datetime as dt
import xml.etree.ElementTree as ET
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from ecgstore.errors import ReadError
from ecgstore.io.hl7 import READER, read
from ecgstore.record import LEADS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from ecgstore.record import Record

_V3 = "{urn:hl7-org:v3}"


def sequence(
    code: str, digits: Sequence[int] | str, *, origin: str = "0", unit: str = "uV", scale: str = "5"
) -> str:
    text = digits if isinstance(digits, str) else " ".join(map(str, digits))
    unit = f'unit="{unit}"' if unit else ""
    return (
        f'<component><sequence><code code="{code}"/><value xsi:type="SLIST_PQ"><origin '
        f'value="{origin}" {unit}/><scale value="{scale}" {unit}/><digits>{text}</digits></value>'
        "</sequence></component>"
    )


def clock(head: str = '"20200229102030"', increment: str = '"0.002" unit="s"') -> str:
    return (
        '<component><sequence><code code="TIME_ABSOLUTE"/><value xsi:type="GLIST_TS">'
        f"<head value={head}/><increment value={increment}/></value></sequence></component>"
    )


def a_set(*sequences: str) -> str:
    return f"<component><sequenceSet>{''.join(sequences)}</sequenceSet></component>"


def a_series(*sets: str, code: str = "RHYTHM", more: str = "") -> str:
    return f'<component><series><code code="{code}"/>{"".join(sets)}{more}</series></component>'


def document(*series: str, more: str = "") -> str:
    return (
        '<?xml version="1.0"?><AnnotatedECG xmlns="urn:hl7-org:v3" '
        'xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance">'
        f"{more}{''.join(series)}</AnnotatedECG>"
    )


def measured(*values: tuple[str, object, str]) -> str:
    return "".join(
        f'<component><annotation><code code="{code}"/><value xsi:type="PQ" value="{value}" '
        f'unit="{unit}"/></annotation></component>'
        for code, value, unit in values
    )


def annotated(*components: str) -> str:
    return f"<subjectOf><annotationSet>{''.join(components)}</annotationSet></subjectOf>"


_LEAD_II = "MDC_ECG_LEAD_II"
_PLAIN = a_series(a_set(clock(), sequence(_LEAD_II, range(20))))


@pytest.fixture
def written(tmp_path: Path) -> Callable[[str], Record]:
    """Return a call that writes a document and reads it."""

    def call(text: str) -> Record:
        path = tmp_path / "ecg.xml"
        path.write_text(text, encoding="utf-8")
        return read(path)

    return call


@pytest.fixture(scope="session")
def folder(test_data: Path) -> Path:
    return test_data / "data/formats/hl7_aecg"


@pytest.fixture(scope="session")
def example(folder: Path) -> Record:
    return read(folder / "example_aecg.xml")


def test_the_rhythm_is_the_record(folder: Path, example: Record) -> None:
    assert example.leads == LEADS
    assert (example.rate_hz, example.n_samples) == (500.0, 5000)
    assert example.gain.tolist() == [400.0] * 12  # 2.5 uV a count
    assert not example.baseline.any()
    assert example.quality == ()
    root = ET.parse(folder / "example_aecg.xml").getroot()
    series = root.find(f"{_V3}component/{_V3}series/{_V3}component/{_V3}sequenceSet")
    assert series is not None
    for one in series.findall(f"{_V3}component/{_V3}sequence"):
        code = one.find(f"{_V3}code")
        digits = one.findtext(f"{_V3}value/{_V3}digits")
        if code is not None and digits:
            lead = code.get("code", "").removeprefix("MDC_ECG_LEAD_").replace("AV", "aV")
            row = example.digital[example.leads.index(lead)]
            assert row.tolist() == [int(word) for word in digits.split()]


def test_one_recording_through_three_files(test_data: Path, example: Record) -> None:
    pydicom = pytest.importorskip("pydicom")
    formats = test_data / "data/formats"
    np.testing.assert_array_equal(
        read(formats / "hl7_aecg/subject1_0.xml").digital, example.digital
    )
    dataset = pydicom.dcmread(formats / "dicom/example_500hz.dcm")
    group = dataset.WaveformSequence[0]
    raw = np.frombuffer(group.WaveformData, "<i2").reshape(-1, 12).T
    names = [one.ChannelSourceSequence[0].CodeMeaning for one in group.ChannelDefinitionSequence]
    for name, row in zip(names, raw, strict=True):
        lead = name.split()[1].replace("AV", "aV")
        np.testing.assert_array_equal(row, example.digital[example.leads.index(lead)])


def test_what_the_file_says(example: Record) -> None:
    meta = example.meta
    assert meta["source_format"] == "hl7"
    assert meta["recorded_at"] == dt.datetime(2002, 11, 22, 9, 10)
    assert (meta["age"], meta["sex"], meta["device"]) == (46.0, "male", "ELI250")
    assert meta["patient_id"] == "SBJ-123"
    assert meta["measurements"] == {
        "p_duration": 102, "pr": 148, "qrs": 120, "qt": 420, "qtc": 443, "p_axis": 44,
        "qrs_axis": -61, "t_axis": 86,
    }  # fmt: skip
    assert meta["report"] == "Sinus Rhythm"
    identifiers = meta["identifiers"]
    assert isinstance(identifiers, tuple)
    assert {"Clark", "SBJ-123", "John Smith, M.D.", "TECH-221", "KAB"} <= set(identifiers)


def test_one_lead_of_thirteen_samples(folder: Path) -> None:
    record = read(folder / "minimum_aecg.xml")
    assert record.leads == ("II",)
    assert record.rate_hz == 500
    assert record.digital.tolist() == [[-2, -2, -2, -2, -3, -4, -3, -5, -5, -4, -6, -9, -9]]
    assert record.signal_mv[0, -1] == pytest.approx(-9 * 0.0025)


def test_an_empty_document_is_refused(folder: Path) -> None:
    path = folder / "empty.xml"
    assert READER.matches(path.read_bytes(), path)
    with pytest.raises(ReadError, match="RHYTHM") as why:
        read(path)
    assert why.value.reason == "no signals"


@pytest.mark.parametrize(
    ("unit", "scale", "origin", "gain", "baseline"),
    [
        ("uV", "4.88", "0", 1000 / 4.88, 0),
        ("mV", "0.005", "0.1", 200, -20),
        ("V", "0.000005", "-0.001", 200, 200),
        ("nV", "2500", "0", 400, 0),
        ("uV", "-5", "10", -200, 2),
    ],
)
def test_scale_and_origin(
    written: Any, unit: str, scale: str, origin: str, gain: float, baseline: int
) -> None:
    lead = sequence(_LEAD_II, [-3, 0, 700], unit=unit, scale=scale, origin=origin)
    record = written(document(a_series(a_set(clock(), lead))))
    assert record.digital.tolist() == [[-3, 0, 700]]
    assert record.gain[0] == pytest.approx(gain)
    assert record.baseline[0] == baseline


def test_an_origin_between_counts_keeps_the_millivolts(written: Any) -> None:
    lead = sequence(_LEAD_II, [-3, 0, 7], scale="5", origin="1")
    record = written(document(a_series(a_set(clock(), lead))))
    np.testing.assert_allclose(record.signal_mv, [[-0.014, 0.001, 0.036]], atol=1e-9)
    assert record.quality == ()


def test_origin_and_scale_may_differ_in_unit(written: Any) -> None:
    lead = sequence(_LEAD_II, [1], scale="5", origin="1").replace(
        'origin value="1" unit="uV"', 'origin value="1" unit="mV"'
    )
    record = written(document(a_series(a_set(clock(), lead))))
    assert record.signal_mv[0, 0] == pytest.approx(1.005)


@pytest.mark.parametrize(
    ("increment", "rate_hz"),
    [('"0.001" unit="s"', 1000.0), ('"4" unit="ms"', 250.0), ('"2500" unit="us"', 400.0)],
)
def test_time_units(written: Any, increment: str, rate_hz: float) -> None:
    lead = sequence(_LEAD_II, range(9))
    record = written(document(a_series(a_set(clock(increment=increment), lead))))
    assert record.rate_hz == rate_hz


def test_digits_without_unit_are_not_taken_for_volts(written: Any) -> None:
    bare = sequence(_LEAD_II, range(5), unit="", scale="1").replace("SLIST_PQ", "SLIST_INT")
    record = written(document(a_series(a_set(clock(), bare))))
    assert record.leads == ()
    assert record.signals[0].counts.tolist() == [0, 1, 2, 3, 4]
    assert record.quality == ("other_unit:II",)


def test_columns_of_leads_are_put_in_their_place(written: Any) -> None:
    first = a_set(clock('"20200229102030.000"'), sequence("MDC_ECG_LEAD_I", [1] * 50))
    second = a_set(clock('"20200229102030.100"'), sequence("MDC_ECG_LEAD_V1", [2] * 50))
    record = written(document(a_series(second, first)))
    assert record.leads == ("I", "V1")
    assert record.n_samples == 100
    nan = np.full(50, np.nan)
    np.testing.assert_allclose(record.signal_mv[0], np.r_[np.full(50, 0.005), nan])
    np.testing.assert_allclose(record.signal_mv[1], np.r_[nan, np.full(50, 0.01)])
    assert record.quality == ("invalid_samples:I", "invalid_samples:V1")


def test_parts_of_one_lead_are_joined(written: Any) -> None:
    parts = [
        a_set(clock(f'"2020022910203{k}"', '"10" unit="ms"'), sequence(_LEAD_II, [k] * 100))
        for k in range(3)
    ]
    record = written(document(a_series(*parts)))
    assert record.digital.tolist() == [[0] * 100 + [1] * 100 + [2] * 100]
    assert record.quality == ()


def test_sets_of_two_rates(written: Any) -> None:
    slow = a_set(clock(increment='"0.01" unit="s"'), sequence("MDC_PULS_OXIM_PLETH", range(4)))
    fast = a_set(clock(), *(sequence(f"MDC_ECG_LEAD_{lead}", range(20)) for lead in ("I", "II")))
    record = written(document(a_series(slow, fast)))
    assert (record.leads, record.rate_hz) == (("I", "II"), 500.0)
    assert (record.signals[0].rate_hz, len(record.signals[0].counts)) == (100.0, 4)


def test_other_rhythms_are_flagged_and_beats_ignored(written: Any) -> None:
    other = a_series(a_set(clock(), sequence(_LEAD_II, [9] * 9)))
    beat = a_series(a_set(clock(), sequence(_LEAD_II, [8] * 9)), code="REPRESENTATIVE_BEAT")
    record = written(document(beat, _PLAIN, other))
    assert record.digital.tolist() == [list(range(20))]
    assert record.quality == ("other_series:1",)


def test_measurements_of_the_series_come_first(written: Any) -> None:
    beat = '<component><annotation><code code="MDC_ECG_BEAT"/>{}</annotation></component>'.format
    beats = [beat(measured(("MDC_ECG_TIME_PD_QT", qt, "ms"))) for qt in (380, 390, 470)]
    whole = measured(
        ("MDC_ECG_HEART_RATE", 61, "bpm"),
        ("MDC_ECG_TIME_PD_PR", "0.16", "s"),
        ("MDC_ECG_TIME_PD_QTc", 401, "ms"),
        ("MDC_ECG_ANGLE_QRS_FRONT", -30, "deg"),
        ("MDC_ECG_TIME_PD_QRS", 90, "mm"),
    )
    second = annotated(measured(("MDC_ECG_HEART_RATE", 99, "bpm")))
    more = annotated(*beats, whole) + second
    text = document(_PLAIN.replace("</series>", more + "</series>"))
    wanted = {"heart_rate": 61, "pr": 160, "qtc": 401, "qrs_axis": -30, "qt": 390}
    assert written(text).meta["measurements"] == wanted


def test_statements_that_name_somebody_are_withheld(written: Any) -> None:
    said = "".join(
        f'<component><annotation><code code="MDC_ECG_INTERPRETATION_STATEMENT"/><value '
        f'xsi:type="ST">{text}</value></annotation></component>'
        for text in ("Sinus bradycardia", "Seen by Dr Quux")
    )
    record = written(document(_PLAIN.replace("</series>", annotated(said) + "</series>")))
    assert record.meta["report"] == "Sinus bradycardia"
    assert record.quality == ("withheld_statements:1",)


@pytest.mark.parametrize(
    ("stated", "born", "age"),
    [
        ('value="6" unit="mo"', "20190829", 0.5),
        ('value="54" unit="a"', "19200101", 54.0),
        ('value="x" unit="a"', "19500301", 69.0),
        ('value="x" unit="a"', "19500229", None),
        ('value="x" unit="a"', "1950", None),
    ],
)
def test_age(written: Any, stated: str, born: str, age: float | None) -> None:
    more = (
        '<effectiveTime><center value="20200229102030.5+0100"/></effectiveTime><componentOf>'
        '<trialSubject><id root="1.2" extension="S-1"/><subjectDemographicPerson><name><given>Ann'
        '</given><family>Quux</family></name><administrativeGenderCode code="F"/><birthTime '
        f'value="{born}"/></subjectDemographicPerson></trialSubject></componentOf>'
        '<controlVariable><relatedObservation><code code="21612-7"/><value xsi:type="PQ" '
        f"{stated}/></relatedObservation></controlVariable>"
    )
    meta = written(document(_PLAIN, more=more)).meta
    assert meta["recorded_at"] == dt.datetime(2020, 2, 29, 10, 20, 30, 500_000)
    assert meta.get("age") == age
    assert (meta["sex"], meta["patient_id"]) == ("female", "S-1")
    assert meta["identifiers"] == ("S-1", "Ann", "Quux")


def _lead(digits: str, **options: str) -> str:
    return document(a_series(a_set(clock(), sequence(_LEAD_II, digits, **options))))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (_lead(""), "no samples"),
        (_lead("  "), "no samples"),
        (_lead("1 NaN 3"), "bad samples"),
        (_lead("1 2.5 3"), "bad samples"),
        (_lead("1 - 3"), "bad samples"),
        (_lead("1-3"), "bad samples"),
        (_lead("1 2 +"), "bad samples"),
        (_lead("1 ٣"), "bad samples"),
        (_lead("1 99999999999999999999999"), "bad samples"),
        (_lead("1", scale="0"), "bad header"),
        (_lead("1", scale="1e999"), "bad header"),
        (_lead("1", scale="x"), "bad header"),
        (_lead("1", origin="nan"), "bad header"),
        (_lead("1", scale="1e-300", origin="9e99"), "bad header"),
        (_lead("1").replace('unit="s"', 'unit="d"'), "bad header"),
        (_lead("1").replace('"0.002"', '"0"'), "bad header"),
        (_lead("1").replace("TIME_ABSOLUTE", "TIME_LOCAL"), "bad header"),
        (_lead("1").replace(_LEAD_II, ""), "no leads"),
        (_lead("1").replace("RHYTHM", "OTHER"), "no signals"),
        (document(a_series(a_set(clock()))), "no signals"),
        (
            document(a_series(a_set(clock(), sequence("V1", "1 2"), sequence("V2", "1")))),
            "truncated",
        ),
        (
            document(a_series(a_set(clock(), sequence("V1", "1"), sequence("V1", "1")))),
            "duplicate leads",
        ),
        (
            document(
                a_series(
                    a_set(clock(), sequence("V1", "1")),
                    a_set(clock('"20200229102031"'), sequence("V1", "1", scale="4")),
                )
            ),
            "mixed gains",
        ),
        (
            document(
                a_series(
                    a_set(clock('"19000101"'), sequence("V1", "1")),
                    a_set(clock('"20200229"'), sequence("V2", "1")),
                )
            ),
            "unknown layout",
        ),
        ("<AnnotatedECG>", "bad header"),
        ("<other/>", "bad header"),
        ('<!DOCTYPE r [<!ENTITY e "e">]><AnnotatedECG/>', "forbidden content"),
        ("", "empty file"),
    ],
)
def test_refusals(written: Any, text: str, reason: str) -> None:
    with pytest.raises(ReadError) as why:
        written(text)
    assert why.value.reason == reason


def test_messages_name_nobody(written: Any) -> None:
    person = "<trialSubject><id extension='S-1'/></trialSubject><x><assignedPerson><name>Quux"
    more = person + "</name></assignedPerson></x>"
    for text in (_lead("Quux"), _lead("1", scale="Quux"), _lead("1").replace(_LEAD_II, "")):
        with pytest.raises(ReadError) as why:
            written(text.replace("<component>", more + "<component>", 1))
        assert "Quux" not in str(why.value)


def test_other_formats_are_not_taken(tmp_path: Path) -> None:
    for head in (b"", b"<restingecgdata/>", b"AnnotatedECG", b"<!-- <AnnotatedECG> --><x/>"):
        assert not READER.matches(head, tmp_path / "ecg.xml")
    assert READER.matches(document(_PLAIN).encode("utf-16")[:4096], tmp_path / "ecg.xml")
