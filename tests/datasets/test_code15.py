"""CODE-15 %."""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING

import pytest

from ecgstore.datasets.code15 import TASKS, collect
from ecgstore.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from ecgstore.datasets import Collection
    from ecgstore.record import Record

PART = "exams_part0.hdf5"


@pytest.fixture
def published(test_data: Path) -> list[dict[str, str]]:
    with (test_data / "data/code15/exams.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def folder(tmp_path: Path, test_data: Path) -> Path:
    (tmp_path / PART).symlink_to(test_data / "data/code15" / PART)
    return tmp_path


def test_the_real_part_gives_seven_exams(
    test_data: Path,
    published: list[dict[str, str]],
    read_all: Callable[[Collection], dict[str, Record]],
) -> None:
    found = collect([test_data / "data/code15"])
    assert [(entry.uri, entry.reason) for entry in found.missing] == [(f"{PART}#7", "empty row")]
    assert [source.name for source in found.sources] == [row["exam_id"] for row in published]
    assert [source.row for source in found.sources] == list(range(7))
    for source, row in zip(found.sources, published, strict=True):
        assert source.uri == f"{PART}#{row['exam_id']}"
        assert source.meta == {
            "patient_id": row["patient_id"],
            "age": float(row["age"]),
            "sex": "male" if row["is_male"] == "True" else "female",
        }
        said = {label.task: label.label for label in source.labels}
        assert {task for task in TASKS if said.get(task)} == {
            task for task in TASKS if row[task] == "True"
        }
        assert said["nn_predicted_age"] == float(row["nn_predicted_age"])
        assert ("death" in source.tasks) == bool(row["death"])
        assert said.get("timey") == (float(row["timey"]) if row["timey"] else None)
    for record in read_all(found).values():
        assert (len(record.leads), record.rate_hz) == (12, 400)
        assert record.n_samples in {2934, 4096}


def test_what_does_not_fit_is_reported(
    folder: Path, published: list[dict[str, str]], write_csv: Callable[..., Path]
) -> None:
    first, second, third, fourth, *rest = published
    rows = [
        first | {"AF": "maybe"},
        second | {"age": "old"},
        third | {"trace_file": "../exams_part0.hdf5"},
        fourth | {"1dAVb": ""},
        fourth,
        *rest[:-1],  # the last exam of the file has no row
        rest[0] | {"exam_id": "5", "trace_file": PART},
        rest[0] | {"exam_id": "6", "trace_file": "exams_part1.hdf5"},
        rest[0] | {"exam_id": "7", "trace_file": "exams_part1.hdf5"},
    ]
    write_csv(folder / "exams.csv", rows)
    found = collect([folder])
    bare = [source.name for source in found.sources if source.quality == ("no_metadata",)]
    assert bare == ["438277", "358121", "1594286", "2969044"]
    assert not any(source.meta or source.tasks for source in found.sources if source.name in bare)
    partly = next(source for source in found.sources if source.name == fourth["exam_id"])
    assert set(partly.tasks) == {*TASKS, "death"} - {"1dAVb"}
    assert [(entry.uri, entry.reason) for entry in found.missing] == [
        ("exams.csv:2", "bad metadata"),
        ("exams.csv:3", "bad metadata"),
        ("exams.csv:4", "bad metadata"),
        ("exams.csv:6", "bad metadata"),
        (f"{PART}#7", "empty row"),
        (f"{PART}#5", "missing file"),
        ("exams_part1.hdf5", "missing file"),
    ]
    assert "2 exams" in found.missing[-1].detail


def test_a_part_that_cannot_be_opened_is_one_reject(
    folder: Path, published: list[dict[str, str]], write_csv: Callable[..., Path]
) -> None:
    write_csv(folder / "exams.csv", [published[0] | {"trace_file": "exams_part1.hdf5"}])
    (folder / "exams_part1.hdf5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100))
    found = collect([folder])
    assert [entry.uri for entry in found.missing] == [f"{PART}#7", "exams_part1.hdf5"]
    assert len(found.sources) == 7


def test_another_folder_is_refused(tmp_path: Path, test_data: Path) -> None:
    with pytest.raises(UsageError, match=r"exams\.csv"):
        collect([test_data / "data/sph"])
    (tmp_path / "exams.csv").write_bytes((test_data / "data/code15/exams.csv").read_bytes())
    with pytest.raises(UsageError, match="HDF5"):
        collect([tmp_path])
    (tmp_path / "exams.csv").write_text("exam_id,age\n1,2\n")
    with pytest.raises(UsageError, match="is_male"):
        collect([tmp_path])
