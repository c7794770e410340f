"""The WFDB reader: equal to wfdb on real records, and one line of refusal for anything else."""

from __future__ import annotations

import datetime as dt
import warnings
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as nps

from ecgstore.io import read
from ecgstore.record import INVALID, LEADS, Record, lead_signals, signal_name

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    Writer = Callable[..., Path]

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # wfdb 4.3 calls pandas in a way that pandas 3 warns of
    import wfdb

INVALID_CODES = {"80": -128, "212": -2048, "310": -512, "311": -512, "24": -(2**23), "32": -(2**31)}
"""What signal(5) stores for a lost sample in the formats of the real records below."""


def assert_equals_wfdb(header: Path, record: Record) -> None:
    """Hold every signal against wfdb's own digital values, gain, baseline and rate."""
    other = wfdb.rdrecord(str(header.with_suffix("")), physical=False, smooth_frames=False)
    leads = lead_signals(record.leads, record.digital, record.gain, record.baseline)
    ours = {one.name: one for one in (*leads, *record.signals)}
    assert set(ours) == {signal_name(name) for name in other.sig_name}
    for k, name in enumerate(other.sig_name):
        one = ours[signal_name(name)]
        expected = np.array(other.e_d_signal[k])
        expected[expected == INVALID_CODES.get(other.fmt[k], INVALID)] = INVALID
        np.testing.assert_array_equal(one.counts, expected)
        assert (one.gain, one.baseline) == (other.adc_gain[k], other.baseline[k])
        assert one.unit == ("mV" if other.units[k].lower() == "mv" else other.units[k])
        rate_hz = other.fs * other.samps_per_frame[k]
        assert (one.rate_hz or record.rate_hz) == pytest.approx(rate_hz)


def wrsamp(*arguments: object, **options: object) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wfdb.wrsamp(*arguments, **options)


@pytest.fixture
def counts() -> NDArray[np.int16]:
    return np.random.default_rng(1).integers(-500, 500, (12, 100), dtype=np.int16)


# -- real records ---------------------------------------------------------------------------------


def test_ptbxl_records_equal_wfdb(test_data: Path) -> None:
    # all 374 are held against wfdb when they come back from a warehouse: test_ingest.py
    headers = sorted((test_data / "data/ptbxl/records500").rglob("*.hea"))[::20]
    headers += sorted((test_data / "data/ptbxl/records100").rglob("*.hea"))[::20]
    for header in headers:
        record = read(header)
        assert record.leads == LEADS
        assert_equals_wfdb(header, record)


def test_every_challenge_record_equals_wfdb(test_data: Path) -> None:
    headers = sorted((test_data / "data/challenge2021").rglob("*.hea"))
    assert len(headers) == 72
    for header in headers:
        record = read(header)
        assert record.leads == LEADS
        assert record.meta["sex"] in {"male", "female"}
        assert "recorded_at" not in record.meta, "their date is when the file was made"
        assert_equals_wfdb(header, record)


@pytest.mark.parametrize(
    ("name", "leads", "flag"),
    [
        ("100", ("V5", "MLII"), "withheld_statements:1"),
        ("100-no-len", ("V5", "MLII"), None),
        ("100skew", ("V5", "MLII"), "invalid_samples:V5"),
        ("100_3chan", ("I", "II", "III"), None),
        ("03700181", ("MCL1",), None),
        ("a103l", ("II", "V"), None),
        ("310derive", ("col 0", "col 1"), None),
        ("310derive_3", ("ch1",), None),
        ("311derive_3", ("ch1",), None),
        ("mixedsignals", ("II", "III", "V"), "invalid_samples:II"),
        ("s0010_re", (*LEADS, "X", "Y", "Z"), None),
        ("test01_00s_skewframe", ("ECG_1", "ECG_3"), "wrong_initial_value:ECG_3"),
        ("v102s", ("II", "V"), "invalid_samples:II"),
        ("multi-segment/041s/041s01", ("I", "III", "V"), None),
        ("multi-segment/041s/041s02", ("I", "III", "V"), "invalid_samples:I"),
        ("multi-segment/041s/041s", ("I", "III", "V"), "invalid_samples:I"),
        ("multi-segment/fixed1/v102s", ("II", "V"), "invalid_samples:II"),
        *((f"rewritten/00004_hr_fmt{f}", LEADS, None) for f in (16, 24, 32, 80, 212, 516)),
    ],
)
def test_other_formats_equal_wfdb(
    test_data: Path, name: str, leads: tuple[str, ...], flag: str | None
) -> None:
    header = test_data / "data/formats/wfdb" / f"{name}.hea"
    record = read(header)
    assert record.leads == leads
    assert flag in record.quality if flag else not record.quality
    assert_equals_wfdb(header, record)


