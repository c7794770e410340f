"""Signal arithmetic against published preparations, SciPy and its own laws."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.interpolate import interp1d
from scipy.io import loadmat
from scipy.signal import butter

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
        ours = dsp.resample_fourier(golden[f"resample/{rate_hz}_in"], rate_hz, 250)
        assert ours.dtype == np.float32
        np.testing.assert_allclose(ours, golden[f"resample/{rate_hz}_out"], rtol=0, atol=1e-5)


def test_filters_stage_by_stage(test_data: Path) -> None:
    with np.load(test_data / "goldens/stmem_tiny/preprocess_cases.npz") as golden:
        high = dsp.butterworth("highpass", 0.67, rate_hz=250)
        low = dsp.butterworth("lowpass", 40, rate_hz=250)
        np.testing.assert_allclose(high, golden["sos_highpass"], rtol=0, atol=1e-12)
        np.testing.assert_allclose(low, golden["sos_lowpass"], rtol=0, atol=1e-12)
        kept = golden["leads_kept_in_stages"]
        resampled = dsp.resample_fourier(golden["raw_500hz"], 500, 250)
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


def test_filters_are_cached_and_unchanged_by_use() -> None:
    sections = dsp.butterworth("lowpass", 40.0, rate_hz=250.0)
    dsp.filter_both_ways(np.random.default_rng(0).standard_normal((2, 300)), sections)
    np.testing.assert_array_equal(
        dsp.butterworth("lowpass", 40.0, rate_hz=250.0),
        butter(5, 40, "lowpass", fs=250, output="sos"),
    )


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
    np.testing.assert_allclose(dsp.standardise_windows(x[None] * scale), windows, atol=1e-9)


def test_a_constant_lead_becomes_zero_whatever_its_value() -> None:
    x = np.full((2, 777), 0.1)
    x[1] = np.random.default_rng(0).standard_normal(777)
    assert not dsp.standardise_leads(x)[0].any()
    assert not dsp.standardise_windows(np.zeros((1, 2, 9))).any()


def test_reordering_goes_by_name() -> None:
    x = np.arange(12.0)[:, None]
    order = list(reversed(LEADS))
    np.testing.assert_array_equal(dsp.reorder_leads(x[::-1], order, LEADS), x)
    with pytest.raises(ValueError, match="V9"):
        dsp.reorder_leads(x, LEADS, ["V9"])
