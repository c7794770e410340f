"""Thresholds: counts by hand, published tables, and the choice of a threshold."""

from __future__ import annotations

import csv
import math
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest, chi2

from ecgstore.errors import NotEnoughDataError, UsageError
from ecgstore.statistics.operating import (
    FIGURES,
    Operating,
    confusion,
    operating,
    ppv_npv,
    threshold_for_sensitivity,
    threshold_for_specificity,
    threshold_of_youden,
)

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

DIAGNOSES = ("1dAVb", "RBBB", "LBBB", "SB", "AF", "ST")
READERS = {
    "DNN": "dnn",
    "cardio.": "cardiology_residents",
    "emerg.": "emergency_residents",
    "stud.": "medical_students",
}

LABELS = [0, 0, 1, 0, 1, 1]
SCORES = [0.1, 0.3, 0.3, 0.6, 0.7, 0.9]


def test_counts_and_figures_by_hand() -> None:
    found = operating(LABELS, SCORES, 0.5)
    assert found == Operating(tp=2, fp=1, fn=1, tn=2, threshold=0.5)
    assert [getattr(found, name) for name in FIGURES] == pytest.approx([2 / 3] * 5)
    assert operating(LABELS, SCORES, 0.3).tp == 3, "a score equal to the threshold reaches it"
    weighted = confusion([0, 1, 1], [1, 1, 0], [2, 3, 5])
    assert (weighted.tp, weighted.fp, weighted.fn, weighted.tn) == (3, 2, 5, 0)
    assert (weighted.sensitivity, weighted.specificity, weighted.ppv) == (3 / 8, 0, 3 / 5)
    assert weighted.f1 == pytest.approx(2 * 3 / (2 * 3 + 2 + 5))


def test_a_figure_without_denominator_is_not_a_number_and_says_why() -> None:
    nothing = operating(LABELS, SCORES, 2)
    assert math.isnan(nothing.ppv)
    assert nothing.why("ppv") == "no score reaches the threshold"
    assert (nothing.sensitivity, nothing.specificity, nothing.f1) == (0, 1, 0)
    assert nothing.why("sensitivity") is None
    assert confusion([1, 1], [1, 1]).why("specificity") == "no record is negative"
    assert math.isnan(nothing.wilson("ppv").low)


@pytest.mark.parametrize(("hits", "misses"), [(81, 182), (0, 20), (20, 0), (1, 2)])
def test_wilson_is_that_of_scipy(hits: int, misses: int) -> None:
    found = Operating(tp=hits, fn=misses, fp=3, tn=4).wilson("sensitivity")
    known = binomtest(hits, hits + misses).proportion_ci(method="wilson")
    assert (found.low, found.high) == pytest.approx((known.low, known.high), abs=1e-12)
    assert found.value == hits / (hits + misses)


def test_the_published_wilson_interval() -> None:
    # Newcombe, Statistics in Medicine 1998, table I: 81 of 263.
    found = Operating(tp=81, fn=182, fp=0, tn=0).wilson("sensitivity")
    assert (round(found.low, 4), round(found.high, 4)) == (0.2553, 0.3662)


def reading(test_data: Path, name: str) -> NDArray[np.float64]:
    """Return ``(827, 6)`` decisions of a reader of CODE-test."""
    path = test_data / "data/reference_outputs/code_test/data/annotations" / f"{name}.csv"
    with path.open(newline="") as stream:
        return np.array([[float(row[d]) for d in DIAGNOSES] for row in csv.DictReader(stream)])


def table(test_data: Path, name: str) -> list[list[str]]:
    path = test_data / "data/reference_outputs/code_test/outputs/tables" / name
    with path.open(newline="") as stream:
        return list(csv.reader(stream))


def test_scores_of_code_test_are_the_published_ones(test_data: Path) -> None:
    heads, readers, *rows = table(test_data, "scores.csv")
    figures = {"Precision": "ppv", "Recall": "sensitivity", "Specificity": "specificity"}
    figures |= {"F1 score": "f1"}
    truth = reading(test_data, "gold_standard")
    said = {reader: reading(test_data, name) for reader, name in READERS.items()}
    compared = 0
    for name, *published in rows:
        k = DIAGNOSES.index(name)
        for figure, reader, value in zip(heads[1:], readers[1:], published, strict=True):
            found = getattr(confusion(truth[:, k], said[reader][:, k]), figures[figure])
            assert f"{found:.3f}" == value, (name, figure, reader)
            compared += 1
    assert compared == 6 * 4 * 4


def test_confusion_matrices_of_code_test_are_the_published_ones(test_data: Path) -> None:
    readers, _, _, *rows = table(test_data, "confusion matrices.csv")
    truth = reading(test_data, "gold_standard")
    for negative, positive in zip(rows[::2], rows[1::2], strict=True):
        k = DIAGNOSES.index(negative[0])
        for column, reader in list(enumerate(readers))[2::2]:
            found = confusion(truth[:, k], reading(test_data, READERS[reader])[:, k])
            assert [found.tn, found.fp] == [float(x) for x in negative[column : column + 2]]
            assert [found.fn, found.tp] == [float(x) for x in positive[column : column + 2]]


