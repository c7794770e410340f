"""Formats outlive programs: old warehouses open for ever, newer ones are refused in plain words."""

from __future__ import annotations

import importlib.util
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import deltalake
import pyarrow as pa
import pytest
import typer
from deltalake import TableFeatures

import ecgstore
from ecgstore.errors import SchemaError
from ecgstore.schema import TABLES
from ecgstore.storage.tables import Table
from ecgstore.warehouse import Warehouse

if TYPE_CHECKING:
    from collections.abc import Callable

HERE = Path(__file__).resolve().parent / "data" / "warehouses"
KEPT = sorted(path.stem for path in HERE.glob("*.json"))
DERIVED = {"_cache", "_locks"}
"""Folders of a warehouse that hold nothing but notes."""

_spec = importlib.util.spec_from_file_location("make", HERE / "make.py")
assert _spec is not None
assert _spec.loader is not None
make = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(make)


@pytest.fixture(params=KEPT)
def old(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, Any]:
    """Return a copy of a warehouse of an older version, and what that version read from it."""
    root = shutil.copytree(HERE / request.param, tmp_path / "warehouse")
    return root, json.loads((HERE / f"{request.param}.json").read_text())


def contents(root: Path) -> dict[str, bytes]:
    """Return every file of a warehouse that is not derived from others."""
    files = (path for path in root.rglob("*") if path.is_file())
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in files
        if path.relative_to(root).parts[0] not in DERIVED
    }


def check(root: Path, expected: Any) -> None:
    """Check every table at every version that was noted, and the sums over the newest."""
    for name, one in expected["tables"].items():
        for version, noted in one["versions"].items():
            table = Table(root / name, TABLES[name], version=int(version))
            rows = table.read()
            assert rows.num_rows == noted["rows"], (name, version)
            assert make.dump(rows, one["columns"]) == noted["sha256"], (name, version)


def test_an_old_warehouse_gives_what_it_gave(old: tuple[Path, Any]) -> None:
    root, expected = old
    check(root, expected)
    with ecgstore.connect(root) as store:
        for name, total in expected["sums"].items():
            found = store.table(make.SUMS[name]).columns[0][0].as_py()
            assert float(found) == pytest.approx(total, rel=1e-12), name
        assert store.verify().clean


def test_an_old_warehouse_is_seen_as_it_was_at_any_time(old: tuple[Path, Any]) -> None:
    root, expected = old
    moments = {**expected["moments"], **expected["runs"]}
    assert len(moments) > len(expected["runs"]) > 0
    for at, counts in moments.items():
        with ecgstore.connect(root, at=at) as store:
            for name, count in counts.items():
                found = store.table(f"select count(*) as n from {name}")["n"][0].as_py()
                assert found == count, (at, name)


def test_reading_an_old_warehouse_changes_nothing(
    old: tuple[Path, Any], run: Callable[..., Any], tmp_path: Path
) -> None:
    root, expected = old
    before = contents(root)
    for command in (
        ("sql", "select count(*) from records"),
        ("log",),
        ("verify",),
        ("export", "records", "-o", tmp_path / "records.csv"),
        ("labels", labels_file(tmp_path), "--task", "NEW", "--dry-run"),
    ):
        assert run("-w", root, *command).code == 0, command
    again = run("-w", root, "reproduce", next(iter(expected["runs"])))
    assert "values and 7 predictions" in again.err  # another XGBoost may give other numbers
    assert contents(root) == before


def test_writing_to_an_old_warehouse_keeps_all_it_holds(
    old: tuple[Path, Any], tmp_path: Path, write_wfdb: Callable[..., Path]
) -> None:
    root, expected = old
    before = contents(root)
    write_wfdb(tmp_path / "new", "x", [[1, 2, 3, 4], [5, 6, 7, 8]], leads=("I", "II"))
    with ecgstore.connect(root) as store:
        ids = set(store.table("select record_id from records")["record_id"].to_pylist())
        labels = store.table("select count(*) as n from labels")["n"][0].as_py()
        assert store.ingest(tmp_path / "new", dataset="new", jobs=1).ingested == 1
        store.label(labels_file(tmp_path), task="NEW")
        found = set(store.table("select record_id from records")["record_id"].to_pylist())
        assert found == ids | {"new/x"}
        assert store.table("select count(*) as n from labels")["n"][0].as_py() == labels + 2
        assert store.verify().clean
    check(root, expected)
    after = contents(root)
    pointers = {name for name in before if name.endswith("_last_checkpoint")}
    assert {name for name in before if after.get(name) != before[name]} <= pointers
    for name in expected["tables"]:
        newest = Table(root / name, TABLES[name])
        other = deltalake.DeltaTable(root / name)
        assert other.version() == newest.version
        assert {Path(uri).name for uri in other.file_uris()} == set(newest.snapshot.entries)


