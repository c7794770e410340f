"""Figures of groups are right, groups come from any SQL, and small ones get no figure."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pytest
from sklearn.metrics import roc_auc_score

from ecgstore.catalog import Catalog
from ecgstore.errors import UnknownNameError, UsageError
from ecgstore.laboratory.groups import groups_of, shut
from ecgstore.laboratory.subgroups import subgroups
from ecgstore.schema import table_schema
from ecgstore.warehouse import Warehouse

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

N, REPEATS = 600, 2
FEW: dict[str, Any] = {"resamples": 200}


class Study:
    """A run over two reshuffles, predictable in men and less so in women."""

    def __init__(self, root: Path, *, effect: float = 2.0, target: str = "binary") -> None:
        rng = np.random.default_rng(0)
        self.ids = [f"syn/{i:04d}" for i in range(N)]
        self.patient = rng.integers(0, 400, N)
        self.sex = np.where(rng.random(N) < 0.5, "male", "female").astype(object)
        self.sex[:60] = None
        self.age = rng.integers(20, 90, N).astype(float)
        self.y = (rng.random(N) < 0.4).astype(float)
        gain = np.where(self.sex == "male", effect, 0.8)
        if target == "continuous":
            self.y = rng.normal(size=N)
        self.scores = rng.normal(size=(REPEATS, N)) + gain * self.y
        self.test = rng.random((REPEATS, N)) < 0.5
        self.warehouse = Warehouse.create(root)
        self._write("records", self._records())
        for repeat in range(REPEATS):
            split = np.where(self.test[repeat], "test", "train")
            rows = {
                "run_id": ["a1b2c3"] * N,
                "repeat": [repeat] * N,
                "record_id": self.ids,
                "split": split.tolist(),
                "score": self.scores[repeat],
                "label": self.y,
            }
            self._write("predictions", rows)
            sides = {name: rows[name] for name in ("repeat", "record_id", "split")}
            told = {"split_id": ["s"] * N, "task": ["ACS"] * N, "params": ['{"task": "ACS"}'] * N}
            self._write("splits", told | sides)
        scored = {
            "run_id": ["a1b2c3"],
            "repeat": [0],
            "metric": ["AUROC"],
            "at": [datetime.now(UTC)],
            "features": ["alpha"],
            "task": ["ACS"],
            "split_id": ["s"],
            "classifier": ["logistic"],
            "target": [target],
            "value": [0.5],
        }
        self._write("scores", scored)

    def _records(self) -> dict[str, object]:
        return {
            "record_id": self.ids,
            "patient_id": [f"secret-{p}" for p in self.patient],
            "sex": self.sex.tolist(),
            "age": self.age,
            "device": ["one"] * (N - 8) + ["rare"] * 8,
        }

    def _write(self, table: str, rows: dict[str, Any]) -> None:
        schema = table_schema(table).arrow
        fields = pa.schema([schema.field(name) for name in rows])
        self.warehouse.append(table, pa.table(rows, schema=fields), command="test")

    def auroc(self, mask: NDArray[np.bool_]) -> float:
        chosen = [mask & test for test in self.test]
        found = [roc_auc_score(self.y[m], s[m]) for m, s in zip(chosen, self.scores, strict=True)]
        return float(np.mean(found))


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    return Study(tmp_path_factory.mktemp("study") / "w")


@pytest.fixture(scope="module")
def catalog(study: Study) -> Iterator[Catalog]:
    with Catalog(study.warehouse.relations()) as catalog:
        shut(catalog)
        yield catalog


def test_figures_of_groups_equal_those_of_their_records(study: Study) -> None:
    result = subgroups(study.warehouse, "a1b2", ["sex", "age >= 65"], **FEW)
    rows: dict[Any, Any] = {(row["by"], row["group"]): row for row in result.rows}
    order = [("", "all"), ("sex", "female"), ("sex", "male"), ("sex", "not known")]
    assert list(rows) == [*order, ("age >= 65", "false"), ("age >= 65", "true")]
    masks = {
        ("", "all"): np.ones(N, dtype=bool),
        ("sex", "male"): study.sex == "male",
        ("sex", "not known"): study.sex == None,  # noqa: E711  an array of objects
        ("age >= 65", "true"): study.age >= 65,
    }
    tested = study.test.any(axis=0)
    for key, mask in masks.items():
        row, mine = rows[key], mask & tested
        assert row["value"] == pytest.approx(study.auroc(mask), abs=1e-12)
        assert row["low"] < row["value"] < row["high"]
        assert row["records"] == mine.sum()
        assert row["patients"] == len(set(study.patient[mine]))
        assert row["positives"] == study.y[mine].sum()
        sensitivity, specificity = [], []
        for test, scores in zip(study.test, study.scores, strict=True):
            ranked = np.sort(scores[~test & (study.y == 1)])[::-1]
            limit = ranked[int(np.ceil(0.95 * len(ranked))) - 1]
            there = mask & test
            sensitivity.append((scores[there & (study.y == 1)] >= limit).mean())
            specificity.append((scores[there & (study.y == 0)] < limit).mean())
        assert row["sensitivity"] == pytest.approx(np.mean(sensitivity))
        assert row["specificity"] == pytest.approx(np.mean(specificity))
    assert "secret" not in str(result.rows) + str(result.sentences)


def test_a_difference_is_found_where_it_is_and_not_where_it_is_not(study: Study) -> None:
    by = ["coalesce(sex, 'female')", "age >= 65"]
    sex, age = subgroups(study.warehouse, "a1b2c3", by, **FEW).tests
    assert sex.found is not None
    assert age.found is not None
    assert sex.p_adjusted == pytest.approx(2 * sex.found.p)
    assert sex.found.p < 0.001 < age.found.p
    assert "differs between groups by more than chance: from 0.7" in sex.sentence
    assert "(Holm over 2)" in sex.sentence
    assert "is not shown to differ" in age.sentence


def test_small_groups_are_counted_and_get_no_figure(study: Study) -> None:
    result = subgroups(study.warehouse, "a1b2c3", ["device", "sex = 'x'"], **FEW)
    rare: Any = next(row for row in result.rows if row["group"] == "rare")
    assert (rare["value"], rare["low"]) == (None, None)
    assert 0 < rare["records"] <= 8
    assert rare["reason"].endswith("patients; 20 are needed")
    assert result.tests[0].sentence == (
        "device: whether AUROC differs cannot be told: only one group is large enough."
    )
    assert result.tests[0].found is None


def test_a_group_of_one_class_gets_no_figure(tmp_path: Path) -> None:
    study = Study(tmp_path / "w")
    records = study.warehouse.table("records").read().to_pylist()
    sites = [{**row, "site": f"{study.y[int(row['record_id'][4:])]:.0f}"} for row in records]
    schema = study.warehouse.table("records").read().schema
    study.warehouse.replace("records", pa.Table.from_pylist(sites, schema=schema), command="test")
    result = subgroups(study.warehouse, "a1b2c3", ["site"], **FEW)
    reasons = [row["reason"] for row in result.rows if row["by"]]
    assert reasons == ["0 positive records; 10 are needed", "0 negative records; 10 are needed"]
    assert "no group is large enough" in result.sentences[0]


def test_numbers_have_groups_too(tmp_path: Path) -> None:
    study = Study(tmp_path / "w", target="continuous")
    result = subgroups(study.warehouse, "a1b2c3", ["sex"], metrics=["pearson R"], **FEW)
    male = next(row for row in result.rows if row["group"] == "male")
    mask = study.sex == "male"
    wanted = [
        np.corrcoef(study.y[mask & t], s[mask & t])[0, 1]
        for t, s in zip(study.test, study.scores, strict=True)
    ]
    assert (male["metric"], male["positives"]) == ("Pearson r", None)
    assert male["value"] == pytest.approx(np.mean(wanted))
    with pytest.raises(UnknownNameError, match="Unknown metric 'AUROC'"):
        subgroups(study.warehouse, "a1b2c3", ["sex"], metrics=["AUROC"])


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("sexx", 'Referenced column "sexx" not found'),
        ("age >=", "syntax error"),
        ("true) from records; drop view records; select (1", "syntax error"),
        ("1) as value from records), told as (select (2", "Duplicate CTE name"),
        ("1), other as (select 'x'", "Cannot group by"),
        ("unnest([1, 2])", "several values"),
        ("record_id", "has 600 values; at most 20"),
        ("patient_id", 'Referenced column "patient_id" not found'),
        ("(select max(content) from read_text('{file}'))", "file system operations are disabled"),
        ("(select max(a) from '{file}')", "file system operations are disabled"),
        ("count(*)", "must appear in the GROUP BY"),
    ],
)
def test_what_makes_no_groups_is_refused_in_a_sentence(
    catalog: Catalog, study: Study, tmp_path: Path, expression: str, message: str
) -> None:
    file = tmp_path / "other.csv"
    file.write_text("a\n1\n")
    with pytest.raises(UsageError) as caught:
        groups_of(catalog, expression.replace("{file}", str(file)), np.array(study.ids))
    assert message in caught.value.message
    assert "\n" not in caught.value.message
    assert caught.value.hint


def test_other_tables_and_comments_may_be_used(catalog: Catalog, study: Study) -> None:
    asked = "record_id in (select record_id from predictions where score > 1) -- high"
    found = groups_of(catalog, asked, np.array(study.ids[:50]))
    high = (study.scores[:, :50] > 1).any(axis=0)
    assert list(found) == ["false", "true"]
    assert np.array_equal(found["true"], high)


def test_the_command_prints_rows_and_a_sentence_an_expression(
    study: Study, run: Callable[..., Any]
) -> None:
    words = ("subgroups", "a1b2c3", "--by", "sex", "--resamples", "100", "--format", "csv")
    done = run("-w", study.warehouse.root, *words)
    assert done.code == 0
    assert done.out.splitlines()[0].startswith("by,group,records,patients,positives,metric,value")
    assert len(done.out.splitlines()) == 5
    assert done.err.startswith("sex: AUROC differs between groups by more than chance")
    wrong = run("-w", study.warehouse.root, "subgroups", "a1b2c3", "--by", "sexx")
    assert (wrong.code, wrong.out) == (2, "")
    assert wrong.err.startswith("error: Cannot group by 'sexx': Binder Error")
