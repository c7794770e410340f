"""A lead made from the others: by the network alone, flagged, scaled honestly, drawn as such."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from ecgstore.errors import NotEnoughDataError, UnknownNameError, UsageError, WeightsError
from ecgstore.lead_repair import repair
from ecgstore.models.anyecg import SIZES, AnyEcgConfiguration
from ecgstore.models.lead_generation import LeadGenerator
from ecgstore.models.rhythm_codes import TokeniserSize
from ecgstore.models.weights import write_safetensors
from ecgstore.pretraining.anyecg import AnyEcgCodes
from ecgstore.record import COLUMNS, INVALID, LEADS
from ecgstore.statistics.reconstruction import rebuilt
from ecgstore.store import Store
from ecgstore.warehouse import Warehouse

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

GAIN, RATE_HZ = 1000.0, 100.0
TINY = AnyEcgConfiguration(
    replace(SIZES["tiny"], depth=2), TokeniserSize(replace(SIZES["tiny"], depth=1), codes=64)
)


@pytest.fixture(scope="module")
def method() -> AnyEcgCodes:
    """Return both stages as they start, which is enough to see what goes where."""
    found = AnyEcgCodes(TINY)
    found.start(0)
    return found.eval()


@pytest.fixture(scope="module")
def weights(method: AnyEcgCodes, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "anyecg.safetensors"
    tensors = method.published(method.state_dict())
    write_safetensors(path, tensors, settings=TINY.settings(), source=None)
    return path


@pytest.fixture(scope="module")
def generator(weights: Path) -> LeadGenerator:
    return LeadGenerator.load("anyecg:raw", weights=weights, device="cpu")


def counts(samples: int = 400) -> np.ndarray[Any, Any]:
    noise = np.random.default_rng(0).normal(0, 50, (12, samples)).cumsum(axis=1)
    return noise.clip(-9_000, 9_000).astype(np.int16)


@pytest.fixture
def house(tmp_path: Path) -> Warehouse:
    """Return a record that is whole, and others in which V3 is partial, flat or not there."""
    warehouse = Warehouse.create(tmp_path / "w")
    partial, flat = counts(), counts()
    partial[8, 100:150] = INVALID
    flat[8] = 77
    waves: list[dict[str, object]] = []
    records: list[dict[str, object]] = []
    for name, found, leads in [
        ("a/whole", counts(), LEADS),
        ("a/partial", partial, LEADS),
        ("a/flat", flat, LEADS),
        ("a/without", counts(), tuple(lead for lead in LEADS if lead != "V3")),
        ("a/one", counts(), ("V3",)),
    ]:
        rows = zip(COLUMNS, LEADS, found.tolist(), strict=True)
        counts_of = {column: row if lead in leads else None for column, lead, row in rows}
        scale = {"gain": [GAIN] * 12, "baseline": [0] * 12}
        waves.append({"record_id": name, **scale, **counts_of})
        records.append({"record_id": name, "rate_hz": RATE_HZ, "leads": list(leads)})
    for table, found_rows in (("waveforms", waves), ("records", records)):
        warehouse.append(table, pa.Table.from_pylist(found_rows), command="test")
    return warehouse


def test_the_network_names_hidden_codes_and_decodes_them(
    method: AnyEcgCodes, generator: LeadGenerator
) -> None:
    names = ("I", "V3", "V6")
    signal = np.random.default_rng(1).normal(size=(3, 1500)).cumsum(axis=1)
    whole = torch.from_numpy(generator.encoder.prepare(signal, rate_hz=300, leads=names))
    others = generator.encoder.prepare(signal[[0, 2]], rate_hz=300, leads=["I", "V6"])
    made = generator.generate(others, ["I", "V6"], "V3")
    masked = torch.zeros(1, 3, 5, dtype=torch.bool)
    masked[:, 1] = True
    with torch.inference_mode():
        logits = method.predictor(method.network.encoder, whole, [0, 8, 11], masked)
        known = method.codes(whole[:, [0, 2]], [0, 11])
        codes = torch.stack([known[:, 0], logits[:, 1].argmax(-1), known[:, 1]], dim=1)
        vectors = method.network.tokeniser.quantiser.codes[codes.flatten(1)]  # type: ignore[union-attr]
        expected = method.views.decoder(vectors, 3).morphology[:, 5:10].flatten(1)
    np.testing.assert_allclose(made, expected, atol=1e-5)
    with pytest.raises(UsageError, match="'I' cannot be made from I, V6"):
        generator.generate(others, ["I", "V6"], "I")


def test_what_was_measured_of_the_lead_gives_the_scale_and_nothing_else(
    house: Warehouse, generator: LeadGenerator
) -> None:
    done = {
        name: repair(house, generator, f"a/{name}", "v3")
        for name in ("whole", "partial", "flat", "without")
    }
    own = counts()[8] / GAIN
    for one in done.values():
        assert (one.lead, one.rate_hz, one.signal.shape) == ("V3", 300.0, (1200,))
    shapes = [one.signal - one.signal.mean() for one in done.values()]
    for shape in shapes[1:]:
        np.testing.assert_allclose(shape / shape.std(), shapes[0] / shapes[0].std(), atol=1e-3)
    assert done["whole"].scale.startswith("its own: ")
    assert done["partial"].scale == done["whole"].scale
    assert done["flat"].scale == done["without"].scale
    assert done["flat"].scale.startswith("of the other leads: ")
    # Nothing is filtered here, so one unit of what the model is fed is the lead's own deviation.
    made = generator.generate(
        generator.encoder.prepare(
            np.delete(counts(), 8, axis=0) / GAIN,
            rate_hz=RATE_HZ,
            leads=[lead for lead in LEADS if lead != "V3"],
        ),
        [lead for lead in LEADS if lead != "V3"],
        "V3",
    )[0, :1200]
    fitted = np.polyfit(made, done["whole"].signal, 1)
    assert fitted == pytest.approx([own.std(), own.mean()], rel=0.05)
    others = np.median(np.delete(counts(), 8, axis=0).std(axis=1)) / GAIN
    assert np.polyfit(made, done["flat"].signal, 1) == pytest.approx(
        [others, 0], rel=0.05, abs=0.01
    )


def test_how_near_it_is_can_be_told_only_where_all_was_measured(
    house: Warehouse, generator: LeadGenerator
) -> None:
    done = repair(house, generator, "a/whole", "V3", dry_run=True)
    fed = generator.encoder.prepare(counts()[8:9] / GAIN, rate_hz=RATE_HZ, leads=["V3"])[0, 0]
    assert done.metrics == pytest.approx(rebuilt(fed, done.signal), rel=1e-4)
    assert house.files("reconstructions") == []
    for name in ("partial", "without"):
        metrics = repair(house, generator, f"a/{name}", "V3", dry_run=True).metrics
        assert metrics == {"psnr_db": None, "ssim": None, "mae": None}


def test_it_is_kept_apart_and_made_once(house: Warehouse, generator: LeadGenerator) -> None:
    before = house.table("waveforms").version
    first = repair(house, generator, "a/whole", "V3")
    again = repair(house, generator, "a/whole", "V3")
    assert (first.existing, again.existing) == (False, True)
    np.testing.assert_array_equal(first.signal, again.signal)
    assert first.row == again.row | {"existing": False}
    (row,) = house.table("reconstructions").read().to_pylist()
    assert (row["record_id"], row["lead"], row["model"]) == ("a/whole", "V3", "anyecg")
    assert row["version"] == generator.encoder.version
    assert house.table("models").read()["version"].to_pylist() == [generator.encoder.version]
    assert repair(house, generator, "a/whole", "V3", overwrite=True).existing is False
    assert house.table("waveforms").version == before


def test_what_cannot_be_done_is_said(
    house: Warehouse, generator: LeadGenerator, weights: Path, tmp_path: Path
) -> None:
    with pytest.raises(UnknownNameError, match="Unknown lead 'V7'"):
        repair(house, generator, "a/whole", "V7")
    with pytest.raises(UnknownNameError, match="Unknown record 'a/hole'"):
        repair(house, generator, "a/hole", "V3")
    with pytest.raises(NotEnoughDataError, match="No lead of 'a/one' besides V3 is whole"):
        repair(house, generator, "a/one", "V3")
    with pytest.raises(UsageError, match=r"'ecgfm\.tiny' cannot make leads"):
        LeadGenerator.load("ecgfm.tiny", weights=None, device="cpu")
    with pytest.raises(UsageError, match="a way to make vectors"):
        LeadGenerator.load("anyecg:long", weights=weights, device="cpu")
    with pytest.raises(WeightsError, match="untrained and has no decoder") as caught:
        LeadGenerator.load("anyecg.tiny", weights=None, device="cpu")
    assert "pretrain anyecg" in str(caught.value.hint)


def test_a_file_that_lacks_a_part_is_refused(method: AnyEcgCodes, tmp_path: Path) -> None:
    every = method.published(method.state_dict())
    for prefix, what in [
        ("tokeniser.", "the tokeniser"),
        ("pretraining.decoder.", "the decoder of the first stage"),
        ("pretraining.head.", "the head that names hidden codes"),
        ("pretraining.mask_token", "the vector that hides tokens"),
    ]:
        path = tmp_path / f"{prefix}safetensors"
        kept = {key: tensor for key, tensor in every.items() if not key.startswith(prefix)}
        write_safetensors(path, kept, settings=TINY.settings(), source=None)
        with pytest.raises(WeightsError, match=f"does not hold {what}"):
            LeadGenerator.load("anyecg", weights=path, device="cpu")


def test_the_command_draws_what_it_made_in_words_and_colour(
    house: Warehouse, weights: Path, run: Callable[..., Any], tmp_path: Path
) -> None:
    out = tmp_path / "repaired.svg"
    words = ("repair", "a/whole", "--lead", "V3", "--weights", weights, "--device", "cpu")
    done = run("-w", house.root, *words, "-o", out, "--json")
    assert done.code == 0, done.err
    (row,) = json.loads(done.out)
    assert (row["lead"], row["existing"], row["seconds"]) == ("V3", False, 4.0)
    assert 0 <= row["mae"] <= 1
    assert "V3 is reconstructed, not measured" in done.err
    plain = tmp_path / "plain.svg"
    with Store(house.root) as store:
        store.read("a/whole").plot(plain, title="a/whole")
        # A lead that the record lacks is drawn among the twelve, where there is nothing else.
        store.repair("a/without", lead="V3", weights=weights, device="cpu", out=tmp_path / "b.png")
    assert "#1f5fbf" in out.read_text()
    assert "#1f5fbf" not in plain.read_text()
    assert (tmp_path / "b.png").read_bytes().startswith(b"\x89PNG")