def test_an_old_warehouse_can_be_put_in_order(old: tuple[Path, Any]) -> None:
    root, expected = old
    with ecgstore.connect(root) as store:
        store.compact(retention_days=0)
        store.gc(grace_s=0)
        assert store.verify().clean
        for name, one in expected["tables"].items():
            newest = one["versions"][max(one["versions"], key=int)]
            rows = store.warehouse.table(name).read()
            assert make.dump(rows, one["columns"]) == newest["sha256"], name


def labels_file(folder: Path) -> Path:
    """Write two labels for records that every kept warehouse holds."""
    path = folder / "labels.csv"
    path.write_text("record_id,label\nnorth/n00,1\nsouth/s09,0\n")
    return path


# ------------------------------------------------------------------ columns that come later


OLDER = TABLES["labels"]
NEWER = replace(
    OLDER,
    arrow=OLDER.arrow.append(pa.field("annotator", pa.string())).append(
        pa.field("weights", pa.list_(pa.field("element", pa.float32())))
    ),
    version=OLDER.version + 1,
)


def rows_of(*names: str, **more: Any) -> pa.Table:
    return pa.table({"record_id": names, "task": ["MI"] * len(names), "label": [1.0], **more})


@pytest.fixture
def grown(tmp_path: Path) -> Path:
    """Return a table of the older layout with rows of two commits."""
    folder = tmp_path / "labels"
    table = Table.create(folder, OLDER)
    table.append(rows_of("a/1"), command="test")
    table.append(rows_of("a/2"), command="test")
    return folder


def test_a_new_column_is_null_in_old_rows_and_reading_upgrades_nothing(grown: Path) -> None:
    before = contents(grown)
    for version in (None, 0, 1, 2):
        rows = Table(grown, NEWER, version=version).read()
        assert rows.schema.names == NEWER.arrow.names
        assert rows["annotator"].null_count == rows.num_rows == (2 if version is None else version)
    assert contents(grown) == before


def test_the_first_write_adds_a_column_and_rewrites_no_row(grown: Path) -> None:
    before = contents(grown)
    table = Table(grown, NEWER)
    added = rows_of("a/3", annotator=["x"], weights=[[0.5, 1.0]])
    assert table.append(added, command="test") == 1
    after = contents(grown)
    assert {name: after[name] for name in before} == before
    assert len([name for name in after if name.endswith(".parquet")]) == 3
    assert [commit.command for commit in table.log.commits()][:2] == ["test", "upgrade"]
    found = {row["record_id"]: row for row in Table(grown, NEWER).read().to_pylist()}
    assert [found[f"a/{i}"]["annotator"] for i in (1, 2, 3)] == [None, None, "x"]
    assert found["a/3"]["weights"] == [0.5, 1.0]

    other = deltalake.DeltaTable(grown)
    assert [field.name for field in other.schema().fields] == NEWER.arrow.names
    assert deltalake.DeltaTable(grown, version=2).schema().fields == other.schema().fields[:-2]


def test_rows_of_both_layouts_are_replaced_and_removed_alike(grown: Path) -> None:
    table = Table(grown, NEWER)
    table.append(rows_of("a/3", annotator=["x"]), command="test")
    table.replace(rows_of("a/1", annotator=["y"]), command="test")
    assert table.delete(pa.table({"record_id": ["a/2"]}), command="test") == 1
    found = {row["record_id"]: row["annotator"] for row in Table(grown, NEWER).read().to_pylist()}
    assert found == {"a/1": "y", "a/3": "x"}
    assert Table(grown, NEWER, version=2).read().num_rows == 2


def test_the_older_program_refuses_the_upgraded_table_but_opens_its_past(grown: Path) -> None:
    Table(grown, NEWER).append(rows_of("a/3"), command="test")
    told = f"layout {NEWER.version}; this ecgstore knows layout {OLDER.version}"
    with pytest.raises(SchemaError, match=told) as caught:
        Table(grown, OLDER)
    assert caught.value.hint == "Install the ecgstore that wrote the warehouse, or a newer one."
    assert Table(grown, OLDER, version=2).read().num_rows == 2


# ------------------------------------------------------------------ what comes from the future


def newer_layout(folder: Path) -> str:
    properties = {"ecgstore.schemaVersion": "99"}
    deltalake.DeltaTable(folder).alter.set_table_properties(properties, raise_if_not_exists=False)
    return "has layout 99; this ecgstore knows layout"


def newer_protocol(folder: Path) -> str:
    alter = deltalake.DeltaTable(folder).alter
    alter.add_feature(TableFeatures.DeletionVectors, allow_protocol_versions_increase=True)
    return "can only be read by a Delta engine of version 3; this ecgstore knows version 1"


