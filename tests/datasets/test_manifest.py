"""Files with a table of the user's own."""

from __future__ import annotations

import datetime as dt
import shutil
from typing import TYPE_CHECKING

import numpy as np
import pytest

from ecgstore.datasets.manifest import collect
from ecgstore.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from ecgstore.datasets import Collection
    from ecgstore.record import Record

    Reads = Callable[[Collection], dict[str, Record]]
    Writer = Callable[..., Path]
    Tables = Callable[..., Path]

DIGITAL = np.arange(24, dtype=np.int16).reshape(12, 2)


@pytest.fixture
def folder(tmp_path: Path, write_wfdb: Writer) -> Path:
    for name in ("a", "c"):
        write_wfdb(tmp_path / "ecgs", name, DIGITAL)
    write_wfdb(tmp_path / "ecgs/deep", "b", DIGITAL)
    return tmp_path / "ecgs"


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_a_table_of_any_delimiter_says_what_belongs_to_a_file(
    folder: Path, write_csv: Tables, read_all: Reads, delimiter: str
) -> None:
    row = {
        "file": "./deep/b",
        "record": "visit 1",
        "patient_id": " 77 ",
        "recorded_at": "2020-03-04T10:00:00+02:00",
        "age": "61.5",
        "sex": "F",
        "site": "ward",
        "device": "Maker, Model; 2",
        "report": "Sinus rhythm\nSeen by Dr. Miller",
        "strat_fold": "3",
        "measure:qt": "401",
        "measure:heart_rate": "",
        "label:MI": "1",
        "label:risk": "0.25",
        "label:AF": "",
        "ward_phone": "555",
        "measure:mood": "4",
    }
    table = write_csv(folder / "list.csv", [row], delimiter)
    found = collect([folder], manifest=table)
    (source,) = found.sources
    assert (source.name, source.uri) == ("visit 1", "deep/b.hea")
    assert source.meta == {
        "patient_id": "77",
        "recorded_at": dt.datetime(2020, 3, 4, 8),
        "age": 61.5,
        "sex": "female",
        "site": "ward",
        "device": "Maker, Model; 2",
        "report": "Sinus rhythm",
        "strat_fold": 3,
    }
    assert source.quality == ("withheld_statements:1",)
    assert source.measurements == {"qt": 401.0}
    assert {(label.task, label.label) for label in source.labels} == {("MI", 1), ("risk", 0.25)}
    assert not source.tasks  # an empty cell is no label
    assert not found.missing
    assert found.notes == (
        "columns of the manifest not used: 'ward_phone', 'measure:mood'",
        "2 files that may hold ECGs are not in the manifest, and not read",
    )
    assert read_all(found)["visit 1"].n_samples == 2


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ({"file": "absent.hea"}, "missing file"),
        ({"file": "deep"}, "missing file"),
        ({"file": "c#1"}, "missing file"),
        ({"file": ""}, "bad metadata"),
        ({"file": "../ecgs/c"}, "bad metadata"),
        ({"file": "/etc/passwd"}, "bad metadata"),
        ({"file": "x" * 300}, "missing file"),
        ({"file": "c\0"}, "bad metadata"),
        ({"file": "a.hea"}, "bad metadata"),
        ({"record": "line\nbreak"}, "bad metadata"),
        ({"label:MI": "yes"}, "bad metadata"),
        ({"label:MI": "nan"}, "bad metadata"),
        ({"label:MI": "1_0"}, "bad metadata"),
        ({"label:MI": "1e999"}, "bad metadata"),
        ({"strat_fold": "1e12"}, "bad metadata"),
        ({"strat_fold": "1.5"}, "bad metadata"),
        ({"recorded_at": "04.03.2020"}, "bad metadata"),
        ({"recorded_at": "0001-01-01T00:00:00+14:00"}, "bad metadata"),
    ],
)
def test_a_bad_row_is_reported_by_its_line_alone(
    folder: Path, write_csv: Tables, bad: dict[str, str], reason: str
) -> None:
    row = {"file": "c", "record": "", "label:MI": "0", "strat_fold": "", "recorded_at": ""}
    rows = [row | {"file": "a"}, row | bad, row | {"file": "deep/b"}]
    table = write_csv(folder.parent / "list.csv", rows)
    found = collect([folder], manifest=table)
    assert [source.name for source in found.sources] == ["a", "deep/b"]
    (entry,) = found.missing
    assert entry.reason == reason
    assert entry.uri.startswith("list.csv:")
    assert not any(value and value in entry.uri + entry.detail for value in bad.values())


