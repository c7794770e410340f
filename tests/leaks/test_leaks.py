"""Plant people in every format, take everything in, and look for them in all that comes of it."""

from __future__ import annotations

import contextlib
import io as text_io
import itertools
import logging
import os
import traceback
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import ecgstore
from ecgstore.deidentify import Deidentifier, load_key
from ecgstore.errors import ReadError
from ecgstore.io import readers
from ecgstore.progress import Silent
from ecgstore.schema import TABLES
from ecgstore.store import Store

from .people import JANE, OTTO, found_in
from .planted import FORMATS, damaged, plant

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytest.importorskip("h5py")
pytest.importorskip("pydicom")
pytest.importorskip("pyedflib")

FEW = ("hdf5", "muse", "wfdb")
"""Formats for tests that need not see all of them."""


@dataclass(frozen=True)
class House:
    """A warehouse that has taken everything in, and what was said meanwhile."""

    source: Path
    root: Path
    said: str

    def rows(self, query: str) -> list[dict[str, Any]]:
        with Store(self.root) as store:
            found: list[dict[str, Any]] = store.sql(query).arrow().read_all().to_pylist()
        return found


@contextlib.contextmanager
def listening() -> Iterator[text_io.StringIO]:
    """Gather all that is logged, by anybody and at any level."""
    heard = text_io.StringIO()
    handler = logging.StreamHandler(heard)
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    try:
        with contextlib.redirect_stdout(heard), contextlib.redirect_stderr(heard):
            yield heard
    finally:
        root.removeHandler(handler)
        root.setLevel(level)


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory, test_data: Path) -> House:
    folder = tmp_path_factory.mktemp("leaks")
    plant(test_data, folder / "source")
    with listening() as heard, Store(folder / "house") as store:
        store.ingest(folder / "source", dataset="clinic", jobs=1)
        store.ingest(folder / "source", dataset="clinic", jobs=1)  # what is refused is tried again
        heard.write(repr(store.verify().rows))
    return House(folder / "source", folder / "house", heard.getvalue())


def searched(root: Path) -> dict[str, list[str]]:
    """Return what is found by file: in its name, its bytes, and in the cells of Parquet."""
    hits: dict[str, list[str]] = defaultdict(list)
    for path in sorted(root.rglob("*")):
        name = path.relative_to(root).as_posix()
        hits[name] += found_in(name)
        if path.is_file():
            hits[name] += found_in(path.read_bytes())
        if path.suffix == ".parquet":
            hits[name] += found_in(str(pq.read_schema(path)))
            hits[name] += found_in("\n".join(cells(pq.read_table(path))))
    return {name: found for name, found in hits.items() if found}


def cells(table: pa.Table) -> Iterator[str]:
    """Yield every value as text, but for samples."""
    for name, column in zip(table.column_names, table.columns, strict=True):
        kind = column.type
        if not (pa.types.is_list(kind) and pa.types.is_integer(kind.value_type)):
            yield from (f"{name} {value}" for value in column.to_pylist())


# ------------------------------------------------------------------ what must not come out


def test_people_are_planted_in_every_format(house: House) -> None:
    assert {form.reader for form in FORMATS.values()} == set(readers)
    taken = {row["f"] for row in house.rows("select distinct source_format as f from records")}
    assert taken == set(readers)
    for name, form in FORMATS.items():
        data = (house.source / f"plain/{name}-1{form.suffix}").read_bytes()
        data = data.replace(b"\0", b"")  # letters of four bytes
        assert len(set(found_in(data))) > 1, name
    assert len(house.rows("from rejects")) == len(FORMATS)


def test_no_byte_of_the_warehouse_names_them(house: House) -> None:
    assert searched(house.root) == {}


def test_no_cell_of_any_table_names_them(house: House) -> None:
    with Store(house.root) as store:
        for table in TABLES:
            rows = store.sql(f"from {table}").arrow().read_all()
            assert list(itertools.chain.from_iterable(map(found_in, cells(rows)))) == [], table


def test_nothing_that_was_printed_or_logged_names_them(house: House) -> None:
    assert list(found_in(house.said)) == []


