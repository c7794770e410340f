"""Export: what other programs are given is what the warehouse holds, or is refused by name."""

from __future__ import annotations

import csv
import json
import math
import shutil
import subprocess
import sys
import textwrap
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ecgstore
from ecgstore.errors import DamagedError, QueryError, UnknownNameError, UsageError, WarehouseError
from ecgstore.record import COLUMNS, INVALID, LEADS
from ecgstore.schema import TABLES
from ecgstore.warehouse import Warehouse

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # wfdb 4.3 calls pandas in a way that pandas 3 warns of
    import wfdb

KEPT = Path(__file__).resolve().parent / "data" / "warehouses" / "v1"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a warehouse with rows in every table, made in the past."""
    root = shutil.copytree(KEPT, tmp_path_factory.mktemp("home") / "warehouse")
    Warehouse.create(root)  # the tables that came later
    return root


def add(
    root: Path,
    record_id: str,
    digital: Any,
    *,
    leads: Sequence[str] = LEADS,
    gain: float = 200.0,
    baseline: int = 0,
    rate_hz: float | None = 500.0,
) -> None:
    """Add a record by its parts, as no reader would refuse it."""
    warehouse = Warehouse.create(root)
    counts = dict(zip((lead.lower() for lead in leads), np.asarray(digital).tolist(), strict=True))
    row: dict[str, object] = {
        "record_id": record_id,
        "gain": [gain if column in counts else None for column in COLUMNS],
        "baseline": [baseline if column in counts else None for column in COLUMNS],
        **counts,
    }
    schema = TABLES["waveforms"].arrow
    rows = pa.Table.from_pylist([row], schema=schema)
    warehouse.append("waveforms", rows, command="test")
    one = {"record_id": [record_id], "rate_hz": pa.array([rate_hz], pa.float64())}
    warehouse.append("records", pa.table({**one, "patient_id": ["Anna Muster"]}), command="test")


# ------------------------------------------------------------------ tables


def test_parquet_holds_every_table_column_for_column(home: Path, tmp_path: Path) -> None:
    with ecgstore.connect(home) as store:
        for name, schema in TABLES.items():
            out = tmp_path / f"{name}.parquet"
            result = store.export(name, out)
            stored = store.warehouse.table(name).read()
            found = pq.read_table(out)
            assert found.schema.equals(stored.schema), name
            order = [(key, "ascending") for key in schema.key]
            assert found.sort_by(order).equals(stored.sort_by(order)), name
            assert (result.written, result.files) == (stored.num_rows, 1)
            assert result.size == out.stat().st_size


def test_an_empty_table_is_a_file_with_its_columns(tmp_path: Path) -> None:
    Warehouse.create(tmp_path / "warehouse")
    with ecgstore.connect(tmp_path / "warehouse") as store:
        for name in ("records", "waveforms"):
            for form in ("parquet", "csv"):
                assert store.export(name, tmp_path / f"{name}.{form}").written == 0
        assert store.export("waveforms", tmp_path / "wfdb", form="wfdb").written == 0
    assert pq.read_table(tmp_path / "waveforms.parquet").schema == TABLES["waveforms"].arrow
    header = (tmp_path / "records.csv").read_text().splitlines()
    assert header == [",".join(f'"{column}"' for column in TABLES["records"].arrow.names)]


def test_csv_gives_other_programs_the_same_counts_and_sums(home: Path, tmp_path: Path) -> None:
    with ecgstore.connect(home) as store:
        for name in TABLES:
            store.export(name, tmp_path / f"{name}.csv")
            count = store.warehouse.table(name).read().num_rows
            assert len(pl.read_csv(tmp_path / f"{name}.csv", infer_schema=False)) == count, name
        value = "select sum(value), sum(seconds), count(*) from {}"
        ours = store.sql(value.format("scores")).fetchone()
    with duckdb.connect() as other:
        theirs = other.sql(value.format(f"'{tmp_path / 'scores.csv'}'")).fetchone()
        assert theirs == pytest.approx(ours, rel=1e-15)
        lists = other.sql(
            "select sum(list_sum(i::integer[])), count(*) filter (v1 is null) "
            f"from read_csv('{tmp_path / 'waveforms.csv'}', max_line_size = 10000000)"
        ).fetchone()
    with ecgstore.connect(home) as store:
        whole = "select sum(list_sum(i)), count(*) filter (v1 is null) from waveforms"
        assert store.sql(whole).fetchone() == lists


def test_csv_keeps_text_and_numbers_to_the_last_bit(tmp_path: Path) -> None:
    warehouse = Warehouse.create(tmp_path / "warehouse")
    texts = ['a "quoted", name', "line\nbreak", "ümlaut ✓", "", None, "None"]
    ids = [f"a/{number}" for number in range(len(texts))]
    ages = [0.1, 1 / 3, 1e-300, 80, None, math.pi]
    rows = {"record_id": ids, "report": texts, "age": ages, "leads": [["I", 'x"y']] * len(ids)}
    warehouse.append("records", pa.table(rows), command="test")
    vector = np.array([[0.1, 1e-7, 3.4e38]], dtype=np.float32)
    row = {"record_id": ["a/0"], "model": ["m"], "version": ["v"], "pooling": ["p"]}
    more = {"dim": pa.array([3], pa.int32()), "embedding": pa.array(list(vector))}
    warehouse.append("embeddings", pa.table({**row, **more}), command="test")
    with ecgstore.connect(tmp_path / "warehouse") as store:
        store.export("records", tmp_path / "records.csv")
        store.export("embeddings", tmp_path / "embeddings.csv")
    with (tmp_path / "records.csv").open(newline="") as stream:
        found = {row["record_id"]: row for row in csv.DictReader(stream)}
    assert [found[one]["report"] for one in ids] == [text or "" for text in texts]
    assert [float(found[one]["age"]) if found[one]["age"] else None for one in ids] == ages
    assert json.loads(found["a/0"]["leads"]) == ["I", 'x"y']
    frame = pl.read_csv(tmp_path / "records.csv")
    assert frame.sort("record_id")["report"].to_list() == texts  # "" is text, nothing is NULL
    with (tmp_path / "embeddings.csv").open(newline="") as stream:
        read = json.loads(next(csv.DictReader(stream))["embedding"])
    assert np.array_equal(np.array(read, dtype=np.float32), vector[0])


def test_rows_are_chosen_by_sql(home: Path, tmp_path: Path) -> None:
    with ecgstore.connect(home) as store:
        chosen = store.export("records", tmp_path / "r.csv", where="dataset = 'north' -- all")
        assert chosen.written == 8
        inner = "record_id in (select record_id from records where patient_id = 'p0')"
        assert store.export("waveforms", tmp_path / "w.parquet", where=inner).written == 2
        assert store.export("waveforms", tmp_path / "w", where=inner, form="wfdb").written == 2
        assert len([*(tmp_path / "w").rglob("*.hea")]) == 2
        for where in ("nonsense", "true) union (select 1", "error('x') = 1", "1; drop table x"):
            for form, out in (("csv", "x.csv"), ("wfdb", "x")):
                with pytest.raises(QueryError):
                    store.export("waveforms", tmp_path / out, where=where, form=form)  # type: ignore[arg-type]  # a literal each
    assert sorted(path.name for path in tmp_path.iterdir()) == ["r.csv", "w", "w.parquet"]


def test_the_past_is_exported_as_it_was(home: Path, tmp_path: Path) -> None:
    moments = json.loads(KEPT.with_suffix(".json").read_text())["moments"]
    first = min(moments)
    with ecgstore.connect(home, at=first) as store:
        assert store.export("records", tmp_path / "r.parquet").written == 8
        assert store.export("waveforms", tmp_path / "w", form="wfdb").written == 8
        assert store.export("labels", tmp_path / "l.csv").written == 0


# ------------------------------------------------------------------ signals


def test_a_warehouse_comes_back_from_wfdb_bit_for_bit(home: Path, tmp_path: Path) -> None:
    with ecgstore.connect(home) as store:
        result = store.export("waveforms", tmp_path / "out", form="wfdb")
        query = "select {}, signal_sha256, leads, rate_hz, n_samples from records order by 1"
        before = store.sql(query.format("record_id")).fetchall()
        waves = store.warehouse.table("waveforms").read().sort_by("record_id")
    assert result.written == len(before) == 25
    assert result.files == len([one for one in (tmp_path / "out").rglob("*") if one.is_file()])
    with ecgstore.connect(tmp_path / "again") as store:
        for dataset in ("north", "south"):
            store.ingest(tmp_path / "out" / dataset, dataset=dataset, jobs=1)
        assert store.sql(query.format("record_id")).fetchall() == before
        again = store.warehouse.table("waveforms").read().sort_by("record_id")
    assert again.equals(waves)
    assert any(INVALID in (row or []) for row in waves["i"].to_pylist())


def test_wfdbs_own_reader_sees_the_same_signals(home: Path, tmp_path: Path) -> None:
    with ecgstore.connect(home) as store:
        store.export("waveforms", tmp_path / "out", form="wfdb")
        for record_id in ("north/n03", "south/s09"):
            ours = store.read(record_id)
            theirs = wfdb.rdrecord(str(tmp_path / "out" / record_id), physical=False)
            assert theirs.sig_name == list(ours.leads)
            assert theirs.fs == ours.rate_hz
            assert theirs.fmt == ["16"] * len(ours.leads)
            assert np.array_equal(theirs.d_signal.T, ours.digital)
            assert theirs.adc_gain == ours.gain.tolist()
            assert theirs.baseline == ours.baseline.tolist()
            assert theirs.init_value == ours.digital[:, 0].tolist()
            sums = ours.digital.sum(axis=1, dtype=np.int64) % 65536
            assert [total % 65536 for total in theirs.checksum] == sums.tolist()
            physical = wfdb.rdrecord(str(tmp_path / "out" / record_id)).p_signal.T
            assert np.allclose(physical, ours.signal_mv, rtol=1e-12, equal_nan=True)


@given(
    digital=st.lists(
        st.lists(st.integers(-32768, 32767), min_size=3, max_size=3), min_size=1, max_size=12
    ),
    gain=st.floats(1e-12, 1e12),
    baseline=st.integers(-(2**31), 2**31 - 1),
    rate_hz=st.floats(1e-3, 999_999),
)
@settings(max_examples=8, deadline=None)
def test_any_signal_survives_wfdb(
    tmp_path_factory: pytest.TempPathFactory,
    digital: list[list[int]],
    gain: float,
    baseline: int,
    rate_hz: float,
) -> None:
    folder = tmp_path_factory.mktemp("any")
    leads = LEADS[12 - len(digital) :]
    scale: dict[str, Any] = {"gain": gain, "baseline": baseline, "rate_hz": rate_hz}
    add(folder / "warehouse", "a/x", digital, leads=leads, **scale)
    with ecgstore.connect(folder / "warehouse") as store:
        store.export("waveforms", folder / "out", form="wfdb")
    record = ecgstore.read(folder / "out" / "a" / "x.hea")
    assert record.leads == leads
    assert record.digital.tolist() == digital
    assert record.gain.tolist() == [gain] * len(leads)
    assert record.baseline.tolist() == [baseline] * len(leads)
    assert record.rate_hz == rate_hz


def test_headers_say_nothing_of_the_patient(tmp_path: Path) -> None:
    add(tmp_path / "warehouse", "a/x", [[1, 2, 3]], leads=["I"])
    with ecgstore.connect(tmp_path / "warehouse") as store:
        store.export("waveforms", tmp_path / "out", form="wfdb")
    text = (tmp_path / "out" / "a" / "x.hea").read_text()
    assert text == "x 1 500.0 3\nx.dat 16 200.0(0)/mV 16 0 1 6 0 I\n"


HOSTILE = {
    "a/../../escape": "folder",
    "a//x": "folder",
    "./x": "folder",
    "/etc/x": "folder",
    "a/b.hea/x": "folder",
    f"{'d' * 300}/x": "folder",
    "a/two words": "names",
    "a/tab\tbed": "names",
    "a/line\nbreak": "names",
    "a/ümlaut": "names",
    "a/": "names",
    "a/..": "names",
    "a/fine_it": "another",
    f"a/{'n' * 300}": "names",
}
"""Record ids that cannot be files, and a word of the reason."""


def test_names_that_no_file_can_have_are_refused_and_counted(
    tmp_path: Path, run: Callable[..., Any]
) -> None:
    root = tmp_path / "warehouse"
    for record_id in ["a/fine.it", "a/x#1", *HOSTILE, "a/fine_1-2", "x y.z/deep/er/fine", "plain"]:
        add(root, record_id, [[1, 2, 3]], leads=["I"])
    add(root, "a/no_rate", [[1, 2, 3]], leads=["I"], rate_hz=None)
    add(root, "a/nan_rate", [[1, 2, 3]], leads=["I"], rate_hz=math.nan)
    add(root, "a/no_gain", [[1, 2, 3]], leads=["I"], gain=0.0)
    out = tmp_path / "sub" / "out"
    command = ("-w", root, "export", "waveforms", "--to", "wfdb", "-o", out, "--json")
    plan = run(*command, "--dry-run")
    assert not out.parent.exists()
    done = run(*command)
    assert plan.code == done.code == 3
    assert json.loads(plan.out) == json.loads(done.out)
    counts = {row["reason"]: row["rows"] for row in json.loads(done.out)}
    assert counts.pop(None) == 5
    for word in ("folder", "names", "another"):
        expected = sum(one == word for one in HOSTILE.values())
        assert [n for reason, n in counts.items() if word in reason.split()] == [expected]
    assert sum(counts.values()) == len(HOSTILE) + 3
    found = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.hea"))
    names = ["a/fine_1-2", "a/fine_it", "a/x_1", "plain", "x y.z/deep/er/fine"]
    assert found == [f"sub/out/{name}.hea" for name in names]
    for name in names:
        assert ecgstore.read(out / f"{name}.hea").digital.tolist() == [[1, 2, 3]]


# ------------------------------------------------------------------ places


def test_nothing_is_overwritten_unless_asked(
    home: Path, tmp_path: Path, run: Callable[..., Any]
) -> None:
    for arguments in (("records", "-o", "r.csv"), ("waveforms", "--to", "wfdb", "-o", "w")):
        table, *_, name = arguments
        out = tmp_path / name
        command = ("-w", home, "export", table, *arguments[1:-1], out)
        assert run(*command).code == 0
        files = {path: path.read_bytes() for path in (out, *out.rglob("*")) if path.is_file()}
        for path in files:
            path.write_text("mine")
        refused = run(*command)
        assert refused.code == 2
        assert "is there already" in refused.err
        assert "--overwrite" in refused.err
        assert all(path.read_text() == "mine" for path in files)
        assert run(*command, "--overwrite").code == 0
        assert {path: path.read_bytes() for path in files} == files


def test_a_place_that_cannot_be_is_refused_before_anything_is_read(
    home: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("x")
    with ecgstore.connect(home) as store:
        for table, out, more, said in (
            ("records", tmp_path / "x", {}, "does not tell the format"),
            ("records", tmp_path / "x.xlsx", {}, "does not tell the format"),
            ("records", tmp_path / "x", {"form": "wfdb"}, "holds no signals"),
            ("records", home / "x.csv", {}, "lies in the warehouse"),
            ("records", home / "records" / ".." / "x.csv", {}, "lies in the warehouse"),
            ("waveforms", home / "out", {"form": "wfdb"}, "lies in the warehouse"),
            ("waveforms", tmp_path / "file", {"form": "wfdb"}, "is a file"),
            ("records", tmp_path, {"form": "csv"}, "is a folder"),
        ):
            with pytest.raises(UsageError, match=said):
                store.export(table, out, **more)  # type: ignore[arg-type]  # options of several kinds
        with pytest.raises(UnknownNameError, match="Unknown table 'record'"):
            store.export("record", tmp_path / "x.csv")
        with pytest.raises(WarehouseError, match="Could not write to"):
            store.export("records", tmp_path / "file" / "x.csv")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


# ------------------------------------------------------------------ failures


def test_damage_met_on_the_way_leaves_no_file(home: Path, tmp_path: Path) -> None:
    root = shutil.copytree(home, tmp_path / "warehouse")
    shard = max((root / "waveforms").glob("*.parquet"), key=lambda path: path.stat().st_size)
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(data)
    with ecgstore.connect(root) as store:
        for form, name in (("csv", "w.csv"), ("parquet", "w.parquet"), ("wfdb", "w")):
            with pytest.raises(DamagedError, match="waveforms"):
                store.export("waveforms", tmp_path / name, form=form)  # type: ignore[arg-type]  # a literal each
    assert [path.name for path in tmp_path.iterdir()] == ["warehouse"]


LIMITED = """
    import resource, signal, sys, ecgstore
    from ecgstore.errors import WarehouseError
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    root, table, out, form, limit = sys.argv[1:]
    with ecgstore.connect(root) as store:
        store.sql("select count(*) from records").fetchall()
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), resource.RLIM_INFINITY))
        try:
            store.export(table, out, form=form)
        except WarehouseError as error:
            print(error.message)