def test_agreement_of_code_test_is_the_published_one(test_data: Path) -> None:
    """Cohen's kappa and McNemar's p of two readers come from such counts alone."""
    truth = reading(test_data, "gold_standard")
    kappas, mcnemars = (table(test_data, f"{name}.csv")[1:] for name in ("kappa", "mcnemar"))
    for (name, *kappa), (_, *mcnemar) in zip(kappas, mcnemars, strict=True):
        one, other = (reading(test_data, READERS[reader]) for reader in name.split(" vs "))
        for k in range(len(DIAGNOSES)):
            both = confusion(one[:, k], other[:, k])
            n = both.tp + both.fp + both.fn + both.tn
            chance = (both.tp + both.fn) * (both.tp + both.fp)
            chance = (chance + (both.tn + both.fp) * (both.tn + both.fn)) / n**2
            agree = ((both.tp + both.tn) / n - chance) / (1 - chance)
            assert f"{agree:.3f}" == kappa[k]
            right = confusion(one[:, k] == truth[:, k], other[:, k] == truth[:, k])
            apart = right.fp + right.fn
            p = chi2.sf((right.fp - right.fn) ** 2 / apart, 1) if apart else 1.0
            assert f"{p:.3f}" == mcnemar[k]


def test_thresholds_by_hand() -> None:
    assert threshold_for_sensitivity(LABELS, SCORES, 1) == 0.3
    assert threshold_for_sensitivity(LABELS, SCORES, 2 / 3) == 0.7, "2/3 of 3 are 2, not 3"
    assert threshold_for_sensitivity(LABELS, SCORES, 0.67) == 0.3
    assert threshold_for_specificity(LABELS, SCORES, 1 / 3) == 0.3
    assert threshold_for_specificity(LABELS, SCORES, 2 / 3) == 0.6
    assert threshold_for_specificity(LABELS, SCORES, 1) == 0.7
    # 0.7: 2/3 + 1; 0.3: 1 + 1/3; 0.9: 1/3 + 1.
    assert threshold_of_youden(LABELS, SCORES) == 0.7
    # Where no score is high enough, nothing is called positive.
    high = threshold_for_specificity([0, 1, 0], [0.9, 0.2, 0.9], 1)
    assert high > 0.9
    assert threshold_of_youden([0, 1, 0, 1], [0.5] * 4) == 0.5
    tied = threshold_of_youden([0, 1, 0, 1], [0.1, 0.2, 0.3, 0.4])
    assert tied == 0.4, "of equal indices the highest threshold"


CASES = st.lists(st.tuples(st.integers(0, 1), st.integers(0, 8)), min_size=2, max_size=40).filter(
    lambda rows: {label for label, _ in rows} == {0, 1}
)


@settings(max_examples=50, deadline=None)
@given(CASES, st.floats(0.01, 1))
def test_a_threshold_reaches_its_wish_and_the_next_would_not(
    rows: list[tuple[int, int]], wish: float
) -> None:
    labels, scores = np.array(rows, dtype=np.float64).T
    cuts = [*np.unique(scores), np.inf]
    high = threshold_for_sensitivity(labels, scores, wish)
    assert operating(labels, scores, high).sensitivity >= wish - 1e-9
    above = min(cut for cut in cuts if cut > high)
    assert operating(labels, scores, above).sensitivity < wish
    low = threshold_for_specificity(labels, scores, wish)
    assert operating(labels, scores, low).specificity >= wish - 1e-9
    if below := [cut for cut in cuts if cut < low]:
        assert operating(labels, scores, max(below)).specificity < wish
    best = operating(labels, scores, threshold_of_youden(labels, scores))
    every = [operating(labels, scores, cut) for cut in cuts]
    index = max(one.sensitivity + one.specificity for one in every[:-1])
    assert best.sensitivity + best.specificity == pytest.approx(index)


def test_predictive_values_at_another_prevalence() -> None:
    # 1,000 people, 1 % ill: 9 of 10 found, and 99 of the 990 others called ill.
    ppv, npv = ppv_npv(0.9, 0.9, 0.01)
    assert (float(ppv), float(npv)) == pytest.approx((9 / (9 + 99), 891 / 892))
    found = operating(LABELS, SCORES, 0.5)
    same = ppv_npv(found.sensitivity, found.specificity, 0.5)
    assert [float(one) for one in same] == pytest.approx([found.ppv, found.npv])
    assert np.isnan(ppv_npv([0.0, 1.0], [1.0, 1.0], 0.1)[0]).tolist() == [True, False]


def test_what_cannot_be_counted_is_refused() -> None:
    with pytest.raises(UsageError, match=r"^1 of 2 scores are NaN"):
        operating([0, 1], [0.5, math.nan], 0.5)
    with pytest.raises(UsageError, match="Labels other than 0 and 1"):
        operating([0, 2], [0.5, 0.5], 0.5)
    with pytest.raises(UsageError, match="scores need a threshold first"):
        confusion([0, 1], [0.2, 0.7])
    with pytest.raises(UsageError, match="do not fit scores of shape"):
        operating([0, 1], [0.2], 0.5)
    with pytest.raises(UsageError, match=r"sensitivity of 95 cannot be had"):
        threshold_for_sensitivity(LABELS, SCORES, 95)
    with pytest.raises(NotEnoughDataError, match=r"^No record is positive"):
        threshold_for_sensitivity([0, 0], [0.1, 0.2], 0.9)
    with pytest.raises(NotEnoughDataError, match=r"^No record is negative"):
        threshold_of_youden([1, 1], [0.1, 0.2])
    with pytest.raises(UsageError, match="prevalence of 5 cannot be"):
        ppv_npv(0.9, 0.9, 5)
