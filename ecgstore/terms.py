"""The terms of a stored split: for which tasks it was drawn, and under which protocol."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ecgstore.errors import UnknownNameError
from ecgstore.tasks import expand

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ecgstore.catalog import Catalog

__all__ = ["Terms", "drawn_splits", "terms_of"]


@dataclass(frozen=True)
class Terms:
    """What is written on a split.

    Attributes:
        split_id: Name of the split.
        task: The tasks it was drawn for: a name, several with commas, or a pattern.
        params: How it was drawn.
    """

    split_id: str
    task: str
    params: Mapping[str, Any]

    @property
    def protocol(self) -> str:
        """The protocol that drew it: ``paper``, ``sound``, or empty."""
        return str(self.params.get("protocol") or "")

    @property
    def target(self) -> str | None:
        """The kind of target it was drawn for, None where it does not say."""
        return self.params.get("target")

    def tasks(self, catalog: Catalog) -> list[str]:
        """Return the tasks by name."""
        if "tasks" in self.params:
            return list(self.params["tasks"])
        known = catalog.table(
            "select count(*) as n from labels where task = $task", {"task": self.task}
        )
        return [self.task] if known["n"][0].as_py() else expand(catalog, self.task.split(","))


def terms_of(catalog: Catalog, split_id: str) -> Terms:
    """Return the terms of a stored split.

    Raises:
        UnknownNameError: No split of this name is stored.
    """
    rows = catalog.table(
        "select task, params from splits where split_id = $split limit 1", {"split": split_id}
    ).to_pylist()
    if not rows:
        known = catalog.table("select distinct split_id from splits")["split_id"].to_pylist()
        raise UnknownNameError(split_id, kind="split", known=known)
    return Terms(split_id, rows[0]["task"], json.loads(rows[0]["params"] or "{}"))


def drawn_splits(catalog: Catalog) -> list[str]:
    """Return the names of the stored splits, without those inside a training part of another."""
    rows = catalog.table(
        "select distinct split_id from splits "
        "where json_extract_string(params, '$.inner_of') is null order by split_id"
    )
    names: list[str] = rows["split_id"].to_pylist()
    return names
