"""What every registered model must do, whatever its architecture."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from ecgstore.errors import UnfitRecordError, UnknownNameError, UsageError, WeightsError
from ecgstore.models import Encoder, get_spec, list_models, load_encoder, models
from ecgstore.record import LEADS

if TYPE_CHECKING:
    from pathlib import Path

TINY = {
    "ecgfm": "goldens/ecgfm_tiny/pretrained.pt",
    "stmem": "goldens/stmem_tiny/st_mem_tiny_encoder.pth",
}
RATE_HZ = 400.0


@pytest.fixture(scope="module", params=list(models))
def encoder(request: pytest.FixtureRequest) -> Encoder:
    """Return every model in turn: those built in, and the others with small weights."""
    if models.get(request.param).untrained is not None:
        return load_encoder(request.param, device="cpu", precision="fp32")
    if request.param not in TINY:
        pytest.fail(f"give the contract tests small weights of {request.param}")
    test_data: Path = request.getfixturevalue("test_data")
    weights = test_data / TINY[request.param]
    return load_encoder(request.param, weights=weights, device="cpu", precision="fp32")


@pytest.fixture(scope="module")
def signal() -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """Return ten seconds of twelve different leads in millivolts."""
    time = np.arange(4000) / RATE_HZ
    beats = np.exp(-(((time * 1.2) % 1 - 0.3) ** 2) / 0.001)
    scale = np.linspace(-1, 1.5, 12)[:, None]
    noise = np.random.default_rng(0).standard_normal((12, 4000))
    return scale * beats + 0.05 * noise


@pytest.mark.parametrize("name", list(models))
def test_spec_is_complete(name: str) -> None:
    spec = get_spec(name)
    assert spec.name == name
    assert spec.arch == name.partition(".")[0]
    assert set(spec.leads) <= set(LEADS)
    assert spec.readouts
    assert len(set(spec.readouts)) == len(spec.readouts)
    assert spec.missing_leads in ("zero", "omit", "refuse")
    texts = (spec.summary, spec.licence, *spec.preparation, *spec.citations)
    assert all(text.strip() for text in texts)
    assert spec.citations
    assert all("arXiv" in citation for citation in spec.citations)
    built_in = models.get(name).untrained
    assert (spec.weights_source is None) == (built_in is not None)
    with pytest.raises(dataclasses.FrozenInstanceError):
        spec.dim = 1  # type: ignore[misc]


def test_licences_and_citations() -> None:
    stmem = get_spec("stmem")
    assert stmem.licence == "CC-BY-NC-4.0"
    assert "non-commercial" in (stmem.licence_note or "")
    assert "2402.09450" in stmem.citations[0]
    assert get_spec("ecgfm").licence == "MIT"
    assert "2408.05178" in get_spec("ecgfm").citations[0]
    assert [spec.name for spec in list_models("stmem*")] == ["stmem", "stmem.mini"]


def test_shapes_agree(encoder: Encoder, signal: np.ndarray) -> None:
    windows = encoder.prepare(signal, rate_hz=RATE_HZ, leads=LEADS)
    leads = encoder.window_leads(LEADS)
    assert windows.dtype == np.float32
    assert windows.shape[1:] == (len(leads), encoder.window_samples)
    assert len(encoder.window_starts(4000, rate_hz=RATE_HZ)) == len(windows)
    vectors = encoder.embed(windows, leads=leads)
    assert vectors.dtype == np.float32
    assert vectors.shape == (len(windows), encoder.dim)
    assert np.isfinite(vectors).all()
    assert encoder.embed(windows[:0], leads=leads).shape == (0, encoder.dim)


def test_same_input_same_vector(encoder: Encoder, signal: np.ndarray) -> None:
    windows = encoder.prepare(signal, rate_hz=RATE_HZ, leads=LEADS)
    np.testing.assert_array_equal(encoder.embed(windows), encoder.embed(windows))


def test_a_vector_does_not_depend_on_its_batch(encoder: Encoder, signal: np.ndarray) -> None:
    windows = encoder.prepare(signal, rate_hz=RATE_HZ, leads=LEADS)
    batch = np.concatenate([windows, windows[:, ::-1], -windows])
    alone = np.concatenate([encoder.embed(window[None]) for window in batch])
    np.testing.assert_allclose(encoder.embed(batch), alone, rtol=0, atol=1e-5)


def test_different_records_give_different_vectors(encoder: Encoder, signal: np.ndarray) -> None:
    windows = encoder.prepare(signal, rate_hz=RATE_HZ, leads=LEADS)
    other = encoder.prepare(signal[:, ::-1] ** 2, rate_hz=RATE_HZ, leads=LEADS)
    gap = np.abs(encoder.embed(windows).mean(0) - encoder.embed(other).mean(0))
    assert gap.max() > 0.01


def test_leads_go_by_name_not_by_order(encoder: Encoder, signal: np.ndarray) -> None:
    order = np.random.default_rng(0).permutation(12)
    names = [LEADS[row].upper() for row in order]
    np.testing.assert_array_equal(
        encoder.prepare(signal[order], rate_hz=RATE_HZ, leads=names),
        encoder.prepare(signal, rate_hz=RATE_HZ, leads=LEADS),
    )


def test_missing_leads_as_the_spec_says(encoder: Encoder, signal: np.ndarray) -> None:
    kept = [row for row in range(12) if LEADS[row] not in ("aVL", "V4")]
    names = tuple(LEADS[row] for row in kept)
    spec = encoder.spec
    if spec.missing_leads == "refuse":
        with pytest.raises(UnfitRecordError, match="aVL"):
            encoder.prepare(signal[kept], rate_hz=RATE_HZ, leads=names)
        return
    windows = encoder.prepare(signal[kept], rate_hz=RATE_HZ, leads=names)
    leads = encoder.window_leads(names)
    assert leads == (names if spec.missing_leads == "omit" else spec.leads)
    assert windows.shape[1] == len(leads)
    if spec.missing_leads == "zero":
        assert not windows[:, [LEADS.index("aVL"), LEADS.index("V4")]].any()
    vectors = encoder.embed(windows, leads=leads)
    assert np.isfinite(vectors).all()
    whole = encoder.embed(encoder.prepare(signal, rate_hz=RATE_HZ, leads=LEADS))
    assert np.abs(vectors - whole).max() > 1e-3
    lost = signal.copy()
    lost[[LEADS.index("aVL"), LEADS.index("V4")]] = np.nan
    np.testing.assert_array_equal(encoder.prepare(lost, rate_hz=RATE_HZ, leads=LEADS), windows)
    with pytest.raises(UnfitRecordError) as caught:
        encoder.prepare(np.full((12, 4000), np.nan), rate_hz=RATE_HZ, leads=LEADS)
    assert caught.value.reason == "missing leads"


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_nothing_infinite_passes(encoder: Encoder, signal: np.ndarray, value: float) -> None:
    broken = signal.copy()
    broken[4, 1234] = value
    with pytest.raises(UnfitRecordError, match="aVL") as caught:
        encoder.prepare(broken, rate_hz=RATE_HZ, leads=LEADS)
    assert (caught.value.reason, caught.value.model) == ("NaN", encoder.spec.name)
    windows = encoder.prepare(signal, rate_hz=RATE_HZ, leads=LEADS)
    windows[0, 0, 0] = value
    with pytest.raises(UnfitRecordError) as caught:
        encoder.embed(windows)
    assert caught.value.reason == "NaN"


def test_too_short_is_refused(encoder: Encoder, signal: np.ndarray) -> None:
    needed = int(encoder.window_samples / encoder.rate_hz * RATE_HZ)
    assert len(encoder.prepare(signal[:, : needed + 2], rate_hz=RATE_HZ, leads=LEADS))
    assert encoder.window_starts(needed - 2, rate_hz=RATE_HZ) == ()
    for samples in (0, 1, needed - 2):
        with pytest.raises(UnfitRecordError) as caught:
            encoder.prepare(signal[:, :samples], rate_hz=RATE_HZ, leads=LEADS)
        assert caught.value.reason in ("too short", "missing leads")
    with pytest.raises(UnfitRecordError) as caught:
        encoder.prepare(signal[:, : needed - 2], rate_hz=RATE_HZ, leads=LEADS)
    assert caught.value.reason == "too short"


def test_flat_leads_give_finite_vectors(encoder: Encoder) -> None:
    windows = encoder.prepare(np.zeros((12, 4000)), rate_hz=RATE_HZ, leads=LEADS)
    assert np.isfinite(encoder.embed(windows)).all()


def test_senseless_arguments(encoder: Encoder, signal: np.ndarray) -> None:
    with pytest.raises(UsageError, match="twice"):
        encoder.prepare(signal[:2], rate_hz=RATE_HZ, leads=["I", "i"])
    with pytest.raises(UsageError, match="shape"):
        encoder.prepare(signal[:2], rate_hz=RATE_HZ, leads=["I"])
    with pytest.raises(UnknownNameError, match="Xyz"):
        encoder.prepare(signal[:1], rate_hz=RATE_HZ, leads=["Xyz"])
    for rate_hz in (0.0, -500.0, np.nan, np.inf):
        with pytest.raises(UsageError, match="Hz"):
            encoder.prepare(signal, rate_hz=rate_hz, leads=LEADS)
    with pytest.raises(UsageError, match="shape"):
        encoder.embed(np.zeros((12, 2500), np.float32))


def test_the_contract_is_plain_and_the_version_follows_it(encoder: Encoder) -> None:
    assert json.loads(json.dumps(encoder.contract)) == encoder.contract
    assert encoder.contract["readout"] == encoder.readout == encoder.spec.readouts[0]
    assert encoder.contract["preparation"] == list(encoder.spec.preparation)
    assert len(encoder.version) == 12
    int(encoder.version, 16)
    assert len(encoder.weights_sha256) == 64
    assert encoder.version in repr(encoder)


@pytest.mark.parametrize("name", [n for n in models if models.get(n).untrained is not None])
def test_built_in_weights_are_the_same_every_time(name: str) -> None:
    torch.manual_seed(1)
    one = load_encoder(name, device="cpu", precision="fp32")
    torch.manual_seed(2)
    two = load_encoder(name, device="cpu", precision="fp32")
    assert one.version == two.version
    assert one.weights_name == "untrained (seed 0)"


def test_built_in_weights_are_the_same_everywhere() -> None:
    """Digests of one machine, held on all: vectors stored elsewhere must stay comparable."""
    digests = {
        name: load_encoder(name, device="cpu").weights_sha256[:16]
        for name in ("ecgfm.mini", "stmem.mini")
    }
    assert digests == {"ecgfm.mini": "f0d555733b2f7909", "stmem.mini": "35de771125eadc4e"}


def test_what_cannot_be_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UnknownNameError, match="stmem"):
        load_encoder("stmen")
    with pytest.raises(UnknownNameError, match="record_mean"):
        load_encoder("ecgfm.mini:three")
    with pytest.raises(WeightsError, match="wanglab/ecg-fm") as caught:
        load_encoder("ecgfm")
    assert "--weights PATH" in str(caught.value)
    with pytest.raises(UsageError, match="precision"):
        load_encoder("ecgfm.mini", precision="fp16")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="tpu"):
        load_encoder("ecgfm.mini", device="tpu")
    with pytest.raises(UsageError, match="no such GPU"):
        load_encoder("ecgfm.mini", device="cuda:99")
    monkeypatch.setenv("ECGSTORE_DEVICE", "cpu")
    assert load_encoder("ecgfm.mini").device == torch.device("cpu")


@pytest.mark.gpu
def test_gpu_agrees_with_cpu(encoder: Encoder, signal: np.ndarray) -> None:
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    windows = encoder.prepare(signal, rate_hz=RATE_HZ, leads=LEADS)
    exact = encoder.embed(windows)
    encoder.network.to("cuda")
    encoder.device = torch.device("cuda")
    try:
        np.testing.assert_allclose(encoder.embed(windows), exact, rtol=0, atol=1e-5)
    finally:
        encoder.network.to("cpu")
        encoder.device = torch.device("cpu")
