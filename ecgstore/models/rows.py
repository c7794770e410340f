"""From the rows of a signal, in any order and spelling, to leads by their standard names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ecgstore.errors import UnknownNameError, UsageError
from ecgstore.record import LEADS, OTHER_LEADS, lead_name, signal_name

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

__all__ = ["has_samples", "is_flat", "rows_by_lead"]


def has_samples(row: NDArray[Any]) -> bool:
    """Tell whether a lead has any sample."""
    return not np.isnan(row).all()


def is_flat(row: NDArray[Any]) -> bool:
    """Tell whether all samples of a lead are one value."""
    return bool(np.nanmin(row) == np.nanmax(row))


def rows_by_lead(signal: ArrayLike, leads: Sequence[str]) -> dict[str, NDArray[Any]]:
    """Check the outer form of a record; returns its rows by standard lead name."""
    array = np.asarray(signal)
    if array.ndim != 2 or array.shape[0] != len(leads):
        msg = f"The signal has the shape {array.shape}, expected ({len(leads)}, samples)."
        raise UsageError(msg)
    if array.dtype not in (np.float32, np.float64):
        array = array.astype(np.float64)
    rows = {}
    for raw, row in zip(leads, array, strict=True):
        lead = lead_name(raw)
        if lead is None and signal_name(raw) in OTHER_LEADS:
            continue  # such as Frank's X, which a record may hold and no model here takes
        if lead is None:
            raise UnknownNameError(raw, kind="lead", known=LEADS)
        if lead in rows:
            msg = f"The lead {lead!r} is given twice."
            raise UsageError(msg)
        rows[lead] = row
    return rows