@pytest.mark.parametrize(
    "path",
    [
        *(f"mitdb/{number}.atr" for number in (100, 105, 232)),
        *("nstdb/118e06.atr", "cpsc2021/data_8_2.atr"),
        *("qtdb/sel100.atr", "qtdb/sel100.pu1", "nsr2db/nsr001.ecg"),
    ],
)
def test_annotations_equal_wfdb(test_data: Path, path: str) -> None:
    file = test_data / "data/longterm" / path
    found = {one.annotator: one for one in read(file.with_suffix(".hea")).annotations}
    ours, annotator = found[file.suffix[1:]], file.suffix[1:]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # as above
        theirs = wfdb.rdann(str(file.with_suffix("")), annotator)
    assert list(ours.symbol) == theirs.symbol
    assert [text or "" for text in ours.text] == [text.strip("\0") for text in theirs.aux_note]
    for mine, other in (
        (ours.sample, theirs.sample),
        (ours.subtype, theirs.subtype),
        (ours.channel, theirs.chan),
        (ours.number, theirs.num),
    ):
        np.testing.assert_array_equal(mine, other)
    np.testing.assert_allclose(ours.time_s, theirs.sample / theirs.fs)


def test_one_lost_subsample_does_not_leak_into_the_frame(test_data: Path) -> None:
    # four samples a frame, one of them invalid: wfdb's smoothed value would average the code in
    record = read(test_data / "data/formats/wfdb/multi-segment/041s/041s.hea")
    lost = np.flatnonzero(record.digital[record.leads.index("I")] == INVALID)
    assert record.rate_hz == 500
    assert len(lost) == 1
    assert lost[0] // 4 == 1044


def test_flat_leads_are_flagged(test_data: Path) -> None:
    record = read(test_data / "data/challenge2021/ningbo/JS20004.hea")
    assert record.quality == ("flat_lead:V2", "flat_lead:V4", "flat_lead:V6")


# -- what is written is what is read --------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(
    digital=nps.arrays(
        np.int16,
        st.tuples(st.integers(1, 12), st.integers(1, 40)),
        elements=st.integers(INVALID, -INVALID - 1),
    ),
    order=st.permutations(LEADS),
    gain=st.floats(0.001, 1e6),
    baseline=st.integers(-(2**29), 2**29),  # beyond, a lead derived from it has none that fits
    rate_hz=st.sampled_from([100.0, 257.5, 500.0, 1000.0]),
)
def test_round_trip(
    tmp_path_factory: pytest.TempPathFactory,
    write_wfdb: Writer,
    digital: NDArray[np.int16],
    order: list[str],
    gain: float,
    baseline: int,
    rate_hz: float,
) -> None:
    folder = tmp_path_factory.mktemp("round")
    own = order[: len(digital)]
    scale = f"{gain!r}({baseline})/mV"
    record = read(write_wfdb(folder, "x", digital, leads=own, gain=scale, rate_hz=rate_hz))
    assert [lead for lead in record.leads if lead in own] == sorted(own, key=LEADS.index)
    derived = [lead for lead in record.leads if lead not in own]
    assert not derived or f"derived:{','.join(derived)}" in record.quality
    for row, lead in enumerate(record.leads):
        if lead in own:
            np.testing.assert_array_equal(record.digital[row], digital[own.index(lead)])
            assert (record.gain[row], record.baseline[row]) == (gain, baseline)
    assert record.rate_hz == rate_hz


def test_what_wfdb_writes_is_read(tmp_path: Path, counts: NDArray[np.int16]) -> None:
    wrsamp(
        "w",
        fs=500,
        units=["mV"] * 12,
        sig_name=list(LEADS),
        d_signal=counts.T.astype(np.int64),
        fmt=["16"] * 12,
        adc_gain=[204.918] * 12,
        baseline=[7] * 12,
        base_date=dt.date(1999, 12, 31),
        base_time=dt.time(23, 59, 58),
        comments=["Age: 61 Sex: F"],
        write_dir=str(tmp_path),
    )
    record = read(tmp_path / "w.hea")
    np.testing.assert_array_equal(record.digital, counts)
    assert record.gain[0] == 204.918
    assert record.baseline[0] == 7
    assert record.meta["recorded_at"] == dt.datetime(1999, 12, 31, 23, 59, 58)
    assert (record.meta["age"], record.meta["sex"]) == (61.0, "female")


