"""Name the records that are one ECG: by the digest of the signal, or by its fingerprint."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ecgstore.quality.fingerprint import LENGTH, near

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["equal_to", "near_to"]


def equal_to(record_ids: Sequence[str], digests: Sequence[str | None]) -> list[str | None]:
    """Return for each record the first of those with the same digest, None for that one itself.

    Args:
        record_ids: In the order in which the first is chosen.
        digests: `ecgstore.record.Record.signal_sha256` of each; None matches nothing.
    """
    first: dict[str, str] = {}
    for record_id, digest in zip(record_ids, digests, strict=True):
        if digest is not None:
            first.setdefault(digest, record_id)
    return [
        None if digest is None or first[digest] == record_id else first[digest]
        for record_id, digest in zip(record_ids, digests, strict=True)
    ]


def near_to(
    record_ids: Sequence[str],
    fingerprints: Sequence[bytes | None],
    equal: Sequence[str | None],
) -> list[str | None]:
    """Return for each record the first of those that are the same ECG, None for that one itself.

    Records that are like the same third one are taken as one ECG. None too for exact copies of
    another, which `equal_to` names.

    Args:
        record_ids: In the order in which the first is chosen.
        fingerprints: Of each; None is like nothing.
        equal: What `equal_to` gave.
    """
    known = [i for i, one in enumerate(fingerprints) if one is not None and equal[i] is None]
    parent = list(range(len(record_ids)))
    if known:
        stacked = np.frombuffer(b"".join(fingerprints[i] or b"" for i in known), np.uint8)
        for one, other, _ in near(stacked.reshape(len(known), LENGTH)):
            a, b = _root(parent, known[one]), _root(parent, known[other])
            parent[max(a, b)] = min(a, b)
    roots = [_root(parent, i) for i in range(len(parent))]
    return [None if root == i else record_ids[root] for i, root in enumerate(roots)]


def _root(parent: list[int], i: int) -> int:
    while parent[i] != i:
        parent[i] = parent[parent[i]]
        i = parent[i]
    return i
