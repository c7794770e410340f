"""Whether a model has seen a dataset in pretraining; what is not known is never clean."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest

from ecgstore.catalog import Catalog
from ecgstore.corpora import CORPORA, DATASETS
from ecgstore.datasets import datasets
from ecgstore.errors import UsageError
from ecgstore.leakage import (
    cautions,
    datasets_of,
    declare,
    leaked,
    marks,
    register_pretraining,
    summary,
)
from ecgstore.models import list_models
from ecgstore.models.spec import ModelSpec, Variant
from ecgstore.store import Store
from ecgstore.trainings import Training, begin, lineage, note
from ecgstore.warehouse import Warehouse

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path


def spec(name: str, *pretraining: str) -> ModelSpec:
    return ModelSpec(
        name=name,
        arch=name,
        summary="A model.",
        rate_hz=500,
        window_s=10,
        leads=("I",),
        missing_leads="zero",
        variants=(Variant("", "mV", "none", (), "none", "one", ()),),
        readouts=("embedding",),
        dim=1,
        licence="MIT",
        licence_note=None,
        citations=("Who: Title. 2024, arXiv:2401.00001.",),
        weights_source=None,
        pretraining=pretraining,
    )


PUBLISHED = {
    "ecgfm": ("MIMIC-IV-ECG", "PhysioNet 2021"),
    "stmem": ("Chapman-Shaoxing", "Ningbo", "CODE-15%"),
    "ecgjepa": ("Chapman-Shaoxing", "Ningbo", "CODE-15%"),
    "ecgfounder": ("HEEDB",),
    "ecgflow": ("MIMIC-IV-ECG",),
    "stranger": (),
    "other": ("Somebody's archive",),
}


@pytest.fixture
def house(tmp_path: Path) -> Warehouse:
    """Return a warehouse in which every model of `PUBLISHED`, and an untrained one, embedded."""
    house = Warehouse.create(tmp_path / "warehouse")
    for name, pretraining in PUBLISHED.items():
        rows = register_pretraining(house, spec(name, *pretraining), "weights.pt")
        assert (rows is None) == (not pretraining)
        if rows is not None:
            house.append("pretraining", rows, command="embed")
    key = {"version": ["v1"] * 2, "pooling": ["embedding"] * 2}
    sources = {"model": ["mini", "ecgfm"], "source": ["untrained (seed 0)", "weights.pt"]}
    house.append("models", pa.table(sources | key), command="embed")
    assert register_pretraining(house, spec("mini", "HEEDB"), "untrained (seed 0)") is None
    return house


def told(house: Warehouse, model: str, names: Sequence[str]) -> dict[str, str]:
    with Catalog(house.relations()) as catalog:
        return {mark.dataset: mark.status for mark in marks(catalog, [model], names)}


def test_the_register_knows_every_dataset_and_every_corpus_of_a_model() -> None:
    assert set(DATASETS) == set(datasets)
    named = {corpus for one in list_models() for corpus in one.pretraining}
    assert named <= set(CORPORA)
    assert all(corpus.source for corpus in CORPORA.values())


# What the publications say of the models' data.
@pytest.mark.parametrize(
    ("model", "seen", "clean"),
    [
        ("ecgfm", "challenge2021 chapman cpsc2018 mimic-iv-ecg ptb ptbxl", "code15 sph mitdb"),
        ("ecgjepa", "chapman code15 challenge2021", "ptbxl cpsc2018 mimic-iv-ecg challenge2020"),
        ("stmem", "chapman code15 challenge2021/ningbo", "ptbxl sph challenge2021/georgia"),
        ("ecgfounder", "", "ptbxl cpsc2018 chapman code15 mimic-iv-ecg challenge2021/ptb-xl"),
        ("ecgflow", "mimic-iv-ecg", "ptbxl chapman challenge2021"),
    ],
)
def test_published_models_and_datasets(house: Warehouse, model: str, seen: str, clean: str) -> None:
    wanted = dict.fromkeys(seen.split(), "seen") | dict.fromkeys(clean.split(), "clean")
    assert told(house, model, [*wanted]) == wanted


def test_what_is_not_known_is_not_clean(house: Warehouse) -> None:
    for model in ("stranger", "other", "never heard of"):
        assert set(told(house, model, ["ptbxl", "mine"]).values()) == {"unknown"}, model
    # Collected at the same hospital; nobody has published whether the records are others.
    assert told(house, "ecgfounder", ["challenge2021/georgia"]) == {
        "challenge2021/georgia": "unknown"
    }
    assert told(house, "ecgfm", ["mine", "no dataset"]) == {
        "mine": "unknown",
        "no dataset": "unknown",
    }
    assert told(house, "mini", ["ptbxl", "mine"]) == {"ptbxl": "clean", "mine": "clean"}


def test_what_users_declare_counts(house: Warehouse) -> None:
    assert declare(house, "ecgflow", "mine", "our fine-tuning") == 1
    assert declare(house, "ecgflow", "mine", "our fine-tuning") == 0
    assert declare(house, "ecgflow", "mine", "our fine-tuning of May") == 1
    assert told(house, "ecgflow", ["mine", "mimic-iv-ecg"]) == {
        "mine": "seen",
        "mimic-iv-ecg": "seen",
    }
    assert told(house, "ecgflow", ["ptbxl"]) == {"ptbxl": "unknown"}, "mine may hold records of it"
    declare(house, "stranger", "PTBXL", "its web page")
    assert told(house, "stranger", ["ptbxl", "challenge2020/ptb-xl", "sph"]) == {
        "ptbxl": "seen",
        "challenge2020/ptb-xl": "seen",
        "sph": "unknown",
    }
    declare(house, "stranger", "code-15%", "its web page")
    assert told(house, "stranger", ["sph"]) == {"sph": "clean"}
    declare(house, "mini", "sph", "trained since")
    assert told(house, "mini", ["sph", "ptbxl"]) == {"sph": "seen", "ptbxl": "unknown"}


def test_a_head_fitted_on_a_dataset_has_seen_it(house: Warehouse) -> None:
    flow = spec("ecgflow", *PUBLISHED["ecgflow"])
    rows = register_pretraining(house, flow, "ptbxl_head.safetensors", also=["ptbxl"])
    assert rows is not None
    assert rows["dataset"].to_pylist() == ["ptbxl"], "the rest is there already"
    house.append("pretraining", rows, command="embed")
    assert told(house, "ecgflow", ["ptbxl"]) == {"ptbxl": "seen"}
    assert register_pretraining(house, flow, "ssl.safetensors") is None


def test_declarations_that_say_nothing_are_refused(house: Warehouse) -> None:
    before = house.versions()
    for given in [("", "d", "s"), ("m", " ", "s"), ("m", "d", "")]:
        with pytest.raises(UsageError, match="is empty"):
            declare(house, *given)
    with pytest.raises(UsageError, match="knows no versions") as caught:
        declare(house, "ecgfm@0a1b:cls", "ptbxl", "me")
    assert caught.value.hint == "Write 'ecgfm'."
    assert house.versions() == before


def test_records_are_told_apart_by_site_where_it_matters(house: Warehouse) -> None:
    sites = ["georgia", "ningbo", "ningbo", "ptb-xl", "7", None]
    names = [*["challenge2021"] * 4, "ptbxl", None]
    ids = [f"r/{i}" for i in range(6)]
    house.append(
        "records", pa.table({"record_id": ids, "dataset": names, "site": sites}), command=""
    )
    with Catalog(house.relations()) as catalog:
        assert datasets_of(catalog, ids[:3]) == ["challenge2021/georgia", "challenge2021/ningbo"]
        assert datasets_of(catalog, ids[4:]) == ["ptbxl", "no dataset"]
        found = marks(catalog, ["ecgjepa", "ecgfm"], datasets_of(catalog, ids[:5]))
    assert summary(found) == (
        "seen: challenge2021/ningbo (ecgjepa), challenge2021 (ecgfm), ptbxl (ecgfm)"
    )
    assert cautions(found) == [
        "ecgjepa has seen challenge2021 in pretraining (Ningbo), which flatters it.",
        "ecgfm has seen challenge2021 in pretraining (PhysioNet 2021), which flatters it.",
        "ecgfm has seen ptbxl in pretraining (PhysioNet 2021), which flatters it.",
    ]
    assert summary(()) == "clean"


def test_a_warehouse_made_before_the_register(tmp_path: Path) -> None:
    house = Warehouse.create(tmp_path / "old")
    for path in sorted((house.root / "pretraining").rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    (house.root / "pretraining").rmdir()
    assert told(house, "ecgfm", ["ptbxl"]) == {"ptbxl": "unknown"}
    rows = register_pretraining(house, spec("ecgfm", "PhysioNet 2021"), "weights.pt")
    assert rows is not None
    house.append("pretraining", rows, command="embed")
    assert told(house, "ecgfm", ["ptbxl"]) == {"ptbxl": "seen"}


# ------------------------------------------------------- weights that ecgstore trained


def training(run: str, kind: str, *datasets: str) -> Training:
    return Training(
        run_id=run,
        kind=kind,
        method="stmem",
        model="stmem",
        size="tiny",
        params="{}",
        started_from=None,
        datasets=datasets,
        records=1,
        pieces=1,
        steps=1,
        seed=0,
        versions="{}",
        code="1",
    )


def embedded(house: Warehouse, version: str, told: Mapping[str, object]) -> str:
    """Let weights of such a training embed; returns the model with its version."""
    stmem = spec("stmem", *PUBLISHED["stmem"])
    rows = register_pretraining(house, stmem, "own.safetensors", version=version, trained=told)
    assert rows is not None
    house.append("pretraining", rows, command="embed")
    assert register_pretraining(house, stmem, "own.pt", version=version, trained=told) is None
    return f"stmem@{version}"


def archive(house: Warehouse) -> None:
    """Put six records there, two of each patient of a dataset of one's own, and two of PTB-XL."""
    ids = [*(f"mine/{i}" for i in range(6)), "ptbxl/0", "ptbxl/1"]
    table = {
        "record_id": ids,
        "dataset": [one.partition("/")[0] for one in ids],
        "patient_id": ["a", "a", "b", "b", "c", None, "d", None],
        "signal_sha256": ["s0", "s1", "s2", "s3", "s4", "s5", "s5", None],
    }
    house.append("records", pa.table(table), command="ingest")


