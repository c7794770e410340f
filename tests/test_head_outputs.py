"""What a model's head said of a record lives and goes with the record."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pytest

from ecgstore.catalog import Catalog
from ecgstore.schema import TABLES
from ecgstore.storage.shards import write_shards
from ecgstore.store import Store
from ecgstore.upkeep.forget import forget
from ecgstore.warehouse import Warehouse

if TYPE_CHECKING:
    from pathlib import Path

LABELS = [f"LABEL {k}" for k in range(150)]


def outputs(ids: list[str], labels: list[str], *, seed: int = 0) -> pa.Table:
    n = len(ids) * len(labels)
    columns = {
        "record_id": np.repeat(ids, len(labels)),
        "model": ["ecgfounder"] * n,
        "version": ["v1"] * n,
        "label": labels * len(ids),
        "probability": np.random.default_rng(seed).random(n, dtype=np.float32),
    }
    return pa.table(columns)


@pytest.fixture
def house(tmp_path: Path) -> Warehouse:
    """Return a warehouse of six records of three patients, each with the outputs of a head."""
    house = Warehouse.create(tmp_path / "warehouse")
    ids = [f"a/{i}" for i in range(6)]
    house.append("head_outputs", outputs(ids, LABELS[:4]), command="embed")
    patients = [f"patient-{i // 2}" for i in range(6)]
    rows = pa.table({"record_id": ids, "patient_id": patients, "dataset": ["a"] * 6})
    house.append("records", rows, command="ingest")
    return house


def records_with_outputs(house: Warehouse) -> set[str]:
    return set(house.table("head_outputs").read(["record_id"])["record_id"].to_pylist())


def test_a_second_run_adds_nothing_and_another_run_replaces(house: Warehouse) -> None:
    again = outputs([f"a/{i}" for i in range(6)], LABELS[:4])
    assert house.append("head_outputs", again, command="embed") == 0
    other = outputs(["a/3"], LABELS[:4], seed=1)
    assert house.replace("head_outputs", other, command="embed") == 4
    rows = house.table("head_outputs").read().sort_by([("record_id", "ascending")])
    assert rows.num_rows == 24
    assert set(other["probability"].to_pylist()) <= set(rows["probability"].to_pylist())


def test_erasing_a_patient_erases_them(house: Warehouse) -> None:
    result = forget(house, ["patient-1"], yes=True)
    assert result.rows_by_table["head_outputs"] == 8
    assert records_with_outputs(house) == {"a/0", "a/1", "a/4", "a/5"}
    shards = [path.read_bytes() for path in (house.root / "head_outputs").glob("*.parquet")]
    assert not any(b"a/2" in shard or b"a/3" in shard for shard in shards)


def test_those_of_no_record_are_told_and_swept(house: Warehouse) -> None:
    house.append("head_outputs", outputs(["gone/1"], LABELS[:4]), command="embed")
    with Store(house.root) as store:
        (told,) = store.verify().findings
        assert (told.severity, told.table, told.what[:6]) == ("leftover", "head_outputs", "4 rows")
        dropped = {one.table: one.dropped for one in store.compact().tables}
        assert dropped["head_outputs"] == 4
        assert store.verify().findings == ()
    assert records_with_outputs(house) == {f"a/{i}" for i in range(6)}


def test_they_are_exported(house: Warehouse, tmp_path: Path) -> None:
    with Store(house.root) as store:
        done = store.export("head_outputs", tmp_path / "af.csv", where="label = 'LABEL 1'")
    assert done.written == 6
    assert (tmp_path / "af.csv").read_text().splitlines()[0] == (
        '"record_id","model","version","label","probability"'
    )


def test_a_damaged_shard_is_set_aside_and_the_rest_stays(house: Warehouse) -> None:
    house.append("head_outputs", outputs(["a/0"], ["LATER"]), command="embed")
    shard = max((house.root / "head_outputs").glob("*.parquet"), key=lambda p: p.stat().st_size)
    shard.write_bytes(shard.read_bytes()[:-100])
    with Store(house.root) as store:
        assert not store.verify().clean
        store.verify(repair=True)
        assert store.verify().clean
        kept = store.table("select record_id, label from head_outputs").to_pylist()
    assert kept == [{"record_id": "a/0", "label": "LATER"}]


def test_a_label_of_many_records_is_found_by_hash_joins(tmp_path: Path) -> None:
    ids = [f"a/{i:04d}" for i in range(1000)]
    relations = {}
    for name, rows in {
        "head_outputs": outputs(ids, LABELS),
        "records": pa.table({"record_id": ids}),
    }.items():
        shards = write_shards(tmp_path, TABLES[name], rows)
        relations[name] = ([shard.path for shard in shards], TABLES[name].arrow)
    text = "select count(*) as n from records where p('ECGFounder', 'label 7') > 0.9"
    with Catalog(relations) as catalog:
        plan = "\n".join(catalog.table(f"explain {text}")["explain_value"].to_pylist())
        found = catalog.table(text)["n"][0].as_py()
        plain = "select count(*) as n from head_outputs where label = 'LABEL 7'"
        assert found == catalog.table(f"{plain} and probability > 0.9")["n"][0].as_py() > 0
    assert {*re.findall(r"\w+_JOIN\b", plan)} == {"HASH_JOIN", "LEFT_DELIM_JOIN"}