"""


@pytest.mark.parametrize(("form", "limit"), [("csv", 4000), ("parquet", 4000), ("wfdb", 8000)])
def test_a_full_disk_leaves_whole_files_only(
    home: Path, tmp_path: Path, form: str, limit: int
) -> None:
    out = tmp_path / "out"
    command = [sys.executable, "-W", "error", "-c", textwrap.dedent(LIMITED)]
    arguments = [home, "waveforms", out, form, limit]
    done = subprocess.run([*command, *map(str, arguments)], capture_output=True, text=True)
    assert done.stderr == ""
    assert done.stdout.startswith(f"Could not write to {str(out)!r}: File too large")
    left = [path for path in tmp_path.rglob("*") if path.is_file()]
    if form != "wfdb":
        assert left == []
    for header in out.rglob("*.hea"):
        ecgstore.read(header)
    assert not [path for path in left if path.suffix not in {".hea", ".dat"}]


PEAK = """
    import resource, sys, ecgstore
    root, out, form, where = sys.argv[1:]
    with ecgstore.connect(root) as store:
        store.export("waveforms", out, form=form, where=where)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_table(tmp_path: Path) -> None:
    """Six times the records, 180 MB of samples or 300 MB of text, take at most 100 MB more."""
    rng = np.random.default_rng(0)
    warehouse = Warehouse.create(tmp_path / "warehouse")
    few, parts = 250, 6
    for part in range(parts):
        ids = [f"a/{part}_{number}" for number in range(few)]
        lead = pa.array(
            [*rng.integers(-100, 100, (few, 5000), dtype=np.int16)], pa.list_(pa.int16())
        )
        waves = {"record_id": ids, "gain": [[200.0] * 12] * few, **dict.fromkeys(COLUMNS, lead)}
        warehouse.append("waveforms", pa.table(waves), command="test")
        rows = {"record_id": ids, "rate_hz": [500.0] * few}
        warehouse.append("records", pa.table(rows), command="test")
    for form in ("parquet", "csv", "wfdb"):
        peaks = []
        for name, where in (("few", "record_id < 'a/1'"), ("all", "true")):
            command = [sys.executable, "-c", textwrap.dedent(PEAK)]
            arguments = [tmp_path / "warehouse", tmp_path / f"{form}_{name}", form, where]
            done = subprocess.run(
                [*command, *map(str, arguments)], capture_output=True, text=True, check=True
            )
            peaks.append(int(done.stdout))
        assert peaks[1] < peaks[0] + 100, (form, peaks)


def test_every_signal_of_a_record_comes_back_from_wfdb(test_data: Path, tmp_path: Path) -> None:
    """Leads beyond the twelve, other units, and several rates in one record."""
    data = test_data / "data"
    names = ("formats/wfdb/s0010_re", "formats/wfdb/mixedsignals", "longterm/icu/TestICU")
    with ecgstore.connect(tmp_path / "w") as store:
        for name in names:
            store.ingest(data / f"{name}.hea", dataset="x", jobs=1)
        result = store.export("signals", tmp_path / "out", form="wfdb")
        assert (result.written, dict(result.refused)) == (3, {})
        for name in names:
            stem = Path(name).name
            original = ecgstore.read(data / f"{name}.hea")
            again = ecgstore.read(tmp_path / "out" / "x" / f"{stem}.hea")
            assert (
                again.signal_sha256
                == original.signal_sha256
                == store.read(f"x/{stem}").signal_sha256
            )
            theirs = wfdb.rdrecord(str(tmp_path / "out" / "x" / stem), smooth_frames=False)
            assert len(theirs.sig_name) == len(original.leads) + len(original.signals)
