"""The ISHNE reader: equal to the WFDB originals, checksum held, names kept out."""

from __future__ import annotations

import contextlib
import datetime as dt
import random
from typing import TYPE_CHECKING

import numpy as np
import pytest

from ecgstore.errors import ReadError
from ecgstore.io import wfdb
from ecgstore.io.ishne import READER, read
from ecgstore.record import LEADS

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

FOLDER = "data/formats/ishne"


def made(
    counts: object,
    codes: Sequence[int] = (6,),
    *,
    stated: int | None = None,
    crc: int | None = None,
    resolution: int = 2500,
) -> bytes:
    """Return a file of ``(samples, leads)`` counts, byte by byte from the standard's tables."""
    frames = np.asarray(counts, "<i2")
    text = b"diary"
    n_leads = len(codes)

    def shorts(*values: int) -> bytes:
        return np.array(values, "<i2").tobytes()

    def twelve(values: Sequence[int]) -> bytes:
        return shorts(*values, *[-9] * (12 - len(values)))

    samples = len(frames) if stated is None else stated
    header = np.array([len(text), samples, 522, 522 + len(text)], "<i4").tobytes() + shorts(1)
    header += b"Grace".ljust(40, b"\0") + b"Hopper".ljust(40, b"\0") + b"ID-77".ljust(20, b"\0")
    header += shorts(2, 0) + shorts(9, 12, 1906) + shorts(1, 2, 1990) + shorts(3, 2, 1990)
    header += shorts(23, 59, 58) + shorts(n_leads) + twelve(codes) + twelve([1] * n_leads)
    header += twelve([resolution] * n_leads) + shorts(0) + b"digital".ljust(40, b"\0")
    header += shorts(200) + bytes(80 + 80 + 88)
    assert len(header) == 512
    value = ccitt(header + text) if crc is None else crc
    return b"ISHNE1.0" + value.to_bytes(2, "little") + header + text + frames.tobytes()


def ccitt(data: bytes) -> int:
    """CRC-CCITT by long division: polynomial 0x1021, start 0xFFFF."""
    crc = 0xFFFF
    for byte in data:
        crc ^= byte << 8
        for _ in range(8):
            crc = (crc << 1) ^ (0x1021 if crc & 0x8000 else 0)
            crc &= 0xFFFF
    return crc


def write(folder: Path, data: bytes) -> Path:
    path = folder / "holter.ecg"
    path.write_bytes(data)
    return path


def refused(folder: Path, data: bytes) -> str:
    with pytest.raises(ReadError) as caught:
        read(write(folder, data))
    assert "Hopper" not in str(caught.value)
    return caught.value.reason


def test_equal_to_the_originals(test_data: Path) -> None:
    record = read(test_data / FOLDER / "00004_hr_12lead.ecg")
    original = wfdb.read(test_data / "data/ptbxl/records500/00000/00004_hr.hea")
    assert (record.leads, record.rate_hz, record.quality) == (LEADS, 500, ())
    np.testing.assert_array_equal(record.digital, original.digital)
    np.testing.assert_array_equal(record.signal_mv, original.signal_mv)
    holter = read(test_data / FOLDER / "105_5min_2lead.ecg")
    long = wfdb.read(test_data / "data/longterm/mitdb/105.hea")
    assert (holter.leads, holter.rate_hz, holter.n_samples) == (("II", "V1"), 360, 108_000)
    rows = [long.leads.index(lead) for lead in ("MLII", "V1")]
    np.testing.assert_allclose(holter.signal_mv, long.signal_mv[rows, :108_000], atol=1e-9)


def test_what_it_says_of_the_patient(tmp_path: Path) -> None:
    record = read(write(tmp_path, made([[1], [2], [-3]])))
    assert record.meta["recorded_at"] == dt.datetime(1990, 2, 1, 23, 59, 58)
    assert (record.meta["age"], record.meta["sex"]) == (83.0, "female")
    assert record.meta["patient_id"] == "ID-77"
    assert record.meta["identifiers"] == ("Grace", "Hopper", "ID-77")
    assert "device" not in record.meta
    assert record.signal_mv.tolist() == [[1 / 400, 2 / 400, -3 / 400]]


def test_lead_codes(tmp_path: Path) -> None:
    codes = (0, 1, 1, 4, 17, 5, 16)
    record = read(write(tmp_path, made(np.arange(14).reshape(2, 7), codes)))
    assert record.leads == ("I", "V6", "unspecified", "bipolar", "bipolar (2)", "Z", "ES")


def test_every_count_is_valid(tmp_path: Path) -> None:
    record = read(write(tmp_path, made([[-32768], [0], [4]])))
    assert record.signal_mv.tolist() == [[-81.92, 0, 0.01]]


def test_samples_of_all_leads_may_be_counted_together(tmp_path: Path) -> None:
    frames = np.arange(12).reshape(4, 3)
    together = read(write(tmp_path, made(frames, (5, 6, 7), stated=12)))
    assert together.digital.tolist() == frames.T.tolist()
    fewer = read(write(tmp_path, made(frames, (5, 6, 7), stated=3)))
    assert (fewer.n_samples, fewer.quality) == (3, ("ignored_bytes:6",))


def test_refusals(tmp_path: Path) -> None:
    whole = made([[1], [2], [3]])
    assert refused(tmp_path, b"") == "empty file"
    assert refused(tmp_path, whole[:300]) == "bad header"
    assert refused(tmp_path, whole[:-1]) == "truncated"
    assert refused(tmp_path, whole[:40] + b"x" + whole[41:]) == "wrong checksum"
    assert refused(tmp_path, made([[1]], stated=0)) == "no samples"
    assert refused(tmp_path, made([[1]], stated=2**31 - 1)) == "truncated"
    assert refused(tmp_path, made([[1]], resolution=-9)) == "bad header"
    assert refused(tmp_path, made([[1, 2]], (5, 5))) == "duplicate leads"


def test_a_checksum_that_was_not_filled_in(tmp_path: Path) -> None:
    record = read(write(tmp_path, made([[1], [2]], crc=0)))
    assert record.quality == ("unverified_checksum",)


def test_damaged_headers_are_refused_or_read(tmp_path: Path) -> None:
    rng = random.Random(2)
    whole = made(np.arange(40).reshape(20, 2), (5, 6), crc=0)
    for _ in range(100):
        data = bytearray(whole)
        for _ in range(rng.randrange(1, 5)):
            data[rng.randrange(10, 530)] = rng.choice([0, 127, 128, 255, rng.randrange(256)])
        with contextlib.suppress(ReadError):
            assert read(write(tmp_path, bytes(data))).digital.size <= 12 * 20


def test_detection(tmp_path: Path) -> None:
    assert READER.matches(made([[1]])[:4096], tmp_path)
    assert not READER.matches(b"ANN  1.0" + bytes(600), tmp_path)