def test_a_record_is_found_by_any_of_its_names(
    tmp_path: Path, write_wfdb: Writer, counts: NDArray[np.int16]
) -> None:
    header = write_wfdb(tmp_path, "a.b", counts)
    names: list[str | Path] = [header, header.with_suffix(".dat"), tmp_path / "a.b", str(header)]
    assert {read(name).signal_sha256 for name in names} == {read(header).signal_sha256}


@pytest.mark.parametrize(
    ("units", "per_mv"), [("mV", 1), ("mv", 1), ("uV", 1000), ("µV", 1000), ("V", 0.001)]
)
def test_gain_is_counts_per_millivolt(
    tmp_path: Path, write_wfdb: Writer, counts: NDArray[np.int16], units: str, per_mv: float
) -> None:
    record = read(write_wfdb(tmp_path, "x", counts, gain=f"2.5/{units}"))
    np.testing.assert_array_equal(record.digital, counts)
    assert record.gain[0] == pytest.approx(2.5 * per_mv)


def test_a_gain_of_zero_means_200(
    tmp_path: Path, write_wfdb: Writer, counts: NDArray[np.int16]
) -> None:
    assert read(write_wfdb(tmp_path, "x", counts, gain="0")).gain[0] == 200


def test_an_empty_lead_is_read_and_flagged(
    tmp_path: Path, write_wfdb: Writer, counts: NDArray[np.int16]
) -> None:
    counts[11] = INVALID
    record = read(write_wfdb(tmp_path, "x", counts))
    assert "empty_lead:V6" in record.quality
    assert np.isnan(record.signal_mv[11]).all()


def test_24_bit_counts_that_do_not_fit_are_scaled_never_clipped(tmp_path: Path) -> None:
    signal = np.random.default_rng(0).integers(-(2**22), 2**22, (500, 1))
    signal[7] = -(2**23)
    wrsamp(
        "x",
        fs=500,
        units=["mV"],
        sig_name=["II"],
        d_signal=signal,
        fmt=["24"],
        adc_gain=[1e5],
        baseline=[10],
        write_dir=str(tmp_path),
    )
    record = read(tmp_path / "x.hea")
    assert record.quality == ("quantised", "invalid_samples:II")
    expected = (signal[:, 0] - 10) / 1e5
    expected[7] = np.nan
    np.testing.assert_allclose(record.signal_mv[0], expected, atol=0.51 / record.gain[0])
    assert record.gain[0] == 1e5 / 256, "the smallest power of two that fits"


def test_the_digest_covers_header_and_samples(
    tmp_path: Path, write_wfdb: Writer, counts: NDArray[np.int16]
) -> None:
    one = read(write_wfdb(tmp_path, "x", counts))
    two = read(write_wfdb(tmp_path, "x", counts, comments=["Age: 60"]))
    assert one.meta["source_sha256"] != two.meta["source_sha256"]
    assert one.signal_sha256 == two.signal_sha256


def test_segments_with_gaps_are_joined(
    tmp_path: Path, write_wfdb: Writer, counts: NDArray[np.int16]
) -> None:
    write_wfdb(tmp_path, "s1", counts[:2], leads=("I", "II"))
    write_wfdb(tmp_path, "s2", counts[1:3], leads=("II", "III"))
    master = tmp_path / "m.hea"
    master.write_text("m/3 3 500 250\ns1 100\n~ 50\ns2 100\n")
    record = read(master)
    assert record.leads == ("I", "II", "III")
    gap = np.full(50, INVALID)
    lost = np.full(100, INVALID)
    np.testing.assert_array_equal(record.digital[0], np.concatenate([counts[0], gap, lost]))
    np.testing.assert_array_equal(record.digital[1], np.concatenate([counts[1], gap, counts[1]]))
    np.testing.assert_array_equal(record.digital[2], np.concatenate([lost, gap, counts[2]]))
