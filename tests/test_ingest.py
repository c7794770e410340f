"""Ingest end to end: real records, bad files, second runs, killed and concurrent processes."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
import warnings
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
import pytest

from ecgstore.errors import ReadError, UnknownNameError, UsageError, WarehouseError
from ecgstore.ingest import ingest
from ecgstore.record import LEADS
from ecgstore.warehouse import Warehouse
from ecgstore.waveforms import scan

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import pyarrow as pa

    Writer = Callable[..., Path]

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # wfdb 4.3 calls pandas in a way that pandas 3 warns of
    import wfdb

CHILD = """
    import sys
    from pathlib import Path
    from ecgstore.ingest import ingest
    from ecgstore.warehouse import Warehouse
    if __name__ == "__main__":
        source, root, jobs = sys.argv[1:]
        print("started", flush=True)
        result = ingest(Warehouse.create(Path(root)), [Path(source)], dataset="c", jobs=int(jobs))
        print(result.ingested, result.existing, flush=True)
"""


@pytest.fixture
def warehouse(tmp_path: Path) -> Warehouse:
    return Warehouse.create(tmp_path / "warehouse")


@pytest.fixture
def cohort(tmp_path: Path, write_wfdb: Writer) -> Path:
    """Return a folder of 150 distinct records, which is more than one batch."""
    folder = tmp_path / "cohort"
    rng = np.random.default_rng(0)
    for number in range(150):
        write_wfdb(folder, f"r{number:03d}", rng.integers(-99, 99, (12, 200)))
    return folder


def contents(warehouse: Warehouse) -> dict[str, pa.Table]:
    """Return what the tables hold in a fixed order, less the times of rejects."""
    tables = {}
    for name in ("records", "waveforms", "labels", "rejects"):
        rows = warehouse.table(name).read()
        rows = rows.drop_columns(["at"]) if name == "rejects" else rows
        order = [c for c in ("record_id", "task", "source_uri") if c in rows.column_names]
        tables[name] = rows.sort_by([(column, "ascending") for column in order]).combine_chunks()
    return tables


def spawn(*arguments: object, script: str = CHILD) -> subprocess.Popen[str]:
    """Start a process in a group of its own, as a terminal does."""
    command = [sys.executable, "-c", textwrap.dedent(script), *map(str, arguments)]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


class Counter:
    """A progress that adds up what it is told."""

    def __init__(self) -> None:
        self.total, self.done, self.rejected, self.notes = 0, 0, 0, list[str]()

    def start(self, total: int, unit: str) -> None:
        assert unit == "records"
        self.total += total

    def advance(self, done: int = 1, *, rejected: int = 0) -> None:
        self.done += done
        self.rejected += rejected

    def tell(self, text: str) -> None:
        raise AssertionError(text)

    def note(self, message: str) -> None:
        self.notes.append(message)


# -- real records ---------------------------------------------------------------------------------


def test_every_ptbxl_waveform_reads_back_as_wfdb_reads_the_file(
    test_data: Path, warehouse: Warehouse
) -> None:
    root = test_data / "data/ptbxl"
    progress = Counter()
    result = ingest(warehouse, [root], dataset="ptbxl", jobs=2, progress=progress)
    assert (result.ingested, result.existing, result.rejected) == (374, 0, 0)
    assert (progress.total, progress.done, progress.rejected) == (374, 374, 0)

    seen = 0
    for waveform in scan(warehouse.table("waveforms").files()):
        name = waveform.record_id.removeprefix("ptbxl/")
        path = root / "records500" / f"{int(name) // 1000 * 1000:05d}" / f"{name}_hr"
        original = wfdb.rdrecord(str(path), physical=False)
        assert waveform.leads == LEADS
        np.testing.assert_array_equal(waveform.digital, original.d_signal.T)
        np.testing.assert_array_equal(waveform.gain, original.adc_gain)
        np.testing.assert_array_equal(waveform.baseline, original.baseline)
        seen += 1
    assert seen == 374

    records = pl.from_arrow(warehouse.table("records").read())
    assert isinstance(records, pl.DataFrame)
    assert records["record_id"].is_unique().all()
    assert records["patient_id"].n_unique() == 348
    assert records.filter(pl.col("record_id") == "ptbxl/00001")["site"].item() == "0"
    assert records["source_uri"].str.starts_with("ptbxl/records500/").all()
    assert not records["source_uri"].str.contains(str(root), literal=True).any()

    labels = pl.from_arrow(warehouse.table("labels").read())
    assert isinstance(labels, pl.DataFrame)
    assert len(labels) == 374 * (5 + 71)
    counts = dict(labels.filter(pl.col("label") == 1)["task"].value_counts().iter_rows())
    wanted = {"NORM": 222, "STTC": 70, "CD": 57, "MI": 53, "HYP": 33}
    assert {task: counts[task] for task in wanted} == wanted
    assert labels.filter(pl.col("label") == 0)["likelihood"].is_null().all()

    versions = warehouse.versions()
    again = ingest(warehouse, [root], dataset="ptbxl", jobs=2)
    assert (again.ingested, again.existing, again.rejected) == (0, 374, 0)
    assert warehouse.versions() == versions


def test_records_of_few_leads_keep_their_place(test_data: Path, warehouse: Warehouse) -> None:
    source = test_data / "data/formats/wfdb/100_3chan.hea"
    ingest(warehouse, [source], dataset="x", jobs=1)
    row = warehouse.table("waveforms").read().to_pylist()[0]
    assert row["record_id"] == "x/100_3chan"
    assert row["gain"] == [200.0] * 3 + [None] * 9
    assert row["baseline"] == [1024] * 3 + [None] * 9
    assert [row[lead.lower()] is None for lead in LEADS] == [False] * 3 + [True] * 9
    assert len(row["ii"]) == 999


def test_long_records_do_not_wait_for_a_whole_row_group(
    tmp_path: Path, write_wfdb: Writer, warehouse: Warehouse
) -> None:
    for name in "abc":
        write_wfdb(tmp_path / "long", name, np.zeros((12, 1_500_000), np.int16))
    ingest(warehouse, [tmp_path / "long"], dataset="x", jobs=1)
    assert len(warehouse.table("waveforms").files()) == 2, "two fill a batch, one is left"
    assert warehouse.table("waveforms").read(["record_id"]).num_rows == 3


# -- bad files ------------------------------------------------------------------------------------


def test_bad_files_become_rejects_until_they_are_fixed(cohort: Path, warehouse: Warehouse) -> None:
    whole = (cohort / "r001.dat").read_bytes()
    (cohort / "r001.dat").write_bytes(whole[:-2])
    (cohort / "r002.hea").write_bytes(b"")
    first = ingest(warehouse, [cohort], dataset="c", jobs=1)
    assert (first.ingested, first.rejected) == (148, 2)
    assert first.reasons == {"truncated": 1, "empty file": 1}
    assert {"outcome": "rejected", "reason": "truncated", "records": 1} in first.rows
    rejects = warehouse.table("rejects").read().to_pylist()
    row = next(row for row in rejects if row["reason"] == "truncated")
    assert row["source_uri"] == "c/r001.hea"
    assert row["reader"] == "wfdb"
    assert "4800 bytes expected, 4798 found" in row["detail"]
    assert str(cohort) not in row["detail"]

    versions = warehouse.versions()
    second = ingest(warehouse, [cohort], dataset="c", jobs=1)
    assert (second.ingested, second.existing, second.rejected) == (0, 148, 2)
    assert warehouse.versions() == versions, "nothing new was found"

    (cohort / "r001.dat").write_bytes(whole)
    (cohort / "r002.dat").unlink()
    (cohort / "r002.hea").write_text("r002 1 500 9\nr002.dat 16 200 16 0 0 0 0 I\n")
    third = ingest(warehouse, [cohort], dataset="c", jobs=1)
    assert (third.ingested, third.rejected) == (1, 1)
    left = warehouse.table("rejects").read().to_pylist()
    assert [(row["source_uri"], row["reason"]) for row in left] == [("c/r002.hea", "missing file")]


def test_stop_raises_the_first_refusal_and_leaves_nothing_half_done(
    cohort: Path, warehouse: Warehouse
) -> None:
    (cohort / "r140.dat").write_bytes(b"")
    versions = warehouse.versions()
    for jobs in (1, 2):
        with pytest.raises(ReadError, match=r"r140\.dat") as caught:
            ingest(warehouse, [cohort], dataset="c", jobs=jobs, on_error="stop")
        assert caught.value.reason == "empty file"
    assert warehouse.table("rejects").version == versions["rejects"]
    assert not list(warehouse.root.rglob("*.tmp"))


def test_announced_but_missing_files_are_rejected(
    test_data: Path, tmp_path: Path, warehouse: Warehouse
) -> None:
    root = tmp_path / "ptb-xl"
    for name in ("ptbxl_database.csv", "scp_statements.csv"):
        (root / name).parent.mkdir(exist_ok=True)
        shutil.copy(test_data / "data/ptbxl" / name, root / name)
    shutil.copytree(test_data / "data/ptbxl/records100", root / "records100")
    for suffix in (".hea", ".dat"):
        next((root / "records100").rglob(f"00001_lr{suffix}")).unlink()
    result = ingest(warehouse, [root], dataset="ptbxl", jobs=2)
    assert (result.ingested, result.reasons) == (373, {"missing file": 1})
    reject = warehouse.table("rejects").read().to_pylist()[0]
    assert reject["source_uri"] == "ptbxl/records500/00000/00001_hr.hea"
    assert set(warehouse.table("records").read()["rate_hz"].to_pylist()) == {100.0}
    with pytest.raises(ReadError, match="00001_hr"):
        ingest(warehouse, [root], dataset="ptbxl", on_error="stop")


def test_dry_run_reads_all_and_writes_nothing(cohort: Path, warehouse: Warehouse) -> None:
    (cohort / "r001.dat").write_bytes(b"")
    before = sorted(warehouse.root.rglob("*"))
    result = ingest(warehouse, [cohort], dataset="c", jobs=2, dry_run=True)
    assert (result.ingested, result.rejected) == (149, 1)
    assert sorted(warehouse.root.rglob("*")) == before


def test_limit_takes_the_first_records_and_is_repeatable(
    cohort: Path, warehouse: Warehouse
) -> None:
    assert ingest(warehouse, [cohort], dataset="c", jobs=1, limit=10).ingested == 10
    again = ingest(warehouse, [cohort], dataset="c", jobs=1, limit=10)
    assert (again.ingested, again.existing) == (0, 10)
    assert ingest(warehouse, [cohort], dataset="c", jobs=1, limit=12).ingested == 2


def test_wrong_use_is_refused(tmp_path: Path, cohort: Path, warehouse: Warehouse) -> None:
    (tmp_path / "empty").mkdir()
    for sources, options in (
        ([], {"dataset": "c"}),
        ([tmp_path / "empty"], {"dataset": "c"}),
        ([tmp_path / "absent"], {"dataset": "c"}),
        ([cohort], {"dataset": "a/b"}),
        ([cohort], {"dataset": ""}),
        ([cohort], {"dataset": "c", "rate": 100}),
    ):
        with pytest.raises(UsageError):
            ingest(warehouse, sources, **options)
    with pytest.raises(UnknownNameError, match="reader"):
        ingest(warehouse, [cohort], dataset="c", reader="wfbd")
    with pytest.raises(WarehouseError, match="nothing can be added"):
        ingest(Warehouse(warehouse.root, at={}), [cohort], dataset="c")


def test_a_script_needs_no_main_guard(cohort: Path, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import ecgstore\n"
        f"store = ecgstore.connect({str(tmp_path / 'w')!r})\n"
        f"print(store.ingest({str(cohort)!r}, dataset='c', jobs=2).ingested)\n"
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("150\n", "")


def test_notes_reach_the_user(tmp_path: Path, cohort: Path, warehouse: Warehouse) -> None:
    (cohort / "photo.png").write_bytes(b"\x89PNG")
    progress = Counter()
    ingest(warehouse, [cohort], dataset="c", jobs=2, progress=progress)
    assert [note.split(":")[0] for note in progress.notes] == ["1 .png files passed over"]
    assert (progress.total, progress.done) == (150, 150)


# -- processes ------------------------------------------------------------------------------------


def test_more_processes_give_the_same_tables(tmp_path: Path, cohort: Path) -> None:
    one, two = (Warehouse.create(tmp_path / name) for name in ("one", "two"))
    (cohort / "r007.dat").write_bytes(b"")
    ingest(one, [cohort], dataset="c", jobs=1)
    ingest(two, [cohort], dataset="c", jobs=2)
    assert contents(one) == contents(two)
    assert len(two.table("waveforms").files()) == 2


def test_two_ingests_at_once_take_each_record_once(tmp_path: Path, cohort: Path) -> None:
    root = tmp_path / "shared"
    children = [spawn(cohort, root, 1) for _ in range(2)]
    outputs = [child.communicate(timeout=60) for child in children]
    assert [child.returncode for child in children] == [0, 0], outputs
    ingested = [int(out.split()[1]) for out, _ in outputs]
    assert sum(ingested) == 150
    ids = Warehouse(root).table("waveforms").read(["record_id"])["record_id"].to_pylist()
    assert len(ids) == len(set(ids)) == 150


def ended(source: Path, root: Path, moment: str, sign: signal.Signals) -> tuple[int, str]:
    """Start an ingest of two processes, end it once a file exists; return its code and words."""
    child = spawn(source, root, 2)
    deadline = time.monotonic() + 60
    while not any(root.glob(moment)):
        assert child.poll() is None, "it ended before that moment"
        assert time.monotonic() < deadline
        time.sleep(0.001)
    if sign == signal.SIGINT:
        os.killpg(child.pid, sign)  # a terminal sends Ctrl-C to the whole group
    else:
        child.send_signal(sign)
    _, words = child.communicate(timeout=60)
    while group_lives(child.pid):
        assert time.monotonic() < deadline + 60, "workers outlive their parent"
        time.sleep(0.01)
    return child.returncode, words


def group_lives(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory, write_wfdb: Writer) -> Path:
    """Return a folder of 600 records that takes a while to ingest."""
    folder = tmp_path_factory.mktemp("many")
    first = write_wfdb(folder, "0000", np.random.default_rng(0).integers(-99, 99, (12, 2000)))
    for number in range(1, 600):  # the same samples under many names: quick to make
        (folder / f"{number:04d}.hea").write_text(first.read_text())
    return folder


@pytest.mark.parametrize(
    "moment",
    [
        "waveforms/_staging/*/*.tmp",
        pytest.param("waveforms/_delta_log/*1.json", marks=pytest.mark.slow),
        pytest.param("records/*.parquet", marks=pytest.mark.slow),
    ],
)
def test_what_a_kill_cut_short_is_finished_by_the_next_run(
    tmp_path: Path, cohort: Path, moment: str
) -> None:
    warehouse = Warehouse.create(tmp_path / "broken")
    code, _ = ended(cohort, warehouse.root, moment, signal.SIGKILL)
    assert code == -signal.SIGKILL
    before = warehouse.table("records").read(["record_id"]).num_rows
    result = ingest(warehouse, [cohort], dataset="c", jobs=1)
    assert (result.existing, result.ingested) == (before, 150 - before)
    whole = Warehouse.create(tmp_path / "whole")
    ingest(whole, [cohort], dataset="c", jobs=1)
    assert contents(warehouse) == contents(whole)


def test_ctrl_c_leaves_no_temporary_file_and_no_process(tmp_path: Path, many: Path) -> None:
    root = tmp_path / "warehouse"
    code, words = ended(many, root, "waveforms/_staging/*/*.tmp", signal.SIGINT)
    assert code == -signal.SIGINT, words
    assert words.rstrip().endswith("KeyboardInterrupt")
    assert words.count("Traceback") == 1, "the workers are silent"
    assert not list(root.rglob("*.tmp"))


@pytest.mark.slow
def test_a_full_disk_is_one_line_and_the_next_run_finishes(tmp_path: Path, many: Path) -> None:
    script = """
        import resource, signal, sys
        from pathlib import Path
        from ecgstore.errors import WarehouseError
        from ecgstore.ingest import ingest
        from ecgstore.warehouse import Warehouse
        if __name__ == "__main__":
            warehouse = Warehouse.create(Path(sys.argv[2]))
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))  # workers inherit it
            try:
                ingest(warehouse, [Path(sys.argv[1])], dataset="c", jobs=2)
            except WarehouseError as error:
                print(error.message)
    """
    child = spawn(many, tmp_path / "w", script=script)
    out, err = child.communicate(timeout=60)
    assert (child.returncode, err) == (0, "")
    assert out.startswith("Could not write to")
    assert out.count("\n") == 1
    warehouse = Warehouse(tmp_path / "w")
    assert not list(warehouse.root.rglob("*.tmp"))
    assert warehouse.versions()["records"] == 0
    assert ingest(warehouse, [many], dataset="c", jobs=2).ingested == 600


def test_a_killed_worker_is_an_error_not_a_hang(tmp_path: Path) -> None:
    script = """
        import os, signal
        from ecgstore.errors import EcgStoreError
        from ecgstore.pool import run_tasks

        def die(task, pulse):
            os.kill(os.getpid(), signal.SIGKILL)

        if __name__ == "__main__":
            try:
                run_tasks(die, [1, 2], jobs=2, finished=print, advance=print)
            except EcgStoreError as error:
                print(error.message)
    """
    path = tmp_path / "die.py"
    path.write_text(textwrap.dedent(script))
    done = subprocess.run(
        [sys.executable, str(path)], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "A worker process was killed, perhaps for want of memory.\n"
