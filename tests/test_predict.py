"""Stored classifiers score records, and never one whose patient they learned from."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pytest

from ecgstore.catalog import Catalog
from ecgstore.errors import NotEnoughDataError, QueryError, UnknownNameError
from ecgstore.fuse import fuse
from ecgstore.predict import predict
from ecgstore.predictions import predictions_of
from ecgstore.splitting.split import split
from ecgstore.train import train

if TYPE_CHECKING:
    from collections.abc import Callable

    from ecgstore.warehouse import Warehouse

    Cohort = Callable[..., Warehouse]

METHODS = ("concat", "pca", "average", "stacking", "attention")


def trained(warehouse: Warehouse, features: str, repeats: int = 1) -> str:
    split(warehouse, "s", task="ACS", repeats=repeats)
    return train(
        warehouse, features, "s", classifier="logistic", params={"C": 0.1, "max_iter": 9999}
    ).run_id


def member(warehouse: Warehouse) -> tuple[str, str]:
    with Catalog(warehouse.relations()) as catalog:
        row = catalog.table("select version, pooling from embeddings limit 1").to_pylist()[0]
    return row["version"], row["pooling"]


@pytest.mark.parametrize("method", METHODS)
def test_test_records_get_the_score_that_was_stored(cohort: Cohort, method: str) -> None:
    """What was saved and loaded, in whatever order it fuses, scores as it did when it was made."""
    warehouse = cohort()
    fuse(warehouse, ["alpha", "beta"], name="fusion", method=method)
    run = trained(warehouse, "fusion")
    found = predict(warehouse, run[:8])
    rows = warehouse.table("predictions").read(["record_id", "score"])
    stored = dict(zip(rows["record_id"].to_pylist(), rows["score"].to_pylist(), strict=True))
    scored = {row["record_id"]: row["score"] for row in found.rows if row["classifiers"]}
    # exact up to the order in which a smaller or larger batch is summed
    assert scored == pytest.approx(stored, abs=1e-6 if method == "attention" else 1e-12)
    assert found.learned == 120 - len(stored)
    assert all(row["score"] is None for row in found.rows if not row["classifiers"])
    assert "learned from their patients" in found.notes[0]


def test_a_score_is_the_mean_over_classifiers_free_of_the_patient(cohort: Cohort) -> None:
    warehouse = cohort()
    run = trained(warehouse, "alpha", repeats=4)
    rows = warehouse.table("predictions").read(["record_id", "score"]).to_pylist()
    tested: dict[str, list[float]] = {}
    for row in rows:
        tested.setdefault(row["record_id"], []).append(row["score"])
    for row in predict(warehouse, run).rows:
        mine = tested.get(str(row["record_id"]), [])
        assert row["classifiers"] == len(mine)
        if mine:
            assert row["score"] == pytest.approx(np.mean(mine), abs=1e-12)


def test_new_records_are_scored_even_where_a_vector_is_lacking(cohort: Cohort) -> None:
    warehouse = cohort()
    version, pooling = member(warehouse)
    fuse(warehouse, ["alpha", "beta"], name="late", method="average", missing="keep")
    run = trained(warehouse, "late", repeats=2)
    ids = ["new/1", "new/2"]
    rows = {"record_id": ids, "patient_id": ids, "dataset": ["new"] * 2}
    warehouse.append("records", pa.table(rows), command="test")
    for model, dim, here in (("alpha", 4, ids), ("beta", 6, ids[:1])):
        lists = pa.array(
            [[1.0] * dim] * len(here), pa.list_(pa.field("element", pa.float32(), nullable=False))
        )
        columns = {
            "record_id": here,
            "model": [model] * len(here),
            "version": [version] * len(here),
            "pooling": [pooling] * len(here),
            "dim": pa.array([dim] * len(here), pa.int32()),
            "embedding": lists,
        }
        warehouse.append("embeddings", pa.table(columns), command="test")
    found = predict(warehouse, run, where="dataset = 'new'")
    assert [row["record_id"] for row in found.rows] == ids
    assert [row["classifiers"] for row in found.rows] == [2, 2]
    assert all(0 < float(str(row["score"])) < 1 for row in found.rows)


def test_what_cannot_be_scored_is_said(cohort: Cohort) -> None:
    warehouse = cohort()
    run = trained(warehouse, "alpha")
    with pytest.raises(UnknownNameError, match="Unknown trained run 'zzz'"):
        predict(warehouse, "zzz")
    with pytest.raises(NotEnoughDataError, match="None of 0 records"):
        predict(warehouse, run, where="dataset = 'nowhere'")
    with pytest.raises(QueryError):
        predict(warehouse, run, where="no_such_column > 1")


def test_predictions_are_read_back_by_the_beginning_of_the_id(cohort: Cohort) -> None:
    from ecgstore.evaluate import evaluate

    warehouse = cohort()
    split(warehouse, "s", task="ACS", repeats=2)
    run = evaluate(warehouse, ["alpha"], "s", classifier="logistic").scores[0].run_id
    with Catalog(warehouse.relations()) as catalog:
        assert predictions_of(catalog, run[:6]).run_id == run
        with pytest.raises(UnknownNameError, match="Unknown run 'zzz'"):
            predictions_of(catalog, "zzz")
