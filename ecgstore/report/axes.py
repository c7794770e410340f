"""A rectangle with two scales: what every picture of the report is drawn on."""

from __future__ import annotations

import html
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["Axes", "minus", "ticks"]


def minus(words: str) -> str:
    """Write a negative figure with a minus sign, not with a hyphen."""
    return words.replace("-", "\N{MINUS SIGN}")


def ticks(low: float, high: float) -> list[float]:
    """Return up to seven round figures that enclose a range, at 1, 2 or 5 times a power of 10."""
    rough = max(high - low, 1e-9) / 5
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(step * i, 12) for i in range(first, last + 1)]


@dataclass(frozen=True)
class Axes:
    """A rectangle of user units with a linear scale on each side.

    Attributes:
        width: Of the picture, in user units.
        height: Of the picture.
        x: Values at the left and right end of the horizontal axis.
        y: Values at the lower and upper end of the vertical axis.
        left: Margin for the figures of the vertical axis.
        right: Margin.
        top: Margin.
        bottom: Margin for the figures of the horizontal axis and its name.
    """

    width: float
    height: float
    x: tuple[float, float] = (0.0, 1.0)
    y: tuple[float, float] = (0.0, 1.0)
    left: float = 44.0
    right: float = 10.0
    top: float = 10.0
    bottom: float = 44.0

    def across(self, value: float) -> float:
        """Return the place of a value along the horizontal axis."""
        lo, hi = self.x
        return self.left + (value - lo) / (hi - lo) * (self.width - self.left - self.right)

    def down(self, value: float) -> float:
        """Return the place of a value along the vertical axis."""
        lo, hi = self.y
        return (
            self.height
            - self.bottom
            - (value - lo) / (hi - lo) * (self.height - self.top - self.bottom)
        )

    def path(self, x: Iterable[float], y: Iterable[float]) -> str:
        """Return the data of a path through points."""
        pairs = (f"{self.across(a):.1f} {self.down(b):.1f}" for a, b in zip(x, y, strict=True))
        return "M" + "L".join(pairs)

    def segment(self, style: str, x: tuple[float, float], y: tuple[float, float]) -> str:
        """Draw a straight line."""
        return f'<path class="{style}" d="{self.path(x, y)}"/>'

    def text(self, x: float, y: float, words: str, *, anchor: str = "middle") -> str:
        """Write words at a place in user units."""
        return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{html.escape(words)}</text>'

    def scale_y(self, ticks: Sequence[float], label: str, *, form: str) -> str:
        """Draw the vertical axis with its grid, figures and name."""
        middle = self.top + (self.height - self.top - self.bottom) / 2
        parts = [self.segment("grid", self.x, (tick, tick)) for tick in ticks]
        parts += [
            self.text(self.left - 7, self.down(tick) + 4, minus(f"{tick:{form}}"), anchor="end")
            for tick in ticks
        ]
        parts.append(
            f'<text transform="translate(11 {middle:.1f}) rotate(-90)" '
            f'text-anchor="middle">{html.escape(label)}</text>'
        )
        return "".join(parts)

    def scale_x(self, ticks: Sequence[float], label: str, *, form: str) -> str:
        """Draw the horizontal axis with its grid, figures and name."""
        parts = [self.segment("grid", (tick, tick), self.y) for tick in ticks]
        parts += [
            self.text(self.across(tick), self.height - self.bottom + 17, minus(f"{tick:{form}}"))
            for tick in ticks
        ]
        return "".join([*parts, self.label_x(label)])

    def label_x(self, label: str) -> str:
        """Write the name of the horizontal axis."""
        middle = self.left + (self.width - self.left - self.right) / 2
        return self.text(middle, self.height - 7, label)

    def picture(self, alt: str, *parts: str) -> str:
        """Close the picture, with what it shows in words."""
        return (
            f'<svg class="plot" viewBox="0 0 {self.width:g} {self.height:g}" role="img" '
            f'aria-label="{html.escape(alt)}">{"".join(parts)}</svg>'
        )
