"""The loss as a picture and as a line of blocks."""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np
import pytest
from matplotlib.image import imread

from ecgstore.pretraining.curve import png, spark
from ecgstore.pretraining.loop import History

if TYPE_CHECKING:
    from numpy.typing import NDArray


def history(*losses: float, term: float = 0.5) -> History:
    made = History()
    for loss in losses:
        made.add({"loss": loss, "penalty": term}, 0.001)
    return made


def pixels(picture: bytes) -> NDArray[np.float32]:
    return np.asarray(imread(BytesIO(picture)), np.float32)[:, :, :3]


def coloured(picture: bytes) -> NDArray[np.intp]:
    """Return the rows of pixels, counted from below, in which the line of the loss is."""
    blue = np.array([0x00, 0x72, 0xB2], np.float32) / 255
    found = np.argwhere(np.abs(pixels(picture)[:, :720] - blue).max(axis=2) < 0.02)  # no legend
    ordered = found[np.argsort(found[:, 1], kind="stable")]
    return len(pixels(picture)) - ordered[:, 0]


def test_the_picture_is_light_and_shows_a_loss_that_falls() -> None:
    losses = history(*np.linspace(4, 1, 250).tolist())
    picture = png(losses, title="stmem, run 1, 250 steps")
    drawn = pixels(picture)
    assert drawn.shape == (560, 900, 3)
    assert np.median(drawn) == 1
    places = coloured(picture)
    assert places[:20].mean() - places[-20:].mean() > 150
    assert picture == png(losses, title="stmem, run 1, 250 steps")


def test_a_wide_range_is_drawn_in_equal_steps_of_a_factor() -> None:
    places = coloured(png(history(*np.geomspace(1000, 1, 80).tolist()), title="wide"))
    first, middle, last = places[:9].mean(), np.median(places), places[-9:].mean()
    assert middle == pytest.approx((first + last) / 2, abs=15)


@pytest.mark.parametrize("losses", [(), (1.0,), (0.0, -1.0), (2.0, 2.0), (1.0, float("nan"))])
def test_few_and_odd_losses_are_drawn(losses: tuple[float, ...]) -> None:
    assert pixels(png(history(*losses), title=r"$\frac")).shape == (560, 900, 3)


def test_blocks_fall_with_the_loss() -> None:
    assert spark([8.0, 6.0, 4.0, 2.0, 1.0]) == "█▆▄▂▁ 1"
    assert spark([1e6, 1e3, 1.0]) == "█▅▁ 1", "on a logarithmic scale"
    long = spark(np.linspace(2, 1, 1000).tolist(), width=8)
    assert long == "█▇▆▅▄▃▂▁ 1"
    assert spark([3.0, 3.0]) == "▁▁ 3"
    assert spark([2.0, float("nan"), 1.0]) == "█▁ 1"
    assert spark([]) == spark([float("inf")]) == ""
