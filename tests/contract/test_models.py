"""What every registered model must do, whatever its architecture."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from ecgstore.errors import UnfitRecordError, UnknownNameError, UsageError, WeightsError
from ecgstore.models import (
    Configuration,
    Encoder,
    get_spec,
    list_models,
    load_encoder,
    models,
    tensor_signal,
)
from ecgstore.models.anyecg import SIZES, AnyEcgConfiguration
from ecgstore.models.ecgfounder_keys import EcgFounderConfiguration
from ecgstore.models.resnet_encoder import ResNet50Configuration
from ecgstore.models.weights import write_safetensors
from ecgstore.record import LEADS

if TYPE_CHECKING:
    from pathlib import Path

TINY: dict[str, tuple[str, dict[str, object]]] = {
    "ecgflow": ("goldens/ecgflow_tiny/model.safetensors", {"heads": 4}),
    "ecgfm": ("goldens/ecgfm_tiny/finetuned.pt", {}),
    "ecgfounder": ("goldens/ecgfounder_tiny/checkpoint.pth", {}),
    "ecgjepa": ("goldens/ecgjepa_tiny/checkpoint.pth", {"heads": 4}),
    "mlae": ("goldens/stmem_tiny/mlae_tiny_full.pth", {}),
    "mtae": ("goldens/stmem_tiny/mtae_tiny_full.pth", {}),
    "stmem": ("goldens/stmem_tiny/st_mem_tiny_encoder.pth", {}),
}
"""Small weights of the models that need a file, and what the file does not tell."""

MADE: dict[str, Configuration] = {
    "anyecg": AnyEcgConfiguration(SIZES["tiny"]),
    "ecgfounder1": EcgFounderConfiguration(
        leads=1, stem=8, filters=(8, 12, 12, 20), blocks=(2, 2, 1, 2), group_width=4, classes=7
    ),
    "resnet50": ResNet50Configuration(width=8),
}
"""Dimensions of the models whose small weights are made here."""

RATE_HZ = 400.0


@pytest.fixture(scope="module", params=list(models))
def encoder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    """Return every model in turn: those built in, and the others with small weights."""
    if models.get(request.param).built_in:
        return load_encoder(request.param, device="cpu", precision="fp32")
    if request.param in MADE:
        made = MADE[request.param]
        path = tmp_path_factory.mktemp("weights") / "made.safetensors"
        write_safetensors(path, made.untrained(0), settings=made.settings(), source="")
        return load_encoder(request.param, weights=path, device="cpu", precision="fp32")
    if request.param not in TINY:
        pytest.fail(f"give the contract tests small weights of {request.param}")
    test_data: Path = request.getfixturevalue("test_data")
    name, settings = TINY[request.param]
    return load_encoder(
        request.param, weights=test_data / name, settings=settings, device="cpu", precision="fp32"
    )


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
    texts = (spec.summary, spec.licence, *spec.citations)
    assert all(text.strip() for text in texts)
    assert spec.citations
    assert all("arXiv" in citation or "doi" in citation for citation in spec.citations)
    names = [variant.name for variant in spec.variants]
    assert len(set(names)) == len(names)
    assert not {*names} & {*spec.readouts}
    for variant in spec.variants:
        assert variant.units in ("mV", "any")
        facts = (variant.resampler, variant.normalisation, variant.windows, *variant.preparation)
        assert all(text.strip() for text in facts)
        assert spec.named(spec.pooling(variant, spec.readouts[0]))[0] in (variant.name, None)
    assert (spec.weights_source is None) == models.get(name).built_in
    with pytest.raises(dataclasses.FrozenInstanceError):
        spec.dim = 1  # type: ignore[misc]


def test_licences_and_citations() -> None:
    stmem = get_spec("stmem")
    assert stmem.licence == "CC-BY-NC-4.0"
    assert "non-commercial" in (stmem.licence_note or "")
    assert "2402.09450" in stmem.citations[0]
    assert get_spec("ecgfm").licence == "MIT"
    assert "2408.05178" in get_spec("ecgfm").citations[0]
    assert [one.name for one in list_models("stmem*")] == ["stmem", "stmem.mini", "stmem.tiny"]


def test_shapes_agree(encoder: Encoder, signal: np.ndarray) -> None:
    windows = encoder.prepare(signal, rate_hz=RATE_HZ, leads=LEADS)
    leads = encoder.window_leads(LEADS)
    assert windows.dtype == np.float32
    assert windows.shape[1] == len(leads)
    assert windows.shape[2] <= encoder.window_samples
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
    spec = encoder.spec
    gone = [lead for lead in map(str, ("aVL", "V4")) if lead in spec.leads] or [spec.leads[0]]
    kept = [row for row in range(12) if LEADS[row] not in gone]
    names = tuple(LEADS[row] for row in kept)
    if spec.missing_leads == "refuse":
        with pytest.raises(UnfitRecordError, match=gone[0]):
            encoder.prepare(signal[kept], rate_hz=RATE_HZ, leads=names)
        return
    windows = encoder.prepare(signal[kept], rate_hz=RATE_HZ, leads=names)
    leads = encoder.window_leads(names)
    there = tuple(lead for lead in names if lead in spec.leads)
    assert leads == (there if spec.missing_leads == "omit" else spec.leads)
    assert windows.shape[1] == len(leads)
    if spec.missing_leads == "zero":
        assert not windows[:, [LEADS.index(lead) for lead in gone]].any()
    vectors = encoder.embed(windows, leads=leads)
    assert np.isfinite(vectors).all()
    whole = encoder.embed(encoder.prepare(signal, rate_hz=RATE_HZ, leads=LEADS))
    assert np.abs(vectors - whole).max() > 1e-3
    lost = signal.copy()
    lost[[LEADS.index(lead) for lead in gone]] = np.nan
    np.testing.assert_array_equal(encoder.prepare(lost, rate_hz=RATE_HZ, leads=LEADS), windows)
    with pytest.raises(UnfitRecordError) as caught:
        encoder.prepare(np.full((12, 4000), np.nan), rate_hz=RATE_HZ, leads=LEADS)
    assert caught.value.reason == "missing leads"


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_nothing_infinite_passes(encoder: Encoder, signal: np.ndarray, value: float) -> None:
    broken, lead = signal.copy(), encoder.spec.leads[-1]
    broken[LEADS.index(lead), 1234] = value
    if encoder.spec.lost_samples == "fill" and np.isnan(value):
        assert np.isfinite(encoder.prepare(broken, rate_hz=RATE_HZ, leads=LEADS)).all()
    else:
        with pytest.raises(UnfitRecordError, match=f"in {lead}|infinite") as caught:
            encoder.prepare(broken, rate_hz=RATE_HZ, leads=LEADS)
        assert (caught.value.reason, caught.value.model) == ("NaN", encoder.spec.name)
    windows = encoder.prepare(signal, rate_hz=RATE_HZ, leads=LEADS)
    windows[0, 0, 0] = value
    with pytest.raises(UnfitRecordError) as caught:
        encoder.embed(windows)
    assert caught.value.reason == "NaN"


def test_too_short_is_refused(encoder: Encoder, signal: np.ndarray) -> None:
    needed = int(encoder.least_seconds() * RATE_HZ)
    assert len(encoder.prepare(signal[:, : needed + 2], rate_hz=RATE_HZ, leads=LEADS))
    assert encoder.window_starts(needed - 2, rate_hz=RATE_HZ) == ()
    for samples in (0, 1, needed - 2):
        with pytest.raises(UnfitRecordError) as caught:
            encoder.prepare(signal[:, :samples], rate_hz=RATE_HZ, leads=LEADS)
        assert caught.value.reason in ("too short", "missing leads")
    with pytest.raises(UnfitRecordError) as caught:
        encoder.prepare(signal[:, : needed - 2], rate_hz=RATE_HZ, leads=LEADS)
    assert caught.value.reason == "too short"


@pytest.mark.parametrize("level", [0.0, 0.1, -3.0])
def test_flat_leads_give_finite_vectors_and_flat_records_none(
    encoder: Encoder, signal: np.ndarray, level: float
) -> None:
    flat = np.full((12, 4000), level)
    with pytest.raises(UnfitRecordError) as caught:
        encoder.prepare(flat, rate_hz=RATE_HZ, leads=LEADS)
    assert caught.value.reason == "flat"
    lead = LEADS.index(encoder.spec.leads[0])
    flat[lead] = signal[lead]
    windows = encoder.prepare(flat, rate_hz=RATE_HZ, leads=LEADS)
    assert np.isfinite(encoder.embed(windows)).all()


@pytest.mark.parametrize("rate_hz", [250.0, 360.0, 500.0, 1000.0])
def test_a_batch_on_a_device_is_prepared_like_a_record_in_memory(
    encoder: Encoder, signal: np.ndarray, rate_hz: float
) -> None:
    """The tensors' arithmetic, which a GPU runs, against that of arrays."""
    samples = int(10.24 * rate_hz) + 1
    grid = np.linspace(0, 3999, samples)
    record = np.stack([np.interp(grid, np.arange(4000), lead) for lead in signal]) + 0.3
    counts = (np.stack([record, record[::-1] * 2]) * 200).round().astype(np.int16)
    rows = [LEADS.index(lead) for lead in encoder.spec.leads]
    mv = torch.from_numpy(counts[:, rows] / 200.0)
    on_tensors = encoder._cut(mv, rate_hz, tensor_signal).float()
    gain, zero = torch.full((2, 12), 200.0), torch.zeros(2, 12)
    given = encoder.prepare_batch(
        torch.from_numpy(counts), gain, zero, rate_hz=rate_hz, leads=LEADS
    )
    for number in range(2):
        alone = encoder.prepare(counts[number] / 200.0, rate_hz=rate_hz, leads=LEADS)
        np.testing.assert_allclose(given[number], alone, rtol=0, atol=1e-6)
        np.testing.assert_allclose(on_tensors[number], alone, rtol=0, atol=1e-5)


