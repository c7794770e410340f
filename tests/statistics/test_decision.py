"""Decision curves: net benefit by hand, its limits, and its interval over patients."""

from __future__ import annotations

import numpy as np
import pytest

from ecgstore.errors import UsageError
from ecgstore.statistics.decision import THRESHOLDS, decision_curve, net_benefit

LABELS = np.array([1, 1, 0, 0, 0, 1, 0, 0, 0, 0], dtype=np.float64)
SCORES = np.array([0.9, 0.6, 0.5, 0.3, 0.2, 0.2, 0.1, 0.1, 0.05, 0.0])


def test_net_benefit_by_hand() -> None:
    # At 0.25: 2 true and 2 false positives of 10; a false one costs a third of a true one.
    # At 0.5: 2 and 1, and both cost the same. Treating all has 3 and 7.
    found = decision_curve(LABELS, SCORES, thresholds=(0.25, 0.5), resamples=100)
    assert found.model == pytest.approx([(2 - 2 / 3) / 10, (2 - 1) / 10])
    assert found.treat_all == pytest.approx([(3 - 7 / 3) / 10, (3 - 7) / 10])
    # 100 (0.1333 - 0.0667) x 3 = 20 fewer of 100 treated at 0.25; 100 (0.1 + 0.4) = 50 at 0.5.
    assert found.avoided == pytest.approx([20, 50])
    assert net_benefit(30, 10, 100, 0.2) == pytest.approx(0.3 - 0.1 / 4)
    first = found.rows[0]
    assert list(first) == [
        "threshold",
        "net_benefit",
        "low",
        "high",
        "treat_all",
        "avoided_per_100",
    ]
    assert repr(found) == ("DecisionCurve(2 thresholds, better than all and none from 0.25 to 0.5)")


def test_limits_of_a_decision_curve() -> None:
    found = decision_curve(LABELS, np.full(10, 0.3), resamples=100)
    below = found.thresholds <= 0.3
    assert found.model[below] == pytest.approx(found.treat_all[below]), "all are treated"
    assert found.model[~below] == pytest.approx(0), "nobody is"
    oracle = decision_curve(LABELS, LABELS, resamples=100)
    assert oracle.model == pytest.approx(0.3), "the prevalence, at any threshold"
    crossing = np.argmin(np.abs(np.array(THRESHOLDS) - 0.3))
    assert oracle.treat_all[crossing] == pytest.approx(0), "treating all is worth 0 there"


def test_the_interval_is_over_patients() -> None:
    rng = np.random.default_rng(0)
    p = rng.random(600)
    labels = (rng.random(600) < p).astype(np.float64)
    alone = decision_curve(labels, p, thresholds=(0.3, 0.6), resamples=500)
    assert (alone.low < alone.model).all()
    assert (alone.model < alone.high).all()
    # The same records five times over are no more patients, and tell no more.
    often = decision_curve(
        np.tile(labels, 5),
        np.tile(p, 5),
        np.tile(np.arange(600), 5),
        thresholds=(0.3, 0.6),
        resamples=500,
    )
    assert often.model == pytest.approx(alone.model)
    assert often.low == pytest.approx(alone.low)
    # The spread is that of the mean of what each record is worth.
    worth = (p >= 0.6) * np.where(labels == 1, 1, -0.6 / 0.4)
    error = worth.std() / np.sqrt(600)
    assert (alone.high - alone.low)[1] / (2 * 1.96) == pytest.approx(error, rel=0.12)


def test_what_has_no_decision_curve_is_refused() -> None:
    with pytest.raises(UsageError, match="needs probabilities"):
        decision_curve(LABELS, SCORES * 2)
    for cuts in ((0.5, 0.4), (0.0, 0.5), (1.0,), ()):
        with pytest.raises(UsageError, match="must rise and lie between 0 and 1"):
            decision_curve(LABELS, SCORES, thresholds=cuts)
