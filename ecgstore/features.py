"""Feature sets: what a name such as ``stmem`` or ``fusion`` stands for, and its vectors."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
import pyarrow.compute as pc

from ecgstore.errors import SchemaError, UnknownNameError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pyarrow as pa
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

    Args:
        catalog: The warehouse.
        members: Whose vectors.
        record_ids: Records to take; None for all in ``records``.

    Returns:
        The ids of the records that have every member's vector, sorted, and per member a
        ``(records, dim)`` float32 array in that order.

    Raises:
        SchemaError: Vectors of one member differ in length or hold values that are not finite.
    """
    chosen = None if record_ids is None else list(record_ids)
    # Variables, not parameters: with parameters DuckDB copies the vectors once more.
    for key, value in {**member_parameters(members), "ids": chosen}.items():
        catalog.connection.execute(f"set variable {key} = ?", [value])
    first, *others = [
        f"(select record_id, embedding from embeddings where model = getvariable('model{i}') "
        f"and version = getvariable('version{i}') and pooling = getvariable('pooling{i}')) m{i}"
        for i in range(len(members))
    ]
    query = " ".join(
        [
            "select record_id,",
            ", ".join(f"m{i}.embedding as m{i}" for i in range(len(members))),
            f"from {first}",
            *(f"join {other} using (record_id)" for other in others),
            ""
            if record_ids is None
            else "where record_id in (select unnest(getvariable('ids')::varchar[]))",
        ]
    )
    rows = catalog.table(query)
    if record_ids is None:
        exists = catalog.table("select record_id from records")["record_id"]
        here = pc.is_in(rows["record_id"], exists.combine_chunks())
        rows = rows if pc.all(here).as_py() else rows.filter(here)
    order = pc.sort_indices(rows["record_id"]).to_numpy()
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    ids = rows["record_id"].to_numpy()[order]
    return ids, [_gather(rows[f"m{i}"], place, member) for i, member in enumerate(members)]


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


def _gather(
    column: pa.ChunkedArray, place: NDArray[np.intp], member: Member
) -> NDArray[np.float32]:
    """Write lists, as they lie in Arrow's memory, to their places in one matrix."""
    dim = len(column[0]) if len(column) else 0
    out = np.empty((len(place), dim), np.float32)
    start = 0
    for chunk in column.chunks:
        lengths = chunk.value_lengths()
        if not pc.all(pc.equal(lengths, dim)).as_py():
            msg = f"The vectors of {member} differ in length; {dim} was expected."
            raise SchemaError(msg, table="embeddings", wanted=dim)
        values = chunk.flatten().to_numpy(zero_copy_only=True).reshape(-1, dim)
        if not np.isfinite(values).all():
            msg = f"The vectors of {member} hold values that are not finite."
            raise SchemaError(msg, table="embeddings", hint="Embed with overwrite.")
        out[place[start : start + len(values)]] = values
        start += len(values)
    return out
