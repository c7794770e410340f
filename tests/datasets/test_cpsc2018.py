"""CPSC 2018 in its original files."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from ecgstore.datasets.cpsc2018 import CLASSES, collect
from ecgstore.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from ecgstore.datasets import Collection
    from ecgstore.record import Record

REFERENCE = """Recording,First_label,Second_label,Third_label
A1980,1,,
A1981,2,8,9
A1982,10,,
A0001,5,,
A1980,1,,
,3,,
"""


def test_without_a_reference_there_are_no_labels(
    test_data: Path, read_all: Callable[[Collection], dict[str, Record]]
) -> None:
    found = collect([test_data / "data/cpsc2018_original"])
    assert [source.name for source in found.sources] == ["A1980", "A1981", "A1982", "A1983"]
    assert all(not source.tasks for source in found.sources)
    assert all(source.quality == ("no_metadata",) for source in found.sources)
    assert found.notes == ("without REFERENCE.csv, records come without labels",)
    for record in read_all(found).values():
        assert (len(record.leads), record.rate_hz) == (12, 500)


def test_a_reference_gives_one_to_three_classes(tmp_path: Path, test_data: Path) -> None:
    shutil.copytree(test_data / "data/cpsc2018_original", tmp_path / "TrainingSet1")
    (tmp_path / "TrainingSet1/REFERENCE.csv").write_text(REFERENCE)
    found = collect([tmp_path])
    labels = {source.name: {label.task for label in source.labels} for source in found.sources}
    assert labels == {
        "A1980": {"CPSC:Normal"},
        "A1981": {"CPSC:AF", "CPSC:STD", "CPSC:STE"},
        "A1982": set(),
        "A1983": set(),
    }
    tasks = {source.name: len(source.tasks) for source in found.sources}
    assert tasks == {"A1980": len(CLASSES), "A1981": len(CLASSES), "A1982": 0, "A1983": 0}
    assert [(entry.uri, entry.reason) for entry in found.missing] == [
        ("REFERENCE.csv:4", "bad metadata"),
        ("REFERENCE.csv:6", "bad metadata"),
        ("REFERENCE.csv:7", "bad metadata"),
        ("A0001.mat", "missing file"),
    ]


def test_references_that_differ_are_reported(tmp_path: Path, test_data: Path) -> None:
    shutil.copytree(test_data / "data/cpsc2018_original", tmp_path / "TrainingSet1")
    for folder, label in (("", 2), ("TrainingSet1/", 3)):
        (tmp_path / f"{folder}REFERENCE.csv").write_text(f"Recording,First_label\nA1980,{label}\n")
    found = collect([tmp_path])
    assert [(entry.uri, entry.detail) for entry in found.missing] == [
        ("REFERENCE.csv", "another reference labels A1980 otherwise")
    ]


def test_the_physionet_copy_is_another_dataset(test_data: Path) -> None:
    with pytest.raises(UsageError) as caught:
        collect([test_data / "data/challenge2021/cpsc_2018"])
    assert "challenge2020" in str(caught.value.hint)
