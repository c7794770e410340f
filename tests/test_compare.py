"""Comparisons rest on the same records and patients, and their sentence says what they show."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa
import pytest
from sklearn.metrics import roc_auc_score

import ecgstore
from ecgstore.errors import NotEnoughDataError, UnknownNameError, UsageError
from ecgstore.laboratory.compare import compare
from ecgstore.schema import TABLES
from ecgstore.statistics.delong import paired
from ecgstore.statistics.resampled import corrected_t
from ecgstore.warehouse import Warehouse

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

N = 150
RNG = np.random.default_rng(8)
IDS = [f"syn/{i:04d}" for i in range(N)]
PATIENTS = RNG.integers(0, 90, N)
LABELS = (RNG.random(N) < 0.35) * 1.0
PARTS = [np.sort(RNG.choice(N, 60, replace=False)) for _ in range(4)]
COMMON = RNG.normal(size=N)
FAST: dict[str, Any] = {"resamples": 200}


def scores(signal: float, noise: float, *, seed: int) -> NDArray[np.float64]:
    rng = np.random.default_rng(seed)
    found: NDArray[np.float64] = signal * LABELS + COMMON + noise * rng.normal(size=N)
    return found


GOOD, LIKE, BAD = (
    scores(2.0, 0.3, seed=1),
    scores(2.0, 0.3, seed=2),
    scores(0.2, 1.0, seed=3),
)


FEWER = [part[part % 3 != 0] for part in PARTS]
OTHER = [np.sort(np.random.default_rng(5).choice(N, 60, replace=False)) for _ in range(2)]
ALONE = np.flatnonzero(LABELS == 0)[:20]
CHANGED = LABELS.copy()
CHANGED[PARTS[0][:2]] = 1 - CHANGED[PARTS[0][:2]]
RIGHT, WRONG = (0.9 / (1 + np.exp(-sign * (2 * LABELS - 1))) for sign in (2.0, 0.5))
SPLITS = {"s": PARTS, "t": OTHER, "u": [*PARTS, ALONE]}


class Written(NamedTuple):
    """A run as it stands in the tables."""

    scores: NDArray[Any]
    parts: Sequence[NDArray[Any]] = PARTS
    labels: NDArray[Any] = LABELS
    split_id: str = "s"
    task: str = "MI"
    features: str = ""
    classifier: str = "xgboost"


RUNS = {
    "good": Written(GOOD),
    "like": Written(LIKE),
    "bad": Written(BAD),
    "copy": Written(GOOD * 2),
    "fewer": Written(BAD, FEWER),
    "first.good": Written(GOOD, PARTS[:1]),
    "first.bad": Written(BAD, PARTS[:1]),
    "right": Written(RIGHT),
    "wrong": Written(WRONG),
    "far": Written(BAD, OTHER, split_id="t"),
    "five.good": Written(GOOD, SPLITS["u"], split_id="u"),
    "five.bad": Written(BAD, SPLITS["u"], split_id="u"),
    "alone.good": Written(GOOD, [ALONE]),
    "alone.bad": Written(BAD, [ALONE]),
    "fusion.x": Written(GOOD, features="fusion"),
    "fusion.l": Written(BAD, features="fusion", classifier="logistic"),
    "sick": Written(BAD, task="STTC"),
    "old": Written(BAD, PARTS[:1], CHANGED),
    "away": Written(BAD, [np.setdiff1d(np.arange(N), PARTS[0])]),
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Warehouse:
    """Return a warehouse with `RUNS`, as if they had been evaluated."""
    warehouse = Warehouse.create(tmp_path_factory.mktemp("compare") / "warehouse")
    records = {"record_id": IDS, "patient_id": [f"p{i}" for i in PATIENTS]}
    splits = [
        {"split_id": name, "repeat": repeat, "record_id": IDS[i], "task": "MI"}
        | {"split": "test" if i in set(test.tolist()) else "train"}
        for name, parts in SPLITS.items()
        for repeat, test in enumerate(parts)
        for i in range(N)
    ]
    predictions, scores = [], []
    for run_id, one in RUNS.items():
        about = {"features": one.features or run_id, "classifier": one.classifier}
        about |= {"task": one.task, "split_id": one.split_id, "target": "binary"}
        for repeat, test in enumerate(one.parts):
            here = {"run_id": run_id, "repeat": repeat}
            score = {"metric": "AUROC", "value": 0.5, "at": datetime.now(UTC)}
            scores.append(here | score | about)
            predictions += [
                here
                | {"record_id": IDS[i], "split": "test", "label": one.labels[i]}
                | {"score": one.scores[i] + 0.01 * repeat}
                for i in test
            ]
    for table, rows in {"splits": splits, "predictions": predictions, "scores": scores}.items():
        schema = pa.schema([TABLES[table].arrow.field(name) for name in rows[0]])
        warehouse.append(table, pa.Table.from_pylist(rows, schema=schema), command="test")
    warehouse.append("records", pa.table(records), command="test")
    return warehouse


def aurocs(column: NDArray[Any], parts: Sequence[NDArray[Any]] = PARTS) -> NDArray[np.float64]:
    return np.array([roc_auc_score(LABELS[i], column[i]) for i in parts])


def test_two_runs_by_hand(made: Warehouse) -> None:
    result = compare(made, ["good", "bad"], **FAST)
    row: dict[str, Any] = result.rows[0]
    difference = aurocs(GOOD) - aurocs(BAD)
    assert row["value_a"] == pytest.approx(aurocs(GOOD).mean())
    assert row["value_b"] == pytest.approx(aurocs(BAD).mean())
    assert row["difference"] == pytest.approx(difference.mean())
    corrected = corrected_t(difference, test_to_train=60 / 90)
    assert row["p_corrected"] == row["p"] == row["p_adjusted"] == pytest.approx(corrected.p)
    assert row["low_reshuffles"] == pytest.approx(corrected.interval.low)
    seen = np.unique(np.concatenate(PARTS))
    by_record = paired(LABELS[seen], GOOD[seen], BAD[seen], PATIENTS[seen])
    assert row["p_delong"] == pytest.approx(by_record.p, rel=0.5)  # reshuffles shift scores a bit
    assert 1 / 201 <= row["p_permutation"] < 0.05
    assert row["low"] < row["difference"] < row["high"]
    assert (row["quoted"], row["method"], row["reason"]) == ("corrected", "BCa", None)
    assert (row["records"], row["patients"]) == (len(seen), len(np.unique(PATIENTS[seen])))
    assert result.sentence.startswith(f"good is better than bad by {difference.mean():.3f} AUROC (")
    assert result.sentence.endswith("the data show a difference.")
    assert "95 % interval" in result.sentence
    assert "corrected p " in result.sentence
    assert not result.notes
    assert repr(result).startswith("CompareResult(MI, AUROC: 1 paired comparisons on ")


def test_the_order_of_the_runs_turns_the_difference_and_not_the_sentence(made: Warehouse) -> None:
    there, back = (compare(made, pair, **FAST) for pair in (["good", "like"], ["like", "good"]))
    assert there.rows[0]["difference"] == pytest.approx(-float(str(back.rows[0]["difference"])))
    assert there.sentence == back.sentence
    assert there.sentence.endswith("the data do not show a difference.")


def test_the_best_of_several_is_compared_with_each_and_p_is_adjusted(made: Warehouse) -> None:
    best = ["good", "like"][int(aurocs(LIKE).mean() > aurocs(GOOD).mean())]
    result = compare(made, ["bad", "good", "like"], **FAST)
    assert [row["a"] for row in result.rows] == [best, best]
    p = sorted(float(str(row["p"])) for row in result.rows)
    adjusted = sorted(float(str(row["p_adjusted"])) for row in result.rows)
    assert adjusted == pytest.approx([2 * p[0], max(2 * p[0], p[1])])
    assert "by Holm over 2 comparisons" in result.sentence
    bh = compare(made, ["bad", "good", "like"], correction="bh", **FAST)
    found = sorted(float(str(row["p_adjusted"])) for row in bh.rows)
    assert found == pytest.approx([min(2 * p[0], p[1]), p[1]])


def test_only_records_tested_in_both_are_compared_and_counted(made: Warehouse) -> None:
    result = compare(made, ["good", "fewer"], **FAST)
    (row,) = result.rows
    assert row["value_a"] == pytest.approx(aurocs(GOOD, FEWER).mean())
    every, kept = (len(np.unique(np.concatenate(one))) for one in (PARTS, FEWER))
    assert row["records"] == kept
    told = f"{every - kept} records were not tested in every run and are left out."
    assert result.notes == (told,)


def test_one_reshuffle_quotes_delong_and_another_metric_the_permutation(made: Warehouse) -> None:
    (row,) = compare(made, ["first.good", "first.bad"], **FAST).rows
    test = PARTS[0]
    expected = paired(LABELS[test], GOOD[test], BAD[test], PATIENTS[test])
    assert (row["quoted"], row["p"]) == ("DeLong", pytest.approx(expected.p))
    assert row["p_corrected"] is None
    assert row["reason"] == "needs two reshuffles"
    (row,) = compare(made, ["first.good", "first.bad"], metric="aucpr", **FAST).rows
    assert (row["quoted"], row["p_delong"]) == ("permutation", None)
    assert row["p"] == row["p_permutation"]
    assert row["metric"] == "AUCPR"


def test_what_is_lower_is_better_where_it_is_an_error(made: Warehouse) -> None:
    result = compare(made, ["wrong", "right"], metric="Brier", **FAST)
    assert result.rows[0]["difference"] > 0  # type: ignore[operator]
    assert result.sentence.startswith("right is better than wrong by 0.")


def test_runs_over_different_splits_are_compared_as_strangers(made: Warehouse) -> None:
    result = compare(made, ["good", "far"], **FAST)
    (row,) = result.rows
    assert (result.paired, row["quoted"]) == (False, "DeLong")
    assert (row["p_corrected"], row["p_permutation"]) == (None, None)
    assert row["value_b"] == pytest.approx(aurocs(BAD, OTHER).mean())
    assert result.notes[0] == (
        "The runs are over different splits ('s', 't'), so they are compared unpaired."
    )
    assert "patients were tested in all" in result.notes[1]
    both = compare(made, ["good", "far"], metric="AUCPR", **FAST)
    assert both.rows[0]["p"] is None
    assert " p " not in both.sentence


def test_a_reshuffle_on_which_the_metric_is_not_defined_is_left_out(made: Warehouse) -> None:
    result = compare(made, ["five.good", "five.bad"], **FAST)
    assert result.reshuffles == 4
    assert result.notes[-1] == "1 of 5 reshuffles are left out: AUROC is not defined on them."
    with pytest.raises(NotEnoughDataError, match="AUROC is not defined on the test part of any"):
        compare(made, ["alone.good", "alone.bad"], **FAST)


def test_equal_runs_have_no_difference(made: Warehouse) -> None:
    result = compare(made, ["good", "copy"], **FAST)
    (row,) = result.rows
    assert (row["difference"], row["p"], row["p_delong"], row["p_permutation"]) == (0, 1, 1, 1)
    assert result.sentence.startswith("good and copy have the same AUROC, 0.")


def test_names_tell_runs_apart(made: Warehouse) -> None:
    (row,) = compare(made, ["fusion.x", "fusion.l"], **FAST).rows
    assert (row["a"], row["b"]) == ("fusion (xgboost)", "fusion (logistic)")


@pytest.mark.parametrize(
    ("runs", "options", "error", "message"),
    [
        (["good"], {}, UsageError, "A comparison needs two runs."),
        (["good", "goo"], {}, UsageError, "The run 'good' is named twice."),
        (["good", "none"], {}, UnknownNameError, "Unknown run 'none'"),
        (["good", "bad"], {"metric": "MAE"}, UnknownNameError, "Unknown metric 'MAE'. Known metr"),
        (["good", "bad"], {"correction": "x"}, UnknownNameError, "Unknown correction 'x'"),
        (["good", "bad"], {"level": 1.5}, UsageError, "200 resamples at level 1.5 make no"),
        (["good", "sick"], {}, UsageError, "The runs differ in their task: 'MI', 'STTC'."),
        (
            ["first.good", "old"],
            {},
            UsageError,
            "The label of 2 records was changed between the runs.",
        ),
        (
            ["first.good", "away"],
            {},
            NotEnoughDataError,
            "No record was tested in all of these runs.",
        ),
    ],
)
def test_what_cannot_be_compared_is_one_sentence(
    made: Warehouse, runs: list[str], options: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match="^" + message.replace(".", r"\.")):
        compare(made, runs, **(FAST | options))


def test_the_command_prints_rows_and_says_the_sentence(
    made: Warehouse, run: Callable[..., Any]
) -> None:
    words = ("compare", "good", "bad", "--metric", "AUROC", "--resamples", "50")
    done = run("-w", made.root, *words)
    assert done.code == 0, done.err
    with ecgstore.connect(made.root) as store:
        result = store.compare(["good", "bad"], resamples=50)
    assert json.loads(done.out) == json.loads(json.dumps(result.rows[0]))
    assert done.err == result.sentence + "\n"
    assert not any(f"p{i}" in done.out.split('"') for i in range(90))
    assert "<p>good is better" in result._repr_html_()
