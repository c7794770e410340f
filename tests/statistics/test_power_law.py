"""Power laws are found again, and nothing is told of curves that do not tell it."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import curve_fit

from ecgstore.errors import NotEnoughDataError
from ecgstore.statistics.power_law import fit_power_law

SIZES = np.array([50.0, 100, 200, 400, 800, 1600])


@pytest.mark.parametrize(("a", "b", "c"), [(0.85, 1.2, 0.5), (0.7, 0.6, 0.2), (0.95, 40.0, 1.3)])
def test_a_power_law_is_found_again(a: float, b: float, c: float) -> None:
    law = fit_power_law(SIZES, a - b * SIZES**-c, ceiling=1.0)
    assert law.c == pytest.approx(c, rel=0.01), "the grid is 1.4 % wide"
    assert law.a == pytest.approx(a, abs=0.003)
    for n in (60, 1200):
        assert law.at(n) == pytest.approx(a - b * n**-c, abs=5e-4)
    value = a - b * 300.0**-c
    assert law.needed(np.array(value)) == pytest.approx(300, rel=0.01)
    assert law.needed(np.array(a + 0.01)) == np.inf


def test_noise_is_fitted_as_well_as_scipy_does() -> None:
    rng = np.random.default_rng(3)
    curves = 0.85 - 1.5 * SIZES**-0.5 + rng.normal(0, 0.004, (20, 6))
    laws = fit_power_law(SIZES, curves)
    for k, values in enumerate(curves):
        (a, b, c), _ = curve_fit(
            lambda n, a, b, c: a - b * n**-c,
            SIZES,
            values,
            p0=(0.85, 1.5, 0.5),
            bounds=([-np.inf, 0, 0.01], [np.inf, np.inf, 3]),
            max_nfev=20_000,
        )
        theirs = ((values - (a - b * SIZES**-c)) ** 2).sum()
        ours = (values - (laws.a[k] - laws.b[k] * SIZES ** -laws.c[k])) ** 2
        assert ours.sum() <= theirs * 1.01


def test_bounds_are_kept() -> None:
    falling = fit_power_law(SIZES, np.linspace(0.8, 0.7, 6))
    assert falling.b == 0
    assert falling.a == pytest.approx(0.75)
    assert np.isnan(falling.c)
    assert falling.at(1e6) == pytest.approx(0.75)
    assert falling.needed(np.array([0.74, 0.76])).tolist() == [0.0, np.inf]
    steep = 0.5 + 0.06 * np.log2(SIZES / 50)  # a logarithm would pass 1
    assert fit_power_law(SIZES, steep, ceiling=np.inf).a > 1
    held = fit_power_law(SIZES, steep, ceiling=1.0)
    assert held.a == pytest.approx(1.0)
    grid = [
        ((steep - (1 - b * SIZES**-c)) ** 2).sum()
        for c in np.geomspace(0.05, 1, 60)
        for b in np.geomspace(0.1, 10, 200)
    ]
    ours = ((steep - (held.a - held.b * SIZES**-held.c)) ** 2).sum()
    assert ours <= min(grid) * (1 + 1e-9)


def test_three_sizes_are_too_few() -> None:
    with pytest.raises(NotEnoughDataError, match="needs 4 sizes at least; 3 were given"):
        fit_power_law(SIZES[:3], np.array([0.6, 0.7, 0.8]))
