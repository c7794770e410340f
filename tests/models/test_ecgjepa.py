"""ECG-JEPA against the values its original implementation computes for a small network."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from scipy.signal import resample

from ecgstore.errors import UnfitRecordError, UsageError, WeightsError
from ecgstore.models import convert_weights, load_encoder
from ecgstore.models.ecgjepa import (
    EcgJepaConfiguration,
    EcgJepaEncoder,
    cross_pattern,
    position_table,
)
from ecgstore.record import LEADS as TWELVE

if TYPE_CHECKING:
    from pathlib import Path

    Arrays = dict[str, np.ndarray[Any, Any]]

TOLERANCE = 5e-5
LEADS = ("I", "II", "V1", "V2", "V3", "V4", "V5", "V6")
CASES = {"all8": LEADS, "leadII": ("II",), "leads_I_II_V2": ("I", "II", "V2")}


@pytest.fixture(scope="module")
def folder(test_data: Path) -> Path:
    return test_data / "goldens" / "ecgjepa_tiny"


def load(path: Path, name: str = "ecgjepa", **options: Any) -> EcgJepaEncoder:
    chosen = {"precision": "fp32", "settings": {"heads": 4}, **options}
    encoder = load_encoder(name, weights=path, device="cpu", **chosen)
    assert isinstance(encoder, EcgJepaEncoder)
    return encoder


@pytest.fixture(scope="module", params=["checkpoint.pth", "pretrain_state.pth"])
def encoder(folder: Path, request: pytest.FixtureRequest) -> EcgJepaEncoder:
    return load(folder / request.param)


@pytest.fixture(scope="module")
def mini() -> EcgJepaEncoder:
    encoder = load_encoder("ecgjepa.tiny", device="cpu", precision="fp32")
    assert isinstance(encoder, EcgJepaEncoder)
    return encoder


@pytest.fixture(scope="module")
def inputs(folder: Path) -> Arrays:
    with np.load(folder / "inputs.npz") as arrays:
        return dict(arrays)


@pytest.fixture(scope="module")
def golden(folder: Path) -> Arrays:
    with np.load(folder / "expected.npz") as arrays:
        return dict(arrays)


def close(ours: object, golden: object, atol: float = TOLERANCE) -> None:
    np.testing.assert_allclose(np.asarray(ours), np.asarray(golden), rtol=0, atol=atol)


@pytest.mark.parametrize("case", CASES)
def test_every_block(encoder: EcgJepaEncoder, inputs: Arrays, golden: Arrays, case: str) -> None:
    network, rows = encoder.network, [LEADS.index(lead) for lead in CASES[case]]
    x = torch.from_numpy(inputs["x"][:, rows])
    with torch.inference_mode():
        for depth, name in enumerate(("patch_embed", "block0", "block1", "block2")):
            close(network(x, rows, depth).flatten(1, 2), golden[f"{case}_{name}"])
        tokens = network.norm(network(x, rows))
    close(tokens.flatten(1, 2), golden[f"{case}_tokens"])
    close(encoder.embed(x.numpy(), leads=CASES[case]), golden[f"{case}_embedding"])
    seen = cross_pattern(len(rows), 50, device=x.device)
    assert (seen.sum(1) == 50 + len(rows) - 1).all()
    packed = golden[f"{case}_attention_mask_packed"]
    count = 50 * len(rows)
    expected = np.unpackbits(packed, axis=1, count=count).astype(bool)
    np.testing.assert_array_equal(seen, expected)


@pytest.mark.parametrize("readout", ["lead", "time", "block0", "block1", "block2"])
def test_readouts(folder: Path, inputs: Arrays, golden: Arrays, readout: str) -> None:
    encoder = load(folder / "checkpoint.pth", f"ecgjepa:{readout}")
    assert encoder.readouts == ("embedding", "lead", "time", "block0", "block1", "block2")
    name = readout if readout.startswith("block") else "tokens"
    tokens = golden[f"all8_{name}"].reshape(2, 8, 50, 32)
    mean = tokens.mean({"lead": (2,), "time": (1,)}.get(readout, (1, 2)))
    vectors = encoder.embed(inputs["x"])
    assert vectors.shape == (2, encoder.dim)
    close(vectors, mean.reshape(2, -1))


def test_leads_go_by_name_not_by_place(
    encoder: EcgJepaEncoder, inputs: Arrays, golden: Arrays
) -> None:
    order = np.random.default_rng(1).permutation(8)
    names = [LEADS[row] for row in order]
    close(encoder.embed(inputs["x"][:, order], leads=names), golden["all8_embedding"])


def test_published_position_table(folder: Path) -> None:
    with np.load(folder / "pos_embed_full.npz") as arrays:
        table = position_table(8, 50, 768)[arrays["rows"]]
        close(table, arrays["pos_embed_8x50x768_f32"], atol=1e-6)
    stored = load(folder / "checkpoint.pth").network.pos_embed
    close(stored, position_table(8, 50, 32), atol=1e-6)


def test_preparation(mini: EcgJepaEncoder, inputs: Arrays) -> None:
    raw = inputs["raw_500hz_12lead_mv"]
    windows = [mini.prepare(record, rate_hz=500, leads=TWELVE) for record in raw]
    close(np.concatenate(windows), inputs["x"], atol=1e-6)
    longer = np.concatenate([raw[0], raw[1]], axis=1)
    np.testing.assert_array_equal(mini.prepare(longer, rate_hz=500, leads=TWELVE), windows[0])
    slower = resample(raw[0], 4000, axis=-1)
    close(mini.prepare(slower, rate_hz=400, leads=TWELVE)[0], inputs["x"][0], atol=1e-6)


def test_a_strip_squeezed_into_ten_seconds(mini: EcgJepaEncoder, inputs: Arrays) -> None:
    squeeze = load_encoder("ecgjepa.tiny:squeeze", device="cpu", precision="fp32")
    assert (squeeze.pooling, mini.pooling) == ("squeeze", "embedding")
    assert squeeze.version != mini.version
    strips = resample(inputs["raw_500hz_12lead_mv"], 4096, axis=-1)
    windows = [squeeze.prepare(strip, rate_hz=400, leads=TWELVE) for strip in strips]
    close(np.concatenate(windows), inputs["x_from_4096_samples_at_400hz"], atol=1e-6)
    plain = mini.prepare(strips[0], rate_hz=400, leads=TWELVE)
    assert np.abs(plain - windows[0]).max() > 0.1
    longer = np.pad(strips[0], ((0, 0), (0, 4096)), mode="wrap")
    again = squeeze.prepare(longer, rate_hz=400, leads=TWELVE)
    np.testing.assert_array_equal(again, windows[0])


def test_absent_leads_are_left_out(mini: EcgJepaEncoder, inputs: Arrays) -> None:
    signal = inputs["raw_500hz_12lead_mv"][0].copy()
    kept = ("I", "II", "V2")
    rows = [TWELVE.index(lead) for lead in kept]
    alone = mini.prepare(signal[rows], rate_hz=500, leads=kept)
    close(alone[0], inputs["x"][0, [0, 1, 3]], atol=1e-6)
    signal[[row for row in range(12) if row not in rows]] = np.nan
    np.testing.assert_array_equal(mini.prepare(signal, rate_hz=500, leads=TWELVE), alone)
    assert mini.window_leads(TWELVE, signal=signal) == kept
    assert mini.embed(alone, leads=kept).shape == (1, 48)
    one_vector_a_lead = load_encoder("ecgjepa.tiny:lead", device="cpu", precision="fp32")
    with pytest.raises(UnfitRecordError, match="V1, V3"):
        one_vector_a_lead.prepare(signal, rate_hz=500, leads=TWELVE)


@pytest.mark.parametrize("variant", ["", "squeeze"])
@pytest.mark.parametrize(("rate_hz", "samples"), [
    (121, 1210), (242, 2420), (484, 4840), (968, 9680), (250, 2500), (500, 5000), (257, 2570),
])  # fmt: skip
def test_ten_seconds_are_enough_at_any_rate(variant: str, rate_hz: float, samples: int) -> None:
    encoder = load_encoder(f"ecgjepa.tiny:{variant}", device="cpu", precision="fp32")
    signal = np.random.default_rng(0).standard_normal((2, samples))
    assert encoder.window_starts(samples, rate_hz=rate_hz) == (0.0,)
    assert encoder.prepare(signal, rate_hz=rate_hz, leads=["I", "V6"]).shape == (1, 2, 2500)
    with pytest.raises(UnfitRecordError, match="10 s"):
        encoder.prepare(signal[:, :-4], rate_hz=rate_hz, leads=["I", "V6"])


@pytest.mark.parametrize("samples", [2450, 2550, 0])
def test_windows_of_another_length(mini: EcgJepaEncoder, samples: int) -> None:
    with pytest.raises(UsageError, match="expected 2500"):
        mini.embed(np.zeros((1, 8, samples), np.float32))


def test_bfloat16(folder: Path, inputs: Arrays, golden: Arrays) -> None:
    vectors = load(folder / "checkpoint.pth", precision="bf16").embed(inputs["x"])
    exact = golden["all8_embedding"]
    error = np.linalg.norm(vectors - exact, axis=1) / np.linalg.norm(exact, axis=1)
    assert 0 < error.max() <= 1e-2


@pytest.mark.parametrize(("settings", "message"), [
    ({}, "does not tell how many heads share its width of 32"),
    ({"heads": 5}, "5 heads"), ({"heads": 0}, "0 heads"), ({"heads": True}, "True heads"),
    ({"heads": "4"}, "'4' heads"),
])  # fmt: skip
def test_heads_are_never_guessed(folder: Path, settings: dict[str, object], message: str) -> None:
    with pytest.raises(WeightsError, match=message):
        load(folder / "checkpoint.pth", settings=settings)


def test_a_converted_file_keeps_the_heads(folder: Path, tmp_path: Path, inputs: Arrays) -> None:
    source, target = folder / "pretrain_state.pth", tmp_path / "small.safetensors"
    convert_weights("ecgjepa", source, target, settings={"heads": 4})
    converted = load(target, settings=None)
    np.testing.assert_array_equal(converted.embed(inputs["x"]), load(source).embed(inputs["x"]))


@pytest.mark.parametrize("change", ["1 missing", "1 unexpected", "not an ECG-JEPA"])
def test_other_tensors_are_refused(folder: Path, tmp_path: Path, change: str) -> None:
    content = torch.load(folder / "checkpoint.pth", weights_only=True)
    state = content["encoder"]
    if change == "1 missing":
        del state["encoder_blocks.blocks.1.attn.proj.bias"]
    elif change == "1 unexpected":
        state["predictor_embed.bias"] = torch.zeros(16)
    else:
        state["pos_embed"] = state["pos_embed"][:200].clone()
    torch.save(content, tmp_path / "changed.pth")
    with pytest.raises(WeightsError, match=change):
        load(tmp_path / "changed.pth")


def test_keys_of_the_published_file(test_data: Path) -> None:
    text = (test_data / "models" / "ecgjepa.state_dict.json").read_text()
    published = json.loads(text)
    ours = EcgJepaConfiguration().shapes()
    assert ours == {key: tuple(x["shape"]) for key, x in published["state_dict"].items()}
    total = sum(int(np.prod(shape)) for shape in ours.values())
    assert total == published["parameters_encoder"]
