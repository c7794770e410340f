"""What every registered reader must do."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

import numpy as np
import pytest

from ecgstore.errors import ReadError
from ecgstore.io import detect, read, readers
from ecgstore.io.assemble import META, REASONS
from ecgstore.record import LEADS, lead_name, signal_name

from .samples import SAMPLES, Sample, file_of, parts_of

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(params=sorted(readers))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def sample(name: str) -> Sample:
    return SAMPLES[name]


@pytest.fixture(scope="module")
def files(test_data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return the sample file of each reader."""
    folder = tmp_path_factory.mktemp("made")
    return {name: file_of(name, test_data, folder) for name in SAMPLES}


def test_every_reader_is_tried_on_a_real_file() -> None:
    assert set(SAMPLES) == set(readers), "add a file of the format to tests/samples.py"


def test_it_describes_itself(name: str) -> None:
    entry = readers.get(name)
    assert entry.name == name
    assert entry.summary
    assert entry.suffixes
    assert all(s.startswith(".") and s == s.lower() for s in (*entry.suffixes, *entry.companions))
    assert entry.read or entry.container


def test_it_detects_its_own_files_only(name: str, files: dict[str, Path]) -> None:
    for other, path in files.items():
        assert (detect(path) == name) == (other == name)


def test_the_content_decides_not_the_name(
    name: str, files: dict[str, Path], tmp_path: Path
) -> None:
    source = files[name]
    if len(parts_of(source)) > 1 or name in {"csv"}:
        pytest.skip("its parts are found by name, or plain text is of many formats")
    for suffix in ("", ".bin", ".xml", ".dcm"):
        path = tmp_path / f"renamed{suffix}"
        path.write_bytes(source.read_bytes())
        assert detect(path) == name
        assert read(path).signal_sha256 == read(source).signal_sha256


def test_a_record_has_the_promised_shape(name: str, sample: Sample, files: dict[str, Path]) -> None:
    record = read(files[name], reader=name, layout=sample.layout)
    assert record.rate_hz == pytest.approx(sample.rate_hz)
    standard = [lead for lead in LEADS if lead in record.leads]
    assert list(record.leads[: len(standard)]) == standard
    assert len(record.leads) == sample.n_leads
    assert record.digital.dtype == np.int16
    assert record.digital.shape == (len(record.leads), sample.n_samples)
    assert record.gain.shape == record.baseline.shape == (len(record.leads),)
    assert record.gain.dtype == np.float64
    assert record.baseline.dtype == np.int32
    assert record.signal_mv.dtype == np.float64
    assert record.meta["source_format"] == name
    assert len(str(record.meta["source_sha256"])) == 64
    assert set(record.meta) <= META
    assert 0.1 < np.nanmax(np.abs(record.signal_mv)) < 20, "not millivolts"


def test_reading_twice_gives_the_same(name: str, sample: Sample, files: dict[str, Path]) -> None:
    first, second = (read(files[name], layout=sample.layout) for _ in range(2))
    assert first.signal_sha256 == second.signal_sha256
    assert first.meta == second.meta
    assert first.quality == second.quality


def test_hostile_files_end_in_read_errors_only(name: str, tmp_path: Path) -> None:
    entry = readers.get(name)
    rng = np.random.default_rng(0)
    contents = [b"", b"\0", b"\n" * 100, b"A" * 4096, rng.bytes(4096), rng.bytes(2**21)]
    for suffix in entry.suffixes[:2]:
        for number, content in enumerate(contents):
            path = tmp_path / f"{number}{suffix}"
            path.write_bytes(content)
            with pytest.raises(ReadError) as caught:
                read(path, reader=name)
            assert caught.value.reason in REASONS
        with pytest.raises(ReadError):
            read(tmp_path / f"absent{suffix}", reader=name)


