"""Stored splits, read back: the reshuffles that every run over a split sees."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ecgstore.errors import UnknownNameError

if TYPE_CHECKING:
    import pyarrow as pa

    from ecgstore.catalog import Catalog

__all__ = ["EVERYTHING", "Reshuffle", "reshuffles", "stored_rows"]

EVERYTHING = "all"
"""Stands in ``norm_stats.split_id`` for statistics over all records; no split may be named so."""

_STORED = """
    select repeat, record_id, split, task, params
    from splits
    where split_id = $split_id
    order by repeat, record_id
"""


@dataclass(frozen=True)
class Reshuffle:
    """One division of a task's records into two parts.

    Attributes:
        split_id: Name of the split it belongs to.
        repeat: Its number in the split, from 0.
        task: The task whose labels it was stratified by; several, or a pattern, joined by commas.
        train: Record ids to learn from, in order.
        test: Record ids to be tested on, in order.
    """

    split_id: str
    repeat: int
    task: str
    train: tuple[str, ...]
    test: tuple[str, ...]


def reshuffles(catalog: Catalog, split_id: str) -> list[Reshuffle]:
    """Return the reshuffles of a stored split in order.

    Raises:
        UnknownNameError: No split of this name is stored.
    """
    stored = stored_rows(catalog, split_id)
    if not len(stored):
        known = catalog.table("select distinct split_id from splits")["split_id"].to_pylist()
        raise UnknownNameError(split_id, kind="split", known=known)
    repeat = stored["repeat"].to_numpy()
    ids = stored["record_id"].to_numpy()
    test = stored["split"].to_numpy() == "test"
    task = stored["task"][0].as_py()
    return [
        Reshuffle(
            split_id=split_id,
            repeat=int(number),
            task=task,
            train=tuple(ids[(repeat == number) & ~test]),
            test=tuple(ids[(repeat == number) & test]),
        )
        for number in np.unique(repeat)
    ]


def stored_rows(catalog: Catalog, split_id: str) -> pa.Table:
    """Return the rows of ``splits`` of one split by repeat and record, none where it is new."""
    return catalog.table(_STORED, {"split_id": split_id})
