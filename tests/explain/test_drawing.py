"""An explained ECG on paper: small, always the same, true to the signal, silent about people."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from matplotlib.image import imread

from ecgstore import paper
from ecgstore.errors import UsageError
from ecgstore.explain import Attribution, draw, svg_of
from ecgstore.io import read
from ecgstore.record import LEADS, Record

if TYPE_CHECKING:
    from pathlib import Path

SVG = "{http://www.w3.org/2000/svg}"


def made(values: np.ndarray | None = None) -> Attribution:
    if values is None:
        values = np.zeros((12, 50))
        values[LEADS.index("V4"), 45], values[LEADS.index("I"), 3] = 2.0, -1.0
    edges = np.linspace(0, 10, values.shape[1] + 1)
    return Attribution("occlusion", "log-odds", LEADS, edges, values, values.sum(1), score=0.5)


def flat(mv: np.ndarray, rate_hz: float = 500.0, leads: tuple[str, ...] = LEADS) -> Record:
    digital = np.tile(np.round(mv * 1000).astype(np.int16), (len(leads), 1))
    gain, baseline = np.full(len(leads), 1000.0), np.zeros(len(leads), np.int32)
    return Record("name of somebody", leads, rate_hz, digital, gain, baseline)


@pytest.fixture(scope="module")
def record(test_data: Path) -> Record:
    return read(next(iter(sorted((test_data / "data/ptbxl").rglob("*_hr.hea")))))


def trace_of(root: ET.Element, lead: int) -> np.ndarray:
    """Return the points of a trace in mm, counted as the paper counts."""
    group = next(g for g in root.iter(f"{SVG}g") if g.get("stroke") == "#111")
    paths = [path.get("d", "") for path in group if "l" in path.get("d", "")]
    numbers = [float(n) for n in re.findall(r"-?\d+", paths[lead])]
    points = np.array(numbers).reshape(-1, 2).cumsum(axis=0)
    return points / 10


def test_an_inline_picture_is_small_whole_and_the_same_every_time(record: Record) -> None:
    text = svg_of(record, made())
    root = ET.fromstring(text)
    assert root.tag == f"{SVG}svg"
    assert len(text.encode()) <= 60_000
    assert text == svg_of(record, made())
    assert "id=" not in text, "several stand in one page"
    assert "class=" not in text, "the style of the page around it has no say"
    assert record.name not in text
    assert {t.text for t in root.iter(f"{SVG}text")} >= set(LEADS)
    assert "raises the score" in text
    assert "±2 log-odds" in text


def test_a_noisy_record_of_many_rows_stays_small() -> None:
    noise = np.random.default_rng(0).normal(scale=0.5, size=5000)
    many = flat(noise, leads=(*LEADS, "V7", "V8", "V9", "V3R", "V4R", "V5R"))
    assert len(svg_of(many).encode()) <= 60_000


def test_no_peak_is_lost_when_a_trace_is_thinned() -> None:
    mv = np.zeros(10_000)  # at 1000 Hz
    mv[1203], mv[2306] = 1.5, -0.7  # each one sample, seen in the first column of leads
    drawn = trace_of(ET.fromstring(svg_of(flat(mv, 1000.0))), lead=0)
    baseline = np.median(drawn[:, 1])
    assert baseline - drawn[:, 1].min() == pytest.approx(15, abs=0.1)
    assert drawn[:, 1].max() - baseline == pytest.approx(7, abs=0.1)
    peak_mm = drawn[drawn[:, 1].argmin(), 0]
    assert peak_mm == pytest.approx(10 + 1.203 * paper.SPEED_MM_S, abs=0.1)


def test_bands_stand_where_and_as_strong_as_the_attribution_says() -> None:
    root = ET.fromstring(svg_of(flat(np.zeros(5000)), made()))
    bands = [p for p in root.iter(f"{SVG}path") if p.get("fill-opacity") and "z" in p.get("d", "")]
    bands = [one for one in bands if "h40v40" not in one.get("d", "")]  # those of the legend
    raising, lowering = sorted(bands, key=lambda one: -float(one.get("fill-opacity", 0)))
    assert raising.get("fill") == "#e69f00"
    assert lowering.get("fill") == "#0072b2"
    assert float(raising.get("fill-opacity", 0)) > float(lowering.get("fill-opacity", 0))
    left = float(re.match(r"M(\d+)", raising.get("d", ""))[1]) / 10  # type: ignore[index]
    assert left == pytest.approx(10 + 9.0 * paper.SPEED_MM_S), "V4 is drawn from 7.5 s on"


def test_nothing_is_drawn_for_what_is_not_known() -> None:
    values = np.full((12, 50), np.nan)
    text = svg_of(flat(np.zeros(5000)), made(values))
    assert "nan" not in text
    assert ET.fromstring(text) is not None


def test_a_figure_shows_the_bands_and_is_the_same_bytes_every_time(tmp_path: Path) -> None:
    still = flat(np.zeros(5000))
    first, again = (
        paper.save(draw(still, made(), dpi=40), tmp_path / name) for name in ("a.png", "b.png")
    )
    assert first.read_bytes() == again.read_bytes()
    red, green, blue = np.moveaxis(imread(first)[..., :3], -1, 0)
    assert ((red - blue > 0.4) & (green - blue > 0.2)).sum() > 50, "orange is somewhere"


def test_a_record_without_leads_is_refused() -> None:
    empty = Record("x", (), 500.0, np.empty((0, 0), np.int16), np.empty(0), np.empty(0, np.int32))
    with pytest.raises(UsageError, match="no lead to draw"):
        svg_of(empty)


def test_rows_name_the_strongest_moment_and_never_hold_a_nan() -> None:
    values = np.zeros((2, 10))
    values[0, 3], values[1] = -0.4, np.nan
    edges = np.linspace(0, 2, 11)
    told = Attribution("occlusion", "log-odds", ("I", "II"), edges, values, values.sum(1), 1.0)
    first, second = told.rows
    assert first["peak_s"] == 0.7
    assert first["peak_effect"] == -0.4
    assert first["reason"] is None
    assert second["effect"] is None
    assert second["peak_s"] is None
    assert second["reason"] == "the models take no record without this lead"
