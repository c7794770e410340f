"""Quality over a warehouse: figures in tables, gates in SQL, duplicates by name, nothing twice."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from ecgstore.quality import LeadQuality, RecordQuality, assess
from ecgstore.quality.duplicates import equal_to
from ecgstore.quality.summary import FIGURES
from ecgstore.schema import TABLES
from ecgstore.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture(scope="module")
def filled(test_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Return an assessed warehouse of a few real records of many kinds."""
    root = tmp_path_factory.mktemp("assessed") / "warehouse"
    data = test_data / "data"
    store = Store(root)
    store.ingest(data / "ptbxl", dataset="ptbxl", limit=12, jobs=1)
    for name in ("JS20004", "JS20008"):  # with flat leads
        store.ingest(data / f"challenge2021/ningbo/{name}.hea", dataset=f"one-{name}", jobs=1)
    hr = data / "challenge2021/ptbxl_hr/HR00001.hea"
    store.ingest(hr, data / "formats/dicom/example_500hz.dcm", dataset="copies", jobs=1)
    store.ingest(data / "formats/scp/example_12lead_huffman.scp", dataset="more", jobs=1)
    store.ingest(data / "formats/wfdb/s0010_re.hea", dataset="frank", jobs=1)
    store.ingest(data / "longterm/cpsc2021/data_101_6.hea", dataset="two", jobs=1)
    store.ingest(data / "longterm/nsr2db/nsr001.hea", dataset="beats", jobs=1)
    store.quality(jobs=1)
    return store


def one(store: Store, query: str) -> Any:
    row = store.sql(query).fetchone()
    assert row is not None
    return row[0] if len(row) == 1 else row


def test_every_record_and_lead_has_its_figures(filled: Store) -> None:
    assert one(filled, "select count(*) from records where assessed is null") == 0
    leads = "select sum(len(leads)) from records"
    assert one(filled, "select count(*) from quality") == one(filled, leads)
    record = filled.read("ptbxl/00001")
    figures, per_lead = assess(
        record.leads, record.signal_mv, record.rate_hz, digital=record.digital
    )
    stored = filled.sql("from records where record_id = 'ptbxl/00001'").pl().to_dicts()[0]
    for name in RecordQuality.__slots__:
        assert stored[name] == getattr(figures, name), name
    rows = filled.sql("from quality where record_id = 'ptbxl/00001'").pl().to_dicts()
    by_lead = {row.pop("lead"): row for row in rows}
    for lead in per_lead:
        for name in set(LeadQuality.__slots__) - {"lead"}:
            assert by_lead[lead.lead][name] == getattr(lead, name), (lead.lead, name)


def test_columns_are_those_of_the_figures() -> None:
    columns = set(TABLES["quality"].arrow.names) - {"record_id"}
    assert columns == set(LeadQuality.__slots__)
    assert set(RecordQuality.__slots__) <= set(TABLES["records"].arrow.names)
    assert {figure.column for figure in FIGURES} <= set(TABLES["records"].arrow.names)


def test_leads_beyond_the_twelve_have_figures_too(filled: Store) -> None:
    query = "select list(lead order by lead) from quality where record_id = 'frank/s0010_re'"
    assert set(one(filled, query)) >= {"X", "Y", "Z", "V6"}
    assert one(filled, "select count(*) from quality where record_id = 'beats/nsr001'") == 0


def test_any_figure_can_be_a_gate(filled: Store) -> None:
    flat = "select list(record_id order by record_id) from records where flat_leads > 0"
    assert one(filled, flat) == ["one-JS20004/JS20004", "one-JS20008/JS20008"]
    assert one(filled, "select count(*) from records where snr_db > 10 and reversal is null") > 5
    where = "flat_leads = 0 and rate_hz = 500 and list_contains(leads, 'aVR')"
    plan = filled.embed("stmem.tiny", where=where, dry_run=True, device="cpu", precision="fp32")
    assert plan.embedded == one(filled, f"select count(*) from records where {where}")


def test_copies_are_named_exact_ones_and_near_ones(filled: Store) -> None:
    query = "select record_id, duplicate_of, near_duplicate_of from records order by record_id"
    named = {a: (b, c) for a, b, c in filled.sql(query).fetchall() if b or c}
    assert named["more/example_12lead_huffman.scp"] == (
        "copies/example_500hz.dcm",
        None,
    )
    assert named["ptbxl/00001"] == ("copies/HR00001", None)
    assert "beats/nsr001" not in named


