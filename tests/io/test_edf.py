"""The EDF reader: equal to pyedflib and to the WFDB original, gaps kept, names kept out."""

from __future__ import annotations

import contextlib
import datetime as dt
import random
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from ecgstore.errors import ReadError
from ecgstore.io import wfdb
from ecgstore.io.edf import READER, read
from ecgstore.record import LEADS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

pyedflib = pytest.importorskip("pyedflib")

FOLDER = "data/formats/edf_bdf"


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Return a call that writes a file of one or more signals, and annotation lists if given."""

    def call(
        records: Sequence[Sequence[Any]],
        *,
        labels: Sequence[str] = ("ECG II",),
        units: Sequence[str] = ("uV",),
        physical: tuple[str, str] = ("-1000", "1000"),
        digital: tuple[str, str] = ("-2000", "2000"),
        lists: Sequence[bytes] = (),
        reserved: str = "",
        n_records: int | None = None,
        duration: str = "1",
        patient: str = "X X X X",
        recording: str = "Startdate 03-FEB-2021 X X X",
        start: str = "03.02.2114.15.16",
        bdf: bool = False,
    ) -> Path:
        kind, width = ("BDF", 3) if bdf else ("EDF", 2)
        n = len(labels)
        columns = [
            (16, [*labels], f"{kind} Annotations"),
            (80, [""] * n, ""),
            (8, [*units], ""),
            (8, [physical[0]] * n, "-1"),
            (8, [physical[1]] * n, "1"),
            (8, [digital[0]] * n, "-32768"),
            (8, [digital[1]] * n, "32767"),
            (80, [""] * n, ""),
            (8, [str(len(one)) for one in records[0]], str(60 // width)),
            (32, [""] * n, ""),
        ]
        n += bool(lists)
        head = b"\xffBIOSEMI" if bdf else b"0       "
        for text, size in (
            (patient, 80),
            (recording, 80),
            (start, 16),
            (256 * (n + 1), 8),
            (reserved, 44),
            (len(records) if n_records is None else n_records, 8),
            (duration, 8),
            (n, 4),
        ):
            head += str(text).encode("latin-1").ljust(size)
        for size, values, of_lists in columns:
            for value in [*values, of_lists] if lists else values:
                head += value.encode("latin-1").ljust(size)
        body = b""
        for row, record in enumerate(records):
            for samples in record:
                wide = np.asarray(samples, "<i4").view(np.uint8).reshape(-1, 4)
                body += wide[:, :width].tobytes()
            body += lists[row].ljust(60, b"\0") if lists else b""
        path = tmp_path / f"made.{kind.lower()}"
        path.write_bytes(head + body)
        return path

    return call


def test_real_files_equal_pyedflib(test_data: Path) -> None:
    for path in sorted((test_data / FOLDER).glob("*df")):
        record = read(path)
        other = pyedflib.EdfReader(str(path))
        theirs = [other.readSignal(i) for i in range(other.signals_in_file)]
        units = [other.getPhysicalDimension(i).strip() for i in range(other.signals_in_file)]
        rates = [other.getSampleFrequency(i) for i in range(other.signals_in_file)]
        n_annotations = len(other.readAnnotations()[0])
        other.close()
        ours = [*record.signal_mv, *((s.counts - s.baseline) / s.gain for s in record.signals)]
        assert [record.rate_hz] * len(record.leads) + [s.rate_hz for s in record.signals] == rates
        assert sum(len(one) for one in record.annotations) == n_annotations
        for mv, values, unit in zip(ours, theirs, units, strict=True):
            in_mv = values / 1000 if unit == "uV" else values
            # 24 bits become 16 by a power of two, which the record says
            within = 1e-4 if "quantised" in record.quality else 1e-9
            np.testing.assert_allclose(mv, in_mv, rtol=0, atol=within)


@pytest.mark.parametrize("suffix", ["edf", "bdf"])
def test_one_recording_in_two_formats(test_data: Path, suffix: str) -> None:
    record = read(test_data / FOLDER / f"00004_hr_12lead.{suffix}")
    original = wfdb.read(test_data / "data/ptbxl/records500/00000/00004_hr.hea")
    assert record.leads == original.leads == LEADS
    assert record.rate_hz == original.rate_hz
    np.testing.assert_allclose(record.signal_mv, original.signal_mv, rtol=0, atol=1e-3)


def test_annotations_without_signals(test_data: Path) -> None:
    record = read(test_data / FOLDER / "test_edfann.edf")
    (notes,) = record.annotations
    assert (record.leads, len(notes), notes.annotator) == ((), 856, "edf")
    assert notes.time_s[:3].tolist() == [0.0, 30.0, 33.43]
    assert set(notes.symbol) == {'"'}
    assert set(notes.sample.tolist()) == {-1}


def test_unknown_date_and_free_text_are_not_taken(test_data: Path) -> None:
    record = read(test_data / FOLDER / "cardio_sample.edf")
    assert "recorded_at" not in record.meta
    assert "patient_id" not in record.meta
    assert record.meta["identifiers"] == (
        "challenge/2017/training/A00/A00001",
        "Startdate not recorded",
    )


def test_identification_of_edf_plus(write: Callable[..., Path]) -> None:
    path = write(
        [[range(10)]],
        reserved="EDF+C",
        patient="MCH-0234567 F 02-MAY-1951 Haagse_Harry",
        recording="Startdate 02-MAR-2002 PSG-1234/2002 NN_Tech Cart_9",
        lists=[b"+0.5\x14\x14\0+1.5\x14Sinus rhythm\x14\0+1.75\x142\x14Haagse Harry fell\x14\0"],
    )
    record = read(path)
    assert record.meta["recorded_at"] == dt.datetime(2002, 3, 2, 14, 15, 16, 500_000)
    assert (record.meta["age"], record.meta["sex"]) == (50.0, "female")
    assert (record.meta["patient_id"], record.meta["device"]) == ("MCH-0234567", "Cart 9")
    assert record.meta["identifiers"] == (
        "MCH-0234567",
        "Haagse Harry",
        "PSG-1234/2002",
        "NN Tech",
    )
    (notes,) = record.annotations
    assert notes.time_s.tolist() == [1.0, 1.25, 1.25]
    assert notes.text[0] == "Sinus rhythm"
    assert "Harry" not in repr(notes.text)
    assert any(flag.startswith("withheld_statements:") for flag in record.quality)


def test_discontinuous_records_keep_their_time(write: Callable[..., Path]) -> None:
    rows = [[np.arange(10) + 10 * k] for k in range(4)]
    lists = [f"+{t}\x14\x14\0".encode() for t in (0, 1, 4.5, 5.5)]
    record = read(write(rows, lists=lists, reserved="EDF+D"))
    assert "gaps:1" in record.quality
    (mv,) = record.signal_mv
    assert len(mv) == 65
    assert np.isnan(mv[20:45]).all()
    np.testing.assert_allclose(mv[np.r_[0:20, 45:65]], np.arange(40) / 2000)


@pytest.mark.parametrize(
    ("onsets", "reserved", "reason"),
    [
        ((0, 0.5), "EDF+D", "bad header"),
        ((0, None), "EDF+D", "bad header"),
        ((0, 10**9), "EDF+D", "too large"),
        ((0, 7), "EDF+C", "bad header"),
    ],
)
def test_absurd_onsets_are_refused(
    write: Callable[..., Path], onsets: tuple[float | None, ...], reserved: str, reason: str
) -> None:
    lists = [b"?" if t is None else f"+{t}\x14\x14\0".encode() for t in onsets]
    path = write([[range(10)]] * 2, lists=lists, reserved=reserved)
    assert refused(path).reason == reason


def test_scale_units_labels_and_rates(write: Callable[..., Path]) -> None:
    counts = np.array([-2000, 0, 2000])
    path = write(
        [[counts, counts, np.arange(6)]],
        labels=["EKG V1-REF", "Resp", "ECG"],
        units=["uV", "l/s", "mV"],
        physical=("-3", "1"),
    )
    record = read(path)
    by_name = dict(zip(record.leads, record.signal_mv, strict=True))
    np.testing.assert_allclose(by_name["V1"], np.array([-3, -1, 1]) / 1000)
    assert record.digital[0].tolist() == counts.tolist()
    assert {(one.name, one.unit, one.rate_hz) for one in record.signals} == {
        ("Resp", "l/s", 3.0),
        ("ECG", "mV", 6.0),
    }


def test_zero_between_two_counts_is_flagged(write: Callable[..., Path]) -> None:
    path = write([[range(4)]], digital=("-32768", "32767"))
    record = read(path)
    assert "baseline_rounded" in record.quality
    truth = (np.arange(4) + 0.5) * 2 / 65535
    np.testing.assert_allclose(record.signal_mv[0], truth, rtol=0, atol=0.51 * 2 / 65535)


def test_every_count_is_valid(write: Callable[..., Path]) -> None:
    record = read(write([[[-32768, 0, 5]]], digital=("-32768", "32768"), physical=("-16", "16")))
    assert not np.isnan(record.signal_mv).any()
    assert record.signal_mv[0].tolist() == [-16 / 1000, 0, 5 / 2048 / 1000]


def test_24_bits(write: Callable[..., Path]) -> None:
    counts = [-(2**23), -1, 0, 1, 2**23 - 1]
    path = write([[counts, counts]], bdf=True, labels=["II", "Status"], units=["mV", "Boolean"])
    record = read(path)
    np.testing.assert_allclose(record.signal_mv[0], np.array(counts) / 2, atol=2**8)
    assert record.signals[0].name == "Status"


def test_lengths(write: Callable[..., Path]) -> None:
    path = write([[range(10)]] * 3, n_records=-1)
    assert (read(path).n_samples, read(path).quality) == (30, ("unknown_length",))
    path.write_bytes(path.read_bytes() + b"more")
    assert "ignored_bytes:4" in read(path).quality
    whole = write([[range(10)]] * 3).read_bytes()
    path.write_bytes(whole[:-1])
    assert refused(path).reason == "truncated"


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"duration": "0"}, "bad header"),
        ({"duration": "nan"}, "bad header"),
        ({"physical": ("5", "5")}, "bad header"),
        ({"digital": ("7", "7")}, "bad header"),
        ({"n_records": 99999999}, "truncated"),
        ({"n_records": 0}, "no samples"),
        ({"n_records": -7}, "bad header"),
    ],
)
def test_contradictions_are_refused(
    write: Callable[..., Path], options: dict[str, Any], reason: str
) -> None:
    assert refused(write([[range(10)]], **options)).reason == reason


def test_a_signal_without_a_scale(write: Callable[..., Path]) -> None:
    record = read(write([[range(4), range(4)]], labels=["Marker", "x"], units=["", ""],
                        physical=("0", "0")))  # fmt: skip
    assert "uncalibrated:Marker" in record.quality
    assert [one.counts.tolist() for one in record.signals] == [[0, 1, 2, 3]] * 2


def test_damaged_files_are_refused_or_read(test_data: Path, tmp_path: Path) -> None:
    rng = random.Random(1)
    whole = (test_data / FOLDER / "00004_hr_12lead.edf").read_bytes()[:8192]
    whole = whole[:236] + b"0       " + whole[244:]
    for _ in range(80):
        data = bytearray(whole)
        for _ in range(rng.randrange(1, 6)):
            data[rng.randrange(4000)] = rng.choice([0, 32, 45, 57, 255, rng.randrange(256)])
        path = tmp_path / "m.edf"
        path.write_bytes(data[: rng.choice([len(data), rng.randrange(len(data))])])
        with contextlib.suppress(ReadError):
            assert read(path).digital.nbytes < 10**6


def test_detection(write: Callable[..., Path]) -> None:
    path = write([[range(4)]])
    assert READER.matches(path.read_bytes()[:4096], path)
    assert not READER.matches(b"0       ", path)
    assert not READER.matches(b"0       " + b" " * 300, path)


def refused(path: Path) -> ReadError:
    with pytest.raises(ReadError) as caught:
        read(path)
    return caught.value
