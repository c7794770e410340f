"""Labels of a cohort's own: what is written, what is refused, and that no id reaches a message."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl
import pyarrow as pa
import pytest

from ecgstore.errors import UsageError
from ecgstore.labels import label
from ecgstore.schema import TABLES
from ecgstore.warehouse import Warehouse

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def warehouse(tmp_path: Path) -> Warehouse:
    """Return a warehouse with five records; the name ``e`` is in two datasets."""
    warehouse = Warehouse.create(tmp_path / "warehouse")
    ids = ["one/a", "one/b", "one/deep/c", "one/e", "two/e"]
    rows = [
        {"record_id": record_id, "dataset": record_id[:3], "rate_hz": 500.0} for record_id in ids
    ]
    records = pa.Table.from_pylist(rows, schema=TABLES["records"].arrow)
    warehouse.append("records", records, command="test")
    return warehouse


@pytest.fixture
def table(tmp_path: Path) -> Path:
    return tmp_path / "acs.csv"


def stored(warehouse: Warehouse, task: str = "ACS") -> dict[str, float]:
    rows = warehouse.table("labels").read().to_pylist()
    return {row["record_id"]: row["label"] for row in rows if row["task"] == task}


def patients(warehouse: Warehouse) -> dict[str, str | None]:
    rows = warehouse.table("records").read().to_pylist()
    return {row["record_id"]: row["patient_id"] for row in rows}


def test_labels_are_attached_by_id_or_unique_name(warehouse: Warehouse, table: Path) -> None:
    table.write_text("ecg,acs\none/a,1\nb,0\ndeep/c,true\ntwo/e,No\n")
    result = label(warehouse, table, task="ACS", id="ecg", label="acs")
    assert (result.added, result.rejected, result.empty) == (4, 0, 0)
    assert stored(warehouse) == {"one/a": 1.0, "one/b": 0.0, "one/deep/c": 1.0, "two/e": 0.0}
    assert {row["outcome"]: row["rows"] for row in result.rows}["added"] == 4

    versions = warehouse.versions()
    again = label(warehouse, table, task="ACS", id="ecg", label="acs")
    assert (again.added, again.existing) == (0, 4)
    assert warehouse.versions() == versions


@pytest.mark.parametrize("kind", ["csv", "semicolons", "tsv", "parquet", "bom"])
def test_tables_of_several_kinds(warehouse: Warehouse, tmp_path: Path, kind: str) -> None:
    frame = pl.DataFrame({"record_id": ["a", "b"], "label": [1.5, None], "note": ["x, y", ""]})
    path = tmp_path / f"t.{kind if kind in {'tsv', 'parquet'} else 'csv'}"
    if kind == "parquet":
        frame.write_parquet(path)
    else:
        frame.write_csv(path, separator={"semicolons": ";", "tsv": "\t"}.get(kind, ","))
    if kind == "bom":
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    result = label(warehouse, path, task="ACS")
    assert (result.added, result.empty, result.rejected) == (1, 1, 0)
    assert stored(warehouse) == {"one/a": 1.5}


def test_rows_that_cannot_be_used_become_rejects_without_ids(
    warehouse: Warehouse, table: Path
) -> None:
    table.write_text(
        "record_id,label\nsecret-77,1\na,1\na,0\nb,1\nb,1\nc?,\ndeep/c,maybe\ne,1\none/e,inf\n"
    )
    result = label(warehouse, table, task="ACS")
    assert result.reasons == {
        "two labels": 2,
        "unknown record": 2,
        "not a number": 2,
        "ambiguous record": 1,
    }
    assert stored(warehouse) == {"one/b": 1.0}, "the same label twice is no contradiction"
    rows = warehouse.table("rejects").read().to_pylist()
    assert {(row["source_uri"], row["reason"]) for row in rows} == {
        ("label:ACS/acs.csv:2", "unknown record"),
        ("label:ACS/acs.csv:3", "two labels"),
        ("label:ACS/acs.csv:4", "two labels"),
        ("label:ACS/acs.csv:7", "unknown record"),
        ("label:ACS/acs.csv:8", "not a number"),
        ("label:ACS/acs.csv:9", "ambiguous record"),
        ("label:ACS/acs.csv:10", "not a number"),
    }
    assert not any("secret" in str(row) for row in rows)

    versions = warehouse.versions()
    label(warehouse, table, task="ACS")
    assert warehouse.versions() == versions

    table.write_text("record_id,label\na,1\nb,1\n")
    label(warehouse, table, task="ACS")
    assert warehouse.table("rejects").read().num_rows == 0, "the file was put right"


def test_a_label_that_differs_needs_overwrite(warehouse: Warehouse, table: Path) -> None:
    table.write_text("record_id,label\na,1\nb,1\n")
    label(warehouse, table, task="ACS")
    label(warehouse, table, task="other")
    table.write_text("record_id,label\na,0\nb,1\ndeep/c,1\n")
    with pytest.raises(UsageError, match="1 records already have another label") as caught:
        label(warehouse, table, task="ACS")
    assert "--overwrite" in str(caught.value.hint)
    assert stored(warehouse) == {"one/a": 1.0, "one/b": 1.0}

    result = label(warehouse, table, task="ACS", overwrite=True)
    assert (result.added, result.changed, result.existing) == (1, 1, 1)
    assert stored(warehouse) == {"one/a": 0.0, "one/b": 1.0, "one/deep/c": 1.0}
    assert stored(warehouse, "other") == {"one/a": 1.0, "one/b": 1.0}


def test_patient_ids_are_attached(warehouse: Warehouse, table: Path) -> None:
    table.write_text("record_id,label,pid\na,1,P7\nb,,15709.0\ndeep/c,0,\none/e,1,P1\none/e,1,P2\n")
    result = label(warehouse, table, task="ACS", patient="pid", keep_ids=True)
    assert (result.patients, result.added, result.empty) == (2, 3, 1)
    assert result.reasons == {"two patients": 2}
    assert patients(warehouse) == {
        "one/a": "P7",
        "one/b": "15709",
        "one/deep/c": None,
        "one/e": None,
        "two/e": None,
    }
    assert set(warehouse.table("records").read()["rate_hz"].to_pylist()) == {500.0}

    versions = warehouse.versions()
    assert label(warehouse, table, task="ACS", patient="pid", keep_ids=True).patients == 0
    assert warehouse.versions() == versions

    table.write_text("record_id,label,pid\na,1,P8\n")
    with pytest.raises(UsageError, match="1 records already have another patient id") as caught:
        label(warehouse, table, task="ACS", patient="pid", keep_ids=True)
    assert "P7" not in caught.value.message
    label(warehouse, table, task="ACS", patient="pid", keep_ids=True, overwrite=True)
    assert patients(warehouse)["one/a"] == "P8"


def test_dry_run_counts_and_writes_nothing(warehouse: Warehouse, table: Path) -> None:
    table.write_text("record_id,label,pid\na,1,P7\nx,1,P8\n")
    versions = warehouse.versions()
    result = label(warehouse, table, task="ACS", patient="pid", dry_run=True)
    assert (result.added, result.patients, result.rejected) == (1, 1, 1)
    assert warehouse.versions() == versions


def test_wrong_files_and_columns_are_refused(warehouse: Warehouse, table: Path) -> None:
    with pytest.raises(UsageError, match=r"'acs\.csv' cannot be read: No such file"):
        label(warehouse, table, task="ACS")
    table.write_text("ecg,acs\na,1\n")
    with pytest.raises(UsageError, match="Its columns: 'ecg', 'acs'"):
        label(warehouse, table, task="ACS")
    for content in (b"", b"\xff\xfe\x00label", b'record_id,label\n"a,1\n'):
        table.write_bytes(content)
        with pytest.raises(UsageError):
            label(warehouse, table, task="ACS")
    with pytest.raises(UsageError, match="task name"):
        label(warehouse, table, task=" ")
    table.with_suffix(".parquet").write_bytes(b"PAR1")
    with pytest.raises(UsageError, match="cannot be read"):
        label(warehouse, table.with_suffix(".parquet"), task="ACS")
