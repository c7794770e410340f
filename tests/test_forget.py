"""A patient who is erased is found nowhere any more, and nobody else is touched."""

from __future__ import annotations

import hashlib
import json
import shutil
from typing import TYPE_CHECKING, Any

import deltalake
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ecgstore.catalog import Catalog
from ecgstore.errors import EcgStoreError, ErasedError, UsageError
from ecgstore.feed import Feed
from ecgstore.schema import TABLES
from ecgstore.storage import disk
from ecgstore.store import Store
from ecgstore.trainings import Training, begin
from ecgstore.upkeep.forget import JOURNAL, forget
from ecgstore.warehouse import Warehouse

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

RECORDS = 40


def vector_rows(model: str, ids: list[str], x: NDArray[np.float32]) -> pa.Table:
    names = dict.fromkeys(("model", "version", "pooling"), [model] * len(ids))
    dims = pa.array([x.shape[1]] * len(ids), pa.int32())
    vectors = pa.array(list(x), pa.list_(pa.float32()))
    return pa.table({"record_id": ids, **names, "dim": dims, "embedding": vectors})


WITH_RECORDS = [n for n, t in TABLES.items() if "record_id" in t.arrow.names]


def patient(number: int) -> str:
    """Return an id; some are parts of others, look like numbers, or need quoting."""
    odd = {0: "patient-1", 1: "patient-10", 2: "7", 3: "77", 4: 'O\'Nél "x"', 5: "p%41/..\\"}
    return odd.get(number, f"patient-{100 + number}")


@pytest.fixture(scope="module")
def signals() -> NDArray[np.int16]:
    noise = np.random.default_rng(0).integers(-90, 90, (RECORDS, 12, 400))
    return noise.cumsum(axis=2).clip(-20_000, 20_000).astype(np.int16)


@pytest.fixture
def store(filled: Path, tmp_path: Path) -> Store:
    """Return a copy of the warehouse, to erase from."""
    shutil.copytree(filled, tmp_path / "warehouse")
    return Store(tmp_path / "warehouse")


