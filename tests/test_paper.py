"""The ECG on paper: true size, the right piece of the right lead, nothing of the patient."""

from __future__ import annotations

import dataclasses
import struct
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from matplotlib.colors import to_rgb

import ecgstore
from ecgstore.errors import UnknownNameError, UsageError
from ecgstore.paper import draw, save
from ecgstore.record import INVALID, LEADS

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.figure import Figure
    from numpy.typing import NDArray


def _record(
    *, leads: tuple[str, ...] = LEADS, seconds: float = 10, rate_hz: float = 500, **more: Any
) -> ecgstore.Record:
    """Return a record whose lead k holds a 1 mV step at (k + 1) tenths of each 2.5 s."""
    time = np.arange(round(seconds * rate_hz)) / rate_hz
    rows = [(time % 2.5 >= 0.1 * (k + 1)) & (time % 2.5 < 0.1 * (k + 2)) for k in range(len(leads))]
    return ecgstore.Record(
        name="record one",
        leads=leads,
        rate_hz=rate_hz,
        digital=np.stack(rows).astype(np.int16) * 1000,
        gain=np.full(len(leads), 1000.0),
        baseline=np.zeros(len(leads), np.int32),
        **more,
    )


def _words(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.axes[0].texts]


def _traces(figure: Figure) -> list[NDArray[np.float64]]:
    """Return the long lines, each ``(2, samples)`` millimetres."""
    lines = [np.stack(line.get_data()).astype(float) for line in figure.axes[0].lines]
    return [line for line in lines if line.shape[1] > 10]


def _mm(figure: Figure) -> tuple[float, float]:
    """Return how many millimetres of paper one unit of the axes is, across and up."""
    axes = figure.axes[0]
    width, height = figure.get_size_inches() * 25.4
    (left, right), (low, high) = axes.get_xlim(), axes.get_ylim()
    box = axes.get_position()
    return width * box.width / (right - left), height * box.height / (high - low)


def test_a_millimetre_is_a_millimetre() -> None:
    figure = draw(_record())
    assert _mm(figure) == pytest.approx((1, 1))
    strip = _traces(figure)[-1]
    assert np.ptp(strip[0]) == pytest.approx(250, abs=0.1)  # 10 s at 25 mm/s
    assert np.ptp(strip[1]) == pytest.approx(10)  # 1 mV at 10 mm/mV


def test_the_calibration_pulse_is_1_mv_for_200_ms() -> None:
    figure = draw(_record())
    pulses = [line for line in figure.axes[0].lines if np.size(line.get_xdata()) == 6]
    assert len(pulses) == 4
    for pulse in pulses:
        x, y = np.stack(pulse.get_data())
        assert np.ptp(y) == 10
        assert np.ptp(x[y == y.max()]) == 5


def test_three_by_four_and_a_rhythm_strip() -> None:
    figure = draw(_record())
    assert _words(figure)[:13] == [*LEADS, "II"]
    traces = _traces(figure)
    assert len(traces) == 13
    for place, (x, y) in enumerate(traces[:12]):
        column = place // 3
        assert x[0] == pytest.approx(10 + 62.5 * column)
        up = x[y > y.min() + 5]
        # every piece shows its own 2.5 s of its own lead
        assert up[0] - x[0] == pytest.approx(25 * 0.1 * (place + 1), abs=0.06)
    assert len({round(float(y.min()), 3) for _, y in traces}) == 4


def test_a_shorter_record_shows_all_its_leads() -> None:
    traces = _traces(draw(_record(seconds=4)))
    assert [np.ptp(x) for x, _ in traces[:11]] == pytest.approx([25] * 11, abs=0.1)
    assert np.ptp(traces[12][0]) == pytest.approx(100, abs=0.1)


def test_further_leads_are_strips_below() -> None:
    figure = draw(_record(leads=(*LEADS, "X", "Y", "Z")), rhythm="V1")
    assert _words(figure)[12:16] == ["V1", "X", "Y", "Z"]
    assert len(_traces(figure)) == 16


def test_a_long_record_goes_on_row_by_row() -> None:
    figure = draw(_record(leads=("MLII", "V1"), seconds=100), start_s=65)
    assert _words(figure)[:6] == ["MLII   1:05", "V1", "MLII   1:15", "V1", "MLII   1:25", "V1"]
    figure = draw(_record(leads=("MLII",), seconds=100), start_s=85)
    assert _words(figure)[:2] == ["MLII   1:25", "MLII   1:35"]
    assert np.ptp(_traces(figure)[1][0]) == pytest.approx(125, abs=0.1)


