"""Fusion: name a feature set of several models, and keep what its scaling was fitted to.

Records are joined in DuckDB and scaled in numpy, which is faster than scaling in SQL; the numbers
equal those of the SQL macro ``minmax01`` exactly. Scaling is fitted on the training records of
each reshuffle alone, and what was fitted is stored in ``norm_stats``.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ecgstore.catalog import Catalog
from ecgstore.classifiers.classifier import converted
from ecgstore.errors import NotEnoughDataError, UsageError
from ecgstore.features import (
    CONCATENATION,
    SIGNAL,
    FeatureSet,
    Member,
    definitions,
    feature_set,
    is_member,
    matrix,
    member_parameters,
    stored_members,
)
from ecgstore.fusion import fusions
from ecgstore.scaling import Scale, Statistics, statistics
from ecgstore.schema import table_schema
from ecgstore.splitting.split import EVERYTHING, reshuffles
from ecgstore.terms import drawn_splits

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from ecgstore.warehouse import Warehouse

__all__ = ["FuseResult", "fitted_statistics", "fuse", "keep_statistics", "stored_statistics"]

Missing = Literal["drop", "error", "keep"]

_NAME = re.compile(r"[^@:\s]+")


@dataclass(frozen=True)
class FuseResult:
    """What a `fuse` call defined.

    Attributes:
        name: Name of the feature set.
        features: Its definition.
        dim: Numbers per record.
        joined: Records that have the vectors of every member.
        dropped: Per member, records that another member has and this one lacks.
        fitted: Rows written to ``norm_stats``.
        added: Whether the name was defined now.
    """

    name: str
    features: FeatureSet
    dim: int
    joined: int
    dropped: Mapping[str, int]
    fitted: int
    added: bool

    @property
    def rows(self) -> list[dict[str, object]]:
        """One row a member."""
        return [
            {
                "features": self.name,
                **member._asdict(),
                "method": self.features.method,
                "scale": self.features.scale,
                "fit": self.features.fit,
                "joined": self.joined,
                "dropped": self.dropped[str(member)],
            }
            for member in self.features.members
        ]

    def __repr__(self) -> str:
        parts = " + ".join(member.model for member in self.features.members)
        lost = sum(self.dropped.values())
        fate = "lacking one" if self.features.missing == "keep" else "dropped"
        return (
            f"FuseResult({self.name!r} = {parts}, {self.joined} records × {self.dim}, "
            f"{lost} {fate}{'' if self.added else ', unchanged'})"
        )

    def _repr_html_(self) -> str:
        parts = " + ".join(str(member) for member in self.features.members)
        return f"<b>{self.name}</b> = {parts}: {self.joined} records × {self.dim}"


def fuse(
    warehouse: Warehouse,
    models: Sequence[str],
    *,
    name: str,
    method: str = CONCATENATION,
    settings: Mapping[str, object] | None = None,
    scale: Scale | None = None,
    fit: Literal["train", "all"] = "train",
    missing: Missing = "drop",
    dry_run: bool = False,
) -> FuseResult:
    """Name a feature set that joins the vectors of several models.

    By default scaled vectors are concatenated. Per dimension d, over the records scaling is fitted
    on: ``minmax`` is (x - min) / (max - min), ``zscore`` is (x - mean) / standard deviation, both 0
    where all values are equal. Values of other records may leave the range and are not clipped.
    The other methods are those of `ecgstore.fusion`: they are fitted on the training records of
    each reshuffle when the set is trained or evaluated.

    Args:
        warehouse: Where vectors are read and the definition and statistics are written.
        models: Members, as ``model``, ``model@version`` or ``model:readout``.
        name: Name of the feature set.
        method: ``concat``, ``pca``, ``whiten``, ``cca``, ``average``, ``rank``, ``stacking`` or
            ``attention``.
        settings: Settings of the method that differ from its defaults; text is converted.
        scale: Of ``concat``: ``minmax`` (the default), ``zscore`` or ``none``.
        fit: ``train`` fits on the training records of each reshuffle; ``all`` on every record,
            test records included, which flatters the scores.
        missing: ``drop`` leaves records out that lack a member's vector and counts them; ``error``
            refuses them; ``keep`` takes records that have one vector at least, and they are scored
            without the others.
        dry_run: Count and write nothing.

    Raises:
        UnknownNameError: A member has no vectors.
        UsageError: A member is ambiguous or given twice, or the name stands for something else.
        NotEnoughDataError: No record has all vectors, or some lack one under ``missing='error'``.
    """
    chosen = _settings(method, settings)
    if scale is None:
        scale = "minmax" if method == CONCATENATION else "none"
    _check(name, models, method=method, scale=scale, fit=fit, missing=missing)
    with Catalog(warehouse.relations()) as catalog:
        members = tuple(_member(catalog, model) for model in models)
        if len(set(members)) < len(members):
            msg = f"A member is given twice: {', '.join(map(str, members))}."
            raise UsageError(msg)
        features = FeatureSet(name, members, scale, fit, missing, method, chosen)
        known = definitions(catalog)
        if name in known and known[name] != features:
            msg = f"The feature set {name!r} exists with another definition."
            raise UsageError(msg, hint="A definition is never changed; choose another name.")
        if any(member.model == name for member in stored_members(catalog)):
            msg = f"{name!r} is the name of a model; a fused feature set needs a name of its own."
            raise UsageError(msg)
        joined, dropped, dim = _coverage(catalog, members, every=missing != "keep")
        _check_coverage(features, joined, dropped)
        fitted, added = 0, False
        if not dry_run:
            fitted = keep_statistics(warehouse, catalog, features, drawn_splits(catalog))
            added = name not in known and bool(_define(warehouse, features))
    return FuseResult(name, features, dim, joined, dropped, fitted, added)


def stored_statistics(catalog: Catalog, member: Member, split_id: str) -> dict[int, Statistics]:
    """Return the rows of ``norm_stats`` for a member and split, by repeat."""
    rows = catalog.table(
        f"select repeat, mn, mx, mean, std, n_train from norm_stats "
        f"where split_id = $split_id and {is_member(0)}",
        {**member_parameters([member]), "split_id": split_id},
    )
    vectors = {name: rows[name].combine_chunks() for name in ("mn", "mx", "mean", "std")}
    return {
        repeat: Statistics(
            **{name: lists[i].values.to_numpy() for name, lists in vectors.items()},
            n_train=rows["n_train"][i].as_py(),
        )
        for i, repeat in enumerate(rows["repeat"].to_pylist())
    }


def fitted_statistics(
    catalog: Catalog, features: FeatureSet, split_ids: Iterable[str]
) -> Iterator[tuple[Member, dict[tuple[str, int], Statistics]]]:
    """Fit the scaling of a feature set: yield each member with its statistics by split and repeat.

    Statistics are taken over all the records of the training part that have the member's vector,
    whether or not they have the other members'; so a member has the same in every feature set.
    """
    if features.fit == "all":
        train: dict[tuple[str, int], Sequence[str] | None] = {(EVERYTHING, 0): None}
    else:
        train = {
            (split_id, one.repeat): one.train
            for split_id in split_ids
            for one in reshuffles(catalog, split_id)
        }
    for member in features.members:
        ids, (x,) = matrix(catalog, [member])
        here = pa.array(ids, pa.string())
        selections = {
            key: np.ones(len(x), dtype=bool)
            if chosen is None
            else pc.is_in(here, pa.array(chosen, pa.string())).to_numpy(zero_copy_only=False)
            for key, chosen in train.items()
        }
        selections = {key: rows for key, rows in selections.items() if rows.any()}
        if selections:
            found = statistics(x, np.stack(list(selections.values())))
            yield member, dict(zip(selections, found, strict=True))


def keep_statistics(
    warehouse: Warehouse, catalog: Catalog, features: FeatureSet, split_ids: Iterable[str]
) -> int:
    """Bring ``norm_stats`` up to date for a feature set, and return how many rows changed."""
    changed = []
    for member, fitted in fitted_statistics(catalog, features, split_ids):
        stored = {
            (split_id, repeat): found
            for split_id in {split_id for split_id, _ in fitted}
            for repeat, found in stored_statistics(catalog, member, split_id).items()
        }
        changed += [
            {"split_id": key[0], "repeat": key[1], **member._asdict(), **vars(found)}
            for key, found in fitted.items()
            if key not in stored or not found.matches(stored[key])
        ]
    if changed:
        rows = pa.Table.from_pylist(changed, schema=table_schema("norm_stats").arrow)
        warehouse.replace("norm_stats", rows, command=f"fuse {features.name}")
    return len(changed)


def _settings(method: str, given: Mapping[str, object] | None) -> dict[str, int | float | str]:
    """Return the settings of a method that differ from its defaults, converted."""
    if method == CONCATENATION:
        if given:
            msg = f"Concatenation has no settings; {', '.join(given)} was given."
            raise UsageError(msg, hint="Choose how to scale with scale.")
        return {}
    kind = fusions.get(method)
    chosen = {}
    for key, value in (given or {}).items():
        if key not in kind.defaults:
            known = ", ".join(kind.defaults) or "none"
            msg = f"The fusion {method!r} has no setting {key!r}; known: {known}."
            raise UsageError(msg)
        chosen[key] = converted(key, value, like=kind.defaults[key])
    return {key: value for key, value in chosen.items() if value != kind.defaults[key]}


def _check(
    name: str, models: Sequence[str], *, method: str, scale: str, fit: str, missing: str
) -> None:
    if not _NAME.fullmatch(name) or name == SIGNAL:
        msg = f"A feature set cannot be named {name!r}."
        raise UsageError(msg, hint="Choose a name without '@', ':' and spaces, such as 'fusion'.")
    if not models:
        msg = "A feature set needs at least one model."
        raise UsageError(msg)
    choices = {
        "scale": (scale, ("minmax", "zscore", "none")),
        "fit": (fit, ("train", "all")),
        "missing": (missing, ("drop", "error", "keep")),
    }
    for option, (value, known) in choices.items():
        if value not in known:
            msg = f"Unknown {option} {value!r}; known: {', '.join(known)}."
            raise UsageError(msg)
    if method != CONCATENATION and (scale != "none" or fit != "train"):
        msg = f"The method {method!r} scales by itself, on training records; scale and fit are of "
        msg += f"{CONCATENATION!r} only."
        raise UsageError(msg)
    if method != CONCATENATION and len(models) < 2:
        msg = f"The method {method!r} joins several models; one was given."
        raise UsageError(msg)


def _member(catalog: Catalog, model: str) -> Member:
    found = feature_set(catalog, model)
    if model in definitions(catalog):
        msg = f"{model!r} is a fused feature set; members must be models."
        raise UsageError(msg)
    return found.members[0]


def _define(warehouse: Warehouse, features: FeatureSet) -> int:
    row = {
        "name": features.name,
        "definition": json.dumps(features.definition),
        "at": datetime.now(UTC),
    }
    rows = pa.Table.from_pylist([row], schema=table_schema("feature_sets").arrow)
    return warehouse.append("feature_sets", rows, command=f"fuse {features.name}")


def _coverage(
    catalog: Catalog, members: Sequence[Member], *, every: bool
) -> tuple[int, dict[str, int], int]:
    """Count the records joined, those each member lacks, and the numbers of a joined vector."""
    numbers = range(len(members))
    usable = (" and " if every else " or ").join(f"has{i}" for i in numbers)
    query = f"""
        with coverage as (
            select
                {", ".join(f"bool_or({is_member(i)}) as has{i}" for i in numbers)},
                {", ".join(f"max(dim) filter ({is_member(i)}) as dim{i}" for i in numbers)}
            from embeddings
            semi join records using (record_id)
            where {" or ".join(f"({is_member(i)})" for i in numbers)}
            group by record_id
        )
        select
            count(*) filter ({usable}) as joined,
            {", ".join(f"count(*) filter (not has{i}) as lacking{i}" for i in numbers)},
            {", ".join(f"max(dim{i}) as dim{i}" for i in numbers)}
        from coverage
    """
    (row,) = catalog.table(query, member_parameters(members)).to_pylist()
    dropped = {str(member): row[f"lacking{i}"] for i, member in enumerate(members)}
    return row["joined"], dropped, sum(row[f"dim{i}"] or 0 for i in numbers)


def _check_coverage(features: FeatureSet, joined: int, dropped: Mapping[str, int]) -> None:
    lacking = ", ".join(f"{count} lack {member}" for member, count in dropped.items() if count)
    if not joined:
        msg = f"No record has the vectors of every member: {lacking or 'there are no records'}."
        raise NotEnoughDataError(msg, task=features.name, counts=dropped, hint="Embed them first.")
    if lacking and features.missing == "error":
        msg = f"Records lack vectors: {lacking}."
        raise NotEnoughDataError(
            msg, task=features.name, counts=dropped, hint="Embed them, or use missing='drop'."
        )