def statuses(house: Warehouse, model: str, ids: Sequence[str]) -> dict[str, str]:
    with Catalog(house.relations()) as catalog:
        found = marks(catalog, [model], datasets_of(catalog, ids), record_ids=ids)
        return {mark.dataset: mark.status for mark in found}


def test_own_weights_are_not_taken_for_the_published_ones(house: Warehouse) -> None:
    alone = embedded(house, "v2", note(training("r1", "pretrain", "sph")))
    assert told(house, alone, ["sph", "code15", "ptbxl"]) == {
        "sph": "seen",
        "code15": "clean",
        "ptbxl": "clean",
    }
    # The published ones, whatever their version, are as they were.
    for name in ("stmem", "stmem@v1"):
        assert told(house, name, ["code15", "sph"]) == {"code15": "seen", "sph": "clean"}
    with Catalog(house.relations()) as catalog:
        both = marks(catalog, ["stmem@v1", "stmem@v2", "stmem@v0"], ["sph"])
    assert [mark.model for mark in both] == ["stmem", "stmem@v2"]


def test_weights_keep_what_those_had_seen_from_which_they_started(
    house: Warehouse, tmp_path: Path
) -> None:
    import torch

    from ecgstore.models.weights import read_checkpoint, write_safetensors

    path = tmp_path / "published.safetensors"
    write_safetensors(path, {"x": torch.zeros(1)}, settings={}, source=None)
    checkpoint = read_checkpoint("stmem", path)
    before = lineage(spec("stmem", *PUBLISHED["stmem"]), checkpoint)
    own = embedded(house, "v2", note(training("r1", "pretrain", "sph"), before))
    assert told(house, own, ["sph", "code15", "ptbxl"]) == {
        "sph": "seen",
        "code15": "seen",
        "ptbxl": "clean",
    }
    unknown = lineage(spec("stranger"), checkpoint)
    own = embedded(house, "v3", note(training("r2", "pretrain", "sph"), unknown))
    assert told(house, own, ["sph", "ptbxl"]) == {"sph": "seen", "ptbxl": "unknown"}