def test_gaps_and_lost_leads() -> None:
    record = _record()
    digital = record.digital.copy()
    digital[1, 100:200] = INVALID
    digital[2] = INVALID
    figure = draw(dataclasses.replace(record, digital=digital))
    traces = _traces(figure)
    assert np.isnan(traces[1][1][100:200]).all()
    assert np.isfinite(traces[1][1][200:]).all()
    assert len(traces) == 12
    assert "III   no signal" in _words(figure)


def test_the_words_on_the_paper() -> None:
    meta = {"patient_id": "P-4711", "identifiers": ("Doe",), "age": 61, "device": "Cart 5"}
    figure = draw(_record(meta=meta, quality=("derived:III,aVR,aVL,aVF",)))
    text = " ".join(_words(figure))
    assert "record one" in text
    assert "500 Hz   10 s   25 mm/s   10 mm/mV   filter: none" in text
    assert "computed from I and II: III, aVR, aVL, aVF" in text
    for secret in ("P-4711", "Doe", "61", "Cart"):
        assert secret not in text
    assert "a name of $mine$" in _words(draw(_record(), title="a name of $mine$"))


def test_amplitudes_are_never_scaled() -> None:
    record = _record()
    digital = record.digital.copy()
    digital[6] *= 20
    figure = draw(dataclasses.replace(record, digital=digital))
    trace = _traces(figure)[6]
    assert np.ptp(trace[1]) == pytest.approx(200)
    assert "beyond the paper: V1" in _words(figure)


@pytest.mark.parametrize("suffix", [".png", ".svg"])
def test_the_same_record_gives_the_same_bytes(tmp_path: Path, suffix: str) -> None:
    one = save(draw(_record(seconds=3)), tmp_path / f"one{suffix}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SOURCE_DATE_EPOCH", "1")
        other = save(draw(_record(seconds=3)), tmp_path / f"other{suffix}")
    assert one.read_bytes() == other.read_bytes()


def test_a_png_knows_its_size(tmp_path: Path) -> None:
    figure = draw(_record(seconds=3), dpi=100)
    data = save(figure, tmp_path / "one.png").read_bytes()
    width, height = struct.unpack(">II", data[16:24])
    assert (width / 100, height / 100) == pytest.approx(figure.get_size_inches(), abs=0.01)
    at = data.index(b"pHYs") + 4
    dots_a_metre = struct.unpack(">I", data[at : at + 4])[0]
    assert dots_a_metre == pytest.approx(100 / 0.0254, abs=1)
    assert b"tEXt" not in data
    assert b"tIME" not in data


def test_traces_stand_out_in_any_colour_vision() -> None:
    figure = draw(_record())
    light = [sum(to_rgb(c) * np.array([0.2126, 0.7152, 0.0722])) for c in ("#e5a29a", "#111111")]
    assert light[0] / light[1] > 7
    assert {line.get_color() for line in figure.axes[0].lines} <= {"#111111", "#222222"}


@pytest.mark.parametrize("start_s", [-1.0, 10.0, float("nan")])
def test_a_start_outside_the_record(start_s: float) -> None:
    with pytest.raises(UsageError, match="lasts 10 s"):
        draw(_record(), start_s=start_s)


def test_what_cannot_be_drawn(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="V9"):
        draw(_record(), rhythm="V9")
    with pytest.raises(UsageError, match="no lead"):
        draw(_record(leads=("I",), seconds=0))
    figure = draw(_record(leads=("I",), seconds=1))
    with pytest.raises(UsageError, match="PNG"):
        save(figure, tmp_path / "one.docx")
    with pytest.raises(UsageError, match="Cannot write"):
        save(figure, tmp_path / "missing" / "one.png")


@pytest.mark.parametrize(
    "path",
    [
        "ptbxl/records100/00000/00001_lr.hea",
        "formats/wfdb/s0010_re.hea",
        "longterm/mitdb/100.hea",
        "challenge2021/ningbo/JS45542.hea",
    ],
)
def test_real_records(test_data: Path, tmp_path: Path, path: str) -> None:
    record = ecgstore.read(test_data / "data" / path)
    assert save(draw(record, dpi=50), tmp_path / "one.png").stat().st_size > 10_000
