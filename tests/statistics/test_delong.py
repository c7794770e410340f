"""DeLong's variance equals pROC's and its own definition; patients' records are not independent."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from ecgstore.errors import UsageError
from ecgstore.statistics.delong import auroc_interval, paired, unpaired

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Cohorts that arithmetic makes anywhere, ties among them. The values come from roc, ci.auc, var,
# cov and roc.test (method = "delong") of pROC 1.18.0 on R 4.2.2, printed with 17 digits.
I = np.arange(80)  # noqa: E741
LABELS = ((I * 37) % 11 < 4) * 1
A = (I * 53) % 29 + 6 * LABELS
B = (I * 71) % 31 + 4 * LABELS
H = np.arange(60)
OTHER_LABELS = ((H * 17) % 7 < 3) * 1
C = (H * 41) % 23 + 5 * OTHER_LABELS


def variance(low: float, high: float) -> float:
    return ((high - low) / 2 / 1.959963984540054) ** 2


PROC = {
    "a": (LABELS, A, 0.53629036473842939, 0.78419645067739197, 0.00399961514064020),
    "b": (LABELS, B, 0.50546651637263484, 0.76431035989511376, 0.00436033148192013),
    "c": (OTHER_LABELS, C, 0.66554608106299106, 0.89553989178768778, 0.00344251724674935),
}
AREAS = {"a": 0.66024340770791079, "b": 0.63488843813387419, "c": 0.78054298642533937}


@pytest.mark.parametrize("name", PROC)
def test_an_interval_is_procs(name: str) -> None:
    labels, scores, low, high, spread = PROC[name]
    found = auroc_interval(labels, scores)
    assert (found.low, found.value, found.high) == pytest.approx(
        (low, AREAS[name], high), abs=1e-14
    )
    assert variance(found.low, found.high) == pytest.approx(spread, abs=1e-13)
    assert found.value == pytest.approx(roc_auc_score(labels, scores))


def test_a_paired_comparison_is_procs() -> None:
    found = paired(LABELS, A, B)
    assert found.p == pytest.approx(0.78047320846911372, abs=1e-13)
    ends = (-0.15295287560934726, 0.20366281475742001)
    assert (found.interval.low, found.interval.high) == pytest.approx(ends, abs=1e-14)
    assert found.interval.value == pytest.approx(found.a - found.b)


def test_an_unpaired_comparison_is_procs() -> None:
    found = unpaired(LABELS, A, OTHER_LABELS, C)
    assert found.p == pytest.approx(0.16542174715967914, abs=1e-13)  # 137.311 degrees of freedom
    assert found.interval.low < found.interval.value < 0 < found.interval.high


def by_definition(
    labels: NDArray[Any], columns: list[NDArray[Any]], groups: NDArray[Any]
) -> NDArray[np.float64]:
    """Return Obuchowski's covariance of 1997, every pair of records looked at."""
    y, n = np.flatnonzero(labels == 1), np.flatnonzero(labels == 0)
    psi = np.array(
        [(c[y, None] > c[n]) + 0.5 * (c[y, None] == c[n]) for c in map(np.asarray, columns)]
    )
    theta = psi.mean(axis=(1, 2))
    patients = np.unique(groups)
    above = np.zeros((len(columns), len(patients)))
    below = np.zeros_like(above)
    for k, patient in enumerate(patients):
        mine = groups[y] == patient
        above[:, k] = psi.mean(axis=2)[:, mine].sum(axis=1) - mine.sum() * theta
        mine = groups[n] == patient
        below[:, k] = psi.mean(axis=1)[:, mine].sum(axis=1) - mine.sum() * theta
    with_y, with_n = len(np.unique(groups[y])), len(np.unique(groups[n]))
    s10 = with_y / (with_y - 1) / len(y) * above @ above.T
    s01 = with_n / (with_n - 1) / len(n) * below @ below.T
    s11 = len(patients) / (len(patients) - 1) * above @ below.T
    found: NDArray[np.float64] = s10 / len(y) + s01 / len(n) + (s11 + s11.T) / len(y) / len(n)
    return found


@pytest.mark.parametrize("patients", [80, 25, 9])
def test_the_variance_is_its_definition_with_patients_of_both_labels(patients: int) -> None:
    groups = (I * 13) % patients
    c = by_definition(LABELS, [A, B], groups)
    one = auroc_interval(LABELS, A, groups)
    assert variance(one.low, one.high) == pytest.approx(c[0, 0], rel=1e-12)
    both = paired(LABELS, A, B, groups)
    expected = c[0, 0] + c[1, 1] - 2 * c[0, 1]
    assert variance(both.interval.low, both.interval.high) == pytest.approx(expected, rel=1e-12)
    if patients == 80:
        assert (one, both) == (auroc_interval(LABELS, A), paired(LABELS, A, B))


def test_copies_of_a_patients_records_tell_nothing_new() -> None:
    labels, a, b, patients = (np.tile(one, 2) for one in (LABELS, A, B, I))
    once = paired(LABELS, A, B)
    assert paired(labels, a, b, patients).p == pytest.approx(once.p)
    assert paired(labels, a, b).p < once.p


def test_the_same_order_is_no_difference() -> None:
    found = paired(LABELS, A, A / 7 + 3)
    assert (found.p, found.interval.low, found.interval.high) == (1, 0, 0)
    assert found.interval.method == "DeLong; no spread"


def test_what_cannot_be_told_has_a_reason() -> None:
    for labels in (np.zeros(80), I == 3, np.ones(80)):
        found = paired(labels, A, B)
        assert math.isnan(found.p)
        assert math.isnan(found.interval.low)
        assert found.interval.method == "DeLong needs two patients with and two without the label"
    one_patient = np.where(LABELS == 1, 0, I)
    assert math.isnan(auroc_interval(LABELS, A, one_patient).low)
    perfect = auroc_interval(LABELS, LABELS)
    assert (perfect.low, perfect.high, perfect.method) == (1, 1, "DeLong; no spread")
    assert auroc_interval(LABELS[:9], LABELS[:9] + 0.1 * (I[:9] == 3)).high <= 1
    three = auroc_interval(I < 3, -A)
    assert 0 <= three.low < three.value < three.high <= 1
    with pytest.raises(UsageError, match="one finite score a record"):
        auroc_interval(LABELS, np.where(I == 3, np.nan, A))
    with pytest.raises(UsageError, match="labels 0 and 1"):
        auroc_interval(LABELS + 1, A)
