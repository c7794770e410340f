"""Concepts: what the store knows of a record besides its vectors, as targets of linear probes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from ecgstore.errors import UnknownNameError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from ecgstore.catalog import Catalog

__all__ = ["MEASURED", "SHORTCUTS", "Concept", "concepts_of", "patients_of"]

MEASURED = ("age", "sex", "heart_rate", "pr", "qrs", "qt", "qtc", "p_axis", "qrs_axis", "t_axis")
"""What is of the patient and of the heart, in the order it is told."""

SHORTCUTS = ("site", "device", "dataset")
"""What is of the recording: a model that reads it may score by it."""

_COLUMNS = ("age", "sex", "heart_rate", *SHORTCUTS)
_RECORDS = """
    select
        record_id,
        age,
        sex,
        coalesce(heart_rate, measured) as heart_rate,
        site,
        device,
        dataset,
        case
            when patient_id is null then record_id
            else min(record_id) over (partition by patient_id)
        end as first  -- stands for the patient, whichever key hid the id
    from records
    left join (
        select record_id, any_value(value) as measured
        from measurements
        where name = 'heart_rate'
        group by record_id
    ) using (record_id)
    where record_id in (select unnest($ids))
    order by record_id
"""
_MEASUREMENTS = """
    select record_id, name, value
    from measurements
    where record_id in (select unnest($ids)) and name <> 'heart_rate' and isfinite(value)
    order by record_id, name
"""


@dataclass(frozen=True, eq=False)
class Concept:
    """One thing that is known of some records.

    Attributes:
        name: Its name.
        kind: ``number``, ``angle`` (in degrees, which go round) or ``classes``.
        values: ``(records,)`` float64: the number, the angle or the place in `classes`; NaN where
            it is not known.
        classes: Names of the classes, sorted.
    """

    name: str
    kind: Literal["number", "angle", "classes"]
    values: NDArray[np.float64]
    classes: tuple[str, ...] = ()

    @property
    def known(self) -> NDArray[np.bool_]:
        """``(records,)`` where it is known."""
        return ~np.isnan(self.values)

    def columns(self) -> NDArray[np.float64]:
        """Return it as ``(records, columns)``: an angle as cosine and sine, classes as 0 and 1."""
        if self.kind == "angle":
            turn = np.deg2rad(self.values)
            return np.column_stack([np.cos(turn), np.sin(turn)])
        if self.kind == "number":
            return self.values[:, None]
        one_of: NDArray[np.float64] = (self.values[:, None] == np.arange(len(self.classes))).astype(
            np.float64
        )
        return one_of[:, 1:] if len(self.classes) == 2 else one_of


def concepts_of(
    catalog: Catalog, record_ids: Sequence[str], names: Sequence[str] | None = None
) -> list[Concept]:
    """Return what is known of records, of all records at once.

    Args:
        catalog: The warehouse.
        record_ids: Sorted ids; the order of the values.
        names: Names of `MEASURED` or `SHORTCUTS`, or of any stored measurement; default those of
            the two that anything is known of.

    Raises:
        UnknownNameError: Nothing of this name is stored.
    """
    ids = {"ids": list(record_ids)}
    rows = catalog.table(_RECORDS, ids)
    place = {record_id: i for i, record_id in enumerate(record_ids)}
    found: dict[str, list[object]] = {n: [None] * len(place) for n in _COLUMNS}
    for row in rows.to_pylist():
        for name in _COLUMNS:
            found[name][place[row["record_id"]]] = row[name]
    for row in catalog.table(_MEASUREMENTS, ids).to_pylist():
        column = found.setdefault(row["name"], [None] * len(place))
        column[place[row["record_id"]]] = row["value"]
    known = [name for name, values in found.items() if any(one is not None for one in values)]
    for name in names or ():
        if name not in known:
            raise UnknownNameError(name, kind="concept", known=known)
    told = [name for name in (*MEASURED, *SHORTCUTS) if name in known]
    return [_concept(name, found[name]) for name in (dict.fromkeys(names) if names else told)]


def patients_of(catalog: Catalog, record_ids: Sequence[str]) -> NDArray[np.intp]:
    """Return the number of each record's patient, as in `ecgstore.splitting.split`."""
    rows = catalog.table(_RECORDS, {"ids": list(record_ids)})
    codes: NDArray[np.intp] = np.unique(rows["first"].to_numpy().astype(str), return_inverse=True)[
        1
    ]
    return codes


def _concept(name: str, raw: Sequence[object]) -> Concept:
    if any(isinstance(one, str) for one in raw):
        classes = sorted({str(one) for one in raw if one is not None})
        code = {one: float(i) for i, one in enumerate(classes)}
        values = np.array([np.nan if one is None else code[str(one)] for one in raw])
        return Concept(name, "classes", values, tuple(classes))
    numbers = np.array([np.nan if one is None else one for one in raw], dtype=np.float64)
    return Concept(name, "angle" if name.endswith("axis") else "number", numbers)
