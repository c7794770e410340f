"""One record out of many: the same as in a scan, found whatever the order, damage never unseen."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import ecgstore
from ecgstore.errors import DamagedError, UnknownNameError, WarehouseError
from ecgstore.record import COLUMNS, INVALID, LEADS
from ecgstore.schema import TABLES
from ecgstore.storage.shards import ShardWriter
from ecgstore.synthetic import cohort, write_wfdb
from ecgstore.waveforms import Waveform, read, scan

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

SCHEMA = TABLES["waveforms"]


def rows(ids: Sequence[str], *, samples: int = 40) -> pa.Table:
    """Return waveforms of which every third lacks a lead; their counts depend on the id alone."""
    table: list[dict[str, Any]] = []
    for one in ids:
        rng = np.random.default_rng(sum(one.encode()))
        counts: list[Any] = list(rng.integers(-999, 999, (12, samples)).astype(np.int16))
        counts[3][:5] = INVALID
        gain: list[float | None] = [200.0] * 12
        if len(table) % 3 == 0:
            counts[7] = gain[7] = None
        signals = dict(zip(COLUMNS, counts, strict=True))
        table.append({"record_id": one, "gain": gain, "baseline": [3] * 12, **signals})
    return pa.Table.from_pylist(table, schema=SCHEMA.arrow)


def shard(folder: Path, ids: Sequence[str]) -> Path:
    with ShardWriter(folder, SCHEMA) as writer:
        writer.write(rows(ids))
    written = writer.close()
    assert written is not None
    return written.path


def told(waveform: Waveform | None) -> tuple[object, ...] | None:
    if waveform is None:
        return None
    arrays = (waveform.digital, waveform.gain, waveform.baseline)
    parts = ((one.shape, one.dtype, one.tobytes()) for one in arrays)
    return (waveform.record_id, waveform.leads, *parts)


@pytest.mark.parametrize("order", ["sorted", "shuffled"])
def test_a_record_is_the_same_alone_and_in_a_scan(tmp_path: Path, order: str) -> None:
    ids = [f"a/{i:04d}" for i in range(300)] + ["b/é", "b/z"]
    if order == "shuffled":
        ids = list(np.random.default_rng(0).permutation(ids))
    files = [shard(tmp_path, ids[:150]), shard(tmp_path, ids[150:])]
    assert pq.read_metadata(files[0]).num_row_groups == 3
    every = list(scan(files))
    assert [one.record_id for one in every] == ids
    for one in every[::7]:
        assert told(read(files, one.record_id)) == told(one)
    for unknown in ("a/0150x", "", "zzz", "\U0010ffff"):
        assert read(files, unknown) is None
    assert read([], "a/0000") is None


def test_a_shard_without_limits_is_searched(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    table = rows(["a/1", "a/2"])
    pq.write_table(table, path, write_statistics=False)
    assert told(read([path], "a/2")) == told(list(scan([path]))[1])
    assert read([path], "a/3") is None


def scanned(path: Path) -> list[tuple[object, ...] | None]:
    return [told(one) for one in scan([path])]


def searched(path: Path) -> list[tuple[object, ...] | None]:
    return [told(read([path], "a/1"))]


def test_a_flipped_sample_is_found_by_the_checksum_of_its_page(tmp_path: Path) -> None:
    path = shard(tmp_path, [f"a/{i}" for i in range(3)])
    whole = path.read_bytes()
    group = pq.read_metadata(path).row_group(0)
    for number in range(group.num_columns):
        column = group.column(number)
        damaged = bytearray(whole)
        damaged[column.data_page_offset + column.total_compressed_size - 1] ^= 0x10
        path.write_bytes(damaged)
        for get in (scanned, searched):
            with pytest.raises(DamagedError) as raised:
                get(path)
            assert raised.value.file == path.name


def test_a_shard_flipped_anywhere_gives_no_record(tmp_path: Path) -> None:
    with ecgstore.connect(tmp_path) as store:
        store.init()
        store.warehouse.append("waveforms", rows(["a/0", "a/1"]), command="test")
        store.warehouse.append("records", pa.table({"record_id": ["a/0"]}), command="test")
        assert store.read("a/0").leads == tuple(lead for lead in LEADS if lead != "V2")
        (path,) = store.warehouse.table("waveforms").files()
        whole = path.read_bytes()
        for place in range(0, len(whole), len(whole) // 40):
            damaged = bytearray(whole)
            damaged[place] ^= 0x10
            path.write_bytes(damaged)
            with pytest.raises(DamagedError) as raised:
                store.read("a/0")
            assert (raised.value.table, raised.value.file) == ("waveforms", path.name)


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    get: Callable[[Path], object]
    for get in (scanned, searched):
        with pytest.raises(DamagedError, match=r"'gone.parquet' is missing"):
            get(tmp_path / "gone.parquet")


def test_the_store_returns_a_record_as_its_source_stored_it(tmp_path: Path) -> None:
    sources = {record.name: record for record in cohort(12, seed=5)}
    write_wfdb(tmp_path / "ecgs", sources.values())
    with ecgstore.connect(tmp_path / "warehouse") as store:
        store.ingest(tmp_path / "ecgs", dataset="syn", jobs=1)
        digests = store.table("select record_id, signal_sha256 from records").to_pylist()
        for row in digests:
            record = store.read(row["record_id"])
            source = sources[record.name]
            assert record.signal_sha256 == row["signal_sha256"] == source.signal_sha256
            assert record.leads == source.leads == LEADS
            assert record.meta["age"] == source.meta["age"]
            assert record.meta["dataset"] == "syn"
        assert len(digests) == 12


def test_an_unknown_record_is_refused_with_the_nearest_not_with_all(tmp_path: Path) -> None:
    ids = [f"syn/{i:05d}" for i in range(3000)]
    with ecgstore.connect(tmp_path) as store:
        store.init()
        with pytest.raises(UnknownNameError, match="there are 0 records") as none:
            store.read("syn/00001")
        assert none.value.near == ()
        store.warehouse.append("records", pa.table({"record_id": ids}), command="test")
        with pytest.raises(UnknownNameError, match="there are 3000 records") as some:
            store.read("syn/02345x")
        assert some.value.near[0] == "syn/02345"
        assert str(some.value).count("syn/") <= 5
        with pytest.raises(WarehouseError, match="waveform of this record is not there"):
            store.read("syn/00001")
