"""MATLAB 5: as scipy reads and writes it, within the bytes that are there."""

from __future__ import annotations

import struct
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import scipy.io

from ecgstore.errors import ReadError
from ecgstore.io import hdf5
from ecgstore.io import read as read_any
from ecgstore.io.matlab import READER, open_rows, read
from ecgstore.record import LEADS, Record

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

COUNTS = np.random.default_rng(0).integers(-900, 900, (3, 40), dtype=np.int16)


def cell(*names: str) -> Any:
    """Return what scipy writes as a cell array of texts."""
    return np.array([*names, None], dtype=object)[:-1]


@pytest.fixture
def save(tmp_path: Path) -> Callable[..., Path]:
    def call(*, compress: bool = True, **variables: Any) -> Path:
        path = tmp_path / "made.mat"
        scipy.io.savemat(path, variables, do_compression=compress)
        return path

    return call


def one(path: Path, **layout: str) -> Record:
    return read_any(path, reader="matlab", item=0, layout=layout)


def refusal(path: Path, **layout: str) -> ReadError:
    with pytest.raises(ReadError) as caught:
        one(path, **layout)
    return caught.value


def test_cpsc2018_is_read_as_stored(test_data: Path) -> None:
    for path in sorted((test_data / "data/cpsc2018_original").glob("*.mat")):
        stored = scipy.io.loadmat(path)["ECG"][0, 0]
        record = read(path)
        assert (record.leads, record.rate_hz) == (LEADS, 500)
        step = 1 / record.gain[:, None]
        assert (np.abs(record.signal_mv - stored["data"]) <= 0.5001 * step).all()
        assert (step <= 1e-4).all()
        assert record.meta["age"] == stored["age"].item()
        assert record.meta["sex"] == stored["sex"].item().lower()


def test_code15_gives_the_record_of_its_hdf5(test_data: Path) -> None:
    pytest.importorskip("h5py")
    folder = test_data / "data/code15"
    rows = hdf5.open_rows(folder / "exams_part0.hdf5", {})
    for name, found in zip(rows.names[:7], rows.read(range(7)), strict=True):
        record = read(folder / f"mat/code_15_{name}.mat")
        assert isinstance(found, Record)
        assert record.signal_sha256 == found.signal_sha256
        assert READER.matches((folder / f"mat/code_15_{name}.mat").read_bytes()[:4096], folder)


def test_normalised_segments_are_no_volts(save: Callable[..., Path]) -> None:
    sizes = {"org_sample_rate": 400, "org_sample_size": 4096, "curr_sample_rate": 500}
    path = save(feats=np.ones((12, 99)), mean=np.ones(12), std=np.ones(12), **sizes)
    assert refusal(path).reason == "unknown unit"
    path = save(feats=np.ones((12, 99)), curr_sample_rate=500)
    assert refusal(path).reason == "unknown layout"


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("dtype", ["i1", "u1", "i2", "u2", "i4", "u4", "i8", "f4", "f8"])
def test_every_type_of_numbers(save: Callable[..., Path], dtype: str, *, compress: bool) -> None:
    counts = (np.arange(120) % 100).reshape(3, 40).astype(dtype)
    path = save(compress=compress, val=counts, Fs=250, leads=cell("I", "II", "V6"), units="uV")
    record = read(path)
    assert record.rate_hz == 250
    own = [record.leads.index(lead) for lead in ("I", "II", "V6")]
    assert np.array_equal(record.digital[own], counts)
    assert (record.gain[own] == 1000).all()


def test_leads_as_rows_of_a_text(save: Callable[..., Path]) -> None:
    path = save(ecg=COUNTS.T, fs=500.0, leads=["V1", "V2", "V3R"], unit="mV", gain=200, baseline=-3)
    record = read(path)
    assert record.leads == ("V1", "V2", "V3R")
    assert np.array_equal(record.signal_mv, (COUNTS + 3) / 200)


def test_a_declared_layout_names_fields_of_structs(save: Callable[..., Path]) -> None:
    path = save(rec={"sig": {"raw": np.stack([COUNTS, COUNTS + 1])}, "rate": 128})
    declared = {"tracings": "rec.sig.raw", "rate": "rec.rate", "leads": "V1,V2,V3", "unit": "uV"}
    rows = open_rows(path, declared)
    assert list(rows.names) == ["made_0", "made_1"]
    for number, found in enumerate(rows.read([0, 1])):
        assert isinstance(found, Record)
        assert np.array_equal(found.digital, COUNTS + number)
        assert found.rate_hz == 128


