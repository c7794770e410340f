"""Metrics equal scikit-learn's on every resample, and say where they are not defined."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from ecgstore.errors import UsageError
from ecgstore.statistics.bootstrap import counts_of
from ecgstore.statistics.metrics import METRICS, measure, reported

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Plain = Callable[[NDArray[Any], NDArray[Any]], float]


def _rmse(y: NDArray[Any], s: NDArray[Any]) -> float:
    return float(sk.mean_squared_error(y, s) ** 0.5)


def _decided(plain: Callable[..., float], **options: Any) -> Plain:
    return lambda y, s: float(plain(y, s.argmax(axis=1), **options))


PLAIN: dict[str, Plain] = {
    "AUROC": sk.roc_auc_score,
    "AUCPR": sk.average_precision_score,
    "Brier": sk.brier_score_loss,
    "log loss": lambda y, s: float(sk.log_loss(y, s, labels=[0, 1])),
    "macro AUROC": lambda y, s: float(sk.roc_auc_score(y, s, multi_class="ovr")),
    "macro AUCPR": lambda y, s: float(sk.average_precision_score(np.eye(3)[y.astype(int)], s)),
    "accuracy": _decided(sk.accuracy_score),
    "balanced accuracy": _decided(sk.balanced_accuracy_score),
    "macro F1": _decided(sk.f1_score, average="macro"),
    "kappa": _decided(sk.cohen_kappa_score),
    "R2": sk.r2_score,
    "MAE": sk.mean_absolute_error,
    "RMSE": _rmse,
    "Pearson r": lambda y, s: float(np.corrcoef(y, s)[0, 1]),
}


def predictions(target: str, n: int, *, ties: bool) -> tuple[NDArray[Any], NDArray[Any]]:
    rng = np.random.default_rng(n)
    if target == "binary":
        y = (rng.random(n) < 0.3) * 1.0
        s = 1 / (1 + np.exp(-rng.normal(size=n) - y))
        return y, s.round(1) if ties else s
    if target == "multiclass":
        y = rng.integers(0, 3, n) * 1.0
        s = rng.dirichlet([1, 1, 1], n) + np.eye(3)[y.astype(int)] * 0.4
        s /= s.sum(axis=1, keepdims=True)
        if ties:
            s = s[rng.integers(0, 5, n)]
        return y, s
    y = rng.normal(60, 15, n)
    return y, y.round(-1) if ties else y + rng.normal(0, 10, n)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("name", PLAIN)
def test_a_metric_equals_scikit_learn_on_the_same_resamples(name: str, ties: bool) -> None:  # noqa: FBT001
    metric = METRICS[name]
    y, s = predictions(min(metric.targets), 61, ties=ties)
    drawn = np.random.default_rng(1).integers(0, len(y), (5, len(y)))
    found = metric.of(y, s, counts_of(drawn))
    expected = [PLAIN[name](y[places], s[places]) for places in drawn]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12 * max(1, np.abs(found).max()))
    assert metric.of(y, s, None)[0] == pytest.approx(PLAIN[name](y, s), abs=1e-12)


@settings(max_examples=15, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 1), st.integers(-3, 3), st.integers(0, 3)),
        min_size=1,
        max_size=15,
    )
)
def test_areas_equal_scikit_learn_whatever_the_ties(rows: list[tuple[int, int, int]]) -> None:
    y, s, c = np.array(rows).T
    resample = np.repeat(np.arange(len(y)), c)
    here = y[resample]
    for name in ("AUROC", "AUCPR"):
        (found,) = METRICS[name].of(y, s, c[None])
        if 0 < here.sum() < len(here):
            expected = PLAIN[name](here, s[resample].astype(float))
            assert found == pytest.approx(expected, abs=1e-12)
        elif name == "AUROC" or not here.sum():
            assert np.isnan(found)


def test_the_concordance_index_by_hand() -> None:
    # Times 1, 2 and 3 are events, 2 and 4 are not: the event at 2 is earlier than its like.
    times = np.array([1.0, 2.0, -2.0, 3.0, -4.0])
    risks = np.array([5.0, 4.0, 4.0, 1.0, 3.0])
    # From 1: 4 of 4. From 2: over (-2) a tie, over 3 and over -4. From 3: -4 has the higher risk.
    (found,) = METRICS["C-index"].of(times, risks, None)
    assert found == pytest.approx((4 + 2.5 + 0) / (4 + 3 + 1))
    # A record drawn twice makes pairs with itself that no time tells apart.
    (found,) = METRICS["C-index"].of(times, risks, np.array([[2, 0, 0, 1, 1]]))
    assert found == pytest.approx((4 + 0) / (4 + 1))


@given(st.integers(0, 200))
@settings(max_examples=10, deadline=None)
def test_the_concordance_index_counts_pairs(seed: int) -> None:
    rng = np.random.default_rng(seed)
    times = rng.integers(1, 8, 20) * rng.choice([-1, 1], 20)
    risks = rng.integers(0, 6, 20)
    counts = rng.integers(0, 3, (3, 20))
    found = METRICS["C-index"].of(times, risks, counts)
    for row, value in zip(counts, found, strict=True):
        right = known = 0.0
        for i in range(20):
            for j in range(20):
                later = abs(times[j]) > abs(times[i]) or times[j] == -times[i]
                if times[i] > 0 and later:
                    weight = row[i] * row[j]
                    known += weight
                    right += weight * (float(risks[i] > risks[j]) + 0.5 * (risks[i] == risks[j]))
        assert value == pytest.approx(right / known)


def test_what_is_not_defined_is_nan_and_what_is_constant_is_chance() -> None:
    y = np.array([0.0, 0, 1, 1])
    one = np.ones(4)
    assert measure(y, one / 2) == {"AUROC": 0.5, "AUCPR": 0.5}
    assert np.isnan(list(measure(np.zeros(4), y).values())).all()
    assert measure(one, y) == {"AUROC": pytest.approx(np.nan, nan_ok=True), "AUCPR": 1.0}
    assert np.isnan(METRICS["Brier"].of(y, y * 3, None)[0])
    assert np.isnan(METRICS["log loss"].of(y, y - 1, None)[0])
    found = measure(one * 7, y, "continuous")
    assert np.isnan([found["R2"], found["Pearson r"]]).all()
    assert found["MAE"] == 6.5
    assert np.isnan(METRICS["kappa"].of(one, np.eye(2)[[1] * 4], None)[0])
    shares = np.array([[0.6, 0.2, 0.2]] * 4)
    found = measure(y, shares, "multiclass")  # the third class never occurs
    assert np.isnan(found["macro AUROC"])
    assert found["balanced accuracy"] == 0.5
    assert np.isnan(METRICS["C-index"].of(-one, y, None)[0])
    for name in METRICS:
        empty = np.empty((0, 2)) if "multiclass" in METRICS[name].targets else np.empty(0)
        assert np.isnan(METRICS[name].of(np.empty(0), empty, None)[0])


@pytest.mark.parametrize("name", METRICS)
def test_a_score_that_is_no_number_is_refused_in_one_sentence(name: str) -> None:
    y, s = predictions(min(METRICS[name].targets), 9, ties=False)
    s[3] = np.nan
    with pytest.raises(UsageError, match=r"^1 of 9 scores are not numbers, so no metric is"):
        METRICS[name].of(y, s, None)


def test_labels_and_scores_must_fit() -> None:
    y, s = predictions("binary", 9, ties=False)
    with pytest.raises(UsageError, match="9 labels and 8 scores do not belong together"):
        measure(y, s[1:])
    with pytest.raises(UsageError, match="labels 0 and 1"):
        measure(y * 2, s)
    with pytest.raises(UsageError, match="as many columns of scores"):
        measure(y + 2, np.c_[s, 1 - s], "multiclass")


def test_every_target_is_reported_by_metrics_that_are_for_it() -> None:
    for target in ("binary", "multiclass", "continuous", "survival"):
        assert reported(target)
        assert all(target in metric.targets for metric in reported(target))
    assert [metric.name for metric in reported("binary")] == ["AUROC", "AUCPR"]


def test_many_resamples_are_the_same_as_one_at_a_time() -> None:
    y, s = predictions("binary", 3000, ties=True)
    drawn = np.random.default_rng(0).integers(0, 3000, (300, 3000))
    counts = counts_of(drawn)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name in ("AUROC", "AUCPR", "Brier"):
            whole = METRICS[name].of(y, s, counts)
            single = [METRICS[name].of(y, s, counts[i : i + 1])[0] for i in (0, 150, 299)]
            np.testing.assert_allclose(whole[[0, 150, 299]], single, rtol=0, atol=1e-14)
