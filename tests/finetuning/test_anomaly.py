"""The task of AnyECG's anomaly detection: any statement but normal and sinus rhythm."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa
import pytest

from ecgstore.catalog import Catalog
from ecgstore.errors import UnknownNameError
from ecgstore.tasks import cohort as labelled
from ecgstore.tasks import expand
from ecgstore.warehouse import Warehouse

if TYPE_CHECKING:
    from pathlib import Path

STATED: dict[str, list[int | None]] = {
    "scp:NORM": [1, 0, None, None],
    "scp:SR": [1, 1, None, None],
    "scp:AFIB": [0, 0, None, None],
    "scp:IMI": [0, 1, None, None],
    "snomed:426783006": [None, None, 1, 0],
    "snomed:164889003": [None, None, 0, 1],
    "MI": [0, 1, 1, 0],
}
"""Labels of four records; the superclass is no statement of its own."""


def test_an_anomaly_is_any_other_statement(tmp_path: Path) -> None:
    warehouse = Warehouse.create(tmp_path / "warehouse")
    ids = [f"r/{i}" for i in range(5)]
    warehouse.append("records", pa.table({"record_id": ids}), command="test")
    rows = [
        {"record_id": record_id, "task": task, "label": float(label)}
        for task, labels in STATED.items()
        for record_id, label in zip(ids, labels, strict=False)
        if label is not None
    ]
    unknown = pytest.raises(UnknownNameError, match="Unknown task 'anomaly'")
    with Catalog(warehouse.relations()) as catalog, unknown:
        expand(catalog, ["anomaly"])
    warehouse.append("labels", pa.Table.from_pylist(rows), command="test")
    with Catalog(warehouse.relations()) as catalog:
        assert expand(catalog, ["anomaly", "scp:S*"]) == ["anomaly", "scp:SR"]
        told = labelled(catalog, ["anomaly"])
    assert told["record_id"].to_pylist() == ids[:4], "of the last nothing is stated"
    assert told["anomaly"].to_pylist() == [0, 1, 0, 1]
