"""PTB Diagnostic ECG Database."""

from __future__ import annotations

import datetime as dt
import shutil
from typing import TYPE_CHECKING

import numpy as np
import pytest

from ecgstore.datasets.ptb import CLASSES, collect
from ecgstore.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from ecgstore.datasets import Collection
    from ecgstore.record import Record

    Writer = Callable[..., Path]

DIGITAL = np.arange(24, dtype=np.int16).reshape(12, 2)


def test_a_real_record_brings_patient_day_and_diagnosis(
    tmp_path: Path, test_data: Path, read_all: Callable[[Collection], dict[str, Record]]
) -> None:
    (tmp_path / "patient001").mkdir()
    for suffix in (".hea", ".dat", ".xyz"):
        shutil.copy(test_data / f"data/formats/wfdb/s0010_re{suffix}", tmp_path / "patient001")
    (tmp_path / "RECORDS").write_text("patient001/s0010_re\npatient001/s0014lre\n../x\n")
    found = collect([tmp_path])
    (source,) = found.sources
    assert (source.name, source.uri) == ("s0010_re", "patient001/s0010_re.hea")
    assert source.meta == {"patient_id": "patient001", "recorded_at": dt.datetime(1990, 10, 1)}
    assert [(label.task, label.label) for label in source.labels] == [("MI", 1.0)]
    assert len(source.tasks) == 9
    assert [(entry.uri, entry.reason) for entry in found.missing] == [
        ("patient001/s0014lre.hea", "missing file"),
        ("RECORDS:3", "bad metadata"),
    ]
    record = read_all(found)["s0010_re"]
    assert (record.rate_hz, record.leads[-3:]) == (1000, ("X", "Y", "Z"))
    assert (record.meta["age"], record.meta["sex"]) == (81.0, "female")


@pytest.mark.parametrize(
    ("reason", "task"),
    [
        ("Healthy control", "NORM"),
        ("Heart failure (NYHA 3)", "PTB:HF"),
        ("Cardiomyopathy", "PTB:HF"),
        ("Bundle branch block", "PTB:BBB"),
        ("Palpitation", "PTB:MISC"),
        ("n/a", None),
        ("Something new", None),
    ],
)
def test_each_reason_for_admission_is_a_task(
    tmp_path: Path, write_wfdb: Writer, reason: str, task: str | None
) -> None:
    comments = ["age: n/a", "Diagnose:", f"Reason for admission: {reason}", "ECG date: 31/02/1991"]
    write_wfdb(tmp_path, "patient104/s0306lre", DIGITAL, comments=comments)
    (source,) = collect([tmp_path]).sources
    assert [label.task for label in source.labels] == ([task] if task else [])
    assert set(source.tasks) == (set(CLASSES.values()) if task else set())
    assert source.quality == (() if task else ("no_diagnosis",))
    assert source.meta == {"patient_id": "patient104"}


def test_other_headers_are_counted_and_other_folders_refused(
    tmp_path: Path, write_wfdb: Writer
) -> None:
    write_wfdb(tmp_path, "loose", DIGITAL)
    with pytest.raises(UsageError, match="patient001"):
        collect([tmp_path])
    write_wfdb(tmp_path, "patient002/s0015lre", DIGITAL)
    write_wfdb(tmp_path, "copy/patient002/s0015lre", DIGITAL)
    found = collect([tmp_path])
    assert found.notes == ("1 headers outside the patients' folders not read",)
    assert [entry.reason for entry in found.missing] == ["bad metadata"]
    with pytest.raises(UsageError, match="rate"):
        collect([tmp_path], rate=1000)
    with pytest.raises(UsageError, match="2 folders"):
        collect([tmp_path, tmp_path])
