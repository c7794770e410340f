"""The warehouse worked out by hand, an empty one, and both in a bare DuckDB."""

from __future__ import annotations

from typing import Any

import duckdb
import pyarrow as pa
import pytest

from ecgstore.catalog import Catalog, init_script
from ecgstore.schema import TABLES
from ecgstore.storage.shards import write_shards
from tests.sql.by_hand import Relations, tables


@pytest.fixture(scope="module")
def relations(tmp_path_factory: pytest.TempPathFactory) -> Relations:
    root = tmp_path_factory.mktemp("catalog's")  # a quote in the path, to be escaped
    found: Relations = {name: ([], schema.arrow) for name, schema in TABLES.items()}
    for name, rows in tables().items():
        (root / name).mkdir()
        half = max(1, len(rows) // 2)
        for part in (rows[:half], rows[half:]):
            table = pa.Table.from_pylist(part, schema=TABLES[name].arrow)
            shards = write_shards(root / name, TABLES[name], table)
            found[name][0].extend(shard.path for shard in shards)
    return found


@pytest.fixture(scope="module")
def catalog(relations: Relations) -> Any:
    with Catalog(relations) as opened:
        yield opened


@pytest.fixture(scope="module")
def empty() -> Any:
    with Catalog({}) as opened:
        yield opened


@pytest.fixture(scope="module")
def bare(relations: Relations) -> Any:
    with duckdb.connect() as connection:
        connection.execute(init_script(relations))
        yield connection
