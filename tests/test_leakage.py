"""Whether a model has seen a dataset in pretraining; what is not known is never clean."""

from __future__ import annotations

from typing import TYPE_CHECKING

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
    marks,
    register_pretraining,
    summary,
)
from ecgstore.models import list_models
from ecgstore.models.spec import ModelSpec, Variant
from ecgstore.warehouse import Warehouse

if TYPE_CHECKING:
    from collections.abc import Sequence
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
