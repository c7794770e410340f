"""Scaling sees training records only, equals the shipped SQL, and names mean what they say."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ecgstore.catalog import Catalog
from ecgstore.errors import (
    NotEnoughDataError,
    SchemaError,
    UnknownNameError,
    UsageError,
    WarehouseError,
)
from ecgstore.features import Member, feature_set, matrix
from ecgstore.fuse import fuse, stored_statistics
from ecgstore.scaling import Statistics, fused, normalise, statistics
from ecgstore.splitting.split import EVERYTHING, reshuffles, split

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from ecgstore.warehouse import Warehouse

    Cohort = Callable[..., Warehouse]

ALPHA, BETA = Member("alpha", "v1", "mean"), Member("beta", "v1", "mean")

numbers = st.floats(-(2.0**60), 2.0**60, width=32) | st.sampled_from([0.0, 1.0, 1.5])
vectors = arrays(np.float32, st.tuples(st.integers(2, 12), st.integers(1, 5)), elements=numbers)


@pytest.fixture(scope="module")
def empty() -> Iterator[Catalog]:
    """Return a catalog without tables, for its macros."""
    with Catalog({}) as catalog:
        yield catalog


def of(x: NDArray[np.float32]) -> Statistics:
    return statistics(x, np.ones((1, len(x)), dtype=bool))[0]


def rewrite(warehouse: Warehouse, record_id: str, member: Member, vector: list[float]) -> None:
    row = {"record_id": record_id, **member._asdict(), "dim": len(vector), "embedding": vector}
    warehouse.replace("embeddings", pa.Table.from_pylist([row]), command="test")


@settings(deadline=None)
@given(vectors)
def test_minmax_fills_0_to_1_on_what_it_was_fitted_on(x: NDArray[np.float32]) -> None:
    scaled = normalise(x, of(x), scale="minmax")
    varying = x.max(axis=0) > x.min(axis=0)
    assert scaled.dtype == np.float32
    assert ((scaled >= 0) & (scaled <= 1)).all()
    assert (scaled[:, ~varying] == 0).all()
    assert (scaled[:, varying].min(axis=0) == 0).all()
    assert (scaled[:, varying].max(axis=0) == 1).all()


@settings(deadline=None)
@given(x=vectors)
def test_numpy_equals_the_sql_macro_bit_for_bit(empty: Catalog, x: NDArray[np.float32]) -> None:
    fitted = of(x[: len(x) // 2 + 1])
    ours = normalise(x, fitted, scale="minmax")
    theirs = empty.table(
        "select minmax01(unnest($e)::float[], $lo::float[], $hi::float[]) as f",
        {"e": x.tolist(), "lo": fitted.mn.tolist(), "hi": fitted.mx.tolist()},
    )["f"]
    assert np.array_equal(ours, np.array(theirs.to_pylist(), dtype=np.float32))


@settings(deadline=None)
@given(vectors, st.data())
def test_statistics_of_a_selection_do_not_see_other_rows(
    x: NDArray[np.float32], data: st.DataObject
) -> None:
    chosen = data.draw(arrays(bool, len(x)).filter(np.any))
    other = np.where(chosen[:, None], x, data.draw(numbers))
    alone, among = of(x[chosen]), statistics(other, np.stack([~chosen | chosen, chosen]))[1]
    assert among.n_train == chosen.sum()
    assert np.array_equal(among.mn, x[chosen].min(axis=0))
    assert np.array_equal(among.mx, x[chosen].max(axis=0))
    again = statistics(x, np.stack([~chosen | chosen, chosen]))[1]
    assert vars(again).keys() == vars(among).keys()
    for name, value in vars(among).items():
        assert np.array_equal(value, vars(again)[name]), f"{name} saw a row outside"
    assert among.matches(alone)


def test_statistics_are_those_of_numpy_over_many_blocks() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(3, 2, (5000, 7)).astype(np.float32)
    x[:, 3] = 0.1
    rows = rng.random((4, 5000)) < 0.8
    for chosen, found in zip(rows, statistics(x, rows), strict=True):
        part = x[chosen].astype(np.float64)
        assert np.array_equal(found.mn, x[chosen].min(axis=0))
        assert np.array_equal(found.mx, x[chosen].max(axis=0))
        np.testing.assert_allclose(found.mean, part.mean(axis=0), rtol=1e-6)
        np.testing.assert_allclose(
            found.std, np.where(part.std(axis=0) > 1e-9, part.std(axis=0), 0), rtol=1e-6
        )
        z = normalise(x[chosen], found, scale="zscore")
        np.testing.assert_allclose(z.mean(axis=0), 0, atol=1e-4)
        np.testing.assert_allclose(np.delete(z.std(axis=0), 3), 1, rtol=1e-4)
        assert (z[:, 3] == 0).all()


def test_values_of_other_records_may_leave_the_range() -> None:
    fitted = of(np.array([[0.0], [2.0]], np.float32))
    assert normalise(np.array([[-2.0], [4.0]], np.float32), fitted, scale="minmax").tolist() == [
        [-1.0],
        [2.0],
    ]


def test_blocks_are_concatenated_in_the_order_of_members(cohort: Cohort) -> None:
    warehouse = cohort()
    with Catalog(warehouse.relations()) as catalog:
        ids, (a, b) = matrix(catalog, [ALPHA, BETA])
        swapped, (b2, a2) = matrix(catalog, [BETA, ALPHA], ["syn/00007", "syn/00003", "no/1"])
    assert list(ids) == sorted(ids)
    assert (len(ids), a.shape, b.shape) == (120, (120, 4), (120, 6))
    assert list(swapped) == ["syn/00003", "syn/00007"]
    assert np.array_equal(a2, a[[3, 7]])
    assert np.array_equal(b2, b[[3, 7]])
    assert np.array_equal(fused([a, b], [], scale="none"), np.hstack([a, b]))
    both = fused([a, b], [of(a), of(b)], scale="minmax")
    assert np.array_equal(both[:, 4:], normalise(b, of(b), scale="minmax"))


def laid_out(folder: Path, rows: pa.Table, *, shards: int) -> list[Path]:
    """Write rows as they come to so many shards, in row groups of 7."""
    files = [folder / f"{i}.parquet" for i in range(shards)]
    step = -(-rows.num_rows // shards)
    for i, file in enumerate(files):
        pq.write_table(rows.slice(i * step, step), file, row_group_size=7)
    return files


def test_vectors_are_found_wherever_they_lie(cohort: Cohort, tmp_path: Path) -> None:
    relations = cohort().relations()
    stored = pq.read_table(relations["embeddings"][0], schema=relations["embeddings"][1])
    mixed = stored.take(np.random.default_rng(0).permutation(stored.num_rows))
    files = laid_out(tmp_path, mixed, shards=5)
    elsewhere = {**relations, "embeddings": (files, stored.schema)}
    some = [f"syn/{i:05d}" for i in range(3, 90, 7)]
    with Catalog(relations) as catalog, Catalog(elsewhere) as other:
        for members in ([ALPHA, BETA], [BETA]):
            for chosen in (None, some, []):
                ids, blocks = matrix(catalog, members, chosen)
                same_ids, same = matrix(other, members, chosen)
                assert list(ids) == list(same_ids)
                assert len(ids) == (120 if chosen is None else len(chosen))
                for block, again in zip(blocks, same, strict=True):
                    assert np.array_equal(block, again)


def test_vectors_that_cannot_be_joined_name_their_model(cohort: Cohort, tmp_path: Path) -> None:
    relations = cohort(records=20).relations()
    (files, schema) = relations["embeddings"]
    rows = pq.read_table(files, schema=schema).to_pylist()
    broken = {
        "differ in length; 4 was expected": [1.0, 2.0, 3.0],
        "hold values that are not finite": [1.0, 2.0, float("inf"), 4.0],
    }
    for message, vector in broken.items():
        next(row for row in rows if row["record_id"] == "syn/00007")["embedding"] = vector
        files = laid_out(tmp_path, pa.Table.from_pylist(rows, schema=schema), shards=2)
        with Catalog({**relations, "embeddings": (files, schema)}) as catalog:
            with pytest.raises(SchemaError, match=f"The vectors of alpha@v1:mean {message}"):
                matrix(catalog, [ALPHA])
            assert len(matrix(catalog, [BETA])[0]) == 20
            assert len(matrix(catalog, [ALPHA], ["syn/00001"])[0]) == 1
    with Catalog({**relations, "embeddings": (files, schema)}) as catalog:
        files[0].write_bytes(files[0].read_bytes()[:99])
        with pytest.raises(WarehouseError):
            matrix(catalog, [BETA])


def test_vectors_are_held_once(tmp_path: Path) -> None:
    ids = [f"r/{i:05d}" for i in range(8000)]
    x = np.random.default_rng(0).standard_normal((8000, 512), dtype=np.float32)
    columns = {
        "record_id": ids,
        **dict.fromkeys(Member._fields, ["m"] * 8000),
        "dim": pa.array([512] * 8000, pa.int32()),
        "embedding": pa.array(list(x), pa.list_(pa.float32())),
    }
    pq.write_table(pa.table(columns), tmp_path / "shard.parquet", row_group_size=256)
    code = f"""
