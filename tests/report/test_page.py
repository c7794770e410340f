"""The report: its figures are those of the tables, and the page is safe, whole and repeatable."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score

from ecgstore.catalog import Catalog
from ecgstore.errors import UnknownNameError, UsageError
from ecgstore.evaluate import evaluate
from ecgstore.fuse import fuse
from ecgstore.predictions import Part, Predictions, predictions_of
from ecgstore.progress import Silent
from ecgstore.report import report
from ecgstore.report.build import render
from ecgstore.report.findings import GRID, pr_curve, roc_curve, runs
from ecgstore.report.gather import gather
from ecgstore.report.page import tag
from ecgstore.report.plots import histogram, scatter
from ecgstore.splitting.split import split
from ecgstore.train import train
from ecgstore.warehouse import Warehouse

from .pages import HOSTILE, Page, fill

if TYPE_CHECKING:
    from pathlib import Path

    from ecgstore.report.study import Study

DRAWS = 60
"""Resamples of an interval: enough to be one."""


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Warehouse:
    """Two models and their fusion, evaluated over three reshuffles; the fused run is kept."""
    warehouse = fill(tmp_path_factory.mktemp("study"))
    split(warehouse, "acs3", task="ACS", repeats=3, test_size=0.4)
    fuse(warehouse, ["stmem", "ecgfm"], name="fusion")
    params = {"n_estimators": 5, "max_depth": 2}
    train(warehouse, "fusion", "acs3", params=params)
    evaluate(warehouse, ["stmem", "ecgfm", "fusion"], "acs3", params=params, out_of_fold=2)
    return warehouse


@pytest.fixture(scope="module")
def found(study: Warehouse) -> Study:
    return gather(study, None, title=None, by=(), resamples=DRAWS, seed=0, progress=Silent())


@pytest.fixture(scope="module")
def page(found: Study) -> str:
    return render(found, "html")


@pytest.fixture(scope="module")
def figures(found: Study) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(render(found, "json"))
    return told


def cells_of(page: str, first: str, *, columns: int) -> list[str]:
    """Return the row of so many columns that begins with a word."""
    return next(row for row in Page(page).cells if row[0] == first and len(row) == columns)


def test_table_1_is_what_scikit_learn_says_of_the_stored_predictions(
    study: Warehouse, page: str
) -> None:
    with Catalog(study.relations()) as catalog:
        rows = catalog.table(
            "select features, repeat, list(label) as y, list(score) as s from predictions "
            "join (select distinct run_id, features from scores) using (run_id) "
            "where split = 'test' group by all"
        ).to_pylist()
    for features in ("stmem", "ecgfm", "fusion"):
        mine = [row for row in rows if row["features"] == features]
        assert len(mine) == 3
        shown = []
        for metric in (roc_auc_score, average_precision_score):
            values = [metric(row["y"], row["s"]) for row in mine]
            shown.append(f"{np.mean(values):.3f} ± {np.std(values, ddof=1):.3f}")
        assert cells_of(page, features, columns=7)[1:5:2] == shown


def test_the_page_shows_the_figures_that_json_holds(page: str, figures: dict[str, Any]) -> None:
    text = Page(page).text
    for run in figures["runs"]:
        row = cells_of(page, run["features"], columns=7)
        for place, metric in enumerate(figures["metrics"]):
            told = run["metrics"][metric]
            assert row[1 + 2 * place] == f"{told['mean']:.3f} ± {told['std']:.3f}"
            assert row[2 + 2 * place] == f"{told['low']:.3f} to {told['high']:.3f}"
            assert told["low"] <= told["mean"] <= told["high"]
    for row in figures["comparison"]["runs"]:
        assert f"{row['difference']:+.3f}".replace("-", "−") in text
        assert row["sentence"] in text
    assert figures["comparison"]["best_single"] in {run["run_id"] for run in figures["runs"]}
    best = figures["clinical"][figures["best"]]
    assert [row["rule"] for row in best["operating"]]
    for row in best["operating"]:
        assert f"{row['sensitivity']:.3f}" in text
    for row in best["calibration"]:
        assert f"{row['brier']:.3f}" in text
    for row in figures["subgroups"]:
        assert row["value"] is None or f"{row['value']:.3f}" in text
        assert row["value"] is not None or row["reason"] in text
    for row in figures["complementarity"]:
        assert row["value"] is None or f"{row['value']:.3f}".replace("-", "−") in text
    assert sum(len(rows) for rows in figures["shap"].values()) == 2
    for one in figures["examples"]["shown"]:
        assert f"{one['record_id']}: score {one['score']:.3f}" in text
    assert figures["check"][0]["what"] == "patient"


def test_markdown_says_what_the_page_says(found: Study, page: str) -> None:
    text = render(found, "md")
    words = set(re.findall(r"\d[\w.]+", text))
    shown = Page(page)
    cells = [cell for row in shown.cells for cell in row]
    lacking = {one for cell in cells for one in re.findall(r"\d[\w.]+", cell)} - words
    assert not lacking
    assert "<svg" not in text
    for picture in shown.named("svg"):
        assert picture.get("aria-hidden") or f"*Figure: {picture['aria-label']}"[:60] in text
    assert text.startswith("# ACS from the ECG\n")


def test_twelve_ecgs_are_where_the_run_is_surest(study: Warehouse, figures: dict[str, Any]) -> None:
    found = figures["examples"]
    with Catalog(study.relations()) as catalog:
        predictions = predictions_of(catalog, figures["best"])
    scores: dict[str, list[float]] = {}
    for part in predictions.parts:
        for place, score in zip(part.test, part.scores, strict=True):
            scores.setdefault(str(predictions.record_ids[place]), []).append(float(score))
    means = {name: float(np.mean(values)) for name, values in scores.items()}
    labels = dict(zip(predictions.record_ids, predictions.labels, strict=True))
    assert sum(found["counts"].values()) == len(means)
    assert "out-of-fold" in found["rule"]
    for kind, positive, label in (
        ("true positive", True, 1),
        ("false positive", True, 0),
        ("false negative", False, 1),
        ("true negative", False, 0),
    ):
        mine = {
            name: mean
            for name, mean in means.items()
            if (mean >= found["threshold"]) == positive and labels[name] == label
        }
        assert found["counts"][kind] == len(mine)
        wanted = sorted(mine, key=lambda name: (-mine[name] if positive else mine[name], name))
        shown = [one["record_id"] for one in found["shown"] if one["kind"] == kind]
        assert shown == wanted[:3]


def test_nobody_is_named_and_no_form_has_ids_of_patients(
    study: Warehouse, page: str, figures: dict[str, Any]
) -> None:
    with Catalog(study.relations()) as catalog:
        ids = catalog.table("select distinct patient_id from records")["patient_id"].to_pylist()
    for text in (page, json.dumps(figures)):
        assert not any(one in text for one in ids)


def test_published_figures_stand_beside_and_are_marked_as_another_cohort(page: str) -> None:
    read = Page(page)
    assert ["Features", "This cohort", "Published, another cohort*"] in read.cells
    assert "a private registry, 5,813 prehospital ECGs, 20.8 %" in read.text
    assert cells_of(page, "ecgfm", columns=7)[5:] == ["0.835 ± 0.012", "0.667 ± 0.024"]


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
    assert len(page) < 2_000_000


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


def test_a_second_call_changes_nothing(tmp_path: Path) -> None:
    warehouse = fill(tmp_path / "w", dataset="synthetic", models=(), n=8)
    (folder := tmp_path / "pages").mkdir()
    for form in ("html", "md", "json"):
        first = report(warehouse, folder / f"r.{form}")
        before = first.path.stat()
        second = report(warehouse, first.path)
        assert (first.written, second.written, second.runs) == (True, False, 0)
        assert first.path.stat().st_mtime_ns == before.st_mtime_ns
        assert "Synthetic cohort." in first.path.read_text() or form == "json"
    assert sorted(path.name for path in folder.iterdir()) == ["r.html", "r.json", "r.md"]
    with pytest.raises(UsageError, match="Unknown form 'pdf'"):
        report(warehouse, folder / "r.html", form="pdf")


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Warehouse:
    """Names that would be markup anywhere, and a model with random weights."""
    root = tmp_path_factory.mktemp("hostile")
    warehouse = fill(
        root / "w",
        dataset=HOSTILE,
        task=HOSTILE,
        models=("a.mini",),
        source="untrained (seed 0)",
        n=40,
    )
    split(warehouse, "s", task=HOSTILE, repeats=1)
    evaluate(warehouse, ["a.mini"], "s", params={"n_estimators": 2})
    return warehouse


def test_names_from_outside_are_shown_and_never_run(hostile: Warehouse, tmp_path: Path) -> None:
    out = tmp_path / "r.html"
    study = gather(
        hostile,
        None,
        title=HOSTILE,
        by=["sex", "age >= 'x'"],
        resamples=DRAWS,
        seed=0,
        progress=Silent(),
    )
    text = render(study, "html")
    out.write_text(text)
    read = Page(text)
    assert not read.named("script")
    assert text.count("<script") == 0
    assert HOSTILE in read.text
    assert "Untrained models." in read.text
    assert "a.mini untrained" in read.text
    assert "age >= 'x'" in read.text  # a wrong expression costs its chapter and says why
    plain = render(study, "md")
    assert "<script" not in re.sub(r"(`+).*?\1", "", plain, flags=re.DOTALL)
    assert another_process(hostile, out) == "False"


def another_process(warehouse: Warehouse, out: Path) -> str:
    """Write the report again elsewhere; return whether it changed."""
    program = (
        "import sys; from pathlib import Path; from ecgstore.report import report; "
        "from ecgstore.warehouse import Warehouse; "
        "print(report(Warehouse(Path(sys.argv[1])), Path(sys.argv[2]), title=sys.argv[3], "
        f"""resamples={DRAWS}, by=["sex", "age >= 'x'"]).written)"""
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(warehouse.root), str(out), HOSTILE],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONHASHSEED": "7"},
    )
    return done.stdout.strip()


def test_a_real_cohort_and_trained_models_are_not_marked(page: str) -> None:
    for mark in ("Synthetic cohort.", "Untrained models.", " untrained"):
        assert mark not in Page(page).text


def test_patients_on_both_sides_are_counted_and_said(tmp_path: Path, page: str) -> None:
    warehouse = fill(tmp_path / "w", models=("stmem",))
    split(warehouse, "s", task="ACS", repeats=1, group="none")
    text = Page(report(warehouse, tmp_path / "r.html", resamples=DRAWS).path.read_text()).text
    assert "Patients on both sides." in text
    assert "Patients on both sides." not in Page(page).text


def test_before_anything_is_evaluated_the_page_says_what_to_type(tmp_path: Path) -> None:
    empty = report(Warehouse.create(tmp_path / "empty"), tmp_path / "empty.html")
    assert (empty.runs, empty.split) == (0, None)
    assert "ECGs0" in Page(empty.path.read_text()).text
    warehouse = fill(tmp_path / "w")
    text = Page(report(warehouse, tmp_path / "r.html", resamples=DRAWS).path.read_text()).text
    assert "ecgstore split acs10 --task ACS" in text
    assert "ecgstore evaluate --features ecgfm --features stmem --split acs10" in text
    split(warehouse, "mine", task="ACS", repeats=1)
    text = Page(report(warehouse, tmp_path / "r.html", resamples=DRAWS).path.read_text()).text
    assert "ecgstore split" not in text
    assert "--split mine" in text


def test_which_split_must_be_clear(tmp_path: Path) -> None:
    warehouse = fill(tmp_path / "w", n=40)
    for name in ("one", "two"):
        split(warehouse, name, task="ACS", repeats=1)
    with pytest.raises(UsageError, match="2 splits: one, two"):
        report(warehouse, tmp_path / "r.html", resamples=DRAWS)
    with pytest.raises(UnknownNameError, match="three"):
        report(warehouse, tmp_path / "r.html", split="three", resamples=DRAWS)
    assert report(warehouse, tmp_path / "r.html", split="two", resamples=DRAWS).split == "two"


def test_a_page_that_cannot_be_written_leaves_nothing_behind(tmp_path: Path) -> None:
    warehouse = Warehouse.create(tmp_path / "w")
    folder = tmp_path / "pages"
    (folder / "r.html").mkdir(parents=True)
    for out in (folder / "r.html", folder / "nowhere" / "r.html"):
        with pytest.raises(UsageError, match="Cannot write"):
            report(warehouse, out)
    assert [path.name for path in folder.iterdir()] == ["r.html"]


def test_the_area_under_a_drawn_curve_is_the_score() -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat([0.0, 1.0], 150)
    scores = rng.normal(size=300) + labels
    places = np.arange(300)
    predictions = Predictions(
        *("r", "stmem", "logistic", "ACS", "binary", "s", ""),
        record_ids=places.astype(str).astype(object),
        labels=labels,
        patients=places,
        parts=(Part(0, 0, places, scores, places[:0], scores[:0]),),
    )
    roc, precision = roc_curve(predictions), pr_curve(predictions)
    assert roc is not None
    assert precision is not None
    auroc, area = roc_auc_score(labels, scores), average_precision_score(labels, scores)
    assert np.trapezoid(roc.mean, GRID) == pytest.approx(auroc, abs=0.01)
    assert np.mean(precision.mean[1:]) == pytest.approx(area, abs=0.02)
    assert not roc.std.any()


@settings(max_examples=30)
@given(st.text(st.characters(exclude_categories=["Cc", "Cs"])))
def test_any_text_comes_back_as_it_was(text: str) -> None:
    read = Page(tag("p", text, title=text))
    assert "".join(read.words) == text
    assert read.elements[0][1]["title"] == text
