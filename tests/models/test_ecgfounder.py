"""ECGFounder against the values its original implementation computes for a small network."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from ecgstore.errors import UnfitRecordError, UsageError, WeightsError
from ecgstore.models import convert_weights, load_encoder
from ecgstore.models.ecgfounder import EcgFounderEncoder
from ecgstore.models.ecgfounder_keys import NEVER_RUN, EcgFounderConfiguration
from ecgstore.models.ecgfounder_labels import LABELS
from ecgstore.models.weights import read_checkpoint, write_safetensors
from ecgstore.record import LEADS

if TYPE_CHECKING:
    from pathlib import Path

    Arrays = dict[str, np.ndarray[Any, Any]]

TOLERANCE = 2e-5
TINY = EcgFounderConfiguration(
    stem=8, filters=(8, 12, 12, 20), blocks=(2, 2, 1, 2), group_width=4, classes=7
)


@pytest.fixture(scope="module")
def folder(test_data: Path) -> Path:
    return test_data / "goldens" / "ecgfounder_tiny"


def load(path: Path, name: str = "ecgfounder", **options: Any) -> EcgFounderEncoder:
    encoder = load_encoder(name, weights=path, device="cpu", **{"precision": "fp32", **options})
    assert isinstance(encoder, EcgFounderEncoder)
    return encoder


@pytest.fixture(scope="module", params=["checkpoint.pth", "checkpoint_plain.pth"])
def encoder(folder: Path, request: pytest.FixtureRequest) -> EcgFounderEncoder:
    return load(folder / request.param)


@pytest.fixture(scope="module")
def plain(folder: Path) -> EcgFounderEncoder:
    return load(folder / "checkpoint_plain.pth")


def arrays(path: Path) -> Arrays:
    with np.load(path) as archive:
        return dict(archive)


@pytest.fixture(scope="module")
def golden(folder: Path) -> Arrays:
    return arrays(folder / "inputs.npz") | arrays(folder / "expected.npz")


@pytest.fixture(scope="module")
def prepared(folder: Path) -> Arrays:
    return arrays(folder / "preprocess.npz")


def close(ours: object, golden: np.ndarray[Any, Any], atol: float = TOLERANCE) -> None:
    np.testing.assert_allclose(np.asarray(ours), golden, rtol=0, atol=atol)


@pytest.mark.parametrize("case", ["a", "b"])
def test_every_block(encoder: EcgFounderEncoder, golden: Arrays, case: str) -> None:
    network, x = encoder.network, torch.from_numpy(golden[case])
    with torch.inference_mode():
        tokens = network.stem(x.transpose(1, 2))
        close(tokens.mT, golden[f"{case}_first_conv"])
        tokens = torch.nn.functional.silu(tokens)
        close(tokens.mT, golden[f"{case}_first_act"])
        for number, stage in enumerate(network.stages):
            assert isinstance(stage, torch.nn.Sequential)
            for place, block in enumerate(stage):
                tokens = block(tokens)
                close(tokens.mT, golden[f"{case}_stage{number}_block{place}"])
    close(encoder.embed(golden[case]), golden[f"{case}_embedding"])
    close(encoder.classify(golden[case]), golden[f"{case}_probs"])


def test_readouts(folder: Path, golden: Arrays) -> None:
    last = {"stage0": "stage0_block1", "stage1": "stage1_block1", "stage2": "stage2_block0"}
    last |= {"stage3": "stage3_block1", "logits": "logits"}
    for readout, name in last.items():
        encoder = load(folder / "checkpoint_plain.pth", readout=readout)
        for case in "ab":
            wanted = golden[f"{case}_{name}"]
            vectors = wanted if wanted.ndim == 2 else wanted.mean(2)
            assert encoder.dim == vectors.shape[1]
            close(encoder.embed(golden[case]), vectors)
            close(encoder.classify(golden[case]), golden[f"{case}_probs"])


@pytest.mark.parametrize("readout", ["embedding", "time", "logits"])
def test_a_record_of_ten_seconds(
    folder: Path, golden: Arrays, prepared: Arrays, readout: str
) -> None:
    wanted = golden[f"c_{readout if readout != 'time' else 'tokens'}"].reshape(2, -1)
    encoder = load(folder / "checkpoint_plain.pth", readout=readout)
    assert encoder.dim == wanted.shape[1]
    close(encoder.embed(prepared["normalised"]), wanted)


def test_preparation(folder: Path, plain: EcgFounderEncoder, prepared: Arrays) -> None:
    for row, raw in enumerate(prepared["raw_mv"]):
        windows = plain.prepare(raw, rate_hz=500, leads=LEADS)
        close(windows, prepared["normalised"][row][None])
        filtered = prepared["filtered"][row]
        close(windows[0] * filtered.std() + filtered.mean(), filtered)
    versions = {plain.version}
    for variant, name in (("ptbxl_eval", "normalised_without_filter"), ("raw", "raw_mv")):
        encoder = load(folder / "checkpoint_plain.pth", variant=variant)
        versions.add(encoder.version)
        for raw, wanted in zip(prepared["raw_mv"], prepared[name], strict=True):
            close(encoder.prepare(raw, rate_hz=500, leads=LEADS), wanted[None])
    assert len(versions) == 3


def test_lead_one_alone(folder: Path, tmp_path: Path, prepared: Arrays) -> None:
    path = tmp_path / "one.safetensors"
    write_safetensors(path, replace(TINY, leads=1).untrained(0), settings={}, source="")
    encoder = load(path, "ecgfounder1")
    raw = prepared["raw_mv"][0]
    windows = encoder.prepare(raw, rate_hz=500, leads=LEADS)
    assert windows.shape == (1, 1, 5000)
    np.testing.assert_array_equal(encoder.prepare(raw[:1], rate_hz=500, leads=["I"]), windows)
    np.testing.assert_allclose(windows.std(), 1, atol=1e-5)
    assert encoder.embed(windows).shape == (1, 20)
    with pytest.raises(UnfitRecordError, match="lacks the leads I"):
        encoder.prepare(raw[1:2], rate_hz=500, leads=["II"])
    with pytest.raises(WeightsError, match="looks like ECGFounder for lead I, expected ECGFounder"):
        load(path)
    with pytest.raises(WeightsError, match="expected ECGFounder for lead I"):
        load(folder / "checkpoint.pth", "ecgfounder1")


@pytest.mark.parametrize("rate_hz", [101, 257, 360, 1000, 10_000])
def test_other_rates_give_nearly_the_same_windows(plain: EcgFounderEncoder, rate_hz: int) -> None:
    def sines(rate_hz: int) -> np.ndarray[Any, Any]:
        time = np.arange(10 * rate_hz) / rate_hz
        return np.sin(2 * np.pi * np.outer(np.linspace(1, 4, 12), time))

    wanted = plain.prepare(sines(500), rate_hz=500, leads=LEADS)
    windows = plain.prepare(sines(rate_hz), rate_hz=rate_hz, leads=LEADS)
    assert windows.shape == (1, 12, 5000)
    inner = np.s_[..., 1000:4000]  # at the ends the filters start, and the grids part
    assert np.corrcoef(windows[inner].ravel(), wanted[inner].ravel())[0, 1] > 0.99


def test_records_sampled_too_slowly_for_the_notch(plain: EcgFounderEncoder) -> None:
    for rate_hz in (37, 100):
        with pytest.raises(UnfitRecordError) as caught:
            plain.prepare(np.eye(12, 10 * rate_hz), rate_hz=rate_hz, leads=LEADS)
        assert caught.value.reason == "rate too low"


def test_lost_samples_become_zero(plain: EcgFounderEncoder, prepared: Arrays) -> None:
    zero, lost = prepared["raw_mv"][0].copy(), prepared["raw_mv"][0].copy()
    zero[4, 100:200], lost[4, 100:200] = 0.0, np.nan
    windows = plain.prepare(lost, rate_hz=500, leads=LEADS)
    np.testing.assert_array_equal(windows, plain.prepare(zero, rate_hz=500, leads=LEADS))
    lost[4] = np.nan
    with pytest.raises(UnfitRecordError, match="lacks the leads aVL"):
        plain.prepare(lost, rate_hz=500, leads=LEADS)


@pytest.mark.parametrize(
    ("samples", "windows", "length"),
    [(999, 0, 0), (1000, 1, 1250), (1001, 1, 1251), (3999, 1, 4999), (4000, 1, 5000),
     (7999, 1, 5000), (8000, 2, 5000)],
)  # fmt: skip
def test_windows(plain: EcgFounderEncoder, samples: int, windows: int, length: int) -> None:
    signal = np.random.default_rng(0).standard_normal((12, samples))
    starts = plain.window_starts(samples, rate_hz=400)
    assert starts == tuple(10.0 * number for number in range(windows))
    if not windows:
        with pytest.raises(UnfitRecordError, match=r"2\.5 s"):
            plain.prepare(signal, rate_hz=400, leads=LEADS)
        return
    cut = plain.prepare(signal, rate_hz=400, leads=LEADS)
    assert cut.shape == (windows, 12, length)
    alone = plain.prepare(signal[:, :4000], rate_hz=400, leads=LEADS)
    np.testing.assert_array_equal(cut[:1], alone)  # a window knows nothing of what comes after


def test_time_takes_whole_windows_only(folder: Path) -> None:
    encoder = load(folder / "checkpoint.pth", readout="time")
    with pytest.raises(UnfitRecordError, match="at least 10 s"):
        encoder.prepare(np.eye(12, 4999), rate_hz=500, leads=LEADS)
    with pytest.raises(UsageError, match="157"):
        encoder.embed(np.zeros((1, 12, 4000), np.float32))


def test_no_samples(plain: EcgFounderEncoder) -> None:
    with pytest.raises(UsageError, match="too short"):
        plain.embed(np.zeros((1, 12, 0), np.float32))


def test_conversion_drops_the_batch_norms(folder: Path, tmp_path: Path, golden: Arrays) -> None:
    source = folder / "checkpoint.pth"
    converted = load(convert_weights("ecgfounder", source, tmp_path / "out.safetensors"))
    np.testing.assert_array_equal(converted.embed(golden["a"]), load(source).embed(golden["a"]))


@pytest.mark.parametrize(
    ("key", "shape", "message"),
    [
        ("extra", (3,), r"unexpected \(extra"),
        ("stage_list.0.block_list.0.bn1.extra", (3,), "unexpected"),
        ("stage_list.9.block_list.0.conv3.conv.weight", (20, 20, 1), "missing"),
        ("stage_list.1.block_list.0.conv3.conv.weight", (13, 12, 1), "whole groups"),
        ("stage_list.1.block_list.0.se_fc1.weight", (5, 12), "another shape"),
        ("first_conv.conv.weight", (8, 12), "3 axes"),
    ],
)
def test_files_that_do_not_fit(
    tmp_path: Path, key: str, shape: tuple[int, ...], message: str
) -> None:
    path = tmp_path / "weights.safetensors"
    tensors = TINY.untrained(0) | {key: torch.ones(shape)}
    write_safetensors(path, tensors, settings={}, source="")
    with pytest.raises(WeightsError, match=message):
        load(path)


def test_without_a_head(folder: Path, tmp_path: Path, golden: Arrays) -> None:
    path = tmp_path / "headless.safetensors"
    whole = read_checkpoint("ecgfounder", folder / "checkpoint_plain.pth")
    tensors = {k: v for k, v in whole.tensors.items() if not k.startswith("dense.")}
    write_safetensors(path, tensors, settings={}, source="")
    for readout, name in (("embedding", "embedding"), ("stage1", "stage1_block1")):
        encoder = load(path, readout=readout)
        assert "logits" not in encoder.readouts
        assert encoder.labels == ()
        wanted = golden[f"a_{name}"]
        close(encoder.embed(golden["a"]), wanted if wanted.ndim == 2 else wanted.mean(2))


@pytest.mark.parametrize("width", [4, 16])
def test_bfloat16(tmp_path: Path, golden: Arrays, width: int) -> None:
    path = tmp_path / "weights.safetensors"
    wide = replace(TINY, stem=16, filters=(16, 32, 32, 48), group_width=width)
    write_safetensors(path, wide.untrained(0), settings={}, source="")
    exact = load(path).embed(golden["a"])
    vectors = load(path, precision="bf16").embed(golden["a"])
    error = np.linalg.norm(vectors - exact, axis=1) / np.linalg.norm(exact, axis=1)
    assert 0 < error.max() <= 1e-2


@pytest.mark.parametrize(("file", "leads"), [("ecgfounder", 12), ("ecgfounder_1lead", 1)])
def test_keys_of_the_published_files(test_data: Path, file: str, leads: int) -> None:
    published = json.loads((test_data / "models" / f"{file}.state_dict.json").read_text())
    run = {
        key: tuple(entry["shape"])
        for key, entry in published["state_dict"].items()
        if not NEVER_RUN.fullmatch(key)
    }
    shapes = EcgFounderConfiguration(leads=leads).shapes()
    assert shapes == run
    sizes = {key: int(np.prod(shape)) for key, shape in shapes.items()}
    assert sum(sizes.values()) == published["parameters_used_in_forward"]
    head = sum(size for key, size in sizes.items() if key.startswith("dense."))
    assert sum(sizes.values()) - head == published["parameters_encoder_used"]


def test_labels(test_data: Path) -> None:
    published = json.loads((test_data / "models" / "ecgfounder.labels.json").read_text())
    assert list(LABELS) == published["labels"]
    assert len(LABELS) == EcgFounderConfiguration().classes


def test_labels_and_tokens_of_a_published_shape(tmp_path: Path) -> None:
    path = tmp_path / "thin.safetensors"
    thin = EcgFounderConfiguration(stem=16, filters=(16,) * 7, blocks=(1,) * 7)
    write_safetensors(path, thin.untrained(0), settings={}, source="")
    encoder = load(path, readout="time")
    assert encoder.labels == LABELS
    assert encoder.dim == 20 * 16
    x = np.linspace(-1, 1, 60000, dtype=np.float32).reshape(1, 12, 5000)
    assert encoder.embed(x).shape == (1, encoder.dim)
    assert encoder.classify(x).shape == (1, len(LABELS))
