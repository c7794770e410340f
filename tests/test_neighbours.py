"""Neighbours are those that comparing everything with everything finds, in the same order."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import ecgstore
from ecgstore.catalog import Catalog
from ecgstore.errors import NotEnoughDataError, UnknownNameError, UsageError
from ecgstore.fuse import fuse
from ecgstore.neighbours import Metric, Neighbours
from ecgstore.splitting.split import split

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from ecgstore.warehouse import Warehouse

METRICS: list[Metric] = ["cosine", "euclidean"]


def brute(
    ids: list[str], x: NDArray[np.float32], q: NDArray[np.float32], k: int, metric: Metric
) -> list[tuple[str, float]]:
    """Compare with every vector in double precision."""
    a, b = x.astype(np.float64), q.astype(np.float64)
    if metric == "euclidean":
        scores = -np.sqrt(((a - b) ** 2).sum(axis=1))
    else:
        norms = np.sqrt((a**2).sum(axis=1)) * np.sqrt((b**2).sum())
        scores = np.divide((a * b).sum(axis=1), norms, out=np.zeros(len(a)), where=norms > 0)
    ranked = sorted(zip(ids, scores.tolist(), strict=True), key=lambda one: (-one[1], one[0]))
    return ranked[:k]


def check(x: NDArray[np.float32], questions: NDArray[np.float32], k: int, metric: Metric) -> None:
    """Check all answers against the full comparison, whatever is asked for at once."""
    ids = [f"r/{i:04d}" for i in np.random.default_rng(len(x)).permutation(len(x))]
    near = Neighbours(ids, x)
    together = near.search(questions, k=k, metric=metric)
    for question, found in zip(questions, together, strict=True):
        assert found == brute(ids, x, question, k, metric)
        assert near.search(question[None], k=k, metric=metric) == [found]


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("scale", [1e-30, 1e-3, 1.0, 1e4, 1e25])
def test_the_nearest_are_those_of_a_full_comparison(metric: Metric, scale: float) -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((700, 24)) * scale
    x[100:140] = x[7]  # ties
    x[200:220] = x[7] * (1 + 2.0**-22)  # almost ties
    x[300] = 0
    x[301] *= 1e8  # one far longer than the others
    questions = np.vstack([x[7], x[5], np.zeros(24), rng.standard_normal(24) * scale])
    check(x.astype(np.float32), questions.astype(np.float32), 60, metric)


@pytest.mark.parametrize("metric", METRICS)
def test_differences_below_single_precision_decide(metric: Metric) -> None:
    rng = np.random.default_rng(1)
    x = np.repeat(rng.random((1, 1536)), 400, axis=0)  # positive, as scaled vectors are
    x[np.arange(400), rng.integers(1536, size=400)] *= 1 + 2.0**-20
    check(x.astype(np.float32), (x[:2] + 2.0**-18).astype(np.float32), 25, metric)


numbers = st.floats(width=32, allow_nan=False, allow_infinity=False) | st.sampled_from([0.0, 1.0])


@settings(deadline=None)
@given(
    x=st.tuples(st.integers(2, 9), st.integers(1, 4)).flatmap(
        lambda shape: arrays(np.float32, shape, elements=numbers)
    ),
    k=st.integers(1, 10),
    metric=st.sampled_from(METRICS),
)
def test_no_finite_vectors_are_too_short_or_too_long(
    x: NDArray[np.float32], k: int, metric: Metric
) -> None:
    check(x, x[:2], k, metric)


@pytest.mark.parametrize("metric", METRICS)
def test_scores_are_held_for_some_questions_at_a_time(
    metric: Metric, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = np.random.default_rng(2).standard_normal((300, 8), dtype=np.float32)
    near = Neighbours([f"r/{i:04d}" for i in range(300)], x)
    whole = near.search(x, k=5, metric=metric)
    monkeypatch.setattr("ecgstore.neighbours._SCORES", 1000)
    assert near.search(x, k=5, metric=metric) == whole
    assert [one.record_id for one, *_ in whole] == near.record_ids.tolist()


def test_a_record_is_not_its_own_neighbour(cohort: Callable[..., Warehouse]) -> None:
    warehouse = cohort(records=80)
    with ecgstore.connect(warehouse.root) as store:
        near = store.neighbours("alpha")
        found = near.nearest("syn/00003", k=5)
        told = store.query("nearest_neighbours", record_id="syn/00003", model="alpha", k="5")
        rows = told.fetchall()
    assert [one.record_id for one in found] == [row[0] for row in rows]
    np.testing.assert_allclose([one.similarity for one in found], [r[1] for r in rows], rtol=1e-6)
    assert len(near.nearest("syn/00003", k=999)) == 79
    same = Neighbours(["a", "b", "c", "d"], np.ones((4, 2), np.float32))
    assert [one.record_id for one in same.nearest("d", k=2)] == ["a", "b"]
    assert repr(near) == "Neighbours(80 records × 4)"


def test_a_fused_set_is_compared_as_scaled(cohort: Callable[..., Warehouse]) -> None:
    warehouse = cohort(records=80)
    split(warehouse, "s", task="ACS", repeats=2)
    fuse(warehouse, ["alpha", "beta"], name="plain", scale="none")
    fuse(warehouse, ["alpha", "beta"], name="fusion")
    fuse(warehouse, ["alpha", "beta"], name="whole", fit="all")
    with Catalog(warehouse.relations()) as catalog:
        assert Neighbours.of(catalog, "plain").vectors.shape == (80, 10)
        whole = Neighbours.of(catalog, "whole").vectors
        assert (whole.min(axis=0) == 0).all()
        assert (whole.max(axis=0) == 1).all()
        for repeat in range(2):
            near = Neighbours.of(catalog, "fusion", split="s", repeat=repeat)
            rows = catalog.query("fuse", {"repeat": str(repeat)}).to_arrow_table()
            assert near.record_ids.tolist() == rows["record_id"].to_pylist()
            assert near.vectors.tolist() == rows["features"].to_pylist()
        with pytest.raises(UsageError, match="fitted on training records; of which split"):
            Neighbours.of(catalog, "fusion")
        with pytest.raises(NotEnoughDataError, match="not fitted on reshuffle 2 of 's'"):
            Neighbours.of(catalog, "fusion", split="s", repeat=2)


def test_what_cannot_be_compared_is_refused() -> None:
    near = Neighbours(["a/1", "a/2"], np.eye(2, dtype=np.float32))
    with pytest.raises(UnknownNameError, match="Unknown record 'a/3'; there are 2 records") as told:
        near.nearest("a/3")
    assert told.value.near == ("a/2", "a/1")
    with pytest.raises(UsageError, match=r"shape \(questions, 2\), not \(1, 5\)"):
        near.search(np.zeros((1, 5), np.float32))
    with pytest.raises(UsageError, match="finite"):
        near.search(np.full((1, 2), np.nan, np.float32))
    with pytest.raises(UsageError, match="a finite vector for each of 2 records"):
        Neighbours(["a/1", "a/2"], np.array([[1], [np.inf]], np.float32))
    with pytest.raises(UsageError, match="a finite vector for each of 1 records"):
        Neighbours(["a/1"], np.eye(2, dtype=np.float32))
    assert Neighbours([], np.empty((0, 3), np.float32)).search(np.ones((1, 3), np.float32)) == [[]]
