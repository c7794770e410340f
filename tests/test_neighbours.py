"""Neighbours are those that comparing everything with everything finds, in the same order."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
import pytest

from ecgstore.catalog import Catalog
from ecgstore.errors import UnknownNameError, UsageError
from ecgstore.fuse import fuse
from ecgstore.neighbours import Neighbours

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from ecgstore.warehouse import Warehouse

Metric = Literal["cosine", "euclidean"]


def brute(
    ids: list[str], x: NDArray[np.float32], q: NDArray[np.float32], k: int, metric: Metric
) -> list[tuple[str, float]]:
    a, b = x.astype(np.float64), q.astype(np.float64)
    if metric == "euclidean":
        scores = -np.linalg.norm(a - b, axis=1)
    else:
        norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b)
        dots = np.einsum("ij,j->i", a, b)
        scores = np.divide(dots, norms, out=np.zeros(len(a)), where=norms > 0)
    ranked = sorted(zip(ids, scores.tolist(), strict=True), key=lambda one: (-one[1], one[0]))
    return ranked[:k]


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e4])
def test_the_nearest_are_those_of_a_full_comparison(metric: Metric, scale: float) -> None:
    rng = np.random.default_rng(0)
    x = (rng.standard_normal((700, 24)) * scale).astype(np.float32)
    x[100:140] = x[7]  # ties
    x[200:220] = x[7] * (1 + np.float32(2**-22))  # almost ties
    x[300] = 0
    ids = [f"r/{i:04d}" for i in rng.permutation(700)]
    near = Neighbours(ids, x)
    questions = np.vstack([x[7], x[5], np.zeros(24, np.float32), rng.standard_normal(24) * scale])
    found = near.search(questions.astype(np.float32), k=60, metric=metric)
    for question, got in zip(questions.astype(np.float32), found, strict=True):
        assert got == brute(ids, x, question, 60, metric)
        assert near.search(question[None], k=60, metric=metric)[0] == got
    assert len(near.search(questions[:1].astype(np.float32), k=9999)[0]) == 700


def test_a_record_is_not_its_own_neighbour(cohort: Callable[..., Warehouse]) -> None:
    warehouse = cohort(records=80, dims={"alpha": 6, "beta": 5})
    fuse(warehouse, ["alpha", "beta"], name="both", scale="none")
    with Catalog(warehouse.relations()) as catalog:
        near = Neighbours.of(catalog, "alpha")
        found = near.nearest("syn/00003", k=5)
        told = catalog.query(
            "nearest_neighbours", {"record_id": "syn/00003", "model": "alpha", "k": "5"}
        ).fetchall()
        assert [one.record_id for one in found] == [row[0] for row in told]
        np.testing.assert_allclose([one.similarity for one in found], [r[1] for r in told], 1e-6)
        assert Neighbours.of(catalog, "both").vectors.shape == (80, 11)
        fuse(warehouse, ["alpha", "beta"], name="scaled")
    with Catalog(warehouse.relations()) as catalog:
        with pytest.raises(UsageError, match="scaled anew"):
            Neighbours.of(catalog, "scaled")
        with pytest.raises(UnknownNameError, match="Unknown record 'syn/x'"):
            near.nearest("syn/x")
        with pytest.raises(UsageError, match=r"shape \(questions, 6\), not \(1, 5\)"):
            near.search(np.zeros((1, 5), np.float32))
        with pytest.raises(UsageError, match="finite"):
            near.search(np.full((1, 6), np.nan, np.float32))
    assert Neighbours([], np.empty((0, 3), np.float32)).search(np.ones((1, 3), np.float32)) == [[]]
