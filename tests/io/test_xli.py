"""XLI, the compression of Philips XML: what was packed comes back, all else is one error."""

from __future__ import annotations

import importlib
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecgstore.io.xli import MAX_SAMPLES, XliError, decompress

encoder: Any = importlib.import_module("tests.io.xli_encoder")


@settings(deadline=None, max_examples=25)
@given(
    st.lists(st.integers(-2000, 2000), min_size=3, max_size=300),
    st.integers(0, 1500),
)
def test_xli_gives_samples_back(samples: list[int], still: int) -> None:
    x = [*samples, *([samples[-1]] * still)]
    (found,) = decompress(encoder.chunk(x))
    assert found.dtype == np.int16
    assert found.tolist() == x


@settings(deadline=None, max_examples=80)
@given(st.binary(max_size=80), st.booleans())
def test_xli_refuses_garbage_with_one_error(data: bytes, headed: bool) -> None:  # noqa: FBT001
    if headed:
        data = struct.pack("<ihh", len(data), 1, 0) + data
    try:
        found = decompress(data)
    except XliError:
        return
    assert all(one.dtype == np.int16 for one in found)


def test_xli_takes_no_bomb() -> None:
    packed = encoder.lzw(bytes(2 * MAX_SAMPLES + 2))
    assert len(packed) < 5000
    header = struct.pack("<ihh", len(packed), 1, 0)
    with pytest.raises(XliError, match="more than"):
        decompress(header + packed)
    one = encoder.chunk([0] * 2000)
    with pytest.raises(XliError, match="chunks"):
        decompress(one * 33)


@pytest.mark.parametrize("cut", [1, 7, 8, 20])
def test_xli_notices_what_is_missing(cut: int) -> None:
    whole = encoder.chunk(range(100))
    for data in (whole[:-cut], whole + whole[:cut]):
        with pytest.raises(XliError):
            decompress(data)