@pytest.mark.parametrize("name", FORMATS)
def test_no_error_names_them(name: str, tmp_path: Path, test_data: Path) -> None:
    path = tmp_path / f"r{FORMATS[name].suffix}"
    FORMATS[name].make(test_data, path, JANE)
    whole = path.read_bytes()
    raised = 0
    for keep in (0.05, 0.4, 0.97):
        damaged(path, keep=keep)
        raised += _fails_in_silence(path)
    for at in range(7, len(whole), len(whole) // 12):  # one byte in 12 places
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0x55]) + whole[at + 1 :])
        raised += _fails_in_silence(path)
    for number in (b"500", b"1000", b"0.0,", b"[0]", b"'fortran_order'", b"10240"):
        path.write_bytes(whole.replace(number, JANE.family.encode(), 3))
        raised += _fails_in_silence(path)
    assert raised


def _fails_in_silence(path: Path) -> bool:
    try:
        with listening() as heard:
            ecgstore.read(path)
    except ReadError as error:
        said = [heard.getvalue(), str(error), repr(error), *map(str, error.args)]
        said += traceback.format_exception_only(error)
        seen: list[BaseException | None] = [error]
        while (last := seen.pop()) is not None:
            said += [str(last), repr(last)]
            seen += [last.__cause__ or last.__context__]
        assert list(found_in("\n".join(said))) == []
        return True
    assert list(found_in(heard.getvalue())) == []
    return False


def test_the_command_line_does_not_name_them(
    tmp_path: Path, test_data: Path, run: Callable[..., Any]
) -> None:
    source, root = tmp_path / "source", tmp_path / "house"
    plant(test_data, source, FEW)
    base = ("--warehouse", root)
    take = (*base, "--verbose", "ingest", source, "--dataset", "clinic", "--jobs", 1)
    labels = tmp_path / "labels.csv"
    rows = [f"clinic/plain/wfdb-{i},{i},{one.number}" for i, one in ((1, JANE), (2, OTTO))]
    rows += [f"clinic/{JANE.family},1,{JANE.number}", "clinic/plain/muse-1.xml,x,"]
    labels.write_text("\n".join(["record_id,label,pid", *rows]) + "\n")
    out = tmp_path / "out"
    out.mkdir()
    with listening() as heard:
        told = [
            run(*take, "--dry-run"),
            run(*take, "--on-error", "stop"),
            run(*take),
            run(*base, "labels", labels, "--task", "T", "--patient", "pid"),
            run(*base, "sql", "from rejects"),
            run(*base, "log"),
            run(*base, "verify"),
            *(
                run(*base, "export", table, "-o", out / f"{table}.csv")
                for table in ("records", "annotations", "measurements")
            ),
        ]
    assert [one.code for one in told] == [3, 1, 3, 3, 0, 0, 0, 0, 0, 0]
    assert all(one.out or one.err for one in told)
    assert list(found_in(heard.getvalue())) == []
    for one in told:
        # what a user types comes back only in messages on what was typed
        assert list(found_in(one.out + one.err)) == []
    assert searched(root) == {}
    assert searched(out) == {}
    with Store(root) as store:
        found = store.sql("select record_id, patient_id from records where source_format = 'wfdb'")
        patients = dict(found.fetchall())
    key = Deidentifier(load_key())
    assert patients["clinic/plain/wfdb-1"] == key.patient(JANE.number)
    assert patients["clinic/plain/wfdb-2"] == key.patient(OTTO.number)


