"""Commits by another engine, delta-rs, which forces nothing to disk, and a loss of power."""

from __future__ import annotations

import tempfile
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

import deltalake
import pyarrow as pa

from ecgstore.errors import EcgStoreError, LogError
from ecgstore.schema import TABLES
from ecgstore.store import Store

from .content import Content, content, grave
from .forks import forked
from .operations import staged
from .power import Data, Pool, on_disk

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .forks import Tell
    from .power import State

_DEADLINE_S = 1800.0


def tear_foreign_commits(scratch: Path, *, every: int) -> dict[str, Any]:
    """Cut, empty and garble what delta-rs wrote last, and open and repair what is left.

    Args:
        scratch: A folder to work in.
        every: Take the log file at every so many of its lengths.

    Returns:
        ``states`` looked at, and ``problems`` told.
    """
    stage = staged("relabel", scratch)
    before = stage.contents[0]
    assert before is not None

    def write(_: Tell) -> list[tuple[str, State]]:
        root = stage.copy()
        schema = TABLES["labels"].arrow
        one = {"record_id": "ds/r00", "task": "other", "label": 1.0, "likelihood": None}
        rows = pa.Table.from_pylist([one], schema=schema)
        whole = on_disk(root)
        deltalake.write_deltalake(str(root / "labels"), rows, mode="append")
        return list(_torn(whole, on_disk(root), every=every))

    states = forked(write).result()
    pool = Pool(Path(tempfile.mkdtemp(dir=stage.home)))

    def look(_: Tell) -> list[str]:
        return [
            f"{what}: {one}"
            for what, state in states
            for one in _problems(pool.put(state) / stage.base.name, before)
        ]

    return {"states": len(states), "problems": forked(look, deadline_s=_DEADLINE_S).result()}


def _torn(before: State, after: State, *, every: int) -> Iterator[tuple[str, State]]:
    """Yield states in which what is new is there in part."""
    new = [path for path in after if path not in before]
    (log,) = (path for path in new if path.endswith(".json"))
    (shard,) = (path for path in new if path.endswith(".parquet"))
    text, data = after[log], after[shard]
    assert text is not None
    assert data is not None
    yield "nothing lost", after
    for length in sorted({0, 1, len(text) - 1, *range(0, len(text), every)}):
        yield f"log cut to {length} of {len(text)}", {**after, log: Data(text[:length])}
        zeros = Data(text[:length] + bytes(len(text) - length))
        yield f"log zeros from {length} of {len(text)}", {**after, log: zeros}
    for length in (0, 4, len(data) // 2, len(data) - 1):
        yield f"shard cut to {length}", {**after, shard: Data(data[:length])}
    yield "no shard", {path: one for path, one in after.items() if path != shard}
    yield "no log", {path: one for path, one in after.items() if path != log}
    lost = {path: one for path, one in after.items() if path != shard}
    yield "no shard, empty log", {**lost, log: Data()}


def _problems(root: Path, before: Content) -> list[str]:
    """Return what is wrong: an answer that is neither right nor a named error, or a loss."""
    try:
        try:
            opened = content(root)
        except LogError as error:
            newest = max((root / "labels" / "_delta_log").glob("*.json"))
            if (error.table, error.file) != ("labels", f"_delta_log/{newest.name}"):
                return [f"the error names another place: {error}"]
        except EcgStoreError as error:
            if "\n" in error.message or "labels" not in error.message:
                return [f"the error does not name the table: {error}"]
        else:
            if not _kept(opened, before):
                return ["an answer is wrong"]
        Store(root).verify(repair=True)
        after = content(root)
        problems = grave(Store(root).verify())
        if not _kept(after, before):
            problems.append("the repair lost rows")
        return problems
    except Exception:  # noqa: BLE001  what cannot be looked at is a problem, too
        return [traceback.format_exc(limit=-2)]


def _kept(now: Content, before: Content) -> bool:
    """Tell whether all rows are there, and none but the one that was being written."""
    same = all(now[name] == before[name] for name in before if name != "labels")
    more = now["labels"].items() - before["labels"].items()
    return same and before["labels"].items() <= now["labels"].items() and len(more) <= 1
