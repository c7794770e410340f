"""AnyECG against the equations of its paper, and the records it is given and refuses."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from scipy import signal as scipy_signal

from ecgstore.errors import UnfitRecordError, UnknownNameError, UsageError, WeightsError
from ecgstore.models import load_encoder, models
from ecgstore.models.anyecg import (
    SIZES,
    AnyEcgConfiguration,
    AnyEcgEncoder,
)
from ecgstore.models.layers import Attention
from ecgstore.models.rhythm_codes import (
    MultiViewDecoder,
    Tokeniser,
    TokeniserSize,
    Views,
    frequency_view,
    nearest_codes,
    quantiser_losses,
    sparse_mask,
    straight_through,
    view_losses,
)
from ecgstore.models.wavelet import DB6, analyse, denoise, synthesise
from ecgstore.models.weights import read_checkpoint, write_safetensors
from ecgstore.record import LEADS
from ecgstore.signal import resample_polyphase

if TYPE_CHECKING:
    from pathlib import Path

Arrays = dict[str, np.ndarray[Any, Any]]
TINY = AnyEcgConfiguration(SIZES["tiny"], TokeniserSize(SIZES["tiny"]))


@pytest.fixture(scope="module")
def given(test_data: Path) -> Arrays:
    with np.load(test_data / "goldens" / "anyecg_pieces" / "inputs.npz") as arrays:
        return dict(arrays)


@pytest.fixture(scope="module")
def golden(test_data: Path) -> Arrays:
    with np.load(test_data / "goldens" / "anyecg_pieces" / "expected.npz") as arrays:
        return dict(arrays)


def load(name: str = "anyecg.tiny", **options: Any) -> AnyEcgEncoder:
    encoder = load_encoder(name, device="cpu", **{"precision": "fp32", **options})
    assert isinstance(encoder, AnyEcgEncoder)
    return encoder


@pytest.fixture(scope="module")
def encoder() -> AnyEcgEncoder:
    return load()


def noise(samples: int, leads: int = 12, seed: int = 0) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).standard_normal((leads, samples))


def windows(seconds: int, leads: int = 12, count: int = 2) -> np.ndarray[Any, Any]:
    return noise(300 * seconds, leads * count).reshape(count, leads, -1).astype(np.float32)


def close(ours: object, golden: object, atol: float = 1e-9) -> None:
    np.testing.assert_allclose(np.asarray(ours), np.asarray(golden), rtol=0, atol=atol)


# ------------------------------------------------------------------ the equations


def test_wavelet_coefficients(given: Arrays, golden: Arrays) -> None:
    close(DB6[::-1], golden["db6_dec_lo"])
    close([(-1) ** (i + 1) * tap for i, tap in enumerate(DB6)], golden["db6_dec_hi"])
    levels = analyse(torch.from_numpy(given["patches"]), 3)
    close(levels[0][0], golden["dwt_db6_symmetric_level1_approx"])
    close(levels[0][1], golden["dwt_db6_symmetric_level1_detail1"])
    close(levels[2][0], golden["dwt_db6_symmetric_level3_approx"])
    for number, (_, detail) in enumerate(levels, 1):
        close(detail, golden[f"dwt_db6_symmetric_level3_detail{number}"])
    view = frequency_view(torch.from_numpy(given["patches"]))
    assert view.shape == (3, 570)
    close(view[:, :155], golden["dwt_db6_symmetric_level1_approx"])
    close(view[:, -47:], golden["dwt_db6_symmetric_level3_detail3"])


def test_codes_by_cosine_and_their_losses(given: Arrays, golden: Arrays) -> None:
    hidden, codes = torch.from_numpy(given["vq_h"]), torch.from_numpy(given["vq_codes"])
    number = nearest_codes(hidden, codes)
    np.testing.assert_array_equal(number, golden["vq_index"])
    codebook, commitment = quantiser_losses(hidden, codes[number], reduction="sum")
    close(codebook, golden["vq_codebook_loss"])
    close(commitment, golden["vq_commitment_loss_beta1"])
    codebook, commitment = quantiser_losses(hidden, codes[number], beta=0.5)
    close(codebook, golden["vq_codebook_loss"] / hidden.numel())
    close(commitment, codebook / 2)


def test_sparse_attention(given: Arrays, golden: Arrays) -> None:
    for tolerance in (0, 1):
        mask = sparse_mask(3, 5, tolerance)
        np.testing.assert_array_equal(mask, golden[f"mask_leads3_patches5_tol{tolerance}"])
    rows = sparse_mask(12, 10, 0).sum(1)
    np.testing.assert_array_equal(rows, golden["mask_leads12_patches10_tol0_rowsum"])
    # One head of 8 that takes query, key and value as they lie side by side in its input.
    attention = Attention(24, 1, 8).double()
    identity = {"qkv.weight": torch.eye(24), "qkv.bias": torch.zeros(24)}
    identity |= {"out.weight": torch.eye(24, 8), "out.bias": torch.zeros(24)}
    attention.load_state_dict(identity)
    x = torch.from_numpy(np.concatenate([given[f"att_{name}"] for name in "qkv"], axis=1))
    with torch.inference_mode():
        out = attention(x[None], sparse_mask(3, 5, 0))[0]
    close(out[:, :8], golden["att_out_tol0"])


def test_resampling_and_patches(given: Arrays, golden: Arrays) -> None:
    resampled = resample_polyphase(given["signal_500hz"], 500, 300)
    close(resampled, golden["signal_300hz_polyphase_3_5"])
    close(resampled.reshape(2, 10, 300), golden["patches_300"])
    # Scaling aside, that is how a record reaches the network when nothing is filtered.
    ready = load("anyecg.tiny:raw").prepare(given["signal_500hz"], rate_hz=500, leads=["I", "V6"])
    patches = golden["patches_300"].reshape(2, 3000)
    scaled = (patches - patches.mean(1, keepdims=True)) / patches.std(1, keepdims=True)
    close(ready, scaled[None], atol=1e-6)


# ------------------------------------------------------------------ the preparation


@pytest.mark.parametrize("samples", [11, 300, 301])
def test_the_wavelet_transform_can_be_undone(samples: int) -> None:
    x = torch.from_numpy(noise(samples, 6).reshape(2, 3, -1))
    approximation, detail = analyse(x, 1)[0]
    close(synthesise(approximation, detail, samples), x, atol=1e-12)


def test_noise_goes_and_the_signal_stays() -> None:
    time = np.arange(3001) / 300
    clean = 2 * np.sin(2 * np.pi * np.array([[1.0], [4.0]]) * time)
    noisy = clean + 0.2 * noise(3001, 2)
    left = denoise(noisy) - clean
    assert left.std() < 0.08
    close(denoise(clean), clean, atol=0.01)
    close(denoise(torch.from_numpy(noisy)[None])[0], denoise(noisy), atol=1e-12)
    np.testing.assert_array_equal(denoise(np.zeros((1, 300))), 0)


def by_scipy(signal: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    band = scipy_signal.butter(4, (0.1, 75), "bandpass", fs=300, output="sos")
    filtered = scipy_signal.sosfiltfilt(band, scipy_signal.resample_poly(signal, 3, 5, axis=1))
    notch = scipy_signal.iirnotch(50, 30, fs=300)
    result: np.ndarray[Any, Any] = scipy_signal.filtfilt(*notch, filtered)
    return result


@pytest.mark.parametrize("variant", ["denoised", "filtered"])
def test_preparation(variant: str) -> None:
    signal = noise(5000).cumsum(1)
    expected = by_scipy(signal)
    if variant == "denoised":
        expected = denoise(expected)
    expected -= expected.mean(1, keepdims=True)
    expected /= expected.std(1, keepdims=True)
    encoder = load(f"anyecg.tiny:{variant}")
    ready = encoder.prepare(signal, rate_hz=500, leads=LEADS)
    assert ready.shape == (1, 12, 3000)
    close(ready[0], expected, atol=1e-6)
    assert (variant == "denoised") == any("db6" in step for step in encoder.variant.preparation)


@pytest.mark.parametrize(
    ("samples", "count", "length"),
    [
        (300, 1, 300),
        (301, 1, 600),
        (3000, 1, 3000),
        (85 * 300, 1, 85 * 300),
        (85 * 300 + 299, 1, 85 * 300),
        (170 * 300, 2, 85 * 300),
    ],
)
def test_windows_of_any_length(
    encoder: AnyEcgEncoder, samples: int, count: int, length: int
) -> None:
    ready = encoder.prepare(noise(samples, 1), rate_hz=300, leads=["II"])
    assert ready.shape == (count, 1, length)
    assert encoder.window_starts(samples, rate_hz=300) == (0.0, 85.0)[:count]


def test_only_the_last_partial_second_is_filled_up(encoder: AnyEcgEncoder) -> None:
    ready = encoder.prepare(noise(700), rate_hz=300, leads=LEADS)
    assert ready.shape == (1, 12, 900)
    assert not ready[..., 700:].any()
    assert (np.abs(ready[..., 600:700]).max(-1) > 0.1).all()
    close(ready[..., :700].std(-1), 1, atol=1e-5)


def test_less_than_a_second_is_refused(encoder: AnyEcgEncoder) -> None:
    for samples in (2, 498):
        with pytest.raises(UnfitRecordError, match="at least 1 s") as caught:
            encoder.prepare(noise(samples), rate_hz=500, leads=LEADS)
        assert caught.value.reason == "too short"
    assert encoder.window_starts(498, rate_hz=500) == ()


@pytest.mark.parametrize("rate_hz", [37.0, 257.0, 360.0, 1000.0, 10_000.0])
def test_any_rate(encoder: AnyEcgEncoder, rate_hz: float) -> None:
    ready = encoder.prepare(noise(int(2 * rate_hz), 2), rate_hz=rate_hz, leads=["I", "II"])
    assert ready.shape == (1, 2, 600)
    assert np.isfinite(encoder.embed(ready, leads=["I", "II"])).all()


def test_a_constant_lead_is_zero_and_leaves_others_alone(encoder: AnyEcgEncoder) -> None:
    signal = noise(1234)
    expected = encoder.prepare(signal, rate_hz=500, leads=LEADS)
    signal[3] = 1.7
    ready = encoder.prepare(signal, rate_hz=500, leads=LEADS)
    assert not ready[:, 3].any()
    others = [row for row in range(12) if row != 3]
    close(ready[:, others], expected[:, others], atol=1e-6)


@pytest.mark.parametrize("samples", [0, 299, 450, 86 * 300])
def test_windows_that_are_no_whole_seconds(encoder: AnyEcgEncoder, samples: int) -> None:
    for call in (encoder.embed, encoder.codes):
        with pytest.raises(UsageError, match="multiple of 300"):
            call(np.zeros((1, 12, samples), np.float32))


# ------------------------------------------------------------------ the network


def test_leads_are_known_by_name(encoder: AnyEcgEncoder) -> None:
    x = windows(2, leads=3)
    names = ["V5", "I", "aVF"]
    order = [1, 2, 0]
    sorted_names = [names[row] for row in order]
    close(encoder.embed(x[:, order], leads=sorted_names), encoder.embed(x, leads=names), 1e-5)
    renamed = encoder.embed(x, leads=["V4", "I", "aVF"])
    assert np.abs(renamed - encoder.embed(x, leads=names)).max() > 1e-3


def test_a_block_sees_its_lead_and_the_seconds_around(encoder: AnyEcgEncoder) -> None:
    x = torch.from_numpy(windows(6, leads=2, count=1))
    touched = x.clone()
    touched[0, 1, 900:1200] += torch.linspace(-1, 1, 300)  # second 3 of the second lead
    with torch.inference_mode():
        plain, other = (encoder.network.encoder(y, [0, 6], depth=1) for y in (x, touched))
    changed = (plain != other).any(-1).reshape(2, 6)
    assert changed[0].tolist() == [False, False, True, True, True, False]
    assert changed[1].all()


def test_readouts(encoder: AnyEcgEncoder) -> None:
    x = windows(3)
    assert encoder.readouts == ("embedding", "lead", "block0", "block1", "block2", "block3")
    vectors = encoder.embed(x)
    leads = load("anyecg.tiny:lead").embed(x)
    assert leads.shape == (2, 12 * 64)
    close(leads.reshape(2, 12, 64).mean(1), vectors, atol=1e-5)
    last, middle = load("anyecg.tiny:block3"), load("anyecg.tiny:block1")
    network = encoder.network.encoder
    with torch.inference_mode():
        tokens = network(torch.from_numpy(x), range(12))
        close(last.embed(x), tokens.mean(1), atol=1e-5)
        close(encoder.embed(x), network.norm(tokens).mean(1), atol=1e-5)
    assert middle.embed(x).shape == (2, 64)
    assert np.abs(middle.embed(x) - last.embed(x)).max() > 1e-2
    assert len({encoder.version, last.version, middle.version}) == 3


def test_bfloat16(encoder: AnyEcgEncoder) -> None:
    x, half = windows(4), load(precision="bf16")
    exact = encoder.embed(x)
    error = np.linalg.norm(half.embed(x) - exact, axis=1) / np.linalg.norm(exact, axis=1)
    assert 0 < error.max() <= 1e-2
    assert half.codes(x).shape == (2, 12, 4)


def test_a_code_for_each_second_of_each_lead(encoder: AnyEcgEncoder) -> None:
    x, names = windows(5, leads=3), ["I", "II", "V2"]
    codes = encoder.codes(x, leads=names)
    assert codes.dtype == np.int16
    assert codes.shape == (2, 3, 5)
    assert codes.min() >= 0
    assert codes.max() < 1024
    assert len(np.unique(codes)) > 5
    np.testing.assert_array_equal(encoder.codes(x[1:], leads=names), codes[1:])
    assert encoder.codes(x[:0], leads=names).shape == (0, 3, 5)
    tokeniser = encoder.network.tokeniser
    assert tokeniser is not None
    with torch.inference_mode():
        hidden = tokeniser(torch.from_numpy(x), [0, 1, 7]).hidden.numpy().reshape(2, 3, 5, 64)
    book = tokeniser.quantiser.codes.numpy()
    book = book / np.linalg.norm(book, axis=1, keepdims=True)
    distance = np.linalg.norm(
        hidden[..., None, :] / np.linalg.norm(hidden, axis=-1)[..., None, None] - book, axis=-1
    )
    np.testing.assert_array_equal(distance.argmin(-1), codes)


def test_what_has_no_codes(encoder: AnyEcgEncoder) -> None:
    x = windows(1)
    with pytest.raises(UsageError, match="12"):
        encoder.codes(x[:, :3])
    with pytest.raises(UnknownNameError, match="X"):
        encoder.codes(x[:, :1], leads=["X"])
    x[0, 0, 0] = np.nan
    with pytest.raises(UnfitRecordError, match="NaN"):
        encoder.codes(x)


# ------------------------------------------------------------------ files


def write(path: Path, *, settings: dict[str, object] | None = None, drop: str = "!") -> Path:
    tensors = {key: x for key, x in TINY.untrained(0).items() if not key.startswith(drop)}
    told = TINY.settings() if settings is None else settings
    write_safetensors(path, tensors, settings=told, source="")
    return path


def test_a_file_gives_the_same_vectors(tmp_path: Path, encoder: AnyEcgEncoder) -> None:
    x = windows(2)
    whole = load("anyecg", weights=write(tmp_path / "whole.safetensors"))
    np.testing.assert_array_equal(whole.embed(x), encoder.embed(x))
    np.testing.assert_array_equal(whole.codes(x), encoder.codes(x))
    path = write(tmp_path / "encoder.safetensors", settings={}, drop="tokeniser.")
    bare = load("anyecg", weights=path, settings={"heads": 4})
    np.testing.assert_array_equal(bare.embed(x), encoder.embed(x))
    with pytest.raises(UsageError, match="no tokeniser"):
        bare.codes(x)


def test_what_only_training_needs_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "all.safetensors"
    tensors = TINY.untrained(0) | {"pretraining.mask_token": torch.zeros(64)}
    write_safetensors(path, tensors, settings=TINY.settings(), source="")
    assert load("anyecg", weights=path).dim == 64


@pytest.mark.parametrize(
    ("settings", "drop", "match"),
    [
        ({}, "tokeniser.", "--set heads"),
        ({"heads": 5}, "tokeniser.", "evenly"),
        ({"heads": True}, "tokeniser.", "--set heads"),
        ({"heads": 4}, "!", "--set tokeniser_heads"),
        ({"heads": 4, "tokeniser_heads": 4}, "tokeniser.quantiser.proj", "2 missing"),
        ({"heads": 4}, "encoder.time_positions", "no known kind"),
    ],
)
def test_files_that_are_refused(
    tmp_path: Path, settings: dict[str, object], drop: str, match: str
) -> None:
    path = write(tmp_path / "weights.safetensors", settings=settings, drop=drop)
    with pytest.raises(WeightsError, match=match):
        load("anyecg", weights=path)


def test_more_codes_than_16_bits_hold(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    tokeniser = replace(TokeniserSize(SIZES["tiny"]), codes=2**15 + 1, code_dim=1)
    large = AnyEcgConfiguration(SIZES["tiny"], tokeniser)
    write_safetensors(path, large.untrained(0), settings=large.settings(), source="")
    with pytest.raises(WeightsError, match="16 bits"):
        load("anyecg", weights=path)


def test_only_its_own_files_are_taken_for_it(tmp_path: Path, test_data: Path) -> None:
    own = read_checkpoint("anyecg", write(tmp_path / "weights.safetensors"))
    encoders = {models.get(name).encoder for name in models}
    assert {kind.recognise(own) for kind in encoders} == {None, "AnyECG"}
    others = [
        path
        for suffix in ("pt", "pth", "safetensors")
        for path in (test_data / "goldens").glob(f"*/*tiny*.{suffix}")
    ]
    assert others
    for path in others:
        assert AnyEcgEncoder.recognise(read_checkpoint("anyecg", path)) is None


def test_size_of_the_published_b() -> None:
    shapes = AnyEcgConfiguration(SIZES["B"]).shapes()
    total = sum(int(np.prod(shape)) for shape in shapes.values())
    assert 250e6 < total < 254e6


# ------------------------------------------------------------------ what training needs


def trainable(kind: type[torch.nn.Module], *parts: Any) -> Any:
    torch.manual_seed(0)
    module = kind(*parts)
    for name, parameter in module.named_parameters():
        if "positions" in name or name.endswith("codes"):
            torch.nn.init.normal_(parameter, std=0.1)
    return module


def test_the_first_stage_can_be_trained() -> None:
    size = TokeniserSize(replace(SIZES["tiny"], depth=1), codes=32, code_dim=16)
    tokeniser, decoder = trainable(Tokeniser, size), trainable(MultiViewDecoder, size)
    x = torch.from_numpy(windows(2, leads=3))
    patches = x.reshape(2, 6, 300)
    statistics = torch.tensor([[0.0, 2.0]]).expand(6, 2)
    demography = torch.tensor([[0.5, 0.1, 1.0], [torch.nan, 0.3, torch.nan]])
    wanted = Views(patches, frequency_view(patches, statistics), demography)
    parameters = [*tokeniser.parameters(), *decoder.parameters()]
    course = []
    for _ in range(5):
        quantised = tokeniser(x, [0, 1, 2])
        decoded = decoder(straight_through(quantised.hidden, quantised.codes), 3)
        losses = (
            *view_losses(decoded, wanted),
            *quantiser_losses(quantised.hidden, quantised.codes),
        )
        loss = torch.stack(losses).sum()
        gradients = torch.autograd.grad(loss, parameters)
        assert all(gradient.any() for gradient in gradients)  # through the quantiser too
        with torch.no_grad():
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter -= 0.005 * gradient
        course.append(loss.item())
    assert course[-1] < 0.95 * course[0]


def test_losses_of_the_views() -> None:
    view = Views(torch.randn(2, 6, 300), torch.randn(2, 6, 570), torch.randn(2, 3))
    assert [loss.item() for loss in view_losses(view, view)] == [0, 0, 0]
    unknown = torch.full((2, 3), torch.nan)
    assert view_losses(view, view._replace(demography=unknown)).demography == 0
    unknown[1, 2] = view.demography[1, 2] + 2
    off = Views(view.morphology + 1, view.frequency + 1, unknown)
    close(torch.stack(view_losses(view, off)), [1, 6, 4], atol=1e-5)
    known = frequency_view(view.morphology, torch.tensor([[1.0, 2.0]]).expand(6, 2))
    close(known, (frequency_view(view.morphology) - 1) / 2, atol=1e-6)
