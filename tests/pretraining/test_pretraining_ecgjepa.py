"""ECG-JEPA's pretraining against the values its original implementation computes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from ecgstore import signal as on_host
from ecgstore.errors import UsageError, WeightsError
from ecgstore.models import load_encoder, tensor_signal
from ecgstore.models.ecgjepa import EcgJepaConfiguration
from ecgstore.models.weights import read_checkpoint, write_safetensors
from ecgstore.pretraining.ecgjepa import EcgJepaMethod, draw_mask
from ecgstore.pretraining.method import Batch, Draws, methods
from ecgstore.pretraining.ranks import Ranks
from ecgstore.record import LEADS as TWELVE

if TYPE_CHECKING:
    from pathlib import Path

    Arrays = dict[str, np.ndarray[Any, Any]]

TOLERANCE = 5e-5
GOLDEN = EcgJepaConfiguration(dim=32, depth=3, heads=4, hidden=128)
PREDICTOR = {"predictor_depth": 2, "predictor_heads": 2}
LEADS = tuple(range(8))


@pytest.fixture(scope="module")
def folder(test_data: Path) -> Path:
    return test_data / "goldens" / "ecgjepa_tiny"


@pytest.fixture(scope="module")
def golden(folder: Path) -> Arrays:
    with np.load(folder / "pretrain_step.npz") as arrays:
        return dict(arrays)


@pytest.fixture(scope="module")
def inputs(folder: Path) -> Arrays:
    with np.load(folder / "inputs.npz") as arrays:
        return dict(arrays)


def published_state(folder: Path) -> dict[str, torch.Tensor]:
    """Return the three dictionaries of the published file as one, a prefix for each part."""
    parts = torch.load(folder / "pretrain_state.pth", weights_only=True)
    names = {"encoder": "", "target_encoder": "target_encoder.", "predictor": "predictor."}
    return {
        prefix + key: tensor
        for part, prefix in names.items()
        for key, tensor in parts[part].items()
    }


def golden_method(folder: Path, tmp_path: Path, **settings: Any) -> EcgJepaMethod:
    path = tmp_path / "golden.safetensors"
    write_safetensors(path, published_state(folder), settings={"heads": 4}, source="")
    method = EcgJepaMethod(GOLDEN, {**PREDICTOR, **settings})
    method.start(0)
    assert method.take(read_checkpoint("ecgjepa", path)) == ()
    return method


def tiny(**settings: Any) -> EcgJepaMethod:
    method = EcgJepaMethod(EcgJepaConfiguration(dim=16, depth=2, heads=2, hidden=32), settings)
    method.start(0)
    return method


SMALL = {"predictor_depth": 1, "predictor_heads": 2}


def batch_of(windows: torch.Tensor, draws: Draws) -> Batch:
    items = len(windows)
    return Batch(windows, LEADS, torch.arange(items), torch.empty(items, 0), draws)


def close(ours: torch.Tensor, golden: object) -> None:
    np.testing.assert_allclose(ours.detach(), np.asarray(golden), rtol=0, atol=TOLERANCE)


def test_a_step_of_the_original(
    folder: Path, tmp_path: Path, golden: Arrays, inputs: Arrays
) -> None:
    method = golden_method(folder, tmp_path, drop_path=0.0)
    x, mask = torch.from_numpy(inputs["x"]), torch.from_numpy(golden["mask"])
    hidden, seen = mask.nonzero()[:, 0], (~mask).nonzero()[:, 0]
    with torch.no_grad():
        close(method.target.norm(method.target(x, LEADS)).flatten(1, 2), golden["target_tokens"])
        targets = method.targets(x, LEADS)[:, :, hidden]
        close(targets.flatten(1, 2), golden["target_masked_normalised"])
        context = method.context(x, LEADS, seen)
        close(context.flatten(1, 2), golden["context_tokens"])
        told = method.predictor(context.flatten(0, 1), seen, hidden).unflatten(0, (2, 8))
        close(told.flatten(1, 2), golden["predictor_out"])
        close(told[:, :, len(seen) :].flatten(1, 2), golden["predicted_masked"])
    batch = batch_of(x, Draws(shared={"mask": mask}))
    close(method(batch, Ranks())["loss"], golden["loss"])


def test_a_file_it_wrote_is_the_one_it_read(folder: Path, tmp_path: Path, inputs: Arrays) -> None:
    method = golden_method(folder, tmp_path)
    written = method.published(method.state_dict())
    expected = published_state(folder)
    assert written.keys() == expected.keys()
    assert all(torch.equal(written[key], expected[key]) for key in expected)
    encoder = load_encoder(
        "ecgjepa", weights=tmp_path / "golden.safetensors", device="cpu", precision="fp32"
    )
    with torch.no_grad():
        x = torch.from_numpy(inputs["x"])
        live = method.network.norm(method.network(x, LEADS)).mean((1, 2))
    np.testing.assert_allclose(encoder.embed(inputs["x"]), live, rtol=0, atol=1e-6)


def test_going_on_from_an_encoder_alone(folder: Path) -> None:
    method = EcgJepaMethod(GOLDEN, PREDICTOR)
    method.start(0)
    lacking = method.take(read_checkpoint("ecgjepa", folder / "checkpoint.pth"))
    assert {key.partition(".")[0] for key in lacking} == {"target_encoder", "predictor"}
    assert torch.equal(method.target.norm.weight, method.network.norm.weight)
    other = EcgJepaMethod(EcgJepaConfiguration(dim=32, depth=2, heads=4, hidden=128), PREDICTOR)
    with pytest.raises(WeightsError, match="unexpected"):
        other.take(read_checkpoint("ecgjepa", folder / "checkpoint.pth"))


def test_positions_of_the_predictor_are_those_of_the_original(folder: Path) -> None:
    method = EcgJepaMethod(GOLDEN, PREDICTOR)
    method.start(0)
    state, original = method.published(method.state_dict()), published_state(folder)
    for key in ("pos_embed", "predictor.pos_embed"):
        close(state[key], original[key])


def test_multi_block_masks() -> None:
    generator = torch.Generator().manual_seed(0)
    masks = torch.stack([draw_mask(50, "multi-block", generator) for _ in range(500)])
    hidden = masks.sum(1)
    assert hidden.min() >= 8
    assert hidden.max() <= 44
    # Four blocks of 8 to 11 each: no stretch that is hidden can be shorter than 8 patches.
    edges = torch.nn.functional.pad(masks.int(), (1, 1)).diff(dim=1)
    starts, ends = ((edges == way).nonzero()[:, 1] for way in (1, -1))
    assert (ends - starts).min() == 8
    assert masks.any(0).sum() >= 49  # the last patch lies in no block: a start has room behind it


def test_random_masks() -> None:
    generator = torch.Generator().manual_seed(0)
    masks = torch.stack([draw_mask(50, "random", generator) for _ in range(300)])
    assert set(masks.sum(1).tolist()) == {30, 31, 32, 33, 34}
    share = masks.float().mean(0)
    assert ((share > 0.5) & (share < 0.76)).all()


def test_all_that_is_random_is_drawn() -> None:
    method = tiny(**SMALL)
    x = torch.randn(4, 8, 2500, generator=torch.Generator().manual_seed(1))
    draws = method.draw(4, 8, torch.Generator().manual_seed(2))
    first, again = (method(batch_of(x, draws), Ranks())["loss"].item() for _ in range(2))
    assert first == again
    # Two processes with half of the items each have what one has with all of them.
    halves = [
        method(batch_of(x[part], draws.of(part)), Ranks())["loss"].item()
        for part in (slice(0, 2), slice(2, 4))
    ]
    assert np.mean(halves) == pytest.approx(first, abs=1e-6)
    other = method.draw(4, 8, torch.Generator().manual_seed(3))
    assert method(batch_of(x, other), Ranks())["loss"].item() != first


def test_branches_are_skipped_more_often_the_deeper() -> None:
    method = tiny(**SMALL, drop_path=0.5)
    x = torch.randn(2, 8, 2500, generator=torch.Generator().manual_seed(1))
    paths = torch.full((2, 2, 2), 0.4)
    paths[1, 1] = 0.6
    seen = torch.arange(30)
    with torch.no_grad():
        plain = method.context(x, LEADS, seen)
        kept = method._kept(Draws(each={"paths": paths}))
        assert kept is not None
        # The first block skips nothing; the last one's branches weigh double where they are kept.
        assert kept.tolist() == [[[1, 1], [0, 0]], [[1, 1], [2, 2]]]
        skipped = method.context(x, LEADS, seen, kept)
    assert (skipped - plain).abs().amax((1, 2, 3)).min() > 1e-3


def test_gradients_reach_what_is_trained_and_nothing_else() -> None:
    method = tiny(**SMALL)
    draws = method.draw(2, 8, torch.Generator().manual_seed(2))
    method(batch_of(torch.randn(2, 8, 2500), draws), Ranks())["loss"].backward()
    for name, one in method.named_parameters():
        fixed = name.startswith("target.") or name == "network.pos_embed"
        assert (one.grad is None) == fixed, name
        assert fixed or bool(one.grad.any()), name  # type: ignore[union-attr]


def test_the_average_follows_more_and_more_slowly() -> None:
    method = tiny(**SMALL)
    was = method.target.norm.weight.clone()
    torch.nn.init.zeros_(method.network.norm.weight)
    method.stepped(0.5)
    torch.testing.assert_close(method.target.norm.weight, was * 0.998)
    method.stepped(1.0)
    torch.testing.assert_close(method.target.norm.weight, was * 0.998)


def test_it_learns() -> None:
    method = tiny(**SMALL)
    time = torch.arange(2500) / 250
    rates = torch.linspace(1, 2, 8)[:, None, None]
    x = torch.sin(2 * torch.pi * rates * time) + 0.1 * torch.arange(8)[:, None]
    x = x[::2].contiguous()
    recipe = EcgJepaMethod.recipe
    optimiser = torch.optim.AdamW(method.groups(recipe), lr=2e-3)
    generator, losses = torch.Generator().manual_seed(0), []
    for step in range(20):
        loss = method(batch_of(x, method.draw(4, 8, generator)), Ranks())["loss"]
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        method.stepped((step + 1) / 20)
        losses.append(loss.item())
    assert np.mean(losses[-4:]) < 0.8 * np.mean(losses[:2])


def test_windows_are_those_that_are_embedded(inputs: Arrays) -> None:
    signal = inputs["raw_500hz_12lead_mv"]
    encoder = load_encoder("ecgjepa.tiny", device="cpu", precision="fp32")
    rows = [TWELVE.index(lead) for lead in encoder.spec.leads]
    ready = tiny(**SMALL).windows(signal[:, rows].astype(np.float64), 500, on_host, Draws())
    wanted = [encoder.prepare(one, rate_hz=500, leads=TWELVE)[0] for one in signal]
    np.testing.assert_allclose(ready, np.stack(wanted), rtol=0, atol=1e-6)
    there = torch.from_numpy(signal[:, rows].astype(np.float64))
    same = tiny(**SMALL).windows(there, 500, tensor_signal, Draws())
    np.testing.assert_allclose(same, ready, rtol=0, atol=1e-6)


def test_recipes_and_settings() -> None:
    kind = methods.get("ecgjepa")
    assert kind.recipe_for({}).learning_rate == 5.5e-5
    random = kind.recipe_for({"masking": "random"})
    assert (random.learning_rate, random.batch_size) == (2.5e-5, 128)
    assert random.rate(0, 100) == 1e-6
    assert random.rate(5, 100) == 2.5e-5
    assert random.rate(100, 100) == 1e-6
    for settings, match in (
        ({"masking": "none"}, "multi-block or random"),
        ({"predictor_heads": 7}, "evenly"),
        ({"drop_path": 1.0}, "no share"),
    ):
        with pytest.raises(UsageError) as caught:
            tiny(**settings)
        assert match in f"{caught.value.message} {caught.value.hint}"