@pytest.fixture(scope="module")
def filled(
    tmp_path_factory: pytest.TempPathFactory,
    write_wfdb: Callable[..., Path],
    signals: NDArray[np.int16],
) -> Path:
    """Make a warehouse with every table filled and many versions; ten patients of four ECGs."""
    tmp_path = tmp_path_factory.mktemp("filled")
    for i in range(RECORDS):
        write_wfdb(tmp_path / "source", f"r{i:03d}", signals[i])
    (tmp_path / "source" / "r099.hea").write_text("no header\n")
    made = Store(tmp_path / "warehouse")
    made.ingest(tmp_path / "source", dataset="syn")
    lines = ["id,acs,patient"]
    quoted = [patient(i // 4).replace('"', '""') for i in range(RECORDS)]
    lines += [f'syn/r{i:03d},{(i * 7) % 3 == 0:d},"{quoted[i]}"' for i in range(RECORDS)]
    (tmp_path / "acs.csv").write_text("\n".join(lines) + "\n")
    made.label(
        tmp_path / "acs.csv", task="ACS", id="id", label="acs", patient="patient", keep_ids=True
    )
    ids = [f"syn/r{i:03d}" for i in range(RECORDS)]
    rng = np.random.default_rng(1)
    house = made.warehouse
    for model in ("alpha", "beta"):
        rows = vector_rows(model, ids, rng.standard_normal((RECORDS, 4), dtype=np.float32))
        house.append("embeddings", rows, command="embed")
        windows = rows.drop_columns(["dim"]).append_column(
            "window", pa.array([0] * RECORDS, pa.int16())
        )
        house.append("windows", windows, command="embed")
    made.split("s", task="ACS", repeats=2, group="none")
    made.fuse(["alpha", "beta"], name="fusion")
    made.evaluate(["fusion"], "s", classifier="logistic")
    for run, chosen, where in (("aa1", ids[:10], "true"), ("aa2", ids[30:], "true")):
        begin(house, training(run, where), dict.fromkeys(chosen, "train"))
    begin(house, training("aa3", f"patient_id = '{patient(1)}'"), {ids[30]: "train"})
    made.compact()
    with Feed.open(made.warehouse):
        pass
    return made.root


def training(run: str, where: str) -> Training:
    return Training(
        run_id=run,
        kind="pretrain",
        method="stmem",
        model="stmem",
        size="tiny",
        params=json.dumps({"where": where}),
        started_from=None,
        datasets=("syn",),
        records=10,
        pieces=10,
        steps=1,
        seed=0,
        versions="{}",
        code="1",
    )


def rows_of(store: Store, name: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = store.warehouse.table(name).read().to_pylist()
    return rows


def everything(root: Path) -> list[tuple[Path, bytes]]:
    """Return every byte of a folder, and the columns of every shard as they are read."""
    found = []
    for path in sorted(one for one in root.rglob("*") if one.is_file()):
        data = path.read_bytes()
        found.append((path, data))
        if path.suffix == ".parquet":
            for column in pq.read_table(path).columns:
                for chunk in column.chunks:
                    values = chunk.flatten() if pa.types.is_list(chunk.type) else chunk
                    if pa.types.is_integer(values.type):
                        data = values.fill_null(0).to_numpy(zero_copy_only=False).tobytes()
                    else:
                        data = "\n".join(map(str, values.to_pylist())).encode()
                    found.append((path, data))
    return found


def left(root: Path, patterns: Sequence[bytes]) -> set[str]:
    return {
        str(path.relative_to(root))
        for path, data in everything(root)
        for pattern in patterns
        if pattern in data
    }


def traces(signals: NDArray[np.int16], chosen: Sequence[int]) -> list[bytes]:
    """Return what must not be found of some records: their ids and every piece of 64 samples."""
    ids = [f"syn/r{i:03d}".encode() for i in chosen]
    return ids + [
        signals[i, lead, start : start + 64].tobytes()
        for i in chosen
        for lead in range(12)
        for start in (0, 100, 336)
    ]


def test_nothing_is_left_of_a_patient_and_all_of_the_others(
    store: Store, signals: NDArray[np.int16]
) -> None:
    mine, name = range(4), patient(0)
    before = {table: rows_of(store, table) for table in TABLES}
    assert len(left(store.root, traces(signals, mine))) > 10
    result = store.forget([name], yes=True)
    assert (result.erased, result.patients, result.records) == (True, 1, 4)
    assert result.trainings == ("aa1",)
    assert len(rows_of(store, "trainings")) == 3

    patterns = [*traces(signals, mine), f"{name}\n".encode(), f'"{name}"'.encode()]
    assert left(store.root, patterns) == set()
    gone = {f"syn/r{i:03d}" for i in mine}
    for table in WITH_RECORDS:
        kept = [row for row in before[table] if row["record_id"] not in gone]
        assert sorted(map(str, rows_of(store, table))) == sorted(map(str, kept)), table
        assert result.rows_by_table[table] == len(before[table]) - len(kept)
        theirs = deltalake.DeltaTable(store.root / table)
        paths = [path.removeprefix("file://") for path in theirs.file_uris()]
        assert sum(pq.read_metadata(path).num_rows for path in paths) == len(kept)
    assert rows_of(store, "scores") == before["scores"]
    assert len(rows_of(store, "rejects")) == len(before["rejects"])
    assert store.verify().clean
    assert store.evaluate(["fusion"], "s", classifier="logistic").rows
    with pytest.raises(UsageError, match="None of the 1 patients given"):
        store.forget([name], yes=True)


def test_older_versions_say_why_they_cannot_be_opened(store: Store) -> None:
    run = rows_of(store, "scores")[0]["run_id"]
    versions = store.warehouse.versions()
    result = store.forget([patient(3)], yes=True)
    for table in ("records", "waveforms", "embeddings", "predictions", "splits"):
        assert versions[table] in result.closed[table]
        with pytest.raises(ErasedError, match="patients in it were erased on 20"):
            Warehouse(store.root, at={table: versions[table]}).table(table)
    with pytest.raises(ErasedError, match="can no longer be opened"):
        Store(store.root, at=run).table("select count(*) from records")
    empty = Warehouse(store.root, at={"records": 0})  # held nobody
    assert empty.table("records").read().num_rows == 0


def test_the_plan_writes_nothing_and_names_nobody(store: Store, run: Callable[..., Any]) -> None:
    before = {path: path.read_bytes() for path in store.root.rglob("*") if path.is_file()}
    done = run("-w", store.root, "forget", patient(0), patient(2), "--json")
    assert done.code == 0
    told = {row["table"]: row for row in json.loads(done.out)}
    assert (told["records"]["rows"], told["waveforms"]["rows"]) == (8, 8)
    assert "8 ECGs of 2 patients would go" in done.err
    assert "trained on them, and not reached: the weights of aa1" in done.err
    assert "patient-1" not in done.out + done.err
    assert "syn/r" not in done.out + done.err
    after = {path: path.read_bytes() for path in store.root.rglob("*") if path.is_file()}
    assert {k: v for k, v in after.items() if "_cache" not in k.parts} == {
        k: v for k, v in before.items() if "_cache" not in k.parts
    }


def test_the_certificate_can_be_checked_and_names_nobody(
    store: Store, run: Callable[..., Any], tmp_path: Path
) -> None:
    out = tmp_path / "erased.json"
    ids = [patient(2), patient(4), patient(5)]
    done = run("-w", store.root, "forget", *ids, "--yes", "-o", out)
    assert done.code == 0
    certificate = json.loads(done.out)
    assert json.loads(out.read_text()) == certificate
    digest = certificate.pop("sha256")
    assert digest == hashlib.sha256(json.dumps(certificate, sort_keys=True).encode()).hexdigest()
    digests = [hashlib.sha256(one.encode()).hexdigest() for one in sorted(ids)]
    assert certificate["patient_sha256"] == digests
    assert (certificate["patients"], certificate["records"]) == (3, 12)
    assert certificate["rows_removed"]["waveforms"] == 12
    assert certificate["trained_on_them"] == ["aa1"]
    assert certificate["searched"]["hits"] == 0
    assert certificate["searched"]["signal_pieces"] > 10
    assert not {"syn/r", "O'N", "p%41"} & {
        one for one in ("syn/r", "O'N", "p%41") if one in done.out
    }
    names = {row["patient_id"] for row in rows_of(store, "records")}
    assert names == {patient(i) for i in range(10)} - set(ids)


def test_an_unknown_patient_is_one_line_that_names_nobody(
    store: Store, run: Callable[..., Any]
) -> None:
    done = run("-w", store.root, "forget", "somebody", "--yes")
    assert done.code == 2
    assert "None of the 1 patients given is in the warehouse." in done.err
    assert "patient-1" not in done.err


def test_the_only_patient_of_a_warehouse(store: Store, signals: NDArray[np.int16]) -> None:
    store.forget([patient(i) for i in range(10)], yes=True)
    assert left(store.root, traces(signals, range(RECORDS))) == set()
    for table in WITH_RECORDS:
        assert rows_of(store, table) == []
    runs = {row["run_id"] for row in rows_of(store, "trainings")}
    assert runs == {"aa1", "aa2"}, "the options of the third name a patient"
    assert store.verify().clean


class Stop(OSError):
    """The disk fails."""


def whole(root: Path) -> set[str]:
    """Return the records one sees, having looked that each is whole."""
    with Catalog(Warehouse(root).relations()) as catalog:
        halves = catalog.table(
            "select count(*) as n from records left join waveforms using (record_id) "
            "where waveforms.i is null"
        )
        assert halves["n"][0].as_py() == 0
        return set(catalog.table("select record_id from records")["record_id"].to_pylist())


@pytest.mark.slow
def test_cut_short_at_any_step_it_is_finished_by_the_next(
    store: Store, signals: NDArray[np.int16], tmp_path: Path
) -> None:
    steps = 0

    def count(step: disk.Step, done: bool) -> None:  # noqa: FBT001  the watcher's interface
        nonlocal steps
        steps += not done

    copy = tmp_path / "copy"
    shutil.copytree(store.root, copy)
    with disk.watch(count):
        forget(Warehouse(copy), [patient(0)], yes=True)
    assert steps > 50
    total, mine = steps, {f"syn/r{i:03d}" for i in range(4)}
    for stop in [*range(0, total, total // 8), total - 1]:
        shutil.rmtree(copy)
        shutil.copytree(store.root, copy)
        steps = 0

        def fail(step: disk.Step, done: bool, stop: int = stop) -> None:  # noqa: FBT001
            nonlocal steps
            steps += not done
            if steps > stop:
                raise Stop(5, "Input/output error")

        with disk.watch(fail), pytest.raises(EcgStoreError):
            forget(Warehouse(copy), [patient(0)], yes=True)
        assert len(whole(copy) & mine) in (0, 4)
        try:
            forget(Warehouse(copy), [patient(0)], yes=True)
        except UsageError:  # all was done but the farewell
            assert not (copy / JOURNAL).exists()
        assert left(copy, traces(signals, range(4))) == set()
        assert len(whole(copy)) == RECORDS - 4
        assert Store(copy).verify().clean


def test_what_was_fitted_on_a_patient_goes_even_where_it_was_never_scored(store: Store) -> None:
    """A nearest-neighbour classifier and a fusion of scores hold what they learned from."""
    store.fuse(["alpha", "beta"], name="late", method="average")
    run = store.train("late", "s", classifier="knn").run_id
    trained = {
        one["repeat"]
        for one in rows_of(store, "splits")
        if one["split"] == "train" and one["record_id"] in {f"syn/r00{i}" for i in range(4)}
    }
    assert trained, rows_of(store, "splits")[:3]
    kept = {one["repeat"] for one in rows_of(store, "classifiers") if one["run_id"] == run}
    store.forget([patient(0)], yes=True)
    for table in ("classifiers", "fusions"):
        left = {one["repeat"] for one in rows_of(store, table) if one["run_id"] == run}
        assert left == kept - trained, table
