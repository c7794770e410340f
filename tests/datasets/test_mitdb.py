"""Long annotated records of PhysioNet."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from ecgstore import io
from ecgstore.datasets.mitdb import DATABASES, collect
from ecgstore.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Writer = Callable[..., Path]

DIGITAL = np.arange(4, dtype=np.int16).reshape(2, 2)


@pytest.mark.parametrize(
    ("database", "subjects"),
    [
        ("mitdb", {"100": ("100", 69.0, "male"), "105": ("105", 73.0, "female")}),
        ("nstdb", {"118e06": ("118", None, None)}),
        ("qtdb", {"sel100": ("100", 69.0, "male")}),
        ("nsr2db", {"nsr001": ("nsr001", None, None), "nsr004": ("nsr004", None, None)}),
        ("cpsc2021", {"data_101_6": ("101", None, None), "data_8_2": ("8", None, None)}),
    ],
)
def test_real_records_bring_their_subjects(
    test_data: Path, database: str, subjects: dict[str, tuple[object, ...]]
) -> None:
    found = collect([test_data / "data/longterm" / database], database=database)
    meta = {source.name: source.meta for source in found.sources}
    known = {
        name: tuple(meta[name].get(key) for key in ("patient_id", "age", "sex"))
        for name in subjects
    }
    assert known == subjects
    assert not found.missing
    assert not found.notes


def test_what_a_record_says_itself_is_left_to_its_reader(test_data: Path) -> None:
    found = collect([test_data / "data/longterm/nsr2db"], database="nsr2db")
    record = io.read(found.sources[0].path)
    assert (record.meta["age"], record.meta["sex"]) == (64.0, "female")
    assert record.annotations[0].annotator == "ecg"


def test_records_of_cpsc_2021_are_labelled_by_rhythm(test_data: Path) -> None:
    found = collect([test_data / "data/longterm/cpsc2021"], database="cpsc2021")
    labels = {source.name: [label.task for label in source.labels] for source in found.sources}
    headers = {
        path.stem: path.read_text() for path in (test_data / "data/longterm/cpsc2021").glob("*.hea")
    }
    names = {"non": "N", "persistent": "AFf", "paroxysmal": "AFp"}
    assert labels == {
        name: [f"CPSC2021:{names[text.rsplit('#', 1)[1].split()[0]]}"]
        for name, text in headers.items()
    }
    assert all(len(source.tasks) == 3 for source in found.sources)


def test_one_subject_of_two_records_and_noise_without_an_ecg(
    tmp_path: Path, write_wfdb: Writer
) -> None:
    for name in ("201", "202", "x_mitdb/x_108"):
        write_wfdb(tmp_path / "mitdb", name, DIGITAL, comments=["-1 M 1960 2851 x1"])
    found = collect([tmp_path / "mitdb"], database="mitdb")
    assert {source.name: source.meta for source in found.sources} == {
        "201": {"patient_id": "201", "sex": "male"},
        "202": {"patient_id": "201", "sex": "male"},
        "x_108": {"patient_id": "108", "sex": "male"},
    }
    for name in ("em", "118e_6", "119e24", "notes"):
        write_wfdb(tmp_path / "nstdb", name, DIGITAL)
    found = collect([tmp_path / "nstdb"], database="nstdb")
    assert {source.name: (source.meta, source.quality) for source in found.sources} == {
        "118e_6": ({"patient_id": "118"}, ()),
        "119e24": ({"patient_id": "119"}, ()),
        "em": ({}, ("no_ecg",)),
    }
    assert found.notes == ("1 headers with other names not read",)


@pytest.mark.parametrize("database", sorted(DATABASES))
def test_another_database_is_refused(test_data: Path, database: str) -> None:
    other = "cpsc2021" if database != "cpsc2021" else "mitdb"
    with pytest.raises(UsageError, match=database):
        collect([test_data / "data/longterm" / other], database=database)
