"""Every file of the real recordings gives what other programs, or a computation by hand, give.

`tests/data/expected_files.csv` was made without ecgstore; `make_expected_files.py` beside it tells
how.
"""

from __future__ import annotations

import csv
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from ecgstore.datasets import folder
from ecgstore.errors import ReadError
from ecgstore.io import read

if TYPE_CHECKING:
    from ecgstore.record import Record

TABLE = Path(__file__).parent / "data" / "expected_files.csv"
RATES = {
    "formats/csv/00004_hr_decimal_comma.csv": "500",
    "formats/csv/00004_hr_uv_semicolon.csv": "500",
}
"""Files that do not say their rate, with what a user has to declare."""


@cache
def table() -> tuple[dict[str, str], ...]:
    with TABLE.open(newline="") as file:
        return tuple(csv.DictReader(file))


def rows(*kinds: str) -> list[dict[str, str]]:
    return [row for row in table() if row["what"] in kinds]


def load(data: Path, path: str) -> Record:
    name, _, item = path.partition("#")
    layout = {"rate": RATES[path]} if path in RATES else None
    return read(data / name, item=item or None, layout=layout)


def numbers(text: str) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    return np.array([float(part) for part in text.split("|")] if text else [])


def test_every_file_is_in_the_table(test_data: Path) -> None:
    data = test_data / "data"
    files = {path.relative_to(data).as_posix() for path in data.rglob("*") if path.is_file()}
    assert {row["path"] for row in table() if "#" not in row["path"]} == files
    assert len(files) == 1851


@pytest.mark.parametrize("part", range(4))
def test_every_record_has_the_expected_leads_rate_samples_and_millivolts(
    test_data: Path, part: int
) -> None:
    wrong: list[tuple[object, ...]] = []
    for row in rows("record", "segment")[part::4]:
        record = load(test_data / "data", row["path"])
        found = (list(record.leads), record.n_samples)
        if found != (row["leads"].split("|"), int(row["n_samples"])):
            wrong.append((row["path"], found))
            continue
        assert record.rate_hz == pytest.approx(float(row["rate_hz"])), row["path"]
        # the table has six decimals; a rounded count is off by half a step at most
        step = 0.5 / np.abs(record.gain) if "quantised" in record.quality else 0.0
        mv = record.signal_mv
        for at, column in ((0, "first_mv"), (-1, "last_mv")):
            expected = numbers(row[column])
            assert np.array_equal(np.isnan(expected), np.isnan(mv[:, at])), row["path"]
            off = np.nan_to_num(np.abs(mv[:, at] - expected))
            if row["path"].startswith("sph/"):  # whole counts of which float16 keeps 11 bits
                off *= expected.astype(np.float16) != mv[:, at].astype(np.float16)
            if not (off <= 1e-6 + step).all():
                wrong.append((row["path"], column, off.max()))
    assert not wrong


def test_every_annotation_is_read(test_data: Path) -> None:
    for row in rows("annotations"):
        header = row["record"] or row["path"]
        record = load(test_data / "data", header)
        annotator = "edf" if header.endswith(".edf") else Path(row["path"]).suffix[1:]
        own = [one for one in record.annotations if one.annotator == annotator]
        if row["path"].endswith(".hea"):  # a record of annotations alone
            own = list(record.annotations)
            assert record.leads == ()
        assert [len(one) for one in own] == [int(row["n_samples"])], row["path"]


def test_what_cannot_be_read_is_refused(test_data: Path) -> None:
    for row in rows("rejected"):
        with pytest.raises(ReadError):
            load(test_data / "data", row["path"])


def test_a_folder_of_all_of_it_leaves_out_nothing_that_is_a_record(test_data: Path) -> None:
    data = test_data / "data"
    found = folder.collect([data])
    listed = {one.uri for one in found.sources} | {one.uri for one in found.missing}
    wanted = {
        row["path"]
        for row in rows("record", "rejected", "annotations")
        if Path(row["path"]).suffix not in {".atr", ".qrs", ".ecg", ".pu1"}
        or row["path"].startswith("formats/ishne")
    }
    assert wanted - listed == set()
    parts = {row["path"] for row in rows("part", "segment", "table")}
    assert listed & parts == set()
