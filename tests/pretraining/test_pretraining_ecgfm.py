"""ECG-FM's pretraining against the losses and gradients of its reference implementation."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from ecgstore import signal as on_host
from ecgstore.errors import UsageError, WeightsError
from ecgstore.models import load_encoder, tensor_signal
from ecgstore.models.weights import read_checkpoint, write_safetensors
from ecgstore.pretraining.contrast import likeness
from ecgstore.pretraining.ecgfm import EcgFmPretraining
from ecgstore.pretraining.method import Batch, Draws
from ecgstore.pretraining.ranks import Ranks

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

TINY = EcgFmPretraining.sizes["tiny"]


@pytest.fixture(scope="module")
def folder(test_data: Path) -> Path:
    return test_data / "goldens" / "ecgfm_tiny"


@pytest.fixture(scope="module")
def golden(folder: Path) -> dict[str, NDArray[Any]]:
    with np.load(folder / "pretrain_loss.npz") as file:
        return dict(file)


@pytest.fixture(scope="module")
def batch(golden: dict[str, NDArray[Any]], test_data: Path) -> Batch:
    """Return the golden batch: items are pairs of segments, records its patients."""
    with np.load(test_data / "data" / "code15_10" / "preprocessed.npz") as records:
        whole = np.stack([records[name][:, :5000] for name in golden["pairs"]])
    windows = torch.from_numpy(on_host.cut_windows(whole, (0, 2500), 2500)).float()
    places = np.stack([np.flatnonzero(row) for row in golden["mask_indices"]])
    drawn = {
        "lead_keep": golden["lead_keep"],
        "places": places,
        "negatives": golden["negatives"].reshape(*places.shape, 10),
        "noise": golden["gumbel_noise"].reshape(*places.shape, 2, 10),
    }
    each = {
        name: torch.from_numpy(one).reshape(4, 2, *one.shape[1:]) for name, one in drawn.items()
    }
    patients = torch.from_numpy(golden["patient_id"][::2])
    return Batch(windows, tuple(range(12)), patients, torch.empty(4, 0), Draws(each))


def taken(path: Path, **settings: float) -> EcgFmPretraining:
    checkpoint = read_checkpoint("ecgfm", path)
    method = EcgFmPretraining.of("base", settings, checkpoint)
    method.start(0)
    assert method.take(checkpoint) == ()
    return method


def tiny(seed: int = 0) -> EcgFmPretraining:
    method = EcgFmPretraining(TINY)
    method.start(seed)
    return method


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_loss_and_terms(
    mode: str, folder: Path, golden: dict[str, NDArray[Any]], batch: Batch
) -> None:
    method = taken(folder / "pretrained.pt", dropout=0.0).train(mode == "train")
    seen: dict[str, Any] = {}
    for name in ("final_proj", "project_q", "quantizer"):

        def keep(_module: object, _args: object, out: Any, name: str = name) -> None:
            seen[name] = out

        method.get_submodule(name).register_forward_hook(keep)
    with torch.no_grad():
        told = {name: float(term) for name, term in method(batch, Ranks()).items()}
        predicted, targets, (_, codes) = (
            seen[one] for one in ("final_proj", "project_q", "quantizer")
        )
        logits = likeness(predicted, targets, codes, temperature=0.1)
    frames = golden[f"{mode}_sample_size"]
    expected = {
        "loss": golden[f"{mode}_loss"] / frames,
        "contrastive": golden[f"{mode}_loss_0"] / frames / np.log(2),
        "diversity": golden[f"{mode}_loss_1"] / frames / 0.1,
        "penalty": golden[f"{mode}_features_pen"],
        "cmsc": golden[f"{mode}_loss_3"] / frames,
        "accuracy": golden[f"{mode}_correct"] / golden[f"{mode}_count"],
        "codes": golden[f"{mode}_code_perplexity"],
    }
    assert list(told) == list(expected)
    assert told == pytest.approx({name: float(one) for name, one in expected.items()}, rel=1e-6)
    negatives = logits.gather(2, batch.draws.each["negatives"].flatten(0, 1))
    own = logits.diagonal(dim1=1, dim2=2)[..., None]
    rows = torch.cat([own, negatives], 2).transpose(0, 1).flatten(0, 1)
    np.testing.assert_allclose(rows, golden[f"{mode}_logits"], rtol=0, atol=5e-5)


def test_gradient_of_every_weight(
    folder: Path, golden: dict[str, NDArray[Any]], batch: Batch
) -> None:
    method = taken(folder / "pretrained.pt", dropout=0.0)
    method(batch, Ranks())["loss"].backward()
    gradients = {name: one.grad for name, one in method.named_parameters() if one.grad is not None}
    norms = {key: float(one.norm()) for key, one in method.published(gradients).items()}
    reference = dict(zip(golden["train_grad_keys"], golden["train_grad_norm"], strict=True))
    assert set(norms) == set(reference)
    for key, norm in reference.items():
        if not key.endswith("k_proj.bias"):  # its gradient is zero but for rounding
            assert norms[key] * golden["train_sample_size"] == pytest.approx(norm, rel=1e-4), key


@pytest.mark.parametrize("name", ["pretrained.pt", "pretrained_legacy_keys.pt"])
def test_a_pretrained_file_comes_back_whole(name: str, folder: Path) -> None:
    checkpoint = read_checkpoint("ecgfm", folder / "pretrained.pt")
    method = taken(folder / name)
    written = method.published(method.state_dict())
    assert set(written) == set(checkpoint.tensors)
    for key, tensor in checkpoint.tensors.items():
        assert torch.equal(written[key], tensor), key


def test_a_finetuned_file_gives_the_encoder_alone(folder: Path) -> None:
    checkpoint = read_checkpoint("ecgfm", folder / "finetuned.pt")
    method = EcgFmPretraining.of("base", {}, checkpoint)
    method.start(0)
    before = method.published(method.state_dict())
    missing = method.take(checkpoint)
    after = method.published(method.state_dict())
    theirs = checkpoint.tensors
    assert {key.partition(".")[0] for key in missing} == {
        *("mask_emb", "quantizer", "project_q", "final_proj")
    }
    for key, tensor in after.items():
        assert torch.equal(tensor, before[key] if key in missing else theirs[f"encoder.{key}"])


def test_a_file_of_another_size_is_refused(folder: Path) -> None:
    checkpoint = read_checkpoint("ecgfm", folder / "pretrained.pt")
    with pytest.raises(WeightsError, match="depth 3 for 2, heads 4 for 2"):
        tiny().take(checkpoint)
    with pytest.raises(WeightsError, match=r"quantizer\.vars"):
        EcgFmPretraining.of("base", {"latent_vars": 12}, checkpoint).take(checkpoint)
    with pytest.raises(WeightsError, match="no checkpoint of ECG-FM"):
        tiny().take(read_checkpoint("ecgfm", folder.parent / "stmem_tiny" / "st_mem_tiny_full.pth"))


def test_what_is_written_embeds_as_the_network_does(tmp_path: Path) -> None:
    method = tiny().eval()
    path = tmp_path / "weights.safetensors"
    tensors = method.published(method.state_dict())
    write_safetensors(path, tensors, settings=TINY.settings(), source="0" * 64)
    encoder = load_encoder("ecgfm", weights=path, device="cpu", precision="fp32")
    windows = torch.randn((2, 12, 2500), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = method.network.pool(method.network(windows))
    np.testing.assert_allclose(encoder.embed(windows.numpy()), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("other", [{}, {"layer_norms": True}, {"dim": 32}, {"norm_first": True}])
def test_keys_are_the_published_ones(other: dict[str, Any], batch: Batch) -> None:
    configuration = replace(TINY, **other)
    method = EcgFmPretraining(configuration)
    method.start(0)
    shapes = {k: tuple(v.shape) for k, v in method.published(method.state_dict()).items()}
    assert shapes == configuration.shapes() | method.width.shapes(configuration.dim, 32)
    draws = method.draw(4, 12, torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert method(replace(batch, draws=draws), Ranks())["loss"].isfinite()


def test_draws() -> None:
    method, items = EcgFmPretraining(TINY), 16
    draws = method.draw(items, 12, torch.Generator().manual_seed(1))
    each = draws.each
    assert each["lead_keep"].shape == (items, 2, 12)
    assert 0.4 < each["lead_keep"].float().mean() < 0.6
    places, negatives = each["places"], each["negatives"].long()
    masked = places.shape[2]
    assert 50 < masked < 80
    assert (places.diff(dim=2) > 0).all()
    assert places.min() >= 0
    assert places.max() <= 154  # the last frame is never reached
    assert negatives.shape == (items, 2, masked, 100)
    assert (negatives != torch.arange(masked)[:, None]).all()
    assert negatives.min() == 0
    assert negatives.max() == masked - 1
    assert each["noise"].shape == (items, 2, masked, 2, 40)
    assert each["noise"].mean() == pytest.approx(np.euler_gamma, abs=0.01)
    assert each["noise"].var() == pytest.approx(np.pi**2 / 6, abs=0.02)
    again = method.draw(items, 12, torch.Generator().manual_seed(1))
    assert all(torch.equal(each[name], again.each[name]) for name in each)


def test_every_segment_of_most_overlap_keeps_whole_spans() -> None:
    places = EcgFmPretraining(TINY).draw(16, 12, torch.Generator().manual_seed(2)).each["places"]
    runs = []
    for row in places.flatten(0, 1):
        ends = torch.cat([torch.tensor([True]), row.diff() > 1]).cumsum(0)
        runs.append(int(ends.bincount()[1:].min()))
    assert max(runs) >= 10  # one was left as it was drawn, in spans of ten or longer


def test_masks_that_cannot_be_drawn_are_refused() -> None:
    with pytest.raises(UsageError, match="cannot hold"):
        EcgFmPretraining(TINY, {"mask_share": 10.0})
    with pytest.raises(UsageError, match="no setting 'mask_ratio'"):
        EcgFmPretraining(TINY, {"mask_ratio": 0.5})


@pytest.mark.parametrize("rate_hz", [400.0, 500.0, 980.0])
def test_windows_are_both_segments_of_the_standardised_record(rate_hz: float) -> None:
    samples = round(10 * rate_hz)
    signal = np.random.default_rng(0).standard_normal((2, 12, samples))
    method, none = EcgFmPretraining(TINY), Draws()
    ours = method.windows(signal, rate_hz, on_host, none)
    assert ours.shape == (2, 2, 12, 2500)
    whole = on_host.standardise_leads(on_host.resample_linear(signal, rate_hz, 500.0))
    np.testing.assert_array_equal(ours[:, 0], whole[..., :2500])
    np.testing.assert_array_equal(ours[:, 1], whole[..., -2500:])
    tensors = method.windows(torch.from_numpy(signal), rate_hz, tensor_signal, none)
    np.testing.assert_allclose(tensors, ours, rtol=0, atol=1e-9)


def test_training_drops_and_evaluation_does_not(batch: Batch) -> None:
    method = tiny()
    draws = method.draw(4, 12, torch.Generator().manual_seed(0))
    batch = replace(batch, draws=draws)
    with torch.no_grad():
        trained = {float(method.train()(batch, Ranks())["loss"]) for _ in range(2)}
        evaluated = {float(method.eval()(batch, Ranks())["loss"]) for _ in range(2)}
    assert (len(trained), len(evaluated)) == (2, 1)


def test_a_start_follows_from_its_seed() -> None:
    one, same, other = (tiny(seed).state_dict() for seed in (3, 3, 4))
    assert all(torch.equal(one[key], same[key]) for key in one)
    assert not torch.equal(
        one["network.layers.0.mlp.fc1.weight"], other["network.layers.0.mlp.fc1.weight"]
    )


def test_a_quantizer_in_training_is_smoothed_less_and_less(batch: Batch) -> None:
    method = EcgFmPretraining(TINY, {"dropout": 0.0, "tau_decay": 0.5, "tau_floor": 0.01})
    method.start(0)
    batch = replace(batch, draws=method.draw(4, 12, torch.Generator().manual_seed(0)))
    norms = []
    for _ in range(2):
        method.zero_grad()
        method(batch, Ranks())["loss"].backward()
        gradient = method.quantizer.weight_proj.weight.grad
        assert gradient is not None
        norms.append(float(gradient.norm()))
        method.stepped(0.5)
    assert int(method.state_dict()["updates"]) == 2
    assert norms[0] != norms[1]


def test_bfloat16_loses_as_float32_does(
    folder: Path, golden: dict[str, NDArray[Any]], batch: Batch
) -> None:
    method = taken(folder / "pretrained.pt", dropout=0.0)
    with torch.autocast("cpu", torch.bfloat16):
        loss = method(batch, Ranks())["loss"]
    assert loss.dtype == torch.float32
    loss.backward()
    frames = golden["train_sample_size"]
    assert float(loss.detach()) == pytest.approx(golden["train_loss"] / frames, rel=0.01)
    gradient = method.network.layers.get_parameter("0.mlp.fc1.weight").grad
    assert gradient is not None
    norms = dict(zip(golden["train_grad_keys"], golden["train_grad_norm"], strict=True))
    expected = norms["encoder.layers.0.fc1.weight"] / frames
    assert float(gradient.norm()) == pytest.approx(expected, rel=0.15)