@pytest.fixture
def commands(tmp_path: Path, write_wfdb: Callable[..., Path]) -> dict[str, tuple[object, ...]]:
    """Return every command that opens a warehouse, with arguments that work on the kept ones."""
    write_wfdb(tmp_path / "new", "x", [[1, 2, 3, 4], [5, 6, 7, 8]], leads=("I", "II"))
    features = ("--features", "stmem.mini", "--split", "mi2")
    return {
        "init": (),
        "ingest": (tmp_path / "new", "--dataset", "new", "--jobs", "1"),
        "labels": (labels_file(tmp_path), "--task", "NEW"),
        "quality": ("--jobs", "1"),
        "plot": ("north/n01", "-o", tmp_path / "ecg.png"),
        "embed": ("--model", "stmem.mini", "--device", "cpu"),
        "codes": ("--model", "anyecg.tiny", "--device", "cpu"),
        "pretrain": ("stmem", "--size", "tiny", "-o", tmp_path / "pretrained"),
        "finetune": ("stmem.tiny", "--task", "MI", "--split", "mi2", "-o", tmp_path / "finetuned"),
        "distil": ("stmem", "--teacher", "stmem.mini", "-o", tmp_path / "distilled"),
        "split": ("another", "--task", "MI"),
        "fuse": ("stmem.mini", "--name", "another"),
        "train": features,
        "evaluate": features,
        "predict": ("RUN",),
        "compare": ("RUN", "RIVAL"),
        "clinical": ("RUN",),
        "subgroups": ("RUN", "--by", "sex"),
        "explain": ("RUN",),
        "probe": ("--features", "stmem.mini"),
        "learning-curve": features,
        "complementarity": (*features, "--features", "ecgfm.mini", "--fused", "fusion"),
        "project": ("--features", "stmem.mini", "-o", tmp_path / "map.png"),
        "sql": ("select count(*) from records",),
        "report": ("-o", tmp_path / "report.html"),
        "export": ("records", "-o", tmp_path / "records.csv"),
        "log": (),
        "verify": ("--repair",),
        "compact": (),
        "gc": ("--grace", "0"),
        "forget": ("p1", "--yes"),
    }


NO_WAREHOUSE = {"doctor", "demo", "models", "queries"}
"""Commands that open none."""
PAST = {"reproduce"}
"""Commands that open the tables as they were."""
TAUGHT = {"repair"}
"""Commands that want a weights file, and open the warehouse after it."""


def test_every_command_is_tried(app: Any, commands: dict[str, Any]) -> None:
    known: Any = typer.main.get_command(app)
    assert set(known.commands) == set(commands) | NO_WAREHOUSE | PAST | TAUGHT


@pytest.mark.parametrize("change", [newer_layout, newer_protocol])
def test_what_a_newer_program_wrote_is_refused_by_every_command(
    change: Callable[[Path], str],
    commands: dict[str, tuple[object, ...]],
    run: Callable[..., Any],
    tmp_path: Path,
) -> None:
    root = shutil.copytree(HERE / KEPT[-1], tmp_path / "warehouse")
    said = change(root / "records")
    before = contents(root)
    for name, arguments in commands.items():
        done = run("-w", root, name, *arguments)
        lines = done.err.splitlines()
        assert done.code == 1, (name, done)
        assert done.out == "", name
        assert f"error: Table 'records' {said}" in lines[0], (name, lines)
        assert lines[1].startswith("hint: "), name
        assert len(lines) == 2, name
    assert contents(root) == before


def test_the_past_of_a_newer_table_stays_open(tmp_path: Path) -> None:
    root = shutil.copytree(HERE / KEPT[-1], tmp_path / "warehouse")
    expected = json.loads((HERE / f"{KEPT[-1]}.json").read_text())
    newer_layout(root / "records")
    moment = max(expected["moments"])
    with ecgstore.connect(root, at=moment) as store:
        found = store.table("select count(*) as n from records")["n"][0].as_py()
    assert found == expected["moments"][moment]["records"]


def test_a_table_only_newer_engines_may_write_is_read_and_not_written(tmp_path: Path) -> None:
    root = shutil.copytree(HERE / KEPT[-1], tmp_path / "warehouse")
    alter = deltalake.DeltaTable(root / "labels").alter
    alter.add_feature(TableFeatures.AppendOnly, allow_protocol_versions_increase=True)
    warehouse = Warehouse(root)
    before = warehouse.table("labels")
    with pytest.raises(SchemaError, match="can only be written by a Delta engine of version 7"):
        warehouse.append("labels", rows_of("a/1"), command="test")
    assert warehouse.table("labels").version == before.version
    assert warehouse.table("labels").read() == before.read()
