"""Calibration: figures by hand and by others' code, intervals by plain refits, recalibration."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import expit, logit
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import brier_score_loss

from ecgstore.errors import NotEnoughDataError, UsageError
from ecgstore.statistics.calibration import (
    bin_edges,
    brier,
    calibrate,
    calibration_error,
    calibration_line,
    in_the_large,
    murphy,
)
from ecgstore.statistics.logistic import logits
from ecgstore.statistics.recalibration import Isotonic, Platt, recalibration

LABELS = np.array([0, 0, 1, 0, 1, 1, 0, 1], dtype=np.float64)
SCORES = np.array([0.1, 0.1, 0.1, 0.1, 0.4, 0.4, 0.8, 0.8])


def drawn(n: int = 4000, *, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Return labels drawn from probabilities, and those probabilities."""
    rng = np.random.default_rng(seed)
    p = expit(rng.normal(-1, 1.3, n))
    return (rng.random(n) < p).astype(np.float64), p


def test_brier_and_its_parts_by_hand() -> None:
    # Squared: 3 x 0.01 + 0.81, 2 x 0.36, 0.64 + 0.04; of 8.
    assert brier(LABELS, SCORES) == pytest.approx((0.03 + 0.81 + 0.72 + 0.68) / 8)
    assert brier(LABELS, SCORES) == pytest.approx(brier_score_loss(LABELS, SCORES))
    edges = np.array([0.2, 0.6])
    found = murphy(LABELS, SCORES, edges)
    # Bins of 4, 2, 2 records with scores 0.1, 0.4, 0.8 and parts 1/4, 1, 1/2; half are positive.
    assert found.reliability == pytest.approx((4 * 0.15**2 + 2 * 0.6**2 + 2 * 0.3**2) / 8)
    assert found.resolution == pytest.approx((4 * 0.25**2 + 2 * 0.5**2 + 0) / 8)
    assert found.uncertainty == 0.25
    assert found.within == pytest.approx(0, abs=1e-15), "every bin holds one score"
    error = calibration_error(LABELS, SCORES, edges)
    assert error == pytest.approx((4 * 0.15 + 2 * 0.6 + 2 * 0.3) / 8)


def test_parts_of_brier_add_up_over_any_bins() -> None:
    labels, p = drawn(500)
    for edges in (bin_edges(p), bin_edges(p, bins=4, width="score"), np.empty(0)):
        one = murphy(labels, p, edges)
        total = one.reliability - one.resolution + one.uncertainty + one.within
        assert total == pytest.approx(one.brier)
        assert one.brier == pytest.approx(brier_score_loss(labels, p))
    assert one.resolution == pytest.approx(0), "one bin resolves nothing"


def test_bins_hold_equal_counts_or_are_equally_wide() -> None:
    _, p = drawn(1000)
    assert np.bincount(np.searchsorted(bin_edges(p), p, side="right")).tolist() == [100] * 10
    wide = bin_edges(p, bins=5, width="score")
    assert wide == pytest.approx([0.2, 0.4, 0.6, 0.8])
    assert len(bin_edges(np.full(50, 0.3))) == 1, "equal scores are not parted"
    with pytest.raises(UsageError, match="0 bins"):
        bin_edges(p, bins=0)


@pytest.mark.parametrize("distort", [1.0, 0.4, 3.0])
def test_slope_and_intercepts_are_those_of_other_code(distort: float) -> None:
    labels, p = drawn(800)
    scores = np.clip(expit(distort * logit(p) + 0.3), 1e-5, 1 - 1e-5)
    slope, intercept = calibration_line(labels, scores)
    other = LogisticRegression(C=np.inf, tol=1e-12, max_iter=1000)
    other.fit(logit(scores)[:, None], labels)
    assert (slope, intercept) == pytest.approx((other.coef_[0, 0], other.intercept_[0]), abs=1e-5)

    def loss(at: np.ndarray) -> float:
        z = logit(scores) + at[0]
        return float(np.sum(np.logaddexp(0, z) - labels * z))

    assert in_the_large(labels, scores) == pytest.approx(
        minimize(loss, [0.0], tol=1e-12).x[0], abs=1e-5
    )


