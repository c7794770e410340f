"""What a warehouse holds, told so that two can be compared, and what must hold at any moment."""

from __future__ import annotations

import hashlib
import itertools
import re
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ecgstore.record import COLUMNS
from ecgstore.schema import TABLES
from ecgstore.store import Store
from ecgstore.warehouse import Warehouse

from .sources import counts

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping
    from pathlib import Path

    from ecgstore.upkeep.verify import VerifyResult

Content = dict[str, dict[tuple[object, ...], str]]
"""By table and key, the digest of a row without what may differ between two runs."""

_VOLATILE = {"at", "code", "seconds", "versions"}


def content(root: Path) -> Content:
    """Return what the newest versions of all tables hold.

    Raises:
        AssertionError: A key occurs twice.
        EcgStoreError: Something cannot be read.
    """
    return {
        name: rows(table.read(), name) if table.snapshot.entries else {}
        for name, table in Warehouse(root).tables().items()
    }


def rows(table: pa.Table, name: str) -> dict[tuple[object, ...], str]:
    """Return the digest of each row by key."""
    key = TABLES[name].key
    keys = list(zip(*(table[column].to_pylist() for column in key), strict=True))
    parts = [_texts(table[column]) for column in table.column_names if column not in _VOLATILE]
    digests = [hashlib.sha256(b"\0".join(row)).hexdigest() for row in zip(*parts, strict=True)]
    found = dict(zip(keys, digests, strict=True))
    assert len(found) == len(keys), f"a key of {name} occurs twice"
    return found


def _texts(column: pa.ChunkedArray) -> list[bytes]:
    """Return something for each value that is equal when the value is."""
    one = column.combine_chunks()
    if isinstance(one, pa.ListArray) and pa.types.is_primitive(one.type.value_type):
        ends = one.offsets.to_numpy()
        values = one.values.to_numpy(zero_copy_only=False)
        lists = [values[a:b].tobytes() for a, b in itertools.pairwise(ends)]
        valid = one.is_valid().to_pylist()
        return [data if there else b"null" for data, there in zip(lists, valid, strict=True)]
    return [repr(value).encode() for value in one.to_pylist()]


def grave(result: VerifyResult) -> list[str]:
    """Return what verify found that hurts an answer, of now or of the past."""
    bad = [one for one in result.findings if one.severity in ("damage", "history")]
    return [f"verify: {one.severity} {one.file or one.table}: {one.what}" for one in bad]


def leftovers(result: VerifyResult) -> list[str]:
    """Return what verify found lying about."""
    mess = [one for one in result.findings if one.severity == "leftover"]
    return [f"left: {one.file or one.table}: {one.what}" for one in mess]


def examined(root: Path, before: Content | None, after: Content | None) -> list[str]:
    """Return what is wrong with a warehouse whose change from `before` to `after` was broken off.

    Args:
        root: The warehouse.
        before: What had been reported as done; None when that was not even a warehouse.
        after: What the call that was broken off would have made of it; None compares nothing.
    """
    if not any((root / "records" / "_delta_log").glob("*.json")):
        return [] if before is None else ["the warehouse is gone"]
    problems = grave(Store(root).verify())
    if problems or after is None:
        return problems
    now = content(root)
    return [*_between(now, before or {}, after), *_halves(now, after)]


def traces(root: Path, names: Collection[str]) -> list[str]:
    """Return the files that hold a name, in their bytes or in their columns."""
    pattern = re.compile(b"|".join(rb"\b%s\b" % re.escape(name.encode()) for name in names))
    found = []
    for path in sorted(root.rglob("*")):
        if not path.is_file():
            continue
        data = path.read_bytes()
        texts = b""
        if path.suffix == ".parquet" and data[-4:] == b"PAR1":
            columns = [c for c in pq.read_table(path).columns if pa.types.is_string(c.type)]
            texts = "\n".join(str(v) for c in columns for v in c.unique().to_pylist()).encode()
        if pattern.search(data) or pattern.search(texts):
            found.append(str(path.relative_to(root)))
    return found


def erasure(root: Path, patients: Collection[str], *, done: bool) -> list[str]:
    """Return what is wrong with an erasure that was broken off, or reported as done.

    Until it is done the patient is there still, or a journal says what is to be finished; and
    once it is, nothing is left.
    """
    table = Warehouse(root).table("records").read(["record_id", "patient_id"])
    there = set(table["patient_id"].to_pylist()) & {*patients}
    left = traces(root, patients)
    if (done or not (there or (root / "_erasing.json").exists())) and left:
        return [f"a patient was erased, and is still in {', '.join(left)}"]
    return []


def _between(now: Content, before: Content, after: Content) -> Iterator[str]:
    """Yield where a table holds anything but rows of before and rows of after."""
    for table in TABLES:
        old, new, here = before.get(table, {}), after.get(table, {}), now.get(table, {})
        foreign = sum(digest not in (old.get(key), new.get(key)) for key, digest in here.items())
        lost = len((old.keys() & new.keys()) - here.keys())
        if foreign:
            yield f"{foreign} rows of {table} are neither those of before nor those of after"
        if lost:
            yield f"{lost} rows of {table} are lost"


def _halves(now: Content, after: Content) -> Iterator[str]:
    """Yield records that can be seen without what was ingested with them."""
    for (record,) in now.get("records", {}):
        if (record,) not in now["waveforms"]:
            yield f"a record has no waveform ({sum(1 for _ in after['records'])} in all)"
            return


def differences(now: Mapping[str, object], wanted: Mapping[str, object]) -> list[str]:
    """Return the tables that differ from those of a run that nobody disturbed."""
    return [f"{name} differs in the end" for name in TABLES if now.get(name) != wanted.get(name)]


def unlike_sources(root: Path) -> list[str]:
    """Return the records whose samples are not those of their files."""
    table = Warehouse(root).table("waveforms").read(["record_id", *COLUMNS])
    bad = []
    for number, record in enumerate(table["record_id"].to_pylist()):
        stored = np.stack([table[c][number].values.to_numpy() for c in COLUMNS])
        if not np.array_equal(stored, counts(record.partition("/")[2])):
            bad.append(f"{record} is not what its file holds")
    return bad
