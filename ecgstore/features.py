"""Feature sets: what a name such as ``stmem`` or ``fusion`` stands for, and its vectors."""

from __future__ import annotations

import functools
import json
import operator
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ecgstore import settings
from ecgstore.errors import SchemaError, UnknownNameError, UsageError
from ecgstore.keys import open_shards
from ecgstore.schema import table_schema
from ecgstore.shards import translated

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from ecgstore.catalog import Catalog
    from ecgstore.scaling import Scale

__all__ = [
    "SIGNAL",
    "FeatureSet",
    "Member",
    "definitions",
    "feature_set",
    "is_member",
    "matrix",
    "member_parameters",
    "stored_members",
]

SIGNAL = "signal"
"""The feature set of classifiers that read the ECG itself; no other may be named so."""

_READ_AHEAD = 4  # row groups: of 2048 vectors of 768 numbers, 25 MB

_SPELLING = re.compile(r"(?P<model>[^@:]+)(?:@(?P<version>[^@:]+))?(?::(?P<pooling>[^@:]+))?")


class Member(NamedTuple):
    """The vectors of one model, version and read-out: a part of a feature set."""

    model: str
    version: str
    pooling: str

    def __str__(self) -> str:
        return f"{self.model}@{self.version}:{self.pooling}"


@dataclass(frozen=True)
class FeatureSet:
    """What a classifier is given for each record.

    Attributes:
        name: The name it was asked for by.
        members: Whose vectors, in the order they are concatenated.
        scale: How each member's vectors are scaled before.
        fit: Whether scaling is fitted on the training records of each reshuffle or on ``all``.
        missing: What `fuse` and runs do about records that lack a member's vector.
    """

    name: str
    members: tuple[Member, ...]
    scale: Scale = "none"
    fit: Literal["train", "all"] = "train"
    missing: Literal["drop", "error"] = "drop"

    @property
    def definition(self) -> dict[str, object]:
        """What makes it, without its name, ready for JSON."""
        return {
            "members": [member._asdict() for member in self.members],
            "scale": self.scale,
            "fit": self.fit,
            "missing": self.missing,
        }


def feature_set(catalog: Catalog, name: str) -> FeatureSet:
    """Return what a name stands for: a fused set, or the vectors of one model.

    Args:
        catalog: The warehouse.
        name: A name given to `fuse`, or ``model``, ``model@version``, ``model:readout`` or
            ``model@version:readout``.

    Raises:
        UnknownNameError: It is neither.
        UsageError: It fits several; the error lists them.
    """
    defined, members = definitions(catalog), stored_members(catalog)
    spelling = _SPELLING.fullmatch(name)
    wanted = (
        {key: value for key, value in spelling.groupdict().items() if value} if spelling else {}
    )
    fitting = [
        member
        for member in members
        if wanted and all(getattr(member, key) == value for key, value in wanted.items())
    ]
    candidates = [FeatureSet(name, (member,)) for member in fitting]
    if name in defined:
        candidates.append(defined[name])
    if not candidates:
        models = {member.model for member in members}
        raise UnknownNameError(name, kind="feature set", known={*models, *defined})
    if len(candidates) > 1:
        listed = ", ".join(sorted(map(str, fitting)))
        msg = f"The name {name!r} fits several feature sets: {listed}."
        raise UsageError(msg, hint="Write the one you mean as MODEL@VERSION:READOUT.")
    return candidates[0]


def matrix(
    catalog: Catalog, members: Sequence[Member], record_ids: Sequence[str] | None = None
) -> tuple[NDArray[np.object_], list[NDArray[np.float32]]]:
    """Join the vectors of several members by record.

    Vectors go from the shards to their place, some row groups at a time: beside what is returned,
    memory is needed for the ids alone.

    Args:
        catalog: The warehouse.
        members: Whose vectors.
        record_ids: Records to take; None for all in ``records``.

    Returns:
        The ids of the records that have every member's vector, sorted, and per member a
        ``(records, dim)`` float32 array in that order.

    Raises:
        SchemaError: Vectors of one member differ in length or hold values that are not finite.
        WarehouseError: A shard is missing or damaged.
    """
    shards = _Vectors(catalog)
    stored = [shards.record_ids(member) for member in members]
    wanted = (
        catalog.table("select record_id from records")["record_id"].combine_chunks()
        if record_ids is None
        else pc.unique(pa.array(record_ids, pa.string()))
    )
    for ids in stored:
        wanted = wanted.filter(pc.is_in(wanted, ids))
    wanted = wanted.take(pc.sort_indices(wanted))
    blocks = []
    for member, ids in zip(members, stored, strict=True):
        place = pc.fill_null(pc.index_in(ids, wanted), -1).to_numpy()
        blocks.append(shards.matrix(member, place, len(wanted)))
    return wanted.to_numpy(zero_copy_only=False), blocks


