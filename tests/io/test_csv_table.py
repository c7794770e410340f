"""CSV: every dialect gives the same counts; nothing is dropped or shifted without a word."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from ecgstore.errors import ReadError
from ecgstore.io import read as read_any
from ecgstore.io.csv_table import READER, read
from ecgstore.io.wfdb import read as read_wfdb
from ecgstore.record import LEADS, Record

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

HEADED = "# fs = 250\n"


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    def call(text: str, encoding: str = "utf-8") -> Path:
        path = tmp_path / "x.csv"
        path.write_bytes(text.encode(encoding))
        return path

    return call


def one(path: Path, **layout: str) -> Record:
    return read_any(path, reader="csv", item=0, layout=layout)


def refusal(path: Path, **layout: str) -> ReadError:
    with pytest.raises(ReadError) as caught:
        one(path, **layout)
    assert "\n" not in caught.value.message
    return caught.value


@pytest.mark.parametrize(
    ("name", "layout", "unit"),
    [
        ("mv_time", {}, "mV"),
        ("decimal_comma", {"rate": "500"}, "mV"),
        ("uv_semicolon", {"rate": "500"}, "uV"),
        ("uv_semicolon", {"rate": "500", "unit": "uV"}, None),
    ],
)
def test_one_ecg_in_three_dialects(
    test_data: Path, name: str, layout: dict[str, str], unit: str | None
) -> None:
    path = test_data / f"data/formats/csv/00004_hr_{name}.csv"
    record = one(path, **layout)
    truth = read_wfdb(test_data / "data/ptbxl/records500/00000/00004_hr.hea")
    assert (record.leads, record.rate_hz) == (LEADS, 500)
    assert np.array_equal(record.digital, truth.digital)
    assert np.array_equal(record.signal_mv, truth.signal_mv)
    assert record.quality == ((f"assumed_unit:{unit}",) if unit else ())
    assert READER.matches(path.read_bytes()[:4096], path)


@pytest.mark.parametrize("name", ["decimal_comma", "uv_semicolon"])
def test_without_times_the_rate_must_be_given(test_data: Path, name: str) -> None:
    error = refusal(test_data / f"data/formats/csv/00004_hr_{name}.csv")
    assert error.reason == "unknown layout"
    assert "--map rate=500" in str(error)


@pytest.mark.parametrize(
    "text",
    [
        "time,I,V1\n0.000,0.1,-2.5\n0.004,0.25,3\n0.008,-0.05,0\n",
        "t_ms\tI (mV)\tV1 (mV)\n0\t0.1\t-2.5\n4\t0.25\t3\n8\t-0.05\t0\n",
        "time_s;lead I;lead V1\n0,000;0,1;-2,5\n0,004;0,25;3\n0,008;-0,05;0\n",
        '"Time (ms)","I [uV]","V1_uV"\r\n"0","100","-2500"\r\n"4","+250","3e3"\r\n"8","-50",0\r\n',
        '"time","I","V1"\n"0,000","0,1","-2,5"\n"0,004","0,25","3"\n"0,008","-0,05","0"\n',
        "'Elapsed time','I','V1'\n'seconds','mV','mV'\n0.000,0.1,-2.5\n0.004,0.25,3\n0.008,-0.05,0",
        "  time  I     V1\n 0.000  0.1  -2.5\n 0.004  0.25  3\n 0.008 -0.05  0\n",
        "V1;I\n-2500;100\n# a remark; of two columns\n3000;250\n0;-50\n# rate_hz: 250\n",
        "# rate_hz: 250\n\n# unit: mV\nI,V1\n0.1,-2.5\n0.25,3\n-0.05,0\n\n\n",
        "time,note,I (V),V1 (mV)\n0.000,a,1e-4,-2.5\n0.004,b,0.00025,3\n0.008,c,-0.00005,0\n",
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_dialects(write: Callable[..., Path], text: str, encoding: str) -> None:
    path = write(text, encoding)
    layout = {"rate": "250"} if text.startswith("V1;I") else {}
    record = one(path, **layout)
    assert (record.leads, record.rate_hz) == (("I", "V1"), 250)
    assert record.signal_mv == pytest.approx(
        np.array([[0.1, 0.25, -0.05], [-2.5, 3, 0]]), abs=1e-12
    )
    assert "quantised" not in record.quality
    assert READER.matches(path.read_bytes()[:4096], path)


def test_empty_cells_and_lines_are_lost_samples(write: Callable[..., Path]) -> None:
    record = read(write(HEADED + "I,II\n1.5,\n\nnan,2.5\nNA,-0.5\n"))
    assert np.array_equal(
        record.signal_mv,
        [[1.5, np.nan, np.nan, np.nan], [np.nan, np.nan, 2.5, -0.5]],
        equal_nan=True,
    )
    record = read(write(HEADED + "II\n1.5\n\n2.5\n"))
    assert np.array_equal(record.signal_mv, [[1.5, np.nan, 2.5]], equal_nan=True)


def test_what_is_left_out_or_not_whole_is_flagged(write: Callable[..., Path]) -> None:
    record = read(write(HEADED + "sample,I (mV),II (mV),PLETH,ABP (mmHg)\n0,1,2,3,80\n1,2,3,4,81"))
    assert record.leads == ("I", "II")
    assert {"columns_left_out:2", "unterminated_last_row"} <= set(record.quality)
    (pressure,) = record.signals
    assert (pressure.name, pressure.unit) == ("ABP", "mmHg")
    assert ((pressure.counts - pressure.baseline) / pressure.gain).tolist() == [80, 81]


def test_declared_leads_name_the_columns(write: Callable[..., Path]) -> None:
    text = "0.1;0.2\n0.3;0.4\n"
    assert refusal(write(text), rate="500").reason == "no leads"
    assert one(write(text), rate="500", leads="II,V5").leads == ("II", "V5")
    assert refusal(write(text), rate="500", leads="II").reason == "no leads"
    headed = write("time,ch1,ch2\n0,1,2\n0.5,2,3\n")
    assert refusal(headed).reason == "no leads"
    assert one(headed, rate="2", leads="II,V5").leads == ("II", "V5")


def test_counts_with_a_gain(write: Callable[..., Path]) -> None:
    record = one(write("MLII,V5\n995,1011\n1000,1024\n"), rate="360", gain="200", baseline="1024")
    assert record.leads == ("V5", "MLII")
    assert record.digital.tolist() == [[1011, 1024], [995, 1000]]
    assert record.signal_mv.tolist() == [[-13 / 200, 0], [-29 / 200, -24 / 200]]


@pytest.mark.parametrize("rate", [100, 128, 250, 360, 500, 1000])
@pytest.mark.parametrize("digits", [3, 4, 6])
def test_rates_come_back_from_rounded_times(
    write: Callable[..., Path], rate: int, digits: int
) -> None:
    rows = "".join(f"{i / rate:.{digits}f},{i % 7}\n" for i in range(3 * rate))
    assert read(write(f"time,II\n{rows}")).rate_hz == rate


@pytest.mark.parametrize(
    ("times", "why"),
    [
        ("0 0.002 0.006 0.008", "uneven"),  # one row lost
        ("0 0.002 0.002 0.004", "uneven"),
        ("0 0.002 0.001 0.003", "uneven"),
        ("0 0 0 0", "uneven"),
        ("0 2 4 6", "no unit"),
        ("0 nan 4 6", "do not give"),
    ],
)
def test_times_that_do_not_give_a_rate(write: Callable[..., Path], times: str, why: str) -> None:
    path = write("time,II\n" + "".join(f"{time},1\n" for time in times.split()))
    error = refusal(path)
    assert error.reason == "unknown layout"
    assert why in error.message
    assert one(path, rate="500").rate_hz == 500


def test_a_comment_must_not_contradict_the_times(write: Callable[..., Path]) -> None:
    text = "time,II\n0,1\n0.002,2\n0.004,3\n"
    assert read(write("# fs: 500\n" + text)).rate_hz == 500
    assert refusal(write("# fs: 250\n" + text)).reason == "bad header"


def test_names_in_comments_are_known_as_such(write: Callable[..., Path]) -> None:
    record = read(write("# Patient: Jane Roe\n" + HEADED + "II\n1\n2\n"))
    assert record.meta["identifiers"] == ("Jane Roe",)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "empty file"),
        ("I,II\n", "bad header"),
        ("exam_id,age,is_male\n1,46,True\n2,54,False\n", "no leads"),
        (HEADED + "I,II\n1,2\n3\n", "bad samples"),
        (HEADED + "I,II\n1,2\n3,4,5\n", "bad samples"),
        (HEADED + "I,II\n1,2\n3,Smith\n", "bad samples"),
        (HEADED + "I;II\n1.000,5;2\n3;4\n", "bad samples"),
        (HEADED + "I,II,I\n1,2,3\n3,4,5\n", "duplicate leads"),
        (HEADED + "I (mV),II (mV)\n9000,2\n3,4\n", "bad samples"),
        (HEADED + "I (adu),II (adu)\n90,2\n3,4\n", "unknown unit"),
        ("# fs: fast\nI,II\n1,2\n3,4\n", "bad header"),
        ("x" * 70000 + "\n1\n", "bad header"),
        ("I," * 5000 + "\n" + "1," * 5000, "bad header"),
        ("\0\1\2,\n\3,1\n", "bad header"),
    ],
)
def test_bad_tables(write: Callable[..., Path], text: str, reason: str) -> None:
    error = refusal(write(text))
    assert error.reason == reason
    assert "Smith" not in str(error)


@pytest.mark.parametrize(
    "text",
    [
        "ecg_id,patient_id,age\n1,15709,56\n",
        "00001_hr 12 500 5000\n00001_hr.dat 16 1000/mV 16 0 -115 1508 0 I\n",
        "<?xml version='1.0'?>\n<x/>\n",
        '{"I": [1, 2]}\n',
        "I am a letter\nof no interest\n",
        "a,b\n1,2\n",
    ],
)
def test_other_texts_are_not_taken_for_ecgs(tmp_path: Path, text: str) -> None:
    assert not READER.matches(text.encode(), tmp_path / "x.csv")


def test_a_key_that_means_nothing_here(write: Callable[..., Path]) -> None:
    error = refusal(write(HEADED + "I\n1\n2\n"), axes="sl")
    assert error.reason == "unknown layout"
    assert "rate" in (error.hint or "")
