"""Schiller XML, held against numpy's own reading of the numbers, and files made here."""

from __future__ import annotations

import datetime as dt
import random
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

import numpy as np
import pytest

from ecgstore.errors import ReadError
from ecgstore.io.schiller import READER, read
from ecgstore.record import LEADS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

RAMP = list(range(-50, 50))


def channel(lead: str, counts: Sequence[int] | str, **changed: object) -> str:
    data = counts if isinstance(counts, str) else "".join(f"{one}," for one in counts)
    fields: dict[str, object] = {
        "name": lead,
        "data": data,
        "datastype": "COMMASEPARATE",
        "samplecount": len(counts),
    } | changed
    parts = (f"<{tag}>{text}</{tag}>" for tag, text in fields.items() if text is not None)
    return f"<channel>{''.join(parts)}</channel>"


def wave(
    channels: Sequence[str],
    *,
    kind: str = "ECG_RHYTHMS",
    rate: object = 500,
    exponent: int = 1,
    per_bit: object = "1.0",
    units: str = "UV",
) -> str:
    return (
        f"<wavedata><type>{kind}</type><resolution>"
        f"<samplerate><exponent>{exponent}</exponent><value>{rate}</value></samplerate>"
        f"<yres><unitperbit>{per_bit}</unitperbit><units>{units}</units></yres></resolution>"
        f"{''.join(channels)}</wavedata>"
    )


@pytest.fixture
def schiller(tmp_path: Path) -> Callable[..., Path]:
    """Return a call that writes a file of waves, with what stands before and after them."""

    def write(*waves: str, before: str = "", after: str = "") -> Path:
        path = tmp_path / "x.xml"
        root = "com.xiriuz.sema.xml.schillerEDI.SchillerEDI"
        body = f"<eventdata><event>{''.join(waves)}{after}</event></eventdata>"
        path.write_text(f'<?xml version="1.0"?><{root}>{before}{body}</{root}>', encoding="utf-8")
        return path

    return write


def refused(path: Path) -> ReadError:
    with pytest.raises(ReadError) as caught:
        read(path)
    return caught.value


def test_counts_of_the_real_file_are_those_in_its_text(test_data: Path) -> None:
    path = test_data / "data/formats/schiller_xml/sample.xml"
    rhythm = ElementTree.parse(path).getroot().findall("eventdata/event/wavedata")[1]
    truth = [
        np.array((one.findtext("data") or "").rstrip(",").split(","), np.int64)
        for one in rhythm.findall("channel")  # in the usual order in this file
    ]
    record = read(path)
    assert (record.leads, record.rate_hz, record.n_samples) == (LEADS, 500.0, 5000)
    np.testing.assert_array_equal(record.digital, truth)
    np.testing.assert_allclose(record.signal_mv, np.array(truth) / 1000, atol=1e-12)
    one, two, three = record.signal_mv[:3]
    np.testing.assert_allclose(one + three, two, atol=1e-9)
    assert record.quality == ()


def test_what_the_real_file_says_besides(test_data: Path) -> None:
    meta: Any = read(test_data / "data/formats/schiller_xml/sample.xml").meta
    assert meta["device"] == "Schiller AT-10P"
    assert not {"recorded_at", "age", "sex", "patient_id", "report", "identifiers"} & set(meta)
    measured = meta["measurements"]
    assert (measured["heart_rate"], measured["rr"]) == (69, 869)
    assert measured["qrs_offset"] - measured["qrs_onset"] == measured["qrs"] == 94
    assert measured["qrs_onset"] - measured["p_onset"] == measured["pr"] == 174
    assert measured["t_offset"] - measured["qrs_onset"] == measured["qt"] == 370
    assert measured["p_offset"] - measured["p_onset"] == measured["p_duration"] == 108
    assert (measured["p_axis"], measured["qrs_axis"], measured["t_axis"]) == (42, 0, 3)


def test_only_schiller_is_recognised(test_data: Path) -> None:
    formats = test_data / "data/formats"
    for folder in ("muse_xml", "philips_xml", "schiller_xml", "hl7_aecg", "scp", "csv"):
        for path in (formats / folder).iterdir():
            head = path.read_bytes()[:4096]
            assert READER.matches(head, path) is (folder == "schiller_xml"), path.name
    assert refused(formats / "muse_xml/muse_ecg1.xml").reason == "unknown format"


def test_scale_rate_and_spelling(schiller: Callable[..., Path]) -> None:
    leads = [channel("AVR", [-12, 0, 7]), channel("V1", " 1 ,\n-2, 3\n", samplecount=3)]
    record = read(schiller(wave(leads, rate=1000, per_bit="2.5")))
    assert (record.leads, record.rate_hz) == (("aVR", "V1"), 1000.0)
    np.testing.assert_allclose(record.signal_mv, [[-0.03, 0, 0.0175], [0.0025, -0.005, 0.0075]])
    record = read(schiller(wave([channel("I", [1, 2])], units="mV", per_bit="0.005")))
    np.testing.assert_allclose(record.signal_mv, [[0.005, 0.01]])