def test_what_is_missing_is_named(save: Callable[..., Path]) -> None:
    error = refusal(save(breath=COUNTS, note="x"))
    assert error.reason == "unknown layout"
    assert "2 arrays" in error.message
    assert "breath" not in error.message, "it may be called after a patient"
    assert refusal(save(val=COUNTS, fs=500)).reason == "no leads"
    assert refusal(save(val=COUNTS, fs=500), leads="I,II,V1").reason == "unknown layout"
    path = save(val=COUNTS * 1j, fs=500, leads=cell("V1", "V2", "V3"), unit="mV")
    assert refusal(path).reason == "unknown layout"


def test_other_versions_say_what_they_are(test_data: Path, tmp_path: Path) -> None:
    path = tmp_path / "x.mat"
    scipy.io.savemat(path, {"val": COUNTS}, format="4")
    error = refusal(path)
    assert (error.reason, ".hea" in str(error)) == ("missing file", True)
    assert not READER.matches(path.read_bytes(), path), "WFDB finds it by its header"
    wfdb = next((test_data / "data/challenge2021/georgia").rglob("*.mat"))
    assert refusal(wfdb).reason == "missing file"
    path.write_bytes(b"MATLAB 7.3 MAT-file".ljust(600))
    assert refusal(path).reason == "unsupported format"
    path.write_bytes(b"")
    assert refusal(path).reason == "empty file"
    path.write_bytes(b"anything else")
    assert refusal(path).reason == "bad header"


def element(kind: int, data: bytes, order: str = "<") -> bytes:
    return struct.pack(f"{order}II", kind, len(data)) + data + bytes(-len(data) % 8)


def matrix(
    dims: tuple[int, ...], data: bytes, *, kind: int = 7, stored: int = 7, order: str = "<"
) -> bytes:
    flags = element(6, struct.pack(f"{order}II", kind, 0), order)
    shape = element(5, struct.pack(f"{order}{len(dims)}i", *dims), order)
    parts = flags + shape + element(1, b"val", order) + element(stored, data, order)
    return element(14, parts, order)


HEADER = b"MATLAB 5.0 MAT-file".ljust(124) + b"\x00\x01IM"
ZEROS = bytes(5 * 2**24)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (matrix((2**30, 2**30), bytes(80)), "truncated"),
        (matrix((-1, 20), bytes(80)), "bad header"),
        (matrix((1, 20), bytes(80), stored=14), "bad header"),
        (matrix((2**31 - 1, 2**31 - 1), b"", kind=1), "bad header"),
        (matrix((1, 20), bytes(80))[:-9], "truncated"),
        (struct.pack("<II", 14, 2**32 - 1) + bytes(64), "truncated"),
        (struct.pack("<II", 15, 9) + b"no zlib..", "bad samples"),
        (struct.pack("<II", 15, 2**17) + zlib.compress(ZEROS).ljust(2**17), "too large"),
        (bytes(4000), "unknown layout"),
    ],
)
def test_counts_beyond_the_file_are_refused(tmp_path: Path, body: bytes, reason: str) -> None:
    path = tmp_path / "x.mat"
    path.write_bytes(HEADER + body)
    assert refusal(path, rate="500", leads="II", unit="mV").reason == reason


@pytest.mark.parametrize(("order", "mark"), [("<", b"\x00\x01IM"), (">", b"\x01\x00MI")])
def test_either_byte_order(tmp_path: Path, order: str, mark: bytes) -> None:
    values = np.arange(20, dtype=f"{order}f4") / 8
    path = tmp_path / "x.mat"
    body = matrix((1, 20), values.astype(f"{order}f4").tobytes(), order=order)
    path.write_bytes(HEADER[:124] + mark + body)
    assert np.array_equal(scipy.io.loadmat(path)["val"][0], values), "scipy reads it so"
    assert np.array_equal(one(path, rate="500", leads="II", unit="mV").signal_mv[0], values)
    assert READER.matches(path.read_bytes(), path)


def test_cut_anywhere_it_is_refused(save: Callable[..., Path]) -> None:
    path = save(compress=False, val=COUNTS, fs=500, leads=cell("V1", "V2", "V3"), unit="uV")
    whole = path.read_bytes()
    for stop in range(0, len(whole) - 8, 23):
        path.write_bytes(whole[:stop])
        assert refusal(path).reason
