"""Other engines read the same folder and see the same rows, now and at older versions."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import os
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

import deltalake
import duckdb
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pytest

import ecgstore
from ecgstore.record import COLUMNS
from ecgstore.schema import TABLES
from ecgstore.storage.tables import Table
from ecgstore.warehouse import Warehouse

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).resolve().parent.parent
KEPT = ROOT / "tests" / "data" / "warehouses" / "v1"
PAGE = (ROOT / "docs" / "engines.md").read_text()
SNIPPETS = dict(re.findall(r"^```python\n# ([^\n]+)\n(.*?)^```", PAGE, re.MULTILINE | re.S))
QUIET = {"DO_NOT_TRACK": "true", "RAY_USAGE_STATS_ENABLED": "0"}
"""What keeps engines from telling their makers of their use."""
FEWER = "Daft's releases so far need an older pyarrow; pip install --no-deps daft runs this"


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory, fill_by_hand: Callable[..., None]) -> Path:
    """Return a folder with a warehouse of many commits by an old ecgstore and by this one.

    Both kinds of checkpoint lie in its logs, and shards that were merged, replaced and removed.
    """
    desk = tmp_path_factory.mktemp("desk")
    warehouse = Warehouse.create(shutil.copytree(KEPT, desk / "warehouse"))
    for number in range(70):
        row = {"record_id": [f"new/{number}"], "task": ["MORE"], "label": [float(number)]}
        warehouse.append("labels", pa.table(row), command="test")
    fill_by_hand(warehouse, "north/n01")
    rows = warehouse.table("records").read(where=pc.field("record_id") == "north/n02")
    place = rows.column_names.index("assessed")
    rows = rows.set_column(place, rows.schema.field(place), pa.array(["1"]))
    warehouse.replace("records", rows, command="quality")  # columns that came later are known now
    warehouse.delete("labels", pa.table({"record_id": ["new/7", "north/n01"]}), command="test")
    warehouse.delete("waveforms", pa.table({"record_id": ["north/n01"]}), command="test")
    folder = desk / "warehouse" / "labels"
    assert len([*(folder / "_delta_log").glob("*.checkpoint.parquet")]) == 2
    assert len([*folder.glob("*.parquet")]) > len(Table(folder, TABLES["labels"]).files())
    return desk


def ours(folder: Path, version: int | None) -> pa.Table:
    return Table(folder, TABLES[folder.name], version=version).read()


def with_polars(folder: Path, version: int | None) -> pa.Table:
    return pl.scan_delta(str(folder), version=version).collect().to_arrow()


def with_delta_rs(folder: Path, version: int | None) -> pa.Table:
    files = deltalake.DeltaTable(folder, version=version).file_uris()
    if not files:
        return TABLES[folder.name].arrow.empty_table()
    with duckdb.connect() as connection:
        return connection.read_parquet(files, union_by_name=True).to_arrow_table()


def with_duckdb(folder: Path, version: int | None) -> pa.Table:
    with duckdb.connect(config={"autoinstall_known_extensions": False}) as connection:
        load_delta(connection)
        at = "" if version is None else f", version := {version}"
        return connection.sql(f"from delta_scan('{folder}'{at})").to_arrow_table()


def load_delta(connection: duckdb.DuckDBPyConnection) -> None:
    """Load DuckDB's extension as installed on the machine, or as signed by DuckDB in a wheel."""
    wheel = importlib.util.find_spec("duckdb_extension_delta")
    found = [*Path(str(wheel.origin)).parent.rglob("*.duckdb_extension")] if wheel else []
    try:
        connection.execute(f"load '{found[0]}'" if found else "load delta")
    except duckdb.Error as error:
        pytest.skip(f"DuckDB's delta extension is not here: {str(error).splitlines()[0]}")


def with_daft(folder: Path, version: int | None) -> pa.Table:
    daft = pytest.importorskip("daft", reason=FEWER)
    rows: pa.Table = daft.read_deltalake(str(folder), version=version).to_arrow()
    return rows


ENGINES = [with_polars, with_delta_rs, with_duckdb, with_daft]


def same(name: str, theirs: pa.Table, mine: pa.Table) -> None:
    """Check two tables for the same rows, whatever their order, by count, sums and every value."""
    schema = TABLES[name].arrow
    for column in schema.names[theirs.num_columns :]:  # it came after this version
        assert mine[column].null_count == mine.num_rows, name
        theirs = theirs.append_column(column, pa.nulls(theirs.num_rows, schema.field(column).type))
    assert theirs.column_names == schema.names
    theirs = theirs.cast(pa.schema([one.with_nullable(nullable=True) for one in schema]))
    assert theirs.num_rows == mine.num_rows, name
    assert sums(theirs) == sums(mine), name
    order = [(key, "ascending") for key in TABLES[name].key]
    assert theirs.sort_by(order).to_pylist() == mine.sort_by(order).to_pylist(), name


def sums(rows: pa.Table) -> dict[str, float]:
    """Return the sum of each column of numbers, and of lists of numbers."""
    found = {}
    for name in rows.column_names:
        kind = rows.schema.field(name).type
        flat = pc.list_flatten(rows[name]) if pa.types.is_list(kind) else rows[name]
        if pa.types.is_integer(flat.type) or pa.types.is_floating(flat.type):
            values = np.sort(flat.combine_chunks().drop_null().to_numpy(zero_copy_only=False))
            found[name] = float(values.sum(dtype=np.float64))
    return found


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in QUIET.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize("engine", ENGINES)
def test_every_table_is_the_same_to_other_engines(
    engine: Callable[[Path, int | None], pa.Table], desk: Path
) -> None:
    for name in TABLES:
        mine = ours(desk / "warehouse" / name, None)
        assert mine.num_rows > 0, name
        same(name, engine(desk / "warehouse" / name, None), mine)


