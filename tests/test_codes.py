"""Rhythm codes as a table: what the tokeniser says, once a record, and what SQL can ask of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pytest

from ecgstore.codes import fill_codes
from ecgstore.errors import UsageError
from ecgstore.models import load_encoder
from ecgstore.models.anyecg import AnyEcgEncoder
from ecgstore.progress import Silent
from ecgstore.record import COLUMNS, INVALID, LEADS
from ecgstore.store import Store
from ecgstore.warehouse import Warehouse

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

GAIN, RATE_HZ = 200.0, 100.0


@pytest.fixture(scope="module")
def encoder() -> AnyEcgEncoder:
    found = load_encoder("anyecg.tiny:raw", device="cpu", precision="fp32")
    assert isinstance(found, AnyEcgEncoder)
    return found


def put(warehouse: Warehouse, name: str, counts: np.ndarray[Any, Any], leads: list[str]) -> None:
    """Store a record of these counts, ``(leads, samples)``."""
    columns = dict(zip([lead.lower() for lead in leads], counts.tolist(), strict=True))
    row: dict[str, object] = {column: columns.get(column) for column in COLUMNS}
    row |= {"record_id": name, "gain": [GAIN] * 12, "baseline": [0] * 12}
    warehouse.append("waveforms", pa.Table.from_pylist([row]), command="test")
    about = {"record_id": name, "rate_hz": RATE_HZ, "leads": leads, "age": 50.0 + len(leads)}
    warehouse.append("records", pa.Table.from_pylist([about]), command="test")


def counts(seconds: float, leads: int, seed: int = 0) -> np.ndarray[Any, Any]:
    noise = np.random.default_rng(seed).normal(0, 60, (leads, int(seconds * RATE_HZ)))
    return noise.cumsum(axis=1).clip(-20_000, 20_000).astype(np.int16)


@pytest.fixture
def house(tmp_path: Path) -> Warehouse:
    """Return a warehouse of a short, a partial, a long, and an unfit record."""
    warehouse = Warehouse.create(tmp_path / "w")
    put(warehouse, "a/short", counts(2.5, 12), list(LEADS))
    put(warehouse, "a/two", counts(3, 2, seed=1), ["II", "V5"])
    put(warehouse, "a/long", counts(180, 1, seed=2), ["II"])
    lost = counts(3, 2, seed=3)
    lost[0, 7] = INVALID
    put(warehouse, "a/lost", lost, ["I", "II"])
    return warehouse


def stored(warehouse: Warehouse) -> dict[tuple[str, str], list[int]]:
    """Return the codes of each lead, after a check that its seconds are 0, 1, 2, …"""
    with Store(warehouse.root) as store:
        rows = store.table(
            "select record_id, lead, list(code order by second) as codes, "
            "list(second order by second) as seconds from codes group by all"
        ).to_pylist()
    for row in rows:
        assert row["seconds"] == list(range(len(row["seconds"])))
    return {(row["record_id"], row["lead"]): row["codes"] for row in rows}


def test_the_table_holds_what_the_tokeniser_says(house: Warehouse, encoder: AnyEcgEncoder) -> None:
    done = fill_codes(house, encoder, batch_size=2)
    assert (done.coded, done.existing, done.skipped) == (3, 0, {"NaN": 1})
    assert done.rows == 12 * 3 + 2 * 3 + 170
    found = stored(house)
    for name, seconds, leads in [("a/short", 2.5, LEADS), ("a/two", 3, ("II", "V5"))]:
        signal = counts(seconds, len(leads), seed=int(name == "a/two")) / GAIN
        windows = encoder.prepare(signal, rate_hz=RATE_HZ, leads=leads)
        for lead, codes in zip(leads, encoder.codes(windows, leads=leads)[0], strict=True):
            assert found[name, lead] == codes.tolist()
    windows = encoder.prepare(counts(180, 1, seed=2) / GAIN, rate_hz=RATE_HZ, leads=["II"])
    assert found["a/long", "II"] == encoder.codes(windows, leads=["II"]).reshape(-1).tolist()
    (told,) = house.table("models").read().to_pylist()
    assert (told["model"], told["version"]) == ("anyecg.tiny", encoder.version)


def test_only_what_is_missing_is_done(house: Warehouse, encoder: AnyEcgEncoder) -> None:
    plan = fill_codes(house, encoder, where="age < 53", dry_run=True)
    assert (plan.coded, plan.rows, house.files("codes")) == (3, 0, [])
    assert fill_codes(house, encoder, where="record_id = 'a/two'").coded == 1
    done = fill_codes(house, encoder)
    assert (done.coded, done.existing) == (2, 1)
    before = house.versions()
    again = fill_codes(house, encoder)
    assert (again.coded, again.existing, again.rows) == (0, 3, 0)
    assert house.versions() == before
    assert fill_codes(house, encoder, overwrite=True).coded == 3
    assert house.table("codes").read().num_rows == done.rows + 6


def test_what_was_done_before_an_interruption_stays(
    house: Warehouse, encoder: AnyEcgEncoder
) -> None:
    class Impatient(Silent):
        def advance(self, done: int = 1, *, rejected: int = 0) -> None:
            if not rejected:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fill_codes(house, encoder, batch_size=1, progress=Impatient())
    assert len({name for name, _ in stored(house)}) == 1
    assert fill_codes(house, encoder).coded == 2


def test_a_model_without_codes_is_refused(house: Warehouse, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"'ecgfm.tiny' has no rhythm codes"):
        fill_codes(house, load_encoder("ecgfm.tiny", device="cpu"))
    for name in ("anyecg.tiny:long", "anyecg.tiny:lead"):
        with pytest.raises(UsageError, match="a way to make vectors, not codes"):
            fill_codes(house, load_encoder(name, device="cpu"))
    assert house.files("codes") == []


def test_the_command_line_and_an_erasure(house: Warehouse, run: Callable[..., Any]) -> None:
    done = run("-w", house.root, "codes", "--model", "anyecg.tiny", "--device", "cpu", "--json")
    assert done.code == 3, done.err
    assert '"coded": 3' in done.out
    query = ("sql", "-n", "code_histogram", "-p", "record_id=a/two", "--json")
    shares = run("-w", house.root, *query)
    assert shares.code == 0, shares.err
    patients = [{"record_id": "a/two", "patient_id": "p"}]
    about = house.table("records").read().to_pylist()
    rows = [row | patients[0] for row in about if row["record_id"] == "a/two"]
    schema = house.table("records").schema.arrow
    house.replace("records", pa.Table.from_pylist(rows, schema=schema), command="test")
    with Store(house.root) as store:
        assert store.forget(["p"], yes=True).rows_by_table["codes"] == 6
        assert store.query("code_histogram", record_id="a/two").fetchall() == []
