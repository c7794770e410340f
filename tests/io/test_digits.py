"""Whole numbers that are written out: all of them, or an error."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecgstore.io.digits import whole_numbers

BLANKS = b" \t\r\n"


@given(
    st.lists(st.integers(-(10**10) + 1, 10**10 - 1)),
    st.sampled_from([" ", "\n", "\t \r\n"]),
    st.sampled_from(["", "+", "0"]),
)
def test_what_is_written_is_read(numbers: list[int], between: str, before: str) -> None:
    marked = [f"{before}{number}" if 0 <= number < 10**9 else str(number) for number in numbers]
    text = between.join(marked).encode()
    for whole in (text, b" " + text, text + b"\n"):
        found = whole_numbers(whole, BLANKS)
        assert found.dtype == np.int64
        assert found.tolist() == numbers


@given(st.text("0123456789+- ,.x", max_size=12))
def test_anything_else_is_refused(text: str) -> None:
    fields = text.split(" ")
    plain = all(not field or field.lstrip("+-").isdecimal() for field in fields)
    plain &= all(len(field) - len(field.lstrip("+-")) <= 1 for field in fields)
    plain &= all(len(field.lstrip("+-")) <= 10 for field in fields)
    if plain:
        assert whole_numbers(text.encode(), b" ").tolist() == [int(x) for x in fields if x]
    else:
        with pytest.raises(ValueError, match="number"):
            whole_numbers(text.encode(), b" ")