def stored_members(catalog: Catalog) -> list[Member]:
    """Return every model, version and read-out that has vectors."""
    query = "select distinct model, version, pooling from embeddings order by all"
    return [Member(**row) for row in catalog.table(query).to_pylist()]


def definitions(catalog: Catalog) -> dict[str, FeatureSet]:
    """Return the fused feature sets by name."""
    rows = catalog.table("select name, definition from feature_sets").to_pylist()
    defined = {}
    for row in rows:
        stored = json.loads(row["definition"])
        stored["members"] = tuple(Member(**member) for member in stored["members"])
        defined[row["name"]] = FeatureSet(row["name"], **stored)
    return defined


def is_member(i: int) -> str:
    """Return the SQL predicate that a row is of the i-th member of `member_parameters`."""
    return f"model = $model{i} and version = $version{i} and pooling = $pooling{i}"


def member_parameters(members: Sequence[Member]) -> dict[str, object]:
    """Return the query parameters that `is_member` refers to."""
    return {
        f"{key}{i}": value
        for i, member in enumerate(members)
        for key, value in member._asdict().items()
    }


class _Vectors:
    """The shards of ``embeddings``, read by Arrow: DuckDB takes twice as long to hand vectors out.

    Arrow yields the rows of the same shards in the same order every time.
    """

    def __init__(self, catalog: Catalog) -> None:
        files, _ = catalog.relations["embeddings"]
        self._folder = files[0].parent if files else Path()
        self._shards = open_shards(table_schema("embeddings"), files)

    def record_ids(self, member: Member) -> pa.Array:
        """Return the record of each vector of a member."""
        with translated(self._folder):
            rows = self._shards.to_table(columns=["record_id"], filter=_of(member))
        return rows["record_id"].combine_chunks()

    def matrix(self, member: Member, place: NDArray[np.int32], rows: int) -> NDArray[np.float32]:
        """Return a matrix of `rows` rows, with the i-th vector of a member in row ``place[i]``.

        A vector whose place is -1 is left out.
        """
        out: NDArray[np.float32] | None = None
        start = 0
        with translated(self._folder):
            batches = self._shards.to_batches(
                columns=["embedding"],
                filter=_of(member),
                batch_readahead=_READ_AHEAD,
                fragment_readahead=1,
                use_threads=settings.threads() > 1,
            )
            for batch in batches:
                lists, here = batch.column(0), place[start : start + len(batch)]
                start += len(batch)
                if (here < 0).any():
                    lists, here = lists.filter(pa.array(here >= 0)), here[here >= 0]
                if len(lists):
                    if out is None:
                        out = np.empty((rows, len(lists[0])), np.float32)
                    out[here] = _rectangle(lists, out.shape[1], member)
        return np.empty((rows, 0), np.float32) if out is None else out


def _of(member: Member) -> pc.Expression:
    return functools.reduce(
        operator.and_, (pc.field(name) == value for name, value in member._asdict().items())
    )


def _rectangle(lists: pa.ListArray, dim: int, member: Member) -> NDArray[np.float32]:
    """Return lists as they lie in Arrow's memory, ``(records, dim)``."""
    if not pc.all(pc.equal(lists.value_lengths(), dim)).as_py():
        msg = f"The vectors of {member} differ in length; {dim} was expected."
        raise SchemaError(msg, table="embeddings", wanted=dim)
    values: NDArray[np.float32] = lists.flatten().to_numpy(zero_copy_only=True).reshape(-1, dim)
    if not np.isfinite(values).all():
        msg = f"The vectors of {member} hold values that are not finite."
        raise SchemaError(msg, table="embeddings", hint="Embed with overwrite.")
    return values
