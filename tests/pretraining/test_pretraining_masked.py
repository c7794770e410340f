"""The masked auto-encoders: against their goldens, and what goes into and out of them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from ecgstore import signal as on_host
from ecgstore.errors import UnknownNameError, UsageError, WeightsError
from ecgstore.models import load_encoder, tensor_signal
from ecgstore.models.weights import read_checkpoint, write_safetensors
from ecgstore.pretraining import Batch, Draws, Ranks, methods
from ecgstore.pretraining.autoencoder import MaskedAutoencoder
from ecgstore.pretraining.masking import choose, normalised
from ecgstore.record import LEADS

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from ecgstore.models.weights import Checkpoint

    Array = np.ndarray[Any, Any]

NAMES = ("stmem", "mtae", "mlae", "ecgflow")
GOLDEN = {"stmem": "st_mem", "mtae": "mtae", "mlae": "mlae"}


def kind(name: str) -> type[MaskedAutoencoder]:
    found = methods.get(name)
    assert issubclass(found, MaskedAutoencoder)
    return found


def started(name: str, seed: int = 0, **settings: Any) -> MaskedAutoencoder:
    method = kind(name).of("tiny", settings)
    method.start(seed)
    return method


def full_file(test_data: Path, name: str) -> Checkpoint:
    folder = test_data / "goldens"
    if name == "ecgflow":
        checkpoint = read_checkpoint(name, folder / "ecgflow_tiny" / "model.safetensors")
        return checkpoint.with_settings({"heads": 4})
    return read_checkpoint(name, folder / "stmem_tiny" / f"{GOLDEN[name]}_tiny_full.pth")


def taken(test_data: Path, name: str, **settings: Any) -> MaskedAutoencoder:
    told = {"decoder_heads": 4} if name == "ecgflow" else {}
    checkpoint = full_file(test_data, name)
    method = kind(name).of("base", told | settings, checkpoint)
    assert method.take(checkpoint) == ()
    return method


def batch_of(x: Tensor, draws: Draws) -> Batch:
    return Batch(x, tuple(range(x.shape[1])), torch.arange(len(x)), torch.empty(len(x), 0), draws)


def close(ours: Tensor, golden: Array, atol: float) -> None:
    np.testing.assert_allclose(ours.detach().numpy(), golden, rtol=0, atol=atol)


# ----------------------------------------------------------------------------------- goldens


@pytest.mark.parametrize("target", ["normpix", "rawpix"])
@pytest.mark.parametrize("name", GOLDEN)
def test_goldens_of_stmem_and_its_siblings(test_data: Path, name: str, target: str) -> None:
    with np.load(test_data / "goldens" / "stmem_tiny" / "pretrain_cases.npz") as arrays:
        x, prefix = torch.from_numpy(arrays["x"]), f"{GOLDEN[name]}/"
        golden = {k.removeprefix(prefix): arrays[k] for k in arrays if k.startswith(prefix)}
    method = taken(test_data, name, normalise_patches=target == "normpix")
    noise = torch.from_numpy(golden["noise"])
    choice = choose(noise, method.kept)
    np.testing.assert_array_equal(choice.mask, golden["mask"])
    np.testing.assert_array_equal(choice.restore, golden["ids_restore"])
    latent = method.encode(x, choice, range(12))
    close(latent, golden["latent"], 1e-5)
    close(method.decode(latent, choice), golden["pred"], 1e-5)
    loss = method(batch_of(x, Draws({"noise": noise})), Ranks())["loss"]
    np.testing.assert_allclose(loss.item(), golden[f"{target}/loss"], rtol=1e-6)
    loss.backward()
    trained = {key: one for key, one in method.named_parameters() if one.requires_grad}
    frozen = {key for key, _ in method.named_parameters()} - set(trained)
    assert frozen == {"network.pos_embedding", "decoder.positions"}
    gradients = {key: one.grad for key, one in trained.items() if one.grad is not None}
    assert gradients.keys() == trained.keys()
    norm = torch.stack([one.square().sum() for one in gradients.values()]).sum().sqrt()
    np.testing.assert_allclose(norm.item(), golden[f"{target}/grad_l2"], rtol=1e-5)
    published, compared = method.published(gradients), f"{target}/grad/"
    named = [key for key in golden if key.startswith(compared)]
    assert len(named) == 5
    for key in named:
        close(published[key.removeprefix(compared)], golden[key], 1e-6)


def test_goldens_of_ecgflow(test_data: Path) -> None:
    folder = test_data / "goldens" / "ecgflow_tiny"
    with np.load(folder / "pretrain_step.npz") as arrays:
        golden = dict(arrays)
    with np.load(folder / "inputs.npz") as arrays:
        raw = arrays["raw_500hz_12lead_mv"]
    method = taken(test_data, "ecgflow")
    noise = Draws({"noise": torch.from_numpy(golden["noise"])})
    signal = raw[:, [0, 1, 6, 7, 8, 9, 10, 11]]
    x = torch.from_numpy(method.windows(signal, 500, on_host, noise)).float()
    choice = choose(noise.each["noise"], method.kept)
    np.testing.assert_array_equal(choice.mask, golden["mask"])
    np.testing.assert_array_equal(choice.restore, golden["ids_restore"])
    latent = method.encode(x, choice, range(8))
    close(latent, golden["latent"], 5e-5)
    close(method.decode(latent, choice), golden["pred"], 5e-5)
    close(method.targets(x), golden["target_patches"], 5e-5)
    close(normalised(method.targets(x)), golden["target_normalised"], 5e-5)
    loss = method(batch_of(x, noise), Ranks())["loss"]
    np.testing.assert_allclose(loss.item(), golden["loss"], rtol=0, atol=5e-5)


# ----------------------------------------------------------------------------------- windows


def test_windows_of_stmem(test_data: Path) -> None:
    with np.load(test_data / "goldens" / "stmem_tiny" / "preprocess_cases.npz") as arrays:
        raw = arrays["raw_500hz"].astype(np.float64)
    encoder = load_encoder("stmem.tiny", device="cpu", precision="fp32")
    three = encoder.prepare(raw, rate_hz=500, leads=LEADS)
    # Of 251 places the first, the one in the middle, and the last.
    crop = torch.tensor([0.0, 125.5 / 251, np.nextafter(1, 0)], dtype=torch.float64)
    method, draws = started("stmem"), Draws({"crop": crop})
    signal = np.stack([raw] * 3)
    windows = method.windows(signal, 500, on_host, draws)
    np.testing.assert_allclose(windows, three, rtol=0, atol=1e-6)
    same = method.windows(torch.from_numpy(signal), 500, tensor_signal, draws)
    np.testing.assert_allclose(same, windows, rtol=0, atol=1e-6)


def test_windows_of_ecgflow() -> None:
    raw = np.random.default_rng(0).standard_normal((2, 8, 4100))
    raw[0, 3, 100:140] = np.nan
    method = started("ecgflow", variant="ptbxl")
    encoder = load_encoder("ecgflow.tiny:ptbxl", device="cpu", precision="fp32")
    windows = method.windows(raw, 400, on_host, Draws())
    assert windows.shape == (2, 8, 5000)
    for one, signal in zip(windows, raw, strict=True):
        wanted = encoder.prepare(signal, rate_hz=400, leads=encoder.spec.leads)[0]
        np.testing.assert_array_equal(one.astype(np.float32), wanted)
    same = method.windows(torch.from_numpy(raw), 400, tensor_signal, Draws())
    np.testing.assert_allclose(same, windows, rtol=0, atol=1e-6)


# ------------------------------------------------------------------------------ random, parts


@pytest.mark.parametrize("name", NAMES)
def test_a_step_follows_from_its_draws(name: str) -> None:
    method = started(name)
    leads = 8 if name == "ecgflow" else 12
    draws, again, other = (
        method.draw(4, leads, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)
    )
    assert draws.each.keys() == again.each.keys()
    for key, drawn in draws.each.items():
        assert torch.equal(drawn, again.each[key])
        assert not torch.equal(drawn, other.each[key])
    x = torch.randn(4, leads, method.configuration.window_samples)
    with torch.no_grad():
        whole = method(batch_of(x, draws), Ranks())["loss"]
        halves = [
            method(batch_of(x[part], draws.of(part)), Ranks())["loss"]
            for part in (slice(0, 2), slice(2, 4))
        ]
        with torch.autocast("cpu", torch.bfloat16):
            rough = method(batch_of(x, draws), Ranks())["loss"]
    np.testing.assert_allclose(sum(halves) / 2, whole, rtol=1e-6)
    assert rough.dtype == torch.float32
    np.testing.assert_allclose(rough, whole, rtol=1e-2)


@pytest.mark.parametrize("name", NAMES)
def test_starting_values(name: str) -> None:
    method, again, other = started(name), started(name), started(name, seed=1)
    state = method.state_dict()
    for key, tensor in again.state_dict().items():
        assert torch.equal(tensor, state[key])
    weight = state["network.blocks.0.attention.qkv.weight"]
    assert not torch.equal(other.state_dict()["network.blocks.0.attention.qkv.weight"], weight)
    bound = (6 / sum(weight.shape)) ** 0.5
    assert 0.99 * bound < weight.abs().max() <= bound
    assert 0.01 < state["decoder.mask"].std() < 0.03
    for key, tensor in state.items():
        if key.endswith("bias"):
            assert not tensor.any()
        if "norm.weight" in key:
            assert (tensor == 1).all()
    table = state["decoder.positions"][0]
    assert not table[0].any()
    half = table.shape[1] // 2
    assert not table[1, :half].any()
    assert (table[1, half:] == 1).all()
    assert table[-1].any() == (name != "stmem")  # there it is of the separator behind the lead


def test_masking_keeps_some_and_masks_some() -> None:
    for name, ratio in (("stmem", 0.0), ("mtae", 1.0), ("mlae", 0.95), ("ecgflow", -0.6)):
        with pytest.raises(UsageError, match="mask_ratio"):
            started(name, mask_ratio=ratio)
    assert started("mlae", mask_ratio=0.01).kept == 11
    tied = choose(torch.tensor([[0.5, 0.5, 0.1, 0.5]]), 2)
    assert tied.kept.tolist() == [[2, 0]]
    assert tied.mask.tolist() == [[0, 1, 0, 1]]


def test_settings_that_make_no_sense() -> None:
    with pytest.raises(UsageError, match="decoder_depth is -1"):
        started("mtae", decoder_depth=-1)
    with pytest.raises(UsageError, match="does not divide into 5 heads"):
        started("ecgflow", decoder_heads=5)
    with pytest.raises(UnknownNameError, match="variant 'ptb'"):
        started("ecgflow", variant="ptb")


# -------------------------------------------------------------------------- weights in and out


def embedding(method: MaskedAutoencoder, x: Tensor) -> Tensor:
    """Return what the network as it stands gives, by its definition."""
    network: Any = method.network
    if method.name == "ecgflow":
        tokens = network.tokens(x)
        for block in network.blocks:
            tokens = block(tokens)
        vectors: Tensor = network.norm(tokens)[:, 1:].mean(1)
    else:
        vectors = network.norm(network.pool(network(x, range(12)), 12))
    return vectors


@pytest.mark.parametrize("name", NAMES)
def test_what_is_written_is_the_encoder(name: str, tmp_path: Path) -> None:
    method = started(name)
    path = tmp_path / "weights.safetensors"
    told = method.configuration.settings()
    write_safetensors(path, method.published(method.state_dict()), settings=told, source="")
    encoder = load_encoder(name, weights=path, device="cpu", precision="fp32")
    x = torch.randn(2, len(encoder.spec.leads), encoder.window_samples)
    with torch.no_grad():
        close(embedding(method, x), encoder.embed(x.numpy()), 1e-5)
    checkpoint = read_checkpoint(name, path)
    other = kind(name).of("base", {}, checkpoint)
    assert other.configuration == method.configuration
    assert other.take(checkpoint) == ()
    state = other.state_dict()
    for key, tensor in method.state_dict().items():
        assert torch.equal(state[key], tensor)
    assert kind(name).sizes["tiny"] == method.configuration
    with pytest.raises(WeightsError, match=r"of another size; .*dim \d+, expected 128"):
        kind(name).of("mini", {}).take(checkpoint)


@pytest.mark.parametrize("name", NAMES)
def test_an_encoder_without_a_decoder_is_enough(test_data: Path, name: str, tmp_path: Path) -> None:
    method = taken(test_data, name)
    settings = method.configuration.settings()
    alone = {
        key: one
        for key, one in method.published(method.state_dict()).items()
        if key.startswith(
            "encoder." if name in GOLDEN else ("patch", "cls", "pos", "blocks", "norm")
        )
    }
    path = tmp_path / "encoder.safetensors"
    write_safetensors(path, alone, settings=settings, source="")
    checkpoint = read_checkpoint(name, path)
    sizes = {key: method.settings[key] for key in method.settings if key.startswith("decoder_")}
    other = kind(name).of("base", sizes, checkpoint)
    other.start(0)
    before = {key: tensor.clone() for key, tensor in other.decoder.state_dict().items()}
    missing = other.take(checkpoint)
    assert set(missing) == {
        key
        for key in method.published(method.state_dict())
        if key not in alone and not key.startswith("to_patch")
    }
    assert len(missing) == len(before)
    for key, tensor in other.decoder.state_dict().items():
        assert torch.equal(tensor, before[key])
    for key, tensor in other.network.state_dict().items():
        assert torch.equal(tensor, method.network.state_dict()[key])


def test_files_that_do_not_fit(test_data: Path) -> None:
    full = full_file(test_data, "ecgflow")
    with pytest.raises(WeightsError, match="how many heads its decoder has") as told:
        kind("ecgflow").of("base", {}, full)
    assert "--set decoder_heads=" in str(told.value)
    method = kind("ecgflow").of("base", {"decoder_heads": 4, "decoder_hidden": 32}, full)
    with pytest.raises(WeightsError, match="of another shape"):
        method.take(full)
    with pytest.raises(WeightsError, match="no MTAE checkpoint"):
        started("mtae").take(full_file(test_data, "mlae"))


@pytest.mark.parametrize("name", NAMES)
def test_published_keys_and_sizes(test_data: Path, name: str) -> None:
    folder = test_data / "models"
    if name == "ecgflow":
        listed = json.loads((folder / "michigan_vit.state_dict.json").read_text())["state_dict"]
        wanted = {key: tuple(entry["shape"]) for key, entry in listed.items()}
    else:
        listed = json.loads((folder / "stmem_keys.json").read_text())[GOLDEN[name]]["full"]
        wanted = {key: tuple(shape) for key, shape in listed.items()}
    with torch.device("meta"):
        method = kind(name).of("base", {})
    published = method.published(method.state_dict())
    assert {key: tuple(one.shape) for key, one in published.items()} == wanted
    if name in ("stmem", "ecgflow"):  # of these, small ones are in the box
        small = kind(name).sizes["mini"].shapes().values()
        assert sum(4 * int(np.prod(shape)) for shape in small) <= 3e6
