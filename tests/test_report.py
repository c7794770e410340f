"""The report: its figures are those of the tables, and the page is safe, whole and repeatable."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from html.parser import HTMLParser
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score

from ecgstore.catalog import Catalog
from ecgstore.errors import UnknownNameError, UsageError
from ecgstore.evaluate import evaluate
from ecgstore.fuse import fuse
from ecgstore.report import ReportResult, report
from ecgstore.report.findings import GRID, pr_curve, roc_curve, runs
from ecgstore.report.page import tag
from ecgstore.report.plots import histogram, scatter
from ecgstore.schema import table_schema
from ecgstore.split import split
from ecgstore.warehouse import Warehouse

if TYPE_CHECKING:
    from pathlib import Path

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
            "rate_hz": 500.0,
            "n_samples": 5000,
            "leads": ["I"] * 12,
            "age": float(20 + i % 80),
            "sex": ("female", "male")[i % 2],
            "quality": ["baseline drift"] if i % 10 == 0 else [],
        }
        for i, record_id in enumerate(ids)
    ]
    put(warehouse, "records", records)
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


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Warehouse:
    """Two models and their fusion, evaluated over three reshuffles."""
    warehouse = fill(tmp_path_factory.mktemp("study"))
    split(warehouse, "acs3", task="ACS", repeats=3)
    fuse(warehouse, ["stmem", "ecgfm"], name="fusion")
    params = {"n_estimators": 5, "max_depth": 2}
    evaluate(warehouse, ["stmem", "ecgfm", "fusion"], "acs3", params=params)
    return warehouse


@pytest.fixture(scope="module")
def written(study: Warehouse, tmp_path_factory: pytest.TempPathFactory) -> ReportResult:
    return report(study, tmp_path_factory.mktemp("page") / "r.html")


@pytest.fixture(scope="module")
def page(written: ReportResult) -> str:
    return written.path.read_text()


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


def test_table_1_is_what_scikit_learn_says_of_the_stored_predictions(
    study: Warehouse, page: str
) -> None:
    with Catalog(study.relations()) as catalog:
        rows = catalog.table(
            "select features, repeat, list(label) as y, list(score) as s from predictions "
            "join (select distinct run_id, features from scores) using (run_id) group by all"
        ).to_pylist()
    cells = Page(page).cells
    for features in ("stmem", "ecgfm", "fusion"):
        mine = [row for row in rows if row["features"] == features]
        assert len(mine) == 3
        shown = []
        for metric in (roc_auc_score, average_precision_score):
            values = [metric(row["y"], row["s"]) for row in mine]
            shown.append(f"{np.mean(values):.3f} ± {np.std(values, ddof=1):.3f}")
        assert next(row for row in cells if row[0] == features)[1:3] == shown


def test_published_figures_stand_beside_and_are_marked_as_another_cohort(page: str) -> None:
    read = Page(page)
    assert ["Features", "This cohort", "Published, another cohort*"] in read.cells
    assert "a private registry, 5,813 prehospital ECGs, 20.8 %" in read.text
    (ecgfm,) = (row for row in read.cells if row[0] == "ecgfm" and "±" in row[-1])
    assert ecgfm[3:] == ["0.835 ± 0.012", "0.667 ± 0.024"]


def test_the_cohort_is_counted(page: str) -> None:
    text = Page(page).text
    assert "ECGs150" in text
    assert "Patients75" in text
    assert "baseline drift: 15 (10.0 %)" in text
    assert "truncated: 1" in text
    low, middle, high = np.quantile([20 + i % 80 for i in range(150)], [0.25, 0.5, 0.75])
    assert f"median {middle:.0f} years (quartiles {low:.0f} and {high:.0f})" in text
    assert ["ACS", "50", "150", "33.3 %", ""] in Page(page).cells


def test_every_figure_can_be_traced(study: Warehouse, page: str) -> None:
    text = Page(page).text
    with Catalog(study.relations()) as catalog:
        for run in runs(catalog, "acs3"):
            assert run.run_id in text
            assert run.code in text
            listed = ", ".join(f"{name} {n}" for name, n in sorted(run.versions.items()))
            assert listed in text
        assert "abababababab" in text
        assert "A. Author, A Paper. 2024." in text
        for line in text.split("ecgstore sql ")[1:]:
            query = json.loads(line[: line.index('"', 1) + 1].replace("\n", " "))
            assert len(catalog.table(query))


def test_the_page_is_whole_alone_and_accessible(page: str) -> None:
    read = Page(page)
    ids = [a["id"] for _, a in read.elements if "id" in a]
    assert len(ids) == len(set(ids))
    for _, attributes in read.elements:
        assert attributes.get("aria-labelledby") in {None, *ids}
        assert not {"src", "srcset", "xlink:href", "onload", "onclick"} & set(attributes)
    assert all((a["href"] or "").startswith(("#", "data:")) for a in read.named("a", "link"))
    assert {(a["href"] or "")[1:] for a in read.named("a")} <= set(ids)
    assert not read.named("script", "iframe", "object", "img")
    assert "url(" not in page
    assert "@import" not in page
    assert all(a.get("aria-label") or a.get("aria-hidden") for a in read.named("svg"))
    assert all(a.get("scope") for a in read.named("th"))
    assert len(read.named("caption")) == len(read.named("table"))
    assert [name for name, _ in read.elements if name == "h1"] == ["h1"]
    assert len(page) < 1_500_000


def test_pictures_take_their_colours_from_the_page() -> None:
    xy = np.arange(8, dtype=np.float32).reshape(4, 2)
    pictures = [
        scatter(xy, np.array([True, False, True, False]), alt="map"),
        histogram(["a", "b"], {"x": [3, 1200], "y": [0, 5]}, x_label="Age", alt="ages"),
    ]
    for picture in pictures:
        assert "#" not in picture
        assert "rgb" not in picture
    assert "1,500" in pictures[1]


def test_a_second_call_changes_nothing(study: Warehouse, written: ReportResult) -> None:
    before = written.path.stat()
    second = report(study, written.path)
    assert (written.written, second.written) == (True, False)
    assert written.path.stat().st_mtime_ns == before.st_mtime_ns
    assert list(written.path.parent.iterdir()) == [written.path]
    assert second.runs == 3


def test_another_process_writes_the_same_bytes(study: Warehouse, page: str, tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from ecgstore.report import report; "
        "from ecgstore.warehouse import Warehouse; "
        "report(Warehouse(Path(sys.argv[1])), Path(sys.argv[2]))"
    )
    out = tmp_path / "r.html"
    subprocess.run(
        [sys.executable, "-c", program, str(study.root), str(out)],
        check=True,
        env={**os.environ, "PYTHONHASHSEED": "7"},
    )
    assert out.read_text() == page


def test_names_from_outside_are_shown_and_never_run(tmp_path: Path) -> None:
    warehouse = fill(tmp_path / "w", dataset=HOSTILE, task=HOSTILE, models=("stmem",), n=40)
    split(warehouse, "s", task=HOSTILE, repeats=1)
    evaluate(warehouse, ["stmem"], "s", params={"n_estimators": 2})
    text = report(warehouse, tmp_path / "r.html", title=HOSTILE).path.read_text()
    read = Page(text)
    assert not read.named("script")
    assert text.count("<script") == 0
    assert HOSTILE in read.text
    assert ["Features", "This cohort", "Published, another cohort*"] in read.cells


def test_synthetic_and_untrained_are_marked_and_real_ones_are_not(
    tmp_path: Path, page: str
) -> None:
    warehouse = fill(
        tmp_path / "w", dataset="synthetic", models=("stmem.mini",), source="untrained", n=40
    )
    split(warehouse, "s", task="ACS", repeats=1)
    evaluate(warehouse, ["stmem.mini"], "s", params={"n_estimators": 2})
    text = Page(report(warehouse, tmp_path / "r.html").path.read_text()).text
    for mark in ("Synthetic cohort.", "Untrained models.", "stmem.mini untrained"):
        assert mark in text
        assert mark not in Page(page).text


def test_patients_on_both_sides_are_counted_and_said(tmp_path: Path, page: str) -> None:
    warehouse = fill(tmp_path / "w", models=("stmem",))
    split(warehouse, "s", task="ACS", repeats=1, group="none")
    text = Page(report(warehouse, tmp_path / "r.html").path.read_text()).text
    assert "Patients on both sides." in text
    assert "Patients on both sides." not in Page(page).text


def test_before_anything_is_evaluated_the_page_says_what_to_type(tmp_path: Path) -> None:
    empty = report(Warehouse.create(tmp_path / "empty"), tmp_path / "empty.html")
    assert (empty.runs, empty.split) == (0, None)
    assert "ECGs0" in Page(empty.path.read_text()).text
    warehouse = fill(tmp_path / "w")
    text = Page(report(warehouse, tmp_path / "r.html").path.read_text()).text
    assert "ecgstore split acs10 --task ACS" in text
    assert "ecgstore evaluate --features ecgfm --features stmem --split acs10" in text
    split(warehouse, "mine", task="ACS", repeats=1)
    text = Page(report(warehouse, tmp_path / "r.html").path.read_text()).text
    assert "ecgstore split" not in text
    assert "--split mine" in text


def test_which_split_must_be_clear(tmp_path: Path) -> None:
    warehouse = fill(tmp_path / "w", n=40)
    for name in ("one", "two"):
        split(warehouse, name, task="ACS", repeats=1)
    with pytest.raises(UsageError, match="2 splits: one, two"):
        report(warehouse, tmp_path / "r.html")
    with pytest.raises(UnknownNameError, match="three"):
        report(warehouse, tmp_path / "r.html", split="three")
    assert report(warehouse, tmp_path / "r.html", split="two").split == "two"


def test_a_page_that_cannot_be_written_leaves_nothing_behind(tmp_path: Path) -> None:
    warehouse = Warehouse.create(tmp_path / "w")
    folder = tmp_path / "pages"
    (folder / "r.html").mkdir(parents=True)
    for out in (folder / "r.html", folder / "nowhere" / "r.html"):
        with pytest.raises(UsageError, match="Cannot write"):
            report(warehouse, out)
    assert [path.name for path in folder.iterdir()] == ["r.html"]


def test_the_area_under_a_drawn_curve_is_the_score(tmp_path: Path) -> None:
    warehouse = fill(tmp_path / "w", models=("stmem",), n=400)
    split(warehouse, "s", task="ACS", repeats=1, test_size=0.5)
    evaluate(warehouse, ["stmem"], "s")
    with Catalog(warehouse.relations()) as catalog:
        (run,) = runs(catalog, "s")
        roc, precision = roc_curve(catalog, run), pr_curve(catalog, run)
    assert roc is not None
    assert precision is not None
    assert np.trapezoid(roc.mean, GRID) == pytest.approx(run.values["AUROC"][0], abs=0.01)
    assert np.mean(precision.mean[1:]) == pytest.approx(run.values["AUCPR"][0], abs=0.02)
    assert not roc.std.any()


@settings(max_examples=30)
@given(st.text(st.characters(exclude_categories=["Cc", "Cs"])))
def test_any_text_comes_back_as_it_was(text: str) -> None:
    read = Page(tag("p", text, title=text))
    assert "".join(read.words) == text
    assert read.elements[0][1]["title"] == text
