"""Runs: a classifier on a feature set over a split, read once and named by what it is made of.

The id of a run is a digest of all that determines its numbers: vectors or signals, labels, split,
settings and the library that fits. So a run that was done is found again, and changed data makes
a new one.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ecgstore.catalog import Catalog
from ecgstore.errors import NotEnoughDataError, UsageError
from ecgstore.features import CONCATENATION, SIGNAL, FeatureSet, feature_set, matrix, outputs
from ecgstore.feed import stream
from ecgstore.fitting import Plan
from ecgstore.fuse import fitted_statistics, keep_statistics, stored_statistics
from ecgstore.fusion import fusions
from ecgstore.leakage import leaked
from ecgstore.protocols import PROTOCOLS
from ecgstore.scaling import fused
from ecgstore.sequences import window_sequences
from ecgstore.splitting.split import EVERYTHING, Reshuffle
from ecgstore.supervised import signals
from ecgstore.tasks import cohort, target_of
from ecgstore.terms import terms_of
from ecgstore.warehouse import Warehouse

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from ecgstore.classifiers import Classifier, Setting
    from ecgstore.scaling import Statistics
    from ecgstore.tasks import Target

    Scaling = Callable[[Catalog, FeatureSet, str], list[dict[int, Statistics]]]

__all__ = [
    "Fold",
    "Run",
    "check_reads",
    "fitted_scaling",
    "pinned",
    "prepare",
    "stored_scaling",
    "under",
]

_RECIPE = 1
"""Counts changes to this program that change its numbers; part of every run id."""


@dataclass(frozen=True, eq=False)
class Fold:
    """A reshuffle as places in the arrays of a `Run`.

    Attributes:
        repeat: Number of the reshuffle.
        train: ``(n_train,)`` places of the records to learn from.
        test: ``(n_test,)`` places of the records to be tested on.
    """

    repeat: int
    train: NDArray[np.intp]
    test: NDArray[np.intp]


@dataclass(frozen=True, eq=False)
class Run:
    """A classifier on a feature set over a split, with all it needs at hand.

    Attributes:
        run_id: Digest of what determines the numbers.
        features: Name of the feature set.
        kind: The classifier.
        params: Its settings.
        library: Name and version of the library that fits it.
        split_id: The split.
        task: The task.
        target: What its labels say.
        plan: What is fitted.
        record_ids: ``(records,)`` ids, sorted.
        labels: ``(records,)`` labels.
        patients: ``(records,)`` number of each record's patient.
        folds: The reshuffles.
        left_out: Records of the split that are not used, by reason.
        blocks: Returns the input of all records for a repeat: the one block of a classifier,
            scaled as fitted on the repeat's training records, or one a member for a fusion.
    """

    run_id: str
    features: str
    kind: type[Classifier]
    params: Mapping[str, Setting]
    library: str
    split_id: str
    task: str
    target: Target
    plan: Plan
    record_ids: NDArray[np.object_]
    labels: NDArray[np.float64]
    patients: NDArray[np.intp]
    folds: tuple[Fold, ...]
    left_out: Mapping[str, int]
    blocks: Callable[[int], list[NDArray[np.float32]]]

    def inputs(self, repeat: int) -> NDArray[np.float32]:
        """Return the input of a classifier that is fitted without a fusion of its own."""
        (block,) = self.blocks(repeat)
        return block


def pinned(
    warehouse: Warehouse, names: Iterable[str], split_id: str, *, dry_run: bool
) -> Warehouse:
    """Bring the statistics of fused sets up to date and return the warehouse as it is now.

    Every number of a run is read from this one set of table versions.
    """
    if not dry_run:
        with Catalog(warehouse.relations()) as catalog:
            protocol = terms_of(catalog, split_id).protocol
            sets = [under(protocol, feature_set(catalog, name)) for name in names if name != SIGNAL]
            for one in sets:
                if one.scale != "none":
                    keep_statistics(warehouse, catalog, one, [split_id])
    return Warehouse(warehouse.root, at=warehouse.versions())


def prepare(
    warehouse: Warehouse,
    catalog: Catalog,
    features: str,
    split: Sequence[Reshuffle],
    kind: type[Classifier],
    params: Mapping[str, Setting],
    *,
    task: str | None = None,
    target: Target | None = None,
    tune: float = 0,
    scaling: Scaling | None = None,
    only: Collection[int] = (),
) -> Run:
    """Read all that a run needs and name it; see `train`.

    Of the reshuffles only those named in `only` are kept, all by default; the id is that of all.
    Weights that were finetuned on test records of one that is kept are refused. Statistics of a
    scaled feature set are those in ``norm_stats``, unless `scaling` returns others. The target is
    what is given, else what the split was drawn for, else what the labels look like.
    """
    terms = terms_of(catalog, split[0].split_id)
    split_id, task = terms.split_id, task or terms.task
    check_reads(kind, features)
    members = sorted({*(i for one in split for i in (*one.train, *one.test))})
    people = cohort(catalog, [task])
    known = people.filter(pc.is_in(people["record_id"], pa.array(members, pa.string())))
    ids: NDArray[np.object_] = known["record_id"].to_numpy()
    told: NDArray[np.float64] = known[task].to_numpy()
    target = target_of(told, target or terms.target, task=task)
    left_out = Counter({"no label": len(members) - len(ids)})
    digest = hashlib.sha256()
    fusion = None
    if features == SIGNAL:
        one = FeatureSet(SIGNAL, ())
        definition: dict[str, object] = {"members": SIGNAL}
        taken, blocks = _signal_inputs(
            warehouse, catalog, ids.tolist(), params, digest=digest, left_out=left_out
        )
    else:
        one = under(terms.protocol, feature_set(catalog, features))
        definition = one.definition
        params = kind.settled(params, task=task, labels=outputs(catalog, one))
        if one.method != CONCATENATION:
            fusion = fusions.get(one.method)
        taken, blocks = _vector_inputs(
            catalog,
            one,
            split_id,
            ids.tolist(),
            reads=kind.reads,
            scaling=scaling or stored_scaling,
            digest=digest,
            left_out=left_out,
        )
    rows = np.searchsorted(ids.astype(str), taken.astype(str))
    labels = told[rows].astype(np.float64)
    _, patients = np.unique(known["patient"].to_numpy()[rows], return_inverse=True)
    library = kind.library()
    identity = [_RECIPE, definition, kind.name, dict(params), library, split_id, task]
    identity += [target] if target != "binary" else []
    identity += [{"tune": tune}] if tune else []
    identity += [fusion.library()] if fusion else []
    digest.update(json.dumps(identity, sort_keys=True).encode())
    digest.update(labels.tobytes())
    folds = tuple(_folds(split, taken, digest=digest))
    if unknown := {*only} - {fold.repeat for fold in folds}:
        msg = f"The split {split_id!r} has no reshuffle {min(unknown)}; it has {len(folds)}."
        raise UsageError(msg, hint="They are counted from 0.")
    folds = tuple(fold for fold in folds if not only or fold.repeat in only)
    _check_unseen(catalog, one, taken, folds)
    for fold in folds:
        _check_classes(labels, fold, target=target, task=task, features=features)
    return Run(
        run_id=digest.hexdigest()[:12],
        features=features,
        kind=kind,
        params=params,
        library=library,
        split_id=split_id,
        task=task,
        target=target,
        plan=Plan(kind, params, fusion=fusion, settings=one.settings, target=target),
        record_ids=taken,
        labels=labels,
        patients=patients,
        folds=folds,
        left_out=dict(+left_out),
        blocks=blocks,
    )


def under(protocol: str, features: FeatureSet) -> FeatureSet:
    """Return a feature set as a protocol scales it: ``paper`` on every record it can see."""
    if features.scale != "none" and protocol:
        return replace(features, fit=PROTOCOLS[protocol].fit)
    return features


def stored_scaling(
    catalog: Catalog, features: FeatureSet, split_id: str
) -> list[dict[int, Statistics]]:
    """Return what ``norm_stats`` holds of each member by repeat; 0 when fitted on every record."""
    key = EVERYTHING if features.fit == "all" else split_id
    return [stored_statistics(catalog, member, key) for member in features.members]


def fitted_scaling(
    catalog: Catalog, features: FeatureSet, split_id: str
) -> list[dict[int, Statistics]]:
    """Fit what `stored_scaling` reads anew."""
    fitted = dict(fitted_statistics(catalog, features, [split_id]))
    return [
        {repeat: found for (_, repeat), found in fitted[member].items()}
        for member in features.members
    ]


def _vector_inputs(
    catalog: Catalog,
    features: FeatureSet,
    split_id: str,
    record_ids: Sequence[str],
    *,
    reads: str,
    scaling: Scaling,
    digest: hashlib._Hash,
    left_out: Counter[str],
) -> tuple[NDArray[np.object_], Callable[[int], list[NDArray[np.float32]]]]:
    """Read vectors once; they enter the digest, so an embedding made anew makes a new run."""
    lacking: Literal["keep", "drop"] = "keep" if features.missing == "keep" else "drop"
    if reads == "windows":
        ids, blocks = window_sequences(catalog, features, record_ids)
    else:
        ids, blocks = matrix(catalog, features.members, record_ids, lacking=lacking)
    left_out["no vector"] = len(record_ids) - len(ids)
    if left_out["no vector"] and features.missing == "error":
        msg = f"{left_out['no vector']} records of the split lack a vector of {features.name!r}."
        raise NotEnoughDataError(msg, task=features.name, counts=left_out)
    for block in blocks:
        digest.update(block.data)
    if features.fit == "all":
        for member in features.members:
            every, (block,) = matrix(catalog, [member])
            digest.update("\0".join(every).encode())
            digest.update(block.data)
    if features.method != CONCATENATION:
        return ids, lambda _: blocks
    if features.scale == "none":
        whole = blocks[0] if len(blocks) == 1 else np.hstack(blocks)
        return ids, lambda _: [whole]
    statistics = scaling(catalog, features, split_id)
    out = np.empty((len(ids), sum(block.shape[1] for block in blocks)), np.float32)

    def scaled(repeat: int) -> list[NDArray[np.float32]]:
        fitted = [one[0 if features.fit == "all" else repeat] for one in statistics]
        return [fused(blocks, fitted, scale=features.scale, out=out)]

    return ids, scaled


def _signal_inputs(
    warehouse: Warehouse,
    catalog: Catalog,
    record_ids: Sequence[str],
    params: Mapping[str, Setting],
    *,
    digest: hashlib._Hash,
    left_out: Counter[str],
) -> tuple[NDArray[np.object_], Callable[[int], list[NDArray[np.float32]]]]:
    """Read signals once; the digest of each stands for its samples."""
    rows = catalog.table(
        "select record_id, rate_hz, signal_sha256 from records "
        "where record_id in (select unnest($ids)) order by record_id",
        {"ids": list(record_ids)},
    )
    digest.update(json.dumps(rows.to_pylist()).encode())
    rates = dict(zip(rows["record_id"].to_pylist(), rows["rate_hz"].to_pylist(), strict=True))
    ids, x, refused = signals(
        stream(warehouse, rates),
        rates,
        rate_hz=float(params["rate_hz"]),
        seconds=float(params["seconds"]),
    )
    left_out.update(refused)
    return ids, lambda _: [x]


def _folds(
    split: Sequence[Reshuffle], ids: NDArray[np.object_], *, digest: hashlib._Hash
) -> Iterable[Fold]:
    place = {record_id: i for i, record_id in enumerate(ids)}
    for one in split:
        sides = [
            np.array([place[i] for i in side if i in place], dtype=np.intp)
            for side in (one.train, one.test)
        ]
        for record_ids in (one.train, one.test):
            digest.update("\0".join([str(one.repeat), *record_ids, ""]).encode())
        yield Fold(one.repeat, *sides)


def check_reads(kind: type[Classifier], features: str) -> None:
    """Raise `UsageError` unless a classifier can be given a feature set."""
    if (kind.reads == "signal") != (features == SIGNAL):
        takes = f"the feature set {SIGNAL!r}" if kind.reads == "signal" else "vectors"
        msg = f"The classifier {kind.name!r} reads {takes}, not {features!r}."
        raise UsageError(msg)


def _check_unseen(
    catalog: Catalog, features: FeatureSet, ids: NDArray[np.object_], folds: Sequence[Fold]
) -> None:
    """Raise `UsageError` where weights were finetuned, so with labels, on records under test."""
    for model in dict.fromkeys(f"{one.model}@{one.version}" for one in features.members):
        if not leaked(catalog, model, ids.tolist()).get("finetune"):
            continue
        for fold in folds:
            count = leaked(catalog, model, ids[fold.test].tolist()).get("finetune", 0)
            if count:
                msg = (
                    f"{model!r} was finetuned on {count} of {len(fold.test)} test records of "
                    f"reshuffle {fold.repeat}, or on their patients: it knows their labels."
                )
                hint = "Evaluate it with --repeat, on the reshuffle whose training part it knows."
                raise UsageError(msg, hint=hint)


def _check_classes(
    labels: NDArray[np.float64], fold: Fold, *, target: Target, task: str, features: str
) -> None:
    """Raise `NotEnoughDataError` where a side of a reshuffle cannot be fitted to or scored."""
    known = np.unique(labels)
    for side, rows in (("training", fold.train), ("test", fold.test)):
        here = labels[rows]
        if target == "binary":
            positive = int(here.sum())
            if 0 < positive < len(rows):
                continue
            found = f"{positive} positive and {len(rows) - positive} negative records"
            wanted = "both classes are"
            counts = {"positive": positive, "negative": len(rows) - positive}
        elif target == "multiclass":
            if np.array_equal(np.unique(here), known):
                continue
            found = f"{len(np.unique(here))} of {len(known)} classes"
            wanted, counts = "every class is", {"records": len(rows)}
        else:
            if len(np.unique(here)) > 1 and (target != "survival" or (here > 0).any()):
                continue
            found = f"{len(rows)} records with nothing to tell apart"
            wanted, counts = "different labels are", {"records": len(rows)}
        msg = (
            f"The {side} part of reshuffle {fold.repeat} has {found} with features of "
            f"{features!r} for task {task!r}; {wanted} needed."
        )
        raise NotEnoughDataError(msg, task=task, counts=counts, hint="Embed or label more records.")