def test_values_that_mean_nothing_are_flagged(folder: Path, write_csv: Tables) -> None:
    rows = [
        {"file": "a", "age": "0", "sex": "m"},
        {"file": "c", "age": "400", "sex": "7"},
    ]
    first, second = collect([folder], manifest=write_csv(folder / "list.csv", rows)).sources
    assert (first.meta, first.quality) == ({"age": 0.0, "sex": "male"}, ())
    assert (second.meta, second.quality) == ({}, ("unusable_age", "unusable_sex"))


def test_records_of_a_file_of_many_are_named_by_their_ids(
    tmp_path: Path, test_data: Path, write_csv: Tables, read_all: Reads
) -> None:
    shutil.copy(test_data / "data/code15/exams_part0.hdf5", tmp_path / "exams.hdf5")
    shutil.copy(test_data / "data/sph/records/SPH00001.h5", tmp_path / "odd#1.h5")
    (tmp_path / "broken.hdf5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(64))
    names = ("exams.hdf5#975093", "exams.hdf5#0000", "broken.hdf5#1", "odd#1.h5")
    table = write_csv(tmp_path / "list.csv", [{"file": name} for name in names])
    found = collect([tmp_path], manifest=table)
    assert [(source.name, source.uri, source.row) for source in found.sources] == [
        ("exams.hdf5#975093", "exams.hdf5#975093", 3),
        ("odd#1.h5", "odd#1.h5", None),
    ]
    assert [entry.uri for entry in found.missing] == ["list.csv:3", "list.csv:4"]
    assert {name: record.rate_hz for name, record in read_all(found).items()} == {
        "exams.hdf5#975093": 400,
        "odd#1.h5": 500,
    }


def test_files_of_several_folders_must_be_told_apart(
    tmp_path: Path, folder: Path, write_wfdb: Writer, write_csv: Tables
) -> None:
    write_wfdb(tmp_path / "more", "a", DIGITAL)
    write_wfdb(tmp_path / "more", "d", DIGITAL)
    table = write_csv(tmp_path / "list.csv", [{"file": name} for name in ("a", "c", "d")])
    found = collect([folder, tmp_path / "more"], manifest=table)
    assert [source.path.parent.name for source in found.sources] == ["ecgs", "more"]
    assert [(entry.uri, entry.reason) for entry in found.missing] == [
        ("list.csv:2", "bad metadata")
    ]


def test_a_layout_goes_with_every_file(folder: Path, write_csv: Tables) -> None:
    table = write_csv(folder / "list.csv", [{"file": "a"}])
    found = collect([folder], manifest=table, layout={"rate": "500"})
    assert found.sources[0].layout == {"rate": "500"}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "no column 'file'"),
        (b"path,age\na,1\n", "no column 'file'"),
        (b"file,age,age\na,1,2\n", "two columns 'age'"),
        (b"file\n\xff\xfe\n", "UTF-8"),
        (b"\xff\xfef\0i\0l\0e\0", "UTF-8"),
        (b'file,x\na,"' + b"y" * 200_000 + b'"\n', "not a readable CSV"),
        (b'"' + b"y" * 200_000 + b'"\n', "UTF-8"),
    ],
)
def test_what_is_no_such_table_is_refused(folder: Path, content: bytes, said: str) -> None:
    table = folder / "list.csv"
    table.write_bytes(content)
    with pytest.raises(UsageError, match=said):
        collect([folder], manifest=table)


def test_a_row_with_too_many_cells_is_reported(folder: Path) -> None:
    table = folder / "list.csv"
    table.write_text("file,age\na,61,5\n\nc\n")
    found = collect([folder], manifest=table)
    assert [source.name for source in found.sources] == ["c"]
    assert [entry.uri for entry in found.missing] == ["list.csv:2"]


def test_folders_and_tables_that_are_not_there_are_refused(folder: Path) -> None:
    with pytest.raises(UsageError, match="manifest"):
        collect([folder], manifest=folder / "absent.csv")
    with pytest.raises(UsageError, match="folder"):
        collect([folder / "absent"], manifest=folder / "a.hea")
    with pytest.raises(UsageError, match="rate"):
        collect([folder], manifest=folder / "a.hea", rate=500)