from pathlib import Path
import pyarrow as pa
from ecgstore.catalog import Catalog
from ecgstore.features import Member, matrix
from ecgstore.schema import TABLES
file = Path({str(tmp_path)!r}) / "shard.parquet"
with Catalog({{"embeddings": ([file], TABLES["embeddings"].arrow)}}) as catalog:
    _, (block,) = matrix(catalog, [Member("m", "m", "m")], [f"r/{{i:05d}}" for i in range(8000)])
print(block.nbytes, pa.default_memory_pool().max_memory())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    result, beside = map(int, done.stdout.split())
    assert result == x.nbytes
    assert beside < result / 2  # some row groups of a thirtieth


def test_features_and_statistics_equal_the_shipped_queries(cohort: Cohort) -> None:
    warehouse = cohort(dims={"alpha": 9, "beta": 5})
    split(warehouse, "s", task="ACS", repeats=2)
    fuse(warehouse, ["alpha", "beta"], name="fusion")
    with Catalog(warehouse.relations()) as catalog:
        ids, blocks = matrix(catalog, [ALPHA, BETA])
        for repeat in range(2):
            fitted = [stored_statistics(catalog, member, "s")[repeat] for member in (ALPHA, BETA)]
            query = catalog.query("fuse", {"repeat": str(repeat)}).to_arrow_table()
            assert query["record_id"].to_pylist() == list(ids)
            theirs = np.array(query["features"].to_pylist(), dtype=np.float32)
            assert np.array_equal(fused(blocks, fitted, scale="minmax"), theirs)
            for member, found in zip((ALPHA, BETA), fitted, strict=True):
                named = {"model": member.model, "repeat": str(repeat)}
                (row,) = catalog.query("norm_stats", named).to_arrow_table().to_pylist()
                assert row["n_train"] == found.n_train
                assert row["mn"] == found.mn.tolist()
                assert row["mx"] == found.mx.tolist()