def test_a_copy_at_another_rate_is_near(
    tmp_path: Path, test_data: Path, write_wfdb: Callable[..., Path]
) -> None:
    store = Store(tmp_path / "warehouse")
    store.ingest(test_data / "data/ptbxl", dataset="ptbxl", limit=3, jobs=1)
    slow = test_data / "data/ptbxl/records100/00000/00002_lr.hea"
    store.ingest(slow, dataset="slow", jobs=1)
    result = store.quality(jobs=1)
    assert (result.assessed, result.existing) == (4, 0)
    query = "select near_duplicate_of from records where record_id = 'slow/00002_lr'"
    assert one(store, query) == "ptbxl/00002"


def test_records_without_samples_are_no_copies_of_each_other() -> None:
    assert equal_to(["a", "b", "c", "d"], ["x", None, "x", None]) == [None, None, "a", None]


def test_the_second_run_does_nothing_and_new_records_are_added(
    tmp_path: Path, write_wfdb: Callable[..., Path]
) -> None:
    rng = np.random.default_rng(0)
    for i in range(3):
        write_wfdb(tmp_path / "a", f"r{i}", rng.integers(-99, 99, (12, 2500)))
    store = Store(tmp_path / "warehouse")
    store.ingest(tmp_path / "a", dataset="x", jobs=1)
    plan = store.quality(dry_run=True)
    assert (plan.assessed, one(store, "select count(assessed) from records")) == (3, 0)
    assert store.quality(jobs=1).assessed == 3
    before = store.warehouse.versions()
    assert store.quality(jobs=1).assessed == 0
    assert store.warehouse.versions() == before
    write_wfdb(tmp_path / "b", "r9", rng.integers(-99, 99, (12, 2500)))
    store.ingest(tmp_path / "b", dataset="x", jobs=1)
    result = store.quality(jobs=1)
    assert (result.assessed, result.existing) == (1, 3)
    assert store.quality(jobs=1, overwrite=True, where="record_id < 'x/r2'").assessed == 2


def test_several_processes_give_the_same_as_one(
    tmp_path: Path, write_wfdb: Callable[..., Path]
) -> None:
    rng = np.random.default_rng(1)
    tables = []
    for i in range(4):
        write_wfdb(tmp_path / "a", f"r{i}", rng.integers(-99, 99, (12, 2500)))
    for jobs in (1, 2):
        store = Store(tmp_path / f"warehouse{jobs}")
        store.ingest(tmp_path / "a", dataset="x", jobs=1)
        store.ingest(tmp_path / "a", dataset="y", jobs=1)
        store.quality(jobs=jobs)
        tables.append(store.sql("from quality order by all").pl())
    assert tables[0].equals(tables[1])


def test_the_command_prints_a_row_a_figure(filled: Store, run: Callable[..., Any]) -> None:
    done = run("-w", filled.root, "quality", "--worst", 1, "--json")
    assert done.code == 0
    rows = json.loads(done.out)
    assert [row["figure"] for row in rows] == [figure.column for figure in FIGURES]
    flat = next(row for row in rows if row["figure"] == "flat_leads")
    assert (flat["flagged"], flat["worst"], flat["beyond"]) == (2, "one-JS20004/JS20004", "> 0")
    assert "0 records assessed" in done.err
    table = run("-w", filled.root, "quality", "--format", "table", "--where", "rate_hz = 500")
    assert "snr_db" in table.out


def test_the_picture_is_drawn_from_a_record_or_a_file(
    filled: Store, test_data: Path, tmp_path: Path, run: Callable[..., Any]
) -> None:
    out = tmp_path / "a.png"
    assert run("-w", filled.root, "plot", "ptbxl/00001", "-o", out).code == 0
    assert out.read_bytes().startswith(b"\x89PNG")
    file = test_data / "data/formats/muse_xml/muse_ecg1.xml"
    done = run("plot", file, "-o", tmp_path / "b.svg", "--start", 1)
    assert (done.code, done.err) == (0, f"written: {tmp_path / 'b.svg'}\n")
    assert b"<svg" in (tmp_path / "b.svg").read_bytes()
    unknown = run("-w", filled.root, "plot", "ptbxl/99999", "-o", out)
    assert unknown.code == 2
    assert "ptbxl/" in unknown.err
