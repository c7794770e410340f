"""The arithmetic of `ecgstore.signal` on batches of tensors, wherever they are.

Same names, same rules, results equal within rounding. Nothing here loops over records or leads,
and nothing waits for the device. What depends on lengths, rates or filters alone is computed on
the host once, in float64, and kept on the device.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import numpy as np
import torch

from ecgstore import signal as on_host

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from ecgstore.signal import Filter

__all__ = [
    "cut_each",
    "cut_windows",
    "fill_lost",
    "filter_both_ways",
    "median_by_rank",
    "resample_ends",
    "resample_fourier",
    "resample_linear",
    "resample_polyphase",
    "running_median",
    "standardise_leads",
    "standardise_windows",
]


def fill_lost(signal: Tensor, value: float) -> Tensor:
    """Put a value where there is NaN."""
    return signal.masked_fill(signal.isnan(), value)


# ------------------------------------------------------------------------------- resampling


def resample_linear(signal: Tensor, rate_hz: float, to_hz: float) -> Tensor:
    """Do `ecgstore.signal.resample_linear`."""
    if rate_hz == to_hz:
        return signal
    n_samples = signal.shape[-1]
    n_wanted = on_host.linear_length(n_samples, rate_hz, to_hz)
    lower, spacing, offset = _linear_grid(n_samples, n_wanted, signal.device)
    left = signal.index_select(-1, lower)
    slope = (signal.index_select(-1, lower + 1) - left) / spacing
    return slope * offset + left


@functools.lru_cache(maxsize=32)
def _linear_grid(
    n_samples: int, n_wanted: int, device: torch.device
) -> tuple[Tensor, Tensor, Tensor]:
    lower, spacing, offset = on_host.linear_grid(n_samples, n_wanted)
    return _there(lower, device), _there(spacing, device), _there(offset, device)


def resample_ends(signal: Tensor, n_wanted: int) -> Tensor:
    """Do `ecgstore.signal.resample_ends`."""
    if signal.shape[-1] == n_wanted:
        return signal
    lower, weight = _ends_grid(signal.shape[-1], n_wanted, signal.device)
    left = signal.index_select(-1, lower).double()
    return left + weight * (signal.index_select(-1, lower + 1) - left)


@functools.lru_cache(maxsize=32)
def _ends_grid(n_samples: int, n_wanted: int, device: torch.device) -> tuple[Tensor, Tensor]:
    lower, weight = on_host.ends_grid(n_samples, n_wanted)
    return _there(lower, device), _there(weight, device)


def resample_fourier(signal: Tensor, n_wanted: int) -> Tensor:
    """Do `ecgstore.signal.resample_fourier`.

    Half of an even shorter length is the one frequency that both lengths do not hold alike. The
    longer holds it twice, as itself and its conjugate; the shorter once, as their sum, which is
    real.
    """
    n_samples = signal.shape[-1]
    if n_samples == n_wanted:
        return signal
    shorter = min(n_samples, n_wanted)
    spectrum = torch.fft.rfft(signal)[..., : shorter // 2 + 1]
    if shorter % 2 == 0:
        spectrum[..., -1] = spectrum[..., -1].real * (0.5 if n_wanted > n_samples else 2.0)
    resampled: Tensor = torch.fft.irfft(spectrum, n=n_wanted) * (n_wanted / n_samples)
    return resampled


def resample_polyphase(
    signal: Tensor, rate_hz: float, to_hz: float, *, line: bool = False
) -> Tensor:
    """Do `ecgstore.signal.resample_polyphase`."""
    if rate_hz == to_hz:
        return signal
    n_samples = signal.shape[-1]
    ratio = on_host.polyphase_ratio(rate_hz, to_hz)
    index, weight, beyond, beyond_by_place = _polyphase_taps(
        n_samples, ratio.numerator, ratio.denominator, signal.device
    )
    first = signal[..., :1].double()
    result = torch.zeros_like(first)
    if line:
        slope = (signal[..., -1:] - first) / (n_samples - 1)
        result = beyond * first + beyond_by_place * slope
    for one_index, one_weight in zip(index, weight, strict=True):
        result = torch.addcmul(result, signal.index_select(-1, one_index), one_weight)
    return result


@functools.lru_cache(maxsize=16)
def _polyphase_taps(
    n_samples: int, up: int, down: int, device: torch.device
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return which samples each wanted one is made of.

    Wanted sample m stands at m * down, and given sample j at j * up, of the grid of both; the
    filter reaches ten samples of the lower rate to either side (scipy.signal.resample_poly).

    Returns:
        ``(taps, wanted)`` places and weights, and ``(wanted)`` the sums of the weights beyond the
        ends, plain and each times its place.
    """
    from scipy.signal import firwin

    reach = 10 * max(up, down)
    taps = up * firwin(2 * reach + 1, 1 / max(up, down), window=("kaiser", 5.0))
    wanted = np.arange(-(-n_samples * up // down)) * down
    lowest = -((reach - wanted) // up)
    place = lowest + np.arange(2 * reach // up + 1)[:, None]
    tap = wanted - place * up + reach
    weight = np.where(tap >= 0, taps[np.maximum(tap, 0)], 0.0)
    inside = (place >= 0) & (place < n_samples)
    beyond = np.where(inside, 0.0, weight)
    return (
        _there(place.clip(0, n_samples - 1), device),
        _there(np.where(inside, weight, 0.0), device),
        _there(beyond.sum(axis=0), device),
        _there((beyond * place).sum(axis=0), device),
    )


# -------------------------------------------------------------------------- filters, median


def filter_both_ways(signal: Tensor, filter: Filter) -> Tensor:  # noqa: A002
    """Do `ecgstore.signal.filter_both_ways`, as two products of spectra.

    A recursive filter that starts in the state of a constant input gives, on a finite signal, the
    convolution with as much of its impulse response as the signal is long, plus its response to
    that state, which is proportional to the first sample.
    """
    edge, n_samples = filter.edge, signal.shape[-1]
    if n_samples <= edge:
        msg = f"{n_samples} samples cannot be extended by {edge}."
        raise ValueError(msg)
    signal = signal.double()
    first, last = signal[..., :1], signal[..., -1:]
    head = 2 * first - signal[..., 1 : edge + 1].flip(-1)
    tail = 2 * last - signal[..., n_samples - edge - 1 : -1].flip(-1)
    extended = torch.cat([head, signal, tail], dim=-1)
    for _ in ("forward", "backward"):
        extended = _filter(extended, filter).flip(-1)
    return extended[..., edge : edge + n_samples]


def _filter(signal: Tensor, filter: Filter) -> Tensor:  # noqa: A002
    n_samples = signal.shape[-1]
    spectrum, at_start, n_fourier = _responses(filter, n_samples, signal.device)
    product = torch.fft.rfft(signal, n=n_fourier) * spectrum
    settled: Tensor = torch.fft.irfft(product, n=n_fourier)[..., :n_samples]
    return settled + signal[..., :1] * at_start


@functools.lru_cache(maxsize=32)
def _responses(
    filter: Filter,  # noqa: A002
    n_samples: int,
    device: torch.device,
) -> tuple[Tensor, Tensor, int]:
    """Return the spectrum of the impulse response, the response to the state, and a length."""
    from scipy.fft import next_fast_len
    from scipy.signal import lfilter, lfilter_zi, sosfilt, sosfilt_zi

    impulse, nothing = np.zeros((2, n_samples))
    impulse[0] = 1
    if filter.in_sections:
        sections = filter.coefficients
        response = sosfilt(sections, impulse)
        at_start, _ = sosfilt(sections, nothing, zi=sosfilt_zi(sections))
    else:
        ba = filter.coefficients
        response = lfilter(*ba, impulse)
        at_start, _ = lfilter(*ba, nothing, zi=lfilter_zi(*ba))
    n_fourier: int = next_fast_len(2 * n_samples - 1, real=True)
    spectrum = np.fft.rfft(response, n=n_fourier)
    return _there(spectrum, device), _there(at_start, device), n_fourier


def running_median(signal: Tensor, width: int) -> Tensor:
    """Do `ecgstore.signal.running_median`, and on a CPU with it: it is ten times as fast there."""
    if signal.device.type == "cpu":
        return torch.from_numpy(on_host.running_median(signal.numpy(), width))
    return median_by_rank(signal, width)


def median_by_rank(signal: Tensor, width: int) -> Tensor:
    """Return the running median by a wavelet matrix over the ranks of the samples.

    Samples are replaced by their ranks, and those are sorted bit by bit, the highest first, zeros
    before ones and otherwise in their order. A window of samples stays one stretch through that,
    and the count of zeros in it tells the bit of its median. So the work is that of a sort,
    whatever the width (Claude, Navarro, Ordóñez: The wavelet matrix, Information Systems 47
    (2015), 15-32, doi:10.1016/j.is.2014.06.002).
    """
    n_samples = signal.shape[-1]
    padded = torch.nn.functional.pad(signal, (width // 2, width // 2))
    n_padded = padded.shape[-1]
    ordered, order = padded.sort(dim=-1)
    places = torch.arange(n_padded, device=signal.device).expand_as(order)
    rank = torch.empty_like(order).scatter_(-1, order, places)
    start = places[..., :n_samples]
    stop = start + width
    wanted = torch.full_like(start, width // 2)
    median = torch.zeros_like(start)
    for bit in reversed(range((n_padded - 1).bit_length())):
        ones = (rank >> bit) & 1
        ones_before = torch.nn.functional.pad(ones.cumsum(-1), (1, 0))
        n_zeros = n_padded - ones_before[..., -1:]
        ones_at_start = ones_before.gather(-1, start)
        ones_at_stop = ones_before.gather(-1, stop)
        zeros = stop - ones_at_stop - start + ones_at_start
        above = wanted >= zeros
        median = median | (above.long() << bit)
        wanted = torch.where(above, wanted - zeros, wanted)
        start = torch.where(above, n_zeros + ones_at_start, start - ones_at_start)
        stop = torch.where(above, n_zeros + ones_at_stop, stop - ones_at_stop)
        ones_before = ones_before[..., :-1]
        place = torch.where(ones == 1, n_zeros + ones_before, places - ones_before)
        rank = torch.empty_like(rank).scatter_(-1, place, rank)
    return ordered.gather(-1, median)


# ------------------------------------------------------------------------ windows, scale


def standardise_leads(signal: Tensor) -> Tensor:
    """Do `ecgstore.signal.standardise_leads`."""
    return _standardise(signal, (-1,), 0.0)


def standardise_windows(windows: Tensor, *, eps: float = 0.0) -> Tensor:
    """Do `ecgstore.signal.standardise_windows`."""
    return _standardise(windows, (-2, -1), eps)


def _standardise(signal: Tensor, axes: tuple[int, ...], eps: float) -> Tensor:
    signal = signal.double()
    flat = signal.amax(axes, keepdim=True) == signal.amin(axes, keepdim=True)
    centred = signal - signal.mean(axes, keepdim=True)
    deviation = centred.square().mean(axes, keepdim=True).sqrt() + eps
    return (centred / deviation).masked_fill(flat, 0.0)


def cut_windows(signal: Tensor, starts: Sequence[int], length: int) -> Tensor:
    """Do `ecgstore.signal.cut_windows`."""
    return torch.stack([signal[..., start : start + length] for start in starts], dim=-3)


def cut_each(signal: Tensor, starts: Tensor, length: int) -> Tensor:
    """Do `ecgstore.signal.cut_each`."""
    places = starts[:, None] + torch.arange(length, device=signal.device)
    return signal.gather(-1, places[:, None].expand(-1, signal.shape[1], -1))


def _there(array: NDArray[np.generic], device: torch.device) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array)).to(device)
