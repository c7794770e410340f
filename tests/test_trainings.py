"""What is written down of a training, and what its weights file tells."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import torch

from ecgstore.models import convert_weights, get_spec, load_encoder
from ecgstore.models.weights import read_checkpoint, write_safetensors
from ecgstore.store import Store
from ecgstore.trainings import Training, begin, finish, keep_losses, lineage, note
from ecgstore.warehouse import Warehouse

if TYPE_CHECKING:
    from pathlib import Path

TRAINING = Training(
    run_id="0a1b2c",
    kind="pretrain",
    method="stmem",
    model="stmem",
    size="tiny",
    params='{"steps": 4}',
    started_from=None,
    datasets=("mine", "ptbxl"),
    records=3,
    pieces=5,
    steps=4,
    seed=7,
    versions='{"records": 2}',
    code="1.0",
)
PARTS = {"mine/1": "train", "mine/2": "validation", "ptbxl/1": "train"}
NAMES = ("loss", "penalty")
VALUES = [[4.0, 0.5], [3.0, 0.25], [2.0, 0.5], [1.0, 0.25]]
RATES = [0.1, 0.2, 0.2, 0.1]


@pytest.fixture
def house(tmp_path: Path) -> Warehouse:
    return Warehouse.create(tmp_path / "house")


def rows(house: Warehouse, name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = house.table(name).read().to_pylist()
    return found


def test_a_run_is_there_from_its_beginning_and_told_once(house: Warehouse) -> None:
    begin(house, TRAINING, PARTS)
    (row,) = rows(house, "trainings")
    assert (row["state"], row["weights_sha256"], row["seconds"]) == ("running", None, None)
    assert (row["kind"], row["datasets"], row["steps"]) == ("pretrain", ["mine", "ptbxl"], 4)
    assert {one["record_id"]: one["part"] for one in rows(house, "trained_records")} == PARTS
    keep_losses(house, "0a1b2c", NAMES, VALUES[:2], RATES[:2])
    before = house.versions()

    begin(house, TRAINING, PARTS)  # it goes on after it was killed, from a step before the last
    keep_losses(house, "0a1b2c", NAMES, VALUES[:1], RATES[:1])
    assert house.versions() == before
    keep_losses(house, "0a1b2c", NAMES, VALUES, RATES)
    losses = {(one["step"], one["name"]): one["value"] for one in rows(house, "losses")}
    assert losses == {
        (step, name): value
        for step, told in enumerate(VALUES, start=1)
        for name, value in zip(NAMES, told, strict=True)
    }
    finish(house, TRAINING, weights_sha256="beef", seconds=2.5)
    (done,) = rows(house, "trainings")
    assert done == row | {"state": "done", "weights_sha256": "beef", "seconds": 2.5}
    before = house.versions()
    finish(house, TRAINING, weights_sha256="beef", seconds=9.0)
    assert house.versions() == before


def test_runs_are_kept_apart_in_a_warehouse_made_before_there_were_any(house: Warehouse) -> None:
    for name in ("trainings", "losses", "trained_records"):
        shutil.rmtree(house.root / name)
    for run, values in (("0a1b2c", VALUES), ("ff", VALUES[:1])):
        begin(house, replace(TRAINING, run_id=run), PARTS)
        keep_losses(house, run, NAMES, values, RATES[: len(values)])
    counts = {"0a1b2c": 0, "ff": 0}
    for one in rows(house, "losses"):
        counts[one["run_id"]] += 1
    assert counts == {"0a1b2c": 8, "ff": 2}
    assert len(rows(house, "trained_records")) == 6


def test_a_training_stands_for_what_it_read(house: Warehouse) -> None:
    read = house.versions()
    begin(house, replace(TRAINING, versions=json.dumps(read)), PARTS)
    with Store(house.root, at=TRAINING.run_id) as then, Store(house.root) as now:
        assert then.warehouse.versions() == read
        count = "select count(*) from trained_records"
        assert (then.sql(count).fetchone(), now.sql(count).fetchone()) == ((0,), (3,))


def test_a_file_tells_its_training_and_those_before(tmp_path: Path) -> None:
    spec, first = get_spec("stmem"), note(TRAINING)
    path = tmp_path / "first.safetensors"
    tensors = {"x": torch.zeros(2)}
    write_safetensors(path, tensors, settings={}, source=None, trained=first)
    checkpoint = read_checkpoint("stmem", path)
    assert checkpoint.trained == first
    assert lineage(spec, None) == {"runs": [], "datasets": [], "before": [], "licences": []}
    later = replace(TRAINING, run_id="ff", datasets=("ptbxl", "other"))
    told = note(later, lineage(spec, checkpoint))
    assert told["runs"] == ["0a1b2c", "ff"]
    assert told["datasets"] == ["mine", "ptbxl", "other"]
    assert (told["before"], told["licences"]) == ([], [])
    plain = tmp_path / "plain.safetensors"
    write_safetensors(plain, tensors, settings={}, source="beef")
    published = read_checkpoint("stmem", plain)
    assert published.trained == {}
    assert lineage(spec, published, also=["ptbxl"])["before"] == [*spec.pretraining, "ptbxl"]
    assert note(later, lineage(spec, published))["licences"] == [spec.licence]
    untold = lineage(replace(spec, pretraining=()), published)["before"]
    assert len(untold) == 1, "what nobody has published is not nothing"


def test_an_encoder_and_its_converted_copy_tell_the_training(tmp_path: Path) -> None:
    from ecgstore.models.model import models

    model = models.get("stmem.tiny")
    assert model.untrained is not None
    path, copy = tmp_path / "own.safetensors", tmp_path / "copy.safetensors"
    settings = model.untrained.settings()
    write_safetensors(
        path, model.untrained.untrained(0), settings=settings, source=None, trained=note(TRAINING)
    )
    assert load_encoder("stmem.tiny", device="cpu").trained == {}
    encoder = load_encoder("stmem.tiny", weights=path, device="cpu")
    assert encoder.trained == note(TRAINING)
    convert_weights("stmem.tiny", path, copy)
    assert load_encoder("stmem.tiny", weights=copy, device="cpu").trained == note(TRAINING)
