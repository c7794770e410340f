"""PSNR, SSIM and MAE against numbers worked out by hand and the formula written out in a loop."""

from __future__ import annotations

import math

import numpy as np
import pytest

from ecgstore.errors import NotEnoughDataError, UsageError
from ecgstore.statistics.reconstruction import mae, psnr, rebuilt, ssim, unit_range


def test_figures_worked_out_by_hand() -> None:
    assert mae([0, 1, 0.5, 0.5], [0, 0.5, 0.5, 1]) == 0.25
    assert psnr([0, 1, 0, 1], [0.1, 0.9, 0.1, 0.9]) == pytest.approx(20)
    assert psnr([0, 200], [2, 198], peak=200) == pytest.approx(40)
    assert psnr([0.0, 1.0], [0.0, 1.0]) == math.inf
    # Two constants have no variance: what is left is how alike the means are.
    assert ssim(np.full(20, 0.5), np.full(20, 0.25)) == pytest.approx(0.2501 / 0.3126)
    np.testing.assert_array_equal(unit_range([-1, 3, 1]), [0, 1, 0.5])
    np.testing.assert_array_equal(unit_range([4, 4]), [0, 0])


def test_structural_similarity_is_the_formula_of_its_paper() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.random((2, 40))
    w = [math.exp(-((i - 5) ** 2) / (2 * 1.5**2)) for i in range(11)]
    w = [one / sum(w) for one in w]
    found = []
    for start in range(40 - 11 + 1):
        a, b = x[start : start + 11], y[start : start + 11]
        mean_a, mean_b = np.dot(w, a), np.dot(w, b)
        var_a, var_b = np.dot(w, (a - mean_a) ** 2), np.dot(w, (b - mean_b) ** 2)
        both = np.dot(w, (a - mean_a) * (b - mean_b))
        luminance = (2 * mean_a * mean_b + 1e-4) / (mean_a**2 + mean_b**2 + 1e-4)
        found.append(luminance * (2 * both + 9e-4) / (var_a + var_b + 9e-4))
    assert ssim(x, y) == pytest.approx(np.mean(found), rel=1e-12)
    assert ssim(x, y) == pytest.approx(ssim(y, x))
    assert ssim(x, x) == pytest.approx(1)
    assert ssim(x, 1 - x) < 0


def test_unit_and_offset_of_a_rebuilt_signal_do_not_count() -> None:
    x, y = np.random.default_rng(1).normal(size=(2, 50))
    first, second = rebuilt(x, y), rebuilt(3 * x - 1, 0.01 * y + 7)
    assert first.keys() == {"psnr_db", "ssim", "mae"}
    for name, value in first.items():
        assert second[name] == pytest.approx(value)
    assert rebuilt(x, 2 * x)["ssim"] == pytest.approx(1)


def test_signals_that_cannot_be_compared_are_refused() -> None:
    with pytest.raises(UsageError, match=r"shapes \(3,\) and \(4,\)"):
        mae([0, 1, 2], [0, 1, 2, 3])
    with pytest.raises(NotEnoughDataError, match="10 samples; 11 are needed"):
        ssim(np.zeros(10), np.zeros(10))
