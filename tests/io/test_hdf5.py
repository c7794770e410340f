"""HDF5: CODE-15, SPH and declared layouts; nothing outside the file, nothing beyond its size."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from ecgstore.errors import MissingDependencyError, ReadError
from ecgstore.io.hdf5 import READER, open_rows, read
from ecgstore.record import LEADS, Record

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

h5py = pytest.importorskip("h5py")
DECLARED = {"tracings": "signals/ecg", "rate": "500", "leads": "I,II,V1", "unit": "uV"}


@pytest.fixture
def code15(test_data: Path) -> Path:
    return test_data / "data/code15/exams_part0.hdf5"


@pytest.fixture
def make(tmp_path: Path) -> Callable[[Callable[[Any], object]], Path]:
    """Return a call that makes a file by what it is given."""

    def call(fill: Callable[[Any], object]) -> Path:
        path = tmp_path / "made.h5"
        with h5py.File(path, "w") as file:
            fill(file)
        return path

    return call


def good(found: Record | ReadError) -> Record:
    assert isinstance(found, Record), found
    return found


def reason(path: Path, layout: dict[str, str] | None = None) -> str:
    with pytest.raises(ReadError) as caught:
        next(iter(open_rows(path, layout or {}).read([0])))
    assert "\n" not in caught.value.message
    return caught.value.reason


def test_code15_is_read_as_stored(code15: Path) -> None:
    with h5py.File(code15) as file:
        stored, ids = file["tracings"][:], file["exam_id"][:]
    rows = open_rows(code15, {})
    assert list(rows.names) == [str(one) for one in ids]
    found = list(rows.read(range(8)))
    for one, raw, exam in zip(found[:7], stored, ids, strict=False):
        record = good(one)
        used = np.flatnonzero(raw.any(axis=1))
        ecg = raw[used[0] : used[-1] + 1].T.astype(np.float64) / 10  # 1e-4 V is 0.1 mV
        assert (record.name, record.leads, record.rate_hz) == (str(exam), LEADS, 400)
        assert np.abs(record.signal_mv - ecg).max(axis=1) == pytest.approx(
            np.zeros(12), abs=0.5001 / record.gain.min()
        )
        cut = "padding_removed:581,581" in record.quality
        assert record.n_samples == (2934 if cut else 4096)
        assert "quantised" in record.quality
    assert isinstance(found[7], ReadError)
    assert found[7].reason == "empty row"


def test_any_order_of_rows_gives_the_same_records(code15: Path) -> None:
    rows = open_rows(code15, {})
    straight = [good(one).signal_sha256 for one in rows.read(range(7))]
    order = [3, 0, 1, 6, 6, 2]
    assert [good(one).signal_sha256 for one in rows.read(order)] == [straight[i] for i in order]


def test_a_file_of_many_records_must_be_asked_for_one(code15: Path) -> None:
    with pytest.raises(ReadError) as caught:
        read(code15)
    assert caught.value.reason == "many records"


def test_sph_keeps_every_half_precision_value(test_data: Path) -> None:
    for path in sorted((test_data / "data/sph/records").glob("*.h5")):
        with h5py.File(path) as file:
            stored = file["ecg"][:]
        record = read(path)
        assert (record.name, record.rate_hz, record.leads) == (path.stem, 500, LEADS)
        assert np.array_equal(record.signal_mv.astype(np.float16), stored)
        assert "quantised" not in record.quality


@pytest.mark.parametrize(
    ("axes", "order"), [("nsl", (0, 1, 2)), ("nls", (0, 2, 1)), ("lsn", (2, 1, 0))]
)
@pytest.mark.parametrize("chunks", [None, True])
def test_a_declared_layout(
    make: Callable[..., Path], axes: str, order: tuple[int, ...], *, chunks: bool | None
) -> None:
    counts = np.random.default_rng(0).integers(-900, 900, (30, 70, 3), dtype=np.int16)

    def fill(file: Any) -> None:
        file.create_dataset("signals/ecg", data=counts.transpose(order), chunks=chunks)
        file["who"] = [f"rec{i}" for i in range(30)]
        file["signals/ecg"].attrs["hz"] = 250

    declared = {**DECLARED, "axes": axes, "ids": "who", "rate": "hz"}
    rows = open_rows(make(fill), declared)
    picked = [0, 1, 2, 9, 28, 29]
    for row, one in zip(picked, rows.read(picked), strict=True):
        record = good(one)
        assert (record.name, record.rate_hz) == (f"rec{row}", 250)
        own = [record.leads.index(lead) for lead in ("I", "II", "V1")]
        assert np.array_equal(record.digital[own], counts[row].T)
        assert (record.gain[own] == 1000).all()


def test_integers_have_gain_and_baseline_for_each_lead(make: Callable[..., Path]) -> None:
    counts = np.array([[0, 100], [7, -32768]], dtype=np.int16)

    def fill(file: Any) -> None:
        file["x"] = counts
        file["gains"] = [200.0, 400.0]
        file["lead_names"] = ["II", "V5"]

    said = {"tracings": "x", "rate": "300", "unit": "mV", "gain": "gains", "baseline": "10,7"}
    record = good(next(iter(open_rows(make(fill), {**said, "axes": "ls"}).read([0]))))
    expected = (counts - np.array([[10], [7]])) / np.array([[200], [400]])
    assert record.leads == ("II", "V5")
    assert np.array_equal(record.signal_mv, expected), "-32768 is a number here"


def test_a_file_that_names_its_parts_needs_no_layout(make: Callable[..., Path]) -> None:
    def fill(file: Any) -> None:
        file["signal"] = np.array([[0.1, 0.25, -0.5]], dtype=">f8")
        file.attrs.update(fs=128.0, leads="II", unit="mV")

    record = read(make(fill))
    assert (record.leads, record.rate_hz, record.name) == (("II",), 128, "made")
    assert record.signal_mv.tolist() == [[0.1, 0.25, -0.5]]


@pytest.mark.parametrize(("unit", "factor"), [("V", 1e3), ("mV", 1), ("uV", 1e-3), ("0.1 mV", 0.1)])
def test_units(make: Callable[..., Path], unit: str, factor: float) -> None:
    values = np.array([[1.25, -0.5, 0.75]]) / factor
    path = make(lambda file: file.create_dataset("signal", data=values))
    rows = open_rows(path, {"rate": "500", "leads": "II", "unit": unit})
    assert good(next(iter(rows.read([0])))).signal_mv[0] == pytest.approx([1.25, -0.5, 0.75])


@pytest.mark.parametrize(
    ("without", "found"),
    [("leads", "no leads"), ("rate", "unknown layout"), ("unit", "unknown layout")],
)
def test_what_is_missing_is_named(make: Callable[..., Path], without: str, found: str) -> None:
    path = make(lambda file: file.create_dataset("signals/ecg", data=np.ones((5, 3, 9))))
    layout = {key: value for key, value in DECLARED.items() if key != without}
    with pytest.raises(ReadError, match=f"--map {without}=") as caught:
        open_rows(path, layout)
    assert caught.value.reason == found


def test_twelve_leads_of_unknown_order_are_not_guessed(make: Callable[..., Path]) -> None:
    path = make(lambda file: file.create_dataset("data", data=np.ones((4, 12, 100))))
    assert reason(path) == "no leads"
    assert reason(path, {"rate": "500", "unit": "mV"}) == "no leads"


@pytest.mark.parametrize(
    "wrong",
    [
        {"axes": "nsx"},
        {"axes": "ls"},
        {"axes": "nsl"},
        {"colour": "red"},
        {"rate": ""},
        {"tracings": "elsewhere"},
        {"ids": "signals/ecg"},
        {"padding": "ones"},
    ],
)
def test_layouts_that_do_not_fit(make: Callable[..., Path], wrong: dict[str, str]) -> None:
    path = make(lambda file: file.create_dataset("signals/ecg", data=np.ones((5, 3, 9))))
    assert reason(path, {**DECLARED, **wrong}) == "unknown layout"


def test_values_beyond_any_ecg_are_refused(make: Callable[..., Path]) -> None:
    values = np.full((2, 3, 9), 0.1234567)
    values[0, 1, 4] = 1e30
    path = make(lambda file: file.create_dataset("signals/ecg", data=values))
    first, second = open_rows(path, {**DECLARED, "unit": "mV"}).read([0, 1])
    assert isinstance(first, ReadError)
    assert first.reason == "bad samples"
    assert good(second).signal_mv[0, 0] == pytest.approx(0.1234567, abs=3e-6)


def test_a_damaged_chunk_costs_only_its_own_rows(make: Callable[..., Path]) -> None:
    values = np.random.default_rng(0).normal(size=(6, 3, 500)).astype(np.float32)

    def fill(file: Any) -> None:
        data = file.create_dataset(
            "signals/ecg", data=values, chunks=(2, 3, 500), compression="gzip", fletcher32=True
        )
        offsets.append(data.id.get_chunk_info(1).byte_offset)

    offsets: list[int] = []
    path = make(fill)
    damaged = bytearray(path.read_bytes())
    damaged[offsets[0] + 50] ^= 255
    path.write_bytes(damaged)
    found = list(open_rows(path, {**DECLARED, "unit": "mV"}).read(range(6)))
    bad = [row for row, one in enumerate(found) if isinstance(one, ReadError)]
    assert bad == [2, 3]
    assert {one.reason for one in found if isinstance(one, ReadError)} == {"decoder failed"}


def link_out(file: Any) -> None:
    file["signals/ecg"] = h5py.ExternalLink("other.h5", "/x")


def link_group(file: Any) -> None:
    file["signals"] = h5py.ExternalLink("other.h5", "/")


def link_inside(file: Any) -> None:
    file["signals/ecg"] = h5py.SoftLink("/signals/real")


def virtual(file: Any) -> None:
    layout = h5py.VirtualLayout((3, 9), "f4")
    layout[:] = h5py.VirtualSource("other.h5", "x", (3, 9))
    file.create_virtual_dataset("signals/ecg", layout)


def external(file: Any) -> None:
    file.create_dataset("signals/ecg", (3, 9), "f4", external=[("other.bin", 0, 108)])


@pytest.mark.parametrize("fill", [link_out, link_group, link_inside, virtual, external])
def test_nothing_outside_the_file_is_opened(
    make: Callable[..., Path], tmp_path: Path, fill: Callable[[Any], object]
) -> None:
    with h5py.File(tmp_path / "other.h5", "w") as other:
        other["x"] = other["ecg"] = np.ones((3, 9), np.float32)
    (tmp_path / "other.bin").write_bytes(bytes(108))
    assert reason(make(fill), {**DECLARED, "axes": "ls"}) == "forbidden content"


@pytest.mark.parametrize("shape", [(10**9, 3, 5000), (3, 10**12), (10**12, 3, 1)])
def test_dimensions_beyond_the_file_are_refused(
    make: Callable[..., Path], shape: Sequence[int]
) -> None:
    path = make(lambda file: file.create_dataset("signals/ecg", shape, "f4", chunks=True))
    assert reason(path, DECLARED) in {"too large", "truncated"}


def test_what_is_no_hdf5(tmp_path: Path, code15: Path) -> None:
    path = tmp_path / "x.h5"
    head = code15.read_bytes()[:3000]
    for data, expected in ((b"", "empty file"), (b"no", "bad header"), (head, "truncated")):
        path.write_bytes(data)
        assert reason(path) == expected
    assert READER.matches(head, path)
    assert not READER.matches(b"\x89PNG\r\n", path)


def test_matlab_73_says_what_it_is(tmp_path: Path) -> None:
    path = tmp_path / "x.mat"
    with h5py.File(path, "w", userblock_size=512) as file:
        file["val"] = np.ones((50, 1))
    with path.open("r+b") as raw:
        raw.write(b"MATLAB 7.3 MAT-file")
    assert READER.matches(path.read_bytes()[:4096], path)
    with pytest.raises(ReadError, match="save it with '-v7'"):
        read(path)
    rows = open_rows(path, {"rate": "500", "leads": "II", "unit": "mV"})
    assert good(next(iter(rows.read([0])))).n_samples == 50


def test_without_h5py_it_says_what_to_install(code15: Path, monkeypatch: Any) -> None:
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(MissingDependencyError, match=r"ecgstore\[hdf5\]"):
        read(code15)
