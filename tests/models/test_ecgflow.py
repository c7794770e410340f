"""ECGFlow against the values its reference implementation computes for a small network."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from ecgstore.errors import UnfitRecordError, UnknownNameError, UsageError, WeightsError
from ecgstore.models import check_weights, convert_weights, load_encoder
from ecgstore.models.ecgflow import EcgFlowEncoder
from ecgstore.models.ecgflow_keys import LEADS8, EcgFlowConfiguration
from ecgstore.models.weights import Checkpoint, read_checkpoint
from ecgstore.record import LEADS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    Array = np.ndarray[Any, Any]

TOLERANCE = 5e-5
HEADS = {"heads": 4}


@pytest.fixture(scope="module")
def folder(test_data: Path) -> Path:
    return test_data / "goldens" / "ecgflow_tiny"


@pytest.fixture(scope="module")
def golden(folder: Path) -> dict[str, Array]:
    with np.load(folder / "expected.npz") as arrays:
        return dict(arrays)


@pytest.fixture(scope="module")
def raw(folder: Path) -> Array:
    with np.load(folder / "inputs.npz") as arrays:
        return np.asarray(arrays["raw_500hz_12lead_mv"])


def load(path: Path, settings: Mapping[str, object] = HEADS, **options: Any) -> EcgFlowEncoder:
    options = {"device": "cpu", "precision": "fp32", **options}
    encoder = load_encoder("ecgflow", weights=path, settings=settings, **options)
    assert isinstance(encoder, EcgFlowEncoder)
    return encoder


@pytest.fixture(scope="module", params=["model.safetensors", "last.pth.tar"])
def weights(folder: Path, request: pytest.FixtureRequest) -> Path:
    path: Path = folder / request.param
    return path


@pytest.fixture(scope="module")
def tensors(folder: Path) -> dict[str, Tensor]:
    return load_file(folder / "model.safetensors")


@pytest.fixture
def saved(tmp_path: Path) -> Callable[[Mapping[str, Tensor]], Path]:
    """Return a call that writes tensors to a file of their own."""

    def call(tensors: Mapping[str, Tensor]) -> Path:
        path = tmp_path / "weights.safetensors"
        save_file({key: value.contiguous() for key, value in tensors.items()}, path)
        return path

    return call


def finetuned(tensors: Mapping[str, Tensor], classes: int) -> dict[str, Tensor]:
    """Return the tensors as fine-tuning saves them: no final norm, a norm of the mean, a head."""
    kept = {k: v for k, v in tensors.items() if k.startswith(("cls", "pos", "patch", "blocks"))}
    generator = torch.Generator().manual_seed(0)
    new = {"fc_norm.weight": (40,), "fc_norm.bias": (40,), "head.weight": (classes, 40)}
    drawn = {key: torch.randn(shape, generator=generator) for key, shape in new.items()}
    return kept | drawn | {"head.bias": torch.linspace(-1, 1, classes)}


def close(ours: object, golden: Array, atol: float = TOLERANCE) -> None:
    np.testing.assert_allclose(np.asarray(ours), golden, rtol=0, atol=atol)


def test_from_millivolts_to_vectors(weights: Path, raw: Array, golden: dict[str, Array]) -> None:
    encoder = load(weights)
    assert np.isnan(raw).any()
    windows = np.concatenate([encoder.prepare(x, rate_hz=500, leads=LEADS) for x in raw])
    close(windows, golden["normalised"], atol=1e-6)
    network, x = encoder.network, torch.from_numpy(windows)
    with torch.inference_mode():
        close(network.patch_embedding(network.patches(x)), golden["patch_embed"])
        tokens = network.tokens(x)
        close(tokens, golden["tokens_in"])
        for number, block in enumerate(network.blocks):
            tokens = block(tokens)
            close(tokens, golden[f"block{number}"])
        close(network.norm(tokens), golden["tokens_out"])
    close(encoder.embed(windows), golden["embedding_mean"])
    assert not encoder.labels


def test_every_readout(folder: Path, golden: dict[str, Array]) -> None:
    expected = {
        "embedding": golden["embedding_mean"],
        "cls": golden["embedding_cls"],
        "tokens-mean": golden["block2"][:, 1:].mean(1),
        "time": golden["tokens_out"][:, 1:].reshape(2, -1),
        **{f"block{number}": golden[f"block{number}"][:, 1:].mean(1) for number in range(3)},
    }
    encoders = {name: load(folder / "model.safetensors", readout=name) for name in expected}
    assert set(encoders["embedding"].readouts) == set(expected)
    for name, vectors in expected.items():
        assert encoders[name].dim == vectors.shape[1]
        close(encoders[name].embed(golden["normalised"]), vectors)
    assert len({encoder.version for encoder in encoders.values()}) == len(expected)


def test_heads_that_nobody_tells(folder: Path, tensors: dict[str, Tensor], tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="how many heads"):
        load(folder / "model.safetensors", settings={})
    for wrong in (3, 0, -4, "4", True):
        with pytest.raises(WeightsError, match="does not divide"):
            load(folder / "model.safetensors", settings={"heads": wrong})
    told = tmp_path / "model_best.pth.tar"
    args = argparse.Namespace(num_heads=4, lr=1e-3)
    torch.save({"epoch": 1, "arch": "x", "state_dict": tensors, "args": args}, told)
    assert load(told, settings={}).dim == 40
    copy = convert_weights("ecgflow", told, tmp_path / "copy.safetensors")
    assert load(copy, settings={}).network.configuration.heads == 4


@pytest.mark.parametrize(("patch", "dim", "depth", "heads"), [
    (50, 800, 12, 8), (25, 800, 12, 8), (25, 400, 12, 8), (100, 800, 8, 4), (50, 1040, 16, 16),
])  # fmt: skip
def test_published_sizes(patch: int, dim: int, depth: int, heads: int) -> None:
    size = EcgFlowConfiguration(patch, 5000 // patch, dim, depth, heads, 4 * dim)
    with torch.device("meta"):
        blank = {key: torch.empty(shape) for key, shape in size.shapes().items()}
    file = Checkpoint("ecgflow", Path("published"), 0, "", "safetensors", "", blank)
    assert EcgFlowConfiguration.infer(file) == size
    assert size.window_samples == 5000


def test_keys_of_the_published_file(test_data: Path) -> None:
    published = json.loads((test_data / "models" / "michigan_vit.state_dict.json").read_text())
    listed = {key: tuple(entry["shape"]) for key, entry in published["state_dict"].items()}
    ours = EcgFlowConfiguration().shapes()
    assert ours.items() <= listed.items()
    assert sum(int(np.prod(shape)) for shape in ours.values()) == published["parameters_encoder"]
    with torch.device("meta"):
        blank = {key: torch.empty(shape) for key, shape in listed.items()}
    file = Checkpoint("ecgflow", Path("published"), 0, "", "safetensors", "", blank)
    assert EcgFlowEncoder.recognise(file) == "ECGFlow"
    assert set(EcgFlowEncoder.select(file)) == set(ours)


def test_head(
    saved: Callable[..., Path], tensors: dict[str, Tensor], golden: dict[str, Array]
) -> None:
    state = finetuned(tensors, 12)
    path, mean = saved(state), golden["block2"][:, 1:].mean(1).astype(np.float64)
    weight, bias, rows, offsets = (
        state[key].double().numpy()
        for key in ("fc_norm.weight", "fc_norm.bias", "head.weight", "head.bias")
    )
    centred = mean - mean.mean(1, keepdims=True)
    pooled = centred / np.sqrt(mean.var(1, keepdims=True) + 1e-6) * weight + bias
    logits = pooled @ rows.T + offsets
    expected = {
        "embedding": pooled,
        "tokens-mean": mean,
        "cls": golden["block2"][:, 0],
        "block0": golden["block0"][:, 1:].mean(1),
        "logits": logits,
    }
    for readout, vectors in expected.items():
        encoder = load(path, readout=readout)
        assert encoder.variant.name == "ptbxl"
        close(encoder.embed(golden["normalised"]), vectors, atol=1e-4)
        close(encoder.classify(golden["normalised"]), 1 / (1 + np.exp(-logits)))
    assert load(path, variant="mimic_iv").variant.name == "mimic_iv"


@pytest.mark.parametrize(("classes", "first", "last"), [
    (44, "diag 0", "diag 43"), (12, "rhythm 0", "rhythm 11"), (19, "form 0", "form 18"),
    (2, "output 0", "output 1"),
])  # fmt: skip
def test_labels(
    saved: Callable[..., Path], tensors: dict[str, Tensor], classes: int, first: str, last: str
) -> None:
    encoder = load(saved(finetuned(tensors, classes)))
    assert (encoder.labels[0], encoder.labels[-1], len(encoder.labels)) == (first, last, classes)


def test_labels_that_are_told(
    saved: Callable[..., Path], tensors: dict[str, Tensor], tmp_path: Path
) -> None:
    path = saved(finetuned(tensors, 2))
    for told in ("AFIB, Sinus rhythm", '["AFIB", "Sinus rhythm"]', ["AFIB", "Sinus rhythm"]):
        assert load(path, HEADS | {"label_names": told}).labels == ("AFIB", "Sinus rhythm")
    settings = HEADS | {"label_names": '["MI, old", "NORM"]'}
    copy = convert_weights("ecgflow", path, tmp_path / "copy.safetensors", settings=settings)
    assert load(copy, settings={}).labels == ("MI, old", "NORM")
    for wrong in ("AFIB", "AFIB,AFIB", "AFIB,", '{"AFIB": 1, "NORM": 2}', 2):
        with pytest.raises(WeightsError, match="expected 2 different names"):
            load(path, HEADS | {"label_names": wrong})


@pytest.fixture(scope="module")
def mini() -> EcgFlowEncoder:
    encoder = load_encoder("ecgflow.tiny", device="cpu", precision="fp32")
    assert isinstance(encoder, EcgFlowEncoder)
    return encoder


def test_a_flat_patch_projection(mini: EcgFlowEncoder, saved: Callable[..., Path]) -> None:
    state = mini.network.configuration.untrained(0)
    flat = state["patch_embed.proj.weight"].reshape(64, 400)
    encoder = load(saved(state | {"patch_embed.proj.weight": flat}), {"heads": 2})
    x = np.random.default_rng(0).standard_normal((1, 8, 5000)).astype(np.float32)
    np.testing.assert_array_equal(encoder.embed(x), mini.embed(x))
    wider = torch.zeros(64, 600)  # 12 leads of 50, or 8 of 75
    with pytest.raises(WeightsError, match="7500 samples"):
        load(saved(state | {"patch_embed.proj.weight": wider}), {"heads": 2})


@pytest.mark.parametrize(("change", "message"), [
    ({"blocks.0.attn_norm.weight": (40,)}, r"unknown block layout \('blocks.0.attn_norm"),
    ({"blocks.0.ls1.gamma": (40,)}, "unknown block layout"),
    ({"blocks.2.norm2.bias": None}, r"1 missing \(blocks.2.norm2.bias\)"),
    ({"blocks.0.mlp.fc1.weight": None}, "'blocks.0.mlp.fc1.weight' is missing"),
    ({"norm.bias": None}, r"1 missing \(norm.bias\)"),
    ({"cls_token": None}, r"1 missing \(cls_token\)"),
    ({"decoder_blocks.0.extra.weight": (16,)}, "1 unexpected"),
    ({"head.weight": (5, 40), "head.bias": (5,)}, "2 missing .fc_norm.weight.* 2 unexpected"),
    ({"patch_embed.proj.weight": (40, 12, 50)}, "takes 12 leads, expected 8"),
    ({"patch_embed.proj.weight": (40, 3, 50, 50)}, "no known kind"),
    ({"pos_embed": (1, 1, 40)}, "windows of 0 samples"),
])  # fmt: skip
def test_files_that_do_not_fit(
    saved: Callable[..., Path],
    tensors: dict[str, Tensor],
    change: dict[str, tuple[int, ...] | None],
    message: str,
) -> None:
    state = {key: value for key, value in tensors.items() if change.get(key, ()) is not None}
    state |= {key: torch.zeros(shape) for key, shape in change.items() if shape is not None}
    with pytest.raises(WeightsError, match=message):
        load(saved(state))


def test_no_other_model_takes_the_file(folder: Path, test_data: Path) -> None:
    rows = check_weights("stmem", folder / "last.pth.tar")
    assert (rows[-1]["check"], rows[-1]["result"]) == ("family", "failed")
    assert "looks like ECGFlow" in str(rows[-1]["detail"])
    files = [*(test_data / "goldens").glob("*/*.pt"), *(test_data / "goldens").glob("*/*.pth")]
    assert len(files) > 8
    for path in files:
        assert EcgFlowEncoder.recognise(read_checkpoint("any", path)) is None


def test_lost_samples_and_constants(mini: EcgFlowEncoder) -> None:
    signal = np.ones((8, 5000))
    signal[3, 1000:2000] = np.nan
    signal[7] = np.sin(np.arange(5000) / 50)  # a record constant in all leads is refused
    for name, mean, deviation in (
        ("mimic_iv", 0.009892, 0.216624), ("ptbxl", -0.0012090115, 0.26843855),
    ):  # fmt: skip
        encoder = load_encoder(f"ecgflow.tiny:{name}", device="cpu", precision="fp32")
        window = encoder.prepare(signal, rate_hz=500, leads=LEADS8)[0]
        assert not window[3, 1000:2000].any()
        close(window[0], np.full(5000, (1 - mean) / deviation), atol=1e-6)
    assert mini.version != encoder.version
    assert mini.variant.name == "mimic_iv"


@pytest.mark.parametrize("rate_hz", [37, 100, 250, 257, 400, 1000, 10_000])
def test_other_rates(mini: EcgFlowEncoder, rate_hz: int) -> None:
    time = np.arange(10 * rate_hz + 1) / rate_hz
    signal = 3 + np.sin(2 * np.pi * 2 * time) * np.arange(8)[:, None]
    window = mini.prepare(signal, rate_hz=rate_hz, leads=LEADS8)[0]
    assert window.shape == (8, 5000)
    first = mini.window_starts(len(time), rate_hz=rate_hz)[0]
    wanted = 3 + np.sin(2 * np.pi * 2 * (first + np.arange(5000) / 500)) * np.arange(8)[:, None]
    ours = window * 0.216624 + 0.009892
    close(ours[:, 500:-500], wanted[:, 500:-500], atol=0.02)
    close(ours[0], np.full(5000, 3), atol=1e-2)  # an offset does not ring at the ends


def test_the_middle_of_a_longer_record(mini: EcgFlowEncoder) -> None:
    signal = np.random.default_rng(0).standard_normal((8, 6001))
    window = mini.prepare(signal, rate_hz=500, leads=LEADS8)
    np.testing.assert_array_equal(
        window, mini.prepare(signal[:, 500:5500], rate_hz=500, leads=LEADS8)
    )
    assert mini.window_starts(6001, rate_hz=500) == (1.0,)
    assert mini.window_starts(5000, rate_hz=500) == (0.0,)


def test_what_it_cannot_take(mini: EcgFlowEncoder) -> None:
    signal = np.ones((8, 5000))
    with pytest.raises(UnfitRecordError, match="expected at least 10 s"):
        mini.prepare(signal[:, :4999], rate_hz=500, leads=LEADS8)
    with pytest.raises(UnfitRecordError, match="lacks the leads V5, V6"):
        mini.prepare(signal[:6], rate_hz=500, leads=LEADS8[:6])
    with pytest.raises(UnfitRecordError, match="lacks the leads V6"):
        mini.prepare(np.vstack([signal[:7], np.full((1, 5000), np.nan)]), rate_hz=500, leads=LEADS8)
    with pytest.raises(UsageError, match="expected 5000"):
        mini.embed(np.zeros((1, 8, 4950), np.float32))
    with pytest.raises(UsageError, match="no head"):
        mini.classify(np.zeros((1, 8, 5000), np.float32))
    with pytest.raises(UnknownNameError, match="mimic_iv"):
        load_encoder("ecgflow.tiny", variant="mimic")
    with pytest.raises(UnknownNameError, match="block1"):
        load_encoder("ecgflow.tiny:block2")


def test_bfloat16(folder: Path, golden: dict[str, Array]) -> None:
    vectors = load(folder / "model.safetensors", precision="bf16").embed(golden["normalised"])
    exact = golden["embedding_mean"]
    error = np.linalg.norm(vectors - exact, axis=1) / np.linalg.norm(exact, axis=1)
    assert 0 < error.max() <= 2e-2
