"""The supervised baseline: its shape, its size, that it learns, and that it is an encoder too."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import safetensors.torch
import torch

import ecgstore.models.resnet_encoder  # registers the encoder  # noqa: F401
from ecgstore import supervised
from ecgstore.errors import UnfitRecordError, UsageError, WeightsError
from ecgstore.models import Encoder, convert_weights, load_encoder
from ecgstore.models.resnet import ResNet50
from ecgstore.models.resnet_encoder import ResNet50Configuration
from ecgstore.models.weights import write_safetensors
from ecgstore.record import LEADS
from ecgstore.waveforms import Waveform

if TYPE_CHECKING:
    from pathlib import Path


def test_size_is_as_documented() -> None:
    network = ResNet50()
    assert sum(parameter.numel() for parameter in network.parameters()) == 15_961_217
    convolutions = [m for m in network.modules() if isinstance(m, torch.nn.Conv1d)]
    assert len(convolutions) == 1 + 3 * 16 + 4  # stem, bottlenecks, shortcuts


@pytest.mark.parametrize(("leads", "samples"), [(12, 1000), (12, 5000), (8, 333)])
def test_one_logit_a_record_at_any_length(leads: int, samples: int) -> None:
    network = ResNet50(leads=leads, width=4).eval()
    with torch.inference_mode():
        assert network(torch.zeros(3, leads, samples)).shape == (3,)


def test_it_learns_a_frequency() -> None:
    torch.manual_seed(0)
    network = ResNet50(leads=2, width=4)
    label = torch.arange(16).remainder(2).float()
    time = torch.arange(256) / 256
    x = torch.sin(2 * torch.pi * time * (4 + 8 * label[:, None]) + torch.rand(16, 1) * 6)
    x = x[:, None].expand(-1, 2, -1) + 0.1 * torch.randn(16, 2, 256)
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-3)
    losses = []
    for _ in range(12):
        loss = torch.nn.functional.binary_cross_entropy_with_logits(network(x), label)
        optimiser.zero_grad()
        torch.autograd.backward(loss)
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


PARAMS = {"epochs": 2, "width": 4, "rate_hz": 100, "seconds": 2.0}
RATES = {"syn/0": 100.0, "syn/1": 360.0, "syn/2": 500.0, "syn/3": 128.0}


@pytest.fixture(scope="module")
def waveforms() -> list[Waveform]:
    """Return four records of three seconds, each at another rate."""
    rng = np.random.default_rng(0)
    gain, baseline = np.full(12, 200.0), np.arange(12, dtype=np.int32)
    return [
        Waveform(
            record_id,
            LEADS,
            rng.normal(scale=150, size=(12, round(3 * rate_hz))).astype(np.int16),
            gain,
            baseline,
        )
        for record_id, rate_hz in RATES.items()
    ]


@pytest.fixture(scope="module")
def fitted(waveforms: list[Waveform]) -> tuple[supervised.ResNet50, np.ndarray[Any, Any]]:
    """Return a classifier, and what it saw."""
    _, x, _ = supervised.signals(waveforms, RATES, rate_hz=100, seconds=2.0)
    classifier = supervised.ResNet50(PARAMS)
    classifier.fit(x, np.array([0.0, 1, 0, 1]), step=lambda: None)
    return classifier, x


@pytest.fixture(scope="module")
def stored(fitted: tuple[supervised.ResNet50, Any], tmp_path_factory: Any) -> Path:
    """Return the stored classifier with its settings where a converted file has them."""
    tensors = safetensors.torch.load(fitted[0].save())
    path: Path = tmp_path_factory.mktemp("resnet50") / "resnet50.safetensors"
    write_safetensors(path, tensors, settings=fitted[0].params, source="")
    return path


def load(path: Path, **options: Any) -> Encoder:
    options = {"device": "cpu", "precision": "fp32", **options}
    return load_encoder("resnet50", weights=path, **options)


@pytest.fixture(scope="module")
def encoder(stored: Path) -> Encoder:
    return load(stored)


def test_the_encoder_sees_and_says_what_the_classifier_did(
    encoder: Encoder,
    stored: Path,
    waveforms: list[Waveform],
    fitted: tuple[supervised.ResNet50, Any],
) -> None:
    assert (encoder.rate_hz, encoder.window_samples, encoder.dim) == (100, 200, 128)
    assert (encoder.spec.rate_hz, encoder.spec.window_s) == (100, 2)
    assert encoder.labels == ("output 0",)
    assert encoder.readouts == ("embedding", "logits")
    classifier, x = fitted
    signals = [(w.digital - w.baseline[:, None]) / w.gain[:, None] for w in waveforms]
    windows = np.concatenate([
        encoder.prepare(mv, rate_hz=rate_hz, leads=LEADS)
        for mv, rate_hz in zip(signals, RATES.values(), strict=True)
    ])  # fmt: skip
    np.testing.assert_allclose(windows, x, rtol=0, atol=2e-6)
    probabilities = encoder.classify(x)
    np.testing.assert_allclose(probabilities[:, 0], classifier.predict(x), rtol=0, atol=1e-6)
    vectors = encoder.embed(x)
    assert vectors.shape == (4, 128)
    head = encoder.network.state_dict()
    logits = vectors @ head["head.weight"].numpy().T + head["head.bias"].numpy()
    np.testing.assert_allclose(load(stored, readout="logits").embed(x), logits, atol=1e-5)
    np.testing.assert_allclose(1 / (1 + np.exp(-logits)), probabilities, atol=1e-6)


def test_bfloat16(encoder: Encoder, stored: Path, fitted: tuple[Any, np.ndarray[Any, Any]]) -> None:
    exact = encoder.embed(fitted[1])
    rounded = load(stored, precision="bf16").embed(fitted[1])
    error = np.linalg.norm(rounded - exact, axis=1) / np.linalg.norm(exact, axis=1)
    assert 0 < error.max() <= 5e-2


def test_records_the_classifier_refuses(encoder: Encoder) -> None:
    signal = np.random.default_rng(0).standard_normal((12, 1000))
    assert encoder.window_starts(1000, rate_hz=500) == (0.0,)
    with pytest.raises(UnfitRecordError, match="expected at least 2 s"):
        encoder.prepare(signal[:, :999], rate_hz=500, leads=LEADS)
    with pytest.raises(UnfitRecordError, match="lacks the leads V6"):
        encoder.prepare(signal[:11], rate_hz=500, leads=LEADS[:11])
    with pytest.raises(UsageError, match="expected 200"):
        encoder.embed(np.zeros((1, 12, 500), np.float32))


def test_conversion_keeps_vectors_and_input(
    encoder: Encoder, stored: Path, fitted: tuple[Any, np.ndarray[Any, Any]], tmp_path: Path
) -> None:
    converted = load(convert_weights("resnet50", stored, tmp_path / "converted.safetensors"))
    assert converted.contract == encoder.contract
    np.testing.assert_array_equal(converted.embed(fitted[1]), encoder.embed(fitted[1]))


def test_a_file_that_does_not_tell_its_input(tmp_path: Path) -> None:
    path = tmp_path / "bare.safetensors"
    tensors = ResNet50Configuration(width=4).untrained(0)
    write_safetensors(path, tensors, settings={}, source="")
    with pytest.raises(WeightsError, match="--set rate_hz=… --set seconds"):
        load(path)
    with pytest.raises(WeightsError, match="--set rate_hz=… --set seconds"):
        load(path, settings={"rate_hz": 100, "seconds": "ten"})
    for rate_hz, seconds in ((-100, -2), (float("inf"), 2), (1e9, 10), (0.1, 1)):
        with pytest.raises(WeightsError, match="makes no sense"):
            load(path, settings={"rate_hz": rate_hz, "seconds": seconds})
    assert load(path, settings={"rate_hz": 125, "seconds": 4}).window_samples == 500
