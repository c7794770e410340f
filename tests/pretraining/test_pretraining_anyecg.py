"""AnyECG's two stages: codes that tell their second, and an encoder that names hidden ones."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from ecgstore import signal as on_host
from ecgstore.catalog import Catalog
from ecgstore.errors import UsageError, WeightsError
from ecgstore.models import load_encoder, tensor_signal
from ecgstore.models.anyecg import SIZES, AnyEcgConfiguration, AnyEcgEncoder
from ecgstore.models.rhythm_codes import FREQUENCIES, TokeniserSize
from ecgstore.models.weights import read_checkpoint, write_safetensors
from ecgstore.pretraining.anyecg import AnyEcgCodes, CodePredictor, masked_code_loss
from ecgstore.pretraining.anyecg_tokeniser import AnyEcgTokeniser
from ecgstore.pretraining.method import Batch, Draws
from ecgstore.pretraining.ranks import Ranks
from ecgstore.record import LEADS
from ecgstore.warehouse import Warehouse

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from ecgstore.pretraining.anyecg_stage import AnyEcgMethod

SMALL = AnyEcgConfiguration(
    replace(SIZES["tiny"], depth=2),
    TokeniserSize(replace(SIZES["tiny"], depth=1), codes=48, code_dim=16),
)
THREE = (0, 1, 7)
SECONDS = 10


def beats(items: int, seed: int = 0) -> torch.Tensor:
    """Return three leads of spikes at rates and heights of their own, each lead standardised."""
    rng = np.random.default_rng(seed)
    time = np.arange(300 * SECONDS) / 300
    period = rng.uniform(0.6, 1.2, (items, 1, 1))
    phase = (time / period + rng.uniform(size=(items, 1, 1))) % 1 - 0.5
    width = rng.uniform(0.02, 0.2, (items, 3, 1))
    x = np.exp(-((phase * period / width) ** 2) * 4) * rng.choice([-1, 1], (items, 3, 1))
    x = (x - x.mean(-1, keepdims=True)) / x.std(-1, keepdims=True)
    return torch.from_numpy(x).float()


def people(items: int) -> torch.Tensor:
    """Return ages and sexes, and no weights; of the first nothing is known."""
    rng = np.random.default_rng(1)
    facts = np.full((items, 3), np.nan, np.float32)
    facts[:, 0], facts[:, 2] = rng.uniform(20, 90, items), rng.integers(0, 2, items)
    facts[0] = np.nan
    return torch.from_numpy(facts)


def batch_of(x: torch.Tensor, draws: Draws | None = None) -> Batch:
    return Batch(x, THREE, torch.arange(len(x)), people(len(x)), draws or Draws())


def first_stage() -> AnyEcgTokeniser:
    method = AnyEcgTokeniser(SMALL)
    method.start(0)
    return method


def write(path: Path, method: AnyEcgMethod) -> Path:
    tensors = {key: x.clone() for key, x in method.published(method.state_dict()).items()}
    write_safetensors(path, tensors, settings=SMALL.settings(), source="")
    return path


def second_stage(path: Path) -> AnyEcgCodes:
    """Return the second stage as it goes on from a file."""
    method = AnyEcgCodes(SMALL)
    method.start(1)
    method.take(read_checkpoint("anyecg", path))
    return method


def train(
    method: AnyEcgMethod, batches: Callable[[int], Batch], steps: int, *, rate: float
) -> list[float]:
    optimiser = torch.optim.AdamW(method.groups(method.recipe), lr=rate)
    losses = []
    method.train()
    for step in range(steps):
        loss = method(batches(step), Ranks())["loss"]
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        method.stepped((step + 1) / steps)
        losses.append(loss.item())
    return losses


# ------------------------------------------------------------------ the first stage


def test_the_first_stage_learns_and_keeps_its_codes_in_use() -> None:
    method, batch = first_stage(), batch_of(beats(3))
    method.observe([batch])
    first = method(batch, Ranks())
    losses = train(method, lambda _: batch, 22, rate=1e-3)
    last = method.eval()(batch, Ranks())
    assert np.mean(losses[-3:]) < 0.85 * np.mean(losses[:3])
    assert last["morphology"] < 0.9 * first["morphology"]
    assert last["codes"] > 8
    terms = ("morphology", "frequency", "demography", "codebook", "commitment")
    assert sum(last[term].item() for term in terms) == pytest.approx(last["loss"].item())


def test_a_code_that_nothing_uses_is_put_on_a_token() -> None:
    method, batch = first_stage(), batch_of(beats(2))
    codes = method.tokeniser.quantiser.codes
    with torch.no_grad():
        codes.copy_(torch.ones_like(codes))
        codes[0] = -1
        method(batch, Ranks())
        before = codes.clone()
        for _ in range(20):
            assert torch.equal(codes, before)
            method(batch, Ranks())
            method.stepped(0.5)
        # At most two codes differ in direction, so at most two had any tokens.
        assert (codes == before).all(1).sum() <= 2
        assert method(batch, Ranks())["codes"] > 8


def test_scales_are_those_of_what_is_trained_on() -> None:
    method, parts = first_stage(), beats(6).chunk(2)
    method.observe([batch_of(part) for part in parts])
    known = people(3)[1:]
    age, weight, sex = method.views.demography
    deviation, mean = torch.std_mean(known[:, 0], correction=0)
    assert age.tolist() == pytest.approx([mean.item(), deviation.item()])
    assert weight.tolist() == [0, 1]
    assert sex[0] == known[:, 2].mean()
    wanted = method.views.wanted(torch.cat(parts), people(6))
    for array in wanted.frequency.split_with_sizes(FREQUENCIES, -1):
        assert array.mean().item() == pytest.approx(0, abs=1e-4)
        assert array.std().item() == pytest.approx(1, abs=1e-3)
    assert wanted.demography[0].isnan().all()


def test_gradients_reach_all_of_the_first_stage() -> None:
    method = first_stage()
    method(batch_of(beats(2)), Ranks())["loss"].backward()
    for name, one in method.named_parameters():
        assert one.grad is not None, name
        assert one.grad.any(), name


def test_age_weight_and_sex_are_asked_of_the_tables(tmp_path: Path) -> None:
    import pyarrow as pa

    warehouse = Warehouse.create(tmp_path / "w")
    rows = {"record_id": ["a", "b"], "age": [60.0, None], "sex": ["female", None]}
    warehouse.append("records", pa.table(rows), command="test")
    rows = {"record_id": ["b", "b"], "name": ["weight", "qt"], "value": [71.0, 400.0]}
    warehouse.append("measurements", pa.table(rows), command="test")
    columns = ", ".join(f"({one})::double" for one in AnyEcgTokeniser.columns)
    with Catalog(warehouse.relations()) as catalog:
        found = catalog.table(f"select {columns} from records order by record_id")
    assert [tuple(row.values()) for row in found.to_pylist()] == [
        (60.0, None, 0.0),
        (None, 71.0, None),
    ]


# ------------------------------------------------------------------ the second stage


@pytest.fixture(scope="module")
def tokeniser_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    method = first_stage()
    method.observe([batch_of(beats(4))])
    return write(tmp_path_factory.mktemp("weights") / "tokeniser.safetensors", method)


def drawn(method: AnyEcgCodes, items: int, seed: int = 0) -> Draws:
    return method.draw(items, len(THREE), torch.Generator().manual_seed(seed))


def test_the_second_stage_learns_the_frozen_codes(tokeniser_file: Path, tmp_path: Path) -> None:
    method, x = second_stage(tokeniser_file), beats(6)
    method.observe([])
    frozen = {key: x.clone() for key, x in method.state_dict().items() if "tokeniser" in key}
    losses = train(method, lambda step: batch_of(x, drawn(method, 6, step)), 20, rate=3e-3)
    assert np.mean(losses[-5:]) < 0.8 * np.mean(losses[:3])
    assert all(torch.equal(method.state_dict()[key], one) for key, one in frozen.items())
    encoder = load_encoder(
        "anyecg",
        weights=write(tmp_path / "both.safetensors", method),
        device="cpu",
        precision="fp32",
    )
    assert isinstance(encoder, AnyEcgEncoder)
    names = [LEADS[lead] for lead in THREE]
    with torch.no_grad():
        np.testing.assert_array_equal(encoder.codes(x.numpy(), leads=names), method.codes(x, THREE))
        tokens = method.network.encoder.norm(method.network.encoder(x, THREE)).mean(1)
    np.testing.assert_allclose(encoder.embed(x.numpy(), leads=names), tokens, rtol=0, atol=1e-5)


def test_gradients_reach_the_encoder_and_its_head_alone(tokeniser_file: Path) -> None:
    method = second_stage(tokeniser_file)
    method(batch_of(beats(2), drawn(method, 2)), Ranks())["loss"].backward()
    for name, one in method.named_parameters():
        trained = name.startswith(("network.encoder.", "predictor."))
        assert (one.grad is not None and bool(one.grad.any())) == trained, name


def test_as_many_are_hidden_in_each_record(tokeniser_file: Path) -> None:
    method, x = second_stage(tokeniser_file), beats(4)
    draws = drawn(method, 4)
    assert draws.each["noise"].shape == (4, 30)
    whole = method(batch_of(x, draws), Ranks())
    halves = [
        method(batch_of(x[part], draws.of(part)), Ranks()) for part in (slice(0, 2), slice(2, 4))
    ]
    for term, value in whole.items():
        mean = np.mean([half[term].item() for half in halves])
        assert mean == pytest.approx(value.item(), abs=1e-5), term
    # As nothing was learned yet, each code is about as likely as another.
    assert whole["loss"].item() == pytest.approx(np.log(48), abs=0.3)


def test_the_second_stage_must_not_see_what_it_names(tokeniser_file: Path) -> None:
    network = second_stage(tokeniser_file).network.eval()
    torch.manual_seed(0)
    predictor = CodePredictor(64, 48)
    x, leads = beats(2)[:, :2, :900], (0, 1)
    masked = torch.zeros(2, 2, 3, dtype=torch.bool)
    masked[0, 1, 2] = masked[1, 0, 0] = True
    assert network.tokeniser is not None
    with torch.no_grad():
        codes = network.tokeniser(x, leads).number.reshape(masked.shape)
        logits = predictor(network.encoder, x, leads, masked)
        hidden = x.clone()
        hidden[0, 1, 600:] = hidden[1, 0, :300] = 7.0
        same = predictor(network.encoder, hidden, leads, masked)
        np.testing.assert_allclose(same, logits, rtol=0, atol=1e-6)
        assert (predictor(network.encoder, -x, leads, masked) - logits).abs().max() > 1e-4
        chance = functional.log_softmax(logits, -1)
    expected = -chance[0, 1, 2, codes[0, 1, 2]] - chance[1, 0, 0, codes[1, 0, 0]]
    loss = masked_code_loss(logits, codes, masked)
    assert loss.item() == pytest.approx(expected.item(), abs=1e-5)


# ------------------------------------------------------------------ files


def test_a_second_stage_needs_the_file_of_a_first(tokeniser_file: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="trained tokeniser") as caught:
        AnyEcgCodes(SMALL).observe([])
    assert "anyecg.tokeniser" in (caught.value.hint or "")
    bare = tmp_path / "encoder.safetensors"
    tensors = AnyEcgConfiguration(SMALL.encoder).untrained(0)
    write_safetensors(bare, tensors, settings={"heads": 4}, source="")
    for kind in (AnyEcgCodes, AnyEcgTokeniser):
        with pytest.raises(UsageError, match="no tokeniser") as caught:
            kind.of("tiny", {}, read_checkpoint("anyecg", bare))
        assert "anyecg.tokeniser" in (caught.value.hint or "")
    with pytest.raises(UsageError, match="trained tokeniser"):
        AnyEcgCodes(SMALL).take(read_checkpoint("anyecg", bare))
    with pytest.raises(WeightsError, match="no encoder") as refused:
        load_encoder("anyecg", weights=tokeniser_file)
    assert "second stage" in (refused.value.hint or "")


def test_going_on_from_either_stage(tokeniser_file: Path, tmp_path: Path) -> None:
    codes = second_stage(tokeniser_file)
    both = read_checkpoint("anyecg", write(tmp_path / "both.safetensors", codes))
    again = AnyEcgCodes.of("base", {}, both)
    again.start(5)
    assert again.take(both) == ()
    assert all(torch.equal(one, again.state_dict()[key]) for key, one in codes.state_dict().items())
    first = AnyEcgTokeniser.of("base", {}, both)
    first.start(5)
    assert first.take(both) == ()
    scales = first.views.frequency.clone()
    first.observe([batch_of(beats(2, seed=3))])
    assert torch.equal(first.views.frequency, scales)
    assert torch.equal(first.tokeniser.quantiser.codes, codes.network.tokeniser.quantiser.codes)  # type: ignore[union-attr]


def test_a_first_stage_of_a_size_has_its_encoder_beside_it(tmp_path: Path) -> None:
    tiny = AnyEcgTokeniser.of("tiny", {})
    tiny.start(0)
    path = tmp_path / "tiny.safetensors"
    tensors = tiny.published(tiny.state_dict())
    write_safetensors(path, tensors, settings=tiny.configuration.settings(), source="")
    second = AnyEcgCodes.of("base", {}, read_checkpoint("anyecg", path))
    assert second.configuration == tiny.configuration == AnyEcgCodes.sizes["tiny"]
    with pytest.raises(WeightsError, match="no size"):
        AnyEcgCodes.of("base", {}, read_checkpoint("anyecg", write(tmp_path / "s", first_stage())))


# ------------------------------------------------------------------ windows and settings


@pytest.mark.parametrize("variant", ["denoised", "raw"])
def test_windows_are_those_that_are_embedded(variant: str) -> None:
    signal = np.random.default_rng(0).standard_normal((2, 3, 2570)).cumsum(-1)
    signal[1, 2] = 0.5
    method = AnyEcgTokeniser(SMALL, {"variant": variant})
    encoder = load_encoder(f"anyecg.tiny:{variant}", device="cpu", precision="fp32")
    names = [LEADS[lead] for lead in THREE]
    wanted = [encoder.prepare(one, rate_hz=257, leads=names)[0] for one in signal]
    ready = method.windows(signal, 257, on_host, Draws())
    assert ready.shape == (2, 3, 3000)
    np.testing.assert_allclose(ready, np.stack(wanted), rtol=0, atol=1e-5)
    same = method.windows(torch.from_numpy(signal), 257, tensor_signal, Draws())
    np.testing.assert_allclose(same, ready, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("kind", "settings", "match"),
    [
        (AnyEcgTokeniser, {"variant": "long"}, "variant 'long'"),
        (AnyEcgCodes, {"masked": 0.0}, "masked tokens"),
        (AnyEcgTokeniser, {"masked": 0.5}, "no setting"),
    ],
)
def test_settings_that_make_no_sense(
    kind: type[AnyEcgMethod], settings: dict[str, Any], match: str
) -> None:
    with pytest.raises(UsageError, match=match):
        kind(SMALL, settings)
