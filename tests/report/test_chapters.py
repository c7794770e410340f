"""Chapters that depend on the kind of task, on families of tasks and on protocols."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import numpy as np
import pytest

from ecgstore.progress import Silent
from ecgstore.report.build import render
from ecgstore.report.checklist import ITEMS, UNKNOWN
from ecgstore.report.gather import gather
from ecgstore.statistics.metrics import measure

from .pages import Page, fill, put

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ecgstore.report.study import Study
    from ecgstore.tasks import Target
    from ecgstore.warehouse import Warehouse

N = 60


def drawn(warehouse: Warehouse, name: str, task: str, **params: object) -> None:
    """Store a split in which all records are tested twice."""
    told = json.dumps({"method": "kfold", "group": "patient_id", "seed": 0, **params})
    put(
        warehouse,
        "splits",
        [
            {
                "split_id": name,
                "repeat": repeat,
                "record_id": f"cohort/{i:03d}",
                "split": "test" if i % 2 == repeat else "train",
                "task": task,
                "params": told,
            }
            for repeat in (0, 1)
            for i in range(N)
        ],
    )


def scored(
    warehouse: Warehouse,
    split: str,
    task: str,
    labels: NDArray[np.float64],
    scores: NDArray[np.float64],
    *,
    features: str = "stmem",
    target: Target = "binary",
) -> list[dict[str, float]]:
    """Store a run, and return its metrics."""
    run_id = f"{split}-{task}-{features}"
    found = []
    for repeat in (0, 1):
        places = np.arange(N)[np.arange(N) % 2 == repeat]
        key = {"run_id": run_id, "repeat": repeat}
        put(
            warehouse,
            "predictions",
            [
                {
                    **key,
                    "record_id": f"cohort/{i:03d}",
                    "split": "test",
                    "score": float(scores[i]),
                    "label": float(labels[i]),
                }
                for i in places
            ],
        )
        values = measure(labels[places], scores[places], target)
        found.append(values)
        put(
            warehouse,
            "scores",
            [
                {
                    **key,
                    "metric": metric,
                    "at": datetime(2026, 1, 1, tzinfo=UTC),
                    "features": features,
                    "task": task,
                    "split_id": split,
                    "classifier": "logistic",
                    "value": value,
                    "target": target,
                }
                for metric, value in values.items()
            ],
        )
    return found


def gathered(warehouse: Warehouse, split: str) -> Study:
    return gather(warehouse, split, title=None, by=(), resamples=40, seed=0, progress=Silent())


@pytest.fixture(scope="module")
def warehouse(tmp_path_factory: pytest.TempPathFactory) -> Warehouse:
    """Two tasks and an age over the sound split, one of them over the paper's as well."""
    found = fill(tmp_path_factory.mktemp("chapters") / "w", models=(), n=N)
    rng = np.random.default_rng(1)
    labels = np.array([float(i % 3 == 0) for i in range(N)])
    drawn(found, "sound", "ACS,AF", protocol="sound")
    drawn(found, "paper", "ACS", protocol="paper")
    drawn(found, "ages", "age")
    noise = rng.normal(size=N)
    for features, weight in (("stmem", 1.0), ("ecgfm", 0.3)):
        for task in ("ACS", "AF"):
            scored(found, "sound", task, labels, weight * labels + noise, features=features)
        scored(found, "paper", "ACS", labels, weight * labels + 0.5 * noise, features=features)
    age = 50 + 10 * noise
    scored(found, "ages", "age", age, age + rng.normal(size=N), target="continuous")
    return found


@pytest.fixture(scope="module")
def sound(warehouse: Warehouse) -> Study:
    return gathered(warehouse, "sound")


def test_both_protocols_stand_side_by_side(sound: Study) -> None:
    gaps = {gap.features: gap for gap in sound.gaps}
    assert set(gaps) == {"stmem", "ecgfm"}
    cells = Page(render(sound, "html")).cells
    for name, gap in gaps.items():
        row = next(row for row in cells if row[0] == name and row[1] == "logistic")
        paper, mine = gap.means["paper"], gap.means["sound"]
        assert row[2:5] == [
            f"{paper:.3f}",
            f"{mine:.3f}",
            f"{paper - mine:+.3f}".replace("-", "−"),
        ]
    assert "flatters" in render(sound, "md")


def test_a_family_is_a_table_of_tasks_with_its_macro_average(sound: Study) -> None:
    assert sound.task == "ACS"  # the task with most labels is worked out
    cells = Page(render(sound, "html")).cells
    macro = next(row for row in cells if row[0] == "Macro average of 2 tasks")
    figures = json.loads(render(sound, "json"))["family"]
    for place, features in enumerate(("ecgfm", "stmem")):
        mine = [row["AUROC"] for row in figures if row["features"] == features]
        assert len(mine) == 2
        assert f"{np.mean(mine):.3f}" in macro, place


def test_columns_follow_the_target(warehouse: Warehouse) -> None:
    study = gathered(warehouse, "ages")
    page = Page(render(study, "html"))
    assert "Can “age” be measured from the ECG?" in page.text
    assert "always the mean has an R2 of 0" in page.text
    assert "AUROC" not in page.text
    assert ["Features", "This cohort"] in page.cells
    names = {(a.get("id") or "") for a in page.named("section")}
    assert "result" in names
    assert not {"curves", "clinical", "examples", "protocols"} & names


def test_every_item_of_the_checklist_is_answered_or_left_to_the_authors(sound: Study) -> None:
    page = Page(render(sound, "html"))
    rows = [row for row in page.cells if row[0] in {str(number) for number in ITEMS}]
    rows = [row for row in rows if len(row) == 4]
    assert [row[0] for row in rows] == [str(number) for number in range(1, 28)]
    answered = {row[0]: row[3] for row in rows}
    assert answered["17"] == UNKNOWN
    assert "60" in answered["20"]


def test_text_can_be_read_in_both_themes(sound: Study) -> None:
    page = render(sound, "html")
    light, dark = (
        dict(re.findall(r"--([\w-]+): (#\w{6})", block))
        for block in re.findall(r":root \{(.*?)\}", page, flags=re.DOTALL)
    )
    for theme in (light, {**light, **dark}):
        for words in ("text", "muted", "link", *(f"series-{i}" for i in range(6))):
            least = 3.0 if words.startswith("series") else 4.5
            for surface in ("surface", "raised"):
                assert contrast(theme[words], theme[surface]) >= least, (words, surface)
        assert contrast(theme["warn"], theme["warn-surface"]) >= 4.5


def contrast(one: str, other: str) -> float:
    """Return the contrast ratio of WCAG 2.2."""
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def luminance(colour: str) -> float:
    values = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])
