"""What every registered reader must do."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from ecgstore.errors import ReadError
from ecgstore.io import UNSUPPORTED, detect, read, readers
from ecgstore.io.assemble import REASONS
from ecgstore.record import LEADS

if TYPE_CHECKING:
    from pathlib import Path

SAMPLES = {"wfdb": ("data/ptbxl/records500/00000/00001_hr.hea", 500.0, 5000)}
"""For each reader a real file of its format, its rate and samples."""


@pytest.fixture(params=sorted(readers))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_every_reader_is_tried_on_a_real_file(name: str) -> None:
    assert name in SAMPLES, "add a file of this format to SAMPLES"


def test_it_describes_itself(name: str) -> None:
    entry = readers.get(name)
    assert entry.name == name
    assert entry.summary
    assert entry.suffixes
    assert all(s.startswith(".") and s == s.lower() for s in (*entry.suffixes, *entry.companions))


def test_no_two_readers_take_one_suffix() -> None:
    suffixes = [suffix for name in readers for suffix in readers.get(name).suffixes]
    assert len(set(suffixes)) == len(suffixes)
    assert not set(suffixes) & set(UNSUPPORTED)


def test_it_detects_its_own_files_only(name: str, test_data: Path) -> None:
    for other, (path, _, _) in SAMPLES.items():
        assert (detect(test_data / path) == name) == (other == name)


def test_a_record_has_the_promised_shape(name: str, test_data: Path) -> None:
    path, rate_hz, n_samples = SAMPLES[name]
    record = read(test_data / path, reader=name)
    assert record.rate_hz == rate_hz
    assert list(record.leads) == [lead for lead in LEADS if lead in record.leads]
    assert record.digital.dtype == np.int16
    assert record.digital.shape == (len(record.leads), n_samples)
    assert record.gain.shape == record.baseline.shape == (len(record.leads),)
    assert record.gain.dtype == np.float64
    assert record.baseline.dtype == np.int32
    assert record.meta["source_format"] == name
    assert len(str(record.meta["source_sha256"])) == 64
    assert 0.1 < np.nanmax(np.abs(record.signal_mv)) < 20, "not millivolts"


def test_hostile_files_end_in_read_errors_only(name: str, tmp_path: Path) -> None:
    entry = readers.get(name)
    rng = np.random.default_rng(0)
    contents = [b"", b"\0", b"\n" * 100, b"A" * 4096, rng.bytes(4096), rng.bytes(2**21)]
    for suffix in entry.suffixes:
        for number, content in enumerate(contents):
            path = tmp_path / f"{number}{suffix}"
            path.write_bytes(content)
            with pytest.raises(ReadError) as caught:
                read(path, reader=name)
            assert caught.value.reason in REASONS
        with pytest.raises(ReadError):
            read(tmp_path / f"absent{suffix}", reader=name)


def test_a_file_cut_anywhere_is_refused(name: str, test_data: Path, tmp_path: Path) -> None:
    source = test_data / SAMPLES[name][0]
    beside = (source.with_suffix(suffix) for suffix in readers.get(name).companions)
    whole = {part.name: part.read_bytes() for part in (source, *beside) if part.exists()}
    for cut, data in whole.items():
        for share in (0.0, 0.3, 0.9):
            for part, content in whole.items():
                (tmp_path / part).write_bytes(content)
            (tmp_path / cut).write_bytes(data[: int(len(data) * share)])
            with pytest.raises(ReadError):
                read(tmp_path / source.name, reader=name)
