"""The command line: data on stdout, words on stderr, one line an error, the right exit code."""

from __future__ import annotations

import csv
import io
import json
import re
import resource
import signal
import time
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq
import pytest

from ecgstore.synthetic import cohort, write_wfdb

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable
    from pathlib import Path

COUNT = 40


@pytest.fixture(scope="session")
def ecgs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of synthetic ECGs with their labels."""
    folder = tmp_path_factory.mktemp("ecgs")
    write_wfdb(folder, cohort(COUNT, seed=3, acs=0.4))
    return folder


@pytest.fixture(scope="session")
def home(ecgs: Path, app: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a warehouse made by the commands themselves."""
    from typer.testing import CliRunner

    home = tmp_path_factory.mktemp("home") / "warehouse"
    for command in (
        ["ingest", str(ecgs), "--dataset", "synthetic", "--jobs", "1"],
        ["labels", str(ecgs / "labels.csv"), "--task", "ACS", "--label", "ACS"],
        ["embed", "--model", "ecgfm.tiny", "--device", "cpu"],
        ["split", "few", "--task", "ACS", "--repeats", "2", "--test-size", "0.4"],
    ):
        done = CliRunner().invoke(app, ["-w", str(home), *command])
        assert done.exit_code == 0, done.stderr
    return home


def test_rows_come_in_every_form(home: Path, run: Callable[..., Any], tmp_path: Path) -> None:
    query = "select record_id, leads, age, null as none from records order by 1 limit 2"
    sql = ("-w", home, "sql", query)
    whole = json.loads(run(*sql, "--json").out)
    assert [len(row["leads"]) for row in whole] == [12, 12]
    assert whole == json.loads(run(*sql, "--format", "json").out)
    assert whole == [json.loads(line) for line in run(*sql).out.splitlines()]
    flat = list(csv.DictReader(io.StringIO(run(*sql, "--format", "csv").out)))
    assert [row["record_id"] for row in flat] == [row["record_id"] for row in whole]
    assert json.loads(flat[0]["leads"]) == whole[0]["leads"]
    assert flat[0]["none"] == ""
    assert whole[1]["record_id"] in run(*sql, "--format", "table").out
    readers: dict[str, Callable[[Path], Any]] = {
        "parquet": lambda path: pq.read_table(path).to_pylist(),
        "json": lambda path: json.loads(path.read_text()),
        "jsonl": lambda path: [json.loads(line) for line in path.read_text().splitlines()],
    }
    for suffix, read in readers.items():
        out = tmp_path / f"rows.{suffix}"
        assert run(*sql, "-o", out).out == ""
        assert read(out) == whole
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "rows.json",
        "rows.jsonl",
        "rows.parquet",
    ]