def test_what_is_no_file_is_refused_at_once(name: str, tmp_path: Path) -> None:
    suffix = readers.get(name).suffixes[0]
    (tmp_path / f"folder{suffix}").mkdir()
    os.mkfifo(tmp_path / f"pipe{suffix}")
    (tmp_path / f"device{suffix}").symlink_to("/dev/zero")
    (tmp_path / f"loop{suffix}").symlink_to(tmp_path / f"loop{suffix}")
    for stem in ("folder", "pipe", "device", "loop"):
        with pytest.raises(ReadError) as caught:
            read(tmp_path / f"{stem}{suffix}", reader=name)
        assert caught.value.reason in {"not a file", "unreadable", "missing file"}


def test_a_file_cut_anywhere_is_refused(
    name: str, sample: Sample, files: dict[str, Path], tmp_path: Path
) -> None:
    source = files[name]
    whole = {part.name: part.read_bytes() for part in parts_of(source)}
    for cut, data in whole.items():
        for share in (0.0, 0.3, 0.9):
            for part, content in whole.items():
                (tmp_path / part).write_bytes(content)
            (tmp_path / cut).write_bytes(data[: int(len(data) * share)])
            if name == "csv":  # a table of numbers does not say how long it was to be
                with contextlib.suppress(ReadError):
                    assert read(tmp_path / source.name).n_samples < sample.n_samples
                continue
            with pytest.raises(ReadError) as caught:
                read(tmp_path / source.name, reader=name, layout=sample.layout)
            assert caught.value.reason in REASONS


# ------------------------------------------------------------------ one ECG, many formats

SIX = {
    "data/formats/csv/00004_hr_mv_time.csv": {},
    "data/formats/csv/00004_hr_uv_semicolon.csv": {"rate": "500"},
    "data/formats/csv/00004_hr_decimal_comma.csv": {"rate": "500"},
    "data/formats/edf_bdf/00004_hr_12lead.edf": {},
    "data/formats/edf_bdf/00004_hr_12lead.bdf": {},
    "data/formats/ishne/00004_hr_12lead.ecg": {},
    **{f"data/formats/wfdb/rewritten/00004_hr_fmt{f}.hea": {} for f in (16, 24, 32, 80, 212, 516)},
}
"""PTB-XL 00004 in other formats, with what has to be declared."""

FOUR = (
    "data/formats/dicom/example_500hz.dcm",
    "data/formats/hl7_aecg/example_aecg.xml",
    "data/formats/hl7_aecg/subject1_0.xml",
    "data/formats/scp/example_12lead_huffman.scp",
)
"""One recording as three kinds of carts export it."""


@pytest.mark.parametrize("path", SIX)
def test_an_ecg_is_the_same_in_every_format_within_one_count(path: str, test_data: Path) -> None:
    original = read(test_data / "data/ptbxl/records500/00000/00004_hr.hea")
    other = read(test_data / path, layout=SIX[path])
    assert (other.leads, other.rate_hz) == (original.leads, original.rate_hz)
    count_mv = 1 / np.minimum(np.abs(original.gain), np.abs(other.gain))
    assert (np.abs(other.signal_mv - original.signal_mv) <= count_mv[:, None]).all()


def test_one_recording_in_four_files_is_one_signal(test_data: Path) -> None:
    records = [read(test_data / path) for path in FOUR]
    assert len({record.signal_sha256 for record in records}) == 1


def test_every_spelling_of_the_twelve_leads_is_known() -> None:
    spellings = {
        "I": ["I", "i", " Lead I ", "Lead I (Einthoven)", "MDC_ECG_LEAD_I", "ECG I", "lead_i"],
        "aVR": ["AVR", "avr", "aVR", "MDC_ECG_LEAD_AVR", "Lead aVR", "aVR (Goldberger)"],
        "V6": ["V6", "v6", "ECG V6", "MDC_ECG_LEAD_V6", "Lead V6", "V6 (Wilson)"],
    }
    for lead, raw in spellings.items():
        assert {lead_name(one) for one in raw} == {lead}
    assert {lead_name(raw) for raw in ("MLII", "V", "V3R", "vx", "col 1", "", "VI")} == {None}
    assert [signal_name(raw) for raw in ("vx", "v3r", "mlii", " PLETH")] == [
        *("X", "V3R", "MLII", "PLETH")
    ]
