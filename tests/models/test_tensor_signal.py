"""What tensors give is what arrays give: every function, over rates, lengths and odd signals."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.signal import medfilt, resample, resample_poly

from ecgstore import signal as on_host
from ecgstore.models import tensor_signal as on_device

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray
    from torch import Tensor

RATES_HZ = [37, 100, 250, 257, 360, 400, 500, 1000, 10_000]


def leads_mv(n_samples: int, *, seed: int = 0) -> NDArray[np.float64]:
    """Return ``(2, 3, samples)``: two records with drift, 5 mV off, one lead constant."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((2, 3, n_samples)).cumsum(axis=-1) / 20
    x += rng.standard_normal(x.shape) / 10 + 5
    x[0, 1] = 0.1
    return x


def assert_same(ours: Tensor, expected: ArrayLike, *, atol: float = 1e-9) -> None:
    ours = ours.cpu()
    assert ours.shape == np.shape(expected)
    np.testing.assert_allclose(ours, np.asarray(expected), rtol=0, atol=atol)


@pytest.mark.parametrize("odd", [0, 1])
@pytest.mark.parametrize("rate_hz", RATES_HZ)
def test_resampling_at_every_rate(rate_hz: int, odd: int) -> None:
    x = leads_mv(min(2 * rate_hz, 3000) + odd)
    tensor = torch.from_numpy(x)
    for to_hz in (250, 500):
        linear = on_host.resample_linear(x, rate_hz, to_hz)
        assert_same(on_device.resample_linear(tensor, rate_hz, to_hz), linear)
        for line in (False, True):
            poly = on_host.resample_polyphase(x, rate_hz, to_hz, line=line)
            ours = on_device.resample_polyphase(tensor, rate_hz, to_hz, line=line)
            assert ours.shape[-1] == on_host.polyphase_length(x.shape[-1], rate_hz, to_hz)
            assert_same(ours, poly)
    for n_wanted in (1000, 999):
        fourier = on_host.resample_fourier(x, n_wanted)
        assert_same(on_device.resample_fourier(tensor, n_wanted), fourier)
        ends = on_host.resample_ends(x, n_wanted)
        assert_same(on_device.resample_ends(tensor, n_wanted), ends)


@given(n=st.integers(2, 60), n_wanted=st.integers(2, 60), seed=st.integers(0, 9))
@settings(max_examples=40, deadline=None)
def test_resampling_between_any_lengths(n: int, n_wanted: int, seed: int) -> None:
    x = leads_mv(n, seed=seed)
    tensor = torch.from_numpy(x)
    assert_same(on_device.resample_fourier(tensor, n_wanted), resample(x, n_wanted, axis=-1))
    source, target = np.linspace(0, 1, n), np.linspace(0, 1, n_wanted)
    ends = [[np.interp(target, source, lead) for lead in record] for record in x]
    assert_same(on_device.resample_ends(tensor, n_wanted), ends)
    poly = resample_poly(x, n_wanted, n, axis=-1, padtype="line")
    assert_same(on_device.resample_polyphase(tensor, n, n_wanted, line=True), poly)
    if on_host.linear_length(n, n, n_wanted) > 1:
        linear = on_host.resample_linear(x, n, n_wanted)
        assert_same(on_device.resample_linear(tensor, n, n_wanted), linear)


def test_float32_is_treated_alike() -> None:
    x = leads_mv(800).astype(np.float32)
    tensor = torch.from_numpy(x)
    assert_same(on_device.resample_linear(tensor, 400, 500), on_host.resample_linear(x, 400, 500))
    assert_same(on_device.resample_ends(tensor, 1000), on_host.resample_ends(x, 1000))
    poly = on_host.resample_polyphase(x, 400, 500)
    assert_same(on_device.resample_polyphase(tensor, 400, 500), poly)
    fourier = on_device.resample_fourier(tensor, 1000)
    assert fourier.dtype == torch.float32
    assert_same(fourier, on_host.resample_fourier(x, 1000), atol=1e-5)


FILTERS = {
    "ST-MEM high": on_host.butterworth("highpass", 0.67, rate_hz=250),
    "ST-MEM low": on_host.butterworth("lowpass", 40.0, rate_hz=250),
    "ECGFounder notch": on_host.notch(50, 30, rate_hz=500),
    "ECGFounder band": on_host.butterworth("bandpass", (0.67, 40.0), rate_hz=500, order=4),
    "band at 10 kHz": on_host.butterworth("bandpass", (0.67, 40.0), rate_hz=10_000, order=4),
}


@pytest.mark.parametrize("n_samples", [29, 1250, 2250, 2251, 5000])
@pytest.mark.parametrize("name", FILTERS)
def test_filters_of_any_length(name: str, n_samples: int) -> None:
    x = leads_mv(n_samples)
    ours = on_device.filter_both_ways(torch.from_numpy(x), FILTERS[name])
    assert_same(ours, on_host.filter_both_ways(x, FILTERS[name]))


def test_a_long_record_through_the_slowest_filter() -> None:
    x = leads_mv(20_000)
    band = FILTERS["band at 10 kHz"]
    ours = on_device.filter_both_ways(torch.from_numpy(x), band)
    assert_same(ours, on_host.filter_both_ways(x, band), atol=1e-8)


