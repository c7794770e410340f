"""PhysioNet/CinC Challenges, and the table of SNOMED CT codes."""

from __future__ import annotations

import csv
import shutil
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import duckdb
import pytest

from ecgstore.datasets.challenge import collect
from ecgstore.datasets.snomed import SNOMED, SOURCES, tasks_of
from ecgstore.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from ecgstore.datasets import Collection
    from ecgstore.record import Record

    Reads = Callable[[Collection], dict[str, Record]]

VIEW = Path(__file__).parents[2] / "sql/views/snomed.sql"
COLUMNS = {
    "CPSC": "cpsc_2018",
    "CPSC_Extra": "cpsc_2018_extra",
    "StPetersburg": "st_petersburg_incart",
    "PTB": "ptb",
    "PTB_XL": "ptb-xl",
    "Georgia": "georgia",
    "Chapman_Shaoxing": "chapman_shaoxing",
    "Ningbo": "ningbo",
}


def mapping(folder: Path) -> dict[str, dict[str, str]]:
    """Return the rows of both mapping tables by code, with the kind of each."""
    rows: dict[str, dict[str, str]] = {}
    for kind in ("scored", "unscored"):
        with (folder / f"dx_mapping_{kind}.csv").open(newline="") as file:
            rows |= {row["SNOMEDCTCode"]: row | {"kind": kind} for row in csv.DictReader(file)}
    return rows


def test_every_source_is_found_and_read(test_data: Path, read_all: Reads) -> None:
    found = collect([test_data / "data/challenge2021"])
    assert not found.missing
    assert not found.notes
    assert Counter(source.meta["site"] for source in found.sources) == {
        "cpsc_2018": 7,
        "cpsc_2018_extra": 6,
        "ptb": 3,
        "ptb-xl": 9,
        "georgia": 20,
        "chapman_shaoxing": 7,
        "ningbo": 20,
    }
    records = read_all(found)
    by_name = {source.name: source for source in found.sources}
    assert by_name["JS20000"].uri == "ningbo/JS20000.hea"
    assert records["JS20000"].meta["codes"] == (
        "snomed:284470004",
        "snomed:427084000",
        "snomed:698252002",
        "snomed:55930002",
    )
    known = {f"snomed:{entry.code}" for entry in SNOMED}
    for record in records.values():
        codes = record.meta["codes"]
        assert isinstance(codes, tuple)
        assert set(codes) <= known
        assert len(record.leads) == 12


def test_a_code_that_a_source_never_uses_stays_unlabelled_there(test_data: Path) -> None:
    found = collect([test_data / "data/challenge2021"])
    tasks = {source.meta["site"]: source.tasks for source in found.sources}
    rows = mapping(test_data / "data/challenge2021")
    for column, site in COLUMNS.items():
        used = {f"snomed:{code}" for code, row in rows.items() if int(row[column]) > 0}
        assert set(tasks_of(site)) == used
        assert site not in tasks or set(tasks[site]) == used
    atrial_fibrillation = "snomed:164889003"  # Ningbo: 0 of 34,905
    assert atrial_fibrillation not in tasks["ningbo"]
    assert atrial_fibrillation in tasks["cpsc_2018"]


def test_published_folders_and_those_of_the_sources_alone_are_known(
    tmp_path: Path, test_data: Path
) -> None:
    data = test_data / "data/challenge2021"
    for name, target in {
        "georgia/E00001": "training/georgia/g1/E00001",
        "georgia/E00002": "training/WFDB_Ga/E00002",
        "ptb/S0001": "training/ptb/g1/S0001",
        "cpsc_2018_extra/Q0001": "training/WFDB_CPSC2018_2/Q0001",
        "cpsc_2018/A0001": "elsewhere/A0001",
        "ningbo/JS20000": "training/ningbo/.trash/JS20000",
    }.items():
        (tmp_path / target).parent.mkdir(parents=True, exist_ok=True)
        for suffix in (".hea", ".mat"):
            shutil.copy(data / f"{name}{suffix}", tmp_path / f"{target}{suffix}")
    found = collect([tmp_path])
    assert {source.name: source.meta["site"] for source in found.sources} == {
        "E00001": "georgia",
        "E00002": "georgia",
        "S0001": "ptb",
        "Q0001": "cpsc_2018_extra",
    }
    assert found.notes == ("1 headers in folders of other names not read",)
    alone = collect([tmp_path / "training/WFDB_Ga", tmp_path / "training/ptb"])
    assert [source.uri for source in alone.sources] == ["E00002.hea", "g1/S0001.hea"]
    twice = collect([tmp_path, tmp_path / "training/ptb"])
    assert [(entry.uri, entry.reason) for entry in twice.missing] == [
        ("g1/S0001.hea", "bad metadata")
    ]


def test_links_and_odd_names_are_reported(tmp_path: Path, test_data: Path) -> None:
    (tmp_path / "ptb").mkdir()
    for suffix in (".hea", ".mat"):
        shutil.copy(test_data / f"data/challenge2021/ptb/S0001{suffix}", tmp_path / "ptb")
    (tmp_path / "ptb/line\nbreak.hea").write_text("x")
    (tmp_path / "georgia").symlink_to(tmp_path / "ptb")
    found = collect([tmp_path])
    assert {(entry.uri, entry.reason) for entry in found.missing} == {
        ("georgia", "not a file"),
        ("ptb/line\\nbreak.hea", "bad name"),
    }


def test_what_is_no_challenge_is_refused(tmp_path: Path, test_data: Path) -> None:
    for folder in (tmp_path, tmp_path / "absent", test_data / "data/sph"):
        with pytest.raises(UsageError):
            collect([folder])
    with pytest.raises(UsageError, match="rate"):
        collect([test_data / "data/challenge2021"], rate=500)


# -- the table ------------------------------------------------------------------------------------


def test_the_table_is_that_of_the_challenge(test_data: Path) -> None:
    rows = mapping(test_data / "data/challenge2021")
    assert len(SNOMED) == len(rows) == 133
    assert set(SOURCES.values()) == set(COLUMNS.values())
    for entry in SNOMED:
        row = rows[entry.code]
        assert entry.name == " ".join(row["Dx"].split())
        assert entry.abbreviation == row["Abbreviation"]
        assert (entry.scored is not None) == (row["kind"] == "scored")


def test_scored_classes_are_those_of_the_scores_of_both_years(test_data: Path) -> None:
    year = {entry.code: entry.scored for entry in SNOMED if entry.scored}
    same = {frozenset((entry.code, entry.same_as)) for entry in SNOMED if entry.same_as}
    older = test_data / "data/reference_outputs/challenge2020_results/weights.csv"
    with older.open() as file:
        codes = file.readline().strip().split(",")[1:]
    assert {code for code, first in year.items() if first == 2020} == set(codes)
    with (test_data / "data/challenge2021/weights.csv").open() as file:
        classes = [frozenset(name.split("|")) for name in file.readline().strip().split(",")[1:]]
    assert {code for one in classes for code in one} == set(year)
    assert {one for one in classes if len(one) == 2} == same
    assert (len(codes), len(year), len(classes)) == (27, 30, 26)


def test_the_view_says_what_the_table_says() -> None:
    with duckdb.connect() as connection:
        connection.execute(VIEW.read_text())
        rows = connection.sql("select code, task, abbreviation, name from snomed").fetchall()
    assert rows == [
        (entry.code, f"snomed:{entry.code}", entry.abbreviation, entry.name) for entry in SNOMED
    ]
