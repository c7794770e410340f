"""NumPy: .npz that name their parts, .npy that are declared; nothing pickled, nothing too large."""

from __future__ import annotations

import io
import zipfile
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from ecgstore.errors import ReadError
from ecgstore.io import read as read_any
from ecgstore.io.numpy_arrays import READER, open_rows, read
from ecgstore.record import LEADS, Record

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

COUNTS = np.random.default_rng(0).integers(-900, 900, (12, 50), dtype=np.int16)
NPZ = {"signal": COUNTS, "rate_hz": 500, "leads": np.array(LEADS), "unit": "uV"}
DECLARED = {"rate": "400", "leads": ",".join(LEADS), "unit": "uV"}


@pytest.fixture
def npz(tmp_path: Path) -> Callable[..., Path]:
    def call(**arrays: Any) -> Path:
        np.savez_compressed(tmp_path / "x.npz", **arrays)
        return tmp_path / "x.npz"

    return call


@pytest.fixture
def npy(tmp_path: Path) -> Callable[[Any], Path]:
    def call(array: Any) -> Path:
        np.save(tmp_path / "x.npy", array)
        return tmp_path / "x.npy"

    return call


def one(path: Path, **layout: str) -> Record:
    return read_any(path, reader="numpy", item=0, layout=layout)


def reason(path: Path, **layout: str) -> str:
    with pytest.raises(ReadError) as caught:
        one(path, **layout)
    return caught.value.reason


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["<i2", ">i2", "i4", "u8", "<f4", ">f8", "f2"])
def test_an_npz_that_names_its_parts(npz: Callable[..., Path], dtype: str, order: Any) -> None:
    counts = np.abs(COUNTS).astype(dtype).astype(dtype, order=order)
    path = npz(**{**NPZ, "signal": counts})
    record = read(path)
    assert (record.leads, record.rate_hz, record.name) == (LEADS, 500, "x")
    assert np.array_equal(record.digital, np.abs(COUNTS))
    assert (record.gain == 1000).all()
    assert not record.quality
    assert READER.matches(path.read_bytes()[:4096], path)


def test_float_millivolts_come_back_as_the_counts_they_were(npz: Callable[..., Path]) -> None:
    for scale in (200.0, 1000.0, 204.8):
        record = read(npz(ecg=(COUNTS / scale).astype(np.float32), fs=500, lead_names=LEADS))
        assert "quantised" not in record.quality
        assert "assumed_unit:mV" in record.quality
        assert record.signal_mv == pytest.approx(COUNTS / scale, rel=1e-7)


def test_whole_numbers_without_a_unit_are_microvolts(npz: Callable[..., Path]) -> None:
    record = read(npz(**{key: value for key, value in NPZ.items() if key != "unit"}))
    assert "assumed_unit:uV" in record.quality
    assert np.array_equal(record.signal_mv, COUNTS / 1000)


def test_gain_and_baseline(npz: Callable[..., Path]) -> None:
    record = read(npz(**{**NPZ, "unit": "mV", "gain": np.full(12, 204.8), "baseline": 5}))
    assert np.array_equal(record.digital, COUNTS)
    assert record.signal_mv == pytest.approx((COUNTS - 5) / 204.8)


def test_lost_samples_stay_lost(npz: Callable[..., Path]) -> None:
    values = COUNTS / 1000
    values[2, 7] = np.nan
    values[3, 8] = np.inf
    record = read(npz(**{**NPZ, "signal": values, "unit": "mV"}))
    lost = np.isnan(record.signal_mv)
    assert np.argwhere(lost).tolist() == [[2, 7], [3, 8]]
    assert np.array_equal(record.signal_mv[~lost], values[~lost])


@pytest.mark.parametrize("axes", ["nls", "nsl"])
def test_an_npy_of_many_records(npy: Callable[[Any], Path], axes: str) -> None:
    counts = np.stack([COUNTS + i for i in range(4)])
    path = npy(counts if axes == "nls" else counts.transpose(0, 2, 1))
    rows = open_rows(path, DECLARED)
    assert list(rows.names) == ["x_0", "x_1", "x_2", "x_3"]
    for number, record in zip((3, 1), rows.read([3, 1]), strict=True):
        assert isinstance(record, Record)
        assert np.array_equal(record.digital, counts[number])
        assert record.rate_hz == 400
    with pytest.raises(ReadError) as caught:
        read(path)
    assert caught.value.reason == "no leads"


