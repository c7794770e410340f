"""Turn lists of whole numbers that are written out into arrays, several times as fast as Python.

XML formats write a lead as thousands of decimal numbers. They are taken place by place, the units
of all numbers first; everything that is not a number or stands between two is refused.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["whole_numbers"]

_MOST_DIGITS = 10  # any count of 32 bits


def whole_numbers(text: bytes, between: bytes) -> NDArray[np.int64]:
    """Return the numbers of a text, ``(numbers,)``.

    Args:
        text: Digits, with or without a sign before them.
        between: The characters that may stand between numbers, one or more of them.

    Raises:
        ValueError: There is anything else, or a number of more than ten digits.

    Example:
        >>> whole_numbers(b"-2 10 +7", b" ").tolist()
        [-2, 10, 7]
    """
    pad = between[:1]
    chars = np.frombuffer(pad * _MOST_DIGITS + text + pad, np.uint8)
    value = chars ^ ord("0")
    digit = value < 10
    edges = np.flatnonzero(digit[1:] != digit[:-1])
    before, last = edges[::2], edges[1::2]
    n_digits = last - before
    signs = chars[before]
    negative = signs == ord("-")
    signed = before[negative | (signs == ord("+"))]
    known = np.count_nonzero(digit) + len(signed)
    known += sum(np.count_nonzero(chars == one) for one in set(between))
    if known != len(chars) or digit[signed - 1].any():
        msg = "there is something else than whole numbers"
        raise ValueError(msg)
    most = int(n_digits.max(initial=0))
    if most > _MOST_DIGITS:
        msg = f"a number has more than {_MOST_DIGITS} digits"
        raise ValueError(msg)
    numbers = value[last].astype(np.int64)
    for place in range(1, most):
        numbers += value[last - place] * (n_digits > place) * np.int64(10**place)
    np.negative(numbers, out=numbers, where=negative)
    return numbers