def test_test_records_never_reach_the_statistics(cohort: Cohort) -> None:
    warehouse = cohort()
    split(warehouse, "s", task="ACS", repeats=1)
    assert fuse(warehouse, ["alpha", "beta"], name="fusion").fitted == 2
    before = warehouse.versions()
    with Catalog(warehouse.relations()) as catalog:
        (one,) = reshuffles(catalog, "s")
    rewrite(warehouse, one.test[0], ALPHA, [1e6, -1e6, 0.0, 7.0])
    assert fuse(warehouse, ["alpha", "beta"], name="fusion").fitted == 0
    assert warehouse.versions()["norm_stats"] == before["norm_stats"]

    rewrite(warehouse, one.train[0], ALPHA, [1e6, -1e6, 0.0, 7.0])
    assert fuse(warehouse, ["alpha", "beta"], name="fusion").fitted == 1
    with Catalog(warehouse.relations()) as catalog:
        found = stored_statistics(catalog, ALPHA, "s")[0]
    assert (found.mx[0], found.mn[1]) == (1e6, -1e6)


def test_fit_on_all_must_be_asked_for_and_sees_every_record(cohort: Cohort) -> None:
    warehouse = cohort()
    split(warehouse, "s", task="ACS", repeats=2)
    assert fuse(warehouse, ["alpha"], name="leaky", fit="all").fitted == 1
    with Catalog(warehouse.relations()) as catalog:
        found = stored_statistics(catalog, ALPHA, EVERYTHING)
        assert stored_statistics(catalog, ALPHA, "s") == {}
    assert found[0].n_train == 120


