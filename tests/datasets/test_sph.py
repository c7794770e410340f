"""Shandong Provincial Hospital."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

import pytest

from ecgstore.datasets.sph import collect
from ecgstore.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from ecgstore.datasets import Collection
    from ecgstore.record import Record

HEADER = "ECG_ID,AHA_Code,Patient_ID,Age,Sex,N,Date\n"


def test_the_real_records_bring_patients_and_codes(
    test_data: Path, read_all: Callable[[Collection], dict[str, Record]]
) -> None:
    found = collect([test_data / "data/sph"])
    assert not found.missing
    by_name = {source.name: source for source in found.sources}
    assert by_name["SPH00001"].uri == "records/SPH00001.h5"
    assert by_name["SPH00001"].meta == {
        "patient_id": "S00001",
        "age": 55.0,
        "sex": "male",
        "recorded_at": dt.datetime(2020, 3, 4),
    }
    assert {label.task for label in by_name["SPH00001"].labels} == {
        "aha:22",
        "aha:23",
        "snomed:426177001",
        "snomed:427393009",
    }
    assert set(by_name["SPH00004"].tasks) == {
        "aha:1",
        "aha:22",
        "aha:23",
        "snomed:426177001",
        "snomed:426783006",
        "snomed:427393009",
    }
    bare = by_name["SPH00005"]
    assert (bare.quality, bare.tasks, dict(bare.meta)) == (("no_metadata",), (), {})
    lengths = {name: record.n_samples for name, record in read_all(found).items()}
    assert list(lengths.values()) == [5000, 6000, 6500, 5000, 5500, 5000]


def test_the_published_table_has_modifiers_and_no_suffixes(tmp_path: Path, test_data: Path) -> None:
    real = tmp_path / "real/records"
    real.mkdir(parents=True)
    for number in range(1, 5):
        name = f"SPH0000{number}.h5"
        (real / name).symlink_to(test_data / "data/sph/records" / name)
    (tmp_path / "real/metadata.csv").write_text(
        HEADER
        + "SPH00001,60+310;22,S00001,55,M,5000,2020-03-04\n"
        + "SPH00002,possible,S00002,32,M,6000,2019-09-03\n"
        + "SPH00003,1,S00003,63,M,6500,yesterday\n"
        + "SPH00009,1,S00009,63,M,6500,2020-01-01\n"
        + "../SPH00004,1,S00009,63,M,6500,2020-01-01\n"
    )
    found = collect([tmp_path / "real"])
    by_name = {source.name: source for source in found.sources}
    tasks = {label.task for label in by_name["SPH00001"].labels}
    assert tasks == {"aha:60", "aha:60+310", "aha:22"} == set(by_name["SPH00001"].tasks)
    assert [name for name, source in by_name.items() if source.quality] == [
        "SPH00002",
        "SPH00003",
        "SPH00004",
    ]
    assert [(entry.uri, entry.reason) for entry in found.missing] == [
        ("metadata.csv:3", "bad metadata"),
        ("metadata.csv:4", "bad metadata"),
        ("records/SPH00009.h5", "missing file"),
        ("metadata.csv:6", "bad metadata"),
    ]


def test_another_folder_is_refused(tmp_path: Path, test_data: Path) -> None:
    with pytest.raises(UsageError, match=r"metadata\.csv"):
        collect([test_data / "data/code15"])
    (tmp_path / "metadata.csv").write_text(HEADER)
    with pytest.raises(UsageError, match=r"no \.h5 files"):
        collect([tmp_path])
