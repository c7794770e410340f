"""ECG-FM against the values its reference implementation computes for a small network."""

from __future__ import annotations

import json
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from scipy.io import loadmat
from torch import nn
from torch.nn import functional

from ecgstore.errors import UnfitRecordError, UsageError, WeightsError
from ecgstore.models import load_encoder
from ecgstore.models.ecgfm import LABELS, EcgFm, EcgFmEncoder
from ecgstore.models.ecgfm_keys import EcgFmConfiguration
from ecgstore.record import LEADS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def folder(test_data: Path) -> Path:
    return test_data / "goldens" / "ecgfm_tiny"


def load(path: Path, **options: Any) -> EcgFmEncoder:
    encoder = load_encoder("ecgfm", weights=path, device="cpu", **{"precision": "fp32", **options})
    assert isinstance(encoder, EcgFmEncoder)
    return encoder


@pytest.fixture(scope="module")
def encoder(folder: Path) -> EcgFmEncoder:
    return load(folder / "pretrained.pt")


@contextmanager
def outputs(network: EcgFm) -> Iterator[dict[str, np.ndarray[Any, Any]]]:
    """Record what every part of the network gives, under the names of the golden arrays."""
    parts: dict[str, nn.Module] = {
        "conv_block_0": network.stem[0],
        "conv_features": network.stem,
        "feature_layer_norm": network.feature_norm,
        "post_extract_proj": network.projection,
        "pos_conv": network.position,
        "encoder_input": network.norm,
        **{f"layer_{number}": layer for number, layer in enumerate(network.layers)},
    }
    seen: dict[str, np.ndarray[Any, Any]] = {}

    def keep(name: str) -> Any:
        def hook(_module: nn.Module, _args: object, out: torch.Tensor) -> None:
            seen[name] = out.numpy()

        return hook

    handles = [part.register_forward_hook(keep(name)) for name, part in parts.items()]
    with torch.inference_mode():
        yield seen
    for handle in handles:
        handle.remove()
    for name in ("conv_block_0", "conv_features"):
        seen[name] = seen[name].transpose(0, 2, 1)


def close(ours: object, golden: np.ndarray[Any, Any], atol: float = TOLERANCE) -> None:
    np.testing.assert_allclose(np.asarray(ours), golden, rtol=0, atol=atol)


def test_every_layer(encoder: EcgFmEncoder, folder: Path) -> None:
    network = encoder.network
    with np.load(folder / "encoder_nopad.npz") as golden:
        with outputs(network) as seen:
            frames = network(torch.from_numpy(golden["source"]))
            pooled = network.pool(frames)
        close(frames, golden["encoder_out"])
        close(pooled, golden["pooled"])
        compared = set(golden.files) - {"source", "names", "encoder_out", "pooled"}
        assert compared == set(seen)
        for name in compared:
            close(seen[name], golden[name])


def test_padding(encoder: EcgFmEncoder, folder: Path) -> None:
    network = encoder.network
    with np.load(folder / "encoder_nopad.npz") as whole, np.load(folder / "encoder_pad.npz") as pad:
        source = torch.from_numpy(whole["source"]).clone()
        mask = torch.zeros_like(source, dtype=torch.bool)
        for record, length in enumerate(pad["lengths"]):
            mask[record, :, length:] = True
        source[mask] = 0
        padded = network.padded_frames(mask)
        np.testing.assert_array_equal(padded.numpy(), pad["frame_padding_mask"])
        with outputs(network) as seen:
            frames = network(source, padded)
            pooled = network.pool(frames, padded)
        close(frames, pad["encoder_out"])
        close(pooled, pad["pooled"])
        for name in ("conv_features", "pos_conv", "encoder_input", "layer_0", "layer_1", "layer_2"):
            close(seen[name], pad[name])


def test_a_mask_that_hides_nothing_changes_nothing(encoder: EcgFmEncoder, folder: Path) -> None:
    with np.load(folder / "encoder_nopad.npz") as golden, torch.inference_mode():
        source = torch.from_numpy(golden["source"])
        none = encoder.network.padded_frames(torch.zeros_like(source, dtype=torch.bool))
        assert torch.equal(encoder.network(source, none), encoder.network(source))


def test_a_short_record_alone(encoder: EcgFmEncoder, folder: Path) -> None:
    with (
        np.load(folder / "encoder_nopad.npz") as whole,
        np.load(folder / "encoder_short905.npz") as golden,
    ):
        source = whole["source"][:1, :, :905]
        with outputs(encoder.network) as seen:
            frames = encoder.network(torch.from_numpy(source))
        close(frames, golden["encoder_out"])
        close(seen["conv_features"], golden["conv_features"])
        close(encoder.embed(source), golden["pooled"])