def test_records_that_lack_a_vector_are_counted_or_refused(cohort: Cohort) -> None:
    warehouse = cohort()
    lost = {"record_id": ["syn/00000", "syn/00001", "syn/00002"], "model": ["beta"] * 3}
    warehouse.delete("embeddings", pa.table(lost), command="test")
    warehouse.delete("records", pa.table({"record_id": ["syn/00009"]}), command="test")
    result = fuse(warehouse, ["alpha", "beta"], name="fusion")
    assert (result.joined, result.dim) == (116, 10)
    assert result.dropped == {str(ALPHA): 0, str(BETA): 3}
    assert repr(result) == "FuseResult('fusion' = alpha + beta, 116 records × 10, 3 dropped)"
    with pytest.raises(NotEnoughDataError, match="3 lack beta@v1:mean"):
        fuse(warehouse, ["alpha", "beta"], name="strict", missing="error")
    warehouse.delete("embeddings", pa.table({"model": ["beta"]}), command="test")
    with pytest.raises(UnknownNameError, match="Unknown feature set 'beta'"):
        fuse(warehouse, ["alpha", "beta"], name="other")


def test_a_name_is_defined_once(cohort: Cohort) -> None:
    warehouse = cohort()
    split(warehouse, "s", task="ACS")
    before = warehouse.versions()
    assert not fuse(warehouse, ["alpha", "beta"], name="fusion", dry_run=True).added
    assert warehouse.versions() == before
    first = fuse(warehouse, ["alpha", "beta"], name="fusion")
    assert (first.added, first.fitted) == (True, 20)
    before = warehouse.versions()
    second = fuse(warehouse, ["alpha", "beta"], name="fusion")
    assert (second.added, second.fitted) == (False, 0)
    assert warehouse.versions() == before
    different: list[dict[str, Any]] = [
        {"models": ["beta", "alpha"]},
        {"models": ["alpha", "beta"], "scale": "zscore"},
        {"models": ["alpha", "beta"], "fit": "all"},
    ]
    for options in different:
        with pytest.raises(UsageError, match="exists with another definition"):
            fuse(warehouse, name="fusion", **options)


def test_what_cannot_be_fused_is_refused(cohort: Cohort) -> None:
    warehouse = cohort(records=20)
    fuse(warehouse, ["alpha", "beta"], name="fusion")
    before = warehouse.versions()
    refused: list[tuple[list[str], dict[str, Any], str]] = [
        (["alpha", "alpha"], {}, "given twice"),
        (["alpha", "fusion"], {}, "members must be models"),
        ([], {}, "at least one model"),
        (["alpha"], {"name": "alpha"}, "is the name of a model"),
        (["alpha"], {"name": "a@b"}, "cannot be named"),
        (["alpha"], {"name": "signal"}, "cannot be named"),
        (["alpha"], {"scale": "log"}, "Unknown scale 'log'; known: minmax, zscore, none"),
    ]
    for models, options, message in refused:
        with pytest.raises(UsageError, match=message):
            fuse(warehouse, models, **{"name": "new", **options})
    assert warehouse.versions() == before


def test_names_resolve_and_ambiguous_ones_list_what_they_fit(cohort: Cohort) -> None:
    warehouse = cohort(records=20)
    fuse(warehouse, ["beta", "alpha"], name="fusion", scale="zscore")
    rewrite(warehouse, "syn/00000", Member("alpha", "v2", "mean"), [1.0, 2.0])
    rewrite(warehouse, "syn/00000", Member("alpha", "v2", "centre"), [1.0, 2.0])
    with Catalog(warehouse.relations()) as catalog:
        assert feature_set(catalog, "beta").members == (BETA,)
        assert feature_set(catalog, "alpha@v1").members == (ALPHA,)
        assert feature_set(catalog, "alpha:centre").members == (Member("alpha", "v2", "centre"),)
        assert feature_set(catalog, "alpha@v2:mean").members == (Member("alpha", "v2", "mean"),)
        found = feature_set(catalog, "fusion")
        assert (found.members, found.scale, found.fit) == ((BETA, ALPHA), "zscore", "train")
        with pytest.raises(UsageError, match="alpha@v1:mean, alpha@v2:centre, alpha@v2:mean"):
            feature_set(catalog, "alpha")
        with pytest.raises(UnknownNameError, match="Did you mean 'fusion'"):
            feature_set(catalog, "fusoin")
