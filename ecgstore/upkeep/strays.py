"""What lies in a warehouse and belongs to no version of a table: leftovers, caches, strangers."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from ecgstore.schema import TABLES
from ecgstore.storage.expire import EXPIRING
from ecgstore.storage.integrity import sha256
from ecgstore.storage.locks import claim
from ecgstore.storage.shards import STAGING
from ecgstore.upkeep.findings import Finding

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from ecgstore.upkeep.audit import Audit

__all__ = ["strays"]

_GC = "Run: ecgstore gc"
_OURS = {"_cache", "_locks", "_set_aside", "README.md", ".gitignore"}
_LOG = re.compile(r"\d{20}\.(json|checkpoint\.parquet)|_last_checkpoint")
_COPY = re.compile(r"[0-9a-f]{64}\.\w+")
_TEMPORARY = re.compile(r".*\.tmp")


def strays(
    root: Path, audits: Mapping[str, Audit], *, whole: bool, fast: bool
) -> Iterator[Finding]:
    """Yield what lies about in the folders of the tables audited.

    Args:
        root: The warehouse folder.
        audits: What was found of each table.
        whole: Look beside the tables as well.
        fast: Read no copy in the cache.
    """
    if whole:
        yield from _beside(root)
        if not fast:
            yield from _cached(root)
    for table, audit in audits.items():
        yield from _in_table(root / table, audit)


def _beside(root: Path) -> Iterator[Finding]:
    if (root / "_erasing.json").exists():
        what = "An erasure was interrupted: what it was to erase may still be there."
        remedy = "Finish it with the same: ecgstore forget"
        yield Finding("leftover", "", None, "_erasing.json", what, remedy)
    for path in sorted(root.iterdir()):
        if _TEMPORARY.fullmatch(path.name):
            yield _left("", path.name)
        elif path.name not in {*TABLES, *_OURS, "_erasing.json"}:
            yield _stranger("", path.name)


def _cached(root: Path) -> Iterator[Finding]:
    """Check the copies from which samples are fed; each is named by the digest of its bytes."""
    for path in sorted(root.glob("_cache/feed/**/*")):
        if _COPY.fullmatch(path.name) and path.is_file() and sha256(path) != path.stem:
            what = "A copy in the cache was changed after it was written; it is not used."
            remedy = "It is made anew when it is needed."
            yield Finding("leftover", "", None, str(path.relative_to(root)), what, remedy)


def _in_table(folder: Path, audit: Audit) -> Iterator[Finding]:
    table = folder.name
    for path in sorted(folder.iterdir()):
        name = f"{table}/{path.name}"
        if path.name == STAGING:
            yield from _staged(path)
        elif path.name in audit.shards or path.name == "_delta_log":
            continue
        elif path.suffix == ".parquet":
            if not audit.faults:  # else it may belong to a version whose log file is damaged
                what = "No version names this shard."
                yield Finding("leftover", table, None, name, what, _GC)
        elif _TEMPORARY.fullmatch(path.name):
            yield _left(table, name)
        else:
            yield _stranger(table, name)
    for path in sorted((folder / "_delta_log").iterdir()):
        name = f"{table}/_delta_log/{path.name}"
        if _TEMPORARY.fullmatch(path.name):
            yield _left(table, name)
        elif path.name == EXPIRING:
            what = "A command that was killed was letting old versions go."
            yield Finding("leftover", table, None, name, what, "Run: ecgstore compact")
        elif not _LOG.fullmatch(path.name):
            yield _stranger(table, name)


def _staged(folder: Path) -> Iterator[Finding]:
    table = folder.parent.name
    for path in sorted(folder.iterdir()):
        try:
            with claim(path) as free:
                pass
        except OSError:  # gone meanwhile: its command has ended
            continue
        if free:
            what = "A command that was killed left shards here that it did not commit."
            yield Finding("leftover", table, None, f"{table}/{STAGING}/{path.name}", what, _GC)


def _left(table: str, file: str) -> Finding:
    what = "A command that was killed left a temporary file."
    return Finding("leftover", table, None, file, what, _GC)


def _stranger(table: str, file: str) -> Finding:
    what = "This is not of ecgstore's making."
    return Finding("leftover", table, None, file, what, "Move it elsewhere.")
