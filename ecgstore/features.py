"""Feature sets: what a name such as ``stmem`` or ``fusion`` stands for, and its vectors."""

from __future__ import annotations

import functools
import json
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import repeat
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ecgstore import settings
from ecgstore.errors import SchemaError, UnknownNameError, UsageError
from ecgstore.storage.shards import translated

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from ecgstore.catalog import Catalog
    from ecgstore.scaling import Scale

__all__ = [
    "CONCATENATION",
    "SIGNAL",
    "FeatureSet",
    "Member",
    "definitions",
    "feature_set",
    "is_member",
    "matrix",
    "member_parameters",
    "outputs",
    "stored_members",
]

SIGNAL = "signal"
"""The feature set of classifiers that read the ECG itself; no other may be named so."""

CONCATENATION = "concat"
"""The method of fusion that sets scaled vectors side by side; the others are in `fusion`."""

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
        missing: What `fuse` and runs do about records that lack a member's vector: they are left
            out, refused, or kept and scored without it.
        method: How the members become one: ``concat``, or a method of `ecgstore.fusion`.
        settings: Settings of that method that differ from its defaults.
    """

    name: str
    members: tuple[Member, ...]
    scale: Scale = "none"
    fit: Literal["train", "all"] = "train"
    missing: Literal["drop", "error", "keep"] = "drop"
    method: str = CONCATENATION
    settings: Mapping[str, int | float | str] = field(default_factory=dict, hash=False)

    @property
    def definition(self) -> dict[str, object]:
        """What makes it, without its name, ready for JSON."""
        told: dict[str, object] = {
            "members": [member._asdict() for member in self.members],
            "scale": self.scale,
            "fit": self.fit,
            "missing": self.missing,
        }
        if self.method != CONCATENATION:
            told |= {"method": self.method, "settings": dict(self.settings)}
        return told


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
    catalog: Catalog,
    members: Sequence[Member],
    record_ids: Sequence[str] | None = None,
    *,
    lacking: Literal["drop", "keep"] = "drop",
) -> tuple[NDArray[np.object_], list[NDArray[np.float32]]]:
    """Join the vectors of several members by record.

    Vectors go from the shards to their place, some row groups at a time: beside what is returned,
    memory is needed for the ids alone.

    Args:
        catalog: The warehouse.
        members: Whose vectors.
        record_ids: Records to take; None for all in ``records``.
        lacking: What is done with a record that lacks some member's vector: it is left out, or
            kept with NaN there, as long as it has one vector at least.

    Returns:
        The ids of the records that have every member's vector (or any), sorted, and per member a
        ``(records, dim)`` float32 array in that order.

    Raises:
        SchemaError: Vectors of one member differ in length or hold values that are not finite.
        WarehouseError: A shard is missing or damaged.
    """
    files, _ = catalog.relations["embeddings"]
    folder = files[0].parent if files else Path()
    with translated(folder), ThreadPoolExecutor(settings.threads()) as pool:
        shards = list(pool.map(lambda file: _Shard(file, members), files))
        stored = [
            pa.chunked_array([shard.record_ids[i] for shard in shards], pa.string())
            for i in range(len(members))
        ]
        wanted = (
            catalog.table("select record_id from records")["record_id"].combine_chunks()
            if record_ids is None
            else pc.unique(pa.array(record_ids, pa.string()))
        )
        held = [pc.is_in(wanted, ids) for ids in stored]
        wanted = wanted.filter(functools.reduce(pc.and_ if lacking == "drop" else pc.or_, held))
        wanted = wanted.take(pc.sort_indices(wanted))
        blocks = []
        for i, ids in enumerate(stored):
            rows = pc.fill_null(pc.index_in(ids, wanted), -1).to_numpy()
            shares = np.split(rows, np.cumsum([len(shard.record_ids[i]) for shard in shards])[:-1])
            dim = next((shard.dims[i] for shard in shards if shard.dims[i]), 0)
            out = np.empty((len(wanted), dim), np.float32)
            if lacking == "keep":
                out[:] = np.nan
            list(pool.map(_Shard.copy, shards, repeat(i), shares, repeat(out)))
            blocks.append(out)
    return wanted.to_numpy(zero_copy_only=False), blocks


def stored_members(catalog: Catalog) -> list[Member]:
    """Return every model, version and read-out that has vectors."""
    query = "select distinct model, version, pooling from embeddings order by all"
    return [Member(**row) for row in catalog.table(query).to_pylist()]


def outputs(catalog: Catalog, features: FeatureSet) -> list[str]:
    """Return what the numbers of a vector stand for, if they are the logits of one head."""
    query = f"select labels from models where {is_member(0)}"
    rows = catalog.table(query, member_parameters(features.members[:1])).to_pylist()
    alone = len(features.members) == 1 and rows
    return list(rows[0]["labels"] or ()) if alone else []


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


class _Shard:
    """One shard of ``embeddings``, read some row groups at a time.

    Arrow hands vectors out twice as fast as DuckDB, and its datasets hold whole shards.

    Attributes:
        record_ids: The ids of the records of each member's vectors, in the shard's order.
    """

    def __init__(self, file: Path, members: Sequence[Member]) -> None:
        self._file = file
        self._members = members
        with pq.ParquetFile(file, page_checksum_verification=True) as shard:
            keys = shard.read(["record_id", "dim", *Member._fields], use_threads=False)
        masks = [
            functools.reduce(
                pc.and_, (pc.equal(keys[name], value) for name, value in one._asdict().items())
            )
            for one in members
        ]
        self._masks = [mask.to_numpy() for mask in masks]
        self.record_ids = [keys["record_id"].filter(mask).combine_chunks() for mask in masks]
        self.dims = [pc.first(keys["dim"].filter(mask)).as_py() for mask in masks]

    def copy(self, i: int, rows: NDArray[np.int32], out: NDArray[np.float32]) -> None:
        """Copy the vectors of the i-th member to rows of a matrix; those of row -1 are left out."""
        places = np.full(len(self._masks[i]), -1, np.int32)
        places[self._masks[i]] = rows
        start = 0
        with pq.ParquetFile(self._file, page_checksum_verification=True) as shard:
            for group in range(shard.num_row_groups):
                end = start + shard.metadata.row_group(group).num_rows
                if (places[start:end] >= 0).any():
                    column = shard.read_row_group(group, ["embedding"], use_threads=False)[0]
                    for lists in column.chunks:
                        here = places[start : start + len(lists)]
                        start += len(lists)
                        if (here < 0).any():
                            lists, here = lists.filter(pa.array(here >= 0)), here[here >= 0]
                        out[here] = _rectangle(lists, out.shape[1], self._members[i])
                start = end


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
