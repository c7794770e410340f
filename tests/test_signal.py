"""Signal arithmetic against published preparations, SciPy and its own laws."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.interpolate import interp1d
from scipy.io import loadmat
from scipy.signal import butter, medfilt

from ecgstore import signal as dsp
from ecgstore.record import LEADS

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray


def test_code15_prepared_as_published(test_data: Path) -> None:
    folder = test_data / "data" / "code15_10"
    with np.load(folder / "preprocessed.npz") as published:
        names = [name for name in published.files if "." not in name]
        assert len(names) == 10
        for name in names:
            raw = loadmat(folder / "org" / f"{name}.mat")["feats"]
            ours = dsp.standardise_leads(dsp.resample_linear(raw, 400, 500))
            np.testing.assert_array_equal(ours, published[name])
            starts = dsp.consecutive_starts(ours.shape[1], 2500)
            assert len(starts) == (2 if raw.shape[1] == 4096 else 1)
            for number, window in enumerate(dsp.cut_windows(ours, starts, 2500)):
                segment = folder / "segmented" / f"{name}_{number}.mat"
                if segment.exists():
                    np.testing.assert_array_equal(window, loadmat(segment)["feats"])


@given(
    n=st.integers(2, 400),
    rate_hz=st.sampled_from([100.0, 128.0, 250.0, 257.0, 360.0, 400.0, 977.0, 1000.0]),
    seed=st.integers(0, 9),
    dtype=st.sampled_from([np.float32, np.float64]),
)
@settings(max_examples=60, deadline=None)
def test_linear_resampling_is_interp1d(
    n: int, rate_hz: float, seed: int, dtype: type[np.float32 | np.float64]
) -> None:
    x: NDArray[Any] = np.random.default_rng(seed).standard_normal((2, n)).astype(dtype)
    wanted = int(n * (500 / rate_hz))
    assume(wanted > 1)
    reference = interp1d(np.linspace(0, wanted - 1, n), x, kind="linear")(np.arange(wanted))
    ours = dsp.resample_linear(x, rate_hz, 500)
    assert ours.shape == (2, dsp.linear_length(n, rate_hz, 500))
    np.testing.assert_allclose(ours, reference, rtol=0, atol=1e-12)


@pytest.mark.parametrize("rate_hz", [100, 257, 400])
def test_fourier_resampling(test_data: Path, rate_hz: int) -> None:
    with np.load(test_data / "goldens/stmem_tiny/preprocess_cases.npz") as golden:
        given_mv = golden[f"resample/{rate_hz}_in"]
        length = dsp.fourier_length(given_mv.shape[-1], rate_hz, 250)
        ours = dsp.resample_fourier(given_mv, length)
        assert ours.dtype == np.float32
        np.testing.assert_allclose(ours, golden[f"resample/{rate_hz}_out"], rtol=0, atol=1e-5)


def test_filters_stage_by_stage(test_data: Path) -> None:
    with np.load(test_data / "goldens/stmem_tiny/preprocess_cases.npz") as golden:
        high = dsp.butterworth("highpass", 0.67, rate_hz=250)
        low = dsp.butterworth("lowpass", 40, rate_hz=250)
        for ours, name in ((high, "sos_highpass"), (low, "sos_lowpass")):
            np.testing.assert_allclose(ours.coefficients, golden[name], rtol=0, atol=1e-12)
        kept = golden["leads_kept_in_stages"]
        resampled = dsp.resample_fourier(golden["raw_500hz"], 2500)
        np.testing.assert_allclose(resampled[kept], golden["stage/resampled"], rtol=0, atol=1e-5)
        (start,) = dsp.evaluation_starts(2500, 2250, 1)
        crop = resampled[:, start : start + 2250]
        np.testing.assert_allclose(crop[kept], golden["stage/centre_crop"], rtol=0, atol=1e-5)
        passed = dsp.filter_both_ways(crop, high)
        np.testing.assert_allclose(passed[kept], golden["stage/after_highpass"], rtol=0, atol=1e-5)
        passed = dsp.filter_both_ways(passed, low)
        np.testing.assert_allclose(passed[kept], golden["stage/after_lowpass"], rtol=0, atol=1e-5)
        mean_std = [passed.mean(), passed.std()]
        np.testing.assert_allclose(mean_std, golden["stage/mean_std"], rtol=0, atol=1e-5)
        ours = dsp.standardise_windows(passed[None])[0]
        np.testing.assert_allclose(ours, golden["stage/standardised_centre"], rtol=0, atol=1e-5)


@pytest.mark.parametrize("form", ["sos", "ba"])
def test_filters_are_cached_and_unchanged_by_use(form: Literal["sos", "ba"]) -> None:
    ours = dsp.butterworth("lowpass", 40.0, rate_hz=250.0, form=form)
    dsp.filter_both_ways(np.random.default_rng(0).standard_normal((2, 300)), ours)
    again = dsp.butterworth("lowpass", 40.0, rate_hz=250.0, form=form)
    assert again is ours
    np.testing.assert_array_equal(again.coefficients, butter(5, 40, "lowpass", fs=250, output=form))


@pytest.mark.parametrize("form", ["sos", "ba"])
def test_filters_of_ecgfounder(test_data: Path, form: Literal["sos", "ba"]) -> None:
    with np.load(test_data / "goldens/ecgfounder_tiny/preprocess.npz") as golden:
        x = dsp.filter_both_ways(golden["raw_mv"], dsp.notch(50, 30, rate_hz=500))
        band = dsp.butterworth("bandpass", (0.67, 40), rate_hz=500, order=4, form=form)
        x = dsp.filter_both_ways(x, band)
        x = x - dsp.running_median(x, 201)
        np.testing.assert_allclose(x, golden["filtered"], rtol=0, atol=2e-5)
        x = dsp.standardise_windows(x, eps=1e-8)
        np.testing.assert_allclose(x, golden["normalised"], rtol=0, atol=2e-5)


@pytest.mark.parametrize("rate_hz", [37, 100, 250, 257, 360, 1000])
def test_resamplers_keep_what_they_can(rate_hz: int) -> None:
    n = 10 * rate_hz + 1
    slope = np.linspace(-3, 5, n) * np.ones((2, 1))
    for n_wanted in (5000, 4999, n):
        ours = dsp.resample_ends(slope.astype(np.float32), n_wanted)
        np.testing.assert_allclose(ours[1], np.linspace(-3, 5, n_wanted), rtol=0, atol=1e-6)
    length = dsp.polyphase_length(n, rate_hz, 500)
    ours = dsp.resample_polyphase(slope, rate_hz, 500, line=True)
    assert ours.shape == (2, length)
    wanted_mv = -3 + 8 * np.arange(length) / (10 * 500)
    np.testing.assert_allclose(ours[0], wanted_mv, rtol=0, atol=8e-3)  # the filter ripples by 1e-3
    wave = np.sin(2 * np.pi * 3 * np.arange(n) / rate_hz)[None]
    ours = dsp.resample_polyphase(wave, rate_hz, 500)[:, 500:-500]
    expected = np.sin(2 * np.pi * 3 * np.arange(length) / 500)[None, 500:-500]
    np.testing.assert_allclose(ours, expected, rtol=0, atol=8e-3)


def test_resampling_to_the_same_rate_gives_the_input() -> None:
    x = np.zeros((2, 9), np.float32)
    assert dsp.resample_linear(x, 500, 500.0) is x
    assert dsp.resample_polyphase(x, 500, 500.0) is x
    assert dsp.polyphase_length(9, 500, 500.0) == 9
    assert dsp.resample_ends(x, 9) is x
    assert dsp.resample_fourier(x, 9) is x


@given(
    n=st.integers(1, 300),
    half=st.integers(0, 110),
    seed=st.integers(0, 9),
    digits=st.integers(0, 3),
)
@settings(max_examples=40, deadline=None)
def test_running_median_is_medfilt(n: int, half: int, seed: int, digits: int) -> None:
    x = np.random.default_rng(seed).standard_normal((2, 3, n)).round(digits) + 5
    wide = np.pad(x, [(0, 0), (0, 0), (half, half)])  # medfilt warns of widths above the length
    expected = [[medfilt(row, 2 * half + 1) for row in rows] for rows in wide]
    ours = dsp.running_median(x, 2 * half + 1)
    np.testing.assert_array_equal(ours, np.array(expected)[..., half : half + n])


def test_nan_alone_is_filled() -> None:
    x = np.array([[np.nan, np.inf, 0.5]], np.float32)
    ours = dsp.fill_lost(x, -1.0)
    assert ours.dtype == np.float32
    np.testing.assert_array_equal(ours, [[-1, np.inf, 0.5]])
    assert np.isnan(x[0, 0])


def test_evaluation_starts_as_published(test_data: Path) -> None:
    with np.load(test_data / "goldens/stmem_tiny/preprocess_cases.npz") as golden:
        cases = [key for key in golden.files if key.startswith("ncrop_starts/")]
        assert len(cases) == 7
        for key in cases:
            length = int(key.partition("/")[2])
            # 2253 yields a fourth window in the original; three are what its readout averages.
            assert dsp.evaluation_starts(length, 2250, 3) == tuple(golden[key][:3])


@pytest.mark.parametrize(
    ("samples", "starts"),
    [(2249, ()), (2250, (0, 0, 0)), (2251, (0, 0, 0)), (2252, (0, 1, 2)), (7500, (0, 2625, 5250))],
)
def test_evaluation_starts_at_the_edge(samples: int, starts: tuple[int, ...]) -> None:
    assert dsp.evaluation_starts(samples, 2250, 3) == starts


@given(n=st.integers(0, 20_000), length=st.integers(1, 3000))
def test_consecutive_windows_tile_the_record(n: int, length: int) -> None:
    starts = dsp.consecutive_starts(n, length)
    assert len(starts) == n // length
    assert starts == tuple(length * number for number in range(len(starts)))


@given(seed=st.integers(0, 99), scale=st.floats(1e-3, 1e3), offset=st.floats(-1e3, 1e3))
@settings(deadline=None)
def test_units_cancel(seed: int, scale: float, offset: float) -> None:
    x = np.random.default_rng(seed).standard_normal((3, 500))
    leads = dsp.standardise_leads(x)
    np.testing.assert_allclose(leads.mean(axis=1), 0, atol=1e-12)
    np.testing.assert_allclose(leads.std(axis=1), 1, atol=1e-12)
    np.testing.assert_allclose(dsp.standardise_leads(x * scale + offset), leads, atol=1e-5)
    windows = dsp.standardise_windows(x[None])
    np.testing.assert_allclose([windows.mean(), windows.std()], [0, 1], atol=1e-12)
    softened = dsp.standardise_windows(x[None], eps=float(x.std()))
    np.testing.assert_allclose(softened, windows / 2, atol=1e-12)
    np.testing.assert_allclose(dsp.standardise_windows(x[None] * scale), windows, atol=1e-9)


def test_a_constant_lead_becomes_zero_whatever_its_value() -> None:
    x = np.full((2, 777), 0.1)
    x[1] = np.random.default_rng(0).standard_normal(777)
    assert not dsp.standardise_leads(x)[0].any()
    assert not dsp.standardise_leads(x[None])[0, 0].any()
    # The mean of these rounds, and leaves a deviation of 1e-17.
    assert not dsp.standardise_windows(np.full((1, 12, 5000), 0.1)).any()
    assert not dsp.standardise_windows(np.full((1, 12, 5000), 0.1), eps=1e-8).any()


def test_reordering_goes_by_name() -> None:
    x = np.arange(12.0)[:, None]
    order = list(reversed(LEADS))
    np.testing.assert_array_equal(dsp.reorder_leads(x[::-1], order, LEADS), x)
    with pytest.raises(ValueError, match="V9"):
        dsp.reorder_leads(x, LEADS, ["V9"])
