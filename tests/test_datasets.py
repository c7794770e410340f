"""What datasets say of their files."""

from __future__ import annotations

import csv
import datetime as dt
import os
from collections import Counter
from typing import TYPE_CHECKING

import numpy as np
import pytest

from ecgstore.datasets import Collection, collect
from ecgstore.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Writer = Callable[..., Path]

DIGITAL = np.arange(24, dtype=np.int16).reshape(12, 2)


@pytest.fixture
def ptbxl(test_data: Path) -> Collection:
    return collect("ptbxl", [test_data / "data/ptbxl"])


@pytest.fixture
def tiny(tmp_path: Path, write_wfdb: Writer) -> Path:
    """Return a folder laid out as PTB-XL with three records, the last at 100 Hz only."""
    root = tmp_path / "ptb-xl"
    for number in (1, 2, 3):
        write_wfdb(root, f"records100/00000/{number:05d}_lr", DIGITAL)
    for number in (1, 2):
        write_wfdb(root, f"records500/00000/{number:05d}_hr", DIGITAL)
    (root / "scp_statements.csv").write_text(
        ",diagnostic_class\nIMI,MI\nAMI,MI\nLAFB,CD\nSR,\nNORM,NORM\n"
    )
    database(root, [row(1), row(2), row(3)])
    return root


def row(number: int, **values: object) -> dict[str, object]:
    return {
        "ecg_id": number,
        "patient_id": "7.0",
        "age": "61.0",
        "sex": "0",
        "site": "2.0",
        "device": "CS-12   ",
        "recording_date": "1999-12-31 23:59:58",
        "report": "sinus rhythm",
        "scp_codes": "{'IMI': 15.0, 'AMI': 80.0, 'SR': 0.0}",
        "baseline_drift": "",
        "strat_fold": "10",
        "filename_lr": f"records100/00000/{number:05d}_lr",
        "filename_hr": f"records500/00000/{number:05d}_hr",
        **values,
    }


def database(root: Path, rows: list[dict[str, object]]) -> None:
    with (root / "ptbxl_database.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def test_the_real_ptbxl_gives_the_published_counts(ptbxl: Collection) -> None:
    labels = Counter(label.task for source in ptbxl.sources for label in source.labels)
    found = {task: labels[task] for task in ("NORM", "STTC", "CD", "MI", "HYP")}
    assert len(ptbxl.sources) == 374
    assert found == {"NORM": 222, "STTC": 70, "CD": 57, "MI": 53, "HYP": 33}
    assert len(ptbxl.tasks) == 5 + 71
    assert not ptbxl.missing
    notes = Counter(flag for source in ptbxl.sources for flag in source.quality)
    assert (notes["baseline_drift"], notes["static_noise"], notes["pacemaker"]) == (55, 75, 5)
    assert sum("age" not in source.meta for source in ptbxl.sources) == 4
    assert len({source.meta["patient_id"] for source in ptbxl.sources}) == 348


def test_ptbxl_metadata_is_brought_to_our_words(tiny: Path) -> None:
    source = collect("ptbxl", [tiny]).sources[0]
    assert source.name == "00001"
    assert source.uri == "records500/00000/00001_hr.hea"
    assert source.meta == {
        "patient_id": "7",
        "age": 61.0,
        "sex": "male",
        "site": "2",
        "device": "CS-12",
        "recorded_at": dt.datetime(1999, 12, 31, 23, 59, 58),
        "strat_fold": 10,
        "report": "sinus rhythm",
    }


def test_ptbxl_labels_take_statements_of_any_likelihood(tiny: Path) -> None:
    source = collect("ptbxl", [tiny]).sources[0]
    assert {(task, label, likelihood) for task, label, likelihood in source.labels} == {
        ("MI", 1.0, 80.0),
        ("scp:IMI", 1.0, 15.0),
        ("scp:AMI", 1.0, 80.0),
        ("scp:SR", 1.0, 0.0),
    }


@pytest.mark.parametrize(
    ("rate", "files"), [(None, ["hr", "hr", "lr"]), (500, ["hr", "hr", "lr"]), (100, ["lr"] * 3)]
)
def test_ptbxl_prefers_a_rate(tiny: Path, rate: int | None, files: list[str]) -> None:
    sources = collect("ptbxl", [tiny], rate=rate).sources
    assert [source.path.stem[-2:] for source in sources] == files


def test_a_header_without_samples_does_not_count_as_a_file(tiny: Path) -> None:
    (tiny / "records500/00000/00001_hr.dat").unlink()
    assert collect("ptbxl", [tiny]).sources[0].path.stem == "00001_lr"


def test_the_sources_word_for_over_89_becomes_a_flag(tiny: Path) -> None:
    database(tiny, [row(1, age="300.0", baseline_drift=" , I-V1,  ")])
    source = collect("ptbxl", [tiny]).sources[0]
    assert source.meta["age"] == 90.0
    assert source.quality == ("baseline_drift", "age_over_89")


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ({"filename_hr": "records500/x", "filename_lr": "records100/x"}, "missing file"),
        ({"filename_hr": "../../etc/x"}, "bad metadata"),
        ({"filename_hr": "/etc/x"}, "bad metadata"),
        ({"scp_codes": "__import__('os').system('true')"}, "bad metadata"),
        ({"scp_codes": "['MI']"}, "bad metadata"),
        ({"ecg_id": "one"}, "bad metadata"),
        ({"ecg_id": "1"}, "bad metadata"),
        ({"age": "inf"}, "bad metadata"),
        ({"recording_date": "yesterday"}, "bad metadata"),
    ],
)
def test_a_bad_row_is_reported_by_its_line(tiny: Path, bad: dict[str, object], reason: str) -> None:
    database(tiny, [row(1), row(2, **bad), row(3)])
    found = collect("ptbxl", [tiny])
    assert [source.name for source in found.sources] == ["00001", "00003"]
    assert [entry.reason for entry in found.missing] == [reason]
    if reason == "bad metadata":
        assert found.missing[0].uri == "ptbxl_database.csv:3"


