"""MTAE and MLAE against the values their original implementation computes for small networks."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from ecgstore.errors import UnfitRecordError, UsageError, WeightsError
from ecgstore.models import convert_weights, load_encoder
from ecgstore.models.mae import MaeConfiguration, MlaeEncoder, MtaeEncoder
from ecgstore.models.weights import write_safetensors
from ecgstore.record import LEADS

if TYPE_CHECKING:
    from pathlib import Path

TOLERANCE = 1e-5
PATCH_SIZE = {"mtae": 15, "mlae": 1}
PATCH_LEADS = {"mtae": 12, "mlae": 1}


def load(name: str, path: Path, **options: Any) -> MtaeEncoder:
    options = {"precision": "fp32", "settings": {"patch_size": PATCH_SIZE[name]}, **options}
    encoder = load_encoder(name, weights=path, device="cpu", **options)
    assert isinstance(encoder, MtaeEncoder)
    return encoder


@pytest.fixture(scope="module")
def folder(test_data: Path) -> Path:
    return test_data / "goldens" / "stmem_tiny"


@pytest.fixture(scope="module")
def x(folder: Path) -> np.ndarray[Any, Any]:
    with np.load(folder / "encoder_cases.npz") as cases:
        return np.asarray(cases["x"])


@pytest.fixture(scope="module", params=["mtae", "mlae"])
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def path(folder: Path, name: str) -> Path:
    return folder / f"{name}_tiny_full.pth"


@pytest.fixture(scope="module")
def golden(folder: Path, name: str) -> dict[str, np.ndarray[Any, Any]]:
    with np.load(folder / "pretrain_cases.npz") as cases:
        return {key.removeprefix(f"{name}/"): cases[key] for key in cases if key.startswith(name)}


def close(ours: object, golden: np.ndarray[Any, Any], atol: float = TOLERANCE) -> None:
    np.testing.assert_allclose(np.asarray(ours), golden, rtol=0, atol=atol)


def test_every_golden_array(
    name: str, path: Path, x: np.ndarray[Any, Any], golden: dict[str, np.ndarray[Any, Any]]
) -> None:
    encoder = load(name, path)
    network, batch = encoder.network, torch.from_numpy(x)
    with torch.inference_mode():
        tokens = network.tokens(batch, range(12))
        close(tokens, golden["tokens_embedded"])
        close(tokens[:, 1:] - network.pos_embedding[:, 1:], golden["patch_tokens"])
        close(network(batch, range(12)), golden["block1"])
    close(encoder.embed(x), golden["embedding"])
    block0 = network.blocks[0](tokens).numpy()[:, 0]
    expected = {
        "tokens-mean": golden["block1"][:, 1:].mean(1),
        "block0": block0,
        "block1": golden["block1"][:, 0],
    }
    assert encoder.readouts == ("embedding", *expected)
    for readout, vectors in expected.items():
        close(load(name, path, readout=readout).embed(x), vectors)


def test_bfloat16(
    name: str, path: Path, x: np.ndarray[Any, Any], golden: dict[str, np.ndarray[Any, Any]]
) -> None:
    vectors, exact = load(name, path, precision="bf16").embed(x), golden["embedding"]
    error = np.linalg.norm(vectors - exact, axis=1) / np.linalg.norm(exact, axis=1)
    assert 0 < error.max() <= 1e-2


def test_a_file_without_settings_needs_the_size_of_a_patch(
    name: str, path: Path, x: np.ndarray[Any, Any], tmp_path: Path
) -> None:
    container = torch.load(path, weights_only=True)
    torch.save(container["model"], tmp_path / "bare.pth")
    with pytest.raises(WeightsError, match="--set patch_size"):
        load(name, tmp_path / "bare.pth", settings=None)
    vectors = load(name, path).embed(x)
    np.testing.assert_array_equal(load(name, tmp_path / "bare.pth").embed(x), vectors)
    settings = {"patch_size": PATCH_SIZE[name]}
    out = convert_weights(name, path, tmp_path / "converted.safetensors", settings=settings)
    np.testing.assert_array_equal(load(name, out, settings=None).embed(x), vectors)


@pytest.mark.parametrize(
    "wrong", [{"patch_size": 7}, {"patch_size": "wide"}, {"num_leads": 8}, {"seq_len": 2250}]
)
def test_settings_that_do_not_fit_the_tensors(
    name: str, path: Path, wrong: dict[str, object]
) -> None:
    settings = {"patch_size": PATCH_SIZE[name], **wrong}
    with pytest.raises(WeightsError, match=f"{next(iter(wrong))}|looks like MTAE"):
        load(name, path, settings=settings)


def test_siblings_are_told_apart(folder: Path) -> None:
    with pytest.raises(WeightsError, match="looks like MLAE, expected MTAE"):
        load("mtae", folder / "mlae_tiny_full.pth", settings=None)
    with pytest.raises(WeightsError, match="looks like MTAE, expected MLAE"):
        load("mlae", folder / "mtae_tiny_full.pth", settings=None)
    with pytest.raises(WeightsError, match="looks like ST-MEM, expected MTAE"):
        load("mtae", folder / "st_mem_tiny_full.pth")


@pytest.fixture(scope="module")
def published(name: str, tmp_path_factory: pytest.TempPathFactory) -> MtaeEncoder:
    """Return a narrow encoder with the published patches and a head, from a file of its own."""
    leads = PATCH_LEADS[name]
    whole = {"patch": 75, "patches": 30} if leads == 12 else {"patch": 2250, "patches": 12}
    c = MaeConfiguration(**whole, patch_leads=leads, dim=32, depth=1, heads=1, hidden=32, classes=3)
    path = tmp_path_factory.mktemp(name) / "weights.safetensors"
    write_safetensors(path, c.untrained(0), settings={}, source="")
    return load(name, path, settings=None)


def test_the_published_window_and_a_head(published: MtaeEncoder) -> None:
    stmem = load_encoder("stmem.tiny", device="cpu", precision="fp32")
    signal = np.random.default_rng(0).standard_normal((12, 2500))
    windows = published.prepare(signal, rate_hz=250, leads=LEADS)
    np.testing.assert_array_equal(windows, stmem.prepare(signal, rate_hz=250, leads=LEADS))
    assert windows.shape == (3, 12, 2250)
    vectors = published.embed(windows)
    assert vectors.shape == (3, published.dim) == (3, 32)
    head = published.network.head
    assert head is not None
    logits = vectors @ head.weight.numpy().T + head.bias.numpy()
    close(published.classify(windows), 1 / (1 + np.exp(-logits)))
    assert published.readouts == ("embedding", "tokens-mean", "block0", "logits")


def test_all_leads_and_whole_patches_are_needed(published: MtaeEncoder) -> None:
    signal = np.zeros((11, 2500))
    with pytest.raises(UnfitRecordError, match="lacks the leads V6"):
        published.prepare(signal, rate_hz=250, leads=LEADS[:11])
    patch = 2250 if isinstance(published, MlaeEncoder) else 75
    with pytest.raises(UsageError, match=f"multiple of {patch}"):
        published.embed(np.zeros((1, 12, 2240), np.float32))


def test_keys_of_the_published_lists(name: str, test_data: Path) -> None:
    listed = json.loads((test_data / "models" / "stmem_keys.json").read_text())[name]
    leads = PATCH_LEADS[name]
    whole = {"patch": 75, "patches": 30} if leads == 12 else {"patch": 2250, "patches": 12}
    ours = MaeConfiguration(**whole, patch_leads=leads).shapes()
    assert ours == {key: tuple(shape) for key, shape in listed["encoder"].items()}
    assert sum(int(np.prod(shape)) for shape in ours.values()) == listed["parameters_encoder"]