@pytest.mark.parametrize("engine", ENGINES)
def test_older_versions_are_the_same_to_other_engines(
    engine: Callable[[Path, int | None], pa.Table], desk: Path
) -> None:
    labels = desk / "warehouse" / "labels"
    newest = Table(labels, TABLES["labels"]).version
    for version in (0, 1, 50, 99, 100, 127, 128, 150, newest - 1, newest):
        same("labels", engine(labels, version), ours(labels, version))


def test_the_init_script_gives_any_duckdb_the_same_rows(desk: Path) -> None:
    with ecgstore.connect(desk / "warehouse") as store:
        script = store.init_script()
        counts = {
            name: store.sql(f"from {name}").aggregate("count(*)").fetchone() for name in VIEWS
        }
    with duckdb.connect() as connection:
        connection.execute(script)
        for name in TABLES:
            rows = connection.sql(f"from {name}").to_arrow_table()
            same(name, rows, ours(desk / "warehouse" / name, None))
        for name, count in counts.items():
            assert connection.sql(f"from {name}").aggregate("count(*)").fetchone() == count


VIEWS = sorted(path.stem for path in (ROOT / "sql" / "views").glob("*.sql"))


def test_a_glob_over_the_folder_is_wrong(desk: Path) -> None:
    folder = desk / "warehouse" / "labels"
    rows = pl.read_parquet(folder / "*.parquet", missing_columns="insert")
    assert len(rows) > ours(folder, None).num_rows


# ------------------------------------------------------------------ the page


@pytest.fixture
def expected(desk: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return what each snippet prints, run at the desk."""
    monkeypatch.chdir(desk)
    with ecgstore.connect("warehouse") as store:
        (desk / "tables.sql").write_text(store.init_script())
        found = store.sql("select count(*), sum(list_sum(ii)) from waveforms").fetchone()
    return [str(one) for one in found or ()]


@pytest.mark.parametrize("name", ["polars", "duckdb", "duckdb --init", "daft"])
def test_snippets_print_what_they_should(name: str, expected: list[str]) -> None:
    code = SNIPPETS[name]
    if name == "daft":
        pytest.importorskip("daft", reason=FEWER)
    if name == "duckdb":
        with duckdb.connect() as connection:
            load_delta(connection)
        wheel = importlib.util.find_spec("duckdb_extension_delta")
        if wheel is not None:
            file = next(Path(str(wheel.origin)).parent.rglob("*.duckdb_extension"))
            code = code.replace("load delta", f"load '{file}'")
    assert printed(code) == expected


def test_the_snippet_in_millivolts_gives_what_the_library_gives(
    desk: Path, expected: list[str]
) -> None:
    count, mean = printed(SNIPPETS["millivolts"])
    ids = ours(desk / "warehouse" / "waveforms", None)["record_id"].to_pylist()
    with ecgstore.connect("warehouse") as store:
        records = [store.read(record_id) for record_id in ids if record_id != "north/n01"]
    mv = [one.signal_mv[one.leads.index("II")] for one in records if "II" in one.leads]
    valid = np.concatenate(mv)
    valid = valid[~np.isnan(valid)]
    assert int(count) == len(valid)
    assert float(mean) == pytest.approx(valid.mean(), rel=1e-12)


def printed(code: str) -> list[str]:
    """Run a snippet and return the words it prints."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(code, {})
    return out.getvalue().split()


def test_every_snippet_is_run_or_said_not_to_be() -> None:
    assert set(SNIPPETS) == {"polars", "duckdb", "duckdb --init", "daft", "ray", "millivolts"}
    for heading in ("Spark", "Trino"):
        assert f"## {heading}\n\nNot run by our tests." in PAGE
    for column in COLUMNS:
        assert f'"{column}"' in SNIPPETS["millivolts"]


# ------------------------------------------------------------------ Ray, which starts a cluster


WITH_RAY = """
    import sys
    import pyarrow as pa
    import ray
    import ray.data

    ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    for folder in sys.argv[2:]:
        parts = ray.get(ray.data.read_delta(folder).to_arrow_refs())
        with pa.OSFile(f"{sys.argv[1]}/{folder.rpartition('/')[2]}.arrow", "wb") as file:
            rows = pa.concat_tables(parts)
            with pa.ipc.new_file(file, rows.schema) as writer:
                writer.write_table(rows)
"""


@pytest.mark.slow
def test_every_table_is_the_same_to_ray(desk: Path, tmp_path: Path, expected: list[str]) -> None:
    pytest.importorskip("ray", reason="the extra ray brings Ray")
    folders = [str(desk / "warehouse" / name) for name in TABLES]
    code = textwrap.dedent(WITH_RAY) + SNIPPETS["ray"]
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path), *folders],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, **QUIET},
    )
    assert done.stdout.split() == expected
    for name in TABLES:
        with pa.memory_map(str(tmp_path / f"{name}.arrow")) as file:
            rows = pa.ipc.open_file(file).read_all()
            same(name, rows, ours(desk / "warehouse" / name, None))