def test_file_names_of_other_kinds_do_not_name_them(tmp_path: Path, test_data: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    year, month, day = JANE.born
    scp, scan = FORMATS["scp"], f"{JANE.given}.{JANE.family}"
    scp.make(test_data, source / f"ecg {day:02}.{month:02}.{year}.scp", JANE)
    scp.make(test_data, source / f"{JANE.number}.{JANE.family}", JANE)
    scp.make(test_data, source / f"{JANE.number[:3]}-{JANE.number[3:]}.scp", JANE)
    (source / scan).write_bytes(b"%PDF")
    with contextlib.suppress(OSError):  # where file names must be UTF-8
        scp.make(test_data, source / "x", JANE)
        os.rename(  # noqa: PTH104
            os.fsencode(source / "x"),
            os.fsencode(source) + f"/{JANE.family}\xe9.xml".encode("latin-1"),
        )
    notes: list[str] = []

    class Told(Silent):
        def note(self, message: str) -> None:
            notes.append(message)

    with Store(tmp_path / "house") as store:
        store.ingest(source, dataset="clinic", jobs=1, progress=Told())
        names = store.sql("select record_id from records").fetchall()
        refused = store.sql("select source_uri from rejects").fetchall()
    assert [name.startswith("clinic/hidden-") for (name,) in names] == [True] * 3
    assert all(uri.startswith("clinic/hidden-") for (uri,) in refused)
    assert "1 files of other suffixes passed over" in notes[0]
    assert list(found_in("\n".join(notes))) == []
    assert searched(tmp_path / "house") == {}


# ------------------------------------------------------------------ what must remain


def test_the_same_patient_is_the_same_and_another_is_another(house: House) -> None:
    key = Deidentifier(load_key())
    hidden = {one: key.patient(one.number) for one in (JANE, OTTO)}
    tells = {form.reader for form in FORMATS.values() if form.patients}
    seen: defaultdict[str, set[object]] = defaultdict(set)
    for row in house.rows("select record_id, source_format, patient_id from records"):
        if row["patient_id"] is not None:
            one = OTTO if "/plain/" in row["record_id"] and "-2." in row["record_id"] else JANE
            assert row["patient_id"] == hidden[one], row
            seen[row["source_format"]].add(row["record_id"])
    assert {name: len(found) for name, found in seen.items()} == dict.fromkeys(tells, 3)


def test_files_named_after_their_patient_lose_that_name(house: House) -> None:
    rows = house.rows("select record_id, source_uri, quality from records")
    hidden = [row for row in rows if row["record_id"].startswith("clinic/hidden-")]
    plain = {row["record_id"].partition("#")[0] for row in rows} - {x["record_id"] for x in hidden}
    assert len(hidden) == len(FORMATS)
    assert all("hidden_name" in row["quality"] for row in hidden)
    assert all(row["source_uri"].startswith("clinic/hidden-") for row in hidden)
    expected = {
        f"clinic/plain/{name}-{i}{'' if form.suffix == '.hea' else form.suffix}"
        for name, form in FORMATS.items()
        for i in (1, 2)
    }
    assert plain == expected
    rejects = house.rows("from rejects")
    assert all(row["source_uri"].startswith("clinic/hidden-") for row in rejects)
    assert all(row["detail"] and row["reason"] in row["reason"] for row in rejects)


def test_what_names_nobody_is_kept(house: House) -> None:
    query = "from records where record_id like 'clinic/plain/%-1%'"
    rows = {row["record_id"].split("/")[-1].split("-1")[0]: row for row in house.rows(query)}
    for name in ("dicom", "hl7", "muse", "philips", "schiller", "scp"):
        assert "Normal sinus rhythm" in rows[name]["report"], name
        assert any(flag.startswith("withheld_statements:") for flag in rows[name]["quality"]), name
    ages = {"hl7": 46, "philips": 50}
    for name in ("dicom", "edf", "hl7", "ishne", "muse", "philips", "schiller", "scp", "wfdb"):
        assert rows[name]["age"] == ages.get(name, 79), name  # of 29 July 1931, on 1 March 2011
    women = [name for name, row in sorted(rows.items()) if row["sex"] == "female"]
    assert women == ["dicom", "edf", "ishne", "schiller", "scp", "wfdb"]
    assert {name: row["device"] for name, row in rows.items() if row["device"]} == {
        "dicom": "Acme Cart 9",
        "edf": "Cart 9",
        "hl7": "ELI250",
        "muse": "MAC55",
        "philips": "HeartstartMRx",
        "schiller": "Schiller AT-10P",
        "scp": "Acme MK2000",
    }
    measured = house.rows("select distinct source from measurements")
    assert {row["source"] for row in measured} >= {"hl7", "muse", "philips", "schiller"}
    texts = {row["text"] for row in house.rows("select distinct text from annotations")}
    assert texts == {None, "(AFIB", "Normal sinus rhythm"}


def test_ids_and_names_are_kept_on_request(tmp_path: Path, test_data: Path) -> None:
    plant(test_data, tmp_path / "source", FEW)
    with Store(tmp_path / "house") as store:
        store.ingest(tmp_path / "source", dataset="clinic", jobs=1, keep_ids=True)
        query = "select record_id, patient_id from records where source_format = 'muse'"
        assert dict(store.sql(query).fetchall()) == {
            "clinic/plain/muse-1.xml": JANE.number,
            "clinic/plain/muse-2.xml": OTTO.number,
            f"clinic/muse/{JANE.family.upper()}/{JANE.given}_{JANE.number}.xml": JANE.number,
        }
        uris = [uri for (uri,) in store.sql("select source_uri from rejects").fetchall()]
        assert f"clinic/muse/{JANE.given} {JANE.family} {JANE.iso}.xml" in uris
