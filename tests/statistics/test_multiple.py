"""Adjusted p-values equal those of statsmodels and R."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecgstore.statistics.multiple import adjusted, benjamini_hochberg, holm

# multipletests of statsmodels 0.15.0 and p.adjust of R 4.2.2 give the same.
P = [0.01, 0.02, 0.03, 0.04, 0.04, 0.5, 0.001]
HOLM = [0.06, 0.1, 0.12, 0.12, 0.12, 0.5, 0.007]
BH = [0.035, 0.14 / 3, 0.14 / 3, 0.14 / 3, 0.14 / 3, 0.5, 0.007]


def test_they_equal_statsmodels_and_r() -> None:
    assert holm(P) == pytest.approx(HOLM, abs=1e-12)
    assert benjamini_hochberg(P) == pytest.approx(BH, abs=1e-12)
    assert adjusted(P, "holm").tolist() == holm(P).tolist()
    assert adjusted(P, "bh").tolist() == benjamini_hochberg(P).tolist()


def test_a_test_that_was_not_made_is_not_counted() -> None:
    found = holm([0.01, np.nan, 0.04])
    assert found == pytest.approx([0.02, np.nan, 0.04], nan_ok=True)
    assert np.isnan(benjamini_hochberg([np.nan])).all()
    assert holm([]).shape == (0,)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_adjusting_keeps_the_order_and_never_lowers(p: list[float]) -> None:
    raw = np.array(p)
    for found in (holm(p), benjamini_hochberg(p)):
        assert (found >= raw).all()
        assert (found <= 1).all()
        assert (np.diff(found[np.argsort(raw)]) >= -1e-15).all()
    assert (holm(p) >= benjamini_hochberg(p) - 1e-15).all()
