"""Maps: who is drawn, how vectors are scaled before, and that the picture can be made again."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pytest
from sklearn.decomposition import PCA

from ecgstore.catalog import Catalog
from ecgstore.errors import (
    MissingDependencyError,
    NotEnoughDataError,
    UnknownNameError,
    UsageError,
)
from ecgstore.fuse import fuse
from ecgstore.project import project
from ecgstore.schema import table_schema
from ecgstore.splitting.split import reshuffles, split
from ecgstore.warehouse import Warehouse

if TYPE_CHECKING:
    from pathlib import Path

N, DIM = 120, 6


def put(warehouse: Warehouse, table: str, rows: list[dict[str, object]]) -> None:
    schema = table_schema(table).arrow
    warehouse.append(table, pa.Table.from_pylist(rows, schema=schema), command="test")


@pytest.fixture(scope="module")
def vectors() -> dict[str, dict[str, np.ndarray]]:
    rng = np.random.default_rng(0)
    ids = [f"c/{i:03d}" for i in range(N)]
    return {
        model: dict(zip(ids, rng.normal(size=(N, DIM)).astype(np.float32), strict=True))
        for model in ("stmem", "ecgfm")
    }


@pytest.fixture(scope="module")
def warehouse(
    tmp_path_factory: pytest.TempPathFactory, vectors: dict[str, dict[str, np.ndarray]]
) -> Warehouse:
    """A cohort of 120 records, 30 of them positive, with vectors of two models."""
    made = Warehouse.create(tmp_path_factory.mktemp("warehouse"))
    ids = list(vectors["stmem"])
    put(made, "records", [{"record_id": i, "patient_id": i, "dataset": "c"} for i in ids])
    labels = [
        {"record_id": i, "task": "ACS", "label": float(k % 4 == 0)} for k, i in enumerate(ids)
    ]
    put(made, "labels", labels)
    for model, by_id in vectors.items():
        key = {"model": model, "version": "v1", "pooling": "mean", "dim": DIM, "n_windows": 1}
        put(made, "models", [{k: key[k] for k in ("model", "version", "pooling", "dim")}])
        rows = [{**key, "record_id": i, "embedding": x.tolist()} for i, x in by_id.items()]
        put(made, "embeddings", rows)
    split(made, "acs", task="ACS", repeats=2)
    fuse(made, ["stmem", "ecgfm"], name="fusion")
    return made


def test_equally_many_of_each_class_from_the_training_part_only(warehouse: Warehouse) -> None:
    drawn = project(warehouse, "fusion", n=20, method="pca")
    with Catalog(warehouse.relations()) as catalog:
        first, second = reshuffles(catalog, "acs")
    assert len(drawn.record_ids) == 20
    assert drawn.labels.sum() == 10
    assert set(drawn.record_ids) <= set(first.train)
    other = project(warehouse, "fusion", n=20, method="pca", repeat=1)
    assert set(other.record_ids) <= set(second.train)
    assert [row["record_id"] for row in drawn.rows] == list(drawn.record_ids)


def test_a_small_class_is_taken_whole_with_as_many_of_the_other(warehouse: Warehouse) -> None:
    drawn = project(warehouse, "fusion", n=500, method="pca")
    assert drawn.available == (24, 72)
    assert drawn.labels.sum() == 24
    assert len(drawn.labels) == 48


def test_feature_sets_over_the_same_records_show_the_same_ones(warehouse: Warehouse) -> None:
    one, other = (project(warehouse, name, n=20, method="pca") for name in ("stmem", "ecgfm"))
    assert one.record_ids == other.record_ids
    assert project(warehouse, "stmem", n=20, method="pca", seed=1).record_ids != one.record_ids


def test_scaling_is_that_of_the_feature_set_fitted_on_training_records(
    warehouse: Warehouse, vectors: dict[str, dict[str, np.ndarray]]
) -> None:
    drawn = project(warehouse, "fusion", n=30, method="pca")
    with Catalog(warehouse.relations()) as catalog:
        train = reshuffles(catalog, "acs")[0].train
    blocks = []
    for by_id in vectors.values():
        fitted_on = np.stack([by_id[i] for i in train])
        low, high = fitted_on.min(axis=0), fitted_on.max(axis=0)
        blocks.append((np.stack([by_id[i] for i in drawn.record_ids]) - low) / (high - low))
    expected = PCA(2, random_state=0).fit_transform(np.hstack(blocks))
    np.testing.assert_allclose(np.abs(drawn.xy), np.abs(expected), atol=1e-5)


def test_the_same_seed_gives_the_same_picture(warehouse: Warehouse, tmp_path: Path) -> None:
    pictures = [
        project(warehouse, "fusion", n=40).save(tmp_path / f"{i}.png").read_bytes()
        for i in range(2)
    ]
    assert pictures[0] == pictures[1]
    assert pictures[0].startswith(b"\x89PNG")


def test_only_png_is_drawn_and_a_missing_folder_is_said(
    warehouse: Warehouse, tmp_path: Path
) -> None:
    drawn = project(warehouse, "stmem", n=8, method="pca")
    with pytest.raises(UsageError, match="PNG"):
        drawn.save(tmp_path / "map.jpg")
    with pytest.raises(UsageError, match="Cannot write"):
        drawn.save(tmp_path / "nowhere" / "map.png")


def test_a_task_may_be_called_anything(warehouse: Warehouse, tmp_path: Path) -> None:
    drawn = replace(project(warehouse, "stmem", n=8, method="pca"), task="_$\\frac{$ 心筋梗塞")
    assert drawn.save(tmp_path / "map.png").stat().st_size > 5_000


@pytest.mark.skipif(importlib.util.find_spec("umap") is not None, reason="umap-learn is installed")
def test_umap_says_what_to_install(warehouse: Warehouse) -> None:
    with pytest.raises(MissingDependencyError, match=r"ecgstore\[umap\]"):
        project(warehouse, "stmem", n=8, method="umap")


def test_wrong_arguments_are_refused(warehouse: Warehouse) -> None:
    with pytest.raises(UnknownNameError, match="stmem"):
        project(warehouse, "stmen")
    with pytest.raises(UnknownNameError, match="split"):
        project(warehouse, "stmem", split="acs9")
    with pytest.raises(UsageError, match="no reshuffle 2"):
        project(warehouse, "stmem", repeat=2)
    with pytest.raises(UsageError, match="at least 4"):
        project(warehouse, "stmem", n=2)


def test_the_split_must_be_named_where_there_are_several_and_drawn_where_there_is_none(
    tmp_path: Path,
) -> None:
    made = Warehouse.create(tmp_path / "warehouse")
    key = {"model": "m", "version": "v", "pooling": "mean", "dim": 2, "n_windows": 1}
    ids = [f"c/{i}" for i in range(20)]
    put(made, "records", [{"record_id": i, "dataset": "c"} for i in ids])
    labels = [{"record_id": i, "task": "T", "label": float(k < 8)} for k, i in enumerate(ids)]
    put(made, "labels", labels)
    put(made, "embeddings", [{**key, "record_id": i, "embedding": [1.0, 2.0]} for i in ids])
    with pytest.raises(UsageError, match="no split"):
        project(made, "m")
    split(made, "one", task="T", repeats=1)
    with pytest.raises(NotEnoughDataError, match="equal"):
        project(made, "m")
    split(made, "two", task="T", repeats=1)
    with pytest.raises(UsageError, match="2 splits: one, two"):
        project(made, "m")
