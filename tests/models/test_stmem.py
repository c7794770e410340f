"""ST-MEM against the values its original implementation computes for a small network."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from ecgstore.errors import UnfitRecordError, UsageError
from ecgstore.models import load_encoder
from ecgstore.models.patches import sincos_table
from ecgstore.models.stmem import StMemConfiguration, StMemEncoder
from ecgstore.record import LEADS

if TYPE_CHECKING:
    from pathlib import Path

TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def folder(test_data: Path) -> Path:
    return test_data / "goldens" / "stmem_tiny"


def load(path: Path, **options: Any) -> StMemEncoder:
    encoder = load_encoder("stmem", weights=path, device="cpu", **{"precision": "fp32", **options})
    assert isinstance(encoder, StMemEncoder)
    return encoder


@pytest.fixture(scope="module", params=["st_mem_tiny_encoder.pth", "st_mem_tiny_full.pth"])
def encoder(folder: Path, request: pytest.FixtureRequest) -> StMemEncoder:
    return load(folder / request.param)


@pytest.fixture(scope="module")
def golden(folder: Path) -> dict[str, np.ndarray[Any, Any]]:
    with np.load(folder / "encoder_cases.npz") as cases:
        return dict(cases)


def close(ours: object, golden: np.ndarray[Any, Any], atol: float = TOLERANCE) -> None:
    np.testing.assert_allclose(np.asarray(ours), golden, rtol=0, atol=atol)


def test_every_block(encoder: StMemEncoder, golden: dict[str, np.ndarray[Any, Any]]) -> None:
    network, x, leads = encoder.network, torch.from_numpy(golden["x"]), range(12)
    with torch.inference_mode():
        close(network.patch_embedding(x.reshape(2, 12, 10, 15)), golden["lead12/patch_tokens"])
        tokens = network.tokens(x, leads)
        close(tokens, golden["lead12/tokens_embedded"])
        for number, block in enumerate(network.blocks):
            tokens = block(tokens)
            close(tokens, golden[f"lead12/block{number}"])
        assert torch.equal(tokens, network(x, leads))
        close(network.pool(tokens, 12), golden["lead12/pooled_before_norm"])
    vectors = encoder.embed(golden["x"])
    close(vectors, golden["lead12/embedding"])
    close(vectors @ golden["head/weight"].T + golden["head/bias"], golden["head/logits"])


@pytest.mark.parametrize(
    "case", ["short7", "subset_lead_II", "subset_leads_II_V1_V5", "subset_limb"]
)
def test_shorter_windows_and_fewer_leads(
    encoder: StMemEncoder, golden: dict[str, np.ndarray[Any, Any]], case: str
) -> None:
    short = case == "short7"
    rows = np.arange(12) if short else golden[f"{case}/lead_index"]
    x = golden["x"][:, rows, : 105 if short else None]
    with torch.inference_mode():
        batch = torch.from_numpy(np.ascontiguousarray(x))
        if f"{case}/tokens_embedded" in golden:
            tokens = encoder.network.tokens(batch, rows.tolist())
            close(tokens, golden[f"{case}/tokens_embedded"])
        pooled = encoder.network.pool(encoder.network(batch, rows.tolist()), len(rows))
        close(pooled, golden[f"{case}/pooled_before_norm"])
    names = [LEADS[row] for row in rows]
    close(encoder.embed(x, leads=names), golden[f"{case}/embedding"])


def test_leads_go_by_name_not_by_place(
    encoder: StMemEncoder, golden: dict[str, np.ndarray[Any, Any]]
) -> None:
    order = np.random.default_rng(1).permutation(12)
    names = [LEADS[row] for row in order]
    close(encoder.embed(golden["x"][:, order], leads=names), golden["lead12/embedding"])


@pytest.mark.parametrize(("case", "patches", "dim", "step"), [
    ("n10_d64", 10, 64, 1), ("n30_d768", 30, 768, 8),
])  # fmt: skip
def test_start_of_the_position_table(
    golden: dict[str, np.ndarray[Any, Any]], case: str, patches: int, dim: int, step: int
) -> None:
    close(sincos_table(patches, dim)[:, ::step], golden[f"sincos/{case}"])


@pytest.fixture(scope="module")
def full_window() -> StMemEncoder:
    """Return an encoder with the published window of 2250 samples."""
    encoder = load_encoder("stmem.tiny", device="cpu", precision="fp32")
    assert isinstance(encoder, StMemEncoder)
    return encoder


def test_preparation(full_window: StMemEncoder, folder: Path) -> None:
    centre = load_encoder("stmem.tiny:centre", device="cpu", precision="fp32")
    with np.load(folder / "preprocess_cases.npz") as cases:
        raw = cases["raw_500hz"]
        one = centre.prepare(raw, rate_hz=500, leads=LEADS)
        assert one.shape == (1, 12, 2250)
        close(one[0], cases["stage/standardised_centre"])
        three = full_window.prepare(raw, rate_hz=500, leads=LEADS)
        assert three.shape == (3, 12, 2250)
        close(three[:, [1, 6]], cases["ncrop/standardised_lead_II_V1"])
        np.testing.assert_array_equal(three[1], one[0])
    assert full_window.window_starts(5000, rate_hz=500) == (0.0, 0.5, 1.0)
    assert centre.window_starts(5000, rate_hz=500) == (0.5,)
    assert centre.version != full_window.version


def test_absent_leads_are_left_out(full_window: StMemEncoder) -> None:
    signal = np.random.default_rng(0).standard_normal((12, 2500))
    kept = ("II", "V1", "V5")
    rows = [LEADS.index(lead) for lead in kept]
    alone = full_window.prepare(signal[rows], rate_hz=250, leads=kept)
    assert alone.shape == (3, 3, 2250)
    assert full_window.window_leads(kept) == kept
    lost = signal.copy()
    lost[[row for row in range(12) if row not in rows]] = np.nan
    np.testing.assert_array_equal(full_window.prepare(lost, rate_hz=250, leads=LEADS), alone)
    assert full_window.window_leads(LEADS, signal=lost) == kept
    assert full_window.embed(alone, leads=kept).shape == (3, full_window.dim)
    with pytest.raises(UsageError, match="12"):
        full_window.embed(alone)


def test_flat_leads_give_a_finite_vector(full_window: StMemEncoder) -> None:
    signal = np.ones((12, 2500))
    signal[0] = np.random.default_rng(0).standard_normal(2500)
    windows = full_window.prepare(signal, rate_hz=250, leads=LEADS)
    assert np.isfinite(full_window.embed(windows)).all()
    assert np.isfinite(full_window.embed(np.zeros_like(windows))).all()


@pytest.mark.parametrize(("samples", "windows"), [(2249, 0), (2250, 3), (2251, 3), (2253, 3)])
def test_length_at_the_edge(full_window: StMemEncoder, samples: int, windows: int) -> None:
    signal = np.random.default_rng(0).standard_normal((12, samples))
    assert len(full_window.window_starts(samples, rate_hz=250)) == windows
    if windows:
        assert len(full_window.prepare(signal, rate_hz=250, leads=LEADS)) == windows
    else:
        with pytest.raises(UnfitRecordError, match="9 s"):
            full_window.prepare(signal, rate_hz=250, leads=LEADS)


@pytest.mark.parametrize("samples", [2251, 2325, 0])
def test_windows_that_are_no_whole_patches(full_window: StMemEncoder, samples: int) -> None:
    with pytest.raises(UsageError, match="multiple of 75"):
        full_window.embed(np.zeros((1, 12, samples), np.float32))


def test_bfloat16(folder: Path, golden: dict[str, np.ndarray[Any, Any]]) -> None:
    vectors = load(folder / "st_mem_tiny_encoder.pth", precision="bf16").embed(golden["x"])
    exact = golden["lead12/embedding"]
    error = np.linalg.norm(vectors - exact, axis=1) / np.linalg.norm(exact, axis=1)
    assert 0 < error.max() <= 1e-2


@pytest.fixture(scope="module")
def finetuned(
    folder: Path,
    golden: dict[str, np.ndarray[Any, Any]],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """Return an encoder file with the head of the golden values."""
    container = torch.load(folder / "st_mem_tiny_encoder.pth", weights_only=True)
    for part in ("weight", "bias"):
        container["model"][f"head.{part}"] = torch.from_numpy(golden[f"head/{part}"])
    path = tmp_path_factory.mktemp("finetuned") / "finetuned.pth"
    torch.save(container, path)
    return path


@pytest.mark.parametrize("kind", ["pretrained", "finetuned"])
def test_readouts(
    folder: Path, finetuned: Path, golden: dict[str, np.ndarray[Any, Any]], kind: str
) -> None:
    head = kind == "finetuned"
    path = finetuned if head else folder / "st_mem_tiny_encoder.pth"
    blocks = [golden[f"lead12/block{k}"].reshape(2, 12, 12, 48)[:, :, 1:-1] for k in range(3)]
    norm = load(path).network.norm
    expected = {
        "embedding": golden["lead12/embedding"],
        "tokens-mean": golden["lead12/pooled_before_norm"],
        "lead": norm(torch.from_numpy(blocks[-1].mean(2))).flatten(1).numpy(),
        **{f"block{k}": block.mean((1, 2)) for k, block in enumerate(blocks)},
    }
    if head:
        expected["logits"] = golden["head/logits"]
    assert load(path).readouts == tuple(expected)
    for readout, vectors in expected.items():
        encoder = load(path, readout=readout)
        close(encoder.embed(golden["x"]), vectors)
        assert encoder.dim == vectors.shape[1]
        if head:
            close(encoder.classify(golden["x"]), 1 / (1 + np.exp(-golden["head/logits"])))
        else:
            assert "classes" not in encoder.contract["configuration"]  # type: ignore[operator]


def test_a_block_needs_no_block_behind_it(
    folder: Path, golden: dict[str, np.ndarray[Any, Any]]
) -> None:
    encoder = load(folder / "st_mem_tiny_encoder.pth", readout="block0")
    for parameter in encoder.network.blocks[1].parameters():
        parameter.fill_(torch.nan)
    assert np.isfinite(encoder.embed(golden["x"])).all()


def test_the_vector_of_leads_needs_all_of_them() -> None:
    encoder = load_encoder("stmem.tiny:lead", device="cpu", precision="fp32")
    assert encoder.dim == 12 * 48
    with pytest.raises(UnfitRecordError, match="V6"):
        encoder.prepare(np.zeros((11, 2500)), rate_hz=250, leads=LEADS[:11])


def test_keys_of_the_published_file(test_data: Path) -> None:
    published = json.loads((test_data / "models" / "stmem_keys.json").read_text())["st_mem"]
    ours = StMemConfiguration().shapes()
    assert ours == {key: tuple(shape) for key, shape in published["encoder"].items()}
    total = sum(int(np.prod(shape)) for shape in ours.values())
    assert total == published["parameters_encoder"]
