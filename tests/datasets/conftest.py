"""Fixtures of the tests of datasets."""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING

import pytest

from ecgstore import io
from ecgstore.errors import ReadError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    from ecgstore.datasets import Collection
    from ecgstore.record import Record


@pytest.fixture
def write_csv() -> Callable[..., Path]:
    """Return a call that writes a table from dicts of one and the same keys."""

    def call(path: Path, rows: Iterable[Mapping[str, object]], delimiter: str = ",") -> Path:
        rows = list(rows)
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]), delimiter=delimiter)
            writer.writeheader()
            writer.writerows(rows)
        return path

    return call


@pytest.fixture
def read_all() -> Callable[[Collection], dict[str, Record]]:
    """Return a call that reads every record of a collection, by its name."""

    def call(found: Collection) -> dict[str, Record]:
        records: dict[str, Record] = {}
        for source in found.sources:
            if source.row is None:
                records[source.name] = io.read(source.path, layout=source.layout)
            else:
                container = io.open_container(source.path, layout=source.layout)
                assert container is not None
                (record,) = container.read([source.row])
                assert not isinstance(record, ReadError)
                records[source.name] = record
        return records

    return call