@pytest.mark.parametrize("left_out", ["rate", "leads", "unit"])
def test_an_npy_says_what_to_declare(npy: Callable[[Any], Path], left_out: str) -> None:
    layout = {key: value for key, value in DECLARED.items() if key != left_out}
    with pytest.raises(ReadError, match=f"--map {left_out}="):
        open_rows(npy(COUNTS), layout)


def test_a_square_array_does_not_tell_its_axes(npy: Callable[[Any], Path]) -> None:
    path = npy(COUNTS[:, :12])
    assert reason(path, **DECLARED) == "unknown layout"
    assert np.array_equal(one(path, **DECLARED, axes="sl").digital, COUNTS[:, :12].T)


def test_millivolts_that_must_be_microvolts_are_refused(npy: Callable[[Any], Path]) -> None:
    assert reason(npy(COUNTS * 10), **{**DECLARED, "unit": "mV"}) == "bad samples"
    assert reason(npy(COUNTS), **{**DECLARED, "unit": "mmHg"}) == "unknown unit"


def test_other_arrays_are_refused(npy: Callable[[Any], Path], npz: Callable[..., Path]) -> None:
    for array in (np.array([{"a": 1}], dtype=object), np.zeros(3, "f4,f4"), np.array(["a"])):
        assert reason(npy(array), **DECLARED) in {"bad header", "unknown layout"}
    assert reason(npy(COUNTS * 1j), **DECLARED) == "bad header"
    assert reason(npy(COUNTS[:, :0]), **DECLARED) == "no samples"
    assert reason(npz(X=np.zeros((5, 768)), record_id=np.arange(5))) == "unknown layout"
    assert reason(npz(**{**NPZ, "leads": np.array(["I", "II"])})) == "unknown layout"
    twice = [*LEADS[:11], "I"]
    assert reason(npz(**{**NPZ, "leads": np.array(twice)})) == "duplicate leads"


def npy_bytes(text: str, content: bytes = b"") -> bytes:
    head = text.encode()
    return b"\x93NUMPY\x01\x00" + len(head).to_bytes(2, "little") + head + content


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{'descr': '<f4', 'fortran_order': False, 'shape': (1099511627776, 12)}", "truncated"),
        ("{'descr': '<f4', 'fortran_order': False, 'shape': (" + "9" * 500 + ",)}", "truncated"),
        ("{'descr': '<V9', 'fortran_order': False, 'shape': (1,)}", "bad header"),
        ("{'descr': '|O', 'fortran_order': False, 'shape': (1,)}", "bad header"),
        ("{'descr': '<f3', 'fortran_order': False, 'shape': (1,)}", "bad header"),
        ("__import__('os')", "bad header"),
        ("(" * 3000, "bad header"),
    ],
)
def test_headers_are_not_believed(tmp_path: Path, text: str, expected: str) -> None:
    path = tmp_path / "x.npy"
    path.write_bytes(npy_bytes(text, bytes(64)))
    assert reason(path, **DECLARED) == expected
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr("signal.npy", path.read_bytes())
    assert reason(tmp_path / "x.npz", **DECLARED) == expected


def test_a_compression_bomb_is_not_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("signal.npy", bytes(5 * 2**24))
    assert reason(path, **DECLARED) == "too large"


def test_damage_is_found(npz: Callable[..., Path]) -> None:
    path = npz(**NPZ)
    whole = path.read_bytes()
    info = zipfile.ZipFile(io.BytesIO(whole)).getinfo("signal.npy")
    middle = info.header_offset + 60 + info.compress_size // 2
    flipped = bytearray(whole)
    flipped[middle] ^= 16
    for data, expected in (
        (b"", {"empty file"}),
        (whole[:-30], {"bad header"}),
        (bytes(flipped), {"wrong checksum", "truncated"}),
    ):
        path.write_bytes(data)
        assert reason(path) in expected