@pytest.mark.gpu
def test_a_gpu_prepares_like_a_cpu(encoder: Encoder, signal: np.ndarray) -> None:
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    counts = torch.from_numpy((signal[None] * 200).astype(np.int16))
    gain, zero = torch.full((1, 12), 200.0), torch.zeros(1, 12)
    given, exact = (
        encoder.prepare_batch(
            counts.to(device), gain.to(device), zero.to(device), rate_hz=RATE_HZ, leads=LEADS
        )
        for device in ("cuda", "cpu")
    )
    np.testing.assert_allclose(given.cpu(), exact, rtol=0, atol=1e-5)


def test_every_readout_has_a_pooling_and_a_version_of_its_own(encoder: Encoder) -> None:
    spec = encoder.spec
    poolings = {
        spec.pooling(variant, readout): (variant, readout)
        for variant in spec.variants
        for readout in encoder.readouts
    }
    assert len(poolings) == len(spec.variants) * len(encoder.readouts)
    for pooling, (variant, readout) in poolings.items():
        named_variant, named_readout = spec.named(pooling)
        assert spec.variant(named_variant) is variant
        assert (named_readout or encoder.readouts[0]) == readout


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
    assert encoder.readout == encoder.spec.readouts[0]
    assert encoder.contract["readout"] == encoder.pooling
    assert encoder.contract["preparation"] == list(encoder.variant.preparation)
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
    built_in = [name for name in models if models.get(name).untrained is not None]
    digests = {name: load_encoder(name, device="cpu").weights_sha256[:16] for name in built_in}
    assert digests == {
        "anyecg.tiny": "407b9b74830af5b2",
        "ecgflow.tiny": "a5b6f32a83d8f5f3",
        "ecgfm.tiny": "f0d555733b2f7909",
        "ecgjepa.tiny": "ad109d50f4fc09bc",
        "stmem.tiny": "35de771125eadc4e",
    }


def test_what_cannot_be_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UnknownNameError, match="stmem"):
        load_encoder("stmen")
    with pytest.raises(UnknownNameError, match="record_mean"):
        load_encoder("ecgfm.tiny:three")
    with pytest.raises(WeightsError, match="wanglab/ecg-fm") as caught:
        load_encoder("ecgfm")
    assert "--weights PATH" in str(caught.value)
    with pytest.raises(UsageError, match="precision"):
        load_encoder("ecgfm.tiny", precision="fp16")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="tpu"):
        load_encoder("ecgfm.tiny", device="tpu")
    with pytest.raises(UsageError, match="no such GPU"):
        load_encoder("ecgfm.tiny", device="cuda:99")
    monkeypatch.setenv("ECGSTORE_DEVICE", "cpu")
    assert load_encoder("ecgfm.tiny").device == torch.device("cpu")


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