def test_own_records_tell_exactly_what_was_seen(house: Warehouse) -> None:
    archive(house)
    run = training("r1", "pretrain", "mine")
    begin(house, run, {"mine/0": "train", "mine/5": "train"})
    own = embedded(house, "v2", note(run))
    rest = ["mine/2", "mine/3", "mine/4"]
    assert statuses(house, own, rest) == {"mine": "clean"}
    assert statuses(house, own, [*rest, "mine/1"]) == {"mine": "seen"}, "another of a patient"
    assert statuses(house, own, ["ptbxl/0"]) == {"ptbxl": "seen"}, "the same signal as mine/5"
    assert statuses(house, own, ["ptbxl/1", *rest]) == {"mine": "clean", "ptbxl": "clean"}
    with Catalog(house.relations()) as catalog:
        (mark,) = marks(catalog, [own], ["mine"], record_ids=["mine/0", "mine/1", *rest])
        assert mark.reason == "trained here on 2 of 5 of these records or on their patients"
        assert cautions([mark])[0].startswith("stmem@v2 has seen mine in pretraining (trained here")
        assert leaked(catalog, own, ["mine/1", "mine/2", "mine/5"]) == {"pretrain": 2}
        assert leaked(catalog, own, rest) == {}
        assert leaked(catalog, "stmem@v1", ["mine/0"]) == {}