@pytest.mark.parametrize("name", ["finetuned.pt", "finetuned_numpy1.pt"])
def test_finetuned_head(folder: Path, name: str) -> None:
    encoder = load(folder / name)
    network = encoder.network
    with (
        np.load(folder / "encoder_nopad.npz") as whole,
        np.load(folder / "encoder_pad.npz") as pad,
        np.load(folder / "finetuned.npz") as golden,
    ):
        source = whole["source"]
        close(encoder.embed(source), golden["pooled"])
        probabilities = encoder.classify(source)
        assert probabilities.shape == (3, len(LABELS))
        close(probabilities, golden["probs"])
        assert network.head is not None
        with torch.inference_mode():
            close(network.head(torch.from_numpy(encoder.embed(source))), golden["logits"])
            mask = torch.zeros(source.shape, dtype=torch.bool)
            for record, length in enumerate(pad["lengths"]):
                mask[record, :, length:] = True
            padded = network.padded_frames(mask)
            shortened = torch.from_numpy(source).masked_fill(mask, 0)
            pooled = network.pool(network(shortened, padded), padded)
            close(pooled, golden["pooled_pad"])
            close(network.head(pooled), golden["logits_pad"])


def test_readouts(folder: Path) -> None:
    with np.load(folder / "encoder_nopad.npz") as golden:
        expected = {"embedding": golden["pooled"]}
        expected |= {f"block{k}": golden[f"layer_{k}"].mean(1) for k in range(3)}
        assert load(folder / "pretrained.pt").readouts == tuple(expected)
        for readout, vectors in expected.items():
            encoder = load(folder / "pretrained.pt", readout=readout)
            close(encoder.embed(golden["source"][:1]), vectors[:1])


def test_every_readout_of_a_finetuned_file_comes_with_probabilities(folder: Path) -> None:
    with (
        np.load(folder / "encoder_nopad.npz") as whole,
        np.load(folder / "finetuned.npz") as golden,
    ):
        source, pooled = whole["source"][:1], golden["pooled"]
        for readout, vectors in (
            ("block0", None),
            ("block2", pooled),
            ("embedding", pooled),
            ("logits", golden["logits"]),
        ):
            encoder = load(folder / "finetuned.pt", readout=readout)
            found = encoder.embed(source)
            assert found.shape == (1, encoder.dim)
            if vectors is not None:
                close(found, vectors[:1])
            close(encoder.classify(source), golden["probs"][:1])


def test_a_block_needs_no_layer_behind_it(folder: Path) -> None:
    encoder = load(folder / "pretrained.pt", readout="block0")
    for parameter in encoder.network.layers[1].parameters():
        parameter.fill_(torch.nan)
    assert np.isfinite(encoder.embed(np.zeros((1, 12, 2500), np.float32))).all()


def test_a_stem_with_layer_norms(tmp_path: Path) -> None:
    """No published file has one, so the arithmetic is held against PyTorch's own functions."""
    configuration = EcgFmConfiguration(
        stem=((16, 2, 2), (32, 3, 2)), dim=32, depth=1, heads=2, hidden=16, layer_norms=True,
        position_kernel=4, position_groups=2,
    )  # fmt: skip
    state = configuration.untrained(1)
    stem = "feature_extractor.conv_layers"
    for block in (0, 1):
        for part in ("weight", "bias"):
            key = f"{stem}.{block}.2.1.{part}"
            state[key] = torch.randn(state[key].shape, generator=torch.Generator().manual_seed(1))
    path = tmp_path / "pretrained.pt"
    model = {**configuration.settings(), "extractor_mode": "layer_norm"}
    torch.save({"model": state, "cfg": {"model": model}}, path)
    x = torch.randn(2, 12, 100, generator=torch.Generator().manual_seed(0))
    theirs = x
    for block, stride in ((0, 2), (1, 2)):
        theirs = functional.conv1d(theirs, state[f"{stem}.{block}.0.weight"], stride=stride)
        scale, shift = (state[f"{stem}.{block}.2.1.{part}"] for part in ("weight", "bias"))
        theirs = functional.layer_norm(theirs.transpose(1, 2), scale.shape, scale, shift)
        theirs = functional.gelu(theirs).transpose(1, 2)
    with torch.inference_mode():
        ours = load(path).network.stem(x.transpose(1, 2)).transpose(1, 2)
    close(ours, theirs.numpy())
    torch.save({"model": state, "cfg": {"model": {**model, "extractor_mode": "default"}}}, path)
    with pytest.raises(WeightsError, match="extractor_mode 'default' does not fit"):
        load(path)


def test_pretrained_weights_have_no_head(encoder: EcgFmEncoder) -> None:
    with pytest.raises(UsageError, match="no head"):
        encoder.classify(np.zeros((1, 12, 2500), np.float32))


def test_saliency(encoder: EcgFmEncoder, folder: Path) -> None:
    with np.load(folder / "encoder_nopad.npz") as whole, np.load(folder / "saliency.npz") as golden:
        with torch.inference_mode():
            attention = encoder.network.attention(torch.from_numpy(whole["source"][:1]))
        close(attention, golden["saliency"])
        close(attention.amax(2), golden["row_max"])


@pytest.mark.parametrize(
    "name", ["pretrained.pt", "pretrained_legacy_keys.pt", "pretrained_foreign_objects.pt"]
)
def test_containers_give_the_same_vectors(folder: Path, name: str) -> None:
    with np.load(folder / "encoder_nopad.npz") as golden:
        close(load(folder / name).embed(golden["source"]), golden["pooled"])


