"""Files that must be refused: one line, a fixed reason, nothing opened outside the folder."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecgstore.errors import ReadError
from ecgstore.io import read
from ecgstore.io.assemble import REASONS
from ecgstore.io.wfdb_header import HeaderError, parse_header

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Writer = Callable[..., Path]


def refusal(path: Path) -> ReadError:
    with pytest.raises(ReadError) as caught:
        read(path)
    error = caught.value
    assert error.reason in REASONS
    assert "\n" not in error.message
    assert str(path.parent) not in error.message, "a message names files, not folders"
    return error


@pytest.fixture
def counts() -> NDArray[np.int16]:
    return np.random.default_rng(1).integers(-500, 500, (12, 100), dtype=np.int16)


def truncate(header: Path) -> None:
    data = header.with_suffix(".dat")
    data.write_bytes(data.read_bytes()[:-1])


def flip_a_bit(header: Path) -> None:
    data = bytearray(header.with_suffix(".dat").read_bytes())
    data[1001] ^= 4
    header.with_suffix(".dat").write_bytes(data)


def replace(old: str, new: str) -> Callable[[Path], None]:
    def apply(header: Path) -> None:
        header.write_text(header.read_text().replace(old, new))

    return apply


def write(text: bytes) -> Callable[[Path], None]:
    def apply(header: Path) -> None:
        header.write_bytes(text)

    return apply


def link_out(header: Path) -> None:
    outside = header.parent.parent / "elsewhere.dat"
    header.with_suffix(".dat").rename(outside)
    header.with_suffix(".dat").symlink_to(outside)


def pipe(header: Path) -> None:
    header.with_suffix(".dat").unlink()
    os.mkfifo(header.with_suffix(".dat"))


def folder_for_header(header: Path) -> None:
    header.unlink()
    header.mkdir()


SEGMENTED = b"x/2 12 500 200\n../x 100\n/etc/x 100\n"


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (truncate, "truncated"),
        (flip_a_bit, "wrong checksum"),
        (lambda header: header.with_suffix(".dat").write_bytes(b""), "empty file"),
        (lambda header: header.with_suffix(".dat").unlink(), "missing file"),
        (write(b""), "empty file"),
        (write(b"# only a comment\n"), "bad header"),
        (write(bytes(range(256)) * 8), "bad header"),
        (write(b"x 12 500 5000\n" + b"a" * 2**20), "too large"),
        (write(b"x 0 500 100\n"), "no signals"),
        (write(b"x 12 500 100\nx.dat 16\n"), "bad header"),
        (write(b"x 1 0 100\nx.dat 16 200 16 0 0 0 0 I\n"), "bad header"),
        (write(b"x 1 nan 100\nx.dat 16 200 16 0 0 0 0 I\n"), "bad header"),
        (write(b"x 1 500 100\nx.dat 99 200 16 0 0 0 0 I\n"), "unsupported format"),
        (write(b"x 1 500 100\nx.dat 16x0 200 16 0 0 0 0 I\n"), "bad header"),
        (write(b"x 1 500 100\nx.dat 516 200 16 0 0 0 0 I\n"), "decoder failed"),
        (write(SEGMENTED), "outside folder"),
        (write(b"x/1 12 500 100\nnowhere 100\n"), "missing file"),
        (write(b"x/1 12 500 100\nx 100\n"), "bad header"),
        (write(b"x/1 12 500 999999999999\n~ 999999999999\n"), "too large"),
        (replace(" 500 100\n", " 500 1000000000000\n"), "truncated"),
        (replace(" 500 100\n", " 500 999999999999999999\n"), "truncated"),
        (replace("x.dat", "../../x.dat"), "outside folder"),
        (replace("x.dat", "/etc/hostname"), "outside folder"),
        (replace("x.dat", ".."), "not a file"),
        (replace("x.dat", "y" * 300), "unreadable"),
        (replace("V2", "V1"), "duplicate leads"),
        (replace("V2", "lead I"), "duplicate leads"),
        (replace("200(0)", "nan(0)"), "bad header"),
        (replace(" 16 0 ", " 16 99999999999 "), "bad header"),
        (link_out, "outside folder"),
        (pipe, "not a file"),
        (folder_for_header, "not a file"),
    ],
)
def test_bad_records_are_refused_with_a_reason(
    tmp_path: Path,
    write_wfdb: Writer,
    counts: NDArray[np.int16],
    damage: Callable[[Path], Any],
    reason: str,
) -> None:
    header = write_wfdb(tmp_path / "in" / "side", "x", counts)
    damage(header)
    assert refusal(header).reason == reason


def test_a_wrong_first_sample_is_refused_unless_checksums_vouch_for_the_samples(
    tmp_path: Path, write_wfdb: Writer, counts: NDArray[np.int16]
) -> None:
    header = write_wfdb(tmp_path, "x", counts)
    replace(f" 16 0 {counts[0, 0]} ", f" 16 0 {counts[0, 0] + 1} ")(header)
    assert read(header).quality == ("wrong_initial_value:I",)
    lines = header.read_text().splitlines()
    short = [f"x.dat 16 200 16 0 {line.split()[5]} 0 0 {line.split()[-1]}" for line in lines[1:]]
    header.write_text("\n".join([lines[0], *short]))
    assert refusal(header).reason == "wrong initial value"


def test_leads_in_other_units_are_kept_aside(
    tmp_path: Path, write_wfdb: Writer, counts: NDArray[np.int16]
) -> None:
    header = write_wfdb(tmp_path, "x", counts)
    replace("/mV 16 0", "/mmHg 16 0")(header)
    record = read(header)
    assert record.leads == ()
    assert [one.unit for one in record.signals] == ["mmHg"] * 12
    assert "other_unit:I" in record.quality


def test_a_link_within_the_folder_is_followed(
    tmp_path: Path, write_wfdb: Writer, counts: NDArray[np.int16]
) -> None:
    header = write_wfdb(tmp_path, "x", counts)
    header.with_suffix(".dat").rename(tmp_path / "kept.dat")
    header.with_suffix(".dat").symlink_to("kept.dat")
    np.testing.assert_array_equal(read(header).digital, counts)


def test_a_header_without_checksums_is_flagged(
    tmp_path: Path, write_wfdb: Writer, counts: NDArray[np.int16]
) -> None:
    header = write_wfdb(tmp_path, "x", counts)
    lines = header.read_text().splitlines()
    short = [f"x.dat 16 200 16 0 {line.split()[5]} 0 0 {line.split()[-1]}" for line in lines[1:]]
    header.write_text("\n".join([lines[0], *short]))
    assert read(header).quality == ("unverified_checksum",)


@pytest.mark.parametrize(
    ("head", "what"),
    [
        (b"%PDF-1.7", "PDF"),
        (b"\x1f\x8b\x08", "gzip"),
        (b"PK\x03\x04" + bytes(40), "ZIP"),
        (b"GDF 2.20", "GDF"),
        (b"<?xml version='1.0'?><Observation/>", "FHIR"),
        (b"<svg/>", "XML"),
        (b'{"resourceType": "Observation"}', "JSON"),
        (b"\x80\x04\x95\x00", "pickle"),
    ],
)
def test_known_formats_without_a_reader_say_what_to_do(
    tmp_path: Path, head: bytes, what: str
) -> None:
    (tmp_path / "x.bin").write_bytes(head)
    error = refusal(tmp_path / "x.bin")
    assert error.reason == "unsupported format"
    assert what in error.message
    assert error.hint


@pytest.mark.parametrize("name", ["", "absent", "x.dat", "y" * 300, "x.txt"])
def test_what_is_not_there_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ReadError) as caught:
        read(tmp_path / name if name else Path())
    assert caught.value.reason in {"missing file", "not a file"}


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=300))
def test_any_bytes_are_a_header_or_a_header_error(data: bytes) -> None:
    with contextlib.suppress(HeaderError):
        parse_header(data)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_a_damaged_header_never_ends_in_another_error(
    tmp_path_factory: pytest.TempPathFactory, write_wfdb: Writer, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("fuzz")
    header = write_wfdb(folder, "x", np.arange(40).reshape(2, 20), leads=("I", "V6"))
    text = bytearray(header.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(text) - 1))
        text[at] = data.draw(st.sampled_from(b"0123456789-+./:x~()#\n \xffIV"))
    header.write_bytes(text)
    with contextlib.suppress(ReadError):
        assert read(header).digital.shape[0] in {1, 2}