def test_a_table_fits_the_screen(
    home: Path, run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    time = "timestamp '2020-02-03 04:05:06.789' as seen"
    few = run("-w", home, "sql", f"select {time}, 'x' as label", "--format", "table").out
    assert "2020-02-03 04:05:06.789   x" in few
    many = run("-w", home, "sql", "from records limit 1", "--format", "table").out
    assert all(len(line.rstrip()) <= 60 for line in many.splitlines())
    assert re.search(r"^rate_hz +500 *$", many, re.MULTILINE)
    log = run("-w", home, "log", "--format", "table").out
    assert "code" not in log
    assert re.search(r"^ \d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}Z ", log, re.MULTILINE)


def test_a_query_comes_from_a_file_a_pipe_or_by_name(
    home: Path, run: Callable[..., Any], tmp_path: Path
) -> None:
    file = tmp_path / "q.sql"
    file.write_text("select count(*) as n from records")
    expected = [{"n": COUNT}]
    assert json.loads(run("-w", home, "sql", "-f", file, "--json").out) == expected
    piped = run("-w", home, "sql", "--json", stdin=file.read_text())
    assert json.loads(piped.out) == expected
    dashed = run("-w", home, "sql", "-", "--json", stdin=file.read_text())
    assert json.loads(dashed.out) == expected
    named = run("-w", home, "sql", "-n", "label_prevalence", "-p", "task=ACS", "--json")
    assert sum(row["n"] for row in json.loads(named.out)) == COUNT


@pytest.mark.parametrize(
    ("arguments", "code", "message", "hint"),
    [
        (("sql", "selct 1"), 1, "syntax error", ""),
        (("sql", "select 1; select 2"), 1, "one", ""),
        (("sql", "select nope from records"), 1, "nope", ""),
        (("sql", "-n", "scoers"), 2, "Unknown query 'scoers'", "'scores'"),
        (("sql", "-n", "scores", "-p", "run"), 2, "'run' is not of the form key=value", ""),
        (("embed", "--model", "ecg-fm"), 2, "Unknown model 'ecg-fm'", "'ecgfm'"),
        (("embed", "--model", "ecgfm"), 1, "needs weights", "--weights"),
        (("embed", "--model", "ecgfm", "--weights", "no.pt"), 1, "no.pt", ""),
        (("embed", "--model", "stmem.tiny:cls"), 2, "cls", ""),
        (("embed", "--model", "ecgfm.tiny", "--where", "agee > 1"), 1, "agee", ""),
        (
            ("embed", "--model", "a", "--model", "b", "--weights", "x"),
            2,
            "2 models were given with 1 weights",
            "one for each model",
        ),
        (("split", "x", "--task", "ACZ"), 2, "Unknown task 'ACZ'", "'ACS'"),
        (("split", "few", "--task", "ACS", "--seed", "9"), 2, "few", ""),
        (("fuse", "ecgfm.tiny", "stmem", "--name", "f"), 2, "stmem", ""),
        (("evaluate", "--features", "ecgfm.tiny", "--split", "fw"), 2, "fw", "'few'"),
        (
            ("evaluate", "--features", "ecgfm.tiny", "--split", "few", "--set", "depth=3"),
            2,
            "depth",
            "",
        ),
        (("ingest", "nowhere", "--dataset", "x"), 2, "nowhere", ""),
        (("labels", "nowhere.csv", "--task", "T"), 2, "nowhere.csv", ""),
        (("--at", "2001-01-01", "sql", "select 1"), 1, "2001-01-01", ""),
        (("--at", "norun", "sql", "select 1"), 2, "norun", ""),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_an_error_is_one_line_with_a_hint(
    home: Path,
    run: Callable[..., Any],
    arguments: tuple[str, ...],
    code: int,
    message: str,
    hint: str,
) -> None:
    done = run("-w", home, *arguments)
    assert done.out == ""
    first, *rest = done.err.splitlines()
    assert first.startswith("error: ")
    assert message in first
    assert done.code == code
    assert len(rest) <= 1
    assert hint in "".join(rest)
    assert all(line.startswith("hint: ") for line in rest)


def test_a_traceback_is_shown_on_request_only(home: Path, run: Callable[..., Any]) -> None:
    assert "Traceback" not in run("-w", home, "sql", "selct 1").err
    assert "Traceback" in run("-w", home, "--debug", "sql", "selct 1").err


def test_a_folder_without_a_warehouse_says_so(tmp_path: Path, run: Callable[..., Any]) -> None:
    for command in (("sql", "select 1"), ("embed", "--model", "ecgfm.tiny"), ("report",)):
        done = run("-w", tmp_path / "none", *command)
        assert done.code == 1
        assert "ecgstore init" in done.err
    assert not (tmp_path / "none").exists()


def test_weights_are_checked_and_converted(
    run: Callable[..., Any], test_data: Path, tmp_path: Path
) -> None:
    mine = test_data / "goldens" / "ecgfm_tiny" / "finetuned.pt"
    other = test_data / "goldens" / "stmem_tiny" / "st_mem_tiny_encoder.pth"
    good = run("models", "check", "ecgfm", "--weights", mine, "--json")
    assert good.code == 0
    assert {row["result"] for row in json.loads(good.out)} == {"ok"}
    bad = run("models", "check", "ecgfm", "--weights", other, "--json")
    assert bad.code == 1
    assert json.loads(bad.out)[-1]["result"] == "failed"
    assert "ST-MEM" in json.loads(bad.out)[-1]["detail"]
    out = tmp_path / "ecgfm.safetensors"
    assert run("models", "convert", "ecgfm", "--weights", mine, "-o", out).code == 0
    assert run("models", "check", "ecgfm", "--weights", out).code == 0


def test_wrong_usage_is_code_two(run: Callable[..., Any]) -> None:
    assert run("embed").code == 2
    assert run("nonsense").code == 2
    assert run("ingest", "x", "--dataset", "y", "--jobs", "0").code == 2


def test_a_dry_run_makes_no_warehouse(ecgs: Path, run: Callable[..., Any], tmp_path: Path) -> None:
    done = run("-w", tmp_path / "none", "ingest", ecgs, "--dataset", "synthetic", "--dry-run")
    assert json.loads(done.out.splitlines()[0])["records"] == COUNT
    assert not list(tmp_path.iterdir())


def test_dry_runs_write_nothing(home: Path, ecgs: Path, run: Callable[..., Any]) -> None:
    before = sorted(home.rglob("*"))
    for command in (
        ("ingest", ecgs, "--dataset", "other"),
        ("labels", ecgs / "labels.csv", "--task", "again", "--label", "ACS"),
        ("embed", "--model", "stmem.tiny"),
        ("split", "new", "--task", "ACS"),
        ("fuse", "ecgfm.tiny", "--name", "one"),
        ("train", "--features", "ecgfm.tiny", "--split", "few"),
        ("evaluate", "--features", "ecgfm.tiny", "--split", "few"),
    ):
        done = run("-w", home, *command, "--dry-run", "--json")
        assert done.code == 0, done.err
        assert json.loads(done.out)
    assert sorted(home.rglob("*")) == before


def test_every_writing_command_is_idempotent(
    home: Path, ecgs: Path, run: Callable[..., Any], tmp_path: Path
) -> None:
    commands = (
        ("init",),
        ("ingest", ecgs, "--dataset", "synthetic"),
        ("labels", ecgs / "labels.csv", "--task", "ACS", "--label", "ACS"),
        ("embed", "--model", "ecgfm.tiny", "--device", "cpu"),
        ("split", "few", "--task", "ACS", "--repeats", "2", "--test-size", "0.4"),
        ("fuse", "ecgfm.tiny", "--name", "alone"),
        ("train", "--features", "alone", "--split", "few", "--set", "n_estimators=5"),
        ("evaluate", "--features", "alone", "--split", "few", "--set", "n_estimators=5"),
        ("project", "--features", "alone", "--n", "16", "-o", tmp_path / "p.png"),
        ("report", "-o", tmp_path / "r.html"),
    )
    for command in commands:
        done = run("-w", home, *command)
        assert done.code == 0, done.err
    before = sorted(home.rglob("*"))
    pictures = [(tmp_path / name).read_bytes() for name in ("p.png", "r.html")]
    for command in commands:
        done = run("-w", home, *command)
        assert done.code == 0
        if command[0] in {"split", "fuse", "report"}:
            assert "unchanged" in done.err
    assert sorted(home.rglob("*")) == before
    assert [(tmp_path / name).read_bytes() for name in ("p.png", "r.html")] == pictures


def test_the_past_can_be_read_and_not_written(
    home: Path, ecgs: Path, run: Callable[..., Any]
) -> None:
    run("-w", home, "evaluate", "--features", "ecgfm.tiny", "--split", "few")
    scores = json.loads(run("-w", home, "sql", "from scores", "--json").out)
    at = ("-w", home, "--at", scores[0]["run_id"])
    assert json.loads(run(*at, "sql", "select count(*) as n from records", "--json").out) == [
        {"n": COUNT}
    ]
    for command in (("ingest", ecgs, "--dataset", "more"), ("embed", "--model", "stmem.tiny")):
        done = run(*at, *command)
        assert done.code in {1, 2}
        assert done.err.startswith("error: ")


def test_a_bad_file_is_rejected_and_told(
    ecgs: Path, run: Callable[..., Any], tmp_path: Path
) -> None:
    folder = tmp_path / "some"
    folder.mkdir()
    for path in sorted(ecgs.glob("S0000*"))[:6]:
        (folder / path.name).write_bytes(path.read_bytes())
    broken = sorted(folder.glob("*.dat"))[0]
    broken.write_bytes(broken.read_bytes()[:-100])
    home = tmp_path / "w"
    done = run("-w", home, "ingest", folder, "--dataset", "d", "--jobs", "1")
    assert done.code == 3
    rows = json.loads(run("-w", home, "sql", "from rejects", "--json").out)
    assert len(rows) == 1
    assert broken.stem in rows[0]["source_uri"]
    assert "truncated" in rows[0]["reason"]
    count = json.loads(run("-w", home, "sql", "select count(*) n from records", "--json").out)
    assert count == [{"n": 2}]


def small_files() -> None:
    """Let this process write no file over 64 kB: a disk that fills up in mid-write."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (65_536, 65_536))


def test_a_full_disk_is_one_error_and_leaves_nothing_half_written(
    ecgs: Path, start: Callable[..., subprocess.Popen[str]], run: Callable[..., Any], tmp_path: Path
) -> None:
    home = tmp_path / "w"
    arguments = ("-w", home, "ingest", ecgs, "--dataset", "synthetic", "--jobs", "2")
    process = start(*arguments, preexec_fn=small_files)
    out, told = process.communicate()
    assert process.returncode == 1
    assert out == ""
    assert told.splitlines()[0] == "1 .csv files passed over: no ECG that can be read"
    assert told.splitlines()[1].startswith("error: Could not write")
    assert "Traceback" not in told
    assert not list(home.rglob("*.tmp"))
    assert run("-w", home, "sql", "from records", "--json").out.strip() == "[]"
    assert run(*arguments).code == 0


@pytest.mark.parametrize(
    "arguments",
    [
        ("evaluate", "--features", "signal", "--split", "few", "--classifier", "resnet50"),
        pytest.param(
            ("train", "--features", "signal", "--split", "few", "--classifier", "resnet50"),
            marks=pytest.mark.slow,
        ),
    ],
    ids=["evaluate", "train"],
)
def test_ctrl_c_ends_a_long_command_with_130(
    home: Path, start: Callable[..., subprocess.Popen[str]], arguments: tuple[str, ...]
) -> None:
    process = start("-w", home, *arguments, "--set", "epochs=100000")
    interrupt(process, after_s=6)


@pytest.mark.slow
def test_ctrl_c_ends_an_ingest_with_130(
    start: Callable[..., subprocess.Popen[str]], run: Callable[..., Any], tmp_path: Path
) -> None:
    folder, home = tmp_path / "many", tmp_path / "w"
    write_wfdb(folder, cohort(30, seed=1))
    for path in sorted(folder.glob("*.dat")):
        header = path.with_suffix(".hea").read_text()
        for copy in range(40):
            path.with_name(f"{path.stem}_{copy}.dat").hardlink_to(path)
            name = f"{path.stem}_{copy}"
            path.with_name(f"{name}.hea").write_text(header.replace(path.stem, name))
    arguments = ("-w", home, "ingest", folder, "--dataset", "many", "--jobs", "2")
    process = start(*arguments)
    deadline = time.monotonic() + 60
    while not list(home.glob("waveforms/_staging/*/*")) and time.monotonic() < deadline:
        time.sleep(0.01)
    interrupt(process)
    assert not list(home.rglob("*.tmp"))
    assert run(*arguments).code == 0
    count = json.loads(run("-w", home, "sql", "select count(*) n from records", "--json").out)
    assert count == [{"n": 30 * 41}]


@pytest.mark.slow
def test_ctrl_c_ends_the_demo_with_130(
    start: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    interrupt(start("demo", "-o", tmp_path / "demo", "--records", "5000"), after_s=5)


def interrupt(process: subprocess.Popen[str], *, after_s: float = 0) -> None:
    """Press Ctrl-C after a while and check how the command takes it."""
    time.sleep(after_s)
    assert process.poll() is None, "the command ended before it could be interrupted"
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=60)
    # Python started with -m may end itself by the signal, which a shell shows as 130 as well.
    assert process.returncode in {130, -signal.SIGINT}
    assert told.splitlines()[-1].startswith("interrupted: ")
    assert "Traceback" not in told
