"""Chapman-Shaoxing and Ningbo."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import numpy as np
import pytest

from ecgstore.datasets.chapman import collect
from ecgstore.datasets.snomed import tasks_of
from ecgstore.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from ecgstore.datasets import Collection
    from ecgstore.record import Record

    Reads = Callable[[Collection], dict[str, Record]]

NAMES = """\
Acronym Name,Full Name,Snomed_CT
1AVB,1 degree atrioventricular block,270492004
SB,Sinus Bradycardia,426177001
SR,Sinus Rhythm,426783006
SR,Sinus Rhythm,426783006
"""


@pytest.fixture
def published(tmp_path: Path, test_data: Path) -> Path:
    """Return a folder laid out as the database with two records of each hospital."""
    for name, folder in {
        "chapman_shaoxing/JS00001": "01/010",
        "chapman_shaoxing/JS00002": "01/010",
        "ningbo/JS20000": "20/200",
        "ningbo/JS45542": "45/455",
    }.items():
        target = tmp_path / "WFDBRecords" / folder
        target.mkdir(parents=True, exist_ok=True)
        for suffix in (".hea", ".mat"):
            shutil.copy(test_data / f"data/challenge2021/{name}{suffix}", target)
    (tmp_path / "ConditionNames_SNOMED-CT.csv").write_text("\ufeff" + NAMES)
    return tmp_path


def test_hospitals_and_tasks_of_the_published_layout(published: Path, read_all: Reads) -> None:
    found = collect([published])
    assert {source.uri: source.meta for source in found.sources} == {
        "WFDBRecords/01/010/JS00001.hea": {"site": "chapman_shaoxing"},
        "WFDBRecords/01/010/JS00002.hea": {"site": "chapman_shaoxing"},
        "WFDBRecords/20/200/JS20000.hea": {"site": "ningbo"},
        "WFDBRecords/45/455/JS45542.hea": {"site": "ningbo"},
    }
    codes = ("snomed:270492004", "snomed:426177001", "snomed:426783006")
    assert {source.tasks for source in found.sources} == {codes}
    assert [entry.uri for entry in found.missing] == ["ConditionNames_SNOMED-CT.csv:5"]
    records = read_all(found)
    assert all("codes" in record.meta for record in records.values())


def test_without_its_table_the_codes_are_those_of_the_challenge(published: Path) -> None:
    (published / "ConditionNames_SNOMED-CT.csv").unlink()
    found = collect([published])
    assert found.sources[0].tasks == tasks_of("chapman_shaoxing")
    assert found.sources[-1].tasks == tasks_of("ningbo")


def test_the_older_copy_gives_signals_without_labels(tmp_path: Path, read_all: Reads) -> None:
    rng = np.random.default_rng(0)
    microvolts = rng.integers(-900, 900, (5000, 12))
    header = "I,II,III,aVR,aVL,aVF,V1,V2,V3,V4,V5,V6"
    for folder in ("ECGData", "ECGDataDenoised"):
        (tmp_path / folder).mkdir()
        path = tmp_path / folder / "MUSE_20180113_171327_27000.csv"
        np.savetxt(path, microvolts, fmt="%d", delimiter=",", header=header, comments="")
    found = collect([tmp_path])
    (source,) = found.sources
    assert source.uri == "ECGData/MUSE_20180113_171327_27000.csv"
    assert not source.tasks
    assert found.notes[0] == "1 other .hea and .csv files not read"
    assert "Diagnostics.xlsx" in found.notes[1]
    record = read_all(found)[source.name]
    assert record.rate_hz == 500
    np.testing.assert_allclose(record.signal_mv, microvolts.T / 1000, atol=1e-12)


def test_another_folder_is_refused(tmp_path: Path, test_data: Path) -> None:
    for folder in (tmp_path, test_data / "data/code15"):
        with pytest.raises(UsageError, match="JS00001"):
            collect([folder])
