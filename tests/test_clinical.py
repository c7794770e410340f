"""Clinical figures of a run: thresholds from training records, counts that can be had again."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from scipy.special import expit, logit
from scipy.stats import binomtest

import ecgstore
from ecgstore.errors import NotEnoughDataError, UnknownNameError, UsageError
from ecgstore.evaluate import evaluate
from ecgstore.laboratory.clinical import clinical, clinical_of
from ecgstore.predictions import Part, Predictions
from ecgstore.splitting.split import split
from ecgstore.statistics.operating import operating, threshold_for_sensitivity

if TYPE_CHECKING:
    from collections.abc import Callable

    from ecgstore.statistics.recalibration import RecalibrationMethod
    from ecgstore.tasks import Target
    from ecgstore.warehouse import Warehouse

PATIENTS, RECORDS, TESTED = 100, 200, 60
RUN = "feedfacecafe"


class Run:
    """A run as it is read: labels drawn from the probabilities that the scores are."""

    def __init__(self, *, repeats: int = 3, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self.patients = np.arange(RECORDS) % PATIENTS
        self.scores = expit(rng.normal(-0.5, 1.5, RECORDS))
        self.labels = (rng.random(RECORDS) < self.scores).astype(np.float64)
        order = [rng.permutation(RECORDS) for _ in range(repeats)]
        self.parts = [(np.sort(rows[TESTED:]), np.sort(rows[:TESTED])) for rows in order]
        self.out_of_fold = True
        self.target: Target = "binary"

    def read(self) -> Predictions:
        none = np.empty(0, np.intp)
        sides = [(train if self.out_of_fold else none, test) for train, test in self.parts]
        return Predictions(
            run_id=RUN,
            features="fusion",
            classifier="xgboost",
            task="ACS",
            target=self.target,
            split_id="s",
            protocol="",
            record_ids=np.array([f"syn/{i:04d}" for i in range(RECORDS)], dtype=object),
            labels=self.labels,
            patients=self.patients,
            parts=tuple(
                Part(n, RECORDS - TESTED, test, self.scores[test], train, self.scores[train])
                for n, (train, test) in enumerate(sides)
            ),
        )


def test_a_row_can_be_had_again_from_stored_predictions() -> None:
    run = Run()
    result = clinical_of(run.read(), thresholds=(0.5,), prevalence=0.05, resamples=200)
    assert [row["rule"] for row in result.rows] == [
        "sensitivity >= 0.9",
        "sensitivity >= 0.95",
        "sensitivity >= 0.99",
        "threshold 0.5",
    ]
    for row, wish in zip(result.rows, (0.9, 0.95, 0.99, None), strict=True):
        cuts = [
            0.5
            if wish is None
            else threshold_for_sensitivity(run.labels[train], run.scores[train], wish)
            for train, _ in run.parts
        ]
        assert row["threshold"] == pytest.approx(np.mean(cuts))
        assert (row["threshold_low"], row["threshold_high"]) == (min(cuts), max(cuts))
        each = [
            operating(run.labels[test], run.scores[test], cut)
            for cut, (_, test) in zip(cuts, run.parts, strict=True)
        ]
        tp, fp, fn, tn = (sum(getattr(one, n) for one in each) for n in ("tp", "fp", "fn", "tn"))
        assert [row[name] for name in ("tp", "fp", "fn", "tn")] == pytest.approx(
            [tp / 3, fp / 3, fn / 3, tn / 3]
        )
        sensitivity, specificity = tp / (tp + fn), tn / (tn + fp)
        known = {"sensitivity": sensitivity, "specificity": specificity, "ppv": tp / (tp + fp)}
        known |= {"npv": tn / (tn + fn), "f1": 2 * tp / (2 * tp + fp + fn)}
        known["ppv_at_0.05"] = 0.05 * sensitivity / (0.05 * sensitivity + 0.95 * (1 - specificity))
        for name, value in known.items():
            assert row[name] == pytest.approx(value)
            low, high = row[f"{name}_low"], row[f"{name}_high"]
            assert isinstance(low, float)
            assert isinstance(high, float)
            assert low <= value <= high
            assert low < high
        assert row["reason"] == (None if fn else "npv_at_0.05: all resamples are alike")
    assert result.notes == ()
    assert repr(result).startswith("ClinicalResult('fusion', ACS: 4 rules over 3 reshuffles, ")
    assert result._repr_html_().count("<tr>") == 5


def test_labels_of_test_records_choose_nothing() -> None:
    run = Run(repeats=1)
    ((_, test),) = run.parts
    truth = run.labels
    permuted = truth.copy()
    permuted[test] = np.random.default_rng(5).permutation(truth[test])
    how: RecalibrationMethod | None
    for how in (None, "platt", "isotonic"):
        found = []
        for run.labels in (truth, permuted):
            found.append(
                clinical_of(
                    run.read(), specificities=(0.9,), youden=True, recalibrate=how, resamples=100
                )
            )
        real, other = ([rule.thresholds for rule in one.rules] for one in found)
        assert len(real) == 5
        assert real == other
        assert found[0].prevalence == found[1].prevalence
        assert found[0].rows_of("calibration") != found[1].rows_of("calibration")


def test_the_same_parts_twice_are_no_more_patients() -> None:
    run = Run(repeats=1)
    once = clinical_of(run.read(), resamples=300)
    run.parts *= 2
    twice = clinical_of(run.read(), resamples=300)
    for row, same in zip(once.rows, twice.rows, strict=True):
        for name in ("tp", "sensitivity", "sensitivity_low", "sensitivity_high", "npv_low"):
            assert row[name] == pytest.approx(same[name])
    before, after = (one.calibration["as predicted"].row for one in (once, twice))
    assert before == pytest.approx(after)


def test_recalibration_mends_overconfident_scores() -> None:
    run = Run(seed=2)
    run.scores = expit(4 * logit(run.scores) + 1)
    predictions = run.read()
    for how in ("platt", "isotonic"):
        found = clinical_of(predictions, recalibrate=how, resamples=100)
        before, after = found.calibration["as predicted"], found.calibration[how]
        assert after.brier.value < before.brier.value
        assert found.decision is not None
        plain = clinical_of(predictions, resamples=100).decision
        assert plain is not None
        assert found.decision.model[:20].sum() > plain.model[:20].sum()
    platt = clinical_of(predictions, recalibrate="platt", resamples=100).calibration
    assert platt["as predicted"].slope.high < 0.6
    assert platt["platt"].slope.low < 1 < platt["platt"].slope.high


def test_without_out_of_fold_scores_given_thresholds_work() -> None:
    run = Run()
    run.out_of_fold = False
    predictions = run.read()
    result = clinical_of(predictions, thresholds=(0.3, 0.5), resamples=100)
    assert [row["rule"] for row in result.rows] == ["threshold 0.3", "threshold 0.5"]
    assert result.calibration["as predicted"].slope.value == pytest.approx(1, abs=0.5)
    assert result.decision is not None
    (note,) = result.notes
    assert note.startswith(f"Run {RUN!r} has no out-of-fold scores: no threshold can be chosen")
    assert note.endswith(
        "ecgstore evaluate --features fusion --split s --task ACS --classifier xgboost "
        "--out-of-fold 5"
    )
    assert clinical_of(predictions, sensitivities=(), thresholds=(0.3,), resamples=100).notes == ()
    with pytest.raises(NotEnoughDataError, match="has no out-of-fold scores"):
        clinical_of(predictions, recalibrate="platt")


def test_what_is_doubtful_is_said_in_a_sentence_each() -> None:
    run = Run()
    run.labels[:] = 0
    run.labels[np.setdiff1d(np.arange(RECORDS), run.parts[0][1])[:3]] = 1
    few = clinical_of(run.read(), thresholds=(2,), resamples=200)
    assert any(note.startswith("No test record of reshuffle 0 is positive;") for note in few.notes)
    assert any("tested records are positive: what rests on them" in note for note in few.notes)
    last = few.rows[-1]
    assert (last["ppv"], last["ppv_low"], last["sensitivity"]) == (None, None, 0)
    assert isinstance(last["reason"], str)
    assert last["reason"].startswith("ppv: no score reaches the threshold")
    assert "NaN" not in json.dumps(few.rows)

    run = Run()
    run.scores[:] = 0.5
    constant = clinical_of(run.read(), resamples=100)
    assert "All test scores of reshuffle 2 are 0.5: no threshold tells its records apart." in (
        constant.notes
    )
    assert constant.notes[-1].endswith("all scores are equal; slope and intercept are not defined.")
    assert {row["sensitivity"] for row in constant.rows} == {1}
    first = constant.rows[0]
    tested = np.unique(np.concatenate([test for _, test in run.parts]))
    ill = len(np.unique(run.patients[tested][run.labels[tested] == 1]))
    assert first["reason"] == "npv: every score reaches the threshold"
    # Nobody was missed, in no resample either: 1 is not certain for that.
    known = binomtest(ill, ill)
    assert (first["sensitivity_low"], first["sensitivity_high"]) == pytest.approx(
        tuple(known.proportion_ci(method="wilson"))
    )

    run = Run()
    run.scores = logit(run.scores)
    margins = clinical_of(run.read(), resamples=100)
    assert (margins.calibration, margins.decision) == ({}, None)
    assert "are no probabilities: " in margins.notes[-1]
    assert len(margins.rows) == 3
    assert margins.rows_of("decision") == []
    mended = clinical_of(run.read(), recalibrate="platt", resamples=100)
    assert list(mended.calibration) == ["platt"]
    assert mended.decision is not None


def test_what_cannot_be_told_is_refused() -> None:
    predictions = Run().read()
    with pytest.raises(UsageError, match="Cannot recalibrate by 'beta'"):
        clinical_of(predictions, recalibrate="beta")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="prevalence of 5 cannot be"):
        clinical_of(predictions, prevalence=5)
    with pytest.raises(UsageError, match="sensitivity of 95 cannot be had"):
        clinical_of(predictions, sensitivities=(95,))
    with pytest.raises(UsageError, match="threshold of nan parts nothing"):
        clinical_of(predictions, thresholds=(float("nan"),))
    run = Run()
    run.scores[run.parts[0][1][0]] = np.nan
    with pytest.raises(UsageError, match="scores are NaN"):
        clinical_of(run.read())
    run = Run()
    run.target = "continuous"
    with pytest.raises(UsageError, match="'ACS' has continuous labels"):
        clinical_of(run.read())


def test_a_run_that_was_evaluated_out_of_fold_is_told_by_library_and_command(
    cohort: Callable[..., Warehouse], run: Callable[..., Any]
) -> None:
    warehouse = cohort(records=400)
    split(warehouse, "s", task="ACS", repeats=2)
    scored = evaluate(warehouse, ["alpha"], "s", classifier="logistic", out_of_fold=3)
    name = scored.scores[0].run_id
    options = {"prevalence": 0.05, "recalibrate": "platt", "resamples": 100}
    result = ecgstore.connect(warehouse.root).clinical(name[:6], **options)  # type: ignore[arg-type]
    assert result.notes == ()
    high, _, low = (rule.thresholds for rule in result.rules)
    assert all(a > b for a, b in zip(high, low, strict=True))
    assert result.rules[0].figures["sensitivity"].high > 0.9
    assert list(result.calibration) == ["as predicted", "platt"]
    asked = [f"--{key}={value}" for key, value in options.items()]
    for what in ("calibration", "decision"):
        done = run("-w", warehouse.root, "clinical", name, *asked, "--show", what)
        assert (done.code, done.err) == (0, "")
        assert [json.loads(line) for line in done.out.splitlines()] == result.rows_of(what)
    one = run("-w", warehouse.root, "clinical", name, "--sensitivity=0.8", "--threshold=0.4",
              "--youden", "--resamples=100")  # fmt: skip
    rules = [json.loads(line)["rule"] for line in one.out.splitlines()]
    assert rules == ["sensitivity >= 0.8", "Youden", "threshold 0.4"]
    with pytest.raises(UnknownNameError, match="Unknown run 'nothing'"):
        clinical(warehouse, "nothing")