def test_bfloat16(folder: Path) -> None:
    encoder = load(folder / "pretrained.pt", precision="bf16")
    with np.load(folder / "encoder_nopad.npz") as golden:
        vectors = encoder.embed(golden["source"])
        assert vectors.dtype == np.float32
        close(vectors, golden["pooled"], atol=0.05)
        exact = load(folder / "pretrained.pt")
        assert not np.array_equal(vectors, exact.embed(golden["source"]))
        assert encoder.version != exact.version


def test_bfloat16_avoids_the_convolution_pytorch_gets_wrong() -> None:
    """PyTorch 2.13 errs with 8 channels a group in bfloat16: such a position stays float32."""
    small = EcgFmConfiguration(dim=64, heads=1, position_groups=8, position_kernel=16)
    wide = EcgFmConfiguration(dim=64, heads=1, position_groups=4, position_kernel=16)
    for configuration, dtype in ((small, torch.float32), (wide, torch.bfloat16)):
        network = EcgFm(configuration)
        network.position.use_bfloat16()
        assert network.position.weight.dtype == dtype


def test_preparation_of_real_records(encoder: EcgFmEncoder, test_data: Path) -> None:
    folder = test_data / "data" / "code15_10"
    with np.load(folder / "preprocessed.npz") as published:
        for path in sorted((folder / "org").glob("*.mat")):
            raw = loadmat(path)["feats"]
            windows = encoder.prepare(raw, rate_hz=400, leads=LEADS)
            prepared = published[path.stem]
            assert len(windows) == prepared.shape[1] // 2500
            for number, window in enumerate(windows):
                cut = prepared[:, 2500 * number : 2500 * (number + 1)]
                np.testing.assert_array_equal(window, cut.astype(np.float32))
            starts = tuple(5.0 * number for number in range(len(windows)))
            assert encoder.window_starts(raw.shape[1], rate_hz=400) == starts


def test_a_missing_lead_is_zero_after_normalising(encoder: EcgFmEncoder) -> None:
    signal = np.random.default_rng(0).standard_normal((12, 2600)) + 3
    whole = encoder.prepare(signal, rate_hz=500, leads=LEADS)
    signal[8] = np.nan
    for leads, rows in ((LEADS, signal), (LEADS[:8] + LEADS[9:], np.delete(signal, 8, axis=0))):
        windows = encoder.prepare(rows, rate_hz=500, leads=leads)
        assert not windows[:, 8].any()
        np.testing.assert_array_equal(np.delete(windows, 8, 1), np.delete(whole, 8, 1))
        assert encoder.window_leads(leads, signal=rows) == LEADS


def test_a_few_lost_samples_refuse_the_record(encoder: EcgFmEncoder) -> None:
    signal = np.zeros((12, 2600))
    signal[3, 7:9] = np.nan
    with pytest.raises(UnfitRecordError, match="aVR") as caught:
        encoder.prepare(signal, rate_hz=500, leads=LEADS)
    assert caught.value.reason == "NaN"


@pytest.mark.parametrize("kind", ["pretrained", "finetuned_17"])
def test_keys_of_the_published_files(test_data: Path, kind: str) -> None:
    published = json.loads((test_data / "models" / "ecgfm_keys.json").read_text())[kind]
    finetuned = kind != "pretrained"
    ours = EcgFmConfiguration(classes=17 if finetuned else 0).shapes()
    inference = {
        key.removeprefix("encoder.") if finetuned else key: tuple(shape)
        for key, shape in published.items()
        if not key.startswith(("mask_emb", "quantizer.", "project_q.", "final_proj."))
    }
    assert ours == inference
    if finetuned:
        assert sum(int(np.prod(shape)) for shape in ours.values()) == 90_386_321


def test_pre_norm_layers_are_those_of_pytorch() -> None:
    """No published file is pre-norm, so the arithmetic is held against PyTorch's own layer."""
    configuration = EcgFmConfiguration(
        stem=((16, 2, 2),), dim=32, depth=1, heads=4, hidden=64, norm_first=True,
        position_kernel=4, position_groups=2,
    )  # fmt: skip
    network = EcgFm(configuration)
    network.load_state_dict(configuration.fold(configuration.untrained(1)))
    ours = network.layers[0]
    theirs = nn.TransformerEncoderLayer(
        32, 4, 64, dropout=0, activation="gelu", batch_first=True, norm_first=True
    )
    pairs = {
        "self_attn.in_proj_": "attention.qkv.",
        "self_attn.out_proj.": "attention.out.",
        "linear1.": "mlp.fc1.",
        "linear2.": "mlp.fc2.",
        "norm1.": "attention_norm.",
        "norm2.": "mlp_norm.",
    }
    state = ours.state_dict()
    theirs.load_state_dict(
        {f"{a}{part}": state[f"{b}{part}"] for a, b in pairs.items() for part in ("weight", "bias")}
    )
    x = torch.randn(2, 9, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        close(ours(x), theirs.train()(x).numpy())
