"""The past of a warehouse: what was done to it, and which state a time or a run stands for."""

from __future__ import annotations

import itertools
import json
import shutil
from collections import Counter
from datetime import UTC, datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import ecgstore
from ecgstore.errors import LogError, UnknownNameError, UsageError, WarehouseError
from ecgstore.evaluate import evaluate
from ecgstore.fuse import fuse
from ecgstore.history import MAINTENANCE, Invocation, invocations
from ecgstore.splitting.split import split
from ecgstore.upkeep.compact import compact
from ecgstore.warehouse import Warehouse

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Cohort = Callable[..., Warehouse]

START = datetime(2024, 5, 1, 12, tzinfo=UTC)


def foreign_commit(
    table: Path, *, at: datetime, command: str, added: int, removed: int, job: str = ""
) -> None:
    """Add a commit without a seal to a table's log, as early versions and other engines write."""
    log = table / "_delta_log"
    version = max(int(path.stem) for path in log.glob("*.json")) + 1
    told: dict[str, Any] = {"timestamp": round(at.timestamp() * 1000), "operation": "WRITE"}
    told |= {"command": command, "rowsAdded": added, "rowsRemoved": removed, "codeVersion": "0.0.9"}
    told |= {"job": job} if job else {}
    (log / f"{version:020d}.json").write_text(json.dumps({"commitInfo": told}) + "\n")


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of an empty warehouse."""
    return Warehouse.create(tmp_path_factory.mktemp("empty") / "warehouse").root


def later(done: list[Invocation]) -> list[Invocation]:
    return [one for one in done if one.command != "init"]


def test_what_one_call_wrote_to_several_tables_is_one_entry(cohort: Cohort) -> None:
    warehouse = cohort(records=60)
    split(Warehouse(warehouse.root), "s", task="ACS", repeats=2)
    fuse(Warehouse(warehouse.root), ["alpha", "beta"], name="fusion")
    result = evaluate(
        Warehouse(warehouse.root), ["alpha", "fusion"], "s", params={"n_estimators": 3}
    )
    runs = [score.run_id for score in result.scores]
    told = [(one.command, dict(one.changes)) for one in invocations(warehouse)]
    assert [command for command, _ in told] == [
        f"evaluate {' '.join(runs)}",
        "fuse fusion",
        "split s",
        "test",
        "init",
    ]
    tested = sum(len(one) for one in _predicted(warehouse))
    assert told[0][1] == {"predictions": (tested, 0), "scores": (8, 0)}
    assert told[1][1] == {"feature_sets": (1, 0), "norm_stats": (4, 0)}
    assert told[2][1] == {"splits": (120, 0)}
    assert told[3][1] == {"records": (60, 0), "embeddings": (120, 0), "labels": (60, 0)}

    row = invocations(warehouse, limit=1)[0].row
    assert row["added"] == tested + 8
    assert row["removed"] == 0
    assert row["tables"] == f"predictions +{tested}, scores +8"
    assert row["code"] == ecgstore.code_version()
    assert row["job"]

    again = evaluate(Warehouse(warehouse.root), ["alpha"], "s", params={"n_estimators": 3})
    assert again.scores[0].added == 0
    assert len(invocations(warehouse)) == len(told), "a call that changed nothing leaves no entry"


def _predicted(warehouse: Warehouse) -> list[list[str]]:
    rows = warehouse.table("predictions").read().group_by(["run_id", "repeat"])
    return list(rows.aggregate([("record_id", "list")])["record_id_list"].to_pylist())


def test_rows_replaced_and_removed_are_counted(cohort: Cohort) -> None:
    warehouse = cohort(records=10)
    labels = warehouse.table("labels").read()
    flipped = labels.set_column(2, "label", pa.array([1 - y for y in labels["label"].to_pylist()]))
    Warehouse(warehouse.root).replace("labels", flipped, command="labels")
    Warehouse(warehouse.root).delete("labels", labels.select(["record_id"])[:4], command="purge")
    assert [one.row["tables"] for one in invocations(warehouse, limit=2)] == [
        "labels -4",
        "labels +10 -10",
    ]
    assert repr(invocations(warehouse)[1]).endswith("labels, +10 -10 rows)")


def test_entries_of_one_table_alone(cohort: Cohort) -> None:
    warehouse = cohort(records=10)
    done = invocations(warehouse, table="labels")
    assert [(one.command, dict(one.changes)) for one in done] == [
        ("test", {"labels": (10, 0)}),
        ("init", {"labels": (0, 0)}),
    ]
    with pytest.raises(UnknownNameError, match="Unknown table 'label'") as caught:
        invocations(warehouse, table="label")
    assert caught.value.near == ("labels",)


def test_commits_without_an_id_belong_together_when_near_and_of_one_command(
    empty: Path, tmp_path: Path
) -> None:
    root = tmp_path / "warehouse"
    shutil.copytree(empty, root)
    for table, second, command in (
        ("waveforms", 0, "ingest"),
        ("records", 1.5, "ingest"),
        ("waveforms", 3, "ingest"),  # 3 s after the first, 1.5 s after its neighbour
        ("records", 6, "ingest"),
        ("labels", 6.5, "labels"),
        ("records", 7, "ingest"),  # another command lies between
    ):
        at = START + timedelta(days=1000, seconds=second)
        foreign_commit(root / table, at=at, command=command, added=5, removed=0)
    done = later(invocations(Warehouse(root)))
    assert [(one.command, dict(one.changes)) for one in done] == [
        ("ingest", {"records": (5, 0)}),
        ("labels", {"labels": (5, 0)}),
        ("ingest", {"records": (5, 0)}),
        ("ingest", {"records": (5, 0), "waveforms": (10, 0)}),
    ]
    assert {one.job for one in done} == {""}


COMMITS = st.lists(
    st.tuples(
        st.sampled_from(["records", "labels", "embeddings"]),
        st.sampled_from(["", "a1", "b2"]),
        st.sampled_from(["ingest", "embed", "fuse x", "tidy"]),
        st.integers(0, 5000),  # ms since the commit before
        st.integers(0, 9),
        st.integers(0, 9),
    ),
    max_size=16,
)


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(commits=COMMITS)
def test_every_row_is_told_of_once(
    empty: Path, tmp_path_factory: pytest.TempPathFactory, commits: list[Any]
) -> None:
    root = tmp_path_factory.mktemp("log") / "warehouse"
    shutil.copytree(empty, root)
    at, jobs = datetime(2030, 1, 1, tzinfo=UTC), Counter[tuple[str, bool]]()
    wanted: dict[str, Counter[str]] = {}
    for table, job, command, gap, added, removed in commits:
        at += timedelta(milliseconds=gap)
        foreign_commit(root / table, at=at, command=command, added=added, removed=removed, job=job)
        jobs[job, command in MAINTENANCE] += 1
        if command not in MAINTENANCE:
            wanted.setdefault(table, Counter()).update(added=added, removed=removed)
    warehouse = Warehouse(root)
    done = later(invocations(warehouse))
    told: dict[str, Counter[str]] = {}
    for one in done:
        for table, (added, removed) in one.changes.items():
            told.setdefault(table, Counter()).update(added=added, removed=removed)
    assert told == wanted
    times = [one.at for one in done]
    assert times == sorted(times, reverse=True)
    assert not any(one.command in MAINTENANCE for one in done)

    every = later(invocations(warehouse, maintenance=True))
    named = Counter(one.job for one in every if one.job)
    assert named == Counter(job for job, _ in jobs if job), "one entry an id, and one of upkeep"
    assert invocations(warehouse, limit=2) == invocations(warehouse)[:2]
    shutil.rmtree(root)


def test_an_entry_gives_the_time_at_which_the_warehouse_was_as_it_left_it(
    cohort: Cohort,
) -> None:
    root = cohort(records=20).root
    states = {}
    for i in range(4):
        writer = Warehouse(root)
        rows = {"record_id": [f"syn/{i:05d}"], "task": [f"t{i}"], "label": [1.0]}
        writer.append("labels", pa.table(rows), command=f"labels {i}")
        writer.delete("embeddings", pa.table({"record_id": [f"syn/{i:05d}"]}), command="purge")
        states[writer.job] = writer.versions()
    for one in invocations(Warehouse(root))[:4]:
        for at in (
            one.at,
            one.at.isoformat(),
            one.at.astimezone(timezone(timedelta(hours=-7))).isoformat(),
            one.at.replace(tzinfo=None).isoformat(),  # UTC unless it says otherwise
        ):
            with ecgstore.connect(root, at=at) as store:
                assert store.warehouse.versions() == states[one.job]
                assert store.log()[0] == one, "what came later is left out"


def test_a_run_stands_for_what_it_read(cohort: Cohort) -> None:
    warehouse = cohort(records=60)
    split(warehouse, "s", task="ACS", repeats=2)
    (score,) = evaluate(warehouse, ["alpha"], "s", params={"n_estimators": 3}).scores
    read = Warehouse(warehouse.root).versions() | {"scores": 0, "predictions": 0}
    split(warehouse, "later", task="ACS", repeats=1)
    with ecgstore.connect(warehouse.root, at=score.run_id) as store:
        assert store.warehouse.versions() == read
        assert store.table("select distinct split_id from splits").to_pylist() == [
            {"split_id": "s"}
        ]
        assert [one.command for one in store.log()] == ["test; split s", "init"]


def test_a_table_made_after_a_run_is_not_seen_at_it(cohort: Cohort) -> None:
    warehouse = cohort(records=60)
    split(warehouse, "s", task="ACS", repeats=2)
    shutil.rmtree(warehouse.root / "feature_sets")  # as in a warehouse of before it was thought of
    (score,) = evaluate(warehouse, ["alpha"], "s", params={"n_estimators": 3}).scores
    fuse(Warehouse(warehouse.root), ["alpha", "beta"], name="fusion")
    count = "select count(*) as n from feature_sets"
    with (
        ecgstore.connect(warehouse.root) as now,
        ecgstore.connect(warehouse.root, at=score.run_id) as then,
    ):
        assert now.table(count)["n"].to_pylist() == [1]
        assert then.table(count)["n"].to_pylist() == [0]


@pytest.mark.parametrize(
    ("at", "error", "message"),
    [
        ("2001-01-01", WarehouseError, "did not exist at 2001-01-01T00:00:00"),
        (datetime(2001, 1, 1, tzinfo=UTC), WarehouseError, "did not exist at 2001-01-01T00:00:00"),
        ("2024-13-45", UsageError, "'2024-13-45' is neither a time nor the id of a run"),
        ("yesterday", UsageError, "'yesterday' is neither a time nor the id of a run"),
        ("", UsageError, "'' is neither a time nor the id of a run"),
        ("0123456789ab", UnknownNameError, "Unknown run '0123456789ab'. Known runs: none yet"),
    ],
)
def test_what_stands_for_no_moment_is_refused(
    empty: Path, at: str | datetime, error: type[Exception], message: str
) -> None:
    with ecgstore.connect(empty, at=at) as store, pytest.raises(error, match=message) as caught:
        store.table("select 1")
    assert len(str(caught.value).splitlines()) <= 2  # a message and a hint


@given(st.text(alphabet="0123456789abcdef", min_size=12, max_size=12))
def test_no_id_of_a_run_reads_as_a_time(run_id: str) -> None:
    with pytest.raises(ValueError, match=r"isoformat|must be in|out of range"):
        datetime.fromisoformat(run_id)


def test_entries_whose_commits_were_cleaned_in_part_are_marked(cohort: Cohort) -> None:
    root = cohort(records=20).root
    for i in range(6):
        writer = Warehouse(root)
        rows = {"record_id": [f"syn/{i:05d}"], "task": [f"t{i}"], "label": [1.0]}
        writer.append("labels", pa.table(rows), command=f"labels {i}")
        if i == 3:
            compact(writer, retention_days=0)
    told = {one.command: one for one in invocations(Warehouse(root))}
    whole = [command for command, one in told.items() if one.complete]
    assert whole == ["labels 5", "labels 4"]
    for command, one in told.items():
        if command.startswith("labels") and one.complete:
            assert one.changes == {"labels": (1, 0)}
    assert len(told) > len(whole)


def test_a_damaged_commit_is_named_not_skipped(cohort: Cohort) -> None:
    warehouse = cohort(records=10)
    path = warehouse.root / "labels" / "_delta_log" / f"{1:020d}.json"
    data = bytearray(path.read_bytes())
    data[data.index(b'"rowsAdded": 10') + 13] ^= 1  # 10 rows read as 00
    path.write_bytes(data)
    with pytest.raises(LogError, match=r"'labels', version 1: .* was changed"):
        invocations(warehouse)


def test_commits_at_one_millisecond_keep_their_order(empty: Path, tmp_path: Path) -> None:
    root = tmp_path / "warehouse"
    shutil.copytree(empty, root)
    for command in ("first", "second", "third"):
        foreign_commit(
            root / "labels", at=START + timedelta(days=3000), command=command, added=1, removed=0
        )
    done = later(invocations(Warehouse(root)))
    assert [one.command for one in done] == ["third", "second", "first"]
    assert all(a.at >= b.at for a, b in itertools.pairwise(done))
