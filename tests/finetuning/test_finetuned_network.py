"""The loss of finetuning, its rates, the best that is kept, and augmentation."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from ecgstore import signal as on_host
from ecgstore.errors import NotEnoughDataError
from ecgstore.finetuning.augmentation import (
    OPERATIONS,
    augmented,
    draw,
    lead_dropped,
    negated,
    noise_added,
    points_dropped,
    shifted,
    sine_added,
    stretch_dropped,
    stretch_of_sine_added,
)
from ecgstore.finetuning.network import Finetuned, Training
from ecgstore.finetuning.presets import PRESETS
from ecgstore.finetuning.validation import hold_out, measured
from ecgstore.models import load_weights
from ecgstore.models.heads import HeadConfiguration, Output
from ecgstore.pretraining.method import Batch, Draws
from ecgstore.pretraining.ranks import Ranks


def network(model: str = "ecgflow.tiny", output: Output = "binary", **more: Any) -> Finetuned:
    variant = {"ecgfm.tiny": "record_mean", "stmem.tiny": "three"}.get(model, "mimic_iv")
    head = HeadConfiguration("linear", ("A", "B"), output, variant)
    method = Finetuned(model, load_weights(model), head, Training(**more))
    method.start(0)
    return method


def batch(labels: list[list[float]], windows: int = 1) -> Batch:
    x = torch.randn(len(labels), windows, 8, 5000, generator=torch.Generator().manual_seed(1))
    records = torch.arange(len(labels))
    return Batch(x, tuple(range(8)), records, torch.tensor(labels), Draws())


NAN = float("nan")


def test_the_loss_is_over_known_labels_weighted_and_smoothed() -> None:
    method = network(smoothing=0.2, weights=[3.0, 1.0])
    given = batch([[1.0, NAN], [0.0, 1.0]], windows=2)
    loss = method(given, Ranks())["loss"]
    logits = torch.from_numpy(method.live.embed(given.windows.flatten(0, 1).numpy()))
    head = method.head
    out = (logits @ head.weight.T + head.bias).reshape(2, 2, 2)
    log, log_not = out.sigmoid().log(), (-out).sigmoid().log()
    terms = [
        -(3.0 * 0.9 * log[0, :, 0] + 0.1 * log_not[0, :, 0]),
        -(3.0 * 0.1 * log[1, :, 0] + 0.9 * log_not[1, :, 0]),
        -(0.9 * log[1, :, 1] + 0.1 * log_not[1, :, 1]),
    ]
    assert loss.item() == pytest.approx(torch.cat(terms).mean().item(), rel=1e-5)


def test_numbers_are_learned_in_their_deviations() -> None:
    method = network(output="continuous", mean=[60.0, 2.0], deviation=[10.0, 0.5])
    given = batch([[70.0, NAN], [50.0, 2.0]])
    loss = method(given, Ranks())["loss"]
    told = torch.from_numpy(method.live.classify(given.windows[:, 0].numpy()))
    off = (told - given.facts) / torch.tensor([10.0, 0.5])
    assert loss.item() == pytest.approx(off.square().nanmean().item(), rel=1e-4)


def test_lower_blocks_learn_slower_by_a_constant_factor() -> None:
    method = network("ecgfm.tiny", layer_decay=0.5, freeze="stem")
    names = {id(one): name for name, one in method.named_parameters()}
    scales = {
        names[id(one)]: group["scale"]
        for group in method.groups(PRESETS["generic"].recipe)
        for one in group["params"]
    }
    assert not any(name.startswith("network.stem.") for name in scales)
    assert scales["head.weight"] == 1
    assert scales["network.layers.1.mlp.fc1.weight"] == 0.5
    assert scales["network.layers.0.mlp.fc1.weight"] == 0.25
    assert scales["network.projection.weight"] == scales["network.norm.weight"] == 0.125
    decayed = {group["weight_decay"] for group in method.groups(PRESETS["stmem"].recipe)}
    assert decayed == {0.05}, "its decay is on all"


@pytest.mark.parametrize(
    ("freeze", "moved"),
    [
        ("all", ()),
        (1, ("encoder.layers.1.",)),
        ("stem", ("encoder.", "conv_pos.", "layer_norm.", "post_extract_proj.")),
    ],
)
def test_nothing_frozen_moves(freeze: str | int, moved: tuple[str, ...]) -> None:
    method = network("ecgfm.tiny", freeze=freeze)
    before = load_weights("ecgfm.tiny").tensors
    optimiser = torch.optim.AdamW(method.groups(PRESETS["stmem"].recipe), lr=0.01)
    x = torch.randn(2, 2, 12, 500, generator=torch.Generator().manual_seed(1))
    labels = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    given = Batch(x, tuple(range(12)), torch.arange(2), labels, Draws())
    for _ in range(2):
        optimiser.zero_grad()
        torch.autograd.backward(method(given, Ranks())["loss"])
        optimiser.step()
    after = method.published(method.state_dict())
    changed = {key for key, one in before.items() if not torch.equal(one, after[key])}
    assert bool(changed) == bool(moved)
    assert all(key.startswith(moved) for key in changed)
    assert not torch.equal(after["finetuned_head.weight"], network().head.weight)


def test_the_best_weights_are_kept_and_published() -> None:
    method = network(freeze="all")
    seen = []
    for step, loss in enumerate([0.5, 0.3, 0.4, 0.35], start=1):
        with torch.no_grad():
            method.head.bias.fill_(step)
        method.judge(step, loss, NAN, by="loss")
        seen.append(method.record["since"])
    assert seen == [0, 0, 1, 2]
    state = method.state_dict()
    assert method.published(state)["finetuned_head.bias"].tolist() == [2, 2]
    other = network(freeze="all")
    other.load_state_dict(state)
    assert other.record["best"] == 2
    assert other.published(other.state_dict())["finetuned_head.bias"].tolist() == [2, 2]


def test_patients_are_held_out_whole() -> None:
    rng = np.random.default_rng(0)
    patients = rng.integers(100, 160, 200)
    single = (rng.random((200, 1)) < 0.4).astype(np.float64)
    several = np.where(rng.random((200, 3)) < 0.3, np.nan, (rng.random((200, 3)) < 0.4) * 1.0)
    cases: list[tuple[Any, Output]] = [
        (single, "binary"),
        (several, "binary"),
        (several * 7 + rng.random((200, 3)), "continuous"),
    ]
    for labels, output in cases:
        tasks = [f"t{i}" for i in range(labels.shape[1])]
        held = hold_out(labels, patients, 0.15, seed=1, output=output, tasks=tasks)
        assert not set(patients[held]) & set(patients[~held])
        assert 0.1 < len(set(patients[held])) / len(set(patients)) < 0.2
    lonely = np.zeros((200, 1))
    lonely[patients == patients[0]] = 1
    with pytest.raises(NotEnoughDataError, match="do not give both classes of 't0'"):
        hold_out(lonely, patients, 0.15, seed=1, output="binary", tasks=["t0"])


def test_figures_of_validation() -> None:
    labels = np.array([[0, np.nan], [1, 0], [1, 0]], dtype=np.float64)
    scores = np.array([[0.2, 0.9], [0.6, 0.1], [0.1, 0.3]])
    loss, auroc = measured(labels, scores)
    assert loss == pytest.approx(-np.log([0.8, 0.6, 0.1, 0.9, 0.7]).mean())
    assert auroc == 0.5, "of the second task one class is missing"


def numbers(*values: float) -> torch.Tensor:
    return torch.tensor(values)


def test_each_operation_does_what_it_says() -> None:
    x = torch.arange(1.0, 201.0).repeat(2, 3, 1)
    half, none = numbers(0.5, 0.5), torch.zeros(2)
    noise = torch.randn(2, 3, 200, generator=torch.Generator().manual_seed(0))
    moved = shifted(x, half, numbers(0.0, 0.9), noise)
    assert torch.equal(moved[0, 0, :170], x[0, 0, 30:])
    assert torch.equal(moved[1, 0, 30:], x[1, 0, :170])
    assert moved[0, :, 170:].abs().sum() == moved[1, :, :30].abs().sum() == 0
    gone = stretch_dropped(x, half, numbers(0.0, 0.999), noise) == 0
    assert gone[0, 0].nonzero()[:, 0].tolist() == [*range(30)]
    assert gone[1, 2].nonzero()[:, 0].tolist() == [*range(170, 200)]
    points = points_dropped(x, half, none, noise) == 0
    assert (points.sum(-1) == 30).all()
    assert torch.equal(points[:, 0], points[:, 2])
    assert torch.equal(negated(x, half, half, noise), -x)
    assert (lead_dropped(x, half, numbers(0.4, 0.9), noise) == 0).all(-1).tolist() == [
        [False, True, False],
        [False, False, True],
    ]
    sine = sine_added(x, half, half, noise) - x
    assert sine.max().item() == pytest.approx(0.3, abs=1e-4)
    assert torch.allclose(sine[0, 0, :100], sine[0, 0, 100:], atol=1e-4), "two periods"
    part = stretch_of_sine_added(x, half, none, noise) - x
    assert torch.equal(part[..., 30:], torch.zeros(2, 3, 170))
    assert torch.allclose(part[..., :30], sine[..., :30], atol=1e-4)
    noisy = noise_added(x, half, none, noise) - x
    assert torch.allclose(noisy[..., :30], 0.3 * noise[..., :30], atol=1e-4)
    assert not noisy[..., 30:].any()


def test_two_operations_are_picked_and_each_is_applied_half_the_time() -> None:
    draws = draw(4000, 2, 20, torch.Generator().manual_seed(0))
    x = torch.randn(4000, 2, 20, generator=torch.Generator().manual_seed(1))
    out = augmented(x, draws)
    same = (out == x).flatten(1).all(1)
    # A shift or a stretch of less than a sample changes nothing either.
    assert 0.24 < same.float().mean().item() < 0.36
    again = augmented(x, draw(4000, 2, 20, torch.Generator().manual_seed(0)))
    assert torch.equal(out, again)
    assert len(OPERATIONS) == 8


def test_windows_of_st_mem_are_cut_at_random_and_augmented() -> None:
    method = network("stmem.tiny", augment=True)
    signal = np.random.default_rng(0).standard_normal((2, 12, 2500))
    drawn = method.draw(2, 12, torch.Generator().manual_seed(0))
    cut = method.windows(signal, 250.0, on_host, drawn)
    assert cut.shape == (2, 12, 2250)
    facts = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    x = torch.from_numpy(np.float32(cut))
    given = Batch(x, tuple(range(12)), torch.arange(2), facts, drawn)
    assert torch.isfinite(method(given, Ranks())["loss"])
