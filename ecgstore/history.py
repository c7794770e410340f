"""The past of a warehouse: which table versions a time or a run stands for."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from ecgstore.errors import UnknownNameError, UsageError
from ecgstore.warehouse import Warehouse

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["moment"]


def moment(root: Path, at: str | datetime | None) -> datetime | dict[str, int] | None:
    """Return what `Warehouse` opens for a time or a run.

    Args:
        root: The warehouse folder.
        at: A datetime or ISO time, UTC unless it says otherwise; or the id of a run, which stands
            for the table versions the run read.

    Raises:
        UnknownNameError: No run has this id.
        UsageError: It is neither a time nor an id.
    """
    if at is None or isinstance(at, datetime):
        return at
    try:
        time = datetime.fromisoformat(at)
    except ValueError:
        return _versions_of_run(root, at)
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def _versions_of_run(root: Path, run_id: str) -> dict[str, int]:
    if not run_id or set(run_id) - set("0123456789abcdef"):
        msg = f"{run_id!r} is neither a time nor the id of a run."
        hint = "Give a time such as 2024-05-01T12:00, UTC unless it says otherwise, or a run id."
        raise UsageError(msg, hint=hint)
    rows = Warehouse(root).table("scores").read(["run_id", "versions", "at"]).sort_by("at")
    stored = dict(zip(rows["run_id"].to_pylist(), rows["versions"].to_pylist(), strict=True))
    if run_id not in stored:
        raise UnknownNameError(run_id, kind="run", known=stored)
    versions: dict[str, int] = json.loads(stored[run_id])
    return versions