@pytest.mark.parametrize("counts", [[-32768, 0, 32767], [-40_000, 1, 40_000], [999_999_999, 0]])
def test_large_counts_are_neither_clipped_nor_lost(
    schiller: Callable[..., Path], counts: list[int]
) -> None:
    record = read(schiller(wave([channel("I", counts)])))
    step = np.ptp(counts) / 60_000
    np.testing.assert_allclose(record.signal_mv[0] * 1000, counts, atol=step)
    assert "quantised" in record.quality


def test_averages_are_no_record_and_a_second_rhythm_is_flagged(
    schiller: Callable[..., Path],
) -> None:
    averages = wave([channel("I", [1, 2])], kind="ECG_AVERAGES")
    rhythm = wave([channel("I", RAMP)])
    assert read(schiller(averages, rhythm)).n_samples == len(RAMP)
    assert "unread_waveforms:1" in read(schiller(rhythm, rhythm)).quality
    assert refused(schiller(averages)).reason == "no signals"


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"samplecount": 101}, "truncated"),
        ({"samplecount": 10**15}, "truncated"),
        ({"samplecount": 99}, "bad samples"),
        ({"samplecount": "many"}, "bad samples"),
        ({"data": "1,,2", "samplecount": None}, "bad samples"),
        ({"data": "1,2-3", "samplecount": None}, "bad samples"),
        ({"data": "1 2,3", "samplecount": None}, "bad samples"),
        ({"data": "1,-", "samplecount": None}, "bad samples"),
        ({"data": "1,2.5", "samplecount": None}, "bad samples"),
        ({"data": "1,٣", "samplecount": None}, "bad samples"),
        ({"data": "9" * 5000, "samplecount": None}, "bad samples"),
        ({"data": "", "samplecount": None}, "no samples"),
        ({"datastype": "BASE64"}, "unsupported format"),
        ({"name": None}, "no leads"),
        ({"name": "I"}, "duplicate leads"),
    ],
)
def test_a_lead_that_contradicts_itself_is_refused(
    schiller: Callable[..., Path], changed: dict[str, Any], reason: str
) -> None:
    two = channel("II", RAMP, **changed)
    assert refused(schiller(wave([channel("I", RAMP), two]))).reason == reason


@pytest.mark.parametrize(
    ("section", "reason"),
    [
        ("", "no signals"),
        (wave([]), "no signals"),
        (wave([channel("I", RAMP)], exponent=3), "bad header"),
        (wave([channel("I", RAMP)], rate=0), "bad header"),
        (wave([channel("I", RAMP)], rate="nan"), "bad header"),
        (wave([channel("I", RAMP)], per_bit=""), "bad header"),
        (wave([channel("I", RAMP)], per_bit="-1"), "bad header"),
        (wave([channel("I", RAMP)], units="LSB"), "unknown unit"),
        (wave([channel("I", RAMP), channel("II", RAMP[1:])]), "truncated"),
    ],
)
def test_a_recording_that_contradicts_itself_is_refused(
    schiller: Callable[..., Path], section: str, reason: str
) -> None:
    assert refused(schiller(section)).reason == reason


def test_no_name_or_id_leaves_through_meta_flags_or_errors(schiller: Callable[..., Path]) -> None:
    before = (
        "<patdata><id>4711-0815</id><lastname>Müller</lastname><firstname>Erika</firstname>"
        "<birthdate>19600229</birthdate><gender>FEMALE</gender></patdata>"
        "<examdescript><startdatetime><date>20200301</date><time>235958123</time></startdatetime>"
        "<user_id>nurse7</user_id><idu><referring_user><id>DOC42</id></referring_user></idu>"
        "<aquiringdevice><hardware><vendor>Schiller</vendor><model>AT-102</model>"
        "<serialnum>SN190.1234</serialnum></hardware></aquiringdevice></examdescript>"
    )
    after = (
        "<textdata><type>INTERPRETATION</type>"
        "<textdata>Sinus rhythm\nReviewed with Frau Schmidt\nNormal ECG</textdata></textdata>"
    )
    rhythm = wave([channel("I", RAMP)])
    record = read(schiller(rhythm, before=before, after=after))
    meta: Any = dict(record.meta)
    assert meta.pop("patient_id") == "4711-0815"
    found = meta.pop("identifiers")
    assert {"4711-0815", "Müller", "Erika", "nurse7", "DOC42", "SN190.1234"} <= set(found)
    assert (meta["age"], meta["sex"], meta["device"]) == (60.0, "female", "Schiller AT-102")
    assert meta["recorded_at"] == dt.datetime(2020, 3, 1, 23, 59, 58)
    assert meta["report"] == "Sinus rhythm\nNormal ECG"
    assert "withheld_statements:1" in record.quality
    shown = f"{meta} {record.quality}".lower()
    for name in (*found, "schmidt"):
        assert name.lower() not in shown
    error = refused(schiller(wave([channel("I", "x,y")]), before=before))
    assert not any(name in str(error) for name in found)


def test_damage_is_refused_or_seen(schiller: Callable[..., Path], tmp_path: Path) -> None:
    data = schiller(wave([channel("I", RAMP), channel("V1", RAMP)])).read_bytes()
    rng = random.Random(1)
    damaged = tmp_path / "damaged.xml"
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
        assert record.n_samples == len(RAMP)
