"""From the scale a file states in decimal digits to counts per millivolt, without rounding twice.

Formats of the EDF and DICOM kind say how many units a count is worth and where zero lies, as text.
Exact arithmetic gives the same gain whatever way a file spells it, so that one ECG in two files
has one ``signal_sha256``.
"""

from __future__ import annotations

import re
from fractions import Fraction
from typing import NamedTuple

from ecgstore.io.assemble import UNITS_PER_MV

__all__ = ["Scale", "decimal", "scale_of"]

# Twenty digits and an exponent of two are more than any header field needs; a larger exponent
# would only serve to make numbers of millions of digits.
_DECIMAL = re.compile(r"[+-]?(?:\d{1,20}(?:\.\d{0,20})?|\.\d{1,20})(?:[eE][+-]?\d{1,2})?")
_INT32 = 2**31
_NEGLIGIBLE = Fraction(1, 1000)


class Scale(NamedTuple):
    """How counts become units.

    Attributes:
        gain: Counts per unit, per mV for what is measured in volts.
        baseline: Count that stands for 0 units, the nearest whole one.
        unit: ``mV`` for everything measured in volts; else as the source spells it.
        exact: Whether `baseline` is the source's own, to a thousandth of a count (fields of
            eight characters round at that order); else all values are off by the same part of a
            count, at most half.
    """

    gain: float
    baseline: int
    unit: str
    exact: bool


def decimal(text: str) -> Fraction | None:
    """Return the number that a text of decimal digits stands for, None for any other text.

    Example:
        >>> decimal(" -32.768 "), decimal("1e3"), decimal("1e999999"), decimal("nan")
        (Fraction(-4096, 125), Fraction(1000, 1), None, None)
    """
    bare = text.strip().replace(",", ".", 1)
    return Fraction(bare) if _DECIMAL.fullmatch(bare) else None


def scale_of(step: Fraction, offset: Fraction, unit: str) -> Scale | None:
    """Return the scale of a signal whose units are ``step * count + offset``; None for no scale.

    Args:
        step: Units per count; 0 is no scale.
        offset: Units at count 0.
        unit: As the source spells it.

    Example:
        >>> scale_of(Fraction(5, 2), Fraction(0), "uV")
        Scale(gain=400.0, baseline=0, unit='mV', exact=True)
    """
    zero = -offset / step if step else Fraction(_INT32)
    if abs(zero) >= _INT32:
        return None
    per_mv = UNITS_PER_MV.get(unit.strip().lower())
    factor = Fraction(1) if per_mv is None else Fraction(str(per_mv))
    gain = float(factor / step)
    bare = unit.strip() if per_mv is None else "mV"
    return Scale(gain, round(zero), bare, abs(zero - round(zero)) <= _NEGLIGIBLE)