@pytest.mark.parametrize(("rate_hz", "atol"), [(250, 1e-6), (500, 1e-4)])
def test_numerator_and_denominator_agree_as_far_as_they_hold(rate_hz: int, atol: float) -> None:
    """Their recursion loses digits by itself: 5 mV more move SciPy's result by 6e-6 at 500 Hz."""
    x = leads_mv(10 * rate_hz)
    band = on_host.butterworth("bandpass", (0.67, 40), rate_hz=rate_hz, order=4, form="ba")
    ours = on_device.standardise_windows(on_device.filter_both_ways(torch.from_numpy(x), band))
    expected = on_host.standardise_windows(on_host.filter_both_ways(x, band))
    assert_same(ours, expected, atol=atol)


@pytest.mark.parametrize("name", FILTERS)
def test_too_short_to_extend(name: str) -> None:
    n_samples = FILTERS[name].edge
    for dsp, x in ((on_host, np.ones((1, n_samples))), (on_device, torch.ones(1, n_samples))):
        with pytest.raises(ValueError, match=r"padlen|extended"):
            dsp.filter_both_ways(x, FILTERS[name])


@given(
    n=st.integers(1, 300),
    half=st.integers(0, 110),
    seed=st.integers(0, 9),
    digits=st.integers(0, 3),
)
@settings(max_examples=40, deadline=None)
def test_running_median(n: int, half: int, seed: int, digits: int) -> None:
    x = leads_mv(n, seed=seed).round(digits) - 5  # ties, and both signs
    width = 2 * half + 1
    expected = on_host.running_median(x, width)
    np.testing.assert_array_equal(on_device.median_by_rank(torch.from_numpy(x), width), expected)
    np.testing.assert_array_equal(on_device.running_median(torch.from_numpy(x), width), expected)


@pytest.mark.parametrize("n_samples", [5000, 3896])  # with 200 more, one is a power of two
def test_running_median_of_ecgfounder(n_samples: int) -> None:
    x = leads_mv(n_samples)
    expected = [[medfilt(lead, 201) for lead in record] for record in x]
    np.testing.assert_array_equal(on_device.median_by_rank(torch.from_numpy(x), 201), expected)


@given(n=st.integers(1, 99), seed=st.integers(0, 9), eps=st.sampled_from([0.0, 1e-8, 0.5]))
@settings(max_examples=30, deadline=None)
def test_standardising(n: int, seed: int, eps: float) -> None:
    x = leads_mv(n, seed=seed)
    assume(n == 1 or x.std(axis=-1)[:, 2].min() > 1e-3)
    leads = on_device.standardise_leads(torch.from_numpy(x))
    assert_same(leads, on_host.standardise_leads(x))
    assert not leads[0, 1].any()
    windows = on_device.standardise_windows(torch.from_numpy(x), eps=eps)
    assert_same(windows, on_host.standardise_windows(x, eps=eps))
    flat = torch.full((1, 12, 5000), 0.1, dtype=torch.float64)
    assert not on_device.standardise_windows(flat, eps=eps).any()


def test_cutting_and_filling() -> None:
    x = leads_mv(100)
    x[:, 2, 30:40] = np.nan
    x[0, 0, 0] = np.inf
    tensor = torch.from_numpy(x)
    starts = (0, 25, 60, 60)
    assert_same(on_device.cut_windows(tensor, starts, 40), on_host.cut_windows(x, starts, 40))
    for value in (0.0, -1.5):
        assert_same(on_device.fill_lost(tensor, value), on_host.fill_lost(x, value))
    assert tensor.isnan().any()


@pytest.mark.parametrize("kind", ["array", "tensor"])
def test_a_lost_sample_stays_lost(kind: Literal["array", "tensor"]) -> None:
    x = np.random.default_rng(0).standard_normal((2, 3, 500))
    x[1, 2, 250] = np.nan
    dsp, given_mv = (on_host, x) if kind == "array" else (on_device, torch.from_numpy(x))
    steps = [
        dsp.resample_linear(given_mv, 250, 500),
        dsp.resample_ends(given_mv, 1000),
        dsp.resample_polyphase(given_mv, 250, 500),
        dsp.filter_both_ways(given_mv, FILTERS["ST-MEM high"]),
        dsp.standardise_leads(given_mv),
        dsp.standardise_windows(given_mv),
    ]
    for result in steps:
        lost = np.isnan(np.asarray(result))
        assert lost[1, 2].any()
        assert not lost[0].any()


@pytest.mark.gpu
def test_gpu_agrees_with_cpu() -> None:
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    x = leads_mv(2500)
    tensor = torch.from_numpy(x).cuda()
    assert_same(on_device.resample_linear(tensor, 400, 500), on_host.resample_linear(x, 400, 500))
    assert_same(
        on_device.resample_polyphase(tensor, 400, 500, line=True),
        on_host.resample_polyphase(x, 400, 500, line=True),
    )
    for n_wanted in (1250, 1249, 5000):
        assert_same(
            on_device.resample_fourier(tensor, n_wanted),
            on_host.resample_fourier(x, n_wanted),
        )
        assert_same(on_device.resample_ends(tensor, n_wanted), on_host.resample_ends(x, n_wanted))
    for one in FILTERS.values():
        assert_same(on_device.filter_both_ways(tensor, one), on_host.filter_both_ways(x, one))
    assert_same(on_device.running_median(tensor, 201), on_host.running_median(x, 201), atol=0)
    assert_same(on_device.standardise_windows(tensor), on_host.standardise_windows(x))
    assert_same(on_device.standardise_leads(tensor), on_host.standardise_leads(x))
