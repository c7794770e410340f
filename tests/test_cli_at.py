"""Time travel from the command line: every command either reads as of ``--at`` or refuses it."""

from __future__ import annotations

import csv
import hashlib
import json
import shutil
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest
import typer
from typer.testing import CliRunner

from ecgstore.synthetic import cohort, write_wfdb
from ecgstore.warehouse import Warehouse

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

READS: dict[str, tuple[str, ...]] = {
    "sql": ("select * exclude (source_uri) from records order by record_id",),
    "sql -n": ("-n", "label_prevalence", "-p", "task=ACS"),
    "sql --init": ("--init",),
    "report": ("-o", "OUT.html"),
    "project": ("--features", "fusion", "--method", "pca", "--n", "10", "-o", "OUT.png"),
    "export": ("labels", "-o", "OUT.csv"),
    "log": (),
    "plot": ("RECORD", "-o", "OUT.png"),
    "reproduce": ("RUN",),
    "predict": ("RUN",),
    "compare": ("RUN", "RIVAL", "--resamples", "100"),
    "complementarity": (
        *("--features", "ecgfm.tiny", "--features", "fusion"),
        *("--fused", "fusion", "--split", "few", "--resamples", "100"),
    ),
    "explain": ("RUN",),
    "clinical": ("RUN", "--threshold", "0.5", "--resamples", "100"),
    "subgroups": ("RUN", "--by", "sex", "--resamples", "100"),
    "probe": ("--features", "ecgfm.tiny", "--concept", "age", "--resamples", "100"),
    "learning-curve": (
        *("--features", "fusion", "--split", "few", "--resamples", "100"),
        *("--fraction", "0.5", "--fraction", "1"),
    ),
}
"""What reads, and is asked here; OUT is a file of the test, RUN, RIVAL and RECORD ids."""

WRITES: dict[str, tuple[str, ...]] = {
    "init": (),
    "ingest": ("ECGS", "--dataset", "more"),
    "labels": ("ECGS/labels.csv", "--task", "new", "--label", "ACS"),
    "quality": (),
    "embed": ("--model", "ecgfm.tiny"),
    "codes": ("--model", "anyecg.tiny"),
    "repair": ("synthetic/00000", "--lead", "V3", "--model", "anyecg.tiny"),
    "pretrain": ("stmem", "--size", "tiny"),
    "distil": ("stmem", "--teacher", "ecgfm.tiny", "--size", "tiny"),
    "finetune": ("ecgfm.tiny", "--split", "few", "--repeat", "0"),
    "models seen": ("ecgfm.tiny", "--dataset", "ptbxl", "--source", "a test"),
    "split": ("other", "--task", "ACS"),
    "fuse": ("ecgfm.tiny", "--name", "other"),
    "train": ("--features", "fusion", "--split", "few"),
    "evaluate": ("--features", "fusion", "--split", "few"),
    "verify": (),
    "compact": (),
    "gc": ("--grace", "0"),
    "forget": ("somebody", "--yes"),
}
"""What writes, or looks at all versions, and so refuses ``--at``."""

ALIKE = {
    "clinical",
    "compare",
    "explain",
    "learning-curve",
    "plot",
    "reproduce",
    "subgroups",
}
"""What of `READS` answers the same now: of what is stored of a run, or of signals."""

APART = {
    "demo",
    "doctor",
    "models check",
    "models contract diff",
    "models convert",
    "models list",
    "models pull",
    "models show",
    "queries list",
    "queries show",
}
"""What does not look into the warehouse."""


@dataclass(frozen=True)
class Past:
    """A warehouse that went on, and a copy made of it before."""

    home: Path
    copy: Path
    at: datetime
    run: str
    rival: str
    ecgs: Path
    record: str


