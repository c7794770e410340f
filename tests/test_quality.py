"""Signal quality: defects put in by arithmetic are found at their size, clean signals have none."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ecgstore
from ecgstore.quality import LeadQuality, RecordQuality, assess
from ecgstore.quality.rpeaks import r_peaks
from ecgstore.record import LEADS

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    Signal = NDArray[np.float64]

# Offset from the R peak, width and amplitude in I and II, of P, Q, R, S and T.
_WAVES = (
    (-0.16, 0.022, 0.08, 0.14),
    (-0.025, 0.008, -0.05, -0.08),
    (0.0, 0.010, 0.70, 1.10),
    (0.025, 0.009, -0.10, -0.20),
    (0.28, 0.045, 0.20, 0.30),
)
_CHEST = (-0.6, -0.3, 0.2, 0.9, 1.0, 0.8)  # V1 to V6, of lead II


def _ecg(*, rate_hz: float = 500, seconds: float = 10, bpm: float = 75) -> Signal:
    """Return twelve clean leads, ``(12, samples)`` millivolts, without noise of any kind."""
    time = np.arange(round(seconds * rate_hz)) / rate_hz
    one, two = np.zeros_like(time), np.zeros_like(time)
    for beat in np.arange(0.4, seconds, 60 / bpm):
        for offset, width, in_one, in_two in _WAVES:
            wave = np.exp(-(((time - beat - offset) / width) ** 2) / 2)
            one += in_one * wave
            two += in_two * wave
    limb = [one, two, two - one, -(one + two) / 2, one - two / 2, two - one / 2]
    return np.stack([*limb, *(factor * two for factor in _CHEST)])


def _sine(hz: float, amplitude: float, *, rate_hz: float = 500, seconds: float = 10) -> Signal:
    time = np.arange(round(seconds * rate_hz)) / rate_hz
    wave: Signal = amplitude * np.sin(2 * np.pi * hz * time + 1)
    return wave


def _figures(signal: Signal, rate_hz: float = 500, **more: Any) -> tuple[RecordQuality, Any]:
    record, leads = assess(LEADS, signal, rate_hz, **more)
    return record, {lead.lead: lead for lead in leads}


@pytest.fixture(scope="module")
def real(test_data: Path) -> ecgstore.Record:
    return ecgstore.read(test_data / "data/ptbxl/records500/00000/00001_hr.hea")


def test_a_clean_signal_raises_nothing() -> None:
    record, leads = _figures(_ecg(), digital=np.rint(_ecg() * 1000).astype(np.int16))
    assert record.heart_rate == pytest.approx(75, abs=0.3)
    assert record.r_agreement == 1
    assert record.einthoven_mv == pytest.approx(0, abs=1e-9)
    assert record.augmented_mv == pytest.approx(0, abs=1e-9)
    assert record.reversal is None
    assert record.unit_suspicion is None
    for lead in leads.values():
        assert not lead.flat
        assert (lead.flat_fraction, lead.clipped_fraction, lead.saturated_fraction) == (0, 0, 0)
        assert lead.nan_fraction == 0
        assert lead.hum_mv < 0.002
        assert lead.noise_mv < 0.002
        assert lead.mains_hz is None
        assert lead.snr_db > 20
        assert lead.r_agrees
    assert leads["II"].peak_to_peak_mv == pytest.approx(np.ptp(_ecg()[1]), rel=1e-5)


@pytest.mark.parametrize("mains", [50, 60])
@pytest.mark.parametrize("off", [0.0, 0.15])
def test_hum_is_measured_at_its_own_frequency(mains: int, off: float) -> None:
    signal = _ecg()
    signal[3] += _sine(mains + off, 0.06)
    signal[3] += _sine(3 * mains, 0.02)
    _, leads = _figures(signal)
    assert leads["aVR"].hum_mv == pytest.approx(np.hypot(0.06, 0.02), rel=0.1)
    assert leads["aVR"].mains_hz == mains
    assert leads["V1"].hum_mv < 0.004
    assert leads["aVR"].noise_mv < 0.004  # hum is no noise


def test_wander_and_noise_are_told_apart() -> None:
    rng = np.random.default_rng(0)
    signal = _ecg()
    signal[0] += _sine(0.25, 0.5)
    signal[1] += rng.normal(0, 0.05, signal.shape[1])
    _, leads = _figures(signal)
    assert leads["I"].wander_mv == pytest.approx(1.0, rel=0.15)
    assert leads["I"].noise_mv < 0.002
    assert leads["II"].noise_mv == pytest.approx(0.05 * np.sqrt(60 / 250), rel=0.15)
    assert leads["V1"].wander_mv < 0.15


def test_the_signal_to_noise_ratio_follows_the_noise() -> None:
    rng = np.random.default_rng(1)
    noise = rng.normal(0, 1, 5000)
    ratios = []
    for level in (0.05, 0.1, 0.2):
        signal = _ecg()
        signal[1] += level * noise
        ratios.append(_figures(signal)[1]["II"].snr_db)
    assert np.diff(ratios) == pytest.approx([-6, -6], abs=1)  # twice the noise, 6 dB less


@pytest.mark.parametrize("rate_hz", [37, 100, 128, 360, 1000, 10_000])
def test_any_sampling_rate_will_do(rate_hz: float) -> None:
    record, leads = _figures(_ecg(rate_hz=rate_hz), rate_hz)
    assert record.heart_rate == pytest.approx(75, abs=1)
    if rate_hz <= 100:
        assert leads["I"].hum_mv is None  # 50 Hz is not in the signal
    if rate_hz == 37:
        assert leads["I"].noise_mv is None


def test_a_flat_lead_and_a_flat_part() -> None:
    signal = _ecg()
    signal[6] = 0.25
    signal[7, 1000:2500] = 0.1
    _, leads = _figures(signal)
    assert leads["V1"].flat
    assert leads["V1"].flat_fraction == 1
    assert leads["V1"].snr_db is None
    assert not leads["V2"].flat
    assert leads["V2"].flat_fraction == pytest.approx(0.3, abs=0.001)


def test_clipping_and_the_end_of_the_converter() -> None:
    counts = np.rint(_ecg() * 1000).astype(np.int16)
    counts[1] = np.minimum(counts[1], 500)
    counts[0] = np.clip(counts[0] * 12, -2048, 2047)
    _, leads = _figures(counts / 1000, digital=counts)
    assert leads["II"].clipped_fraction == pytest.approx((counts[1] == 500).mean())
    assert leads["II"].saturated_fraction == 0
    assert leads["I"].saturated_fraction == pytest.approx((counts[0] == 2047).mean(), abs=1e-3)
    assert leads["V5"].clipped_fraction == 0
    assert _figures(counts / 1000)[1]["I"].saturated_fraction is None  # needs the counts


def test_coarse_steps_are_not_clipping(real: ecgstore.Record) -> None:
    coarse = np.rint(real.signal_mv / 0.04).astype(np.int16)
    for lead in assess(real.leads, coarse * 0.04, 500, digital=coarse)[1]:
        assert lead.clipped_fraction == 0
        assert lead.flat_fraction == 0


def test_lost_samples() -> None:
    signal = _ecg()
    signal[0] = np.nan
    signal[1, :1250] = np.nan
    signal[2, 2000:2100] = np.inf
    record, leads = _figures(signal)
    assert leads["I"].nan_fraction == 1
    assert leads["I"].flat
    assert leads["I"].range_mv is leads["I"].noise_mv is leads["I"].r_agrees is None
    assert leads["II"].nan_fraction == 0.25
    assert leads["III"].nan_fraction == pytest.approx(0.02)
    assert record.heart_rate == pytest.approx(75, abs=1)
    assert record.einthoven_mv is None


def test_the_limb_lead_identities() -> None:
    signal = _ecg()
    signal[2] += 0.1
    signal[3] += _sine(5, 0.2)
    record, _ = _figures(signal)
    assert record.einthoven_mv == pytest.approx(0.1)
    assert record.augmented_mv == pytest.approx(0.2, rel=0.02)
    assert _figures(signal, derived=("III", "aVR"))[0].einthoven_mv is None
    assert assess(LEADS[:2], signal[:2], 500)[0].einthoven_mv is None


@pytest.mark.parametrize(
    ("factor", "unit"), [(1000, "uV"), (0.001, "V"), (10, "0.1 mV"), (1, None), (4, None)]
)
def test_a_wrong_unit_is_suspected(real: ecgstore.Record, factor: float, unit: str | None) -> None:
    signal = real.signal_mv * factor
    assert assess(real.leads, signal, 500)[0].unit_suspicion == unit


def _swapped(signal: Signal, swap: str) -> Signal:
    one, two, three, right, left, foot, *chest = signal
    limb = {
        "RA/LA": (-one, three, two, left, right, foot),
        "RA/LL": (-three, -two, -one, foot, left, right),
        "LA/LL": (two, one, -three, right, foot, left),
    }[swap]
    return np.stack([*limb, *chest])


def test_swapped_cables_are_found_and_right_ones_left_alone(test_data: Path) -> None:
    folder = test_data / "data/ptbxl/records500/00000"
    headers = sorted(folder.glob("*.hea"))[:120:4]
    found = dict.fromkeys(("RA/LA", "RA/LL", "LA/LL"), 0)
    for header in headers:
        record = ecgstore.read(header)
        signal = record.signal_mv
        assert assess(record.leads, signal, 500)[0].reversal is None
        for swap in found:
            told = assess(record.leads, _swapped(signal, swap), 500)[0].reversal
            assert told in {swap, None}
            found[swap] += told == swap
    assert found["RA/LA"] >= 0.9 * len(headers)
    assert found["RA/LL"] >= 0.9 * len(headers)


def test_noise_has_no_heart_rate() -> None:
    noise = np.random.default_rng(2).normal(0, 0.3, (2, 5000))
    record, leads = assess(("I", "II"), noise, 500)
    assert record.heart_rate is None
    assert record.r_agreement is None
    assert leads[0].r_agrees is None


def test_a_lead_of_noise_does_not_agree() -> None:
    signal = _ecg()
    signal[8] = np.random.default_rng(3).normal(0, 0.5, signal.shape[1])
    record, leads = _figures(signal)
    assert record.heart_rate == pytest.approx(75, abs=0.5)
    assert [lead for lead, one in leads.items() if not one.r_agrees] == ["V3"]
    assert record.r_agreement == pytest.approx(11 / 12)


@pytest.mark.parametrize(
    ("name", "found", "right"),
    [("mitdb/100", 0.999, 0.999), ("mitdb/232", 0.995, 0.99), ("nstdb/118e06", 0.98, 0.93)],
)
def test_beats_of_long_records_are_those_of_the_annotators(
    test_data: Path, name: str, found: float, right: float
) -> None:
    record = ecgstore.read(test_data / f"data/longterm/{name}.hea")
    notes = next(one for one in record.annotations if one.annotator == "atr")
    beats = notes.time_s[[code in set("NLRBAaJSVrFejnE/fQ?") for code in notes.symbol]]
    peaks = r_peaks(record.signal_mv, record.rate_hz)
    after = np.searchsorted(peaks, beats).clip(1, len(peaks) - 1)
    gap = np.minimum(abs(peaks[after] - beats), abs(peaks[after - 1] - beats))
    hits = np.count_nonzero(gap < 0.15)  # ANSI/AAMI EC57
    assert hits >= found * len(beats)
    assert hits >= right * len(peaks)


def test_a_defect_of_a_long_record_is_of_its_usual_size() -> None:
    signal = _ecg(rate_hz=250, seconds=95)[:2]
    signal[0] += _sine(50, 0.05, rate_hz=250, seconds=95)
    signal[1, 5000:5250] += 8  # an artefact of one second
    record, leads = assess(("I", "II"), signal, 250)
    assert record.heart_rate == pytest.approx(75, abs=1)  # the artefact may be a beat
    assert leads[0].hum_mv == pytest.approx(0.05, rel=0.1)
    assert leads[1].wander_mv == pytest.approx(0.05, abs=0.05)
    assert leads[1].peak_to_peak_mv == pytest.approx(9, abs=0.5)


@pytest.mark.parametrize("shape", [(2, 0), (0, 100), (2, 1), (2, 13), (2, 900)])
def test_too_short_to_tell(shape: tuple[int, int]) -> None:
    signal = np.ones(shape)
    record, leads = assess(("I", "II")[: shape[0]], signal, 500, digital=signal.astype(np.int16))
    assert record == RecordQuality()
    assert len(leads) == shape[0]
    assert all(lead.noise_mv is lead.snr_db is None for lead in leads)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    samples=st.integers(1, 700),
    rate_hz=st.sampled_from([37.0, 100.0, 250.5]),
    size=st.sampled_from([1e-9, 1.0, 1e12, 1e300]),
)
def test_whatever_comes_is_told_in_numbers_or_not_at_all(
    seed: int, samples: int, rate_hz: float, size: float
) -> None:
    rng = np.random.default_rng(seed)
    signal = rng.normal(0, size, (3, samples)).cumsum(axis=1)
    signal[rng.random(signal.shape) < 0.05] = rng.choice([np.nan, np.inf, 0.0])
    counts = rng.integers(-32768, 32767, signal.shape, np.int16, endpoint=True)
    record, leads = assess(("I", "II", "V5"), signal, rate_hz, digital=counts)
    for figures in [asdict(record), *map(asdict, leads)]:
        for value in figures.values():
            assert not isinstance(value, np.generic)
            assert not isinstance(value, float) or np.isfinite(value)
    assert all(isinstance(lead, LeadQuality) for lead in leads)