def test_calibrated_scores_have_slope_1_and_intercept_0_within_their_intervals() -> None:
    labels, p = drawn()
    right = calibrate(labels, p, np.arange(4000) // 2, resamples=200)
    for one, truth in ((right.slope, 1), (right.intercept, 0), (right.in_the_large, 0)):
        assert one.low < truth < one.high
        assert one.value == pytest.approx(truth, abs=0.12)
    line = calibration_line(labels, p)
    assert (right.slope.value, right.intercept.value) == pytest.approx(line, abs=1e-9)
    assert right.in_the_large.value == pytest.approx(in_the_large(labels, p), abs=1e-9)
    assert right.brier.value == pytest.approx(brier(labels, p))
    assert right.brier.low < right.brier.value < right.brier.high
    inside = (right.bins.low <= right.bins.score) & (right.bins.score <= right.bins.high)
    assert inside.sum() >= 8
    assert right.bins.count.sum() == len(p)
    wrong = calibrate(labels, expit(2 * logit(p) + 1), np.arange(4000) // 8, resamples=200)
    assert wrong.slope.high < 0.6, "overconfident"
    assert wrong.in_the_large.high < 0, "too high on the whole"
    assert wrong.error.low > right.error.value


@pytest.mark.slow
def test_intervals_cover_what_is_true_at_their_level() -> None:
    covered = np.zeros(3)
    for seed in range(300):
        found = calibrate(*drawn(400, seed=seed), resamples=500, seed=seed)
        ends = zip((found.slope, found.intercept, found.in_the_large), (1, 0, 0), strict=True)
        covered += [one.low <= truth <= one.high for one, truth in ends]
    # 95 % of 300, within three standard errors of a binomial.
    assert (np.abs(covered / 300 - 0.95) < 3 * np.sqrt(0.95 * 0.05 / 300)).all(), covered


def test_intervals_are_those_of_a_bootstrap_that_refits_every_resample() -> None:
    labels, p = drawn(400, seed=4)
    patients = np.repeat(np.arange(200), 2)
    found = calibrate(labels, p, patients, resamples=500)
    rng, lines = np.random.default_rng(9), []
    for _ in range(200):
        chosen = rng.integers(0, 200, 200)
        rows = np.stack([2 * chosen, 2 * chosen + 1], axis=1).ravel()
        lines.append(
            (*calibration_line(labels[rows], p[rows]), in_the_large(labels[rows], p[rows]))
        )
    spread = np.std(lines, axis=0)
    for one, other in zip((found.slope, found.intercept, found.in_the_large), spread, strict=True):
        assert (one.high - one.low) / (2 * 1.96) == pytest.approx(other, rel=0.15)


def test_scores_of_0_and_1_are_moved_and_counted() -> None:
    scores = np.array([0.0, 0.2, 0.7, 1.0, 0.4, 1e-9])
    z, moved = logits(scores)
    assert moved == 3
    assert z[[0, 5]] == pytest.approx(logit(1e-6))
    assert z[1:3] == pytest.approx(logit([0.2, 0.7]))
    found = calibrate(np.array([0, 1, 0, 1, 1, 0.0]), scores, resamples=100)
    assert found.clipped == 3
    assert np.isfinite(found.slope.value)


@pytest.mark.parametrize(
    ("labels", "scores", "reason"),
    [
        ([0, 0, 0], [0.1, 0.2, 0.3], "no record is positive"),
        ([1, 1, 1], [0.1, 0.2, 0.3], "no record is negative"),
        ([0, 1, 0, 1], [0.5] * 4, "all scores are equal"),
        ([0, 0, 1, 1], [0.1, 0.2, 0.6, 0.7], "one threshold parts the classes"),
        ([1, 1, 0, 0], [0.1, 0.2, 0.2, 0.7], "one threshold parts the classes"),
    ],
)
def test_a_line_that_does_not_exist_is_not_told(
    labels: list[int], scores: list[float], reason: str
) -> None:
    found = calibrate(labels, scores, resamples=100)
    assert np.isnan([found.slope.value, found.slope.low, found.intercept.value]).all()
    assert found.reason is not None
    assert found.reason.startswith(reason)
    assert found.row["slope"] is None
    assert found.brier.value == pytest.approx(np.mean((np.array(scores) - labels) ** 2))


def test_what_is_no_probability_is_refused() -> None:
    for scores in ([0.2, 1.2], [-0.1, 0.5]):
        with pytest.raises(UsageError, match=r"^Calibration needs probabilities"):
            calibrate([0, 1], scores)
    with pytest.raises(UsageError, match=r"1 of 2 scores are NaN"):
        brier([0, 1], [np.nan, 0.5])


def test_platt_is_a_sigmoid_of_most_likelihood_with_smoothed_targets() -> None:
    labels, p = drawn(300)
    margins = 2 * logit(p) + 1
    fitted = recalibration(labels, margins, "platt")
    assert isinstance(fitted, Platt)
    assert not fitted.of_logit, "scores outside 0 to 1 are taken as they are"
    positive = labels.sum()
    targets = np.where(
        labels == 1, (positive + 1) / (positive + 2), 1 / (len(labels) - positive + 2)
    )

    def loss(at: np.ndarray) -> float:
        z = at[0] * margins + at[1]
        return float(np.sum(np.logaddexp(0, z) - targets * z))

    other = minimize(loss, [0.0, 0.0], tol=1e-12).x
    assert (fitted.slope, fitted.intercept) == pytest.approx(tuple(other), abs=1e-4)
    assert fitted.apply(margins) == pytest.approx(expit(other[0] * margins + other[1]), abs=1e-4)
    # Smoothed targets give a finite sigmoid even where one threshold parts the classes.
    parted = recalibration([0, 0, 1, 1], [0.1, 0.2, 0.8, 0.9], "platt")
    assert 0 < parted.apply([0.1])[0] < 0.5 < parted.apply([0.9])[0] < 1


def test_isotonic_is_that_of_scikit_learn() -> None:
    labels, p = drawn(400)
    scores = np.round(p, 2)  # with ties
    fitted = recalibration(labels, scores, "isotonic")
    assert isinstance(fitted, Isotonic)
    other = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip").fit(scores, labels)
    asked = np.linspace(-0.2, 1.2, 301)
    assert fitted.apply(asked) == pytest.approx(other.predict(asked), abs=1e-12)


def test_recalibration_on_a_held_part_mends_another() -> None:
    labels, p = drawn(20_000)
    scores = expit(2 * logit(p) + 1)
    held, rest = slice(0, 10_000), slice(10_000, None)
    before = calibration_error(labels[rest], scores[rest], bin_edges(scores[rest]))
    for method in ("platt", "isotonic"):
        after = recalibration(labels[held], scores[held], method).apply(scores[rest])
        assert brier(labels[rest], after) < brier(labels[rest], scores[rest])
        assert calibration_error(labels[rest], after, bin_edges(after)) < before / 2
    mended = recalibration(labels[held], scores[held], "platt")
    line = calibration_line(labels[rest], mended.apply(scores[rest]))
    assert line == pytest.approx((1, 0), abs=0.08)
    with pytest.raises(NotEnoughDataError, match=r"0 positive and 3 negative records"):
        recalibration([0, 0, 0], [0.1, 0.2, 0.3], "platt")
