"""From the figures of leads to those of a record, and from those of records to a short table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ecgstore.quality import LeadQuality

__all__ = ["FIGURES", "Figure", "of_leads", "table_of"]


class Figure(NamedTuple):
    """A figure of a record.

    Attributes:
        column: Its column in ``records``.
        unit: Unit; empty for counts and shares.
        side: Which side of the limit is worth a look; ``given`` if any value is.
        limit: The limit.
    """

    column: str
    unit: str
    side: Literal["above", "below", "given"]
    limit: float | None


# Limits for a look, not for a decision: one millimetre of standard paper (0.1 mV) for what must be
# zero, half of one for noise that hides a P wave, 6 dB as in the middle of the MIT-BIH Noise Stress
# Test's scale (Moody et al., Comput Cardiol 11:381, 1984), bounds of plausible rates as in
# Orphanidou et al., IEEE JBHI 19:832 (2015) and beyond for the young and the ill.
FIGURES = (
    Figure("snr_db", "dB", "below", 6.0),
    Figure("range_mv", "mV", "below", 0.2),
    Figure("flat_leads", "leads", "above", 0.0),
    Figure("nan_fraction", "", "above", 0.0),
    Figure("saturated_fraction", "", "above", 0.0),
    Figure("clipped_fraction", "", "above", 0.0),
    Figure("hum_mv", "mV", "above", 0.05),
    Figure("wander_mv", "mV", "above", 1.0),
    Figure("noise_mv", "mV", "above", 0.05),
    Figure("einthoven_mv", "mV", "above", 0.1),
    Figure("augmented_mv", "mV", "above", 0.1),
    Figure("r_agreement", "", "below", 0.7),
    Figure("heart_rate", "bpm", "above", 180.0),
    Figure("heart_rate", "bpm", "below", 40.0),
    Figure("reversal", "", "given", None),
    Figure("unit_suspicion", "", "given", None),
    Figure("duplicate_of", "", "given", None),
    Figure("near_duplicate_of", "", "given", None),
)
"""The figures of a record in the order in which they are told."""

_WORST = ("nan_fraction", "saturated_fraction", "clipped_fraction", "hum_mv", "wander_mv")


def of_leads(leads: Sequence[LeadQuality]) -> dict[str, object]:
    """Return what is said of a record by its leads: medians of size, the worst of defects."""

    def values(name: str) -> list[float]:
        return [value for one in leads if (value := getattr(one, name)) is not None]

    def by(name: str, what: str) -> float | None:
        found = values(name)
        return None if not found else float(np.median(found) if what == "median" else max(found))

    return {
        "snr_db": by("snr_db", "median"),
        "range_mv": by("range_mv", "median"),
        "flat_leads": sum(bool(one.flat) for one in leads) if leads else None,
        **{name: by(name, "max") for name in (*_WORST, "noise_mv")},
    }


def table_of(records: pa.Table, *, worst: int) -> list[dict[str, object]]:
    """Return one row a figure: how many records have it, its median, and who is beyond the limit.

    Args:
        records: Rows of ``records``.
        worst: Records to name.
    """
    return [_row(records, figure, worst) for figure in FIGURES]


def _row(records: pa.Table, figure: Figure, worst: int) -> dict[str, object]:
    values = records[figure.column]
    told = records.filter(pc.is_valid(values))
    numbers = told[figure.column]
    median = None
    if figure.side == "given":
        beyond = told.sort_by("record_id")
    else:
        median = pc.quantile(numbers, 0.5)[0].as_py() if len(numbers) else None
        above = figure.side == "above"
        mask = (pc.greater if above else pc.less)(numbers, figure.limit)
        way = "descending" if above else "ascending"
        beyond = told.filter(mask).sort_by([(figure.column, way), ("record_id", "ascending")])
    return {
        "figure": figure.column,
        "unit": figure.unit,
        "records": told.num_rows,
        "median": median,
        "beyond": None if figure.limit is None else f"{_SIGN[figure.side]} {figure.limit:g}",
        "flagged": beyond.num_rows,
        "worst": ", ".join(beyond["record_id"].slice(0, worst).to_pylist()),
    }


_SIGN = {"above": ">", "below": "<", "given": ""}