def test_a_training_in_another_warehouse_counts_by_dataset(house: Warehouse) -> None:
    archive(house)
    own = embedded(house, "v2", note(training("elsewhere", "pretrain", "mine")))
    assert statuses(house, own, ["mine/2"]) == {"mine": "seen"}
    # What went on from there is exact for its own part only.
    here = training("r1", "pretrain", "ptbxl")
    begin(house, here, {"ptbxl/0": "train"})
    both = note(here, {"runs": ["elsewhere"], "datasets": ["mine"], "before": []})
    own = embedded(house, "v3", both)
    assert statuses(house, own, ["mine/2", "ptbxl/1"]) == {"mine": "seen", "ptbxl": "seen"}


def test_records_in_another_form_are_the_same_dataset(house: Warehouse) -> None:
    archive(house)
    run = training("r1", "pretrain", "challenge2020")
    begin(house, run, {"gone/1": "train"})
    own = embedded(house, "v2", note(run))
    assert statuses(house, own, ["ptbxl/1"]) == {"ptbxl": "seen"}, "it holds records of PTB-XL"


@pytest.fixture
def finetuned(tmp_path: Path) -> Store:
    """Return a warehouse with a split, and weights finetuned on the training part of a reshuffle.

    Of 60 records each patient has two.
    """
    house = Warehouse.create(tmp_path / "warehouse")
    ids = [f"r/{i:02}" for i in range(60)]
    table = {"record_id": ids, "patient_id": [f"p{i // 2}" for i in range(60)]}
    house.append("records", pa.table(table), command="ingest")
    labels = {"record_id": ids, "task": ["MI"] * 60, "label": [float(i % 4 < 2) for i in range(60)]}
    house.append("labels", pa.table(labels), command="labels")
    key = {"model": ["stmem"] * 60, "version": ["v2"] * 60, "pooling": ["cls"] * 60}
    vectors = pa.array([[float(i % 4), 1.0] for i in range(60)], pa.list_(pa.float32()))
    table = {"record_id": ids, **key, "dim": pa.array([2] * 60, pa.int32()), "embedding": vectors}
    house.append("embeddings", pa.table(table), command="embed")
    store = Store(house.root)
    store.split("s", task="MI", repeats=2, test_size=0.3)
    run = training("r1", "finetune", "no dataset")
    mine = store.table(
        "select record_id from splits where repeat = 1 and split = 'train' order by record_id"
    )["record_id"].to_pylist()
    begin(house, run, {one: "validation" if i < 4 else "train" for i, one in enumerate(mine)})
    embedded(house, "v2", note(run))
    return store


def test_finetuned_weights_are_tested_on_what_they_have_not_learned(finetuned: Store) -> None:
    options: dict[str, Any] = {"classifier": "logistic", "split": "s"}
    with pytest.raises(UsageError, match=r"'stmem@v2' was finetuned on \d+ of 18 test records of "):
        finetuned.evaluate(["stmem"], dry_run=True, **options)
    before = finetuned.warehouse.versions()
    with pytest.raises(UsageError, match=r"reshuffle 0, or on their patients") as caught:
        finetuned.evaluate(["stmem"], only=[0], **options)
    assert "--repeat" in (caught.value.hint or "")
    with pytest.raises(UsageError, match="has no reshuffle 7; it has 2"):
        finetuned.evaluate(["stmem"], only=[1, 7], **options)
    assert finetuned.warehouse.versions() == before
    result = finetuned.evaluate(["stmem"], only=[1], **options)
    (row,) = result.rows
    assert (row["n_repeats"], row["added"], row["pretraining"]) == (1, 1, "clean")
    repeats = finetuned.table("select distinct repeat from scores")["repeat"].to_pylist()
    assert repeats == [1]
    assert finetuned.evaluate(["stmem"], only=[1], **options).rows[0]["added"] == 0
    assert finetuned.reproduce(str(row["run_id"])).identical
