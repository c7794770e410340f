"""Arrays and settings of a fitted classifier as safetensors, which hold numbers and text only."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from numpy.typing import NDArray

    from ecgstore.classifiers.classifier import Setting

    Arrays = dict[str, NDArray[np.generic]]

__all__ = ["from_tensors", "to_tensors"]


def to_tensors(arrays: Arrays, params: Mapping[str, Setting]) -> bytes:
    """Return arrays by name, with the settings in the header."""
    from safetensors.numpy import save

    data: bytes = save(arrays, metadata={"params": json.dumps(dict(params))})
    return data


def from_tensors(data: bytes) -> tuple[Arrays, dict[str, Setting]]:
    """Return what `to_tensors` was given."""
    from safetensors.numpy import load

    # The first 8 bytes are the length of the JSON header, which keeps the metadata.
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    return load(data), json.loads(header["__metadata__"]["params"])