@pytest.fixture(scope="module")
def past(app: Any, tmp_path_factory: pytest.TempPathFactory) -> Past:
    """Return a warehouse of which everything was changed since a copy was made."""
    folder = tmp_path_factory.mktemp("past")
    home, ecgs = folder / "home", folder / "ecgs"
    made = list(cohort(60, seed=3, acs=0.4))
    write_wfdb(ecgs / "old", made[:40])
    write_wfdb(ecgs / "new", made[40:])

    def done(*words: object) -> list[dict[str, Any]]:
        result = CliRunner().invoke(app, ["-w", str(home), *map(str, words)])
        assert result.exit_code == 0, result.stderr
        return [json.loads(line) for line in result.stdout.splitlines()]

    def labels(part: str) -> tuple[object, ...]:
        return ("labels", ecgs / part / "labels.csv", "--task", "ACS", "--label", "ACS")

    done("ingest", ecgs / "old", "--dataset", "synthetic", "--jobs", "1")
    done(*labels("old"))
    done("embed", "--model", "ecgfm.tiny", "--device", "cpu")
    done("split", "few", "--task", "ACS", "--repeats", "2", "--test-size", "0.4")
    done("fuse", "ecgfm.tiny", "--name", "fusion")
    sets = ("--features", "fusion", "--features", "ecgfm.tiny", "--split", "few")
    score, rival = done("evaluate", *sets, "--set", "n_estimators=5")
    done("train", "--features", "fusion", "--split", "few", "--set", "n_estimators=5")
    at = datetime.now(UTC)
    shutil.copytree(home, folder / "then" / "home")
    time.sleep(0.01)

    with (ecgs / "old" / "labels.csv").open(newline="") as stream:
        flipped = [{**row, "ACS": 1 - int(row["ACS"])} for row in csv.DictReader(stream)]
    (ecgs / "flipped").mkdir()
    with (ecgs / "flipped" / "labels.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(flipped[0]))
        writer.writeheader()
        writer.writerows(flipped)
    done(*labels("flipped"), "--overwrite")
    rows = Warehouse(home).table("embeddings").read()
    place = rows.column_names.index("embedding")
    other = pa.array([[x + 1 for x in one] for one in rows["embedding"].to_pylist()])
    rows = rows.set_column(place, rows.schema.field(place), other.cast(rows.schema.types[place]))
    Warehouse(home).replace("embeddings", rows, command="embed")  # as another processor would
    done("ingest", ecgs / "new", "--dataset", "synthetic", "--jobs", "1")
    done(*labels("new"))
    done("embed", "--model", "ecgfm.tiny", "--device", "cpu")
    again, _ = done("evaluate", *sets, "--set", "n_estimators=5")
    assert again["run_id"] != score["run_id"]
    record = f"synthetic/{made[0].name}"
    return Past(home, folder / "then" / "home", at, score["run_id"], rival["run_id"], ecgs, record)


def leaves(command: Any, words: tuple[str, ...] = ()) -> Iterator[str]:
    """Yield the words that reach each command of the app."""
    children = getattr(command, "commands", None)
    if children is None:
        yield " ".join(words)
    else:
        for name, child in children.items():
            yield from leaves(child, (*words, name))


def files(root: Path) -> dict[str, str]:
    """Return a digest of every file of a warehouse, its caches left out."""
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in root.rglob("*")
        if path.is_file() and "_cache" not in path.parts
    }


def test_every_command_is_known_to_read_or_to_write(app: Any) -> None:
    known = {name.split(" -")[0] for name in READS} | set(WRITES) | APART
    assert set(leaves(typer.main.get_command(app))) == known


@pytest.mark.parametrize("name", READS)
def test_what_reads_sees_the_past_as_it_was(
    name: str, past: Past, run: Callable[..., Any], tmp_path: Path
) -> None:
    command = name.split(" -")[0]

    def seen(root: Path, *options: object) -> tuple[str, bytes | None]:
        out = next((tmp_path / word for word in READS[name] if word.startswith("OUT")), None)
        names = {out.name: str(out)} if out else {}
        names |= {"RUN": past.run, "RIVAL": past.rival, "RECORD": past.record}
        words = [names.get(word, word) for word in READS[name]]
        done = run("-w", root, *options, command, *words)
        assert done.code == 0, done.err
        page = out.read_bytes().replace(str(root).encode(), b"ROOT") if out else None
        if out:
            out.unlink()
        return done.out.replace(str(root), "ROOT"), page

    then = seen(past.copy)
    zone = timezone(timedelta(hours=-7))
    local = past.at.astimezone(zone).isoformat()
    naive = past.at.replace(tzinfo=None).isoformat()
    assert seen(past.home, "--at", past.at.isoformat()) == then
    if command != "report":  # which takes its time, and reads the clock no other way
        assert seen(past.home, "--at", local) == then
        assert seen(past.home, "--at", naive) == then
    if command not in {
        "clinical",
        "compare",
        "explain",
        "learning-curve",
        "plot",
        "reproduce",
        "subgroups",
    }:
        assert seen(past.home) != then, "the command tells the two apart"


def test_at_may_follow_the_command(past: Past, run: Callable[..., Any]) -> None:
    query = ("sql", "select count(*) as n from records")
    at = past.at.isoformat()
    before = run("-w", past.home, "--at", at, *query)
    assert json.loads(before.out) == {"n": 40}
    for words in ((*query, "--at", at), (*query, f"--at={at}"), ("sql", "--at", at, query[1])):
        after = run("-w", past.home, *words)
        assert (after.code, after.out) == (0, before.out)
    for wrong in (("log", "--at"), (*query, "--", "--at", at)):
        done = run("-w", past.home, *wrong)
        assert (done.code, done.out) == (2, "")


