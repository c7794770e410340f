"""Shards: what is refused, how they are encoded, and that nothing half-written is ever seen."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ecgstore.errors import SchemaError, WarehouseError
from ecgstore.record import COLUMNS, INVALID
from ecgstore.schema import TABLES
from ecgstore.storage.shards import ShardWriter, check_rows, write_shards

if TYPE_CHECKING:
    from pathlib import Path


def vectors(n: int, dim: int = 8) -> pa.Table:
    values = np.random.default_rng(0).normal(size=(n, dim)).astype(np.float32)
    return pa.table(
        {
            "record_id": [f"a/{i:05d}" for i in range(n)],
            "model": ["ecgfm"] * n,
            "version": ["v1"] * n,
            "pooling": ["mean"] * n,
            "dim": pa.array([dim] * n, pa.int32()),
            "embedding": list(values),
        }
    )


def waveforms(n: int, samples: int = 5000) -> pa.Table:
    rng = np.random.default_rng(1)
    signal = np.cumsum(rng.integers(-9, 10, size=(n, samples)), axis=1).astype(np.int16)
    signal[:, 7] = INVALID
    rows: dict[str, Any] = {
        "record_id": [f"a/{i:05d}" for i in range(n)],
        "gain": [[200.0] * 12] * n,
        "baseline": [[0] * 12] * n,
    }
    rows |= {name: pa.array(list(signal), pa.list_(pa.int16())) for name in COLUMNS}
    rows["v6"] = pa.nulls(n, pa.list_(pa.int16()))
    return pa.table(rows)


def test_a_shard_is_named_by_its_bytes(tmp_path: Path) -> None:
    (shard,) = write_shards(tmp_path, TABLES["embeddings"], vectors(100))
    assert shard.path.name == f"{hashlib.sha256(shard.path.read_bytes()).hexdigest()}.parquet"
    assert (shard.rows, shard.size) == (100, shard.path.stat().st_size)
    assert list(tmp_path.iterdir()) == [shard.path]


def test_equal_rows_make_an_equal_shard(tmp_path: Path) -> None:
    first = write_shards(tmp_path, TABLES["embeddings"], vectors(50))
    assert write_shards(tmp_path, TABLES["embeddings"], vectors(50)) == first


def test_waveforms_keep_every_integer_in_groups_of_64_packed_as_declared(tmp_path: Path) -> None:
    rows = waveforms(100)
    (shard,) = write_shards(tmp_path, TABLES["waveforms"], rows)
    file = pq.ParquetFile(shard.path)
    assert [file.metadata.row_group(i).num_rows for i in range(2)] == [64, 36]
    chunks = [file.metadata.row_group(0).column(i) for i in range(15)]
    leads = {c.path_in_schema: c for c in chunks if c.path_in_schema.split(".")[0] in COLUMNS}
    assert len(leads) == 12
    for chunk in leads.values():
        assert "DELTA_BINARY_PACKED" in chunk.encodings
        assert not chunk.has_dictionary_page
        assert chunk.compression == "ZSTD"
    stored = pq.read_table(shard.path)
    assert stored["ii"].to_pylist() == rows["ii"].to_pylist()
    assert stored["v6"].null_count == 100
    file.close()


def test_vectors_are_split_by_byte_and_exact(tmp_path: Path) -> None:
    rows = vectors(5000)
    (shard,) = write_shards(tmp_path, TABLES["embeddings"], rows)
    with pq.ParquetFile(shard.path) as file:
        assert file.metadata.num_row_groups == 3  # 2048 rows each
        assert "BYTE_STREAM_SPLIT" in file.metadata.row_group(0).column(6).encodings
        back = file.read()["embedding"].combine_chunks().flatten().to_numpy()
    np.testing.assert_array_equal(back, np.concatenate(rows["embedding"].to_numpy()))


def test_rows_are_sorted_and_cut_at_the_file_limit(tmp_path: Path) -> None:
    n = TABLES["waveforms"].rows_per_file + 10
    ids = [f"a/{i:05d}" for i in range(n)]
    shards = write_shards(tmp_path, TABLES["waveforms"], pa.table({"record_id": ids}))
    assert [shard.rows for shard in shards] == [n - 10, 10]


def test_a_row_of_records_is_found_by_the_limits_of_its_row_group(tmp_path: Path) -> None:
    ids = [f"a/{i:05d}" for i in range(40_000)]
    patients = [f"{i % 7}" for i in range(len(ids))]
    rows = pa.table({"record_id": ids[::-1], "patient_id": patients})
    (shard,) = write_shards(tmp_path, TABLES["records"], rows)
    with pq.ParquetFile(shard.path) as file:
        groups = [file.metadata.row_group(i) for i in range(file.metadata.num_row_groups)]
        limits = [(one.column(0).statistics.min, one.column(0).statistics.max) for one in groups]
        assert sum(low <= "a/12345" <= high for low, high in limits) == 1
        assert max(one.num_rows for one in groups) < len(ids) // 2
        assert file.read()["record_id"].to_pylist() == ids


@pytest.mark.parametrize("part", [1, 63, 64, 65, 200])
def test_any_part_size_gives_the_same_shard(tmp_path: Path, part: int) -> None:
    rows = waveforms(200, samples=50)
    (whole,) = write_shards(tmp_path, TABLES["waveforms"], rows)
    with ShardWriter(tmp_path, TABLES["waveforms"]) as writer:
        for start in range(0, 200, part):
            writer.write(rows.slice(start, part))
    assert writer.close() == whole


def test_nothing_written_makes_no_file(tmp_path: Path) -> None:
    with ShardWriter(tmp_path, TABLES["labels"]) as writer:
        writer.write(pa.table({"record_id": pa.array([], pa.string()), "task": []}))
    assert writer.close() is None
    assert not list(tmp_path.iterdir())


def test_an_exception_removes_the_temporary_file(tmp_path: Path) -> None:
    def interrupted(writer: ShardWriter) -> None:
        with writer:
            writer.write(waveforms(70, samples=10))
            assert [path.suffix for path in tmp_path.iterdir()] == [".tmp"]
            raise KeyboardInterrupt

    writer = ShardWriter(tmp_path, TABLES["waveforms"])
    with pytest.raises(KeyboardInterrupt):
        interrupted(writer)
    assert not list(tmp_path.iterdir())
    assert writer.close() is None


def test_a_folder_that_is_gone_is_a_warehouse_error(tmp_path: Path) -> None:
    with pytest.raises(WarehouseError, match=r"Could not write to .*: No such file") as caught:
        write_shards(tmp_path / "gone", TABLES["embeddings"], vectors(1))
    assert "\n" not in caught.value.message
    assert caught.value.hint


BAD_ROWS = {
    "unknown column": ({"record_id": ["a"], "task": ["t"], "lable": [1.0]}, "no column 'lable'"),
    "key missing": ({"record_id": ["a"]}, "key column 'task' is missing"),
    "key NULL": (
        {"record_id": ["a", None], "task": ["t", "t"]},
        "key column 'record_id' holds NULL",
    ),
    "wrong type": (
        {"record_id": ["a"], "task": ["t"], "label": ["Jane"]},
        "'label' of type string",
    ),
}


@pytest.mark.parametrize("case", BAD_ROWS)
def test_rows_that_do_not_fit_are_refused_without_naming_a_value(case: str) -> None:
    columns, message = BAD_ROWS[case]
    with pytest.raises(SchemaError, match=message) as caught:
        check_rows(TABLES["labels"], pa.table(columns))
    assert caught.value.table == "labels"
    assert "Jane" not in str(caught.value)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), None])
def test_a_vector_that_is_not_finite_is_refused(value: float | None) -> None:
    vector: list[float | None] = [0.0] * 8
    rows = vectors(2).set_column(5, "embedding", pa.array([vector, [*vector[:7], value]]))
    with pytest.raises(SchemaError, match="NaN, infinity or NULL"):
        check_rows(TABLES["embeddings"], rows)


@pytest.mark.parametrize("vector", [None, [], [0.0] * 7, [0.0] * 9])
def test_a_vector_of_another_length_than_dim_is_refused(vector: list[float] | None) -> None:
    rows = vectors(2).set_column(5, "embedding", pa.array([[0.0] * 8, vector]))
    with pytest.raises(SchemaError, match="not as long as its 'dim'"):
        check_rows(TABLES["embeddings"], rows)


def test_samples_that_int16_cannot_hold_are_refused_not_wrapped() -> None:
    rows = pa.table({"record_id": ["a"], "ii": pa.array([[40_000]], pa.list_(pa.int32()))})
    with pytest.raises(SchemaError, match="without loss"):
        check_rows(TABLES["waveforms"], rows)


def test_a_slice_is_checked_as_a_slice() -> None:
    bad = vectors(3).set_column(
        5, "embedding", pa.array([[float("nan")] * 8, [0.0] * 8, [1.0] * 8])
    )
    assert check_rows(TABLES["embeddings"], bad.slice(1)).num_rows == 2


def test_a_worker_that_writes_shards_loads_no_database() -> None:
    heavy = {"deltalake", "duckdb", "torch"}
    code = f"import sys, ecgstore.storage.shards; print({heavy} & {{*sys.modules}})"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout == "set()\n"
