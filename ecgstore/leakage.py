"""The leakage register: which datasets a model has seen in pretraining.

A model that was pretrained on the records it is tested on scores better than it will elsewhere.
The table ``pretraining`` says which corpora a model has seen; `ecgstore.corpora` says which
datasets those hold. What neither tells is unknown, never clean. Weights that ecgstore trained are
told apart from the published ones of the same model by their version; where they were trained in
this warehouse, `trained_records` tells record by record what they have seen.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

import pyarrow as pa

from ecgstore.corpora import CORPORA, DATASETS, content, sites
from ecgstore.errors import UsageError
from ecgstore.schema import table_schema

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from ecgstore.catalog import Catalog
    from ecgstore.models.spec import ModelSpec
    from ecgstore.warehouse import Warehouse

__all__ = [
    "Mark",
    "cautions",
    "datasets_of",
    "declare",
    "leaked",
    "marks",
    "register_pretraining",
    "summary",
]

_UNTRAINED = "untrained"
"""How ``models.source`` begins where a model has random weights."""

_NAMELESS = "no dataset"
_INHERITED = "seen by the weights it was started from"
_OURS = "trained by ecgstore in "
"""In ``pretraining.source``, before the ids of the runs that took records of the dataset."""


class Mark(NamedTuple):
    """What is known of a model and a dataset.

    Attributes:
        model: The model; with its version where ecgstore trained the weights.
        dataset: The dataset; behind it its site where only some of its sites are meant.
        status: ``seen``: the model was pretrained on records of it. ``clean``: what it was
            pretrained on is known, and so is that none of it is of this dataset. Else
            ``unknown``.
        reason: What tells that it is seen; empty otherwise.
    """

    model: str
    dataset: str
    status: Literal["clean", "seen", "unknown"]
    reason: str = ""


def marks(
    catalog: Catalog,
    models: Iterable[str],
    datasets: Iterable[str],
    *,
    record_ids: Sequence[str] = (),
) -> tuple[Mark, ...]:
    """Tell for each model and dataset whether the model has seen it in training.

    Args:
        catalog: The warehouse.
        models: Names of models, with ``@version`` where it is known.
        datasets: Names of datasets, as `datasets_of` gives them.
        record_ids: The records that are meant. Of weights that were trained in this warehouse a
            dataset is then clean if these, their patients and their signals were left out.
    """
    told: dict[str, dict[str, str]] = {}
    for row in catalog.table("select * from pretraining order by model, dataset").to_pylist():
        told.setdefault(row["model"], {})[row["dataset"]] = row["source"] or ""
    sources = catalog.table("select model, version, source from models").to_pylist()
    named = {(row["source"] or "").startswith(_UNTRAINED): set[str]() for row in sources}
    for row in sources:
        kind = (row["source"] or "").startswith(_UNTRAINED)
        named[kind] |= {row["model"], f"{row['model']}@{row['version']}"}
    untrained = named.get(True, set()) - named.get(False, set())
    datasets, found = list(dict.fromkeys(datasets)), dict[Mark, None]()
    for model in models:
        if "@" in model and model in told:
            seen = _exposed(catalog, _runs(told[model]), record_ids) if record_ids else {}
            marked = (_own_mark(catalog, model, one, told[model], seen) for one in datasets)
        else:
            bare = model.partition("@")[0]
            mine, blank = told.get(bare, {}), model in untrained
            marked = (_mark(bare, one, mine, untrained=blank) for one in datasets)
        found |= dict.fromkeys(marked)
    return tuple(found)


def leaked(catalog: Catalog, model: str, record_ids: Sequence[str]) -> dict[str, int]:
    """Count the records that weights have learned from, by the kind of training.

    A record counts if it, another of its patient, or the same signal under another id was in a
    training, or in the validation part that chose the best step.

    Args:
        catalog: The warehouse, in which the weights were trained and have embedded.
        model: ``model@version``.
        record_ids: The records.

    Returns:
        Kinds of training, such as ``finetune``, with more than no record.
    """
    rows = catalog.table(
        "select dataset, source from pretraining where model = $model", {"model": model}
    ).to_pylist()
    runs = _runs({row["dataset"]: row["source"] or "" for row in rows})
    if not runs:
        return {}
    kinds: dict[str, list[str]] = {}
    query = "select kind, run_id from trainings where run_id in (select unnest($runs)) order by all"
    for row in catalog.table(query, {"runs": runs}).to_pylist():
        kinds.setdefault(row["kind"], []).append(row["run_id"])
    counts = {
        kind: sum(n for n, _ in _exposed(catalog, mine, record_ids).values())
        for kind, mine in kinds.items()
    }
    return {kind: n for kind, n in counts.items() if n}


def datasets_of(catalog: Catalog, record_ids: Sequence[str]) -> list[str]:
    """Return the datasets of records, by site where a dataset is known to be made of several."""
    rows = catalog.table(
        "select distinct dataset, site from records where record_id in (select unnest($ids)) "
        "order by all",
        {"ids": list(record_ids)},
    ).to_pylist()
    return list(dict.fromkeys(_named(row["dataset"], row["site"]) for row in rows))


def summary(found: Sequence[Mark]) -> str:
    """Say all marks in short: ``clean``, or ``seen: ptbxl (ecgfm); unknown: mine (ecgfm)``.

    Sites that are marked alike are told as their dataset.
    """
    whole: dict[tuple[str, str], set[str]] = {}
    for mark in found:
        whole.setdefault((mark.model, _dataset(mark)), set()).add(mark.status)
    parts = []
    for status in ("seen", "unknown"):
        models: dict[str, dict[str, None]] = {}
        for mark in found:
            if mark.status == status:
                alike = len(whole[mark.model, _dataset(mark)]) == 1
                name = _dataset(mark) if alike else mark.dataset
                models.setdefault(name, {})[mark.model] = None
        listed = ", ".join(f"{name} ({', '.join(by)})" for name, by in models.items())
        parts += [f"{status}: {listed}"] if listed else []
    return "; ".join(parts) or "clean"


def cautions(found: Iterable[Mark]) -> list[str]:
    """Return a sentence for each model and dataset that it has seen."""
    reasons: dict[tuple[str, str], dict[str, None]] = {}
    for mark in found:
        if mark.status == "seen":
            reasons.setdefault((mark.model, _dataset(mark)), {})[mark.reason] = None
    return [
        f"{model} has seen {dataset} in pretraining ({', '.join(why)}), which flatters it."
        for (model, dataset), why in reasons.items()
    ]


def register_pretraining(
    warehouse: Warehouse,
    spec: ModelSpec,
    weights_name: str,
    *,
    also: Sequence[str] = (),
    version: str = "",
    trained: Mapping[str, object] | None = None,
) -> pa.Table | None:
    """Return the rows of ``pretraining`` that a model's weights call for and that are not there.

    Args:
        warehouse: Where the model embeds.
        spec: The facts about the model.
        weights_name: ``Encoder.weights_name``; untrained weights have seen nothing.
        also: Corpora or datasets besides those of the spec, such as the one a head was fitted on.
        version: ``Encoder.version``, by which weights that ecgstore trained are known.
        trained: ``Encoder.trained``; what it says takes the place of spec and `also`.
    """
    if weights_name.startswith(_UNTRAINED):
        return None
    model = f"{spec.name}@{version}" if trained else spec.name
    there: set[str] = set()
    if warehouse.files("pretraining"):
        rows = warehouse.table("pretraining").read(["model", "dataset"]).to_pylist()
        there = {row["dataset"] for row in rows if row["model"] == model}
    if trained:
        sources = _own_sources(trained)
    else:
        source = spec.citations[0] if spec.citations else f"the published weights of {spec.name}"
        sources = dict.fromkeys([*spec.pretraining, *also], source)
    new = [(model, name, source) for name, source in sources.items() if name not in there]
    return _rows(new) if new else None


def declare(warehouse: Warehouse, model: str, dataset: str, source: str) -> int:
    """Say that a model has seen a dataset in pretraining; what was said of the two is replaced.

    Naming a corpus of `ecgstore.corpora` also says that the model's pretraining is known, so that
    other datasets can be clean.

    Args:
        warehouse: Where it is kept.
        model: The model, without version.
        dataset: A dataset of ``records``, or a corpus.
        source: Who says so.

    Returns:
        1 if it was written, 0 if it was there.

    Raises:
        UsageError: Something is empty, or the model is named with a version or read-out.
    """
    for what, value in (("model", model), ("dataset", dataset), ("source", source)):
        if not value.strip():
            msg = f"The {what} is empty."
            raise UsageError(msg, hint="Name model, dataset and who says so.")
    if {"@", ":"} & {*model}:
        msg = f"{model!r} names more than a model: the register knows no versions and read-outs."
        raise UsageError(msg, hint=f"Write {model.partition('@')[0].partition(':')[0]!r}.")
    name = next((one for one in (*CORPORA, *DATASETS) if one.lower() == dataset.lower()), dataset)
    rows = _rows([(model, name, source)])
    return warehouse.replace("pretraining", rows, command=f"models seen {model}")


def _mark(
    model: str, dataset: str, told: Mapping[str, str], *, untrained: bool, whole: bool = False
) -> Mark:
    """Mark by what is told of datasets; `whole` says that nothing is left untold."""
    mine = content(dataset)
    for name, source in told.items():
        theirs = content(name)
        if name == dataset or (mine and theirs and mine.parts & theirs.parts):
            return Mark(model, dataset, "seen", name if name in CORPORA else source)
    if (untrained or whole) and not told:
        return Mark(model, dataset, "clean")
    contents = [content(name) for name in told]
    known = (whole or any(name in CORPORA for name in told)) and None not in contents
    perhaps = {part for one in contents if one for part in one.perhaps}
    clean = known and mine is not None and not mine.parts & perhaps
    return Mark(model, dataset, "clean" if clean else "unknown")


def _own_mark(
    catalog: Catalog,
    model: str,
    dataset: str,
    told: Mapping[str, str],
    seen: Mapping[str, tuple[int, int]],
) -> Mark:
    """Mark weights that ecgstore trained, record by record where that was in this warehouse."""
    if dataset not in seen:
        return _mark(model, dataset, told, untrained=False, whole=True)
    n, m = seen[dataset]
    if n:
        reason = f"trained here on {n} of {m} of these records or on their patients"
        return Mark(model, dataset, "seen", reason)
    known = catalog.table("select run_id from trainings")["run_id"].to_pylist()
    rest = {
        name: source
        for name, source in told.items()
        if not source.startswith(_OURS)
        or not {*_runs({name: source})} <= {*known}
        or (name != dataset and content(name) is not None)  # the same records in another form
    }
    return _mark(model, dataset, rest, untrained=False, whole=True)


def _own_sources(trained: Mapping[str, object]) -> dict[str, str]:
    """Return the datasets that weights have seen, and by which runs or weights before them."""
    before, own, runs = (
        [str(one) for one in found] if isinstance(found := trained.get(key), list) else []
        for key in ("before", "datasets", "runs")
    )
    ours = _OURS + ", ".join(runs)
    sources = dict.fromkeys(before, _INHERITED)
    return sources | {
        name: f"{sources[name]}; {ours}" if name in sources else ours for name in own or [_NAMELESS]
    }


def _runs(told: Mapping[str, str]) -> list[str]:
    """Return the ids of runs that sources name."""
    named = (source.partition(_OURS)[2].split(", ") for source in told.values())
    return [run for run in dict.fromkeys(one for runs in named for one in runs) if run]


def _exposed(
    catalog: Catalog, runs: Sequence[str], record_ids: Sequence[str]
) -> dict[str, tuple[int, int]]:
    """Return by dataset how many of some records, or of their patients, trainings have seen.

    Returns:
        The number, and how many of the records are of the dataset.
    """
    rows = catalog.table(
        """
        with learned as (
            select distinct record_id
            from trained_records
            where run_id in (select unnest($runs))
        ),
        known as (
            select
                coalesce(patient_id, record_id) as patient,
                signal_sha256
            from records
            semi join learned using (record_id)
        )
        select
            dataset,
            site,
            count(*) filter (
                coalesce(patient_id, record_id) in (select patient from known)
                or signal_sha256 in (
                    select signal_sha256 from known where signal_sha256 is not null
                )
            ) as n,
            count(*) as m
        from records
        where record_id in (select unnest($ids))
        group by all
        """,
        {"runs": list(runs), "ids": list(record_ids)},
    ).to_pylist()
    found: dict[str, tuple[int, int]] = {}
    for row in rows:
        name = _named(row["dataset"], row["site"])
        n, m = found.get(name, (0, 0))
        found[name] = (n + row["n"], m + row["m"])
    return found


def _named(dataset: str | None, site: str | None) -> str:
    return f"{dataset}/{site}" if dataset and site in sites(dataset) else dataset or _NAMELESS


def _dataset(mark: Mark) -> str:
    dataset, _, site = mark.dataset.partition("/")
    return dataset if site in sites(dataset) else mark.dataset


def _rows(rows: Sequence[tuple[str, str, str]]) -> pa.Table:
    columns = ("model", "dataset", "source")
    named = [dict(zip(columns, row, strict=True)) for row in rows]
    return pa.Table.from_pylist(named, schema=table_schema("pretraining").arrow)
