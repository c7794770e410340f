"""MIMIC-IV-ECG, in a small copy of the published layout."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

import numpy as np
import pytest

from ecgstore.datasets.mimic_iv_ecg import collect
from ecgstore.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from ecgstore.datasets import Collection
    from ecgstore.record import Record

    Writer = Callable[..., Path]

DIGITAL = np.arange(24, dtype=np.int16).reshape(12, 2)
STUDIES = ((10000032, 40689238), (10000032, 44458630), (10000117, 45090959))


def listed(subject: int, study: int) -> dict[str, object]:
    path = f"files/p{str(subject)[:4]}/p{subject}/s{study}/{study}"
    row = {"subject_id": subject, "study_id": study, "file_name": study}
    return {**row, "ecg_time": "2180-07-23 08:44:00", "path": path}


def machine(subject: int, study: int, **values: object) -> dict[str, object]:
    return {
        "subject_id": subject,
        "study_id": study,
        "cart_id": 6848296,
        "ecg_time": "2180-07-23 08:44:00",
        "report_0": "Sinus rhythm",
        **{f"report_{number}": "" for number in range(1, 18)},
        "bandwidth": "0.005-150 Hz",
        "filtering": "60 Hz notch Baseline filter",
        "rr_interval": 659,
        "p_onset": 40,
        "p_end": 128,
        "qrs_onset": 170,
        "qrs_end": 258,
        "t_end": 518,
        "p_axis": 81,
        "qrs_axis": -77,
        "t_axis": 79,
        **values,
    }


@pytest.fixture
def root(tmp_path: Path, write_wfdb: Writer, write_csv: Callable[..., Path]) -> Path:
    for subject, study in STUDIES:
        write_wfdb((tmp_path / str(listed(subject, study)["path"])).parent, str(study), DIGITAL)
    write_csv(tmp_path / "record_list.csv", [listed(*ids) for ids in STUDIES])
    write_csv(
        tmp_path / "machine_measurements.csv",
        [
            machine(*STUDIES[0], report_2="Borderline ECG", p_axis=29999, p_onset="", t_end=65535),
            machine(*STUDIES[1]),
        ],
    )
    links = {
        "subject_id": 10000032,
        "study_id": 40689238,
        "waveform_path": "x",
        "note_id": "1-EK-1",
    }
    write_csv(tmp_path / "waveform_note_links.csv", [links])
    return tmp_path


def test_patients_times_reports_and_measurements(
    root: Path, read_all: Callable[[Collection], dict[str, Record]]
) -> None:
    found = collect([root])
    first, second, third = found.sources
    assert (first.name, first.uri) == (
        "40689238",
        "files/p1000/p10000032/s40689238/40689238.hea",
    )
    assert first.meta == {
        "patient_id": "10000032",
        "recorded_at": dt.datetime(2180, 7, 23, 8, 44),
        "report": "Sinus rhythm\nBorderline ECG",
    }
    assert first.measurements == {
        "rr": 659.0,
        "p_offset": 128.0,
        "qrs_onset": 170.0,
        "qrs_offset": 258.0,
        "qrs_axis": -77.0,
        "t_axis": 79.0,
    }
    assert len(second.measurements) == 9
    assert "report" not in third.meta
    assert not third.measurements
    assert not found.missing
    assert found.notes == (
        "waveform_note_links.csv is not read: join it by study_id, the name of a record",
    )
    assert len(read_all(found)) == 3


def test_the_list_of_records_is_enough(root: Path) -> None:
    (root / "machine_measurements.csv").unlink()
    found = collect([root])
    assert len(found.sources) == 3
    assert "machine_measurements.csv" in found.notes[0]


@pytest.mark.parametrize(
    ("bad", "uri", "reason"),
    [
        ({"path": "../../etc/passwd"}, "record_list.csv:3", "bad metadata"),
        ({"path": "/etc/passwd"}, "record_list.csv:3", "bad metadata"),
        ({"path": ""}, "record_list.csv:3", "bad metadata"),
        ({"path": "a" * 300}, "a" * 300 + ".hea", "missing file"),
        ({"path": "files/\0x"}, "record_list.csv:3", "bad metadata"),
        ({"path": "files/p1000/x"}, "files/p1000/x.hea", "missing file"),
        ({"ecg_time": "noon"}, "record_list.csv:3", "bad metadata"),
        ({"study_id": "x"}, "record_list.csv:3", "bad metadata"),
        ({"study_id": 40689238}, "record_list.csv:3", "bad metadata"),
    ],
)
def test_a_bad_row_is_reported(
    root: Path,
    write_csv: Callable[..., Path],
    bad: dict[str, object],
    uri: str,
    reason: str,
) -> None:
    rows = [listed(*STUDIES[0]), listed(*STUDIES[1]) | bad, listed(*STUDIES[2])]
    write_csv(root / "record_list.csv", rows)
    found = collect([root])
    assert [source.name for source in found.sources] == ["40689238", "45090959"]
    assert [(entry.uri, entry.reason) for entry in found.missing] == [(uri, reason)]
    if reason == "missing file":
        assert "1 rows of machine_measurements.csv belong to no record" in found.notes[0]


def test_another_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"record_list\.csv"):
        collect([tmp_path])