@pytest.mark.parametrize("name", WRITES)
def test_what_writes_refuses_the_past(
    name: str, past: Past, app: Any, run: Callable[..., Any]
) -> None:
    command: Any = typer.main.get_command(app)
    for word in name.split():
        command = command.commands[word]
    words = [word.replace("ECGS", str(past.ecgs / "new")) for word in WRITES[name]]
    plans = [["--dry-run"]] * any(one.name == "dry_run" for one in command.params)
    before = files(past.home)
    for at in (past.at.isoformat(), past.run):
        for more in [[], *plans]:
            done = run("-w", past.home, "--at", at, *name.split(), *words, *more)
            assert (done.code, done.out) == (2, "")
            error, hint = done.err.splitlines()
            assert error.startswith("error: A warehouse opened as it was at a time or for a run ")
            assert hint.endswith("without --at.")
    assert files(past.home) == before


@pytest.mark.parametrize(
    ("at", "code", "message"),
    [
        ("2001-01-01", 1, "did not exist at 2001-01-01T00:00:00+00:00."),
        ("2024-02-30", 2, "'2024-02-30' is neither a time nor the id of a run."),
        ("last week", 2, "'last week' is neither a time nor the id of a run."),
        ("00000000000f", 2, "Unknown run '00000000000f'. Known runs: "),
    ],
)
@pytest.mark.parametrize("name", READS)
def test_what_stands_for_no_moment_is_an_error_of_one_line(
    name: str, at: str, code: int, message: str, past: Past, run: Callable[..., Any], tmp_path: Path
) -> None:
    words = [word.replace("OUT", str(tmp_path / "out")) for word in READS[name]]
    done = run("-w", past.home, "--at", at, name.split(" -")[0], *words)
    assert (done.code, done.out) == (code, "")
    assert message in done.err.splitlines()[0]
    assert done.err.startswith("error: ")
    assert len(done.err.splitlines()) <= 2
    assert not list(tmp_path.iterdir())


def test_what_came_later_does_not_change_an_old_result(past: Past, run: Callable[..., Any]) -> None:
    def asked(root: Path, query: str, *options: str) -> Any:
        return json.loads(run("-w", root, *options, "sql", "--json", query).out)

    old = ("--at", past.run)
    for query in (
        "select * from labels order by all",
        "select record_id, embedding from embeddings order by all",
        "select * from splits order by all",
        "select * from norm_stats order by all",
        "select count(*) from records",
    ):
        then = asked(past.copy, query)
        assert asked(past.home, query, *old) == then
    assert asked(past.home, "select * from labels order by all") != asked(
        past.copy, "select * from labels order by all"
    )
    scores = f"select * from scores where run_id = '{past.run}' order by repeat, metric"
    assert asked(past.home, scores) == asked(past.copy, scores)
    predictions = scores.replace("scores", "predictions").replace("metric", "record_id")
    assert asked(past.home, predictions) == asked(past.copy, predictions)
    done = run("-w", past.home, "reproduce", past.run[:8])
    assert (done.code, done.err.split(":")[0]) == (0, "identical")


def test_a_run_that_cannot_be_had_again_ends_with_code_1(
    past: Past, run: Callable[..., Any], tmp_path: Path
) -> None:
    root = tmp_path / "home"
    shutil.copytree(past.copy, root)
    warehouse = Warehouse(root)
    scores = warehouse.table("scores").read()
    place = scores.column_names.index("value")
    wrong = pa.array([0.5] * len(scores))
    warehouse.replace("scores", scores.set_column(place, "value", wrong), command="test")
    done = run("-w", root, "reproduce", past.run)
    assert done.code == 1
    rows = [json.loads(line) for line in done.out.splitlines()]
    assert [row["identical"] for row in rows] == [row["now"] == 0.5 for row in rows]
    assert {row["stored"] for row in rows} == {0.5}
    (words,) = done.err.splitlines()
    assert words.startswith("differs in 2 of 2 reshuffles: ")


def test_the_log_is_a_table_of_commands(past: Past, run: Callable[..., Any]) -> None:
    rows = [json.loads(line) for line in run("-w", past.home, "log").out.splitlines()]
    assert list(rows[0]) == ["at", "command", "added", "removed", "tables", "code", "job"]
    words = [row["command"].split()[0].strip(";") for row in rows]
    later = ["fuse", "embed", "labels", "ingest", "embed", "labels"]
    assert words == [
        *later,
        "train",
        "evaluate",
        "fuse",
        "split",
        "embed",
        "labels",
        "ingest",
        "init",
    ]
    ingest = next(row for row in reversed(rows) if row["command"] == "ingest")
    assert (ingest["added"], ingest["removed"]) == (80, 0)
    assert ingest["tables"] == "records +40, waveforms +40"
    labels = run("-w", past.home, "log", "--table", "labels", "--limit", "2").out.splitlines()
    assert [json.loads(row)["tables"] for row in labels] == ["labels +20", "labels +40 -40"]