def test_a_folder_that_is_not_ptbxl_is_refused(tmp_path: Path, tiny: Path) -> None:
    for folders in ([tmp_path], [tmp_path / "absent"], [tiny, tiny], [tiny / "records500"]):
        with pytest.raises(UsageError):
            collect("ptbxl", folders)
    with pytest.raises(UsageError, match="250 Hz"):
        collect("ptbxl", [tiny], rate=250)
    (tiny / "ptbxl_database.csv").write_text("ecg_id,patient_id\n1,2\n")
    with pytest.raises(UsageError, match="no column 'scp_codes'"):
        collect("ptbxl", [tiny])


# -- plain folders --------------------------------------------------------------------------------


def test_a_folder_gives_names_below_it(tmp_path: Path, write_wfdb: Writer) -> None:
    write_wfdb(tmp_path, "b", DIGITAL)
    write_wfdb(tmp_path, "deep/er/a", DIGITAL)
    write_wfdb(tmp_path, ".hidden/c", DIGITAL)
    (tmp_path / "RECORDS").write_text("b\n")
    (tmp_path / "deep" / "cart.xml").write_text("<x/>")
    found = collect("mine", [tmp_path])
    assert [(s.name, s.uri) for s in found.sources] == [
        ("b", "b.hea"),
        ("deep/er/a", "deep/er/a.hea"),
    ]
    assert [(m.uri, m.reason) for m in found.missing] == [("deep/cart.xml", "unsupported format")]
    assert found.notes == ("1 files without suffix passed over: no ECG that can be read",)


def test_single_files_and_several_folders_are_taken(tmp_path: Path, write_wfdb: Writer) -> None:
    one = write_wfdb(tmp_path / "one", "x", DIGITAL)
    write_wfdb(tmp_path / "two", "y", DIGITAL)
    found = collect("mine", [one, tmp_path / "two"])
    assert [source.name for source in found.sources] == ["x", "y"]
    with pytest.raises(UsageError, match="'x'"):
        collect("mine", [one, tmp_path / "one"])


def test_segments_belong_to_their_master(test_data: Path) -> None:
    found = collect("mine", [test_data / "data/formats/wfdb/multi-segment"])
    assert [source.name for source in found.sources] == ["041s/041s", "fixed1/v102s"]


def test_odd_entries_are_reported_not_dropped(tmp_path: Path, write_wfdb: Writer) -> None:
    write_wfdb(tmp_path, "good", DIGITAL)
    (tmp_path / "folder.hea").mkdir()
    os.mkfifo(tmp_path / "pipe.hea")
    (tmp_path / "linked").symlink_to(tmp_path / "folder.hea")
    write_wfdb(tmp_path, "line\nbreak", DIGITAL)
    (tmp_path / os.fsdecode(b"caf\xe9.hea")).write_text("x")
    found = collect("mine", [tmp_path])
    assert [source.name for source in found.sources] == ["folder", "good", "pipe"]
    assert sorted(entry.uri for entry in found.missing) == ["caf\\udce9.hea", "line\\nbreak.hea"]
    assert {entry.reason for entry in found.missing} == {"bad name"}
    assert "1 links to folders" in found.notes[0]


def test_sources_that_are_not_there_are_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "absent", tmp_path / "absent.hea"):
        with pytest.raises(UsageError, match="absent"):
            collect("mine", [path])
    with pytest.raises(UsageError, match="rate"):
        collect("mine", [tmp_path], rate=100)
