"""A small warehouse to report on, and a reader of pages as strict as a browser is lax."""

from __future__ import annotations

from html.parser import HTMLParser
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from ecgstore.record import COLUMNS, LEADS
from ecgstore.schema import table_schema
from ecgstore.warehouse import Warehouse

if TYPE_CHECKING:
    from pathlib import Path

SAMPLES = 250
HOSTILE = '"><script>alert(1)</script>'
VOID = {"meta", "link", "br"}


def put(warehouse: Warehouse, name: str, rows: list[dict[str, object]]) -> None:
    schema = table_schema(name).arrow
    warehouse.append(name, pa.Table.from_pylist(rows, schema=schema), command="test")


def fill(
    root: Path,
    *,
    dataset: str = "cohort",
    task: str = "ACS",
    models: tuple[str, ...] = ("stmem", "ecgfm"),
    source: str = "weights.pt",
    n: int = 150,
) -> Warehouse:
    """Make a warehouse with records, labels and vectors; a third of the records are positive."""
    warehouse = Warehouse.create(root)
    rng = np.random.default_rng(0)
    ids = [f"{dataset}/{i:03d}" for i in range(n)]
    records: list[dict[str, object]] = [
        {
            "record_id": record_id,
            "patient_id": f"patient-{i // 2}",
            "dataset": dataset,
            "rate_hz": 100.0,
            "n_samples": SAMPLES,
            "leads": list(LEADS),
            "age": float(20 + i % 80),
            "sex": ("female", "male")[i % 2],
            "quality": ["baseline drift"] if i % 10 == 0 else [],
        }
        for i, record_id in enumerate(ids)
    ]
    put(warehouse, "records", records)
    counts = rng.integers(-300, 300, size=(12, SAMPLES)).astype(np.int16)
    waveform = dict(zip(COLUMNS, counts, strict=True))
    known = {"gain": [1000.0] * 12, "baseline": [0] * 12}
    put(warehouse, "waveforms", [{"record_id": i, **known, **waveform} for i in ids])
    labels = np.array([float(i % 3 == 0) for i in range(n)])
    rows = [{"record_id": i, "task": task, "label": y} for i, y in zip(ids, labels, strict=True)]
    put(warehouse, "labels", [dict(row) for row in rows])
    put(warehouse, "rejects", [{"source_uri": "a.dat", "reason": "truncated"}])
    for model in models:
        key = {"model": model, "version": "v1", "pooling": "mean", "dim": 5}
        about = {"licence": "MIT", "citation": "A. Author, A Paper. 2024.", "precision": "fp32"}
        put(warehouse, "models", [{**key, **about, "source": source, "weights_sha256": "ab" * 32}])
        x = rng.normal(size=(n, 5)) + labels[:, None]
        vectors = [
            {**key, "record_id": record_id, "n_windows": 1, "embedding": row.tolist()}
            for record_id, row in zip(ids, x, strict=True)
        ]
        put(warehouse, "embeddings", [dict(row) for row in vectors])
    return warehouse


class Page(HTMLParser):
    """Reads a page as a browser does and keeps what the checks need."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.cells: list[list[str]] = []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "br":
            self.handle_data(" ")
        if tag == "tr":
            self.cells.append([])
        if tag in {"td", "th"}:
            self.cells[-1].append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.words.append(data)
        if self.cells and {"td", "th"} & set(self.open):
            self.cells[-1][-1] += data.replace("\N{NO-BREAK SPACE}", " ")

    @property
    def text(self) -> str:
        return "".join(self.words).replace("\N{NO-BREAK SPACE}", " ")

    def named(self, *names: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name in names]
