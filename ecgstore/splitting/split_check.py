"""The proof of a split: by SQL over the tables, what crosses from its training to its test side."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ecgstore.catalog import Catalog
from ecgstore.errors import UnknownNameError

if TYPE_CHECKING:
    from ecgstore.warehouse import Warehouse

__all__ = ["CheckResult", "check"]


@dataclass(frozen=True)
class CheckResult:
    """What crosses in a split.

    Attributes:
        name: The split.
        rows: One row a thing that must not cross: in how many repeats and how many of how many
            do; NULL with a note where that cannot be told.
        notes: What should be known of it, a sentence each.
    """

    name: str
    rows: list[dict[str, object]]
    notes: tuple[str, ...] = ()

    @property
    def crossing(self) -> tuple[str, ...]:
        """The things that cross."""
        return tuple(str(row["what"]) for row in self.rows if row["crossing"])

    @property
    def untold(self) -> tuple[str, ...]:
        """The things of which nothing can be told."""
        return tuple(str(row["what"]) for row in self.rows if row["crossing"] is None)

    @property
    def summary(self) -> str:
        """The result in a sentence."""
        said = f"{', '.join(self.crossing)} cross" if self.crossing else "nothing crosses"
        unknown = f"; not assessed: {', '.join(self.untold)}" if self.untold else ""
        return f"{self.name}: {said}{unknown}"

    def __repr__(self) -> str:
        return f"CheckResult({self.summary})"

    def _repr_html_(self) -> str:
        return f"<b>{self.name}</b>{self.summary.removeprefix(self.name)}"


def check(warehouse: Warehouse, name: str) -> CheckResult:
    """Look for what is on both sides of a repeat of a split, by the named query ``split_check``.

    Patients; signals that are equal by their digest, or the same ECG by its fingerprint (after
    ``ecgstore quality``); records; scaling that was fitted on more records than the training part
    has, or on all; and records of inner folds that are not of the training part they belong to.

    Raises:
        UnknownNameError: No split of this name is stored.
    """
    with Catalog(warehouse.relations()) as catalog:
        splits = catalog.table(
            "select split_id, any_value(params) as params from splits group by split_id"
        )
        known = dict(zip(splits["split_id"].to_pylist(), splits["params"].to_pylist(), strict=True))
        if name not in known:
            raise UnknownNameError(name, kind="split", known=known)
        rows = catalog.query("split_check", {"split_id": name}).to_arrow_table().to_pylist()
    params = json.loads(known[name] or "{}")
    notes = []
    if params.get("protocol") == "paper":
        notes.append("The protocol 'paper' draws record by record: its patients do cross.")
    elif params.get("group") == "none":
        notes.append("The split was drawn record by record (--group none).")
    return CheckResult(name, rows, tuple(notes))
